//! A histogram that one thread writes and any thread reads: hdrhistogram's layout over atomic counters.

use std::sync::OnceLock;

use hdrhistogram::Histogram;

use crate::metrics::recorder::add;
use crate::sync::{AtomicU64, Ordering};

/// Values below this have a bucket each; above it every doubling has [`HALF`] buckets, so that a bucket is at
/// most 1/128 wide: two significant digits.
const LINEAR: u64 = 256;
const HALF: usize = 128;

/// Doublings above the linear part: up to 2^37 ns, 137 s. Longer is counted in the last bucket.
const DOUBLINGS: usize = 29;

const BUCKETS: usize = 256 + DOUBLINGS * HALF;

/// Counts per bucket, allocated at the first record (31 KiB).
#[derive(Debug)]
pub(crate) struct Buckets(OnceLock<Box<[AtomicU64]>>);

impl Buckets {
    pub(crate) const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// Counts a value so many times. One writer at a time: who holds the session.
    #[inline]
    pub(crate) fn record(&self, ns: u64, times: u64) {
        let counts = self.0.get_or_init(|| (0..BUCKETS).map(|_| AtomicU64::new(0)).collect());
        add(&counts[index(ns)], times);
    }

    /// How many values were counted.
    pub(crate) fn count(&self) -> u64 {
        self.0.get().into_iter().flatten().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Adds what was counted to a histogram of the same precision.
    pub(crate) fn add_to(&self, histogram: &mut Histogram<u64>) {
        for (index, count) in self.0.get().into_iter().flatten().enumerate() {
            let count = count.load(Ordering::Relaxed);
            if count > 0 {
                histogram.saturating_record_n(middle(index), count);
            }
        }
    }
}

/// An empty histogram that holds every value of a [`Buckets`].
#[expect(
    clippy::expect_used,
    reason = "constant bounds: 1, 2^37, two digits; every test would meet a mistake"
)]
pub(crate) fn empty() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 1 << 37, 2).expect("bounds are valid")
}

#[expect(clippy::cast_possible_truncation, reason = "every value is below BUCKETS")]
fn index(ns: u64) -> usize {
    if ns < LINEAR {
        return ns as usize;
    }
    // The shift that brings the value into 128..256.
    let shift = 56 - u64::from(ns.leading_zeros());
    let index = 256 + (shift as usize - 1) * HALF + ((ns >> shift) as usize - HALF);
    index.min(BUCKETS - 1)
}

/// The middle of a bucket, in nanoseconds.
const fn middle(index: usize) -> u64 {
    if index < 256 {
        return index as u64;
    }
    let shift = (index - 256) / HALF + 1;
    let low = (((index - 256) % HALF + HALF) as u64) << shift;
    low + (1 << shift) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lands_in_a_bucket_within_one_percent() {
        let mut ns = 1_u64;
        while ns < 1 << 37 {
            for value in [ns - 1, ns, ns + ns / 3] {
                let got = middle(index(value));
                assert!(got.abs_diff(value) <= value / 128, "{value}: {got}");
            }
            ns *= 2;
        }
        assert_eq!(index(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn indices_rise_without_a_gap() {
        let mut last = 0;
        for value in 0..100_000 {
            let index = index(value);
            assert!(index == last || index == last + 1, "{value}");
            last = index;
        }
    }

    #[test]
    fn percentiles_come_out_as_they_went_in() {
        let buckets = Buckets::new();
        (1..=1_000).for_each(|us| buckets.record(us * 1_000, 1));
        let mut histogram = empty();
        buckets.add_to(&mut histogram);
        assert_eq!(histogram.len(), 1_000);
        for (quantile, want) in [(0.5, 500_000), (0.99, 990_000), (1.0, 1_000_000)] {
            let got = histogram.value_at_quantile(quantile);
            assert!(got.abs_diff(want) <= want / 60, "{quantile}: {got}");
        }
    }
}
