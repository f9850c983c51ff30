//! Keys as a service: made from a configuration, used by an identifier, and kept through a life.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a helper of tests fails its test"
)]

mod blobs;
mod canary;
mod file;
mod hostile;
mod killed;
mod killed_softhsm;
mod messages;
mod numbers;
mod orders;
mod plain;
mod softhsm;
mod through_server;
mod two_processes;
mod worker;
