//! Whether a run was faster or slower than an earlier one.

use std::io::{self, Write};
use std::path::Path;

use hsmux_bench::result::{Interval, LoadResult};
use hsmux_bench::verdict::{Call, Settings, Verdict};

use crate::exit::{Exit, Failure, Result};

/// What is to be said of a run.
pub(super) struct Verdicts {
    rate: Verdict,
    /// Of the 99th percentile of each second.
    p99: Verdict,
    /// What the earlier run was, if it was another load.
    other: Option<String>,
}

/// The results of an earlier run.
pub(super) fn read(path: &Path) -> Result<LoadResult> {
    LoadResult::read(path).map_err(|failure| Failure::new(Exit::Usage, failure.to_string()))
}

impl Verdicts {
    /// Of a run beside an earlier one.
    pub(super) fn of(earlier: &LoadResult, result: &LoadResult) -> Self {
        let rate = Verdict::of(&earlier.rounds, &result.rounds, &Settings::rates());
        let [before, after] = [earlier, result].map(p99_of_seconds);
        let was = (&earlier.title, &earlier.arrivals);
        let other = (was != (&result.title, &result.arrivals)).then(|| format!("{}, {}", was.0, was.1));
        Self { rate, p99: Verdict::of(&before, &after, &Settings::times()), other }
    }

    pub(super) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        if let Some(other) = &self.other {
            writeln!(out, "note: the earlier run was another load: {other}")?;
        }
        writeln!(out, "compared with the earlier run: {}", self.rate)?;
        writeln!(out, "its 99th percentiles: {}", self.p99)
    }

    /// # Errors
    /// It is slower.
    pub(super) fn end(&self) -> Result {
        let is_slower = [&self.rate, &self.p99].iter().any(|verdict| verdict.call == Call::Slower);
        if is_slower {
            Err(Failure::new(Exit::Slower, "slower than the run that it was compared with"))
        } else {
            Ok(())
        }
    }
}

/// Of each second of the phases that count.
fn p99_of_seconds(result: &LoadResult) -> Vec<f64> {
    let counts =
        |at: f64| result.phases.iter().any(|phase| phase.counted && phase.from_s <= at && at < phase.until_s);
    // What is left at the end is no second, and its percentile is that of few.
    let longest = result.series.iter().map(|second| second.seconds).fold(0.0, f64::max);
    let is_whole = |second: &&Interval| second.ops > 0 && second.seconds * 2.0 > longest;
    let seconds: Vec<_> =
        result.series.iter().filter(is_whole).filter(|second| counts(second.at_s)).collect();
    // As many as there are rounds: a first second that is cold is none.
    let seconds = seconds.iter().skip(seconds.len().saturating_sub(result.rounds.len()));
    seconds.map(|second| second.p99_ns as f64).collect()
}
