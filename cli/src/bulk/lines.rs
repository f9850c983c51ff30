//! Input cut into lines, and lines gathered into chunks. Pure: bytes go in, chunks come out.

use std::ops::Range;

use zeroize::Zeroizing;

/// What bounds lines and chunks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Longest line in bytes, without its newline; a longer one is counted and not kept.
    pub(super) line_max: usize,
    /// Most lines of a chunk.
    pub(super) chunk_lines: usize,
    /// Bytes at which a chunk is full. Its last line may go beyond.
    pub(super) chunk_bytes: usize,
}

/// Consecutive lines. Wiped when dropped.
pub(super) struct Chunk {
    /// Number of the first line, from 1.
    pub(super) first: u64,
    bytes: Zeroizing<Vec<u8>>,
    lines: Vec<Kept>,
}

/// A line of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// Its bytes, without the newline.
    Here(&'a [u8]),
    /// It was longer than allowed, and so many bytes long.
    TooLong(u64),
}

/// Cuts a stream of bytes into chunks of lines.
pub(super) struct Lines {
    limits: Limits,
    /// Lines still to be passed over.
    skip: u64,
    /// Number of the line that has begun, or would with the next byte.
    number: u64,
    /// Number of the first line that was not given out.
    next: u64,
    bytes: Zeroizing<Vec<u8>>,
    kept: Vec<Kept>,
    /// Where in `bytes` the line begins that is not complete yet.
    begin: usize,
    /// Length of that line, whether it is kept or not.
    len: u64,
}

enum Kept {
    Here(Range<usize>),
    TooLong(u64),
}

impl Lines {
    /// Begins a stream, whose first `skip` lines are passed over.
    pub(super) fn new(limits: Limits, skip: u64) -> Self {
        let bytes = Zeroizing::new(Vec::new());
        Self { limits, skip, number: 1, next: skip + 1, bytes, kept: Vec::new(), begin: 0, len: 0 }
    }

    /// Takes bytes off the front of `input`: all of them, or as many as make a chunk full, which is returned.
    pub(super) fn push(&mut self, input: &mut &[u8]) -> Option<Chunk> {
        while !input.is_empty() {
            let newline = memchr::memchr(b'\n', input);
            let (part, rest) = input.split_at(newline.unwrap_or(input.len()));
            self.extend(part);
            *input = rest;
            if newline.is_some() {
                *input = &rest[1..];
                self.end_line();
                if self.is_full() {
                    return self.take();
                }
            }
        }
        None
    }

    /// The lines that are complete, if any, as a chunk that is not full.
    pub(super) fn take(&mut self) -> Option<Chunk> {
        if self.kept.is_empty() {
            return None;
        }
        let begun = Zeroizing::new(self.bytes[self.begin..].to_vec());
        self.bytes.truncate(self.begin);
        let bytes = std::mem::replace(&mut self.bytes, begun);
        let lines = std::mem::take(&mut self.kept);
        self.begin = 0;
        let first = std::mem::replace(&mut self.next, self.number);
        Some(Chunk { first, bytes, lines })
    }

    /// The end of the stream: the rest, with the last line, which may lack its newline.
    pub(super) fn finish(&mut self) -> Option<Chunk> {
        if self.len > 0 {
            self.end_line();
        }
        self.take()
    }

    /// Number of the next line that no chunk has held.
    pub(super) const fn next_number(&self) -> u64 {
        self.next
    }

    /// The chunk that began with this line went nowhere.
    pub(super) fn give_back(&mut self, first: u64) {
        self.next = first;
    }

    /// Lines that were to be passed over and have not come.
    pub(super) const fn to_skip(&self) -> u64 {
        self.skip
    }

    fn extend(&mut self, part: &[u8]) {
        self.len += part.len() as u64;
        if self.skip > 0 {
            return;
        }
        if self.len > self.limits.line_max as u64 {
            self.shrink_to(self.begin);
            return;
        }
        self.reserve(part.len());
        self.bytes.extend_from_slice(part);
    }

    fn end_line(&mut self) {
        let len = std::mem::take(&mut self.len);
        self.number += 1;
        if self.skip > 0 {
            self.skip -= 1;
        } else if len > self.limits.line_max as u64 {
            self.kept.push(Kept::TooLong(len));
        } else {
            self.kept.push(Kept::Here(self.begin..self.bytes.len()));
            self.begin = self.bytes.len();
        }
    }

    fn is_full(&self) -> bool {
        self.kept.len() >= self.limits.chunk_lines || self.bytes.len() >= self.limits.chunk_bytes
    }

    /// Makes room without leaving a copy behind, as a vector that grows by itself would.
    fn reserve(&mut self, more: usize) {
        let needed = self.bytes.len() + more;
        if needed > self.bytes.capacity() {
            let mut larger =
                Zeroizing::new(Vec::with_capacity(needed.next_power_of_two().max(CHUNK_BYTES_MIN)));
            larger.extend_from_slice(&self.bytes);
            self.bytes = larger;
        }
    }

