//! The thread that has checkpoints signed and stores them: no reply waits for a signature.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::checkpoint::{AuditCheckpoint, Signer};
use super::files::{self, Lock, RESUME, unusable};
use super::hex::serde::Hex;
use super::journal::{Entry, Kept, Shared, spawn};
use super::merkle::Hash;
use super::record::{Record, Stored, What};
use super::resume::Resume;
use crate::clock::time_of_day;
use crate::error::Result;
use crate::sync::{Arc, AtomicBool, Ordering, Parker, Slot, Unparker};
use crate::threads::Threads;

/// The writer's end. When it is dropped the thread makes the checkpoint that it was asked for last, and ends.
pub(super) struct Checkpointer {
    between: Arc<Between>,
    thread: Unparker,
}

/// Records that are durable, by where they end.
pub(super) struct Covered {
    pub(super) root: Hash,
    pub(super) resume: Resume,
    /// Nothing is written after them: the next writer names the checkpoint.
    pub(super) is_last: bool,
}

struct Between {
    wanted: Slot<Covered>,
    is_over: AtomicBool,
}

struct Maker {
    between: Arc<Between>,
    shared: Arc<Shared>,
    directory: PathBuf,
    /// Held until the last thread that writes files of the log has ended.
    _lock: Arc<Lock>,
    origin: String,
    signer: Box<dyn Signer>,
}

/// How long an idle thread parks; the writer wakes it.
const IDLE: Duration = Duration::from_secs(60);

/// How long after a failure the next attempt is made.
const TRY_EVERY: Duration = Duration::from_secs(1);

impl Checkpointer {
    pub(super) fn start(
        shared: &Arc<Shared>,
        directory: &Path,
        lock: &Arc<Lock>,
        origin: &str,
        signer: Box<dyn Signer>,
        threads: &Threads,
    ) -> Result<Self> {
        let between = Arc::new(Between { wanted: Slot::new(), is_over: AtomicBool::new(false) });
        let parker = Parker::new();
        let checkpointer = Self { between: Arc::clone(&between), thread: parker.unparker().clone() };
        let maker = Maker {
            between,
            shared: Arc::clone(shared),
            directory: directory.to_owned(),
            _lock: Arc::clone(lock),
            origin: origin.to_owned(),
            signer,
        };
        spawn("hsmux-audit-sign", threads, move || maker.run(&parker))?;
        Ok(checkpointer)
    }

    /// Has a checkpoint made. One that was not begun is put aside by the next, which covers more.
    pub(super) fn make(&self, covered: Covered) {
        drop(self.between.wanted.put(Box::new(covered)));
        self.thread.unpark();
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        // Release: pairs with the Acquire of the thread, which then sees what is wanted last.
        self.between.is_over.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

impl Covered {
    /// Segment and offset.
    pub(super) const fn end(&self) -> (u32, u64) {
        (self.resume.segment, self.resume.offset)
    }
}

impl Maker {
    fn run(self, parker: &Parker) {
        let (mut wanted, mut unnamed) = (None, None);
        loop {
            // In this order: what is wanted last is put there before it is over.
            let is_over = self.between.is_over.load(Ordering::Acquire);
            wanted = self.between.wanted.take().or(wanted);
            let Some(covered) = wanted.take() else {
                if is_over {
                    return;
                }
                parker.park_timeout(IDLE);
                continue;
            };
            match self.make(&covered) {
                Ok(stored) => {
                    self.shared.counts.checkpoints.fetch_add(1, Ordering::Relaxed);
                    // This one covers what that does, and nobody would miss it.
                    unnamed.take().into_iter().for_each(|size| self.forget(size));
                    unnamed = if covered.is_last { None } else { self.name(stored, parker) };
                }
                Err(_) => {
                    self.shared.counts.checkpoints_failed.fetch_add(1, Ordering::Relaxed);
                    if is_over {
                        return;
                    }
                    wanted = Some(covered);
                    parker.park_timeout(TRY_EVERY);
                }
            }
        }
    }

    fn make(&self, covered: &Covered) -> Result<Stored> {
        let size = covered.resume.size;
        let checkpoint = AuditCheckpoint::sign(&self.origin, size, covered.root, &*self.signer)?;
        let store = |name: &str, text: &str| {
            let stored = files::store(&self.directory, name, text.as_bytes());
            stored.map_err(|error| unusable(&self.directory.join(name), &error))
        };
        store(&files::checkpoint(size), checkpoint.as_str())?;
        store(RESUME, &covered.resume.text())?;
        Ok(Stored { size, sha256: Hex(checkpoint.digest()) })
    }

    /// Writes the record of a checkpoint: from then on it is missed if it is taken away. Returns its size if the log was
    /// closed before.
    fn name(&self, stored: Stored, parker: &Parker) -> Option<u64> {
        let size = stored.size;
        loop {
            let what = What::Checkpoint(stored.clone());
            let answer = Arc::new(Slot::new());
            let (given, waiter) = (Arc::clone(&answer), parker.unparker().clone());
            let done = move |kept| {
                drop(given.put(Box::new(kept)));
                waiter.unpark();
            };
            self.shared.append(Entry::own(Record { time: time_of_day(), what }, done));
            let kept = loop {
                match answer.take() {
                    Some(kept) => break *kept,
                    None => parker.park_timeout(IDLE),
                }
            };
            match kept {
                Ok(Kept::At(_)) => return None,
                // After a fault the record may be pending, and be written yet.
                _ if self.shared.is_closing() => {
                    let had_faults = self.shared.counts.faults.load(Ordering::Relaxed) > 0;
                    return (!had_faults).then_some(size);
                }
                // The disk fails.
                _ => parker.park_timeout(TRY_EVERY),
            }
        }
    }

    fn forget(&self, size: u64) {
        // If it stays, it is one that nobody would miss.
        let _removed = std::fs::remove_file(self.directory.join(files::checkpoint(size)));
    }
}
