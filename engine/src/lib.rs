//! hsmux
#[cfg(not(hsmux_loom))]
mod clock;
mod schedule;
mod sync;
