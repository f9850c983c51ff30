//! The world of a simulation: one clock, one queue of events, and the schedule's own structures between them.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash};
use std::sync::Arc;

use crate::clock::Time;
use crate::error::{Error, ErrorKind, Outcome, Retry};
use crate::metrics::Health;
use crate::schedule::admission::Admission;
use crate::schedule::budget::Budget;
use crate::schedule::core::draining;
use crate::schedule::cost::CostLine;
use crate::schedule::deadlines::Deadlines;
use crate::schedule::dispatch::{self, Dispatch, Orphan};
use crate::schedule::fairness::Priority;
use crate::schedule::lane::Lane;
use crate::schedule::node::Node;
use crate::schedule::recovery::Recovery;
use crate::schedule::seat::{Mailbox, Place, Watch};
use crate::schedule::simulation::caller::Request;
use crate::schedule::simulation::device::{Device, Handle, Weather};
use crate::schedule::simulation::dice::Dice;
use crate::schedule::simulation::worker::{InlineCall, Worker};
use crate::schedule::wake::wake;
use crate::sync::{AtomicU64, Mutex};
use crate::token::epoch::{CurrentEpoch, Epoch};
use crate::token::session::Failed;

pub(super) type LaneRef = Arc<Lane<Arc<Node>>>;

/// A session with what is leased along with it.
pub(super) struct Seat {
    pub(super) handle: Handle,
    pub(super) place: Place,
    pub(super) epoch: Arc<Epoch>,
    pub(super) abandoned: bool,
    pub(super) watch: Arc<Watch>,
    pub(super) costs: CostLine,
    handed: Handed,
}

/// Seats on their way to their workers.
type Handed = Arc<Mutex<VecDeque<Box<Seat>>>>;

impl dispatch::Seat for Seat {
    fn token(&self) -> usize {
        self.place.token
    }

    fn index(&self) -> usize {
        self.place.index
    }

    fn hand_over(self: Box<Self>) {
        let handed = Arc::clone(&self.handed);
        handed.lock().push_back(self);
    }
}

