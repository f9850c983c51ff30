//! The only importer of atomics, queues, locks and parkers.
//!
//! Queues are crossbeam's, locks are parking_lot's and stand on the cold path only. Under `--cfg hsmux_loom` and
//! `--cfg hsmux_shuttle` the same names are model types, so that protocols are checked as they are written: by loom in
//! every order that C11's memory model allows, piece by piece; by shuttle in many orders of whole threads, all of the
//! schedule together.

/// The queue of the audit log, which is no part of what the models check: whoever fills it waits for nothing.
#[cfg(not(hsmux_loom))]
pub(crate) use crossbeam::queue::ArrayQueue;
pub(crate) use crossbeam::utils::CachePadded;

/// Atomics for settings, which order nothing and belong to no protocol: real ones in models too, which would only
/// grow by them.
pub(crate) mod plain {
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize};
}

#[cfg(not(any(hsmux_loom, hsmux_shuttle)))]
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

#[cfg(any(hsmux_loom, hsmux_shuttle))]
mod model {
    #[cfg(hsmux_loom)]
    use loom as tool;
    #[cfg(hsmux_shuttle)]
    use shuttle as tool;

    #[cfg(hsmux_loom)]
    pub(crate) use loom::sync::Arc;
    #[cfg(hsmux_shuttle)]
    pub(crate) use std::sync::Arc;

    pub(crate) use tool::sync::MutexGuard;
    pub(crate) use tool::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};

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

    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(tool::sync::Mutex<T>);

    impl<T> Mutex<T> {
        #[cfg(hsmux_loom)]
        pub(crate) fn new(value: T) -> Self {
            Self(tool::sync::Mutex::new(value))
        }

        #[cfg(hsmux_shuttle)]
        pub(crate) const fn new(value: T) -> Self {
            Self(tool::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().expect("no model thread panics while it holds a lock")
        }

        #[cfg(hsmux_shuttle)]
        pub(crate) fn get_mut(&mut self) -> &mut T {
            self.0.get_mut().expect("no model thread panics while it holds a lock")
        }
    }

    #[derive(Debug, Default)]
    pub(crate) struct RwLock<T>(Mutex<T>);

    impl<T> RwLock<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(Mutex::new(value))
        }

        pub(crate) fn read(&self) -> MutexGuard<'_, T> {
            self.0.lock()
        }

        pub(crate) fn write(&self) -> MutexGuard<'_, T> {
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

/// What waits: there is no time in these models, so every wait with a limit may end at any moment.
#[cfg(hsmux_shuttle)]
mod waits {
    use std::sync::Arc;
    use std::time::Duration;

    use shuttle::thread::yield_now;

    use super::model::{AtomicBool, MutexGuard, Ordering};

    /// A model of crossbeam's `Parker`.
    #[derive(Debug)]
    pub(crate) struct Parker(Unparker);

    #[derive(Clone, Debug)]
    pub(crate) struct Unparker(Arc<AtomicBool>);

    impl Parker {
        pub(crate) fn new() -> Self {
            Self(Unparker(Arc::new(AtomicBool::new(false))))
        }

        pub(crate) const fn unparker(&self) -> &Unparker {
            &self.0
        }

        pub(crate) fn park(&self) {
            while !self.0.0.swap(false, Ordering::AcqRel) {
                yield_now();
            }
        }

        pub(crate) fn park_timeout(&self, _limit: Duration) {
            yield_now();
            self.0.0.store(false, Ordering::Release);
        }

        /// Whether somebody has unparked it since it parked last.
        #[cfg(test)]
        pub(crate) fn was_unparked(&self) -> bool {
            self.0.0.load(Ordering::Acquire)
        }
    }

    impl Unparker {
        pub(crate) fn unpark(&self) {
            self.0.store(true, Ordering::Release);
        }
    }

    #[derive(Debug, Default)]
    pub(crate) struct Condvar;

    pub(crate) struct TimedOut(bool);

    impl Condvar {
        pub(crate) const fn new() -> Self {
            Self
        }

        pub(crate) const fn notify_all(&self) {}

        pub(crate) const fn notify_one(&self) {}

        pub(crate) const fn wait_for<T>(&self, _guard: &mut MutexGuard<'_, T>, _limit: Duration) -> TimedOut {
            TimedOut(true)
        }
    }

    impl TimedOut {
        pub(crate) const fn timed_out(&self) -> bool {
            self.0
        }
    }
}

#[cfg(any(hsmux_loom, hsmux_shuttle))]
pub(crate) use model::*;
#[cfg(not(any(hsmux_loom, hsmux_shuttle)))]
pub(crate) use real::*;
#[cfg(hsmux_shuttle)]
pub(crate) use waits::*;
