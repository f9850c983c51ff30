//! Dice with a seed.

/// Dice with a seed (SplitMix64): a load needs variety that can be had again, not secrecy.
///
/// The same seed rolls the same numbers. What is drawn from a logarithm may differ in its last bit where another
/// mathematical library computes it.
#[derive(Clone, Debug)]
pub struct Dice(u64);

/// Steps of [`Dice::unit`]: as many as a float between 0 and 1 tells apart evenly.
const UNIT_STEPS: f64 = (1_u64 << 53) as f64;

impl Dice {
    /// Dice that start here.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Dice for one of several that roll side by side: neighbours start far from each other.
    #[must_use]
    pub const fn of(seed: u64, number: u32) -> Self {
        let mut seeds = Self(seed ^ ((number as u64) << 32));
        Self(seeds.roll())
    }

    /// The next number: any.
    pub const fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`, which is small against 2^64: the bias is of no account. 0 if the limit is 0.
    pub const fn below(&mut self, limit: u64) -> u64 {
        match limit {
            0 => 0,
            limit => self.roll() % limit,
        }
    }

    /// The same for a length.
    pub fn small(&mut self, limit: u64) -> usize {
        usize::try_from(self.below(limit)).unwrap_or(0)
    }

    /// A number from 0 up to 1, which is left out.
    pub fn unit(&mut self) -> f64 {
        (self.roll() >> 11) as f64 / UNIT_STEPS
    }

    /// A number of the exponential distribution with mean 1: what passes between events that know nothing of each
    /// other.
    pub fn exponential(&mut self) -> f64 {
        -(1.0 - self.unit()).ln()
    }

    /// A number of the normal distribution with mean 0 and deviation 1 (Box and Muller, 1958).
    pub fn normal(&mut self) -> f64 {
        let radius = (2.0 * self.exponential()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mean and variance of many draws.
    fn moments(mut draw: impl FnMut(&mut Dice) -> f64) -> (f64, f64) {
        const DRAWS: u32 = 100_000;
        let mut dice = Dice::new(11);
        let drawn: Vec<f64> = (0..DRAWS).map(|_| draw(&mut dice)).collect();
        let mean = drawn.iter().sum::<f64>() / f64::from(DRAWS);
        (mean, drawn.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / f64::from(DRAWS))
    }

    /// Of 100,000 draws the mean is within 1 % of a deviation, at three standard errors, and the variance within 3 %.
    fn assert_moments(of: &str, got: (f64, f64), mean: f64, variance: f64) {
        assert!((got.0 - mean).abs() < 0.01 * variance.sqrt(), "{of}: mean {}, expected {mean}", got.0);
        assert!((got.1 / variance - 1.0).abs() < 0.03, "{of}: variance {}, expected {variance}", got.1);
    }

    #[test]
    fn draws_have_the_mean_and_variance_of_their_distribution() {
        assert_moments("unit", moments(Dice::unit), 0.5, 1.0 / 12.0);
        assert_moments("exponential", moments(Dice::exponential), 1.0, 1.0);
        assert_moments("normal", moments(Dice::normal), 0.0, 1.0);
    }

    #[test]
    fn nothing_below_zero_is_zero() {
        assert_eq!(Dice::new(1).below(0), 0);
        assert!((0..1_000).all(|seed| Dice::new(seed).below(3) < 3));
    }

    #[test]
    fn neighbours_roll_different_numbers() {
        let first: std::collections::HashSet<u64> = (0..1_000).map(|n| Dice::of(1, n).roll()).collect();
        assert_eq!(first.len(), 1_000);
        assert_eq!(Dice::of(1, 7).roll(), Dice::of(1, 7).roll());
    }
}
