//! How a log is opened to be written to: what is there is checked, and the end of an incomplete write is moved away.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind as IoKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use ring::digest::{Context, SHA256};

use super::checkpoint::{AuditCheckpoint, is_name};
use super::disk::{Append, Disk};
use super::files::{self, Lock, unusable};
use super::hex::serde::Hex;
use super::line::{self, Wrong};
use super::log::AuditLog;
use super::merkle::bytes;
use super::record::{Found, Start, Stored, Torn};
use super::resume::{self, Resume};
use super::walk::{At, End, Lines, Sum};
use crate::error::{Error, ErrorKind, Result};
use crate::place;
use crate::sync::Arc;

/// A log that is ready to be written to.
pub(super) struct Opened {
    pub(super) directory: PathBuf,
    pub(super) lock: Arc<Lock>,
    pub(super) origin: String,
    pub(super) sum: Sum,
    pub(super) segment: u32,
    pub(super) len: u64,
    pub(super) file: Arc<dyn Append>,
    /// What the first record is to say.
    pub(super) start: Start,
}

/// Where the records end.
struct Tail {
    sum: Sum,
    segment: u32,
    len: u64,
    found: Found,
    torn: Option<Torn>,
}

/// Opens the log in a directory, or begins one there, whose name is this one and a random number.
///
/// # Errors
/// `Configuration`: the directory, or another writer. `Audit`: what is there does not verify; the error says which record.
pub(super) fn open(path: &Path, name: &str, mode: &'static str, disk: &dyn Disk) -> Result<Opened> {
    let (directory, lock) = files::claim(path)?;
    let lock = Arc::new(lock);
    let listing = files::list(&directory)?;
    let checkpoint = listing.checkpoints.last().map(|size| last_checkpoint(&directory, *size)).transpose()?;
    let (origin, tail, file) = match listing.segments.last() {
        None if checkpoint.is_some() => {
            return Err(bad(&directory, 0, &NO_SEGMENTS));
        }
        None => begin(&directory, name, disk)?,
        Some(&last) => {
            let (mut tail, torn) = find_end(&directory, last, checkpoint.as_ref())?;
            tail.torn = torn.map(|at| move_away(&directory, at, tail.sum.size())).transpose()?;
            let origin = origin(&directory, &tail, name)?;
            let path = directory.join(files::segment(tail.segment));
            let file = disk.open(&path).map_err(|error| unusable(&path, &error))?;
            // Who wrote last may have been killed before it had them on the disk.
            file.sync().map_err(|error| unusable(&path, &error))?;
            place::sync(&directory).map_err(|error| unusable(&directory, &error))?;
            (origin, tail, file)
        }
    };
    if let Some(other) = checkpoint.as_ref().map(AuditCheckpoint::origin).filter(|other| *other != origin) {
        return Err(bad(
            &directory,
            0,
            &format!("the last checkpoint is of the log {other}, and this is {origin}"),
        ));
    }
    let stored = |of: AuditCheckpoint| Stored { size: of.size(), sha256: Hex(of.digest()) };
    let start = Start {
        log: origin.as_str().into(),
        writer: concat!("hsmux ", env!("CARGO_PKG_VERSION")),
        mode,
        found: tail.found,
        checkpoint: checkpoint.map(stored),
        torn: tail.torn,
    };
    Ok(Opened { directory, lock, origin, sum: tail.sum, segment: tail.segment, len: tail.len, file, start })
}

fn begin(directory: &Path, name: &str, disk: &dyn Disk) -> Result<(String, Tail, Arc<dyn Append>)> {
    let origin = new_origin(directory, name)?;
    let path = directory.join(files::segment(0));
    let file = disk.create(&path).map_err(|error| unusable(&path, &error))?;
    Ok((origin, Tail { found: Found::New, ..Tail::at(Sum::default(), 0, 0) }, file))
}

/// No two logs have one: that of a log that was put in the place of another tells it.
fn new_origin(directory: &Path, name: &str) -> Result<String> {
    if !is_name(name) {
        let why = "its name is empty, or has blanks, control characters or a plus sign in it";
        return Err(unusable(directory, &why));
    }
    let mut number = [0; 16];
    getrandom::fill(&mut number).map_err(|error| unusable(directory, &error))?;
    Ok(format!("{name}/{}", super::hex::text(&number)))
}

