//! An engine and others in turn, under the same arrivals: in an open loop the rate is given, and latencies are compared.
//!
//! A round is a part of the profile's length for each side, one right after the other, with requests due at the same moments;
//! who begins moves on from round to round. So all meet the same minutes of the machine.

use std::sync::Arc;
use std::time::Duration;

use hsmux::Engine;

use super::callers::Common;
use super::{Flow, Interval, LOOK, Outcome, run};
use crate::baseline::{Baseline, BaselineName};
use crate::compare::Rival;
use crate::profile::Profile;
use crate::record::{Block, Counts};
use crate::result::{self, BaselineRun};
use crate::stats::{median, median_interval};
use crate::work::Works;

/// Rounds: with less there is no 90 % interval of a median.
const ROUNDS: u32 = 5;

/// What came of an engine and baselines in turn.
#[derive(Debug)]
pub struct Turns {
    /// The engine's parts, one after the other as one run.
    pub outcome: Outcome,
    /// By baseline, in the order given.
    pub baselines: Vec<BaselineRun>,
    /// The engine's operations per second, by round: of rounds that all sides have finished.
    pub rounds: Vec<f64>,
    /// What a reader must know of the baselines.
    pub notes: Vec<String>,
}

/// One part of one side that is no engine.
#[derive(Debug)]
struct Part {
    all: Block,
    unbegun: u64,
    panicked: usize,
    was_stopped: bool,
}

/// The parts of all sides, by round: the last of each may have been stopped.
struct Sides {
    engine: Vec<Outcome>,
    others: Vec<Vec<Part>>,
    was_stopped: bool,
}

