//! One request on its way: what is to be done, and the cell in which its answer arrives exactly once.

use std::cell::RefCell;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::clock::Time;
use crate::error::{Error, ErrorKind, Outcome, Result, Retry};
use crate::operation::{Ask, OperationKind};
use crate::payload::Payload;
use crate::request::Ran;
use crate::schedule::admission::{Permit, Places};
use crate::schedule::cost::is_hopeless;
use crate::sync::{AtomicU64, AtomicUsize, Mutex, Ordering};
use crate::token::facts::KeyKind;
use crate::token::merge::Merge;
use crate::token::task::{Call, Part, Task};

/// A queued request. Shared by its waiter, its lane or session, and the watcher.
pub(crate) struct Node {
    /// None only in an alarm.
    pub(crate) asked: Option<Asked>,
    /// None in an alarm and in what somebody else answers.
    pub(crate) task: Option<Task>,
    pub(crate) kind: OperationKind,
    /// How many requests of callers it is.
    pub(crate) requests: u64,
    /// Length of the input, kept apart because the input leaves early: it decides the cost.
    pub(crate) size: usize,
    pub(crate) submitted: Time,
    pub(crate) deadline: Option<Time>,
    /// When a session last began it and was done with it, for the waiter's span; 0 before.
    began_ns: AtomicU64,
    /// Where it ran.
    token: AtomicUsize,
    ended_ns: AtomicU64,
    body: Mutex<Body>,
}

struct Body {
    stage: Stage,
    buffers: Buffers,
    waker: Option<Waker>,
    /// Memory for an input: what is left of the last one when a session is done with it.
    spent: Payload,
    permit: Option<Permit>,
    /// Times a session has begun it: a request is repeated once, no more.
    attempts: u8,
    /// Times it met a session that was dead before the call: that is no attempt, but the session is gone, and there are
    /// only so many.
    dead_sessions: u8,
    /// One of the attempts may have been executed.
    unknown: bool,
    /// Answered while it lay in a lane: its place stays taken until the node has left the lane.
    in_lane: bool,
}

/// What was asked. It lies here from the start, where session and waiter both find it, and is copied nowhere.
pub(crate) struct Asked {
    pub(crate) ask: Ask,
    pub(crate) key: Option<KeyKind>,
    /// How many requests of callers it is: more than one if they were put together before they came.
    pub(crate) requests: u64,
    /// Whether it may be run once more although it may have been executed.
    pub(crate) repeats: bool,
    /// An attempt was made before it came here, and may have been executed.
    pub(crate) tried: Option<Outcome>,
}

/// The memory of a request: what the token is given, and room for what it writes.
///
/// Both are made and freed by the waiter's thread: memory that one thread allocates and another frees costs
/// more than anything else on the queued way (glibc: its arena's lock, and never a block from its own cache).
/// While a session has them they are its own, so that a late write of an abandoned call meets nobody.
#[derive(Default)]
pub(crate) struct Buffers {
    pub(crate) input: Payload,
    pub(crate) output: Payload,
}

enum Stage {
    /// In a lane or on its way there; the buffers are here.
    Waiting,
    /// A session has the buffers.
    Running,
    /// Answered, not yet collected; on success the output is here.
    Done(Result<()>),
    /// Collected, withdrawn or abandoned: nobody waits any more.
    Gone,
}

/// What a deadline that has passed comes upon.
pub(crate) enum Expired {
    /// The answer was there before; its waker may not have been delivered yet.
    Answered,
    /// Answered just now. `in_lane`: it leaves a dead node in a lane.
    Now { waker: Option<Waker>, in_lane: bool },
}

/// What a session gets when it begins a request.
pub(crate) enum Begun {
    Run(Buffers),
    /// Answered just now, because its deadline had passed.
    Expired(Option<Waker>),
    /// Nobody waits for it.
    Gone,
}

/// Nodes that a thread keeps for its next requests. As many as one thread commonly has in flight; each takes
/// about half a kilobyte, and up to [`SPENT_MAX`] of memory for an input. The prototype's figures (256 tasks, null module, CPU per operation): 196 ns with
/// cells from a free list of the thread, 346 with one allocation each.
const SPARE_MAX: usize = 256;

/// Dead sessions that a request may meet: as many as a token has, as a rule. The next one is told.
const DEAD_SESSIONS_MAX: u8 = 64;

