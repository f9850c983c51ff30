//! Joints: requests that are put together before they enter a lane. Blocks, and what is blocks with an exclusive or
//! around them, need no session to find their like.
//!
//! A joint is one request of the engine: the inputs of its requests one after the other, its output cut where they meet.
//! It has two of them at least: a request without company runs as what it is.

use super::{Build, Request, RequestId, trace};
use crate::audit::record::Gathered;
use crate::error::{Error, ErrorKind, Outcome, Result};
use crate::operation::{Ask, Joint, Operation, Scratch};
use crate::payload::{Input, Payload};
use crate::token::facts::KeyKind;
use crate::token::merge::Merge;
use crate::token::task::Part;

/// Bytes, and requests, at most: so that many of them give every session some. A call of 1 024 blocks takes SoftHSM2
/// some 20 us; more in one would gain little, for a call of one block takes it nearly as long.
pub(super) const BYTES_MAX: usize = 16 << 10;
pub(super) const REQUESTS_MAX: usize = 1_024;

/// Requests that share calls in one way, on their way into one.
pub(super) struct Joining {
    merge: Merge,
    input: Payload,
    output_len: usize,
    parts: Vec<Part>,
    requests: usize,
    /// What the audit log says of them, if there is one.
    recorded: Option<Gathered>,
}

impl Joining {
    /// For so many requests that share calls in this way, with inputs of so many bytes together.
    pub(super) fn new(merge: Merge, requests: usize, bytes: usize, is_recorded: bool) -> Self {
        let mut input = Payload::default();
        // At once: growing would leave copies behind.
        input.reserve_exact(bytes);
        let parts = Vec::with_capacity(if merge.is_of_blocks() { 0 } else { requests });
        let recorded = is_recorded.then(Gathered::default);
        Self { merge, input, output_len: 0, parts, requests: 0, recorded }
    }

    /// Adds a request that has been checked. Returns how much of the output is its own.
    pub(super) fn add(
        &mut self,
        ask: &Ask,
        key: Option<KeyKind>,
        input: &[u8],
        id: Option<RequestId>,
    ) -> usize {
        if let Some(recorded) = &mut self.recorded {
            recorded.add(&id.map(|id| id.to_string()).unwrap_or_default(), input);
        }
        let output = ask.output_len(key, input.len());
        let mut scratch = Scratch::new();
        let encoded = ask.encode(input, &mut scratch);
        if !self.merge.is_of_blocks() {
            let mut ask = ask.clone();
            ask.bind(input);
            self.parts.extend(ask.into_call().map(|call| Part { call, input: encoded.len(), output }));
        }
        self.input.extend_from_slice(encoded);
        self.output_len += output;
        self.requests += 1;
        output
    }

    /// All that were added, which are like this one.
    pub(super) fn join<'a, O: Operation>(self, like: &Request<'a, O>) -> Request<'a, Joint> {
        let build = |_: &_, bytes| Ok(Payload::new(bytes));
        let ask = like.ask.joint(self.output_len, self.parts);
        let mut request = like.alike(ask, Input::Owned(self.input), build);
        request.requests = u32::try_from(self.requests).unwrap_or(u32::MAX);
        request.uses = self.recorded.map(|all| Box::new(all.end()));
        request
    }
}

impl<O: Operation> Request<'_, O> {
    /// How it may be put together with its like: they share calls on every token that may run them, any number of them
    /// takes one call, and they are not traced one by one.
    pub(super) fn joins(&self) -> Option<Merge> {
        if self.trace.is_some() || trace::may_be_wanted() || self.input.len() > BYTES_MAX {
            return None;
        }
        self.merges().filter(|merge| merge.takes_one_call())
    }
}

/// The output of a request, of its part of the joint output.
pub(super) fn part_of<O: Operation>(
    ask: &Ask,
    key: Option<KeyKind>,
    build: Build<O>,
    output: &[u8],
) -> Result<O::Output> {
    let mut own = Payload::new(output.to_vec());
    let len = ask.finish(key, &mut own, output.len())?;
    own.truncate(len);
    build(ask, std::mem::take(&mut *own))
}

/// Whether each of the requests would have got this error by itself, or may have: what has hung once, or lost a session
/// or a token, is not tried again.
pub(super) const fn is_of_all(error: &Error) -> bool {
    use ErrorKind::{DeadlineExceeded, Draining, Forked, Hung, SessionLost, TokenLost};
    matches!(error.kind(), DeadlineExceeded | Draining | Forked | Hung | SessionLost | TokenLost)
}

/// The answer of a request that has failed with others and ran again by itself: that it did not run again says nothing
/// of the first time.
pub(super) fn later_of<T>(first: &Error, again: Result<T>) -> Result<T> {
    let did_not = again.as_ref().is_err_and(|error| error.outcome() == Outcome::NotDone);
    if did_not && first.outcome() != Outcome::NotDone { Err(first.clone()) } else { again }
}

/// The output is as long as its parts, or the request has failed.
pub(super) fn too_short() -> Error {
    Error::internal("an output shorter than its parts")
}
