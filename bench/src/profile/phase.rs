//! Phases: stretches of time with what is asked for in them.

use std::time::Duration;

use crate::arrivals::{Rate, Stretch};

/// A stretch of time of a profile.
#[derive(Clone, Debug, PartialEq)]
pub struct Phase {
    /// Its name in the results.
    pub name: String,
    /// How long it is.
    pub length: Duration,
    /// How much is asked for.
    pub demand: Demand,
    /// Whether it counts in the totals: a warm-up does not.
    pub counted: bool,
}

/// How much is asked for in a phase.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Demand {
    /// Requests at a rate, in an open loop.
    Rate(Rate),
    /// Requests at a rate that changes evenly from the first to the second, in an open loop.
    Ramp(Rate, Rate),
    /// So many callers in a closed loop; as many as the profile has if that is not said.
    Callers(Option<u32>),
}

impl Phase {
    /// How many requests are due in it; none are in a closed loop, where nobody knows before.
    #[must_use]
    pub fn requests(&self) -> Option<f64> {
        self.demand.mean_per_s().map(|per_s| per_s * self.length.as_secs_f64())
    }

    /// As arrivals know it.
    pub(super) fn stretch(&self) -> Option<Stretch> {
        match self.demand {
            Demand::Rate(rate) => Some(Stretch::new(self.length, rate)),
            Demand::Ramp(from, to) => Some(Stretch::ramp(self.length, from, to)),
            Demand::Callers(_) => None,
        }
    }
}

impl Demand {
    /// Mean rate, per second; none of callers, who ask as fast as they are answered.
    #[must_use]
    pub const fn mean_per_s(self) -> Option<f64> {
        match self {
            Self::Rate(rate) => Some(rate.per_s()),
            Self::Ramp(from, to) => Some(f64::midpoint(from.per_s(), to.per_s())),
            Self::Callers(_) => None,
        }
    }
}
