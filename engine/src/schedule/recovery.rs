//! Bringing a lost token back: when it is tried, and when no more.

use std::time::Duration;

use crate::clock::{Time, ns};
use crate::metrics::Health;
use crate::sync::Mutex;

/// The first pause between two attempts, and the longest. An attempt at a token that is not there is a call or two.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Attempts after which a token that fails is lost for good: its sessions are closed, and it is logged in to anew.
const FAILING_TRIES: u32 = 3;

/// Attempts after which its module is to be initialised anew, where that may help.
const RESET_TRIES: u32 = 5;

/// How long the sessions of a lost token are waited for. Their calls fail at once where the token is away; what takes so long hangs.
const IN_USE_MAX: Duration = Duration::from_secs(2);

/// Whether a token serves, and if not, what is done about it. Decided here, carried out by the watcher and the token's
/// service thread.
#[derive(Debug, Default)]
pub(crate) struct Recovery(Mutex<State>);

#[derive(Clone, Copy, Debug)]
struct State {
    phase: Phase,
    /// A call of an attempt hangs, or one that hangs keeps the module from being initialised anew.
    stuck: bool,
    /// What it was asked has failed, although it is there.
    failing: bool,
    /// Attempts that have failed since it went out.
    vain: u32,
    /// Since when an attempt was due while sessions of before were in use.
    awaits: Option<Time>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Since then, after so many attempts.
    Serves { since: Time, tries: u32 },
    /// Out of service; the next attempt is made then.
    Out { tries: u32, next: Time, module_dead: bool },
    /// An attempt is under way since then.
    Tried { tries: u32, since: Time },
    /// Only a person can help: a PIN that was refused is not sent again.
    Given,
}

/// How an attempt ended that did not bring a token back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It is not there, or fails still.
    NotYet,
    /// A login was refused, or may have been.
    Refused,
    /// The module says that it is not initialised, or that it is broken.
    ModuleDead,
    /// The module was initialised anew.
    Reset,
    /// The module could not be, because somebody is still inside it.
    Stuck,
}

impl Default for State {
    fn default() -> Self {
        let phase = Phase::Serves { since: Time::from_ns(0), tries: 0 };
        Self { phase, stuck: false, failing: false, vain: 0, awaits: None }
    }
}

/// Who serves for so long is really back: one that is lost sooner is looked for as if it had not been there, so that a
/// token that fails whatever it is asked is not logged in to again and again.
const SETTLED: Duration = Duration::from_secs(5);

impl Recovery {
    /// The token goes out of service: it is lost or, with `failing`, there and of no use. True if it was in service.
    pub(crate) fn lost(&self, failing: bool, now: Time) -> bool {
        let state = &mut *self.0.lock();
        state.failing &= failing;
        let Phase::Serves { since, tries } = state.phase else { return false };
        (state.failing, state.vain, state.awaits) = (failing, 0, None);
        let settled = tries == 0 || now.ns_since(since) >= ns(SETTLED);
        let (tries, next) = match settled {
            // One that fails is there: it gets time to do better.
            true if failing => (0, now.after(pause(0, now.as_ns()))),
            true => (0, now),
            false => (tries, now.after(pause(tries - 1, now.as_ns()))),
        };
        state.phase = Phase::Out { tries, next, module_dead: false };
        true
    }

    /// Whether an attempt is to be made now; then it is under way. Not while a session of before is `in_use`: its numbers
    /// come again in what the attempt opens, and a thread that lost its core before a call would make that call in another's
    /// session. A call that hangs is not waited for: after [`IN_USE_MAX`] in all the attempts go on without it.
    pub(crate) fn begins(&self, in_use: bool, now: Time) -> bool {
        let state = &mut *self.0.lock();
        let Phase::Out { tries, next, .. } = state.phase else { return false };
        if next > now {
            return false;
        }
        if in_use && now.ns_since(*state.awaits.get_or_insert(now)) <= ns(IN_USE_MAX) {
            return false;
        }
        state.phase = Phase::Tried { tries, since: now };
        true
    }

    /// An attempt has failed. `dice` is any number: attempts of many engines are not made at once.
    pub(crate) fn failed(&self, ended: Ended, now: Time, dice: u64) {
        let state = &mut *self.0.lock();
        state.stuck = ended == Ended::Stuck;
        let Phase::Tried { tries, .. } = state.phase else { return };
        state.vain = state.vain.saturating_add(1);
        let next = if ended == Ended::Reset { now } else { now.after(pause(tries, dice)) };
        state.phase = match ended {
            Ended::Refused => Phase::Given,
            _ => Phase::Out { tries: tries.saturating_add(1), next, module_dead: ended == Ended::ModuleDead },
        };
    }

