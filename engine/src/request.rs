//! Requests: what is asked, before it is in flight.

use std::borrow::Cow;
use std::cell::Cell;
use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::clock::now;
use crate::engine::Shared;
use crate::error::{Error, ErrorKind, Outcome, Result};
use crate::keys::KeyVersion;
use crate::offload::{POLL_BYTES_MAX, offload};
use crate::operation::{Ask, Operation, Scratch};
use crate::pending::Pending;
use crate::schedule::core::LaneId;
use crate::schedule::cost::PLANS;
use crate::schedule::fairness::Priority;
use crate::schedule::node::{Node, Payload, expired};
use crate::schedule::worker::may_repeat;
use crate::token::facts::{KeyFacts, KeyKind};
use crate::token::session::Fate;
use crate::token::task::{Call, Task};

/// A request that nothing has happened to yet: it starts with [`Request::wait`], [`Request::submit`] or
/// `.await`.
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

/// What remains to be done with the answer.
pub(crate) struct Finish<O: Operation> {
    pub(crate) ask: Ask,
    pub(crate) version: Option<Arc<KeyVersion>>,
    pub(crate) build: Build<O>,
    /// Room that the finished form may need; the answer's buffer was made with it.
    pub(crate) output_len: usize,
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
        Self { shared, key, ask, input, build, deadline, priority, tenant: 0 }
    }

    /// Answers the waiter after this time at the latest, counted from submission.
    pub fn deadline_in(mut self, limit: Duration) -> Self {
        self.deadline = Deadline::In(Some(limit));
        self
    }

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

    /// Runs the request and waits for its output.
    ///
    /// # Errors
    /// Whatever [`ErrorKind`] names; `Overloaded` if there is no room for the request now.
    ///
    /// # Blocking
    /// Until the answer or the deadline. Without a deadline and with an idle session, the calling thread runs
    /// the request itself.
    pub fn wait(mut self) -> Result<O::Output> {
        self.check()?;
        if self.ask.call().is_none() {
            return self.run_on_host();
        }
        if self.limit().is_none() {
            match self.run_inline() {
                Some(Err(error)) if may_repeat(&error) => {}
                Some(result) => return result,
                None => {}
            }
        }
        self.queue(None).map_err(|refused| refused.error)?.wait()
    }

    /// Puts the request in flight.
    ///
    /// # Errors
    /// [`Refused`], with the request, if it is not valid or there is no room for it now.
    ///
    /// # Cancel safety
    /// Dropping the [`Pending`] withdraws the request if no session has begun it; else its result is dropped.
    pub fn submit(self) -> std::result::Result<Pending<O>, Box<Refused<'a, O>>> {
        match self.check() {
            Ok(()) => self.queue(None),
            Err(error) => Err(Box::new(Refused { request: self, error })),
        }
    }

    fn check(&self) -> Result<()> {
        if crate::pkcs11::forked() {
            return Err(Error::refused(ErrorKind::Forked, "build the engine after the fork"));
        }
        self.shared.core.check_open()?;
        if self.limit().is_some_and(|limit| limit.is_zero()) {
            return Err(expired(Outcome::NotDone));
        }
        self.ask.check(self.facts(), self.input.len())
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

    fn run_on_host(&self) -> Result<O::Output> {
        let facts = self.facts().ok_or_else(|| Error::internal("a host operation without a key"))?;
        let verdict = self.ask.verify_on_host(facts, &self.input)?;
        (self.build)(&self.ask, vec![u8::from(verdict.is_valid())])
    }

    /// Runs the request on this thread, if a session of the eligible set is idle and nothing is queued for it.
    fn run_inline(&mut self) -> Option<Result<O::Output>> {
        thread_local!(static LAST: Cell<(usize, usize)> = const { Cell::new((0, 0)) });
        let mut seat = self.shared.core.lease_inline(self.mask(), LAST.get())?;
        LAST.set((seat.place.token, seat.place.index));
        self.ask.bind(&self.input);
        let Some(task) = self.task() else {
            self.shared.core.release(seat);
            return Some(Err(Error::internal("an operation without a call")));
        };
        let mut scratch = Scratch::new();
        let input = self.ask.encode(&self.input, &mut scratch);
        let mut output = Zeroizing::new(vec![0; task.output_len]);
        let start = now();
        seat.watch.enter(start, true);
        let result = seat.session.run(&task, input, &mut output);
        let end = now();
        seat.watch.leave();
        match result {
            Ok(written) => {
                seat.recorder.served_inline(self.ask.kind(), end.ns_since(start));
                self.shared.core.release(seat);
                Some(self.finish(output, written))
            }
            Err(failed) => {
                seat.recorder.failed(self.ask.kind(), failed.error.kind());
                match failed.fate {
                    Fate::Keep => self.shared.core.release(seat),
                    fate => self.shared.core.retire(seat, fate, None),
                }
                Some(Err(failed.error))
            }
        }
    }

    fn finish(&self, mut output: Payload, written: usize) -> Result<O::Output> {
        let len = self.ask.finish(self.facts(), &mut output, written)?;
        output.truncate(len);
        (self.build)(&self.ask, std::mem::take(&mut *output))
    }

    /// Verifies away from the thread that polls.
    async fn offload_to_host(self) -> Result<O::Output> {
        let version =
            self.key.map(Arc::clone).ok_or_else(|| Error::internal("a host operation without a key"))?;
        let (ask, input, build) = (self.ask, self.input.into_owned(), self.build);
        offload(move || {
            let verdict = ask.verify_on_host(&version.facts, &input)?;
            build(&ask, vec![u8::from(verdict.is_valid())])
        })
        .await?
    }

    /// Hashes a long input away from the thread that polls.
    async fn offload_encoding(&self) -> Result<Payload> {
        let (ask, input) = (self.ask.clone(), self.input.clone().into_owned());
        offload(move || Zeroizing::new(ask.encode(&input, &mut Scratch::new()).to_vec())).await
    }

    /// Queues the request: from here on everything is owned. `encoded` is what the token is given, if that
    /// has been prepared.
    fn queue(mut self, encoded: Option<Payload>) -> std::result::Result<Pending<O>, Box<Refused<'a, O>>> {
        self.ask.bind(&self.input);
        let submitted = now();
        let deadline = self.limit().map(|limit| submitted.after(limit));
        let parts =
            self.task().ok_or_else(|| Error::internal("an operation without a call")).and_then(|task| {
                let permit =
                    self.shared.core.admission.admit(self.input.len() + task.output_len + NODE_BYTES)?;
                Ok((task, permit))
            });
        let (task, permit) = match parts {
            Ok(parts) => parts,
            Err(error) => {
                self.shared.core.counters.refused();
                return Err(Box::new(Refused { request: self, error }));
            }
        };
        let encode = || Zeroizing::new(self.ask.encode(&self.input, &mut Scratch::new()).to_vec());
        let input = encoded.unwrap_or_else(encode);
        let (kind, output_len) = (self.ask.kind(), task.output_len);
        let node = Arc::new(Node::new(Some(task), kind, input, submitted, deadline, permit, None));
        let key = self.key.map_or(0, |version| version.number);
        let id = LaneId { key, kind, priority: self.priority, tenant: self.tenant };
        let lane = self.shared.core.lane(id, self.mask());
        self.shared.core.submit(&lane, [Arc::clone(&node)]);
        let finish =
            Finish { ask: self.ask, version: self.key.map(Arc::clone), build: self.build, output_len };
        Ok(Pending::new(Arc::clone(&self.shared.core), node, deadline, finish))
    }

    fn task(&self) -> Option<Task> {
        let output_len = self.ask.output_len(self.facts(), self.input.len());
        let handles = self.key.map(|version| Arc::clone(&version.handles));
        let plan = plan(self.ask.kind().index(), self.facts());
        Some(Task { call: self.ask.call()?.clone(), handles, output_len, plan })
    }

    /// The tokens that can run it.
    fn mask(&self) -> u64 {
        let mechanism = match self.ask.call() {
            Some(Call::Sign(mechanism) | Call::Encrypt(mechanism) | Call::Decrypt(mechanism)) => mechanism,
            Some(Call::Random) | None => return u64::MAX >> (64 - self.shared.tokens.len()),
        };
        self.key.map_or(0, |version| version.eligible(mechanism.mechanism_type(), &self.shared.tokens))
    }
}

