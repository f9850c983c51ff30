//! What a run says of itself: one JSON object, or a table for people.

use std::fmt;

use hdrhistogram::Histogram;
use hsmux::Stage;
use serde::Serialize;

use crate::case::Case;
use crate::compare::{Against, Comparison, Overhead, Round};
use crate::drive::Load;
use crate::stats::Interval;
use crate::target::Measured;

/// A finished run.
#[derive(Clone, Debug)]
pub struct Run {
    /// What was done.
    pub case: Case,
    /// Who asked, and how.
    pub load: Load,
    /// What came out of the engine's cells.
    pub measured: Measured,
    /// Sessions of the engine, of all tokens.
    pub sessions: usize,
    /// The baselines beside it, if there were any.
    pub comparison: Option<Comparison>,
}

/// The figures of a run; [`serde_json`] writes it with exactly these fields.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Name of the operation.
    pub op: &'static str,
    /// Bytes per operation.
    pub size: usize,
    /// `blocking`, `async` or `many`.
    pub api: &'static str,
    /// What drives the callers: `threads`, `tasks` or `window`.
    pub driver: &'static str,
    /// Callers at a time.
    pub callers: usize,
    /// Seconds in which operations were counted.
    pub seconds: f64,
    /// Operations that succeeded.
    pub ops: u64,
    /// Operations that failed.
    pub errors: u64,
    /// Operations that succeeded, per second.
    pub ops_per_s: f64,
    /// As the callers saw it; of a batch, that of the batch.
    pub latency_us: Latency,
    /// Medians of what the engine measured.
    pub stages_us: Stages,
    /// How long requests waited for a session, as the engine measured it.
    pub queue_wait_us: Latency,
    /// CPU time of all threads of the process per operation, in nanoseconds.
    pub cpu_ns_per_op: f64,
    /// What the caller that got least has of the mean; not of a window, nor of cells that were added up.
    pub smallest_share: Option<f64>,
    /// PKCS#11 calls of the engine per operation.
    pub c_calls_per_op: f64,
    /// Sessions of the engine.
    pub sessions: usize,
    /// The first baseline, if one ran.
    pub baseline: Option<BaselineFigures>,
    /// The engine's rate over that baseline's.
    pub ratio: Option<f64>,
    /// 90 % interval of the ratio.
    pub ratio_interval: Option<Interval>,
    /// Every baseline, round by round.
    pub baselines: Vec<Compared>,
}

/// Latencies in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Latency {
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 99th percentile.
    pub p99: f64,
    /// 99.9th percentile.
    pub p999: f64,
    /// Longest.
    pub max: f64,
}

/// Median times by stage, in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Stages {
    /// [`Stage::Queued`].
    pub queued: f64,
    /// [`Stage::Token`].
    pub token: f64,
    /// [`Stage::Total`].
    pub total: f64,
}

/// A baseline's figures.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct BaselineFigures {
    /// As on the command line.
    pub name: &'static str,
    /// The thread count with the best median.
    pub threads: usize,
    /// That median.
    pub ops_per_s: f64,
}

/// The engine against one baseline.
#[derive(Clone, Debug, Serialize)]
pub struct Compared {
    /// Name, best thread count, median rate.
    #[serde(flatten)]
    pub baseline: BaselineFigures,
    /// The engine's rate over the baseline's: median of the rounds.
    pub ratio: f64,
    /// 90 % interval of the ratio.
    pub ratio_interval: Interval,
    /// What an operation costs a caller more than a thread of the baseline, with as many threads as callers.
    pub over: Option<Overhead>,
    /// The thread counts that ran, in the order of the rounds' figures.
    pub counts: Vec<usize>,
    /// The cells.
    pub rounds: Vec<Round>,
}

/// Below this an operation is short enough to be told in nanoseconds.
const SHORT_NS: f64 = 10_000.0;

