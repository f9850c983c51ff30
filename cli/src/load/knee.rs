//! The search for the highest rate that meets an objective.

use std::sync::Arc;
use std::time::Duration;

use hsmux::Engine;
use hsmux_bench::Works;
use hsmux_bench::arrivals::{Pace, Rate};
use hsmux_bench::knee::{Knee, Limits, Percentile, Point, Search, Slo, Step};
use hsmux_bench::profile::Profile;
use hsmux_bench::result::{self, LoadResult};
use hsmux_bench::run::{self, Flow, Outcome};

use super::args::Args;
use super::note;
use crate::exit::{Exit, Failure, Result};
use crate::figures::time;
use crate::stop::Stop;

/// What a search has found.
pub(super) struct Found {
    pub(super) knee: Knee,
    /// The run at the highest rate that met the objective, else the last one.
    pub(super) outcome: Outcome,
}

/// Searches, from the profile's shape with its mean rate changed.
pub(super) fn search(
    args: &Args,
    slo: &Slo,
    engine: &Arc<Engine>,
    profile: &Profile,
    works: &Arc<Works>,
    stop: &Stop,
) -> Result<Found> {
    let usage = |text: String| Failure::new(Exit::Usage, text);
    let mut limits = Limits::default();
    if let Some(asked) = args.rate {
        limits.from = asked.rate;
    }
    if let Some(seconds) = args.seconds {
        limits.total = seconds.0;
        limits.measure_max = limits.measure_max.min(seconds.0 / 4);
        limits.measure = limits.measure.min(limits.measure_max);
    }
    let mut search = Search::new(slo.clone(), limits);
    let mut best: Option<(bool, f64, Outcome)> = None;
    let mut seed = profile.seed;
    loop {
        let (per_s, lasts) = match search.next() {
            Step::Measure { per_s, lasts } if !stop.is_asked() => (per_s, lasts),
            Step::Measure { .. } => return found(search.stopped(), best, stop),
            Step::Done(knee) => return found(knee, best, stop),
        };
        let rate = Rate::per_second(per_s).map_err(usage)?;
        // Other arrivals each time: the same again would say the same again.
        seed = (seed + 1) % (1 << 63);
        let profile = Profile { seed, ..profile.clone() };
        let at_rate = profile.at_rate(rate).and_then(|profile| profile.for_time(lasts)).map_err(usage)?;
        let watch = |_: Option<&run::Interval>| if stop.is_asked() { Flow::Stop } else { Flow::Continue };
        let outcome =
            run::run(engine, at_rate, works, watch).map_err(|text| Failure::new(Exit::Other, text))?;
        if outcome.was_stopped {
            return found(search.stopped(), best.or(Some((false, per_s, outcome))), stop);
        }
        let point = point(per_s, &outcome);
        let meets = point.kept_up && slo.is_met(&point);
        // Who does not listen has the results all the same.
        let _told = tell(&point, lasts, meets);
        search.measured(point);
        search.took_longer(outcome.length.saturating_sub(lasts));
        let is_better =
            best.as_ref().is_none_or(|(met, rate, _)| (meets, per_s) >= (*met, *rate) && (meets || !met));
        if is_better {
            best = Some((meets, per_s, outcome));
        }
    }
}

/// What a search has found; also one that was stopped, if it has measured anything.
fn found(knee: Knee, best: Option<(bool, f64, Outcome)>, stop: &Stop) -> Result<Found> {
    match (best, stop.signal()) {
        (Some((_, _, outcome)), _) => Ok(Found { knee, outcome }),
        (None, Some(exit)) => Err(Failure::new(exit, "stopped before anything was measured")),
        (None, None) => Err(Failure::new(Exit::Usage, "there was no time to measure anything")),
    }
}

/// A profile that a search changes the rate of: an open loop, of whatever rate.
pub(super) fn open(mut profile: Profile, args: &Args) -> Result<Profile> {
    if profile.pace.is_none() && args.profile.is_some() {
        return Err(Failure::new(
            Exit::Usage,
            "--find-knee takes a profile with rates: this one is a closed loop",
        ));
    }
    if profile.pace.is_none() {
        let rate = args.rate.map_or(Limits::default().from, |asked| asked.rate);
        let callers = profile.callers;
        profile = Profile::single(args.case()?, Some((Pace::Poisson, rate)), Duration::from_secs(1));
        profile.callers = args.callers.map_or(profile.callers, |_| callers);
    }
    Ok(profile)
}

/// What the search has to know of a run.
fn point(asked_per_s: f64, outcome: &Outcome) -> Point {
    let counts = outcome.all.of(|_, phase| outcome.profile.phases[phase].counted);
    let seconds: f64 = outcome
        .profile
        .phases
        .iter()
        .filter(|phase| phase.counted)
        .map(|phase| phase.length.as_secs_f64())
        .sum();
    Point {
        asked_per_s,
        ops_per_s: counts.done_in_time as f64 / seconds,
        ops: counts.ops,
        // What was due and never begun was not served either.
        errors: counts.errors + outcome.unbegun,
        kept_up: outcome.kept_up(),
        latencies_ns: Percentile::ALL.map(|percentile| {
            if counts.ops == 0 { u64::MAX } else { counts.latency.value_at_quantile(percentile.share()) }
        }),
    }
}

fn tell(point: &Point, lasts: Duration, meets: bool) -> Result {
    let [p50, _, p99, ..] = point.latencies_ns;
    note(&format!(
        "{:.0}/s for {:.1} s: {:.0} operations/s, p50 {}, p99 {}, {} errors: {}",
        point.asked_per_s,
        lasts.as_secs_f64(),
        point.ops_per_s,
        time(p50),
        time(p99),
        point.errors,
        if meets { "met" } else { "missed" }
    ))
}

/// Puts what was found into the document of the best run.
pub(super) fn complete(result: &mut LoadResult, knee: &Knee) {
    let [p50, _, p99, p999, _] = Percentile::ALL.map(|percentile| percentile as usize);
    let curve = knee.curve.iter().map(|judged| result::CurvePoint {
        asked_per_s: judged.point.asked_per_s,
        ops_per_s: judged.point.ops_per_s,
        p50_ns: judged.point.latencies_ns[p50],
        p99_ns: judged.point.latencies_ns[p99],
        p999_ns: judged.point.latencies_ns[p999],
        errors: judged.point.errors,
        meets: judged.meets,
    });
    result.curve = curve.collect();
    result.knee = knee.low.map(|low| result::Knee {
        per_s: low,
        low,
        high: knee.high.unwrap_or(low),
        slo: knee.slo.to_string(),
    });
    result.notes.insert(0, knee.to_string());
}
