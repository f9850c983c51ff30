//! Data keys by what they are for: kept, or asked for once, however many threads want them.

use std::collections::HashMap;
use std::time::Duration;

use super::shelf::{Bounds, Held, Id, Shelf};
use crate::clock::{Time, now};
use crate::error::{Error, ErrorKind, Outcome, Result, Retry};
use crate::sync::{Arc, Condvar, Mutex};

/// Longest wait for a key that another thread has asked for: three times the default deadline of a request. A provider
/// answers within its own deadlines; this is for one that does not.
const WAIT_MAX: Duration = Duration::from_secs(30);

pub(super) struct Keyring {
    bounds: Bounds,
    state: Mutex<State>,
}

struct State {
    shelf: Shelf,
    /// Who is asking a provider now, by what for and since which epoch. One who comes after a change must not have a key
    /// from before it.
    asked: HashMap<(Id, u64), Arc<Answer>>,
}

/// An answer that is on its way, for those who wait for it.
#[derive(Default)]
struct Answer {
    /// Some once it is there. The key itself is on the shelf then.
    came: Mutex<Option<Result<()>>>,
    changed: Condvar,
}

/// Whoever asks a provider; when this is dropped, on whatever path, those who wait are told.
struct Asking<'a> {
    ring: &'a Keyring,
    what: (Id, u64),
    answer: Arc<Answer>,
    came: Result<()>,
}

impl Keyring {
    pub(super) fn new(bounds: Bounds) -> Self {
        let state = State { shelf: Shelf::new(bounds), asked: HashMap::new() };
        Self { bounds, state: Mutex::new(state) }
    }

    /// The key for a message of `len` bytes: one that is kept, or what `ask` yields, which is called without a lock and
    /// by one thread at a time for the same `id`. What it fails with, those who wait for it fail with, too.
    ///
    /// # Errors
    /// What `ask` answers; `DeadlineExceeded` if another thread waits for its answer for half a minute.
    pub(super) fn get(
        &self,
        id: Id,
        epoch: u64,
        len: u64,
        ask: impl FnOnce() -> Result<Held>,
    ) -> Result<Arc<Held>> {
        if !self.bounds.keep() {
            return ask().map(Arc::new);
        }
        let until = now().after(WAIT_MAX);
        loop {
            let mut state = self.state.lock();
            if let Some(held) = state.shelf.take(&id, epoch, len, now()) {
                return Ok(held);
            }
            let Some(answer) = state.asked.get(&(id, epoch)).map(Arc::clone) else {
                let asking = Asking::begin(self, &mut state, (id, epoch));
                // The provider is a token: it is not called with a lock held.
                drop(state);
                return asking.finish(len, ask);
            };
            drop(state);
            answer.wait(until)?;
        }
    }

    pub(super) fn forget(&self) {
        self.state.lock().shelf.forget();
    }

    pub(super) fn expire(&self, now: Time) {
        self.state.lock().shelf.expire(now);
    }

    pub(super) fn len(&self) -> usize {
        self.state.lock().shelf.len()
    }
}

impl<'a> Asking<'a> {
    fn begin(ring: &'a Keyring, state: &mut State, what: (Id, u64)) -> Self {
        let answer = Arc::new(Answer::default());
        state.asked.insert(what, Arc::clone(&answer));
        // Told if `ask` panics.
        let came = Err(Error::internal("the provider of data keys panicked"));
        Self { ring, what, answer, came }
    }

    fn finish(mut self, len: u64, ask: impl FnOnce() -> Result<Held>) -> Result<Arc<Held>> {
        // The age of a key counts from before it was made.
        let since = now();
        let outcome = ask().map(Arc::new);
        self.came = outcome.as_ref().map(|_| ()).map_err(Clone::clone);
        if let Ok(held) = &outcome {
            held.charge(len);
            let (id, epoch) = self.what;
            self.ring.state.lock().shelf.put(id, epoch, Arc::clone(held), since);
        }
        outcome
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        // First from the list, then told: who comes meanwhile finds the key, or asks anew.
        self.ring.state.lock().asked.remove(&self.what);
        *self.answer.came.lock() = Some(self.came.clone());
        self.answer.changed.notify_all();
    }
}

