//! The result of a load run as a document, schema 1: one JSON object, which reports are made of.
//!
//! `bench/docs/result.md` documents it field by field. Fields that a reader does not know are skipped, so later
//! versions may add some; what changes the meaning of a field gets another schema. Times whose names end in `_ns` are
//! nanoseconds, those in `_s` seconds.

pub mod csv;
#[doc(hidden)]
pub mod example;
mod file;
pub mod hgrm;
pub mod html;
mod latency;
mod made;

use serde::{Deserialize, Serialize};

pub use made::{Machine, Made, Module, Token};

/// The schema that this version writes, and the only one that it reads.
pub const SCHEMA: u32 = 1;

/// A finished run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoadResult {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Name of the profile, or of the operation and its size as `ecdsa-p256:64`.
    pub title: String,
    /// When, by what and on what it was made.
    pub made: Made,
    /// The profile that ran, as TOML; `None` if options said all.
    pub profile: Option<String>,
    /// How requests arrived: `closed, 16 callers`, `constant 2000/s`, `poisson 2000/s`, `by phase`.
    pub arrivals: String,
    /// All phases that count, together.
    pub total: Summary,
    /// By entry of the mix.
    pub operations: Vec<Part>,
    /// In the order in which they ran; at least one.
    pub phases: Vec<Phase>,
    /// One a second. The first begins at 0, and warm-ups are in it.
    pub series: Vec<Interval>,
    /// Where the time went inside the engine, by operation.
    pub stages: Vec<Stage>,
    /// Who did the work.
    pub tokens: Vec<TokenShare>,
    /// What failed, by class.
    pub errors: Vec<ErrorClass>,
    /// Points of a search for the knee; empty without one.
    pub curve: Vec<CurvePoint>,
    /// What that search found.
    pub knee: Option<Knee>,
    /// Others that did the same work in the same run, in turns.
    pub baselines: Vec<BaselineRun>,
    /// Operations per second of each round of a comparison, else of each second that counts, but for the first of a run of more
    /// than five that has no warm-up: what a comparison with another run draws its samples from.
    pub rounds: Vec<f64>,
    /// What a reader must know, a sentence each: `token sim-0 lost at 10.0 s`.
    pub notes: Vec<String>,
}

/// The figures of a run or of a part of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Operations that succeeded.
    pub ops: u64,
    /// Operations that failed.
    pub errors: u64,
    /// How long was counted.
    pub seconds: f64,
    /// Operations that succeeded, per second.
    pub ops_per_s: f64,
    /// The rate that was meant to be asked; `None` in a closed loop, which has none.
    pub asked_per_s: Option<f64>,
    /// Of operations that succeeded: from the intended start in an open loop, from the call in a closed one.
    pub latency: Latency,
    /// How late the harness itself began requests; `None` in a closed loop.
    pub lateness: Option<Latency>,
    /// CPU time of all threads of the process per operation; `None` where parts share it.
    pub cpu_ns_per_op: Option<f64>,
}

/// A distribution of times. All are 0 if nothing was counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// How many were counted.
    pub count: u64,
    /// Shortest.
    pub min_ns: u64,
    /// Longest.
    pub max_ns: u64,
    /// Mean.
    pub mean_ns: f64,
    /// Median.
    pub p50_ns: u64,
    /// 90th percentile.
    pub p90_ns: u64,
    /// 99th percentile.
    pub p99_ns: u64,
    /// 99.9th percentile.
    pub p999_ns: u64,
    /// 99.99th percentile.
    pub p9999_ns: u64,
    /// The whole distribution: `HdrHistogram`'s compressed encoding V2 in base64, or empty.
    pub histogram: String,
}

/// An entry of the mix.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// Operation and size: `ecdsa-p256:64`.
    pub name: String,
    /// Its figures, over the phases that count.
    pub summary: Summary,
}

/// A phase of the profile.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// Name.
    pub name: String,
    /// When it began, from the start of the run.
    pub from_s: f64,
    /// When it ended, from the start of the run.
    pub until_s: f64,
    /// Whether it is part of the total; a warm-up is not.
    pub counted: bool,
    /// Its figures.
    pub summary: Summary,
}

