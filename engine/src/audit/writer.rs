//! The thread that writes records: in groups, each of which is synchronised once.

use std::io::{Error as IoError, ErrorKind as IoKind, Result as IoResult};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::checkpointer::{Checkpointer, Covered};
use super::disk::{Append, Disk};
use super::files::{self, Lock};
use super::journal::{Closing, Entry, Kept, Shared};
use super::line::{self, LINE_LEN_MAX};
use super::open::Opened;
use super::pace::{Period, Window};
use super::record::{Record, Start, Stop, What};
use super::resume::Resume;
use super::settings::{Audit, AuditMode};
use super::syncer::{Job, Syncer};
use super::walk::{Sum, reads_back};
use crate::clock::{Time, now, time_of_day};
use crate::error::{Error, Result};
use crate::place;
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

/// How long after a failure the next attempt is made: short for people who have made room, long for a disk.
const TRY_EVERY: Duration = Duration::from_secs(1);

/// Most records that are written at once. It bounds what a failed write leaves unanswered for, and the memory.
const GROUP_MAX: u64 = 1024;

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
                if !self.leaves_trouble() && self.shared.is_closing() {
                    return;
                }
                continue;
            }
            let group = self.take_group();
            let has_work = !group.is_empty() || self.start.is_some() || self.shared.has_gap();
            if has_work {
                self.write(group);
            } else if self.shared.is_closing() && self.shared.is_empty() {
                return self.write_end();
            }
            self.cover();
            self.synchronise();
            // More may be queued than a group takes.
            if !has_work {
                self.park();
            }
        }
    }

    /// What may be answered for now.
    fn take_group(&self) -> Vec<Entry> {
        let room = self.window.as_ref().map_or(GROUP_MAX, |(window, _)| window.room(now()).min(GROUP_MAX));
        (0..room).map_while(|_| self.shared.pop()).collect()
    }

    /// Writes records and answers for them.
    fn write(&mut self, mut group: Vec<Entry>) {
        if let Err(error) = self.rotate() {
            let why = self.enter_trouble(&error);
            return group.into_iter().for_each(|entry| self.shared.lose(entry, &why));
        }
        let from = self.pending.len();
        let own = self.own_records();
        own.iter().for_each(|record| drop(self.seal(record)));
        let sealed: Vec<_> = group.iter().map(|entry| self.seal(&entry.record)).collect();
        let done = self.put(from, sealed.iter().filter(|sealed| sealed.is_ok()).count() as u64);
        let fault = done.err().map(|error| self.enter_trouble(&error));
        for (entry, sealed) in group.iter_mut().zip(sealed) {
            match (sealed, &fault) {
                (Err(error), _) => self.shared.lose_unfit(entry, error),
                (Ok(_), Some(why)) => entry.answer(self.shared.lost(why)),
                (Ok(sequence), None) => entry.answer(Ok(Kept::At(sequence))),
            }
        }
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

    /// Writes what is pending from there on; without a window it is durable then.
    fn put(&mut self, from: usize, answered: u64) -> IoResult<()> {
        self.file.append(&self.pending[from..])?;
        if let Some((window, _)) = &mut self.window {
            window.wrote(answered, now());
        } else {
            self.sync()?;
        }
        // Relaxed: it is read for people.
        self.shared.counts.records.store(self.sum.size(), Ordering::Relaxed);
        Ok(())
    }

    /// Makes durable what is pending.
    fn sync(&mut self) -> IoResult<()> {
        let begun = now();
        self.file.sync()?;
        self.shared.record_sync(begun);
        self.all_durable();
        Ok(())
    }

    fn all_durable(&mut self) {
        self.durable_len += self.pending.len() as u64;
        self.pending.clear();
        self.generation += 1;
        if let Some((window, _)) = &mut self.window {
            window.close();
        }
    }

    /// Begins the next segment if this one is long enough: only when there is something to write to it, so that records
    /// always end in a segment that has some.
    fn rotate(&mut self) -> IoResult<()> {
        if self.len() < self.segment_len_max.max(1) {
            return Ok(());
        }
        // So that a segment that has a successor is whole.
        if !self.pending.is_empty() {
            self.sync()?;
        }
        let path = self.directory.join(files::segment(self.segment + 1));
        self.file = self.disk.create(&path).or_else(|error| {
            // Of an attempt that failed half-way.
            let is_empty = error.kind() == IoKind::AlreadyExists && path.metadata()?.len() == 0;
            if !is_empty {
                return Err(error);
            }
            place::sync(&self.directory)?;
            self.disk.open(&path)
        })?;
        (self.segment, self.durable_len) = (self.segment + 1, 0);
        self.generation += 1;
        Ok(())
    }

    /// Bytes of the segment, pending ones included.
    fn len(&self) -> u64 {
        self.durable_len + self.pending.len() as u64
    }

    /// With a window: has what is pending synchronised, when it is time.
    fn synchronise(&mut self) {
        let Some((window, syncer)) = &mut self.window else { return };
        if window.due_in(now()) == Some(Duration::ZERO) {
            window.begin();
            let (file, len) = (Arc::clone(&self.file), self.pending.len());
            syncer.begin(Job { file, len, generation: self.generation });
        }
    }

    /// Takes notice of what has been synchronised.
    fn collect_sync(&mut self) {
        let Some((window, syncer)) = &mut self.window else { return };
        let Some((job, synced)) = syncer.take().filter(|(job, _)| job.generation == self.generation) else {
            return;
        };
        match synced {
            Ok(()) => {
                window.end();
                self.pending.drain(..job.len);
                self.durable_len += job.len as u64;
            }
            Err(error) => drop(self.enter_trouble(&error)),
        }
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

    fn park(&self) {
        let now = now();
        let sync = self.window.as_ref().and_then(|(window, _)| window.due_in(now));
        let waits = |of: &&Checkpoints| of.covered.is_none();
        let checkpoint = self.checkpoints.as_ref().filter(waits).and_then(|of| of.period.due_in(now));
        let limit = sync.into_iter().chain(checkpoint).fold(IDLE, Duration::min);
        self.parker.park_timeout(limit);
    }

    /// Notes that writing fails, and why.
    fn enter_trouble(&mut self, error: &IoError) -> String {
        let why = error.to_string();
        self.trouble = Some(Trouble { why: why.clone(), next_try: now().after(TRY_EVERY) });
        self.generation += 1;
        self.shared.counts.note_fault();
        why
    }

    /// Refuses what is queued, and writes what is pending anew once a second; whether that has worked.
    fn leaves_trouble(&mut self) -> bool {
        let Some(trouble) = &mut self.trouble else { return true };
        while let Some(entry) = self.shared.pop() {
            self.shared.lose(entry, &trouble.why);
        }
        let now = now();
        // Nobody makes room any more while it closes: it is the last attempt.
        if now < trouble.next_try && !self.shared.is_closing() {
            self.parker.park_timeout(now.until(trouble.next_try));
            return false;
        }
        trouble.next_try = now.after(TRY_EVERY);
        let written = self.rewrite();
        if written.is_ok() {
            self.trouble = None;
            self.all_durable();
            self.shared.counts.is_failing.store(false, Ordering::Relaxed);
            self.shared.counts.records.store(self.sum.size(), Ordering::Relaxed);
        }
        written.is_ok()
    }

    /// Writes anew what is pending. After a failed `fsync` the system may take pages for written that it has lost, so
    /// nothing that it shows beyond the durable length is believed.
    fn rewrite(&mut self) -> IoResult<()> {
        let path = self.directory.join(files::segment(self.segment));
        self.file = self.disk.open(&path)?;
        self.file.cut(self.durable_len)?;
        self.file.append(&self.pending)?;
        self.file.sync()?;
        if reads_back(&path, self.durable_len, &self.pending)? {
            Ok(())
        } else {
            Err(IoError::other("what was written does not read back"))
        }
    }

    /// Says in the log that it ends, and has a checkpoint made of all of it.
    fn write_end(mut self) {
        let from = self.pending.len();
        drop(self.seal(&Record { time: time_of_day(), what: What::Stop(Stop { reason: "closed" }) }));
        if self.file.append(&self.pending[from..]).and_then(|()| self.sync()).is_err() {
            // The next writer finds what is there, and says that this one was cut off.
            self.shared.counts.note_fault();
            return;
        }
        self.shared.counts.records.store(self.sum.size(), Ordering::Relaxed);
        let here = Covered { is_last: true, ..self.here() };
        if let Some(checkpoints) = &mut self.checkpoints {
            checkpoints.checkpointer.make(here);
        }
    }
}
