//! How what is written becomes durable: at once or, with a window, beside the writing; and one segment after the other.

use std::io::{ErrorKind as IoKind, Result as IoResult};
use std::time::Duration;

use super::{IDLE, Writer};
use crate::audit::files;
use crate::audit::syncer::Job;
use crate::clock::now;
use crate::place;
use crate::sync::{Arc, Ordering};

impl Writer {
    /// Writes what is pending from there on; without a window it is durable then.
    pub(super) fn put(&mut self, from: usize) -> IoResult<()> {
        self.file.append(&self.pending[from..])?;
        if self.window.is_none() {
            self.sync()?;
        }
        // Relaxed: it is read for people.
        self.shared.counts.records.store(self.sum.size(), Ordering::Relaxed);
        Ok(())
    }

    /// Makes durable what is pending.
    pub(super) fn sync(&mut self) -> IoResult<()> {
        let begun = now();
        self.file.sync()?;
        self.shared.record_sync(begun);
        self.all_durable();
        Ok(())
    }

    pub(super) fn all_durable(&mut self) {
        self.durable_len += self.pending.len() as u64;
        self.pending.clear();
        self.generation += 1;
        if let Some((window, _)) = &mut self.window {
            let durable = window.close();
            self.give_back(durable);
        }
    }

    /// With a window: how many are answered for and not durable.
    pub(super) fn pending_ahead(&self) -> u64 {
        self.window.as_ref().map_or(0, |(window, _)| window.open())
    }

    /// With a window: so many are durable.
    pub(super) fn give_back(&self, durable: u64) {
        let (Some((window, _)), Some(room)) = (&self.window, &self.shared.room) else { return };
        room.give_back(durable);
        room.set_oldest(window.oldest(), now());
    }

    /// Begins the next segment if this one is long enough: only when there is something to write to it, so that records
    /// always end in a segment that has some.
    pub(super) fn rotate(&mut self) -> IoResult<()> {
        if self.len() < self.segment_len_max.max(1) {
            return Ok(());
        }
        self.end_sync()?;
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
    pub(super) fn len(&self) -> u64 {
        self.durable_len + self.pending.len() as u64
    }

    /// With a window: has what is pending synchronised, when it is time.
    pub(super) fn synchronise(&mut self) {
        // After a fault not all that is pending is in the file.
        let Some((window, syncer)) = self.window.as_mut().filter(|_| self.trouble.is_none()) else { return };
        if window.due_in(now()) == Some(Duration::ZERO) {
            window.begin();
            let (file, len) = (Arc::clone(&self.file), self.pending.len());
            syncer.begin(Job { file, len, generation: self.generation });
        }
    }

    /// Takes notice of what has been synchronised.
    pub(super) fn collect_sync(&mut self) {
        if let Err(error) = self.take_sync() {
            self.enter_trouble(&error);
        }
    }

    fn take_sync(&mut self) -> IoResult<()> {
        let Some((window, syncer)) = &mut self.window else { return Ok(()) };
        let Some((job, synced)) = syncer.take() else { return Ok(()) };
        synced?;
        if job.generation == self.generation {
            let durable = window.end();
            self.pending.drain(..job.len);
            self.durable_len += job.len as u64;
            self.give_back(durable);
        }
        Ok(())
    }

    pub(super) fn is_syncing(&self) -> bool {
        self.window.as_ref().is_some_and(|(_, syncer)| syncer.is_busy())
    }

    /// Waits for what is being synchronised: the system tells of a failure once, and what follows would hide it.
    pub(super) fn end_sync(&mut self) -> IoResult<()> {
        while self.is_syncing() {
            self.take_sync()?;
            if self.is_syncing() {
                self.parker.park_timeout(IDLE);
            }
        }
        Ok(())
    }
}
