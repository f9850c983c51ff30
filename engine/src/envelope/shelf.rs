//! Data keys that are kept for a while, each for so many messages, so many bytes and so long. Pure: no lock, no clock.

use std::collections::HashMap;
use std::time::Duration;

use super::data_key::DataKey;
use crate::clock::Time;
use crate::sync::Arc;
use crate::sync::Ordering;
use crate::sync::plain::AtomicU64;

/// What a key is kept for: a SHA-256 of it.
pub(super) type Id = [u8; 32];

/// A data key in use. It is wiped when the last user and the shelf have let go of it.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) key: DataKey,
    /// As it stands in messages; empty for a key that opens them.
    pub(super) wrapped: Box<[u8]>,
    /// Bytes that were sealed under it, those of messages still being written included.
    bytes: AtomicU64,
}

/// How long a key is used, and how many are kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) messages: u64,
    pub(super) bytes: u64,
    pub(super) age: Duration,
    pub(super) keys: usize,
}

pub(super) struct Shelf {
    bounds: Bounds,
    keys: HashMap<Id, Kept>,
    /// Keys of earlier epochs are not used.
    epoch: u64,
    /// Counts takings: who was taken longest ago goes first.
    takings: u64,
    /// No key is too old before then.
    oldest_until: Option<Time>,
}

struct Kept {
    held: Arc<Held>,
    until: Time,
    messages: u64,
    taken: u64,
}

impl Held {
    pub(super) fn new(key: DataKey, wrapped: Vec<u8>) -> Self {
        Self { key, wrapped: wrapped.into(), bytes: AtomicU64::new(0) }
    }

    /// Counts bytes as sealed. Only a sum is kept, which orders nothing.
    pub(super) fn charge(&self, len: u64) {
        self.bytes.fetch_add(len, Ordering::Relaxed);
    }
}

impl Bounds {
    /// Whether a key is used more than once.
    pub(super) const fn keep(&self) -> bool {
        self.messages > 1 && self.bytes > 0 && self.keys > 0 && !self.age.is_zero()
    }
}

