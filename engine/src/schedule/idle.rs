//! The idle sessions of one token: whoever takes one out owns it, whoever puts it back gives it up.

use crate::sync::{AtomicU64, CachePadded, Ordering, Slot, fence};

/// Slots for the idle sessions of one token, one per session.
///
/// A session always returns to its own slot, so a thread that asks for the session it had last finds it in
/// its own cache, and two callers do not touch the same line. `maybe` tells a searcher which slots are worth
/// a look. A bit may be set although its slot is empty, so that taking and returning one's own session
/// writes nothing shared; a bit is never clear for long when its slot is full:
///
/// - `put` fills the slot, then looks at the bit and sets it if it is clear;
/// - a searcher that finds a slot empty clears the bit, then looks at the slot again.
///
/// Both do their store before their load, with a `SeqCst` fence between, so one of them sees the other.
pub(super) struct Idle<S> {
    slots: Box<[CachePadded<Slot<S>>]>,
    maybe: Box<[CachePadded<AtomicU64>]>,
}

impl<S> Idle<S> {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            slots: (0..capacity).map(|_| CachePadded::new(Slot::new())).collect(),
            maybe: (0..capacity.div_ceil(64)).map(|_| CachePadded::new(AtomicU64::new(0))).collect(),
        }
    }

    /// Returns a session to its slot.
    pub(super) fn put(&self, index: usize, session: Box<S>) {
        let before = self.slots[index].put(session);
        debug_assert!(before.is_none(), "two sessions in slot {index}");
        let (word, bit) = self.bit(index);
        // SeqCst fence: pairs with the one in `search`; see the type's documentation.
        fence(Ordering::SeqCst);
        if word.load(Ordering::Relaxed) & bit == 0 {
            word.fetch_or(bit, Ordering::SeqCst);
        }
    }

    /// Takes the session at `hint` if it is idle, else any.
    pub(super) fn take(&self, hint: usize) -> Option<Box<S>> {
        let hint = if hint < self.slots.len() { hint } else { 0 };
        self.take_at(hint).or_else(|| self.search(hint))
    }

    /// Takes the session at `index` if it is idle.
    pub(super) fn take_at(&self, index: usize) -> Option<Box<S>> {
        let slot = self.slots.get(index)?;
        let (word, bit) = self.bit(index);
        if word.load(Ordering::Relaxed) & bit == 0 { None } else { slot.take() }
    }

    /// About how many sessions are idle: an upper bound that lags behind.
    pub(super) fn about(&self) -> usize {
        self.maybe.iter().map(|word| word.load(Ordering::Relaxed).count_ones() as usize).sum()
    }

    /// Starts at the word of `hint` and goes round once.
    fn search(&self, hint: usize) -> Option<Box<S>> {
        let words = self.maybe.len();
        (0..words).map(|i| (hint / 64 + i) % words).find_map(|word| self.search_word(word))
    }

    fn search_word(&self, word: usize) -> Option<Box<S>> {
        let mut bits = self.maybe[word].load(Ordering::SeqCst);
        while bits != 0 {
            let position = bits.trailing_zeros() as usize;
            let (bit, slot) = (1 << position, &self.slots[word * 64 + position]);
            if let Some(session) = slot.take() {
                return Some(session);
            }
            self.maybe[word].fetch_and(!bit, Ordering::SeqCst);
            // SeqCst fence: pairs with the one in `put`.
            fence(Ordering::SeqCst);
            if let Some(session) = slot.take() {
                self.maybe[word].fetch_or(bit, Ordering::SeqCst);
                return Some(session);
            }
            bits &= !bit;
        }
        None
    }

    fn bit(&self, index: usize) -> (&AtomicU64, u64) {
        (&self.maybe[index / 64], 1 << (index % 64))
    }
}

#[cfg(all(test, not(hsmux_loom)))]
mod tests {
    use super::*;

    #[test]
    fn every_session_that_was_put_back_is_found_again_whatever_the_hint() {
        for capacity in [1, 3, 64, 130] {
            let idle = Idle::new(capacity);
            (0..capacity).for_each(|i| idle.put(i, Box::new(i)));
            let mut found: Vec<_> = (0..capacity).filter_map(|i| idle.take(capacity - 1 - i / 2)).collect();
            found.sort();
            assert_eq!(found, (0..capacity).map(Box::new).collect::<Vec<_>>());
            assert!(idle.take(0).is_none());
        }
    }

    #[test]
    fn a_searcher_that_found_a_slot_empty_does_not_hide_the_session_put_there_later() {
        let idle = Idle::new(2);
        idle.put(1, Box::new(1));
        assert_eq!(idle.take(1).as_deref(), Some(&1));
        assert!(idle.take(0).is_none());
        assert_eq!(idle.about(), 0);
        idle.put(1, Box::new(1));
        assert_eq!((idle.about(), idle.take(0).as_deref()), (1, Some(&1)));
    }
}
