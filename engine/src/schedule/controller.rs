//! How many sessions of a scope are in use: decided from what they did, by trial.
//!
//! Nobody can tell from outside how many calls a device runs at once, so the controller tries. It compares two
//! windows, one with the sessions that are in use and one with more or fewer, by two figures:
//!
//! - **work**: operations per second, each weighed by what its kind of plan takes at its best on this device. In
//!   this unit a session that is never held up does 1, whether its operations take 6 us or 4 ms, so a mix that
//!   changes between two windows does not look like a change of the device;
//! - **busy**: the time that sessions spent inside calls, per second: how many were in there at a time. `busy / work`
//!   is the latency as a ratio to its floor.
//!
//! The other number is better if `work / busy^(1/4)` is higher: sessions that are really used must bring at least a
//! quarter of their share. Two that share a mutex bring nothing and are one too many; two on two cores bring nearly
//! twice as much and stay. More sessions are also better if calls get no slower and the wait is at most half:
//! where callers are fewer than the device could serve, throughput is theirs and tells nothing.
//!
//! - **Growth** is tried only while work waited for sessions that are used. It doubles as long as that pays and calls are about as fast as
//!   they ever were (a device with 64 cores is filled within some fifteen calls' time from a cold start), else it adds
//!   a quarter.
//! - **Shrinking** is tried when all sessions are used, by a quarter, or further, to where the latency says that
//!   nothing is lost; then the old number is measured once more, for a wrong step down costs most. Sessions that idle cost nothing, so nothing is done about them.
//! - Whatever was tried in vain is tried again later and later, up to [`HOLD_MAX_NS`], but soon again if the
//!   rate of the same sessions jumps: then the device or its neighbours have changed.
//! - **Push-back**: when calls fail because the device is busy or throttles, a third of the sessions goes at once,
//!   and more only if that has helped: errors that have another cause do not take all sessions.
//!
//! No threads and no clock: `now` is passed in. `scope.rs` feeds it and carries out what it decides.

#[cfg(test)]
mod device;
mod tally;
#[cfg(test)]
mod tests;

use crate::clock::Time;
use tally::{Tally, Weights};

pub(crate) use tally::Totals;

/// Decides for one scope.
#[derive(Debug)]
pub(crate) struct Controller {
    floor: usize,
    ceiling: usize,
    in_use: usize,
    /// No more can be had at present.
    most: usize,
    /// What operations take at their best.
    weights: Weights,
    trial: Option<Trial>,
    /// Fewer sessions looked better: a second look at the old number decides.
    doubt: Option<Doubt>,
    /// Where the window began; none while the last change settles.
    window: Option<Mark>,
    /// When a change was made that has to settle, and since when the sessions for it are open.
    changed: Time,
    ready: Option<Time>,
    /// What a call took in the last window.
    mean_ns: u64,
    growth: Hold,
    shrinking: Hold,
    /// Doubling has not failed yet.
    fast: bool,
    /// Work of the last window that was full, without a trial.
    last_work: Option<f64>,
    /// Share of calls that were pushed back when sessions were last taken away because of it.
    cut: Option<f64>,
    decisions: [u64; Adjustment::ALL.len()],
}

/// What the controller of a scope has done about its sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Adjustment {
    /// More sessions were tried and kept.
    Grew,
    /// More sessions were tried, and brought no more work.
    NoGain,
    /// Fewer sessions were tried and kept.
    Shrank,
    /// Fewer sessions were tried, and work was lost.
    Loss,
    /// A trial ended without a verdict, because the load fell.
    Abandoned,
    /// Calls failed because the device was busy or throttled: sessions were taken out of use.
    PushedBack,
    /// The token gave no more sessions.
    Refused,
}

/// Another number of sessions is tried.
#[derive(Debug)]
struct Trial {
    /// Sessions in use before.
    from: usize,
    before: Tally,
}

/// What fewer sessions did.
#[derive(Debug)]
struct Doubt {
    fewer: usize,
    with_fewer: Tally,
}

/// The beginning of a window.
#[derive(Debug)]
struct Mark {
    at: Time,
    totals: Totals,
}

/// When a direction is tried again.
#[derive(Clone, Copy, Debug)]
struct Hold {
    until: Time,
    wait_ns: u64,
}

/// What can be said of the scope's sessions at a moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sessions {
    /// Those that are open, in use or not.
    pub(crate) open: usize,
    /// No more can be had at present, as far as is known.
    pub(crate) most: usize,
}

/// A used session must bring this part of its proportional share. On SoftHSM2 the second session brings 0.9 for
/// RSA, 0 to 0.6 for ECDSA by the minute, 0.3 for HMAC under a token key, and less than 0 under session copies; the
/// third brings 0.1 at most.
const SHARE: f64 = 0.25;

