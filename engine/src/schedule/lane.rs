//! Lanes: the queue of one key version, way of batching, priority and tenant.

use crate::schedule::demotion::Demotion;
use crate::schedule::fairness::Class;
use crate::sync::{Arc, AtomicBool, AtomicU64, Ordering, Queue, fence, plain};

/// A lock-free queue that is either IDLE or QUEUED (in one run queue, or in the hands of one taker).
///
/// Any number of threads push. Who holds the lane, because it took it from a run queue or won the swap from IDLE
/// to QUEUED, pops; only [`Lane::retain`] pops beside it.
pub(crate) struct Lane<T> {
    fresh: Queue<T>,
    /// Given back by a session that could not execute them; served first.
    returned: Queue<T>,
    queued: AtomicBool,
    /// When its next turn may begin, in the virtual time of the run queue of this mask; see `run_queue`.
    start_ns: plain::AtomicU64,
    start_mask: plain::AtomicU64,
    /// The engine's count of requests that died in a lane when this lane was last swept.
    swept_at: AtomicU64,
    pub(crate) demotion: Demotion,
    pub(super) class: Class,
    /// The tokens that can run this lane: bit i is token i.
    pub(super) eligible: Arc<AtomicU64>,
}

/// Fewer dead than this are not worth a sweep: sessions skip them faster.
#[cfg(not(hsmux_loom))]
const SWEEP_MIN: u64 = 64;

impl<T> Lane<T> {
    pub(crate) fn new(class: Class, eligible: Arc<AtomicU64>) -> Self {
        Self {
            fresh: Queue::new(),
            returned: Queue::new(),
            queued: AtomicBool::new(false),
            start_ns: plain::AtomicU64::new(0),
            start_mask: plain::AtomicU64::new(0),
            swept_at: AtomicU64::new(0),
            demotion: Demotion::default(),
            class,
            eligible,
        }
    }

    /// Number of requests waiting; a hint while others push and pop.
    pub(crate) fn len(&self) -> usize {
        self.returned.len() + self.fresh.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.returned.is_empty() && self.fresh.is_empty()
    }

    /// Whether so many requests of the engine died since the last sweep that most of this lane may be dead.
    /// `withdrawn` is the engine's count of requests that died in a lane. True at most once per count.
    #[cfg(not(hsmux_loom))]
    pub(crate) fn is_mostly_dead(&self, withdrawn: u64) -> bool {
        let since = withdrawn.saturating_sub(self.swept_at.load(Ordering::Relaxed));
        if since < SWEEP_MIN || since.saturating_mul(2) < self.len() as u64 {
            return false;
        }
        self.swept_at.store(withdrawn, Ordering::Relaxed);
        true
    }

    /// Whether no request and no taker is left: only then may the lane be retired.
    #[cfg(not(hsmux_loom))]
    pub(crate) fn is_idle(&self) -> bool {
        !self.queued.load(Ordering::SeqCst) && self.is_empty()
    }

    pub(super) fn push(&self, item: T) {
        self.fresh.push(item);
    }

    pub(super) fn push_returned(&self, item: T) {
        self.returned.push(item);
    }

    /// For who holds the lane.
    pub(super) fn pop(&self) -> Option<T> {
        self.returned.pop().or_else(|| self.fresh.pop())
    }

    /// Drops items. Those that stay move to the front, in their order; by anyone, beside takers.
    pub(super) fn retain(&self, stays: impl Fn(&T) -> bool) {
        // Each queue once through, by its length now: what stays goes to the end of `returned`.
        for queue in [&self.returned, &self.fresh] {
            for _ in 0..queue.len() {
                match queue.pop() {
                    Some(item) if stays(&item) => self.returned.push(item),
                    Some(item) => drop(item),
                    None => break,
                }
            }
        }
    }

    /// IDLE -> QUEUED. True for the one who has to put the lane into its run queue.
    pub(super) fn set_queued(&self) -> bool {
        // SeqCst fence: pairs with the one in `set_idle`. Either this swap sees IDLE, or the taker that is
        // about to set IDLE sees the item that was pushed before this fence.
        fence(Ordering::SeqCst);
        // A look first: while the lane is QUEUED, submitters only read this line.
        !self.queued.load(Ordering::SeqCst) && !self.queued.swap(true, Ordering::SeqCst)
    }

    /// QUEUED -> IDLE, by who holds the lane; then looks again. True if work came in between and the lane is
    /// QUEUED again, so that the caller has to put it back into its run queue.
    pub(super) fn set_idle(&self) -> bool {
        // A swap where a store would do: on x86 a store and a fence cost the same, and loom orders a store
        // against another thread's swap more loosely than C11 does, and then reports what cannot happen.
        self.queued.swap(false, Ordering::SeqCst);
        // SeqCst fence: pairs with the one in `set_queued`.
        fence(Ordering::SeqCst);
        !self.is_empty() && !self.queued.swap(true, Ordering::SeqCst)
    }

    /// When its next turn may begin, in the virtual time of the run queue of this mask, in which it is now.
    pub(super) fn start_in(&self, mask: u64) -> u64 {
        // Relaxed, here and below: only the holder of the lane asks, and a charge that is lost costs one turn's fairness.
        if self.start_mask.swap(mask, Ordering::Relaxed) != mask {
            // Another queue's time says nothing here.
            self.start_ns.store(0, Ordering::Relaxed);
        }
        self.start_ns.load(Ordering::Relaxed)
    }

    /// A turn begins at this virtual time: who was away does not come back with credit.
    pub(super) fn begins(&self, virtual_ns: u64) {
        self.start_ns.fetch_max(virtual_ns, Ordering::Relaxed);
    }

    /// Adds what a turn cost beyond its budget, so that a lane of long operations waits its share of rounds.
    pub(super) fn charge(&self, over_ns: u64) {
        self.start_ns.fetch_add(over_ns, Ordering::Relaxed);
    }
}

impl<T> std::fmt::Debug for Lane<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lane").field("class", &self.class).field("len", &self.len()).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(hsmux_loom)))]
mod tests {
    use super::*;
    use crate::schedule::fairness::Priority;

    #[test]
    fn a_sweep_drops_every_dead_item_also_behind_living_ones_and_keeps_the_order() {
        let lane = Lane::new(Priority::Normal, Arc::new(AtomicU64::new(1)));
        (0..3).for_each(|item| lane.push_returned(item));
        (3..100).for_each(|item| lane.push(item));
        lane.retain(|item| item % 10 == 0);
        assert_eq!(lane.len(), 10);
        assert!(std::iter::from_fn(|| lane.pop()).eq((0..100).step_by(10)));
    }
}
