//! Is one faster than the other? A call that needs evidence.
//!
//! [`Verdict::of`] compares rounds of two runs that know nothing of each other, [`Verdict::paired`] rounds that ran
//! side by side. Both estimate the ratio of the middles, with bounds that hold with a stated confidence, and call a
//! difference only if all of the bounds lie beyond the smallest difference that counts. So a thing against itself is
//! called different only if chance exceeds its bounds *and* that margin on top; what is too noisy or too short is
//! called no difference, and says so.
//!
//! # Method
//!
//! - The middle of a side is the mean of what is left of its logarithms after a fifth has been cut off at either end.
//!   A second that stalls does not move it. What becomes of such seconds is a question about latency: compare that,
//!   too.
//! - Its standard error comes from the bootstrap (Efron, Bootstrap methods: another look at the jackknife, Annals of
//!   Statistics 7, 1979): draw as many rounds with replacement, and see how the middle varies.
//! - A second is like the one before it, so a run of seconds knows less than as many independent ones. The error is
//!   widened by what that costs a series whose every value carries over a part r of the last one's deviation: its
//!   variance is (1 + r) / (1 - r) times as large. A drift looks like a large r, and makes the bounds wide.
//! - The bounds are so many errors away as Student's distribution says, with the freedom of the independent rounds
//!   that those are worth.
//!
//! Blocks of rounds instead of that factor (Politis and Romano, The stationary bootstrap, Journal of the American
//! Statistical Association 89, 1994) were tried, too, on 400 pairs of simulated runs of each kind; this method on
//! 2,000. Bounds of 99 % missed a true ratio of 1 so often in 1,000 (r is what carries over):
//!
//! | noise | rounds | rounds drawn singly, percentiles | blocks, percentiles | blocks, Student | this method |
//! |---|---|---|---|---|---|
//! | white | 20 | 10 | 8 | 5 | 10 |
//! | r = 0.5 | 20 | 128 | 92 | 40 | 18 |
//! | r = 0.5 | 60 | 142 | 32 | 25 | 14 |
//! | r = 0.8 | 60 | 362 | 118 | 65 | 22 |
//!
//! Half a minute of seconds is too short for blocks that are long enough. Without cutting, one second among 30 at
//! 40 % of the rate made the bounds ten times as wide. With seconds that deviate by 1 %, a true difference of 5 % was
//! found in 1,999 of 2,000 pairs of 20 rounds with white noise, and in all of 60 rounds with r = 0.5; of 30 of those,
//! in 97 %.
//!
//! # What it cannot see
//!
//! Two runs on different days differ in what none of their seconds shows: the placement of memory, the neighbours,
//! the clock of the CPU. The smallest difference that counts is there for that; interleaved rounds are better.

mod estimate;
mod student;

use std::fmt;

use crate::stats::Interval;
use estimate::Estimate;

/// Whether one side is faster than the other, and how surely.
///
/// It is shown as one sentence:
///
/// ```
/// use hsmux_bench::verdict::{Call, Settings, Verdict};
///
/// let before: Vec<f64> = (0..30).map(|second| 1000.0 + f64::from(second * 7 % 10)).collect();
/// let after: Vec<f64> = before.iter().map(|rate| rate * 1.05).collect();
/// let verdict = Verdict::of(&before, &after, &Settings::rates());
/// assert_eq!(verdict.call, Call::Faster);
/// assert!(verdict.to_string().starts_with("faster: +5.0 % operations per second (+4."));
/// let itself = Verdict::of(&before, &before, &Settings::rates());
/// assert!(itself.to_string().starts_with("no difference: +0.0 % "));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// What to say of *after*.
    pub call: Call,
    /// Why there is no difference to call; `None` if there is one.
    pub reason: Option<Reason>,
    /// *After* over *before*; `None` for too few rounds.
    pub ratio: Option<f64>,
    /// Where that ratio lies with the confidence of the settings; `None` for too few rounds.
    pub interval: Option<Interval>,
    /// Rounds that were compared, of *before* and *after*.
    pub rounds: [usize; 2],
    /// By which settings.
    pub settings: Settings,
}

