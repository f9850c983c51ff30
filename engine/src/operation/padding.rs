//! Padding that the host adds, and takes off in a time that depends on nothing secret.

use subtle::{Choice, ConditionallySelectable, ConstantTimeEq, ConstantTimeLess};

use super::algorithm::MacPadding;
use super::encode::{Scratch, digest_algorithm, hashed};
use crate::error::{Error, Result};
use crate::token::task::{DES_BLOCK_LEN, Hash};

/// The message with PKCS#7 padding (RFC 5652, 6.3): 1 to `block` bytes, each of which says how many they are.
pub(super) fn pkcs7<'b>(block: usize, message: &[u8], scratch: &'b mut Scratch) -> &'b [u8] {
    let more = block - message.len() % block;
    let padded = scratch.pad(message, more);
    #[expect(clippy::cast_possible_truncation, reason = "at most a block of 16 bytes")]
    padded[message.len()..].fill(more as u8);
    padded
}

/// Length of the message in whole blocks with PKCS#7 padding.
///
/// # Errors
/// `DecryptFailed`, whatever is wrong with the padding; it takes as long as if nothing were.
pub(super) fn pkcs7_len(block: usize, padded: &[u8]) -> Result<usize> {
    let Some(last_block) = padded.len().checked_sub(block).map(|start| &padded[start..]) else {
        return Err(Error::decrypt_failed());
    };
    let block = to_u32(block);
    let pad = u32::from(last_block[last_block.len() - 1]);
    let mut good = !pad.ct_eq(&0) & !block.ct_lt(&pad);
    for (distance, byte) in (1..).zip(last_block.iter().rev()) {
        let counts = !pad.ct_lt(&distance);
        good &= !counts | u32::from(*byte).ct_eq(&pad);
    }
    let pad = u32::conditional_select(&0, &pad, good);
    checked(good, padded.len() - pad as usize)
}

/// The message in whole blocks of DES (ISO/IEC 9797-1, 6.3), at least one.
pub(super) fn for_mac<'b>(method: MacPadding, message: &'b [u8], scratch: &'b mut Scratch) -> &'b [u8] {
    let rest = message.len() % DES_BLOCK_LEN;
    match method {
        MacPadding::Method1 if rest == 0 && !message.is_empty() => message,
        MacPadding::Method1 => scratch.pad(message, DES_BLOCK_LEN - rest),
        MacPadding::Method2 => {
            let padded = scratch.pad(message, DES_BLOCK_LEN - rest);
            padded[message.len()] = 0x80;
            padded
        }
    }
}

/// Takes off OAEP (RFC 8017, 7.1.2, step 3) from `block`, what the bare RSA function yields; leaves the message at
/// its front and returns its length.
///
/// # Errors
/// `DecryptFailed`. RFC 8017, 7.1.2, note: "Care must be taken to ensure that an opponent cannot distinguish the
/// different error conditions in Step 3.g": all of them are looked at, always, and the error is one (Manger 2001).
pub(super) fn take_oaep(hash: Hash, label: &[u8], block: &mut [u8]) -> Result<usize> {
    let hash_len = hash.len();
    if block.len() < 2 * hash_len + 2 {
        return Err(Error::decrypt_failed());
    }
    let (first, rest) = block.split_at_mut(1);
    let (seed, data) = rest.split_at_mut(hash_len);
    mask(hash, data, seed);
    mask(hash, seed, data);
    let mut good = first[0].ct_eq(&0);
    good &= data[..hash_len].ct_eq(hashed(hash, label).as_ref());
    // Where the first 01 stands behind zeros.
    let mut found = Choice::from(0);
    let mut start = 0_u32;
    for (index, byte) in (0..).zip(&data[hash_len..]) {
        let is_one = byte.ct_eq(&1);
        start.conditional_assign(&(index + 1), !found & is_one);
        good &= found | is_one | byte.ct_eq(&0);
        found |= is_one;
    }
    good &= found;
    let from = checked(good, 1 + 2 * hash_len + start as usize)?;
    block.copy_within(from.., 0);
    Ok(block.len() - from)
}

/// Takes off the padding of PKCS#1 v1.5 for encryption (RFC 8017, 7.2.2, step 3): 00 02, at least eight bytes that
/// are not 0, 00, the message. Leaves that at the front of `block` and returns its length.
///
/// # Errors
/// `DecryptFailed`; it takes as long as if the padding were right. RFC 8017, 7.2.2, note: "Care must be taken to
/// ensure that an opponent cannot distinguish the different error conditions in Step 3".
pub(super) fn take_pkcs1(block: &mut [u8]) -> Result<usize> {
    let [first, second, rest @ ..] = &*block else { return Err(Error::decrypt_failed()) };
    let mut good = first.ct_eq(&0) & second.ct_eq(&2);
    let mut found = Choice::from(0);
    let mut start = 0_u32;
    for (index, byte) in (0..).zip(rest) {
        let is_zero = byte.ct_eq(&0);
        start.conditional_assign(&(index + 1), !found & is_zero);
        found |= is_zero;
    }
    // The zero stands behind eight bytes or more.
    good &= found & !start.ct_lt(&9);
    let from = checked(good, 2 + start as usize)?;
    block.copy_within(from.., 0);
    Ok(block.len() - from)
}

/// MGF1 (RFC 8017, B.2.1) of the seed, over the target.
fn mask(hash: Hash, seed: &[u8], target: &mut [u8]) {
    for (counter, chunk) in (0_u32..).zip(target.chunks_mut(hash.len())) {
        let mut context = ring::digest::Context::new(digest_algorithm(hash));
        context.update(seed);
        context.update(&counter.to_be_bytes());
        chunk.iter_mut().zip(context.finish().as_ref()).for_each(|(byte, mask)| *byte ^= mask);
    }
}

