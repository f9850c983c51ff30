//! Keys as a service: made from a configuration, used by an identifier, and kept through a life.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a helper of tests fails its test")]

mod softhsm;
