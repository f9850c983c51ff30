//! With a window: the thread that synchronises while the writer goes on.

use std::io::Result as IoResult;
use std::time::Duration;

use super::disk::Append;
use super::journal::{Shared, spawn};
use crate::clock::now;
use crate::error::Result;
use crate::sync::{Arc, AtomicBool, Ordering, Parker, Slot, Unparker};
use crate::threads::Threads;

/// The writer's end; the thread ends when it is dropped.
pub(super) struct Syncer {
    between: Arc<Between>,
    thread: Unparker,
    /// Something is being synchronised, or its end was not taken notice of.
    is_busy: bool,
}

/// What is to be synchronised.
pub(super) struct Job {
    pub(super) file: Arc<dyn Append>,
    /// Bytes that are durable then, of those that are pending.
    pub(super) len: usize,
    pub(super) generation: u64,
}

struct Between {
    job: Slot<Job>,
    done: Slot<(Job, IoResult<()>)>,
    is_over: AtomicBool,
}

/// How long an idle thread parks; the writer wakes it.
const IDLE: Duration = Duration::from_secs(60);

impl Syncer {
    pub(super) fn start(shared: &Arc<Shared>, threads: &Threads) -> Result<Self> {
        let between =
            Arc::new(Between { job: Slot::new(), done: Slot::new(), is_over: AtomicBool::new(false) });
        let parker = Parker::new();
        let syncer =
            Self { between: Arc::clone(&between), thread: parker.unparker().clone(), is_busy: false };
        let shared = Arc::clone(shared);
        spawn("hsmux-audit-sync", threads, move || run(&between, &shared, &parker))?;
        Ok(syncer)
    }

    /// Has a file synchronised; the writer is woken then. One at a time.
    pub(super) fn begin(&mut self, job: Job) {
        self.is_busy = true;
        drop(self.between.job.put(Box::new(job)));
        self.thread.unpark();
    }

    /// What has been synchronised since it was asked last.
    pub(super) fn take(&mut self) -> Option<(Job, IoResult<()>)> {
        let done = *self.between.done.take()?;
        self.is_busy = false;
        Some(done)
    }

    /// Whether there is something to be taken, now or soon.
    pub(super) const fn is_busy(&self) -> bool {
        self.is_busy
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        // Release: pairs with the Acquire of the thread.
        self.between.is_over.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

fn run(between: &Between, shared: &Shared, parker: &Parker) {
    while !between.is_over.load(Ordering::Acquire) {
        let Some(job) = between.job.take() else {
            parker.park_timeout(IDLE);
            continue;
        };
        let begun = now();
        let synced = job.file.sync();
        if synced.is_ok() {
            shared.record_sync(begun);
        }
        drop(between.done.put(Box::new((*job, synced))));
        shared.wake_writer();
    }
}
