//! Distributions of times in a document: the figures that people read, and all of it in `HdrHistogram`'s encoding.

use data_encoding::BASE64;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer};

use super::Latency;

impl Latency {
    /// The figures of a histogram of nanoseconds, with all of it inside.
    #[must_use]
    pub fn of(histogram: &Histogram<u64>) -> Self {
        if histogram.is_empty() {
            return Self::default();
        }
        let at = |quantile| histogram.value_at_quantile(quantile);
        Self {
            count: histogram.len(),
            min_ns: histogram.min(),
            max_ns: histogram.max(),
            mean_ns: histogram.mean(),
            p50_ns: at(0.5),
            p90_ns: at(0.9),
            p99_ns: at(0.99),
            p999_ns: at(0.999),
            p9999_ns: at(0.9999),
            histogram: encoded(histogram),
        }
    }

    /// The whole distribution, in nanoseconds; `None` if the document holds none, or none that can be read.
    #[must_use]
    pub fn histogram(&self) -> Option<Histogram<u64>> {
        let bytes = BASE64.decode(self.histogram.as_bytes()).ok()?;
        Deserializer::new().deserialize(&mut bytes.as_slice()).ok()
    }
}

/// Empty if the encoder fails, which it does for no histogram of ours: it counts to 2^63, and writes to memory.
fn encoded(histogram: &Histogram<u64>) -> String {
    let mut bytes = Vec::new();
    match V2DeflateSerializer::new().serialize(histogram, &mut bytes) {
        Ok(_) => BASE64.encode(&bytes),
        Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thousand() -> Histogram<u64> {
        let mut histogram = Histogram::new(3).unwrap();
        (1..=1_000).for_each(|us| histogram.record(us * 1_000).unwrap());
        histogram
    }

    #[test]
    fn a_histogram_comes_back_as_it_was() {
        let latency = Latency::of(&thousand());
        assert_eq!(latency.histogram().unwrap(), thousand());
        assert_eq!(latency.count, 1_000);
        for (figure, us) in [(latency.p50_ns, 500), (latency.p90_ns, 900), (latency.p99_ns, 990)] {
            assert!(figure.abs_diff(us * 1_000) <= us, "{figure} ns for {us} us");
        }
        assert!((latency.mean_ns - 500_500.0).abs() < 500.0);
        assert!(latency.min_ns.abs_diff(1_000) <= 1 && latency.max_ns.abs_diff(1_000_000) <= 1_000);
    }

    #[test]
    fn nothing_counted_is_all_zero() {
        assert_eq!(Latency::of(&Histogram::new(3).unwrap()), Latency::default());
        assert!(Latency::default().histogram().is_none());
    }

    #[test]
    fn what_is_no_histogram_is_none() {
        let mut latency = Latency::of(&thousand());
        latency.histogram.truncate(40);
        assert!(latency.histogram().is_none());
        for text in ["?", "AAAA", "HISTFAAA"] {
            latency.histogram = text.to_owned();
            assert!(latency.histogram().is_none(), "{text}");
        }
    }
}
