//! With a window: how much more may be answered for before it is durable. Whoever appends shares it with the writer.

use std::time::Duration;

use crate::clock::Time;
use crate::sync::{AtomicU64, Ordering};

pub(super) struct Room {
    records: u64,
    age: Duration,
    /// Answered for, or about to be, and not durable.
    taken: AtomicU64,
    /// When the oldest of those was answered for, as far as is known; 0: there is none. The writer tells what it has; until it has
    /// any, because it makes a segment or has not looked yet, it is the first that was counted.
    oldest_ns: AtomicU64,
}

// Relaxed throughout: these are counts and times, and nothing is read by way of them.
impl Room {
    pub(super) const fn new(records: u64, age: Duration) -> Self {
        Self { records, age, taken: AtomicU64::new(0), oldest_ns: AtomicU64::new(0) }
    }

    /// Whether one more may be answered for now; it is counted then.
    pub(super) fn take(&self, now: Time) -> bool {
        let oldest = self.oldest_ns.load(Ordering::Relaxed);
        let is_old = oldest > 0 && Time::from_ns(oldest).until(now) >= self.age;
        let one_more = |taken| (taken < self.records).then_some(taken + 1);
        let is_taken =
            !is_old && self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok();
        if is_taken && self.oldest_ns.load(Ordering::Relaxed) == 0 {
            // Somebody else may have been first.
            let _ = self.oldest_ns.compare_exchange(0, now.as_ns(), Ordering::Relaxed, Ordering::Relaxed);
        }
        is_taken
    }

    /// So many are durable, or will not be answered for.
    pub(super) fn give_back(&self, records: u64) {
        let before = self.taken.fetch_sub(records, Ordering::Relaxed);
        debug_assert!(before >= records, "{records} given back of {before}");
    }

    /// Notes when the oldest was answered for that is not durable.
    /// If the writer has none, those that it has not seen yet are younger than `now`, or nearly: what came before, it has taken.
    pub(super) fn set_oldest(&self, oldest: Option<Time>, now: Time) {
        let is_empty = self.taken.load(Ordering::Relaxed) == 0;
        let oldest = oldest.or((!is_empty).then_some(now));
        self.oldest_ns.store(oldest.map_or(0, Time::as_ns), Ordering::Relaxed);
    }
}

#[cfg(all(test, not(hsmux_loom)))]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time::from_ns(1).after(Duration::from_millis(ms))
    }

    #[test]
    fn no_more_are_answered_for_than_the_window_holds_until_some_are_durable() {
        let room = Room::new(3, Duration::from_millis(100));
        assert_eq!([(); 5].map(|()| room.take(at(0))), [true, true, true, false, false]);
        room.give_back(2);
        assert_eq!([(); 3].map(|()| room.take(at(0))), [true, true, false]);
    }

    #[test]
    fn none_are_answered_for_while_the_oldest_is_older_than_the_window() {
        let room = Room::new(10, Duration::from_millis(100));
        room.set_oldest(Some(at(5)), at(5));
        assert_eq!([at(5), at(104), at(105), at(900)].map(|now| room.take(now)), [true, true, false, false]);
        room.set_oldest(None, at(900));
        assert!(room.take(at(900)));
    }

    #[test]
    fn what_the_writer_has_not_seen_yet_has_an_age_too() {
        let room = Room::new(10, Duration::from_millis(100));
        assert_eq!(
            [at(1), at(50), at(100), at(101), at(500)].map(|now| room.take(now)),
            [true, true, true, false, false]
        );
        // It has taken them all, and they are durable.
        room.give_back(3);
        room.set_oldest(None, at(500));
        assert_eq!([at(700), at(799), at(800)].map(|now| room.take(now)), [true, true, false]);
        // All but one, which came after it had looked.
        room.give_back(1);
        room.set_oldest(None, at(790));
        assert_eq!([at(889), at(890)].map(|now| room.take(now)), [true, false]);
    }
}
