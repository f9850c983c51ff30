//! The door to a log's writer: records go in without waiting, and each is answered once.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;

use super::checkpoint::Signer;
use super::checkpointer::Checkpointer;
use super::disk::{Disk, Files};
use super::open::{self, Opened};
use super::record::{Gap, Record, Stop, What};
use super::room::Room;
use super::settings::{Audit, AuditLoss, AuditMode};
use super::syncer::Syncer;
use super::writer::Writer;
use crate::clock::{Time, now};
use crate::error::{Error, ErrorKind, Outcome, Result, Retry};
use crate::sync::{Arc, ArrayQueue, AtomicBool, AtomicU64, Mutex, Ordering, Parker, Unparker, fence};
use crate::threads::Threads;

/// A log that is open to be written to.
///
/// Records are written by one thread in the order in which they come, but for those that wait for room in a window: others may
/// pass them. Another thread signs the checkpoints, and with a window a third synchronises.
pub(crate) struct Journal {
    shared: Arc<Shared>,
    threads: Threads,
}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// It has this number in the log.
    At(u64),
    /// It was dropped and counted.
    Shed,
}

/// Records that may be queued and are answered for already. What a window holds beyond that is written before it is answered
/// for.
const AHEAD_MAX: usize = 4096;

/// What is called with that: on the writer's thread, so it must be quick and must not wait.
pub(crate) type Done = Box<dyn FnOnce(Result<Kept>) + Send>;

/// What a log has done so far.
#[derive(Clone, Debug)]
pub(crate) struct Figures {
    /// Records that the log has.
    pub(crate) records: u64,
    /// Records that were refused or shed.
    pub(crate) lost: u64,
    /// Times that writing has failed, and whether it does now.
    pub(crate) faults: u64,
    pub(crate) is_failing: bool,
    pub(crate) checkpoints: u64,
    pub(crate) checkpoints_failed: u64,
    /// How long the disk took to synchronise, in nanoseconds.
    pub(crate) sync_ns: Histogram<u64>,
}

/// What the threads of a log share.
pub(super) struct Shared {
    queue: ArrayQueue<Entry>,
    writer: Unparker,
    /// The writer is parked, or about to be, until somebody wakes it.
    is_idle: AtomicBool,
    /// With a window: who may be answered ahead of the writer.
    pub(super) room: Option<Room>,
    /// It is to end.
    is_closing: AtomicBool,
    /// The writer has ended.
    is_closed: AtomicBool,
    loss: AuditLoss,
    /// What was not written and is to be told in the log.
    gap: Mutex<Option<Gap>>,
    pub(super) counts: Counts,
}

/// Written by the log's threads, read by whoever wants to know.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) records: AtomicU64,
    lost: AtomicU64,
    pub(super) faults: AtomicU64,
    pub(super) is_failing: AtomicBool,
    pub(super) checkpoints: AtomicU64,
    pub(super) checkpoints_failed: AtomicU64,
    sync_ns: Mutex<Option<Histogram<u64>>>,
}

/// A record on its way, answered once: at the latest when it is dropped.
pub(super) struct Entry {
    pub(super) record: Record,
    /// When it was answered for, if that was ahead of the writer.
    pub(super) ahead: Option<Time>,
    done: Option<Done>,
    is_own: bool,
}

/// Answers what is left when the writer ends, be it by a panic.
pub(super) struct Closing(pub(super) Arc<Shared>);

impl Journal {
    /// Opens the log that the settings name, or begins one, with room for so many records that are not written yet. Without
    /// a signer it has no checkpoints.
    ///
    /// # Errors
    /// As of [`open::open`]; `Configuration`, if a thread cannot be started.
    ///
    /// # Blocking
    /// As long as it takes to check the records since the last checkpoint.
    pub(crate) fn open(settings: &Audit, room: usize, signer: Option<Box<dyn Signer>>) -> Result<Self> {
        Self::open_on(settings, room, signer, Box::new(Files))
    }

    pub(super) fn open_on(
        settings: &Audit,
        room: usize,
        signer: Option<Box<dyn Signer>>,
        disk: Box<dyn Disk>,
    ) -> Result<Self> {
        check(settings)?;
        let opened = open::open(&settings.directory, &settings.name, settings.mode.name(), &*disk)?;
        let parker = Parker::new();
        let window = match settings.mode {
            AuditMode::Window { records, age } => Some(Room::new(records, age)),
            _ => None,
        };
        let shared = Arc::new(Shared {
            queue: ArrayQueue::new(room.max(1) + window.as_ref().map_or(0, |_| AHEAD_MAX)),
            writer: parker.unparker().clone(),
            is_idle: AtomicBool::new(false),
            room: window,
            is_closing: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
            loss: settings.loss,
            gap: Mutex::new(None),
            counts: Counts::default(),
        });
        let threads = Threads::default();
        let Opened { directory, lock, origin, .. } = &opened;
        let checkpointer = signer
            .map(|signer| Checkpointer::start(&shared, directory, lock, origin, signer, &threads))
            .transpose()?;
        let syncer = shared.room.as_ref().map(|_| Syncer::start(&shared, &threads)).transpose()?;
        let helpers = (syncer, checkpointer);
        let writer = Writer::new(opened, settings, disk, Arc::clone(&shared), parker, helpers, room.max(1));
        spawn("hsmux-audit", &threads, move || writer.run())?;
        Ok(Self { shared, threads })
    }

