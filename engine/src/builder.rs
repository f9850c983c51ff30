//! Building an engine.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

use crate::engine::Engine;
use crate::error::Result;

/// How an engine is built; made by [`Engine::builder`].
///
/// Each required part is a type state, so that forgetting one does not compile.
#[derive(Debug)]
pub struct Builder<M, T, P> {
    module: M,
    tokens: T,
    pin: P,
    pub(crate) settings: Settings,
}

/// A required part that is not given yet.
#[derive(Clone, Copy, Debug)]
pub struct Missing;

/// Everything that has a default.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) init_args: Option<String>,
    pub(crate) sessions: Option<usize>,
    pub(crate) deadline: Option<Duration>,
    pub(crate) requests_max: usize,
    pub(crate) bytes_max: usize,
    pub(crate) hang_limit: Option<Duration>,
}

impl Engine {
    /// Begins to build an engine: module, tokens and PIN are required.
    #[must_use]
    pub fn builder() -> Builder<Missing, Missing, Missing> {
        let settings = Settings {
            init_args: None,
            sessions: None,
            deadline: Some(Duration::from_secs(10)),
            requests_max: 65_536,
            bytes_max: 256 << 20,
            hang_limit: None,
        };
        Builder { module: Missing, tokens: Missing, pin: Missing, settings }
    }
}

impl<M, T, P> Builder<M, T, P> {
    /// The PKCS#11 module: the path of its shared library.
    pub fn module(self, path: impl Into<PathBuf>) -> Builder<PathBuf, T, P> {
        Builder { module: path.into(), tokens: self.tokens, pin: self.pin, settings: self.settings }
    }

    /// The tokens, each by label or serial number. All must hold the same keys under the same names where
    /// they hold them at all.
    pub fn tokens<S: Into<String>>(self, tokens: impl IntoIterator<Item = S>) -> Builder<M, Vec<String>, P> {
        let tokens = tokens.into_iter().map(Into::into).collect();
        Builder { module: self.module, tokens, pin: self.pin, settings: self.settings }
    }

    /// The user PIN of every token. It is sent once to each, and never to one whose lock-out flags warn.
    pub fn pin(self, pin: impl Into<SecretString>) -> Builder<M, T, SecretString> {
        Builder { module: self.module, tokens: self.tokens, pin: pin.into(), settings: self.settings }
    }

    /// A string for modules that read one from `C_Initialize` (NSS, p11-sim). Default: none.
    #[must_use]
    pub fn init_args(mut self, text: impl Into<String>) -> Self {
        self.settings.init_args = Some(text.into());
        self
    }

    /// Sessions per token.
    ///
    /// Bounds how many operations a token runs at once. Default: the number of cores, at least 2 and at most
    /// 8, which suits a software token; a network HSM needs about as many as its latency times its rate.
    /// Each costs a thread. If the token gives fewer, those are used.
    #[must_use]
    pub fn sessions(mut self, sessions: usize) -> Self {
        self.settings.sessions = Some(sessions);
        self
    }

    /// The deadline of requests that name none; `None` lets blocking callers run their requests themselves.
    ///
    /// Default 10 s: longer than any sane operation, shorter than a caller's patience.
    #[must_use]
    pub fn deadline(mut self, deadline: Option<Duration>) -> Self {
        self.settings.deadline = deadline;
        self
    }

    /// Most requests in flight; further ones are refused. Default 65 536.
    #[must_use]
    pub fn requests_max(mut self, requests: usize) -> Self {
        self.settings.requests_max = requests;
        self
    }

    /// Most bytes of requests in flight, inputs and outputs. Default 256 MiB.
    #[must_use]
    pub fn bytes_max(mut self, bytes: usize) -> Self {
        self.settings.bytes_max = bytes;
        self
    }

    /// How long a call may stay in the module before its thread and session are written off.
    ///
    /// Default: the larger of 5 s and 20 times the token's p99.9. Shorter frees waiters earlier; a limit below
    /// what a slow operation takes gives up healthy sessions.
    #[must_use]
    pub fn hang_limit(mut self, limit: Duration) -> Self {
        self.settings.hang_limit = Some(limit);
        self
    }
}

impl Builder<PathBuf, Vec<String>, SecretString> {
    /// Loads the module, logs in to every token, opens the sessions and lists the keys.
    ///
    /// # Errors
    /// `Module`, `TokenNotFound` (naming the tokens present), `PinRefused`, `PinLocked`, `Configuration`.
    ///
    /// # Blocking
    /// Until every token has answered, at most a minute each.
    pub fn build(self) -> Result<Engine> {
        Engine::start(&self.module, &self.tokens, &self.pin, self.settings)
    }
}
