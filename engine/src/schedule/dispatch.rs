//! The lane protocol: how a request finds a session and a session finds work.
//!
//! - Submit: push the item; swap the lane IDLE -> QUEUED; who wins puts the lane into the run queue of its
//!   eligible set; fence; wake one idle session of the set.
//! - Take: take a lane from a run queue, a turn from the lane; set the lane IDLE, look again, and if work is
//!   left put it back **before** the module is called, and wake one more.
//! - Release: put the session among the idle; fence; look at the run queues of its token.
//!
//! Sessions pull, nothing is pushed to a token. What waits here and what runs there is found by whoever looks
//! second: each side stores first and then loads, with `SeqCst` fences between. The models in `loom.rs` check
//! it. Items and sessions are type parameters, so the models run this very code.

use smallvec::SmallVec;

use crate::schedule::fairness::{Candidate, Class, choose};
use crate::schedule::idle::Idle;
use crate::schedule::lane::Lane;
use crate::schedule::run_queue::RunQueue;
use crate::schedule::tiers::Tiers;
use crate::sync::{Arc, AtomicU64, AtomicUsize, CachePadded, Mutex, Ordering, Queue, RwLock, fence, plain};

/// A session as the protocol sees it.
pub(crate) trait Seat: Sized {
    /// Index of its token.
    fn token(&self) -> usize;

    /// Index among the sessions of its token.
    fn index(&self) -> usize;

    /// Gives the session to its own worker thread and wakes that.
    fn hand_over(self: Box<Self>);
}

/// Run queues and idle sessions of one engine.
pub(crate) struct Dispatch<T, S> {
    /// One per eligible set that was ever in use; at most one per subset of tokens, few in practice.
    queues: RwLock<Vec<Arc<RunQueue<T>>>>,
    idle: Box<[Idle<S>]>,
    /// Tokens that can serve: bit i is token i.
    healthy: AtomicU64,
    /// Tokens that are out of service, for whatever reason.
    out: plain::AtomicU64,
    /// Of those, by reason: a token is back when it has none left. Locked by who changes them.
    reasons: Mutex<Reasons>,
    /// Tokens whose sessions take nothing for a moment: bit i is token i. They stay eligible, so nothing fails.
    paused: plain::AtomicU64,
    tiers: Tiers,
    /// Counts changes of what is eligible, so that a racing submitter notices that its lane went astray.
    generation: AtomicU64,
    /// Lanes in all run queues: while it is 0, a release has nothing to look at.
    lanes_waiting: CachePadded<AtomicUsize>,
    /// Virtual time of the turn that began last; see `fairness`.
    floor_ns: CachePadded<AtomicU64>,
    /// Lanes that lost their last token while a session of it held them; `orphans` hands them out.
    orphans: Queue<Arc<Lane<T>>>,
}

/// Why tokens are out of service: bit i is token i.
#[derive(Clone, Copy, Default)]
struct Reasons {
    /// The operator has taken them out.
    drained: u64,
    /// They have given a wrong answer.
    ejected: u64,
}

/// What a session takes from one lane at once.
pub(crate) struct Turn<T> {
    pub(crate) lane: Arc<Lane<T>>,
    queue: Arc<RunQueue<T>>,
    /// The queue's count when the turn began.
    rush: u64,
    estimate_ns: u64,
}

/// What an item adds to a turn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// In session time.
    pub(crate) ns: u64,
    /// Whether nothing more fits behind it, whatever it costs.
    pub(crate) fills: bool,
}

/// What costs less than this is not worth another session's wake-up: one session takes it alone, however
/// many idle. A hand-over between sleeping threads costs 15 to 50 us (prototype, 2 cores).
const ALONE_NS: u64 = 15_000;

/// A lane taken from a class of a run queue.
type Chosen<T> = (Arc<RunQueue<T>>, Class, Arc<Lane<T>>);

/// A lane that no token can serve now: its items are to be failed.
#[must_use]
pub(crate) struct Orphan<T>(Arc<Lane<T>>);