impl Shelf {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, keys: HashMap::new(), epoch: 0, takings: 0, oldest_until: None }
    }

    /// The key for a message of `len` bytes, which then counts as sealed; none if there is no key, or it has served for as
    /// much or as long as it may. Keys of an earlier epoch than this are forgotten.
    pub(super) fn take(&mut self, id: &Id, epoch: u64, len: u64, now: Time) -> Option<Arc<Held>> {
        if epoch > self.epoch {
            self.forget();
            self.epoch = epoch;
        }
        self.expire(now);
        self.takings += 1;
        let kept = self.keys.get_mut(id)?;
        let bytes = kept.held.bytes.load(Ordering::Relaxed).saturating_add(len);
        if kept.messages >= self.bounds.messages || bytes > self.bounds.bytes {
            self.keys.remove(id);
            return None;
        }
        kept.messages += 1;
        kept.taken = self.takings;
        kept.held.charge(len);
        Some(Arc::clone(&kept.held))
    }

    /// Keeps a key that was asked for at `asked` in this epoch, and whose first message has been given it. In a later epoch
    /// it is not kept: what has changed since may be about this key.
    pub(super) fn put(&mut self, id: Id, epoch: u64, held: Arc<Held>, asked: Time) {
        if epoch != self.epoch || !self.bounds.keep() {
            return;
        }
        if self.keys.len() >= self.bounds.keys && !self.keys.contains_key(&id) {
            // One in a row of a thousand, and only after a call of a token, which takes longer.
            let longest_ago = self.keys.iter().min_by_key(|(_, kept)| kept.taken).map(|(id, _)| *id);
            longest_ago.and_then(|id| self.keys.remove(&id));
        }
        let until = asked.after(self.bounds.age);
        self.takings += 1;
        self.keys.insert(id, Kept { held, until, messages: 1, taken: self.takings });
        self.oldest_until = Some(self.oldest_until.map_or(until, |oldest| oldest.min(until)));
        debug_assert!(self.keys.len() <= self.bounds.keys, "{} keys are kept", self.keys.len());
    }

    /// Forgets keys that are too old.
    pub(super) fn expire(&mut self, now: Time) {
        if self.oldest_until.is_some_and(|until| until <= now) {
            self.keys.retain(|_, kept| kept.until > now);
            self.oldest_until = self.keys.values().map(|kept| kept.until).min();
        }
    }

    pub(super) fn forget(&mut self) {
        self.keys.clear();
        self.oldest_until = None;
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::data_key::tests::wiped_keys;
    use super::*;

    const BOUNDS: Bounds = Bounds { messages: 3, bytes: 100, age: Duration::from_secs(60), keys: 2 };

    fn at(seconds: u64) -> Time {
        Time::from_ns(1).after(Duration::from_secs(seconds))
    }

    fn held() -> Arc<Held> {
        Arc::new(Held::new(DataKey::random().unwrap(), vec![1]))
    }

    /// A shelf with one key, which was asked for at 0 for a message of `len` bytes.
    fn with_one(bounds: Bounds, len: u64) -> Shelf {
        let mut shelf = Shelf::new(bounds);
        let held = held();
        held.charge(len);
        shelf.put([1; 32], 0, held, at(0));
        shelf
    }

    #[test]
    fn a_key_serves_so_many_messages() {
        let mut shelf = with_one(BOUNDS, 0);
        let served = (0..5).filter(|_| shelf.take(&[1; 32], 0, 0, at(1)).is_some()).count();
        assert_eq!((served, shelf.len()), (2, 0), "the first message had it before it was kept");
    }

    #[test]
    fn a_key_serves_so_many_bytes() {
        let mut shelf = with_one(BOUNDS, 40);
        assert!(shelf.take(&[1; 32], 0, 60, at(1)).is_some());
        assert!(shelf.take(&[1; 32], 0, 1, at(1)).is_none());
        assert_eq!(shelf.len(), 0);
    }

    #[test]
    fn bytes_of_a_message_that_is_being_written_count() {
        let mut shelf = with_one(BOUNDS, 0);
        let writing = shelf.take(&[1; 32], 0, 0, at(1)).unwrap();
        writing.charge(101);
        assert!(shelf.take(&[1; 32], 0, 0, at(1)).is_none());
    }

    #[test]
    fn a_key_serves_so_long_and_is_wiped_then() {
        let mut shelf = with_one(BOUNDS, 0);
        let wiped = wiped_keys();
        assert!(shelf.take(&[1; 32], 0, 0, at(59)).is_some());
        assert_eq!(wiped_keys(), wiped);
        // Asked for another key: age is looked at whatever is taken.
        assert!(shelf.take(&[2; 32], 0, 0, at(60)).is_none());
        assert_eq!((shelf.len(), wiped_keys()), (0, wiped + 1));
    }

    #[test]
    fn the_key_that_was_taken_longest_ago_goes_first_and_is_wiped() {
        let mut shelf = with_one(BOUNDS, 0);
        shelf.put([2; 32], 0, held(), at(0));
        assert!(shelf.take(&[1; 32], 0, 0, at(1)).is_some());
        let wiped = wiped_keys();
        shelf.put([3; 32], 0, held(), at(1));
        assert_eq!((shelf.len(), wiped_keys()), (2, wiped + 1));
        assert!(shelf.take(&[2; 32], 0, 0, at(1)).is_none());
        assert!(shelf.take(&[1; 32], 0, 0, at(1)).is_some());
        assert!(shelf.take(&[3; 32], 0, 0, at(1)).is_some());
    }

    #[test]
    fn a_key_that_is_replaced_makes_nobody_go() {
        let mut shelf = with_one(BOUNDS, 0);
        shelf.put([2; 32], 0, held(), at(0));
        shelf.put([1; 32], 0, held(), at(0));
        assert!(shelf.take(&[2; 32], 0, 0, at(1)).is_some());
    }

    #[test]
    fn a_new_epoch_forgets_what_was_kept() {
        let mut shelf = with_one(BOUNDS, 0);
        let wiped = wiped_keys();
        assert!(shelf.take(&[1; 32], 1, 0, at(1)).is_none());
        assert_eq!(wiped_keys(), wiped + 1);
    }

    #[test]
    fn a_key_that_was_asked_for_in_an_earlier_epoch_is_not_kept() {
        let mut shelf = Shelf::new(BOUNDS);
        assert!(shelf.take(&[1; 32], 1, 0, at(0)).is_none());
        shelf.put([1; 32], 0, held(), at(0));
        assert_eq!(shelf.len(), 0);
        shelf.put([1; 32], 1, held(), at(0));
        assert_eq!(shelf.len(), 1);
        // Somebody who has read the number before it grew does no harm.
        assert!(shelf.take(&[1; 32], 0, 0, at(0)).is_some());
    }

    #[test]
    fn a_key_that_is_taken_outlives_the_shelf_and_is_wiped_by_its_last_user() {
        let mut shelf = with_one(BOUNDS, 0);
        let user = shelf.take(&[1; 32], 0, 0, at(1)).unwrap();
        let wiped = wiped_keys();
        drop(shelf);
        assert_eq!(wiped_keys(), wiped);
        assert_ne!(*user.key.as_bytes(), [0; 32]);
        drop(user);
        assert_eq!(wiped_keys(), wiped + 1);
    }

    #[test]
    fn bounds_of_one_message_no_bytes_no_age_or_no_room_keep_nothing() {
        for bounds in [
            Bounds { messages: 1, ..BOUNDS },
            Bounds { bytes: 0, ..BOUNDS },
            Bounds { age: Duration::ZERO, ..BOUNDS },
            Bounds { keys: 0, ..BOUNDS },
        ] {
            assert_eq!(with_one(bounds, 0).len(), 0, "{bounds:?}");
        }
    }

    proptest! {
        /// Whatever happens in whatever order: no key serves more, longer or beyond its epoch, and no more are kept.
        #[test]
        fn no_key_serves_beyond_its_bounds(steps in proptest::collection::vec(
            (0..4_u8, 0..60_u64, 0..20_u64, prop::bool::weighted(0.05)), 1..300,
        )) {
            let mut shelf = Shelf::new(BOUNDS);
            let (mut now, mut epoch) = (0, 0);
            // By the address of the key: messages, bytes, when and in which epoch it was asked for.
            let mut known: HashMap<*const Held, (u64, u64, u64, u64, Arc<Held>)> = HashMap::new();
            for (id, len, seconds, renewed) in steps {
                now += seconds;
                epoch += u64::from(renewed);
                if let Some(held) = shelf.take(&[id; 32], epoch, len, at(now)) {
                    let (messages, bytes, born, of_epoch, _) = known.get_mut(&Arc::as_ptr(&held)).unwrap();
                    (*messages, *bytes) = (*messages + 1, *bytes + len);
                    prop_assert!(*messages <= BOUNDS.messages && *bytes <= BOUNDS.bytes);
                    prop_assert!(now - *born < 60 && *of_epoch == epoch);
                } else {
                    let fresh = held();
                    fresh.charge(len);
                    known.insert(Arc::as_ptr(&fresh), (1, len, now, epoch, Arc::clone(&fresh)));
                    shelf.put([id; 32], epoch, fresh, at(now));
                }
                prop_assert!(shelf.len() <= BOUNDS.keys);
            }
        }
    }
}
