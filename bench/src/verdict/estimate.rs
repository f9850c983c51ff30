//! The middle of a series of rounds, and how far off it may be.

use super::Settings;
use crate::dice::Dice;
use crate::stats::sorted;

/// A middle, and what is known of its error.
#[derive(Clone, Copy, Debug)]
pub(super) struct Estimate {
    pub(super) middle: f64,
    /// Standard error of the middle.
    pub(super) error: f64,
    /// Degrees of freedom of that error.
    pub(super) freedom: f64,
}

/// The part that is cut off at either end: as much as is usual for a robust mean. Seconds that stall are fewer, and
/// normal noise costs it an error only a few percent larger than that of the plain mean.
const CUT: f64 = 0.2;

/// Most that may carry over from round to round. Beyond it a series is a drift: its rounds are worth a fortieth of
/// their number, which is none.
const PERSISTENCE_MAX: f64 = 0.95;

/// Fewest degrees of freedom: Student's distribution with fewer has no variance.
const FREEDOM_MIN: f64 = 2.0;

impl Estimate {
    /// The difference of *after* and *before*, which know nothing of each other: a value for each of their rounds, in
    /// order.
    ///
    /// What is carried over is taken to be the same on both sides: they ran on one machine, and twice the rounds know
    /// it better.
    pub(super) fn of(before: &[f64], after: &[f64], settings: &Settings) -> Self {
        let weighted = [before, after].map(|side| persistence(side) * side.len() as f64);
        let carried = weighted.iter().sum::<f64>() / (before.len() + after.len()) as f64;
        // Sides draw from dice of their own, so that neither depends on the length of the other.
        Self::of_series(after, carried, settings, 1).less(Self::of_series(before, carried, settings, 0))
    }

    /// Of one series, in order.
    pub(super) fn of_one(values: &[f64], settings: &Settings) -> Self {
        Self::of_series(values, persistence(values), settings, 0)
    }

    fn of_series(values: &[f64], carried: f64, settings: &Settings, side: u32) -> Self {
        let n = values.len() as f64;
        let sorted = sorted(values);
        // Negative ones, with which a mean is better than it seems, are not believed.
        let carried = carried.clamp(0.0, PERSISTENCE_MAX);
        let cost = (1.0 + carried) / (1.0 - carried);
        // n / (n - 1): as in every variance about a mean of the same values.
        let variance = drawn_variance(&sorted, settings, side) * cost * n / (n - 1.0);
        Self { middle: middle(&sorted), error: variance.sqrt(), freedom: (n / cost - 1.0).max(FREEDOM_MIN) }
    }

    fn less(self, other: Self) -> Self {
        let [one, two] = [self.error.powi(2), other.error.powi(2)];
        let sum = one + two;
        // Welch, 1947: between the smaller freedom and the sum of both. Without any error either will do.
        let freedom = if sum > 0.0 {
            sum * sum / (one * one / self.freedom + two * two / other.freedom)
        } else {
            self.freedom
        };
        Self { middle: self.middle - other.middle, error: sum.sqrt(), freedom }
    }
}

/// The places that are left of so many sorted values after cutting.
fn kept(len: usize) -> std::ops::Range<usize> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of a length")]
    let cut = (len as f64 * CUT) as usize;
    cut..len - cut
}

fn middle(sorted: &[f64]) -> f64 {
    let kept = &sorted[kept(sorted.len())];
    kept.iter().sum::<f64>() / kept.len() as f64
}

/// The variance of the middle among series of the same length, drawn from these values.
fn drawn_variance(sorted: &[f64], settings: &Settings, side: u32) -> f64 {
    let mut dice = Dice::of(settings.seed, side);
    let mut times = vec![0_usize; sorted.len()];
    let middles: Vec<_> =
        (0..settings.draws.max(2)).map(|_| drawn_middle(sorted, &mut times, &mut dice)).collect();
    let mean = middles.iter().sum::<f64>() / middles.len() as f64;
    middles.iter().map(|middle| (middle - mean).powi(2)).sum::<f64>() / (middles.len() - 1) as f64
}

/// The middle of as many values, drawn with replacement. Only how often each is drawn matters, so nothing is sorted.
fn drawn_middle(sorted: &[f64], times: &mut [usize], dice: &mut Dice) -> f64 {
    times.fill(0);
    for _ in sorted {
        times[dice.small(sorted.len() as u64)] += 1;
    }
    let kept = kept(sorted.len());
    let (mut place, mut sum) = (0, 0.0);
    for (value, &times) in sorted.iter().zip(&*times) {
        let from = place.clamp(kept.start, kept.end);
        place += times;
        sum += value * (place.clamp(kept.start, kept.end) - from) as f64;
    }
    sum / kept.len() as f64
}

/// What a round carries over of the deviation of the one before it: the correlation of neighbours. What would be cut
/// is moved to the edge of what is kept, since one outlier would hide the rest.
///
/// The plain estimate is too small by (1 + 4 r) / n (Kendall, Note on bias in the estimation of autocorrelation,
/// Biometrika 41, 1954), which is added back.
fn persistence(values: &[f64]) -> f64 {
    let sorted = sorted(values);
    let kept = kept(sorted.len());
    let [low, high] = [sorted[kept.start], sorted[kept.end - 1]];
    let n = values.len() as f64;
    let values: Vec<_> = values.iter().map(|value| value.clamp(low, high)).collect();
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let products: f64 = values.windows(2).map(|pair| (pair[0] - mean) * (pair[1] - mean)).sum();
    if squares > 0.0 {
        let plain = products / squares;
        plain + (1.0 + 4.0 * plain) / n
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_carried_over_is_found_in_short_series_too() {
        const ROUNDS: usize = 12;
        const SERIES: u32 = 2_000;
        let mut dice = Dice::new(1);
        for carried in [0.0, 0.5_f64] {
            let mut value = 0.0;
            let mut series = || -> Vec<f64> {
                let mut next = || {
                    value = carried * value + (1.0 - carried * carried).sqrt() * dice.normal();
                    value
                };
                (0..ROUNDS).map(|_| next()).collect()
            };
            let mean = (0..SERIES).map(|_| persistence(&series())).sum::<f64>() / f64::from(SERIES);
            // The plain estimate would be 0.08 and 0.3 too low. Moving the outer values costs a part, as it should:
            // less is left of their noise, too.
            assert!((mean - carried).abs() < 0.11, "{mean}, expected {carried}");
        }
    }

    #[test]
    fn freedom_is_that_of_the_rounds_and_of_fewer_if_they_are_alike() {
        let freedom = |values: &[f64]| Estimate::of_one(values, &Settings::rates()).freedom;
        let alternating: Vec<_> = (0..20).map(|round| f64::from(round % 2)).collect();
        assert_eq!(freedom(&alternating), 19.0);
        let rising: Vec<_> = (0..20).map(f64::from).collect();
        assert_eq!(freedom(&rising), FREEDOM_MIN);
    }

    #[test]
    fn the_error_of_even_noise_is_the_deviation_over_the_root() {
        let mut dice = Dice::new(4);
        let values: Vec<_> = (0..400).map(|_| dice.normal()).collect();
        let error = Estimate::of_series(&values, 0.0, &Settings::rates(), 0).error;
        // 400 values: 0.05 of the plain mean, 7 % more of this middle; both known to within a tenth.
        assert!((0.047..0.061).contains(&error), "{error}");
        let carried = Estimate::of_series(&values, 0.5, &Settings::rates(), 0).error;
        assert!((carried / error - 3.0_f64.sqrt()).abs() < 1e-9, "{carried}");
    }
}
