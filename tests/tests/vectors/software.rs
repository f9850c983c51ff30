//! Independent software: RustCrypto, by key length and mode. It shares no code with SoftHSM2, nor with the engine where
//! a token computes.

use aes::cipher::{
    BlockCipherDecrypt, BlockCipherEncrypt, BlockModeDecrypt, BlockModeEncrypt, BlockSizeUser, KeyInit,
    KeyIvInit, StreamCipher,
};
use aes_gcm::aead::{Aead, Payload};
use cmac::Mac;
use des::{Des, TdesEde2, TdesEde3};
use rsa::BoxedUint;
use softhsm_fixtures::RsaNumbers;

/// Makes a MAC of a key and a message.
pub(crate) type MakeMac = fn(&[u8], &[u8]) -> Vec<u8>;

/// Wraps a key (the second) under another.
pub(crate) type Wrap = fn(&[u8; 32], &[u8]) -> Vec<u8>;

/// Calls a function with the AES of the key's length.
macro_rules! with_aes {
    ($key:expr, $function:ident($($argument:expr),*)) => {
        match $key.len() {
            16 => $function::<aes::Aes128>($key, $($argument),*),
            24 => $function::<aes::Aes192>($key, $($argument),*),
            32 => $function::<aes::Aes256>($key, $($argument),*),
            len => panic!("no AES key has {len} bytes"),
        }
    };
}

/// Calls a function with the triple DES of the key's length.
macro_rules! with_triple_des {
    ($key:expr, $function:ident($($argument:expr),*)) => {
        match $key.len() {
            16 => $function::<TdesEde2>($key, $($argument),*),
            24 => $function::<TdesEde3>($key, $($argument),*),
            len => panic!("no triple DES key has {len} bytes"),
        }
    };
}

pub(crate) fn aes_ecb(key: &[u8], blocks: &[u8]) -> Vec<u8> {
    with_aes!(key, ecb(blocks))
}

pub(crate) fn aes_ecb_decrypt(key: &[u8], blocks: &[u8]) -> Vec<u8> {
    with_aes!(key, ecb_decrypt(blocks))
}

pub(crate) fn aes_cbc(key: &[u8], iv: &[u8], blocks: &[u8]) -> Vec<u8> {
    with_aes!(key, cbc_encrypt(iv, blocks))
}

pub(crate) fn aes_cbc_decrypt(key: &[u8], iv: &[u8], blocks: &[u8]) -> Vec<u8> {
    with_aes!(key, cbc_decrypt(iv, blocks))
}

/// The whole counter block counts.
pub(crate) fn aes_ctr(key: &[u8], block: &[u8], text: &[u8]) -> Vec<u8> {
    let mut text = text.to_vec();
    match key.len() {
        16 => ctr::Ctr128BE::<aes::Aes128>::new_from_slices(key, block).unwrap().apply_keystream(&mut text),
        24 => ctr::Ctr128BE::<aes::Aes192>::new_from_slices(key, block).unwrap().apply_keystream(&mut text),
        _ => ctr::Ctr128BE::<aes::Aes256>::new_from_slices(key, block).unwrap().apply_keystream(&mut text),
    }
    text
}

pub(crate) fn triple_des_ecb(key: &[u8], blocks: &[u8]) -> Vec<u8> {
    with_triple_des!(key, ecb(blocks))
}

pub(crate) fn triple_des_ecb_decrypt(key: &[u8], blocks: &[u8]) -> Vec<u8> {
    with_triple_des!(key, ecb_decrypt(blocks))
}

pub(crate) fn triple_des_cbc(key: &[u8], iv: &[u8], blocks: &[u8]) -> Vec<u8> {
    with_triple_des!(key, cbc_encrypt(iv, blocks))
}

pub(crate) fn triple_des_cbc_decrypt(key: &[u8], iv: &[u8], blocks: &[u8]) -> Vec<u8> {
    with_triple_des!(key, cbc_decrypt(iv, blocks))
}

/// AES-256-GCM under an IV of 12 bytes: `body || tag`.
pub(crate) fn gcm_seal(key: &[u8], iv: &[u8], aad: &[u8], msg: &[u8]) -> Vec<u8> {
    let cipher = aes_gcm::Aes256Gcm::new_from_slice(key).unwrap();
    cipher.encrypt(iv.try_into().unwrap(), Payload { msg, aad }).unwrap()
}

pub(crate) fn gcm_open(key: &[u8], iv: &[u8], aad: &[u8], msg: &[u8]) -> Option<Vec<u8>> {
    let cipher = aes_gcm::Aes256Gcm::new_from_slice(key).unwrap();
    cipher.decrypt(iv.try_into().unwrap(), Payload { msg, aad }).ok()
}

pub(crate) fn hmac_sha256(key: &[u8], message: &[u8]) -> Vec<u8> {
    mac::<hmac::Hmac<sha2::Sha256>>(key, message)
}

pub(crate) fn hmac_sha384(key: &[u8], message: &[u8]) -> Vec<u8> {
    mac::<hmac::Hmac<sha2::Sha384>>(key, message)
}

pub(crate) fn hmac_sha512(key: &[u8], message: &[u8]) -> Vec<u8> {
    mac::<hmac::Hmac<sha2::Sha512>>(key, message)
}

