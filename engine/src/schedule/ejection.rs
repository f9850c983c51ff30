//! A token that has given a wrong answer, and one that an operator has readmitted.

use crate::schedule::core::Core;
use crate::schedule::dispatch::tokens;
use crate::sync::Ordering;

impl Core {
    /// A token has given a wrong answer: all its instances are out of service, until they are readmitted.
    pub(super) fn eject(&self, token: usize) {
        let first = self.tokens[token].token.first;
        let all = self.tokens.iter().filter(|seats| seats.token.first == first);
        let mask = all.fold(0, |mask, seats| mask | 1 << seats.token.index);
        let (orphans, newly) = self.dispatch.eject(mask);
        orphans.into_iter().for_each(|orphan| self.fail_orphan(Some(orphan)));
        if newly {
            self.counters.tokens_ejected.fetch_add(1, Ordering::Relaxed);
            tracing::error!(
                token,
                "a token has given a wrong answer: it is out of service until it is readmitted"
            );
        }
    }

    /// An operator vouches for these tokens.
    pub(crate) fn readmit(&self, mask: u64) {
        let readmitted = mask & self.dispatch.ejected();
        let orphans = self.dispatch.readmit(mask);
        orphans.into_iter().for_each(|orphan| self.fail_orphan(Some(orphan)));
        tokens(readmitted).for_each(|token| tracing::info!(token, "a token is readmitted"));
        self.watcher.unpark();
    }
}