/// What may be said of *after*, compared with *before*.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// It is faster, by more than counts.
    Faster,
    /// It is slower, by more than counts.
    Slower,
    /// Nothing shows that it is either.
    NoDifference,
}

/// Why no difference is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// There is none that counts: all of the interval is within the smallest difference that does.
    Alike,
    /// There may be one: the interval holds ratios that count and others that do not.
    TooNoisy,
    /// Fewer than [`ROUNDS_MIN`] rounds.
    TooFewRounds,
}

/// What a figure is: whether more of it is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    /// Operations per second: more is faster.
    Rate,
    /// A time, such as the 99th percentile of the latencies in a round: less is faster.
    Time,
}

/// What evidence a verdict needs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// What is compared.
    pub figure: Figure,
    /// How often the interval holds the true ratio: from 0 to below 1, at most 0.9999.
    ///
    /// Default 0.99. Together with the margin of `smallest` that keeps a gate quiet on a thing compared with
    /// itself; more asks for longer runs to find the same difference.
    pub confidence: f64,
    /// The smallest difference that counts, as a part of the smaller side.
    ///
    /// Default 0.02 of rates and 0.05 of times, a judgement: room for what two runs of the same program differ by without
    /// any of their rounds showing it, with a true difference of 5 % of rates well above. Measure a program against
    /// itself on the machine in question; where that differs by more, raise it. Who interleaves rounds may ask for
    /// less, down to 0.
    pub smallest: f64,
    /// How often rounds are drawn.
    ///
    /// Default 1,000: the error itself is then known to within about 2 %.
    pub draws: u32,
    /// Seed of the draws: the same rounds and seed give the same verdict.
    pub seed: u64,
}

/// Fewest rounds of either side. With seven pairs that all point in the same direction a sign test errs in 2 of
/// 128 cases: not even that is evidence at 99 %, with eight it is.
pub const ROUNDS_MIN: usize = 8;

/// Beyond this no run is long enough, and where the bounds lie depends on tails that no run has shown.
const CONFIDENCE_MAX: f64 = 0.9999;

impl Settings {
    /// The usual ones for operations per second.
    #[must_use]
    pub const fn rates() -> Self {
        Self { figure: Figure::Rate, confidence: 0.99, smallest: 0.02, draws: 1_000, seed: 1 }
    }

    /// The usual ones for times, such as a percentile of each round. Those vary more than rates, and a change of a
    /// few percent of a 99th percentile is of no account.
    #[must_use]
    pub const fn times() -> Self {
        Self { figure: Figure::Time, smallest: 0.05, ..Self::rates() }
    }

    fn confidence(&self) -> f64 {
        self.confidence.clamp(0.0, CONFIDENCE_MAX)
    }
}

impl Verdict {
    /// Of two runs that know nothing of each other: a figure for each of their rounds, or seconds, in order.
    ///
    /// The runs may differ in length. Values that are negative or no number are not rounds. A rate of 0 is one in
    /// which nothing got done; a time of 0 is none.
    #[must_use]
    pub fn of(before: &[f64], after: &[f64], settings: &Settings) -> Self {
        let rounds = |side: &[f64]| -> Vec<_> {
            side.iter().copied().filter(|&value| settings.figure.is_of_a_round(value)).collect()
        };
        let [before, after] = [before, after].map(rounds);
        let floor = floor(&before, &after);
        let logs = |side: Vec<f64>| -> Vec<_> { side.iter().map(|value| value.max(floor).ln()).collect() };
        let [before, after] = [before, after].map(logs);
        let rounds = [before.len(), after.len()];
        let estimate = (floor > 0.0 && enough(rounds)).then(|| Estimate::of(&before, &after, settings));
        Self::by(estimate, rounds, settings)
    }

    /// Of rounds that ran side by side: each with the figures of *before* and *after*, in order. What is the matter
    /// with a round befalls both and drops out of its ratio.
    ///
    /// A round with a value that [`of`](Self::of) would not take is left out.
    #[must_use]
    pub fn paired(rounds: &[(f64, f64)], settings: &Settings) -> Self {
        let is_round = |value| settings.figure.is_of_a_round(value);
        let (before, after): (Vec<_>, Vec<_>) =
            rounds.iter().copied().filter(|&(before, after)| is_round(before) && is_round(after)).unzip();
        let floor = floor(&before, &after);
        let ratios: Vec<_> = before
            .iter()
            .zip(&after)
            .map(|(before, after)| (after.max(floor) / before.max(floor)).ln())
            .collect();
        let rounds = [ratios.len(); 2];
        let estimate = (floor > 0.0 && enough(rounds)).then(|| Estimate::of_one(&ratios, settings));
        Self::by(estimate, rounds, settings)
    }

