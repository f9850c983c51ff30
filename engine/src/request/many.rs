//! Many requests of one key and algorithm at once: they share a lane's entry and one wake-up.

use std::collections::VecDeque;
use std::future::IntoFuture;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use rayon::prelude::*;

use super::future::wait_for_room;
use super::host::HostWork;
use super::queue::Ready;
use super::{Refused, Request, RequestId, Trace, check_not_forked};
use crate::clock::{Time, now};
use crate::error::{Error, ErrorKind, Result};
use crate::offload::{POLL_BYTES_MAX, offload};
use crate::operation::{Ask, Operation, Scratch};
use crate::pending::{Pending, block_on};
use crate::schedule::core::{Core, LaneId};
use crate::schedule::fairness::Priority;
use crate::schedule::node::{Node, Payload};

/// Many requests of one kind, answered together and in order; each has its own result.
///
/// When the engine's limits on requests or bytes in flight are reached, the batch waits for room, until the deadline,
/// and goes on; a request that finds none is refused only while none of the batch has found any.
///
/// # Cancel safety
/// Dropping its future withdraws what no session has begun; the results of the rest are thrown away.
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
    /// Whether the deadline of each counts from when it tries for room, not from the start of the batch.
    each_in_flight: bool,
}

impl<'a, O: Operation> Many<'a, O> {
    pub(crate) fn new(requests: impl Iterator<Item = Request<'a, O>>) -> Self {
        Self { requests: requests.collect(), refusal: None, each_in_flight: false }
    }

    /// Refuses all, whatever they are.
    pub(crate) fn refuse(self, error: Error) -> Self {
        Self { refusal: Some(error), ..self }
    }

    /// Answers all requests after this time at the latest, counted from the start of the batch: time that one of them
    /// waits for room counts too.
    pub fn deadline_in(self, limit: Duration) -> Self {
        self.each(|request| request.deadline_in(limit))
    }

    /// As [`Request::deadline`]; many requests always go through the queue.
    pub fn deadline(self, limit: Option<Duration>) -> Self {
        self.each(|request| request.deadline(limit))
    }

    /// Counts the deadline of each request from when it is about to be put in flight. For a batch that is larger than
    /// the engine's limits and may take as long as it takes, where each request may not; the last answer then comes
    /// after as many deadlines as the limits divide the batch into.
    pub fn deadline_from_flight(self) -> Self {
        Self { each_in_flight: true, ..self }
    }

    /// As [`Request::priority`].
    pub fn priority(self, priority: Priority) -> Self {
        self.each(|request| request.priority(priority))
    }

    /// As [`Request::tenant`].
    pub fn tenant(self, tenant: u64) -> Self {
        self.each(|request| request.tenant(tenant))
    }

    /// As [`Request::request_id`]: each of the batch has this one.
    pub fn request_id(self, id: impl Into<RequestId>) -> Self {
        let id = id.into();
        self.each(|request| request.request_id(id))
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

    /// Runs all and waits for all; the results stand in the order of the requests.
    ///
    /// # Errors
    /// Each request has its own, as in [`Request::wait`].
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
        if let Err(error) = check_not_forked() {
            return self.requests.iter().map(|_| Err(error.clone())).collect();
        }
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
        let started = if self.each_in_flight { None } else { Some(now()) };
        let encoded = match self.encode_elsewhere().await {
            Ok(encoded) => encoded,
            Err(error) => return self.requests.iter().map(|_| Err(error.clone())).collect(),
        };
        let mut results = Vec::with_capacity(self.requests.len());
        let mut flying = VecDeque::new();
        let mut batch = Batch::default();
        // Whether any has found room. A worker gives the room of a turn back after its answers: that none is in
        // flight any more does not mean that the batch has none.
        let mut entered = false;
        for (request, encoded) in self.requests.into_iter().zip(encoded) {
            let mut next = Some((request, encoded));
            while let Some((request, encoded)) = next.take() {
                let (refused, encoded) = match prepare(request, encoded, started) {
                    Ok(ready) => {
                        entered = true;
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
                    Some(None) if entered || refused.request.waits_for_room => {
                        results.push(answer_later(refused, encoded, started).await);
                    }
                    _ => flying.push_back(Err(refused.ended().error)),
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
        let owned = |request: &Request<'a, O>| (request.ask.clone(), Payload::new(request.input.to_vec()));
        let inputs: Vec<(Ask, Payload)> = self.requests.iter().map(owned).collect();
        let encode = |(ask, input): &(Ask, Payload)| {
            Some(Payload::new(ask.encode(input, &mut Scratch::new()).to_vec()))
        };
        offload(move || inputs.par_iter().map(encode).collect()).await
    }

    /// All on rayon's threads, at once.
    async fn run_on_host(self) -> Vec<Result<O::Output>> {
        let begun = self.requests.into_iter().map(|mut request| {
            let work = request.start().and_then(|_| request.host_work());
            (request.trace, work)
        });
        let (traces, works): (Vec<_>, Vec<_>) = begun.unzip();
        let run = |work: Result<HostWork<O>>| work.and_then(HostWork::run);
        let answers = offload(move || works.into_par_iter().map(run).collect::<Vec<_>>()).await;
        let answers = answers.unwrap_or_else(|error| traces.iter().map(|_| Err(error.clone())).collect());
        let end = |(mut trace, answer)| Trace::end(&mut trace, answer);
        traces.into_iter().zip(answers).map(end).collect()
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
    lane: Option<(LaneId, Arc<Core>)>,
    nodes: Vec<Arc<Node>>,
}

impl Batch {
    fn add<O: Operation>(&mut self, ready: Ready<O>) -> Pending<O> {
        if self.lane.as_ref().is_some_and(|(lane, ..)| *lane != ready.lane) {
            self.launch();
        }
        self.lane.get_or_insert_with(|| (ready.lane, Arc::clone(ready.pending.core())));
        self.nodes.push(ready.node);
        ready.pending
    }

    fn launch(&mut self) {
        if let Some((lane, core)) = self.lane.take() {
            let lane = core.lane(lane);
            core.submit(&lane, self.nodes.drain(..));
        }
    }
}

/// A request that found no room, with what was prepared of it.
type NotReady<'a, O> = (Box<Refused<'a, O>>, Option<Payload>);

/// Takes room for a request. Its time counts from `started`, or from now.
fn prepare<O: Operation>(
    mut request: Request<'_, O>,
    encoded: Option<Payload>,
    started: Option<Time>,
) -> std::result::Result<Ready<O>, NotReady<'_, O>> {
    let (started, deadline) = request.times_from(started);
    match request.start().and_then(|mask| request.check_time(deadline).map(|()| mask)) {
        // The encoded form is kept for another try only if this one is refused: a copy of a digest.
        Ok(mask) => request
            .ready(mask, encoded.clone(), started, deadline, None)
            .map_err(|refused| (refused, encoded)),
        Err(error) => Err((Box::new(Refused { request, error }), encoded)),
    }
}

/// Waits for room, and then for the answer.
async fn answer_later<O: Operation>(
    mut refused: Box<Refused<'_, O>>,
    encoded: Option<Payload>,
    started: Option<Time>,
) -> Result<O::Output> {
    refused.request.waits_for_room = true;
    let (mask, (started, deadline)) = (refused.request.mask(), refused.request.times_from(started));
    wait_for_room(refused, mask, encoded, started, deadline).await?.await
}

async fn answer<O: Operation>(pending: Result<Pending<O>, Error>) -> Result<O::Output> {
    pending?.await
}
