//! What the sessions of a scope did in a window.

use super::{NOISE, SHARE};
use crate::schedule::cost::PLANS;

/// What the sessions have done since they were there.
#[derive(Clone, Debug)]
pub(crate) struct Totals {
    /// By kind of plan: operations, and nanoseconds inside the module for them.
    pub(crate) plans: Box<[(u64, u64); PLANS]>,
    /// Time that requests had queued before they were begun.
    pub(crate) queued_ns: u64,
    /// Calls that failed because the device was busy or throttled.
    pub(crate) pushed_back: u64,
}

/// What they did in a window.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) elapsed_ns: u64,
    /// Operations that succeeded.
    pub(super) calls: u64,
    pub(super) pushed_back: u64,
    plans: Vec<Done>,
    busy_ns: u64,
    queued_ns: u64,
}

/// Operations of one kind of plan.
#[derive(Clone, Copy, Debug)]
struct Done {
    plan: usize,
    calls: u64,
    ns: u64,
}

/// What an operation of each kind of plan takes at its best, in nanoseconds; 0 for those not seen.
#[derive(Debug)]
pub(super) struct Weights(Box<[f64; PLANS]>);

/// The best is forgotten this fast, window by window: a device that has become slower for good is known after some
/// seconds of load, and a neighbour that comes and goes changes little.
const FORGET: f64 = 1.0 / 64.0;

impl Default for Totals {
    fn default() -> Self {
        Self { plans: Box::new([(0, 0); PLANS]), queued_ns: 0, pushed_back: 0 }
    }
}

impl Default for Weights {
    fn default() -> Self {
        Self(Box::new([0.0; PLANS]))
    }
}

impl Weights {
    pub(super) fn learn(&mut self, tally: &Tally) {
        for done in &tally.plans {
            let (weight, mean) = (&mut self.0[done.plan], real(done.ns) / real(done.calls));
            *weight = match *weight {
                0.0 => mean,
                best => mean.min(best + (mean - best) * FORGET),
            };
        }
    }
}

impl Tally {
    pub(super) fn between(before: &Totals, after: &Totals, elapsed_ns: u64) -> Self {
        let gained = before.plans.iter().zip(after.plans.iter()).enumerate();
        let plans: Vec<_> = gained
            .map(|(plan, (before, after))| Done {
                plan,
                calls: after.0.saturating_sub(before.0),
                ns: after.1.saturating_sub(before.1),
            })
            .filter(|done| done.calls > 0)
            .collect();
        Self {
            elapsed_ns: elapsed_ns.max(1),
            calls: plans.iter().map(|done| done.calls).sum(),
            pushed_back: after.pushed_back.saturating_sub(before.pushed_back),
            busy_ns: plans.iter().map(|done| done.ns).sum(),
            queued_ns: after.queued_ns.saturating_sub(before.queued_ns),
            plans,
        }
    }

    /// What a call took.
    pub(super) fn mean_ns(&self) -> u64 {
        self.busy_ns / self.calls.max(1)
    }

    /// Sessions inside calls, on average.
    pub(super) fn busy(&self) -> f64 {
        real(self.busy_ns) / real(self.elapsed_ns)
    }

    /// Requests that waited for a session, on average (Little's law).
    pub(super) fn waiting(&self) -> f64 {
        real(self.queued_ns) / real(self.elapsed_ns)
    }

    /// Requests that were there, on average.
    pub(super) fn demand(&self) -> f64 {
        self.busy() + self.waiting()
    }

    /// Sessions that could have done the same if none were ever held up.
    pub(super) fn work(&self, weights: &Weights) -> f64 {
        let work = |done: &Done| real(done.calls) * weights.0[done.plan];
        self.plans.iter().map(work).sum::<f64>() / real(self.elapsed_ns)
    }

    /// How much longer calls took than at their best: a ratio.
    pub(super) fn slowness(&self, weights: &Weights) -> f64 {
        self.busy() / self.work(weights).max(f64::MIN_POSITIVE)
    }

    pub(super) fn pushed_back_share(&self) -> f64 {
        real(self.pushed_back) / real((self.calls + self.pushed_back).max(1))
    }

    /// Whether the sessions that were used here paid better than those there.
    pub(super) fn is_better_than(&self, other: &Self, weights: &Weights) -> bool {
        let busy = self.busy() / other.busy().max(f64::MIN_POSITIVE);
        let work = self.work(weights) / other.work(weights).max(f64::MIN_POSITIVE);
        work >= busy.powf(SHARE) * NOISE
    }
}

#[expect(clippy::cast_precision_loss, reason = "52 bits are plenty for a ratio")]
const fn real(number: u64) -> f64 {
    number as f64
}
