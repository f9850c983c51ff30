//! What tests of whole failures measure: how much they do, and how they say what came of it.

use std::fmt;
use std::time::Duration;

/// Whether the long forms are asked for, by `HSMUX_FAILURES=long`, as `scripts/soak.sh --failures` does: as much as the
/// promises speak of, with the bounds that they name, on a machine that does nothing else. Without it a test does less,
/// with bounds that a busy machine keeps.
#[must_use]
pub fn is_long() -> bool {
    std::env::var_os("HSMUX_FAILURES").is_some_and(|form| form == "long")
}

/// The one for the short form, or the one for the long form.
pub fn by_form<T>(short: T, long: T) -> T {
    if is_long() { long } else { short }
}

/// Times that were measured.
#[derive(Clone, Debug, Default)]
pub struct Times(Vec<Duration>);

impl Times {
    /// Adds one.
    pub fn push(&mut self, time: Duration) {
        self.0.push(time);
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The smallest that is not below so large a part of them: 0.999 is the p99.9. Zero if there is none.
    #[must_use]
    pub fn quantile(&self, part: f64) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        quantile(&sorted, part)
    }

    /// The longest. Zero if there is none.
    #[must_use]
    pub fn max(&self) -> Duration {
        self.0.iter().max().copied().unwrap_or_default()
    }
}

impl Extend<Duration> for Times {
    fn extend<I: IntoIterator<Item = Duration>>(&mut self, times: I) {
        self.0.extend(times);
    }
}

impl FromIterator<Duration> for Times {
    fn from_iter<I: IntoIterator<Item = Duration>>(times: I) -> Self {
        Self(times.into_iter().collect())
    }
}

impl IntoIterator for Times {
    type Item = Duration;
    type IntoIter = std::vec::IntoIter<Duration>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let [p50, p90, p99, p999] = [0.5, 0.9, 0.99, 0.999].map(|part| quantile(&sorted, part));
        let (count, max) = (sorted.len(), sorted.last().copied().unwrap_or_default());
        write!(
            f,
            "{count} times: p50 {p50:.1?}, p90 {p90:.1?}, p99 {p99:.1?}, p99.9 {p999:.1?}, max {max:.1?}"
        )
    }
}

fn quantile(sorted: &[Duration], part: f64) -> Duration {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank below their number")]
    let rank = (sorted.len() as f64 * part).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_a_time_that_was_measured() {
        let times: Times = (1..=1_000).rev().map(Duration::from_millis).collect();
        let at = |part| times.quantile(part).as_millis();
        assert_eq!([at(0.0), at(0.5), at(0.99), at(0.999), at(1.0)], [1, 500, 990, 999, 1_000]);
        assert_eq!((times.max().as_millis(), Times::default().quantile(0.5)), (1_000, Duration::ZERO));
    }
}