/// A second of the run, or what there is of it at the end.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// When it began, from the start of the run.
    pub at_s: f64,
    /// How long it is.
    pub seconds: f64,
    /// Operations that succeeded in it.
    pub ops: u64,
    /// Operations that failed in it.
    pub errors: u64,
    /// Operations whose intended start lies in it; `None` in a closed loop.
    pub asked: Option<u64>,
    /// Median latency of what succeeded in it; 0 if nothing did.
    pub p50_ns: u64,
    /// 90th percentile.
    pub p90_ns: u64,
    /// 99th percentile.
    pub p99_ns: u64,
    /// Longest.
    pub max_ns: u64,
    /// How many took how long: upper bound in nanoseconds and count. Bounds are powers of the square root of 2, from
    /// 1 µs; bounds without a count are left out.
    pub heat: Vec<(u64, u64)>,
    /// Sessions of the engine at its end.
    pub sessions: Option<u32>,
    /// Requests that waited at its end.
    pub queued: Option<u64>,
    /// Tokens in service at its end.
    pub tokens_up: Option<u32>,
}

/// A stage of an operation inside the engine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// Operation.
    pub operation: String,
    /// The stage's name, as [`hsmux::Stage`] has it; `total` is the sum of all.
    pub stage: String,
    /// Median.
    pub p50_ns: u64,
    /// 99th percentile.
    pub p99_ns: u64,
    /// Mean. Means of stages add up, percentiles do not.
    pub mean_ns: f64,
}

/// A token's part of the work.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenShare {
    /// Label.
    pub token: String,
    /// Operations that succeeded on it.
    pub ops: u64,
    /// Operations that failed on it.
    pub errors: u64,
    /// Its part of all that succeeded: 0 to 1.
    pub share: f64,
}

/// Failures that are alike.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ErrorClass {
    /// Kind of the error.
    pub kind: String,
    /// Whether the operation ran.
    pub outcome: String,
    /// How many there were.
    pub count: u64,
    /// Text of the first.
    pub first: String,
    /// When the first was, from the start of the run.
    pub first_s: f64,
}

/// A rate that was tried in a search for the knee.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CurvePoint {
    /// The rate asked.
    pub asked_per_s: f64,
    /// The rate achieved.
    pub ops_per_s: f64,
    /// Median latency.
    pub p50_ns: u64,
    /// 99th percentile.
    pub p99_ns: u64,
    /// 99.9th percentile.
    pub p999_ns: u64,
    /// Operations that failed.
    pub errors: u64,
    /// Whether the objective was met.
    pub meets: bool,
}

/// The highest rate that meets an objective.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Knee {
    /// The rate.
    pub per_s: f64,
    /// The highest rate tried below which every one met the objective.
    pub low: f64,
    /// The lowest rate tried that did not meet it.
    pub high: f64,
    /// The objective: `p99=5ms`.
    pub slo: String,
}

/// Somebody else who did the same work in the same run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BaselineRun {
    /// Name.
    pub name: String,
    /// Its operations per second: median of the rounds.
    pub ops_per_s: f64,
    /// The engine's rate over this one's: median of the rounds.
    pub ratio: f64,
    /// Bounds between which that ratio lies with 90 % confidence; `None` for too few rounds.
    pub interval: Option<[f64; 2]>,
    /// Median latency.
    pub p50_ns: u64,
    /// 99th percentile.
    pub p99_ns: u64,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    const PAGE: &str = include_str!("../docs/result.md");

    /// The fields that the section under a heading lists.
    #[track_caller]
    fn documented(heading: &str) -> BTreeSet<&str> {
        let section = PAGE.split("\n## ").find(|section| section.lines().next() == Some(heading));
        let lines = section.unwrap_or_else(|| panic!("no section {heading}")).lines();
        lines.filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect()
    }

    #[track_caller]
    fn assert_documented(heading: &str, object: &Value) {
        let fields = object.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(documented(heading), fields, "{heading}");
    }

    #[test]
    fn the_page_has_every_field_and_no_other() {
        let json = serde_json::to_value(example::payment_auth()).unwrap();
        assert_documented("The object", &json);
        let (made, total) = (&json["made"], &json["total"]);
        assert_documented("`made`", made);
        assert_documented("`machine`", &made["machine"]);
        assert_documented("`module`", &made["module"]);
        assert_documented("`token`", &made["tokens"][0]);
        assert_documented("`summary`", total);
        assert_documented("`latency`", &total["latency"]);
        assert_documented("`knee`", &json["knee"]);
        for list in ["operations", "phases", "series", "stages", "tokens", "errors", "curve", "baselines"] {
            assert_documented(&format!("`{list}`"), &json[list][0]);
        }
        assert!(PAGE.contains(csv::HEADER));
    }
}