/// What is less than this better is noise.
const NOISE: f64 = 1.02;

/// Calls are about as fast as ever: doubling is worth a try.
const UNHURRIED: f64 = 1.3;

/// Shortest windows: while doubling, and else. A busy host takes a thread off its core for 3 to 10 ms at a time.
const FAST_WINDOW_NS: u64 = 10_000_000;
const WINDOW_NS: u64 = 50_000_000;

/// Windows hold about so many calls of each session, so that one more or less is not seen.
const FAST_WINDOW_CALLS: u64 = 8;
const WINDOW_CALLS: u64 = 30;

/// Longest window. Operations that take longer still are rare enough to be judged by a few.
const WINDOW_MAX_NS: u64 = 1_000_000_000;

/// A change has settled after so long, and two calls.
const SETTLE_NS: u64 = 4_000_000;

/// Longest time that sessions which are being opened are waited for.
const OPENING_MAX_NS: u64 = 2_000_000_000;

/// How long a direction that was tried in vain is left alone: at first, and at most. A trial of fewer lasts about 60 ms
/// and costs a part of the throughput meanwhile: at the most 1 in 250 of it. One of more costs hardly anything.
const GROWTH_HOLD_NS: u64 = 100_000_000;
const SHRINKING_HOLD_NS: u64 = 2_000_000_000;
pub(crate) const HOLD_MAX_NS: u64 = 15_000_000_000;

/// Share of calls above which push-back counts: below it, it is somebody's broken request.
const PUSHED_BACK_MAX: f64 = 0.01;

/// So many calls that were pushed back need no more to be believed.
const PUSHED_BACK_CALLS: u64 = 16;

/// A load that was tried on has ended when nothing came back for so long, and four calls' time.
const IDLE_NS: u64 = 50_000_000;

/// Looks are so far apart at least and at most while there is work.
const LOOK_MIN_NS: u64 = 5_000_000;
const LOOK_MAX_NS: u64 = 50_000_000;

impl Controller {
    /// Keeps between `floor` and `ceiling` sessions in use, and begins with `start`.
    pub(crate) fn new(floor: usize, ceiling: usize, start: usize) -> Self {
        let floor = floor.max(1);
        let ceiling = ceiling.max(floor);
        Self {
            floor,
            ceiling,
            in_use: start.clamp(floor, ceiling),
            most: ceiling,
            weights: Weights::default(),
            trial: None,
            doubt: None,
            window: None,
            changed: Time::from_ns(0),
            ready: None,
            mean_ns: 0,
            growth: Hold::new(GROWTH_HOLD_NS),
            shrinking: Hold::new(SHRINKING_HOLD_NS),
            fast: true,
            last_work: None,
            cut: None,
            decisions: [0; Adjustment::ALL.len()],
        }
    }

    /// Looks at what the scope's sessions have done since they were there, and decides. Returns after how many
    /// nanoseconds to look again; `None` if there is no work, so that any time will do.
    pub(crate) fn look(&mut self, now: Time, totals: &Totals, sessions: Sessions) -> Option<u64> {
        self.bound(now, sessions.most);
        let Some(mark) = &self.window else {
            return self.settle(now, totals, sessions.open);
        };
        let tally = Tally::between(&mark.totals, totals, now.ns_since(mark.at));
        if tally.calls + tally.pushed_back == 0 {
            if tally.elapsed_ns > IDLE_NS.max(self.mean_ns.saturating_mul(4))
                && let Some(trial) = self.trial.take()
            {
                self.abandon(&trial, now);
            }
            return None;
        }
        // Push-back is not waited out.
        if tally.pushed_back >= PUSHED_BACK_CALLS && self.give_way(now, &tally) {
            return Some(LOOK_MIN_NS);
        }
        let window_ns = self.window_ns(&tally);
        if tally.elapsed_ns < window_ns {
            return Some((window_ns / 4).clamp(LOOK_MIN_NS, LOOK_MAX_NS));
        }
        self.weights.learn(&tally);
        self.mean_ns = tally.mean_ns();
        self.window = Some(Mark { at: now, totals: totals.clone() });
        self.judge(now, tally);
        Some(LOOK_MIN_NS)
    }

    /// Sessions that may be used.
    pub(crate) const fn in_use(&self) -> usize {
        self.in_use
    }

    /// Fewest and most sessions that it may put in use.
    pub(crate) const fn bounds(&self) -> (usize, usize) {
        (self.floor, self.ceiling)
    }

    /// Whether there is nothing to decide.
    pub(crate) const fn is_fixed(&self) -> bool {
        self.floor == self.ceiling
    }

