//! A token that is lost, and one that has come back: what becomes of its lanes and sessions.

use std::sync::Arc;

use crate::clock::now;
use crate::schedule::core::Core;
use crate::schedule::dispatch::Seat as _;
use crate::sync::Ordering;
use crate::token::epoch::{Epoch, Loss};

impl Core {
    /// A token cannot serve any more: fails what only it could serve, until it has come back.
    ///
    /// Without a loss its sessions are there, but nobody comes out of them. With an epoch nothing happens unless that one
    /// still goes on.
    pub(super) fn lose(&self, token: usize, loss: Option<(Loss, Option<Arc<Epoch>>)>, why: &str) {
        let seats = &self.tokens[token];
        // First, so that nothing more is begun on it.
        if loss.is_some_and(|(loss, of)| !seats.token.lose(loss, of.as_ref())) {
            return;
        }
        let newly = seats.recovery.lost(now());
        let orphans = self.dispatch.set_healthy(token, false);
        orphans.into_iter().for_each(|orphan| self.fail_orphan(Some(orphan)));
        self.close_ended(token);
        if newly {
            self.counters.tokens_lost.fetch_add(1, Ordering::Relaxed);
            tracing::error!(token, why, "token lost");
        }
        self.watcher.unpark();
    }

    /// A token has come back, in a new epoch.
    pub(super) fn find_again(&self, token: usize) {
        let seats = &self.tokens[token];
        seats.recovery.back(now());
        if seats.token.is_lost() {
            // Again, before it served.
            seats.recovery.lost(now());
            return self.watcher.unpark();
        }
        self.close_ended(token);
        // What could not be opened while it was lost says nothing of now: without sessions it is not back.
        seats.fill_after_ns.store(0, Ordering::Relaxed);
        let orphans = self.dispatch.set_healthy(token, true);
        orphans.into_iter().for_each(|orphan| self.fail_orphan(Some(orphan)));
        tracing::info!(token, "token is back");
        self.watcher.unpark();
    }

    /// Has the workers of idle sessions close those whose epoch is over.
    fn close_ended(&self, token: usize) {
        let idle: Vec<_> = std::iter::from_fn(|| self.dispatch.take_from(token)).collect();
        for seat in idle {
            if seat.session.is_over() { seat.hand_over() } else { self.release(seat) }
        }
    }
}
