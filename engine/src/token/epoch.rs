//! An epoch of a token: from a login until the token, its sessions or the login are lost.
//!
//! Handles of sessions and objects belong to one epoch (PKCS#11 2.40, 5.6.6 and 6.7.1: a removed token takes its sessions
//! along, and after a logout "all the session's handles to private objects become invalid", for ever). Numbers come
//! again in a later one, so nothing of an epoch that is over is used any more; where the token took the sessions along, they
//! are not even closed.

use crate::presence::Presence;
use crate::sync::{Arc, AtomicU64, Mutex, Ordering};

/// Shared by the sessions that were opened in it.
#[derive(Debug)]
pub(crate) struct Epoch {
    /// From 1; no two of a token have the same.
    pub(crate) number: u64,
    state: AtomicU64,
    presence: std::sync::Arc<Presence>,
}

/// The epoch of a token that goes on, or was the last to.
#[derive(Clone, Debug)]
pub(crate) struct CurrentEpoch(Arc<Mutex<Arc<Epoch>>>);

/// How an epoch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// The user was logged out: sessions are there and are to be closed.
    Login,
    /// The token went, and its sessions with it.
    Token,
}

const GOES_ON: u64 = 0;
const LOGGED_OUT: u64 = 1;
const GONE: u64 = 2;

impl Epoch {
    pub(crate) fn new(number: u64) -> Self {
        Self { number, state: AtomicU64::new(GOES_ON), presence: std::sync::Arc::default() }
    }

    /// The one after. Sessions that were only logged out are there until the token goes, with those of the next epoch.
    pub(crate) fn next(&self) -> Self {
        let next = Self::new(self.number + 1);
        if self.is_gone() { next } else { Self { presence: std::sync::Arc::clone(&self.presence), ..next } }
    }

    /// Of its sessions.
    pub(crate) const fn presence(&self) -> &std::sync::Arc<Presence> {
        &self.presence
    }

    /// It is over. Relaxed throughout: who sees it late has a call that fails.
    pub(crate) fn end(&self, loss: Loss) {
        let state = match loss {
            Loss::Login => LOGGED_OUT,
            Loss::Token => {
                self.presence.end();
                GONE
            }
        };
        self.state.fetch_max(state, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn is_over(&self) -> bool {
        self.state.load(Ordering::Relaxed) != GOES_ON
    }

    /// How it ended.
    pub(crate) fn loss(&self) -> Loss {
        if self.is_gone() { Loss::Token } else { Loss::Login }
    }

    /// Whether its sessions are not there any more.
    pub(crate) fn is_gone(&self) -> bool {
        self.state.load(Ordering::Relaxed) == GONE
    }
}

impl CurrentEpoch {
    pub(crate) fn new(epoch: &Arc<Epoch>) -> Self {
        Self(Arc::new(Mutex::new(Arc::clone(epoch))))
    }

    /// Another one begins.
    pub(crate) fn begin(&self, next: &Arc<Epoch>) {
        *self.0.lock() = Arc::clone(next);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.0.lock().is_over()
    }

    /// A loss was seen, in the epoch `of` if that is known: one that is over says nothing of the one that goes on, and
    /// then this is false.
    pub(crate) fn lose(&self, loss: Loss, of: Option<&Arc<Epoch>>) -> bool {
        let epoch = self.0.lock();
        let current = of.is_none_or(|of| Arc::ptr_eq(of, &epoch));
        if current {
            epoch.end(loss);
        }
        of.into_iter().for_each(|of| of.end(loss));
        current
    }
}

#[cfg(all(test, not(hsmux_loom)))]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_whose_token_went_has_no_sessions_to_close_whatever_comes_after() {
        let epoch = Epoch::new(1);
        assert!(!epoch.is_over());
        epoch.end(Loss::Login);
        assert!(epoch.is_over() && !epoch.is_gone());
        epoch.end(Loss::Token);
        epoch.end(Loss::Login);
        assert!(epoch.is_gone());
    }

    #[test]
    fn sessions_that_were_logged_out_go_with_the_token_in_a_later_epoch_and_what_went_is_apart_from_what_comes()
     {
        let first = Epoch::new(1);
        first.end(Loss::Login);
        let second = first.next();
        assert!(!first.presence().has_ended() && second.number == 2);
        second.end(Loss::Token);
        assert!(first.presence().has_ended());
        assert!(!second.next().presence().has_ended());
    }
}
