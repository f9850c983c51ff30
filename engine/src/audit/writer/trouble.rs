//! What the writer does while writing fails: it refuses what nobody was answered for yet, keeps what was answered for, and tries
//! again once a second.

use std::io::{Error as IoError, Result as IoResult};
use std::time::Duration;

use super::{Trouble, Writer};
use crate::audit::files;
use crate::audit::journal::Entry;
use crate::audit::walk::reads_back;
use crate::clock::now;
use crate::sync::Ordering;

/// How long after a failure the next attempt is made: short for people who have made room, long for a disk.
const TRY_EVERY: Duration = Duration::from_secs(1);

impl Writer {
    /// Refuses what was not answered for yet; what was is written when that works again.
    pub(super) fn cannot_write(&mut self, group: Vec<Entry>, error: &IoError) {
        let why = self.enter_trouble(error);
        let (ahead, refused): (Vec<_>, Vec<_>) = group.into_iter().partition(|entry| entry.ahead.is_some());
        if let Some(room) = &self.shared.room {
            room.give_back(refused.len() as u64);
        }
        refused.into_iter().for_each(|entry| self.shared.lose(entry, &why));
        self.keep(ahead);
    }

    /// Puts records that were answered for at the end of what is pending.
    fn keep(&mut self, mut ahead: Vec<Entry>) {
        let sealed: Vec<_> = ahead.iter().map(|entry| self.seal(&entry.record)).collect();
        self.count(&ahead, sealed.iter().filter(|sealed| sealed.is_ok()).count());
        for (entry, sealed) in ahead.iter_mut().zip(sealed) {
            sealed.err().into_iter().for_each(|error| self.shared.lose_unfit(entry, error));
        }
    }

    /// Notes that writing fails, and why.
    pub(super) fn enter_trouble(&mut self, error: &IoError) -> String {
        let why = error.to_string();
        self.trouble = Some(Trouble { why: why.clone(), next_try: now().after(TRY_EVERY) });
        self.generation += 1;
        self.shared.counts.note_fault();
        why
    }

    /// Refuses what is queued, and writes what is pending anew once a second; whether that has worked.
    pub(super) fn leaves_trouble(&mut self) -> bool {
        let Some(mut trouble) = self.trouble.take() else { return true };
        self.cannot_take(&trouble.why);
        let now = now();
        // Nobody makes room any more while it closes: it is the last attempt.
        let is_due = now >= trouble.next_try || self.shared.is_closing();
        let is_due = is_due && !self.is_syncing();
        if is_due {
            trouble.next_try = now.after(TRY_EVERY);
        } else if self.is_syncing() {
            self.parker.park_timeout(TRY_EVERY);
        } else {
            self.parker.park_timeout(now.until(trouble.next_try));
        }
        let is_written = is_due && self.rewrite().is_ok();
        if is_written {
            self.all_durable();
            self.shared.counts.is_failing.store(false, Ordering::Relaxed);
            self.shared.counts.records.store(self.sum.size(), Ordering::Relaxed);
        } else {
            self.trouble = Some(trouble);
        }
        is_written
    }

    /// Refuses what is queued, but for what was answered for.
    fn cannot_take(&mut self, why: &str) {
        self.waiting.drain(..).for_each(|entry| self.shared.lose(entry, why));
        while let Some(entry) = self.shared.pop() {
            if entry.ahead.is_some() {
                self.keep(vec![entry]);
            } else {
                self.shared.lose(entry, why);
            }
        }
    }

    /// Writes anew what is pending. After a failed `fsync` the system may take pages for written that it has lost, so
    /// nothing that it shows beyond the durable length is believed.
    pub(super) fn rewrite(&mut self) -> IoResult<()> {
        let path = self.directory.join(files::segment(self.segment));
        if path.metadata()?.len() < self.durable_len {
            return Err(IoError::other("the file has lost what was durable"));
        }
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
}
