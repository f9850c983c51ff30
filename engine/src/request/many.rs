//! Many requests of one key and algorithm at once: they share a lane's entry and one wake-up.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::future::IntoFuture;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use rayon::prelude::*;

use super::future::wait_for_room;
use super::host::HostWork;
use super::queue::Ready;
use super::{Audited, InTime, Settling};
use super::{Request, RequestId, Trace, check_not_forked};
use crate::clock::{Time, now};
use crate::error::{Error, ErrorKind, Result};
use crate::offload::{POLL_BYTES_MAX, offload};
use crate::operation::{Ask, Operation, Scratch};
use crate::payload::{Input, Payload};
use crate::pending::{Pending, block_on};
use crate::schedule::core::{Core, LaneId};
use crate::schedule::fairness::Priority;
use crate::schedule::node::Node;

/// Many requests of one kind, answered together and in order; each has its own result.
///
/// When the engine's limits on requests or bytes in flight are reached, the batch waits for room, until the deadline,
/// and goes on; a request that finds none is refused only while none of the batch has found any.
///
/// Requests by ECB, and for keys with `host_modes` by CTR and decryption by CBC, are put together, up to 1 024 and
/// 16 KiB, where they may share calls and no subscriber of the process takes spans at level `DEBUG`: those are one
/// request in flight, with the bytes of all, run on one session and are answered at the same time. If their call fails,
/// each runs once more by itself, for its own outcome.
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
    /// What all have in common. It has no input.
    pub(super) like: Request<'a, O>,
    pub(super) items: Vec<Item<'a>>,
    pub(super) id: Option<RequestId>,
    /// Why none of them may run.
    pub(super) refusal: Option<Error>,
    /// Whether the deadline of each counts from when it tries for room, not from the start of the batch.
    pub(super) each_in_flight: bool,
}

/// What one of many requests has for itself.
pub(crate) struct Item<'a> {
    pub(super) input: Input<'a>,
    /// None if it asks the same as the others.
    ask: Option<Box<Ask>>,
}

impl<'a> Item<'a> {
    pub(crate) fn alike(input: impl Into<Cow<'a, [u8]>>) -> Self {
        Self::of_input(input.into().into())
    }

    pub(super) fn of_input(input: Input<'a>) -> Self {
        Self { input, ask: None }
    }

    pub(crate) fn of<O: Operation>(request: Request<'a, O>) -> Self {
        Self { input: request.input, ask: Some(Box::new(request.ask)) }
    }
}

impl<'a, O: Operation> Many<'a, O> {
    pub(crate) fn new(like: Request<'a, O>, items: impl Iterator<Item = Item<'a>>) -> Self {
        Self { like, items: items.collect(), id: None, refusal: None, each_in_flight: false }
    }

    /// Refuses all, whatever they are.
    pub(crate) fn refuse(self, error: Error) -> Self {
        Self { refusal: Some(error), ..self }
    }

    /// Answers all requests after this time at the latest, counted from the start of the batch: time that one of them
    /// waits for room counts too.
    pub fn deadline_in(self, limit: Duration) -> Self {
        self.deadline(Some(limit))
    }

    /// As [`Request::deadline`]; many requests go through the queue, but for those that [`Many::wait`] names.
    pub fn deadline(self, limit: Option<Duration>) -> Self {
        Self { like: self.like.deadline(limit), ..self }
    }

    /// Counts the deadline of each request from when it is about to be put in flight. For a batch that is larger than
    /// the engine's limits and may take as long as it takes, where each request may not; the last answer then comes
    /// after as many deadlines as the limits divide the batch into.
    pub fn deadline_from_flight(self) -> Self {
        Self { each_in_flight: true, ..self }
    }

    /// As [`Request::priority`].
    pub fn priority(self, priority: Priority) -> Self {
        Self { like: self.like.priority(priority), ..self }
    }

    /// As [`Request::at_most_once`], of each.
    pub fn at_most_once(self) -> Self {
        Self { like: self.like.at_most_once(), ..self }
    }

    /// As [`Request::tenant`].
    pub fn tenant(self, tenant: u64) -> Self {
        Self { like: self.like.tenant(tenant), ..self }
    }

