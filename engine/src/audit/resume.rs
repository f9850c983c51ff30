//! What a writer needs to go on from the last checkpoint without reading all that is before it.
//!
//! It is a help and no proof: it must fit the checkpoint and the record before it, and the verifier does without.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::checkpoint::AuditCheckpoint;
use super::files::{self, RESUME};
use super::hex::serde::Hex;
use super::line;
use super::merkle::{Tree, sha256};
use super::walk::{Sum, line_before};

/// A place in a log, between two records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Resume {
    pub(super) size: u64,
    pub(super) segment: u32,
    /// Of the next record in the segment.
    pub(super) offset: u64,
    chain: Hex,
    heads: Vec<Hex>,
}

impl Resume {
    pub(super) fn new(sum: &Sum, segment: u32, offset: u64) -> Self {
        let heads = sum.tree.heads().iter().copied().map(Hex).collect();
        Self { size: sum.size(), segment, offset, chain: Hex(sum.chain), heads }
    }

    /// The text of its file: a line of JSON, and the SHA-256 of that line.
    pub(super) fn text(&self) -> String {
        // It has no maps, so it can be written.
        let line = serde_json::to_string(self).unwrap_or_default();
        format!("{line}\n{}\n", super::hex::text(&sha256(line.as_bytes())))
    }

    /// Reads the text of a file; `None` if it is damaged.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let resume: Self = serde_json::from_slice(text.split(|byte| *byte == b'\n').next()?).ok()?;
        (resume.text().as_bytes() == text).then_some(resume)
    }

    /// What the records before it come to, if all fits: the checkpoint of its size, and the record before it.
    pub(super) fn sum(&self, directory: &Path, checkpoint: &AuditCheckpoint) -> Option<Sum> {
        let heads = self.heads.iter().map(|head| head.0).collect();
        let tree = Tree::from_heads(self.size, heads)?;
        let last = line_before(directory, self.segment, self.offset).ok()??;
        let fits = tree.root() == checkpoint.root() && checkpoint.size() == self.size;
        let is_last = line::claims(&last)? == (self.size.checked_sub(1)?, self.chain.0);
        (fits && is_last).then_some(Sum { tree, chain: self.chain.0 })
    }
}

/// The file of a directory; `None` if there is none or it is damaged.
pub(super) fn read(directory: &Path) -> Option<Resume> {
    Resume::parse(&files::read(&directory.join(RESUME)).ok()??)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_reads_back_and_one_with_any_bit_flipped_does_not() {
        let mut sum = Sum::default();
        (0..3).for_each(|leaf| sum.tree.push([leaf; 32]));
        let resume = Resume::new(&sum, 2, 4711);
        let text = resume.text().into_bytes();
        assert_eq!(Resume::parse(&text), Some(resume));
        for at in 0..text.len() * 8 {
            let mut other = text.clone();
            other[at / 8] ^= 1 << (at % 8);
            assert_eq!(Resume::parse(&other), None, "bit {at}");
        }
        assert_eq!(Resume::parse(b""), None);
    }
}
