//! What an output file holds of an earlier run, and where the next run has to go on.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

/// The complete lines of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    lines: u64,
    /// Bytes that they take; what follows is a line that was torn.
    pub(super) bytes: u64,
    /// Where the last one begins.
    last: u64,
}

impl Held {
    /// Reads to the end and counts.
    pub(super) fn count(mut input: impl Read) -> io::Result<Self> {
        let (mut held, mut at) = (Self { lines: 0, bytes: 0, last: 0 }, 0);
        let mut buffer = vec![0; BUFFER];
        loop {
            let read = match input.read(&mut buffer) {
                Ok(0) => return Ok(held),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            for newline in memchr::memchr_iter(b'\n', &buffer[..read]) {
                held.lines += 1;
                held.last = std::mem::replace(&mut held.bytes, at + newline as u64 + 1);
            }
            at += read as u64;
        }
    }

    /// Number of the input line to go on with, or why nobody can tell.
    pub(super) fn next(self, file: &File) -> io::Result<Result<u64, &'static str>> {
        let begin_at = |at| -> io::Result<Vec<u8>> {
            let mut begin = vec![0; NUMBER_MAX];
            let read = file.read_at(&mut begin, at)?;
            begin.truncate(read);
            Ok(begin)
        };
        let next = match self.lines {
            0 => Ok(1),
            lines => follow(lines, line_number(&begin_at(0)?), line_number(&begin_at(self.last)?)),
        };
        let rest = begin_at(self.bytes)?;
        Ok(next.and_then(|next| if may_be_torn_off(&rest, next) { Ok(next) } else { Err(FOREIGN) }))
    }
}

/// Bytes read at a time: far above what a call costs.
const BUFFER: usize = 256 << 10;

/// Enough for `{"line":`, the digits of any `u64`, and what ends them.
const NUMBER_MAX: usize = 32;

/// Why a file is not gone on with.
const FOREIGN: &str = "it is no output of hsmux bulk";

/// Whether what stands behind the complete lines is the beginning of the line of this number, or nothing. Anything
/// else is not ours to cut off.
fn may_be_torn_off(rest: &[u8], number: u64) -> bool {
    let begin = format!("{{\"line\":{number},");
    rest.starts_with(begin.as_bytes()) || begin.as_bytes().starts_with(rest)
}

/// The number with which a line of output begins.
fn line_number(begin: &[u8]) -> Option<u64> {
    let rest = begin.strip_prefix(br#"{"line":"#)?;
    let digits = rest.iter().position(|byte| !byte.is_ascii_digit())?;
    let number = std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()?;
    (rest[digits] == b',').then_some(number)
}

/// The number after `lines` lines of which these are the first and the last, if they are numbered without a gap.
fn follow(lines: u64, first: Option<u64>, last: Option<u64>) -> Result<u64, &'static str> {
    match (first, last) {
        (Some(first), Some(last)) if last.checked_sub(first) == Some(lines - 1) && first > 0 => Ok(last + 1),
        (Some(_), Some(_)) => Err("its lines are not numbered one after the other"),
        _ => Err(FOREIGN),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn next(content: &[u8]) -> (Held, Result<u64, &'static str>) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        let held = Held::count(content).unwrap();
        (held, held.next(&file).unwrap())
    }

    #[test]
    fn a_run_goes_on_after_the_last_complete_line() {
        assert_eq!(next(b"").1, Ok(1));
        assert_eq!(next(b"{\"line\":1").1, Ok(1));
        let (held, after) = next(b"{\"line\":1,\"mac\":\"\"}\n{\"line\":2,\"error\":{}}\n{\"line\":3,\"ma");
        assert_eq!((held.lines, held.bytes, after), (2, 42, Ok(3)));
        assert_eq!(next(b"{\"line\":500,}\n{\"line\":501,}\n").1, Ok(502));
    }

    #[test]
    fn a_file_that_no_run_has_left_is_not_gone_on_with() {
        let foreign: [&[u8]; 12] = [
            b"\n",
            b"a letter without a newline",
            b"\0\0\0\0",
            b"{\"line\":301,\"ma",
            b"{\"line\":1,}\nits end",
            b"{\"line\":1,}\n{\"line\":20",
            b"a letter\n",
            b"{\"line\":1,}\nits end\n",
            b"{\"line\":1,}\n{\"line\":3,}\n",
            b"{\"line\":0,}\n",
            b"{\"line\":99999999999999999999999,}\n",
            b"{\"line\":1,}\n\0\0\0\0\n",
        ];
        for content in foreign {
            assert!(next(content).1.is_err(), "{}", String::from_utf8_lossy(content));
        }
    }

    proptest! {
        #[test]
        fn wherever_a_file_is_torn_its_complete_lines_count(lines in 1_u64..60, torn in any::<prop::sample::Index>()) {
            let whole: String = (1..=lines).map(|line| format!("{{\"line\":{line},\"mac\":\"\"}}\n")).collect();
            let kept = &whole.as_bytes()[..torn.index(whole.len() + 1)];
            let complete = kept.iter().filter(|byte| **byte == b'\n').count() as u64;
            let (held, after) = next(kept);
            prop_assert_eq!((held.lines, after), (complete, Ok(complete + 1)));
            let end = usize::try_from(held.bytes).unwrap();
            prop_assert!(end == 0 || kept[end - 1] == b'\n');
        }
    }
}
