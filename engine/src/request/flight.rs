//! What a window has in flight.

use std::pin::Pin;
use std::task::{Context, Poll};

use super::future::Entered;
use super::{Request, RequestFuture};
use crate::clock::Time;
use crate::error::{Error, Result};
use crate::operation::Operation;
use crate::pending::Pending;

pub(super) enum Flight<'a, O: Operation> {
    Pending(Pending<O>),
    /// Run by the host, or being hashed or waiting for room.
    Slow(RequestFuture<'a, O>),
    /// Answered at once; none once that was yielded.
    Answered(Option<Result<O::Output>>),
}

impl<'a, O: Operation> Flight<'a, O> {
    /// Puts a request in flight. Its time counts from `started`, or from now.
    pub(super) fn of(mut request: Request<'a, O>, started: Option<Time>) -> Self {
        if request.ask.call().is_none() {
            return RequestFuture::on_host(request)
                .map_or_else(|error| Self::Answered(Some(Err(error))), Self::Slow);
        }
        match request.try_enter(None, started) {
            Ok(Entered::Flying(pending)) => Self::Pending(pending),
            Ok(Entered::Slowly(how)) => Self::Slow(RequestFuture::entering(request.slowly(how))),
            Ok(Entered::Done(output)) => Self::Answered(Some(Ok(output))),
            Err(error) => Self::Answered(Some(Err(error))),
        }
    }

    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<O::Output>> {
        match self {
            Self::Pending(pending) => Pin::new(pending).poll(context),
            Self::Slow(future) => Pin::new(future).poll(context),
            Self::Answered(answer) => {
                let yielded = || Err(Error::internal("an answer that was yielded before"));
                Poll::Ready(answer.take().unwrap_or_else(yielded))
            }
        }
    }

    /// Whether it is on its way into its lane.
    pub(super) const fn is_entering(&self) -> bool {
        matches!(self, Self::Slow(future) if future.is_entering())
    }

    /// Brings it into its lane; ready once it is there.
    pub(super) fn poll_entering(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Slow(future) => future.poll_entering(context),
            Self::Pending(_) | Self::Answered(_) => Poll::Ready(()),
        }
    }
}