/// The name that the first record gives to the log; a new one if the first writer was killed before it had written that.
fn origin(directory: &Path, tail: &Tail, name: &str) -> Result<String> {
    if tail.sum.size() == 0 {
        return new_origin(directory, name);
    }
    let mut line = Vec::new();
    let mut lines = Lines::new(directory, 0, 0);
    lines.next(&mut line).map_err(|error| unusable(&directory.join(files::segment(0)), &error))?;
    let (head, _) = Sum::default().take(&line).map_err(|wrong| bad(directory, 0, &wrong))?;
    let log = head.log.filter(|_| head.kind == "start");
    log.map(Into::into).ok_or_else(|| bad(directory, 0, &"a log begins with a record of its start"))
}

fn last_checkpoint(directory: &Path, size: u64) -> Result<AuditCheckpoint> {
    let name = files::checkpoint(size);
    let read = files::read_checkpoint(directory, size);
    let gone = || Err("it has gone".to_owned());
    read.and_then(|checkpoint| checkpoint.map_or_else(gone, Ok)).map_err(|why| {
        Error::operator(ErrorKind::Audit, format!("{}: {why}", directory.join(name).display()))
    })
}

impl AuditLog {
    /// Checks what a writer checks when it opens the log, and changes nothing: that this user may write to its files, and that
    /// the records from the last checkpoint on verify, or all where there is no place to resume from. At most so many bytes of
    /// records are read. Returns how many records there are; none if there were more bytes to read: then
    /// [`AuditLog::verify`] tells. May be used while the log is written to; who writes is not looked at.
    ///
    /// # Errors
    /// `Configuration`, if something cannot be read or written to; `Audit`, if what is there does not verify: the error says
    /// which record.
    ///
    /// # Blocking
    /// About a second for half a gibibyte of records.
    pub fn check_end(&self, bytes_max: u64) -> Result<Option<u64>> {
        let directory = self.directory();
        let listing = files::list(directory)?;
        let checkpoint =
            listing.checkpoints.last().map(|size| last_checkpoint(directory, *size)).transpose()?;
        let Some(&last) = listing.segments.last() else {
            return match checkpoint {
                Some(_) => Err(bad(directory, 0, &NO_SEGMENTS)),
                None => Ok(Some(0)),
            };
        };
        for name in [files::LOCK, &files::segment(last)] {
            let path = directory.join(name);
            let opened = OpenOptions::new().append(true).custom_flags(libc::O_NOFOLLOW).open(&path);
            match opened {
                Err(error) if error.kind() != IoKind::NotFound => return Err(unusable(&path, &error)),
                _ => {}
            }
        }
        let (first, offset) = resumed(directory, last, checkpoint.as_ref())
            .map_or((0, 0), |(resume, _)| (resume.segment, resume.offset));
        let len = |segment| directory.join(files::segment(segment)).metadata().map_or(0, |facts| facts.len());
        if (first..=last).map(len).sum::<u64>().saturating_sub(offset) > bytes_max {
            return Ok(None);
        }
        let (tail, _) = find_end(directory, last, checkpoint.as_ref())?;
        Ok(Some(tail.sum.size()))
    }
}

/// The place to go on from, if there is one that fits the last checkpoint, and what the records before it come to.
fn resumed(directory: &Path, last: u32, checkpoint: Option<&AuditCheckpoint>) -> Option<(Resume, Sum)> {
    let (checkpoint, resume) = checkpoint.zip(resume::read(directory))?;
    let sum = resume.sum(directory, checkpoint)?;
    (resume.segment <= last).then_some((resume, sum))
}

