//! Many requests of one key and algorithm at once: they share a lane's entry and one wake-up.

use std::collections::VecDeque;
use std::future::IntoFuture;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use rayon::prelude::*;

use super::queue::Ready;
use super::{Refused, Request};
use crate::error::{Error, ErrorKind, Result};
use crate::offload::{POLL_BYTES_MAX, offload};
use crate::operation::{Ask, Operation, Scratch};
use crate::pending::{Pending, block_on};
use crate::schedule::core::{Core, LaneId};
use crate::schedule::fairness::Priority;
use crate::schedule::node::{Node, Payload};

/// Many requests of one kind, answered together and in order; each has its own result.
///
/// When the engine's limits on requests or bytes in flight are reached, the batch waits for its own earlier
/// requests and goes on; only a request that finds no room while none of the batch is in flight is refused.
///
/// ```no_run
/// # fn main() -> hsmux::Result<()> {
/// # let engine = hsmux::Engine::builder().module("m").tokens(["t"]).pin("1234".to_owned()).build()?;
/// let key = engine.key("card-signing")?;
/// for signature in key.sign_many(hsmux::Ecdsa::P256_SHA256, [b"one", b"two"]).wait() {
///     println!("{} bytes", signature?.len());
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "requests do nothing until they are waited for or awaited"]
pub struct Many<'a, O: Operation> {
    requests: Vec<Request<'a, O>>,
    /// Why none of them may run.
    refusal: Option<Error>,
}

impl<'a, O: Operation> Many<'a, O> {
    pub(crate) fn new(requests: impl Iterator<Item = Request<'a, O>>) -> Self {
        Self { requests: requests.collect(), refusal: None }
    }

    /// Refuses all, whatever they are.
    pub(crate) fn refuse(self, error: Error) -> Self {
        Self { refusal: Some(error), ..self }
    }

    /// Answers each request after this time at the latest, counted from when it starts.
    pub fn deadline_in(self, limit: Duration) -> Self {
        self.each(|request| request.deadline_in(limit))
    }

    /// As [`Request::deadline`]; many requests always go through the queue.
    pub fn deadline(self, limit: Option<Duration>) -> Self {
        self.each(|request| request.deadline(limit))
    }

    /// As [`Request::priority`].
    pub fn priority(self, priority: Priority) -> Self {
        self.each(|request| request.priority(priority))
    }

    /// As [`Request::tenant`].
    pub fn tenant(self, tenant: u64) -> Self {
        self.each(|request| request.tenant(tenant))
    }

    /// As [`Request::wait_for_room`], for the first of the batch: the others wait for it anyway.
    pub fn wait_for_room(self) -> Self {
        self.each(Request::wait_for_room)
    }

    /// How many requests there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// Runs all and waits for all.
    ///
    /// # Blocking
    /// Until the last answer, or the last deadline.
    pub fn wait(self) -> Vec<Result<O::Output>> {
        block_on(pin!(self.run()))
    }