    /// Has a record written, and `done` called once: when it is durable, with a window when it is written, or when that
    /// failed. Nothing is waited for.
    pub(crate) fn append(&self, record: Record, done: impl FnOnce(Result<Kept>) + Send + 'static) {
        self.shared.append(Entry { record, ahead: None, done: Some(Box::new(done)), is_own: false });
    }

    /// With a window that has room: has a record written within five milliseconds, and what it is of may be answered at once.
    /// Else it is handed back, to be appended.
    pub(crate) fn append_ahead(&self, record: Record) -> Option<Record> {
        self.shared.append_ahead(record)
    }

    /// What it has done so far.
    pub(crate) fn figures(&self) -> Figures {
        let counts = &self.shared.counts;
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Figures {
            records: read(&counts.records),
            lost: read(&counts.lost),
            faults: read(&counts.faults),
            is_failing: counts.is_failing.load(Ordering::Relaxed),
            checkpoints: read(&counts.checkpoints),
            checkpoints_failed: read(&counts.checkpoints_failed),
            sync_ns: counts.sync_ns.lock().clone().unwrap_or_else(empty_histogram),
        }
    }

    /// Writes what is queued, a record of the end and a last checkpoint, and waits for that until then. What comes later is
    /// refused.
    pub(crate) fn close(&self, until: Time) {
        self.shared.close();
        self.threads.join(until);
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        // The threads end by themselves; nobody waits for them here.
        self.shared.close();
    }
}

/// Settings that would never let a record be answered.
fn check(settings: &Audit) -> Result<()> {
    let why = match settings.mode {
        AuditMode::Window { records: 0, .. } => "a window of no records",
        AuditMode::Window { age: Duration::ZERO, .. } => "a window of no time",
        _ if settings.checkpoint_records == 0 => "a checkpoint after no records",
        _ => return Ok(()),
    };
    Err(super::files::unusable(&settings.directory, &why))
}

/// Starts a thread of the log.
pub(super) fn spawn(name: &str, threads: &Threads, run: impl FnOnce() + Send + 'static) -> Result<()> {
    let started = std::thread::Builder::new().name(name.to_owned()).spawn(run);
    let started = started.map_err(|error| {
        Error::operator(ErrorKind::Configuration, format!("no thread for the audit log: {error}"))
    })?;
    threads.add(started);
    Ok(())
}

impl Shared {
    pub(super) fn append(&self, entry: Entry) {
        if self.is_closing() {
            return;
        }
        self.push(entry);
        self.writer.unpark();
    }

    fn append_ahead(&self, record: Record) -> Option<Record> {
        let Some(room) = &self.room else { return Some(record) };
        // Relaxed: who reads that late is counted, or written when the disk works again.
        let is_begun = self.counts.records.load(Ordering::Relaxed) > 0;
        let is_shut = !is_begun || self.is_closing() || self.counts.is_failing.load(Ordering::Relaxed);
        let now = now();
        if is_shut || !record.is_short() || self.queue.len() >= AHEAD_MAX || !room.take(now) {
            return Some(record);
        }
        if let Err(entry) = self.queue.push(Entry { record, ahead: Some(now), done: None, is_own: false }) {
            room.give_back(1);
            return Some(entry.into_record());
        }
        self.after_push();
        // Pairs with the fence of `is_empty_and_idle`, by the one in `push`: either the writer sees this record, or it is seen
        // here that nobody else wakes it.
        if self.is_idle.swap(false, Ordering::Relaxed) {
            self.writer.unpark();
        }
        None
    }

    fn push(&self, entry: Entry) {
        if let Err(entry) = self.queue.push(entry) {
            self.lose(entry, "more records came than could be queued");
        }
        self.after_push();
    }

    fn after_push(&self) {
        // Pairs with the fence of `Closing`: either the writer's last look finds this record, or its end is seen here.
        fence(Ordering::SeqCst);
        if self.is_closed.load(Ordering::Relaxed) {
            self.drop_queued();
        }
    }

    /// Refuses what is queued: a record that is dropped is answered, and counted if it was answered for before.
    fn drop_queued(&self) {
        while let Some(entry) = self.queue.pop() {
            self.counts.lost.fetch_add(u64::from(entry.ahead.is_some()), Ordering::Relaxed);
        }
    }

    pub(super) fn is_awake(&self) {
        self.is_idle.store(false, Ordering::Relaxed);
    }

    /// Whether nothing is queued: then whoever queues something wakes the writer.
    pub(super) fn is_empty_and_idle(&self) -> bool {
        self.is_idle.store(true, Ordering::Relaxed);
        // Pairs with the fence of `push`.
        fence(Ordering::SeqCst);
        self.queue.is_empty()
    }

