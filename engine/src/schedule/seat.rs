//! A seat: one session with everything that is leased along with it.

use std::ops::Range;
use std::sync::Arc;
use std::task::Waker;

use crate::clock::Time;
use crate::metrics::recorder::Recorder;
use crate::schedule::admission::Places;
use crate::schedule::cost::{CostLine, PLANS};
use crate::schedule::dispatch;
use crate::schedule::inside::Inside;
use crate::schedule::lane::Lane;
use crate::schedule::meter::Meter;
use crate::schedule::node::Node;
use crate::schedule::wake::{Wakers, wake_all};
use crate::sync::{AtomicBool, AtomicU64, Mutex, Ordering, Parker, Slot, Unparker};
use crate::token::session::Session;

/// A logged-in session, its recorder, and its fitted costs: moved as one to whoever works with it.
pub(crate) struct Seat {
    pub(crate) session: Session,
    pub(crate) place: Place,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) meter: Arc<Meter>,
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
pub(crate) struct Mailbox<S = Seat> {
    slot: Slot<S>,
    unparker: Unparker,
    /// The worker is to end: the engine stops, or its session was written off or retired.
    closed: AtomicBool,
}

impl<S> Mailbox<S> {
    /// The mailbox and the parker of the thread that reads it.
    pub(crate) fn new() -> (Arc<Self>, Parker) {
        let parker = Parker::new();
        let unparker = parker.unparker().clone();
        (Arc::new(Self { slot: Slot::new(), unparker, closed: AtomicBool::new(false) }), parker)
    }

    pub(crate) fn deliver(&self, seat: Box<S>) {
        let before = self.slot.put(seat);
        debug_assert!(before.is_none(), "two sessions for one worker");
        self.unparker.unpark();
    }

    /// Waits for the session; `None` when the worker is to end.
    pub(crate) fn receive(&self, parker: &Parker) -> Option<Box<S>> {
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
    inside: Inside,
    turn: Mutex<Turn>,
    /// Of requests that the worker has answered.
    wakers: Mutex<Wakers>,
    pub(crate) worker: Arc<Mailbox>,
}

/// The turn of a worker, where the watcher can reach it when the worker hangs.
#[derive(Default)]
struct Turn {
    lane: Option<Arc<Lane<Arc<Node>>>>,
    nodes: Arc<Vec<Arc<Node>>>,
}

/// What is left of a turn that ends early.
#[derive(Default)]
pub(crate) struct Work {
    pub(crate) lane: Option<Arc<Lane<Arc<Node>>>>,
    pub(crate) current: Vec<Arc<Node>>,
    pub(crate) rest: Vec<Arc<Node>>,
}

/// A seat found inside a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Busy {
    pub(crate) since: Time,
    pub(crate) inline: bool,
}

impl Watch {
    pub(crate) fn new(place: Place, worker: Arc<Mailbox>) -> Self {
        let (turn, wakers) = (Mutex::new(Turn::default()), Mutex::new(Wakers::default()));
        Self { place, inside: Inside::new(), turn, wakers, worker }
    }

    /// The caller of an inline request enters the module.
    pub(crate) fn enter_inline(&self, now: Time) {
        self.inside.enter_inline(now.as_ns());
    }

    /// The caller of an inline request has left the module.
    pub(crate) fn leave_inline(&self) {
        self.inside.leave_inline();
    }

    /// The worker enters the module with these requests of its turn.
    pub(crate) fn enter(&self, now: Time, requests: Range<usize>) {
        self.inside.enter(now.as_ns(), requests);
    }

    /// The worker's call has returned. False if the watcher has given the seat up meanwhile: then the turn is
    /// the watcher's. One exchange decides between the two.
    pub(crate) fn leave(&self, entered: Time) -> bool {
        self.inside.leave(entered.as_ns())
    }