    /// The token serves again. True if it had failed, and was not lost.
    pub(crate) fn back(&self, now: Time) -> bool {
        let state = &mut *self.0.lock();
        let tries = if let Phase::Tried { tries, .. } = state.phase { tries.saturating_add(1) } else { 1 };
        let failing = state.failing;
        *state = State { phase: Phase::Serves { since: now, tries }, ..State::default() };
        failing
    }

    /// An attempt that has been under way for so long hangs.
    pub(crate) fn look(&self, hang_ns: u64, now: Time) {
        let state = &mut *self.0.lock();
        if let Phase::Tried { since, .. } = state.phase {
            state.stuck |= now.ns_since(since) > hang_ns;
        }
    }

    /// Whether it has failed so often, while it was there, that it is taken for lost.
    pub(crate) fn is_to_be_lost(&self) -> bool {
        let state = *self.0.lock();
        matches!(state.phase, Phase::Out { .. }) && state.failing && state.vain >= FAILING_TRIES
    }

    /// Whether initialising its module anew may help: it is out of service, and attempts have failed. That of a token
    /// that is given up helps nobody, and hinders nobody.
    pub(crate) fn wants_reset(&self) -> Wants {
        let state = *self.0.lock();
        match state.phase {
            Phase::Out { module_dead: true, .. } => Wants::Now,
            Phase::Out { .. } if state.vain >= RESET_TRIES => Wants::Too,
            Phase::Given => Wants::Nothing,
            Phase::Serves { .. } | Phase::Out { .. } | Phase::Tried { .. } => Wants::No,
        }
    }

    /// Its module is about to be initialised anew: no other attempt is made until [`Recovery::failed`] says how that
    /// ended.
    pub(crate) fn begins_reset(&self, now: Time) {
        let state = &mut *self.0.lock();
        if let Phase::Out { tries, .. } = state.phase {
            state.phase = Phase::Tried { tries, since: now };
        }
    }

    /// Whether it serves, and has for so long.
    pub(crate) fn has_served_for(&self, time: Duration, now: Time) -> bool {
        matches!(self.0.lock().phase, Phase::Serves { since, .. } if now.ns_since(since) >= ns(time))
    }

    /// How it stands.
    pub(crate) fn health(&self) -> Health {
        let state = *self.0.lock();
        match state.phase {
            Phase::Serves { .. } => Health::Serving,
            Phase::Given => Health::GivenUp,
            Phase::Out { .. } | Phase::Tried { .. } if state.stuck => Health::Stuck,
            Phase::Out { .. } | Phase::Tried { .. } if state.failing => Health::Failing,
            Phase::Out { .. } | Phase::Tried { .. } => Health::Lost,
        }
    }
}

/// What a token says to initialising its module anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wants {
    /// Its module is dead.
    Now,
    /// If the others want it too.
    Too,
    /// It does not matter to it.
    Nothing,
    No,
}

