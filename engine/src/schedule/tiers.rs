//! Tiers: which tokens of a set serve first, and from when on the others help.

use std::sync::atomic::Ordering;

use crate::sync::plain::{AtomicBool, AtomicU8, AtomicU64};

/// The rank of every token, and how much longer it takes than the first tier.
///
/// A token of a lower tier (higher rank) takes work only if no token of a higher one can, or when requests have waited
/// longer than its extra latency: then they are answered no later over there. While all ranks are equal, which is
/// nearly always, asking costs one look at a flag.
pub(super) struct Tiers {
    tokens: Box<[Token]>,
    /// Whether there is more than one rank.
    several: AtomicBool,
}

struct Token {
    rank: AtomicU8,
    extra_ns: AtomicU64,
}

impl Tiers {
    pub(super) fn new(tokens: usize) -> Self {
        let token = |_| Token { rank: AtomicU8::new(0), extra_ns: AtomicU64::new(0) };
        Self { tokens: (0..tokens).map(token).collect(), several: AtomicBool::new(false) }
    }

    /// Relaxed throughout: a session that still goes by the old tiers for a turn does no harm.
    pub(super) fn set(&self, token: usize, rank: u8, extra_ns: u64) {
        self.tokens[token].rank.store(rank, Ordering::Relaxed);
        self.tokens[token].extra_ns.store(extra_ns, Ordering::Relaxed);
        let first = self.rank(0);
        let several = (1..self.tokens.len()).any(|token| self.rank(token) != first);
        self.several.store(several, Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn several(&self) -> bool {
        self.several.load(Ordering::Relaxed)
    }

    /// The tokens of a set that serve first.
    #[inline]
    pub(super) fn front(&self, mask: u64) -> u64 {
        if !self.several() {
            return mask;
        }
        let of_rank = |rank| self.those(mask, |token| self.rank(token) == rank);
        super::dispatch::tokens(mask).map(|token| self.rank(token)).min().map_or(0, of_rank)
    }

    /// The tokens of a set that serve when its requests have waited so long: the first, and those that take no longer.
    pub(super) fn after(&self, mask: u64, waited_ns: u64) -> u64 {
        if !self.several() {
            return mask;
        }
        self.front(mask) | self.those(mask, |token| waited_ns >= self.extra_ns(token))
    }

    /// The shortest extra latency of all, if there are several tiers: how often somebody has to look.
    pub(super) fn patience_ns(&self) -> Option<u64> {
        let extra = || self.tokens.iter().map(|token| token.extra_ns.load(Ordering::Relaxed));
        if self.several() { extra().filter(|&ns| ns > 0).min() } else { None }
    }

    fn rank(&self, token: usize) -> u8 {
        self.tokens[token].rank.load(Ordering::Relaxed)
    }

    fn extra_ns(&self, token: usize) -> u64 {
        self.tokens[token].extra_ns.load(Ordering::Relaxed)
    }

    fn those(&self, mask: u64, is_one: impl Fn(usize) -> bool) -> u64 {
        super::dispatch::tokens(mask).filter(|&token| is_one(token)).fold(0, |mask, token| mask | 1 << token)
    }
}

#[cfg(all(test, not(hsmux_loom)))]
mod tests {
    use super::*;

    #[test]
    fn tokens_of_one_tier_all_serve_first() {
        let tiers = Tiers::new(3);
        assert_eq!((tiers.front(0b101), tiers.after(0b101, 0), tiers.patience_ns()), (0b101, 0b101, None));
        (0..3).for_each(|token| tiers.set(token, 4, 1_000));
        assert_eq!((tiers.front(0b111), tiers.patience_ns()), (0b111, None));
    }

    #[test]
    fn a_far_token_helps_when_requests_have_waited_longer_than_it_takes() {
        let tiers = Tiers::new(3);
        tiers.set(1, 1, 1_000);
        tiers.set(2, 2, 5_000);
        assert_eq!(tiers.front(0b111), 0b001);
        assert_eq!(tiers.after(0b111, 999), 0b001);
        assert_eq!(tiers.after(0b111, 1_000), 0b011);
        assert_eq!(tiers.after(0b111, 5_000), 0b111);
        assert_eq!(tiers.patience_ns(), Some(1_000));
    }

    #[test]
    fn a_lower_token_that_takes_no_longer_helps_at_once() {
        let tiers = Tiers::new(2);
        tiers.set(1, 1, 0);
        assert_eq!((tiers.front(0b11), tiers.after(0b11, 0), tiers.patience_ns()), (0b01, 0b11, None));
    }

    #[test]
    fn the_best_tier_of_those_that_are_left_serves() {
        let tiers = Tiers::new(3);
        tiers.set(1, 1, 1_000);
        tiers.set(2, 2, 5_000);
        assert_eq!(tiers.front(0b110), 0b010);
        assert_eq!(tiers.front(0b100), 0b100);
        assert_eq!(tiers.front(0), 0);
    }
}
