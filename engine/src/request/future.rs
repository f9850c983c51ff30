//! A request as a future: nothing happens until it is polled, and polling it never blocks.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::{Request, Settling};
use crate::clock::{Time, now};
use crate::error::{ErrorKind, Outcome, Result};
use crate::offload::offload;
use crate::operation::{Operation, Scratch};
use crate::payload::Payload;
use crate::pending::{Pending, polled_again};
use crate::schedule::core::Core;
use crate::schedule::deadlines::Registration;
use crate::schedule::node::{Node, expired};
use crate::schedule::waiters::Wants;

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
    /// Answered before it was ever in flight; none once that has been collected.
    Answered(Option<Result<O::Output>>),
    /// The host answers by itself, away from the thread that polls.
    Host(Boxed<'a, Result<O::Output>>),
}

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What came of a try to put a request in flight at once.
pub(super) enum Entered<O: Operation> {
    Flying(Pending<O>),
    /// Answered at once.
    Done(O::Output),
    /// Not in flight yet: [`Request::slowly`] goes on.
    Slowly(Slowly),
}

/// Why a request is not in flight at once.
pub(super) enum Slowly {
    /// It is long and has to be hashed, away from the thread that polls.
    Hash { mask: u64 },
    /// Its intent is to be in the audit log before it begins.
    Intent { intent: Settling<()> },
    /// It waits for room.
    Room { mask: u64, started: Time, deadline: Option<Time> },
}

impl<'a, O: Operation> RequestFuture<'a, O> {
    pub(super) const fn new(request: Request<'a, O>) -> Self {
        Self(State::Start(Some(request)))
    }

    /// Of a request that is already on its way.
    pub(super) const fn entering(future: Boxed<'a, Result<Pending<O>>>) -> Self {
        Self(State::Entering(future))
    }

    /// Whether it is on its way into its lane.
    pub(super) const fn is_entering(&self) -> bool {
        matches!(self.0, State::Entering(_))
    }

    /// Drives the request into its lane; ready once it is there, failed, or run by the host.
    pub(super) fn poll_entering(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match &mut self.0 {
            State::Entering(entering) => entering.as_mut().poll(context).map(|entered| {
                self.0 = entered.map_or_else(|error| State::Answered(Some(Err(error))), State::Flying);
            }),
            State::Start(_) | State::Host(_) | State::Flying(_) | State::Answered(_) => Poll::Ready(()),
        }
    }

    /// Has the host answer, from now on.
    pub(super) fn on_host(request: Request<'a, O>) -> Result<Self> {
        Ok(Self(State::Host(Box::pin(request.begin_on_host()?))))
    }

    /// Starts the request. Once it is in flight its waker is kept: there is nothing to poll yet.
    fn start(&mut self, context: &Context<'_>) -> Poll<()> {
        let State::Start(waiting) = &mut self.0 else { return Poll::Ready(()) };
        let Some(request) = waiting else { return Poll::Ready(()) };
        let entered = match request.ask.call() {
            Some(_) => request.try_enter(Some(context), None),
            None => {
                let on_host = waiting.take().map_or_else(|| Err(polled_again()), Self::on_host);
                self.0 = on_host.map_or_else(|error| State::Answered(Some(Err(error))), |this| this.0);
                return Poll::Ready(());
            }
        };
        self.0 = match entered {
            Ok(Entered::Flying(pending)) => {
                self.0 = State::Flying(pending);
                return Poll::Pending;
            }
            Ok(Entered::Done(output)) => State::Answered(Some(Ok(output))),
            Ok(Entered::Slowly(how)) => match waiting.take() {
                Some(request) => State::Entering(request.slowly(how)),
                None => State::Answered(None),
            },
            Err(error) => State::Answered(Some(Err(error))),
        };
        Poll::Ready(())
    }
}

impl<'a, O: Operation> Request<'a, O> {
    /// Puts the request in flight at once if that is quick and there is room; with a context, the waker is
    /// kept with it. In place, for a request is large: what it asks moves straight to where it stays. Its time counts
    /// from `started`, or from now.
    pub(super) fn try_enter(
        &mut self,
        context: Option<&Context<'_>>,
        started: Option<Time>,
    ) -> Result<Entered<O>> {
        let mask = self.start()?;
        if let Some(intent) = self.intent() {
            return Ok(Entered::Slowly(Slowly::Intent { intent }));
        }
        if self.is_long() {
            return Ok(Entered::Slowly(Slowly::Hash { mask }));
        }
        if let Some(pool) = self.pool() {
            if let Some(answer) = self.draw(pool) {
                return self.end(answer).map(Entered::Done);
            }
            if let Some(mut pending) = self.join_pool(pool, context.map(Context::waker)) {
                context.inspect(|_| pending.register());
                return Ok(Entered::Flying(pending));
            }
        }
        let again = started.is_some();
        let (started, deadline) = self.times_from(started);
        if again {
            self.check_time(deadline).map_err(|error| self.fail(error))?;
        }
        match self.ready(mask, None, started, deadline, context.map(Context::waker)) {
            Ok(ready) => Ok(Entered::Flying(match context {
                Some(_) => ready.launch_polled(),
                None => ready.launch(),
            })),
            Err(error) if self.waits(&error) => Ok(Entered::Slowly(Slowly::Room { mask, started, deadline })),
            Err(error) => Err(self.fail(error)),
        }
    }

