//! Inputs that say when they are due: a test of what is sent to a device too late.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock;

/// Calls that began after the moment in their input, and the longest time after it.
static LATE: AtomicU64 = AtomicU64::new(0);
static LATEST_NS: AtomicU64 = AtomicU64::new(0);

/// Notes an input that begins with the moment until which its call is to begin: eight bytes of nanoseconds of the
/// monotonic clock, the highest first.
pub(crate) fn note(input: &[u8]) {
    let Some((stamp, _)) = input.split_first_chunk() else { return };
    let late_ns = clock::now_ns().saturating_sub(u64::from_be_bytes(*stamp));
    if late_ns > 0 {
        LATE.fetch_add(1, Ordering::Relaxed);
        LATEST_NS.fetch_max(late_ns, Ordering::Relaxed);
    }
}

/// How many calls began too late.
pub(crate) fn late() -> u64 {
    LATE.load(Ordering::Relaxed)
}

/// By how much the latest of them did.
pub(crate) fn latest_ns() -> u64 {
    LATEST_NS.load(Ordering::Relaxed)
}

/// Forgets them.
pub(crate) fn reset() {
    LATE.store(0, Ordering::Relaxed);
    LATEST_NS.store(0, Ordering::Relaxed);
}