    pub(super) fn pop(&self) -> Option<Entry> {
        self.queue.pop()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty() && !self.has_gap()
    }

    /// Whether there is something to be told of what was not written.
    pub(super) fn has_gap(&self) -> bool {
        self.gap.lock().is_some()
    }

    pub(super) fn wake_writer(&self) {
        self.writer.unpark();
    }

    pub(super) fn is_closing(&self) -> bool {
        // Acquire and Release order nothing else: who reads it late is answered by the writer or at its end.
        self.is_closing.load(Ordering::Acquire)
    }

    fn close(&self) {
        self.is_closing.store(true, Ordering::Release);
        self.writer.unpark();
    }

    /// Answers for a record that is not written, and counts it.
    pub(super) fn lose(&self, mut entry: Entry, why: &str) {
        if !entry.is_own {
            self.note_loss(entry.record.time, why);
        }
        entry.answer(self.lost(why));
    }

    /// Answers for a record that can never be written, and counts it.
    pub(super) fn lose_unfit(&self, entry: &mut Entry, error: Error) {
        self.note_loss(entry.record.time, error.why());
        entry.answer(Err(error));
    }

    /// What is answered for a record that is not written, or not known to be.
    pub(super) fn lost(&self, why: &str) -> Result<Kept> {
        match self.loss {
            AuditLoss::Stop => Err(failed(why)),
            AuditLoss::Shed => Ok(Kept::Shed),
        }
    }

    /// Counts records that were answered for, and that no attempt could write.
    pub(super) fn lose_pending(&self, records: u64) {
        self.counts.lost.fetch_add(records, Ordering::Relaxed);
    }

    fn note_loss(&self, time: SystemTime, why: &str) {
        self.counts.lost.fetch_add(1, Ordering::Relaxed);
        let mut gap = self.gap.lock();
        let policy = self.loss.name();
        let gap = gap.get_or_insert_with(|| Gap { count: 0, from: time, to: time, policy, why: why.into() });
        gap.count += 1;
        (gap.from, gap.to) = (gap.from.min(time), gap.to.max(time));
    }

    /// What the next record is to tell first.
    pub(super) fn take_gap(&self) -> Option<Gap> {
        self.gap.lock().take()
    }

    pub(super) fn record_sync(&self, begun: Time) {
        let ns = now().ns_since(begun);
        // It grows as it must, so every value fits.
        let _recorded = self.counts.sync_ns.lock().get_or_insert_with(empty_histogram).record(ns);
    }
}

impl Counts {
    /// Writing has failed. These are read for people: nothing hangs on their order.
    pub(super) fn note_fault(&self) {
        self.faults.fetch_add(1, Ordering::Relaxed);
        self.is_failing.store(true, Ordering::Relaxed);
    }
}

impl Entry {
    /// A record of the log's own, which is no loss if it is not written: it is written again.
    pub(super) fn own(record: Record, done: impl FnOnce(Result<Kept>) + Send + 'static) -> Self {
        Self { record, ahead: None, done: Some(Box::new(done)), is_own: true }
    }

    /// Of one for which nobody waits.
    fn into_record(mut self) -> Record {
        let nothing = Record { time: self.record.time, what: What::Stop(Stop { reason: "" }) };
        std::mem::replace(&mut self.record, nothing)
    }

    pub(super) fn answer(&mut self, kept: Result<Kept>) {
        if let Some(done) = self.done.take() {
            // A panic there is the caller's, and must not end the writer.
            drop(catch_unwind(AssertUnwindSafe(|| done(kept))));
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.answer(Err(failed("the log was closed")));
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
        self.0.is_closed.store(true, Ordering::Relaxed);
        // Pairs with the one in `Shared::after_push`.
        fence(Ordering::SeqCst);
        self.0.drop_queued();
    }
}

/// With two significant digits.
fn empty_histogram() -> Histogram<u64> {
    #[expect(clippy::unwrap_used, reason = "two digits are among those that a histogram may have")]
    Histogram::new(2).unwrap()
}

/// Appends a record and waits for its answer.
#[cfg(any(test, feature = "baseline"))]
pub(super) fn append_and_wait(journal: &Journal, record: Record) -> Result<Kept> {
    let parker = Parker::new();
    let answer = Arc::new(Mutex::new(None));
    let (given, waiter) = (Arc::clone(&answer), parker.unparker().clone());
    journal.append(record, move |kept| {
        *given.lock() = Some(kept);
        waiter.unpark();
    });
    loop {
        if let Some(kept) = answer.lock().take() {
            return kept;
        }
        parker.park_timeout(Duration::from_secs(60));
    }
}

fn failed(why: &str) -> Error {
    // Of the record. Whoever sends it knows whether the operation ran.
    Error::new(ErrorKind::Audit, Retry::Operator, Outcome::NotDone).because(why)
}