/// Checks the records, from the last checkpoint on if there is a place to resume from that fits it. Also says where an
/// incomplete write begins, if one is at the end.
fn find_end(directory: &Path, last: u32, checkpoint: Option<&AuditCheckpoint>) -> Result<(Tail, Option<At>)> {
    let mut torn = None;
    let (mut lines, mut tail) = match resumed(directory, last, checkpoint) {
        Some((resume, sum)) => {
            let lines = Lines::from(directory, resume.segment, last, resume.offset);
            (
                lines,
                Tail {
                    found: found_before(directory, &resume),
                    ..Tail::at(sum, resume.segment, resume.offset)
                },
            )
        }
        None => (Lines::new(directory, 0, last), Tail::at(Sum::default(), 0, 0)),
    };
    let least = checkpoint.map_or(0, AuditCheckpoint::size);
    let mut line = Vec::new();
    loop {
        let read = lines.next(&mut line);
        let path = directory.join(files::segment(lines.segment()));
        let Some(at) = read.map_err(|error| unusable(&path, &error))? else { break };
        match tail.take(&line, at) {
            Ok(()) => {}
            Err(_) if at.segment == last && is_torn(&line, at.end) && tail.sum.size() >= least => {
                torn = Some(at);
                (tail.segment, tail.len, tail.found) = (at.segment, at.offset, Found::CutOff);
                break;
            }
            Err(wrong) => return Err(bad_line(&path, at, tail.sum.size(), wrong)),
        }
        if checkpoint.is_some_and(|of| of.size() == tail.sum.size() && of.root() != tail.sum.tree.root()) {
            return Err(bad(
                directory,
                tail.sum.size(),
                &"what is before it is not what the last checkpoint says",
            ));
        }
    }
    if tail.sum.size() < least {
        return Err(bad(
            directory,
            tail.sum.size(),
            &format!("it is missing: the last checkpoint says {least} records"),
        ));
    }
    if tail.segment < last {
        // The last segment was made, and nothing written to it.
        (tail.segment, tail.len) = (last, 0);
    }
    Ok((tail, torn))
}

fn found_before(directory: &Path, resume: &Resume) -> Found {
    let line = super::walk::line_before(directory, resume.segment, resume.offset).ok().flatten();
    let is_stop = line.is_some_and(|line| line::kind(&line).as_deref() == Some("stop"));
    if is_stop { Found::Stopped } else { Found::CutOff }
}

impl Tail {
    const fn at(sum: Sum, segment: u32, len: u64) -> Self {
        Self { sum, segment, len, found: Found::CutOff, torn: None }
    }

    fn take(&mut self, line: &[u8], at: At) -> std::result::Result<(), Wrong> {
        if at.end != End::Feed {
            return Err(Wrong::Malformed);
        }
        let (head, _) = self.sum.take(line)?;
        self.found = if head.kind == "stop" { Found::Stopped } else { Found::CutOff };
        (self.segment, self.len) = (at.segment, at.offset + line.len() as u64 + 1);
        Ok(())
    }
}

/// Whether a bad line may be what a crash leaves of a write: it ends with the file, or has pages in it that a file system
/// had not written when the power went. JSON has no zero bytes.
fn is_torn(line: &[u8], end: End) -> bool {
    end == End::File || line.contains(&0)
}

/// Moves what is from there on to a file of its own, and cuts it off.
fn move_away(directory: &Path, at: At, sequence: u64) -> Result<Torn> {
    let path = directory.join(files::segment(at.segment));
    let name = files::torn(directory, sequence);
    let moved = || {
        let mut from = File::open(&path)?;
        from.seek(SeekFrom::Start(at.offset))?;
        let mut options = OpenOptions::new();
        let mut to = options.write(true).create_new(true).mode(0o600).open(directory.join(&name))?;
        let (mut context, mut len, mut buffer) = (Context::new(&SHA256), 0, vec![0; 64 * 1024]);
        loop {
            let read = from.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            context.update(&buffer[..read]);
            to.write_all(&buffer[..read])?;
            len += read as u64;
        }
        to.sync_all()?;
        place::sync(directory)?;
        let segment = OpenOptions::new().write(true).custom_flags(libc::O_NOFOLLOW).open(&path)?;
        segment.set_len(at.offset)?;
        segment.sync_all()?;
        Ok(Torn { file: name.as_str().into(), bytes: len, sha256: Hex(bytes(&context.finish())) })
    };
    moved().map_err(|error: std::io::Error| unusable(&path, &error))
}

const NO_SEGMENTS: &str = "there are checkpoints, but no segments";

/// The consent that an operator gives to go on without the log that is damaged.
const CONSENT: &str =
    "nothing is written to it: keep it for `hsmux audit verify`, and give the service a new directory";

fn bad(directory: &Path, sequence: u64, why: &dyn std::fmt::Display) -> Error {
    let text = format!("{}: record {sequence}: {why}; {CONSENT}", directory.display());
    Error::operator(ErrorKind::Audit, text)
}

fn bad_line(path: &Path, at: At, sequence: u64, wrong: Wrong) -> Error {
    let text = format!("{}, byte {}: record {sequence}: {wrong}; {CONSENT}", path.display(), at.offset);
    Error::operator(ErrorKind::Audit, text)
}
