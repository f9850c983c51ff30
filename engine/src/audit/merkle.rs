//! The Merkle tree of RFC 6962, section 2.1: heads, inclusion and consistency proofs.
//!
//! A proof is a list of heads of subtrees, and which subtrees these are depends on sizes only. So it is decided first, and
//! then computed in one walk over the leaves, in memory that grows with the logarithm of the tree.

use std::ops::Range;

use ring::digest::{Context, Digest, SHA256};

/// A SHA-256 digest.
pub(crate) type Hash = [u8; 32];

/// RFC 6962, 2.1: "the hash calculations for leaves and nodes differ. This domain separation is required to give second
/// preimage resistance."
const LEAF: u8 = 0;
const NODE: u8 = 1;

/// A tree that leaves are appended to: the heads of its perfect subtrees, largest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tree {
    size: u64,
    heads: Vec<Hash>,
}

impl Tree {
    /// The tree of so many leaves whose perfect subtrees have these heads; `None` unless there are as many as its size has
    /// bits that are set.
    pub(crate) fn from_heads(size: u64, heads: Vec<Hash>) -> Option<Self> {
        (heads.len() == size.count_ones() as usize).then_some(Self { size, heads })
    }

    pub(crate) fn push(&mut self, leaf: Hash) {
        let mut head = leaf;
        // As adding one carries: each bit that is set is a perfect subtree that the new one completes.
        for _ in 0..self.size.trailing_ones() {
            head = self.heads.pop().map_or(head, |left| node(&left, &head));
        }
        self.heads.push(head);
        self.size += 1;
    }

    pub(crate) const fn size(&self) -> u64 {
        self.size
    }

    pub(crate) fn heads(&self) -> &[Hash] {
        &self.heads
    }

    /// The Merkle tree hash; of an empty tree, the hash of nothing.
    pub(crate) fn root(&self) -> Hash {
        let mut heads = self.heads.iter().rev();
        let Some(&last) = heads.next() else { return sha256(&[]) };
        heads.fold(last, |right, left| node(left, &right))
    }
}

/// The hash of a leaf's data.
pub(crate) fn leaf(data: &[u8]) -> Hash {
    leaf_of(&[data])
}

/// The hash of a leaf whose data lies in pieces.
pub(crate) fn leaf_of(pieces: &[&[u8]]) -> Hash {
    let mut context = Context::new(&SHA256);
    context.update(&[LEAF]);
    pieces.iter().for_each(|piece| context.update(piece));
    bytes(&context.finish())
}

/// The hash of some bytes, as themselves.
pub(crate) fn sha256(data: &[u8]) -> Hash {
    bytes(&ring::digest::digest(&SHA256, data))
}

fn node(left: &Hash, right: &Hash) -> Hash {
    let mut data = [NODE; 65];
    data[1..33].copy_from_slice(left);
    data[33..].copy_from_slice(right);
    sha256(&data)
}

pub(crate) fn bytes(digest: &Digest) -> Hash {
    let mut hash = [0; 32];
    // SHA-256 has 32 bytes.
    hash.copy_from_slice(digest.as_ref());
    hash
}

/// RFC 6962, 2.1: "Let k be the largest power of two smaller than n". Of two leaves and more.
const fn split(n: u64) -> u64 {
    1 << (u64::BITS - 1 - (n - 1).leading_zeros())
}

/// The subtrees whose heads are the audit path of a leaf (RFC 6962, 2.1.1), in the order of the proof; `None` if there is
/// no such leaf.
pub(crate) fn inclusion(index: u64, size: u64) -> Option<Vec<Range<u64>>> {
    (index < size).then(|| {
        let mut path = Vec::new();
        let mut tree = 0..size;
        while tree.end - tree.start > 1 {
            let middle = tree.start + split(tree.end - tree.start);
            let (left, right) = (tree.start..middle, middle..tree.end);
            let (with, without) = if index < middle { (left, right) } else { (right, left) };
            path.push(without);
            tree = with;
        }
        path.reverse();
        path
    })
}

