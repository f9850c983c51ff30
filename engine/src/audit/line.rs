//! A record on its line: sealed by a hash that all records before it are in, and checked when it is read.

use std::borrow::Cow;
use std::fmt;

use ring::digest::{Context, SHA256};
use serde::Deserialize;

use super::hex;
use super::hex::serde::Hex;
use super::merkle::{Hash, bytes, leaf_of};
use super::record::Record;
use crate::error::Result;

/// The chain before the first record.
pub(super) const BEFORE_ALL: Hash = [0; 32];

/// Longest line that is read, in bytes. Labels and free fields are a few hundred; whoever writes more is refused.
pub(super) const LINE_LEN_MAX: usize = 64 * 1024;

/// What stands between a record and its chain value, which is followed by [`END`] and a line feed.
const CHAIN: &[u8] = br#","chain":""#;
const END: &[u8] = br#""}"#;

/// Bytes of a line that are not the record's own.
const SEAL_LEN: usize = CHAIN.len() + 64 + END.len();

/// The hashes of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hashes {
    pub(super) leaf: Hash,
    pub(super) chain: Hash,
}

/// What a checker reads of a record.
#[derive(Debug, Deserialize)]
pub(super) struct Head<'a> {
    v: u32,
    seq: u64,
    #[serde(borrow)]
    pub(super) kind: Cow<'a, str>,
    /// Of `start`.
    #[serde(borrow)]
    pub(super) log: Option<Cow<'a, str>>,
    pub(super) checkpoint: Option<StoredHead>,
    #[serde(borrow)]
    pub(super) torn: Option<TornHead<'a>>,
    /// Of `gap` and `uses`.
    pub(super) count: Option<u64>,
    /// Of `checkpoint`.
    size: Option<u64>,
    sha256: Option<Hex>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct StoredHead {
    pub(super) size: u64,
    pub(super) sha256: Hex,
}

#[derive(Debug, Deserialize)]
pub(super) struct TornHead<'a> {
    #[serde(borrow)]
    pub(super) file: Cow<'a, str>,
    pub(super) bytes: u64,
    pub(super) sha256: Hex,
}

/// What is wrong with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// No record of this format.
    Malformed,
    /// Another record stands here.
    Sequence(u64),
    /// The record or its chain value is not what was written, or one before it is not.
    Chain,
}

/// Appends a record's line, without the line feed.
pub(super) fn seal(record: &Record, sequence: u64, before: &Hash, out: &mut Vec<u8>) -> Result<Hashes> {
    let start = out.len();
    record.write(sequence, out)?;
    Ok(seal_from(start, before, out))
}

/// Seals the record that is written from there on.
fn seal_from(start: usize, before: &Hash, out: &mut Vec<u8>) -> Hashes {
    let leaf = leaf_of(&[&out[start..]]);
    let chain = link(before, &leaf);
    // The bracket that closes the record closes the line instead.
    out.pop();
    out.extend(CHAIN);
    hex::push(out, &chain);
    out.extend(END);
    Hashes { leaf, chain }
}

/// Seals a record that is there as text, as a forger would.
#[cfg(test)]
pub(super) fn seal_text(record: &[u8], before: &Hash, out: &mut Vec<u8>) -> Hashes {
    let start = out.len();
    out.extend(record);
    seal_from(start, before, out)
}

/// Reads the line, without its line feed, of the record with this number.
pub(super) fn read<'a>(
    line: &'a [u8],
    sequence: u64,
    before: &Hash,
) -> std::result::Result<(Head<'a>, Hashes), Wrong> {
    let (body, chain) = parts(line).ok_or(Wrong::Malformed)?;
    let head: Head<'_> = serde_json::from_slice(line).map_err(|_| Wrong::Malformed)?;
    if head.v != 1 {
        return Err(Wrong::Malformed);
    }
    if head.seq != sequence {
        return Err(Wrong::Sequence(head.seq));
    }
    let leaf = leaf_of(&[body, b"}"]);
    let expected = link(before, &leaf);
    if chain == expected { Ok((head, Hashes { leaf, chain })) } else { Err(Wrong::Chain) }
}

