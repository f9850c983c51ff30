//! One walk over the records of a log, line by line, in bounded memory.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Result, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::files;
use super::line::{self, BEFORE_ALL, Hashes, Head, LINE_LEN_MAX, Wrong};
use super::merkle::{Hash, Tree};

/// The lines of segments, one after the other.
pub(super) struct Lines {
    directory: PathBuf,
    reader: Option<BufReader<File>>,
    segment: u32,
    last: u32,
    /// Lines and bytes of this segment that have been read.
    number: u64,
    offset: u64,
}

/// Where a line stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct At {
    pub(super) segment: u32,
    /// From 1.
    pub(super) number: u64,
    /// Of its first byte in the segment.
    pub(super) offset: u64,
    pub(super) end: End,
}

/// How a line ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Feed,
    /// The file ends in it.
    File,
    /// It is longer than any record.
    TooLong,
}

/// What all records so far come to.
#[derive(Clone, Debug)]
pub(super) struct Sum {
    pub(super) tree: Tree,
    pub(super) chain: Hash,
}

/// Bytes that are read from the disk at once.
const READ_LEN: usize = 128 * 1024;

impl Lines {
    /// Of these segments, the last one included.
    pub(super) fn new(directory: &Path, first: u32, last: u32) -> Self {
        let directory = directory.to_owned();
        Self { directory, reader: None, segment: first, last, number: 0, offset: 0 }
    }

    /// From this byte of the first segment on; its lines are counted from there.
    pub(super) fn from(directory: &Path, first: u32, last: u32, offset: u64) -> Self {
        Self { offset, ..Self::new(directory, first, last) }
    }

    /// The segment that is read, or would be next.
    pub(super) const fn segment(&self) -> u32 {
        self.segment
    }

    /// Reads the next line, without its line feed; `None` at the end of the last segment.
    ///
    /// # Errors
    /// That a segment cannot be read, or is not there.
    pub(super) fn next(&mut self, line: &mut Vec<u8>) -> Result<Option<At>> {
        loop {
            let reader = match &mut self.reader {
                Some(reader) => reader,
                None => self.reader.insert(open(&self.directory, self.segment, self.offset)?),
            };
            line.clear();
            let len = reader.by_ref().take(LINE_LEN_MAX as u64 + 1).read_until(b'\n', line)?;
            if len > 0 {
                let offset = self.offset;
                self.offset += len as u64;
                self.number += 1;
                let end = match line.pop_if(|last| *last == b'\n') {
                    Some(_) => End::Feed,
                    None if len > LINE_LEN_MAX => End::TooLong,
                    None => End::File,
                };
                return Ok(Some(At { segment: self.segment, number: self.number, offset, end }));
            }
            if self.segment == self.last {
                return Ok(None);
            }
            (self.reader, self.segment, self.number, self.offset) = (None, self.segment + 1, 0, 0);
        }
    }
}

impl Default for Sum {
    fn default() -> Self {
        Self { tree: Tree::default(), chain: BEFORE_ALL }
    }
}

impl Sum {
    /// Takes the line of the next record.
    pub(super) fn take<'a>(&mut self, line: &'a [u8]) -> std::result::Result<(Head<'a>, Hashes), Wrong> {
        let (head, hashes) = line::read(line, self.tree.size(), &self.chain)?;
        self.add(hashes);
        Ok((head, hashes))
    }

    /// Takes the hashes of the next record.
    pub(super) fn add(&mut self, hashes: Hashes) {
        self.tree.push(hashes.leaf);
        self.chain = hashes.chain;
    }

    /// How many records there are: the number of the next.
    pub(super) const fn size(&self) -> u64 {
        self.tree.size()
    }
}

/// The line that ends with the byte before this one, without its line feed; `None` if there is none.
pub(super) fn line_before(directory: &Path, segment: u32, offset: u64) -> Result<Option<Vec<u8>>> {
    let start = offset.saturating_sub(LINE_LEN_MAX as u64 + 1);
    let mut bytes = Vec::new();
    open(directory, segment, start)?.take(offset - start).read_to_end(&mut bytes)?;
    let is_whole = bytes.len() as u64 == offset - start && bytes.pop_if(|last| *last == b'\n').is_some();
    let from = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    Ok(is_whole.then(|| bytes.split_off(from)))
}

/// Whether a file has these bytes from there on, and no more.
pub(super) fn reads_back(path: &Path, offset: u64, expected: &[u8]) -> Result<bool> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut left = expected;
    let mut buffer = vec![0; READ_LEN];
    loop {
        let read = file.read(&mut buffer)?;
        match left.strip_prefix(&buffer[..read]) {
            Some(rest) if read > 0 => left = rest,
            rest => return Ok(rest.is_some_and(<[u8]>::is_empty)),
        }
    }
}

fn open(directory: &Path, segment: u32, offset: u64) -> Result<BufReader<File>> {
    let mut file = File::open(directory.join(files::segment(segment)))?;
    file.seek(SeekFrom::Start(offset))?;
    Ok(BufReader::with_capacity(READ_LEN, file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_over_segments_and_it_is_told_where_each_stands_and_how_it_ends() {
        let place = tempfile::tempdir().unwrap();
        let long = "x".repeat(LINE_LEN_MAX + 1);
        for (number, text) in (0..).zip(["a\nbc\n", "", "d", &long]) {
            std::fs::write(place.path().join(files::segment(number)), text).unwrap();
        }
        let mut lines = Lines::new(place.path(), 0, 3);
        let mut line = Vec::new();
        let mut next = || lines.next(&mut line).unwrap().map(|at| (at, line.clone()));
        let at = |segment, number, offset, end| At { segment, number, offset, end };
        assert_eq!(next(), Some((at(0, 1, 0, End::Feed), b"a".to_vec())));
        assert_eq!(next(), Some((at(0, 2, 2, End::Feed), b"bc".to_vec())));
        assert_eq!(next(), Some((at(2, 1, 0, End::File), b"d".to_vec())));
        assert_eq!(next().unwrap().0, at(3, 1, 0, End::TooLong));
        assert_eq!(next(), None);
        assert!(Lines::new(place.path(), 4, 4).next(&mut Vec::new()).is_err(), "no such segment");
        assert_eq!(line_before(place.path(), 0, 5).unwrap().unwrap(), b"bc");
        assert_eq!(line_before(place.path(), 0, 2).unwrap().unwrap(), b"a");
        assert_eq!(line_before(place.path(), 0, 4).unwrap(), None);
        assert_eq!(line_before(place.path(), 0, 9).unwrap(), None);
        let first = place.path().join(files::segment(0));
        assert!(reads_back(&first, 2, b"bc\n").unwrap() && reads_back(&first, 5, b"").unwrap());
        assert!(
            ["bc", "bd\n", "bc\n\n"].iter().all(|other| !reads_back(&first, 2, other.as_bytes()).unwrap())
        );
    }
}
