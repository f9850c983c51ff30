//! Workers: one thread per session that takes turns and runs them.

use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use crate::clock::{Time, now};
use crate::schedule::admission::Places;
use crate::schedule::core::Core;
use crate::schedule::cost::turn_ns;
use crate::schedule::gather;
use crate::schedule::lane::Lane;
use crate::schedule::node::Node;
use crate::schedule::seat::{Mailbox, Place, Seat, Watch, Work};
use crate::schedule::turn::Costs;
use crate::sync::{Ordering, Parker};
use crate::token::session::Failed;

/// Runs until the mailbox closes.
pub(crate) fn run(core: &Arc<Core>, place: Place, mailbox: &Mailbox, parker: &Parker) {
    let places = core.admission.places();
    let mut worker = Worker {
        core,
        place,
        places,
        wakers: Vec::new(),
        nodes: Vec::new(),
        spent: Vec::new(),
        delivered: 0,
        wait_ns: 0,
        operation_ns: u64::MAX,
    };
    while let Some(seat) = mailbox.receive(parker) {
        if core.is_stopped() {
            core.close_seat(seat);
            continue;
        }
        if seat.session.is_over() {
            core.vacate(place);
            core.close_seat(seat);
            continue;
        }
        worker.gather(parker);
        let watch = Arc::clone(&seat.watch);
        worker.serve(seat);
        worker.deliver(&watch);
        worker.let_gather();
    }
}

pub(super) struct Worker<'a> {
    pub(super) core: &'a Arc<Core>,
    pub(super) place: Place,
    /// Of the request that is answered just now, on their way to its waker.
    pub(super) places: Places<'a>,
    /// Memory for those that are delivered.
    wakers: Vec<Waker>,
    /// Memory for the next turn.
    pub(super) nodes: Vec<Arc<Node>>,
    /// Turns that are over, until they are delivered.
    pub(super) spent: Vec<Arc<Vec<Arc<Node>>>>,
    /// Wakers delivered since the token last gathered.
    delivered: usize,
    /// How long the oldest request of the last turn had queued.
    wait_ns: u64,
    /// What an operation of the last turn took on the token.
    pub(super) operation_ns: u64,
}

impl Worker<'_> {
    /// Sleeps while the token's sessions gather.
    fn gather(&self, parker: &Parker) {
        let until = &self.core.tokens[self.place.token].gather_until_ns;
        // Relaxed: a hint about time, which orders nothing.
        let until = Time::from_ns(until.load(Ordering::Relaxed));
        let mut at = now();
        while gather::is_worth(at, until) {
            parker.park_timeout(at.until(until));
            at = now();
        }
    }

    /// The callers were woken: says until when their next requests may gather, if that is worth it.
    fn let_gather(&mut self) {
        // Answers that nobody hurries to collect bring no requests: so many must have been woken here, too.
        if self.delivered < gather::CALLERS_MIN {
            return;
        }
        let callers = self.core.admission.uncollected();
        if let Some(until) = gather::until(now(), callers, self.operation_ns) {
            self.delivered = 0;
            self.core.tokens[self.place.token].gather_until_ns.store(until.as_ns(), Ordering::Relaxed);
        }
    }

    /// Takes turns until there is no work, then puts the session back.
    fn serve(&mut self, mut seat: Box<Seat>) {
        loop {
            if self.place.index >= self.core.dispatch.limit(self.place.token) {
                // It is parked.
                return self.rest(seat, now());
            }
            let start = now();
            let mut costs = Costs::default();
            let cost = |lane: &Lane<Arc<Node>>, node: &Arc<Node>| {
                costs.add(&seat, lane.demotion.may_merge(start.as_ns()), node)
            };
            let budget_ns = turn_ns(self.wait_ns);
            let taken =
                self.core.dispatch.take(self.place.token, start.as_ns(), budget_ns, cost, &mut self.nodes);
            // No work: the session goes back first, then those who wait for answers are woken by `run`.
            let Some(turn) = taken else { return self.rest(seat, start) };
            let Some(ended) = self.run_turn(seat, &turn.lane, start) else { return };
            seat = ended.seat;
            self.wait_ns = ended.wait_ns;
            self.core.dispatch.settle(&turn, ended.at.ns_since(start), ended.wait_ns, budget_ns);
            // The next look comes after another operation at the earliest, which may take long.
            let next_look = ended.at.after(Duration::from_nanos(self.operation_ns));
            if seat.watch.wakers_are_due(next_look, ended.wait_ns) {
                // User code runs in a waker, and never while a session is leased.
                let watch = Arc::clone(&seat.watch);
                self.core.dispatch.put_idle(seat);
                self.deliver(&watch);
                match self.core.dispatch.lease_own(self.place.token, self.place.index) {
                    Some(own) => seat = own,
                    // Whoever has it will look for work; if it was parked, nobody has.
                    None => return self.core.dispatch.look(self.place.token),
                }
            }
        }
    }

    /// Puts a session back that has nothing to do.
    fn rest(&self, mut seat: Box<Seat>, at: Time) {
        if seat.session.holds_stale(at) {
            seat.watch.enter(at, 0..0);
            let ended = seat.session.let_go();
            if !seat.watch.leave(at) {
                return self.core.come_back(seat);
            }
            if let Err(Failed { fate, .. }) = ended {
                return self.core.retire(seat, fate, Work::default());
            }
        }
        self.core.release(seat);
    }

    /// Gives back what the turns held and wakes whoever waits for that or for an answer: user code, so never
    /// while a session is leased.
    fn deliver(&mut self, watch: &Watch) {
        for spent in self.spent.drain(..) {
            // These may be the last references of requests that were given up, with their room.
            if let Ok(mut nodes) = Arc::try_unwrap(spent) {
                nodes.clear();
                self.nodes = nodes;
            }
        }
        self.delivered += self.core.deliver(watch, &mut self.wakers);
    }
}
