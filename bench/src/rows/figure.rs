//! Figures, and how they come out of a report.

use std::fmt;

use serde_json::Value;

use crate::baseline::BaselineName;
use crate::compare::{Figures, Round};
use crate::stats::{Interval, median, median_interval};

/// What is wanted, and how much of it.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    /// What.
    pub what: What,
    /// How much.
    pub asked: Asked,
}

/// A figure that every round of a comparison has. The baseline is the first that was named unless it says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Rate over the best thread count of a baseline.
    Ratio(BaselineName),
    /// Wall time of an operation above the baseline with as many threads as callers, in nanoseconds.
    Over,
    /// CPU time of an operation above it, in nanoseconds.
    OverCpu,
    /// CPU time of all threads of the process per operation, in nanoseconds.
    Cpu,
    /// Operations per second.
    Rate,
    /// p99 over that of a queue in which all callers take turns on two threads of the baseline: half as many times
    /// its p99 at two threads as there are callers.
    Tail,
    /// What the caller that got least has of the mean.
    Share,
    /// Median of the wait in the queue over the median time on the token.
    QueueMedian,
    /// 99th percentile of the wait over the median time on the token.
    QueueTail,
    /// The longest latency over the median one.
    Longest,
    /// PKCS#11 calls per operation.
    Calls,
    /// One that no report has: the row says itself what it is.
    Other,
}

/// How much of a figure is asked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Asked {
    /// At least.
    AtLeast(f64),
    /// At most.
    AtMost(f64),
    /// Nothing: it is to be told.
    Told,
}

/// A figure that was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measurement {
    /// The median over the rounds.
    pub median: f64,
    /// Where that lies with 90 % confidence; none for fewer than five rounds.
    pub interval: Option<Interval>,
}

/// A baseline of a report.
struct Against {
    callers: usize,
    best: usize,
    counts: Vec<usize>,
    rounds: Vec<Round>,
}

const NOT_THERE: &str = "not in the report";

impl Figure {
    /// At least so much.
    #[must_use]
    pub const fn at_least(what: What, least: f64) -> Self {
        Self { what, asked: Asked::AtLeast(least) }
    }

    /// At most so much.
    #[must_use]
    pub const fn at_most(what: What, most: f64) -> Self {
        Self { what, asked: Asked::AtMost(most) }
    }

    /// To be told.
    #[must_use]
    pub const fn told(what: What) -> Self {
        Self { what, asked: Asked::Told }
    }

    /// The figure out of a report, as `hsmux load --json` writes it.
    ///
    /// # Errors
    /// A text for the table: the figure is not in there, or a side got nothing done in a round.
    pub fn of(&self, report: &Value) -> Result<Measurement, &'static str> {
        let values = || {
            let against = Against::in_report(report, self.what)?;
            against.rounds.iter().map(|round| against.value(self.what, round)).collect::<Option<Vec<_>>>()
        };
        let values = values().ok_or(NOT_THERE)?;
        if !values.iter().all(|value| value.is_finite()) {
            return Err("a side got nothing done in a round");
        }
        Measurement::of(&values).ok_or(NOT_THERE)
    }
}

impl Measurement {
    /// Of the rounds' values; `None` if there are none.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        median(values).map(|median| Self { median, interval: median_interval(values) })
    }
}

impl Against {
    fn in_report(report: &Value, what: What) -> Option<Self> {
        let wanted = |baseline: &&Value| match what {
            What::Ratio(name) => baseline["name"] == name.as_str(),
            _ => true,
        };
        let baseline = report["baselines"].as_array()?.iter().find(wanted)?;
        let counts: Vec<usize> = serde_json::from_value(baseline["counts"].clone()).ok()?;
        let best = counts.iter().position(|count| baseline["threads"] == *count)?;
        Some(Self {
            callers: usize::try_from(report["callers"].as_u64()?).ok()?,
            best,
            counts,
            rounds: serde_json::from_value(baseline["rounds"].clone()).ok()?,
        })
    }

    fn value(&self, what: What, round: &Round) -> Option<f64> {
        let engine = &round.engine;
        let callers = self.callers as f64;
        let with = |threads: usize| -> Option<&Figures> {
            round.baseline.get(self.counts.iter().position(|&count| count == threads)?)
        };
        let queued = |place: usize| Some(engine.queued_us?[place] / engine.token_us?);
        let [p50, p99, longest] = engine.latency_us;
        Some(match what {
            What::Ratio(_) => engine.ops_per_s / round.baseline.get(self.best)?.ops_per_s,
            What::Over => callers * 1e9 / engine.ops_per_s - callers * 1e9 / with(self.callers)?.ops_per_s,
            What::OverCpu => engine.cpu_ns - with(self.callers)?.cpu_ns,
            What::Cpu => engine.cpu_ns,
            What::Rate => engine.ops_per_s,
            What::Tail => p99 / (callers / 2.0 * with(2)?.latency_us[1]),
            What::Share => engine.smallest_share?,
            What::QueueMedian => queued(0)?,
            What::QueueTail => queued(1)?,
            What::Longest => longest / p50,
            What::Calls => engine.calls_per_op?,
            What::Other => return None,
        })
    }
}

