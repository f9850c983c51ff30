//! How many failed calls of a token are made once more: a token that fails all that it is given gets little more to do for
//! it, and neither do the others that serve in its place.

use crate::error::{Error, ErrorKind};
use crate::sync::Mutex;

/// Retries of a token, by period.
#[derive(Debug)]
pub(crate) struct Budget(Mutex<Period>);

#[derive(Debug)]
struct Period {
    /// What the token had served when it began.
    served: u64,
    /// What is allowed in any case: for what was served in the period before, and for what is in flight when a token is lost.
    floor: u64,
    taken: u64,
}

/// Calls for one retry: one in ten of this period or the one before, at least one for every session.
const CALLS: u64 = 10;

impl Budget {
    pub(crate) fn new(sessions: u64) -> Self {
        Self(Mutex::new(Period { served: 0, floor: sessions, taken: 0 }))
    }

    /// Takes one for a call that failed so, on a token that has served so much by now. What was lost with its session or its
    /// token takes none: neither gets more to do by it, for it is not there.
    pub(crate) fn take(&self, error: &Error, served: u64) -> bool {
        if matches!(error.kind(), ErrorKind::SessionLost | ErrorKind::TokenLost) {
            return true;
        }
        let mut period = self.0.lock();
        let allowed = period.floor.max(served.saturating_sub(period.served) / CALLS);
        let takes = period.taken < allowed;
        period.taken += u64::from(takes);
        takes
    }

    /// A period is over; the token has served so much by now, and has so many sessions.
    pub(crate) fn renew(&self, served: u64, sessions: u64) {
        let mut period = self.0.lock();
        let floor = sessions.max(served.saturating_sub(period.served) / CALLS);
        *period = Period { served, floor, taken: 0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Outcome, Retry};

    fn taken(budget: &Budget, kind: ErrorKind, served: u64) -> usize {
        let error = Error::new(kind, Retry::Now, Outcome::NotDone);
        (0..1_000).filter(|_| budget.take(&error, served)).count()
    }

    #[test]
    fn one_call_in_ten_is_made_again_and_at_least_one_for_every_session() {
        let budget = Budget::new(4);
        assert_eq!(taken(&budget, ErrorKind::Device, 0), 4);
        assert_eq!(taken(&budget, ErrorKind::Device, 100), 6, "ten of a hundred, with those of before");
        budget.renew(300, 4);
        assert_eq!(taken(&budget, ErrorKind::Busy, 300), 30);
        budget.renew(300, 8);
        assert_eq!(taken(&budget, ErrorKind::Device, 300), 8);
    }

    #[test]
    fn what_was_lost_takes_none() {
        let budget = Budget::new(0);
        assert_eq!(taken(&budget, ErrorKind::SessionLost, 0), 1_000);
        assert_eq!(taken(&budget, ErrorKind::TokenLost, 0), 1_000);
    }
}
