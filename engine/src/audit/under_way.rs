//! Operations that are to be recorded and have not been yet.

use crate::clock::{Time, now};
use crate::sync::{AtomicUsize, Condvar, Mutex, Ordering};

/// How many there are, and who waits until there are none.
#[derive(Default)]
pub(crate) struct UnderWay {
    count: AtomicUsize,
    waits: Mutex<()>,
    none: Condvar,
}

impl UnderWay {
    /// An operation begins.
    pub(crate) fn enter(&self) {
        // Relaxed: whoever waits for none keeps new ones from beginning by other means.
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// Its record is on its way, or there is to be none.
    pub(crate) fn leave(&self) {
        // Release: pairs with the Acquire in `wait_none`, so that the records of those that have left are seen.
        if self.count.fetch_sub(1, Ordering::Release) == 1 {
            // Under the lock, so that who has just counted one sleeps before it is woken.
            drop(self.waits.lock());
            self.none.notify_all();
        }
    }

    /// Waits until there are none, at most until then.
    pub(crate) fn wait_none(&self, limit: Time) {
        let mut waits = self.waits.lock();
        while self.count.load(Ordering::Acquire) > 0
            && !self.none.wait_for(&mut waits, now().until(limit)).timed_out()
        {}
    }
}
