//! What came of a run, in numbers.

use std::collections::BTreeMap;
use std::time::Duration;

/// Records that succeeded, and those that failed by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    succeeded: u64,
    failed: BTreeMap<String, u64>,
}

impl Tally {
    pub(super) fn succeeded(&mut self) {
        self.succeeded += 1;
    }

    pub(super) fn failed(&mut self, kind: String) {
        *self.failed.entry(kind).or_default() += 1;
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.succeeded += other.succeeded;
        for (kind, count) in &other.failed {
            *self.failed.entry(kind.clone()).or_default() += count;
        }
    }

    /// Of all kinds.
    pub(super) fn failures(&self) -> u64 {
        self.failed.values().sum()
    }

    /// Records that have their line of output.
    pub(super) fn records(&self) -> u64 {
        self.succeeded + self.failures()
    }

    /// One line for people.
    pub(super) fn summary(&self, elapsed: Duration) -> String {
        let kinds: Vec<_> = self.failed.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        let kinds = if kinds.is_empty() { String::new() } else { format!(" ({})", kinds.join(", ")) };
        let seconds = elapsed.as_secs_f64();
        let rate = if seconds > 0.0 { self.records() as f64 / seconds } else { 0.0 };
        let (records, failures) = (self.records(), self.failures());
        format!("{records} records, {failures} failed{kinds}, {rate:.0} records/s, {seconds:.2} s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_names_failures_by_kind() {
        let mut tally = Tally::default();
        assert_eq!(tally.summary(Duration::ZERO), "0 records, 0 failed, 0 records/s, 0.00 s");
        tally.succeeded();
        tally.failed("LineTooLong".to_owned());
        let mut both = tally.clone();
        tally.failed("InvalidRecord".to_owned());
        both.add(&tally);
        assert_eq!(
            both.summary(Duration::from_secs(2)),
            "5 records, 3 failed (InvalidRecord 1, LineTooLong 2), 2 records/s, 2.00 s"
        );
    }
}