    pub(crate) fn busy(&self) -> Option<Busy> {
        self.inside.busy().map(|(since_ns, inline)| Busy { since: Time::from_ns(since_ns), inline })
    }

    /// Keeps the waker and the place of a request that was answered at `now`.
    pub(crate) fn keep(&self, waker: Option<Waker>, places: &mut Places<'_>, now: Time) {
        self.wakers.lock().push(waker, places.take(), now);
    }

    /// Whether wakers have been held long enough at the next look, for requests that queued for `wait_ns`.
    pub(crate) fn wakers_are_due(&self, next_look: Time, wait_ns: u64) -> bool {
        self.wakers.lock().are_due(next_look, wait_ns)
    }

    /// Gives back the places of those who were answered and wakes them; returns how many it woke. `list` is memory
    /// for it. Not while the seat is leased by this thread.
    pub(crate) fn deliver(&self, list: &mut Vec<Waker>, mut places: Places<'_>, panics: &AtomicU64) -> usize {
        places.add_all(self.wakers.lock().take(list));
        drop(places);
        let count = list.len();
        wake_all(list, panics);
        count
    }

    /// Begins a turn with what was taken, which the watcher can see until the turn ends.
    pub(crate) fn begin_turn(
        &self,
        lane: &Arc<Lane<Arc<Node>>>,
        nodes: &mut Vec<Arc<Node>>,
    ) -> Arc<Vec<Arc<Node>>> {
        let nodes = Arc::new(std::mem::take(nodes));
        let turn = Turn { lane: Some(Arc::clone(lane)), nodes: Arc::clone(&nodes) };
        *self.turn.lock() = turn;
        nodes
    }

    /// The lane of the turn.
    pub(crate) fn lane(&self) -> Option<Arc<Lane<Arc<Node>>>> {
        self.turn.lock().lane.clone()
    }

    /// The turn is over: all of it was run.
    pub(crate) fn end_turn(&self) {
        // Dropped outside the lock.
        let _turn = std::mem::take(&mut *self.turn.lock());
    }

    /// Ends the turn early, while these requests run or after they have been answered.
    pub(crate) fn break_turn(&self, requests: Range<usize>) -> Work {
        let Turn { lane, nodes } = std::mem::take(&mut *self.turn.lock());
        let rest = nodes.get(requests.end..).unwrap_or_default().to_vec();
        Work { lane, current: nodes.get(requests).unwrap_or_default().to_vec(), rest }
    }

    /// Gives the seat up, if it is still inside the call that began at `since`. Returns the turn.
    pub(crate) fn write_off(&self, since: Time) -> Option<Work> {
        self.inside.write_off(since.as_ns()).map(|requests| self.break_turn(requests))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch() -> Watch {
        Watch::new(Place { token: 0, index: 0 }, Mailbox::new().0)
    }

    #[test]
    fn a_call_that_returns_first_cannot_be_written_off() {
        let (watch, entered) = (watch(), Time::from_ns(100));
        watch.enter(entered, 0..1);
        assert!(watch.leave(entered));
        assert!(watch.write_off(entered).is_none());
    }

    #[test]
    fn a_call_that_was_written_off_hears_of_it_when_it_returns() {
        let (watch, entered) = (watch(), Time::from_ns(100));
        watch.enter(entered, 0..1);
        assert!(watch.write_off(Time::from_ns(99)).is_none(), "an earlier call of the same seat");
        assert!(watch.write_off(entered).is_some());
        assert!(watch.busy().is_none(), "given up once");
        assert!(!watch.leave(entered));
    }

    #[test]
    fn an_inline_call_is_seen_and_never_written_off() {
        let (watch, entered) = (watch(), Time::from_ns(100));
        watch.enter_inline(entered);
        assert_eq!(watch.busy(), Some(Busy { since: entered, inline: true }));
        assert!(watch.write_off(entered).is_none());
        watch.leave_inline();
        assert!(watch.busy().is_none());
    }
}
