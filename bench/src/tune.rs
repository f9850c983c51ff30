//! The search for the settings of an engine with which it does most, and of those that are as good the simplest.
//!
//! [`Tuner`] decides which setting is measured next and what comes of it; whoever drives it builds the engines and measures.
//! It looks at 1, 2, 4 ... sessions while more pay, then between them. A look only decides where to look on; what is chosen has
//! been compared in interleaved rounds (A B, B A, ...) by [`Verdict::paired`](crate::verdict::Verdict::paired). From the
//! fewest sessions on, the first setting that is not seen to be slower than the best of all looks is taken. Then each switch
//! is tried the other way round, and one that is not the default has to be faster with evidence. If one was, the
//! sessions are looked at once more. Last it is compared with the settings at start, which stay unless it is faster, or
//! simpler and surely not slower. So they do where the search ends before that comparison.
//!
//! Of 60 searches on each of the simulated devices of this module's tests, whose measurements vary by 2 % and in one of
//! fifty cases stall, fifty-seven at least end within one doubling of the right number of sessions and within 5 %
//! of what the best setting does.

mod advice;
mod duel;
mod plan;
mod setting;

use std::collections::HashMap;
use std::time::Duration;

use crate::knee::{Percentile, Point, Slo};
use crate::verdict::Verdict;
use plan::{Found, Plan};

pub use advice::{Advice, End, Gain, Tried};
pub use duel::{Duel, Outcome};
pub use setting::Setting;

/// What may be tried, and for how long.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Fewest sessions per token and instance. Default 1.
    pub sessions_min: usize,
    /// Most sessions per token and instance. Default 64, as [`hsmux::Sessions::AUTO`] has it. The settings at start are
    /// measured with what they have.
    pub sessions_max: usize,
    /// Most instances. Default 1, with which those of the start stay: whether a module may be loaded twice its maker says.
    pub instances_max: usize,
    /// Whether coalescing may be turned off. Default: yes.
    pub coalescing: bool,
    /// Whether warm copies may be turned off. Default: yes.
    pub copies: bool,
    /// What the latency has to be. Default: whatever it is. Settings that miss it lose against those that meet it.
    pub slo: Option<Slo>,
    /// Time for all measurements together, with what goes with them. Default 5 min.
    pub total: Duration,
    /// Shortest measurement. Default 50 ms.
    pub measure: Duration,
    /// Longest measurement, unless an objective needs more. Default 2 s: beyond that more rounds tell more.
    pub measure_max: Duration,
}

/// What to do next.
#[derive(Clone, Debug)]
pub enum Step {
    /// Measure an engine with this setting for so long, after a warm-up.
    Measure {
        /// The setting.
        setting: Setting,
        /// How long operations are counted.
        lasts: Duration,
    },
    /// The search is over.
    Done(Box<Advice>),
}

/// What has come of a measurement.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// How long it took in all, building and warming up included.
    pub took: Duration,
    /// What was measured, or why nothing was: the setting is not possible, or its operations fail.
    pub outcome: Result<Figures, String>,
}

/// What was measured with a setting, once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figures {
    /// Operations that succeeded, per second.
    pub ops_per_s: f64,
    /// Operations that succeeded.
    pub ops: u64,
    /// Operations that failed.
    pub errors: u64,
    /// Latencies of what succeeded, in nanoseconds: in the order of [`Percentile::ALL`].
    pub latencies_ns: [u64; Percentile::ALL.len()],
}

/// Decides which setting to measure next. It knows no clock: time is what samples say they took.
///
/// ```
/// use std::time::Duration;
/// use hsmux_bench::tune::{Figures, Limits, Sample, Setting, Step, Tuner};
///
/// let mut tuner = Tuner::new(Setting::default(), Limits::default());
/// let advice = loop {
///     match tuner.next() {
///         Step::Measure { setting, lasts } => tuner.measured(measure(setting, lasts)),
///         Step::Done(advice) => break advice,
///     }
/// };
/// assert_eq!(advice.best.map(|best| best.sessions), Some(4));
///
/// /// A device that does four operations at once, each within 1 ms.
/// fn measure(setting: Setting, lasts: Duration) -> Sample {
///     let ops_per_s = 1000.0 * setting.sessions.min(4) as f64;
///     let figures = Figures { ops_per_s, ops: 1_000, errors: 0, latencies_ns: [1_000_000; 5] };
///     Sample { took: lasts, outcome: Ok(figures) }
/// }
/// ```
#[derive(Debug)]
pub struct Tuner {
    start: Setting,
    limits: Limits,
    history: Vec<Visit>,
    spent: Duration,
    /// Verdicts that were reached, by where in the history their duel begins and after how many rounds: bootstraps take
    /// longer than all the rest.
    verdicts: HashMap<(usize, usize), Verdict>,
    found: Found,
}

/// A measurement that was made.
#[derive(Clone, Debug)]
struct Visit {
    setting: Setting,
    lasts: Duration,
    sample: Sample,
}

