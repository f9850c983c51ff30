//! The thread that writes records: in groups, each of which is synchronised once.

mod durable;
mod trouble;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::checkpointer::{Checkpointer, Covered};
use super::disk::{Append, Disk};
use super::files::Lock;
use super::journal::{Closing, Entry, Kept, Shared};
use super::line::{self, LINE_LEN_MAX};
use super::open::Opened;
use super::pace::{Period, Window};
use super::record::{Record, Start, Stop, What};
use super::resume::Resume;
use super::settings::{Audit, AuditMode};
use super::syncer::Syncer;
use super::walk::Sum;
use crate::clock::{Time, now, time_of_day};
use crate::error::{Error, Result};
use crate::sync::{Arc, Ordering, Parker};

pub(super) struct Writer {
    shared: Arc<Shared>,
    parker: Parker,
    disk: Box<dyn Disk>,
    directory: PathBuf,
    /// Held until the last thread that writes files of the log has ended.
    _lock: Arc<Lock>,
    segment: u32,
    segment_len_max: u64,
    file: Arc<dyn Append>,
    /// Bytes of the segment that are known to be durable.
    durable_len: u64,
    /// What follows them: written or being written. After a fault it is written anew, for nobody knows how much of it, or
    /// what instead of it, has reached the disk.
    pending: Vec<u8>,
    sum: Sum,
    /// None: every record is durable before it is answered.
    window: Option<(Window, Syncer)>,
    /// Records for which the window has no room yet: they are to be written before they are answered for.
    waiting: VecDeque<Entry>,
    waiting_max: usize,
    /// Counts segments and faults: what was being synchronised before one of them says nothing about what is pending now.
    generation: u64,
    checkpoints: Option<Checkpoints>,
    trouble: Option<Trouble>,
    /// What is said of the opening, and when that was.
    start: Option<(SystemTime, Start)>,
}

struct Checkpoints {
    period: Period,
    checkpointer: Checkpointer,
    /// What the next one covers, while that is not durable.
    covered: Option<Covered>,
}

/// Writing has failed and is tried again.
struct Trouble {
    why: String,
    next_try: Time,
}

/// Most records that are written at once. It bounds what a failed write leaves unanswered for, and the memory.
const GROUP_MAX: usize = 1024;

/// How long an idle writer parks; whoever has something for it wakes it.
const IDLE: Duration = Duration::from_secs(10);

impl Writer {
    pub(super) fn new(
        opened: Opened,
        settings: &Audit,
        disk: Box<dyn Disk>,
        shared: Arc<Shared>,
        parker: Parker,
        helpers: (Option<Syncer>, Option<Checkpointer>),
        waiting_max: usize,
    ) -> Self {
        let window = match settings.mode {
            AuditMode::Window { records, age } => Some(Window::new(records, age)),
            _ => None,
        };
        let period = || Period::new(settings.checkpoint_records, settings.checkpoint_time);
        let (syncer, checkpointer) = helpers;
        let with_period = |checkpointer| Checkpoints { period: period(), checkpointer, covered: None };
        Self {
            shared,
            parker,
            disk,
            directory: opened.directory,
            _lock: opened.lock,
            segment: opened.segment,
            segment_len_max: settings.segment_len,
            file: opened.file,
            durable_len: opened.len,
            pending: Vec::new(),
            sum: opened.sum,
            window: window.zip(syncer),
            waiting: VecDeque::new(),
            waiting_max,
            generation: 0,
            checkpoints: checkpointer.map(with_period),
            trouble: None,
            start: Some((time_of_day(), opened.start)),
        }
    }

    /// Until the log is closed.
    pub(super) fn run(mut self) {
        let _closing = Closing(Arc::clone(&self.shared));
        loop {
            self.collect_sync();
            if self.trouble.is_some() {
                // Before: if it closes while this waits, there is one more attempt.
                let is_last = self.shared.is_closing() && !self.is_syncing();
                if !self.leaves_trouble() && is_last {
                    self.shared.lose_pending(self.pending_ahead());
                    return;
                }
                continue;
            }
            let group = self.take_group();
            let (has_work, is_full) = (self.has_own_records() || !group.is_empty(), group.len() == GROUP_MAX);
            if has_work {
                self.write(group);
            } else if self.shared.is_closing() && self.shared.is_empty() && self.waiting.is_empty() {
                return self.write_end();
            }
            self.cover();
            self.synchronise();
            match &self.window {
                // More may be queued than a group takes.
                _ if is_full => {}
                Some((window, _)) if has_work => self.park(window.gather_time()),
                None if has_work => {}
                _ => self.park_idle(),
            }
        }
    }

    /// What may be answered for now, or was.
    fn take_group(&mut self) -> Vec<Entry> {
        let Some(room) = &self.shared.room else {
            return (0..GROUP_MAX).map_while(|_| self.shared.pop()).collect();
        };
        let (mut group, now) = (Vec::new(), now());
        while !self.waiting.is_empty() && group.len() < GROUP_MAX && room.take(now) {
            group.extend(self.waiting.pop_front());
        }
        while group.len() < GROUP_MAX {
            let Some(entry) = self.shared.pop() else { break };
            if entry.ahead.is_some() || (self.waiting.is_empty() && room.take(now)) {
                group.push(entry);
            } else if self.waiting.len() < self.waiting_max {
                self.waiting.push_back(entry);
            } else {
                self.shared.lose(entry, "more records came than could be queued");
            }
        }
        group
    }

