//! Many requests that are put together before they enter a lane: what is a function of single blocks needs no session
//! to find its like.
//!
//! A chunk of the batch is one request of the engine: its inputs one after the other, its output cut where they met.
//! Each as a request of its own they cost 960 to 1 250 ns (ECB of 16 bytes, 256 at a time, null module, CPU of all
//! threads on a slow machine), nearly all of it cells, places and cache lines that change hands.

use std::borrow::Cow;

use super::many::{Item, Many, run_all};
use super::{Request, trace};
use crate::clock::Time;
use crate::error::{Error, ErrorKind, Result};
use crate::operation::{Blocks, Operation};
use crate::payload::Payload;

/// Bytes of a chunk, and requests, at most: few enough that a large batch has some for every session.
const CHUNK_BYTES: usize = 16 << 10;
const CHUNK_REQUESTS: usize = 1_024;

/// Some of the batch: the length of each, or why it may not run.
type Parts = Vec<Result<usize>>;

impl<'a, O: Operation> Many<'a, O> {
    /// Whether the requests are of single blocks by the token's own mechanism, share calls on every token that may run
    /// them, and are not traced one by one.
    pub(super) fn goes_together(&self) -> bool {
        let ecb = self.like.ask.mechanism().is_some_and(|mechanism| mechanism.is_ecb());
        self.items.len() > 1 && ecb && self.like.merges() && !trace::may_be_wanted()
    }

    /// In chunks. One that fails runs again request by request, so that each has its own outcome: a block may be
    /// enciphered twice.
    pub(super) async fn run_together(mut self, started: Option<Time>) -> Vec<Result<O::Output>> {
        let (chunks, requests): (Vec<Parts>, Vec<_>) = self.chunks().unzip();
        let outputs = run_all(requests.into_iter().map(|request| (request, None)), started).await;
        let mut results = Vec::with_capacity(self.items.len());
        for (parts, output) in chunks.into_iter().zip(outputs) {
            match output {
                Ok(output) => self.cut(parts, &output, &mut results),
                Err(error) if is_of_all(&error) => {
                    results.extend(parts.into_iter().map(|part| Err(part.err().unwrap_or(error.clone()))));
                }
                Err(_) => {
                    let apart = self.take(results.len(), parts.len());
                    results.extend(apart.run_apart(started).await);
                }
            }
        }
        results
    }

    /// The batch in chunks, each as a request.
    fn chunks(&self) -> impl Iterator<Item = (Parts, Request<'a, Blocks>)> {
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
            (!parts.is_empty()).then(|| self.put(parts, input))
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

    fn put(&self, parts: Parts, mut input: Payload) -> (Parts, Request<'a, Blocks>) {
        let input = Cow::Owned(std::mem::take(&mut *input));
        let mut request = self.like.alike(self.like.ask.clone(), input, |_, bytes| Ok(Payload::new(bytes)));
        request.requests = u32::try_from(parts.len()).unwrap_or(u32::MAX);
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
    fn take(&mut self, first: usize, count: usize) -> Self {
        let some = self.items[first..first + count].iter_mut();
        let items = some.map(|item| Item::alike(std::mem::take(&mut item.input)));
        let like = self.like.alike(self.like.ask.clone(), Cow::Borrowed(&[]), self.like.build);
        Self::new(like, items)
    }
}

/// Whether each request of a chunk would have got this error by itself.
fn is_of_all(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::DeadlineExceeded | ErrorKind::Draining | ErrorKind::Forked)
}

/// A chunk is as long as its parts, or it has failed.
fn too_short() -> Error {
    Error::internal("a chunk shorter than its parts")
}
