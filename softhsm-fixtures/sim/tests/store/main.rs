//! Tokens in a directory: what outlives the process, what several processes on one directory see, and what is left of a
//! process that is killed.

#![expect(unsafe_code, reason = "calls of the C interface")]
#![expect(clippy::unwrap_used, reason = "a helper of tests fails its test")]
#![expect(dead_code, reason = "shared with tests that use more of it")]

mod killed;
mod processes;
#[path = "../support/raw.rs"]
mod raw;
mod shared;
#[path = "../support/sim.rs"]
mod sim;
