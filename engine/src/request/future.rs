//! A request as a future: nothing happens until it is polled, and polling it never blocks.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::{Refused, Request};
use crate::clock::Time;
use crate::error::{Error, ErrorKind, Outcome, Result};
use crate::offload::offload;
use crate::operation::{Operation, Scratch};
use crate::pending::Pending;
use crate::schedule::core::Core;
use crate::schedule::deadlines::Registration;
use crate::schedule::node::{Node, Payload, expired};

/// The future of a [`Request`], for any executor.
///
/// # Cancel safety
/// Dropping it before it was polled means that nothing happened; after that it withdraws the request, as
/// dropping a [`Pending`] does.
#[must_use = "futures do nothing unless polled"]
pub struct RequestFuture<'a, O: Operation>(State<'a, O>);

enum State<'a, O: Operation> {
    Start(Option<Request<'a, O>>),
    /// On its way into a lane: hashed elsewhere, or waiting for room.
    Entering(Boxed<'a, Result<Pending<O>>>),
    Flying(Pending<O>),
    Failed(Option<Error>),
    /// The host answers by itself, away from the thread that polls.
    Host(Boxed<'a, Result<O::Output>>),
}

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A request on its way into a lane.
pub(super) enum Entered<'a, O: Operation> {
    Flying(Pending<O>),
    Slowly(Boxed<'a, Result<Pending<O>>>),
}

impl<'a, O: Operation> RequestFuture<'a, O> {
    pub(super) const fn new(request: Request<'a, O>) -> Self {
        Self(State::Start(Some(request)))
    }

    /// Of a request that is already on its way.
    pub(super) const fn entering(future: Boxed<'a, Result<Pending<O>>>) -> Self {
        Self(State::Entering(future))
    }

    /// Drives the request into its lane; ready once it is there, failed, or run by the host.
    pub(super) fn poll_entering(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match &mut self.0 {
            State::Entering(entering) => entering.as_mut().poll(context).map(|entered| {
                self.0 = entered.map_or_else(|error| State::Failed(Some(error)), State::Flying);
            }),
            State::Start(_) | State::Host(_) | State::Flying(_) | State::Failed(_) => Poll::Ready(()),
        }
    }

    fn start(request: Request<'a, O>) -> Result<State<'a, O>> {
        if request.ask.call().is_none() {
            request.check()?;
            return Ok(State::Host(Box::pin(request.offload_to_host())));
        }
        Ok(match request.enter()? {
            Entered::Flying(pending) => State::Flying(pending),
            Entered::Slowly(future) => State::Entering(future),
        })
    }
}

impl<'a, O: Operation> Request<'a, O> {
    /// Puts the request in flight at once if that is quick and there is room.
    pub(super) fn enter(self) -> Result<Entered<'a, O>> {
        let mask = self.check()?;
        if self.is_long() {
            return Ok(Entered::Slowly(Box::pin(self.enter_slowly(mask))));
        }
        let (started, deadline) = self.times();
        match self.ready(mask, None, started, deadline) {
            Ok(ready) => Ok(Entered::Flying(ready.launch())),
            Err(refused) if refused.request.waits_for_room && is_overload(&refused.error) => {
                let entering = wait_for_room(refused, mask, None, started, deadline);
                Ok(Entered::Slowly(Box::pin(entering)))
            }
            Err(refused) => Err(refused.error),
        }
    }

    /// Hashes a long input away from the thread that polls, then enters.
    async fn enter_slowly(self, mask: u64) -> Result<Pending<O>> {
        let (started, deadline) = self.times();
        let encoded = self.offload_encoding().await?;
        match self.ready(mask, Some(encoded.clone()), started, deadline) {
            Ok(ready) => Ok(ready.launch()),
            Err(refused) if refused.request.waits_for_room && is_overload(&refused.error) => {
                wait_for_room(refused, mask, Some(encoded), started, deadline).await
            }
            Err(refused) => Err(refused.error),
        }
    }

    async fn offload_encoding(&self) -> Result<Payload> {
        let (ask, input) = (self.ask.clone(), self.input.clone().into_owned());
        offload(move || zeroize::Zeroizing::new(ask.encode(&input, &mut Scratch::new()).to_vec())).await
    }

    /// Verifies away from the thread that polls.
    pub(super) async fn offload_to_host(self) -> Result<O::Output> {
        let version =
            self.key.map(Arc::clone).ok_or_else(|| Error::internal("a host operation without a key"))?;
        let (ask, input, build) = (self.ask, self.input.into_owned(), self.build);
        offload(move || {
            let verdict = ask.verify_on_host(&version.facts, &input)?;
            build(&ask, vec![u8::from(verdict.is_valid())])
        })
        .await?
    }
}

/// Waits until there is room for the request or its deadline has passed, which the watcher keeps.
async fn wait_for_room<O: Operation>(
    refused: Box<Refused<'_, O>>,
    mask: u64,
    encoded: Option<Payload>,
    started: Time,
    deadline: Option<Time>,
) -> Result<Pending<O>> {
    let mut request = refused.request;
    let core = &request.shared.core;
    let alarm = deadline.map(|deadline| Alarm::set(core, request.ask.kind(), started, deadline));
    loop {
        let mut heard = core.admission.listen();
        core.check_open()?;
        match request.ready(mask, encoded.clone(), started, deadline) {
            Ok(ready) => return Ok(ready.launch()),
            Err(refused) if is_overload(&refused.error) => request = refused.request,
            Err(refused) => return Err(refused.error),
        }
        let in_time = poll_fn(|context| match &alarm {
            Some(alarm) if alarm.node.poll(context).is_ready() => Poll::Ready(false),
            _ => Pin::new(&mut heard).poll(context).map(|()| true),
        });
        if !in_time.await {
            return Err(expired(Outcome::NotDone));
        }
    }
}

/// A registration with the watcher that wakes a future at its deadline.
struct Alarm<'a> {
    core: &'a Core,
    node: Arc<Node>,
    registration: Registration,
}

impl<'a> Alarm<'a> {
    fn set(core: &'a Core, kind: crate::OperationKind, started: Time, deadline: Time) -> Self {
        let node = Arc::new(Node::alarm(kind, started, deadline));
        let (registration, earliest) = core.deadlines.register(deadline, &node);
        if earliest {
            core.deadline_before_look(deadline);
        }
        Self { core, node, registration }
    }
}

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        self.core.deadlines.remove(self.registration);
    }
}