impl Answer {
    fn wait(&self, until: Time) -> Result<()> {
        let mut came = self.came.lock();
        loop {
            if let Some(came) = &*came {
                return came.clone();
            }
            if self.changed.wait_for(&mut came, now().until(until)).timed_out() && came.is_none() {
                let late = Error::new(ErrorKind::DeadlineExceeded, Retry::Later, Outcome::NotDone);
                return Err(late.because("another thread has been waiting for the same data key"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Barrier, mpsc};

    use super::super::data_key::DataKey;
    use super::*;

    const BOUNDS: Bounds =
        Bounds { messages: 1_000, bytes: u64::MAX, age: Duration::from_secs(3_600), keys: 10 };

    fn held() -> Held {
        Held::new(DataKey::random().unwrap(), vec![])
    }

    /// Starts `threads` that want the same key; their provider answers once all but one of them wait for it.
    fn together(
        threads: usize,
        outcome: impl Fn() -> Result<Held> + Sync,
    ) -> (usize, Vec<Result<Arc<Held>>>) {
        let (ring, calls, start) = (Keyring::new(BOUNDS), AtomicUsize::new(0), Barrier::new(threads));
        let ask = || {
            calls.fetch_add(1, Ordering::SeqCst);
            // One answer is held here, in the list, and by each who waits.
            while ring.state.lock().asked.values().any(|answer| Arc::strong_count(answer) < 1 + threads) {
                std::thread::yield_now();
            }
            outcome()
        };
        let answers = std::thread::scope(|scope| {
            let want = || {
                start.wait();
                ring.get([1; 32], 0, 1, ask)
            };
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(want)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        (calls.into_inner(), answers)
    }

    #[test]
    fn threads_that_miss_the_same_key_at_once_ask_for_it_once() {
        let (calls, answers) = together(8, || Ok(held()));
        let keys: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
        assert_eq!(calls, 1);
        assert!(keys.iter().all(|key| Arc::ptr_eq(key, &keys[0])));
    }

    #[test]
    fn what_one_thread_is_refused_all_who_wait_for_it_are() {
        let (calls, answers) = together(8, || Err(Error::decrypt_failed()));
        assert_eq!(calls, 1);
        for answer in answers {
            assert_eq!(answer.unwrap_err().kind(), ErrorKind::DecryptFailed);
        }
    }

    #[test]
    fn a_refusal_is_not_kept() {
        let ring = Keyring::new(BOUNDS);
        assert!(ring.get([1; 32], 0, 1, || Err(Error::decrypt_failed())).is_err());
        assert!(ring.get([1; 32], 0, 1, || Ok(held())).is_ok());
        assert_eq!(ring.len(), 1);
    }

    #[test]
    fn a_provider_that_panics_leaves_nobody_waiting() {
        let ring = Keyring::new(BOUNDS);
        let panics = || ring.get([1; 32], 0, 1, || panic!("as a test wants it"));
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(panics)).is_err());
        assert!(ring.state.lock().asked.is_empty());
        assert!(ring.get([1; 32], 0, 1, || Ok(held())).is_ok());
    }

    #[test]
    fn who_comes_after_a_change_does_not_wait_for_a_key_from_before_it() {
        let ring = Keyring::new(BOUNDS);
        let (go, gone) = mpsc::channel::<()>();
        std::thread::scope(|scope| {
            let early = scope.spawn(|| {
                ring.get([1; 32], 0, 1, move || {
                    let _ = gone.recv();
                    Ok(held())
                })
            });
            while ring.state.lock().asked.is_empty() {
                std::thread::yield_now();
            }
            let late = ring.get([1; 32], 1, 1, || Ok(held())).unwrap();
            drop(go);
            let early = early.join().unwrap().unwrap();
            assert!(!Arc::ptr_eq(&early, &late));
            let kept = ring.get([1; 32], 1, 1, || Err(Error::decrypt_failed())).unwrap();
            assert!(Arc::ptr_eq(&kept, &late), "the key from before the change is kept");
        });
    }

    #[test]
    fn keys_for_one_message_are_asked_for_each_time() {
        let ring = Keyring::new(Bounds { messages: 1, ..BOUNDS });
        let calls = AtomicUsize::new(0);
        for _ in 0..3 {
            let ask = || {
                calls.fetch_add(1, Ordering::SeqCst);
                Ok(held())
            };
            ring.get([1; 32], 0, 1, ask).unwrap();
        }
        assert_eq!((calls.into_inner(), ring.len()), (3, 0));
    }

    #[test]
    fn who_waits_gives_up_after_its_limit() {
        let answer = Answer::default();
        assert_eq!(answer.wait(now()).unwrap_err().kind(), ErrorKind::DeadlineExceeded);
    }

    #[test]
    fn forget_and_expire_empty_the_ring() {
        let ring = Keyring::new(BOUNDS);
        ring.get([1; 32], 0, 1, || Ok(held())).unwrap();
        ring.expire(now());
        assert_eq!(ring.len(), 1);
        ring.expire(now().after(BOUNDS.age));
        assert_eq!(ring.len(), 0);
        ring.get([1; 32], 0, 1, || Ok(held())).unwrap();
        ring.forget();
        assert_eq!(ring.len(), 0);
    }
}
