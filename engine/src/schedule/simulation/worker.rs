//! A worker in steps, so that anything may happen between two of them: what `schedule::worker` and `schedule::turn` do
//! on a thread. And callers that run their request by themselves, on a session that they have leased.

use std::ops::Range;
use std::sync::Arc;

use crate::clock::Time;
use crate::error::{Error, ErrorKind, Outcome, Retry};
use crate::schedule::cost::turn_ns;
use crate::schedule::dispatch::{Cost, Turn};
use crate::schedule::node::{Begun, Buffers, Node};
use crate::schedule::seat::Work;
use crate::schedule::simulation::device::Verdict;
use crate::schedule::simulation::world::{Event, LaneRef, Seat, World};
use crate::token::session::{Failed, Fate};

pub(super) struct Worker {
    seat: Option<Box<Seat>>,
    stage: Stage,
    wait_ns: u64,
}

enum Stage {
    /// It has no session, or has been handed one.
    Waits,
    Turn(Taken),
    /// It has seen that its epoch goes on, and is about to enter the module.
    Enters(Taken, Call),
    Calls(Taken, Call),
}

/// A turn under way.
struct Taken {
    turn: Turn<Arc<Node>>,
    nodes: Arc<Vec<Arc<Node>>>,
    next: usize,
    start: Time,
    /// Requests before this one were in a merged call that failed: each runs by itself.
    singly_to: usize,
}

struct Call {
    begun: Vec<(usize, Buffers)>,
    range: Range<usize>,
    at: Time,
    /// `None` where the session knew that its epoch was over, and made no call.
    verdict: Option<Verdict>,
}

pub(super) struct InlineCall {
    seat: Box<Seat>,
    /// It is about to enter the module: it has seen that its epoch goes on.
    enters: bool,
    verdict: Option<Verdict>,
}

/// How long a thread may be kept from its core between its look at the epoch and its call: shorter than the hang limit.
const PREEMPTED_NS: u64 = 40_000_000;

/// Requests of one call at most; the engine takes a thousand, which only takes longer to simulate.
const MERGED_MAX: usize = 8;

impl Worker {
    pub(super) const fn new() -> Self {
        Self { seat: None, stage: Stage::Waits, wait_ns: 0 }
    }

    pub(super) fn receive(&mut self, seat: Box<Seat>) {
        assert!(
            self.seat.is_none() && matches!(self.stage, Stage::Waits),
            "a session that is in use is leased"
        );
        self.seat = Some(seat);
    }

    pub(super) const fn is_at_rest(&self) -> bool {
        self.seat.is_none() && matches!(self.stage, Stage::Waits)
    }
}

impl World {
    pub(super) fn step(&mut self, number: usize) {
        let worker = &mut self.workers[number];
        let (seat, stage) = (worker.seat.take(), std::mem::replace(&mut worker.stage, Stage::Waits));
        let seat = seat.expect("a worker goes on with its session");
        match stage {
            Stage::Waits if self.stopped => self.close_seat(seat),
            Stage::Waits if seat.epoch.is_over() => {
                self.vacate(seat.place);
                self.close_seat(seat);
            }
            Stage::Waits => self.serve(seat),
            Stage::Turn(taken) => self.go_on(seat, taken),
            Stage::Enters(taken, mut call) => {
                let verdict = self.enter(&seat, 20_000 * call.begun.len() as u64);
                call.verdict = Some(verdict);
                self.stand(seat, Stage::Calls(taken, call), Some(verdict.ns));
            }
            Stage::Calls(taken, call) => self.return_from(seat, taken, call),
        }
    }

    fn stand(&mut self, seat: Box<Seat>, stage: Stage, after_ns: Option<u64>) {
        let number = seat.handle.owner;
        (self.workers[number].seat, self.workers[number].stage) = (Some(seat), stage);
        match after_ns {
            Some(ns) => self.at(ns, Event::Step(number)),
            None => self.soon(Event::Step(number)),
        }
    }

    /// Takes a turn, or puts the session back.
    fn serve(&mut self, seat: Box<Seat>) {
        let place = seat.place;
        let watch = Arc::clone(&seat.watch);
        if place.index >= self.dispatch.limit(place.token) {
            self.release(seat);
            return self.deliver(&watch);
        }
        let wait_ns = self.workers[seat.handle.owner].wait_ns;
        let budget_ns = turn_ns(wait_ns);
        let cost = |_: &_, node: &Arc<Node>| Cost { ns: seat.costs.estimate_ns(node.size), fills: false };
        let mut nodes = Vec::new();
        let taken = self.dispatch.take(place.token, self.now.as_ns(), budget_ns, cost, &mut nodes);
        let Some(turn) = taken else {
            self.release(seat);
            return self.deliver(&watch);
        };
        self.workers[seat.handle.owner].wait_ns = 0;
        let nodes = watch.begin_turn(&turn.lane, &mut nodes);
        let taken = Taken { turn, nodes, next: 0, start: self.now, singly_to: 0 };
        self.stand(seat, Stage::Turn(taken), None);
    }

