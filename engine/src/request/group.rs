//! Requests of a window that go together: gathered, then in flight as a joint, then answered one by one.

use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::vec::IntoIter;

use zeroize::Zeroize;

use super::flight::Flight;
use super::joint::{BYTES_MAX, Joining, REQUESTS_MAX, is_of_all, part_of, too_short};
use super::{Audited, Request, trace};
use crate::clock::{Time, now};
use crate::error::{Error, Result};
use crate::operation::{Joint, Operation};
use crate::payload::{Input, Payload};
use crate::token::merge::Merge;

/// Requests that follow each other and share calls in one way, while they are gathered.
pub(super) struct Group<'a, O: Operation> {
    requests: Vec<Request<'a, O>>,
    merge: Option<Merge>,
    bytes: usize,
}

impl<O: Operation> Default for Group<'_, O> {
    fn default() -> Self {
        Self { requests: Vec::new(), merge: None, bytes: 0 }
    }
}

impl<'a, O: Operation> Group<'a, O> {
    pub(super) fn len(&self) -> usize {
        self.requests.len()
    }

    /// Begins with a request that joins its like in this way; gives it back if it may not run.
    pub(super) fn begin(&mut self, mut request: Request<'a, O>, merge: Merge) -> Option<Request<'a, O>> {
        if request.start().is_err() {
            return Some(request);
        }
        Audited::forget(&mut request.audited);
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
        // They have one record, all together.
        Audited::forget(&mut request.audited);
        self.bytes += request.input.len();
        self.requests.push(request);
        None
    }

    /// The request, if it is one.
    pub(super) fn take_one(&mut self) -> Option<Request<'a, O>> {
        self.requests.pop()
    }

    /// Puts them in flight as one, or gives them back: together they may be too large where each is not.
    pub(super) fn launch(&mut self) -> Option<Result<JointFlight<'a, O>, Left<'a, O>>> {
        let requests = std::mem::take(&mut self.requests);
        let first = requests.first()?;
        let mut joining = Joining::new(self.merge?, requests.len(), self.bytes, first.is_recorded());
        let mut lens = Vec::with_capacity(requests.len());
        lens.extend(requests.iter().map(|it| joining.add(&it.ask, it.key_kind(), &it.input, it.label_id())));
        let started = now();
        let flight = Flight::of(joining.join(first), Some(started));
        let (requests, lens) = (requests.into_iter(), lens.into_iter());
        Some(match flight {
            Flight::Answered(Some(Err(error))) => Err(Left { requests, error, started }),
            flight => Ok(JointFlight { flight, requests, lens, output: None, at: 0, started }),
        })
    }
}

/// Whether two requests wait in the same lane, until the same time, for the same caller if that is recorded.
fn is_alike<O: Operation>(one: &Request<'_, O>, other: &Request<'_, O>) -> bool {
    let key = match (one.key, other.key) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        _ => false,
    };
    key && Arc::ptr_eq(one.shared, other.shared)
        && one.ask.kind() == other.ask.kind()
        && one.limit() == other.limit()
        && (one.priority, one.tenant) == (other.priority, other.tenant)
        && (!one.is_recorded() || one.recorded_caller() == other.recorded_caller())
}

/// Requests in flight as one, and then their answers, one by one.
pub(super) struct JointFlight<'a, O: Operation> {
    flight: Flight<'a, Joint>,
    /// Those that have no answer yet.
    requests: IntoIter<Request<'a, O>>,
    /// How much of the output belongs to each.
    lens: IntoIter<usize>,
    output: Option<Result<Payload>>,
    at: usize,
    started: Time,
}

/// Requests that failed together and run by themselves now.
pub(super) struct Left<'a, O: Operation> {
    pub(super) requests: IntoIter<Request<'a, O>>,
    pub(super) error: Error,
    pub(super) started: Time,
}

impl<'a, O: Operation> JointFlight<'a, O> {
    pub(super) const fn is_entering(&self) -> bool {
        self.flight.is_entering()
    }

    pub(super) fn poll_entering(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.flight.poll_entering(context)
    }

    /// Whether an answer is there.
    pub(super) fn is_answered(&self) -> bool {
        self.output.is_some() && self.requests.len() > 0
    }

    /// The next answer; none if there is none left, or if what is left is to run by itself.
    pub(super) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<O::Output>>> {
        let output = match &mut self.output {
            Some(output) => output,
            None => {
                let output = ready!(self.flight.poll(context));
                if output.as_ref().is_ok() || output.as_ref().is_err_and(is_of_all) {
                    // What was asked is not asked again: its payload goes.
                    self.requests.as_mut_slice().iter_mut().for_each(|it| it.input = Input::default());
                }
                self.output.insert(output)
            }
        };
        let answer = match output {
            Err(error) if !is_of_all(error) => return Poll::Ready(None),
            Err(error) => Err(error.clone()),
            Ok(output) => {
                let len = self.lens.next().unwrap_or(0);
                let own = output.get_mut(self.at..self.at + len);
                self.at += len;
                Ok(own)
            }
        };
        let Some(request) = self.requests.next() else { return Poll::Ready(None) };
        Poll::Ready(Some(match answer {
            Ok(Some(own)) => {
                let answer = part_of::<O>(&request.ask, request.key_kind(), request.build, own);
                own.zeroize();
                answer
            }
            Ok(None) => Err(too_short()),
            Err(error) => Err(error),
        }))
    }

    /// What has no answer, if that failed together.
    pub(super) fn left(self) -> Option<Left<'a, O>> {
        let error = self.output?.err()?;
        Some(Left { requests: self.requests, error, started: self.started })
    }
}