/// Memory of an input that a spare node keeps for its next one, in bytes: more is wiped at every use.
const SPENT_MAX: usize = 256;

thread_local! {
    /// Nodes without a request, referred to by nobody else.
    static SPARE: RefCell<Vec<Arc<Node>>> = const { RefCell::new(Vec::new()) };
}

impl Node {
    /// Makes a node, out of one that this thread has kept if there is one. Requests of callers have a permit. `fill`
    /// puts what the token is given into memory that may be there from before, and is empty.
    pub(crate) fn make(
        asked: Asked,
        task: Task,
        fill: impl FnOnce(&Ask, &mut Payload),
        submitted: Time,
        deadline: Option<Time>,
        waker: Option<&Waker>,
        permit: Option<Permit>,
    ) -> Arc<Self> {
        let spare = SPARE.try_with(|spare| spare.borrow_mut().pop()).ok().flatten();
        let mut this = spare.unwrap_or_else(|| Arc::new(Self::blank()));
        // Always so, for nobody else refers to it. Field by field, in place: a node is too large to be made on the
        // stack and copied.
        if let Some(node) = Arc::get_mut(&mut this) {
            let body = node.body.get_mut();
            let mut input = std::mem::take(&mut body.spent);
            fill(&asked.ask, &mut input);
            (node.kind, node.size) = (asked.ask.kind(), input.len());
            (node.requests, node.submitted, node.deadline) = (asked.requests, submitted, deadline);
            body.buffers.output = Payload::zeroed(task.output_len);
            body.buffers.input = input;
            let tried = asked.tried;
            (node.asked, node.task) = (Some(asked), Some(task));
            (node.began_ns, node.ended_ns) = (AtomicU64::new(0), AtomicU64::new(0));
            (body.stage, body.permit) = (Stage::Waiting, permit);
            (body.attempts, body.in_lane) = (tried.is_some().into(), false);
            body.dead_sessions = 0;
            body.unknown = tried.is_some_and(|outcome| outcome != Outcome::NotDone);
            body.waker = waker.cloned();
        }
        this
    }