    /// Begins the next call of a turn, or ends the turn.
    fn go_on(&mut self, seat: Box<Seat>, mut taken: Taken) {
        let first = taken.next;
        if first == taken.nodes.len() {
            return self.end_turn(seat, &taken);
        }
        let merges = |node: &Arc<Node>| self.requests[self.id_of(node)].merges();
        let may_merge = taken.turn.lane.demotion.may_merge(self.now.as_ns()) && first >= taken.singly_to;
        let alike = taken.nodes[first..].iter().take(MERGED_MAX).take_while(|node| may_merge && merges(node));
        let range = first..first + alike.count().max(1);
        taken.next = range.end;
        let begun = self.begin(&seat, &taken, range.clone());
        if begun.is_empty() {
            return self.stand(seat, Stage::Turn(taken), None);
        }
        self.call(seat, taken, begun, range);
    }

    fn begin(&mut self, seat: &Seat, taken: &Taken, range: Range<usize>) -> Vec<(usize, Buffers)> {
        let admission = Arc::clone(&self.admission);
        let mut places = admission.places();
        let mut begun = Vec::new();
        for position in range {
            let node = &taken.nodes[position];
            let waker = match node.begin(self.now, || 0, &mut places) {
                Begun::Run(buffers) => {
                    let worker = &mut self.workers[seat.handle.owner];
                    worker.wait_ns = worker.wait_ns.max(self.now.ns_since(node.submitted));
                    let id = self.id_of(node);
                    self.requests[id].begins();
                    begun.push((position, buffers));
                    continue;
                }
                Begun::Expired(waker) => waker,
                Begun::Gone => None,
            };
            seat.watch.keep(waker, &mut places, self.now);
        }
        begun
    }

    fn call(&mut self, seat: Box<Seat>, taken: Taken, begun: Vec<(usize, Buffers)>, range: Range<usize>) {
        for (position, _) in &begun {
            let deadline = taken.nodes[*position].deadline;
            assert!(deadline.is_none_or(|deadline| self.now < deadline), "a call begins after the deadline");
        }
        seat.watch.enter(self.now, range.clone());
        let call = Call { begun, range, at: self.now, verdict: None };
        match self.may_enter(&seat) {
            Some(after_ns) => self.stand(seat, Stage::Enters(taken, call), Some(after_ns)),
            None => self.stand(seat, Stage::Calls(taken, call), Some(0)),
        }
    }

    /// Whether a session's epoch goes on, and how long after that look its thread comes to enter the module.
    fn may_enter(&mut self, seat: &Seat) -> Option<u64> {
        if seat.epoch.is_over() {
            return None;
        }
        assert!(self.dispatch.healthy() & (1 << seat.place.token) != 0, "a token that is lost is used");
        let preempted = self.dice.of_million(5_000);
        Some(if preempted { self.dice.between(0, PREEMPTED_NS) } else { 0 })
    }

    /// A call of a session.
    fn enter(&mut self, seat: &Seat, cost_ns: u64) -> Verdict {
        let token = &mut self.tokens[seat.place.token];
        token.calls += 1;
        let before = token.device.present;
        let verdict = token.device.enter(seat.handle, self.weather, cost_ns, &mut self.dice);
        if before && !token.device.present {
            self.plug_later(seat.place.token);
        }
        verdict
    }

    fn return_from(&mut self, mut seat: Box<Seat>, mut taken: Taken, call: Call) {
        let Call { mut begun, range, at, verdict } = call;
        let result = match verdict {
            Some(verdict) => {
                self.execute(&taken, &mut begun, verdict.executes);
                self.tokens[seat.place.token].device.leave(seat.handle, verdict)
            }
            None => Err(session_is_over()),
        };
        if !seat.watch.leave(at) {
            return self.come_back(seat);
        }
        let lane = Arc::clone(&taken.turn.lane);
        match result {
            Ok(()) => {
                let admission = Arc::clone(&self.admission);
                let mut places = admission.places();
                seat.costs.learn(taken.nodes[begun[0].0].size, self.now.ns_since(at) / begun.len() as u64);
                if begun.len() > 1 {
                    lane.demotion.succeeded();
                }
                for (position, buffers) in begun {
                    let waker = taken.nodes[position].complete(buffers, &mut places);
                    seat.watch.keep(waker, &mut places, self.now);
                }
                self.stand(seat, Stage::Turn(taken), None);
            }
            Err(failed) if begun.len() > 1 && failed.fate == Fate::Keep => {
                lane.demotion.failed(self.now.as_ns());
                for (position, buffers) in begun {
                    let node = &taken.nodes[position];
                    self.requests[self.ids[&Arc::as_ptr(node)]].stands_back();
                    node.stand_back(buffers, &failed.error);
                }
                (taken.next, taken.singly_to) = (range.start, range.end);
                self.stand(seat, Stage::Turn(taken), None);
            }
            Err(failed) => {
                if begun.len() > 1 {
                    lane.demotion.failed(self.now.as_ns());
                }
                if let Some(seat) = self.fail(seat, &taken, range, begun, &failed, &lane) {
                    self.stand(seat, Stage::Turn(taken), None);
                }
            }
        }
    }

