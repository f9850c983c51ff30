//! How a request fails: what happened, whether to try again, and whether it ran.

use std::fmt;

/// A failure of the engine or of the token behind it.
///
/// Every error answers three questions: what happened ([`Error::kind`]), may the same request be sent
/// again ([`Error::retry`]), and did a token execute it ([`Error::outcome`]). The text of an error names
/// no payload, no PIN and no key label.
#[derive(Clone)]
pub struct Error {
    kind: ErrorKind,
    retry: Retry,
    outcome: Outcome,
    detail: Option<Box<str>>,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The configuration of the engine or of the request is not usable.
    Configuration,
    /// The PKCS#11 module could not be loaded, is no PKCS#11 module, or refused to initialise.
    Module,
    /// No token carries the label or serial asked for, or more than one does.
    TokenNotFound,
    /// The token refused the PIN. It was sent once and is not sent again. Or the
    /// [state directory](crate::Builder::state_dir) says that it was or may have been refused before: then nothing was sent.
    PinRefused,
    /// The PIN is locked, or its lock-out flags say that a wrong try could lock it; nothing was sent.
    PinLocked,
    /// The source of the PIN cannot be read, may be read by others, or holds no PIN; nothing was sent.
    PinUnavailable,
    /// No key has this name on any token of the engine; or a token does not know a key that a request was for, because
    /// it was destroyed elsewhere: [`Engine::key`](crate::Engine::key) tells whether another has its name now.
    KeyNotFound,
    /// More than one key has this name on one token, or tokens hold different keys under it.
    KeyAmbiguous,
    /// The algorithm does not fit the type or size of the key.
    KeyMismatch,
    /// The key exists, but its attributes forbid this use.
    NotPermitted,
    /// The state of the key's life forbids this use or this change ([`KeyState`](crate::KeyState)).
    KeyState,
    /// Another writer has changed the same key at the same time, or is about to: this change has not been made.
    Conflict,
    /// No token that holds the key offers the mechanism.
    MechanismUnavailable,
    /// The input or a parameter has a length or form that the algorithm does not allow.
    InvalidInput,
    /// The request is larger than the engine's cap on bytes in flight, so it could never be admitted.
    TooLarge,
    /// No room for the request now: the engine's limit on requests or bytes in flight is reached.
    Overloaded,
    /// The request's deadline passed before it was answered, or would have by the time of the answer.
    DeadlineExceeded,
    /// The engine is stopping or has stopped.
    Draining,
    /// The ciphertext was not accepted. Padding, tag and length faults look alike on purpose.
    DecryptFailed,
    /// The call into the module did not return within the hang limit.
    Hung,
    /// The session died; the engine replaces it.
    SessionLost,
    /// The token is gone, or no session to it is left.
    TokenLost,
    /// The token is busy or full.
    Busy,
    /// The token or its module reported a fault.
    Device,
    /// This process was forked after the module was loaded; PKCS#11 forbids its use here.
    Forked,
    /// The audit log could not be written to, or does not verify. Where the operation ran, its answer is withheld.
    Audit,
    /// The engine broke one of its own rules; please report it.
    Internal,
}

/// May the same request be sent again?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Retry {
    /// No: it would fail in the same way.
    Never,
    /// Yes, at once: another session or token may serve it.
    Now,
    /// Yes, after a pause: something is busy or being replaced.
    Later,
    /// Only after a person has changed something (a PIN, a configuration, a device).
    Operator,
}

/// Did a token execute the request?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It did not run.
    NotDone,
    /// It ran; the error is about what came after or about the result.
    Done,
    /// It may have run.
    Unknown,
}

/// The result of the engine's operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) const fn new(kind: ErrorKind, retry: Retry, outcome: Outcome) -> Self {
        Self { kind, retry, outcome, detail: None }
    }

    /// A mistake of the caller's that was found before anything ran.
    pub(crate) fn refused(kind: ErrorKind, detail: impl Into<Box<str>>) -> Self {
        Self::new(kind, Retry::Never, Outcome::NotDone).because(detail)
    }

    /// Something in the environment that a person has to change.
    pub(crate) fn operator(kind: ErrorKind, detail: impl Into<Box<str>>) -> Self {
        Self::new(kind, Retry::Operator, Outcome::NotDone).because(detail)
    }

    pub(crate) fn internal(detail: impl Into<Box<str>>) -> Self {
        Self::new(ErrorKind::Internal, Retry::Never, Outcome::Unknown).because(detail)
    }

    /// The one error for every ciphertext that was not accepted, whatever was wrong with it.
    pub(crate) const fn decrypt_failed() -> Self {
        Self::new(ErrorKind::DecryptFailed, Retry::Never, Outcome::Done)
    }

    /// The same error, which the engine itself does not try again.
    pub(crate) fn for_good(mut self) -> Self {
        if self.retry == Retry::Now {
            self.retry = Retry::Later;
        }
        self
    }

    /// The same error, to be tried again at once.
    pub(crate) fn at_once(mut self) -> Self {
        self.retry = Retry::Now;
        self
    }

    /// The same error, where an earlier attempt may have been executed.
    pub(crate) fn after_unknown(mut self) -> Self {
        if self.outcome == Outcome::NotDone {
            self.outcome = Outcome::Unknown;
        }
        self
    }

    pub(crate) fn because(mut self, detail: impl Into<Box<str>>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// What happened.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether the same request may be sent again.
    #[must_use]
    pub const fn retry(&self) -> Retry {
        self.retry
    }

    /// What it says beyond its kind.
    pub(crate) fn why(&self) -> &str {
        self.detail.as_deref().unwrap_or_default()
    }

    /// Whether a token executed the request.
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        self.outcome
    }
}