    fn by(estimate: Option<Estimate>, rounds: [usize; 2], settings: &Settings) -> Self {
        let settings = *settings;
        let interval = estimate.as_ref().map(|it| {
            let reach = it.error * student::bound(settings.confidence(), it.freedom);
            Interval { low: (it.middle - reach).exp(), high: (it.middle + reach).exp() }
        });
        let (call, reason) = interval.map_or((Call::NoDifference, Some(Reason::TooFewRounds)), |interval| {
            call(interval, settings.smallest.max(0.0), settings.figure)
        });
        Self { call, reason, ratio: estimate.map(|it| it.middle.exp()), interval, rounds, settings }
    }

    /// The smallest true difference that rounds like these would all but surely show, as a part; `None` for too few.
    #[must_use]
    pub fn resolution(&self) -> Option<f64> {
        let Interval { low, high } = self.interval?;
        // Half the interval lies between its middle and its bound, and by as much may the middle itself be off.
        Some((1.0 + self.settings.smallest.max(0.0)) * (high / low) - 1.0)
    }
}

impl Figure {
    fn is_of_a_round(self, value: f64) -> bool {
        let is_one = match self {
            Self::Rate => value >= 0.0,
            // A round in which nothing got done has no latency, and is shown as 0 in results.
            Self::Time => value > 0.0,
        };
        is_one && value.is_finite()
    }
}

fn enough(rounds: [usize; 2]) -> bool {
    rounds.iter().all(|&side| side >= ROUNDS_MIN)
}

/// What stands for 0, which has no logarithm: so far below the largest value that no true figure is confused with it.
/// 0 if there is no value above.
fn floor(before: &[f64], after: &[f64]) -> f64 {
    before.iter().chain(after).copied().fold(0.0, f64::max) * 1e-9
}

fn call(interval: Interval, smallest: f64, figure: Figure) -> (Call, Option<Reason>) {
    let counts = [1.0 / (1.0 + smallest), 1.0 + smallest];
    let (less, more) = match figure {
        Figure::Rate => (Call::Slower, Call::Faster),
        Figure::Time => (Call::Faster, Call::Slower),
    };
    if interval.low > counts[1] {
        (more, None)
    } else if interval.high < counts[0] {
        (less, None)
    } else if interval.low >= counts[0] && interval.high <= counts[1] {
        (Call::NoDifference, Some(Reason::Alike))
    } else {
        (Call::NoDifference, Some(Reason::TooNoisy))
    }
}

impl Call {
    /// The name in results and on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Faster => "faster",
            Self::Slower => "slower",
            Self::NoDifference => "no difference",
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [before, after] = self.rounds;
        let (Some(ratio), Some(Interval { low, high })) = (self.ratio, self.interval) else {
            let fewest = before.min(after);
            return write!(
                f,
                "no difference: too few rounds to tell ({fewest}, at least {ROUNDS_MIN} are needed)"
            );
        };
        let percent = |ratio: f64| (ratio - 1.0) * 100.0;
        let figure = match self.settings.figure {
            Figure::Rate => "operations per second",
            Figure::Time => "time",
        };
        write!(
            f,
            "{}: {:+.1} % {figure} ({:+.1} % to {:+.1} % with {} % confidence, {before} and {after} rounds)",
            self.call,
            percent(ratio),
            percent(low),
            percent(high),
            // Rounded, so that 0.99 is not shown with what is left in its last bit.
            (self.settings.confidence() * 1e6).round() / 1e4,
        )?;
        match (self.reason, self.resolution()) {
            (Some(Reason::TooNoisy), Some(resolution)) => {
                write!(f, "; too noisy to tell less than {:.1} %: more rounds may", resolution * 100.0)
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
