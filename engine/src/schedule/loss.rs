//! A token that goes out of service, and one that has come back: what becomes of its lanes and sessions.

use std::sync::Arc;

use crate::clock::now;
use crate::schedule::breaker::{Follows, speaks_against};
use crate::schedule::core::Core;
use crate::schedule::dispatch::Seat as _;
use crate::schedule::seat::Seat;
use crate::sync::Ordering;
use crate::token::epoch::{Epoch, Loss};
use crate::token::session::Failed;

/// Why a token goes out of service.
#[derive(Clone, Debug)]
pub(super) enum Out {
    /// It, its sessions or the login are lost. With an epoch nothing happens unless that one still goes on.
    Lost(Loss, Option<Arc<Epoch>>),
    /// Its sessions are there, but nobody comes out of them.
    Hung,
    /// It is there, and fails what it is asked.
    Failing,
}

impl Core {
    /// A token cannot serve any more: fails what only it could serve, until it has come back.
    pub(super) fn lose(&self, token: usize, out: Out, why: &str) {
        let seats = &self.tokens[token];
        let failing = matches!(out, Out::Failing);
        // First, so that nothing more is begun on it.
        if let Out::Lost(loss, of) = out
            && !seats.token.lose(loss, of.as_ref())
        {
            return;
        }
        let (newly, orphans) = {
            let _standing = seats.standing.lock();
            (seats.recovery.lost(failing, now()), self.dispatch.set_healthy(token, false))
        };
        orphans.into_iter().for_each(|orphan| self.fail_orphan(Some(orphan)));
        self.close_ended(token);
        if newly {
            self.counters.tokens_lost.fetch_add(1, Ordering::Relaxed);
            tracing::error!(token, why, "token out of service");
        }
        self.watcher.unpark();
    }

    /// Somebody has seen that a token, or the login to it, was lost in this epoch.
    pub(crate) fn token_is_lost(&self, token: usize, loss: Loss, of: Arc<Epoch>, why: &str) {
        self.lose(token, Out::Lost(loss, Some(of)), why);
    }

    /// A token has come back: in a new epoch, or it does again what it is asked.
    pub(super) fn find_again(&self, token: usize) {
        let (seats, now) = (&self.tokens[token], now());
        self.close_ended(token);
        let standing = seats.standing.lock();
        let failed = seats.recovery.back(now);
        if seats.token.is_lost() {
            // Again, before it served.
            seats.recovery.lost(false, now);
            return self.watcher.unpark();
        }
        seats.breaker.back(failed.then(|| seats.served()), now);
        // What could not be opened while it was lost says nothing of now: without sessions it is not back.
        seats.fill_after_ns.store(0, Ordering::Relaxed);
        let orphans = self.dispatch.set_healthy(token, true);
        drop(standing);
        orphans.into_iter().for_each(|orphan| self.fail_orphan(Some(orphan)));
        tracing::info!(token, "token is back");
        self.watcher.unpark();
    }

    /// A request has failed in a session. `lane` yields any number that tells lanes apart.
    #[cold]
    pub(crate) fn note_failure(self: &Arc<Self>, seat: &Seat, failed: &Failed, lane: impl FnOnce() -> usize) {
        let (token, now) = (seat.place.token, now());
        // Sessions of an epoch that is over fail whatever the token does.
        if !speaks_against(failed) || seat.session.is_over() {
            return;
        }
        let seats = &self.tokens[token];
        match seats.breaker.fault(lane(), seats.served(), now) {
            Follows::Nothing => {}
            Follows::Trial => self.try_out(token),
            Follows::Out => self.lose(token, Out::Failing, "it fails again what it is asked"),
        }
    }

    /// Whether sessions of a token that is lost are not closed yet; has the idle ones closed. Those count, too, that are inside a
    /// call that was given up: a thread that is only kept waiting for its core cannot be told from one that hangs.
    pub(super) fn is_in_use(&self, token: usize) -> bool {
        let seats = &self.tokens[token];
        self.close_ended(token);
        // In this order: those that close are counted before they leave the list, or cease to be given up.
        !seats.watches.lock().is_empty()
            || seats.written_off.load(Ordering::SeqCst) > 0
            || seats.closing.load(Ordering::SeqCst) > 0
    }

    /// Has the workers of idle sessions close those whose epoch is over.
    fn close_ended(&self, token: usize) {
        let idle: Vec<_> = std::iter::from_fn(|| self.dispatch.take_from(token)).collect();
        for seat in idle {
            if seat.session.is_over() { seat.hand_over() } else { self.release(seat) }
        }
    }
}
