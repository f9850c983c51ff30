//! The idle sessions of one token: whoever takes one out owns it, whoever puts it back gives it up.

use crate::sync::{AtomicU64, AtomicUsize, CachePadded, Ordering, Slot, fence, fence_after_swap};

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
///
/// Sessions from `limit` on are out of use: *parked* in their slots, with their bits clear, so that nobody finds them.
/// Only a session whose bit is clear looks at the limit when it comes back, so an inline caller reads nothing more
/// than before. A session that comes back just as the limit falls may be found once more.
pub(super) struct Idle<S> {
    slots: Box<[CachePadded<Slot<S>>]>,
    maybe: Box<[CachePadded<AtomicU64>]>,
    limit: CachePadded<AtomicUsize>,
}

impl<S> Idle<S> {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            slots: (0..capacity).map(|_| CachePadded::new(Slot::new())).collect(),
            maybe: (0..capacity.div_ceil(64)).map(|_| CachePadded::new(AtomicU64::new(0))).collect(),
            limit: CachePadded::new(AtomicUsize::new(capacity)),
        }
    }

    /// Puts the sessions below `limit` in use and parks the others, each as it comes back. True if there may be idle
    /// ones now that were not before. One caller at a time.
    pub(super) fn set_limit(&self, limit: usize) -> bool {
        let (limit, before) = (limit.min(self.slots.len()), self.limit.load(Ordering::Relaxed));
        if limit != before {
            self.limit.store(limit, Ordering::SeqCst);
        }
        // SeqCst fence: pairs with the one in `put`. Either that sees the limit, or its slot is full by now.
        fence(Ordering::SeqCst);
        for (word, maybe) in self.maybe.iter().enumerate() {
            // Set whether or not a session is there: searchers clear what they find empty.
            let newly = below(limit, word) & !below(before, word);
            if newly != 0 {
                maybe.fetch_or(newly, Ordering::SeqCst);
            }
            let parked = !below(limit, word);
            if maybe.load(Ordering::SeqCst) & parked != 0 {
                maybe.fetch_and(!parked, Ordering::SeqCst);
            }
        }
        limit > before
    }

    pub(super) fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// Returns a session to its slot. A `SeqCst` fence for who looks for work next: whoever is to find the session
    /// finds it, or has stored before this fence what the caller loads after it.
    #[inline]
    pub(super) fn put(&self, index: usize, session: Box<S>) {
        let before = self.slots[index].put(session);
        debug_assert!(before.is_none(), "two sessions in slot {index}");
        let (word, bit) = self.bit(index);
        // SeqCst fence: pairs with those in `search` and `set_limit`; see the type's documentation.
        fence_after_swap();
        if word.load(Ordering::Relaxed) & bit == 0 && index < self.limit.load(Ordering::SeqCst) {
            word.fetch_or(bit, Ordering::SeqCst);
            // SeqCst fence: the bit is seen too.
            fence_after_swap();
        }
    }

    /// Takes the session at `hint` if it is idle, else any.
    #[inline]
    pub(super) fn take(&self, hint: usize) -> Option<Box<S>> {
        let hint = if hint < self.slots.len() { hint } else { 0 };
        self.take_at(hint).or_else(|| self.search(hint))
    }

    /// Takes any session that nobody holds, parked or not.
    pub(super) fn take_any(&self) -> Option<Box<S>> {
        self.take(0).or_else(|| self.slots.iter().find_map(|slot| slot.take()))
    }

    /// Takes the session at `index` if nobody holds it, parked or not.
    pub(super) fn take_slot(&self, index: usize) -> Option<Box<S>> {
        self.slots.get(index)?.take()
    }

    /// Takes the session at `index` if it is idle.
    #[inline]
    pub(super) fn take_at(&self, index: usize) -> Option<Box<S>> {
        let slot = self.slots.get(index)?;
        let (word, bit) = self.bit(index);
        if word.load(Ordering::Relaxed) & bit == 0 { None } else { slot.take() }
    }

    /// Takes a session for a turn: the one at `hint` if it is idle, else any. Its bit goes too, so that
    /// [`Idle::about`] counts who really idles; a turn can bear two writes to a shared line.
    pub(super) fn take_for_turn(&self, hint: usize) -> Option<Box<S>>
    where
        S: super::dispatch::Seat,
    {
        self.take(hint).inspect(|session| self.mark_taken(session.index()))
    }

    /// Takes the session at `index` for a turn, if it is idle.
    pub(super) fn take_own(&self, index: usize) -> Option<Box<S>> {
        self.take_at(index).inspect(|_| self.mark_taken(index))
    }

    /// The slot is empty and stays so until the session that the caller has comes back.
    fn mark_taken(&self, index: usize) {
        let (word, bit) = self.bit(index);
        word.fetch_and(!bit, Ordering::SeqCst);
    }

    /// About how many sessions are idle: those that inline callers have taken count too.
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

    #[inline]
    fn bit(&self, index: usize) -> (&AtomicU64, u64) {
        (&self.maybe[index / 64], 1 << (index % 64))
    }
}

/// The bits of a word that stand for indices below a limit.
const fn below(limit: usize, word: usize) -> u64 {
    match limit.saturating_sub(word * 64) {
        count @ 0..64 => (1 << count) - 1,
        _ => u64::MAX,
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

    #[test]
    fn parked_sessions_are_found_by_nobody_and_come_back_when_the_limit_rises() {
        let idle = Idle::new(130);
        (0..100).for_each(|i| idle.put(i, Box::new(i)));
        idle.set_limit(70);
        // One comes late.
        (100..130).for_each(|i| idle.put(i, Box::new(i)));
        assert_eq!((idle.about(), idle.limit()), (70, 70));
        assert!(idle.take_at(70).is_none());
        assert!((0..70).all(|_| idle.take(100).is_some_and(|i| *i < 70)) && idle.take(0).is_none());
        idle.set_limit(128);
        assert_eq!((0..58).filter_map(|_| idle.take(0)).map(|i| *i).sum::<usize>(), (70..128).sum::<usize>());
        assert!(idle.take(128).is_none());
        let rest: Vec<_> = std::iter::from_fn(|| idle.take_any()).map(|i| *i).collect();
        assert_eq!(rest, [128, 129], "nobody holds them");
        idle.set_limit(usize::MAX);
        assert!(idle.take(0).is_none() && idle.limit() == 130);
    }
}
