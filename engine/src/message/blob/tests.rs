use std::cell::Cell;

use proptest::prelude::*;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use super::*;
use crate::mutation::{Mutation, single_bits};

const KEY_ID: &str = "card-data.7";

/// A key on the host in place of one in a token; counts what it is asked.
struct LocalKey {
    key: LessSafeKey,
    calls: Cell<usize>,
}

impl LocalKey {
    fn new() -> Self {
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[7; 32]).unwrap());
        Self { key, calls: Cell::new(0) }
    }

    fn encrypt(&self, plaintext: &[u8], context: &EncryptionContext) -> Blob {
        let header = BlobHeader::new(KEY_ID, version(3), BlobAlgorithm::AesGcm, plaintext.len()).unwrap();
        let mut sealed = plaintext.to_vec();
        let aad = Aad::from(header.additional_data(context));
        self.key.seal_in_place_append_tag(nonce(&[5; 12]), aad, &mut sealed).unwrap();
        header.blob(&[&[5; 12], &sealed[..]].concat()).unwrap()
    }

    /// As a caller would: the blob is parsed, its key is looked up, and only then asked.
    fn decrypt(&self, bytes: &[u8], context: &EncryptionContext) -> Result<Vec<u8>> {
        let blob = BlobRef::parse(bytes)?;
        if (blob.key_id(), blob.key_version()) != (KEY_ID, version(3)) {
            return Err(Error::refused(ErrorKind::KeyNotFound, "another key"));
        }
        self.calls.set(self.calls.get() + 1);
        let mut sealed = [blob.ciphertext(), blob.tag()].concat();
        let aad = Aad::from(blob.additional_data(context));
        let opened = self.key.open_in_place(nonce(blob.iv()), aad, &mut sealed);
        opened.map(|plaintext| plaintext.to_vec()).map_err(|_| Error::decrypt_failed())
    }
}

fn nonce(iv: &[u8]) -> Nonce {
    Nonce::try_assume_unique_for_key(iv).unwrap()
}

fn version(version: u32) -> NonZeroU32 {
    NonZeroU32::new(version).unwrap()
}

fn context() -> EncryptionContext {
    EncryptionContext::try_from([("tenant", "7"), ("purpose", "cards")]).unwrap()
}

fn refusal(bytes: &[u8]) -> String {
    let error = BlobRef::parse(bytes).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    error.why().into()
}

#[test]
fn a_blob_has_the_bytes_of_the_document() {
    let blob = LocalKey::new().encrypt(b"four", &context());
    let header = b"HSXB\x01\x01\x0bcard-data.7\0\0\0\x03\0\0\0\x04";
    assert_eq!(blob.as_bytes()[..header.len()], header[..]);
    let parts = blob.parts();
    assert_eq!(parts.sealed(), &blob.as_bytes()[header.len()..]);
    assert_eq!((parts.key_id(), parts.key_version()), (KEY_ID, version(3)));
    assert_eq!((parts.iv(), parts.ciphertext().len(), parts.tag().len()), (&[5; 12][..], 4, 16));
    assert_eq!([parts.iv(), parts.ciphertext(), parts.tag()].concat(), parts.sealed());
    let aad = [b"hsmux.message.v1", &header[..], context().as_encoded()].concat();
    assert_eq!(parts.additional_data(&context()), aad);
}

#[test]
fn every_fault_of_a_header_is_named() {
    let blob = LocalKey::new().encrypt(b"four", &context()).into_vec();
    let refused = |at: usize, byte: u8| {
        let mut bytes = blob.clone();
        bytes[at] = byte;
        refusal(&bytes)
    };
    assert_eq!(refused(0, b'h'), "not a message: it does not begin as a blob does");
    assert_eq!(refused(4, 2), "not a message: its format version is not known");
    assert_eq!(refused(4, 0), "not a message: its format version is not known");
    for number in [0, 2, 255] {
        assert_eq!(refused(5, number), "not a message: its algorithm is not known");
    }
    assert_eq!(refused(6, 0), "not a message: its key id is not 1 to 128 of A-Z a-z 0-9 . _ -");
    assert_eq!(refused(7, b' '), "not a message: its key id is not 1 to 128 of A-Z a-z 0-9 . _ -");
    assert_eq!(refused(7, 0xFF), "not a message: its key id is not 1 to 128 of A-Z a-z 0-9 . _ -");
    assert_eq!(refused(21, 0), "not a message: its key version is 0");
    assert_eq!(refused(25, 5), "not a message: it is cut off");
    assert_eq!(refused(25, 3), "not a message: bytes follow its end");
}

#[test]
fn a_blob_that_is_cut_off_or_goes_on_is_refused_at_every_length() {
    let blob = LocalKey::new().encrypt(b"four", &context()).into_vec();
    for len in 0..blob.len() {
        assert_eq!(refusal(&blob[..len]), "not a message: it is cut off", "{len}");
    }
    for more in [&[0][..], &[0; 16], &blob] {
        assert_eq!(refusal(&[&blob, more].concat()), "not a message: bytes follow its end");
    }
}