    fn has_own_records(&self) -> bool {
        self.start.is_some() || self.shared.has_gap()
    }

    /// Writes records and answers for them.
    fn write(&mut self, mut group: Vec<Entry>) {
        if let Err(error) = self.rotate() {
            return self.cannot_write(group, &error);
        }
        let from = self.pending.len();
        let own = self.own_records();
        own.iter().for_each(|record| drop(self.seal(record)));
        let sealed: Vec<_> = group.iter().map(|entry| self.seal(&entry.record)).collect();
        self.count(&group, sealed.iter().filter(|sealed| sealed.is_ok()).count());
        let fault = self.put(from).err().map(|error| self.enter_trouble(&error));
        for (entry, sealed) in group.iter_mut().zip(sealed) {
            match (sealed, &fault) {
                (Err(error), _) => self.shared.lose_unfit(entry, error),
                (Ok(_), Some(why)) => entry.answer(self.shared.lost(why)),
                (Ok(sequence), None) => entry.answer(Ok(Kept::At(sequence))),
            }
        }
    }

    /// With a window: notes that so many of these are pending, and gives back the room of the others.
    fn count(&mut self, group: &[Entry], pending: usize) {
        let (Some((window, _)), Some(room)) = (&mut self.window, &self.shared.room) else { return };
        let first = group.iter().filter_map(|entry| entry.ahead).min().unwrap_or_else(now);
        window.wrote(pending as u64, first);
        room.give_back((group.len() - pending) as u64);
        room.set_oldest(window.oldest(), now());
    }

    /// What the log has to say of itself first.
    fn own_records(&mut self) -> Vec<Record> {
        let start = self.start.take().map(|(time, start)| Record { time, what: What::Start(start) });
        let gap = self.shared.take_gap().map(|gap| Record { time: time_of_day(), what: What::Gap(gap) });
        start.into_iter().chain(gap).collect()
    }

    /// Puts a record at the end of what is pending.
    fn seal(&mut self, record: &Record) -> Result<u64> {
        let (sequence, at) = (self.sum.size(), self.pending.len());
        let sealed = line::seal(record, sequence, &self.sum.chain, &mut self.pending).and_then(|hashes| {
            let is_short = self.pending.len() - at < LINE_LEN_MAX;
            is_short.then_some(hashes).ok_or_else(|| Error::internal("a record is longer than is read back"))
        });
        let hashes = sealed.inspect_err(|_| self.pending.truncate(at))?;
        self.pending.push(b'\n');
        self.sum.add(hashes);
        if let Some(checkpoints) = &mut self.checkpoints {
            checkpoints.period.wrote(matches!(record.what, What::Checkpoint(_)), now());
        }
        Ok(sequence)
    }

    /// Has a checkpoint made of what is durable, when it is time.
    fn cover(&mut self) {
        let Some(checkpoints) = &self.checkpoints else { return };
        let is_due = checkpoints.period.due_in(now()) == Some(Duration::ZERO);
        // Only then: the root of all records takes longer than a record does.
        let is_due = is_due && checkpoints.covered.is_none() && self.trouble.is_none();
        let (here, durable) = (is_due.then(|| self.here()), (self.segment, self.durable_len));
        let Some(checkpoints) = &mut self.checkpoints else { return };
        if here.is_some() {
            checkpoints.period.made();
            checkpoints.covered = here;
        }
        if let Some(covered) = checkpoints.covered.take_if(|covered| covered.end() <= durable) {
            checkpoints.checkpointer.make(covered);
        }
    }

    /// The end of all records so far.
    fn here(&self) -> Covered {
        let resume = Resume::new(&self.sum, self.segment, self.len());
        Covered { root: self.sum.tree.root(), resume, is_last: false }
    }

    /// Until there is something to do, or to write.
    fn park_idle(&self) {
        if self.shared.is_empty_and_idle() {
            self.park(IDLE);
        }
        self.shared.is_awake();
    }

    /// Until there is something to do, but for so long at most.
    fn park(&self, limit: Duration) {
        let now = now();
        let sync = self.window.as_ref().and_then(|(window, _)| window.due_in(now));
        let waits = |of: &&Checkpoints| of.covered.is_none();
        let checkpoint = self.checkpoints.as_ref().filter(waits).and_then(|of| of.period.due_in(now));
        let limit = sync.into_iter().chain(checkpoint).fold(limit, Duration::min);
        self.parker.park_timeout(limit);
    }

    /// Says in the log that it ends, and has a checkpoint made of all of it.
    fn write_end(mut self) {
        let synced = self.end_sync();
        let from = self.pending.len();
        drop(self.seal(&Record { time: time_of_day(), what: What::Stop(Stop { reason: "closed" }) }));
        let written = synced.and_then(|()| self.file.append(&self.pending[from..]));
        if written.and_then(|()| self.sync()).is_err() {
            self.shared.counts.note_fault();
            if self.rewrite().is_err() {
                // The next writer finds what is there, and says that this one was cut off.
                return self.shared.lose_pending(self.pending_ahead());
            }
            self.all_durable();
        }
        self.shared.counts.records.store(self.sum.size(), Ordering::Relaxed);
        let here = Covered { is_last: true, ..self.here() };
        if let Some(checkpoints) = &mut self.checkpoints {
            checkpoints.checkpointer.make(here);
        }
    }
}
