//! Proofs that need no log: of a record in it, and that it only grew.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::checkpoint::AuditCheckpoint;
use super::files::{self, unusable};
use super::hex::serde::Hex;
use super::key::AuditKey;
use super::line;
use super::log::AuditLog;
use super::merkle::{self, Hash, Subtrees};
use super::verify::is_trusted;
use super::walk::{End, Lines, Sum};
use crate::error::{Error, ErrorKind, Result};

/// That a record is in a log of some size (RFC 6962, 2.1.1).
///
/// As JSON it has these fields; digests are hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditInclusion {
    log: String,
    sequence: u64,
    size: u64,
    /// The bytes that are the leaf: the record without its chain value.
    record: String,
    path: Vec<Hex>,
    root: Hex,
    /// The signed note of this size, if there is one.
    checkpoint: Option<String>,
}

/// That a log of some size holds all that it held when it was smaller (RFC 6962, 2.1.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditConsistency {
    log: String,
    old_size: u64,
    new_size: u64,
    path: Vec<Hex>,
    old_root: Hex,
    new_root: Hex,
    old_checkpoint: Option<String>,
    new_checkpoint: Option<String>,
}

/// What one walk over the log gives.
struct Walked {
    log: String,
    size: u64,
    heads: Vec<Hash>,
    record: Option<Vec<u8>>,
    /// At the sizes that were asked for.
    roots: Vec<Hash>,
}

impl AuditLog {
    /// Proves that a record is in the log of this size: by default that of the last checkpoint that covers the record, or
    /// as it is if none does.
    ///
    /// # Errors
    /// `InvalidInput`, if there is no such record or size; `Audit`, if the log does not verify up to there;
    /// `Configuration`, if it cannot be read.
    ///
    /// # Blocking
    /// As long as [`AuditLog::verify`], in as little memory.
    pub fn prove_inclusion(&self, sequence: u64, size: Option<u64>) -> Result<AuditInclusion> {
        let size = size.map_or_else(|| self.size_for(sequence), Ok)?;
        let ranges =
            merkle::inclusion(sequence, size).ok_or_else(|| no_such("record in a log of this size"))?;
        let walked = self.walk(ranges, Some(sequence), &[size])?;
        let text = walked.record.and_then(|record| String::from_utf8(record).ok());
        Ok(AuditInclusion {
            log: walked.log,
            sequence,
            size,
            record: text.ok_or_else(|| no_such("record"))?,
            path: walked.heads.into_iter().map(Hex).collect(),
            root: Hex(walked.roots[0]),
            checkpoint: self.note(size)?,
        })
    }

    /// Proves that the log of the new size, by default that of its last checkpoint, holds all that it held at the old one.
    ///
    /// # Errors
    /// As of [`AuditLog::prove_inclusion`].
    ///
    /// # Blocking
    /// As that does.
    pub fn prove_consistency(&self, old: u64, new: Option<u64>) -> Result<AuditConsistency> {
        let new = new.map_or_else(|| self.size_for(old.saturating_sub(1)), Ok)?;
        let ranges = merkle::consistency(old, new).ok_or_else(|| no_such("older size"))?;
        let walked = self.walk(ranges, None, &[old, new])?;
        Ok(AuditConsistency {
            log: walked.log,
            old_size: old,
            new_size: new,
            path: walked.heads.into_iter().map(Hex).collect(),
            old_root: Hex(walked.roots[0]),
            new_root: Hex(walked.roots[1]),
            old_checkpoint: self.note(old)?,
            new_checkpoint: self.note(new)?,
        })
    }

    /// The largest checkpoint, if it covers the record, else all that there is.
    fn size_for(&self, sequence: u64) -> Result<u64> {
        let last = files::list(self.directory())?.checkpoints.last().copied();
        last.filter(|size| *size > sequence).map_or_else(|| Ok(self.walk(Vec::new(), None, &[])?.size), Ok)
    }

    fn note(&self, size: u64) -> Result<Option<String>> {
        let read = files::read_checkpoint(self.directory(), size);
        let path = self.directory().join(files::checkpoint(size));
        read.map(|found| found.map(|of| of.as_str().to_owned())).map_err(|why| unusable(&path, &why))
    }

