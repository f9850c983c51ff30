//! Medians and how far to trust them.

use serde::Serialize;

/// Bounds between which a figure lies, with a confidence that whoever makes them states.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(into = "[f64; 2]")]
pub struct Interval {
    /// Lower bound.
    pub low: f64,
    /// Upper bound.
    pub high: f64,
}

impl From<Interval> for [f64; 2] {
    fn from(interval: Interval) -> Self {
        [interval.low, interval.high]
    }
}

/// The chance of either tail that the interval leaves out.
const TAIL: f64 = 0.05;

/// The median; of an even number of values the mean of the middle two. `None` if there is no value.
#[must_use]
pub fn median(values: &[f64]) -> Option<f64> {
    let sorted = sorted(values);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        len if len % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

/// The 90 % interval of the median by order statistics, which asks nothing of the distribution.
///
/// The k-th smallest of n values lies above the median with the chance that a fair coin shows fewer than k
/// heads in n throws; the interval runs from the largest k for which that is at most 5 % to its mirror image.
/// `None` for fewer than five values: no two of them are so far apart.
#[must_use]
pub fn median_interval(values: &[f64]) -> Option<Interval> {
    let sorted = sorted(values);
    let n = sorted.len();
    let mut below = 0.0;
    let mut rank = 0;
    // Chance of exactly `rank` heads, carried along from rank to rank.
    let mut chance = 0.5_f64.powf(n as f64);
    while rank < n && below + chance <= TAIL {
        below += chance;
        chance *= (n - rank) as f64 / (rank + 1) as f64;
        rank += 1;
    }
    (rank > 0).then(|| Interval { low: sorted[rank - 1], high: sorted[n - rank] })
}

pub(crate) fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(n: u32) -> Vec<f64> {
        (1..=n).rev().map(f64::from).collect()
    }

    #[test]
    fn the_median_is_the_middle_value_or_the_mean_of_two() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 5.0]), Some(5.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn the_interval_has_the_ranks_of_the_tables() {
        // Ranks of the sign test at 90 %: 5 values (1, 5), 8 (2, 7), 11 (3, 9), 20 (6, 15).
        for (n, low, high) in [(5, 1.0, 5.0), (7, 1.0, 7.0), (8, 2.0, 7.0), (11, 3.0, 9.0), (20, 6.0, 15.0)] {
            assert_eq!(median_interval(&first(n)), Some(Interval { low, high }), "{n}");
        }
    }

    #[test]
    fn four_values_are_too_few_for_an_interval() {
        assert_eq!(median_interval(&first(4)), None);
        assert_eq!(median_interval(&[]), None);
    }
}
