//! One request on its way: what is to be done, and the cell in which its answer arrives exactly once.

use std::task::{Context, Poll, Waker};

use zeroize::Zeroizing;

use crate::clock::Time;
use crate::error::{Error, ErrorKind, Outcome, Result, Retry};
use crate::operation::OperationKind;
use crate::schedule::admission::Permit;
use crate::sync::Mutex;
use crate::token::task::Task;

/// Bytes of a request or its answer; wiped when dropped.
pub(crate) type Payload = Zeroizing<Vec<u8>>;

/// A queued request. Shared by its waiter, its lane or session, and the watcher.
pub(crate) struct Node {
    /// None only in an alarm.
    pub(crate) task: Option<Task>,
    pub(crate) kind: OperationKind,
    /// Length of the input, kept apart because the input leaves early: it decides the cost.
    pub(crate) size: usize,
    pub(crate) submitted: Time,
    pub(crate) deadline: Option<Time>,
    body: Mutex<Body>,
}

struct Body {
    stage: Stage,
    input: Payload,
    waker: Option<Waker>,
    permit: Option<Permit>,
    /// Times a session has begun it: a request that did not run is repeated once, no more.
    attempts: u8,
    /// Answered while it lay in a lane: its place stays taken until the node has left the lane.
    in_lane: bool,
}

enum Stage {
    /// In a lane or on its way there; the payload is here.
    Waiting,
    /// A session has the payload.
    Running,
    /// Answered, not yet collected.
    Done(Result<Payload>),
    /// Collected, withdrawn or abandoned: nobody waits any more.
    Gone,
}

/// What a session gets when it begins a request.
pub(crate) enum Begun {
    Run(Payload),
    /// Answered just now, because its deadline had passed.
    Expired(Option<Waker>),
    /// Nobody waits for it.
    Gone,
}

impl Node {
    pub(crate) fn new(
        task: Task,
        kind: OperationKind,
        input: Payload,
        submitted: Time,
        deadline: Option<Time>,
        permit: Permit,
    ) -> Self {
        let size = input.len();
        let permit = Some(permit);
        let body = Body { stage: Stage::Waiting, input, waker: None, permit, attempts: 0, in_lane: false };
        Self { task: Some(task), kind, size, submitted, deadline, body: Mutex::new(body) }
    }

    /// A node that never enters a lane: the watcher answers it at the deadline, as it answers requests.
    pub(crate) fn alarm(kind: OperationKind, submitted: Time, deadline: Time) -> Self {
        let (stage, input) = (Stage::Running, Payload::default());
        let body = Body { stage, input, waker: None, permit: None, attempts: 0, in_lane: false };
        Self { task: None, kind, size: 0, submitted, deadline: Some(deadline), body: Mutex::new(body) }
    }

    /// Index of the kind of plan that serves it, for its cost.
    pub(crate) fn plan(&self) -> usize {
        self.task.as_ref().map_or(0, |task| task.plan)
    }

    /// Takes the payload out to run it, unless nobody waits or the deadline has passed.
    pub(crate) fn begin(&self, now: Time) -> Begun {
        let mut body = self.body.lock();
        match body.stage {
            Stage::Waiting if self.deadline.is_some_and(|deadline| deadline <= now) => {
                Begun::Expired(body.finish(Err(expired(Outcome::NotDone)), false))
            }
            Stage::Waiting => {
                body.stage = Stage::Running;
                body.attempts += 1;
                Begun::Run(std::mem::take(&mut body.input))
            }
            Stage::Running | Stage::Done(_) | Stage::Gone => Begun::Gone,
        }
    }

    /// The request did not run after all: waiting again, with its payload. False if it has been repeated
    /// before, or nobody waits; the payload is wiped then.
    pub(crate) fn put_back(&self, input: Payload) -> bool {
        let mut body = self.body.lock();
        let again = matches!(body.stage, Stage::Running) && body.attempts < 2;
        if again {
            body.stage = Stage::Waiting;
            body.input = input;
        }
        again
    }

    /// Sets the answer, once: later answers are dropped. Returns the waker to wake after the session is free.
    pub(crate) fn complete(&self, answer: Result<Payload>) -> Option<Waker> {
        self.body.lock().finish(answer, false)
    }

    /// The deadline has passed: answers the waiter, whatever the token does with the request. Says whether
    /// it leaves a dead node in a lane.
    pub(crate) fn expire(&self) -> (Option<Waker>, bool) {
        let mut body = self.body.lock();
        let (outcome, in_lane) = (body.outcome_now(), body.is_waiting());
        (body.finish(Err(expired(outcome)), in_lane), in_lane)
    }

    /// Collects the answer if it is there; else keeps the waker.
    pub(crate) fn poll(&self, context: &Context<'_>) -> Poll<Result<Payload>> {
        let mut body = self.body.lock();
        match body.collect() {
            Some(answer) => Poll::Ready(answer),
            None => {
                if !body.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                    body.waker = Some(context.waker().clone());
                }
                Poll::Pending
            }
        }
    }

    /// The answer, if it has come; the waiter does not wait for it.
    pub(crate) fn try_collect(&self) -> Option<Result<Payload>> {
        self.body.lock().collect()
    }

    /// Nobody waits any more. Wipes the payload if no session has it. True if that leaves a dead node in a lane.
    pub(crate) fn withdraw(&self) -> bool {
        let mut body = self.body.lock();
        let in_lane = body.is_waiting();
        body.abandon();
        in_lane
    }

    /// Whether it lies in a lane for nothing.
    pub(crate) fn is_dead(&self) -> bool {
        matches!(self.body.lock().stage, Stage::Done(_) | Stage::Gone)
    }
}

impl Body {
    /// Marks the answer as set and takes the waker out, both under the lock, so that a waiter that sees the
    /// answer can reuse its waker: `hot-path`, trap of completing first and taking the waker then.
    fn finish(&mut self, answer: Result<Payload>, in_lane: bool) -> Option<Waker> {
        if !matches!(self.stage, Stage::Waiting | Stage::Running) {
            return None;
        }
        self.input = Payload::default();
        self.in_lane = in_lane;
        if let Some(permit) = &mut self.permit {
            if in_lane { permit.release_bytes() } else { permit.release_place() }
        }
        let waker = self.waker.take();
        self.stage = Stage::Done(answer);
        waker
    }

    fn collect(&mut self) -> Option<Result<Payload>> {
        match std::mem::replace(&mut self.stage, Stage::Gone) {
            Stage::Done(answer) => {
                if !self.in_lane {
                    self.permit = None;
                }
                Some(answer)
            }
            other => {
                self.stage = other;
                None
            }
        }
    }

    fn abandon(&mut self) {
        self.input = Payload::default();
        self.waker = None;
        if let Some(permit) = &mut self.permit {
            permit.release_bytes();
        }
        self.stage = Stage::Gone;
    }

    fn is_waiting(&self) -> bool {
        matches!(self.stage, Stage::Waiting)
    }

    fn outcome_now(&self) -> Outcome {
        if self.is_waiting() { Outcome::NotDone } else { Outcome::Unknown }
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("kind", &self.kind).field("size", &self.size).finish_non_exhaustive()
    }
}

pub(crate) const fn expired(outcome: Outcome) -> Error {
    Error::new(ErrorKind::DeadlineExceeded, Retry::Later, outcome)
}
