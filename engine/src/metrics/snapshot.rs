//! Snapshots: what the recorders, counters and gauges of an engine say at a moment.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;

use crate::clock::{Time, now, time_of_day};
use crate::error::ErrorKind;
use crate::metrics::recorder::{Recorder, Stage};
use crate::operation::OperationKind;
use crate::pkcs11::{CallCounts, Function};
use crate::random_pool::Counts;
use crate::schedule::controller::Adjustment;
use crate::schedule::core::Core;
use crate::schedule::scope::{Decided, Scope};
use crate::sync::Ordering;

/// What an engine has done since it was built. Taking one stops nobody: requests that finish meanwhile may
/// be in one figure and not yet in another.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Snapshot {
    /// When it was taken, by the system's clock.
    pub taken_at: SystemTime,
    /// When it was taken, by a clock that does not jump.
    pub(crate) taken: Time,
    /// By token, in the order in which the engine was given them; with several
    /// [instances](crate::Builder::instances) all tokens of the first, then all of the second, and so on.
    pub tokens: Vec<TokenSnapshot>,
    /// How many sessions are in use, and what was decided about it: by scope, which is a token or tokens that share a
    /// bottleneck.
    pub scopes: Vec<ScopeSnapshot>,
    /// PKCS#11 calls of requests and of the engine itself, by the function's name. Those that need no session
    /// (`C_OpenSession`, `C_GetTokenInfo` and the like) are counted by module: all engines of the process together.
    pub calls: BTreeMap<&'static str, u64>,
    /// Requests in flight: queued or running. What [`Many`](crate::Many) and [`pipeline`](crate::pipeline()) put together
    /// counts as one.
    pub in_flight: usize,
    /// Of those, about how many are queued.
    pub queued: usize,
    /// Bytes of requests in flight, with answers that were not collected yet.
    pub bytes_in_flight: usize,
    /// Lanes that exist.
    pub lanes: usize,
    /// Most requests that may be in flight, and most bytes of them.
    pub limits: (usize, usize),
    /// Requests refused for want of room.
    pub refused: u64,
    /// Of those, because their [tenant](crate::Request::tenant) had as much in flight as was free.
    pub refused_tenants: u64,
    /// Requests whose deadline passed.
    pub expired: u64,
    /// Requests that were given up while they were queued.
    pub withdrawn: u64,
    /// Calls that were written off because they hung.
    pub hung: u64,
    /// How often a token went out of service: lost, failing or hung.
    pub tokens_lost: u64,
    /// How often a module was initialised anew.
    pub resets: u64,
    /// How often a token was taken out of service because it gave a wrong answer.
    pub tokens_ejected: u64,
    /// Panics in wakers.
    pub panics: u64,
    /// The pool of random bytes; all zero where it is off.
    pub random_pool: RandomPoolSnapshot,
    /// What the audit log has done; all 0 without one.
    pub audit: AuditSnapshot,
}

/// The pool of random bytes of a [`Snapshot`]. Requests that it serves are counted here and not among the operations of
/// a token, which counts its refills, each as one operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RandomPoolSnapshot {
    /// Requests that it has served.
    pub requests: u64,
    /// Bytes that they were given.
    pub given: u64,
    /// Times that it was filled from a token.
    pub refills: u64,
    /// Bytes that this brought.
    pub fetched: u64,
    /// Bytes in it now.
    pub held: usize,
}

/// One token of a [`Snapshot`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TokenSnapshot {
    /// The token's label.
    pub label: String,
    /// Through which instance of the module, from 0.
    pub instance: usize,
    /// Sessions that are open: those that work, idle, or are parked.
    pub sessions: usize,
    /// Of those, about how many are idle.
    pub idle: usize,
    /// Of those, how many are parked: taken out of use, and kept open for when more work comes.
    pub parked: usize,
    /// Sessions inside a call that hangs.
    pub written_off: usize,
    /// Whether the operator has taken the token out of service ([`Engine::drain_token`](crate::Engine::drain_token)).
    pub drained: bool,
    /// Whether it serves.
    pub health: Health,
    /// Keys that have a warm copy.
    pub copies: usize,
    /// Calls that served several requests.
    pub merges: MergeSnapshot,
    /// Outputs that were checked.
    pub checks: CheckSnapshot,
    /// By kind of operation; those never asked for are left out.
    pub operations: Vec<OperationSnapshot>,
}

