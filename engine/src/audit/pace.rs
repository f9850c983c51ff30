//! When records are synchronised and checkpoints made. Pure: `now` is passed in.

use std::time::Duration;

use crate::clock::Time;

/// When what was answered for and is not durable is synchronised.
#[derive(Debug)]
pub(super) struct Window {
    records: u64,
    age: Duration,
    /// Written, or about to be, and not durable.
    open: u64,
    /// When the oldest of them was answered for.
    oldest: Option<Time>,
    /// What is being synchronised of them, and when the first after that was answered for.
    under_way: Option<(u64, Option<Time>)>,
}

impl Window {
    pub(super) const fn new(records: u64, age: Duration) -> Self {
        Self { records, age, open: 0, oldest: None, under_way: None }
    }

    /// So many more are written, of which the first was answered for then.
    pub(super) fn wrote(&mut self, records: u64, first: Time) {
        if records == 0 {
            return;
        }
        self.open += records;
        if let Some((_, first_after)) = &mut self.under_way {
            first_after.get_or_insert(first);
        }
        self.oldest.get_or_insert(first);
    }

    /// How many are not durable.
    pub(super) const fn open(&self) -> u64 {
        self.open
    }

    /// When the oldest was answered for that is not durable.
    pub(super) const fn oldest(&self) -> Option<Time> {
        self.oldest
    }

    /// How long until what is open is to be synchronised: at half of either bound, so that nobody is held back while the
    /// disk takes less than the other half. None: nothing is open, or it is under way.
    pub(super) fn due_in(&self, now: Time) -> Option<Duration> {
        let due = self.oldest.filter(|_| self.under_way.is_none())?.after(self.age / 2);
        Some(if self.open * 2 >= self.records { Duration::ZERO } else { now.until(due) })
    }

    /// How long records may gather before they are written.
    pub(super) fn gather_time(&self) -> Duration {
        (self.age / 8).min(GATHER_MAX)
    }

    /// All that is open is being synchronised.
    pub(super) const fn begin(&mut self) {
        self.under_way = Some((self.open, None));
    }

    /// What was under way is durable; how many that were.
    pub(super) fn end(&mut self) -> u64 {
        let Some((records, first_after)) = self.under_way.take() else { return 0 };
        self.open -= records;
        self.oldest = first_after;
        records
    }

    /// Everything is durable; how many that were.
    pub(super) const fn close(&mut self) -> u64 {
        let open = self.open;
        *self = Self::new(self.records, self.age);
        open
    }
}

/// How long records gather at most before they are written, and so how old those may be that a kill of the process takes. A
/// writer that is woken for each costs an operation as much as the record itself, and each write as much as ten records: with
/// 18 000 records a second the log's threads took 5.4 us for each when it wrote every millisecond (half of that in `write`, of which
/// ext4 spends a third on clearing new pages), and 2.3 us now.
const GATHER_MAX: Duration = Duration::from_millis(5);

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
    fn what_is_open_is_synchronised_when_half_of_the_window_is_used() {
        let mut window = Window::new(10, ms(100));
        assert_eq!(window.due_in(at(0)), None);
        window.wrote(0, at(0));
        assert_eq!(window.due_in(at(0)), None, "nothing was written");
        window.wrote(4, at(0));
        assert_eq!(window.due_in(at(10)), Some(ms(40)));
        window.wrote(1, at(10));
        assert_eq!(window.due_in(at(10)), Some(Duration::ZERO), "half of it is used");
        window.begin();
        assert_eq!(window.due_in(at(10)), None, "it is under way");
        window.wrote(2, at(20));
        assert_eq!(window.end(), 5);
        assert_eq!((window.due_in(at(20)), window.close()), (Some(ms(50)), 2));
    }

    #[test]
    fn the_age_of_a_window_is_that_of_the_oldest_record_that_is_not_durable() {
        let mut window = Window::new(10, ms(100));
        window.wrote(1, at(0));
        window.begin();
        window.wrote(1, at(60));
        window.wrote(1, at(70));
        assert_eq!(window.oldest(), Some(at(0)));
        window.end();
        assert_eq!((window.oldest(), window.due_in(at(100))), (Some(at(60)), Some(ms(10))));
        window.close();
        assert_eq!((window.oldest(), window.due_in(at(500))), (None, None));
    }

    #[test]
    fn records_gather_for_a_small_part_of_a_window_and_never_longer_than_five_milliseconds() {
        assert_eq!(Window::new(10, ms(100)).gather_time(), ms(5));
        assert_eq!(Window::new(10, ms(4)).gather_time(), Duration::from_micros(500));
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