    fn each(self, set: impl Fn(Request<'a, O>) -> Request<'a, O>) -> Self {
        Self { requests: self.requests.into_iter().map(set).collect(), ..self }
    }

    async fn run(self) -> Vec<Result<O::Output>> {
        if let Some(error) = &self.refusal {
            return self.requests.iter().map(|_| Err(error.clone())).collect();
        }
        match self.requests.first() {
            Some(first) if first.ask.call().is_none() => self.run_on_host().await,
            Some(_) => self.run_on_tokens().await,
            None => Vec::new(),
        }
    }

    async fn run_on_tokens(self) -> Vec<Result<O::Output>> {
        let encoded = match self.encode_elsewhere().await {
            Ok(encoded) => encoded,
            Err(error) => return self.requests.iter().map(|_| Err(error.clone())).collect(),
        };
        let mut results = Vec::with_capacity(self.requests.len());
        let mut flying = VecDeque::new();
        let mut batch = Batch::default();
        for (request, encoded) in self.requests.into_iter().zip(encoded) {
            let mut next = Some((request, encoded));
            while let Some((request, encoded)) = next.take() {
                let (refused, encoded) = match prepare(request, encoded) {
                    Ok(ready) => {
                        flying.push_back(Ok(batch.add(ready)));
                        break;
                    }
                    Err(refused) => refused,
                };
                // What is ready goes ahead of what has to wait.
                batch.launch();
                let overloaded = refused.error.kind() == ErrorKind::Overloaded;
                match overloaded.then(|| flying.pop_front()) {
                    Some(Some(first)) => {
                        results.push(answer(first).await);
                        next = Some((refused.request, encoded));
                    }
                    Some(None) if refused.request.waits_for_room => results.push(refused.request.await),
                    _ => flying.push_back(Err(refused.error)),
                }
            }
        }
        batch.launch();
        for pending in flying {
            results.push(answer(pending).await);
        }
        results
    }

    /// Hashes the messages on the threads for it if they are too much for a thread that polls.
    async fn encode_elsewhere(&self) -> Result<Vec<Option<Payload>>> {
        let hashed = self.requests.iter().filter(|request| request.ask.hashes());
        if hashed.map(|request| request.input.len()).sum::<usize>() <= POLL_BYTES_MAX {
            return Ok(self.requests.iter().map(|_| None).collect());
        }
        let inputs: Vec<(Ask, Vec<u8>)> =
            self.requests.iter().map(|request| (request.ask.clone(), request.input.to_vec())).collect();
        let encode = |(ask, input): &(Ask, Vec<u8>)| {
            Some(Payload::new(ask.encode(input, &mut Scratch::new()).to_vec()))
        };
        offload(move || inputs.par_iter().map(encode).collect()).await
    }

    async fn run_on_host(self) -> Vec<Result<O::Output>> {
        let mut results = Vec::with_capacity(self.requests.len());
        for request in self.requests {
            results.push(match request.check() {
                Ok(_) => request.offload_to_host().await,
                Err(error) => Err(error),
            });
        }
        results
    }
}

impl<'a, O: Operation> IntoFuture for Many<'a, O> {
    type Output = Vec<Result<O::Output>>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl<O: Operation> std::fmt::Debug for Many<'_, O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Many").field("len", &self.requests.len()).finish_non_exhaustive()
    }
}

/// Requests that have room and are to enter their lane together. If the batch is dropped before, they were
/// never queued, and their room goes with their nodes.
#[derive(Default)]
struct Batch {
    lane: Option<(LaneId, u64, Arc<Core>)>,
    nodes: Vec<Arc<Node>>,
}

impl Batch {
    fn add<O: Operation>(&mut self, ready: Ready<O>) -> Pending<O> {
        if self.lane.as_ref().is_some_and(|(lane, ..)| *lane != ready.lane) {
            self.launch();
        }
        self.lane.get_or_insert_with(|| (ready.lane, ready.mask, Arc::clone(ready.pending.core())));
        self.nodes.push(ready.node);
        ready.pending
    }

    fn launch(&mut self) {
        if let Some((lane, mask, core)) = self.lane.take() {
            let lane = core.lane(lane, mask);
            core.submit(&lane, self.nodes.drain(..));
        }
    }
}

/// A request that found no room, with what was prepared of it.
type NotReady<'a, O> = (Box<Refused<'a, O>>, Option<Payload>);

fn prepare<O: Operation>(
    request: Request<'_, O>,
    encoded: Option<Payload>,
) -> std::result::Result<Ready<O>, NotReady<'_, O>> {
    let (started, deadline) = request.times();
    match request.check() {
        // The encoded form is kept for another try only if this one is refused: a copy of a digest.
        Ok(mask) => {
            request.ready(mask, encoded.clone(), started, deadline).map_err(|refused| (refused, encoded))
        }
        Err(error) => Err((Box::new(Refused { request, error }), encoded)),
    }
}

async fn answer<O: Operation>(pending: Result<Pending<O>, Error>) -> Result<O::Output> {
    pending?.await
}
