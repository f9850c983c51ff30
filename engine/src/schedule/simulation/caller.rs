//! Callers: what they ask for, how long they wait, and what they are told in the end.

use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use crate::clock::Time;
use crate::error::{Error, ErrorKind, Outcome, Result};
use crate::operation::Ask;
use crate::payload::Payload;
use crate::schedule::admission::{Permit, Waiting};
use crate::schedule::deadlines::Registration;
use crate::schedule::node::{Asked, Node};
use crate::schedule::simulation::world::{Event, World};
use crate::schedule::waiters::Wants;
use crate::token::task::Task;

/// One request, and an account of what became of it.
pub(super) struct Request {
    lane: usize,
    bytes: usize,
    deadline: Option<Time>,
    /// Running it twice harms nobody.
    repeats: bool,
    merges: bool,
    state: State,
    /// To see at the end that nobody keeps it.
    node: Weak<Node>,
    registration: Option<Registration>,
    /// Times that a session has begun it, and times that this was no attempt.
    begun: u32,
    dead_sessions: u32,
    executed: u32,
}

enum State {
    /// It waits for room.
    Waits(Box<Waiting>),
    InFlight(Arc<Node>),
    /// Told what came of it.
    Answered(Result<()>),
    /// The caller has gone, or was never let in.
    Gone,
}

/// Requests of the simulation are made on nobody's behalf.
const NO_TENANT: u64 = 0;

impl Request {
    pub(super) const fn merges(&self) -> bool {
        self.merges
    }

    pub(super) const fn is_settled(&self) -> bool {
        matches!(self.state, State::Answered(_) | State::Gone)
    }

    pub(super) fn begins(&mut self) {
        self.begun += 1;
        assert!(self.begun - self.dead_sessions <= 2, "a third attempt");
    }

    /// It has failed so and is run again.
    pub(super) fn goes_back(&mut self, error: &Error) {
        let lost = matches!(error.kind(), ErrorKind::SessionLost | ErrorKind::TokenLost);
        self.dead_sessions += u32::from(lost && error.outcome() == Outcome::NotDone);
    }

    /// It shared a call that has failed, and runs by itself.
    pub(super) fn stands_back(&mut self) {
        self.begun -= 1;
    }

    pub(super) fn executed(&mut self) {
        self.executed += 1;
        assert!(self.executed == 1 || self.repeats, "a request that must not run twice does");
        // Once merged, then by itself, in each of two attempts.
        assert!(self.executed <= if self.merges { 4 } else { 2 }, "executed {} times", self.executed);
    }

    /// At the end, when nothing can be executed any more: the answer was true.
    pub(super) fn check(&self, id: usize) {
        assert!(self.is_settled(), "request {id} was never answered");
        assert_eq!(self.node.strong_count(), 0, "somebody keeps request {id}");
        match &self.state {
            State::Answered(Ok(())) => {
                assert!(self.executed > 0, "request {id} was answered and never executed")
            }
            State::Answered(Err(error)) if error.outcome() == Outcome::NotDone => {
                assert_eq!(self.executed, 0, "request {id} is said not to have been executed: {error}");
            }
            State::Answered(Err(_)) | State::Gone | State::Waits(_) | State::InFlight(_) => {}
        }
    }
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = match &self.state {
            State::Waits(_) => "waits for room",
            State::InFlight(node) if node.is_dead() => "answered, and its caller not woken",
            State::InFlight(_) => "in flight",
            State::Answered(_) => "told",
            State::Gone => "gone",
        };
        f.debug_struct("Request")
            .field("state", &state)
            .field("lane", &self.lane)
            .field("deadline", &self.deadline)
            .field("merges", &self.merges)
            .field("begun", &self.begun)
            .field("dead_sessions", &self.dead_sessions)
            .field("executed", &self.executed)
            .finish_non_exhaustive()
    }
}

/// Says that a caller was woken.
struct Bell {
    id: usize,
    woken: Arc<crate::sync::Mutex<std::collections::VecDeque<usize>>>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.woken.lock().push_back(self.id);
    }
}

impl World {
    /// Requests come: in bursts, now and then more than there is room for.
    pub(super) fn arrive(&mut self) {
        let burst = if self.dice.of_million(100_000) { 40 } else { 3 };
        let lane = self.dice.index(self.lanes.len());
        for _ in 0..self.dice.between(1, burst).min(self.left as u64) {
            self.left -= 1;
            let mask = (1 << self.tokens.len()) - 1;
            if self.dice.of_million(100_000) && self.run_inline(mask) {
                continue;
            }
            self.ask(lane);
        }
        if self.left > 0 {
            let after_ns = self.dice.pick(&[1_000, 20_000, 200_000]);
            let after_ns = self.dice.between(0, after_ns);
            self.at(after_ns, Event::Arrive);
        }
    }

    fn ask(&mut self, lane: usize) {
        let id = self.requests.len();
        let repeats = self.dice.of_million(700_000);
        let patience = self.dice.pick(&[None, None, Some(300_000), Some(5_000_000), Some(300_000_000)]);
        let deadline = patience.map(|most| self.now.after(Duration::from_nanos(self.dice.between(0, most))));
        self.requests.push(Request {
            lane,
            bytes: 16 + self.dice.index(500),
            deadline,
            repeats,
            merges: repeats && self.dice.of_million(500_000),
            state: State::Gone,
            node: Weak::new(),
            registration: None,
            begun: 0,
            dead_sessions: 0,
            executed: 0,
        });
        self.enter_or_wait(id);
        if self.dice.of_million(50_000) {
            let after_ns = self.dice.between(0, 2_000_000);
            self.at(after_ns, Event::Leave(id));
        }
    }

