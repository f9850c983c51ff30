//! Who is inside an instance of a module, so that it is finalised only while nobody is.
//!
//! PKCS#11 2.40 (5.4) on `C_Finalize`: "The behavior of C_Finalize is undefined if it is called while other threads of the
//! application are making Cryptoki calls." A session counts from when it is opened until it is closed or abandoned,
//! whether it is inside a call or not; a call without a session counts for as long as it takes.

use std::time::Duration;

use crate::clock::now;
use crate::sync::{Condvar, Mutex};

#[derive(Debug)]
pub(super) struct Barrier {
    state: Mutex<State>,
    left: Condvar,
}

#[derive(Debug, Default)]
struct State {
    inside: usize,
    /// Nobody may come in.
    closed: bool,
}

/// A call without a session, until it is dropped.
pub(super) struct Inside<'a>(&'a Barrier);

impl Barrier {
    pub(super) const fn new() -> Self {
        Self { state: Mutex::new(State { inside: 0, closed: false }), left: Condvar::new() }
    }

    /// Somebody comes in. False while the barrier is closed.
    pub(super) fn enter(&self) -> bool {
        let mut state = self.state.lock();
        if !state.closed {
            state.inside += 1;
        }
        !state.closed
    }

    /// As [`Barrier::enter`], until what is returned is dropped.
    pub(super) fn pass(&self) -> Option<Inside<'_>> {
        self.enter().then(|| Inside(self))
    }

    pub(super) fn leave(&self) {
        let mut state = self.state.lock();
        debug_assert!(state.inside > 0, "who leaves has entered");
        state.inside -= 1;
        if state.inside == 0 {
            self.left.notify_all();
        }
    }

    /// Waits until all have left, at most for `limit`, and lets nobody in from then on. Others come and go meanwhile: those of
    /// another engine must not stand before a door that may never be closed. An error says how many are inside.
    pub(super) fn close(&self, limit: Duration) -> Result<(), usize> {
        let until = now().after(limit);
        let mut state = self.state.lock();
        while state.inside > 0 || state.closed {
            let timed_out = self.left.wait_for(&mut state, now().until(until)).timed_out();
            if timed_out && (state.inside > 0 || state.closed) {
                return Err(state.inside);
            }
        }
        state.closed = true;
        Ok(())
    }

    pub(super) fn open(&self) {
        self.state.lock().closed = false;
        self.left.notify_all();
    }
}

impl Inside<'_> {
    /// Stays inside beyond the call, until [`Barrier::leave`].
    pub(super) fn stay(self) {
        std::mem::forget(self);
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn it_closes_once_all_have_left_and_then_lets_nobody_in() {
        let barrier = Barrier::new();
        assert!(barrier.enter());
        std::thread::scope(|scope| {
            let closing = scope.spawn(|| barrier.close(LONG));
            barrier.leave();
            assert_eq!(closing.join().unwrap(), Ok(()));
        });
        assert!(!barrier.enter() && barrier.pass().is_none());
        barrier.open();
        assert!(barrier.pass().is_some());
        assert_eq!(barrier.close(Duration::ZERO), Ok(()), "who passed has left");
    }

    #[test]
    fn while_somebody_stays_inside_it_does_not_close_and_goes_on_as_before() {
        let barrier = Barrier::new();
        assert!(barrier.enter() && barrier.enter());
        assert_eq!(barrier.close(Duration::ZERO), Err(2));
        assert!(barrier.enter());
    }
}