impl<T, S: Seat> Dispatch<T, S> {
    /// `capacity` is the number of sessions each token may have.
    pub(crate) fn new(capacity: &[usize]) -> Self {
        let healthy = if capacity.len() == 64 { u64::MAX } else { (1 << capacity.len()) - 1 };
        Self {
            queues: RwLock::new(Vec::new()),
            idle: capacity.iter().map(|&n| Idle::new(n)).collect(),
            healthy: AtomicU64::new(healthy),
            out: plain::AtomicU64::new(0),
            reasons: Mutex::new(Reasons::default()),
            paused: plain::AtomicU64::new(0),
            tiers: Tiers::new(capacity.len()),
            generation: AtomicU64::new(0),
            lanes_waiting: CachePadded::new(AtomicUsize::new(0)),
            floor_ns: CachePadded::new(AtomicU64::new(0)),
            orphans: Queue::new(),
        }
    }

    /// Queues items and wakes a session for them. `None` if they are queued.
    pub(crate) fn submit(
        &self,
        lane: &Arc<Lane<T>>,
        items: impl IntoIterator<Item = T>,
    ) -> Option<Orphan<T>> {
        items.into_iter().for_each(|item| lane.push(item));
        if lane.set_queued() { self.enqueue(Arc::clone(lane), true) } else { None }
    }

    /// Gives back items that a session took and could not execute. They are served first.
    pub(crate) fn give_back(
        &self,
        lane: &Arc<Lane<T>>,
        items: impl IntoIterator<Item = T>,
    ) -> Option<Orphan<T>> {
        items.into_iter().for_each(|item| lane.push_returned(item));
        self.raise(lane)
    }

    /// Leases a session to an inline caller: an idle one of the set, if nothing is queued for the set.
    ///
    /// `closed` are tokens that take no inline callers, `hint` is the (token, index) that the caller had last.
    #[inline]
    pub(crate) fn lease(&self, mask: u64, closed: u64, hint: (usize, usize)) -> Option<Box<S>> {
        let mask = mask & self.healthy.load(Ordering::Relaxed) & !self.out.load(Ordering::Relaxed);
        if self.lanes_waiting.load(Ordering::Relaxed) != 0
            && self.queues.read().iter().any(|q| q.competes(mask))
        {
            return None;
        }
        // Paused tokens count for the tiers: a lower one does not step in for a moment.
        let (front, closed) = (self.tiers.front(mask), closed | self.paused.load(Ordering::Relaxed));
        let further = || self.take_idle(self.tiers.after(mask, 0) & !front & !closed, hint);
        self.take_idle(front & !closed, hint).or_else(further)
    }

    /// Leases the session of one worker, if it is idle.
    pub(crate) fn lease_own(&self, token: usize, index: usize) -> Option<Box<S>> {
        self.idle[token].take_own(index)
    }

    /// Leases a session that nobody holds, parked or not.
    pub(crate) fn lease_any(&self, token: usize, index: usize) -> Option<Box<S>> {
        self.idle[token].take_slot(index)
    }

    /// Takes a turn for a session of `token`: fills `items` from one lane.
    ///
    /// `cost` says what an item adds; the turn ends when the sum reaches `budget_ns`, with an item that fills it, or
    /// with the session's share of the lane while others idle. It always takes at least one.
    pub(crate) fn take(
        &self,
        token: usize,
        now_ns: u64,
        budget_ns: u64,
        mut cost: impl FnMut(&Lane<T>, &T) -> Cost,
        items: &mut impl Extend<T>,
    ) -> Option<Turn<T>> {
        while let Some((queue, class, lane)) = self.pop_lane(token, now_ns, budget_ns) {
            let share = self.share(&queue, &lane);
            let (mut taken, mut estimate_ns) = (0, 0);
            while taken == 0 || estimate_ns < budget_ns && (taken < share || estimate_ns < ALONE_NS) {
                let Some(item) = lane.pop() else { break };
                let cost = cost(&lane, &item);
                estimate_ns += cost.ns;
                taken += 1;
                items.extend(Some(item));
                if cost.fills {
                    break;
                }
            }
            if lane.set_idle() {
                // Before the module is called, so that any number of sessions serve one lane.
                self.requeue(&lane);
            }
            if taken > 0 {
                queue.charge(class, estimate_ns);
                let rush = queue.rushes.load(Ordering::Relaxed);
                return Some(Turn { lane, queue, rush, estimate_ns });
            }
        }
        None
    }

