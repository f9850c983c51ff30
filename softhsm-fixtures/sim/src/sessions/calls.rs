//! Calls by function.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::function::Function;

/// How many calls each function has had.
pub(super) struct Calls([AtomicU64; Function::ALL.len()]);

impl Calls {
    pub(super) const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; Function::ALL.len()])
    }

    /// Without a locked instruction: one thread at a time uses a session.
    #[inline]
    pub(super) fn count(&self, function: Function) {
        let counter = &self.0[function as usize];
        counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    pub(super) fn count_shared(&self, function: Function, calls: u64) {
        self.0[function as usize].fetch_add(calls, Ordering::Relaxed);
    }

    pub(super) fn of(&self, function: Function) -> u64 {
        self.0[function as usize].load(Ordering::Relaxed)
    }

    pub(super) fn reset(&self) {
        self.0.iter().for_each(|counter| counter.store(0, Ordering::Relaxed));
    }
}
