//! Threads that the engine has started, and how it waits for their end.

use std::thread::JoinHandle;
use std::time::Duration;

use crate::clock::{Time, now};
use crate::sync::Mutex;

/// Handles of threads that run until the engine stops.
#[derive(Default)]
pub(crate) struct Threads(Mutex<Vec<JoinHandle<()>>>);

/// Threads of engines that were dropped and not drained.
static LEFT: Threads = Threads(Mutex::new(Vec::new()));

/// Time that the end of the process gives the threads of dropped engines. They need microseconds, or a round trip
/// for each session that a network HSM closes; one that hangs is not waited for longer.
const EXIT_LIMIT: Duration = Duration::from_millis(250);

/// How long a look at threads that are ending is apart from the next: they end within microseconds, and nothing
/// tells of it.
const STEP: Duration = Duration::from_millis(1);

impl Threads {
    pub(crate) fn add(&self, thread: JoinHandle<()>) {
        let mut threads = self.0.lock();
        // Those that are done are joined, so that replaced ones do not pile up: that waits for what a thread frees
        // at its very end, and no longer.
        let (done, running): (Vec<_>, Vec<_>) = threads.drain(..).partition(JoinHandle::is_finished);
        *threads = running;
        threads.push(thread);
        drop(threads);
        done.into_iter().for_each(|thread| drop(thread.join()));
    }

    /// Leaves the threads, which have been told to end, to the end of the process.
    pub(crate) fn leave(&self) {
        let left = std::mem::take(&mut *self.0.lock());
        left.into_iter().for_each(|thread| LEFT.add(thread));
    }

    /// Joins the threads that end until then; the others are left alone.
    ///
    /// Joined, not only seen to be done: what a module keeps for a thread (OpenSSL 3 does) is freed at the very end
    /// of that thread, and a process that exits beside it may crash.
    pub(crate) fn join(&self, until: Time) {
        loop {
            let mut threads = self.0.lock();
            let (done, running): (Vec<_>, Vec<_>) = threads.drain(..).partition(JoinHandle::is_finished);
            *threads = running;
            let all = threads.is_empty();
            // Joined outside the lock; a panic in a thread was its own affair.
            drop(threads);
            done.into_iter().for_each(|thread| drop(thread.join()));
            let left = now().until(until);
            if all || left.is_zero() {
                return;
            }
            std::thread::park_timeout(STEP.min(left));
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Joins what dropped engines have left, before the process exits.
pub(crate) fn join_left() {
    LEFT.join(now().after(EXIT_LIMIT));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::sync_channel;

    /// Looks for something, a thousand times if need be.
    fn soon(what: &str, mut came: impl FnMut() -> bool) {
        let look = |_| {
            std::thread::park_timeout(STEP);
            came()
        };
        assert!((0..1_000).any(look), "in vain until {what}");
    }

    #[test]
    fn threads_that_end_are_joined_and_one_that_does_not_is_left_at_the_limit() {
        let (release, hold) = sync_channel::<()>(1);
        let threads = Threads::default();
        let quick = std::thread::spawn(|| ());
        soon("it has ended", || quick.is_finished());
        threads.add(quick);
        threads.add(std::thread::spawn(move || {
            let _released = hold.recv();
        }));
        threads.join(now().after(Duration::from_millis(20)));
        assert!(threads.0.lock().len() == 1);
        drop(release);
        threads.join(now().after(Duration::from_secs(60)));
        assert!(threads.0.lock().is_empty());
    }

    #[test]
    fn threads_that_are_left_are_joined_at_the_end_of_the_process() {
        let done = std::sync::Arc::new(());
        let seen = std::sync::Arc::clone(&done);
        let threads = Threads::default();
        threads.add(std::thread::spawn(move || drop(seen)));
        threads.leave();
        assert!(threads.0.lock().is_empty());
        // Others may be left there by the tests beside.
        soon("it is joined", || {
            join_left();
            std::sync::Arc::strong_count(&done) == 1
        });
    }
}