/// Doubles with every attempt, of which between half and all is waited.
fn pause(tries: u32, dice: u64) -> Duration {
    let whole = PAUSE_FIRST.saturating_mul(1 << tries.min(10)).min(PAUSE_MAX);
    let half = whole / 2;
    let part = u32::try_from(dice % 1_000).unwrap_or(0);
    half + half * part / 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time::from_ns(1 + ms * 1_000_000)
    }

    /// How long after `from` an attempt begins, in milliseconds.
    fn begins_after(recovery: &Recovery, from: u64) -> u64 {
        (0..10_000).find(|ms| recovery.begins(false, at(from + ms))).unwrap_or(u64::MAX)
    }

    #[test]
    fn a_lost_token_is_tried_at_once_and_then_ever_more_rarely() {
        let recovery = Recovery::default();
        assert!(!recovery.begins(false, at(0)));
        assert!(recovery.lost(false, at(0)) && !recovery.lost(false, at(0)));
        let (mut now, mut pauses) = (0, Vec::new());
        for _ in 0..8 {
            let pause = begins_after(&recovery, now);
            pauses.push(pause);
            now += pause;
            assert!(!recovery.begins(false, at(now)), "one at a time");
            // The lowest dice: half of the pause.
            recovery.failed(Ended::NotYet, at(now), 0);
        }
        assert_eq!(pauses, [0, 50, 100, 200, 400, 800, 1_000, 1_000]);
    }

    #[test]
    fn what_has_sessions_in_use_is_looked_for_when_they_are_closed_or_have_been_in_use_for_too_long() {
        let recovery = Recovery::default();
        recovery.lost(false, at(0));
        assert!(!recovery.begins(true, at(0)) && !recovery.begins(true, at(2_000)));
        assert!(recovery.begins(true, at(2_001)), "somebody hangs in one");
        recovery.failed(Ended::NotYet, at(2_001), 0);
        assert!(recovery.begins(true, at(2_101)), "who hangs is waited for once");
        recovery.back(at(6_000));
        recovery.lost(false, at(20_000));
        assert!(!recovery.begins(true, at(20_000)));
        assert!(recovery.begins(false, at(20_001)), "at once when the last one is closed");
    }

    #[test]
    fn who_is_lost_again_at_once_is_looked_for_after_a_pause_and_who_has_settled_at_once() {
        let recovery = Recovery::default();
        recovery.lost(false, at(0));
        assert_eq!(begins_after(&recovery, 0), 0);
        recovery.back(at(0));
        recovery.lost(false, at(10));
        assert!((50..=100).contains(&begins_after(&recovery, 10)));
        recovery.back(at(200));
        recovery.lost(false, at(5_199));
        assert!((100..=200).contains(&begins_after(&recovery, 5_199)));
        recovery.back(at(6_000));
        recovery.lost(false, at(11_000));
        assert_eq!(begins_after(&recovery, 11_000), 0);
    }

    #[test]
    fn dice_spread_attempts_over_half_of_the_pause() {
        assert_eq!(pause(0, 0), Duration::from_millis(50));
        assert_eq!(pause(3, 500), Duration::from_millis(600));
        assert_eq!(pause(60, 0), Duration::from_secs(1));
    }

    #[test]
    fn after_a_login_was_refused_nothing_is_tried() {
        let recovery = Recovery::default();
        recovery.lost(false, at(0));
        assert!(recovery.begins(false, at(0)));
        recovery.failed(Ended::Refused, at(0), 0);
        assert!(recovery.health() == Health::GivenUp && !recovery.begins(false, at(1_000_000)));
    }

    /// Tries so often, in vain, from a second on: every ten seconds, which is longer than any pause.
    fn try_in_vain(recovery: &Recovery, from: u64, times: u64, ended: Ended) {
        for second in (from..).step_by(10).take(times.try_into().unwrap()) {
            assert!(recovery.begins(false, at(1_000 * second)));
            recovery.failed(ended, at(1_000 * second), 0);
        }
    }

    #[test]
    fn one_that_fails_is_tried_after_a_pause_and_taken_for_lost_after_three_attempts() {
        let recovery = Recovery::default();
        recovery.lost(true, at(0));
        assert!(!recovery.begins(false, at(0)) && recovery.health() == Health::Failing);
        try_in_vain(&recovery, 10, 2, Ended::NotYet);
        assert!(!recovery.is_to_be_lost());
        try_in_vain(&recovery, 100, 1, Ended::NotYet);
        assert!(recovery.is_to_be_lost());
        recovery.lost(false, at(1_000_000));
        assert!(!recovery.is_to_be_lost() && recovery.health() == Health::Lost);
        assert!(!recovery.back(at(1_000_000)), "it was lost in the end");
    }

    #[test]
    fn a_reset_is_wanted_at_once_where_the_module_is_dead_and_else_after_five_attempts() {
        let (dead, lost) = (Recovery::default(), Recovery::default());
        assert_eq!(dead.wants_reset(), Wants::No);
        dead.lost(false, at(0));
        try_in_vain(&dead, 10, 1, Ended::ModuleDead);
        assert_eq!(dead.wants_reset(), Wants::Now);
        lost.lost(false, at(0));
        try_in_vain(&lost, 10, 4, Ended::NotYet);
        assert_eq!(lost.wants_reset(), Wants::No);
        try_in_vain(&lost, 100, 1, Ended::NotYet);
        assert_eq!(lost.wants_reset(), Wants::Too);
        lost.begins_reset(at(0));
        assert!(lost.wants_reset() == Wants::No && !lost.begins(false, at(1_000_000)));
        lost.failed(Ended::Reset, at(1_000_000), 0);
        assert!(lost.begins(false, at(1_000_000)), "the module is there anew: so is the token, perhaps");
        lost.failed(Ended::Refused, at(1_000_000), 0);
        assert_eq!(lost.wants_reset(), Wants::Nothing);
    }

    #[test]
    fn an_attempt_that_does_not_come_back_is_stuck_until_it_does() {
        let recovery = Recovery::default();
        recovery.lost(false, at(0));
        assert!(recovery.begins(false, at(0)));
        recovery.look(5_000_000_000, at(5_000));
        assert_eq!(recovery.health(), Health::Lost);
        recovery.look(5_000_000_000, at(5_001));
        assert_eq!(recovery.health(), Health::Stuck);
        recovery.failed(Ended::NotYet, at(6_000), 0);
        assert_eq!(recovery.health(), Health::Lost);
    }
}