    /// The device does what the requests ask, into the buffers that it was given.
    fn execute(&mut self, taken: &Taken, begun: &mut [(usize, Buffers)], executes: bool) {
        for (position, buffers) in begun.iter_mut().filter(|_| executes) {
            let node = &taken.nodes[*position];
            // Not by way of the node, which may be another request's by now: what came in says whose it is.
            let id = usize::from_le_bytes(buffers.input[..8].try_into().expect("eight bytes"));
            self.requests[id].executed();
            buffers.output.clear();
            buffers.output.extend_from_slice(&buffers.input);
            debug_assert!(node.task.is_some());
        }
    }

    fn fail(
        &mut self,
        seat: Box<Seat>,
        taken: &Taken,
        range: Range<usize>,
        begun: Vec<(usize, Buffers)>,
        failed: &Failed,
        lane: &LaneRef,
    ) -> Option<Box<Seat>> {
        let Failed { error, fate } = failed;
        let admission = Arc::clone(&self.admission);
        let mut places = admission.places();
        let nodes =
            begun.into_iter().map(|(position, buffers)| (Arc::clone(&taken.nodes[position]), buffers));
        let failures: Vec<_> = nodes.collect();
        let repeats = failures.iter().any(|(node, _)| node.may_repeat(error));
        let repeats = repeats && self.take_retry(seat.place.token, error);
        let mut again = Vec::new();
        for (node, buffers) in failures {
            if repeats && node.may_repeat(error) && node.put_back(buffers, error) {
                let id = self.id_of(&node);
                self.requests[id].goes_back(error);
                again.push(node);
            } else {
                let waker = node.fail(error.clone(), &mut places);
                seat.watch.keep(waker, &mut places, self.now);
            }
        }
        if *fate != Fate::Keep {
            let left = Work { current: again, ..seat.watch.break_turn(range) };
            self.retire(seat, *fate, left);
            return None;
        }
        if !again.is_empty() {
            self.fail_orphan(self.dispatch.give_back(lane, again));
        }
        Some(seat)
    }

    /// Takes a retry from the budget, and keeps an account of its own.
    fn take_retry(&mut self, token: usize, error: &Error) -> bool {
        let token = &mut self.tokens[token];
        let taken = token.budget.take(error, token.calls);
        if taken && !matches!(error.kind(), ErrorKind::SessionLost | ErrorKind::TokenLost) {
            token.retries += 1;
            let allowed = token.retries_max.max((token.calls - token.calls_before) / 10);
            assert!(token.retries <= allowed, "more retries than the budget allows");
        }
        taken
    }

    fn end_turn(&mut self, seat: Box<Seat>, taken: &Taken) {
        let (place, watch) = (seat.place, Arc::clone(&seat.watch));
        watch.end_turn();
        let wait_ns = self.workers[seat.handle.owner].wait_ns;
        let cost_ns = self.now.ns_since(taken.start);
        self.dispatch.settle(&taken.turn, cost_ns, wait_ns, turn_ns(wait_ns));
        if !watch.wakers_are_due(self.now, wait_ns) {
            return self.serve(seat);
        }
        self.dispatch.put_idle(seat);
        self.deliver(&watch);
        match self.dispatch.lease_own(place.token, place.index) {
            Some(own) => self.serve(own),
            None => self.dispatch.look(place.token),
        }
    }

    /// A caller runs a request by itself, if a session is idle. Says whether one was.
    pub(super) fn run_inline(&mut self, mask: u64) -> bool {
        let hint = (self.dice.index(self.tokens.len()), self.dice.index(4));
        let Some(seat) = self.dispatch.lease(mask, self.inline_closed, hint) else { return false };
        seat.watch.enter_inline(self.now);
        let after_ns = self.may_enter(&seat);
        self.inline.push(Some(InlineCall { seat, enters: after_ns.is_some(), verdict: None }));
        self.at(after_ns.unwrap_or(0), Event::InlineEnds(self.inline.len() - 1));
        true
    }

    /// A caller on a leased session enters its call, or comes out of it.
    pub(super) fn end_inline(&mut self, number: usize) {
        let InlineCall { seat, enters, verdict } = self.inline[number].take().expect("it ends once");
        if enters {
            let verdict = self.enter(&seat, 20_000);
            self.inline[number] = Some(InlineCall { seat, enters: false, verdict: Some(verdict) });
            return self.at(verdict.ns, Event::InlineEnds(number));
        }
        let result = match verdict {
            Some(verdict) => self.tokens[seat.place.token].device.leave(seat.handle, verdict),
            None => Err(session_is_over()),
        };
        seat.watch.leave_inline();
        match result {
            Err(Failed { fate, .. }) if fate != Fate::Keep => self.retire(seat, fate, Work::default()),
            _ => self.release(seat),
        }
    }
}

/// What a session says of itself once its epoch is over, before any call.
fn session_is_over() -> Failed {
    let error = Error::new(ErrorKind::SessionLost, Retry::Now, Outcome::NotDone);
    Failed { error, fate: Fate::Close }
}