    /// A turn is over and has cost `cost_ns`: corrects what was charged in advance. Its oldest request had waited
    /// for `waited_ns`.
    pub(crate) fn settle(&self, turn: &Turn<T>, cost_ns: u64, waited_ns: u64, budget_ns: u64) {
        if self.tiers.several() && turn.queue.rushes.load(Ordering::Relaxed) == turn.rush {
            turn.queue.waited_ns.store(waited_ns, Ordering::Relaxed);
        }
        turn.queue.charge(turn.lane.class, cost_ns.saturating_sub(turn.estimate_ns));
        turn.lane.charge(cost_ns.saturating_sub(budget_ns));
    }

    /// Puts a session among the idle, or parks it, and looks whether work came meanwhile.
    #[inline]
    pub(crate) fn release(&self, session: Box<S>) {
        let token = session.token();
        // With a SeqCst fence at its end, which pairs with the one in `enqueue`: either this look sees the lane that
        // was queued, or the submitter that queued it sees this session idle.
        self.put_idle(session);
        self.look(token);
    }

    /// Puts a session among the idle without a look: for a worker that takes it again at once or then looks.
    #[inline]
    pub(crate) fn put_idle(&self, session: Box<S>) {
        self.idle[session.token()].put(session.index(), session);
    }

    /// If work waits that this token can serve, wakes a session for it.
    #[inline]
    pub(crate) fn look(&self, token: usize) {
        if self.lanes_waiting.load(Ordering::SeqCst) != 0 {
            self.wake_for_waiting(token);
        }
    }

    #[cold]
    fn wake_for_waiting(&self, token: usize) {
        let waiting: SmallVec<[Arc<RunQueue<T>>; 8]> =
            self.queues.read().iter().filter(|q| q.serves(token)).map(Arc::clone).collect();
        waiting.into_iter().for_each(|queue| self.wake_one(&queue));
    }

    /// Wakes sessions of lower tiers where requests have waited so long that these would answer them sooner.
    pub(crate) fn look_at_tiers(&self, now_ns: u64) {
        if !self.tiers.several() || self.lanes_waiting.load(Ordering::SeqCst) == 0 {
            return;
        }
        let queues: SmallVec<[Arc<RunQueue<T>>; 8]> = self.queues.read().iter().map(Arc::clone).collect();
        for queue in queues {
            let waits = |class| Some(queue.candidate(class, now_ns)?.waited_ns);
            if let Some(waited_ns) = Class::ALL.into_iter().filter_map(waits).max() {
                queue.waited_ns.fetch_max(waited_ns, Ordering::Relaxed);
                self.wake_one(&queue);
            }
        }
    }

    /// The shortest time after which a session of a lower tier may have to be woken, if there is one.
    pub(crate) fn patience_ns(&self) -> Option<u64> {
        self.tiers.patience_ns()
    }

    /// Whether any lane waits in a run queue; a hint.
    pub(crate) fn any_waits(&self) -> bool {
        self.lanes_waiting.load(Ordering::Relaxed) != 0
    }

    /// Puts a token into a tier, and wakes whoever has become the one to serve what waits.
    pub(crate) fn set_tier(&self, token: usize, rank: u8, extra_ns: u64) {
        self.tiers.set(token, rank, extra_ns);
        (0..self.idle.len()).for_each(|token| self.look(token));
    }

    /// Puts the sessions of a token below an index in use and parks the others, each when its turn is over.
    pub(crate) fn set_limit(&self, token: usize, limit: usize) {
        if self.idle[token].set_limit(limit) {
            // SeqCst fence: pairs with the one in `enqueue`, as in `release`: these sessions come back to the idle.
            fence(Ordering::SeqCst);
            self.look(token);
        }
    }

    /// The index from which on sessions of a token are parked.
    pub(crate) fn limit(&self, token: usize) -> usize {
        self.idle[token].limit()
    }

    /// Sessions that seem idle on a token; a hint.
    pub(crate) fn idle_about(&self, token: usize) -> usize {
        self.idle[token].about()
    }

    /// Takes any session of a token that nobody holds, to retire it.
    pub(crate) fn take_from(&self, token: usize) -> Option<Box<S>> {
        self.idle[token].take_any()
    }

    pub(crate) fn healthy(&self) -> u64 {
        self.healthy.load(Ordering::SeqCst)
    }

