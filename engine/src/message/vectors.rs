//! The vectors of `docs/message-format.toml`, which other software has made: each is built here by hand from the document,
//! with RustCrypto's AES-GCM, and is what the engine makes and reads.

use aes_gcm::aead::consts::U12;
use aes_gcm::aead::{Aead, Payload};
use aes_gcm::aes::Aes192;
use aes_gcm::{Aes128Gcm, Aes256Gcm, AesGcm, KeyInit};
use data_encoding::HEXLOWER;
use serde::Deserialize;

use super::blob::{Blob, BlobAlgorithm, BlobHeader, BlobRef};
use super::context::EncryptionContext;
use crate::error::ErrorKind;

#[derive(Deserialize)]
struct Vectors {
    blobs: Vec<BlobVector>,
    malformed_blobs: Vec<Malformed>,
}

#[derive(Deserialize)]
struct BlobVector {
    name: String,
    key: String,
    key_id: String,
    key_version: u32,
    iv: String,
    context: Vec<(String, String)>,
    plaintext_len: usize,
    additional_data: String,
    blob: String,
}

#[derive(Deserialize)]
struct Malformed {
    name: String,
    blob: String,
}

fn vectors() -> Vectors {
    toml::from_str(include_str!("../../docs/message-format.toml")).unwrap()
}

pub(crate) fn unhex(text: &str) -> Vec<u8> {
    HEXLOWER.decode(text.as_bytes()).unwrap()
}

/// Byte i is i mod 251.
pub(crate) fn plaintext(len: usize) -> Vec<u8> {
    (0..251).cycle().take(len).collect()
}

/// The encoding of a context by the document.
pub(crate) fn encoded(pairs: &[(String, String)]) -> Vec<u8> {
    let mut pairs = pairs.to_vec();
    pairs.sort_by(|one, other| one.0.as_bytes().cmp(other.0.as_bytes()));
    let mut bytes = u16::try_from(pairs.len()).unwrap().to_be_bytes().to_vec();
    for text in pairs.iter().flat_map(|(name, value)| [name, value]) {
        bytes.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
        bytes.extend(text.bytes());
    }
    bytes
}

fn encrypt(key: &[u8], iv: &[u8], payload: Payload<'_, '_>) -> Vec<u8> {
    let iv = iv.try_into().unwrap();
    match key.len() {
        16 => Aes128Gcm::new_from_slice(key).unwrap().encrypt(iv, payload).unwrap(),
        24 => AesGcm::<Aes192, U12>::new_from_slice(key).unwrap().encrypt(iv, payload).unwrap(),
        _ => Aes256Gcm::new_from_slice(key).unwrap().encrypt(iv, payload).unwrap(),
    }
}

/// IV, ciphertext and tag of a vector, the header before them, and what is authenticated.
fn by_hand(vector: &BlobVector) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let key_id = vector.key_id.as_bytes();
    let header = [
        b"HSXB\x01\x01",
        &[u8::try_from(key_id.len()).unwrap()][..],
        key_id,
        &vector.key_version.to_be_bytes(),
        &u32::try_from(vector.plaintext_len).unwrap().to_be_bytes(),
    ]
    .concat();
    let aad = [b"hsmux.message.v1", &header[..], &encoded(&vector.context)].concat();
    let iv = unhex(&vector.iv);
    let payload = Payload { msg: &plaintext(vector.plaintext_len), aad: &aad };
    let sealed = encrypt(&unhex(&vector.key), &iv, payload);
    (header, [iv, sealed].concat(), aad)
}

#[test]
fn the_vectors_are_what_the_document_says_and_what_the_engine_makes_and_reads() {
    let vectors = vectors().blobs;
    assert_eq!(vectors.len(), 7);
    for vector in &vectors {
        let name = &vector.name;
        let (front, sealed, aad) = by_hand(vector);
        let blob = unhex(&vector.blob);
        assert_eq!([&front[..], &sealed].concat(), blob, "{name}");
        assert_eq!(aad, unhex(&vector.additional_data), "{name}");

        let context = EncryptionContext::try_from(vector.context.clone()).unwrap();
        let version = vector.key_version.try_into().unwrap();
        let header =
            BlobHeader::new(&vector.key_id, version, BlobAlgorithm::AesGcm, vector.plaintext_len).unwrap();
        assert_eq!(header.additional_data(&context), aad, "{name}");
        assert_eq!(header.blob(&sealed).unwrap().as_bytes(), blob, "{name}");

        let read = BlobRef::parse(&blob).unwrap();
        assert_eq!((read.key_id(), read.key_version()), (&*vector.key_id, version), "{name}");
        assert_eq!((read.sealed(), read.iv()), (&sealed[..], &unhex(&vector.iv)[..]), "{name}");
        assert_eq!(read.additional_data(&context), aad, "{name}");
        assert_eq!(Blob::parse(blob.clone()).unwrap().parts(), read, "{name}");
    }
}

#[test]
fn the_malformed_vectors_are_refused() {
    let vectors = vectors().malformed_blobs;
    assert_eq!(vectors.len(), 15);
    for Malformed { name, blob } in vectors {
        let refused = BlobRef::parse(&unhex(&blob)).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{name}");
    }
}