impl Asked {
    /// Whether a figure is as asked; `None` if nothing is asked of it.
    #[must_use]
    pub fn is_met_by(self, figure: f64) -> Option<bool> {
        match self {
            Self::AtLeast(least) => Some(figure >= least),
            Self::AtMost(most) => Some(figure <= most),
            Self::Told => None,
        }
    }
}

impl What {
    /// Writes a value with as many digits as mean something.
    #[must_use]
    pub fn show(self, value: f64) -> String {
        match self {
            Self::Ratio(_) if value >= 10.0 => format!("{value:.1}"),
            Self::Over | Self::OverCpu | Self::Cpu | Self::Rate => format!("{value:.0}"),
            Self::QueueMedian | Self::QueueTail | Self::Calls => format!("{value:.3}"),
            Self::Ratio(_) | Self::Tail | Self::Share | Self::Longest | Self::Other => format!("{value:.2}"),
        }
    }

    const fn unit(self) -> &'static str {
        match self {
            Self::Ratio(_) => " x ",
            Self::Over => " ns a call above ",
            Self::OverCpu => " ns of CPU above ",
            Self::Cpu => " ns of CPU",
            Self::Rate => "/s",
            Self::Tail => " x the p99 of taking turns",
            Self::Share => " of the mean for the smallest share",
            Self::QueueMedian => " of the service time queued, p50",
            Self::QueueTail => " of the service time queued, p99",
            Self::Longest => " x the median for the longest wait",
            Self::Calls => " calls per operation",
            Self::Other => "",
        }
    }
}

/// As a cell of the table says what is asked: `>= 0.97 x raw`.
impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.asked {
            Asked::AtLeast(least) => write!(f, ">= {}", self.what.show(least))?,
            Asked::AtMost(most) => write!(f, "<= {}", self.what.show(most))?,
            Asked::Told => f.write_str("report:")?,
        }
        f.write_str(self.what.unit())?;
        match self.what {
            What::Ratio(name) => name.fmt(f),
            What::Over | What::OverCpu => BaselineName::Raw.fmt(f),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sixteen callers in five rounds that are alike but for the engine's rate, against 1 and 2 threads.
    fn report() -> Value {
        let side = |rate: f64, p99: f64| Figures {
            ops_per_s: rate,
            cpu_ns: 50.0,
            latency_us: [10.0, p99, 40.0],
            smallest_share: Some(0.9),
            queued_us: Some([1.0, 5.0]),
            token_us: Some(20.0),
            calls_per_op: Some(2.0),
        };
        let round =
            |rate| Round { engine: side(rate, 96.0), baseline: vec![side(10.0, 5.0), side(20.0, 10.0)] };
        let rounds: Vec<_> = [40.0, 50.0, 30.0, 20.0, 60.0].map(round).into();
        serde_json::json!({
            "callers": 16,
            "baselines": [
                { "name": "raw-copy", "threads": 1, "counts": [1, 2], "rounds": rounds },
                { "name": "raw", "threads": 2, "counts": [1, 2], "rounds": rounds },
            ],
        })
    }

    #[test]
    fn figures_are_medians_of_what_the_rounds_have() {
        let figure = |what| Figure::told(what).of(&report()).unwrap().median;
        let near = |what, wanted: f64| assert!((figure(what) - wanted).abs() < 1e-9, "{what:?}");
        near(What::Ratio(BaselineName::Raw), 2.0);
        near(What::Ratio(BaselineName::RawCopy), 4.0);
        near(What::Tail, 96.0 / 80.0);
        near(What::Share, 0.9);
        near(What::QueueMedian, 0.05);
        near(What::QueueTail, 0.25);
        near(What::Longest, 4.0);
        near(What::Rate, 40.0);
        near(What::Calls, 2.0);
        // No round ran with 16 threads.
        for what in [What::Over, What::Ratio(BaselineName::Mutex)] {
            assert_eq!(Figure::told(what).of(&report()), Err(NOT_THERE));
        }
    }

    #[test]
    fn a_round_without_operations_has_no_ratio() {
        let mut report = report();
        report["baselines"][1]["rounds"][3]["baseline"][1]["ops_per_s"] = 0.0.into();
        let figure = Figure::told(What::Ratio(BaselineName::Raw)).of(&report);
        assert!(figure.is_err_and(|why| why.contains("nothing done")));
    }

    #[test]
    fn an_interval_stands_beside_the_median() {
        let measured = Figure::told(What::Rate).of(&report()).unwrap();
        assert_eq!(measured.interval, Some(Interval { low: 20.0, high: 60.0 }));
    }

    #[test]
    fn what_is_asked_is_said_with_its_unit() {
        let figures = [
            (Figure::at_least(What::Ratio(BaselineName::RawCopy), 0.9), ">= 0.90 x raw-copy"),
            (Figure::at_most(What::Over, 40.0), "<= 40 ns a call above raw"),
            (Figure::told(What::Cpu), "report: ns of CPU"),
        ];
        figures.iter().for_each(|(figure, text)| assert_eq!(figure.to_string(), *text));
        assert_eq!(Asked::AtMost(40.0).is_met_by(41.0), Some(false));
        assert_eq!(Asked::Told.is_met_by(41.0), None);
    }
}
