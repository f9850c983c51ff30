//! Symmetric ciphers in software, with the IV in front as the engine has it.

use aes::cipher::{Array, BlockCipherEncrypt, KeyIvInit, StreamCipher};
use aes_gcm::aead::{Aead, Payload};
use cbc::cipher::BlockModeEncrypt;
use cbc::cipher::block_padding::{NoPadding, Pkcs7};
use cmac::{KeyInit, Mac};
use des::TdesEde3;

type Aes256 = aes::Aes256;

/// `iv || body || tag`. None for messages of more than 64 GiB only.
pub(super) fn gcm(key: &[u8; 32], iv: &[u8; 12], message: &[u8], aad: &[u8]) -> Option<Vec<u8>> {
    let cipher = aes_gcm::Aes256Gcm::new(key.into());
    let sealed = cipher.encrypt(iv.into(), Payload { msg: message, aad }).ok()?;
    Some([&iv[..], &sealed].concat())
}

/// The message in `iv || body || tag`, if the tag is right.
pub(super) fn open_gcm(key: &[u8; 32], sealed: &[u8], aad: &[u8]) -> Option<Vec<u8>> {
    let (iv, msg) = sealed.split_first_chunk::<12>()?;
    aes_gcm::Aes256Gcm::new(key.into()).decrypt(iv.into(), Payload { msg, aad }).ok()
}

/// Whole blocks, one by one.
pub(super) fn aes_ecb(key: &[u8; 32], message: &[u8]) -> Vec<u8> {
    ecb(&Aes256::new(key.into()), message)
}

/// Whole blocks, one by one.
pub(super) fn des_ecb(key: &[u8; 24], message: &[u8]) -> Vec<u8> {
    ecb(&TdesEde3::new(key.into()), message)
}

fn ecb<C: BlockCipherEncrypt>(cipher: &C, message: &[u8]) -> Vec<u8> {
    let mut bytes = message.to_vec();
    for block in bytes.chunks_exact_mut(C::block_size()) {
        if let Ok(block) = <&mut Array<u8, C::BlockSize>>::try_from(block) {
            cipher.encrypt_block(block);
        }
    }
    bytes
}

/// `iv || body` of whole blocks.
pub(super) fn aes_cbc(key: &[u8; 32], iv: &[u8; 16], message: &[u8]) -> Vec<u8> {
    let cipher = cbc::Encryptor::<Aes256>::new(key.into(), iv.into());
    [&iv[..], &cipher.encrypt_padded_vec::<NoPadding>(message)].concat()
}

/// `iv || body`, padded.
pub(super) fn aes_cbc_padded(key: &[u8; 32], iv: &[u8; 16], message: &[u8]) -> Vec<u8> {
    let cipher = cbc::Encryptor::<Aes256>::new(key.into(), iv.into());
    [&iv[..], &cipher.encrypt_padded_vec::<Pkcs7>(message)].concat()
}

/// `iv || body`, padded.
pub(super) fn des_cbc(key: &[u8; 24], iv: &[u8; 8], message: &[u8]) -> Vec<u8> {
    let cipher = cbc::Encryptor::<TdesEde3>::new(key.into(), iv.into());
    [&iv[..], &cipher.encrypt_padded_vec::<Pkcs7>(message)].concat()
}

/// `counter block || body`.
pub(super) fn aes_ctr(key: &[u8; 32], iv: &[u8; 16], message: &[u8]) -> Vec<u8> {
    let mut bytes = [&iv[..], message].concat();
    // The block counts in its last 32 bits; whoever made it saw that those do not overflow.
    ctr::Ctr32BE::<Aes256>::new(key.into(), iv.into()).apply_keystream(&mut bytes[16..]);
    bytes
}

pub(super) fn aes_cmac(key: &[u8; 32], message: &[u8]) -> Vec<u8> {
    let mut mac = cmac::Cmac::<Aes256>::new(key.into());
    mac.update(message);
    mac.finalize().into_bytes().to_vec()
}

pub(super) fn des_cmac(key: &[u8; 24], message: &[u8]) -> Vec<u8> {
    let mut mac = cmac::Cmac::<TdesEde3>::new(key.into());
    mac.update(message);
    mac.finalize().into_bytes().to_vec()
}