impl Run {
    /// The figures.
    #[must_use]
    pub fn report(&self) -> Report {
        let Measured { cell, stages, calls } = &self.measured;
        let latency = |of: &Histogram<u64>| {
            let us = |quantile| us(of, quantile);
            Latency { p50: us(0.5), p90: us(0.9), p99: us(0.99), p999: us(0.999), max: us(1.0) }
        };
        let against = self.comparison.iter().flat_map(|it| &it.against);
        let first = self.comparison.as_ref().and_then(|it| it.against.first());
        let stage = |stage: Stage| self::us(&stages[stage as usize], 0.5);
        Report {
            op: self.case.op.as_str(),
            size: self.case.size,
            api: self.load.api.as_str(),
            driver: self.load.api.driver(),
            callers: self.load.callers,
            seconds: cell.seconds,
            ops: cell.ops,
            errors: cell.errors,
            ops_per_s: cell.ops_per_s(),
            latency_us: latency(&cell.latency),
            stages_us: Stages {
                queued: stage(Stage::Queued),
                token: stage(Stage::Token),
                total: stage(Stage::Total),
            },
            queue_wait_us: latency(&stages[Stage::Queued as usize]),
            cpu_ns_per_op: cell.cpu_ns_per_op(),
            smallest_share: cell.smallest_share(),
            c_calls_per_op: *calls as f64 / cell.all.max(1) as f64,
            sessions: self.sessions,
            baseline: first.map(BaselineFigures::of),
            ratio: first.map(|it| it.ratio),
            ratio_interval: first.map(|it| it.ratio_interval),
            baselines: against.map(Compared::of).collect(),
        }
    }
}

impl BaselineFigures {
    const fn of(it: &Against) -> Self {
        Self { name: it.name.as_str(), threads: it.threads, ops_per_s: it.ops_per_s }
    }
}

impl Compared {
    fn of(it: &Against) -> Self {
        Self {
            baseline: BaselineFigures::of(it),
            ratio: it.ratio,
            ratio_interval: it.ratio_interval,
            over: it.over,
            counts: it.counts.clone(),
            rounds: it.rounds.clone(),
        }
    }
}

/// A table for people, with what has no place in the JSON: the driver in words, times in nanoseconds.
impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = self.report();
        let cell = &self.measured.cell;
        writeln!(f, "operation   {} of {} bytes", report.op, report.size)?;
        writeln!(f, "callers     {}", self.load)?;
        writeln!(f, "sessions    {}", report.sessions)?;
        writeln!(f, "done        {} in {:.2} s, {} errors", report.ops, report.seconds, report.errors)?;
        if let Some(error) = &cell.first_error {
            writeln!(f, "first error {error}")?;
        }
        writeln!(f, "rate        {}", Rate(report.ops_per_s))?;
        let Latency { p50, p90, p99, p999, max } = report.latency_us;
        let [p50, p90, p99, p999, max] = [p50, p90, p99, p999, max].map(Us);
        writeln!(f, "latency us  p50 {p50}  p90 {p90}  p99 {p99}  p99.9 {p999}  max {max}")?;
        let Stages { queued, token, total } = report.stages_us;
        let [queued, token, total] = [queued, token, total].map(Us);
        writeln!(f, "stages us   queued {queued}  token {token}  total {total}  (medians)")?;
        let Latency { p50, p99, max, .. } = report.queue_wait_us;
        writeln!(f, "queued us   p50 {}  p99 {}  max {}", Us(p50), Us(p99), Us(max))?;
        if let Some(share) = report.smallest_share {
            writeln!(f, "shares      the caller that got least has {share:.2} of the mean")?;
        }
        writeln!(f, "calls       {:.3} PKCS#11 calls per operation", report.c_calls_per_op)?;
        writeln!(f, "cpu         {:.0} ns per operation, all threads of this process", cell.cpu_ns_per_op())?;
        self.comparison.as_ref().map_or(Ok(()), |comparison| comparison.fmt(f))
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.against.iter().try_for_each(|it| it.fmt(f))
    }
}

impl fmt::Display for Against {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, cpu_ns) = (self.name, self.cell.cpu_ns_per_op());
        let (rate, threads) = (Rate(self.ops_per_s), self.threads);
        writeln!(
            f,
            "{name:<11} {rate}, {threads} threads (the best count), cpu {cpu_ns:.0} ns per operation"
        )?;
        let Interval { low, high } = self.ratio_interval;
        writeln!(f, "ratio       {:.3} of {name}, 90 % interval {low:.3} to {high:.3}", self.ratio)?;
        if let Some(Overhead { wall_ns, cpu_ns }) = self.over {
            let what = format!("per operation over {name} with as many threads");
            writeln!(f, "overhead    {wall_ns:.0} ns {what}, cpu {cpu_ns:.0} ns")?;
        }
        Ok(())
    }
}

