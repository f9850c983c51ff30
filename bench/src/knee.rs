//! The search for the highest rate that meets a latency objective: the knee of the throughput-latency curve.
//!
//! [`Search`] decides which rate is measured next and what came out; whoever drives it measures. The rate doubles
//! until the objective is missed, then the bracket is halved until its ends are 2 % apart. One measurement decides
//! where to look next, since a wrong turn only costs time; what is told in the end has been measured until one answer
//! is three ahead. If that turns an end round, the search goes on from there.
//!
//! So a stall that spoils a measurement now and then moves nothing. By the same rule the search does not see what
//! most measurements do not: whether a stall every minute breaks the objective in the long run shows in a longer run
//! at the rate that was found.
//!
//! Of a hundred searches each on simulated queues with one, two and eight servers that take a millisecond, and an
//! objective of ten on the 99th percentile, nine in ten came within 3 % of the true knee with even service times, and
//! within 6 % with exponential ones, whose latencies rise more slowly; the medians within 2 %.

mod slo;

use std::fmt;
use std::time::Duration;

use crate::arrivals::Rate;

pub use slo::{Percentile, Slo};

/// Decides which rate to measure next. It knows no clock: time is what its steps take.
///
/// ```
/// use hsmux_bench::knee::{Limits, Point, Search, Step};
///
/// let mut search = Search::new("p99=5ms".parse()?, Limits::default());
/// let knee = loop {
///     match search.next() {
///         Step::Measure { per_s, .. } => search.measured(measure(per_s)),
///         Step::Done(knee) => break knee,
///     }
/// };
/// assert!(knee.low.is_some_and(|per_s| (980.0..=1000.0).contains(&per_s)));
///
/// /// A device that does 1,000 in a second, each within 1 ms, and no more.
/// fn measure(per_s: f64) -> Point {
///     let ns = if per_s <= 1000.0 { 1_000_000 } else { 500_000_000 };
///     let ops_per_s = per_s.min(1000.0);
///     Point { asked_per_s: per_s, ops_per_s, ops: 2_000, errors: 0, kept_up: true, latencies_ns: [ns; 5] }
/// }
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Debug)]
pub struct Search {
    slo: Slo,
    limits: Limits,
    /// By rate.
    rungs: Vec<Rung>,
    /// By rate; of the same rate in order of time.
    curve: Vec<Judged>,
    spent: Duration,
    /// Whether a measurement was cut short of what the objective needs.
    short: bool,
}

/// Between which rates to search, and for how long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// The first rate. Default 100/s; a good guess saves doublings.
    pub from: Rate,
    /// The lowest rate. Default 1/s.
    pub least: Rate,
    /// The highest rate. Default 1M/s: what one machine asks.
    pub most: Rate,
    /// Shortest time at a rate. Default 2 s.
    pub measure: Duration,
    /// Longest time at a rate. Default 20 s; high percentiles at low rates need longer, and the result says so.
    pub measure_max: Duration,
    /// Time for all measurements together. Default 10 min: a device that does 1,000 in a second needs a quarter of it
    /// to four fifths, a faster one less, where the objective is on the 99th percentile.
    pub total: Duration,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Measure at this rate for so long, from an idle device on: what is left of the last measurement must be done
    /// with before, and a warm-up does not count.
    Measure {
        /// Requests per second.
        per_s: f64,
        /// How long.
        lasts: Duration,
    },
    /// The search is over.
    Done(Knee),
}

/// What was measured at a rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// The rate asked.
    pub asked_per_s: f64,
    /// Operations that succeeded, per second.
    pub ops_per_s: f64,
    /// Operations that succeeded.
    pub ops: u64,
    /// Operations that failed.
    pub errors: u64,
    /// Whether the harness itself began every request on time. If not, the point says nothing good of the device, and
    /// nothing bad either.
    pub kept_up: bool,
    /// Latencies of what succeeded, from the intended start, in nanoseconds: in the order of [`Percentile::ALL`].
    pub latencies_ns: [u64; Percentile::ALL.len()],
}

/// A point of the curve, judged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judged {
    /// What was measured.
    pub point: Point,
    /// Whether it met the objective, by itself.
    pub meets: bool,
}

