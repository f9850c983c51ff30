//! Envelope messages whole: made, altered, streamed, and their data keys counted.

mod altered;
mod keys;
mod streams;
mod vectors;

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use proptest::prelude::*;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use super::data_key::{DataKey, GeneratedDataKey};
use super::header::ChunkSize;
use super::*;
use crate::message::blob::{BlobAlgorithm, BlobHeader, BlobRef};

/// Wraps data keys in blobs, by a key on the host in place of one in a token. Counts what it is asked.
struct Vault {
    key: LessSafeKey,
    generated: AtomicUsize,
    unwrapped: AtomicUsize,
    epoch: AtomicU64,
}

impl Vault {
    fn new() -> Self {
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[3; 32]).unwrap());
        Self { key, generated: 0.into(), unwrapped: 0.into(), epoch: 0.into() }
    }

    fn generated(&self) -> usize {
        self.generated.load(Ordering::SeqCst)
    }

    fn unwrapped(&self) -> usize {
        self.unwrapped.load(Ordering::SeqCst)
    }

    fn wrap(&self, data_key: &DataKey, context: &EncryptionContext) -> Vec<u8> {
        let header = BlobHeader::new("vault", NonZeroU32::MIN, BlobAlgorithm::AesGcm, DataKey::LEN).unwrap();
        let mut iv = [0; 12];
        getrandom::fill(&mut iv).unwrap();
        let mut sealed = data_key.as_bytes().to_vec();
        let aad = Aad::from(header.additional_data(context));
        self.key.seal_in_place_append_tag(Nonce::assume_unique_for_key(iv), aad, &mut sealed).unwrap();
        header.blob(&[&iv[..], &sealed].concat()).unwrap().into_vec()
    }

    fn open(&self, wrapped: &[u8], context: &EncryptionContext) -> Result<DataKey> {
        let blob = BlobRef::parse(wrapped).map_err(|_| Error::decrypt_failed())?;
        let mut sealed = [blob.ciphertext(), blob.tag()].concat();
        let nonce = Nonce::try_assume_unique_for_key(blob.iv()).unwrap();
        let aad = Aad::from(blob.additional_data(context));
        let key = self.key.open_in_place(nonce, aad, &mut sealed).map_err(|_| Error::decrypt_failed())?;
        DataKey::take(key)
    }
}

impl DataKeyProvider for Vault {
    fn generate(&self, context: &EncryptionContext) -> Result<GeneratedDataKey> {
        self.generated.fetch_add(1, Ordering::SeqCst);
        let key = DataKey::random()?;
        let wrapped = self.wrap(&key, context);
        Ok(GeneratedDataKey { key, wrapped })
    }

    fn unwrap(&self, wrapped: &[u8], context: &EncryptionContext) -> Result<DataKey> {
        self.unwrapped.fetch_add(1, Ordering::SeqCst);
        self.open(wrapped, context)
    }

    fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }
}

/// The smallest chunks, so that messages of many are short.
const CHUNK: usize = 1_024;

fn envelope() -> Envelope<Vault> {
    Envelope::with(Vault::new(), EnvelopeSettings::default().chunk_size(ChunkSize::new(CHUNK).unwrap()))
}

fn context() -> EncryptionContext {
    EncryptionContext::try_from([("tenant", "7"), ("purpose", "cards")]).unwrap()
}

/// So many bytes of which no two chunks are alike.
fn plaintext(len: usize) -> Vec<u8> {
    (0..251).cycle().take(len).collect()
}

/// Lengths around every border up to three chunks.
fn lengths() -> impl Iterator<Item = usize> {
    (0..=3).flat_map(|chunks| (chunks * CHUNK).saturating_sub(17)..=chunks * CHUNK + 17)
}

fn refused<T>(outcome: Result<T>) -> (ErrorKind, String) {
    let error = outcome.err().expect("it must be refused");
    (error.kind(), error.why().into())
}

fn decrypt_failed() -> (ErrorKind, String) {
    (ErrorKind::DecryptFailed, String::new())
}

#[test]
fn messages_of_every_length_around_chunks_open_to_what_was_sealed() {
    let envelope = envelope();
    for len in lengths() {
        let message = envelope.seal(&plaintext(len), &context()).unwrap();
        assert_eq!(envelope.open(&message, &context()).unwrap().as_bytes(), plaintext(len), "{len}");
        let header = EnvelopeHeader::parse(&message).unwrap().as_bytes().len();
        let chunks = len.div_ceil(CHUNK).max(1);
        assert_eq!(message.len(), header + len + chunks * 16, "{len} bytes in {chunks} chunks");
    }
}

