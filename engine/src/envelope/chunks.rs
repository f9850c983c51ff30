//! The chunks of one message: AES-256-GCM in the STREAM construction, under a key of the message's own.
//!
//! STREAM (Hoang, Reyhanitabar, Rogaway, Vizár: Online Authenticated-Encryption and its Nonce-Reuse Misuse-Resistance,
//! CRYPTO 2015) numbers the chunks in their nonces and marks the last one there: a chunk that is moved, repeated or
//! missing, and a message that is cut, meet a nonce under which nothing was sealed.

use std::ops::Range;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, MAX_TAG_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, KeyType, Salt};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::data_key::DataKey;
use super::header::{COMMITMENT_LEN, EnvelopeHeader, Fixed, message_id};
use crate::error::{Error, ErrorKind, Result};
use crate::message::context::EncryptionContext;

/// Length of the tag of a chunk.
pub(super) const TAG_LEN: usize = MAX_TAG_LEN;

/// Most chunks of a message: their numbers have 32 bits. With the largest chunks that is 2^52 bytes, 2^48 blocks under one
/// key, where AES-GCM is told from random with a chance of 2^-33 (NIST SP 800-38D, 8.3 allows 2^32 calls).
const CHUNKS_MAX: u64 = 1 << 32;

/// In front of what the message's key is derived from.
const LABEL: &[u8] = b"hsmux.envelope.v1";

const KEY_LEN: usize = 32;

/// The key of one message, and which chunk is next.
pub(super) struct MessageKey {
    key: LessSafeKey,
    /// None once the last chunk was sealed or opened.
    next: Option<u32>,
}

pub(super) type Commitment = [u8; COMMITMENT_LEN];

/// What HKDF is to yield.
struct Derived;

impl KeyType for Derived {
    fn len(&self) -> usize {
        KEY_LEN + COMMITMENT_LEN
    }
}

impl MessageKey {
    /// The key of a message, and the commitment to it. The front of the header and the context are in both.
    pub(super) fn derive(
        data_key: &DataKey,
        fixed: &Fixed,
        context: &EncryptionContext,
    ) -> Result<(Self, Commitment)> {
        let impossible = |_| Error::internal("a key of 32 bytes could not be derived");
        let mut derived = Zeroizing::new([0; KEY_LEN + COMMITMENT_LEN]);
        let prk = Salt::new(HKDF_SHA256, message_id(fixed)).extract(data_key.as_bytes());
        let info = [LABEL, fixed, context.as_encoded()];
        prk.expand(&info, Derived).and_then(|okm| okm.fill(&mut *derived)).map_err(impossible)?;
        let (key, rest) = derived.split_at(KEY_LEN);
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).map_err(impossible)?);
        let mut commitment = [0; COMMITMENT_LEN];
        commitment.copy_from_slice(rest);
        Ok((Self { key, next: Some(0) }, commitment))
    }

    /// The key of the message that has this header.
    ///
    /// # Errors
    /// `DecryptFailed` if the header was made for another data key or context, or is not as it was made.
    pub(super) fn of(
        header: &EnvelopeHeader<'_>,
        data_key: &DataKey,
        context: &EncryptionContext,
    ) -> Result<Self> {
        let (key, commitment) = Self::derive(data_key, header.fixed(), context)?;
        // One data key for each message: else one could be made that opens to two texts under two keys, for AES-GCM
        // alone does not tell them apart.
        let same: bool = commitment.ct_eq(header.commitment()).into();
        if same { Ok(key) } else { Err(Error::decrypt_failed()) }
    }

    /// Seals the next chunk where it lies; returns its tag.
    ///
    /// # Errors
    /// `InvalidInput` after 2^32 chunks.
    pub(super) fn seal(&mut self, chunk: &mut [u8], last: bool) -> Result<impl AsRef<[u8]> + use<>> {
        let nonce = self.step(last).ok_or_else(too_long)?;
        self.key.seal_in_place_separate_tag(nonce, Aad::empty(), chunk).map_err(not_sealed)
    }

    /// Seals the chunks of a whole message, the last one first: `place` puts the chunk of this number into its place, behind
    /// which is room for its tag, and says where that is.
    pub(super) fn seal_backwards(
        self,
        chunks: usize,
        buffer: &mut [u8],
        place: impl Fn(usize, &mut [u8]) -> Range<usize>,
    ) -> Result<()> {
        for number in (0..chunks).rev() {
            let range = place(number, buffer);
            // The key is used up here, and each number comes once.
            let nonce = nonce(u32::try_from(number).map_err(|_| too_long())?, number == chunks - 1);
            let (chunk, rest) = buffer[range.start..].split_at_mut(range.len());
            let tag = self.key.seal_in_place_separate_tag(nonce, Aad::empty(), chunk).map_err(not_sealed)?;
            rest[..TAG_LEN].copy_from_slice(tag.as_ref());
        }
        Ok(())
    }

    /// Opens the next chunk where it lies, the tag at its end; returns how many bytes of plaintext are at its front.
    ///
    /// # Errors
    /// `DecryptFailed` for everything else than the next chunk; what lies there is no plaintext then.
    pub(super) fn open(&mut self, chunk_and_tag: &mut [u8], last: bool) -> Result<usize> {
        // An empty chunk is the whole message: else a message whose length is a multiple of the chunk size could have
        // two encodings.
        let is_first = self.next == Some(0);
        if chunk_and_tag.len() == TAG_LEN && !is_first {
            return Err(Error::decrypt_failed());
        }
        let nonce = self.step(last).ok_or_else(Error::decrypt_failed)?;
        let opened = self.key.open_in_place(nonce, Aad::empty(), chunk_and_tag);
        opened.map(|plaintext| plaintext.len()).map_err(|_| Error::decrypt_failed())
    }

    /// The nonce of the next chunk. None is ever the same: the key has no other chunk of this number.
    fn step(&mut self, last: bool) -> Option<Nonce> {
        let number = self.next?;
        self.next = if last { None } else { number.checked_add(1) };
        Some(nonce(number, last))
    }
}

