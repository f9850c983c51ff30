//! The core of an engine: what its callers, workers and watcher share.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Time, now};
use crate::error::{Error, ErrorKind, Outcome, Result, Retry};
use crate::metrics::recorder::Recorder;
use crate::operation::OperationKind;
use crate::schedule::admission::Admission;
use crate::schedule::cost::{CostLine, PLANS};
use crate::schedule::deadlines::Deadlines;
use crate::schedule::dispatch::{Dispatch, Orphan};
use crate::schedule::fairness::Priority;
use crate::schedule::lane::Lane;
use crate::schedule::node::Node;
use crate::schedule::seat::{Mailbox, Place, Seat, Watch};
use crate::schedule::wake::wake;
use crate::schedule::{watcher, worker};
use crate::sync::{AtomicBool, AtomicU64, AtomicUsize, Condvar, Mutex, Ordering, RwLock, Unparker};
use crate::token::Token;
use crate::token::session::{Fate, Session};

pub(crate) type LaneRef = Arc<Lane<Arc<Node>>>;

/// Which lane a request belongs to: key version, way of batching, priority and tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LaneId {
    /// Number of the key version; 0 for requests without a key.
    pub(crate) key: u64,
    pub(crate) kind: OperationKind,
    pub(crate) priority: Priority,
    pub(crate) tenant: u64,
}

/// Bounds of an engine, from its configuration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) requests: usize,
    pub(crate) bytes: usize,
    /// `None`: the larger of 5 s and 20 x p99.9 of the token.
    pub(crate) hang: Option<Duration>,
    pub(crate) written_off_per_token: usize,
}

pub(crate) struct Core {
    pub(crate) dispatch: Dispatch<Arc<Node>, Seat>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) deadlines: Deadlines,
    pub(crate) counters: Counters,
    pub(crate) tokens: Box<[TokenSeats]>,
    pub(crate) limits: Limits,
    lanes: RwLock<HashMap<LaneId, LaneRef>>,
    /// Tokens whose inline path is closed: bit i is token i.
    inline_closed: AtomicU64,
    draining: AtomicBool,
    stopped: AtomicBool,
    /// Seats that are not closed yet, for those who wait for the end.
    open_seats: Mutex<usize>,
    all_closed: Condvar,
    pub(super) watcher: Unparker,
    /// When the watcher looks next, so that an earlier deadline wakes it.
    pub(super) watcher_next_ns: AtomicU64,
}

/// A token and its seats.
pub(crate) struct TokenSeats {
    pub(crate) token: Arc<Token>,
    pub(crate) recorders: Box<[Arc<Recorder>]>,
    /// The seats that work, or idle.
    pub(crate) watches: Mutex<Vec<Arc<Watch>>>,
    /// Indices of places without a seat, to be filled again.
    pub(crate) vacant: Mutex<Vec<usize>>,
    /// Seats inside a hung call, not come back.
    pub(crate) written_off: AtomicUsize,
}

/// Events that belong to no session.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) panics: AtomicU64,
    pub(crate) expired: AtomicU64,
    pub(crate) withdrawn: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) hung: AtomicU64,
}

impl Core {
    pub(crate) fn new(tokens: Vec<(Arc<Token>, usize)>, limits: Limits, watcher: Unparker) -> Self {
        let capacity: Vec<_> = tokens.iter().map(|(_, seats)| *seats).collect();
        Self {
            dispatch: Dispatch::new(&capacity),
            admission: Arc::new(Admission::new(limits.requests, limits.bytes)),
            deadlines: Deadlines::new(),
            counters: Counters::default(),
            tokens: tokens.into_iter().map(|(token, seats)| TokenSeats::new(token, seats)).collect(),
            limits,
            lanes: RwLock::new(HashMap::new()),
            inline_closed: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            open_seats: Mutex::new(0),
            all_closed: Condvar::new(),
            watcher,
            watcher_next_ns: AtomicU64::new(0),
        }
    }

    /// Says whether new requests are taken.
    pub(crate) fn check_open(&self) -> Result<()> {
        // Relaxed: a request that slips in while draining begins is served or failed like any other queued.
        if self.draining.load(Ordering::Relaxed) { Err(draining()) } else { Ok(()) }
    }

    /// Leases a session to a caller that runs its request itself; the tokens are those of `mask`.
    pub(crate) fn lease_inline(&self, mask: u64, hint: (usize, usize)) -> Option<Box<Seat>> {
        self.dispatch.lease(mask & !self.inline_closed.load(Ordering::Relaxed), hint)
    }

