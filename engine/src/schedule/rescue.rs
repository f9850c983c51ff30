//! Bringing tokens back: attempts, trials and resets, carried out by the tokens' service threads.

use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::clock::{Time, now};
use crate::error::{ErrorKind, Result, Retry};
use crate::metrics::Health;
use crate::schedule::core::Core;
use crate::schedule::loss::Out;
use crate::schedule::recovery::Ended;
use crate::schedule::reset::Resets;
use crate::sync::{AtomicUsize, Ordering};
use crate::token::epoch::Loss;
use crate::token::login::{Missed, Untried};

/// How long a reset waits until all sessions of the module are closed: a call each. Where somebody else has some it is in
/// vain, and tried again later.
const RESET_LIMIT: Duration = Duration::from_secs(1);

/// A reset after which a token serves for so long has helped.
const RESET_HELPED: Duration = Duration::from_secs(1);

/// What the watcher keeps for it.
pub(super) struct Rescue {
    /// By instance of the module.
    resets: Vec<Resets>,
}

impl Rescue {
    pub(super) fn new(core: &Core) -> Self {
        let instances = core.tokens.iter().map(|seats| seats.token.instance + 1).max().unwrap_or(0);
        Self { resets: (0..instances).map(|_| Resets::default()).collect() }
    }

    /// Has tokens that are out of service looked for. `hang_ns` is the hang limit by token.
    pub(super) fn look(&mut self, core: &Arc<Core>, hang_ns: &[u64], now: Time) {
        for (token, seats) in core.tokens.iter().enumerate() {
            let recovery = &seats.recovery;
            let at_cap = seats.is_at_cap(core.limits.written_off_per_token);
            recovery.look(hang_ns[token], now);
            if recovery.is_to_be_lost() {
                core.lose(token, Out::Lost(Loss::Login, None), "it fails whatever it is asked");
            }
            if !at_cap {
                seats.refill();
            }
            // Before the look at its sessions: one that is lost later is looked at again.
            let is_lost = seats.token.is_lost();
            let in_use = is_lost && core.is_in_use(token);
            if at_cap || core.is_stopped() || !recovery.begins(in_use, now) {
                continue;
            }
            let core = Arc::downgrade(core);
            seats.token.recover(is_lost, move |result| recovered(&core, token, result));
        }
        self.reset(core, now);
    }

    /// Has instances initialised anew whose tokens want it.
    fn reset(&mut self, core: &Arc<Core>, now: Time) {
        for (instance, resets) in self.resets.iter_mut().enumerate() {
            let of = core.tokens.iter().enumerate().filter(|(_, seats)| seats.token.instance == instance);
            if of.clone().any(|(_, seats)| seats.recovery.has_served_for(RESET_HELPED, now)) {
                resets.forget();
            }
            let wants = of.clone().map(|(_, seats)| seats.recovery.wants_reset());
            if !core.limits.module_reset || core.is_stopped() || !resets.is_due(wants, now) {
                continue;
            }
            let tokens: Vec<_> = of.map(|(token, _)| token).collect();
            core.reset(tokens, now);
        }
    }
}

impl Core {
    /// Has a token tried: a few random bytes, and what its engine uses for it.
    pub(super) fn try_out(self: &Arc<Self>, token: usize) {
        let core = Arc::downgrade(self);
        self.tokens[token].token.try_out(move |result| {
            if let Some(core) = core.upgrade() {
                core.tried(token, result);
            }
        });
    }

    fn tried(&self, token: usize, result: Result<(), Untried>) {
        let seats = &self.tokens[token];
        let out = seats.breaker.tried(result.is_ok(), seats.served());
        match result {
            Err(Untried { error, loss: Some(loss) }) => {
                self.lose(token, Out::Lost(loss, None), &error.to_string());
            }
            Err(Untried { error, loss: None }) => self.lose(token, Out::Failing, &error.to_string()),
            Ok(()) if out => self.lose(token, Out::Failing, "nothing that it is asked succeeds"),
            Ok(()) => tracing::warn!(token, "requests fail on a token that does well when it is tried"),
        }
    }

    /// Has a module initialised anew whose tokens are these: nothing of theirs is used any more, and when each service
    /// thread has let go of its own sessions, the last one does it.
    fn reset(self: &Arc<Self>, tokens: Vec<usize>, now: Time) {
        tracing::warn!(?tokens, "none of a module's tokens serves: it is to be initialised anew");
        for &token in &tokens {
            self.tokens[token].recovery.begins_reset(now);
            self.lose(token, Out::Lost(Loss::Token, None), "its module is to be initialised anew");
        }
        let (tokens, left) = (Arc::new(tokens), Arc::new(AtomicUsize::new(0)));
        left.store(tokens.len(), Ordering::Relaxed);
        for &token in tokens.iter() {
            let (core, tokens, left) = (Arc::downgrade(self), Arc::clone(&tokens), Arc::clone(&left));
            self.tokens[token].token.stand_down(move |library| {
                // AcqRel: the last one comes after all that the others have let go of.
                if left.fetch_sub(1, Ordering::AcqRel) == 1 {
                    let result = library.reset(RESET_LIMIT);
                    core.upgrade().into_iter().for_each(|core| core.was_reset(&tokens, &result));
                }
            });
        }
    }

    fn was_reset(&self, tokens: &[usize], result: &Result<()>) {
        let now = now();
        let ended = match result {
            Ok(()) => Ended::Reset,
            Err(error) if error.kind() == ErrorKind::Module && error.retry() == Retry::Later => Ended::Stuck,
            Err(_) => Ended::NotYet,
        };
        tokens.iter().for_each(|&token| self.tokens[token].recovery.failed(ended, now, now.as_ns()));
        match result {
            Ok(()) => {
                self.counters.resets.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(?tokens, "a module was initialised anew");
            }
            Err(error) => tracing::error!(?tokens, %error, "a module could not be initialised anew"),
        }
        self.watcher.unpark();
    }
}

/// An attempt to bring a token back is over.
fn recovered(core: &Weak<Core>, token: usize, result: Result<(), Missed>) {
    let Some(core) = core.upgrade() else { return };
    let (recovery, now) = (&core.tokens[token].recovery, now());
    match result {
        Ok(()) => core.find_again(token),
        Err(Missed { error, refused: true, .. }) => {
            recovery.failed(Ended::Refused, now, now.as_ns());
            tracing::error!(token, %error, "a lost token is given up: its PIN is not sent again");
        }
        Err(Missed { error, refused: false, .. }) => {
            let dead = error.kind() == ErrorKind::Module;
            recovery.failed(if dead { Ended::ModuleDead } else { Ended::NotYet }, now, now.as_ns());
            if dead {
                core.try_siblings(token);
            }
            tracing::debug!(token, %error, "a token is not back yet");
            core.watcher.unpark();
        }
    }
}

impl Core {
    /// The module of a token seems dead: so are all tokens that it shows, then. Those that serve are tried, for one that does
    /// well shows that it is not.
    fn try_siblings(self: &Arc<Self>, token: usize) {
        let instance = self.tokens[token].token.instance;
        for (other, seats) in self.tokens.iter().enumerate() {
            if seats.token.instance == instance && seats.recovery.health() == Health::Serving {
                self.try_out(other);
            }
        }
    }
}