/// What the search has found. It is shown as one sentence.
#[derive(Clone, Debug, PartialEq)]
pub struct Knee {
    /// The objective.
    pub slo: Slo,
    /// The highest rate that meets it, below all that do not: the answer. `None` if none was found.
    pub low: Option<f64>,
    /// The lowest rate that does not. `None` if none was found.
    pub high: Option<f64>,
    /// Why the search has ended.
    pub end: End,
    /// Whether a measurement was shorter than the objective needs, for want of time.
    pub short: bool,
    /// Every measurement, in order of rate.
    pub curve: Vec<Judged>,
}

/// Why a search has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The knee is between two rates at most 2 % apart.
    Found,
    /// Time was used up before.
    OutOfTime,
    /// Somebody stopped the search before.
    Stopped,
    /// The highest rate of the limits meets the objective: the knee is above.
    AboveLimits,
    /// The lowest rate of the limits misses the objective: the knee is below, if there is one.
    BelowLimits,
    /// What lies above is more than the harness can ask: the knee of the device may be higher.
    Harness,
}

/// A rate, and how its measurements came out.
#[derive(Clone, Copy, Debug)]
struct Rung {
    per_s: f64,
    met: u32,
    missed: u32,
    /// How many of those missed because of the harness.
    not_asked: u32,
}

/// By how much the rate goes up or down while the knee lies on one side of all rates tried.
const GROWTH: f64 = 2.0;

/// How far apart the ends may be in the end. Less is lost in the noise of a few seconds.
const BRACKET: f64 = 1.02;

/// How far apart the ends are when measurements begin to last as long as the objective needs. Before, the next rate
/// is so far off that a short look will mostly do.
const CLOSE: f64 = 1.2;

/// By how many one answer must be ahead at an end. Where one measurement in five is spoilt, it errs in one of
/// 1 + (0.8 / 0.2)^3 = 65 cases.
const AHEAD: u32 = 3;

/// After so many the majority decides: right at the knee both answers are as good. Odd, so there is one.
const VOTES_MAX: u32 = 7;

impl Default for Limits {
    fn default() -> Self {
        let rate = |per_s| Rate::per_second(per_s).unwrap_or(Rate::MAX);
        Self {
            from: rate(100.0),
            least: rate(1.0),
            most: rate(1e6),
            measure: Duration::from_secs(2),
            measure_max: Duration::from_secs(20),
            total: Duration::from_secs(600),
        }
    }
}

impl Search {
    /// A search that has measured nothing yet. A first rate outside of the limits is moved to the nearer one.
    #[must_use]
    pub const fn new(slo: Slo, limits: Limits) -> Self {
        Self { slo, limits, rungs: Vec::new(), curve: Vec::new(), spent: Duration::ZERO, short: false }
    }

    /// Takes what was measured for the step that [`next`](Self::next) asks for. After the end it does nothing.
    pub fn measured(&mut self, point: Point) {
        let Step::Measure { per_s, lasts } = self.next() else { return };
        self.short |= self.precise() && lasts < self.slo.lasts(per_s);
        self.spent = self.spent.saturating_add(lasts);
        let meets = point.kept_up && self.slo.is_met(&point);
        let place = self.rungs.partition_point(|rung| rung.per_s < per_s);
        if self.rungs.get(place).is_none_or(|rung| rung.per_s > per_s) {
            self.rungs.insert(place, Rung { per_s, met: 0, missed: 0, not_asked: 0 });
        }
        let rung = &mut self.rungs[place];
        rung.met += u32::from(meets);
        rung.missed += u32::from(!meets);
        rung.not_asked += u32::from(!point.kept_up);
        let place = self.curve.partition_point(|judged| judged.point.asked_per_s <= point.asked_per_s);
        self.curve.insert(place, Judged { point, meets });
    }

    /// The measurement that was taken last took so much longer than was asked, for what was left of it: that is time spent, too.
    pub fn took_longer(&mut self, by: Duration) {
        self.spent = self.spent.saturating_add(by);
    }

    /// What is known so far, of a search that somebody has stopped.
    #[must_use]
    pub fn stopped(&self) -> Knee {
        self.knee(End::Stopped)
    }

    /// What to do next: the same until something has been measured.
    #[must_use]
    pub fn next(&self) -> Step {
        match self.aim() {
            Ok(per_s) => {
                let lasts = self.lasts(per_s);
                if self.spent.saturating_add(lasts) > self.limits.total {
                    Step::Done(self.knee(End::OutOfTime))
                } else {
                    Step::Measure { per_s, lasts }
                }
            }
            Err(end) => Step::Done(self.knee(end)),
        }
    }