/// A token with its seats, as the engine keeps them.
pub(super) struct Token {
    pub(super) device: Device,
    pub(super) epoch: Arc<Epoch>,
    pub(super) current: CurrentEpoch,
    pub(super) recovery: Recovery,
    /// The attempt that is under way was begun on a token that was lost.
    pub(super) logs_in: bool,
    pub(super) budget: Budget,
    /// What the budget allows in this period, and what was taken of it; calls of the period.
    pub(super) retries_max: u64,
    pub(super) retries: u64,
    pub(super) calls: u64,
    /// Calls before the period.
    pub(super) calls_before: u64,
    pub(super) places: usize,
    pub(super) watches: Vec<Arc<Watch>>,
    pub(super) vacant: Vec<usize>,
    pub(super) unfilled: Vec<usize>,
    pub(super) opening: usize,
    pub(super) fill_after: Time,
    pub(super) written_off: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Event {
    /// Somebody comes with requests.
    Arrive,
    /// A caller looks for its answer, or tries for room again.
    Poll(usize),
    /// A caller goes away.
    Leave(usize),
    /// A worker goes on.
    Step(usize),
    /// A caller on a leased session comes out of its call.
    InlineEnds(usize),
    /// The watcher looks.
    Look,
    /// An attempt to bring a token back is over.
    Tried(usize),
    /// A session is opened for a place.
    Opened(usize, usize),
    /// A token is put back into its slot.
    Plugged(usize),
    /// An operator, the controller or a write does something.
    Operate,
}

pub(super) struct World {
    pub(super) dice: Dice,
    pub(super) now: Time,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    sequence: u64,
    pub(super) next_look: u64,
    pub(super) weather: Weather,
    pub(super) dispatch: Dispatch<Arc<Node>, Seat>,
    pub(super) admission: Arc<Admission>,
    pub(super) deadlines: Deadlines,
    /// The same, by time: `Deadlines` may say too early a time, and how much too early is by address.
    pub(super) by_time: BTreeSet<(Time, usize)>,
    pub(super) lanes: Vec<LaneRef>,
    pub(super) tokens: Vec<Token>,
    pub(super) workers: Vec<Worker>,
    pub(super) inline: Vec<Option<InlineCall>>,
    pub(super) inline_closed: u64,
    pub(super) requests: Vec<Request>,
    /// Requests by their nodes: nodes have no number of their own.
    pub(super) ids: HashMap<*const Node, usize>,
    pub(super) handed: Handed,
    pub(super) woken: Arc<Mutex<VecDeque<usize>>>,
    pub(super) withdrawn: u64,
    pub(super) written_off: usize,
    pub(super) renewed: Time,
    pub(super) panics: AtomicU64,
    pub(super) stopped: bool,
    /// By when all is over: by then every hung call has returned and every lost token is back.
    pub(super) ends: Option<Time>,
    /// Requests that are still to come.
    pub(super) left: usize,
    /// Everything that happened, in one number.
    pub(super) history: DefaultHasher,
}

/// Hung calls that are replaced, for a token and in all: smaller than the engine's, so that they are met.
pub(super) const WRITTEN_OFF_PER_TOKEN: usize = 2;
pub(super) const WRITTEN_OFF_IN_ALL: usize = 3;

impl World {
    pub(super) fn new(seed: u64, operations: usize) -> Self {
        let mut dice = Dice::new(seed);
        let counts: Vec<usize> = (0..dice.between(1, 3)).map(|_| 1 + dice.index(4)).collect();
        let weather = dice.pick(&WEATHERS);
        let (requests_max, bytes_max) = (dice.pick(&[4, 40, 400]), dice.pick(&[4_000, 1 << 20]));
        let mut this = Self {
            now: Time::from_ns(1),
            events: BinaryHeap::new(),
            sequence: 0,
            next_look: u64::MAX,
            weather,
            dispatch: Dispatch::new(&counts),
            admission: Arc::new(Admission::new(requests_max, bytes_max)),
            deadlines: Deadlines::new(),
            by_time: BTreeSet::new(),
            lanes: lanes(counts.len(), &mut dice),
            tokens: counts.iter().map(|&places| Token::new(places)).collect(),
            workers: Vec::new(),
            inline: Vec::new(),
            inline_closed: 0,
            requests: Vec::new(),
            ids: HashMap::new(),
            handed: Handed::default(),
            woken: Arc::default(),
            withdrawn: 0,
            written_off: 0,
            renewed: Time::from_ns(1),
            panics: AtomicU64::new(0),
            stopped: false,
            ends: None,
            left: operations,
            history: DefaultHasher::new(),
            dice,
        };
        for (token, places) in counts.into_iter().enumerate() {
            if this.tokens.len() > 1 && this.dice.of_million(200_000) {
                this.dispatch.set_tier(token, 1, 2_000_000);
            }
            (0..places).for_each(|index| this.open(token, index));
        }
        this.at(0, Event::Arrive);
        this.at(1_000_000, Event::Operate);
        this.look_soon();
        this
    }

    /// Runs until nothing is left to happen.
    pub(super) fn run(&mut self) {
        while let Some(Reverse((at, _, event))) = self.events.pop() {
            assert!(at >= self.now.as_ns(), "time runs backwards");
            assert!(self.ends.is_none_or(|ends| at <= ends.as_ns()), "it does not come to rest: {self:?}");
            self.now = Time::from_ns(at);
            self.note(event);
            match event {
                Event::Arrive => self.arrive(),
                Event::Poll(id) => self.poll(id),
                Event::Leave(id) => self.leave(id),
                Event::Step(worker) => self.step(worker),
                Event::InlineEnds(call) => self.end_inline(call),
                Event::Look if at == self.next_look => self.look(),
                Event::Look => {}
                Event::Tried(token) => self.tried(token),
                Event::Opened(token, index) => self.open(token, index),
                Event::Plugged(token) => self.tokens[token].device.present = true,
                Event::Operate => self.operate(),
            }
            self.pass_on();
        }
    }

