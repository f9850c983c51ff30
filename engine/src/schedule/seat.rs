//! A seat: one session with everything that is leased along with it.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::clock::Time;
use crate::metrics::recorder::Recorder;
use crate::schedule::cost::{CostLine, PLANS};
use crate::schedule::dispatch;
use crate::schedule::lane::Lane;
use crate::schedule::node::Node;
use crate::sync::{AtomicBool, AtomicU64, CachePadded, Mutex, Ordering, Parker, Slot, Unparker};
use crate::token::session::Session;

/// A logged-in session, its recorder, and its fitted costs: moved as one to whoever works with it.
pub(crate) struct Seat {
    pub(crate) session: Session,
    pub(crate) place: Place,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) watch: Arc<Watch>,
    pub(crate) costs: Box<[CostLine; PLANS]>,
    pub(crate) worker: Arc<Mailbox>,
}

/// Where a seat belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) token: usize,
    pub(crate) index: usize,
}

impl dispatch::Seat for Seat {
    fn token(&self) -> usize {
        self.place.token
    }

    fn index(&self) -> usize {
        self.place.index
    }

    fn hand_over(self: Box<Self>) {
        let worker = Arc::clone(&self.worker);
        worker.deliver(self);
    }
}

/// Where a worker thread receives its session.
pub(crate) struct Mailbox {
    slot: Slot<Seat>,
    unparker: Unparker,
    /// The worker is to end: the engine stops, or its session was written off or retired.
    closed: AtomicBool,
}

impl Mailbox {
    /// The mailbox and the parker of the thread that reads it.
    pub(crate) fn new() -> (Arc<Self>, Parker) {
        let parker = Parker::new();
        let unparker = parker.unparker().clone();
        (Arc::new(Self { slot: Slot::new(), unparker, closed: AtomicBool::new(false) }), parker)
    }

    pub(crate) fn deliver(&self, seat: Box<Seat>) {
        let before = self.slot.put(seat);
        debug_assert!(before.is_none(), "two sessions for one worker");
        self.unparker.unpark();
    }

    /// Waits for the session; `None` when the worker is to end.
    pub(crate) fn receive(&self, parker: &Parker) -> Option<Box<Seat>> {
        loop {
            if let Some(seat) = self.slot.take() {
                return Some(seat);
            }
            // Acquire: pairs with the Release in `close`.
            if self.closed.load(Ordering::Acquire) {
                return self.slot.take();
            }
            parker.park();
        }
    }

    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.unparker.unpark();
    }
}

/// What the watcher sees of a seat at work.
pub(crate) struct Watch {
    pub(crate) place: Place,
    /// Since when the seat has been inside one call, in nanoseconds; 0 outside. The lowest bit says inline.
    busy: CachePadded<AtomicU64>,
    turn: Mutex<Work>,
    written_off: AtomicBool,
    pub(crate) worker: Arc<Mailbox>,
}

/// The turn of a worker, where the watcher can reach it when the worker hangs.
#[derive(Default)]
pub(crate) struct Work {
    pub(crate) lane: Option<Arc<Lane<Arc<Node>>>>,
    pub(crate) rest: VecDeque<Arc<Node>>,
    pub(crate) current: Option<Arc<Node>>,
}

/// A seat found inside a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Busy {
    pub(crate) since: Time,
    pub(crate) inline: bool,
}

impl Watch {
    pub(crate) fn new(place: Place, worker: Arc<Mailbox>) -> Self {
        let busy = CachePadded::new(AtomicU64::new(0));
        let turn = Mutex::new(Work::default());
        Self { place, busy, turn, written_off: AtomicBool::new(false), worker }
    }

    /// The seat enters the module. Relaxed: the watcher acts on what it reads only after `hang_limit`, and
    /// takes the turn under its lock.
    pub(crate) fn enter(&self, now: Time, inline: bool) {
        self.busy.store(now.as_ns() << 1 | u64::from(inline), Ordering::Relaxed);
    }

    /// The seat has left the module.
    pub(crate) fn leave(&self) {
        self.busy.store(0, Ordering::Relaxed);
    }

    pub(crate) fn busy(&self) -> Option<Busy> {
        match self.busy.load(Ordering::Relaxed) {
            0 => None,
            busy => Some(Busy { since: Time::from_ns(busy >> 1), inline: busy & 1 == 1 }),
        }
    }

    /// Begins a turn: what was taken lies here until it is run.
    pub(crate) fn begin_turn(&self, lane: &Arc<Lane<Arc<Node>>>, nodes: impl Iterator<Item = Arc<Node>>) {
        let mut work = self.turn.lock();
        work.lane = Some(Arc::clone(lane));
        work.rest.extend(nodes);
    }

    /// The next request of the turn, now the current one.
    pub(crate) fn next(&self) -> Option<Arc<Node>> {
        let mut work = self.turn.lock();
        work.current = work.rest.pop_front();
        work.current.clone()
    }

    /// The lane of the turn.
    pub(crate) fn lane(&self) -> Option<Arc<Lane<Arc<Node>>>> {
        self.turn.lock().lane.clone()
    }

    /// Takes what is left of the turn.
    pub(crate) fn end_turn(&self) -> Work {
        std::mem::take(&mut *self.turn.lock())
    }

    /// Gives the seat up, if it is still inside the call that began at `since`. Returns the turn.
    pub(crate) fn write_off(&self, since: Time) -> Option<Work> {
        let mut work = self.turn.lock();
        if self.busy() != Some(Busy { since, inline: false }) {
            return None;
        }
        self.written_off.store(true, Ordering::Relaxed);
        Some(std::mem::take(&mut *work))
    }

    /// A worker's call has returned. True if the watcher has given the seat up meanwhile. Under the turn's
    /// lock, so that either the watcher sees that the call has ended or the worker hears the verdict.
    pub(crate) fn leave_call(&self) -> bool {
        let _turn = self.turn.lock();
        self.leave();
        self.written_off.load(Ordering::Relaxed)
    }
}
