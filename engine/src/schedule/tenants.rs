//! What each tenant has in flight, so that none takes the room of all.
//!
//! The bound of a tenant moves with what is left (the dynamic thresholds of Choudhury and Hahne, "Dynamic Queue Length
//! Thresholds for Shared-Memory Packet Switches", 1998): it may have as much in flight as is free. One that floods alone
//! gets half of the engine's room, two that flood a third each, and whoever asks for less than a tenant that floods finds
//! room. Nothing needs to be known of how many tenants there are. Requests that name none are nobody's, and cost nothing
//! here.

use std::collections::HashMap;
use std::sync::Arc;

use crate::sync::plain::AtomicUsize;
use crate::sync::{Ordering, RwLock};

/// The tenants that have something in flight, by number.
#[derive(Default)]
pub(super) struct Tenants(RwLock<HashMap<u64, Arc<Tenant>, foldhash::fast::RandomState>>);

/// What a tenant has in flight. `SeqCst` throughout: who waits for room counts itself among those who wait before it
/// looks here, and who gives room back does so here before it looks whether anybody waits.
#[derive(Debug, Default)]
pub(super) struct Tenant {
    requests: AtomicUsize,
    bytes: AtomicUsize,
}

/// Room of the engine that nobody has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Free {
    pub(super) places: usize,
    pub(super) bytes: usize,
}

/// The number of those who have none.
const NOBODY: u64 = 0;

impl Tenants {
    /// What a tenant has in flight; nothing is kept for nobody.
    pub(super) fn of(&self, number: u64) -> Option<Arc<Tenant>> {
        if number == NOBODY {
            return None;
        }
        if let Some(tenant) = self.0.read().get(&number) {
            return Some(Arc::clone(tenant));
        }
        Some(Arc::clone(self.0.write().entry(number).or_default()))
    }

    /// Forgets those that have nothing in flight, and wait for nothing.
    pub(super) fn retire(&self) {
        let idle = |tenant: &Arc<Tenant>| Arc::strong_count(tenant) == 1;
        if self.0.read().values().any(idle) {
            // Who has one from here on has taken it under the lock.
            self.0.write().retain(|_, tenant| !idle(tenant));
        }
    }
}

impl Tenant {
    /// Takes a place and so many bytes, unless the tenant has as much as is free already. Two requests at once may be
    /// one more than that.
    pub(super) fn take(&self, bytes: usize, free: Free) -> bool {
        let fits = self.fits(bytes, free);
        if fits {
            self.requests.fetch_add(1, Ordering::SeqCst);
            self.bytes.fetch_add(bytes, Ordering::SeqCst);
        }
        fits
    }

    /// Whether it might have a request of so many bytes more. One that has nothing may, whatever is free: then the
    /// engine's own limits decide, or a request of more than half of the bytes could never be made.
    pub(super) fn fits(&self, bytes: usize, free: Free) -> bool {
        let (requests, held) = (self.requests.load(Ordering::SeqCst), self.bytes.load(Ordering::SeqCst));
        (requests == 0 && held == 0) || (requests < free.places && held.saturating_add(bytes) <= free.bytes)
    }

    /// A request has left its place.
    pub(super) fn give_place(&self) {
        self.requests.fetch_sub(1, Ordering::SeqCst);
    }

    /// A request's bytes are gone.
    pub(super) fn give_bytes(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes places for one tenant after the other, of 120 in all, until none finds any.
    fn flood(tenants: usize) -> Vec<usize> {
        let tenants: Vec<_> = (0..tenants).map(|_| Tenant::default()).collect();
        let mut taken = 0;
        loop {
            let before = taken;
            for tenant in &tenants {
                taken += usize::from(tenant.take(1, Free { places: 120 - taken, bytes: usize::MAX }));
            }
            if taken == before {
                return tenants.iter().map(|tenant| tenant.requests.load(Ordering::SeqCst)).collect();
            }
        }
    }

    #[test]
    fn those_who_flood_leave_as_much_as_each_of_them_has() {
        assert_eq!(flood(1), [60]);
        assert_eq!(flood(2), [40, 40]);
        assert_eq!(flood(5), [20; 5]);
    }

    #[test]
    fn bytes_are_bounded_as_requests_are_and_who_has_nothing_may_have_one_request() {
        let tenant = Tenant::default();
        let free = |bytes| Free { places: 9, bytes };
        assert!(tenant.take(70, free(100)), "more than half");
        assert!(!tenant.take(1, free(30)));
        tenant.give_place();
        assert!(!tenant.take(1, free(30)), "its bytes are still there");
        tenant.give_bytes(70);
        assert!(tenant.take(70, free(100)));
    }

    #[test]
    fn nothing_is_kept_for_nobody_nor_for_those_who_have_gone() {
        let tenants = Tenants::default();
        assert!(tenants.of(NOBODY).is_none());
        let held = tenants.of(7);
        drop(tenants.of(8));
        tenants.retire();
        assert_eq!(tenants.0.read().keys().copied().collect::<Vec<_>>(), [7]);
        drop(held);
        tenants.retire();
        assert!(tenants.0.read().is_empty());
    }
}