    /// Has something happen so many nanoseconds from now.
    pub(super) fn at(&mut self, after_ns: u64, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((self.now.as_ns() + after_ns, self.sequence, event)));
    }

    /// The same, after a moment in which something else may happen.
    pub(super) fn soon(&mut self, event: Event) {
        let after_ns = self.dice.between(0, 3_000);
        self.at(after_ns, event);
    }

    /// What the watcher's unparker does.
    pub(super) fn look_soon(&mut self) {
        self.look_at(self.now.as_ns() + 1_000);
    }

    pub(super) fn look_at(&mut self, at: u64) {
        if at < self.next_look || self.next_look <= self.now.as_ns() {
            self.next_look = at;
            self.at(at.saturating_sub(self.now.as_ns()), Event::Look);
        }
    }

    /// Seats that were handed over reach their workers, wakers their callers.
    fn pass_on(&mut self) {
        loop {
            let Some(seat) = self.handed.lock().pop_front() else { break };
            let owner = seat.handle.owner;
            self.workers[owner].receive(seat);
            self.soon(Event::Step(owner));
        }
        loop {
            let Some(id) = self.woken.lock().pop_front() else { break };
            let after_ns = self.dice.between(0, 20_000);
            self.at(after_ns, Event::Poll(id));
        }
    }

    /// Makes a seat of a session, which begins to work at once; `None` if none can be opened.
    pub(super) fn seat(&mut self, place: Place) -> Result<(), Failed> {
        let owner = self.workers.len();
        let token = &mut self.tokens[place.token];
        let handle = token.device.open(owner)?;
        let watch = Arc::new(Watch::new(place, Mailbox::new().0));
        token.watches.push(Arc::clone(&watch));
        assert!(
            token.watches.len() + token.written_off <= token.places + WRITTEN_OFF_PER_TOKEN,
            "more sessions than places and caps allow"
        );
        self.workers.push(Worker::new());
        let (epoch, handed) = (Arc::clone(&token.epoch), Arc::clone(&self.handed));
        let costs = CostLine::default();
        self.release(Box::new(Seat { handle, place, epoch, abandoned: false, watch, costs, handed }));
        Ok(())
    }

    pub(super) fn release(&mut self, seat: Box<Seat>) {
        self.dispatch.release(seat);
        if self.stopped {
            self.close_idle();
        }
    }

    pub(super) fn close_idle(&self) {
        for token in 0..self.tokens.len() {
            while let Some(seat) = self.dispatch.take_from(token) {
                dispatch::Seat::hand_over(seat);
            }
        }
    }

    pub(super) fn fail_orphan(&self, orphan: Option<Orphan<Arc<Node>>>) {
        let error = || Error::new(ErrorKind::TokenLost, Retry::Later, Outcome::NotDone);
        orphan.into_iter().for_each(|orphan| self.fail_all(orphan, error));
    }

    pub(super) fn fail_all(&self, orphan: Orphan<Arc<Node>>, error: impl Fn() -> Error) {
        self.dispatch.fail(orphan, |node| {
            if let Some(waker) = node.fail(error(), &mut self.admission.places()) {
                wake(waker, &self.panics);
            }
        });
    }

    pub(super) fn fail_queued(&self) {
        for orphan in self.dispatch.drain() {
            self.fail_all(orphan, draining);
        }
    }

    pub(super) fn deliver(&self, watch: &Watch) {
        watch.deliver(&mut Vec::new(), self.admission.places(), &self.panics);
    }

    pub(super) fn id_of(&self, node: &Arc<Node>) -> usize {
        self.ids[&Arc::as_ptr(node)]
    }