/// Whether a token serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Health {
    /// It does.
    Serving,
    /// It, its sessions or the login to it are lost, and it is looked for: at once, and then ever more rarely, at least
    /// every two seconds. When it is there it is logged in to, once, and its keys are listed.
    Lost,
    /// It is there, but what it was asked has failed, and a trial of it too, or everything did: it gets no requests, and
    /// is tried again after ever longer pauses, of two seconds at most. After three trials it is taken for lost.
    Failing,
    /// It is lost, and a call that hangs keeps it so: an attempt to bring it back, or one that keeps its module from being
    /// initialised anew. It comes back if that call returns, and else with a new process.
    Stuck,
    /// It is lost, and a login to it was refused, or two in a row ended so that nobody knows whether they counted as wrong
    /// tries: the PIN is not sent again. A new engine is needed.
    GivenUp,
    /// It has given a wrong answer ([`Builder::verify_outputs`](crate::Builder::verify_outputs)) and serves nothing until
    /// [`Engine::readmit_token`](crate::Engine::readmit_token). That it may be lost besides is said once it is readmitted.
    Ejected,
}

/// Outputs of one token that were due to be checked ([`Builder::verify_outputs`](crate::Builder::verify_outputs)). Those
/// of requests that share a call count as one for each call of the token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckSnapshot {
    /// Found right.
    pub right: u64,
    /// Found wrong, and not handed out.
    pub wrong: u64,
    /// Nothing shows whether they are right: handed out, but for those that do not fit the public half of their key.
    pub unchecked: u64,
}

/// Coalescing on one token.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct MergeSnapshot {
    /// Turns, and batches that their callers ran, whose requests were served together.
    pub turns: u64,
    /// Their requests.
    pub requests: u64,
    /// Those that failed together, after which each request was run by itself.
    pub failures: u64,
    /// Kinds of keys, by type and length, for which the self-test did not show of every mode that shared calls are
    /// right: their requests, or those of the mode, are run one by one. The log says why.
    pub unproven: usize,
}

/// The sessions of tokens that are counted together, in a [`Snapshot`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ScopeSnapshot {
    /// The token's label, the name that [`Builder::scope`](crate::Builder::scope) gave, or `module`.
    pub name: String,
    /// Labels of its tokens.
    pub tokens: Vec<String>,
    /// Sessions in use: as many operations run at once.
    pub in_use: usize,
    /// Fewest that may be.
    pub floor: usize,
    /// Most that may be.
    pub ceiling: usize,
    /// How often the controller did what; all zeros where floor and ceiling are the same.
    pub adjustments: Vec<(Adjustment, u64)>,
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

/// What the audit log has done since the engine was built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuditSnapshot {
    /// Records that the log has, those of earlier engines too.
    pub records: u64,
    /// Records that were refused, or shed, because they could not be written.
    pub lost: u64,
    /// How often writing has failed.
    pub faults: u64,
    /// Whether it fails now.
    pub is_failing: bool,
    /// Checkpoints that were signed and stored.
    pub checkpoints: u64,
    /// Attempts to sign or store one that have failed.
    pub checkpoints_failed: u64,
    /// How long the disk took to synchronise, half of the times at most.
    pub sync_p50: Duration,
    /// And 99 of 100 times at most.
    pub sync_p99: Duration,
}

impl Snapshot {
    /// Of a forked child, where nothing happens and locks may be held for ever.
    pub(crate) fn empty() -> Self {
        Self {
            taken_at: time_of_day(),
            taken: now(),
            tokens: Vec::new(),
            scopes: Vec::new(),
            calls: BTreeMap::new(),
            in_flight: 0,
            queued: 0,
            bytes_in_flight: 0,
            lanes: 0,
            limits: (0, 0),
            refused: 0,
            refused_tenants: 0,
            expired: 0,
            withdrawn: 0,
            hung: 0,
            tokens_lost: 0,
            resets: 0,
            tokens_ejected: 0,
            panics: 0,
            random_pool: RandomPoolSnapshot::default(),
            audit: AuditSnapshot::default(),
        }
    }

