//! The core of an engine: what its callers, workers and watcher share.

use std::collections::HashMap;
use std::sync::Arc;
use std::task::Waker;

use crate::clock::{Time, now};
use crate::error::{Error, ErrorKind, Outcome, Result, Retry};
use crate::metrics::recorder::Recorder;
use crate::operation::OperationKind;
use crate::schedule::admission::{Admission, NoRoom};
use crate::schedule::breaker::Breaker;
use crate::schedule::budget::Budget;
use crate::schedule::controller::Totals;
use crate::schedule::cost::{CostLine, PLANS};
use crate::schedule::deadlines::Deadlines;
use crate::schedule::dispatch::{Dispatch, Orphan, Seat as _};
use crate::schedule::fairness::Priority;
use crate::schedule::lane::Lane;
use crate::schedule::loss::Out;
use crate::schedule::meter::Meter;
use crate::schedule::node::Node;
use crate::schedule::recovery::Recovery;
use crate::schedule::scope::Scope;
use crate::schedule::seat::{Mailbox, Place, Seat, Watch, Work};
use crate::schedule::wake::wake;
use crate::schedule::{watcher, worker};
use crate::sync::{
    AtomicBool, AtomicU64, AtomicUsize, CachePadded, Condvar, Mutex, Ordering, RwLock, Unparker,
};
use crate::threads::Threads;
use crate::token::Token;
use crate::token::session::{Failed, Fate, Session};

pub(crate) type LaneRef = Arc<Lane<Arc<Node>>>;

/// Which lane a request belongs to: key version, way of batching, priority and tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LaneId {
    /// Number of the key version; 0 for requests without a key.
    pub(crate) key: u64,
    pub(crate) kind: OperationKind,
    /// The tokens that can run it: bit i is token i. One kind may come by mechanisms that different tokens have.
    pub(crate) mask: u64,
    pub(crate) priority: Priority,
    pub(crate) tenant: u64,
}

/// Bounds of an engine, from its configuration.
#[derive(Debug)]
pub(crate) struct Limits {
    pub(crate) requests: usize,
    pub(crate) bytes: usize,
    /// In nanoseconds; 0 for the larger of 5 s and 20 x p99.9 of the token. May change.
    pub(crate) hang_ns: AtomicU64,
    pub(crate) written_off_per_token: usize,
    /// Whether callers may run requests themselves.
    pub(crate) inline: bool,
    /// Whether modules may be initialised anew.
    pub(crate) module_reset: bool,
}

/// A token, and how many sessions it is to have.
pub(crate) struct Room {
    pub(crate) token: Arc<Token>,
    /// At first.
    pub(crate) places: usize,
    /// At most.
    pub(crate) places_max: usize,
}

pub(crate) struct Core {
    pub(crate) dispatch: Dispatch<Arc<Node>, Seat>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) deadlines: Deadlines,
    pub(crate) counters: Counters,
    pub(crate) tokens: Box<[TokenSeats]>,
    /// Every token is of one.
    pub(crate) scopes: Box<[Scope]>,
    pub(crate) limits: Limits,
    /// Hashed quickly, with a secret of the process: tenants are numbers that callers choose.
    lanes: RwLock<HashMap<LaneId, LaneRef, foldhash::fast::RandomState>>,
    /// Tokens whose inline path is closed: bit i is token i.
    inline_closed: AtomicU64,
    draining: AtomicBool,
    stopped: AtomicBool,
    /// The watcher and the workers, for those who wait for their end.
    pub(crate) threads: Threads,
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
    pub(super) meters: Box<[Arc<Meter>]>,
    /// Places that ever had a session, or are to have one: those from here on are fresh.
    pub(super) places: AtomicUsize,
    /// Places that had a session from the beginning.
    pub(super) places_first: usize,
    /// The seats that work, or idle.
    pub(crate) watches: Mutex<Vec<Arc<Watch>>>,
    /// Indices of places without a seat, to be filled again.
    pub(crate) vacant: Mutex<Vec<usize>>,
    /// Until when sessions gather requests before they take a turn; see `gather`.
    pub(super) gather_until_ns: CachePadded<AtomicU64>,
    /// Indices of places that stay empty because of the caps on hung calls, until one comes back.
    pub(super) unfilled: Mutex<Vec<usize>>,
    /// Places for which a session is being opened.
    pub(super) opening: AtomicUsize,
    /// No place is filled before: the last attempt failed.
    pub(super) fill_after_ns: AtomicU64,
    /// Seats inside a hung call, not come back.
    pub(crate) written_off: AtomicUsize,
    /// Seats whose sessions are being closed, which is a call too: they are on no list any more.
    pub(super) closing: AtomicUsize,
    pub(crate) recovery: Recovery,
    pub(crate) budget: Budget,
    pub(super) breaker: Breaker,
    /// Held while the token goes out of service or comes back, so that recovery and dispatch say the same of it.
    pub(super) standing: Mutex<()>,
}

