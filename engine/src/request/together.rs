//! A batch in chunks, each of them one request of the engine: see `joint`.
//!
//! AES-ECB, 16 bytes, 256 at a time, SoftHSM2, against the raw loop: 20 times as requests of their own, 94 times in
//! chunks that a worker runs (2 cores of a 2.5 GHz Xeon guest, two runs two hours apart): the difference is cells,
//! places and cache lines that change hands. `hsmux load --op aes-ecb:16 --api many --batch 256 --compare raw`.

use std::ops::Range;
use std::pin::pin;

use super::joint::{BYTES_MAX, Joining, REQUESTS_MAX, is_of_all, later_of, part_of, too_short};
use super::many::{Item, Many, run_all};
use super::{Request, check_not_forked};
use crate::clock::Time;
use crate::error::{Error, ErrorKind, Outcome, Result, Retry};
use crate::operation::{Joint, Operation, without_key};
use crate::payload::{Input, Payload};
use crate::pending::block_on;
use crate::token::facts::KeyFacts;
use crate::token::merge::Merge;

/// Some of the batch: how much of the output belongs to each, or why it may not run.
type Parts = Vec<Result<usize>>;

impl<'a, O: Operation> Many<'a, O> {
    /// How the requests go together, if they do: not if most of them would be without company.
    pub(super) fn joins(&self) -> Option<Merge> {
        let len = self.items.len();
        if len > 1 && self.bytes() / len <= BYTES_MAX / 4 { self.like.joins() } else { None }
    }

    /// Whether the caller may run them itself if they go together: a wake-up there and back takes longer than the call.
    pub(super) fn may_be_inline(&self) -> bool {
        self.like.limit().is_none()
            && self.items.len() <= REQUESTS_MAX
            && self.refusal.is_none()
            && check_not_forked().is_ok()
            && self.bytes() <= BYTES_MAX
    }

    fn bytes(&self) -> usize {
        self.items.iter().map(|item| item.input.len()).sum()
    }

    /// In one chunk, on this thread if a session is idle.
    pub(super) fn wait_inline(self, merge: Merge) -> Vec<Result<O::Output>> {
        let (chunks, requests): (Vec<_>, Vec<_>) = self.chunks(merge).unzip();
        let outputs = requests.into_iter().flatten().map(Request::wait).collect();
        block_on(pin!(self.separate(chunks, outputs, None)))
    }

    /// In chunks.
    pub(super) async fn run_together(self, merge: Merge, started: Option<Time>) -> Vec<Result<O::Output>> {
        let mut chunks = Vec::new();
        let requests = self.chunks(merge).filter_map(|(parts, request)| {
            chunks.push(parts);
            Some((request?, None))
        });
        let outputs = run_all(requests, started).await;
        self.separate(chunks, outputs, started).await
    }

    /// The result of each. What is in a chunk that failed runs again request by request, so that each has its own
    /// outcome: a block may be enciphered twice.
    async fn separate(
        mut self,
        chunks: Vec<Parts>,
        outputs: Vec<Result<Payload>>,
        started: Option<Time>,
    ) -> Vec<Result<O::Output>> {
        let mut results = Vec::with_capacity(self.items.len());
        let mut failed = Vec::new();
        let mut outputs = outputs.into_iter();
        for parts in chunks {
            let output = if has_company(&parts) { outputs.next() } else { None };
            match output.unwrap_or_else(|| Err(alone())) {
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
        if !failed.is_empty() {
            self.run_again(failed, started, &mut results).await;
        }
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
            results[place] = match &results[place] {
                Err(first) => later_of(first, answer),
                Ok(_) => answer,
            };
        }
    }

    /// The batch in chunks, each as a request, if there are at least two in it that may run.
    fn chunks(&self, merge: Merge) -> impl Iterator<Item = (Parts, Option<Request<'a, Joint>>)> {
        let mut rest = &self.items[..];
        std::iter::from_fn(move || {
            let (len, bytes) = chunk_of(rest);
            let (chunk, others) = rest.split_at(len);
            rest = others;
            if chunk.is_empty() {
                return None;
            }
            let mut joint = Joining::new(merge, len, bytes, self.like.is_recorded());
            // Once for all: they are under one key.
            let facts = self.like.facts().ok_or_else(without_key);
            let facts = facts.and_then(|facts| self.like.ask.check_key(facts).map(|()| facts));
            let parts: Parts = chunk.iter().map(|item| self.add(&facts, item, &mut joint)).collect();
            let request = has_company(&parts).then(|| joint.join(&self.like));
            Some((parts, request))
        })
    }

    fn add(&self, facts: &Result<&KeyFacts>, item: &Item<'a>, joint: &mut Joining) -> Result<usize> {
        let facts = facts.as_ref().map_err(Clone::clone)?;
        self.like.ask.check_message(facts, &item.input)?;
        Ok(joint.add(&self.like.ask, Some(facts.kind), &item.input, self.id.or(self.like.label_id())))
    }

    /// The outputs of a chunk.
    fn cut(&self, parts: Parts, mut output: &[u8], results: &mut Vec<Result<O::Output>>) {
        let (ask, key) = (&self.like.ask, self.like.key_kind());
        results.extend(parts.into_iter().map(|part| {
            let (own, rest) = output.split_at_checked(part?).ok_or_else(too_short)?;
            output = rest;
            part_of::<O>(ask, key, self.like.build, own)
        }));
    }

    /// Some of the batch as a batch of its own.
    fn split_off(&mut self, places: &[usize]) -> Self {
        let take = |&place: &usize| Item::of_input(std::mem::take(&mut self.items[place].input));
        let items: Vec<_> = places.iter().map(take).collect();
        let like = self.like.alike(self.like.ask.clone(), Input::default(), self.like.build);
        Self { id: self.id, ..Self::new(like, items.into_iter()) }
    }
}

/// Whether two of them may run.
fn has_company(parts: &Parts) -> bool {
    parts.iter().filter(|part| part.is_ok()).take(2).count() == 2
}

/// Why a request without company has no output yet.
fn alone() -> Error {
    Error::new(ErrorKind::Internal, Retry::Now, Outcome::NotDone)
}

/// How many of these items make the first chunk, and their bytes.
fn chunk_of(items: &[Item<'_>]) -> (usize, usize) {
    let mut bytes = 0;
    let fits = |item: &&Item<'_>| {
        let fits = bytes == 0 || bytes + item.input.len() <= BYTES_MAX;
        bytes += if fits { item.input.len() } else { 0 };
        fits
    };
    let len = items.iter().take(REQUESTS_MAX).take_while(fits).count();
    (len, bytes)
}
