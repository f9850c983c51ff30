//! Two numbers that belong together and change together, read without a lock.

use crate::sync::{AtomicU64, Ordering, fence};

/// An object and its epoch. One thread at a time writes; who reads while it does gets nothing, and tries again as after
/// the loss of a session.
#[derive(Debug)]
pub(super) struct Current {
    /// Odd while it is written.
    version: AtomicU64,
    epoch: AtomicU64,
    object: AtomicU64,
}

impl Current {
    pub(super) fn new(epoch: u64, object: u64) -> Self {
        Self { version: AtomicU64::new(0), epoch: AtomicU64::new(epoch), object: AtomicU64::new(object) }
    }

    #[inline]
    pub(super) fn get(&self) -> Option<(u64, u64)> {
        // Acquire: pairs with the Release in `set`; the fence keeps the loads before the second look.
        let version = self.version.load(Ordering::Acquire);
        let (epoch, object) = (self.epoch.load(Ordering::Relaxed), self.object.load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        let whole = version.is_multiple_of(2) && self.version.load(Ordering::Relaxed) == version;
        whole.then_some((epoch, object))
    }

    pub(super) fn set(&self, epoch: u64, object: u64) {
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version + 1, Ordering::Relaxed);
        // Release: who sees what follows sees the odd number before it.
        fence(Ordering::Release);
        self.epoch.store(epoch, Ordering::Relaxed);
        self.object.store(object, Ordering::Relaxed);
        self.version.store(version + 2, Ordering::Release);
    }
}