    /// Keeps a node's memory for the next request of this thread, if nobody else refers to it.
    pub(crate) fn recycle(mut this: Arc<Self>) {
        let Some(node) = Arc::get_mut(&mut this) else { return };
        node.clear();
        // A thread that is ending keeps nothing.
        let _kept = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < SPARE_MAX {
                spare.push(this);
            }
        });
    }

    /// Lets go of all that the request held.
    fn clear(&mut self) {
        (self.asked, self.task) = (None, None);
        let body = self.body.get_mut();
        body.stage = Stage::Gone;
        body.buffers = Buffers::default();
        if body.spent.capacity() > SPENT_MAX {
            body.spent = Payload::default();
        }
        (body.waker, body.permit) = (None, None);
    }

    fn blank() -> Self {
        let body = Mutex::new(Body::new(Stage::Gone, Buffers::default()));
        Self::without_task(None, OperationKind::Random, Time::from_ns(0), None, body)
    }

    /// A node that never enters a lane: the watcher answers it at the deadline, as it answers requests.
    pub(crate) fn alarm(kind: OperationKind, requests: u64, submitted: Time, deadline: Time) -> Self {
        let body = Mutex::new(Body::new(Stage::Running, Buffers::default()));
        Self { requests, ..Self::without_task(None, kind, submitted, Some(deadline), body) }
    }

    /// A node that never enters a lane: somebody else answers it.
    pub(crate) fn served_elsewhere(
        asked: Asked,
        submitted: Time,
        deadline: Option<Time>,
        waker: Option<&Waker>,
        permit: Permit,
    ) -> Self {
        let mut body = Body::new(Stage::Running, Buffers::default());
        (body.waker, body.permit) = (waker.cloned(), Some(permit));
        let kind = asked.ask.kind();
        Self::without_task(Some(asked), kind, submitted, deadline, Mutex::new(body))
    }

    const fn without_task(
        asked: Option<Asked>,
        kind: OperationKind,
        submitted: Time,
        deadline: Option<Time>,
        body: Mutex<Body>,
    ) -> Self {
        let (began_ns, ended_ns) = (AtomicU64::new(0), AtomicU64::new(0));
        Self {
            asked,
            task: None,
            kind,
            requests: 1,
            size: 0,
            submitted,
            deadline,
            began_ns,
            token: AtomicUsize::new(0),
            ended_ns,
            body,
        }
    }

    /// What the token is to do: the call, and the parts of requests that were put together.
    pub(crate) fn call(&self) -> Option<(&Call, &[Part])> {
        let ask = &self.asked.as_ref()?.ask;
        Some((ask.call()?, ask.parts()))
    }

    /// Index of the kind of plan that serves it, for its cost.
    pub(crate) fn plan(&self) -> usize {
        self.task.as_ref().map_or(0, |task| task.plan)
    }

    /// How it can be merged with others, if it can.
    pub(crate) fn merge(&self) -> Option<Merge> {
        self.task.as_ref().and_then(|task| task.merge)
    }

    /// A session has run it, before its answer is set.
    pub(crate) fn note_run(&self, began: Time, ended: Time, token: usize) {
        self.token.store(token, Ordering::Relaxed);
        // Relaxed: who has collected the answer has had the body's lock after the session had it.
        self.began_ns.store(began.as_ns(), Ordering::Relaxed);
        self.ended_ns.store(ended.as_ns(), Ordering::Relaxed);
    }

    /// The token that it ran on last, if it ran.
    pub(crate) fn ran_on(&self) -> Option<usize> {
        (self.ended_ns.load(Ordering::Relaxed) > 0).then(|| self.token.load(Ordering::Relaxed))
    }

    /// How it ran, if a session was done with it when its answer was collected.
    pub(crate) fn ran(&self) -> Option<Ran> {
        let began = Time::from_ns(self.began_ns.load(Ordering::Relaxed));
        let ended = Time::from_ns(self.ended_ns.load(Ordering::Relaxed));
        let ran = Ran { queued_ns: began.ns_since(self.submitted), token_ns: ended.ns_since(began) };
        (ended.as_ns() > 0).then_some(ran)
    }

    /// Takes the buffers out to run it, unless nobody waits or the deadline has passed, or will have when it is answered:
    /// `expected_ns` says how long that will take.
    pub(crate) fn begin(&self, now: Time, expected_ns: impl Fn() -> u64, places: &mut Places<'_>) -> Begun {
        let hopeless =
            |deadline: Time| is_hopeless(now.ns_since(self.submitted), deadline.ns_since(now), expected_ns());
        let mut body = self.body.lock();
        match body.stage {
            Stage::Waiting if self.deadline.is_some_and(hopeless) => {
                Begun::Expired(body.fail(expired(Outcome::NotDone), false, places))
            }
            Stage::Waiting => {
                body.stage = Stage::Running;
                body.attempts += 1;
                Begun::Run(std::mem::take(&mut body.buffers))
            }
            Stage::Running | Stage::Done(_) | Stage::Gone => {
                // It has left its lane; its node may live on in the turn of a call that hangs.
                places.add(body.permit.as_mut().is_some_and(Permit::take_place));
                Begun::Gone
            }
        }
    }

    /// Whether the engine may run it once more by itself after this error.
    pub(crate) fn may_repeat(&self, error: &Error) -> bool {
        may_repeat(error, self.asked.as_ref().is_some_and(|asked| asked.repeats))
    }

    /// The request has failed so and is run once more: waiting again, with its buffers. False if it has been repeated
    /// before, or nobody waits; the buffers are wiped then.
    pub(crate) fn put_back(&self, mut buffers: Buffers, error: &Error) -> bool {
        let mut body = self.body.lock();
        let lost = matches!(error.kind(), ErrorKind::SessionLost | ErrorKind::TokenLost);
        if lost && error.outcome() == Outcome::NotDone {
            body.attempts = body.attempts.saturating_sub(1);
            body.dead_sessions = body.dead_sessions.saturating_add(1);
        }
        let few = body.attempts < 2 && body.dead_sessions < DEAD_SESSIONS_MAX;
        let again = matches!(body.stage, Stage::Running) && few;
        if again {
            buffers.output.wipe();
            body.stage = Stage::Waiting;
            body.buffers = buffers;
            body.unknown |= error.outcome() != Outcome::NotDone;
        }
        again
    }

    /// A call that it shared has failed so: it waits again, to run by itself, and that was no attempt of its own. The
    /// buffers are wiped if nobody waits.
    pub(crate) fn stand_back(&self, buffers: Buffers, error: &Error) {
        let mut body = self.body.lock();
        if matches!(body.stage, Stage::Running) {
            body.stage = Stage::Waiting;
            body.buffers = buffers;
            body.attempts = body.attempts.saturating_sub(1);
            body.unknown |= error.outcome() != Outcome::NotDone;
        }
    }

    /// The request was carried out; its output holds what the token wrote. Sets that as the answer, once:
    /// later answers are dropped. Returns the waker to wake after the session is free.
    pub(crate) fn complete(&self, mut buffers: Buffers, places: &mut Places<'_>) -> Option<Waker> {
        // Nothing keeps a copy of a payload beyond its completion; the memory itself is its waiter's to free.
        buffers.input.wipe();
        let spent = std::mem::take(&mut buffers.input);
        let mut body = self.body.lock();
        if body.is_answered() {
            drop(body);
            return None;
        }
        (body.buffers.output, body.spent) = (buffers.output, spent);
        body.finish(Ok(()), false, places)
    }

    /// Sets an error as the answer, once: later answers are dropped. Returns the waker to wake after the
    /// session is free.
    pub(crate) fn fail(&self, error: Error, places: &mut Places<'_>) -> Option<Waker> {
        self.body.lock().fail(error, false, places)
    }

    /// The deadline has passed: answers the waiter, whatever the token does with the request.
    pub(crate) fn expire(&self, places: &mut Places<'_>) -> Expired {
        let mut body = self.body.lock();
        if body.is_answered() {
            return Expired::Answered;
        }
        let (outcome, in_lane) = (body.outcome_now(), body.is_waiting());
        Expired::Now { waker: body.fail(expired(outcome), in_lane, places), in_lane }
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
        self.body.lock().is_answered()
    }
}

