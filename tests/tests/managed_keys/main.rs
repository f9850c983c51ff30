//! Keys as a service: made from a configuration, used by an identifier, and kept through a life.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a helper of tests fails its test"
)]

mod blobs;
mod file;
mod hostile;
mod killed;
mod messages;
mod softhsm;
mod two_processes;
mod worker;
