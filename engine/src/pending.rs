//! Requests in flight, and how their answers are awaited.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use crate::clock::{Time, now};
use crate::error::{Outcome, Result};
use crate::operation::Operation;
use crate::request::Finish;
use crate::schedule::core::Core;
use crate::schedule::deadlines::Registration;
use crate::schedule::node::{Node, expired};
use crate::sync::{Parker, Unparker};

/// A request in flight: a future, or something to [`Pending::wait`] for.
///
/// # Cancel safety
/// Dropping it withdraws the request if no session has begun it; after that the token still runs the
/// operation and the result is thrown away.
#[must_use = "dropping a pending request withdraws it"]
pub struct Pending<O: Operation> {
    core: Arc<Core>,
    node: Arc<Node>,
    deadline: Option<Time>,
    registration: Option<Registration>,
    finish: Finish<O>,
    collected: bool,
}

impl<O: Operation> Pending<O> {
    pub(crate) fn new(core: Arc<Core>, node: Arc<Node>, deadline: Option<Time>, finish: Finish<O>) -> Self {
        Self { core, node, deadline, registration: None, finish, collected: false }
    }

    /// Waits for the output.
    ///
    /// # Errors
    /// As [`Request::wait`](crate::Request::wait).
    ///
    /// # Blocking
    /// Until the answer or the deadline.
    pub fn wait(mut self) -> Result<O::Output> {
        parked(|parker, context| {
            loop {
                if let Poll::Ready(answer) = self.node.poll(context) {
                    self.collected = true;
                    return self.finish.finish(answer?);
                }
                match self.deadline.map(|deadline| now().until(deadline)) {
                    Some(left) if left.is_zero() => return self.give_up(),
                    Some(left) => parker.park_timeout(left),
                    None => parker.park(),
                }
            }
        })
    }

    pub(crate) const fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// The deadline has passed: the answer if it came just now, else the error.
    fn give_up(&mut self) -> Result<O::Output> {
        self.collected = true;
        if let Some(answer) = self.node.try_collect() {
            return self.finish.finish(answer?);
        }
        self.core.counters.expired();
        let in_lane = self.node.withdraw();
        if in_lane {
            self.core.count_withdrawn();
        }
        Err(expired(if in_lane { Outcome::NotDone } else { Outcome::Unknown }))
    }

    fn unregister(&mut self) {
        if let Some(registration) = self.registration.take() {
            self.core.deadlines.remove(registration);
        }
    }
}

impl<O: Operation> Future for Pending<O> {
    type Output = Result<O::Output>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if let Poll::Ready(answer) = this.node.poll(context) {
            this.collected = true;
            this.unregister();
            return Poll::Ready(answer.and_then(|output| this.finish.finish(output)));
        }
        if let (Some(deadline), None) = (this.deadline, this.registration) {
            let (registration, earliest) = this.core.deadlines.register(deadline, &this.node);
            this.registration = Some(registration);
            if earliest {
                this.core.deadline_before_look(deadline);
            }
        }
        Poll::Pending
    }
}

impl<O: Operation> Unpin for Pending<O> {}

impl<O: Operation> Drop for Pending<O> {
    fn drop(&mut self) {
        self.unregister();
        if !self.collected && self.node.withdraw() {
            self.core.count_withdrawn();
        }
    }
}

impl<O: Operation> std::fmt::Debug for Pending<O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pending").field("node", &self.node).finish_non_exhaustive()
    }
}

/// Runs a future on this thread, which sleeps meanwhile.
pub(crate) fn block_on<F: Future>(mut future: Pin<&mut F>) -> F::Output {
    parked(|parker, context| {
        loop {
            match future.as_mut().poll(context) {
                Poll::Ready(output) => return output,
                Poll::Pending => parker.park(),
            }
        }
    })
}

/// Runs `wait` with this thread's parker and a context that unparks it. Both are made once per thread; a
/// wake-up left over from an earlier wait ends a park early, and the loop around it looks again.
fn parked<R>(wait: impl FnOnce(&Parker, &mut Context<'_>) -> R) -> R {
    thread_local!(static PARKING: (Parker, Waker) = {
        let parker = Parker::new();
        let waker = Waker::from(Arc::new(Unpark(parker.unparker().clone())));
        (parker, waker)
    });
    PARKING.with(|(parker, waker)| wait(parker, &mut Context::from_waker(waker)))
}

/// Wakes a blocked thread.
struct Unpark(Unparker);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