    /// A token can or cannot serve any more: moves the lanes. Returns those that nobody can serve.
    #[must_use]
    pub(crate) fn set_healthy(&self, token: usize, healthy: bool) -> Vec<Orphan<T>> {
        match healthy {
            true => self.healthy.fetch_or(1 << token, Ordering::SeqCst),
            false => self.healthy.fetch_and(!(1 << token), Ordering::SeqCst),
        };
        self.regroup()
    }

    /// Takes tokens out of service and puts others back, at once: moves the lanes. Returns those that nobody can serve.
    #[must_use]
    pub(crate) fn set_drained(&self, out: u64, back: u64) -> Vec<Orphan<T>> {
        self.change_reasons(|reasons| reasons.drained = reasons.drained & !back | out);
        self.regroup()
    }

    /// Takes tokens out of service because of a wrong answer, until they are readmitted: moves the lanes. Returns those
    /// that nobody can serve, and whether any of the tokens was not out for that before.
    #[must_use]
    pub(crate) fn eject(&self, tokens: u64) -> (Vec<Orphan<T>>, bool) {
        let before = self.change_reasons(|reasons| reasons.ejected |= tokens);
        (self.regroup(), tokens & !before.ejected != 0)
    }

    /// Undoes [`Dispatch::eject`]. They serve again if nothing else keeps them from it.
    #[must_use]
    pub(crate) fn readmit(&self, tokens: u64) -> Vec<Orphan<T>> {
        self.change_reasons(|reasons| reasons.ejected &= !tokens);
        self.regroup()
    }

    /// Returns what the reasons were.
    fn change_reasons(&self, change: impl FnOnce(&mut Reasons)) -> Reasons {
        let mut reasons = self.reasons.lock();
        let before = *reasons;
        change(&mut reasons);
        self.out.store(reasons.drained | reasons.ejected, Ordering::SeqCst);
        before
    }

    /// Has the sessions of these tokens take nothing more until [`Dispatch::resume`]; those that are idle or become
    /// so are for who paused them. A session that is on its way may still take one turn.
    pub(crate) fn pause(&self, mask: u64) {
        self.paused.fetch_or(mask, Ordering::SeqCst);
    }

    /// Undoes [`Dispatch::pause`], and wakes sessions for what has gathered.
    pub(crate) fn resume(&self, mask: u64) {
        self.paused.fetch_and(!mask, Ordering::SeqCst);
        // SeqCst fence: pairs with the one in `enqueue`. Either the look sees the lane that was queued, or its
        // submitter sees that the token is paused no more.
        fence(Ordering::SeqCst);
        tokens(mask).for_each(|token| self.look(token));
    }

    /// Tokens that serve: bit i is token i.
    pub(crate) fn serving(&self) -> u64 {
        self.healthy() & !self.out.load(Ordering::Relaxed)
    }

    /// Tokens that the operator has taken out of service: bit i is token i.
    pub(crate) fn drained(&self) -> u64 {
        self.reasons.lock().drained
    }

    /// Tokens that are out of service because of a wrong answer: bit i is token i.
    pub(crate) fn ejected(&self) -> u64 {
        self.reasons.lock().ejected
    }

    /// What is eligible has changed: puts every waiting lane where it belongs now.
    #[must_use]
    pub(crate) fn regroup(&self) -> Vec<Orphan<T>> {
        self.generation.fetch_add(1, Ordering::SeqCst);
        // SeqCst fence: pairs with the one in `enqueue`.
        fence(Ordering::SeqCst);
        let queues: Vec<_> = self.queues.read().iter().map(Arc::clone).collect();
        let mut lanes = Vec::new();
        for queue in queues {
            while let Some(lane) = self.pop_from(|| queue.pop_any()) {
                lanes.push(lane);
            }
        }
        lanes.into_iter().filter_map(|lane| self.enqueue(lane, false)).collect()
    }

    /// Lanes that sessions left behind because no token can serve them; for the watcher to fail.
    pub(crate) fn orphans(&self) -> impl Iterator<Item = Orphan<T>> {
        std::iter::from_fn(|| self.orphans.pop().map(Orphan))
    }