impl<O: Operation> Finish<O> {
    pub(crate) fn finish(&self, mut output: Payload) -> Result<O::Output> {
        let written = output.len();
        let facts = self.version.as_ref().map(|version| &version.facts);
        output.resize(self.output_len.max(written), 0);
        let len = self.ask.finish(facts, &mut output, written)?;
        output.truncate(len);
        (self.build)(&self.ask, std::mem::take(&mut *output))
    }
}

impl<'a, O: Operation> IntoFuture for Request<'a, O> {
    type Output = Result<O::Output>;
    type IntoFuture = std::pin::Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            self.check()?;
            if self.ask.call().is_none() {
                return self.offload_to_host().await;
            }
            let encoded = match self.ask.hashes() && self.input.len() > POLL_BYTES_MAX {
                true => Some(self.offload_encoding().await?),
                false => None,
            };
            self.queue(encoded).map_err(|refused| refused.error)?.await
        })
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

/// What a request in flight takes besides its input and output: node, lane entry, registration.
const NODE_BYTES: usize = 512;

/// Kind of plan: operation and size of the key in four steps.
fn plan(operation: usize, facts: Option<&KeyFacts>) -> usize {
    let size = match facts.map(|facts| facts.kind) {
        Some(KeyKind::Rsa { bits }) if bits > 3_072 => 3,
        Some(KeyKind::Rsa { bits }) if bits > 2_048 => 2,
        Some(KeyKind::Ec(curve)) if curve.field_len() > 32 => 1,
        _ => 0,
    };
    (operation * 4 + size) % PLANS
}