    pub(crate) fn take<'a>(
        core: &Core,
        libraries: impl Iterator<Item = &'a CallCounts>,
        pool: Counts,
    ) -> Self {
        let calls = CallCounts::new();
        libraries.for_each(|library| calls.add(library));
        core.tokens.iter().for_each(|seats| seats.token.add_counts(&calls));
        let read = |counter: &crate::sync::AtomicU64| counter.load(Ordering::Relaxed);
        Self {
            taken_at: time_of_day(),
            taken: now(),
            tokens: (0..core.tokens.len()).map(|token| TokenSnapshot::take(core, token)).collect(),
            scopes: core.scopes.iter().map(|scope| ScopeSnapshot::take(core, scope)).collect(),
            calls: Function::ALL
                .into_iter()
                .map(|f| (f.name(), calls.of(f)))
                .filter(|(_, n)| *n > 0)
                .collect(),
            in_flight: core.admission.requests(),
            queued: core.queued(),
            bytes_in_flight: core.admission.bytes(),
            lanes: core.lane_count(),
            limits: core.admission.limits(),
            refused: read(&core.counters.refused),
            refused_tenants: read(&core.counters.refused_tenants),
            expired: read(&core.counters.expired),
            withdrawn: read(&core.counters.withdrawn),
            hung: read(&core.counters.hung),
            tokens_lost: read(&core.counters.tokens_lost),
            resets: read(&core.counters.resets),
            tokens_ejected: read(&core.counters.tokens_ejected),
            panics: read(&core.counters.panics),
            random_pool: pool.into(),
            audit: AuditSnapshot::default(),
        }
    }

    /// With what the audit log has done.
    pub(crate) fn with_audit(self, audit: AuditSnapshot) -> Self {
        Self { audit, ..self }
    }
}

impl From<Counts> for RandomPoolSnapshot {
    fn from(counts: Counts) -> Self {
        let Counts { requests, given, fetches, fetched, held } = counts;
        Self { requests, given, refills: fetches, fetched, held }
    }
}

impl TokenSnapshot {
    fn take(core: &Core, token: usize) -> Self {
        let seats = &core.tokens[token];
        let kinds = OperationKind::ALL.into_iter();
        let (watches, limit) = (seats.watches.lock(), core.dispatch.limit(token));
        let (sessions, parked) =
            (watches.len(), watches.iter().filter(|watch| watch.place.index >= limit).count());
        drop(watches);
        Self {
            label: seats.token.info.label.clone(),
            instance: seats.token.instance,
            sessions,
            parked,
            idle: core.dispatch.idle_about(token),
            written_off: seats.written_off.load(Ordering::Relaxed),
            drained: core.dispatch.drained() & (1 << token) != 0,
            health: match core.dispatch.ejected() & (1 << token) {
                0 => seats.recovery.health(),
                _ => Health::Ejected,
            },
            copies: seats.token.copies.len(),
            merges: MergeSnapshot::take(&seats.recorders, seats.token.proofs.incomplete()),
            checks: seats.token.checks.counts().into(),
            operations: kinds.filter_map(|kind| operation(&seats.recorders, kind)).collect(),
        }
    }
}

impl From<[u64; 3]> for CheckSnapshot {
    fn from([right, wrong, unchecked]: [u64; 3]) -> Self {
        Self { right, wrong, unchecked }
    }
}

impl MergeSnapshot {
    fn take(recorders: &[std::sync::Arc<Recorder>], unproven: usize) -> Self {
        let sum = |of: usize| recorders.iter().map(|one| one.merges[of].load(Ordering::Relaxed)).sum();
        Self { turns: sum(0), requests: sum(1), failures: sum(2), unproven }
    }
}

impl ScopeSnapshot {
    fn take(core: &Core, scope: &Scope) -> Self {
        let Decided { in_use, floor, ceiling, adjustments } = scope.decided();
        let tokens = scope.tokens.iter().map(|&token| core.tokens[token].token.info.label.clone());
        Self { name: scope.name.clone(), tokens: tokens.collect(), in_use, floor, ceiling, adjustments }
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
