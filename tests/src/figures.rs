//! What tests of whole failures measure: how much they do, and how they say what came of it.

use std::fmt;
use std::time::Duration;

use quanta::Instant;

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

/// Lets so much time pass, in which others do what is measured. Never less: a thread that has been woken before is woken
/// at once.
pub fn let_pass(time: Duration) {
    let started = Instant::now();
    while started.elapsed() < time {
        std::thread::park_timeout(time.saturating_sub(started.elapsed()));
    }
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

/// The median of differences, and between which two of them the true one lies with 99.7 % confidence, by order
/// statistics and the normal approximation of the binomial distribution (three standard deviations): for many values. So
/// wide that of twenty true medians, looked at one after the other, none lies outside by chance as a rule.
///
/// # Panics
/// If there are fewer than a hundred.
#[must_use]
pub fn median_interval(mut values: Vec<i64>) -> (i64, [i64; 2]) {
    assert!(values.len() >= 100, "too few for the approximation");
    values.sort_unstable();
    let (middle, spread) = (values.len() / 2, 1.5 * (values.len() as f64).sqrt());
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "below their number")]
    let spread = spread.ceil() as usize;
    (values[middle], [values[middle - spread], values[middle + spread]])
}

/// How fast something grows, by least squares over points of time and value, and by how much that may be wrong with 95 %
/// confidence where what is measured errs independently. Memory does not quite: what a thread frees it keeps for a while.
///
/// # Panics
/// If there are fewer than three points, or all are of one time.
#[must_use]
pub fn slope(points: &[(f64, f64)]) -> (f64, f64) {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (time, value) = (mean(|point| point.0), mean(|point| point.1));
    let spread: f64 = points.iter().map(|point| (point.0 - time).powi(2)).sum();
    assert!(points.len() > 2 && spread > 0.0, "too few points for a line");
    let slope = points.iter().map(|point| (point.0 - time) * (point.1 - value)).sum::<f64>() / spread;
    let rest: f64 = points.iter().map(|point| (point.1 - value - slope * (point.0 - time)).powi(2)).sum();
    // The normal approximation: for many points.
    (slope, 1.96 * (rest / (count - 2.0) / spread).sqrt())
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

    #[test]
    fn a_slope_is_that_of_the_line_and_errs_by_what_the_points_do() {
        let line: Vec<_> = (0..100).map(|n| (f64::from(n), 7.0 + 0.5 * f64::from(n))).collect();
        let (exact, none) = slope(&line);
        assert!((exact - 0.5).abs() < 1e-9 && none < 1e-6, "{exact} {none}");
        // Off by one, to both sides in turn: the standard error is that of 100 errors of 1 over times of this spread.
        let rough: Vec<_> =
            line.iter().zip([1.0, -1.0].into_iter().cycle()).map(|(p, e)| (p.0, p.1 + e)).collect();
        let (near, half_width) = slope(&rough);
        assert!(
            (near - 0.5).abs() < half_width && (0.006..0.008).contains(&half_width),
            "{near} {half_width}"
        );
    }

    #[test]
    fn the_interval_of_a_median_has_the_ranks_of_the_normal_approximation() {
        // The number of 10 000 values that lie below varies by 50, the root of a quarter of them.
        assert_eq!(median_interval((0..10_000).rev().collect()), (5_000, [4_850, 5_150]));
    }
}