impl<O: Operation> Future for RequestFuture<'_, O> {
    type Output = Result<O::Output>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let state = &mut self.get_mut().0;
        loop {
            *state = match state {
                State::Start(request) => match request.take().map(Self::start) {
                    Some(Ok(next)) => next,
                    Some(Err(error)) => State::Failed(Some(error)),
                    None => State::Failed(None),
                },
                State::Entering(entering) => match entering.as_mut().poll(context) {
                    Poll::Ready(Ok(pending)) => State::Flying(pending),
                    Poll::Ready(Err(error)) => State::Failed(Some(error)),
                    Poll::Pending => return Poll::Pending,
                },
                State::Failed(error) => {
                    let polled_again = || Error::internal("a future polled after its end");
                    return Poll::Ready(Err(error.take().unwrap_or_else(polled_again)));
                }
                State::Flying(pending) => return Pin::new(pending).poll(context),
                State::Host(answer) => return answer.as_mut().poll(context),
            }
        }
    }
}

impl<O: Operation> Unpin for RequestFuture<'_, O> {}

impl<O: Operation> std::fmt::Debug for RequestFuture<'_, O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = match &self.0 {
            State::Start(_) => "not polled yet",
            State::Entering(_) => "entering",
            State::Flying(_) => "in flight",
            State::Failed(_) => "failed",
            State::Host(_) => "on the host",
        };
        f.debug_tuple("RequestFuture").field(&state).finish()
    }
}

fn is_overload(error: &Error) -> bool {
    error.kind() == ErrorKind::Overloaded
}
