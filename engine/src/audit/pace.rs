//! When records are synchronised and checkpoints made. Pure: `now` is passed in.

use std::time::Duration;

use crate::clock::Time;

/// How much may be answered for and not yet be durable.
#[derive(Debug)]
pub(super) struct Window {
    records: u64,
    age: Duration,
    /// Answered for and not durable.
    open: u64,
    /// When the oldest of them was written.
    oldest: Option<Time>,
    /// What is being synchronised of them, and when the first after that was written.
    under_way: Option<(u64, Option<Time>)>,
}

impl Window {
    pub(super) const fn new(records: u64, age: Duration) -> Self {
        Self { records, age, open: 0, oldest: None, under_way: None }
    }

    /// How many more records may be answered for now.
    pub(super) fn room(&self, now: Time) -> u64 {
        let is_old = self.oldest.is_some_and(|oldest| oldest.until(now) >= self.age);
        if is_old { 0 } else { self.records - self.open }
    }

    pub(super) fn wrote(&mut self, records: u64, now: Time) {
        self.open += records;
        if let Some((_, first_after)) = &mut self.under_way {
            first_after.get_or_insert(now);
        }
        self.oldest.get_or_insert(now);
        debug_assert!(self.open <= self.records, "{} open of {}", self.open, self.records);
    }

    /// How long until what is open is to be synchronised: at half of either bound, so that nobody is held back while the
    /// disk takes less than the other half. None: nothing is open, or it is under way.
    pub(super) fn due_in(&self, now: Time) -> Option<Duration> {
        let due = self.oldest.filter(|_| self.under_way.is_none())?.after(self.age / 2);
        Some(if self.open * 2 >= self.records { Duration::ZERO } else { now.until(due) })
    }

    /// All that is open is being synchronised.
    pub(super) fn begin(&mut self) {
        self.under_way = Some((self.open, None));
    }

    /// What was under way is durable.
    pub(super) fn end(&mut self) {
        if let Some((records, first_after)) = self.under_way.take() {
            self.open -= records;
            self.oldest = first_after;
        }
    }

    /// Everything is durable.
    pub(super) fn close(&mut self) {
        *self = Self::new(self.records, self.age);
    }
}

/// When the next checkpoint is made: after so many records or so long after the first.
#[derive(Debug)]
pub(super) struct Period {
    records: u64,
    time: Duration,
    since: u64,
    first: Option<Time>,
}

impl Period {
    pub(super) const fn new(records: u64, time: Duration) -> Self {
        Self { records, time, since: 0, first: None }
    }

    /// Notes a record. One of a checkpoint needs none of its own, else there would be no end of them.
    pub(super) fn wrote(&mut self, is_checkpoint: bool, now: Time) {
        self.since += 1;
        if !is_checkpoint {
            self.first.get_or_insert(now);
        }
    }

    /// How long until a checkpoint is due; none while there is nothing new.
    pub(super) fn due_in(&self, now: Time) -> Option<Duration> {
        let due = self.first?.after(self.time);
        Some(if self.since >= self.records { Duration::ZERO } else { now.until(due) })
    }

    /// One is made of all records so far.
    pub(super) fn made(&mut self) {
        (self.since, self.first) = (0, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time::from_ns(1).after(Duration::from_millis(ms))
    }

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn no_more_records_than_the_window_are_answered_for_before_they_are_durable() {
        let mut window = Window::new(10, ms(100));
        assert_eq!((window.room(at(0)), window.due_in(at(0))), (10, None));
        window.wrote(4, at(0));
        assert_eq!((window.room(at(0)), window.due_in(at(10))), (6, Some(ms(40))));
        window.wrote(1, at(10));
        assert_eq!(window.due_in(at(10)), Some(Duration::ZERO), "half of it is used");
        window.begin();
        assert_eq!(window.due_in(at(10)), None, "it is under way");
        window.wrote(5, at(20));
        assert_eq!(window.room(at(20)), 0);
        window.end();
        assert_eq!(window.room(at(20)), 5);
    }

    #[test]
    fn nothing_is_answered_for_while_the_oldest_is_older_than_the_window() {
        let mut window = Window::new(10, ms(100));
        window.wrote(1, at(0));
        window.begin();
        window.wrote(1, at(60));
        assert_eq!((window.room(at(99)), window.room(at(100))), (8, 0));
        window.end();
        // The second is the oldest now.
        assert_eq!((window.room(at(159)), window.room(at(160))), (9, 0));
        assert_eq!(window.due_in(at(100)), Some(ms(10)));
        window.close();
        assert_eq!((window.room(at(500)), window.due_in(at(500))), (10, None));
    }

    #[test]
    fn a_checkpoint_is_due_by_count_or_by_time_and_not_for_the_record_of_one() {
        let mut period = Period::new(3, ms(50));
        period.wrote(true, at(0));
        assert_eq!(period.due_in(at(1_000)), None);
        period.wrote(false, at(10));
        assert_eq!(period.due_in(at(20)), Some(ms(40)));
        period.wrote(false, at(20));
        assert_eq!(period.due_in(at(20)), Some(Duration::ZERO));
        period.made();
        assert_eq!(period.due_in(at(20)), None);
    }
}