/// The number of a chunk in 11 bytes, and one that is 1 for the last.
fn nonce(number: u32, last: bool) -> Nonce {
    let mut nonce = [0; 12];
    nonce[7..11].copy_from_slice(&number.to_be_bytes());
    nonce[11] = last.into();
    Nonce::assume_unique_for_key(nonce)
}

fn not_sealed(_: ring::error::Unspecified) -> Error {
    Error::internal("a chunk could not be sealed")
}

/// How many chunks a message has.
///
/// # Errors
/// `InvalidInput` if they are more than there are numbers.
pub(super) fn count(plaintext_len: usize, chunk_len: usize) -> Result<usize> {
    let chunks = plaintext_len.div_ceil(chunk_len).max(1);
    if chunks as u64 > CHUNKS_MAX { Err(too_long()) } else { Ok(chunks) }
}

/// The error of a message with more chunks than there are numbers.
fn too_long() -> Error {
    Error::refused(ErrorKind::InvalidInput, "a message of more than 4294967296 chunks")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(data_key: u8, fixed: u8, context: &EncryptionContext) -> (MessageKey, Commitment) {
        MessageKey::derive(&DataKey::take(&mut [data_key; 32]).unwrap(), &[fixed; 39], context).unwrap()
    }

    #[test]
    fn the_data_key_the_header_and_the_context_are_in_key_and_commitment() {
        let (empty, some) =
            (EncryptionContext::empty(), EncryptionContext::try_from([("tenant", "7")]).unwrap());
        let sealed = |data_key, fixed, context: &EncryptionContext| {
            let (mut key, commitment) = key(data_key, fixed, context);
            (key.seal(&mut [], true).unwrap().as_ref().to_vec(), commitment)
        };
        let (tag, commitment) = sealed(1, 1, &empty);
        assert_eq!(sealed(1, 1, &empty), (tag.clone(), commitment));
        for other in [sealed(2, 1, &empty), sealed(1, 2, &empty), sealed(1, 1, &some)] {
            assert!(other.0 != tag && other.1 != commitment);
        }
    }

    #[test]
    fn no_chunk_follows_the_last() {
        let (mut sealing, _) = key(1, 1, &EncryptionContext::empty());
        sealing.seal(&mut [0; 9], true).unwrap();
        assert_eq!(sealing.seal(&mut [0; 9], true).err().unwrap().kind(), ErrorKind::InvalidInput);
        assert_eq!(sealing.open(&mut [0; 30], true).unwrap_err().kind(), ErrorKind::DecryptFailed);
    }

    #[test]
    fn numbers_of_chunks_end_and_never_begin_anew() {
        let (mut sealing, _) = key(1, 1, &EncryptionContext::empty());
        sealing.next = Some(u32::MAX);
        sealing.seal(&mut [0; 9], false).unwrap();
        assert_eq!(sealing.seal(&mut [0; 9], false).err().unwrap().kind(), ErrorKind::InvalidInput);
    }
}
