//! Recorders: written by the one thread that holds a session, read by anyone who takes a snapshot.

use std::sync::OnceLock;

use hdrhistogram::Histogram;

use crate::error::ErrorKind;
use crate::metrics::buckets::Buckets;
use crate::operation::OperationKind;
use crate::sync::{AtomicBool, AtomicU64, Ordering};

/// A stage of a request's life that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// From submission until a session begins the request. 0 for a request that its caller runs itself.
    Queued,
    /// In the module: from before the first PKCS#11 call until after the last.
    Token,
    /// From submission until the outcome is set. The waiter's own wake-up comes after it.
    Total,
}

impl Stage {
    /// All stages, in the order of a request's life.
    pub const ALL: [Self; 3] = [Self::Queued, Self::Token, Self::Total];

    /// The name that tables and JSON use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Token => "token",
            Self::Total => "total",
        }
    }
}

/// Histograms and counters of one session: it is leased with the session, so the hot path writes no line
/// that another thread writes.
#[derive(Debug)]
pub(crate) struct Recorder {
    operations: [OnceLock<Box<PerOperation>>; OperationKind::ALL.len()],
    /// Turns that were merged, their requests, and those that failed and were run request by request.
    pub(crate) merges: [AtomicU64; 3],
    /// The token has answered that it does not know a key.
    missed_key: AtomicBool,
}

#[derive(Debug)]
pub(crate) struct PerOperation {
    /// By stage, of requests that came through a queue.
    pub(crate) queued: [Buckets; Stage::ALL.len()],
    /// Time on the token of requests that their callers ran: it is their total too, and they queued for 0.
    pub(crate) inline: Buckets,
    pub(crate) errors: [AtomicU64; ErrorKind::ALL.len()],
}

impl Recorder {
    pub(crate) fn new() -> Self {
        Self {
            operations: [const { OnceLock::new() }; OperationKind::ALL.len()],
            merges: [const { AtomicU64::new(0) }; 3],
            missed_key: AtomicBool::new(false),
        }
    }

    /// Requests have been served from a queue, each after so long. Only by the thread that holds the session.
    pub(crate) fn served(&self, kind: OperationKind, requests: u64, queued_ns: u64, token_ns: u64) {
        let operation = self.operation(kind);
        operation.queued[0].record(queued_ns, requests);
        operation.queued[1].record(token_ns, requests);
        operation.queued[2].record(queued_ns + token_ns, requests);
    }

    /// A caller has run its requests itself. Only by the thread that holds the session.
    pub(crate) fn served_inline(&self, kind: OperationKind, requests: u64, token_ns: u64) {
        self.operation(kind).inline.record(token_ns, requests);
    }

    /// A request has failed on the token.
    pub(crate) fn failed(&self, kind: OperationKind, error: ErrorKind) {
        bump(&self.operation(kind).errors[error as usize]);
        if error == ErrorKind::KeyNotFound {
            // Relaxed: who has got the error has synchronised with this thread before it looks.
            self.missed_key.store(true, Ordering::Relaxed);
        }
    }

    /// Whether the token has answered that it does not know a key, since that was forgotten.
    pub(crate) fn has_missed_key(&self) -> bool {
        self.missed_key.load(Ordering::Relaxed)
    }

    /// The token's keys are about to be listed.
    pub(crate) fn forget_missed_key(&self) {
        self.missed_key.store(false, Ordering::Relaxed);
    }

    /// So many requests were served together. Only by the thread that holds the session.
    pub(crate) fn merged(&self, requests: u64) {
        bump(&self.merges[0]);
        add(&self.merges[1], requests);
    }

    /// Requests that were to be served together had to be run one by one. Only by the thread that holds the session.
    pub(crate) fn merge_failed(&self) {
        bump(&self.merges[2]);
    }

    /// What was recorded of an operation, if any.
    pub(crate) fn read(&self, kind: OperationKind) -> Option<&PerOperation> {
        self.operations[kind.index()].get().map(AsRef::as_ref)
    }

    fn operation(&self, kind: OperationKind) -> &PerOperation {
        self.operations[kind.index()].get_or_init(Box::default)
    }
}

impl PerOperation {
    /// Adds what was recorded of a stage. A request that its caller ran queued for 0, and its time on the
    /// token is its total.
    pub(crate) fn add_to(&self, stage: Stage, histogram: &mut Histogram<u64>) {
        self.queued[stage as usize].add_to(histogram);
        match stage {
            Stage::Queued => histogram.saturating_record_n(0, self.inline.count()),
            Stage::Token | Stage::Total => self.inline.add_to(histogram),
        }
    }
}

impl Default for PerOperation {
    fn default() -> Self {
        Self {
            queued: [const { Buckets::new() }; Stage::ALL.len()],
            inline: Buckets::new(),
            errors: [const { AtomicU64::new(0) }; ErrorKind::ALL.len()],
        }
    }
}

/// Adds one without a locked instruction: there is a single writer. Relaxed: counters order nothing.
fn bump(counter: &AtomicU64) {
    add(counter, 1);
}

/// As [`bump`], for more than one.
pub(super) fn add(counter: &AtomicU64, more: u64) {
    counter.store(counter.load(Ordering::Relaxed) + more, Ordering::Relaxed);
}
