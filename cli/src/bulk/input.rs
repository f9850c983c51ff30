//! The reading side: input becomes chunks, as long as there is room for them.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::sync::Arc;

use crossbeam::channel::Sender;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use zeroize::Zeroizing;

use super::lines::{Chunk, Lines};
use super::room::{Held, Room};
use crate::stop::Stop;

/// A chunk on its way to whoever runs it.
pub(super) struct Job {
    /// Its place among the chunks, from 0.
    pub(super) number: u64,
    pub(super) chunk: Chunk,
    pub(super) room: Held,
}

/// Reads until the input ends, fails, or the run is to stop.
pub(super) struct Reader<'a> {
    pub(super) input: File,
    pub(super) lines: Lines,
    pub(super) room: &'a Arc<Room>,
    pub(super) stop: &'a Stop,
    pub(super) jobs: Sender<Job>,
    pub(super) number: u64,
}

/// How reading ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// Number of the first line that was not given out.
    pub(super) next: u64,
    /// Lines that were to be passed over and did not come.
    pub(super) missing: u64,
    /// Whether all of the input was given out; else why not, if it failed.
    pub(super) end: End,
}

/// Why reading ended.
#[derive(Debug)]
pub(super) enum End {
    All,
    Stopped,
    Failed(io::Error),
}

/// Bytes read at a time. A pipe of Linux holds 64 KiB unless told otherwise, a file gives more.
const BUFFER: usize = 256 << 10;

impl Reader<'_> {
    pub(super) fn run(mut self) -> Ended {
        let end = match self.read_all() {
            Ok(end) => end,
            Err(error) => {
                // What came before the failure is as good as ever.
                let went = self.lines.take().is_none_or(|chunk| self.give_out(chunk));
                if went { End::Failed(error) } else { End::Stopped }
            }
        };
        Ended { next: self.lines.next_number(), missing: self.lines.to_skip(), end }
    }

    fn read_all(&mut self) -> io::Result<End> {
        let mut buffer = Zeroizing::new(vec![0; BUFFER]);
        loop {
            if !self.is_ready(Some(&Timespec::default()))? {
                // A slow producer does not hold up what it has produced.
                let went = self.lines.take().is_none_or(|chunk| self.give_out(chunk));
                if !went || !self.wait()? {
                    return Ok(End::Stopped);
                }
            }
            if self.stop.is_asked() {
                return Ok(End::Stopped);
            }
            let mut rest = match self.input.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => &buffer[..read],
                Err(error) if is_passing(&error) => continue,
                Err(error) => return Err(error),
            };
            while let Some(chunk) = self.lines.push(&mut rest) {
                if !self.give_out(chunk) {
                    return Ok(End::Stopped);
                }
            }
        }
        let went = self.lines.finish().is_none_or(|chunk| self.give_out(chunk));
        Ok(if went { End::All } else { End::Stopped })
    }

    /// Whether the chunk went out.
    fn give_out(&mut self, chunk: Chunk) -> bool {
        let (first, bytes) = (chunk.first, chunk.bytes());
        let room = self.room.take(bytes);
        let number = self.number;
        if self.stop.is_asked() || self.jobs.send(Job { number, chunk, room }).is_err() {
            self.lines.give_back(first);
            return false;
        }
        self.number += 1;
        true
    }

    /// Waits for input; false if the run is to stop first.
    fn wait(&self) -> io::Result<bool> {
        loop {
            if self.stop.is_asked() {
                return Ok(false);
            }
            if self.is_ready(None)? {
                return Ok(true);
            }
            self.stop.clear();
        }
    }

    /// Whether there is input, or its end. Without a limit it waits for that or for a wake-up to stop.
    fn is_ready(&self, limit: Option<&Timespec>) -> io::Result<bool> {
        let stop = self.stop.as_fd();
        let mut files = [PollFd::new(&self.input, PollFlags::IN), PollFd::new(&stop, PollFlags::IN)];
        match poll(&mut files, limit) {
            Ok(_) => Ok(!files[0].revents().is_empty()),
            Err(Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether the same call may be made again: after a signal, or when a file that never blocks has nothing now.
pub(super) fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock)
}
