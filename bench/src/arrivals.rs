//! Intended start times of an open loop: when a request is due, whatever became of those before it.
//!
//! A [`Schedule`] turns [`Stretch`]es of time, each with its rate, into [`Arrival`]s. It reads no clock: offsets are
//! from the start of the run. Whoever measures from them charges a stall to every request that it delays.

mod rate;
mod stretch;

use std::num::NonZeroU32;
use std::time::Duration;

use crate::dice::Dice;
use stretch::Count;

pub use rate::{AskedRate, Pace, Rate};
pub use stretch::Stretch;

/// When a request is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Offset from the start of the run.
    pub at: Duration,
    /// In which of the schedule's stretches.
    pub phase: usize,
}

/// Intended start times, in order: an iterator that ends with the last stretch, or never if that is endless.
///
/// Time is measured in arrivals that are due, the integral of the rate; there, a constant pace steps by one, and
/// a Poisson process by exponential numbers with mean 1. Each step is then put on the clock by the inverse of the
/// integral, from the start of its stretch. So ramps are exact, what is left of a step at the end of a stretch is
/// carried over into the next, and nothing drifts: in hours at 10^7/s as little as in a second. With a constant pace
/// the number of arrivals of each stretch is its integral to within one.
///
/// It allocates nothing per arrival.
///
/// ```
/// use std::time::Duration;
/// use hsmux_bench::arrivals::{Pace, Schedule, Stretch};
///
/// let warm_up = Stretch::new(Duration::from_millis(10), "200/s".parse()?);
/// let steady = Stretch::new(Duration::from_millis(10), "400/s".parse()?);
/// let due: Vec<_> = Schedule::new(Pace::Constant, [warm_up, steady], 1).collect();
/// let at: Vec<_> = due.iter().map(|arrival| arrival.at.as_micros()).collect();
/// assert_eq!(at, [0, 5_000, 10_000, 12_500, 15_000, 17_500]);
/// assert_eq!((due[1].phase, due[2].phase), (0, 1));
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Debug)]
pub struct Schedule {
    stretches: Vec<Stretch>,
    pace: Pace,
    seed: u64,
    dice: Dice,
    /// Of so many schedules that share the arrivals between them, this is one.
    shares: NonZeroU32,
    /// The stretch of the next arrival, unless that is due later.
    phase: usize,
    /// Where that stretch begins.
    from: Duration,
    /// The next arrival, in arrivals from there.
    next: Count,
    last: Duration,
}

impl Schedule {
    /// The arrivals of these stretches, one after the other. The seed matters to [`Pace::Poisson`] only.
    ///
    /// The first of a constant pace is due at once.
    pub fn new(pace: Pace, stretches: impl IntoIterator<Item = Stretch>, seed: u64) -> Self {
        let schedule = Self {
            stretches: stretches.into_iter().collect(),
            pace,
            seed,
            dice: Dice::new(seed),
            shares: NonZeroU32::MIN,
            phase: 0,
            from: Duration::ZERO,
            next: Count::default(),
            last: Duration::ZERO,
        };
        schedule.share(0, NonZeroU32::MIN)
    }

    /// One of several schedules that make up this one between them, from its beginning: for drivers that each make
    /// their own part of the requests. Indices go from 0 to below `shares`.
    ///
    /// Of a constant pace each takes its turn, `index` first. Of a Poisson process each is a process of its own at that
    /// part of the rate: superimposed they are one at the whole rate.
    #[must_use]
    pub fn share(mut self, index: u32, shares: NonZeroU32) -> Self {
        self.dice = Dice::of(self.seed, index);
        self.shares = shares;
        (self.phase, self.from, self.last) = (0, Duration::ZERO, Duration::ZERO);
        self.next = Count::default();
        match self.pace {
            Pace::Constant => self.next.add(f64::from(index)),
            Pace::Poisson => self.step(),
        }
        self
    }

    /// From one arrival to the next.
    fn step(&mut self) {
        let shares = f64::from(self.shares.get());
        self.next.add(match self.pace {
            Pace::Constant => shares,
            Pace::Poisson => shares * self.dice.exponential(),
        });
    }
}

impl Iterator for Schedule {
    type Item = Arrival;

    fn next(&mut self) -> Option<Arrival> {
        loop {
            let stretch = self.stretches.get(self.phase)?;
            if let Some(after) = stretch.time_of(self.next) {
                // Never back, even if rounding has two arrivals of a ramp change places.
                self.last = self.from.saturating_add(after).max(self.last);
                self.step();
                return Some(Arrival { at: self.last, phase: self.phase });
            }
            self.next.subtract(stretch.count());
            self.from = self.from.saturating_add(stretch.length());
            self.phase += 1;
        }
    }
}

#[cfg(test)]
mod tests;