    /// As [`Request::request_id`]: each of the batch has this one.
    pub fn request_id(self, id: impl Into<RequestId>) -> Self {
        Self { id: Some(id.into()), ..self }
    }

    /// As [`Request::wait_for_room`], for the first of the batch: the others wait for it anyway.
    pub fn wait_for_room(self) -> Self {
        Self { like: self.like.wait_for_room(), ..self }
    }

    /// How many requests there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Runs all and waits for all; the results stand in the order of the requests.
    ///
    /// # Errors
    /// Each request has its own, as in [`Request::wait`].
    ///
    /// # Blocking
    /// Until the last answer, or the last deadline. Without a deadline, requests that are put together, no more than go
    /// into one call, are run by the calling thread itself if a session is idle.
    pub fn wait(self) -> Vec<Result<O::Output>> {
        match self.may_be_inline().then(|| self.joins()).flatten() {
            Some(merge) => self.wait_inline(merge),
            None => block_on(pin!(self.run())),
        }
    }

    async fn run(self) -> Vec<Result<O::Output>> {
        let refusal = check_not_forked().err().or(self.refusal.clone());
        if let Some(error) = refusal {
            return self.items.iter().map(|_| Err(error.clone())).collect();
        }
        if self.like.ask.call().is_none() {
            return self.run_on_host().await;
        }
        let started = if self.each_in_flight { None } else { Some(now()) };
        match self.joins() {
            Some(merge) => self.run_together(merge, started).await,
            None => self.run_apart(started).await,
        }
    }

