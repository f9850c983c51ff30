#![expect(clippy::cast_possible_truncation, reason = "the trees here are small")]

use proptest::prelude::*;

use super::super::hex;
use super::*;

/// The leaves of the test tree that the reference implementations of Certificate Transparency share.
const LEAVES: [&[u8]; 8] = [
    b"",
    b"\x00",
    b"\x10",
    b"\x20\x21",
    b"\x30\x31",
    b"\x40\x41\x42\x43",
    b"\x50\x51\x52\x53\x54\x55\x56\x57",
    b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
];

/// The root of its first leaf, of its first two, and so on.
const ROOTS: [&str; 8] = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
];

fn tree(leaves: &[Hash]) -> Tree {
    let mut tree = Tree::default();
    leaves.iter().for_each(|leaf| tree.push(*leaf));
    tree
}

fn reference() -> Vec<Hash> {
    LEAVES.iter().map(|data| leaf(data)).collect()
}

fn heads(leaves: &[Hash], ranges: Vec<Range<u64>>) -> Vec<Hash> {
    let mut subtrees = Subtrees::new(ranges);
    (0..).zip(leaves).for_each(|(index, leaf)| subtrees.push(index, *leaf));
    subtrees.finish().unwrap()
}

fn texts(hashes: &[Hash]) -> Vec<String> {
    hashes.iter().map(|hash| hex::text(hash)).collect()
}

#[test]
fn the_reference_leaves_have_the_reference_roots() {
    let leaves = reference();
    let roots: Vec<_> = (1..=8).map(|size| tree(&leaves[..size]).root()).collect();
    assert_eq!(texts(&roots), ROOTS);
    // RFC 6962, 2.1: "The hash of an empty list is the hash of an empty string".
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    assert_eq!(hex::text(&Tree::default().root()), empty);
}

#[test]
fn the_reference_tree_has_the_reference_proofs() {
    let leaves = reference();
    let of_first = [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ];
    assert_eq!(texts(&heads(&leaves, inclusion(0, 8).unwrap())), of_first);
    // A tree of one leaf is that leaf: what is beside it is what is new.
    assert_eq!(texts(&heads(&leaves, consistency(1, 8).unwrap())), of_first);
    let from_6_to_8 = [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ];
    assert_eq!(texts(&heads(&leaves, consistency(6, 8).unwrap())), from_6_to_8);
    let from_2_to_5 = [
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ];
    assert_eq!(texts(&heads(&leaves[..5], consistency(2, 5).unwrap())), from_2_to_5);
}

/// RFC 6962, 2.1, word by word.
fn naive_root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => sha256(b""),
        [leaf] => *leaf,
        _ => {
            let k = split(leaves.len() as u64) as usize;
            node(&naive_root(&leaves[..k]), &naive_root(&leaves[k..]))
        }
    }
}

/// RFC 6962, 2.1.1.
fn naive_path(m: usize, leaves: &[Hash]) -> Vec<Hash> {
    if leaves.len() == 1 {
        return Vec::new();
    }
    let k = split(leaves.len() as u64) as usize;
    let (mut path, beside) = if m < k {
        (naive_path(m, &leaves[..k]), naive_root(&leaves[k..]))
    } else {
        (naive_path(m - k, &leaves[k..]), naive_root(&leaves[..k]))
    };
    path.push(beside);
    path
}

/// RFC 6962, 2.1.2: `SUBPROOF`.
fn naive_proof(m: usize, leaves: &[Hash], is_whole: bool) -> Vec<Hash> {
    if m == leaves.len() {
        return if is_whole { Vec::new() } else { vec![naive_root(leaves)] };
    }
    let k = split(leaves.len() as u64) as usize;
    let (mut proof, beside) = if m <= k {
        (naive_proof(m, &leaves[..k], is_whole), naive_root(&leaves[k..]))
    } else {
        (naive_proof(m - k, &leaves[k..], false), naive_root(&leaves[..k]))
    };
    proof.push(beside);
    proof
}

fn some_leaves(count: u64) -> Vec<Hash> {
    (0..count).map(|index| leaf(&index.to_be_bytes())).collect()
}

#[test]
fn every_proof_of_every_small_tree_is_that_of_the_standard_and_is_accepted() {
    for size in 1..=33 {
        let leaves = some_leaves(size);
        let root = tree(&leaves).root();
        assert_eq!(root, naive_root(&leaves));
        for index in 0..size {
            let path = heads(&leaves, inclusion(index, size).unwrap());
            assert_eq!(path, naive_path(index as usize, &leaves));
            assert!(includes(index, size, &leaves[index as usize], &path, &root));
        }
        for old in 1..=size {
            let proof = heads(&leaves, consistency(old, size).unwrap());
            assert_eq!(proof, naive_proof(old as usize, &leaves, true), "{old} of {size}");
            assert!(
                grows((old, &tree(&leaves[..old as usize]).root()), (size, &root), &proof),
                "{old} of {size}"
            );
        }
    }
    assert!(inclusion(1, 1).is_none() && consistency(0, 1).is_none() && consistency(2, 1).is_none());
}

proptest! {
    #[test]
    fn a_proof_that_was_changed_anywhere_is_not_accepted(
        size in 2_u64..200, at in 0_u64..1 << 32, place in 0_usize..1 << 16, bit in 0_usize..256,
    ) {
        let leaves = some_leaves(size);
        let root = tree(&leaves).root();
        let flip = |hash: &Hash| {
            let mut other = *hash;
            other[bit / 8] ^= 1 << (bit % 8);
            other
        };
        let flip_one = |hashes: &[Hash]| {
            let mut others = hashes.to_vec();
            let place = place % hashes.len();
            others[place] = flip(&hashes[place]);
            others
        };
        let index = at % size;
        let leaf = &leaves[index as usize];
        let path = heads(&leaves, inclusion(index, size).unwrap());
        prop_assert!(includes(index, size, leaf, &path, &root));
        prop_assert!(!includes(index, size, leaf, &flip_one(&path), &root));
        prop_assert!(!includes(index, size, &flip(leaf), &path, &root));
        prop_assert!(!includes(index, size, leaf, &path, &flip(&root)));
        prop_assert!(!includes(index, size, leaf, &path[1..], &root));
        prop_assert!(!includes((index + 1) % size, size, leaf, &path, &root));

        let old = 1 + at % (size - 1);
        let old_root = tree(&leaves[..old as usize]).root();
        let proof = heads(&leaves, consistency(old, size).unwrap());
        prop_assert!(grows((old, &old_root), (size, &root), &proof));
        prop_assert!(!grows((old, &old_root), (size, &root), &flip_one(&proof)));
        prop_assert!(!grows((old, &flip(&old_root)), (size, &root), &proof));
        prop_assert!(!grows((old, &old_root), (size, &flip(&root)), &proof));
        prop_assert!(!grows((old, &old_root), (size, &root), &proof[1..]));
    }

    #[test]
    fn a_tree_goes_on_from_the_heads_that_were_kept_of_it(first in 0_u64..300, more in 0_u64..300) {
        let leaves = some_leaves(first + more);
        let kept = tree(&leaves[..first as usize]);
        let mut resumed = Tree::from_heads(kept.size(), kept.heads().to_vec()).unwrap();
        leaves[first as usize..].iter().for_each(|leaf| resumed.push(*leaf));
        prop_assert_eq!(resumed, tree(&leaves));
        let one_more = [kept.heads(), &[leaf(b"")]].concat();
        prop_assert!(Tree::from_heads(first, one_more).is_none());
    }
}
