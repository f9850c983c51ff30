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

use crate::schedule::tenants::{Free, Tenant};

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
    tenant: Option<Arc<Tenant>>,
    /// Told, and not looked since.
    told: bool,
    event: Arc<Event>,
}

/// Those who are to be told, after the lock was given back: their wakers are user code.
pub(super) type Told = SmallVec<[Arc<Event>; 4]>;

impl Waiters {
    /// Adds one; returns its number.
    pub(super) fn add(&mut self, wants: Wants, tenant: Option<Arc<Tenant>>, event: Arc<Event>) -> u64 {
        let number = self.next;
        self.next += 1;
        self.waiting.insert(number, Waiter { wants, tenant, told: false, event });
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

    /// Tells those for whom what is free is enough, less what is for those who were told before. Who waits because its
    /// tenant has too much holds up nobody.
    pub(super) fn tell(&mut self, mut free: Free) -> Told {
        let mut told = Told::new();
        for waiter in self.waiting.values_mut() {
            if let Wants::Room(wanted) = waiter.wants {
                let may = |tenant: &Arc<Tenant>| tenant.fits(wanted, free);
                let fits = free.places > 0 && wanted <= free.bytes && waiter.tenant.as_ref().is_none_or(may);
                if !waiter.told && !fits {
                    continue;
                }
                free.places = free.places.saturating_sub(1);
                free.bytes = free.bytes.saturating_sub(wanted);
            }
            if !std::mem::replace(&mut waiter.told, true) {
                told.push(Arc::clone(&waiter.event));
            }
        }
        told
    }

    /// Tells everybody, whatever they wait for.
    pub(super) fn tell_all(&mut self) -> Told {
        self.tell(Free { places: usize::MAX, bytes: usize::MAX })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waiters who want so many bytes each; numbered from 0.
    fn waiters(wanted: &[usize]) -> Waiters {
        let mut waiters = Waiters::default();
        for &bytes in wanted {
            waiters.add(Wants::Room(bytes), None, Arc::default());
        }
        waiters
    }

    fn told(waiters: &Waiters) -> Vec<u64> {
        waiters.waiting.iter().filter_map(|(&number, waiter)| waiter.told.then_some(number)).collect()
    }

    #[test]
    fn those_for_whom_there_is_enough_are_told_the_longest_wait_first() {
        let mut waiters = waiters(&[100, 10, 10, 10]);
        assert_eq!((waiters.tell(Free { places: 2, bytes: 50 }).len(), told(&waiters)), (2, vec![1, 2]));
        assert_eq!((waiters.tell(Free { places: 3, bytes: 50 }).len(), told(&waiters)), (1, vec![1, 2, 3]));
        assert!(waiters.tell(Free { places: 3, bytes: 50 }).is_empty(), "nobody is told twice");
    }

    #[test]
    fn who_was_told_and_did_not_take_it_keeps_its_place_and_leaves_the_room_to_the_next() {
        let mut waiters = waiters(&[60, 60, 10]);
        assert_eq!((waiters.tell(Free { places: 1, bytes: 60 }).len(), told(&waiters)), (1, vec![0]));
        // Somebody else has taken 40 bytes meanwhile.
        assert!(waiters.look(0) && !waiters.look(0));
        assert_eq!((waiters.tell(Free { places: 1, bytes: 20 }).len(), told(&waiters)), (1, vec![2]));
        assert!(waiters.remove(2) && !waiters.remove(1));
        assert_eq!((waiters.tell(Free { places: 1, bytes: 60 }).len(), told(&waiters)), (1, vec![0]));
    }

    #[test]
    fn who_waits_because_its_tenant_has_too_much_holds_up_nobody() {
        let mut waiters = Waiters::default();
        let tenant = Arc::new(Tenant::default());
        let free = Free { places: 3, bytes: 100 };
        assert!((0..3).all(|_| tenant.take(1, free)));
        waiters.add(Wants::Room(1), Some(Arc::clone(&tenant)), Arc::default());
        waiters.add(Wants::Room(1), None, Arc::default());
        assert_eq!((waiters.tell(free).len(), told(&waiters)), (1, vec![1]));
        tenant.give_place();
        tenant.give_place();
        assert_eq!((waiters.tell(free).len(), told(&waiters)), (1, vec![0, 1]));
    }

    #[test]
    fn who_looks_on_is_told_of_everything_and_takes_no_room() {
        let mut waiters = Waiters::default();
        waiters.add(Wants::Anything, None, Arc::default());
        waiters.add(Wants::Room(10), None, Arc::default());
        assert_eq!((waiters.tell(Free { places: 0, bytes: 0 }).len(), told(&waiters)), (1, vec![0]));
        assert_eq!((waiters.tell(Free { places: 1, bytes: 10 }).len(), told(&waiters)), (1, vec![0, 1]));
    }
}
