//! Snapshots: what the recorders, counters and gauges of an engine say at a moment.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use crate::error::ErrorKind;
use crate::metrics::recorder::{Recorder, Stage};
use crate::operation::OperationKind;
use crate::pkcs11::{CallCounts, Function};
use crate::schedule::core::Core;
use crate::sync::Ordering;

/// What an engine has done since it was built. Taking one stops nobody: requests that finish meanwhile may
/// be in one figure and not yet in another.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Snapshot {
    /// By token, in the order in which the engine was given them.
    pub tokens: Vec<TokenSnapshot>,
    /// PKCS#11 calls of requests and of the engine itself, by the function's name.
    pub calls: BTreeMap<&'static str, u64>,
    /// Requests in flight: queued or running.
    pub in_flight: usize,
    /// Bytes of requests in flight, with answers that were not collected yet.
    pub bytes_in_flight: usize,
    /// Lanes that exist.
    pub lanes: usize,
    /// Requests refused for want of room.
    pub refused: u64,
    /// Requests whose deadline passed.
    pub expired: u64,
    /// Requests that were given up while they were queued.
    pub withdrawn: u64,
    /// Calls that were written off because they hung.
    pub hung: u64,
    /// Panics in wakers.
    pub panics: u64,
}

/// One token of a [`Snapshot`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TokenSnapshot {
    /// The token's label.
    pub label: String,
    /// Sessions that work or idle.
    pub sessions: usize,
    /// Of those, about how many are idle.
    pub idle: usize,
    /// Sessions inside a call that hangs.
    pub written_off: usize,
    /// By kind of operation; those never asked for are left out.
    pub operations: Vec<OperationSnapshot>,
}

/// One kind of operation on one token.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct OperationSnapshot {
    /// Which.
    pub kind: OperationKind,
    /// How many succeeded.
    pub count: u64,
    /// How many failed on the token, by kind of error.
    pub errors: Vec<(ErrorKind, u64)>,
    stages: [Histogram<u64>; Stage::ALL.len()],
}

impl OperationSnapshot {
    /// Times of a stage, in nanoseconds.
    #[must_use]
    pub fn stage(&self, stage: Stage) -> &Histogram<u64> {
        &self.stages[stage as usize]
    }
}

impl Snapshot {
    pub(crate) fn take(core: &Core, library: &CallCounts) -> Self {
        let calls = CallCounts::new();
        calls.add(library);
        core.tokens.iter().for_each(|seats| seats.token.add_counts(&calls));
        let read = |counter: &crate::sync::AtomicU64| counter.load(Ordering::Relaxed);
        Self {
            tokens: (0..core.tokens.len()).map(|token| TokenSnapshot::take(core, token)).collect(),
            calls: Function::ALL
                .into_iter()
                .map(|f| (f.name(), calls.of(f)))
                .filter(|(_, n)| *n > 0)
                .collect(),
            in_flight: core.admission.requests(),
            bytes_in_flight: core.admission.bytes(),
            lanes: core.lane_count(),
            refused: read(&core.counters.refused),
            expired: read(&core.counters.expired),
            withdrawn: read(&core.counters.withdrawn),
            hung: read(&core.counters.hung),
            panics: read(&core.counters.panics),
        }
    }
}

impl TokenSnapshot {
    fn take(core: &Core, token: usize) -> Self {
        let seats = &core.tokens[token];
        let kinds = OperationKind::ALL.into_iter();
        Self {
            label: seats.token.info.label.clone(),
            sessions: seats.watches.lock().len(),
            idle: core.dispatch.idle_about(token),
            written_off: seats.written_off.load(Ordering::Relaxed),
            operations: kinds.filter_map(|kind| operation(&seats.recorders, kind)).collect(),
        }
    }
}

fn operation(recorders: &[std::sync::Arc<Recorder>], kind: OperationKind) -> Option<OperationSnapshot> {
    let of_stage = |stage| super::histogram(recorders.iter().map(AsRef::as_ref), Some(kind), stage);
    let stages = Stage::ALL.map(of_stage);
    let recorded = recorders.iter().filter_map(|recorder| recorder.read(kind));
    let mut errors: Vec<_> = ErrorKind::ALL.into_iter().map(|kind| (kind, 0)).collect();
    for operation in recorded {
        for (sum, count) in errors.iter_mut().zip(&operation.errors) {
            sum.1 += count.load(Ordering::Relaxed);
        }
    }
    errors.retain(|(_, count)| *count > 0);
    let count = stages[Stage::Total as usize].len();
    (count > 0 || !errors.is_empty()).then_some(OperationSnapshot { kind, count, errors, stages })
}
