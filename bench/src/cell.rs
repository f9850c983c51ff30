//! One cell of a measurement: a closed loop in a window of time.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::clock::{Instant, cpu_time};
use crate::failure::Failure;

/// When a cell counts: what ends before `from` warms up, and nothing begins after `until`.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    from: Instant,
    until: Instant,
}

/// What came out of a cell. An operation belongs to it if it ended in the window.
#[derive(Clone, Debug)]
pub struct Cell {
    /// Operations that succeeded.
    pub ops: u64,
    /// Operations that failed.
    pub errors: u64,
    /// Length of the window, in seconds.
    pub seconds: f64,
    /// Latencies of the operations that succeeded, in nanoseconds, as their callers saw them.
    pub latency: Histogram<u64>,
    /// CPU time of the whole process, warm-up included.
    pub cpu: Duration,
    /// Operations of any outcome, warm-up included: what `cpu` was spent on.
    pub all: u64,
    /// The first failure that was seen, if any.
    pub first_error: Option<Failure>,
    /// Operations of each caller that count; empty where callers cannot be told apart, or cells were added up.
    pub by_caller: Vec<u64>,
}

/// What a caller, or the thread that several share, has counted.
#[derive(Debug)]
pub(crate) struct Tally {
    window: Window,
    ops: u64,
    errors: u64,
    all: u64,
    latency: Histogram<u64>,
    first_error: Option<Failure>,
    by_caller: Vec<u64>,
}

/// Where a caller stands: its last operation ended, and so the next began, at this moment.
#[derive(Debug)]
pub(crate) struct Lap {
    start: Instant,
    failed_running: u32,
}

/// Failures in a row after which a caller gives up: a closed loop of refusals measures nothing.
const FAILED_RUNNING_MAX: u32 = 1_000;

impl Window {
    /// A window of this length that opens after a warm-up.
    #[must_use]
    pub fn open_after(warm_up: Duration, length: Duration) -> Self {
        let from = Instant::now() + warm_up;
        Self { from, until: from + length }
    }

    /// Whether operations still begin.
    pub(crate) fn is_open_at(&self, now: Instant) -> bool {
        now < self.until
    }

    fn seconds(&self) -> f64 {
        (self.until - self.from).as_secs_f64()
    }
}

impl Tally {
    pub(crate) fn new(window: Window) -> Self {
        Self {
            window,
            ops: 0,
            errors: 0,
            all: 0,
            latency: histogram(),
            first_error: None,
            by_caller: Vec::new(),
        }
    }

    /// Counts `count` operations that a caller ended together just now; whether it goes on.
    ///
    /// The one clock read of an operation is here: an operation begins when the one before it ends.
    pub(crate) fn count(
        &mut self,
        lap: &mut Lap,
        count: u64,
        failures: impl Iterator<Item = Failure>,
    ) -> bool {
        let now = Instant::now();
        let start = std::mem::replace(&mut lap.start, now);
        self.count_since(start, now, lap, count, failures)
    }

    /// As [`Tally::count`], for operations that began at a moment of their own and ended `now`.
    pub(crate) fn count_since(
        &mut self,
        start: Instant,
        now: Instant,
        lap: &mut Lap,
        count: u64,
        failures: impl Iterator<Item = Failure>,
    ) -> bool {
        let latency = now - start;
        let mut failed = 0;
        for error in failures {
            failed += 1;
            self.first_error.get_or_insert(error);
        }
        lap.failed_running = if failed == 0 { 0 } else { lap.failed_running.saturating_add(1) };
        self.all += count;
        if now >= self.window.from && now < self.window.until {
            self.ops += count - failed;
            self.errors += failed;
            let ns = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
            self.latency.saturating_record_n(ns, count - failed);
        }
        now < self.window.until && lap.failed_running < FAILED_RUNNING_MAX
    }

    /// So many of the operations that count were one caller's.
    pub(crate) fn of_caller(&mut self, ops: u64) {
        self.by_caller.push(ops);
    }

    /// Operations that count.
    pub(crate) const fn ops(&self) -> u64 {
        self.ops
    }

    fn add(&mut self, mut other: Self) {
        self.by_caller.append(&mut other.by_caller);
        self.ops += other.ops;
        self.errors += other.errors;
        self.all += other.all;
        add(&mut self.latency, &other.latency);
        self.first_error = self.first_error.take().or(other.first_error);
    }
}

impl Lap {
    pub(crate) fn start() -> Self {
        Self { start: Instant::now(), failed_running: 0 }
    }
}

impl Cell {
    /// A cell in which nothing has happened yet.
    #[must_use]
    pub fn empty() -> Self {
        let (cpu, latency) = (Duration::ZERO, histogram());
        let (first_error, by_caller) = (None, Vec::new());
        Self { ops: 0, errors: 0, seconds: 0.0, latency, cpu, all: 0, first_error, by_caller }
    }

