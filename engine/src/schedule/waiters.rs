//! Who waits for room, in the order of coming, and who of them is told when room is given back.
//!
//! A release tells those for whom there is enough, the longest wait first, and nobody else: a large request that does
//! not fit holds up no small one behind it. The price is that small ones may pass it for as long as they leave too
//! little for it; a caller who cannot have that gives its large requests an engine, or a smaller
//! [`bytes_max`](crate::Builder::bytes_max), of their own. Room is not kept for who was told: until it has looked,
//! another may have taken it. It then keeps its place in the order, and has the next one told in its stead.

use std::collections::BTreeMap;
use std::sync::Arc;

use event_listener::Event;
use smallvec::SmallVec;

/// What somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wants {
    /// A place, and so many bytes.
    Room(usize),
    /// Anything that is given back: for who looks on.
    Anything,
}

/// Those who wait, by their number, which says who came first.
#[derive(Default)]
pub(super) struct Waiters {
    next: u64,
    waiting: BTreeMap<u64, Waiter>,
}

struct Waiter {
    wants: Wants,
    /// Told, and not looked since.
    told: bool,
    event: Arc<Event>,
}

/// Those who are to be told, after the lock was given back: their wakers are user code.
pub(super) type Told = SmallVec<[Arc<Event>; 4]>;

impl Waiters {
    /// Adds one; returns its number.
    pub(super) fn add(&mut self, wants: Wants, event: Arc<Event>) -> u64 {
        let number = self.next;
        self.next += 1;
        self.waiting.insert(number, Waiter { wants, told: false, event });
        number
    }

    /// One is about to look: it is to be told of what comes from now on. Says whether it had been told.
    pub(super) fn look(&mut self, number: u64) -> bool {
        self.waiting.get_mut(&number).is_some_and(|waiter| std::mem::take(&mut waiter.told))
    }

    /// One waits no more. Says whether it had been told and has not looked.
    pub(super) fn remove(&mut self, number: u64) -> bool {
        self.waiting.remove(&number).is_some_and(|waiter| waiter.told)
    }

    /// Tells those for whom so many places and bytes are enough, less what is for those who were told before.
    pub(super) fn tell(&mut self, mut places: usize, mut bytes: usize) -> Told {
        let mut told = Told::new();
        for waiter in self.waiting.values_mut() {
            if let Wants::Room(wanted) = waiter.wants {
                if !waiter.told && (places == 0 || wanted > bytes) {
                    continue;
                }
                places = places.saturating_sub(1);
                bytes = bytes.saturating_sub(wanted);
            }
            if !std::mem::replace(&mut waiter.told, true) {
                told.push(Arc::clone(&waiter.event));
            }
        }
        told
    }

    /// Tells everybody, whatever they wait for.
    pub(super) fn tell_all(&mut self) -> Told {
        self.tell(usize::MAX, usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waiters who want so many bytes each; numbered from 0.
    fn waiters(wanted: &[usize]) -> Waiters {
        let mut waiters = Waiters::default();
        for &bytes in wanted {
            waiters.add(Wants::Room(bytes), Arc::default());
        }
        waiters
    }

    fn told(waiters: &Waiters) -> Vec<u64> {
        waiters.waiting.iter().filter_map(|(&number, waiter)| waiter.told.then_some(number)).collect()
    }

    #[test]
    fn those_for_whom_there_is_enough_are_told_the_longest_wait_first() {
        let mut waiters = waiters(&[100, 10, 10, 10]);
        assert_eq!((waiters.tell(2, 50).len(), told(&waiters)), (2, vec![1, 2]));
        assert_eq!((waiters.tell(3, 50).len(), told(&waiters)), (1, vec![1, 2, 3]));
        assert!(waiters.tell(3, 50).is_empty(), "nobody is told twice");
    }

    #[test]
    fn who_was_told_and_did_not_take_it_keeps_its_place_and_leaves_the_room_to_the_next() {
        let mut waiters = waiters(&[60, 60, 10]);
        assert_eq!((waiters.tell(1, 60).len(), told(&waiters)), (1, vec![0]));
        // Somebody else has taken 40 bytes meanwhile.
        assert!(waiters.look(0) && !waiters.look(0));
        assert_eq!((waiters.tell(1, 20).len(), told(&waiters)), (1, vec![2]));
        assert!(waiters.remove(2) && !waiters.remove(1));
        assert_eq!((waiters.tell(1, 60).len(), told(&waiters)), (1, vec![0]));
    }

    #[test]
    fn who_looks_on_is_told_of_everything_and_takes_no_room() {
        let mut waiters = Waiters::default();
        waiters.add(Wants::Anything, Arc::default());
        waiters.add(Wants::Room(10), Arc::default());
        assert_eq!((waiters.tell(0, 0).len(), told(&waiters)), (1, vec![0]));
        assert_eq!((waiters.tell(1, 10).len(), told(&waiters)), (1, vec![0, 1]));
    }
}
