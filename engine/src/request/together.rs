//! Many requests that are put together before they enter a lane: what is a function of single blocks needs no session
//! to find its like.
//!
//! A chunk of the batch is one request of the engine: its inputs one after the other, its output cut where they met.
//! 94 times the raw loop in place of 20 (SoftHSM2, 16 bytes, 256 at a time, `hsmux load --op aes-ecb:16 --api many
//! --batch 256 --compare raw`, two runs two hours apart on 2 cores of a 2.5 GHz Xeon guest): the difference is cells,
//! places and cache lines that change hands.

use std::ops::Range;

use super::many::{Item, Many, run_all};
use super::{Request, trace};
use crate::clock::Time;
use crate::error::{Error, ErrorKind, Outcome, Result};
use crate::operation::{Joined, Operation};
use crate::payload::{Input, Payload};

/// Bytes of a chunk, and requests, at most: so that a large batch gives every session some. A call of 1 024 blocks takes
/// SoftHSM2 some 20 us; more in one would gain little, for a call of one block takes it nearly as long.
const CHUNK_BYTES: usize = 16 << 10;
const CHUNK_REQUESTS: usize = 1_024;

/// Some of the batch: the length of each, or why it may not run.
type Parts = Vec<Result<usize>>;

impl<'a, O: Operation> Many<'a, O> {
    /// Whether the requests are of single blocks by the token's own mechanism, share calls on every token that may run
    /// them, and are not traced one by one.
    pub(super) fn goes_together(&self) -> bool {
        let ecb = self.like.ask.mechanism().is_some_and(|mechanism| mechanism.is_ecb());
        self.items.len() > 1 && ecb && !trace::may_be_wanted() && self.like.merges()
    }

    /// In chunks. What is in one that fails runs again request by request, so that each has its own outcome: a block
    /// may be enciphered twice.
    pub(super) async fn run_together(mut self, started: Option<Time>) -> Vec<Result<O::Output>> {
        let mut chunks = Vec::new();
        let requests = self.chunks().map(|(parts, request)| {
            chunks.push(parts);
            (request, None)
        });
        let outputs = run_all(requests, started).await;
        let mut results = Vec::with_capacity(self.items.len());
        let mut failed = Vec::new();
        for (parts, output) in chunks.into_iter().zip(outputs) {
            match output {
                Ok(output) => self.cut(parts, &output, &mut results),
                Err(error) => {
                    let first = results.len();
                    results.extend(parts.into_iter().map(|part| Err(part.err().unwrap_or(error.clone()))));
                    if !is_of_all(&error) {
                        failed.push(first..results.len());
                    }
                }
            }
        }
        self.run_again(failed, started, &mut results).await;
        results
    }

    /// Runs what failed in chunks, all of it at once and each by itself.
    async fn run_again(
        &mut self,
        failed: Vec<Range<usize>>,
        started: Option<Time>,
        results: &mut [Result<O::Output>],
    ) {
        let places: Vec<_> = failed.into_iter().flatten().collect();
        let answers = self.split_off(&places).run_apart(started).await;
        for (place, answer) in places.into_iter().zip(answers) {
            let ran =
                |result: &Result<_>| result.as_ref().is_err_and(|error| error.outcome() != Outcome::NotDone);
            let did_not = answer.as_ref().is_err_and(|error| error.outcome() == Outcome::NotDone);
            // That it did not run again says nothing of the first time.
            if !(did_not && ran(&results[place])) {
                results[place] = answer;
            }
        }
    }

    /// The batch in chunks, each as a request.
    fn chunks(&self) -> impl Iterator<Item = (Parts, Request<'a, Joined>)> {
        let mut rest = &self.items[..];
        std::iter::from_fn(move || {
            let (mut parts, mut input) = (Parts::new(), Payload::default());
            // At once: growing would leave copies behind.
            let wanted = rest.iter().take(CHUNK_REQUESTS).map(|item| item.input.len()).sum();
            input.reserve_exact(CHUNK_BYTES.min(wanted));
            while let Some((item, others)) = rest.split_first()
                && parts.len() < CHUNK_REQUESTS
                && (parts.is_empty() || input.len() + item.input.len() <= CHUNK_BYTES)
            {
                parts.push(self.append(item, &mut input));
                rest = others;
            }
            (!parts.is_empty()).then(|| self.join(parts, input))
        })
    }

    fn append(&self, item: &Item<'a>, input: &mut Payload) -> Result<usize> {
        self.like.ask.check(self.like.facts(), &item.input)?;
        if input.is_empty() {
            input.reserve_exact(item.input.len());
        }
        input.extend_from_slice(&item.input);
        Ok(item.input.len())
    }

    fn join(&self, parts: Parts, input: Payload) -> (Parts, Request<'a, Joined>) {
        let build = |_: &_, bytes| Ok(Payload::new(bytes));
        let mut request = self.like.alike(self.like.ask.clone(), Input::Owned(input), build);
        let valid = parts.iter().filter(|part| part.is_ok()).count();
        request.requests = u32::try_from(valid).unwrap_or(u32::MAX);
        (parts, request)
    }

    /// The outputs of a chunk.
    fn cut(&self, parts: Parts, mut output: &[u8], results: &mut Vec<Result<O::Output>>) {
        results.extend(parts.into_iter().map(|part| {
            let (own, rest) = output.split_at_checked(part?).ok_or_else(too_short)?;
            output = rest;
            (self.like.build)(&self.like.ask, own.to_vec())
        }));
    }

    /// Some of the batch as a batch of its own.
    fn split_off(&mut self, places: &[usize]) -> Self {
        let take = |&place: &usize| Item::of_input(std::mem::take(&mut self.items[place].input));
        let items: Vec<_> = places.iter().map(take).collect();
        let like = self.like.alike(self.like.ask.clone(), Input::default(), self.like.build);
        Self::new(like, items.into_iter())
    }
}

/// Whether each request of a chunk would have got this error by itself, or may have: what has hung once, or lost a
/// session or a token, is not tried again.
const fn is_of_all(error: &Error) -> bool {
    use ErrorKind::{DeadlineExceeded, Draining, Forked, Hung, SessionLost, TokenLost};
    matches!(error.kind(), DeadlineExceeded | Draining | Forked | Hung | SessionLost | TokenLost)
}

/// A chunk is as long as its parts, or it has failed.
fn too_short() -> Error {
    Error::internal("a chunk shorter than its parts")
}
