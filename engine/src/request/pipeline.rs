//! A stream of requests into a stream of results, with a window in flight.
//!
//! Requests that follow each other and may share calls are put together before they enter a lane: see `joint`. For that
//! the window is filled by quarters, so that there are some to put together, and some in flight meanwhile.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;

use super::Request;
use super::flight::Flight;
use super::group::{Group, JointFlight, Left};
use super::joint::later_of;
use crate::clock::Time;
use crate::error::{Error, Result};
use crate::operation::Operation;

/// Keeps up to `window` requests of a stream in flight and yields their results in the stream's order.
///
/// The source is polled for more whenever the window has room, so a slow source or a slow consumer holds up
/// nothing but itself. Requests wait for room in the engine instead of being refused.
///
/// Requests in a row that [`Many`](crate::Many) would put together are put together here too, up to a quarter of the
/// window. While those are what the source gives and answers are there to be yielded, it is polled when a quarter of
/// the window has room.
///
/// # Cancel safety
/// Dropping the pipeline withdraws what no session has begun.
///
/// ```no_run
/// # async fn run() -> hsmux::Result<()> {
/// # let engine = hsmux::Engine::builder().module("m").tokens(["t"]).pin("1234".to_owned()).build()?;
/// use futures::StreamExt;
/// let key = engine.key("card-signing")?;
/// let requests = futures::stream::iter(0..1_000_000_u64)
///     .map(|number| key.sign(hsmux::Ecdsa::P256_SHA256, number.to_be_bytes().to_vec()));
/// let mut signatures = hsmux::pipeline(requests, 256.try_into().expect("not zero"));
/// while let Some(signature) = signatures.next().await {
///     signature?;
/// }
/// # Ok(())
/// # }
/// ```
pub fn pipeline<'a, O, S>(source: S, window: NonZeroUsize) -> Pipeline<'a, O, S>
where
    O: Operation,
    S: Stream<Item = Request<'a, O>> + Unpin,
{
    let flying = VecDeque::new();
    let (window, group) = (window.get(), Group::default());
    Pipeline { source: Some(source), window, taken: 0, group, flying, entering: false }
}

/// The stream that [`pipeline`] makes.
#[must_use = "streams do nothing unless polled"]
pub struct Pipeline<'a, O: Operation, S> {
    source: Option<S>,
    window: usize,
    /// Requests that were taken from the source and whose answers were not yielded yet.
    taken: usize,
    /// Those that are being gathered, behind all that flies.
    group: Group<'a, O>,
    flying: VecDeque<Flown<'a, O>>,
    /// Whether any of them may be on its way into a lane. What is behind that one stays out until it is there: else it
    /// could take the room that the other waits for, and keep it, for answers are yielded in order.
    entering: bool,
}