    fn enter_or_wait(&mut self, id: usize) {
        if let Ok(permit) = self.admission.admit(self.requests[id].bytes, NO_TENANT) {
            return self.launch(id, permit);
        }
        // Callers with a deadline are refused, the others wait.
        if self.requests[id].deadline.is_none() {
            let waiting = self.admission.listen(Wants::Room(self.requests[id].bytes), NO_TENANT);
            self.requests[id].state = State::Waits(Box::new(waiting));
            self.poll(id);
        }
    }

    fn launch(&mut self, id: usize, permit: Permit) {
        let request = &self.requests[id];
        let (deadline, len) = (request.deadline, request.bytes);
        let ask = Ask::random(len);
        let asked = Asked { ask, key: None, requests: 1, repeats: request.repeats, tried: None };
        let task = Task { handles: None, output_len: len, plan: 0, merge: None };
        let fill = |_: &Ask, memory: &mut Payload| {
            memory.extend_from_slice(&id.to_le_bytes());
            memory.resize(len, 0xA5);
        };
        let waker = self.bell(id);
        let node = Node::make(asked, task, fill, self.now, deadline, Some(&waker), Some(permit));
        self.ids.insert(Arc::as_ptr(&node), id);
        let request = &mut self.requests[id];
        let lane = Arc::clone(&self.lanes[request.lane]);
        (request.state, request.node) = (State::InFlight(Arc::clone(&node)), Arc::downgrade(&node));
        if let Some(deadline) = deadline {
            request.registration = Some(self.deadlines.register(deadline, &node).0);
            self.by_time.insert((deadline, id));
            // The watcher is late, too, so that sessions meet requests whose time is up.
            let late_ns = self.dice.between(0, 50_000);
            self.look_at(deadline.as_ns().max(self.now.as_ns()) + late_ns);
        }
        if lane.is_mostly_dead(self.withdrawn) {
            self.fail_orphan(self.dispatch.sweep(&lane, |node| node.is_dead()));
        }
        self.fail_orphan(self.dispatch.submit(&lane, [node]));
        if self.stopped {
            self.fail_queued();
        }
    }

    /// A caller was woken.
    pub(super) fn poll(&mut self, id: usize) {
        let waker = self.bell(id);
        let mut context = Context::from_waker(&waker);
        match std::mem::replace(&mut self.requests[id].state, State::Gone) {
            State::Waits(_) if self.stopped => {}
            State::Waits(mut waiting) => {
                match self.admission.admit(self.requests[id].bytes, NO_TENANT) {
                    Ok(permit) => return self.launch(id, permit),
                    Err(_) => {
                        while waiting.poll(&mut context).is_ready() {
                            if let Ok(permit) = self.admission.admit(self.requests[id].bytes, NO_TENANT) {
                                return self.launch(id, permit);
                            }
                        }
                    }
                }
                self.requests[id].state = State::Waits(waiting);
            }
            State::InFlight(node) => match node.poll(&context) {
                Poll::Ready(answer) => self.answered(id, answer),
                Poll::Pending => self.requests[id].state = State::InFlight(node),
            },
            told => {
                let node = self.requests[id].node.upgrade();
                let again = node.and_then(|node| node.try_collect());
                assert!(again.is_none(), "request {id} is answered twice");
                self.requests[id].state = told;
            }
        }
    }

    fn answered(&mut self, id: usize, answer: Result<Payload>) {
        self.unregister(id);
        let request = &mut self.requests[id];
        let late_ns = request.deadline.map_or(0, |deadline| self.now.ns_since(deadline));
        assert!(late_ns <= 100_000, "request {id} is answered {late_ns} ns after its deadline");
        let answer = answer.map(|output| {
            assert_eq!(output.len(), request.bytes, "request {id} has another's answer");
            assert_eq!(output[..8], id.to_le_bytes(), "request {id} has another's answer");
        });
        let kind = answer.as_ref().err().map(Error::kind);
        request.state = State::Answered(answer);
        // It looks again while the session may still be at it.
        let after_ns = self.dice.between(1_000, 500_000);
        self.at(after_ns, Event::Poll(id));
        self.note((id, kind));
    }

    /// A caller goes away, whatever came of its request.
    pub(super) fn leave(&mut self, id: usize) {
        self.unregister(id);
        match std::mem::replace(&mut self.requests[id].state, State::Gone) {
            State::InFlight(node) => self.withdrawn += u64::from(node.withdraw()),
            State::Waits(_) => {}
            told => self.requests[id].state = told,
        }
    }

    fn unregister(&mut self, id: usize) {
        let request = &mut self.requests[id];
        if let (Some(registration), Some(deadline)) = (request.registration.take(), request.deadline) {
            self.deadlines.remove(registration);
            self.by_time.remove(&(deadline, id));
        }
    }

    fn bell(&self, id: usize) -> Waker {
        Waker::from(Arc::new(Bell { id, woken: Arc::clone(&self.woken) }))
    }
}