    /// The lane of a request; made on first use.
    pub(crate) fn lane(&self, id: LaneId, mask: u64) -> LaneRef {
        if let Some(lane) = self.lanes.read().get(&id) {
            return Arc::clone(lane);
        }
        let make = || Arc::new(Lane::new(id.priority, Arc::new(AtomicU64::new(mask))));
        Arc::clone(self.lanes.write().entry(id).or_insert_with(make))
    }

    /// Queues requests of one lane. They are answered, whatever happens.
    pub(crate) fn submit(&self, lane: &LaneRef, nodes: impl IntoIterator<Item = Arc<Node>>) {
        let withdrawn = self.counters.withdrawn.load(Ordering::Relaxed);
        if lane.is_mostly_dead(withdrawn) {
            self.fail_orphan(self.dispatch.sweep(lane, |node| node.is_dead()));
        }
        self.fail_orphan(self.dispatch.submit(lane, nodes));
        // SeqCst: pairs with the store in `stop`. Either the stop's sweep finds the node or this look finds
        // the stop.
        if self.stopped.load(Ordering::SeqCst) {
            self.fail_queued();
        }
    }

    /// Puts requests that were taken but did not run back to the front of their lane.
    pub(crate) fn give_back(&self, lane: &LaneRef, nodes: impl IntoIterator<Item = Arc<Node>>) {
        self.fail_orphan(self.dispatch.give_back(lane, nodes));
        if self.stopped.load(Ordering::SeqCst) {
            self.fail_queued();
        }
    }

    /// A deadline was registered: wakes the watcher if it would look too late.
    pub(crate) fn deadline_before_look(&self, deadline: Time) {
        // SeqCst: pairs with the watcher's store of its next look, after which it reads the deadlines again.
        if deadline.as_ns() < self.watcher_next_ns.load(Ordering::SeqCst) {
            self.watcher.unpark();
        }
    }

    /// A request died while it lay in a lane.
    pub(crate) fn count_withdrawn(&self) {
        self.counters.withdrawn.fetch_add(1, Ordering::Relaxed);
    }

    /// Puts a session among the idle, or closes it if the engine has stopped.
    pub(crate) fn release(&self, seat: Box<Seat>) {
        self.dispatch.release(seat);
        if self.stopped.load(Ordering::SeqCst) {
            self.close_idle();
        }
    }

    /// Closes a session that can no longer be used, and gives back what was left of its turn.
    pub(crate) fn retire(&self, seat: Box<Seat>, fate: Fate, again: Option<Arc<Node>>) {
        let work = seat.watch.end_turn();
        let place = seat.place;
        self.close_seat(seat);
        if fate == Fate::TokenDown {
            self.lose(place.token, "the token or its session is gone");
        }
        if let Some(lane) = work.lane {
            self.give_back(&lane, again.into_iter().chain(work.rest));
        }
        self.vacate(place);
    }

    /// A worker that was written off has come out of its call after all.
    pub(crate) fn come_back(&self, seat: Box<Seat>) {
        self.tokens[seat.place.token].written_off.fetch_sub(1, Ordering::Relaxed);
        watcher::one_came_back();
        tracing::info!(token = seat.place.token, "a call that hung has returned; its session is closed");
        drop(seat);
        self.watcher.unpark();
    }

    /// A place has lost its seat: the watcher has it filled again.
    pub(crate) fn vacate(&self, place: Place) {
        self.tokens[place.token].vacant.lock().push(place.index);
        self.watcher.unpark();
    }

    /// Makes a seat of a session and starts its worker. The seat begins to work at once.
    pub(crate) fn seat(self: &Arc<Self>, place: Place, session: Session) -> Result<()> {
        let (worker, parker) = Mailbox::new();
        let tokens = &self.tokens[place.token];
        let recorder = Arc::clone(&tokens.recorders[place.index]);
        let watch = Arc::new(Watch::new(place, Arc::clone(&worker)));
        let (core, mailbox) = (Arc::clone(self), Arc::clone(&worker));
        std::thread::Builder::new()
            .name(format!("hsmux-{}-{}", place.token, place.index))
            .spawn(move || worker::run(&core, place, &mailbox, &parker))
            .map_err(|error| {
                Error::operator(ErrorKind::Busy, format!("cannot start a worker thread: {error}"))
            })?;
        *self.open_seats.lock() += 1;
        tokens.watches.lock().push(Arc::clone(&watch));
        let costs = Box::new([CostLine::default(); PLANS]);
        self.release(Box::new(Seat { session, place, recorder, watch, costs, worker }));
        Ok(())
    }