    /// One walk, up to the largest of the sizes.
    fn walk(&self, ranges: Vec<Range<u64>>, sequence: Option<u64>, sizes: &[u64]) -> Result<Walked> {
        let directory = self.directory();
        let segments = files::list(directory)?.segments;
        let last = segments.last().ok_or_else(|| unusable(directory, &"there is no audit log"))?;
        let (mut lines, mut line) = (Lines::new(directory, 0, *last), Vec::new());
        let (mut sum, mut subtrees) = (Sum::default(), Subtrees::new(ranges));
        let mut walked =
            Walked { log: String::new(), size: 0, heads: Vec::new(), record: None, roots: Vec::new() };
        let end = sizes.iter().max().copied().unwrap_or(u64::MAX);
        while sum.size() < end {
            let index = sum.size();
            let read = lines.next(&mut line).map_err(|error| unusable(directory, &error))?;
            let Some(at) = read.filter(|at| at.end == End::Feed) else { break };
            let taken = sum.take(&line);
            let (head, hashes) = taken.map_err(|wrong| {
                let text =
                    format!("{}, line {}: record {index}: {wrong}", files::segment(at.segment), at.number);
                Error::operator(ErrorKind::Audit, text)
            })?;
            if index == 0 {
                walked.log = head.log.unwrap_or_default().into_owned();
            }
            subtrees.push(index, hashes.leaf);
            if sequence == Some(index) {
                walked.record = line::record(&line);
            }
            sizes.iter().filter(|size| **size == sum.size()).for_each(|_| walked.roots.push(sum.tree.root()));
        }
        walked.size = sum.size();
        let is_short = walked.roots.len() < sizes.len();
        walked.heads =
            subtrees.finish().filter(|_| !is_short).ok_or_else(|| no_such("size: the log is shorter"))?;
        Ok(walked)
    }
}

impl AuditInclusion {
    /// Checks the proof: the record it shows is in the log of its size, and with keys, one of them has signed a checkpoint of
    /// that.
    ///
    /// # Errors
    /// `Audit`, if it proves nothing of the kind.
    pub fn check(&self, keys: &[AuditKey]) -> Result<()> {
        let path: Vec<_> = self.path.iter().map(|hash| hash.0).collect();
        let leaf = merkle::leaf(self.record.as_bytes());
        if !merkle::includes(self.sequence, self.size, &leaf, &path, &self.root.0) {
            return Err(no_proof("the record does not lead to the root"));
        }
        check_note(self.checkpoint.as_deref(), keys, (&self.log, self.size, &self.root.0))
    }

    /// The record, as JSON: what the proof is about.
    #[must_use]
    pub fn record(&self) -> &str {
        &self.record
    }
}

impl AuditConsistency {
    /// Checks the proof: the log of the new size holds all of the old one, and with keys, one of them has signed a
    /// checkpoint of each.
    ///
    /// # Errors
    /// `Audit`, if it proves nothing of the kind.
    pub fn check(&self, keys: &[AuditKey]) -> Result<()> {
        let path: Vec<_> = self.path.iter().map(|hash| hash.0).collect();
        if !merkle::grows((self.old_size, &self.old_root.0), (self.new_size, &self.new_root.0), &path) {
            return Err(no_proof("the old root does not lead to the new one"));
        }
        check_note(self.old_checkpoint.as_deref(), keys, (&self.log, self.old_size, &self.old_root.0))?;
        check_note(self.new_checkpoint.as_deref(), keys, (&self.log, self.new_size, &self.new_root.0))
    }
}

fn check_note(note: Option<&str>, keys: &[AuditKey], says: (&str, u64, &Hash)) -> Result<()> {
    match note.map(|note| AuditCheckpoint::parse(note.as_bytes())).transpose()? {
        None if keys.is_empty() => Ok(()),
        None => Err(no_proof("there is no checkpoint of this size")),
        Some(of) if (of.origin(), of.size(), &of.root()) != says => {
            Err(no_proof("the checkpoint says something else"))
        }
        Some(of) if !is_trusted(&of, keys) => Err(no_proof("the checkpoint is not signed by the key")),
        Some(_) => Ok(()),
    }
}

fn no_such(what: &str) -> Error {
    Error::refused(ErrorKind::InvalidInput, format!("there is no such {what}"))
}

fn no_proof(why: &str) -> Error {
    Error::refused(ErrorKind::Audit, why)
}