    /// How often it did what.
    pub(crate) fn decisions(&self) -> impl Iterator<Item = (Adjustment, u64)> {
        Adjustment::ALL.into_iter().zip(self.decisions)
    }

    /// No more than `most` can be had.
    fn bound(&mut self, now: Time, most: usize) {
        self.most = most.clamp(self.floor, self.ceiling);
        if self.in_use > self.most {
            self.trial = None;
            self.doubt = None;
            self.growth.back_off(now);
            self.fast = false;
            self.decide(Adjustment::Refused, self.most, now);
        }
    }

    /// Begins a window when the last change has settled.
    fn settle(&mut self, now: Time, totals: &Totals, open: usize) -> Option<u64> {
        if self.ready.is_none() {
            let opening = open < self.in_use && now.ns_since(self.changed) < OPENING_MAX_NS;
            self.ready = (!opening).then_some(now);
        }
        // Calls of before end meanwhile.
        let settles_ns = SETTLE_NS + 2 * self.mean_ns.min(WINDOW_MAX_NS);
        if self.ready.is_some_and(|ready| now.ns_since(ready) >= settles_ns) {
            self.window = Some(Mark { at: now, totals: totals.clone() });
        }
        Some(LOOK_MIN_NS)
    }

    fn window_ns(&self, tally: &Tally) -> u64 {
        let (shortest_ns, calls) =
            if self.fast { (FAST_WINDOW_NS, FAST_WINDOW_CALLS) } else { (WINDOW_NS, WINDOW_CALLS) };
        tally.mean_ns().saturating_mul(calls).clamp(shortest_ns, WINDOW_MAX_NS)
    }

    /// A window is over.
    fn judge(&mut self, now: Time, tally: Tally) {
        if self.give_way(now, &tally) {
            return;
        }
        if tally.pushed_back_share() <= PUSHED_BACK_MAX {
            self.cut = None;
        }
        match self.trial.take() {
            None => match self.doubt.take() {
                Some(doubt) => self.settle_doubt(now, doubt, tally),
                None => self.rest(now, tally),
            },
            Some(trial) if self.in_use > trial.from => self.judge_growth(now, &trial, tally),
            Some(trial) => self.judge_shrinking(now, &trial, tally),
        }
    }

    /// Takes sessions out of use if the device pushes back.
    fn give_way(&mut self, now: Time, tally: &Tally) -> bool {
        let share = tally.pushed_back_share();
        if tally.pushed_back < 2 || share <= PUSHED_BACK_MAX {
            return false;
        }
        let grown = self.trial.as_ref().filter(|trial| trial.from < self.in_use);
        let has_other_cause = match (grown, self.cut) {
            // As many failed before.
            (Some(trial), _) => share <= trial.before.pushed_back_share() * 1.2,
            // Fewer sessions did not help.
            (None, Some(before)) => share > before * 0.9,
            (None, None) => false,
        };
        if has_other_cause {
            return false;
        }
        let fewer = self.in_use - self.in_use.div_ceil(3);
        let target = grown.map_or(fewer, |trial| trial.from).max(self.floor);
        self.trial = None;
        self.doubt = None;
        self.cut = Some(share);
        self.fast = false;
        self.growth.back_off(now);
        self.decide(Adjustment::PushedBack, target, now);
        true
    }

    /// No trial is under way: begins one if it is due and there is a reason.
    fn rest(&mut self, now: Time, tally: Tally) {
        let n = count(self.in_use);
        let (busy, waiting) = (tally.busy(), tally.waiting());
        // Sessions that are mostly outside calls are held up by this host, which more of them would not change. One
        // alone may be idle while its next caller wakes up.
        let used = busy >= n / 4.0 || self.in_use == 1;
        let waited = used && waiting >= n / 8.0 && busy + waiting > n;
        let work = tally.work(&self.weights);
        if waited || busy > n / 2.0 {
            let jumped = self.last_work.is_some_and(|last| work > last * 1.5 || work < last / 1.5);
            if jumped {
                self.growth = Hold::new(GROWTH_HOLD_NS);
                self.shrinking = Hold::new(SHRINKING_HOLD_NS);
            }
            self.last_work = Some(work);
        }
        let slow = busy > work * UNHURRIED;
        let (up, down) = (self.larger(slow), self.smaller(work));
        let grows = waited && up > self.in_use && self.growth.is_due(now);
        let shrinks = down < self.in_use && busy > count(down) * 0.95 && self.shrinking.is_due(now);
        match (grows, shrinks) {
            (true, false) => self.try_out(up, tally, now),
            (true, true) if !slow => self.try_out(up, tally, now),
            (_, true) => self.try_out(down, tally, now),
            (false, false) => {}
        }
    }

