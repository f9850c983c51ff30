//! A stream of requests into a stream of results, with a window in flight.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;

use super::future::Entered;
use super::{Request, RequestFuture};
use crate::error::{Error, Result};
use crate::operation::Operation;
use crate::pending::Pending;

/// Keeps up to `window` requests of a stream in flight and yields their results in the stream's order.
///
/// The source is polled for more whenever the window has room, so a slow source or a slow consumer holds up
/// nothing but itself. Requests wait for room in the engine instead of being refused.
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
    Pipeline { source: Some(source), window: window.get(), flying: VecDeque::new() }
}

/// The stream that [`pipeline`] makes.
#[must_use = "streams do nothing unless polled"]
pub struct Pipeline<'a, O: Operation, S> {
    source: Option<S>,
    window: usize,
    flying: VecDeque<Flight<'a, O>>,
}

enum Flight<'a, O: Operation> {
    Pending(Pending<O>),
    /// Run by the host, or being hashed or waiting for room. Only the last of the window can be one that is hashed or
    /// waits: the source is not polled behind it.
    Slow(RequestFuture<'a, O>),
    /// Answered at once; none once that was yielded.
    Answered(Option<Result<O::Output>>),
}

impl<'a, O: Operation, S: Stream<Item = Request<'a, O>> + Unpin> Pipeline<'a, O, S> {
    /// Takes requests from the source while the window has room.
    fn fill(&mut self, context: &mut Context<'_>) {
        while self.flying.len() < self.window && !self.is_held_up(context) {
            let Some(source) = &mut self.source else { return };
            match Pin::new(source).poll_next(context) {
                Poll::Ready(Some(request)) => self.flying.push_back(Flight::of(request.wait_for_room())),
                Poll::Ready(None) => self.source = None,
                Poll::Pending => return,
            }
        }
    }

    /// Whether the last request is not in flight yet. Polling it here is what brings it there.
    fn is_held_up(&mut self, context: &mut Context<'_>) -> bool {
        let Some(Flight::Slow(future)) = self.flying.back_mut() else { return false };
        future.poll_entering(context).is_pending()
    }
}

impl<'a, O: Operation> Flight<'a, O> {
    fn of(mut request: Request<'a, O>) -> Self {
        if request.ask.call().is_none() {
            return RequestFuture::on_host(request)
                .map_or_else(|error| Self::Answered(Some(Err(error))), Self::Slow);
        }
        match request.try_enter(None) {
            Ok(Entered::Flying(pending)) => Self::Pending(pending),
            Ok(Entered::Slowly(how)) => Self::Slow(RequestFuture::entering(request.slowly(how))),
            Ok(Entered::Done(output)) => Self::Answered(Some(Ok(output))),
            Err(error) => Self::Answered(Some(Err(error))),
        }
    }
}

impl<'a, O: Operation, S: Stream<Item = Request<'a, O>> + Unpin> Stream for Pipeline<'a, O, S> {
    type Item = Result<O::Output>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        this.fill(context);
        let answer = match this.flying.front_mut() {
            None if this.source.is_none() => return Poll::Ready(None),
            None => return Poll::Pending,
            Some(Flight::Pending(pending)) => Pin::new(pending).poll(context),
            Some(Flight::Slow(future)) => Pin::new(future).poll(context),
            Some(Flight::Answered(answer)) => {
                let yielded = || Err(Error::internal("an answer that was yielded before"));
                Poll::Ready(answer.take().unwrap_or_else(yielded))
            }
        };
        answer.map(|answer| {
            this.flying.pop_front();
            Some(answer)
        })
    }
}

impl<O: Operation, S: Unpin> Unpin for Pipeline<'_, O, S> {}

impl<O: Operation, S> std::fmt::Debug for Pipeline<'_, O, S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pipeline")
            .field("window", &self.window)
            .field("flying", &self.flying.len())
            .finish_non_exhaustive()
    }
}
