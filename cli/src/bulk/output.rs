//! The writing side: answers in the order of their lines, and what became of them.

use std::fs::{File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crossbeam::channel::Receiver;
use hsmux::Error;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::OFlags;

use super::held::Held;
use super::input::is_passing;
use super::order::Ordered;
use super::progress::Progress;
use super::tally::Tally;
use super::work::Done;
use crate::exit::{Exit, Failure, Result};
use crate::stop::Stop;

/// Where answers go.
#[derive(Debug)]
pub(super) struct Output {
    file: File,
    /// Of a file that we have opened: the bytes of the complete lines in it. At the end we wait until the disk has
    /// what came after them.
    kept: Option<u64>,
    /// Lines that were written whole.
    lines: u64,
    /// Bytes that were written of the line after them.
    torn: u64,
}

/// How writing ended.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) tally: Tally,
    /// Complete lines.
    pub(super) lines: u64,
    /// Whether the beginning of another line stands behind them.
    pub(super) torn: bool,
    /// What came between, if anything did.
    pub(super) broken: Option<Broken>,
}

/// Why not all answers were written.
#[derive(Debug)]
pub(super) enum Broken {
    /// The engine could not go on.
    Engine(Error),
    /// The output could not be written.
    Output(io::Error),
    /// A chunk was lost by a fault of ours.
    Lost,
}

impl Output {
    pub(super) fn stdout() -> io::Result<Self> {
        let file = io::stdout().as_fd().try_clone_to_owned()?.into();
        Ok(Self::new(file, None))
    }

    /// Opens a file of results; returns with it the input line to begin with.
    ///
    /// A file that holds anything is gone on with if `resume` says so, else it is left alone. Nothing in it is
    /// changed before [`Output::begin`].
    pub(super) fn file(path: &Path, resume: bool) -> Result<(Self, u64)> {
        let failed = |what: &str| Failure::new(Exit::Usage, format!("{}: {what}", path.display()));
        let io_failed = |error: io::Error| Failure::new(Exit::Other, format!("{}: {error}", path.display()));
        let mut options = OpenOptions::new();
        let file = options.read(resume).write(true).create(true).mode(0o600).open(path).map_err(io_failed)?;
        if !file.metadata().map_err(io_failed)?.is_file() {
            let output = Self::new(file, None);
            return if resume { Err(failed("no file: --resume needs one")) } else { Ok((output, 1)) };
        }
        file.try_lock().map_err(|error| failed(&not_locked(error)))?;
        // Looked at under the lock: before it another run may have written.
        if resume {
            let held = Held::count(&file).map_err(io_failed)?;
            let next = held.next(&file).map_err(io_failed)?.map_err(failed)?;
            return Ok((Self::new(file, Some(held.bytes)), next));
        }
        if file.metadata().map_err(io_failed)?.len() > 0 {
            return Err(failed("holds something: go on with --resume, or take it away"));
        }
        Ok((Self::new(file, Some(0)), 1))
    }

    /// Whether it may be that nobody has wanted it: Rust opens `/dev/null` for reading and writing in the place of a
    /// stdout that was closed. Some programs give their children the same on purpose, so it is no error.
    pub(super) fn is_lost(&self) -> bool {
        let null = std::fs::metadata("/dev/null").map(|null| null.rdev());
        let own = self.file.metadata().map(|file| (file.file_type().is_char_device(), file.rdev()));
        let is_null = matches!((null, own), (Ok(null), Ok((true, own))) if null == own);
        let flags = rustix::fs::fcntl_getfl(&self.file);
        is_null && flags.is_ok_and(|flags| flags & OFlags::RWMODE == OFlags::RDWR)
    }

    const fn new(file: File, kept: Option<u64>) -> Self {
        Self { file, kept, lines: 0, torn: 0 }
    }

    /// Makes a file that we have opened its owner's alone, for it may get plaintexts, and lets it end with its last
    /// complete line. To be called when nothing can go wrong before the first line any more.
    pub(super) fn begin(&mut self) -> io::Result<()> {
        let Some(kept) = self.kept else { return Ok(()) };
        if self.file.metadata()?.permissions().mode() & 0o077 != 0 {
            self.file.set_permissions(Permissions::from_mode(0o600))?;
        }
        self.file.set_len(kept)?;
        self.file.seek(SeekFrom::Start(kept))?;
        Ok(())
    }

    /// Writes what comes until all senders are gone, in order. After the first thing that breaks the order nothing
    /// more is written, and the run is asked to stop.
    pub(super) fn write_all(
        &mut self,
        done: &Receiver<(u64, Option<Done>)>,
        progress: &Progress,
        stop: &Stop,
    ) -> Written {
        let (mut ordered, mut written) = (Ordered::new(), Written::default());
        for (number, chunk) in done {
            ordered.put(number, chunk);
            while let Some(chunk) = ordered.pop() {
                if written.broken.is_none()
                    && let Err(broken) = self.write_chunk(chunk, &mut written.tally)
                {
                    written.broken = Some(broken);
                    stop.ask();
                }
                progress.show(&written.tally);
            }
        }
        debug_assert!(ordered.is_empty(), "a chunk never came");
        if written.broken.is_none() && self.kept.is_some() {
            written.broken = self.file.sync_data().err().map(Broken::Output);
        }
        written.torn = self.torn > 0 && self.cut_off().is_err();
        written.lines = self.lines;
        written
    }