    /// Drops the dead items of a lane, most of which are, so that a lane nobody serves does not grow.
    ///
    /// The living move to the front in their order; one that a session takes meanwhile may overtake another.
    pub(crate) fn sweep(&self, lane: &Arc<Lane<T>>, is_dead: impl Fn(&T) -> bool) -> Option<Orphan<T>> {
        lane.retain(|item| !is_dead(item));
        self.raise(lane)
    }

    /// Fails every item of a lane that no token can serve.
    pub(crate) fn fail(&self, orphan: Orphan<T>, mut fail: impl FnMut(T)) {
        let Orphan(lane) = orphan;
        loop {
            while let Some(item) = lane.pop() {
                fail(item);
            }
            if !lane.set_idle() {
                return;
            }
        }
    }

    /// Takes every waiting lane away, for a stop.
    pub(crate) fn drain(&self) -> Vec<Orphan<T>> {
        let queues: Vec<_> = self.queues.read().iter().map(Arc::clone).collect();
        let mut lanes = Vec::new();
        for queue in queues {
            while let Some(lane) = self.pop_from(|| queue.pop_any()) {
                lanes.push(Orphan(lane));
            }
        }
        lanes
    }

    fn raise(&self, lane: &Arc<Lane<T>>) -> Option<Orphan<T>> {
        if lane.set_queued() { self.enqueue(Arc::clone(lane), false) } else { None }
    }

    /// Puts a lane that the caller holds into the run queue of its eligible set and wakes one session. `new` says that
    /// nothing in it has waited.
    fn enqueue(&self, lane: Arc<Lane<T>>, new: bool) -> Option<Orphan<T>> {
        let generation = self.generation.load(Ordering::SeqCst);
        let serving = self.healthy.load(Ordering::SeqCst) & !self.out.load(Ordering::SeqCst);
        let mask = lane.eligible.load(Ordering::SeqCst) & serving;
        if mask == 0 {
            return Some(Orphan(lane));
        }
        let queue = self.queue(mask);
        if new && self.tiers.several() {
            queue.begin_anew_if_empty();
        }
        self.lanes_waiting.fetch_add(1, Ordering::SeqCst);
        queue.push(lane, self.floor_ns.load(Ordering::Relaxed));
        // SeqCst fence: pairs with the ones in `release` and `regroup`.
        fence(Ordering::SeqCst);
        if self.generation.load(Ordering::SeqCst) != generation {
            // Who changed the sets may have emptied this queue before the push: take one lane out and try
            // again. If another session took ours meanwhile, there is none or it is another's, all the same.
            if let Some(lane) = self.pop_from(|| queue.pop_any()) {
                return self.enqueue(lane, false);
            }
        }
        self.wake_one(&queue);
        None
    }

    /// Like `enqueue`, by a session: it has no time for orphans and leaves them to the watcher.
    fn requeue(&self, lane: &Arc<Lane<T>>) {
        if let Some(Orphan(lane)) = self.enqueue(Arc::clone(lane), false) {
            self.orphans.push(lane);
        }
    }

    /// Pops the lane whose turn it is for a session of this token.
    fn pop_lane(&self, token: usize, now_ns: u64, budget_ns: u64) -> Option<Chosen<T>> {
        loop {
            let (queue, class) = self.choose(token, now_ns)?;
            let Some(lane) = self.pop_from(|| queue.pop(class)) else { continue };
            let eligible = lane.eligible.load(Ordering::SeqCst) & (1 << token) != 0;
            if eligible && queue.is_due(&lane, budget_ns) {
                self.floor_ns.fetch_max(queue.served(class, now_ns), Ordering::Relaxed);
                return Some((queue, class, lane));
            }
            self.requeue(&lane);
        }
    }

    fn choose(&self, token: usize, now_ns: u64) -> Option<(Arc<RunQueue<T>>, Class)> {
        if self.lanes_waiting.load(Ordering::SeqCst) == 0 {
            return None;
        }
        if self.paused.load(Ordering::Relaxed) & (1 << token) != 0 {
            return None;
        }
        let queues = self.queues.read();
        let (mut candidates, mut places) = (SmallVec::<[Candidate; 8]>::new(), SmallVec::<[_; 8]>::new());
        for queue in queues.iter().filter(|q| q.mask & (1 << token) != 0) {
            for class in Class::ALL {
                if let Some(candidate) = queue.candidate(class, now_ns)
                    && self.may_take(token, queue, candidate.waited_ns)
                {
                    candidates.push(candidate);
                    places.push((queue, class));
                }
            }
        }
        choose(&candidates).map(|i| (Arc::clone(places[i].0), places[i].1))
    }

