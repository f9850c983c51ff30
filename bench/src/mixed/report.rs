//! What a mixed load came to.

use std::fmt;

use super::caller::Caller;
use super::work::Work;
use crate::check::Software;

/// Counts of one kind of operation, or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests made.
    pub asked: u64,
    /// Requests that brought an output.
    pub answered: u64,
    /// Requests that brought an error.
    pub failed: u64,
    /// Outputs that other software has checked.
    pub checked: u64,
    /// Of those, how many it found wrong.
    pub wrong: u64,
}

/// What a mixed load came to.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// By kind of operation, in the order of [`Work::ALL`]; those never asked for are left out.
    pub works: Vec<(Work, Tally)>,
    /// Random outputs that began like another one.
    pub repeated: u64,
    /// Callers that panicked: their counts are lost.
    pub panicked: u64,
    /// What went wrong, the first few times.
    pub problems: Vec<String>,
}

/// Problems that a report tells; all are counted.
const PROBLEMS_MAX: usize = 8;

impl Tally {
    /// Requests that brought neither output nor error.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.asked.saturating_sub(self.answered + self.failed)
    }

    const fn add(&mut self, other: Self) {
        self.asked += other.asked;
        self.answered += other.answered;
        self.failed += other.failed;
        self.checked += other.checked;
        self.wrong += other.wrong;
    }
}

impl Report {
    /// Adds up the callers, after checking what they kept; `None` is one that panicked.
    pub(super) fn of(callers: Vec<Option<Caller>>, software: &Software) -> Self {
        let mut works = Work::ALL.map(|work| (work, Tally::default())).to_vec();
        let (mut random, mut panicked, mut problems) = (Vec::new(), 0, Vec::new());
        for caller in callers {
            let Some(mut caller) = caller else {
                panicked += 1;
                continue;
            };
            for done in std::mem::take(&mut caller.kept).iter().flatten() {
                caller.check(done, software);
            }
            works.iter_mut().zip(caller.tallies).for_each(|((_, sum), tally)| sum.add(tally));
            random.append(&mut caller.random);
            problems.append(&mut caller.problems);
        }
        problems.truncate(PROBLEMS_MAX);
        works.retain(|(_, tally)| tally.asked > 0);
        Self { works, repeated: repeated(random), panicked, problems }
    }

    /// All kinds together.
    #[must_use]
    pub fn total(&self) -> Tally {
        let mut total = Tally::default();
        self.works.iter().for_each(|(_, tally)| total.add(*tally));
        total
    }

    /// Nothing failed, was lost or wrong, and of every kind something was checked.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        let total = self.total();
        let unchecked = self.works.iter().any(|(_, tally)| tally.checked == 0);
        total.failed + total.lost() + total.wrong + self.repeated + self.panicked == 0 && !unchecked
    }
}

/// One line, then the problems.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.total();
        write!(
            f,
            "{} operations, {} errors, {} lost, {} outputs checked, {} wrong, {} random outputs repeated",
            total.asked,
            total.failed,
            total.lost(),
            total.checked,
            total.wrong,
            self.repeated
        )?;
        if self.panicked > 0 {
            write!(f, ", {} callers panicked", self.panicked)?;
        }
        self.problems.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

fn repeated(mut outputs: Vec<[u8; 16]>) -> u64 {
    let count = outputs.len();
    outputs.sort_unstable();
    outputs.dedup();
    (count - outputs.len()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(tally: Tally) -> Report {
        Report { works: vec![(Work::Random, tally)], repeated: 0, panicked: 0, problems: Vec::new() }
    }

    #[test]
    fn only_a_report_without_any_fault_is_clean() {
        let good = Tally { asked: 5, answered: 5, failed: 0, checked: 2, wrong: 0 };
        assert!(report(good).is_clean());
        assert!(!report(Tally { asked: 6, ..good }).is_clean(), "one is lost");
        assert!(!report(Tally { asked: 6, failed: 1, ..good }).is_clean());
        assert!(!report(Tally { wrong: 1, ..good }).is_clean());
        assert!(!report(Tally { checked: 0, ..good }).is_clean());
        assert!(!Report { repeated: 1, ..report(good) }.is_clean());
        assert!(!Report { panicked: 1, ..report(good) }.is_clean());
    }

    #[test]
    fn outputs_that_come_twice_are_counted() {
        assert_eq!(repeated(vec![[1; 16], [2; 16], [1; 16], [1; 16]]), 2);
    }
}
