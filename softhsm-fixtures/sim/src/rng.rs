//! Randomness from a seed: fast, repeatable and worthless as a secret.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};

use rsa::rand_core::{TryCryptoRng, TryRng};

/// SplitMix64, with its state in an atomic so that a session can keep it. A session is used by one thread at a
/// time, so that plain loads and stores do.
#[derive(Debug)]
pub(crate) struct Random(AtomicU64);

impl Random {
    pub(crate) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    pub(crate) fn seed(&self, seed: u64, stream: u64) {
        self.0.store(mix(seed ^ mix(stream)), Ordering::Relaxed);
    }

    /// Relaxed: the state orders nothing.
    pub(crate) fn next(&self) -> u64 {
        let state = self.0.load(Ordering::Relaxed).wrapping_add(STEP);
        self.0.store(state, Ordering::Relaxed);
        mix(state)
    }

    pub(crate) fn fill(&self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            let bytes = self.next().to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }
}

impl TryRng for &Random {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok((self.next() >> 32) as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.next())
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        self.fill(out);
        Ok(())
    }
}

/// It is none; the keys that it salts are public, and a test must be repeatable.
impl TryCryptoRng for &Random {}

/// Step and finaliser of SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

pub(crate) const fn mix(mut state: u64) -> u64 {
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_sequence_and_streams_differ() {
        let drawn = |seed, stream| {
            let random = Random::new();
            random.seed(seed, stream);
            let mut out = [0; 19];
            random.fill(&mut out);
            out
        };
        assert_eq!(drawn(1, 1), drawn(1, 1));
        assert_ne!(drawn(1, 1), drawn(1, 2));
        assert_ne!(drawn(1, 1), drawn(2, 1));
    }

    #[test]
    fn the_sequence_is_that_of_the_reference() {
        // First output for state 0 in the authors' code.
        assert_eq!(Random::new().next(), 0xe220_a839_7b1d_cdaf);
    }
}