    fn write_chunk(&mut self, chunk: Option<Done>, tally: &mut Tally) -> std::result::Result<(), Broken> {
        let chunk = chunk.ok_or(Broken::Lost)?;
        self.write(chunk.answers.as_bytes()).map_err(Broken::Output)?;
        tally.add(&chunk.tally);
        chunk.end.map_or(Ok(()), |error| Err(Broken::Engine(error)))
    }

    /// Writes all, counting the lines that went out whole.
    fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.file.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    let (gone, rest) = bytes.split_at(written);
                    self.count(gone);
                    bytes = rest;
                }
                Err(error) if is_passing(&error) => {
                    // Whoever gave us this output may have made it one that never blocks.
                    let _ = poll(&mut [PollFd::new(&self.file, PollFlags::OUT)], None);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn count(&mut self, gone: &[u8]) {
        self.lines += memchr::memchr_iter(b'\n', gone).count() as u64;
        self.torn = match memchr::memrchr(b'\n', gone) {
            Some(last) => (gone.len() - last - 1) as u64,
            None => self.torn + gone.len() as u64,
        };
    }

    /// Takes a line back that was not written whole, so that whoever goes on can append. Only if it is the end of a
    /// file: what a pipe was given is gone, and what stands behind our place is not ours.
    fn cut_off(&mut self) -> io::Result<()> {
        let (end, info) = (self.file.stream_position()?, self.file.metadata()?);
        if !info.is_file() || info.len() != end {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let whole = end.saturating_sub(self.torn);
        self.file.set_len(whole)?;
        self.file.seek(SeekFrom::Start(whole))?;
        self.torn = 0;
        Ok(())
    }
}

/// Why a file is not ours alone. Some file systems have no locks.
fn not_locked(error: TryLockError) -> String {
    match error {
        TryLockError::WouldBlock => "another run writes it".to_owned(),
        TryLockError::Error(error) => format!("cannot be locked: {error}"),
    }
}

impl Broken {
    /// The failure, after so many lines and perhaps a part of one, with which the run ends; `next` is the input line
    /// to go on with.
    pub(super) fn failure(self, lines: u64, torn: bool, next: u64) -> Failure {
        let (exit, what) = match self {
            Self::Engine(error) => (Exit::of(error.kind()), error.to_string()),
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                (Exit::OutputClosed, "output closed".to_owned())
            }
            Self::Output(error) => (Exit::Other, format!("output: {error}")),
            Self::Lost => (Exit::Other, "internal error: a chunk was lost".to_owned()),
        };
        let part = if torn { " and a part of another, to be cut off" } else { "" };
        Failure::new(
            exit,
            format!("{what}; {lines} lines were written{part}, resume with --resume-from {next}"),
        )
    }
}

#[cfg(test)]
mod tests {
    use crossbeam::channel::unbounded;

    use super::*;

    #[test]
    fn a_chunk_that_was_lost_stops_the_run_and_is_told() {
        let (finished, done) = unbounded();
        finished.send((0, None)).unwrap();
        drop(finished);
        let mut output = Output::new(tempfile::tempfile().unwrap(), None);
        let stop = Stop::new().unwrap();
        let written = output.write_all(&done, &Progress::new(true), &stop);
        assert!(matches!(written.broken, Some(Broken::Lost)) && stop.is_asked());
    }

    #[test]
    fn lines_are_counted_when_they_have_gone_out_whole() {
        let mut output = Output::new(tempfile::tempfile().unwrap(), None);
        output.write(b"one\ntwo\nthr").unwrap();
        assert_eq!((output.lines, output.torn), (2, 3));
        output.write(b"e").unwrap();
        assert_eq!((output.lines, output.torn), (2, 4));
        output.write(b"e\n").unwrap();
        assert_eq!((output.lines, output.torn), (3, 0));
    }

    #[test]
    fn a_torn_line_is_cut_off_at_the_end_of_a_file_and_nowhere_else() {
        let mut file = tempfile::tempfile().unwrap();
        let mut output = Output::new(file.try_clone().unwrap(), None);
        output.write(b"one\ntw").unwrap();
        output.cut_off().unwrap();
        output.write(b"two\nthr").unwrap();
        file.write_all(b"not ours").unwrap();
        file.seek(SeekFrom::Start(11)).unwrap();
        assert!(output.cut_off().is_err());
        assert_eq!(
            io::read_to_string({
                file.rewind().unwrap();
                file
            })
            .unwrap(),
            "one\ntwo\nthrnot ours"
        );
        let (_reader, pipe) = io::pipe().unwrap();
        let mut output = Output::new(File::from(std::os::fd::OwnedFd::from(pipe)), None);
        output.write(b"one\ntw").unwrap();
        assert!(output.cut_off().is_err());
    }

    #[test]
    fn a_part_of_a_line_that_stays_is_told() {
        let told =
            |torn| format!("{:?}", Broken::Output(io::ErrorKind::BrokenPipe.into()).failure(3, torn, 4));
        assert!(told(true).contains("3 lines were written and a part of another, to be cut off, resume"));
        assert!(told(false).contains("3 lines were written, resume"));
    }

    #[test]
    fn a_file_that_another_run_writes_and_one_that_cannot_be_locked_are_told_apart() {
        assert_eq!(not_locked(TryLockError::WouldBlock), "another run writes it");
        let unsupported = TryLockError::Error(io::ErrorKind::Unsupported.into());
        assert!(not_locked(unsupported).starts_with("cannot be locked: "));
    }
}
