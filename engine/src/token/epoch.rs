//! An epoch of a token: from a login until the token, its sessions or the login are lost.
//!
//! Handles of sessions and objects belong to one epoch (PKCS#11 2.40, 5.6.6 and 6.7.1: a removed token takes its sessions
//! along, and after a logout "all the session's handles to private objects become invalid", for ever). Numbers come
//! again in a later one, so nothing of an epoch that is over is used any more; where the token took the sessions along, they
//! are not even closed.

use crate::sync::plain::AtomicU8;
use std::sync::atomic::Ordering;

/// Shared by the sessions that were opened in it.
#[derive(Debug)]
pub(crate) struct Epoch {
    /// From 1; no two of a token have the same.
    pub(crate) number: u64,
    state: AtomicU8,
}

/// How an epoch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// The user was logged out: sessions are there and are to be closed.
    Login,
    /// The token went, and its sessions with it.
    Token,
}

const GOES_ON: u8 = 0;
const LOGGED_OUT: u8 = 1;
const GONE: u8 = 2;

impl Epoch {
    pub(crate) const fn new(number: u64) -> Self {
        Self { number, state: AtomicU8::new(GOES_ON) }
    }

    /// It is over. Relaxed throughout: who sees it late has a call that fails.
    pub(crate) fn end(&self, loss: Loss) {
        let state = match loss {
            Loss::Login => LOGGED_OUT,
            Loss::Token => GONE,
        };
        self.state.fetch_max(state, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn is_over(&self) -> bool {
        self.state.load(Ordering::Relaxed) != GOES_ON
    }

    /// Whether its sessions are not there any more.
    pub(crate) fn is_gone(&self) -> bool {
        self.state.load(Ordering::Relaxed) == GONE
    }
}

#[cfg(test)]
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
}
