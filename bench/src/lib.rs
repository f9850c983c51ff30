//! Load on an engine, baselines beside it, and reports of both.
//!
//! A [`Case`] says what is done, a [`Target`] does it on an engine in a closed loop, a [`Baseline`] does the same
//! work without the engine ([`Raw`] with a session per thread and nothing between it and the module), [`compare`]
//! runs them in turn, and a [`Report`] says what came out. Who wants a key only for the run takes a [`TemporaryKey`].
//!
//! What a load run leaves behind, and what pages and comparisons are made of, is a [`result::LoadResult`].

mod baseline;
mod case;
mod cell;
pub mod check;
mod clock;
mod compare;
mod drive;
mod failure;
mod inputs;
pub mod mixed;
mod report;
pub mod result;
pub mod rows;
mod stats;
mod target;
mod temporary;

pub use baseline::{Baseline, BaselineName, Raw, Site};
pub use case::{Case, Op};
pub use cell::{Cell, Window};
pub use compare::{Against, Comparison, Figures, Overhead, Plan, Rival, Round, compare};
pub use drive::{Api, Load, Runtime, closed_loop};
pub use failure::Failure;
pub use inputs::{Inputs, Message};
pub use report::{BaselineFigures, Compared, Latency, Report, Run, Stages};
pub use stats::{Interval, median, median_interval};
pub use target::{Measured, Target};
pub use temporary::TemporaryKey;