impl Body {
    const fn new(stage: Stage, buffers: Buffers) -> Self {
        Self {
            stage,
            buffers,
            waker: None,
            spent: Payload::new(Vec::new()),
            permit: None,
            attempts: 0,
            dead_sessions: 0,
            unknown: false,
            in_lane: false,
        }
    }

    fn fail(&mut self, error: Error, in_lane: bool, places: &mut Places<'_>) -> Option<Waker> {
        if self.is_answered() {
            return None;
        }
        self.buffers = Buffers::default();
        let error = if self.unknown { error.after_unknown() } else { error };
        self.finish(Err(error), in_lane, places)
    }

    /// Marks the answer as set and takes the waker out, both under the lock, so that a waiter that sees the
    /// answer can reuse its waker: `hot-path`, trap of completing first and taking the waker then.
    fn finish(&mut self, answer: Result<()>, in_lane: bool, places: &mut Places<'_>) -> Option<Waker> {
        self.in_lane = in_lane;
        if let Some(permit) = &mut self.permit {
            if in_lane { permit.release_bytes() } else { places.add(permit.take_place()) }
        }
        self.stage = Stage::Done(answer);
        self.waker.take()
    }

    fn collect(&mut self) -> Option<Result<Payload>> {
        match std::mem::replace(&mut self.stage, Stage::Gone) {
            Stage::Done(answer) => {
                if !self.in_lane {
                    self.permit = None;
                }
                Some(answer.map(|()| std::mem::take(&mut self.buffers.output)))
            }
            other => {
                self.stage = other;
                None
            }
        }
    }

    fn abandon(&mut self) {
        self.buffers = Buffers::default();
        self.waker = None;
        if let Some(permit) = &mut self.permit {
            permit.release_bytes();
        }
        self.stage = Stage::Gone;
    }

    const fn is_answered(&self) -> bool {
        matches!(self.stage, Stage::Done(_) | Stage::Gone)
    }

    fn is_waiting(&self) -> bool {
        matches!(self.stage, Stage::Waiting)
    }

    fn outcome_now(&self) -> Outcome {
        if self.is_waiting() && !self.unknown { Outcome::NotDone } else { Outcome::Unknown }
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("kind", &self.kind).field("size", &self.size).finish_non_exhaustive()
    }
}

/// Whether the engine itself may run a request once more: another session may serve it, and either it did not run, or
/// running it twice harms nobody.
pub(crate) fn may_repeat(error: &Error, repeats: bool) -> bool {
    error.retry() == Retry::Now && (error.outcome() == Outcome::NotDone || repeats)
}

pub(crate) const fn expired(outcome: Outcome) -> Error {
    Error::new(ErrorKind::DeadlineExceeded, Retry::Later, outcome)
}
