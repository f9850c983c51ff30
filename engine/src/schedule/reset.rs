//! Initialising a module anew: when it is tried.

use std::time::Duration;

use crate::clock::{Time, ns};
use crate::schedule::recovery::Wants;

/// The shortest time between two resets of an instance, and the longest. All tokens of the instance are logged in to after
/// each.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Of one instance of the module.
#[derive(Debug, Default)]
pub(super) struct Resets {
    last: Option<Time>,
    tries: u32,
}

impl Resets {
    /// Whether the module is to be initialised anew, by what its tokens want; then it is counted. Only where none of its
    /// tokens serves: the others would lose their sessions by it.
    pub(super) fn is_due(&mut self, mut wants: impl Iterator<Item = Wants> + Clone, now: Time) -> bool {
        let all = wants.clone().all(|wants| wants != Wants::No);
        let any = wants.any(|wants| matches!(wants, Wants::Now | Wants::Too));
        let pause = PAUSE_FIRST.saturating_mul(1 << self.tries.min(10)).min(PAUSE_MAX);
        let pauses = self.last.is_some_and(|last| now.ns_since(last) < ns(pause));
        let due = all && any && !pauses;
        if due {
            self.tries = self.tries.saturating_add(1);
            self.last = Some(now);
        }
        due
    }

    /// A token of the instance serves: what was tried has helped, or something else has.
    pub(super) const fn forget(&mut self) {
        self.tries = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: u64) -> Time {
        Time::from_ns(1 + s * 1_000_000_000)
    }

    #[test]
    fn a_module_is_reset_only_where_every_token_that_is_not_given_up_wants_it() {
        let due = |wants: &[Wants]| Resets::default().is_due(wants.iter().copied(), at(0));
        assert!(due(&[Wants::Now, Wants::Too, Wants::Nothing]));
        assert!(!due(&[Wants::Now, Wants::No]));
        assert!(!due(&[Wants::Nothing]));
    }

    #[test]
    fn resets_become_ever_rarer_until_one_has_helped() {
        let mut resets = Resets::default();
        let mut due = |s| resets.is_due([Wants::Now].into_iter(), at(s));
        let first: Vec<_> = (0..200).filter(|&s| due(s)).collect();
        assert_eq!(first[..6], [0, 2, 6, 14, 24, 34]);
        resets.forget();
        assert!(resets.is_due([Wants::Now].into_iter(), at(first[first.len() - 1] + 2)));
    }
}
