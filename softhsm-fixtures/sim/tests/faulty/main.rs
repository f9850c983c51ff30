//! What a simulator does to its callers by rules, in every mode and in front of other modules, and what it counts.

#![expect(unsafe_code, reason = "calls of the C interface")]
#![expect(clippy::unwrap_used, reason = "a helper of tests fails its test")]

mod changes;
mod everywhere;
mod executions;
mod keys;
mod late;
mod latency;
mod misuse;
mod mix;
mod place;
#[path = "../support/raw.rs"]
mod raw;
mod reuse;
