//! Block ciphers and their modes.

use aes::cipher::consts::{U12, U16};
use aes::cipher::{Array, BlockCipherDecrypt, BlockCipherEncrypt, BlockSizeUser, InnerIvInit};
use aes::{Aes128, Aes192, Aes256};
use aes_gcm::aead::AeadInOut;
use aes_gcm::{AesGcm, KeyInit};
use cbc::cipher::block_padding::{NoPadding, Pkcs7};
use cbc::cipher::{BlockModeDecrypt, BlockModeEncrypt};
use cryptoki_sys as sys;
use des::TdesEde3;

use super::Direction;
use crate::key::Key;
use crate::mechanism::{Mechanism, TAG_LEN};

/// Encrypts or decrypts.
pub(super) fn run(key: &Key, how: &Mechanism, data: &[u8], way: Direction) -> Result<Vec<u8>, sys::CK_RV> {
    match key {
        Key::Aes(key) if key.len() == 16 => aes::<Aes128>(key, how, data, way),
        Key::Aes(key) if key.len() == 24 => aes::<Aes192>(key, how, data, way),
        Key::Aes(key) => aes::<Aes256>(key, how, data, way),
        Key::TripleDes(key) => simple_modes(keyed::<TdesEde3>(key)?, how, data, way),
        _ => Err(sys::CKR_KEY_TYPE_INCONSISTENT),
    }
}

fn keyed<C: KeyInit>(key: &[u8]) -> Result<C, sys::CK_RV> {
    C::new_from_slice(key).map_err(|_| sys::CKR_KEY_SIZE_RANGE)
}

fn aes<A>(key: &[u8], how: &Mechanism, data: &[u8], way: Direction) -> Result<Vec<u8>, sys::CK_RV>
where
    A: BlockSizeUser<BlockSize = U16> + BlockCipherEncrypt + BlockCipherDecrypt + KeyInit,
{
    let cipher = keyed::<A>(key)?;
    match how {
        Mechanism::AesGcm { iv, aad } if iv.len() == 12 => {
            gcm(&AesGcm::<A, U12>::from(cipher), iv, aad, data, way)
        }
        Mechanism::AesGcm { iv, aad } => gcm(&AesGcm::<A, U16>::from(cipher), iv, aad, data, way),
        Mechanism::AesCtr { block, counter_bits } => ctr(&cipher, *block, *counter_bits, data),
        _ => simple_modes(cipher, how, data, way),
    }
}

fn simple_modes<C>(cipher: C, how: &Mechanism, data: &[u8], way: Direction) -> Result<Vec<u8>, sys::CK_RV>
where
    C: BlockCipherEncrypt + BlockCipherDecrypt,
{
    match how {
        Mechanism::Ecb(_) => ecb(&cipher, data, way),
        Mechanism::Cbc { iv, padded, .. } => {
            let wrong = |_| sys::CKR_MECHANISM_PARAM_INVALID;
            match way {
                Direction::Encrypt => {
                    let mode = cbc::Encryptor::inner_iv_slice_init(cipher, iv).map_err(wrong)?;
                    if *padded {
                        return Ok(mode.encrypt_padded_vec::<Pkcs7>(data));
                    }
                    check_whole::<C>(data, sys::CKR_DATA_LEN_RANGE)?;
                    Ok(mode.encrypt_padded_vec::<NoPadding>(data))
                }
                Direction::Decrypt => {
                    let mode = cbc::Decryptor::inner_iv_slice_init(cipher, iv).map_err(wrong)?;
                    check_whole::<C>(data, sys::CKR_ENCRYPTED_DATA_LEN_RANGE)?;
                    let invalid = |_| sys::CKR_ENCRYPTED_DATA_INVALID;
                    if *padded {
                        return mode.decrypt_padded_vec::<Pkcs7>(data).map_err(invalid);
                    }
                    mode.decrypt_padded_vec::<NoPadding>(data).map_err(invalid)
                }
            }
        }
        _ => Err(sys::CKR_KEY_TYPE_INCONSISTENT),
    }
}

fn check_whole<C: BlockSizeUser>(data: &[u8], code: sys::CK_RV) -> Result<(), sys::CK_RV> {
    if data.len().is_multiple_of(C::block_size()) { Ok(()) } else { Err(code) }
}

fn ecb<C>(cipher: &C, data: &[u8], way: Direction) -> Result<Vec<u8>, sys::CK_RV>
where
    C: BlockCipherEncrypt + BlockCipherDecrypt,
{
    let mut out = data.to_vec();
    for block in out.chunks_mut(C::block_size()) {
        match (way, <&mut Array<u8, C::BlockSize>>::try_from(block)) {
            (Direction::Encrypt, Ok(block)) => cipher.encrypt_block(block),
            (Direction::Decrypt, Ok(block)) => cipher.decrypt_block(block),
            (Direction::Encrypt, Err(_)) => return Err(sys::CKR_DATA_LEN_RANGE),
            (Direction::Decrypt, Err(_)) => return Err(sys::CKR_ENCRYPTED_DATA_LEN_RANGE),
        }
    }
    Ok(out)
}

/// Both directions are one. The last bits of the block count, as many as are said; PKCS#11 2.40, mechanisms 2.12.1,
/// refuses data that would take them past their last value.
fn ctr<C>(cipher: &C, block: [u8; 16], counter_bits: u32, data: &[u8]) -> Result<Vec<u8>, sys::CK_RV>
where
    C: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16>,
{
    let first = u128::from_be_bytes(block);
    let mask = u128::MAX >> (128 - counter_bits);
    let last = data.len().div_ceil(16).saturating_sub(1) as u128;
    if last > mask - (first & mask) {
        return Err(sys::CKR_DATA_LEN_RANGE);
    }
    let mut out = data.to_vec();
    for (number, chunk) in out.chunks_mut(16).enumerate() {
        let mut stream = (first + number as u128).to_be_bytes().into();
        cipher.encrypt_block(&mut stream);
        chunk.iter_mut().zip(stream).for_each(|(byte, stream)| *byte ^= stream);
    }
    Ok(out)
}

fn gcm<A: AeadInOut>(
    cipher: &A,
    iv: &[u8],
    aad: &[u8],
    data: &[u8],
    way: Direction,
) -> Result<Vec<u8>, sys::CK_RV> {
    let nonce = iv.try_into().map_err(|_| sys::CKR_MECHANISM_PARAM_INVALID)?;
    match way {
        Direction::Encrypt => {
            let mut out = data.to_vec();
            let tag = cipher.encrypt_inout_detached(nonce, aad, out.as_mut_slice().into());
            out.extend_from_slice(tag.map_err(|_| sys::CKR_DATA_LEN_RANGE)?.as_slice());
            Ok(out)
        }
        Direction::Decrypt => {
            let body_len = data.len().checked_sub(TAG_LEN).ok_or(sys::CKR_ENCRYPTED_DATA_LEN_RANGE)?;
            let (body, tag) = data.split_at(body_len);
            let tag: &aes_gcm::aead::Tag<A> = tag.try_into().map_err(|_| sys::CKR_ENCRYPTED_DATA_INVALID)?;
            let mut out = body.to_vec();
            let opened = cipher.decrypt_inout_detached(nonce, aad, out.as_mut_slice().into(), tag);
            opened.map_err(|_| sys::CKR_ENCRYPTED_DATA_INVALID)?;
            Ok(out)
        }
    }
}
