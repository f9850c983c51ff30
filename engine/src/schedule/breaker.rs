//! Whether a token that is there does what it is asked: when to try it, and when to take it out of service.
//!
//! Calls that the token itself fails count, never those that a caller's input or key makes fail. They take nothing out
//! by themselves, for whoever sends requests might be able to cause them: the token is tried, and what that yields
//! decides. Only where nothing at all succeeds does it go out although the trial went well.

use std::time::Duration;

use smallvec::SmallVec;

use crate::clock::{Time, ns};
use crate::error::ErrorKind;
use crate::sync::Mutex;
use crate::token::session::{Failed, Fate};

/// So many faults, and fewer successes, make a token suspect.
const FAULTS: u64 = 5;

/// Faults and successes are counted for so long, then anew.
const WINDOW: Duration = Duration::from_secs(10);

/// A trial is made at most so often.
const TRIAL_PAUSE: Duration = Duration::from_secs(1);

/// A trial that takes so long has failed: the calls that it makes take milliseconds where a token does well.
const TRIAL_MAX: Duration = Duration::from_secs(5);

/// A token that came back is taken out again at its first fault, unless something has succeeded; for so long.
const PROBATION: Duration = Duration::from_secs(5);

/// Of one token. Kept up by whoever meets a fault: what succeeds writes nothing here.
#[derive(Debug, Default)]
pub(crate) struct Breaker(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    window: Option<Window>,
    /// Since when.
    trial_under_way: Option<Time>,
    last_trial: Option<Time>,
    /// Since when, and how many operations had succeeded by then.
    probation: Option<(Time, u64)>,
}

#[derive(Debug)]
struct Window {
    since: Time,
    /// Operations that had succeeded by then.
    served: u64,
    faults: u64,
    /// Some of the lanes whose requests failed.
    lanes: SmallVec<[usize; 2]>,
}

/// What follows from a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Follows {
    Nothing,
    /// The token is to be tried; [`Breaker::tried`] wants to know.
    Trial,
    /// The token goes out of service.
    Out,
}

/// Whether a failure speaks against the token. A loss of the token or the login speaks for itself, and so does a wrong
/// answer. One that leaves the session as it was is about the key, or what was asked of it.
pub(crate) const fn speaks_against(failed: &Failed) -> bool {
    match failed.error.kind() {
        ErrorKind::Device | ErrorKind::Module => {
            !matches!(failed.fate, Fate::Keep | Fate::TokenDown(_) | Fate::Eject)
        }
        ErrorKind::SessionLost => matches!(failed.fate, Fate::Abandon),
        _ => false,
    }
}

impl Breaker {
    /// A request of a lane has failed in a way that [speaks against](speaks_against) the token, which has served so many
    /// operations in all.
    pub(crate) fn fault(&self, lane: usize, served: u64, now: Time) -> Follows {
        let state = &mut *self.0.lock();
        if let Some((since, before)) = state.probation.take()
            && now.ns_since(since) < ns(PROBATION)
            && served == before
        {
            state.window = None;
            return Follows::Out;
        }
        if state.trial_under_way.is_some_and(|since| now.ns_since(since) > ns(TRIAL_MAX)) {
            (state.window, state.trial_under_way) = (None, None);
            return Follows::Out;
        }
        let window = state.window.take().filter(|window| now.ns_since(window.since) < ns(WINDOW));
        let window = state.window.insert(window.unwrap_or_else(|| Window::new(served, now)));
        window.faults += 1;
        if !window.lanes.contains(&lane) && window.lanes.len() < 2 {
            window.lanes.push(lane);
        }
        let suspect = window.faults >= FAULTS && served - window.served < window.faults;
        let pauses = state.last_trial.is_some_and(|last| now.ns_since(last) < ns(TRIAL_PAUSE));
        if !suspect || pauses || state.trial_under_way.is_some() {
            return Follows::Nothing;
        }
        (state.trial_under_way, state.last_trial) = (Some(now), Some(now));
        Follows::Trial
    }

