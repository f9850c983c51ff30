//! The vectors of `docs/message-format.toml`, which other software has made: each is built here by hand from the document,
//! with RustCrypto's HMAC and AES-GCM, and is what the engine makes and reads.

use aes_gcm::aead::Aead;
use aes_gcm::{Aes256Gcm, KeyInit};
use hmac::{Hmac, Mac};
use serde::Deserialize;
use sha2::Sha256;

use super::super::chunks::MessageKey;
use super::*;
use crate::message::vectors::{encoded, plaintext, unhex};

#[derive(Deserialize)]
struct Vectors {
    envelopes: Vec<EnvelopeVector>,
}

#[derive(Deserialize)]
struct EnvelopeVector {
    name: String,
    data_key: String,
    wrapped: String,
    message_id: String,
    chunk_size: usize,
    context: Vec<(String, String)>,
    plaintext_len: usize,
    message: String,
}

/// Knows the data key of one vector, and unwraps what that says.
struct Known<'a>(&'a EnvelopeVector);

impl DataKeyProvider for Known<'_> {
    fn generate(&self, _context: &EncryptionContext) -> Result<GeneratedDataKey> {
        let key = DataKey::try_from(unhex(&self.0.data_key))?;
        Ok(GeneratedDataKey { key, wrapped: unhex(&self.0.wrapped) })
    }

    fn unwrap(&self, wrapped: &[u8], _context: &EncryptionContext) -> Result<DataKey> {
        assert_eq!(wrapped, unhex(&self.0.wrapped));
        DataKey::try_from(unhex(&self.0.data_key))
    }
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key).unwrap();
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().to_vec()
}

/// The message by the document: HKDF as RFC 5869 has it, chunks in STREAM.
fn by_hand(vector: &EnvelopeVector) -> Vec<u8> {
    let message_id = unhex(&vector.message_id);
    let exponent = u8::try_from(vector.chunk_size.trailing_zeros()).unwrap();
    let fixed = [b"HSXE\x01\x01", &[exponent][..], &message_id].concat();
    let prk = hmac(&message_id, &[&unhex(&vector.data_key)]);
    let info = [b"hsmux.envelope.v1", &fixed[..], &encoded(&vector.context)].concat();
    let key = hmac(&prk, &[&info, &[1]]);
    let commitment = hmac(&prk, &[&key, &info, &[2]]);
    let wrapped = unhex(&vector.wrapped);
    let wrapped_len = u16::try_from(wrapped.len()).unwrap().to_be_bytes();
    let mut message = [&fixed[..], &wrapped_len, &wrapped, &commitment].concat();

    let cipher = Aes256Gcm::new_from_slice(&key).unwrap();
    let text = plaintext(vector.plaintext_len);
    let mut chunks: Vec<&[u8]> = text.chunks(vector.chunk_size).collect();
    if chunks.is_empty() {
        chunks.push(&[]);
    }
    for (i, chunk) in chunks.iter().enumerate() {
        let mut nonce = [0; 12];
        nonce[3..11].copy_from_slice(&(i as u64).to_be_bytes());
        nonce[11] = u8::from(i + 1 == chunks.len());
        message.extend(cipher.encrypt(&nonce.into(), *chunk).unwrap());
    }
    message
}

#[test]
fn the_vectors_are_what_the_document_says_and_what_the_engine_makes_and_reads() {
    let text = include_str!("../../../docs/message-format.toml");
    let vectors = toml::from_str::<Vectors>(text).unwrap().envelopes;
    assert_eq!(vectors.len(), 9);
    for vector in &vectors {
        let name = &vector.name;
        let (message, text) = (unhex(&vector.message), plaintext(vector.plaintext_len));
        assert_eq!(by_hand(vector), message, "{name}");

        let context = EncryptionContext::try_from(vector.context.clone()).unwrap();
        let envelope = Envelope::new(Known(vector));
        assert_eq!(envelope.open(&message, &context).unwrap().as_bytes(), text, "{name}");
        let mut streamed = Vec::new();
        envelope.reader(&message[..], &context).unwrap().read_to_end(&mut streamed).unwrap();
        assert_eq!(streamed, text, "{name}");

        let GeneratedDataKey { key, wrapped } = Known(vector).generate(&context).unwrap();
        let message_id = unhex(&vector.message_id).try_into().unwrap();
        let fixed = header::fixed(ChunkSize::new(vector.chunk_size).unwrap(), &message_id);
        let (message_key, commitment) = MessageKey::derive(&key, &fixed, &context).unwrap();
        let held = Arc::new(Held::new(key, wrapped));
        let begun = Begun { held, fixed, commitment, key: message_key };
        let mut sealed = Vec::new();
        begun.seal_behind(&text, vector.chunk_size, &mut sealed).unwrap();
        assert_eq!(sealed, message, "{name}");
    }
}
