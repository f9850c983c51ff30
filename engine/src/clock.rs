//! The only reader of time. Everything that decides gets `now` passed in.

use std::time::{Duration, SystemTime};

use once_cell::sync::Lazy;
use quanta::Clock;

/// A moment, in nanoseconds since this process first read the clock, plus one: so 0 can mean "not yet".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Time(u64);

impl Time {
    pub(crate) const fn from_ns(ns: u64) -> Self {
        Self(ns)
    }

    pub(crate) const fn as_ns(self) -> u64 {
        self.0
    }

    /// Nanoseconds from `earlier` to this moment; 0 if `earlier` is later.
    pub(crate) const fn ns_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    pub(crate) const fn until(self, later: Self) -> Duration {
        Duration::from_nanos(later.0.saturating_sub(self.0))
    }

    /// This moment plus a duration; a sum that does not fit (584 years) is the end of time.
    pub(crate) fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// Reads the clock: 4 to 5 ns with an invariant TSC (`quanta`), 20 ns and more through the kernel's vDSO.
#[inline]
pub(crate) fn now() -> Time {
    let (clock, start) = &*ANCHOR;
    // Scaled from the raw counts at once: by way of `Instant` it would be a division and a multiplication more.
    Time(clock.delta_as_nanos(*start, clock.raw()) + 1)
}

/// The time of day, for what people and other programs read. It may jump: nothing is measured with it.
pub(crate) fn time_of_day() -> SystemTime {
    SystemTime::now()
}

static ANCHOR: Lazy<(Clock, u64)> = Lazy::new(|| {
    let clock = Clock::new();
    let start = clock.raw();
    (clock, start)
});

/// A duration in whole nanoseconds; longer than 584 years is cut to that.
pub(crate) fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_never_runs_backwards_and_never_overflows() {
        let (first, second) = (now(), now());
        assert!(first <= second);
        assert!(first.as_ns() > 0);
        assert_eq!(first.ns_since(second.after(Duration::from_nanos(1))), 0);
        assert_eq!(first.after(Duration::MAX), Time::from_ns(u64::MAX));
    }
}