    /// Gives up all beyond `len`: what a line that is too long has left, which is not worth keeping memory for.
    fn shrink_to(&mut self, len: usize) {
        if self.bytes.len() > len {
            self.bytes = Zeroizing::new(self.bytes[..len].to_vec());
        }
    }
}

/// Room that a chunk begins with: 256 records of about 128 bytes.
const CHUNK_BYTES_MIN: usize = 32 << 10;

impl Chunk {
    /// How many lines there are; never none.
    pub(super) fn len(&self) -> usize {
        self.lines.len()
    }

    /// How many bytes they take.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The lines, in order.
    pub(super) fn lines(&self) -> impl Iterator<Item = Line<'_>> {
        self.lines.iter().map(|line| match line {
            Kept::Here(range) => Line::Here(&self.bytes[range.clone()]),
            Kept::TooLong(len) => Line::TooLong(*len),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits { line_max: 8, chunk_lines: 3, chunk_bytes: 20 };

    /// All lines with their numbers, however the input is cut into reads.
    fn cut(limits: Limits, skip: u64, reads: &[&[u8]], eager: bool) -> Vec<(u64, Result<Vec<u8>, u64>)> {
        let (mut lines, mut all) = (Lines::new(limits, skip), Vec::new());
        let mut keep = |chunk: Chunk| {
            assert!((1..=limits.chunk_lines).contains(&chunk.len()));
            assert!(chunk.bytes() < limits.chunk_bytes + limits.line_max);
            let kept = chunk.lines().map(|line| match line {
                Line::Here(bytes) => Ok(bytes.to_vec()),
                Line::TooLong(len) => Err(len),
            });
            all.extend((chunk.first..).zip(kept));
        };
        for mut read in reads.iter().copied() {
            while !read.is_empty() {
                lines.push(&mut read).into_iter().for_each(&mut keep);
            }
            if eager {
                lines.take().into_iter().for_each(&mut keep);
            }
            assert!(lines.bytes.len() < limits.chunk_bytes + limits.line_max);
        }
        lines.finish().into_iter().for_each(&mut keep);
        all
    }

    #[test]
    fn every_line_has_its_number_with_or_without_a_last_newline() {
        let lines = |text: &str| cut(LIMITS, 0, &[text.as_bytes()], false);
        let text = |number, text: &str| (number, Ok(text.as_bytes().to_vec()));
        assert_eq!(lines(""), []);
        assert_eq!(lines("\n"), [text(1, "")]);
        assert_eq!(lines("a\n\nb\r\nc"), [text(1, "a"), text(2, ""), text(3, "b\r"), text(4, "c")]);
    }

    #[test]
    fn a_line_that_is_too_long_is_counted_and_not_kept() {
        let lines = cut(LIMITS, 0, &[b"12345678\n123456", b"789\n", b"x"], false);
        assert_eq!(lines, [(1, Ok(b"12345678".to_vec())), (2, Err(9)), (3, Ok(b"x".to_vec()))]);
    }

    #[test]
    fn skipped_lines_keep_their_numbers() {
        assert_eq!(cut(LIMITS, 2, &[b"a\nlonger than allowed\nc\nd"], false)[0], (3, Ok(b"c".to_vec())));
        let mut short = Lines::new(LIMITS, 5);
        assert!(short.push(&mut &b"a\nb"[..]).is_none() && short.finish().is_none());
        assert_eq!(short.to_skip(), 3);
    }

    #[test]
    fn the_next_number_is_that_of_the_first_line_that_was_in_no_chunk() {
        let mut lines = Lines::new(LIMITS, 0);
        assert!(lines.push(&mut &b"a\nb\nc"[..]).is_none());
        assert_eq!(lines.next_number(), 1);
        assert_eq!(lines.take().unwrap().len(), 2);
        assert_eq!(lines.next_number(), 3);
    }

    proptest! {
        #[test]
        fn however_it_is_read_the_lines_are_the_same(
            text in "[ab\n]{0,200}",
            cuts in proptest::collection::vec(1_usize..20, 1..30),
            skip in 0_usize..10,
            eager in any::<bool>(),
        ) {
            let mut rest = text.as_bytes();
            let mut reads = Vec::new();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (read, after) = rest.split_at((*cut).min(rest.len()));
                reads.push(read);
                rest = after;
            }
            let whole = text.strip_suffix('\n').unwrap_or(&text);
            let split = whole.split('\n').filter(|_| !text.is_empty()).map(|line| match line.len() {
                len if len > LIMITS.line_max => Err(len as u64),
                _ => Ok(line.as_bytes().to_vec()),
            });
            let expected: Vec<_> = (1..).zip(split).skip(skip).collect();
            prop_assert_eq!(cut(LIMITS, skip as u64, &reads, eager), expected);
        }
    }
}