    /// Closes a seat's session and ends its worker.
    pub(super) fn close_seat(&self, seat: Box<Seat>) {
        seat.worker.close();
        self.forget(&seat.watch);
        drop(seat);
        self.seat_is_gone();
    }

    /// Takes a seat off the list of those that work.
    pub(super) fn forget(&self, watch: &Arc<Watch>) {
        self.tokens[watch.place.token].watches.lock().retain(|other| !Arc::ptr_eq(other, watch));
    }

    /// Counts a seat as closed, or as written off.
    pub(super) fn seat_is_gone(&self) {
        let mut open = self.open_seats.lock();
        *open -= 1;
        if *open == 0 {
            self.all_closed.notify_all();
        }
    }

    /// A token cannot serve any more: fails what only it could serve.
    pub(super) fn lose(&self, token: usize, why: &str) {
        if self.dispatch.healthy() & (1 << token) != 0 {
            tracing::error!(token, why, "token lost");
        }
        let orphans = self.dispatch.set_healthy(token, false);
        orphans.into_iter().for_each(|orphan| self.fail_orphan(Some(orphan)));
    }

    pub(crate) fn set_inline_closed(&self, token: usize, closed: bool) {
        match closed {
            true => self.inline_closed.fetch_or(1 << token, Ordering::Relaxed),
            false => self.inline_closed.fetch_and(!(1 << token), Ordering::Relaxed),
        };
    }

    /// Takes no new requests; those that were accepted are served.
    pub(crate) fn begin_drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
        self.admission.wake_all();
    }

    /// Fails what is queued and has every session closed as soon as it is free; waits for nothing.
    pub(crate) fn stop(&self) {
        self.begin_drain();
        self.stopped.store(true, Ordering::SeqCst);
        self.watcher.unpark();
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    /// Waits until every session is closed, at most until `limit`. Says how many were not.
    pub(crate) fn wait_closed(&self, limit: Time) -> usize {
        let mut open = self.open_seats.lock();
        while *open > 0 && !self.all_closed.wait_for(&mut open, now().until(limit)).timed_out() {}
        *open
    }

    /// The stop as the watcher carries it out: once, and again for what comes back later.
    pub(super) fn carry_out_stop(&self) {
        self.fail_queued();
        self.close_idle();
    }

    fn close_idle(&self) {
        for token in 0..self.tokens.len() {
            while let Some(seat) = self.dispatch.take_from(token) {
                self.close_seat(seat);
            }
        }
    }

    fn fail_queued(&self) {
        for orphan in self.dispatch.drain() {
            self.fail_all(orphan, draining);
        }
    }

    pub(super) fn fail_orphan(&self, orphan: Option<Orphan<Arc<Node>>>) {
        if let Some(orphan) = orphan {
            self.fail_all(orphan, || {
                Error::new(ErrorKind::TokenLost, Retry::Later, Outcome::NotDone)
                    .because("no token that holds the key can serve now")
            });
        }
    }

    fn fail_all(&self, orphan: Orphan<Arc<Node>>, error: impl Fn() -> Error) {
        self.dispatch.fail(orphan, |node| {
            if let Some(waker) = node.complete(Err(error())) {
                wake(waker, &self.counters.panics);
            }
        });
    }

    /// Drops the lanes that nobody uses.
    pub(super) fn retire_lanes(&self) {
        let idle = |lane: &LaneRef| lane.is_idle() && Arc::strong_count(lane) == 1;
        if self.lanes.read().values().any(idle) {
            self.lanes.write().retain(|_, lane| !idle(lane));
        }
    }

    /// Number of lanes.
    pub(crate) fn lane_count(&self) -> usize {
        self.lanes.read().len()
    }
}

impl TokenSeats {
    fn new(token: Arc<Token>, seats: usize) -> Self {
        Self {
            token,
            recorders: (0..seats).map(|_| Arc::new(Recorder::new())).collect(),
            watches: Mutex::new(Vec::new()),
            vacant: Mutex::new(Vec::new()),
            written_off: AtomicUsize::new(0),
        }
    }
}

impl Counters {
    pub(crate) fn expired(&self) {
        self.expired.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }
}

pub(crate) fn draining() -> Error {
    Error::new(ErrorKind::Draining, Retry::Never, Outcome::NotDone)
}