impl Outcome {
    /// The name of this outcome in spans: lower case, words joined by hyphens.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotDone => "not-done",
            Self::Done => "done",
            Self::Unknown => "unknown",
        }
    }
}

impl ErrorKind {
    /// Every kind, in the order of their declaration.
    pub const ALL: [Self; 27] = [
        Self::Configuration,
        Self::Module,
        Self::TokenNotFound,
        Self::PinRefused,
        Self::PinLocked,
        Self::PinUnavailable,
        Self::KeyNotFound,
        Self::KeyAmbiguous,
        Self::KeyMismatch,
        Self::NotPermitted,
        Self::KeyState,
        Self::Conflict,
        Self::MechanismUnavailable,
        Self::InvalidInput,
        Self::TooLarge,
        Self::Overloaded,
        Self::DeadlineExceeded,
        Self::Draining,
        Self::DecryptFailed,
        Self::Hung,
        Self::SessionLost,
        Self::TokenLost,
        Self::Busy,
        Self::Device,
        Self::Forked,
        Self::Audit,
        Self::Internal,
    ];

    /// The name of this kind in metrics and spans: lower case, words joined by hyphens.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Module => "module",
            Self::TokenNotFound => "token-not-found",
            Self::PinRefused => "pin-refused",
            Self::PinLocked => "pin-locked",
            Self::PinUnavailable => "pin-unavailable",
            Self::KeyNotFound => "key-not-found",
            Self::KeyAmbiguous => "key-ambiguous",
            Self::KeyMismatch => "key-mismatch",
            Self::NotPermitted => "not-permitted",
            Self::KeyState => "key-state",
            Self::Conflict => "conflict",
            Self::MechanismUnavailable => "mechanism-unavailable",
            Self::InvalidInput => "invalid-input",
            Self::TooLarge => "too-large",
            Self::Overloaded => "overloaded",
            Self::DeadlineExceeded => "deadline-exceeded",
            Self::Draining => "draining",
            Self::DecryptFailed => "decrypt-failed",
            Self::Hung => "hung",
            Self::SessionLost => "session-lost",
            Self::TokenLost => "token-lost",
            Self::Busy => "busy",
            Self::Device => "device",
            Self::Forked => "forked",
            Self::Audit => "audit",
            Self::Internal => "internal",
        }
    }

    /// One line for people, lower case and without a full stop.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Configuration => "configuration not usable",
            Self::Module => "PKCS#11 module not usable",
            Self::TokenNotFound => "token not found",
            Self::PinRefused => "the token refused the PIN",
            Self::PinLocked => "the PIN is locked or close to it, so it was not sent",
            Self::PinUnavailable => "PIN source not usable",
            Self::KeyNotFound => "no such key",
            Self::KeyAmbiguous => "key is ambiguous",
            Self::KeyMismatch => "algorithm does not fit the key",
            Self::NotPermitted => "the key's attributes forbid this use",
            Self::KeyState => "the state of the key forbids it",
            Self::Conflict => "another writer changes the same key",
            Self::MechanismUnavailable => "no token with this key offers the mechanism",
            Self::InvalidInput => "input not valid for the algorithm",
            Self::TooLarge => "request larger than the cap on bytes in flight",
            Self::Overloaded => "too many requests in flight",
            Self::DeadlineExceeded => "deadline exceeded",
            Self::Draining => "the engine is stopping",
            Self::DecryptFailed => "ciphertext not accepted",
            Self::Hung => "the call into the module did not return",
            Self::SessionLost => "session lost",
            Self::TokenLost => "token lost",
            Self::Busy => "token busy",
            Self::Device => "token or module fault",
            Self::Forked => "process forked after the module was loaded",
            Self::Audit => "audit log not usable",
            Self::Internal => "internal error",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.as_str())?;
        match &self.detail {
            Some(detail) => write!(f, ": {detail}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.kind)
            .field("retry", &self.retry)
            .field("outcome", &self.outcome)
            .field("detail", &self.detail)
            .finish()
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_stands_at_its_own_place_in_the_list() {
        ErrorKind::ALL.iter().enumerate().for_each(|(i, &kind)| assert_eq!(kind as usize, i));
    }

    #[test]
    fn every_kind_has_its_own_name() {
        let names: std::collections::HashSet<_> = ErrorKind::ALL.iter().map(|kind| kind.name()).collect();
        assert_eq!(names.len(), ErrorKind::ALL.len());
    }

    #[test]
    fn an_error_is_one_plain_line() {
        let error = Error::refused(ErrorKind::KeyNotFound, "asked of 2 tokens");
        assert_eq!(error.to_string(), "no such key: asked of 2 tokens");
        assert_eq!((error.retry(), error.outcome()), (Retry::Never, Outcome::NotDone));
    }
}
