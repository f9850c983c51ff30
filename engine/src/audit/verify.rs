//! Whether a log is as it was written, and if not, where that begins.

use std::path::Path;

use serde::Serialize;

use super::checkpoint::AuditCheckpoint;
use super::files::{self, Listing, RESUME};
use super::key::AuditKey;
use super::line::{Head, StoredHead, TornHead};
use super::log::AuditLog;
use super::merkle::{Hash, bytes};
use super::resume::Resume;
use super::walk::{At, End, Lines, Sum};
use crate::error::{Error, ErrorKind, Result};

/// What [`AuditLog::verify`] has found. As JSON its names are these.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct AuditReport {
    /// The first bad place; none if the log is as it was written.
    pub fault: Option<AuditFault>,
    /// The name of the log; empty if its first record is bad.
    pub log: String,
    /// Records that were read and are good.
    pub records: u64,
    /// The Merkle root over them, in hexadecimal digits.
    pub root: String,
    /// Checkpoints that fit.
    pub checkpoints: u64,
    /// Records that the last of them, or the remembered one, covers. What follows may have been cut off or rewritten by whoever
    /// can write to the directory.
    pub covered: u64,
    /// Records that were not written, as the log says itself.
    pub lost: u64,
    /// Bytes at the end that are no whole record yet: one is being written, or a crash has cut it off and nobody has
    /// opened the log since.
    pub torn: u64,
}

/// A place where a log is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct AuditFault {
    /// The file, by its name in the directory.
    pub file: String,
    /// The line in it, from 1, if it is a segment.
    pub line: Option<u64>,
    /// The record, from 0; if a checkpoint contradicts, the first of those that it may be.
    pub sequence: Option<u64>,
    /// What is wrong.
    pub why: String,
}

struct Verifier<'a> {
    directory: &'a Path,
    keys: &'a [AuditKey],
    since: Option<&'a AuditCheckpoint>,
    listing: Listing,
    /// The next checkpoint of the listing.
    next: usize,
    resume: Option<Resume>,
    sum: Sum,
    at: Option<At>,
    report: AuditReport,
}

/// The log is bad here, or could not be read.
type Step<T = ()> = std::result::Result<T, AuditFault>;

impl AuditLog {
    /// Checks every record, every checkpoint, and that nothing is missing in between or after.
    ///
    /// With keys, every checkpoint must be signed by one of them; without, whoever can write to the directory can have
    /// written all of it. `since` is a checkpoint that was kept elsewhere: the log must hold all that it held then.
    /// May be used while the log is written to.
    ///
    /// # Errors
    /// `Configuration`, if there is no such directory or it cannot be read; `InvalidInput`, if `since` is not signed by one
    /// of the keys. That the log is bad is no error: see [`AuditReport::fault`].
    ///
    /// # Blocking
    /// About a second for a million records. Memory does not grow with the log, but for 8 bytes a checkpoint.
    pub fn verify(&self, keys: &[AuditKey], since: Option<&AuditCheckpoint>) -> Result<AuditReport> {
        if since.is_some_and(|since| !is_trusted(since, keys)) {
            let text = "the remembered checkpoint is not signed by the key";
            return Err(Error::refused(ErrorKind::InvalidInput, text));
        }
        let directory = self.directory();
        let mut verifier = Verifier {
            directory,
            keys,
            since,
            listing: files::list(directory)?,
            next: 0,
            resume: None,
            sum: Sum::default(),
            at: None,
            report: AuditReport::empty(),
        };
        let fault = verifier.run().err();
        let Verifier { sum, report, .. } = verifier;
        Ok(AuditReport { fault, records: sum.size(), root: super::hex::text(&sum.tree.root()), ..report })
    }
}

impl AuditReport {
    /// Of nothing.
    fn empty() -> Self {
        let empty = String::new;
        Self {
            fault: None,
            log: empty(),
            records: 0,
            root: empty(),
            checkpoints: 0,
            covered: 0,
            lost: 0,
            torn: 0,
        }
    }
}