/// A rate, and for short operations the time between two.
struct Rate(f64);

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ns = 1e9 / self.0;
        write!(f, "{:.0} ops/s", self.0)?;
        if ns < SHORT_NS { write!(f, " ({ns:.1} ns/op)") } else { Ok(()) }
    }
}

/// Microseconds: to the nanosecond where they are few.
struct Us(f64);

impl fmt::Display for Us {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places = if self.0 < 10.0 { 3 } else { 1 };
        write!(f, "{:.places$}", self.0)
    }
}

fn us(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    histogram.value_at_quantile(quantile) as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::baseline::BaselineName;
    use crate::drive::{Api, Runtime};

    const FIELDS: [&str; 20] = [
        "api",
        "baseline",
        "baselines",
        "c_calls_per_op",
        "callers",
        "cpu_ns_per_op",
        "driver",
        "errors",
        "latency_us",
        "op",
        "ops",
        "ops_per_s",
        "queue_wait_us",
        "ratio",
        "ratio_interval",
        "seconds",
        "sessions",
        "size",
        "smallest_share",
        "stages_us",
    ];

    fn run(comparison: bool) -> Run {
        let mut measured = Measured::empty();
        measured.cell.ops = 1_000;
        measured.cell.all = 1_000;
        measured.cell.seconds = 0.5;
        measured.cell.cpu = Duration::from_millis(1);
        (1..=1_000).for_each(|us| measured.cell.latency.saturating_record(us * 1_000));
        measured.calls = 2_000;
        let against = Against {
            name: BaselineName::Raw,
            cell: measured.cell.clone(),
            threads: 2,
            ops_per_s: 4_000.0,
            ratio: 0.5,
            ratio_interval: Interval { low: 0.4, high: 0.6 },
            over: Some(Overhead { wall_ns: 12.0, cpu_ns: 11.0 }),
            counts: vec![1, 2],
            rounds: Vec::new(),
        };
        let copy = Against { name: BaselineName::RawCopy, ratio: 0.25, ..against.clone() };
        let comparison =
            comparison.then(|| Comparison { engine: measured.clone(), against: vec![against, copy] });
        let load = Load { api: Api::Async(Runtime::CurrentThread), callers: 64 };
        Run { case: "ecdsa-p256".parse().unwrap(), load, measured, sessions: 2, comparison }
    }

    fn keys(value: &serde_json::Value) -> Vec<&str> {
        let mut keys: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
        keys.sort_unstable();
        keys
    }

    #[test]
    fn the_json_object_has_exactly_the_fields_named() {
        for comparison in [false, true] {
            let json = serde_json::to_value(run(comparison).report()).unwrap();
            assert_eq!(keys(&json), FIELDS);
            assert_eq!(keys(&json["latency_us"]), ["max", "p50", "p90", "p99", "p999"]);
            assert_eq!(keys(&json["stages_us"]), ["queued", "token", "total"]);
            assert_eq!(json["baseline"].is_null(), !comparison);
            assert_eq!(json["baselines"].as_array().unwrap().len(), if comparison { 2 } else { 0 });
        }
        let json = serde_json::to_value(run(true).report()).unwrap();
        assert_eq!(keys(&json["baseline"]), ["name", "ops_per_s", "threads"]);
        assert_eq!(json["ratio_interval"], serde_json::json!([0.4, 0.6]));
        let fields = ["counts", "name", "ops_per_s", "over", "ratio", "ratio_interval", "rounds", "threads"];
        assert_eq!(keys(&json["baselines"][1]), fields);
        assert_eq!((&json["ratio"], &json["baselines"][1]["ratio"]), (&0.5.into(), &0.25.into()));
    }

    #[test]
    fn figures_come_out_in_the_units_of_their_names() {
        let report = run(false).report();
        assert!((report.ops_per_s - 2_000.0).abs() < 1e-9);
        assert!((report.c_calls_per_op - 2.0).abs() < 1e-9);
        assert!((report.latency_us.p50 - 500.0).abs() < 5.0);
        assert!((report.latency_us.max - 1_000.0).abs() < 10.0);
    }

    #[test]
    fn the_table_tells_the_driver_the_cpu_time_and_the_ratio() {
        let text = run(true).to_string();
        for part in [
            "64 tokio tasks on a current-thread runtime",
            "1000 ns per operation",
            "0.500 of raw,",
            "0.250 of raw-copy,",
            "12 ns",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
