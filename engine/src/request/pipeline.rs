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
use super::flight::{Flight, Joined, Together};
use super::joint::later_of;
use crate::error::{Error, Result};
use crate::operation::Operation;
use crate::token::merge::Merge;

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
    Pipeline { source: Some(source), window: window.get(), taken: 0, together: Together::default(), flying }
}

/// The stream that [`pipeline`] makes.
#[must_use = "streams do nothing unless polled"]
pub struct Pipeline<'a, O: Operation, S> {
    source: Option<S>,
    window: usize,
    /// Requests that were taken from the source and whose answers were not yielded yet.
    taken: usize,
    /// Those that are being put together; none between polls.
    together: Together<'a, O>,
    flying: VecDeque<Flown<'a, O>>,
}

enum Flown<'a, O: Operation> {
    /// Only the last of the window can be on its way into a lane: the source is not polled behind it.
    One(Flight<'a, O>),
    /// One that has failed with others, so.
    Again(Flight<'a, O>, Error),
    Joined(Box<Joined<'a, O>>),
}

impl<'a, O: Operation, S: Stream<Item = Request<'a, O>> + Unpin> Pipeline<'a, O, S> {
    /// Takes requests from the source while the window has room.
    fn fill(&mut self, context: &mut Context<'_>) {
        while self.taken < self.window && !self.is_held_up(context) {
            let Some(source) = &mut self.source else { break };
            match Pin::new(source).poll_next(context) {
                Poll::Ready(Some(request)) => self.take(request.wait_for_room()),
                Poll::Ready(None) => self.source = None,
                Poll::Pending => break,
            }
        }
        self.launch();
    }

    fn take(&mut self, request: Request<'a, O>) {
        self.taken += 1;
        let Some(request) = self.together.add(request, self.quarter()) else { return };
        self.launch();
        match request.joins() {
            Some(merge) => self.begin(request, merge),
            None => self.flying.push_back(Flown::One(Flight::of(request))),
        }
    }

    fn begin(&mut self, request: Request<'a, O>, merge: Merge) {
        if let Some(request) = self.together.begin(request, merge) {
            self.flying.push_back(Flown::One(Flight::of(request)));
        }
    }

    /// Puts what was put together in flight.
    fn launch(&mut self) {
        match self.together.len() {
            0 => {}
            1 => self.flying.extend(self.together.take_one().map(|request| Flown::One(Flight::of(request)))),
            _ => self.flying.extend(self.together.take().map(|joined| Flown::Joined(Box::new(joined)))),
        }
    }

    const fn quarter(&self) -> usize {
        self.window.div_ceil(4)
    }

    /// Whether the last request is not in flight yet. Polling it here is what brings it there.
    fn is_held_up(&mut self, context: &mut Context<'_>) -> bool {
        match self.flying.back_mut() {
            Some(Flown::One(flight) | Flown::Again(flight, _)) => flight.poll_entering(context).is_pending(),
            Some(Flown::Joined(joined)) => joined.poll_entering(context).is_pending(),
            None => false,
        }
    }

    /// Whether answers of requests that were put together wait to be yielded, and the window has little room.
    fn yields_first(&self) -> bool {
        let answered = matches!(self.flying.front(), Some(Flown::Joined(joined)) if joined.is_answered());
        answered && self.window - self.taken < self.quarter()
    }

    /// The next answer in order. None if nothing is in flight.
    fn poll_front(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<O::Output>>> {
        loop {
            let answer = match self.flying.front_mut() {
                None => return Poll::Ready(None),
                Some(Flown::One(flight)) => Some(ready!(flight.poll(context))),
                Some(Flown::Again(flight, before)) => Some(later_of(before, ready!(flight.poll(context)))),
                Some(Flown::Joined(joined)) => ready!(joined.poll_next(context)),
            };
            match (answer, self.flying.front_mut()) {
                (Some(answer), Some(Flown::Joined(_))) => return Poll::Ready(Some(answer)),
                (Some(answer), _) => {
                    self.flying.pop_front();
                    return Poll::Ready(Some(answer));
                }
                // Each has had its answer, or runs by itself now.
                (None, _) => self.replace_front(),
            }
        }
    }

    /// What is left of requests that were put together goes on one by one.
    fn replace_front(&mut self) {
        let Some(Flown::Joined(joined)) = self.flying.pop_front() else { return };
        let (left, Some(error)) = joined.left() else { return };
        let flights: Vec<_> = left.into_iter().map(Flight::of).collect();
        for flight in flights.into_iter().rev() {
            self.flying.push_front(Flown::Again(flight, error.clone()));
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
