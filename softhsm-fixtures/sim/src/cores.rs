//! The crypto cores of a token, as a schedule: no thread stands for a core, and nobody waits here.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use parking_lot::Mutex;

/// When each core of a token is next free.
#[derive(Debug)]
pub(crate) struct Cores(Mutex<Schedule>);

#[derive(Debug)]
enum Schedule {
    Unlimited,
    /// One entry per core: the nanosecond from which it is free, the earliest first.
    Free(BinaryHeap<Reverse<u64>>),
}

impl Cores {
    /// So many idle cores; 0 is any number.
    pub(crate) fn new(count: u32) -> Self {
        Self(Mutex::new(Schedule::new(count)))
    }

    /// Replaces the cores by idle ones. Work that is booked already ends when it was said to.
    pub(crate) fn reset(&self, count: u32) {
        *self.0.lock() = Schedule::new(count);
    }

    /// Books the core that is free first for an operation that arrives at `arrival_ns`; returns when it ends.
    ///
    /// Operations are served in the order in which they are booked.
    pub(crate) fn book(&self, arrival_ns: u64, work_ns: u64) -> u64 {
        match &mut *self.0.lock() {
            Schedule::Unlimited => arrival_ns + work_ns,
            Schedule::Free(cores) => {
                let free = cores.pop().map_or(0, |Reverse(free)| free);
                let end = arrival_ns.max(free) + work_ns;
                cores.push(Reverse(end));
                end
            }
        }
    }
}

impl Schedule {
    fn new(count: u32) -> Self {
        if count == 0 { Self::Unlimited } else { Self::Free((0..count).map(|_| Reverse(0)).collect()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_core_does_one_operation_after_the_other() {
        let cores = Cores::new(1);
        assert_eq!([cores.book(100, 10), cores.book(100, 10), cores.book(105, 10)], [110, 120, 130]);
        assert_eq!(cores.book(1_000, 10), 1_010, "an idle core starts at once");
    }

    #[test]
    fn as_many_operations_run_at_once_as_there_are_cores() {
        let cores = Cores::new(3);
        let ends: Vec<_> = (0..7).map(|_| cores.book(0, 5)).collect();
        assert_eq!(ends, [5, 5, 5, 10, 10, 10, 15]);
    }

    #[test]
    fn without_a_number_of_cores_nothing_queues() {
        let cores = Cores::new(0);
        assert!((0..100).all(|_| cores.book(7, 5) == 12));
    }

    #[test]
    fn new_cores_are_idle() {
        let cores = Cores::new(1);
        cores.book(0, 1_000);
        cores.reset(1);
        assert_eq!(cores.book(0, 1), 1);
    }
}
