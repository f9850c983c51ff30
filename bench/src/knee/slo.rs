//! Latency objectives, as they are written.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::Point;

/// What a load must keep to: limits for percentiles of the latency, and for the part that may fail.
///
/// It is written as `p99=5ms`, `p99.9=20ms` or `p50=1ms,p99=5ms,errors=0.1%`. At least one limit is there.
///
/// ```
/// use hsmux_bench::knee::Slo;
/// let slo: Slo = "p99=5ms, p50=1ms, errors=0.1%".parse()?;
/// assert_eq!(slo.to_string(), "p50=1ms,p99=5ms,errors=0.1%");
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Slo {
    latency: BTreeMap<Percentile, Duration>,
    /// As a part of all, if that is limited.
    errors: Option<f64>,
}

/// A percentile that may be limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Percentile {
    /// The median.
    P50,
    /// The 90th.
    P90,
    /// The 99th.
    P99,
    /// The 99.9th.
    P999,
    /// The 99.99th.
    P9999,
}

/// What a device may be behind the rate asked and still be said to sustain it. It covers requests under way at the
/// end of a measurement as long as [`Slo::lasts`] says.
const BEHIND: f64 = 0.05;

/// So many standard deviations may the number of arrivals of a Poisson process fall short.
const ARRIVALS_SHORT: f64 = 4.0;

/// Requests of a measurement that should be slower than the percentile. They come in bunches, so fewer leave most
/// measurements without a typical one, and the knee is found too high: with half of this by 2 % in the simulations of
/// this module's tests, with this by 1 %.
const SLOWER: f64 = 100.0;

/// A measurement should last so many times the limit, so that a rate 2.5 % above what the device does leaves a queue
/// that breaks the objective by itself.
const LIMITS_LONG: f64 = 40.0;

/// Without a failure among 3 / e requests, less than e of them fail with 95 % confidence: the rule of three.
const RULE_OF_THREE: f64 = 3.0;

/// How long a measurement lasts that no objective may exceed.
const LASTS_MAX: Duration = Duration::from_secs(24 * 3600);

impl Percentile {
    /// Every percentile.
    pub const ALL: [Self; 5] = [Self::P50, Self::P90, Self::P99, Self::P999, Self::P9999];

    /// As it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::P50 => "p50",
            Self::P90 => "p90",
            Self::P99 => "p99",
            Self::P999 => "p99.9",
            Self::P9999 => "p99.99",
        }
    }

    /// The part of all that is at most so slow.
    #[must_use]
    pub const fn share(self) -> f64 {
        match self {
            Self::P50 => 0.5,
            Self::P90 => 0.9,
            Self::P99 => 0.99,
            Self::P999 => 0.999,
            Self::P9999 => 0.9999,
        }
    }
}

impl Slo {
    /// How an objective is written.
    pub const EXPECTED: &str = "an objective such as \"p99=5ms\" or \"p50=1ms,p99.9=20ms,errors=0.1%\"";

    /// Whether a point keeps to every limit, and the device got done what was asked.
    ///
    /// A request that fails has not been answered in time: where more fail than a percentile leaves out, that
    /// percentile has no limit that is met. Nor does a point without a single success meet anything.
    #[must_use]
    pub fn is_met(&self, point: &Point) -> bool {
        let all = point.ops.saturating_add(point.errors);
        let failed = point.errors as f64 / all.max(1) as f64;
        let in_time = |percentile: Percentile, limit: Duration| {
            failed <= 1.0 - percentile.share()
                && u128::from(point.latencies_ns[percentile as usize]) <= limit.as_nanos()
        };
        point.ops > 0
            && self.latency.iter().all(|(&percentile, &limit)| in_time(percentile, limit))
            && self.errors.is_none_or(|most| failed <= most)
            && is_sustained(point)
    }

    /// How long a measurement at this rate must last to tell whether the objective is met.
    pub(crate) fn lasts(&self, per_s: f64) -> Duration {
        let latency = self.latency.iter().map(|(percentile, limit)| {
            let requests = SLOWER / (1.0 - percentile.share());
            // A queue that grows evenly has reached that part of its length by that percentile.
            (requests / per_s).max(limit.as_secs_f64() * LIMITS_LONG / percentile.share())
        });
        let errors = self.errors.filter(|&most| most > 0.0).map(|most| RULE_OF_THREE / most / per_s);
        let seconds = latency.chain(errors).fold(0.0, f64::max);
        Duration::from_secs_f64(seconds.min(LASTS_MAX.as_secs_f64()))
    }
}

/// Whether about as much was done, well or not, as was asked. Without that a device that falls behind would meet any
/// objective that a short measurement cannot break.
fn is_sustained(point: &Point) -> bool {
    let all = (point.ops + point.errors) as f64;
    let done_per_s = point.ops_per_s * all / point.ops as f64;
    done_per_s >= point.asked_per_s * (1.0 - BEHIND - ARRIVALS_SHORT / all.sqrt())
}

impl FromStr for Slo {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut slo = Self { latency: BTreeMap::new(), errors: None };
        for part in text.split(',') {
            let (name, limit) = part.split_once('=').ok_or_else(|| format!("expected {}", Self::EXPECTED))?;
            let (name, limit) = (name.trim(), limit.trim());
            let before = if name == "errors" {
                slo.errors.replace(share(limit)?).is_some()
            } else {
                let percentile = Percentile::ALL.into_iter().find(|it| it.as_str() == name);
                let percentile = percentile.ok_or_else(|| unknown(name))?;
                slo.latency.insert(percentile, time(limit)?).is_some()
            };
            if before {
                return Err(format!("{name} is limited twice"));
            }
        }
        Ok(slo)
    }
}

