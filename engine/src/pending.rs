//! Requests in flight, and how their answers are awaited.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use crate::clock::now;
use crate::error::{Error, Outcome, Result};
use crate::operation::Operation;
use crate::request::{Audited, Build, Settling, Trace, check_not_forked, finish};
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
    /// None once the answer is collected.
    node: Option<Arc<Node>>,
    registration: Option<Registration>,
    /// Its span, if somebody listens: closed here, on the caller's side.
    trace: Option<Box<Trace>>,
    /// Its record in the audit log, if there is one.
    audited: Option<Box<Audited>>,
    /// The answer, while it waits for its record.
    settling: Option<Box<Settling<O::Output>>>,
    /// The answer of a request that the host has carried out by itself: it never had a node.
    answered: Option<Box<Result<O::Output>>>,
    build: Build<O>,
}

impl<O: Operation> Pending<O> {
    pub(crate) fn new(core: Arc<Core>, node: Arc<Node>, trace: Option<Box<Trace>>, build: Build<O>) -> Self {
        let (audited, settling) = (None, None);
        Self { core, node: Some(node), registration: None, trace, audited, settling, answered: None, build }
    }

    pub(crate) fn audited(mut self, audited: Option<Box<Audited>>) -> Self {
        self.audited = audited;
        self
    }

    /// For a request that is answered already.
    pub(crate) fn answered(core: Arc<Core>, answer: Result<O::Output>, build: Build<O>) -> Self {
        let answered = Some(Box::new(answer));
        let (audited, settling) = (None, None);
        Self { core, node: None, registration: None, trace: None, audited, settling, answered, build }
    }

    /// Waits for the output.
    ///
    /// # Errors
    /// As [`Request::wait`](crate::Request::wait).
    ///
    /// # Blocking
    /// Until the answer or the deadline.
    pub fn wait(mut self) -> Result<O::Output> {
        check_not_forked()?;
        if let Some(answer) = self.answered.take() {
            return *answer;
        }
        let answer = parked(|parker, context| {
            loop {
                if let Poll::Ready(answer) = self.collect(context) {
                    return answer;
                }
                let deadline = self.node.as_ref().and_then(|node| node.deadline);
                match deadline.map(|deadline| now().until(deadline)) {
                    Some(left) if left.is_zero() => return self.give_up(),
                    Some(left) => parker.park_timeout(left),
                    None => parker.park(),
                }
            }
        });
        let answer = match self.audited.take() {
            Some(audited) => audited.settle(answer).wait(),
            None => answer,
        };
        Trace::end(&mut self.trace, answer)
    }

    pub(crate) const fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// The deadline has passed: the answer if it came just now, else the error.
    fn give_up(&mut self) -> Result<O::Output> {
        let Some(node) = self.node.take() else { return Err(polled_again()) };
        if let Some(answer) = node.try_collect() {
            self.note_run(&node);
            return answer.and_then(|output| finish::<O>(&node, self.build, output));
        }
        self.core.counters.expired(node.requests);
        let in_lane = node.withdraw();
        if in_lane {
            self.core.count_withdrawn();
        }
        Err(expired(if in_lane { Outcome::NotDone } else { Outcome::Unknown }))
    }

    /// Has the watcher keep the deadline, which a future cannot do by itself.
    pub(crate) fn register(&mut self) {
        let Some(node) = self.node.as_ref().filter(|_| self.registration.is_none()) else { return };
        if let Some(deadline) = node.deadline {
            let (registration, earliest) = self.core.deadlines.register(deadline, node);
            self.registration = Some(registration);
            if earliest {
                self.core.deadline_before_look(deadline);
            }
        }
    }

    /// The answer, if it is there; else the waker is kept.
    fn collect(&mut self, context: &Context<'_>) -> Poll<Result<O::Output>> {
        let Some(node) = &self.node else { return Poll::Ready(Err(polled_again())) };
        let Poll::Ready(answer) = node.poll(context) else { return Poll::Pending };
        self.unregister();
        let Some(node) = self.node.take() else { return Poll::Ready(Err(polled_again())) };
        self.note_run(&node);
        let answer = answer.and_then(|output| finish::<O>(&node, self.build, output));
        Node::recycle(node);
        Poll::Ready(answer)
    }

    fn note_run(&mut self, node: &Node) {
        if let Some(audited) = &mut self.audited {
            audited.ran_on(node.ran_on());
        }
        if let Some(trace) = &mut self.trace {
            trace.ran(node.ran());
        }
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
        check_not_forked()?;
        if let Some(answer) = this.answered.take() {
            return Poll::Ready(*answer);
        }
        if this.settling.is_none()
            && let Poll::Ready(answer) = this.collect(context)
        {
            match this.audited.take() {
                Some(audited) => this.settling = Some(Box::new(audited.settle(answer))),
                None => return Poll::Ready(Trace::end(&mut this.trace, answer)),
            }
        }
        if let Some(settling) = &mut this.settling {
            let answer = std::task::ready!(Pin::new(&mut **settling).poll(context));
            this.settling = None;
            return Poll::Ready(Trace::end(&mut this.trace, answer));
        }
        this.register();
        Poll::Pending
    }
}

impl<O: Operation> Unpin for Pending<O> {}

impl<O: Operation> Drop for Pending<O> {
    fn drop(&mut self) {
        if check_not_forked().is_err() {
            // Leaked: in a forked child, locks may be held by threads that are not there.
            std::mem::forget((
                self.node.take(),
                self.trace.take(),
                self.audited.take(),
                self.settling.take(),
            ));
            return;
        }
        self.unregister();
        let Some(node) = self.node.take() else { return };
        if node.withdraw() {
            self.core.count_withdrawn();
            Audited::forget(&mut self.audited);
        } else if let Some(trace) = &mut self.trace {
            trace.abandon();
        }
    }
}

impl<O: Operation> std::fmt::Debug for Pending<O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pending").field("node", &self.node).finish_non_exhaustive()
    }
}

pub(crate) fn polled_again() -> Error {
    Error::internal("a future polled after its end")
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
