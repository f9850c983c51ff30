//! Bringing a lost token back: when it is tried, and when no more.

use std::time::Duration;

use crate::clock::{Time, ns};
use crate::metrics::Health;
use crate::sync::Mutex;

/// The first pause between two attempts, and the longest. An attempt at a token that is not there is a call or two.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Whether a token serves, and if not, what is done about it. Decided here, carried out by the watcher and the token's
/// service thread.
#[derive(Debug, Default)]
pub(crate) struct Recovery(Mutex<State>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Since then, after so many attempts.
    Serves { since: Time, tries: u32 },
    /// Lost; the next attempt is made then.
    Lost { tries: u32, next: Time },
    /// An attempt is under way.
    Tried { tries: u32 },
    /// Only a person can help: a PIN that was refused is not sent again.
    Given,
}

impl Default for State {
    fn default() -> Self {
        Self::Serves { since: Time::from_ns(0), tries: 0 }
    }
}

/// Who serves for so long is really back: one that is lost sooner is looked for as if it had not been there, so that a
/// token that fails whatever it is asked is not logged in to again and again.
const SETTLED: Duration = Duration::from_secs(5);

impl Recovery {
    /// The token is lost. True if it was not before.
    pub(crate) fn lost(&self, now: Time) -> bool {
        let mut state = self.0.lock();
        let State::Serves { since, tries } = *state else { return false };
        let settled = tries == 0 || now.ns_since(since) >= ns(SETTLED);
        *state = match settled {
            true => State::Lost { tries: 0, next: now },
            false => State::Lost { tries, next: now.after(pause(tries - 1, now.as_ns())) },
        };
        true
    }

    /// Whether an attempt is to be made now; then it is under way.
    pub(crate) fn begins(&self, now: Time) -> bool {
        let mut state = self.0.lock();
        match *state {
            State::Lost { tries, next } if next <= now => {
                *state = State::Tried { tries };
                true
            }
            _ => false,
        }
    }

    /// An attempt has failed. With `refused` no more is made. `dice` is any number: attempts of many engines are not made
    /// at once.
    pub(crate) fn failed(&self, refused: bool, now: Time, dice: u64) {
        let mut state = self.0.lock();
        if let State::Tried { tries } = *state {
            *state = match refused {
                true => State::Given,
                false => State::Lost { tries: tries.saturating_add(1), next: now.after(pause(tries, dice)) },
            };
        }
    }

    /// The token serves again.
    pub(crate) fn back(&self, now: Time) {
        let mut state = self.0.lock();
        let tries = if let State::Tried { tries } = *state { tries.saturating_add(1) } else { 1 };
        *state = State::Serves { since: now, tries };
    }

    /// How it stands.
    pub(crate) fn health(&self) -> Health {
        match *self.0.lock() {
            State::Serves { .. } => Health::Serving,
            State::Lost { .. } | State::Tried { .. } => Health::Lost,
            State::Given => Health::GivenUp,
        }
    }
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
        (0..10_000).find(|ms| recovery.begins(at(from + ms))).unwrap_or(u64::MAX)
    }

    #[test]
    fn a_lost_token_is_tried_at_once_and_then_ever_more_rarely() {
        let recovery = Recovery::default();
        assert!(!recovery.begins(at(0)));
        assert!(recovery.lost(at(0)) && !recovery.lost(at(0)));
        let (mut now, mut pauses) = (0, Vec::new());
        for _ in 0..8 {
            let pause = begins_after(&recovery, now);
            pauses.push(pause);
            now += pause;
            assert!(!recovery.begins(at(now)), "one at a time");
            // The lowest dice: half of the pause.
            recovery.failed(false, at(now), 0);
        }
        assert_eq!(pauses, [0, 50, 100, 200, 400, 800, 1_000, 1_000]);
    }

    #[test]
    fn who_is_lost_again_at_once_is_looked_for_after_a_pause_and_who_has_settled_at_once() {
        let recovery = Recovery::default();
        recovery.lost(at(0));
        assert_eq!(begins_after(&recovery, 0), 0);
        recovery.back(at(0));
        recovery.lost(at(10));
        assert!((50..=100).contains(&begins_after(&recovery, 10)));
        recovery.back(at(200));
        recovery.lost(at(5_199));
        assert!((100..=200).contains(&begins_after(&recovery, 5_199)));
        recovery.back(at(6_000));
        recovery.lost(at(11_000));
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
        recovery.lost(at(0));
        assert!(recovery.begins(at(0)));
        recovery.failed(true, at(0), 0);
        assert!(recovery.health() == Health::GivenUp && !recovery.begins(at(1_000_000)));
    }
}
