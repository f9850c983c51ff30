//! Whether the requests of a lane may be merged: not for a while after merging has failed again and again.

use std::time::Duration;

use crate::sync::plain::AtomicU64;
use std::sync::atomic::Ordering;

/// Failures in a row that demote a lane.
const FAILURES_MAX: u64 = 3;

/// How long a lane stays demoted: its requests are single calls meanwhile.
const DEMOTED: Duration = Duration::from_secs(60);

/// A lane's record. Sessions that serve the lane at the same time may each count or forget a failure too many, which
/// makes the demotion come a turn sooner or later. Relaxed throughout: it orders nothing.
#[derive(Debug, Default)]
pub(crate) struct Demotion {
    /// Failures since the last success.
    failures: AtomicU64,
    until_ns: AtomicU64,
}

impl Demotion {
    /// Whether requests may be merged at this time.
    pub(crate) fn may_merge(&self, now_ns: u64) -> bool {
        self.until_ns.load(Ordering::Relaxed) <= now_ns
    }

    /// A merged call has served its requests.
    pub(crate) fn succeeded(&self) {
        // A look first: a line that is only read stays in every core's cache.
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    /// A merged call has failed. True if that demotes the lane.
    #[expect(clippy::cast_possible_truncation, reason = "a minute in nanoseconds")]
    pub(crate) fn failed(&self, now_ns: u64) -> bool {
        if self.failures.fetch_add(1, Ordering::Relaxed) + 1 < FAILURES_MAX {
            return false;
        }
        self.failures.store(0, Ordering::Relaxed);
        self.until_ns.store(now_ns + DEMOTED.as_nanos() as u64, Ordering::Relaxed);
        true
    }
}

#[cfg(all(test, not(hsmux_loom)))]
mod tests {
    use super::*;

    const MINUTE_NS: u64 = 60_000_000_000;

    #[test]
    fn three_failures_in_a_row_demote_for_a_minute() {
        let demotion = Demotion::default();
        assert!(demotion.may_merge(0));
        assert!(!demotion.failed(1) && !demotion.failed(2) && demotion.may_merge(2));
        assert!(demotion.failed(3));
        assert!(!demotion.may_merge(3) && !demotion.may_merge(3 + MINUTE_NS - 1));
        assert!(demotion.may_merge(3 + MINUTE_NS));
    }

    #[test]
    fn a_success_in_between_forgets_the_failures_before_it() {
        let demotion = Demotion::default();
        for now in 0..10 {
            assert!(!demotion.failed(now) && !demotion.failed(now));
            demotion.succeeded();
        }
        assert!(demotion.may_merge(10));
    }
}