enum Flown<'a, O: Operation> {
    One(Flight<'a, O>),
    Joint(Box<JointFlight<'a, O>>),
    /// Not in flight yet.
    Later(Box<Request<'a, O>>, Option<Failed>),
    /// It has failed with others and runs by itself.
    Again(Flight<'a, O>, Error),
}

/// How requests failed together, and when they had started.
#[derive(Clone)]
struct Failed {
    error: Error,
    started: Time,
}

impl<'a, O: Operation, S: Stream<Item = Request<'a, O>> + Unpin> Pipeline<'a, O, S> {
    /// Takes requests from the source while the window has room.
    fn fill(&mut self, context: &mut Context<'_>) {
        while self.taken < self.window && !self.is_held_up(context) {
            let Some(source) = &mut self.source else { break };
            match Pin::new(source).poll_next(context) {
                Poll::Ready(Some(request)) => self.accept(request.wait_for_room()),
                Poll::Ready(None) => self.source = None,
                Poll::Pending => break,
            }
        }
        if !self.is_held_up(context) {
            self.launch_group();
        }
    }

    fn accept(&mut self, request: Request<'a, O>) {
        self.taken += 1;
        let Some(request) = self.group.add(request, self.quarter()) else { return };
        self.launch_group();
        let joins = if self.quarter() > 1 { request.joins() } else { None };
        let alone = match joins {
            Some(merge) => self.group.begin(request, merge),
            None => Some(request),
        };
        match alone {
            None => {}
            Some(request) if self.entering => self.flying.push_back(Flown::Later(Box::new(request), None)),
            Some(request) => self.push(Flown::One(Flight::of(request, None))),
        }
    }

    /// Puts what was gathered in flight.
    fn launch_group(&mut self) {
        match self.group.len() {
            0 => {}
            1 => {
                let one = self.group.take_one().map(|request| Flown::One(Flight::of(request, None)));
                one.into_iter().for_each(|one| self.push(one));
            }
            _ => match self.group.launch() {
                Some(Ok(joint)) => self.push(Flown::Joint(Box::new(joint))),
                Some(Err(left)) => later(left).for_each(|one| self.push(one)),
                None => {}
            },
        }
    }

    fn push(&mut self, flown: Flown<'a, O>) {
        self.entering |= flown.is_entering();
        self.flying.push_back(flown);
    }

    const fn quarter(&self) -> usize {
        self.window.div_ceil(4)
    }

    /// Whether one is not in flight yet. Polling it here is what brings it there, and then those behind it.
    fn is_held_up(&mut self, context: &mut Context<'_>) -> bool {
        self.entering =
            self.entering && self.flying.iter_mut().any(|flown| flown.poll_entering(context).is_pending());
        self.entering
    }

    /// Whether answers of requests that went together wait to be yielded, and the window has little room.
    fn yields_first(&self) -> bool {
        let answered = matches!(self.flying.front(), Some(Flown::Joint(joint)) if joint.is_answered());
        answered && self.window - self.taken < self.quarter()
    }

    /// The next answer in order. None if nothing is in flight.
    fn poll_front(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<O::Output>>> {
        loop {
            let answer = match self.flying.front_mut() {
                None => return Poll::Ready(None),
                Some(flown @ Flown::Later(..)) => {
                    // Whatever it needs it waits for by itself, and nothing is in front of it.
                    flown.enter();
                    continue;
                }
                Some(Flown::One(flight)) => ready!(flight.poll(context)),
                Some(Flown::Again(flight, before)) => later_of(before, ready!(flight.poll(context))),
                Some(Flown::Joint(joint)) => match ready!(joint.poll_next(context)) {
                    Some(answer) => return Poll::Ready(Some(answer)),
                    None => {
                        // Each has had its answer, or runs by itself now.
                        self.replace_front(context);
                        continue;
                    }
                },
            };
            self.flying.pop_front();
            return Poll::Ready(Some(answer));
        }
    }

    /// What is left of requests that went together goes on one by one.
    fn replace_front(&mut self, context: &mut Context<'_>) {
        let Some(Flown::Joint(joint)) = self.flying.pop_front() else { return };
        let Some(left) = joint.left() else { return };
        later(left).rev().for_each(|one| self.flying.push_front(one));
        self.entering = true;
        self.is_held_up(context);
    }
}

/// Requests that failed together, to run one by one.
fn later<'a, O: Operation>(left: Left<'a, O>) -> impl DoubleEndedIterator<Item = Flown<'a, O>> {
    let Left { requests, error, started } = left;
    requests
        .map(move |request| Flown::Later(Box::new(request), Some(Failed { error: error.clone(), started })))
}

impl<O: Operation> Flown<'_, O> {
    /// Puts it in flight, if it is not.
    fn enter(&mut self) {
        let Self::Later(..) = self else { return };
        if let Self::Later(request, failed) = std::mem::replace(self, Self::One(Flight::Answered(None))) {
            let started = failed.as_ref().map(|failed| failed.started);
            let flight = Flight::of(*request, started);
            *self = match failed {
                Some(failed) => Self::Again(flight, failed.error),
                None => Self::One(flight),
            };
        }
    }

    fn is_entering(&self) -> bool {
        match self {
            Self::One(flight) | Self::Again(flight, _) => flight.is_entering(),
            Self::Joint(joint) => joint.is_entering(),
            Self::Later(..) => true,
        }
    }

    /// Brings it into its lane; ready once it is there.
    fn poll_entering(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.enter();
        match self {
            Self::One(flight) | Self::Again(flight, _) => flight.poll_entering(context),
            Self::Joint(joint) => joint.poll_entering(context),
            Self::Later(..) => Poll::Pending,
        }
    }
}

impl<'a, O: Operation, S: Stream<Item = Request<'a, O>> + Unpin> Stream for Pipeline<'a, O, S> {
    type Item = Result<O::Output>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if !this.yields_first() {
            this.fill(context);
        }
        match ready!(this.poll_front(context)) {
            Some(answer) => {
                this.taken -= 1;
                Poll::Ready(Some(answer))
            }
            None if this.source.is_none() => Poll::Ready(None),
            None => Poll::Pending,
        }
    }
}

impl<O: Operation, S: Unpin> Unpin for Pipeline<'_, O, S> {}

impl<O: Operation, S> std::fmt::Debug for Pipeline<'_, O, S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pipeline")
            .field("window", &self.window)
            .field("flying", &self.taken)
            .finish_non_exhaustive()
    }
}
