//! What one session has done, for the controller: written by whoever holds the session, read by the watcher.

use crate::error::ErrorKind;
use crate::schedule::controller::Totals;
use crate::schedule::cost::PLANS;
use crate::sync::{AtomicU64, CachePadded, Ordering};

/// Counts and times of a session. One writer at a time, so nothing is written with a locked instruction, and nobody
/// else writes to its lines. Relaxed throughout: it orders nothing.
pub(crate) struct Meter(CachePadded<Counts>);

struct Counts {
    queued_ns: AtomicU64,
    pushed_back: AtomicU64,
    /// Kinds of plan that were ever served, by bit: most are not, and the watcher skips those.
    served: [AtomicU64; PLANS / 64],
    /// By kind of plan: requests, and nanoseconds inside the module for them.
    plans: [(AtomicU64, AtomicU64); PLANS],
}

impl Meter {
    pub(crate) fn new() -> Self {
        Self(CachePadded::new(Counts {
            queued_ns: AtomicU64::new(0),
            pushed_back: AtomicU64::new(0),
            served: [const { AtomicU64::new(0) }; PLANS / 64],
            plans: [const { (AtomicU64::new(0), AtomicU64::new(0)) }; PLANS],
        }))
    }

    /// Requests of one kind of plan have been served, by calls that took so long together.
    pub(crate) fn served(&self, plan: usize, requests: u64, token_ns: u64) {
        let (word, bit) = (&self.0.served[plan / 64], 1 << (plan % 64));
        let served = word.load(Ordering::Relaxed);
        if served & bit == 0 {
            word.store(served | bit, Ordering::Relaxed);
        }
        add(&self.0.plans[plan].0, requests);
        add(&self.0.plans[plan].1, token_ns);
    }

    /// Requests had queued for so long together.
    pub(crate) fn queued(&self, ns: u64) {
        add(&self.0.queued_ns, ns);
    }

    /// A call has failed. The token is busy or full, or it may be: a device that throttles answers the code by which
    /// others report a fault.
    pub(crate) fn failed(&self, kind: ErrorKind) {
        if matches!(kind, ErrorKind::Busy | ErrorKind::Device) {
            add(&self.0.pushed_back, 1);
        }
    }

    /// Adds to a sum; returns how many requests were served.
    pub(super) fn add_to(&self, totals: &mut Totals) -> u64 {
        let counts = &self.0;
        totals.queued_ns += counts.queued_ns.load(Ordering::Relaxed);
        totals.pushed_back += counts.pushed_back.load(Ordering::Relaxed);
        let mut requests = 0;
        for (word, served) in counts.served.iter().enumerate() {
            let mut bits = served.load(Ordering::Relaxed);
            while bits != 0 {
                let plan = word * 64 + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                let done = counts.plans[plan].0.load(Ordering::Relaxed);
                requests += done;
                totals.plans[plan].0 += done;
                totals.plans[plan].1 += counts.plans[plan].1.load(Ordering::Relaxed);
            }
        }
        requests
    }
}

fn add(counter: &AtomicU64, more: u64) {
    counter.store(counter.load(Ordering::Relaxed) + more, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_has_what_every_session_did() {
        let meters = [Meter::new(), Meter::new()];
        meters[0].served(3, 1, 500);
        meters[0].served(127, 10, 70);
        meters[0].queued(40);
        meters[1].served(3, 2, 900);
        for kind in [ErrorKind::Busy, ErrorKind::Device, ErrorKind::InvalidInput] {
            meters[1].failed(kind);
        }
        let mut totals = Totals::default();
        let requests = meters.iter().map(|meter| meter.add_to(&mut totals)).sum::<u64>();
        assert_eq!((requests, totals.queued_ns, totals.pushed_back), (13, 40, 2));
        assert_eq!((totals.plans[3], totals.plans[127], totals.plans[0]), ((3, 1_400), (10, 70), (0, 0)));
    }
}
