//! Which call a seat is inside of, and who decides that it never comes back.

use std::ops::Range;

use crate::sync::{AtomicU64, AtomicUsize, CachePadded, Ordering};

/// Written by whoever works with the seat, looked at by the watcher; one exchange decides between the two when a call
/// returns just as it is given up.
#[derive(Debug)]
pub(crate) struct Inside {
    /// Since when the seat has been inside one call, in nanoseconds; 0 outside. The lowest bit says inline.
    /// [`WRITTEN_OFF`] once the watcher has given the seat up.
    busy: CachePadded<AtomicU64>,
    /// Index of the first of the turn's requests that the worker runs now, and how many they are. Written by the
    /// worker alone.
    position: AtomicUsize,
    running: AtomicUsize,
}

/// No time: it would be 292 years after the start.
const WRITTEN_OFF: u64 = u64::MAX;

impl Inside {
    pub(super) fn new() -> Self {
        let busy = CachePadded::new(AtomicU64::new(0));
        Self { busy, position: AtomicUsize::new(0), running: AtomicUsize::new(0) }
    }

    /// The caller of an inline request enters the module. Relaxed: the watcher only looks.
    pub(super) fn enter_inline(&self, now_ns: u64) {
        self.busy.store(now_ns << 1 | 1, Ordering::Relaxed);
    }

    /// The caller of an inline request has left the module.
    pub(super) fn leave_inline(&self) {
        self.busy.store(0, Ordering::Relaxed);
    }

    /// The worker enters the module with these requests of its turn.
    pub(super) fn enter(&self, now_ns: u64, requests: Range<usize>) {
        self.position.store(requests.start, Ordering::Relaxed);
        self.running.store(requests.len(), Ordering::Relaxed);
        // Release: pairs with the exchange in `write_off`, which then reads these two.
        self.busy.store(now_ns << 1, Ordering::Release);
    }

    /// The worker's call has returned. False if the watcher has given the seat up meanwhile.
    pub(super) fn leave(&self, entered_ns: u64) -> bool {
        self.busy.compare_exchange(entered_ns << 1, 0, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Since when it has been inside a call, in nanoseconds, and whether that is inline.
    pub(super) fn busy(&self) -> Option<(u64, bool)> {
        match self.busy.load(Ordering::Relaxed) {
            0 | WRITTEN_OFF => None,
            busy => Some((busy >> 1, busy & 1 == 1)),
        }
    }

    /// Gives the seat up, if it is still inside the worker's call that began then. Returns the requests of that call.
    pub(super) fn write_off(&self, since_ns: u64) -> Option<Range<usize>> {
        self.busy.compare_exchange(since_ns << 1, WRITTEN_OFF, Ordering::AcqRel, Ordering::Acquire).ok()?;
        let position = self.position.load(Ordering::Relaxed);
        Some(position..position + self.running.load(Ordering::Relaxed))
    }
}
