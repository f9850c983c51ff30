//! Profiles made faster, slower, longer or shorter.

use std::time::Duration;

use super::phase::{Demand, Phase};
use super::{Profile, parse};
use crate::arrivals::Rate;

impl Profile {
    /// The mean rate of the phases that count; `None` for a closed loop.
    #[must_use]
    pub fn mean_per_s(&self) -> Option<f64> {
        let counted = || self.phases.iter().filter(|phase| phase.counted);
        let requests: f64 = counted().map(Phase::requests).sum::<Option<f64>>()?;
        Some(requests / counted().map(|phase| phase.length).sum::<Duration>().as_secs_f64())
    }

    /// With every rate so many times as high.
    ///
    /// # Errors
    /// A text: it is a closed loop, or a rate would be one that is not possible.
    pub fn scaled(mut self, factor: f64) -> Result<Self, String> {
        let scale = |rate: Rate| Rate::per_second(rate.per_s() * factor);
        for phase in &mut self.phases {
            phase.demand = match phase.demand {
                Demand::Rate(rate) => Demand::Rate(scale(rate)?),
                Demand::Ramp(from, to) => Demand::Ramp(scale(from)?, scale(to)?),
                Demand::Callers(_) => {
                    return Err(format!("{} is a closed loop, which has no rate", self.name));
                }
            };
        }
        Ok(self)
    }

    /// With every rate as many times as high as makes this the mean rate of the phases that count, so that a profile of
    /// one steady phase and a warm-up has just this rate in the steady phase.
    ///
    /// # Errors
    /// As [`Profile::scaled`].
    pub fn at_rate(self, rate: Rate) -> Result<Self, String> {
        let factor = self.mean_per_s().map_or(1.0, |mean| rate.per_s() / mean);
        self.scaled(factor)
    }

    /// With every phase, warm-ups too, as many times as long as makes this the length of the whole.
    ///
    /// # Errors
    /// A text: the whole would be above 12 hours, or a phase below a millisecond.
    pub fn for_time(mut self, time: Duration) -> Result<Self, String> {
        let factor = time.as_secs_f64() / self.length().as_secs_f64();
        let mut left = time;
        let last = self.phases.len().saturating_sub(1);
        for (index, phase) in self.phases.iter_mut().enumerate() {
            let scaled = Duration::try_from_secs_f64(phase.length.as_secs_f64() * factor).unwrap_or(time);
            // What rounding has added or taken is the last one's.
            phase.length = if index == last { left } else { scaled.min(left) };
            left = left.saturating_sub(phase.length);
        }
        match self.phases.iter().find(|phase| phase.length < parse::PHASE_MIN) {
            Some(phase) => {
                Err(format!("too short: phase {:?} would last less than a millisecond", phase.name))
            }
            None if time > parse::LENGTH_MAX => Err("too long: a profile takes 12 hours at most".to_owned()),
            None => Ok(self),
        }
    }
}