/// Events that belong to no session.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) panics: AtomicU64,
    pub(crate) expired: AtomicU64,
    pub(crate) withdrawn: AtomicU64,
    pub(crate) refused: AtomicU64,
    /// Of those, for the sake of other tenants.
    pub(crate) refused_tenants: AtomicU64,
    pub(crate) hung: AtomicU64,
    pub(crate) tokens_lost: AtomicU64,
    /// Of modules that were initialised anew.
    pub(crate) resets: AtomicU64,
    pub(crate) tokens_ejected: AtomicU64,
}

impl Core {
    pub(crate) fn new(tokens: Vec<Room>, scopes: Vec<Scope>, limits: Limits, watcher: Unparker) -> Self {
        let capacity: Vec<_> = tokens.iter().map(|room| room.places_max).collect();
        Self {
            dispatch: Dispatch::new(&capacity),
            admission: Arc::new(Admission::new(limits.requests, limits.bytes)),
            deadlines: Deadlines::new(),
            counters: Counters::default(),
            tokens: tokens.into_iter().map(TokenSeats::new).collect(),
            scopes: scopes.into(),
            inline_closed: AtomicU64::new(if limits.inline { 0 } else { u64::MAX }),
            limits,
            lanes: RwLock::new(HashMap::default()),
            draining: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            threads: Threads::default(),
            open_seats: Mutex::new(0),
            all_closed: Condvar::new(),
            watcher,
            watcher_next_ns: AtomicU64::new(0),
        }
    }

    /// Says whether new requests are taken.
    #[inline]
    pub(crate) fn check_open(&self) -> Result<()> {
        // Relaxed: a request that slips in while draining begins is served or failed like any other queued.
        if self.draining.load(Ordering::Relaxed) { Err(draining()) } else { Ok(()) }
    }

    /// Leases a session to a caller that runs its request itself; the tokens are those of `mask`.
    #[inline]
    pub(crate) fn lease_inline(&self, mask: u64, hint: (usize, usize)) -> Option<Box<Seat>> {
        self.dispatch.lease(mask, self.inline_closed.load(Ordering::Relaxed), hint)
    }

