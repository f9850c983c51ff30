//! A stretch of time with its rate, and counts of arrivals in it.

use std::time::Duration;

use super::rate::Rate;

/// A stretch of time at one rate, or with a rate that changes evenly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stretch {
    /// None if it never ends.
    length: Option<Duration>,
    from: Rate,
    to: Rate,
    /// Its arrivals, and the change of its rate per second: worked out once, for they are asked for at each arrival.
    count: Count,
    slope: f64,
}

/// A number of arrivals, with what there is of the next: exact where a float would have lost the fraction.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
pub(super) struct Count {
    whole: u64,
    /// At least 0 and below 1.
    part: f64,
}

const NS_PER_S: f64 = 1e9;

impl Stretch {
    /// At one rate.
    #[must_use]
    pub fn new(length: Duration, rate: Rate) -> Self {
        Self::ramp(length, rate, rate)
    }

    /// From one rate to another.
    #[must_use]
    pub fn ramp(length: Duration, from: Rate, to: Rate) -> Self {
        // From nanoseconds, for tenths of seconds are no sums of powers of two.
        let ns = length.as_nanos() as f64;
        let mut count = Count::default();
        count.add(f64::midpoint(from.per_s(), to.per_s()) * ns / NS_PER_S);
        let rise = to.per_s() - from.per_s();
        let slope = if length.is_zero() { 0.0 } else { rise * NS_PER_S / ns };
        Self { length: Some(length), from, to, count, slope }
    }

    /// At one rate without an end. Nothing comes after it.
    #[must_use]
    pub fn endless(rate: Rate) -> Self {
        Self { length: None, ..Self::new(Duration::ZERO, rate) }
    }

    pub(super) const fn length(&self) -> Duration {
        match self.length {
            Some(length) => length,
            None => Duration::MAX,
        }
    }

    /// How many arrivals are due in it: the integral of its rate. Nothing comes after an endless one, so nobody asks.
    pub(super) const fn count(&self) -> Count {
        self.count
    }

    /// How long after its start so many arrivals are due; `None` if it ends before, or then.
    ///
    /// The integral of a ramp is a parabola. Its root is taken in the form that loses no digits when the two rates
    /// are nearly, or really, the same.
    pub(super) fn time_of(&self, count: Count) -> Option<Duration> {
        if self.length.is_some() && count >= self.count {
            return None;
        }
        let (from, count) = (self.from.per_s(), count.value());
        let end = (from * from + 2.0 * self.slope * count).max(0.0).sqrt();
        let after = 2.0 * count / (from + end) * NS_PER_S;
        Some(Duration::from_nanos(whole(after.round())).min(self.length()))
    }
}

impl Count {
    /// Adds so many, which are not negative.
    pub(super) fn add(&mut self, more: f64) {
        let sum = self.part + more;
        self.whole = self.whole.saturating_add(whole(sum));
        self.part = sum.fract();
    }

    /// Takes so many away, which are no more than there are.
    pub(super) fn subtract(&mut self, less: Self) {
        self.part -= less.part;
        let borrowed = self.part < 0.0;
        if borrowed {
            self.part += 1.0;
        }
        self.whole = self.whole.saturating_sub(less.whole).saturating_sub(borrowed.into());
    }

    fn value(self) -> f64 {
        self.whole as f64 + self.part
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the whole part is wanted, and casts of floats saturate")]
const fn whole(value: f64) -> u64 {
    value as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(whole: u64, part: f64) -> Count {
        Count { whole, part }
    }

    #[test]
    fn counts_add_and_subtract_with_their_fractions() {
        let mut sum = count(1 << 60, 0.75);
        sum.add(1.5);
        assert_eq!(sum, count((1 << 60) + 2, 0.25));
        sum.subtract(count(1 << 60, 0.5));
        assert_eq!(sum, count(1, 0.75));
        assert!(count(1, 0.5) < count(1, 0.75) && count(1, 0.75) < count(2, 0.0));
    }

    #[test]
    fn half_of_its_time_is_not_half_of_the_arrivals_of_a_ramp() {
        let rate = |per_s| Rate::per_second(per_s).unwrap();
        let second = Duration::from_secs(1);
        let after = |stretch: Stretch, at: f64| {
            let mut count = Count::default();
            count.add(at);
            stretch.time_of(count).map(|time| time.as_secs_f64())
        };
        // 100 t + 150 t^2 at t: 87.5 after half of the time, 250 at the end.
        let up = Stretch::ramp(second, rate(100.0), rate(400.0));
        assert_eq!([0.0, 87.5, 250.0].map(|at| after(up, at)), [Some(0.0), Some(0.5), None]);
        assert!(after(up, 249.999).unwrap() > 0.999);
        let down = Stretch::ramp(second, rate(400.0), rate(100.0));
        assert_eq!(after(down, 250.0 - 87.5), Some(0.5));
        assert_eq!(after(Stretch::endless(rate(100.0)), 1e6), Some(1e4));
    }
}
