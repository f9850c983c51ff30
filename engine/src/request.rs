//! Requests: what is asked, before it is in flight.

mod future;
mod inline;
mod many;
mod pipeline;
mod queue;

use std::borrow::Cow;
use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroize;

use crate::clock::{Time, now};
use crate::engine::Shared;
use crate::error::{Error, ErrorKind, Outcome, Result};
use crate::keys::KeyVersion;
use crate::operation::{Ask, Operation};
use crate::pending::Pending;
use crate::schedule::fairness::Priority;
use crate::schedule::node::expired;
use crate::schedule::worker::may_repeat;
use crate::token::facts::KeyFacts;

pub use future::RequestFuture;
pub use many::Many;
pub use pipeline::{Pipeline, pipeline};
pub(crate) use queue::Finish;

/// A request that nothing has happened to yet: it starts with [`Request::wait`], [`Request::wait_into`],
/// [`Request::submit`] or `.await`.
///
/// ```no_run
/// # fn main() -> hsmux::Result<()> {
/// # let engine = hsmux::Engine::builder().module("m").tokens(["t"]).pin("1234".to_owned()).build()?;
/// use std::time::Duration;
/// let key = engine.key("card-signing")?;
/// let request = key.sign(hsmux::Ecdsa::P256_SHA256, b"pay 10 to A".as_slice());
/// let signature = request.deadline_in(Duration::from_millis(50)).wait()?;
/// # Ok(())
/// # }
/// ```
#[must_use = "a request does nothing until it is waited for, awaited or submitted"]
pub struct Request<'a, O: Operation> {
    shared: &'a Arc<Shared>,
    key: Option<&'a Arc<KeyVersion>>,
    ask: Ask,
    input: Cow<'a, [u8]>,
    build: Build<O>,
    deadline: Deadline,
    priority: Priority,
    tenant: u64,
    waits_for_room: bool,
}

/// Makes the output of the finished bytes.
pub(crate) type Build<O> = fn(&Ask, Vec<u8>) -> Result<<O as Operation>::Output>;

#[derive(Clone, Copy)]
enum Deadline {
    Engine,
    In(Option<Duration>),
}

/// A request that was not accepted, and why.
pub struct Refused<'a, O: Operation> {
    /// The request as it was: it may be submitted again.
    pub request: Request<'a, O>,
    /// Why it was refused.
    pub error: Error,
}

impl<'a, O: Operation> Request<'a, O> {
    pub(crate) fn new(
        shared: &'a Arc<Shared>,
        key: Option<&'a Arc<KeyVersion>>,
        ask: Ask,
        input: Cow<'a, [u8]>,
        build: Build<O>,
    ) -> Self {
        let (deadline, priority) = (Deadline::Engine, Priority::Normal);
        Self { shared, key, ask, input, build, deadline, priority, tenant: 0, waits_for_room: false }
    }

    /// Answers the waiter after this time at the latest, counted from when the request starts.
    pub fn deadline_in(self, limit: Duration) -> Self {
        self.deadline(Some(limit))
    }

    /// Sets or takes away the deadline; without this call the engine's default holds (10 s).
    ///
    /// `None` lets a blocking caller run the request itself, on its own thread, if a session is idle: the
    /// fastest way, but a call that hangs in the module then holds the caller.
    pub fn deadline(mut self, limit: Option<Duration>) -> Self {
        self.deadline = Deadline::In(limit);
        self
    }

    /// Weight against other requests that wait for the same sessions.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// On whose behalf: requests of one tenant do not hold up another's on the same key.
    pub fn tenant(mut self, tenant: u64) -> Self {
        self.tenant = tenant;
        self
    }

    /// Waits for room instead of being refused when the engine's limit on requests or bytes in flight is
    /// reached, until the deadline.
    pub fn wait_for_room(mut self) -> Self {
        self.waits_for_room = true;
        self
    }

    /// Runs the request and waits for its output.
    ///
    /// # Errors
    /// Whatever [`ErrorKind`] names; `Overloaded` if there is no room for the request now.
    ///
    /// # Blocking
    /// Until the answer or the deadline. Without a deadline and with an idle session, the calling thread runs
    /// the request itself.
    pub fn wait(mut self) -> Result<O::Output> {
        let mask = self.check()?;
        if self.ask.call().is_none() {
            return self.run_on_host();
        }
        if self.limit().is_none() {
            match self.run_inline(mask) {
                Some(Err(error)) if may_repeat(&error) => {}
                Some(result) => return result,
                None => {}
            }
        }
        self.queue_for_room(mask).map_err(|refused| refused.error)?.wait()
    }