    /// The lane of a request; made on first use.
    pub(crate) fn lane(&self, id: LaneId) -> LaneRef {
        if let Some(lane) = self.lanes.read().get(&id) {
            return Arc::clone(lane);
        }
        let make = || Arc::new(Lane::new(id.priority, Arc::new(AtomicU64::new(id.mask))));
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

    /// Where requests of a lane go that a token has failed: to the same one without that token, if another can serve.
    pub(crate) fn elsewhere(&self, lane: &LaneRef, token: usize) -> LaneRef {
        let id = self.lanes.read().iter().find(|(_, other)| Arc::ptr_eq(other, lane)).map(|(id, _)| *id);
        id.map_or_else(
            || Arc::clone(lane),
            |id| self.lane(LaneId { mask: self.without(id.mask, token), ..id }),
        )
    }

    /// The tokens of a mask but one, if another of them serves.
    pub(crate) fn without(&self, mask: u64, token: usize) -> u64 {
        let others = mask & !(1 << token);
        if others & self.dispatch.serving() == 0 { mask } else { others }
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
    #[inline]
    pub(crate) fn release(&self, seat: Box<Seat>) {
        self.dispatch.release(seat);
        if self.stopped.load(Ordering::SeqCst) {
            self.close_idle();
        }
    }

    /// Gives back what is left of a turn, the current request too if there is one, and closes the session, which
    /// can no longer be used. That comes last: closing is a call, and a device that fails may hang in it.
    pub(crate) fn retire(&self, seat: Box<Seat>, fate: Fate, left: Work) {
        let place = seat.place;
        let mut seat = seat;
        match fate {
            Fate::TokenDown(loss) => {
                let of = Arc::clone(seat.session.epoch());
                self.lose(place.token, Out::Lost(loss, Some(of)), "the token or the login to it is gone");
            }
            Fate::Eject => self.eject(place.token),
            Fate::Abandon => seat.session.abandon(),
            Fate::Keep | Fate::Close => {}
        }
        if let Some(lane) = left.lane {
            self.give_back(&lane, left.rest);
            if fate == Fate::Abandon {
                // A session that was dead says nothing of its token.
                self.give_back(&lane, left.current);
            } else if !left.current.is_empty() {
                self.give_back(&self.elsewhere(&lane, place.token), left.current);
            }
        }
        self.deliver(&seat.watch, &mut Vec::new());
        self.vacate(place);
        self.close_seat(seat);
    }

    /// Gives back the places of those whom a seat has answered, and wakes them: user code, so not while the seat is
    /// leased by this thread. Returns how many it woke; `list` is memory for it.
    pub(crate) fn deliver(&self, watch: &Watch, list: &mut Vec<Waker>) -> usize {
        watch.deliver(list, self.admission.places(), &self.counters.panics)
    }

    /// A worker that was written off has come out of its call after all.
    pub(crate) fn come_back(&self, seat: Box<Seat>) {
        let tokens = &self.tokens[seat.place.token];
        // SeqCst, here and in `close_seat`: pairs with the looks in `quiet`, which miss no seat on its way out.
        tokens.closing.fetch_add(1, Ordering::SeqCst);
        tokens.written_off.fetch_sub(1, Ordering::SeqCst);
        watcher::one_came_back();
        // Under the lock, so that a drain which has just counted it sleeps before it is woken.
        drop(self.open_seats.lock());
        self.all_closed.notify_all();
        // A place that the caps left empty can be filled now.
        let unfilled = tokens.unfilled.lock().pop();
        unfilled.into_iter().for_each(|index| tokens.vacant.lock().push(index));
        let token = seat.place.token;
        drop(seat);
        tokens.closing.fetch_sub(1, Ordering::SeqCst);
        // After the session is gone: log subscribers are user code.
        tracing::info!(token, "a call that hung has returned; its session is closed");
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
        let meter = Arc::clone(&tokens.meters[place.index]);
        let watch = Arc::new(Watch::new(place, Arc::clone(&worker)));
        let (core, mailbox) = (Arc::clone(self), Arc::clone(&worker));
        let started = std::thread::Builder::new()
            .name(format!("hsmux-{}-{}", place.token, place.index))
            .spawn(move || worker::run(&core, place, &mailbox, &parker))
            .map_err(|error| {
                Error::operator(ErrorKind::Busy, format!("cannot start a worker thread: {error}"))
            })?;
        self.threads.add(started);
        *self.open_seats.lock() += 1;
        tokens.watches.lock().push(Arc::clone(&watch));
        let costs = Box::new([CostLine::default(); PLANS]);
        self.release(Box::new(Seat { session, place, recorder, meter, watch, costs, worker }));
        Ok(())
    }

    /// Closes a seat's session and ends its worker. By the worker itself where it can be, for closing is a call.
    pub(super) fn close_seat(&self, seat: Box<Seat>) {
        seat.worker.close();
        let closing = &self.tokens[seat.place.token].closing;
        closing.fetch_add(1, Ordering::SeqCst);
        self.forget(&seat.watch);
        drop(seat);
        closing.fetch_sub(1, Ordering::SeqCst);
        self.seat_is_gone();
        // A parked session may have to take its place.
        self.watcher.unpark();
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

    /// Takes the tokens of one mask out of service and puts those of the other back, at once.
    pub(crate) fn set_drained(&self, out: u64, back: u64) {
        let orphans = self.dispatch.set_drained(out, back);
        orphans.into_iter().for_each(|orphan| self.fail_orphan(Some(orphan)));
    }

    /// Sessions of a token that somebody holds: those inside calls, hung ones too, and those on the way there.
    pub(crate) fn inside(&self, token: usize) -> usize {
        // Taken and put back, because only who takes an idle session knows that nobody has it.
        let idle: Vec<_> = std::iter::from_fn(|| self.dispatch.take_from(token)).collect();
        // After that, or one that was seated meanwhile would be taken off those that are held.
        let open = self.tokens[token].watches.lock().len();
        let held = open.saturating_sub(idle.len()) + self.tokens[token].written_off.load(Ordering::Relaxed);
        idle.into_iter().for_each(|seat| self.release(seat));
        held
    }

    /// A key of a token is about to change: ends the operations that idle sessions hold open, and has no other one
    /// used any more.
    pub(crate) fn end_holds(&self, token: usize) {
        let seats = &self.tokens[token];
        seats.token.holds.key_changes();
        for index in 0..seats.recorders.len() {
            let Some(mut seat) = self.dispatch.lease_any(token, index) else { continue };
            seat.watch.enter_inline(now());
            let ended = seat.session.let_go_all();
            seat.watch.leave_inline();
            match ended {
                Ok(()) => self.release(seat),
                Err(Failed { fate, .. }) => self.retire(seat, fate, Work::default()),
            }
        }
    }

    /// Has the workers of idle sessions end operations that were held open for long enough.
    pub(super) fn end_stale_holds(&self, now: Time) {
        for (token, seats) in self.tokens.iter().enumerate().filter(|(_, seats)| seats.token.holds.any()) {
            for index in 0..seats.recorders.len() {
                match self.dispatch.lease_any(token, index) {
                    Some(seat) if seat.session.holds_stale(now) => seat.hand_over(),
                    Some(seat) => self.release(seat),
                    None => {}
                }
            }
        }
    }

    /// Puts a token into a tier.
    pub(crate) fn set_tier(&self, token: usize, rank: u8, extra_ns: u64) {
        self.dispatch.set_tier(token, rank, extra_ns);
        // It looks more often where there are several tiers.
        self.watcher.unpark();
    }

    pub(crate) fn set_inline_closed(&self, token: usize, closed: bool) {
        match closed || !self.limits.inline {
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

    /// As [`Core::wait_closed`], and for calls that hang: counts those too whose seats were written off.
    pub(crate) fn wait_out(&self, limit: Time) -> usize {
        let written_off = |tokens: &TokenSeats| tokens.written_off.load(Ordering::Relaxed);
        // What is written off at this very moment counts twice rather than not at all.
        let inside = |open: usize| open + self.tokens.iter().map(written_off).sum::<usize>();
        let mut open = self.open_seats.lock();
        while inside(*open) > 0 && !self.all_closed.wait_for(&mut open, now().until(limit)).timed_out() {}
        inside(*open)
    }

    /// The stop as the watcher carries it out: once, and again for what comes back later.
    pub(crate) fn carry_out_stop(&self) {
        self.fail_queued();
        self.close_idle();
    }

    fn close_idle(&self) {
        for token in 0..self.tokens.len() {
            while let Some(seat) = self.dispatch.take_from(token) {
                // Its own worker closes it: a call that hangs there holds up nobody else.
                seat.hand_over();
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
            if let Some(waker) = node.fail(error(), &mut self.admission.places()) {
                wake(waker, &self.counters.panics);
            }
        });
    }

    /// Drops the lanes that nobody uses, and what is known of tenants that have nothing in flight.
    pub(super) fn retire_lanes(&self) {
        self.admission.retire_tenants();
        let idle = |lane: &LaneRef| lane.is_idle() && Arc::strong_count(lane) == 1;
        if self.lanes.read().values().any(idle) {
            self.lanes.write().retain(|_, lane| !idle(lane));
        }
    }

    /// Requests in all lanes.
    pub(crate) fn queued(&self) -> usize {
        self.lanes.read().values().map(|lane| lane.len()).sum()
    }

    /// Number of lanes.
    pub(crate) fn lane_count(&self) -> usize {
        self.lanes.read().len()
    }
}

impl TokenSeats {
    /// Operations that its sessions have served.
    pub(super) fn served(&self) -> u64 {
        let mut totals = Totals::default();
        self.meters.iter().map(|meter| meter.add_to(&mut totals)).sum()
    }

    /// Whether so many calls hang that nothing can be made of bringing it back: its own cap, or that of the process while it
    /// has no session and is to get none.
    pub(super) fn is_at_cap(&self, of_token: usize) -> bool {
        let written_off = self.written_off.load(Ordering::Relaxed);
        let none_comes = self.opening.load(Ordering::SeqCst) == 0 && self.vacant.lock().is_empty();
        let is_empty = none_comes && self.watches.lock().is_empty();
        written_off > of_token || is_empty && watcher::is_process_at_cap()
    }

    /// Has the places filled that the cap of the process has left empty, when it leaves them so no more. Not while it is at a
    /// cap itself.
    pub(super) fn refill(&self) {
        if !watcher::is_process_at_cap() {
            let unfilled = std::mem::take(&mut *self.unfilled.lock());
            self.vacant.lock().extend(unfilled);
        }
    }

    /// Whether a call that failed so may be made once more, which is counted.
    pub(crate) fn retries(&self, error: &Error) -> bool {
        self.budget.take(error, self.served())
    }

    /// The watches of all seats, as they are now.
    pub(super) fn all_watches(&self) -> Vec<Arc<Watch>> {
        self.watches.lock().clone()
    }

    fn new(room: Room) -> Self {
        let Room { token, places, places_max } = room;
        Self {
            token,
            recorders: (0..places_max).map(|_| Arc::new(Recorder::new())).collect(),
            meters: (0..places_max).map(|_| Arc::new(Meter::new())).collect(),
            places: AtomicUsize::new(places),
            places_first: places,
            watches: Mutex::new(Vec::new()),
            vacant: Mutex::new(Vec::new()),
            unfilled: Mutex::new(Vec::new()),
            opening: AtomicUsize::new(0),
            fill_after_ns: AtomicU64::new(0),
            gather_until_ns: CachePadded::new(AtomicU64::new(0)),
            written_off: AtomicUsize::new(0),
            closing: AtomicUsize::new(0),
            recovery: Recovery::default(),
            budget: Budget::new(places_max as u64),
            breaker: Breaker::default(),
            standing: Mutex::new(()),
        }
    }
}

impl Counters {
    pub(crate) fn expired(&self, requests: u64) {
        self.expired.fetch_add(requests, Ordering::Relaxed);
    }

    pub(crate) fn refused(&self, why: &NoRoom) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        if matches!(why, NoRoom::Tenant) {
            self.refused_tenants.fetch_add(1, Ordering::Relaxed);
        }
    }
}

pub(crate) fn draining() -> Error {
    Error::new(ErrorKind::Draining, Retry::Never, Outcome::NotDone)
}
