//! A log from outside, as auditors and operators see it.

use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::files::{self, unusable};
use crate::error::{Error, ErrorKind, Result};

/// The log in a directory, to be read and verified: it may be written to meanwhile, and it may be a copy.
///
/// ```
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path();
/// use hsmux::AuditLog;
///
/// let report = AuditLog::at(path).verify(&[], None)?;
/// match report.fault {
///     None => println!("{} records are as they were written", report.records),
///     Some(fault) => println!("{}, record {:?}: {}", fault.file, fault.sequence, fault.why),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct AuditLog {
    directory: PathBuf,
}

/// The records of a log as they come, one JSON object a line; made by [`AuditLog::tail`]. They are not verified.
#[derive(Debug)]
pub struct AuditTail {
    directory: PathBuf,
    segment: u32,
    offset: u64,
}

impl AuditLog {
    /// The log in this directory. Nothing is read yet.
    #[must_use]
    pub fn at(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    /// The last so many records, and what comes after.
    ///
    /// # Errors
    /// `Configuration`, if there is no log or it cannot be read.
    ///
    /// # Blocking
    /// As long as it takes to read the last segment.
    pub fn tail(&self, records: usize) -> Result<AuditTail> {
        let segments = files::list(&self.directory)?.segments;
        let last = segments.last().ok_or_else(|| unusable(&self.directory, &"there is no audit log"))?;
        let mut left = records;
        for segment in (0..=*last).rev() {
            let starts = starts(&self.directory, segment)?;
            if left <= starts.len() || segment == 0 {
                let offset = starts[starts.len().saturating_sub(left)..].first().copied();
                let offset = offset.map_or_else(|| len(&self.directory, segment), Ok)?;
                return Ok(AuditTail { directory: self.directory.clone(), segment, offset });
            }
            left -= starts.len();
        }
        Err(Error::internal("there is always a segment 0"))
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }
}

impl AuditTail {
    /// The next record: the text of a JSON object. None: there is none yet.
    ///
    /// # Errors
    /// `Configuration`, if a segment cannot be read; `Audit`, if it is no text.
    ///
    /// # Blocking
    /// Not until there is one: ask again.
    pub fn next_record(&mut self) -> Result<Option<String>> {
        loop {
            let path = self.directory.join(files::segment(self.segment));
            let cannot = |error| unusable(&path, &error);
            let mut line = Vec::new();
            let mut file = std::fs::File::open(&path).map_err(cannot)?;
            file.seek(SeekFrom::Start(self.offset)).map_err(cannot)?;
            let file = file.take(super::line::LINE_LEN_MAX as u64 + 1);
            BufReader::new(file).read_until(b'\n', &mut line).map_err(cannot)?;
            if line.pop_if(|last| *last == b'\n').is_some() {
                self.offset += line.len() as u64 + 1;
                let text = String::from_utf8(line);
                return text.map(Some).map_err(|_| not_text(&path));
            }
            let next = self.segment + 1;
            if !line.is_empty() || !self.directory.join(files::segment(next)).exists() {
                return Ok(None);
            }
            (self.segment, self.offset) = (next, 0);
        }
    }
}

fn not_text(path: &Path) -> Error {
    Error::operator(ErrorKind::Audit, format!("{}: this is no text", path.display()))
}

/// Where the whole lines of a segment begin.
fn starts(directory: &Path, segment: u32) -> Result<Vec<u64>> {
    let mut lines = super::walk::Lines::new(directory, segment, segment);
    let (mut line, mut starts) = (Vec::new(), Vec::new());
    let cannot = |error| unusable(&directory.join(files::segment(segment)), &error);
    while let Some(at) = lines.next(&mut line).map_err(cannot)? {
        starts.extend((at.end == super::walk::End::Feed).then_some(at.offset));
    }
    Ok(starts)
}

fn len(directory: &Path, segment: u32) -> Result<u64> {
    let path = directory.join(files::segment(segment));
    path.metadata().map(|facts| facts.len()).map_err(|error| unusable(&path, &error))
}