/// Of a profile with one operation and one phase: engine and baselines in turn, each for its length in all. A baseline has
/// `threads` callers, or as many as it can.
///
/// # Errors
/// A text: the profile has several operations or phases, threads could not be started, or a baseline got nothing done.
///
/// # Blocking
/// As [`run`], once for each side.
pub fn in_turns(
    engine: &Arc<Engine>,
    profile: &Profile,
    works: &Arc<Works>,
    (rivals, threads): (&[Rival<'_>], usize),
    mut watch: impl FnMut(Option<&Interval>) -> Flow,
) -> Result<Turns, String> {
    let ([_], [phase]) = (&profile.operations[..], &profile.phases[..]) else {
        return Err("baselines do one operation at one rate: the profile has more".to_owned());
    };
    let part = profile.clone().for_time(phase.length / ROUNDS)?;
    let others = rivals.iter().map(|_| Vec::new()).collect();
    let mut sides = Sides { engine: Vec::new(), others, was_stopped: false };
    for turn in 0..ROUNDS as usize * (rivals.len() + 1) {
        sides.was_stopped |= watch(None) == Flow::Stop;
        if sides.was_stopped {
            break;
        }
        let round = turn / (rivals.len() + 1);
        let part = Profile { seed: (profile.seed + round as u64) % (1 << 63), ..part.clone() };
        match (turn + round) % (rivals.len() + 1) {
            0 => {
                let begun = part.length() * u32::try_from(round).unwrap_or(u32::MAX);
                let told = |ended: Option<&Interval>| watch(ended.map(|it| it.later(begun)).as_ref());
                let outcome = run(engine, part, works, told)?;
                sides.was_stopped |= outcome.was_stopped;
                sides.engine.push(outcome);
            }
            rival => {
                let baseline = &*rivals[rival - 1].baseline;
                let done = alone(baseline, part, threads, || watch(None) == Flow::Stop)?;
                sides.was_stopped |= done.was_stopped;
                sides.others[rival - 1].push(done);
            }
        }
    }
    sides.told(profile, &part, rivals.iter().map(|rival| rival.name), threads)
}

/// Threads of a baseline make the requests of a profile; `is_over` is asked on this thread whether they are to stop.
fn alone(
    baseline: &dyn Baseline,
    part: Profile,
    threads: usize,
    mut is_over: impl FnMut() -> bool,
) -> Result<Part, String> {
    let callers = u32::try_from(threads.clamp(1, baseline.threads_max().max(1))).unwrap_or(u32::MAX);
    let common = Common::new(Profile { callers, ..part });
    let caller = |caller: u32| {
        let mut message = baseline.inputs().message(caller as usize);
        let mut work = baseline.caller(caller as usize);
        common.serve(caller, || (0, work(message.advance())));
    };
    let (common, caller) = (&common, &caller);
    let mut was_stopped = false;
    let panicked = std::thread::scope(|scope| {
        let start = |number| std::thread::Builder::new().spawn_scoped(scope, move || caller(number));
        let started: Result<Vec<_>, _> = (0..callers).map(start).collect();
        let threads = started.inspect_err(|_| common.stop()).map_err(|error| error.to_string())?;
        while !threads.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            std::thread::park_timeout(LOOK);
            if is_over() {
                was_stopped = true;
                common.stop();
            }
            common.bound_backlog();
        }
        Ok::<_, String>(threads.into_iter().filter_map(|thread| thread.join().err()).count())
    })?;
    Ok(Part { all: common.recorder.take(), unbegun: common.take_unbegun(), panicked, was_stopped })
}

impl Sides {
    fn told(
        self,
        profile: &Profile,
        part: &Profile,
        names: impl Iterator<Item = BaselineName>,
        threads: usize,
    ) -> Result<Turns, String> {
        let was_stopped = self.was_stopped;
        let whole: Vec<_> = self.engine.iter().filter(|part| !part.was_stopped).collect();
        let mut rounds: Vec<_> = whole.iter().map(|it| rate(&it.all.of(|_, _| true), part)).collect();
        let finished = self.others.iter().map(|parts| parts.iter().filter(|part| !part.was_stopped).count());
        rounds.truncate(finished.min().unwrap_or(rounds.len()));
        let mut notes = vec![format!("baselines had {threads} threads, or as many as they can")];
        let mut baselines = Vec::new();
        for (name, parts) in names.zip(&self.others) {
            baselines.push(baseline(name, parts, &rounds, part, &mut notes)?);
        }
        let outcome = joined(self.engine, part).ok_or("stopped before anything was measured")?;
        let outcome = Outcome { profile: profile.clone(), was_stopped, ..outcome };
        Ok(Turns { outcome, baselines, rounds, notes })
    }
}

/// What is told of a baseline beside an engine that had these rates, by round.
fn baseline(
    name: BaselineName,
    parts: &[Part],
    engine: &[f64],
    part: &Profile,
    notes: &mut Vec<String>,
) -> Result<BaselineRun, String> {
    let counts: Vec<_> = parts.iter().map(|of| of.all.of(|_, _| true)).collect();
    let rates: Vec<_> = counts.iter().take(engine.len()).map(|counts| rate(counts, part)).collect();
    let pairs = engine.iter().zip(&rates).filter(|(_, rate)| **rate > 0.0);
    let ratios: Vec<_> = pairs.map(|(engine, rate)| engine / rate).collect();
    let mut all = Counts::default();
    counts.iter().for_each(|counts| all.add(counts));
    let failure = parts.iter().flat_map(|of| of.all.failures()).next().map(|(_, failures)| &failures.first);
    match failure {
        Some(first) if all.ops == 0 => return Err(format!("{name}: {first}")),
        Some(first) => notes.push(format!("{name}: {} errors, the first: {first}", all.errors)),
        None => {}
    }
    if ratios.len() < engine.len() {
        notes.push(format!(
            "{name}: of {} rounds {} had no ratio",
            engine.len(),
            engine.len() - ratios.len()
        ));
    }
    let sum = |count: fn(&Part) -> u64| parts.iter().map(count).sum::<u64>();
    match (sum(|part| part.unbegun), sum(|part| part.panicked as u64)) {
        (0, 0) => {}
        (unbegun, panicked) => notes.push(format!(
            "{name}: {unbegun} requests were due and were never begun, of which there is no latency; {panicked} threads panicked"
        )),
    }
    let at = |share| if all.latency.is_empty() { 0 } else { all.latency.value_at_quantile(share) };
    Ok(BaselineRun {
        name: name.as_str().to_owned(),
        ops_per_s: median(&rates).unwrap_or_default(),
        ratio: median(&ratios).unwrap_or_default(),
        interval: median_interval(&ratios).map(|interval| [interval.low, interval.high]),
        p50_ns: at(0.5),
        p99_ns: at(0.99),
    })
}

fn rate(counts: &Counts, part: &Profile) -> f64 {
    counts.done_in_time as f64 / part.length().as_secs_f64()
}

/// The parts of an engine, as if each had begun where the one before was to end.
fn joined(parts: Vec<Outcome>, part: &Profile) -> Option<Outcome> {
    let length = part.length();
    let begins = (0_u32..).map(|number| length * number);
    parts.into_iter().zip(begins).map(|(part, begins)| part.beginning(begins, length)).reduce(Outcome::and)
}

impl Interval {
    /// As part of a run that had gone on for so long before.
    fn later(&self, by: Duration) -> Self {
        Self { from: self.from + by, until: self.until + by, ..self.clone() }
    }
}

impl Outcome {
    /// As part of a run that had gone on for so long before, and was meant to last so long.
    fn beginning(self, by: Duration, length: Duration) -> Self {
        let at_s = by.as_secs_f64();
        let later = |it: result::Interval| result::Interval { at_s: it.at_s + at_s, ..it };
        Self {
            all: self.all.later(by),
            intervals: self.intervals.into_iter().map(later).collect(),
            length: by + self.length.min(length),
            ..self
        }
    }

    /// This and what was measured after it.
    fn and(mut self, next: Self) -> Self {
        self.all.add(&next.all);
        self.intervals.extend(next.intervals);
        self.length = next.length;
        self.was_stopped |= next.was_stopped;
        self.unbegun += next.unbegun;
        self.cpu += next.cpu;
        self.snapshots.extend(next.snapshots);
        self.panicked += next.panicked;
        self.tasks_busy = self.tasks_busy.max(next.tasks_busy);
        self
    }
}

#[cfg(test)]
mod tests;
