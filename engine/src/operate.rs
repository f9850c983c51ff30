//! What an operator changes while the engine runs: limits, tiers, tokens in and out of service.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::now;
use crate::engine::{Engine, Shared};
use crate::error::{Error, ErrorKind, Result};
use crate::request::check_not_forked;
use crate::schedule::core::Core;
use crate::schedule::dispatch::tokens;
use crate::sync::Ordering;
use crate::token::name::TokenName;
use crate::token::{Token, instances_of, named};

/// How near a token is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tier {
    /// Tokens of rank 0 serve first, then those of rank 1, and so on.
    pub rank: u8,
    /// How much longer a request takes here than in the first tier: when requests have waited longer than this, the
    /// token helps although nearer ones serve. With zero it helps as soon as no session of a nearer one is idle. It
    /// means nothing in the first tier.
    pub extra_latency: Duration,
}

impl Engine {
    /// Changes how many requests, and how many bytes of them, may be in flight; 0 counts as 1. What is in flight
    /// stays, also if it is more. In a forked child it changes nothing.
    pub fn set_limits(&self, requests_max: usize, bytes_max: usize) {
        if check_not_forked().is_err() {
            return;
        }
        self.shared.core.admission.set_limits(requests_max.max(1), bytes_max.max(1));
    }

    /// Changes the deadline of requests that name none, for requests from now on. In a forked child, which can make
    /// none, that means nothing.
    pub fn set_deadline(&self, deadline: Option<Duration>) {
        // Relaxed: a setting, which orders nothing.
        self.shared.deadline_ns.store(deadline_ns(deadline), Ordering::Relaxed);
    }

    /// Changes how long a call may stay in the module before it is written off; `None` lets the engine choose, as
    /// [`Builder::hang_limit`](crate::Builder::hang_limit) says; less than 10 ms counts as 10 ms. It holds within a
    /// second; in a forked child, where nothing is called, it means nothing.
    pub fn set_hang_limit(&self, limit: Option<Duration>) {
        self.shared.core.limits.hang_ns.store(limit.map_or(0, hang_ns), Ordering::Relaxed);
    }

    /// Puts a token, named as [`Builder::tokens`](crate::Builder::tokens) has it, into another tier.
    ///
    /// # Errors
    /// `TokenNotFound`; `Configuration` for a URI that is none; `Forked`.
    pub fn set_tier(&self, token: &str, tier: Tier) -> Result<()> {
        check_not_forked()?;
        let token = mask_of(&self.shared.tokens, token)?;
        self.shared.core.set_tiers(token, tier);
        Ok(())
    }

    /// Takes a token, named as [`Builder::tokens`](crate::Builder::tokens) has it, out of service: it finishes what
    /// its sessions run and takes nothing more, until [`Engine::undrain_token`]. What is queued goes to the other tokens; requests that only this one
    /// could serve fail with `TokenLost`, before they ran.
    ///
    /// Its sessions stay open and logged in, and what is not a request (listing and making keys, agreement, wrapping)
    /// is not held up. Returns how many sessions were still held by somebody at the limit, hung ones too.
    ///
    /// # Errors
    /// `TokenNotFound`; `Configuration` for a URI that is none.
    ///
    /// # Blocking
    /// Until no session of the token is inside a call, at most for `limit`.
    pub fn drain_token(&self, token: &str, limit: Duration) -> Result<usize> {
        check_not_forked()?;
        let core = &self.shared.core;
        let token = mask_of(&self.shared.tokens, token)?;
        core.set_drained(token, 0);
        let until = now().after(limit);
        loop {
            let inside = tokens(token).map(|token| core.inside(token)).sum();
            let left = now().until(until);
            if inside == 0 || left.is_zero() {
                return Ok(inside);
            }
            std::thread::park_timeout(STEP.min(left));
        }
    }

    /// Puts a token back into service that was taken out because it gave a wrong answer
    /// ([`Builder::verify_outputs`](crate::Builder::verify_outputs)), in all instances of the module. One that was not is
    /// left as it is.
    ///
    /// Nothing else does it: the engine cannot know whether the device was repaired. Look for the cause first, and for
    /// what was handed out unchecked.
    ///
    /// # Errors
    /// `TokenNotFound`; `Configuration` for a URI that is none; `Forked`.
    pub fn readmit_token(&self, token: &str) -> Result<()> {
        check_not_forked()?;
        self.shared.core.readmit(mask_of(&self.shared.tokens, token)?);
        Ok(())
    }

    /// Puts a token back into service that [`Engine::drain_token`] has taken out.
    ///
    /// # Errors
    /// `TokenNotFound`; `Configuration` for a URI that is none.
    pub fn undrain_token(&self, token: &str) -> Result<()> {
        check_not_forked()?;
        self.shared.core.set_drained(0, mask_of(&self.shared.tokens, token)?);
        Ok(())
    }
}

impl Core {
    /// Puts tokens into a tier.
    pub(crate) fn set_tiers(&self, mask: u64, tier: Tier) {
        tokens(mask).for_each(|token| self.set_tier(token, tier.rank, duration_ns(tier.extra_latency)));
    }
}

impl Shared {
    /// The deadline of requests that name none.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        let ns = self.deadline_ns.load(Ordering::Relaxed);
        (ns != NO_DEADLINE).then(|| Duration::from_nanos(ns))
    }
}

/// A look at sessions inside calls is so far apart from the next: nothing tells when a call returns, and operators do
/// not mind a millisecond.
const STEP: Duration = Duration::from_millis(1);

/// More than 500 years.
const NO_DEADLINE: u64 = u64::MAX;

pub(crate) fn deadline_ns(deadline: Option<Duration>) -> u64 {
    deadline.map_or(NO_DEADLINE, |deadline| duration_ns(deadline).min(NO_DEADLINE - 1))
}

/// Shortest hang limit that can be set. Below it a thread that merely waits for a core of a busy machine would be given
/// up with its session, and the watcher would look for such more often than every other millisecond.
pub(crate) const HANG_MIN: Duration = Duration::from_millis(10);

/// Never zero, which stands for the engine's own choice.
pub(crate) fn hang_ns(limit: Duration) -> u64 {
    duration_ns(limit.max(HANG_MIN))
}

pub(crate) fn duration_ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The token of this name in every instance of the module: bit i is token i of the engine.
///
/// # Errors
/// `TokenNotFound`, also if the name is that of several: an operator means one.
pub(crate) fn mask_of(tokens: &[Arc<Token>], name: &str) -> Result<u64> {
    let wanted = TokenName::parse(name)?;
    let mut matching = named(tokens).filter(|token| wanted.fits(&token.info));
    let why = match (matching.next(), matching.next()) {
        (Some(token), None) => return Ok(instances_of(tokens, token.index)),
        (Some(_), Some(_)) => "names several of the engine's tokens: use a serial number",
        (None, _) => "is none of the engine's tokens",
    };
    Err(Error::operator(ErrorKind::TokenNotFound, format!("{} {why}", wanted.said())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_hang_limit_is_so_short_that_a_thread_which_waits_for_a_core_hangs() {
        assert_eq!(hang_ns(Duration::ZERO), 10_000_000);
        assert_eq!(hang_ns(Duration::from_millis(11)), 11_000_000);
        assert_eq!(hang_ns(Duration::MAX), u64::MAX);
    }
}
