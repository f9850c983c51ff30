//! Another PIN for the tokens of an engine: while it serves, with a way back, and with kills and lost replies at every step.
//! PINs are in the simulator's store, as a token has them; its log shows every try of one.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails its test")]

mod faults;
mod killed;
mod live;
mod site;