/// The record of a line as it was hashed.
pub(super) fn record(line: &[u8]) -> Option<Vec<u8>> {
    parts(line).map(|(body, _)| [body, b"}"].concat())
}

/// The number and the chain value that a line claims to have.
pub(super) fn claims(line: &[u8]) -> Option<(u64, Hash)> {
    let (_, chain) = parts(line)?;
    let head: Head<'_> = serde_json::from_slice(line).ok()?;
    Some((head.seq, chain))
}

/// The kind that a line claims to be of.
pub(super) fn kind(line: &[u8]) -> Option<String> {
    serde_json::from_slice::<Head<'_>>(line).ok().map(|head| head.kind.into_owned())
}

/// A record without its last bracket, and the chain value.
fn parts(line: &[u8]) -> Option<(&[u8], Hash)> {
    let (body, seal) = line.split_at_checked(line.len().checked_sub(SEAL_LEN)?)?;
    let chain = seal.strip_prefix(CHAIN)?.strip_suffix(END)?;
    Some((body, hex::hash(chain)?))
}

/// Neither a leaf nor a node of the tree begins with this.
const LINK: u8 = 2;

fn link(before: &Hash, leaf: &Hash) -> Hash {
    let mut context = Context::new(&SHA256);
    context.update(&[LINK]);
    context.update(before);
    context.update(leaf);
    bytes(&context.finish())
}

impl Head<'_> {
    /// The checkpoint that the record says to have been stored, of its own kind or at a start.
    pub(super) fn stored(&self) -> Option<StoredHead> {
        let own = self.size.zip(self.sha256).map(|(size, sha256)| StoredHead { size, sha256 });
        if self.kind == "checkpoint" { own } else { self.checkpoint }
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("this is no whole record"),
            Self::Sequence(found) => {
                write!(f, "it is missing or was moved: record {found} stands in its place")
            }
            Self::Chain => {
                f.write_str("it was changed: its chain value does not follow from the record before it")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::merkle::leaf;
    use super::super::record::tests::one_of_each;
    use super::*;

    fn sealed(before: &Hash) -> (Vec<u8>, Hashes) {
        let mut line = Vec::new();
        let hashes = seal(&one_of_each()[0], 12, before, &mut line).unwrap();
        (line, hashes)
    }

    #[test]
    fn a_line_reads_back_with_the_hashes_that_it_was_written_with() {
        let before = leaf(b"before");
        let (line, hashes) = sealed(&before);
        let (head, read_back) = read(&line, 12, &before).unwrap();
        assert_eq!((head.kind.as_ref(), read_back), ("use", hashes));
        assert_eq!(leaf(&record(&line).unwrap()), hashes.leaf);
        assert_eq!(claims(&line), Some((12, hashes.chain)));
    }

    #[test]
    fn a_line_with_any_bit_flipped_is_refused() {
        let (line, _) = sealed(&BEFORE_ALL);
        for at in 0..line.len() * 8 {
            let mut other = line.clone();
            other[at / 8] ^= 1 << (at % 8);
            assert!(read(&other, 12, &BEFORE_ALL).is_err(), "bit {at}");
        }
    }

    #[test]
    fn a_record_in_the_place_of_another_or_after_another_is_refused() {
        let (line, _) = sealed(&BEFORE_ALL);
        assert_eq!(read(&line, 11, &BEFORE_ALL).unwrap_err(), Wrong::Sequence(12));
        assert_eq!(read(&line, 12, &leaf(b"other")).unwrap_err(), Wrong::Chain);
        assert_eq!(read(&line[1..], 12, &BEFORE_ALL).unwrap_err(), Wrong::Malformed);
        assert_eq!(read(b"", 12, &BEFORE_ALL).unwrap_err(), Wrong::Malformed);
    }
}
