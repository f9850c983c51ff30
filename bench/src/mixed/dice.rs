//! The dice of a mixed load.

use super::work::Work;

/// Dice with a seed (SplitMix64): the load needs variety, not secrecy.
#[derive(Debug)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`, which is at least 1 and small: the bias is of no account.
    pub(super) const fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// The same for a length.
    pub(super) fn small(&mut self, limit: u64) -> usize {
        usize::try_from(self.below(limit)).unwrap_or(0)
    }

    /// By weight; random bytes if there is nothing to choose from.
    pub(super) fn choose(&mut self, works: &[Work]) -> Work {
        let all: u64 = works.iter().map(|work| work.weight()).sum();
        let mut left = self.below(all.max(1));
        for &work in works {
            match left.checked_sub(work.weight()) {
                Some(rest) => left = rest,
                None => return work,
            }
        }
        Work::Random
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_comes_up_in_proportion_to_its_weight() {
        let mut dice = Dice::new(7);
        let mut counts = [0_u64; Work::ALL.len()];
        let all: u64 = Work::ALL.iter().map(|work| work.weight()).sum();
        (0..all * 1_000).for_each(|_| counts[dice.choose(&Work::ALL) as usize] += 1);
        for work in Work::ALL {
            let (count, expected) = (counts[work as usize], work.weight() * 1_000);
            assert!(count.abs_diff(expected) < expected / 5, "{work}: {count}, expected {expected}");
        }
        assert_eq!(dice.choose(&[Work::SignHmac]), Work::SignHmac);
    }
}