impl Verifier<'_> {
    fn run(&mut self) -> Step {
        let resume = files::read(&self.directory.join(RESUME)).map_err(|error| fault(RESUME, error))?;
        self.resume = resume.as_deref().and_then(Resume::parse);
        self.records()?;
        self.end()?;
        // Last, for nothing but the speed of a start hangs on it.
        match (&resume, &self.resume) {
            (Some(_), None) => Err(fault(RESUME, "it was changed")),
            _ => Ok(()),
        }
    }

    fn records(&mut self) -> Step {
        let Some(&last) = self.listing.segments.last() else { return Ok(()) };
        let mut lines = Lines::new(self.directory, 0, last);
        let mut line = Vec::new();
        loop {
            let read = lines.next(&mut line);
            let missing = |error: std::io::Error| AuditFault {
                sequence: Some(self.sum.size()),
                ..fault(&files::segment(lines.segment()), format!("the segment cannot be read: {error}"))
            };
            let Some(at) = read.map_err(missing)? else { return Ok(()) };
            if at.end == End::File && at.segment == last {
                self.report.torn = line.len() as u64;
                return Ok(());
            }
            self.at = Some(at);
            self.record(&line, at)?;
            self.checkpoint()?;
            self.resume()?;
        }
    }

    fn record(&mut self, line: &[u8], at: At) -> Step {
        let sequence = self.sum.size();
        let bad = |why: &dyn std::fmt::Display| AuditFault {
            line: Some(at.number),
            sequence: Some(sequence),
            ..fault(&files::segment(at.segment), why)
        };
        if at.end != End::Feed {
            return Err(bad(&super::line::Wrong::Malformed));
        }
        let (head, _) = self.sum.take(line).map_err(|wrong| bad(&wrong))?;
        if sequence == 0 {
            self.report.log = self.origin(&head).map_err(|why| bad(&why))?;
        }
        if head.kind == "gap" {
            self.report.lost += head.count.unwrap_or(0);
        }
        let named = head.stored().map_or(Ok(()), |stored| self.stored(stored));
        let named = named.and_then(|()| head.torn.map_or(Ok(()), |torn| self.torn(&torn)));
        named.map_err(|why| bad(&why))
    }

    /// The name that the first record gives to the log.
    fn origin(&self, head: &Head<'_>) -> Result<String, String> {
        let log =
            head.log.as_deref().filter(|_| head.kind == "start").ok_or("a log begins with its start")?;
        match self.since.map(AuditCheckpoint::origin).filter(|origin| *origin != log) {
            Some(other) => Err(format!("this is the log {log}, and the remembered checkpoint is of {other}")),
            None => Ok(log.to_owned()),
        }
    }

    /// A checkpoint that a record says to have been stored.
    fn stored(&self, stored: StoredHead) -> Result<(), String> {
        let name = files::checkpoint(stored.size);
        match files::read_checkpoint(self.directory, stored.size)? {
            None => Err(format!("{name}, which it names, is missing")),
            Some(found) if found.digest() != stored.sha256.0 => {
                Err(format!("{name} is not the one that it names"))
            }
            Some(_) => Ok(()),
        }
    }

    /// The end of an incomplete write that a record says to have been moved away.
    fn torn(&self, torn: &TornHead<'_>) -> Result<(), String> {
        let name = &*torn.file;
        let digest = files::is_torn(name).then(|| digest(&self.directory.join(name)).ok()).flatten();
        match digest {
            None => Err(format!("{}, which it names, is missing", name.escape_debug())),
            Some(found) if found != (torn.bytes, torn.sha256.0) => {
                Err(format!("{name} is not what was moved there"))
            }
            Some(_) => Ok(()),
        }
    }

    /// What checkpoints say of the records so far.
    fn checkpoint(&mut self) -> Step {
        let size = self.sum.size();
        if !self.is_checked(size) {
            return Ok(());
        }
        let root = self.sum.tree.root();
        if self.since.is_some_and(|since| since.size() == size && since.root() != root) {
            return Err(self.contradicts("the remembered checkpoint"));
        }
        if self.listing.checkpoints.get(self.next) == Some(&size) {
            let name = files::checkpoint(size);
            self.next += 1;
            let read = files::read_checkpoint(self.directory, size).map_err(|why| fault(&name, why))?;
            let checkpoint = read.ok_or_else(|| fault(&name, "it has gone"))?;
            if checkpoint.origin() != self.report.log {
                return Err(fault(
                    &name,
                    format!("it is of another log: {}", checkpoint.origin().escape_debug()),
                ));
            }
            if !is_trusted(&checkpoint, self.keys) {
                return Err(fault(&name, "it was changed, or is not signed by the key"));
            }
            if checkpoint.root() != root {
                return Err(self.contradicts(&name));
            }
            self.report.checkpoints += 1;
        }
        self.report.covered = size;
        Ok(())
    }

    fn is_checked(&self, size: u64) -> bool {
        self.since.is_some_and(|since| since.size() == size)
            || self.listing.checkpoints.get(self.next) == Some(&size)
    }

    /// The chain was computed anew, by somebody without the key.
    fn contradicts(&self, checkpoint: &str) -> AuditFault {
        let (from, to) = (self.report.covered, self.sum.size() - 1);
        let why = format!(
            "records {from} to {to} are not those that {checkpoint} covers: one of them was rewritten"
        );
        let segment = self.at.map_or(0, |at| at.segment);
        AuditFault { sequence: Some(from), ..fault(&files::segment(segment), why) }
    }

    /// What a start would go on from.
    fn resume(&self) -> Step {
        let Some(resume) = self.resume.as_ref().filter(|resume| resume.size == self.sum.size()) else {
            return Ok(());
        };
        let fits = *resume == Resume::new(&self.sum, resume.segment, resume.offset);
        let is_here = self.at.is_some_and(|at| at.segment == resume.segment && at.offset < resume.offset);
        if fits && is_here { Ok(()) } else { Err(fault(RESUME, "it does not fit the records")) }
    }

    /// Whether there are as many records as there were.
    fn end(&self) -> Step {
        let size = self.sum.size();
        let cut = |by: &str, of: u64| AuditFault {
            line: self.at.map_or(Some(1), |at| Some(at.number + 1)),
            sequence: Some(size),
            ..fault(
                &files::segment(self.at.map_or(0, |at| at.segment)),
                format!("it is missing: {by} has {of} records"),
            )
        };
        match self.listing.checkpoints.get(self.next) {
            Some(&of) if of > size => return Err(cut(&files::checkpoint(of), of)),
            Some(&of) => return Err(fault(&files::checkpoint(of), "it covers nothing")),
            None => {}
        }
        if let Some(of) = self.since.map(AuditCheckpoint::size).filter(|of| *of > size) {
            return Err(cut("the remembered checkpoint", of));
        }
        if let Some(of) = self.resume.as_ref().map(|resume| resume.size).filter(|of| *of > size) {
            return Err(cut(RESUME, of));
        }
        if self.at.is_none() {
            return Err(fault(&files::segment(0), "a log begins with its start, and here is no record"));
        }
        match self.since.filter(|since| !self.listing.checkpoints.contains(&since.size())) {
            Some(since) if since.size() > 0 => {
                Err(fault(&files::checkpoint(since.size()), "it is remembered, and missing here"))
            }
            _ => Ok(()),
        }
    }
}

fn fault(file: &str, why: impl std::fmt::Display) -> AuditFault {
    AuditFault { file: file.to_owned(), line: None, sequence: None, why: why.to_string() }
}

/// Without keys there is nothing to be said about signatures.
pub(super) fn is_trusted(checkpoint: &AuditCheckpoint, keys: &[AuditKey]) -> bool {
    keys.is_empty() || keys.iter().any(|key| checkpoint.is_signed_by(key))
}

/// Length and digest of a file.
fn digest(path: &Path) -> std::io::Result<(u64, Hash)> {
    use std::io::Read as _;
    let mut file = std::fs::File::open(path)?;
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    let (mut len, mut buffer) = (0, vec![0; 64 * 1024]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((len, bytes(&context.finish()))),
            read => {
                context.update(&buffer[..read]);
                len += read as u64;
            }
        }
    }
}
