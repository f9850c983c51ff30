//! Run queues: the lanes of one eligible set that have work, by priority.

use crate::schedule::fairness::{Candidate, Class, virtual_ns};
use crate::schedule::lane::Lane;
use crate::sync::{Arc, AtomicU64, Ordering, Queue, plain};

/// The lanes with work of one eligible set. A lane is in at most one run queue, and there once.
pub(crate) struct RunQueue<T> {
    /// The tokens whose sessions take from here: bit i is token i.
    pub(super) mask: u64,
    classes: [ClassQueue<T>; 3],
    /// How long the oldest request of the last turn had waited: what the next one is about to wait. For tiers.
    pub(super) waited_ns: plain::AtomicU64,
    /// How often work came after there had been none: what a turn knows of waiting is of its own time only.
    pub(super) rushes: plain::AtomicU64,
}

struct ClassQueue<T> {
    lanes: Queue<Arc<Lane<T>>>,
    /// Virtual start of the next turn; see `fairness`. Racing updates blur a share by a turn, no more.
    start_ns: AtomicU64,
    /// When it was last served or became ready.
    since_ns: AtomicU64,
    /// Virtual time of its lanes: it passes by one budget while each of them is looked at once.
    lanes_ns: plain::AtomicU64,
}

impl<T> RunQueue<T> {
    pub(super) fn new(mask: u64) -> Self {
        let class = || ClassQueue {
            lanes: Queue::new(),
            start_ns: AtomicU64::new(0),
            since_ns: AtomicU64::new(0),
            lanes_ns: plain::AtomicU64::new(0),
        };
        let (waited_ns, rushes) = (plain::AtomicU64::new(0), plain::AtomicU64::new(0));
        Self { mask, classes: [class(), class(), class()], waited_ns, rushes }
    }

    /// New work comes. If none has waited, it has not waited either, however long those before it had to.
    pub(super) fn begin_anew_if_empty(&self) {
        if self.is_empty() {
            self.rushes.fetch_add(1, Ordering::Relaxed);
            self.waited_ns.store(0, Ordering::Relaxed);
        }
    }

    /// `floor_ns` is the virtual time now: who was away does not come back with credit.
    pub(super) fn push(&self, lane: Arc<Lane<T>>, floor_ns: u64) {
        let class = &self.classes[lane.class.index()];
        if class.lanes.is_empty() {
            class.start_ns.fetch_max(floor_ns, Ordering::Relaxed);
            class.since_ns.store(0, Ordering::Relaxed);
        }
        class.lanes.push(lane);
    }

    pub(super) fn pop(&self, class: Class) -> Option<Arc<Lane<T>>> {
        self.classes[class.index()].lanes.pop()
    }

    /// Whether it is the turn of a lane that was popped: its operations may have cost more than its turns, and it then lets
    /// the others go first.
    ///
    /// Time passes for all lanes of a class alike, those without work included, by a budget while each waiting lane is
    /// looked at once. A lane that waits alone has its turn, and time catches up with it: what it has used while nobody
    /// wanted it, it owes nobody. So one that has had the sessions to itself for an hour shares them at once with one that
    /// comes, and one that asks now and then goes before one that always asks.
    pub(super) fn is_due(&self, lane: &Lane<T>, budget_ns: u64) -> bool {
        let class = &self.classes[lane.class.index()];
        let (start_ns, others) = (lane.start_in(self.mask), class.lanes.len() as u64);
        // Relaxed: racing updates blur a share by a turn, no more.
        let passed = |ns| class.lanes_ns.fetch_add(ns, Ordering::Relaxed) + ns;
        let (now_ns, due) = match others {
            0 => (class.lanes_ns.fetch_max(start_ns, Ordering::Relaxed).max(start_ns), true),
            others => {
                let now_ns = passed((budget_ns / (others + 1)).max(1));
                (now_ns, start_ns < now_ns.saturating_add(budget_ns))
            }
        };
        if due {
            lane.begins(now_ns);
        }
        due
    }

    /// Every lane, for a change of the eligible set.
    pub(super) fn pop_any(&self) -> Option<Arc<Lane<T>>> {
        Class::ALL.into_iter().find_map(|class| self.pop(class))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.classes.iter().all(|class| class.lanes.is_empty())
    }

    /// The class as the decider sees it; none if it has no lane.
    pub(super) fn candidate(&self, class: Class, now_ns: u64) -> Option<Candidate> {
        let class = &self.classes[class.index()];
        if class.lanes.is_empty() {
            return None;
        }
        let since_ns = match class.since_ns.load(Ordering::Relaxed) {
            // It became ready since anyone looked: it waits from now on.
            0 => {
                class.since_ns.store(now_ns, Ordering::Relaxed);
                now_ns
            }
            since_ns => since_ns,
        };
        let start_ns = class.start_ns.load(Ordering::Relaxed);
        Some(Candidate { start_ns, waited_ns: now_ns.saturating_sub(since_ns) })
    }

    /// A turn of this class begins. Returns its virtual start, which is virtual time now.
    pub(super) fn served(&self, class: Class, now_ns: u64) -> u64 {
        let class = &self.classes[class.index()];
        class.since_ns.store(now_ns, Ordering::Relaxed);
        class.start_ns.load(Ordering::Relaxed)
    }

    /// A turn of this class has cost so much.
    pub(super) fn charge(&self, class: Class, cost_ns: u64) {
        self.classes[class.index()].start_ns.fetch_add(virtual_ns(class, cost_ns), Ordering::Relaxed);
    }
}