#[test]
fn key_ids_have_1_to_128_of_the_known_characters() {
    let of = |key_id: &str| BlobHeader::new(key_id, version(1), BlobAlgorithm::AesGcm, 0);
    for key_id in ["a", "A-Z.a_z-09", &"k".repeat(128)] {
        let blob = of(key_id).unwrap().blob(&[0; 28]).unwrap();
        assert_eq!((blob.parts().key_id(), blob.as_bytes().len()), (key_id, 43 + key_id.len()));
    }
    for key_id in ["", "a b", "a/b", "ä", "a\0", &"k".repeat(129), &"k".repeat(256)] {
        assert_eq!(of(key_id).unwrap_err().kind(), ErrorKind::InvalidInput, "{key_id}");
    }
}

#[test]
fn messages_of_4_gib_and_ciphertexts_of_another_length_are_refused() {
    let of = |len: usize| BlobHeader::new(KEY_ID, version(1), BlobAlgorithm::AesGcm, len);
    assert!(of(u32::MAX as usize).is_ok());
    assert_eq!(of(1 << 32).unwrap_err().kind(), ErrorKind::InvalidInput);
    for len in [0, 31, 33] {
        assert_eq!(of(4).unwrap().blob(&vec![0; len]).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}

#[test]
fn a_blob_opens_with_its_context_only() {
    let key = LocalKey::new();
    let blob = key.encrypt(b"four", &context()).into_vec();
    assert_eq!(key.decrypt(&blob, &context()).unwrap(), b"four");
    for pairs in [
        vec![],
        vec![("tenant", "7")],
        vec![("tenant", "8"), ("purpose", "cards")],
        vec![("tenant", "7"), ("purpose", "cards"), ("more", "")],
        // The same text, cut elsewhere or on the other side.
        vec![("tenan", "t7"), ("purpose", "cards")],
        vec![("tenant7", ""), ("purpose", "cards")],
        vec![("7", "tenant"), ("purpose", "cards")],
        vec![("tenant", "cards"), ("purpose", "7")],
    ] {
        let other = EncryptionContext::try_from(pairs.clone()).unwrap();
        let refused = key.decrypt(&blob, &other).unwrap_err();
        assert_eq!((refused.kind(), refused.why()), (ErrorKind::DecryptFailed, ""), "{pairs:?}");
    }
}

#[test]
fn debug_forms_show_lengths_only() {
    let blob = LocalKey::new().encrypt(b"four", &context());
    assert_eq!(format!("{blob:?}"), "Blob(58 bytes)");
    assert_eq!(format!("{:?}", blob.parts()), "BlobRef(58 bytes)");
    let header = BlobHeader::new(KEY_ID, version(1), BlobAlgorithm::AesGcm, 4).unwrap();
    assert_eq!(format!("{header:?}"), "BlobHeader(AesGcm, 4 bytes)");
}

/// 10^5 altered blobs, of which none opens. What alters the header's form never comes to the key.
#[test]
fn no_altered_blob_opens() {
    let key = LocalKey::new();
    let (mut altered, mut refused_before) = (0, 0);
    let mut check = |blob: &[u8], bytes: &[u8]| {
        if bytes == blob {
            return;
        }
        let calls = key.calls.get();
        let error = key.decrypt(bytes, &context()).unwrap_err();
        altered += 1;
        match error.kind() {
            ErrorKind::DecryptFailed => assert_eq!(error.why(), "", "one error for all"),
            _ => {
                refused_before += 1;
                assert_eq!(key.calls.get(), calls, "a token would have been asked: {error}");
            }
        }
    };
    for len in [0, 1, 16, 100, 300] {
        let blob = key.encrypt(&vec![0xA5; len], &context()).into_vec();
        single_bits(&blob).for_each(|bytes| check(&blob, &bytes));
        Mutation::some(&blob, 21_000).for_each(|bytes| check(&blob, &bytes));
    }
    assert!(altered >= 100_000 && refused_before > 0, "{altered} altered, {refused_before} refused before");
}

proptest! {
    #[test]
    fn what_is_made_is_read_and_opens(
        plaintext in proptest::collection::vec(any::<u8>(), 0..200),
        pairs in proptest::collection::btree_map(".{1,9}", ".{0,9}", 0..5),
    ) {
        let pairs: Vec<(String, String)> = pairs.into_iter().collect();
        let context = EncryptionContext::try_from(pairs).unwrap();
        let key = LocalKey::new();
        let blob = key.encrypt(&plaintext, &context);
        prop_assert_eq!(&key.decrypt(blob.as_bytes(), &context).unwrap(), &plaintext);
        prop_assert_eq!(Blob::parse(blob.as_bytes().to_vec()).unwrap(), blob);
    }

    /// Whatever parses is, byte for byte, what its parts encode to.
    #[test]
    fn every_blob_has_one_encoding(
        (id_len, key_id) in (0..5_u8, "[A-Za-z0-9._ -]{0,4}"),
        (number, version, len) in (0..3_u8, 0..3_u32, 0..4_u32),
        rest in proptest::collection::vec(any::<u8>(), 26..34),
    ) {
        let numbers = [version.to_be_bytes(), len.to_be_bytes()].concat();
        let bytes = [b"HSXB\x01", &[number, id_len][..], key_id.as_bytes(), &numbers, &rest].concat();
        if let Ok(read) = BlobRef::parse(&bytes) {
            let plaintext_len = read.ciphertext().len();
            let header = BlobHeader::new(read.key_id(), read.key_version(), read.algorithm(), plaintext_len);
            let again = header.unwrap().blob(read.sealed()).unwrap();
            prop_assert_eq!(again.as_bytes(), bytes);
        }
    }
}
