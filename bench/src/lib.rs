//! Load on an engine, baselines beside it, and reports of both.
//!
//! A [`Case`] says what is done, a [`Target`] does it on an engine in a closed loop, a [`Baseline`] does the same
//! work without the engine ([`Raw`] with a session per thread and nothing between it and the module), [`compare`]
//! runs them in turn, and a [`Report`] says what came out. Who wants a key only for the run takes a [`TemporaryKey`].
//!
//! A [`Profile`](profile::Profile) says what a load is that changes with time and mixes operations, [`arrivals`] when its
//! requests are due, [`run::run`] makes them, and what comes out is a [`result::LoadResult`], of which pages and
//! comparisons are made. [`knee`] looks for the highest rate that meets an objective, [`tune`] for the settings that do most,
//! and [`verdict`] says whether one run is faster than another.

pub mod arrivals;
mod ask;
mod baseline;
mod case;
mod cell;
pub mod check;
mod clock;
mod compare;
mod dice;
mod drive;
mod failure;
mod inputs;
pub mod knee;
pub mod mixed;
pub mod profile;
pub mod record;
mod report;
pub mod result;
pub mod rows;
pub mod run;
mod stats;
mod target;
mod temporary;
pub mod tune;
pub mod verdict;
mod work;

pub use baseline::{Baseline, BaselineName, Raw, Site, Work};
pub use case::{Case, Op};
pub use cell::{Cell, Window};
pub use compare::{Against, Comparison, Figures, Overhead, Plan, Rival, Round, compare};
pub use dice::Dice;
pub use drive::{Api, Load, Runtime, closed_loop};
pub use failure::Failure;
pub use inputs::{Inputs, Message};
pub use report::{BaselineFigures, Compared, Latency, Report, Run, Stages};
pub use result::BaselineRun;
pub use stats::{Interval, median, median_interval};
pub use target::{Measured, Target};
pub use temporary::TemporaryKey;
pub use work::Works;
