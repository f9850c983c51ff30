//! What exporters make of a histogram: counts below a few round bounds, and a sum.

use hdrhistogram::Histogram;

/// The bounds in nanoseconds: 1 us to 10 s in steps of 1, 2.5 and 5.
///
/// From about the shortest call that any module answers to the engine's default deadline. A percentile that is
/// interpolated between two of them is off by the width of the step at most; more bounds cost a series each per
/// token, operation and stage.
pub(crate) const BOUNDS_NS: [u64; 22] = {
    let mut bounds = [0; 22];
    let (mut unit, mut i) = (1_000, 0);
    while i < bounds.len() {
        bounds[i] = match i % 3 {
            0 => unit,
            1 => unit / 10 * 25,
            _ => unit * 5,
        };
        if i % 3 == 2 {
            unit *= 10;
        }
        i += 1;
    }
    bounds
};

/// How many times of a histogram lie below each of [`BOUNDS_NS`].
///
/// The histogram keeps times in buckets that are at most 1/128 wide, and single nanoseconds below 256 ns. One of its
/// buckets counts below a bound only if the whole of it lies there. So no time above a bound is ever counted below it,
/// and one that is short of the bound by less than 1/128 may be counted above it.
pub(crate) fn below(histogram: &Histogram<u64>) -> [u64; BOUNDS_NS.len()] {
    let mut counts = [0; BOUNDS_NS.len()];
    for bucket in histogram.iter_recorded() {
        let longest = histogram.highest_equivalent(bucket.value_iterated_to());
        if let Some(count) = counts.get_mut(BOUNDS_NS.partition_point(|bound| *bound < longest)) {
            *count += bucket.count_at_value();
        }
    }
    for i in 1..counts.len() {
        counts[i] += counts[i - 1];
    }
    counts
}

/// All times of a histogram together, in nanoseconds, each taken as the middle of its bucket: wrong by 1/256 at
/// most. It never falls from one snapshot to the next.
pub(crate) fn sum_ns(histogram: &Histogram<u64>) -> u128 {
    let time = |ns| u128::from(histogram.median_equivalent(ns));
    histogram
        .iter_recorded()
        .map(|bucket| time(bucket.value_iterated_to()) * u128::from(bucket.count_at_value()))
        .sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::metrics::buckets::{self, Buckets};

    #[test]
    fn the_bounds_are_round_and_rise_from_a_microsecond_to_ten_seconds() {
        assert_eq!(BOUNDS_NS[..5], [1_000, 2_500, 5_000, 10_000, 25_000]);
        assert_eq!(BOUNDS_NS[18..], [1_000_000_000, 2_500_000_000, 5_000_000_000, 10_000_000_000]);
        assert!(BOUNDS_NS.is_sorted());
    }

    fn recorded(times: &[u64]) -> Histogram<u64> {
        let (buckets, mut histogram) = (Buckets::new(), buckets::empty());
        times.iter().for_each(|&ns| buckets.record(ns, 1));
        buckets.add_to(&mut histogram);
        histogram
    }

    #[test]
    fn times_that_no_bound_reaches_are_counted_by_none() {
        let histogram = recorded(&[0, 20_000_000_000, u64::MAX]);
        assert_eq!((histogram.len(), below(&histogram)), (3, [1; 22]));
    }

    proptest! {
        #[test]
        fn counts_never_hold_a_longer_time_and_miss_only_those_close_to_the_bound(
            times in proptest::collection::vec((0_u32..36, 0_u64..1 << 36), 0..200),
        ) {
            let times: Vec<u64> = times.into_iter().map(|(shift, ns)| ns >> shift).collect();
            let histogram = recorded(&times);
            for (bound, count) in BOUNDS_NS.into_iter().zip(below(&histogram)) {
                let count_below = |bound| times.iter().filter(|ns| **ns <= bound).count() as u64;
                prop_assert!(count <= count_below(bound), "{bound}");
                prop_assert!(count >= count_below(bound - bound / 128 - 1), "{bound}");
            }
            let sum: u128 = times.iter().map(|ns| u128::from(*ns)).sum();
            prop_assert!(sum_ns(&histogram).abs_diff(sum) <= sum / 256 + 1);
        }
    }
}