    /// One of them, as a request like any other.
    pub(super) fn request(&self, item: Item<'a>) -> Request<'a, O> {
        let ask = item.ask.map_or_else(|| self.like.ask.clone(), |ask| *ask);
        let request = self.like.alike(ask, item.input, self.like.build);
        match self.id {
            Some(id) => request.request_id(id),
            None => request,
        }
    }

    /// Each as a request of its own.
    pub(super) async fn run_apart(mut self, started: Option<Time>) -> Vec<Result<O::Output>> {
        let encoded = match self.encode_elsewhere().await {
            Ok(encoded) => encoded,
            Err(error) => return self.items.iter().map(|_| Err(error.clone())).collect(),
        };
        let items = std::mem::take(&mut self.items);
        let requests = items.into_iter().map(|item| self.request(item));
        run_all(requests.zip(encoded), started).await
    }

    /// Hashes the messages on the threads for it if they are too much for a thread that polls.
    async fn encode_elsewhere(&self) -> Result<Vec<Option<Payload>>> {
        let all = self.items.iter().map(|item| item.input.len()).sum::<usize>();
        if !self.like.ask.hashes() || all <= POLL_BYTES_MAX {
            return Ok(self.items.iter().map(|_| None).collect());
        }
        let owned = |item: &Item<'a>| (self.like.ask.clone(), Payload::new(item.input.to_vec()));
        let inputs: Vec<(Ask, Payload)> = self.items.iter().map(owned).collect();
        let encode = |(ask, input): &(Ask, Payload)| {
            Some(Payload::new(ask.encode(input, &mut Scratch::new()).to_vec()))
        };
        offload(move || inputs.par_iter().map(encode).collect()).await
    }

    /// All on rayon's threads, at once.
    async fn run_on_host(mut self) -> Vec<Result<O::Output>> {
        let items = std::mem::take(&mut self.items);
        let mut intents = Vec::new();
        let begun = items.into_iter().map(|item| {
            let mut request = self.request(item);
            let started = request.start();
            intents.extend(request.intent().map(|intent| (intent, request.in_time())));
            let work = started.and_then(|_| request.host_work());
            ((request.trace, request.audited), work)
        });
        let (mut traces, works): (Vec<_>, Vec<_>) = begun.unzip();
        let (mut intended, mut times) = (Ok(()), Vec::with_capacity(intents.len()));
        for (intent, in_time) in intents {
            intended = intended.and(intent.await);
            times.push(in_time);
        }
        // They have one deadline, and each is counted.
        let in_time = |time: &InTime| time.check();
        if let Err(error) = intended.and_then(|()| times.iter().map(in_time).fold(Ok(()), Result::and)) {
            let refuse = |(trace, audited): &mut (Option<Box<Trace>>, _)| {
                Audited::refuse(audited, Some(error.kind()));
                Trace::end(trace, Err(error.clone()))
            };
            return traces.iter_mut().map(refuse).collect();
        }
        traces.iter_mut().for_each(|(_, audited)| Audited::begin(audited));
        let run = |work: Result<HostWork<O>>| work.and_then(HostWork::run);
        let answers = offload(move || works.into_par_iter().map(run).collect::<Vec<_>>()).await;
        let answers = answers.unwrap_or_else(|error| traces.iter().map(|_| Err(error.clone())).collect());
        // All records are on their way before the first is waited for.
        let settle = |((trace, audited), answer): ((_, Option<Box<Audited>>), _)| {
            let settling = match audited {
                Some(audited) => audited.settle(answer),
                None => Settling::now(answer),
            };
            (trace, settling)
        };
        let settling: Vec<_> = traces.into_iter().zip(answers).map(settle).collect();
        let mut ended = Vec::with_capacity(settling.len());
        for (mut trace, settling) in settling {
            ended.push(Trace::end(&mut trace, settling.await));
        }
        ended
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
        f.debug_struct("Many").field("len", &self.items.len()).finish_non_exhaustive()
    }
}

/// Puts requests in flight, with what was prepared of each, and collects their answers in order.
pub(super) async fn run_all<'a, O: Operation>(
    requests: impl Iterator<Item = (Request<'a, O>, Option<Payload>)>,
    started: Option<Time>,
) -> Vec<Result<O::Output>> {
    let mut results = Vec::with_capacity(requests.size_hint().0);
    let mut flying = VecDeque::new();
    let mut batch = Batch::default();
    // Whether any has found room. A worker gives the room of a turn back after its answers: that none is in
    // flight any more does not mean that the batch has none.
    let mut entered = false;
    for (request, encoded) in requests {
        let mut next = Some((request, encoded));
        while let Some((mut request, encoded)) = next.take() {
            if let Err(error) = intend(&mut request).await {
                flying.push_back(Err(request.fail(error)));
                break;
            }
            let error = match prepare(&mut request, &encoded, started) {
                Ok(ready) => {
                    entered = true;
                    flying.push_back(Ok(batch.add(ready)));
                    break;
                }
                Err(error) => error,
            };
            // What is ready goes ahead of what has to wait.
            batch.launch();
            let overloaded = error.kind() == ErrorKind::Overloaded;
            match overloaded.then(|| flying.pop_front()) {
                Some(Some(first)) => {
                    results.push(answer(first).await);
                    next = Some((request, encoded));
                }
                Some(None) if entered || request.waits_for_room => {
                    results.push(answer_later(request, encoded, started).await);
                }
                _ => flying.push_back(Err(request.fail(error))),
            }
        }
    }
    batch.launch();
    for pending in flying {
        results.push(answer(pending).await);
    }
    results
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

/// Has a request's intent recorded, if that is to be before it begins.
async fn intend<O: Operation>(request: &mut Request<'_, O>) -> Result<()> {
    let is_wanted = request.is_recorded() && !request.is_intended;
    if !is_wanted {
        return Ok(());
    }
    request.start()?;
    match request.intent() {
        Some(intent) => intent.await,
        None => Ok(()),
    }
}

/// Takes room for a request. Its time counts from `started`, or from now.
fn prepare<O: Operation>(
    request: &mut Request<'_, O>,
    encoded: &Option<Payload>,
    started: Option<Time>,
) -> Result<Ready<O>> {
    let (started, deadline) = request.times_from(started);
    let mask = request.start()?;
    request.check_time(deadline)?;
    // The encoded form is kept for another try: a copy of a digest.
    request.ready(mask, encoded.clone(), started, deadline, None)
}

/// Waits for room, and then for the answer.
async fn answer_later<O: Operation>(
    mut request: Request<'_, O>,
    encoded: Option<Payload>,
    started: Option<Time>,
) -> Result<O::Output> {
    request.waits_for_room = true;
    let (mask, (started, deadline)) = (request.mask(), request.times_from(started));
    wait_for_room(request, mask, encoded, started, deadline).await?.await
}

async fn answer<O: Operation>(pending: Result<Pending<O>, Error>) -> Result<O::Output> {
    pending?.await
}