fn unknown(name: &str) -> String {
    let known = Percentile::ALL.map(Percentile::as_str).join(", ");
    format!("{name:?} is nothing to limit; there are {known} and errors")
}

fn time(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).ok().filter(|limit| !limit.is_zero() && *limit <= LASTS_MAX).ok_or_else(
        || format!("{text:?} is no latency; expected one such as \"5ms\" or \"800us\", up to 24h"),
    )
}

fn share(text: &str) -> Result<f64, String> {
    let percent = text.strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
    percent
        .filter(|percent| (0.0..100.0).contains(percent))
        .map(|percent| percent / 100.0)
        .ok_or_else(|| format!("{text:?} is no share of errors; expected one such as \"0.1%\", below 100%"))
}

impl fmt::Display for Percentile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// As it is read back.
impl fmt::Display for Slo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut comma = "";
        for (percentile, &limit) in &self.latency {
            write!(f, "{comma}{percentile}={}", humantime::format_duration(limit))?;
            comma = ",";
        }
        match self.errors {
            // Rounded, so that what is lost in a hundredth is not shown.
            Some(most) => write!(f, "{comma}errors={}%", (most * 1e10).round() / 1e8),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn slo(text: &str) -> Slo {
        text.parse().unwrap()
    }

    /// 10,000 requests at 1,000/s, of which so many fail; the rest takes so many milliseconds.
    fn point(ms: [u64; 5], errors: u64) -> Point {
        let ops = 10_000 - errors;
        let ops_per_s = ops as f64 / 10.0;
        let latencies_ns = ms.map(|ms| ms * 1_000_000);
        Point { asked_per_s: 1e3, ops_per_s, ops, errors, kept_up: true, latencies_ns }
    }

    #[test]
    fn every_limit_must_be_kept() {
        let met = |text| slo(text).is_met(&point([1, 2, 5, 20, 50], 5));
        assert!(met("p99=5ms") && met("p50=1ms,p90=2ms,p99=5ms,p99.9=20ms,errors=0.1%"));
        for text in ["p99=4999us", "p50=999us,p99=5ms", "p99.9=19ms", "p99=5ms,errors=0.04%", "errors=0%"] {
            assert!(!met(text), "{text}");
        }
    }

    #[test]
    fn what_fails_is_not_in_time() {
        let met = |text, errors| slo(text).is_met(&point([1; 5], errors));
        assert!(met("p99=5ms", 99) && !met("p99=5ms", 101));
        assert!(met("p99.9=5ms", 9) && !met("p99.9=5ms", 11));
        assert!(!met("errors=99%", 10_000), "nothing was done");
    }

    #[test]
    fn a_device_that_falls_behind_meets_nothing() {
        let behind = |part| Point { ops_per_s: 1e3 * part, ..point([1; 5], 0) };
        assert!(slo("p99=1h").is_met(&behind(0.97)) && !slo("p99=1h").is_met(&behind(0.9)));
    }

    #[test]
    fn measurements_are_as_long_as_the_objective_needs() {
        let seconds = |text, per_s| slo(text).lasts(per_s).as_secs_f64().round();
        assert_eq!(seconds("p99=5ms", 1e3), 10.0, "10,000 requests");
        assert_eq!(seconds("p99.9=5ms", 1e3), 100.0, "100,000 requests");
        assert_eq!(seconds("p50=1s", 1e6), 80.0, "a queue of 1 s half-way");
        assert_eq!(seconds("errors=0.1%", 1e3), 3.0);
        assert_eq!(slo("p99.99=24h,errors=0%").lasts(1e-3), LASTS_MAX);
    }

    #[test]
    fn nonsense_is_refused_with_a_sentence() {
        let refused = [
            ("", "an objective such as"),
            ("p99", "an objective such as"),
            ("p99=5ms,", "an objective such as"),
            ("p98=5ms", "there are p50, p90, p99, p99.9, p99.99 and errors"),
            ("p99=5", "no latency"),
            ("p99=0ms", "no latency"),
            ("p99=2days", "no latency"),
            ("errors=0.1", "no share"),
            ("errors=100%", "no share"),
            ("errors=-1%", "no share"),
            ("errors=NaN%", "no share"),
            ("p99=5ms,p99=6ms", "p99 is limited twice"),
            ("errors=1%,errors=1%", "errors is limited twice"),
        ];
        for (text, why) in refused {
            let error = text.parse::<Slo>().unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn an_objective_is_read_back_as_it_is_shown(
            limits in prop::collection::btree_map(0..5_usize, 1..10_000_000_000_u64, 1..5),
            errors in prop::option::of(0..10_000_u32),
        ) {
            let latency = limits.iter().map(|(&of, &ns)| (Percentile::ALL[of], Duration::from_nanos(ns))).collect();
            let slo = Slo { latency, errors: errors.map(|errors| f64::from(errors) / 100.0 / 100.0) };
            let read: Slo = slo.to_string().parse().unwrap();
            prop_assert_eq!(read.to_string(), slo.to_string());
            prop_assert_eq!(read.latency, slo.latency);
        }
    }
}