    /// Whether it is for this token to serve a queue, by the tiers.
    fn may_take(&self, token: usize, queue: &RunQueue<T>, waited_ns: u64) -> bool {
        let waited_ns = waited_ns.max(queue.waited_ns.load(Ordering::Relaxed));
        self.tiers.after(queue.mask, waited_ns) & (1 << token) != 0
    }

    /// A session's part of a lane: all of it when no other session of the set is idle.
    fn share(&self, queue: &RunQueue<T>, lane: &Lane<T>) -> usize {
        let idle: usize = tokens(self.tiers.front(queue.mask)).map(|token| self.idle[token].about()).sum();
        if idle == 0 { usize::MAX } else { lane.len().div_ceil(idle + 1).max(1) }
    }

    /// Wakes an idle session for a queue: of its first tier, or of another if its requests have waited too long.
    fn wake_one(&self, queue: &RunQueue<T>) {
        let paused = self.paused.load(Ordering::Relaxed);
        let take = |mask| {
            let mut idle = self.idle_tokens(mask & !paused, self.rotate());
            idle.find_map(|token| self.idle[token].take_for_turn(0))
        };
        let front = self.tiers.front(queue.mask);
        let session = take(front).or_else(|| {
            let waited_ns = queue.waited_ns.load(Ordering::Relaxed);
            take(self.tiers.after(queue.mask, waited_ns) & !front)
        });
        if let Some(session) = session {
            session.hand_over();
        }
    }

    /// Takes an idle session of the set; looks at the hint's token first.
    fn take_idle(&self, mask: u64, (token, index): (usize, usize)) -> Option<Box<S>> {
        self.idle_tokens(mask, token).find_map(|token| self.idle[token].take(index))
    }

    /// The tokens of a set, from `first` on and round.
    fn idle_tokens(&self, mask: u64, first: usize) -> impl Iterator<Item = usize> {
        let count = self.idle.len();
        (0..count).map(move |i| (first + i) % count).filter(move |token| mask & (1 << token) != 0)
    }

    /// Where to begin looking for an idle session, so that tokens share the work that trickles in. Virtual
    /// time moves with every turn, so it serves as the dice.
    fn rotate(&self) -> usize {
        let dice = self.floor_ns.load(Ordering::Relaxed) ^ self.lanes_waiting.load(Ordering::Relaxed) as u64;
        usize::try_from(dice % self.idle.len() as u64).unwrap_or(0)
    }

    fn queue(&self, mask: u64) -> Arc<RunQueue<T>> {
        let find = |queues: &[Arc<RunQueue<T>>]| queues.iter().find(|q| q.mask == mask).map(Arc::clone);
        if let Some(queue) = find(&self.queues.read()) {
            return queue;
        }
        let mut queues = self.queues.write();
        find(&queues).unwrap_or_else(|| {
            let queue = Arc::new(RunQueue::new(mask));
            queues.push(Arc::clone(&queue));
            queue
        })
    }

    fn pop_from(&self, pop: impl FnOnce() -> Option<Arc<Lane<T>>>) -> Option<Arc<Lane<T>>> {
        let lane = pop()?;
        self.lanes_waiting.fetch_sub(1, Ordering::SeqCst);
        Some(lane)
    }
}

impl<T> RunQueue<T> {
    /// Whether work waits here that a session of `token` can serve.
    fn serves(&self, token: usize) -> bool {
        self.mask & (1 << token) != 0 && !self.is_empty()
    }

    /// Whether work waits here for one of the tokens in `mask`.
    fn competes(&self, mask: u64) -> bool {
        self.mask & mask != 0 && !self.is_empty()
    }
}

/// The tokens of a set, by index.
pub(crate) fn tokens(mut mask: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let token = mask.trailing_zeros();
        mask &= mask.wrapping_sub(1);
        (token < 64).then_some(token as usize)
    })
}

#[cfg(all(test, not(hsmux_loom)))]
mod tests;