#[test]
fn a_message_is_sealed_behind_what_is_there() {
    let (envelope, mut out) = (envelope(), b"front".to_vec());
    envelope.seal_into(&plaintext(3_000), &context(), &mut out).unwrap();
    let message = out.strip_prefix(b"front").unwrap();
    assert_eq!(envelope.open(message, &context()).unwrap().as_bytes(), plaintext(3_000));
    assert!(out.len() > out.capacity() - 16, "it grows once, to what is needed: {} bytes", out.capacity());
}

#[test]
fn a_message_is_sealed_where_its_text_lies() {
    let envelope = envelope();
    for (len, room) in lengths().flat_map(|len| [(len, 0), (len, 10_000)]) {
        let mut buffer = Vec::with_capacity(len + room);
        buffer.extend(plaintext(len));
        let at = buffer.as_ptr();
        envelope.seal_in_place(&mut buffer, &context()).unwrap();
        assert_eq!(buffer.as_ptr() == at, room > 0, "in the same memory if there is room: {len}");
        assert_eq!(envelope.open(&buffer, &context()).unwrap().as_bytes(), plaintext(len), "{len}");
        assert_eq!(buffer.len(), envelope.seal(&plaintext(len), &context()).unwrap().len(), "{len}");
    }
}

#[test]
fn a_message_is_opened_behind_what_is_there_or_nothing_is() {
    let (envelope, mut out) = (envelope(), b"front".to_vec());
    let mut message = envelope.seal(&plaintext(3_000), &context()).unwrap();
    envelope.open_into(&message, &context(), &mut out).unwrap();
    assert_eq!(out, [b"front", &plaintext(3_000)[..]].concat());
    // The last chunk is not authentic; two have been opened before.
    *message.last_mut().unwrap() ^= 1;
    let mut out = b"front".to_vec();
    assert_eq!(refused(envelope.open_into(&message, &context(), &mut out)), decrypt_failed());
    assert_eq!(out, b"front");
}

#[test]
fn the_same_text_is_never_sealed_to_the_same_bytes() {
    let envelope = envelope();
    let (one, other) =
        (envelope.seal(b"text", &context()).unwrap(), envelope.seal(b"text", &context()).unwrap());
    let (one, other) = (one.last_chunk::<20>().unwrap(), other.last_chunk::<20>().unwrap());
    assert_ne!(one, other, "one data key, another message id");
}

#[test]
fn a_message_opens_whatever_chunks_it_is_cut_into() {
    let vault = Arc::new(Vault::new());
    let reader = Envelope::new(Arc::clone(&vault));
    for exponent in 10..=20 {
        let settings = EnvelopeSettings::default().chunk_size(ChunkSize::new(1 << exponent).unwrap());
        let message =
            Envelope::with(Arc::clone(&vault), settings).seal(&plaintext(70_000), &context()).unwrap();
        assert_eq!(reader.open(&message, &context()).unwrap().as_bytes(), plaintext(70_000));
    }
}

#[test]
fn a_data_key_is_wrapped_anew_without_touching_the_chunks() {
    let envelope = envelope();
    let message = envelope.seal(&plaintext(3_000), &context()).unwrap();
    let header = EnvelopeHeader::parse(&message).unwrap();
    let vault = envelope.provider();
    let data_key = vault.open(header.wrapped_key(), &context()).unwrap();
    let anew = header.with_wrapped_key(&vault.wrap(&data_key, &context())).unwrap();
    let chunks = &message[header.as_bytes().len()..];
    assert_eq!(envelope.open(&[&anew, chunks].concat(), &context()).unwrap().as_bytes(), plaintext(3_000));
    // Another key under the same header is found by the commitment.
    let other = header.with_wrapped_key(&vault.wrap(&DataKey::random().unwrap(), &context())).unwrap();
    assert_eq!(refused(envelope.open(&[&other, chunks].concat(), &context())), decrypt_failed());
}

#[test]
fn debug_forms_show_numbers_only() {
    let envelope = envelope();
    envelope.seal(b"text", &context()).unwrap();
    assert_eq!(format!("{envelope:?}"), "Envelope { kept: 1, .. }");
}

proptest! {
    #[test]
    fn what_is_sealed_opens(
        plaintext in proptest::collection::vec(any::<u8>(), 0..4_000),
        pairs in proptest::collection::btree_map(".{1,9}", ".{0,9}", 0..5),
    ) {
        let pairs: Vec<(String, String)> = pairs.into_iter().collect();
        let context = EncryptionContext::try_from(pairs).unwrap();
        let envelope = envelope();
        let message = envelope.seal(&plaintext, &context).unwrap();
        let opened = envelope.open(&message, &context).unwrap();
        prop_assert_eq!(opened.as_bytes(), plaintext);
    }
}
