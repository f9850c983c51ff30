//! How many messages of AES-GCM a key has encrypted, and how many it may.

use crate::error::{Error, ErrorKind, Outcome, Result, Retry};
use crate::sync::{AtomicBool, AtomicU64, Mutex, MutexGuard, Ordering};

/// Counts the messages that sessions of this engine encrypt under a managed key, within what was leased for them.
///
/// Attempts are counted, for each draws another IV. Relaxed everywhere: it counts, and orders nothing.
#[derive(Debug, Default)]
pub(crate) struct MessageCount {
    used: AtomicU64,
    /// What may be used, all in all.
    leased: AtomicU64,
    /// No more is leased: the key has encrypted as many as any key may.
    exhausted: AtomicBool,
    /// More was asked for.
    asked: AtomicBool,
    /// Held while more is leased: what is written must not be less than what was granted.
    leasing: Mutex<()>,
}

impl MessageCount {
    /// One more is about to be encrypted.
    #[inline]
    pub(crate) fn count(&self) {
        self.used.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    pub(crate) fn leased(&self) -> u64 {
        self.leased.load(Ordering::Relaxed)
    }

    /// Keeps others from leasing more until it is dropped. Waits for whoever does, which takes calls.
    pub(crate) fn begin_leasing(&self) -> MutexGuard<'_, ()> {
        self.leasing.lock()
    }

    /// So many may be used from now on, all in all.
    pub(crate) fn grant(&self, leased: u64, exhausted: bool) {
        self.leased.fetch_max(leased, Ordering::Relaxed);
        self.exhausted.store(exhausted, Ordering::Relaxed);
        self.asked.store(false, Ordering::Relaxed);
    }

    /// Whether a request may encrypt one more. `margin` is for those in flight; `ask` is called where more than half of it, and
    /// of a block, is gone, once.
    ///
    /// # Errors
    /// `KeyState`, if the key has encrypted as many as any may; `Busy` while more is being leased.
    #[inline]
    pub(crate) fn check(&self, margin: u64, block: u64, ask: impl FnOnce()) -> Result<()> {
        let (used, leased) = (self.used(), self.leased());
        let left = leased.saturating_sub(used);
        if left < margin + block / 2
            && !self.asked.load(Ordering::Relaxed)
            && !self.asked.swap(true, Ordering::Relaxed)
        {
            ask();
        }
        if left > margin { Ok(()) } else { Err(self.refused()) }
    }

    #[cold]
    fn refused(&self) -> Error {
        match self.exhausted.load(Ordering::Relaxed) {
            true => {
                let text = "it has encrypted as many messages of AES-GCM as one key may: rotate it";
                Error::operator(ErrorKind::KeyState, text)
            }
            false => Error::new(ErrorKind::Busy, Retry::Later, Outcome::NotDone)
                .because("how many messages the key may encrypt is being written down"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_is_asked_for_once_in_time_and_nothing_is_encrypted_beyond_what_is_leased() {
        let count = MessageCount::default();
        let mut asked = 0;
        assert_eq!(count.check(10, 100, || asked += 1).unwrap_err().kind(), ErrorKind::Busy);
        count.grant(100, false);
        let mut allowed = 0;
        while count.check(10, 100, || asked += 1).is_ok() {
            count.count();
            allowed += 1;
        }
        assert_eq!((allowed, asked), (90, 2), "the margin is left, and it was asked once for each lease");
        count.grant(200, false);
        assert!(count.check(10, 100, || asked += 1).is_ok());
        count.grant(90, true);
        assert_eq!(count.leased(), 200, "what was leased is never taken back");
        (0..100).for_each(|_| count.count());
        assert_eq!(count.check(10, 100, || {}).unwrap_err().kind(), ErrorKind::KeyState);
    }
}