    /// The next larger number to try.
    fn larger(&self, slow: bool) -> usize {
        let step = if self.fast && !slow { self.in_use } else { self.in_use.div_ceil(4) };
        (self.in_use + step).min(self.most)
    }

    /// The next smaller number to try. By Little's law `work` sessions could do it if none were held up.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a number of sessions, of which the bounds are taken"
    )]
    fn smaller(&self, work: f64) -> usize {
        let enough = (work * 1.1).ceil() as usize;
        let step = self.in_use.div_ceil(4);
        if self.in_use == 1 {
            return 1;
        }
        enough.clamp(self.in_use.div_ceil(2), self.in_use - step).max(self.floor)
    }

    fn try_out(&mut self, target: usize, before: Tally, now: Time) {
        self.trial = Some(Trial { from: self.in_use, before });
        self.change(target, now);
    }

    fn judge_growth(&mut self, now: Time, trial: &Trial, tally: Tally) {
        if tally.demand() < 0.9 * count(trial.from) {
            return self.abandon(trial, now);
        }
        let eased = tally.waiting() <= trial.before.waiting() / 2.0
            && tally.slowness(&self.weights) <= trial.before.slowness(&self.weights) * 1.05
            && tally.work(&self.weights) >= trial.before.work(&self.weights) * 0.95;
        if eased || tally.is_better_than(&trial.before, &self.weights) {
            self.growth = Hold::new(GROWTH_HOLD_NS);
            self.shrinking = Hold::new(SHRINKING_HOLD_NS);
            self.fast = tally.slowness(&self.weights) <= UNHURRIED;
            self.last_work = None;
            self.decisions[Adjustment::Grew as usize] += 1;
            // What was measured is what the next trial is compared with.
            return self.rest(now, tally);
        }
        self.fast = false;
        self.growth.back_off(now);
        self.decide(Adjustment::NoGain, trial.from, now);
    }

    fn judge_shrinking(&mut self, now: Time, trial: &Trial, tally: Tally) {
        if tally.demand() < 0.9 * count(self.in_use) {
            return self.abandon(trial, now);
        }
        if tally.is_better_than(&trial.before, &self.weights) {
            self.doubt = Some(Doubt { fewer: self.in_use, with_fewer: tally });
            return self.change(trial.from, now);
        }
        self.shrinking.back_off(now);
        self.decide(Adjustment::Loss, trial.from, now);
    }

    /// The old number of sessions has been measured again: fewer must be better than both times.
    fn settle_doubt(&mut self, now: Time, doubt: Doubt, tally: Tally) {
        let Doubt { fewer, with_fewer } = doubt;
        if tally.demand() < 0.9 * count(self.in_use) {
            self.decisions[Adjustment::Abandoned as usize] += 1;
        } else if with_fewer.is_better_than(&tally, &self.weights) {
            self.shrinking = Hold::new(SHRINKING_HOLD_NS);
            self.growth.back_off(now);
            self.decide(Adjustment::Shrank, fewer, now);
        } else {
            self.shrinking.back_off(now);
            self.decisions[Adjustment::Loss as usize] += 1;
            self.rest(now, tally);
        }
    }

    fn abandon(&mut self, trial: &Trial, now: Time) {
        self.decide(Adjustment::Abandoned, trial.from, now);
    }

    fn decide(&mut self, what: Adjustment, target: usize, now: Time) {
        self.decisions[what as usize] += 1;
        self.change(target, now);
    }

    fn change(&mut self, target: usize, now: Time) {
        self.in_use = target.clamp(self.floor, self.ceiling);
        self.window = None;
        self.ready = None;
        self.last_work = None;
        self.changed = now;
    }
}

impl Hold {
    const fn new(wait_ns: u64) -> Self {
        Self { until: Time::from_ns(0), wait_ns }
    }

    fn is_due(self, now: Time) -> bool {
        now >= self.until
    }

    fn back_off(&mut self, now: Time) {
        self.until = Time::from_ns(now.as_ns().saturating_add(self.wait_ns));
        self.wait_ns = (self.wait_ns * 2).min(HOLD_MAX_NS);
    }
}

impl Adjustment {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Grew,
        Self::NoGain,
        Self::Shrank,
        Self::Loss,
        Self::Abandoned,
        Self::PushedBack,
        Self::Refused,
    ];

    /// The name in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Grew => "grew",
            Self::NoGain => "no-gain",
            Self::Shrank => "shrank",
            Self::Loss => "loss",
            Self::Abandoned => "abandoned",
            Self::PushedBack => "pushed-back",
            Self::Refused => "refused",
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a number of sessions")]
const fn count(sessions: usize) -> f64 {
    sessions as f64
}
