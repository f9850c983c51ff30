//! Workers: one thread per session that takes turns and runs them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::clock::{Time, now};
use crate::error::{Error, Outcome, Retry};
use crate::schedule::core::{Core, LaneRef};
use crate::schedule::cost::TURN_NS;
use crate::schedule::node::{Begun, Node, Payload};
use crate::schedule::seat::{Mailbox, Place, Seat};
use crate::schedule::wake::Wakers;
use crate::sync::Parker;
use crate::token::session::{Failed, Fate};

/// Runs until the mailbox closes.
pub(crate) fn run(core: &Arc<Core>, place: Place, mailbox: &Mailbox, parker: &Parker) {
    let mut worker = Worker { core, place, wakers: Wakers::default(), nodes: Vec::new() };
    while let Some(seat) = mailbox.receive(parker) {
        worker.serve(seat);
        worker.wakers.wake(&core.counters.panics);
    }
}

struct Worker<'a> {
    core: &'a Arc<Core>,
    place: Place,
    wakers: Wakers,
    nodes: Vec<Arc<Node>>,
}

/// How a turn ended for the session.
struct Ended {
    seat: Box<Seat>,
    at: Time,
    /// The longest time a request of the turn had queued.
    wait_ns: u64,
}

impl Worker<'_> {
    /// Takes turns until there is no work, then puts the session back.
    fn serve(&mut self, mut seat: Box<Seat>) {
        loop {
            let start = now();
            let cost = |node: &Arc<Node>| seat.costs[node.plan()].estimate_ns(node.size);
            let taken =
                self.core.dispatch.take(self.place.token, start.as_ns(), TURN_NS, cost, &mut self.nodes);
            // No work: the session goes back first, then those who wait for answers are woken by `run`.
            let Some(turn) = taken else { return self.core.release(seat) };
            let Some(ended) = self.run_turn(seat, &turn.lane, start) else { return };
            seat = ended.seat;
            self.core.dispatch.settle(&turn, ended.at.ns_since(start), TURN_NS);
            if self.wakers.are_due(ended.at, ended.wait_ns) {
                // User code runs in a waker, and never while a session is leased.
                self.core.dispatch.put_idle(seat);
                self.wakers.wake(&self.core.counters.panics);
                match self.core.dispatch.lease_own(self.place.token, self.place.index) {
                    Some(own) => seat = own,
                    None => return,
                }
            }
        }
    }

    /// Runs what was taken, request by request. `None` if the session is gone.
    fn run_turn(&mut self, mut seat: Box<Seat>, lane: &LaneRef, start: Time) -> Option<Ended> {
        let watch = Arc::clone(&seat.watch);
        watch.begin_turn(lane, self.nodes.drain(..));
        let (mut at, mut wait_ns) = (start, 0);
        while let Some(node) = watch.next() {
            let Some(input) = self.begin(&node, at) else { continue };
            let queued_ns = at.ns_since(node.submitted);
            wait_ns = wait_ns.max(queued_ns);
            watch.enter(at, false);
            let result = execute(&mut seat, &node, &input);
            let end = now();
            if watch.leave_call() {
                self.core.come_back(seat);
                return None;
            }
            let token_ns = end.ns_since(at);
            at = end;
            match result {
                Ok(output) => {
                    seat.costs[node.plan()].learn(node.size, token_ns);
                    seat.recorder.served(node.kind, queued_ns, token_ns);
                    self.wakers.push(node.complete(Ok(output)), at);
                }
                Err(failed) => seat = self.fail(seat, node, input, failed, at)?,
            }
        }
        watch.end_turn();
        Some(Ended { seat, at, wait_ns })
    }

    /// The payload of a request that is to run now.
    fn begin(&mut self, node: &Node, at: Time) -> Option<Payload> {
        match node.begin(at) {
            Begun::Run(input) => Some(input),
            Begun::Expired(waker) => {
                self.core.counters.expired();
                self.wakers.push(waker, at);
                None
            }
            Begun::Gone => None,
        }
    }

    /// A request failed: it goes back if it did not run and may be repeated, else the error is its answer.
    /// Returns the session if it can go on.
    fn fail(
        &mut self,
        seat: Box<Seat>,
        node: Arc<Node>,
        input: Payload,
        failed: Failed,
        at: Time,
    ) -> Option<Box<Seat>> {
        let Failed { error, fate } = failed;
        seat.recorder.failed(node.kind, error.kind());
        let again = if may_repeat(&error) && node.put_back(input) {
            Some(node)
        } else {
            self.wakers.push(node.complete(Err(error)), at);
            None
        };
        if fate != Fate::Keep {
            self.core.retire(seat, fate, again);
            return None;
        }
        if let (Some(node), Some(lane)) = (again, seat.watch.lane()) {
            self.core.give_back(&lane, [node]);
        }
        Some(seat)
    }
}

/// Runs the request's task on the session. A panic below (there is none known) fails the request and retires
/// the session; the process lives on.
pub(crate) fn execute(seat: &mut Seat, node: &Node, input: &[u8]) -> Result<Payload, Failed> {
    let Some(task) = &node.task else {
        return Err(Failed { error: Error::internal("a node without a task was queued"), fate: Fate::Keep });
    };
    let run = AssertUnwindSafe(|| {
        let mut output = Zeroizing::new(vec![0; task.output_len]);
        let written = seat.session.run(&task.call, task.handles.as_deref(), input, &mut output)?;
        output.truncate(written);
        Ok(output)
    });
    catch_unwind(run).unwrap_or_else(|_| {
        Err(Failed { error: Error::internal("a panic while the request ran"), fate: Fate::Close })
    })
}

/// Whether the engine itself may run the request once more: it did not run, and another session may serve it.
pub(crate) fn may_repeat(error: &Error) -> bool {
    error.retry() == Retry::Now && error.outcome() == Outcome::NotDone
}
