//! What the next request asks for.

use super::operation::{Operation, Size, Spread, Tenant};
use crate::dice::Dice;

/// A piece of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw {
    /// Index of [`Profile::operations`](super::Profile::operations).
    pub operation: usize,
    /// Bytes, as in a [`Case`](crate::Case).
    pub size: usize,
    /// Which of the operation's own keys, from 0.
    pub key: usize,
    /// On whose behalf; 0 is nobody.
    pub tenant: u64,
}

/// Draws what requests ask for, by weights and distributions.
///
/// It does not change, so that callers may share it; each brings its own dice. A draw allocates nothing.
///
/// ```
/// use hsmux_bench::profile::Profile;
///
/// let profile = Profile::preset("payment-auth")?;
/// let (mix, mut dice) = (profile.mix(), profile.dice(0));
/// let draw = mix.draw(&mut dice);
/// assert!(draw.operation < profile.operations.len() && draw.size > 0);
/// assert_eq!(draw, mix.draw(&mut profile.dice(0)));
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Debug)]
pub struct Mix {
    /// Sums of the weights up to each operation's own.
    weights: Weights,
    entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    sizes: Sizes,
    block: usize,
    keys: Ranks,
    tenants: Tenants,
}

#[derive(Clone, Debug)]
enum Sizes {
    Fixed(usize),
    Uniform { min: usize, count: u64 },
    Choice(Weights, Vec<usize>),
    LogNormal { log_median: f64, sigma: f64, max: usize },
}

#[derive(Clone, Debug)]
enum Tenants {
    One(u64),
    Many(Ranks),
}

/// Sums of weights: a number below the last is of the first that is above it.
#[derive(Clone, Debug)]
struct Weights(Vec<u64>);

/// Ranks by Zipf's law.
#[derive(Clone, Debug)]
enum Ranks {
    /// All alike.
    Even(u64),
    /// Shares of all up to each rank; the last is 1.
    Zipf(Vec<f64>),
}

impl Mix {
    pub(super) fn new(operations: &[Operation]) -> Self {
        let weights = Weights::new(operations.iter().map(|operation| operation.weight));
        Self { weights, entries: operations.iter().map(Entry::new).collect() }
    }

    /// The next piece of work; the same for dice that stand alike.
    #[must_use]
    pub fn draw(&self, dice: &mut Dice) -> Draw {
        let operation = self.weights.draw(dice);
        let Some(entry) = self.entries.get(operation) else {
            return Draw { operation, size: 0, key: 0, tenant: 0 };
        };
        Draw {
            operation,
            size: entry.size(dice),
            key: entry.keys.draw(dice),
            tenant: match &entry.tenants {
                Tenants::One(tenant) => *tenant,
                Tenants::Many(ranks) => ranks.draw(dice) as u64 + 1,
            },
        }
    }
}

impl Entry {
    fn new(operation: &Operation) -> Self {
        Self {
            sizes: Sizes::new(&operation.size, operation.op.block()),
            block: operation.op.block(),
            keys: Ranks::new(operation.keys),
            tenants: match operation.tenant {
                Tenant::One(tenant) => Tenants::One(tenant),
                Tenant::Many(spread) => Tenants::Many(Ranks::new(spread)),
            },
        }
    }

    /// In whole blocks.
    fn size(&self, dice: &mut Dice) -> usize {
        self.sizes.draw(dice, self.block).next_multiple_of(self.block)
    }
}

impl Sizes {
    fn new(size: &Size, block: usize) -> Self {
        match *size {
            Size::Fixed(size) => Self::Fixed(size),
            Size::Uniform(min, max) => {
                Self::Uniform { min, count: (max.saturating_sub(min) / block) as u64 + 1 }
            }
            Size::Choice(ref sizes) => {
                let weights = Weights::new(sizes.iter().map(|&(_, weight)| weight));
                Self::Choice(weights, sizes.iter().map(|&(size, _)| size).collect())
            }
            Size::LogNormal { median, sigma, max } => {
                Self::LogNormal { log_median: (median as f64).ln(), sigma, max }
            }
        }
    }

    fn draw(&self, dice: &mut Dice, block: usize) -> usize {
        match self {
            Self::Fixed(size) => *size,
            // By blocks, so that each size that is possible comes up as often as the others.
            Self::Uniform { min, count } => min + block * dice.small(*count),
            Self::Choice(weights, sizes) => sizes.get(weights.draw(dice)).copied().unwrap_or(0),
            Self::LogNormal { log_median, sigma, max } => {
                nearest((log_median + sigma * dice.normal()).exp()).min(*max).max(1)
            }
        }
    }
}

impl Weights {
    fn new(weights: impl Iterator<Item = u32>) -> Self {
        let sums = weights.scan(0_u64, |sum, weight| {
            *sum += u64::from(weight);
            Some(*sum)
        });
        Self(sums.collect())
    }

    /// An index; the first if all weigh nothing.
    fn draw(&self, dice: &mut Dice) -> usize {
        let rolled = dice.below(self.0.last().copied().unwrap_or(0));
        let index = self.0.partition_point(|&sum| sum <= rolled);
        if index < self.0.len() { index } else { 0 }
    }
}

impl Ranks {
    fn new(spread: Spread) -> Self {
        if spread.zipf == 0.0 {
            return Self::Even(spread.count.into());
        }
        let sums = (1..=spread.count).scan(0.0, |sum, rank| {
            *sum += f64::from(rank).powf(-spread.zipf);
            Some(*sum)
        });
        let sums: Vec<f64> = sums.collect();
        let all = sums.last().copied().unwrap_or(1.0);
        Self::Zipf(sums.into_iter().map(|sum| sum / all).collect())
    }

    fn draw(&self, dice: &mut Dice) -> usize {
        match self {
            Self::Even(1) => 0,
            Self::Even(count) => dice.small(*count),
            Self::Zipf(shares) => {
                let rolled = dice.unit();
                shares.partition_point(|&share| share <= rolled)
            }
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "it is whole already, and casts of floats saturate")]
fn nearest(value: f64) -> usize {
    value.round() as usize
}

#[cfg(test)]
mod tests;
