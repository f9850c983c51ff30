//! Wakers of answered requests, delivered together and never while a session is leased.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

use crate::clock::Time;
use crate::sync::{AtomicU64, Ordering};

/// Longest time that a waker is held over while more work is queued.
///
/// From the figures of the prototype (SoftHSM2, ECDSA, 64 async tasks, 2 cores): waking after every turn of
/// 1 ms reached 0.93 of the raw loop, holding wakers for up to 1 ms more 0.95, because a runtime thread that
/// wakes takes the core from a worker inside the module.
const HOLD_NS_MAX: u64 = 1_000_000;

/// A waker is held at most a quarter of the time its request has queued, so that latency grows by no more.
const HOLD_PART: u64 = 4;

/// Wakers waiting for delivery, and the places of those who were answered. They lie where the watcher can reach
/// them, for a call that hangs or takes longer than anyone thought must not hold up those whose answers were there
/// before it, nor their room.
#[derive(Default)]
pub(crate) struct Wakers {
    list: Vec<Waker>,
    places: usize,
    since: Option<Time>,
}

impl Wakers {
    pub(super) fn push(&mut self, waker: Option<Waker>, places: usize, now: Time) {
        self.places += places;
        if let Some(waker) = waker {
            self.list.push(waker);
            self.since.get_or_insert(now);
        }
    }

    /// Whether they have been held long enough, for requests that queued for `wait_ns`, although work waits.
    pub(super) fn are_due(&self, now: Time, wait_ns: u64) -> bool {
        self.since.is_some_and(|since| now.ns_since(since) >= HOLD_NS_MAX.min(wait_ns / HOLD_PART))
    }

    /// Takes all into an empty list, whose memory serves the next ones; returns how many places they free.
    pub(super) fn take(&mut self, list: &mut Vec<Waker>) -> usize {
        self.since = None;
        std::mem::swap(&mut self.list, list);
        std::mem::take(&mut self.places)
    }
}

/// Wakes all of a list. A panic in a waker is counted and touches nothing else.
pub(super) fn wake_all(list: &mut Vec<Waker>, panics: &AtomicU64) {
    list.drain(..).for_each(|waker| wake(waker, panics));
}

/// Wakes one. A waker is user code: a panic in it is counted and goes no further.
pub(crate) fn wake(waker: Waker, panics: &AtomicU64) {
    if catch_unwind(AssertUnwindSafe(|| waker.wake())).is_err() {
        panics.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::task::Wake;

    struct Panics;

    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("a waker that panics");
        }
    }

    #[test]
    fn wakers_are_held_for_a_part_of_the_queue_wait_and_at_most_a_millisecond() {
        let mut wakers = Wakers::default();
        assert!(!wakers.are_due(Time::from_ns(u64::MAX), 0));
        wakers.push(Some(Waker::noop().clone()), 0, Time::from_ns(1_000));
        assert!(wakers.are_due(Time::from_ns(1_000), 0));
        assert!(!wakers.are_due(Time::from_ns(1_099), 400));
        assert!(wakers.are_due(Time::from_ns(1_100), 400));
        assert!(!wakers.are_due(Time::from_ns(1_000_999), u64::MAX));
        assert!(wakers.are_due(Time::from_ns(1_001_000), u64::MAX));
    }

    #[test]
    fn a_panicking_waker_is_counted_and_the_others_are_woken() {
        let (panics, counted) = (AtomicU64::new(0), Arc::new(()));
        struct Counts(#[expect(dead_code, reason = "held for its count")] Arc<()>);
        impl Wake for Counts {
            fn wake(self: Arc<Self>) {}
        }
        let mut wakers = Wakers::default();
        wakers.push(Some(Waker::from(Arc::new(Panics))), 1, Time::from_ns(1));
        wakers.push(Some(Waker::from(Arc::new(Counts(Arc::clone(&counted))))), 1, Time::from_ns(1));
        let mut list = Vec::new();
        assert_eq!((wakers.take(&mut list), wakers.take(&mut Vec::new())), (2, 0));
        wake_all(&mut list, &panics);
        assert_eq!((panics.load(Ordering::Relaxed), Arc::strong_count(&counted)), (1, 1));
    }
}