    /// Adds to the history, so that two runs can be compared.
    pub(super) fn note(&mut self, what: impl Hash) {
        (self.now.as_ns(), what).hash(&mut self.history);
    }
}

impl World {
    /// What holds once nothing is left to happen.
    pub(super) fn check(&self) {
        self.requests.iter().enumerate().for_each(|(id, request)| request.check(id));
        assert_eq!((self.admission.requests(), self.admission.bytes()), (0, 0), "room is not given back");
        assert!(self.lanes.iter().all(|lane| lane.is_idle()), "a lane is not drained");
        assert!(!self.dispatch.any_waits(), "a lane waits in a run queue");
        assert_eq!(self.written_off, 0, "a call has not come back");
        assert!(self.workers.iter().all(Worker::is_at_rest), "a worker keeps a session");
        for (number, token) in self.tokens.iter().enumerate() {
            let idle = std::iter::from_fn(|| self.dispatch.take_from(number)).count();
            let wanted = match token.recovery.health() {
                _ if self.stopped => 0,
                Health::Serving => token.places,
                // Those that were inside a call when it was lost are closed when it is back.
                _ => idle,
            };
            assert_eq!((idle, token.watches.len()), (wanted, wanted), "sessions of token {number}: {self:?}");
            let wanted = if token.device.has_forgotten() { 0 } else { wanted };
            assert_eq!(
                token.device.open_sessions(),
                wanted,
                "sessions that token {number} has open: {self:?}"
            );
        }
    }
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let unsettled: Vec<_> = self.requests.iter().filter(|request| !request.is_settled()).collect();
        let busy = self.workers.iter().filter(|worker| !worker.is_at_rest()).count();
        write!(
            f,
            "{unsettled:?}, {busy} workers, {} in flight, stopped {}; ",
            self.admission.requests(),
            self.stopped
        )?;
        self.tokens.iter().try_for_each(|token| {
            let (health, open, wanted) = (token.recovery.health(), token.watches.len(), token.places);
            let Token { written_off, vacant, unfilled, opening, .. } = token;
            write!(f, "{health:?}: {open} of {wanted} open, {written_off} written off, {opening} opening, {vacant:?} vacant, {unfilled:?} unfilled; ")
        })
    }
}

impl Token {
    fn new(places: usize) -> Self {
        let epoch = Arc::new(Epoch::new(1));
        Self {
            device: Device::new(),
            current: CurrentEpoch::new(&epoch),
            epoch,
            recovery: Recovery::default(),
            logs_in: false,
            budget: Budget::new(places as u64),
            retries_max: places as u64,
            retries: 0,
            calls: 0,
            calls_before: 0,
            places,
            watches: Vec::new(),
            vacant: Vec::new(),
            unfilled: Vec::new(),
            opening: 0,
            fill_after: Time::from_ns(0),
            written_off: 0,
        }
    }
}

/// Nothing goes wrong.
pub(super) const FAIR: Weather = Weather { codes: 0, hangs: 0, losses: 0, refusals: 0 };

const WEATHERS: [Weather; 4] = [
    FAIR,
    // The fault mix of the reliability goals.
    Weather { codes: 10_000, hangs: 1_000, losses: 100, refusals: 0 },
    Weather { codes: 100_000, hangs: 200, losses: 5_000, refusals: 20_000 },
    Weather { codes: 300_000, hangs: 10_000, losses: 1_000, refusals: 0 },
];

/// Lanes of every class, for all tokens and for some.
fn lanes(tokens: usize, dice: &mut Dice) -> Vec<LaneRef> {
    let all = (1 << tokens) - 1;
    let lane = |class, mask| Arc::new(Lane::new(class, Arc::new(AtomicU64::new(mask))));
    let masks: Vec<u64> = (0..dice.between(1, 6)).map(|_| dice.between(1, all)).chain([all]).collect();
    masks.into_iter().map(|mask| lane(dice.pick(&Priority::ALL), mask)).collect()
}
