//! Bringing a lost token back: when it is tried, and when no more.

use std::time::Duration;

use crate::clock::Time;
use crate::error::{Error, ErrorKind, Retry};
use crate::metrics::Health;
use crate::sync::Mutex;

/// The first pause between two attempts, and the longest. An attempt at a token that is not there is a call or two.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Whether a token serves, and if not, what is done about it. Decided here, carried out by the watcher and the token's
/// service thread.
#[derive(Debug, Default)]
pub(crate) struct Recovery(Mutex<State>);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Serves,
    /// Lost; the next attempt is made then.
    Lost { tries: u32, next: Time },
    /// An attempt is under way.
    Tried { tries: u32 },
    /// Only a person can help: a PIN that was refused is not sent again.
    Given,
}

impl Recovery {
    /// The token is lost. True if it was not before.
    pub(crate) fn lost(&self, now: Time) -> bool {
        let mut state = self.0.lock();
        let served = *state == State::Serves;
        if served {
            *state = State::Lost { tries: 0, next: now };
        }
        served
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

    /// An attempt has failed. `dice` is any number: attempts of many engines are not made at once.
    pub(crate) fn failed(&self, error: &Error, now: Time, dice: u64) {
        let mut state = self.0.lock();
        if let State::Tried { tries } = *state {
            *state = match gives_up(error) {
                true => State::Given,
                false => State::Lost { tries: tries.saturating_add(1), next: now.after(pause(tries, dice)) },
            };
        }
    }

    /// The token serves again.
    pub(crate) fn back(&self) {
        *self.0.lock() = State::Serves;
    }

    /// How it stands.
    pub(crate) fn health(&self) -> Health {
        match *self.0.lock() {
            State::Serves => Health::Serving,
            State::Lost { .. } | State::Tried { .. } => Health::Lost,
            State::Given => Health::GivenUp,
        }
    }
}

/// A refused PIN is never sent again (reliability: each attempt brings the token nearer to its lock).
fn gives_up(error: &Error) -> bool {
    let pin =
        matches!(error.kind(), ErrorKind::PinRefused | ErrorKind::PinLocked | ErrorKind::PinUnavailable);
    pin && error.retry() != Retry::Later
}

/// Doubles with every attempt, of which between half and all is waited.
fn pause(tries: u32, dice: u64) -> Duration {
    let whole = PAUSE_FIRST.saturating_mul(1 << tries.min(10)).min(PAUSE_MAX);
    let half = whole / 2;
    let part = u32::try_from(dice % 1_000).unwrap_or(0);
    half + half * part / 1_000
}

#[cfg(all(test, not(hsmux_loom)))]
mod tests {
    use super::*;
    use crate::error::Outcome;

    fn at(ms: u64) -> Time {
        Time::from_ns(1 + ms * 1_000_000)
    }

    fn error(kind: ErrorKind, retry: Retry) -> Error {
        Error::new(kind, retry, Outcome::NotDone)
    }

    #[test]
    fn a_lost_token_is_tried_at_once_and_then_ever_more_rarely() {
        let recovery = Recovery::default();
        assert!(!recovery.begins(at(0)));
        assert!(recovery.lost(at(0)) && !recovery.lost(at(0)));
        let mut now = 0;
        let mut pauses = Vec::new();
        for _ in 0..8 {
            let from = now;
            while !recovery.begins(at(now)) {
                now += 1;
            }
            pauses.push(now - from);
            assert!(!recovery.begins(at(now)), "one at a time");
            recovery.failed(&error(ErrorKind::TokenLost, Retry::Later), at(now), 999);
        }
        assert_eq!(pauses, [0, 100, 200, 400, 800, 1_600, 2_000, 2_000]);
        recovery.back();
        assert!(!recovery.begins(at(now + 10_000)) && recovery.lost(at(now)));
    }

    #[test]
    fn dice_spread_attempts_over_half_of_the_pause() {
        assert_eq!(pause(0, 0), Duration::from_millis(50));
        assert_eq!(pause(3, 500), Duration::from_millis(600));
        assert_eq!(pause(60, 0), Duration::from_secs(1));
    }

    #[test]
    fn a_pin_that_was_refused_is_never_sent_again() {
        for kind in [ErrorKind::PinRefused, ErrorKind::PinLocked] {
            let recovery = Recovery::default();
            recovery.lost(at(0));
            assert!(recovery.begins(at(0)));
            recovery.failed(&error(kind, Retry::Operator), at(0), 0);
            assert!(recovery.health() == Health::GivenUp && !recovery.begins(at(1_000_000)));
        }
    }
}