    /// Brings a request into flight that could not be put there at once.
    pub(super) fn slowly(self, how: Slowly) -> Boxed<'a, Result<Pending<O>>> {
        match how {
            Slowly::Hash { mask } => Box::pin(self.hash_elsewhere(mask)),
            Slowly::Intent { intent } => Box::pin(self.enter_intended(intent)),
            Slowly::Room { mask, started, deadline } => {
                Box::pin(wait_for_room(self, mask, None, started, deadline))
            }
        }
    }

    /// Waits until the intent is durable, and then enters as any other.
    async fn enter_intended(mut self, intent: Settling<()>) -> Result<Pending<O>> {
        let started = now();
        intent.await.map_err(|error| self.fail(error))?;
        match self.try_enter(None, Some(started))? {
            Entered::Flying(pending) => Ok(pending),
            Entered::Slowly(how) => self.slowly(how).await,
            Entered::Done(output) => Ok(self.answered(Ok(output))),
        }
    }

    /// Hashes a long input away from the thread that polls, then enters.
    async fn hash_elsewhere(mut self, mask: u64) -> Result<Pending<O>> {
        let (started, deadline) = self.times();
        let encoded = self.offload_encoding().await.map_err(|error| self.fail(error))?;
        match self.ready(mask, Some(encoded.clone()), started, deadline, None) {
            Ok(ready) => Ok(ready.launch()),
            Err(error) if self.waits(&error) => {
                wait_for_room(self, mask, Some(encoded), started, deadline).await
            }
            Err(error) => Err(self.fail(error)),
        }
    }

    async fn offload_encoding(&self) -> Result<Payload> {
        let (ask, input) = (self.ask.clone(), Payload::new(self.input.to_vec()));
        offload(move || Payload::new(ask.encode(&input, &mut Scratch::new()).to_vec())).await
    }
}

/// Waits until there is room for the request or its deadline has passed, which the watcher keeps.
pub(super) async fn wait_for_room<O: Operation>(
    mut request: Request<'_, O>,
    mask: u64,
    encoded: Option<Payload>,
    started: Time,
    deadline: Option<Time>,
) -> Result<Pending<O>> {
    let core = &request.shared.core;
    let alarm = deadline.map(|deadline| Alarm::set(core, &request, started, deadline));
    let mut heard = core.admission.listen(Wants::Room(request.bytes()), request.tenant);
    loop {
        core.check_open().map_err(|error| request.fail(error))?;
        match request.ready(mask, encoded.clone(), started, deadline, None) {
            Ok(ready) => return Ok(ready.launch()),
            Err(error) if error.kind() == ErrorKind::Overloaded => {}
            Err(error) => return Err(request.fail(error)),
        }
        let in_time = poll_fn(|context| match &alarm {
            Some(alarm) if alarm.node.poll(context).is_ready() => Poll::Ready(false),
            _ => heard.poll(context).map(|()| true),
        });
        if !in_time.await {
            return Err(request.fail(expired(Outcome::NotDone)));
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
    fn set<O: Operation>(core: &'a Core, request: &Request<'_, O>, started: Time, deadline: Time) -> Self {
        let requests = request.requests.into();
        let node = Arc::new(Node::alarm(request.ask.kind(), requests, started, deadline));
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
        let this = self.get_mut();
        if this.start(context).is_pending() {
            return Poll::Pending;
        }
        let state = &mut this.0;
        loop {
            *state = match state {
                State::Start(_) => State::Answered(None),
                State::Entering(entering) => match entering.as_mut().poll(context) {
                    Poll::Ready(Ok(pending)) => State::Flying(pending),
                    Poll::Ready(Err(error)) => State::Answered(Some(Err(error))),
                    Poll::Pending => return Poll::Pending,
                },
                State::Answered(answer) => {
                    return Poll::Ready(answer.take().unwrap_or_else(|| Err(polled_again())));
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
            State::Answered(_) => "answered",
            State::Host(_) => "on the host",
        };
        f.debug_tuple("RequestFuture").field(&state).finish()
    }
}
