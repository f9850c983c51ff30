//! The only importer of atomics, queues, locks and parkers.
//!
//! Under `--cfg hsmux_loom` the same names are model types, so that the lane protocol is checked as it is
//! written. Queues are crossbeam's, locks are parking_lot's and stand on the cold path only.

pub(crate) use crossbeam::utils::CachePadded;

/// Atomics for settings, which order nothing and belong to no protocol: real ones in models too, which would only
/// grow by them.
pub(crate) mod plain {
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize};
}

#[cfg(not(hsmux_loom))]
mod real {
    pub(crate) use std::sync::Arc;
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};

    pub(crate) use crossbeam::queue::SegQueue as Queue;
    pub(crate) use crossbeam::sync::{Parker, Unparker};
    pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};

    use crossbeam::atomic::AtomicCell;

    /// A `SeqCst` fence by a thread whose last access to memory was an atomic read-modify-write: on x86 that orders
    /// everything by itself (Intel SDM, volume 3A, 9.2.3.9: loads and stores are not reordered with locked
    /// instructions), and a fence after it costs as much again.
    #[inline]
    pub(crate) fn fence_after_swap() {
        if cfg!(any(target_arch = "x86_64", target_arch = "x86")) {
            std::sync::atomic::compiler_fence(Ordering::SeqCst);
        } else {
            fence(Ordering::SeqCst);
        }
    }

    /// Room for one boxed value that moves in and out whole, by one atomic swap.
    pub(crate) struct Slot<T>(AtomicCell<Option<Box<T>>>);

    impl<T> Slot<T> {
        pub(crate) const fn new() -> Self {
            Self(AtomicCell::new(None))
        }

        /// Puts a value in; returns what was there.
        pub(crate) fn put(&self, value: Box<T>) -> Option<Box<T>> {
            self.0.swap(Some(value))
        }

        pub(crate) fn take(&self) -> Option<Box<T>> {
            self.0.take()
        }
    }
}

#[cfg(hsmux_loom)]
mod model {
    pub(crate) use loom::sync::Arc;
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};

    use std::collections::VecDeque;

    pub(crate) fn fence_after_swap() {
        fence(Ordering::SeqCst);
    }

    /// A model of crossbeam's `SegQueue`: unbounded, many producers, many consumers.
    pub(crate) struct Queue<T>(Mutex<VecDeque<T>>);

    impl<T> Queue<T> {
        pub(crate) fn new() -> Self {
            Self(Mutex::new(VecDeque::new()))
        }

        pub(crate) fn push(&self, value: T) {
            self.0.lock().push_back(value);
        }

        pub(crate) fn pop(&self) -> Option<T> {
            self.0.lock().pop_front()
        }

        pub(crate) fn is_empty(&self) -> bool {
            self.0.lock().is_empty()
        }

        pub(crate) fn len(&self) -> usize {
            self.0.lock().len()
        }
    }

    pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
            self.0.lock().expect("no model thread panics while it holds a lock")
        }
    }

    pub(crate) struct RwLock<T>(Mutex<T>);

    impl<T> RwLock<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(Mutex::new(value))
        }

        pub(crate) fn read(&self) -> loom::sync::MutexGuard<'_, T> {
            self.0.lock()
        }

        pub(crate) fn write(&self) -> loom::sync::MutexGuard<'_, T> {
            self.0.lock()
        }
    }

    pub(crate) struct Slot<T>(Mutex<Option<Box<T>>>);

    impl<T> Slot<T> {
        pub(crate) fn new() -> Self {
            Self(Mutex::new(None))
        }

        pub(crate) fn put(&self, value: Box<T>) -> Option<Box<T>> {
            self.0.lock().replace(value)
        }

        pub(crate) fn take(&self) -> Option<Box<T>> {
            self.0.lock().take()
        }
    }
}

#[cfg(hsmux_loom)]
pub(crate) use model::*;
#[cfg(not(hsmux_loom))]
pub(crate) use real::*;