pub(crate) fn aes_cmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    match key.len() {
        16 => mac::<cmac::Cmac<aes::Aes128>>(key, message),
        24 => mac::<cmac::Cmac<aes::Aes192>>(key, message),
        _ => mac::<cmac::Cmac<aes::Aes256>>(key, message),
    }
}

pub(crate) fn triple_des_cmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    match key.len() {
        16 => mac::<cmac::Cmac<TdesEde2>>(key, message),
        _ => mac::<cmac::Cmac<TdesEde3>>(key, message),
    }
}

/// ISO/IEC 9797-1, 7.3: single DES chained over all blocks, the last state decrypted with the second half of the key
/// and encrypted with the first. The message is padded already.
pub(crate) fn retail_mac(key: &[u8; 16], padded: &[u8]) -> Vec<u8> {
    let (first, second) = key.split_at(8);
    let (first, second) = (Des::new_from_slice(first).unwrap(), Des::new_from_slice(second).unwrap());
    let mut state = [0_u8; 8];
    for block in padded.chunks_exact(8) {
        state.iter_mut().zip(block).for_each(|(state, byte)| *state ^= byte);
        first.encrypt_block((&mut state).into());
    }
    second.decrypt_block((&mut state).into());
    first.encrypt_block((&mut state).into());
    state.to_vec()
}

/// RFC 3394.
pub(crate) fn aes_kw(key: &[u8; 32], wrapped: &[u8]) -> Vec<u8> {
    let mut out = vec![0; wrapped.len() + 8];
    aes_kw::KwAes256::new(key.into()).wrap_key(wrapped, &mut out).unwrap().to_vec()
}

/// RFC 5649.
pub(crate) fn aes_kwp(key: &[u8; 32], wrapped: &[u8]) -> Vec<u8> {
    let mut out = vec![0; wrapped.len() + 16];
    aes_kw::KwpAes256::new(key.into()).wrap_key(wrapped, &mut out).unwrap().to_vec()
}

/// PKCS#7 padding (RFC 5652, 6.3).
pub(crate) fn pkcs7(block: usize, message: &[u8]) -> Vec<u8> {
    let more = block - message.len() % block;
    [message, &vec![u8::try_from(more).unwrap(); more]].concat()
}

/// An RSA key from its primes, in the hands of software and as numbers for a token.
pub(crate) fn rsa(p: &[u8], q: &[u8]) -> (rsa::PrivateKey, RsaNumbers) {
    use rsa::traits::{PrivateKeyParts, PublicKeyParts};
    let number = BoxedUint::from_be_slice_vartime;
    let mut key = rsa::PrivateKey::from_p_q(number(p), number(q), 65_537_u64.into()).unwrap();
    key.precompute().unwrap();
    let bytes = |number: &BoxedUint| number.to_be_bytes_trimmed_vartime().to_vec();
    let numbers = RsaNumbers {
        n: key.n_bytes().to_vec(),
        e: key.e_bytes().to_vec(),
        d: bytes(key.d()),
        p: bytes(&key.primes()[0]),
        q: bytes(&key.primes()[1]),
        dp: bytes(key.dp().unwrap()),
        dq: bytes(key.dq().unwrap()),
        qi: bytes(&key.crt_coefficient().unwrap()),
    };
    (key, numbers)
}

fn ecb<C: BlockCipherEncrypt + KeyInit>(key: &[u8], blocks: &[u8]) -> Vec<u8> {
    let cipher = C::new_from_slice(key).unwrap();
    let mut out = blocks.to_vec();
    out.chunks_exact_mut(C::block_size()).for_each(|block| cipher.encrypt_block(block.try_into().unwrap()));
    out
}

fn ecb_decrypt<C: BlockCipherDecrypt + KeyInit>(key: &[u8], blocks: &[u8]) -> Vec<u8> {
    let cipher = C::new_from_slice(key).unwrap();
    let mut out = blocks.to_vec();
    out.chunks_exact_mut(C::block_size()).for_each(|block| cipher.decrypt_block(block.try_into().unwrap()));
    out
}

fn cbc_encrypt<C>(key: &[u8], iv: &[u8], blocks: &[u8]) -> Vec<u8>
where
    C: BlockCipherEncrypt + BlockSizeUser + KeyInit,
{
    let mut mode = cbc::Encryptor::<C>::new_from_slices(key, iv).unwrap();
    let mut out = blocks.to_vec();
    out.chunks_exact_mut(C::block_size()).for_each(|block| mode.encrypt_block(block.try_into().unwrap()));
    out
}

fn cbc_decrypt<C>(key: &[u8], iv: &[u8], blocks: &[u8]) -> Vec<u8>
where
    C: BlockCipherDecrypt + BlockSizeUser + KeyInit,
{
    let mut mode = cbc::Decryptor::<C>::new_from_slices(key, iv).unwrap();
    let mut out = blocks.to_vec();
    out.chunks_exact_mut(C::block_size()).for_each(|block| mode.decrypt_block(block.try_into().unwrap()));
    out
}

fn mac<M: Mac + KeyInit>(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut mac = <M as KeyInit>::new_from_slice(key).unwrap();
    mac.update(message);
    mac.finalize().into_bytes().to_vec()
}