    /// The next rate, or why there is none.
    fn aim(&self) -> Result<f64, End> {
        if let Some(rung) = self.rungs.iter().find(|rung| rung.met == rung.missed) {
            return Ok(rung.per_s);
        }
        let (least, most) =
            (self.limits.least.per_s(), self.limits.most.per_s().max(self.limits.least.per_s()));
        match self.bracket() {
            (None, None) => Ok(self.limits.from.per_s().clamp(least, most)),
            (Some(low), None) if low.per_s < most => Ok((low.per_s * GROWTH).min(most)),
            (None, Some(high)) if high.per_s > least => Ok((high.per_s / GROWTH).max(least)),
            (Some(low), Some(high)) if high.per_s > low.per_s * BRACKET => {
                Ok((low.per_s * high.per_s).sqrt())
            }
            // The upper end first: a spoilt measurement is more often a miss than a hit.
            (_, Some(high)) if !high.is_settled() => Ok(high.per_s),
            (Some(low), _) if !low.is_settled() => Ok(low.per_s),
            (Some(_), None) => Err(End::AboveLimits),
            (_, Some(high)) if high.not_asked * 2 > high.missed => Err(End::Harness),
            (None, Some(_)) => Err(End::BelowLimits),
            (Some(_), Some(_)) => Err(End::Found),
        }
    }

    /// The highest rate that meets the objective below the lowest that does not, and that.
    fn bracket(&self) -> (Option<&Rung>, Option<&Rung>) {
        let high = self.rungs.iter().position(|rung| rung.missed > rung.met);
        let below = &self.rungs[..high.unwrap_or(self.rungs.len())];
        (below.iter().rfind(|rung| rung.met > rung.missed), high.map(|high| &self.rungs[high]))
    }

    /// Whether a measurement has to tell rates apart that are alike, or decides the result by itself.
    fn precise(&self) -> bool {
        let least = self.limits.least.per_s();
        match self.bracket() {
            (Some(low), Some(high)) => high.per_s <= low.per_s * CLOSE,
            (None, Some(high)) => high.per_s <= least,
            (low, None) => low.is_some_and(|low| low.per_s >= self.limits.most.per_s()),
        }
    }

    /// How long to measure at a rate: as long as the objective needs, or just a look while the ends are far apart.
    fn lasts(&self, per_s: f64) -> Duration {
        let needed = if self.precise() { self.slo.lasts(per_s) } else { Duration::ZERO };
        let Limits { measure, measure_max, total, .. } = self.limits;
        needed.min(measure_max).max(measure).min(total)
    }

    fn knee(&self, end: End) -> Knee {
        let (low, high) = self.bracket();
        Knee {
            slo: self.slo.clone(),
            low: low.map(|rung| rung.per_s),
            high: high.map(|rung| rung.per_s),
            end,
            short: self.short,
            curve: self.curve.clone(),
        }
    }
}

impl Rung {
    const fn is_settled(&self) -> bool {
        self.met.abs_diff(self.missed) >= AHEAD || self.met + self.missed >= VOTES_MAX
    }
}

impl fmt::Display for Knee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slo = &self.slo;
        match (self.low, self.high) {
            (Some(low), Some(high)) => write!(f, "{} meets {slo}, {} does not", PerS(low), PerS(high))?,
            (Some(low), None) => {
                write!(f, "{} meets {slo}, and no higher rate was seen to miss it", PerS(low))?
            }
            (None, Some(high)) => {
                write!(f, "{} does not meet {slo}, and no lower rate was seen to", PerS(high))?
            }
            (None, None) => write!(f, "nothing is known of {slo}")?,
        }
        f.write_str(match self.end {
            End::Found => "",
            End::OutOfTime => "; time was used up before the knee was found",
            End::Stopped => "; the search was stopped before the knee was found",
            End::AboveLimits => "; that is the highest rate of the search, the knee is above",
            End::BelowLimits => "; that is the lowest rate of the search, the knee is below if there is one",
            End::Harness => "; the harness cannot ask for more, the device may do it",
        })?;
        if self.short { f.write_str("; measurements were shorter than the objective needs") } else { Ok(()) }
    }
}

/// A rate as it is told: to as many digits as the bracket is worth.
struct PerS(f64);

impl fmt::Display for PerS {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = if self.0 < 10.0 { 2 } else { usize::from(self.0 < 100.0) };
        write!(f, "{:.decimals$}/s", self.0)
    }
}

#[cfg(test)]
mod tests;