/// So many measurements a search takes with noise that keeps nearly every comparison open to its last round, and with
/// instances: each lasts that part of the time that there is. In this module's tests they take 110 to 250 on average.
const VISITS: u32 = 350;

impl Default for Limits {
    fn default() -> Self {
        Self {
            sessions_min: 1,
            sessions_max: 64,
            instances_max: 1,
            coalescing: true,
            copies: true,
            slo: None,
            total: Duration::from_secs(300),
            measure: Duration::from_millis(50),
            measure_max: Duration::from_secs(2),
        }
    }
}

impl Sample {
    /// Operations per second, if it worked.
    fn rate(&self) -> Option<f64> {
        self.outcome.as_ref().ok().map(|figures| figures.ops_per_s)
    }

    fn meets(&self, slo: Option<&Slo>) -> bool {
        let Ok(figures) = &self.outcome else { return false };
        slo.is_none_or(|slo| slo.is_met(&figures.point()))
    }
}

impl Figures {
    /// As objectives judge it. In a closed loop no rate is asked.
    const fn point(&self) -> Point {
        Point {
            asked_per_s: 0.0,
            ops_per_s: self.ops_per_s,
            ops: self.ops,
            errors: self.errors,
            kept_up: true,
            latencies_ns: self.latencies_ns,
        }
    }
}

impl Tuner {
    /// A search that has measured nothing yet. `start` is what there is now: what the advice is compared with at the end, and
    /// where the switches come from that may not be changed.
    #[must_use]
    pub fn new(start: Setting, limits: Limits) -> Self {
        let mut tuner = Self {
            start,
            limits,
            history: Vec::new(),
            spent: Duration::ZERO,
            verdicts: HashMap::new(),
            found: Found::default(),
        };
        tuner.think();
        tuner
    }

    /// Takes what was measured for the step that [`next`](Self::next) asks for. After the end it does nothing.
    pub fn measured(&mut self, sample: Sample) {
        let Step::Measure { setting, lasts } = self.next() else { return };
        self.spent = self.spent.saturating_add(sample.took);
        self.history.push(Visit { setting, lasts, sample });
        self.think();
    }

    /// What to do next: the same until something has been measured.
    #[must_use]
    pub fn next(&self) -> Step {
        let Some(setting) = self.found.need else { return Step::Done(Box::new(self.advice(End::Found))) };
        let (lasts, beside) = (self.lasts(setting), self.beside());
        let is_last = self.spent.saturating_add(lasts).saturating_add(beside) > self.limits.total;
        if is_last && !self.history.is_empty() {
            return Step::Done(Box::new(self.advice(End::OutOfTime)));
        }
        Step::Measure { setting, lasts }
    }

    /// What is known by now, if it is to end here: the settings at start, unless a comparison with them was won.
    #[must_use]
    pub fn stopped(&self) -> Advice {
        self.advice(if self.found.need.is_some() { End::Stopped } else { End::Found })
    }

    /// What seems best so far, with its operations per second. It is not advised before it has been compared with the start.
    #[must_use]
    pub fn best(&self) -> Option<(Setting, f64)> {
        let tried = self.tried();
        let best = self.seems_best(&tried)?;
        Some((best, tried.iter().find(|tried| tried.setting == best)?.per_s?))
    }

    /// Goes through the plan as far as what was measured leads.
    fn think(&mut self) {
        let mut plan = Plan::new(self.start, &self.limits, &self.history, &mut self.verdicts);
        let need = plan.go().err();
        self.found = plan.found(need);
    }

    /// How long the next measurement lasts: its part of the time, less what goes with it. At least half of that, for fewer
    /// measurements that say something are worth more than many that mostly build engines.
    fn lasts(&self, setting: Setting) -> Duration {
        let Limits { measure, measure_max, total, .. } = self.limits;
        let beside = self.beside();
        let lasts = (total / VISITS).saturating_sub(beside).max(beside / 2);
        let same = self.history.iter().rfind(|visit| visit.setting == setting);
        let needed = same.and_then(|visit| self.needed(visit)).unwrap_or_default();
        lasts.clamp(measure, measure_max.max(measure).max(needed))
    }

    /// How long a measurement with the rate of this one has to last to tell whether the objective is met.
    fn needed(&self, visit: &Visit) -> Option<Duration> {
        Some(self.limits.slo.as_ref()?.lasts(visit.sample.rate().filter(|&per_s| per_s > 0.0)?))
    }

    /// What goes with a measurement: building an engine, the warm-up.
    fn beside(&self) -> Duration {
        let beside = |visit: &Visit| visit.sample.took.saturating_sub(visit.lasts);
        let visits = u32::try_from(self.history.len()).unwrap_or(u32::MAX).max(1);
        self.history.iter().map(beside).sum::<Duration>() / visits
    }
}

#[cfg(test)]
mod tests;
