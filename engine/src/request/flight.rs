//! What a window has in flight: requests, alone or put together.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::future::Entered;
use super::joint::{BYTES_MAX, Joint, REQUESTS_MAX, is_of_all, part_of, too_short};
use super::{Request, RequestFuture, trace};
use crate::error::{Error, Result};
use crate::operation;
use crate::operation::Operation;
use crate::payload::Payload;
use crate::pending::Pending;
use crate::token::merge::Merge;

pub(super) enum Flight<'a, O: Operation> {
    Pending(Pending<O>),
    /// Run by the host, or being hashed or waiting for room.
    Slow(RequestFuture<'a, O>),
    /// Answered at once; none once that was yielded.
    Answered(Option<Result<O::Output>>),
}

impl<'a, O: Operation> Flight<'a, O> {
    pub(super) fn of(mut request: Request<'a, O>) -> Self {
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

    /// Brings it into its lane; ready once it is there.
    pub(super) fn poll_entering(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Slow(future) => future.poll_entering(context),
            Self::Pending(_) | Self::Answered(_) => Poll::Ready(()),
        }
    }
}

/// Requests that follow each other and share calls in one way, while they are put together.
pub(super) struct Together<'a, O: Operation> {
    requests: Vec<Request<'a, O>>,
    merge: Option<Merge>,
    bytes: usize,
}

impl<O: Operation> Default for Together<'_, O> {
    fn default() -> Self {
        Self { requests: Vec::new(), merge: None, bytes: 0 }
    }
}

impl<'a, O: Operation> Together<'a, O> {
    pub(super) fn len(&self) -> usize {
        self.requests.len()
    }

    /// Begins with a request that joins its like in this way; gives it back if it may not run.
    pub(super) fn begin(&mut self, mut request: Request<'a, O>, merge: Merge) -> Option<Request<'a, O>> {
        if request.start().is_err() {
            return Some(request);
        }
        self.bytes = request.input.len();
        self.merge = Some(merge);
        self.requests.push(request);
        None
    }

    /// Adds a request that is like those before it, if there are any and not yet so many; else gives it back.
    pub(super) fn add(&mut self, mut request: Request<'a, O>, len_max: usize) -> Option<Request<'a, O>> {
        let Some(first) = self.requests.first() else { return Some(request) };
        let fits = self.requests.len() < len_max.min(REQUESTS_MAX)
            && self.bytes + request.input.len() <= BYTES_MAX
            && request.trace.is_none()
            && !trace::may_be_wanted();
        let merges = |call| Merge::of(call, true) == self.merge;
        let alike = fits && is_alike(first, &request) && request.ask.call().is_some_and(merges);
        if !alike || request.start().is_err() {
            return Some(request);
        }
        self.bytes += request.input.len();
        self.requests.push(request);
        None
    }

    pub(super) fn take_one(&mut self) -> Option<Request<'a, O>> {
        self.requests.pop()
    }

    /// Puts them in flight as one.
    pub(super) fn take(&mut self) -> Option<Joined<'a, O>> {
        let requests = std::mem::take(&mut self.requests);
        let first = requests.first()?;
        let mut joint = Joint::new(self.merge?, requests.len(), self.bytes);
        let mut lens = Vec::with_capacity(requests.len());
        lens.extend(
            requests.iter().map(|request| joint.add(&request.ask, request.key_kind(), &request.input)),
        );
        let flight = Flight::of(joint.join(first));
        Some(Joined { flight, requests, lens, next: 0, output: None, at: 0 })
    }
}

/// Whether two requests wait in the same lane, until the same time.
fn is_alike<O: Operation>(one: &Request<'_, O>, other: &Request<'_, O>) -> bool {
    let key = match (one.key, other.key) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        _ => false,
    };
    key && Arc::ptr_eq(one.shared, other.shared)
        && one.ask.kind() == other.ask.kind()
        && one.limit() == other.limit()
        && (one.priority, one.tenant) == (other.priority, other.tenant)
}

/// Requests in flight as one, and then their answers, one by one.
pub(super) struct Joined<'a, O: Operation> {
    flight: Flight<'a, operation::Joined>,
    requests: Vec<Request<'a, O>>,
    /// How much of the output belongs to each.
    lens: Vec<usize>,
    /// Which is answered next.
    next: usize,
    output: Option<Result<Payload>>,
    at: usize,
}

impl<'a, O: Operation> Joined<'a, O> {
    pub(super) fn poll_entering(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.flight.poll_entering(context)
    }

    pub(super) const fn is_answered(&self) -> bool {
        self.output.is_some()
    }

    /// The next answer; none if there is none left, or if what is left is to run by itself.
    pub(super) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<O::Output>>> {
        if self.output.is_none() {
            self.output = Some(ready!(self.flight.poll(context)));
        }
        let (Some(request), Some(len)) = (self.requests.get(self.next), self.lens.get(self.next)) else {
            return Poll::Ready(None);
        };
        let answer = match &self.output {
            Some(Ok(output)) => match output.get(self.at..self.at + len) {
                Some(own) => part_of::<O>(&request.ask, request.key_kind(), request.build, own),
                None => Err(too_short()),
            },
            Some(Err(error)) if is_of_all(error) => Err(error.clone()),
            Some(Err(_)) | None => return Poll::Ready(None),
        };
        self.next += 1;
        self.at += len;
        Poll::Ready(Some(answer))
    }

    /// What has no answer yet, and why it failed together.
    pub(super) fn left(mut self) -> (Vec<Request<'a, O>>, Option<Error>) {
        (self.requests.split_off(self.next), self.output.and_then(Result::err))
    }
}