    /// The token was tried. True if it goes out of service.
    pub(crate) fn tried(&self, well: bool, served: u64) -> bool {
        let state = &mut *self.0.lock();
        state.trial_under_way = None;
        let window = state.window.take();
        // Two lanes, for one may be that of a key which is broken by itself.
        !well || window.is_some_and(|window| window.served == served && window.lanes.len() > 1)
    }

    /// The token serves again; `served` if it was out of service because of what it failed.
    pub(crate) fn back(&self, served: Option<u64>, now: Time) {
        let state = &mut *self.0.lock();
        state.window = None;
        state.probation = served.map(|served| (now, served));
    }
}

impl Window {
    fn new(served: u64, since: Time) -> Self {
        Self { since, served, faults: 0, lanes: SmallVec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time::from_ns(1 + ms * 1_000_000)
    }

    /// What so many faults in a row lead to, of lanes that take turns, while so much was served.
    fn faults(breaker: &Breaker, count: u64, lanes: usize, served: u64, now: Time) -> Vec<Follows> {
        (0..count).map(|n| breaker.fault(usize::try_from(n).unwrap() % lanes, served, now)).collect()
    }

    #[test]
    fn a_few_faults_have_the_token_tried_once_and_not_again_within_a_second() {
        let breaker = Breaker::default();
        let first = faults(&breaker, 5, 1, 100, at(0));
        assert_eq!(first, [[Follows::Nothing; 4].as_slice(), &[Follows::Trial]].concat());
        assert_eq!(faults(&breaker, 20, 1, 100, at(1)), [Follows::Nothing; 20]);
        assert!(!breaker.tried(true, 100), "one lane whose requests fail says nothing of the token");
        assert_eq!(faults(&breaker, 20, 1, 100, at(900)), [Follows::Nothing; 20]);
        assert_eq!(breaker.fault(0, 100, at(1_001)), Follows::Trial);
    }

    #[test]
    fn a_token_that_fails_the_trial_goes_out() {
        let breaker = Breaker::default();
        faults(&breaker, 5, 1, 100, at(0));
        assert!(breaker.tried(false, 100));
    }

    #[test]
    fn a_trial_that_does_not_end_has_failed() {
        let breaker = Breaker::default();
        faults(&breaker, 5, 1, 100, at(0));
        assert_eq!(breaker.fault(0, 100, at(5_000)), Follows::Nothing);
        assert_eq!(breaker.fault(0, 100, at(5_001)), Follows::Out);
    }

    #[test]
    fn where_more_succeeds_than_fails_nothing_is_tried() {
        let breaker = Breaker::default();
        assert_eq!(breaker.fault(0, 0, at(0)), Follows::Nothing);
        assert_eq!(faults(&breaker, 99, 2, 100, at(1)), [Follows::Nothing; 99]);
    }

    #[test]
    fn faults_that_lie_long_apart_are_not_added_up() {
        let breaker = Breaker::default();
        for n in 0..20 {
            assert_eq!(breaker.fault(0, 100, at(n * 10_001)), Follows::Nothing);
        }
    }

    #[test]
    fn where_nothing_succeeds_with_several_keys_a_trial_that_goes_well_does_not_help() {
        let (several, some) = (Breaker::default(), Breaker::default());
        faults(&several, 5, 2, 100, at(0));
        faults(&some, 5, 2, 100, at(0));
        assert!(several.tried(true, 100));
        assert!(!some.tried(true, 101), "something succeeded meanwhile");
    }

    #[test]
    fn who_has_come_back_goes_out_at_the_first_fault_until_something_has_succeeded() {
        let breaker = Breaker::default();
        breaker.back(Some(100), at(0));
        assert_eq!(breaker.fault(0, 100, at(4_000)), Follows::Out);
        breaker.back(Some(100), at(0));
        assert_eq!(breaker.fault(0, 101, at(4_000)), Follows::Nothing);
        breaker.back(Some(100), at(0));
        assert_eq!(breaker.fault(0, 100, at(5_000)), Follows::Nothing);
    }
}