    /// Runs the request, waits, and leaves the output's bytes in `out`; returns how many they are.
    ///
    /// The bytes are those of the output's `as_bytes`. On the inline way the module writes straight into
    /// `out` if that has room for what the module may ask for (for AES-GCM decryption 16 bytes more than the
    /// plaintext); otherwise they are copied out of the engine's memory, so that a late write of an abandoned
    /// call never meets the caller's.
    ///
    /// # Errors
    /// As [`Request::wait`]; `InvalidInput` before anything runs if `out` is too short. `out` is wiped on
    /// every error that comes after the token was asked.
    ///
    /// # Blocking
    /// As [`Request::wait`].
    pub fn wait_into(mut self, out: &mut [u8]) -> Result<usize>
    where
        O::Output: AsRef<[u8]>,
    {
        let mask = self.check()?;
        let needed = self.ask.final_len_max(self.facts(), self.input.len());
        if out.len() < needed {
            let text = format!("the output takes {needed} bytes, the buffer {}", out.len());
            return Err(Error::refused(ErrorKind::InvalidInput, text));
        }
        if self.limit().is_none()
            && let Some(result) = self.run_inline_into(mask, out)
        {
            match result {
                Err(error) if may_repeat(&error) => {}
                result => return result.inspect_err(|_| out.zeroize()),
            }
        }
        let output = self.queue_for_room(mask).map_err(|refused| refused.error)?.wait()?;
        let bytes = output.as_ref();
        // As long as the plan said at most: `needed` bounds it.
        out[..bytes.len()].copy_from_slice(bytes);
        Ok(bytes.len())
    }

    /// Puts the request in flight.
    ///
    /// # Errors
    /// [`Refused`], with the request, if it is not valid or there is no room for it now.
    ///
    /// # Blocking
    /// Not at all, unless [`Request::wait_for_room`] was asked for: then until there is room or the deadline
    /// has passed, so not on a thread that polls futures. A long message is hashed here.
    ///
    /// # Cancel safety
    /// Dropping the [`Pending`] withdraws the request if no session has begun it; else its result is dropped.
    pub fn submit(self) -> std::result::Result<Pending<O>, Box<Refused<'a, O>>> {
        match self.check() {
            Ok(mask) => self.queue_for_room(mask),
            Err(error) => Err(Box::new(Refused { request: self, error })),
        }
    }

    /// Everything that can be said without a session. Returns the tokens that can run the request.
    fn check(&self) -> Result<u64> {
        if crate::pkcs11::forked() {
            return Err(Error::refused(ErrorKind::Forked, "build the engine after the fork"));
        }
        self.shared.core.check_open()?;
        if self.limit().is_some_and(|limit| limit.is_zero()) {
            return Err(expired(Outcome::NotDone));
        }
        self.ask.check(self.facts(), self.input.len())?;
        let mask = self.mask();
        if mask == 0 && self.ask.call().is_some() {
            let text = "asked of every token that holds the key";
            return Err(Error::refused(ErrorKind::MechanismUnavailable, text));
        }
        Ok(mask)
    }

    fn facts(&self) -> Option<&KeyFacts> {
        self.key.map(|version| &version.facts)
    }

    fn limit(&self) -> Option<Duration> {
        match self.deadline {
            Deadline::Engine => self.shared.deadline,
            Deadline::In(limit) => limit,
        }
    }

    /// When the request started, which is now, and when it is to be answered.
    fn times(&self) -> (Time, Option<Time>) {
        let started = now();
        (started, self.limit().map(|limit| started.after(limit)))
    }

    /// The tokens that can run it.
    fn mask(&self) -> u64 {
        match (self.ask.mechanism(), self.key) {
            (Some(mechanism), Some(version)) => version.eligible(mechanism),
            // Without a mechanism: random bytes, which every token gives.
            _ => u64::MAX >> (64 - self.shared.tokens.len()),
        }
    }

    fn run_on_host(&self) -> Result<O::Output> {
        let facts = self.facts().ok_or_else(|| Error::internal("a host operation without a key"))?;
        let verdict = self.ask.verify_on_host(facts, &self.input)?;
        (self.build)(&self.ask, vec![u8::from(verdict.is_valid())])
    }
}

impl<'a, O: Operation> IntoFuture for Request<'a, O> {
    type Output = Result<O::Output>;
    type IntoFuture = RequestFuture<'a, O>;

    fn into_future(self) -> Self::IntoFuture {
        RequestFuture::new(self)
    }
}

impl<O: Operation> std::fmt::Debug for Request<'_, O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request")
            .field("kind", &self.ask.kind())
            .field("size", &self.input.len())
            .finish_non_exhaustive()
    }
}

impl<O: Operation> std::fmt::Debug for Refused<'_, O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Refused").field("error", &self.error).finish_non_exhaustive()
    }
}
