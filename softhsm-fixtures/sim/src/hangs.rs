//! Calls that do not return until they are released, or for a while.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// The calls of this copy of the module that hang. They outlive `C_Finalize`, as the threads inside do.
pub(crate) static HANGS: Hangs =
    Hangs { gate: Mutex::new(Gate { releases: 0, hanging: 0 }), changed: Condvar::new() };

pub(crate) struct Hangs {
    gate: Mutex<Gate>,
    changed: Condvar,
}

struct Gate {
    releases: u64,
    hanging: u64,
}

impl Hangs {
    /// Lets every call go that hangs now.
    pub(crate) fn release(&self) {
        self.gate.lock().releases += 1;
        self.changed.notify_all();
    }

    /// How many calls hang now.
    pub(crate) fn hanging(&self) -> u64 {
        self.gate.lock().hanging
    }

    /// Waits until so many calls hang at once; false if they do not within the limit.
    pub(crate) fn wait_hanging(&self, count: u64, limit: Duration) -> bool {
        let mut gate = self.gate.lock();
        let few = |gate: &mut Gate| gate.hanging < count;
        !self.changed.wait_while_for(&mut gate, few, limit).timed_out()
    }

    /// How often calls were let go so far: for [`Hangs::hold`], asked before the rules are.
    pub(crate) fn releases(&self) -> u64 {
        self.gate.lock().releases
    }

    /// Keeps the call here until it is released, or for so long. One that was released between its rule and this goes on.
    pub(crate) fn hold(&self, releases: u64, limit: Option<Duration>) {
        let mut gate = self.gate.lock();
        gate.hanging += 1;
        self.changed.notify_all();
        let held = |gate: &mut Gate| gate.releases == releases;
        if let Some(limit) = limit {
            let _which = self.changed.wait_while_for(&mut gate, held, limit);
        } else {
            self.changed.wait_while(&mut gate, held);
        }
        gate.hanging -= 1;
        drop(gate);
        self.changed.notify_all();
    }
}
