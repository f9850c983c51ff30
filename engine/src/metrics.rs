//! Measuring: recorders that sessions carry, what a snapshot makes of them, and how exporters write it down.

pub(crate) mod bounds;
pub(crate) mod buckets;
mod hlog;
pub(crate) mod prometheus;
pub(crate) mod recorder;
mod snapshot;

use hdrhistogram::Histogram;

use crate::operation::OperationKind;
pub use hlog::IntervalLog;
use recorder::Recorder;
pub use recorder::Stage;
pub use snapshot::{
    AuditSnapshot, CheckSnapshot, Health, MergeSnapshot, OperationSnapshot, RandomPoolSnapshot,
    ScopeSnapshot, Snapshot, TokenSnapshot,
};

/// What the recorders have of a stage, of one kind of operation or of all.
pub(crate) fn histogram<'a>(
    recorders: impl IntoIterator<Item = &'a Recorder>,
    kind: Option<OperationKind>,
    stage: Stage,
) -> Histogram<u64> {
    let mut sum = buckets::empty();
    for recorder in recorders {
        let kinds = OperationKind::ALL.into_iter().filter(|other| kind.is_none_or(|kind| kind == *other));
        kinds.filter_map(|kind| recorder.read(kind)).for_each(|operation| operation.add_to(stage, &mut sum));
    }
    sum
}
