//! The check of one operation of a load, on either side of a comparison.

use aes::cipher::{Array, KeyIvInit, StreamCipher};
use cbc::cipher::block_padding::NoPadding;
use cbc::cipher::{BlockModeDecrypt, BlockModeEncrypt};
use cmac::{KeyInit, Mac};
use rsa::pkcs8::DecodePublicKey;
use rsa::signature::Verifier;
use sha2::Sha256;

use crate::case::Op;
use crate::inputs::Inputs;

/// The key of a case, as software needs it. Only secret keys that protect nothing are known like this.
#[derive(Clone, Copy)]
#[expect(missing_debug_implementations, reason = "it holds keys")]
pub enum CaseKey<'a> {
    /// The public half of a pair: its SubjectPublicKeyInfo in DER.
    Public(&'a [u8]),
    /// A secret key of 32 bytes.
    Secret(&'a [u8; 32]),
}

/// Whether software says that an output belongs to its input: a signature or MAC that is valid, a ciphertext with its
/// IV in front that opens to the message, the message behind a ciphertext. Of random bytes only the length is seen.
#[must_use]
pub fn is_right(inputs: &Inputs, key: CaseKey<'_>, input: &[u8], output: &[u8]) -> bool {
    match (inputs.case().op, key) {
        (Op::Random, _) => output.len() == input.len(),
        // Software has made the ciphertext of this message.
        (Op::Rsa2048Oaep, _) => inputs.message_of(input) == Some(output),
        (op, CaseKey::Public(der)) => verifies(op, der, input, output).unwrap_or(false),
        (op, CaseKey::Secret(key)) => agrees(op, key, input, output).unwrap_or(false),
    }
}

/// `None` if key or signature cannot be read, or belong to another operation.
fn verifies(op: Op, der: &[u8], message: &[u8], signature: &[u8]) -> Option<bool> {
    let rsa = || rsa::PublicKey::from_public_key_der(der).ok();
    Some(match op {
        Op::Rsa2048Sha256 | Op::Rsa4096Sha256 => {
            let signature = rsa::pkcs1v15::Signature::try_from(signature).ok()?;
            rsa::pkcs1v15::VerifyingKey::<Sha256>::new(rsa()?).verify(message, &signature).is_ok()
        }
        Op::Rsa2048Pss => {
            let signature = rsa::pss::Signature::try_from(signature).ok()?;
            rsa::pss::VerifyingKey::<Sha256>::new(rsa()?).verify(message, &signature).is_ok()
        }
        Op::EcdsaP256 => {
            let key = p256::ecdsa::VerifyingKey::from_public_key_der(der).ok()?;
            key.verify(message, &p256::ecdsa::Signature::from_slice(signature).ok()?).is_ok()
        }
        Op::EcdsaP384 => {
            let key = p384::ecdsa::VerifyingKey::from_public_key_der(der).ok()?;
            key.verify(message, &p384::ecdsa::Signature::from_slice(signature).ok()?).is_ok()
        }
        Op::Ed25519 => {
            // RFC 8410, 4: the point is all of the key, and its last 32 bytes.
            let key = ed25519_dalek::VerifyingKey::from_bytes(der.last_chunk()?).ok()?;
            let signature = ed25519_dalek::Signature::from_slice(signature).ok()?;
            key.verify_strict(message, &signature).is_ok()
        }
        _ => return None,
    })
}

/// `None` if the output is too short, or the operation has another kind of key.
fn agrees(op: Op, key: &[u8; 32], input: &[u8], output: &[u8]) -> Option<bool> {
    let array: &Array<u8, _> = key.into();
    Some(match op {
        Op::HmacSha256 => mac::<hmac::Hmac<Sha256>>(key, input)? == output,
        Op::AesCmac => mac::<cmac::Cmac<aes::Aes256>>(key, input)? == output,
        Op::AesEcb => {
            use aes::cipher::BlockCipherEncrypt;
            let (cipher, mut sealed) = (aes::Aes256::new(array), input.to_vec());
            for block in sealed.chunks_exact_mut(16) {
                cipher.encrypt_block(block.try_into().ok()?);
            }
            sealed == output
        }
        Op::AesGcm => {
            use aes_gcm::aead::Aead;
            let (iv, sealed) = output.split_first_chunk::<12>()?;
            aes_gcm::Aes256Gcm::new(array).decrypt(iv.into(), sealed).ok()? == input
        }
        Op::AesCbcEncrypt => {
            let (iv, sealed) = output.split_first_chunk::<16>()?;
            let cipher = cbc::Decryptor::<aes::Aes256>::new(array, iv.into());
            cipher.decrypt_padded_vec::<NoPadding>(sealed).ok()? == input
        }
        Op::AesCbcDecrypt => {
            let (iv, sealed) = input.split_first_chunk::<16>()?;
            let cipher = cbc::Encryptor::<aes::Aes256>::new(array, iv.into());
            output.len().is_multiple_of(16) && cipher.encrypt_padded_vec::<NoPadding>(output) == sealed
        }
        Op::AesCtr => {
            let (iv, sealed) = output.split_first_chunk::<16>()?;
            let mut opened = sealed.to_vec();
            ctr::Ctr32BE::<aes::Aes256>::new(array, iv.into()).apply_keystream(&mut opened);
            opened == input
        }
        _ => return None,
    })
}

fn mac<M: Mac + KeyInit>(key: &[u8], message: &[u8]) -> Option<Vec<u8>> {
    let mut mac = <M as KeyInit>::new_from_slice(key).ok()?;
    mac.update(message);
    Some(mac.finalize().into_bytes().to_vec())
}