/// That there was an error shows in any case: only which one must not.
fn checked(good: Choice, len: usize) -> Result<usize> {
    if bool::from(good) { Ok(len) } else { Err(Error::decrypt_failed()) }
}

#[expect(clippy::cast_possible_truncation, reason = "a block has at most 16 bytes")]
const fn to_u32(block: usize) -> u32 {
    block as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::{ErrorKind, Outcome};

    fn length(block: usize, padded: &[u8]) -> Option<usize> {
        pkcs7_len(block, padded).inspect_err(|error| assert_eq!(error.kind(), ErrorKind::DecryptFailed)).ok()
    }

    #[test]
    fn a_message_is_filled_to_whole_blocks_and_a_full_one_gets_a_block_more() {
        let pad = |block, message: &[u8]| pkcs7(block, message, &mut Scratch::new()).to_vec();
        assert_eq!(pad(8, b""), [8; 8]);
        assert_eq!(pad(8, b"1234567"), *b"1234567\x01");
        assert_eq!(pad(8, b"12345678"), *b"12345678\x08\x08\x08\x08\x08\x08\x08\x08");
        assert_eq!(pad(16, b"1")[1..], [15; 15]);
    }

    #[test]
    fn bad_padding_is_one_error_whatever_is_wrong_with_it() {
        for bad in [0_u8, 17, 255] {
            assert_eq!(length(16, &[&[0; 15][..], &[bad]].concat()), None);
        }
        assert_eq!(length(16, &[&[0; 13][..], &[2, 3, 3]].concat()), None);
        assert_eq!(length(16, &[]), None);
        assert_eq!(length(16, &[16; 16]), Some(0));
    }

    #[test]
    fn messages_for_a_retail_mac_are_padded_as_iso_9797_1_says() {
        let pad = |method, message: &[u8]| for_mac(method, message, &mut Scratch::new()).to_vec();
        assert_eq!(pad(MacPadding::Method1, b""), [0; 8]);
        assert_eq!(pad(MacPadding::Method1, b"12345678"), *b"12345678");
        assert_eq!(pad(MacPadding::Method1, b"1"), *b"1\0\0\0\0\0\0\0");
        assert_eq!(pad(MacPadding::Method2, b""), *b"\x80\0\0\0\0\0\0\0");
        assert_eq!(pad(MacPadding::Method2, b"12345678"), *b"12345678\x80\0\0\0\0\0\0\0");
    }

    /// RFC 8017, 7.1.1, by other code than ours: the RSA block of a message.
    fn oaep(message: &[u8], label: &[u8], seed: &[u8; 32], len: usize) -> Vec<u8> {
        use sha2::{Digest, Sha256};
        let mgf = |seed: &[u8], len: usize| -> Vec<u8> {
            (0_u32..).flat_map(|i| Sha256::digest([seed, &i.to_be_bytes()].concat())).take(len).collect()
        };
        let xor =
            |one: &[u8], other: &[u8]| -> Vec<u8> { one.iter().zip(other).map(|(a, b)| a ^ b).collect() };
        let zeros = vec![0; len - message.len() - 66];
        let data = [&Sha256::digest(label)[..], &zeros, &[1], message].concat();
        let masked = xor(&data, &mgf(seed, data.len()));
        [&[0][..], &xor(seed, &mgf(&masked, 32)), &masked].concat()
    }

    proptest! {
        #[test]
        fn what_is_padded_is_found_again(message in proptest::collection::vec(any::<u8>(), 0..50)) {
            for block in [8, 16] {
                let padded = pkcs7(block, &message, &mut Scratch::new()).to_vec();
                prop_assert_eq!(length(block, &padded), Some(message.len()));
            }
        }

        #[test]
        fn pkcs7_is_judged_as_the_plain_rule_says(block in proptest::collection::vec(0_u8..20, 16..17)) {
            let pad = usize::from(block[15]);
            let good = (1..=16).contains(&pad) && block[16 - pad..].iter().all(|&byte| usize::from(byte) == pad);
            prop_assert_eq!(length(16, &block), good.then(|| 16 - pad));
        }

        #[test]
        fn oaep_is_taken_off_and_any_flipped_bit_is_refused(
            message in proptest::collection::vec(any::<u8>(), 0..=62),
            label in proptest::collection::vec(any::<u8>(), 0..20),
            seed: [u8; 32],
            flip in 0_usize..128 * 8,
        ) {
            let mut block = oaep(&message, &label, &seed, 128);
            let mut flipped = block.clone();
            let len = take_oaep(Hash::Sha256, &label, &mut block).unwrap();
            prop_assert_eq!(&block[..len], &message[..]);
            flipped[flip / 8] ^= 1 << (flip % 8);
            prop_assert!(take_oaep(Hash::Sha256, &label, &mut flipped).is_err());
        }

        #[test]
        fn pkcs1_is_judged_as_the_plain_rule_says(
            head in 0_u8..2,
            two in 1_u8..4,
            rest in proptest::collection::vec(0_u8..4, 30),
        ) {
            let mut block = [&[head, two][..], &rest].concat();
            let zero = rest.iter().position(|&byte| byte == 0);
            let good = head == 0 && two == 2 && zero.is_some_and(|zero| zero >= 8);
            let expected = good.then(|| rest[zero.unwrap() + 1..].to_vec());
            let taken = take_pkcs1(&mut block);
            if let Err(error) = &taken {
                prop_assert_eq!((error.kind(), error.outcome()), (ErrorKind::DecryptFailed, Outcome::Done));
            }
            prop_assert_eq!(taken.ok().map(|len| block[..len].to_vec()), expected);
        }
    }
}