    /// Runs callers, who return what they counted, and takes the CPU time that it needed.
    pub(crate) fn measure(window: Window, run: impl FnOnce() -> Vec<Tally>) -> Self {
        let before = cpu_time();
        let tallies = run();
        let cpu = cpu_time().saturating_sub(before);
        let mut sum = Tally::new(window);
        tallies.into_iter().for_each(|tally| sum.add(tally));
        let Tally { ops, errors, all, latency, first_error, by_caller, .. } = sum;
        Self { ops, errors, seconds: window.seconds(), latency, cpu, all, first_error, by_caller }
    }

    /// Adds another cell of the same kind.
    pub fn add(&mut self, other: &Self) {
        self.ops += other.ops;
        self.errors += other.errors;
        self.seconds += other.seconds;
        add(&mut self.latency, &other.latency);
        self.cpu += other.cpu;
        self.all += other.all;
        self.first_error = self.first_error.take().or_else(|| other.first_error.clone());
        // Which caller of one was which of the other, nobody knows.
        self.by_caller.clear();
    }

    /// What the caller that got least has of the mean of all; `None` if there are not two that can be told apart.
    #[must_use]
    pub fn smallest_share(&self) -> Option<f64> {
        let least = self.by_caller.iter().min().filter(|_| self.by_caller.len() > 1)?;
        let mean = self.by_caller.iter().sum::<u64>() as f64 / self.by_caller.len() as f64;
        (mean > 0.0).then(|| *least as f64 / mean)
    }

    /// Operations that succeeded, per second.
    #[must_use]
    pub fn ops_per_s(&self) -> f64 {
        if self.seconds > 0.0 { self.ops as f64 / self.seconds } else { 0.0 }
    }

    /// CPU time of the whole process per operation, in nanoseconds.
    #[must_use]
    pub fn cpu_ns_per_op(&self) -> f64 {
        self.cpu.as_nanos() as f64 / self.all.max(1) as f64
    }
}

/// From 1 ns to 137 s, two significant digits: what the engine's own histograms hold.
#[expect(clippy::expect_used, reason = "constant bounds; every test would meet a mistake")]
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 1 << 37, 2).expect("bounds are valid")
}

#[expect(clippy::expect_used, reason = "histograms of equal bounds")]
pub(crate) fn add(sum: &mut Histogram<u64>, other: &Histogram<u64>) {
    sum.add(other).expect("both have the bounds of `histogram`");
}

#[cfg(test)]
mod tests {
    use std::iter;

    use super::*;

    #[test]
    fn what_ends_in_the_warm_up_is_not_counted() {
        let mut tally = Tally::new(Window::open_after(Duration::from_secs(3600), Duration::from_secs(1)));
        assert!(tally.count(&mut Lap::start(), 1, iter::empty()));
        assert_eq!((tally.ops, tally.all, tally.latency.len()), (0, 1, 0));
    }

    #[test]
    fn a_caller_stops_when_the_window_has_closed() {
        let mut tally = Tally::new(Window::open_after(Duration::ZERO, Duration::ZERO));
        assert!(!tally.count(&mut Lap::start(), 1, iter::empty()));
        assert_eq!(tally.ops, 0);
    }

    #[test]
    fn operations_that_end_together_share_their_latency() {
        let mut tally = Tally::new(Window::open_after(Duration::ZERO, Duration::from_secs(3600)));
        assert!(tally.count(&mut Lap::start(), 64, iter::empty()));
        assert_eq!((tally.ops, tally.latency.len()), (64, 64));
    }

    #[test]
    fn a_cell_adds_up() {
        let window = Window::open_after(Duration::ZERO, Duration::from_secs(2));
        let tally = || {
            let mut tally = Tally::new(window);
            tally.count(&mut Lap::start(), 10, iter::empty());
            tally
        };
        let mut cell = Cell::measure(window, || vec![tally(), tally()]);
        cell.add(&cell.clone());
        assert_eq!((cell.ops, cell.all, cell.latency.len()), (40, 40, 40));
        assert!((cell.ops_per_s() - 10.0).abs() < 1e-9);
    }
    #[test]
    fn the_smallest_share_is_of_callers_that_can_be_told_apart() {
        let mut cell = Cell { by_caller: vec![80, 100, 120], ..Cell::empty() };
        assert_eq!(cell.smallest_share(), Some(0.8));
        cell.add(&cell.clone());
        assert_eq!(cell.smallest_share(), None);
        assert_eq!(Cell { by_caller: vec![7], ..Cell::empty() }.smallest_share(), None);
    }
}
