//! An engine and others in turn, under the same arrivals: in an open loop the rate is given, and latencies are compared.
//!
//! A round is a part of the profile's length for each side, one right after the other, with requests due at the same moments;
//! who begins moves on from round to round. So all meet the same minutes of the machine.

use std::sync::Arc;
use std::time::Duration;

use hsmux::Engine;

use super::callers::Common;
use super::{Flow, Interval, LOOK, Outcome, run};
use crate::baseline::Baseline;
use crate::compare::Rival;
use crate::profile::Profile;
use crate::record::Counts;
use crate::result::{self, BaselineRun};
use crate::stats::{median, median_interval};
use crate::work::Works;

/// Fewest rounds: with less there is no 90 % interval of a median.
const ROUNDS: u32 = 5;

/// Of a profile with one operation and one phase: engine and baselines in turn, each for its length. A baseline has `threads`
/// callers, or as many as it can.
///
/// # Errors
/// A text: the profile has several operations or phases, or threads could not be started.
///
/// # Blocking
/// As [`run`], once for each side.
pub fn in_turns(
    engine: &Arc<Engine>,
    profile: &Profile,
    works: &Arc<Works>,
    (rivals, threads): (&[Rival<'_>], usize),
    mut watch: impl FnMut(Option<&Interval>) -> Flow,
) -> Result<(Outcome, Vec<BaselineRun>), String> {
    let ([_], [phase]) = (&profile.operations[..], &profile.phases[..]) else {
        return Err("baselines do one operation at one rate: the profile has more".to_owned());
    };
    let part = profile.clone().for_time(phase.length / ROUNDS)?;
    let (mut engines, mut others) = (Vec::new(), vec![Vec::new(); rivals.len()]);
    let mut begun = Duration::ZERO;
    for round in 0..ROUNDS {
        let part = Profile { seed: (profile.seed + u64::from(round)) % (1 << 63), ..part.clone() };
        for place in 0..=rivals.len() {
            match (place + round as usize) % (rivals.len() + 1) {
                0 => {
                    let outcome = run(engine, part.clone(), works, |ended| {
                        watch(ended.map(|interval| interval.later(begun)).as_ref())
                    })?;
                    begun += outcome.length;
                    engines.push(outcome);
                }
                rival => {
                    let baseline = &*rivals[rival - 1].baseline;
                    let asks = || watch(None) == Flow::Stop;
                    others[rival - 1].push(open_loop(baseline, &part, threads, asks));
                }
            }
        }
        if watch(None) == Flow::Stop {
            break;
        }
    }
    let rates: Vec<_> = engines.iter().map(|of| rate(&of.all.of(|_, _| true), &part)).collect();
    let outcome = engines.into_iter().reduce(Outcome::followed_by).ok_or("nothing was run")?;
    let told = rivals.iter().zip(others).map(|(rival, counts)| told(rival, &counts, &rates, &part)).collect();
    Ok((Outcome { profile: profile.clone(), ..outcome }, told))
}

/// Threads of a baseline make the requests of a profile; `is_over` is asked on this thread whether they are to stop.
fn open_loop(
    baseline: &dyn Baseline,
    part: &Profile,
    threads: usize,
    mut is_over: impl FnMut() -> bool,
) -> Counts {
    let common = Common::new(part.clone());
    let threads = u32::try_from(threads.clamp(1, baseline.threads_max().max(1))).unwrap_or(u32::MAX);
    std::thread::scope(|scope| {
        let callers: Vec<_> = (0..threads)
            .map(|caller| {
                scope.spawn({
                    let common = &common;
                    move || {
                        let mut message = baseline.inputs().message(caller as usize);
                        let mut work = baseline.caller(caller as usize);
                        common.serve(caller, || (0, work(message.advance())));
                    }
                })
            })
            .collect();
        while !callers.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            std::thread::park_timeout(LOOK);
            if is_over() {
                common.gate.stop();
            }
            common.bound_backlog();
        }
    });
    common.recorder.take().of(|_, _| true)
}

fn rate(counts: &Counts, part: &Profile) -> f64 {
    counts.done_in_time as f64 / part.length().as_secs_f64()
}

fn told(rival: &Rival<'_>, rounds: &[Counts], engine: &[f64], part: &Profile) -> BaselineRun {
    let rates: Vec<_> = rounds.iter().map(|counts| rate(counts, part)).collect();
    let ratios: Vec<_> =
        engine.iter().zip(&rates).map(|(engine, rate)| engine / rate.max(f64::MIN_POSITIVE)).collect();
    let mut all = Counts::default();
    rounds.iter().for_each(|counts| all.add(counts));
    let at = |share| if all.latency.is_empty() { 0 } else { all.latency.value_at_quantile(share) };
    BaselineRun {
        name: rival.name.as_str().to_owned(),
        ops_per_s: median(&rates).unwrap_or_default(),
        ratio: median(&ratios).unwrap_or_default(),
        interval: median_interval(&ratios).map(|interval| [interval.low, interval.high]),
        p50_ns: at(0.5),
        p99_ns: at(0.99),
    }
}

impl Interval {
    /// As part of a run that had gone on for so long before.
    fn later(&self, by: Duration) -> Self {
        Self { from: self.from + by, until: self.until + by, ..self.clone() }
    }
}

impl Outcome {
    /// This and what was measured after it, as one.
    fn followed_by(mut self, next: Self) -> Self {
        let by = self.length.as_secs_f64();
        self.all.add(&next.all);
        self.intervals
            .extend(next.intervals.into_iter().map(|it| result::Interval { at_s: it.at_s + by, ..it }));
        self.length += next.length;
        self.was_stopped |= next.was_stopped;
        self.unbegun += next.unbegun;
        self.cpu += next.cpu;
        self.snapshots[1] = next.snapshots.into_iter().nth(1).unwrap_or_else(|| self.snapshots[1].clone());
        self.panicked += next.panicked;
        self.tasks_busy = self.tasks_busy.max(next.tasks_busy);
        self
    }
}
