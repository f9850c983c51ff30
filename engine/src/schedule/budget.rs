//! How many failed calls of a token are made once more: a token that fails all that it is given gets little more to do for
//! it, and neither do the others that serve in its place.

use crate::error::{Error, ErrorKind};
use crate::sync::{AtomicU64, Ordering};

/// Retries that are left in this period.
#[derive(Debug)]
pub(crate) struct Budget(AtomicU64);

/// Calls for one retry. One in ten of the period before, at least one for every session: what is in flight when a token
/// is lost finds another.
const CALLS: u64 = 10;

impl Budget {
    pub(crate) const fn new(sessions: u64) -> Self {
        Self(AtomicU64::new(sessions))
    }

    /// Takes one for a call that failed so. What was lost with its session or its token takes none: neither gets more to
    /// do by it, for it is not there. Relaxed: a count.
    pub(crate) fn take(&self, error: &Error) -> bool {
        let less = |left: u64| left.checked_sub(1);
        matches!(error.kind(), ErrorKind::SessionLost | ErrorKind::TokenLost)
            || self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }

    /// A period is over, in which so many calls were made by so many sessions.
    pub(crate) fn renew(&self, calls: u64, sessions: u64) {
        self.0.store(sessions.max(calls / CALLS), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Outcome, Retry};

    fn taken(budget: &Budget, kind: ErrorKind) -> usize {
        let error = Error::new(kind, Retry::Now, Outcome::NotDone);
        (0..1_000).filter(|_| budget.take(&error)).count()
    }

    #[test]
    fn one_call_in_ten_is_made_again_and_at_least_one_for_every_session() {
        let budget = Budget::new(4);
        assert_eq!(taken(&budget, ErrorKind::Device), 4);
        budget.renew(300, 4);
        assert_eq!(taken(&budget, ErrorKind::Busy), 30);
        budget.renew(0, 8);
        assert_eq!(taken(&budget, ErrorKind::Device), 8);
    }

    #[test]
    fn what_was_lost_takes_none() {
        let budget = Budget::new(0);
        assert_eq!(taken(&budget, ErrorKind::SessionLost), 1_000);
        assert_eq!(taken(&budget, ErrorKind::TokenLost), 1_000);
    }
}