/// The subtrees whose heads prove that a tree grew from a smaller one (RFC 6962, 2.1.2), in the order of the proof; `None`
/// unless the old size is at least 1 and not above the new one.
pub(crate) fn consistency(old: u64, new: u64) -> Option<Vec<Range<u64>>> {
    if old == 0 || old > new {
        return None;
    }
    let mut proof = Vec::new();
    let mut tree = 0..new;
    // While the end of the old tree lies inside of this one.
    while old < tree.end {
        let middle = tree.start + split(tree.end - tree.start);
        let (left, right) = (tree.start..middle, middle..tree.end);
        let (with, without) = if old <= middle { (left, right) } else { (right, left) };
        proof.push(without);
        tree = with;
    }
    // "If m = n, the proof is empty" where that is the old tree whole: who checks it knows its head.
    if tree.start > 0 {
        proof.push(tree);
    }
    proof.reverse();
    Some(proof)
}

/// Computes the heads of subtrees in one walk over the leaves.
pub(crate) struct Subtrees {
    /// In order of the leaves, with the place that each has in the proof.
    wanted: Vec<(usize, Range<u64>, Tree)>,
    /// The first that is not done.
    next: usize,
}

impl Subtrees {
    /// Of subtrees that do not overlap.
    pub(crate) fn new(ranges: Vec<Range<u64>>) -> Self {
        let with_tree = |(place, range)| (place, range, Tree::default());
        let mut wanted: Vec<_> = ranges.into_iter().enumerate().map(with_tree).collect();
        wanted.sort_by_key(|(_, range, _)| range.start);
        Self { wanted, next: 0 }
    }

    /// Takes the next leaf; they come in order, without gaps.
    pub(crate) fn push(&mut self, index: u64, leaf: Hash) {
        let Some((_, range, tree)) = self.wanted.get_mut(self.next) else { return };
        if range.contains(&index) {
            tree.push(leaf);
            self.next += usize::from(index + 1 == range.end);
        }
    }

    /// The heads in the order of the proof; `None` if there were too few leaves.
    pub(crate) fn finish(mut self) -> Option<Vec<Hash>> {
        self.wanted.sort_by_key(|(place, _, _)| *place);
        (self.next == self.wanted.len()).then(|| self.wanted.iter().map(|(_, _, tree)| tree.root()).collect())
    }
}

/// Whether an audit path leads from a leaf to a root (RFC 9162, 2.1.3.2, which spells out the check of RFC 6962's proofs).
pub(crate) fn includes(index: u64, size: u64, leaf: &Hash, path: &[Hash], root: &Hash) -> bool {
    let Some(ranges) = inclusion(index, size) else { return false };
    let join = |head: Hash, (range, other): (&Range<u64>, &Hash)| {
        // What lies before the leaf stands on the left of it.
        if range.end <= index { node(other, &head) } else { node(&head, other) }
    };
    ranges.len() == path.len() && ranges.iter().zip(path).fold(*leaf, join) == *root
}

/// Whether a tree of the old size and root grew into the new one (RFC 9162, 2.1.4.2).
pub(crate) fn grows(old: (u64, &Hash), new: (u64, &Hash), proof: &[Hash]) -> bool {
    let Some(ranges) = consistency(old.0, new.0) else { return false };
    if ranges.len() != proof.len() {
        return false;
    }
    let mut steps = ranges.iter().zip(proof);
    // The largest subtree at the old end: the first of the proof, or the old tree whole.
    let whole = ranges.first().is_none_or(|range| range.start >= old.0);
    let seed = if whole { *old.1 } else { steps.next().map_or(*old.1, |(_, head)| *head) };
    let (mut from_old, mut from_new) = (seed, seed);
    for (range, head) in steps {
        if range.end <= old.0 {
            from_old = node(head, &from_old);
            from_new = node(head, &from_new);
        } else {
            from_new = node(&from_new, head);
        }
    }
    from_old == *old.1 && from_new == *new.1
}

#[cfg(test)]
mod tests;
