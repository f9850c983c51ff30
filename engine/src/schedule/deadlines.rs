//! Deadlines of async requests: a waiter that is a parked thread watches its own, a future cannot.

use std::sync::Arc;

use slab::Slab;

use crate::clock::Time;
use crate::schedule::node::Node;
use crate::sync::{AtomicU64, CachePadded, Mutex, Ordering};

/// Requests whose deadline the watcher keeps, in shards so that runtime threads do not meet.
pub(crate) struct Deadlines {
    shards: Box<[CachePadded<Shard>]>,
}

struct Shard {
    /// No deadline of this shard is earlier; it may be too early, never too late.
    earliest_ns: AtomicU64,
    entries: Mutex<Slab<(Time, Arc<Node>)>>,
}

/// Where a request was registered, to take it out again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Registration {
    shard: usize,
    key: usize,
}

impl Deadlines {
    /// Sixteen shards keep a lock away from another thread's most of the time on machines up to that size.
    const SHARDS: usize = 16;

    pub(crate) fn new() -> Self {
        let shard = || Shard { earliest_ns: AtomicU64::new(u64::MAX), entries: Mutex::new(Slab::new()) };
        Self { shards: (0..Self::SHARDS).map(|_| CachePadded::new(shard())).collect() }
    }

    /// Keeps a deadline. True if it is the earliest of its shard, so that the watcher may have to wake earlier.
    pub(crate) fn register(&self, deadline: Time, node: &Arc<Node>) -> (Registration, bool) {
        // Nodes are heap blocks: the bits above their alignment spread them over the shards.
        let shard = (Arc::as_ptr(node) as usize >> 8) % self.shards.len();
        let Shard { earliest_ns, entries } = &*self.shards[shard];
        let mut entries = entries.lock();
        let key = entries.insert((deadline, Arc::clone(node)));
        let earlier = deadline.as_ns() < earliest_ns.load(Ordering::Relaxed);
        if earlier {
            // Release: pairs with the Acquire in `earliest`; the entry itself is read under the lock.
            earliest_ns.store(deadline.as_ns(), Ordering::Release);
        }
        (Registration { shard, key }, earlier)
    }

    pub(crate) fn remove(&self, registration: Registration) {
        let entry = self.shards[registration.shard].entries.lock().try_remove(registration.key);
        drop(entry);
    }

    /// When the watcher has to look next; the end of time if nothing is registered.
    pub(crate) fn earliest(&self) -> Time {
        let earliest = self.shards.iter().map(|shard| shard.earliest_ns.load(Ordering::Acquire)).min();
        Time::from_ns(earliest.unwrap_or(u64::MAX))
    }

    /// The requests whose deadline has passed. They stay registered until their waiters take them out.
    pub(crate) fn due(&self, now: Time) -> Vec<Arc<Node>> {
        let due_shards = self.shards.iter().filter(|s| s.earliest_ns.load(Ordering::Acquire) <= now.as_ns());
        due_shards.flat_map(|shard| shard.due(now)).collect()
    }
}

impl Shard {
    fn due(&self, now: Time) -> Vec<Arc<Node>> {
        let mut entries = self.entries.lock();
        let mut due = Vec::new();
        let mut earliest = u64::MAX;
        for (_, (deadline, node)) in entries.iter_mut() {
            if *deadline <= now {
                // Found once is enough: the waiter removes the entry, whenever its executor gets to it.
                *deadline = Time::from_ns(u64::MAX);
                due.push(Arc::clone(node));
            } else {
                earliest = earliest.min(deadline.as_ns());
            }
        }
        self.earliest_ns.store(earliest, Ordering::Release);
        due
    }
}
