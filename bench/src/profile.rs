//! Profiles: what a load is, as a TOML file says it.
//!
//! A [`Profile`] is parsed from TOML and shows itself as such again. Its [`Schedule`] says when requests are due, its
//! [`Mix`] what they ask for. Nothing here reads a clock or starts anything.
//!
#![doc = include_str!("../docs/profiles.md")]

mod change;
mod error;
mod mix;
mod operation;
mod parse;
mod phase;
mod presets;
mod value;
mod write;

use std::time::Duration;

use crate::arrivals::{Pace, Rate, Schedule};
use crate::case::Case;
use crate::dice::Dice;

pub use error::ProfileError;
pub use mix::{Draw, Mix};
pub use operation::{Deadline, Operation, Size, Spread, Tenant};
pub use phase::{Demand, Phase};
pub use presets::Preset;

/// What a load is. Its fields are those of the file, which the [module](self) explains.
///
/// Whoever changes a field keeps it as [`Profile::parse`] would take it; whoever does not gets a load that is odd, but no
/// panic.
///
/// ```
/// use hsmux_bench::profile::Profile;
///
/// let text = r#"
///     name = "p256"
///     pace = "poisson"
///     [[phase]]
///     name = "steady"
///     for = "20s"
///     rate = "500/s"
///     [[operation]]
///     op = "ecdsa-p256"
/// "#;
/// let profile = Profile::parse(text)?;
/// assert_eq!(profile.operations[0].name, "ecdsa-p256:64");
/// assert_eq!(Profile::parse(&profile.to_toml())?, profile);
///
/// let error = Profile::parse(&text.replace("500/s", "0/s")).unwrap_err();
/// assert_eq!((error.line(), error.column()), (7, 12));
/// # Ok::<(), hsmux_bench::profile::ProfileError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// Title of the results.
    pub name: String,
    /// Where its shape comes from; may be empty.
    pub description: String,
    /// How requests follow each other in an open loop; `None` for a closed loop.
    pub pace: Option<Pace>,
    /// Whether callers are tasks or threads.
    pub api: ProfileApi,
    /// Most requests in flight in an open loop; callers of a closed loop, where a phase says no other number.
    pub callers: u32,
    /// Of the requests of all operations that say no other.
    pub deadline: Deadline,
    /// Where the dice start. Above 2^63 - 1 it cannot be written as TOML.
    pub seed: u64,
    /// Stretches of time, in order; at least one.
    pub phases: Vec<Phase>,
    /// Entries of the mix; at least one.
    pub operations: Vec<Operation>,
}

/// By which of the engine's ways the callers of a profile make their requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProfileApi {
    /// A thread per caller.
    Blocking,
    /// A task per caller.
    #[default]
    Tasks,
}

/// Which dice roll for the arrivals; those of callers have their own numbers, below 65536.
const ARRIVALS: u32 = u32::MAX;

/// Where no number of callers is given: enough that an open loop rarely waits for one, and few enough that as many
/// threads are no burden.
const CALLERS: u32 = 64;

impl Profile {
    /// Profiles that come with the package.
    pub const PRESETS: [Preset; 5] = presets::ALL;

    /// Reads a profile.
    ///
    /// # Errors
    /// What is wrong with it, with line and column.
    pub fn parse(text: &str) -> Result<Self, ProfileError> {
        parse::profile(text)
    }

    /// The preset of this name.
    ///
    /// # Errors
    /// A text: there is none of this name, but these.
    pub fn preset(name: &str) -> Result<Self, String> {
        presets::find(name)
    }

    /// A profile of one operation and one phase: with a pace and a rate an open loop, else a closed one.
    #[must_use]
    pub fn single(case: Case, asked: Option<(Pace, Rate)>, length: Duration) -> Self {
        let demand = asked.map_or(Demand::Callers(None), |(_, rate)| Demand::Rate(rate));
        Self {
            name: case.to_string(),
            description: String::new(),
            pace: asked.map(|(pace, _)| pace),
            api: ProfileApi::default(),
            callers: CALLERS,
            deadline: Deadline::Default,
            seed: 1,
            phases: vec![Phase { name: "steady".to_owned(), length, demand, counted: true }],
            operations: vec![Operation::of(case)],
        }
    }

    /// As TOML, every field written out, which [`Profile::parse`] reads as an equal profile.
    #[must_use]
    pub fn to_toml(&self) -> String {
        write::toml(self)
    }

    /// When requests are due; the phases of its arrivals are indices of [`Profile::phases`]. `None` for a closed loop.
    #[must_use]
    pub fn schedule(&self) -> Option<Schedule> {
        let stretches: Option<Vec<_>> = self.phases.iter().map(Phase::stretch).collect();
        Some(Schedule::new(self.pace?, stretches?, Dice::of(self.seed, ARRIVALS).roll()))
    }

    /// What requests ask for. Make it once: its tables take time and room for each key and tenant.
    #[must_use]
    pub fn mix(&self) -> Mix {
        Mix::new(&self.operations)
    }

    /// The dice by which a caller, or a driver of an open loop, draws from the mix. Numbers are below 65536.
    #[must_use]
    pub const fn dice(&self, caller: u32) -> Dice {
        Dice::of(self.seed, caller)
    }

    /// How long it takes: all its phases.
    #[must_use]
    pub fn length(&self) -> Duration {
        self.phases.iter().map(|phase| phase.length).sum()
    }

    /// How many keys it needs: those of all operations that take one.
    #[must_use]
    pub fn keys(&self) -> u64 {
        let with_keys = self.operations.iter().filter(|operation| operation.op.key_spec().is_some());
        with_keys.map(|operation| u64::from(operation.keys.count)).sum()
    }

    /// Callers at a time in a phase: of an open loop, most requests in flight.
    #[must_use]
    pub const fn callers_in(&self, phase: &Phase) -> u32 {
        match phase.demand {
            Demand::Callers(Some(callers)) => callers,
            Demand::Callers(None) | Demand::Rate(_) | Demand::Ramp(..) => self.callers,
        }
    }

    /// The deadline of an operation's requests.
    #[must_use]
    pub const fn deadline_of(&self, operation: &Operation) -> Deadline {
        match operation.deadline {
            Deadline::Default => self.deadline,
            other => other,
        }
    }
}

impl ProfileApi {
    /// Every way.
    pub const ALL: [Self; 2] = [Self::Blocking, Self::Tasks];

    /// The name in profiles and in reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Blocking => "blocking",
            Self::Tasks => "tasks",
        }
    }
}

#[cfg(test)]
mod tests;
