//! Signatures on elliptic curves.

use cryptoki_sys as sys;
use ed25519_dalek::Signer;
use p256::ecdsa::signature::hazmat::{PrehashSigner, PrehashVerifier};

use crate::key::{Key, PublicKey};

/// A signature of a digest, with both halves as long as a field element.
pub(super) fn sign(key: &Key, digest: &[u8]) -> Result<Vec<u8>, sys::CK_RV> {
    let wrong = |_| sys::CKR_DATA_LEN_RANGE;
    match key {
        Key::P256(key) => {
            let signature: p256::ecdsa::Signature =
                key.sign_prehash(&widened::<32>(digest)).map_err(wrong)?;
            Ok(signature.to_vec())
        }
        Key::P384(key) => {
            let signature: p384::ecdsa::Signature =
                key.sign_prehash(&widened::<48>(digest)).map_err(wrong)?;
            Ok(signature.to_vec())
        }
        Key::P521(key) => {
            let signature: p521::ecdsa::Signature =
                key.sign_prehash(&widened::<66>(digest)).map_err(wrong)?;
            Ok(signature.to_vec())
        }
        _ => Err(sys::CKR_KEY_TYPE_INCONSISTENT),
    }
}

/// Whether the signature of a digest is valid.
pub(super) fn verify(key: &PublicKey, digest: &[u8], signature: &[u8]) -> Result<bool, sys::CK_RV> {
    Ok(match key {
        PublicKey::P256(key) => p256::ecdsa::Signature::from_slice(signature)
            .is_ok_and(|signature| key.verify_prehash(&widened::<32>(digest), &signature).is_ok()),
        PublicKey::P384(key) => p384::ecdsa::Signature::from_slice(signature)
            .is_ok_and(|signature| key.verify_prehash(&widened::<48>(digest), &signature).is_ok()),
        PublicKey::P521(key) => p521::ecdsa::Signature::from_slice(signature)
            .is_ok_and(|signature| key.verify_prehash(&widened::<66>(digest), &signature).is_ok()),
        PublicKey::Ed25519(_) | PublicKey::Rsa(_) => return Err(sys::CKR_KEY_TYPE_INCONSISTENT),
    })
}

/// Ed25519 over the message (RFC 8032).
pub(super) fn sign_edwards(key: &ed25519_dalek::SigningKey, data: &[u8]) -> Vec<u8> {
    key.sign(data).to_bytes().to_vec()
}

/// Whether an Ed25519 signature is valid.
pub(super) fn verify_edwards(key: &ed25519_dalek::VerifyingKey, data: &[u8], signature: &[u8]) -> bool {
    let signature = ed25519_dalek::Signature::from_slice(signature);
    signature.is_ok_and(|signature| key.verify_strict(data, &signature).is_ok())
}

/// A digest as the integer that is signed (FIPS 186-5, 6.4.1): of a long one the leftmost bits; a short one with
/// zeros in front, without which the crates refuse those of less than half a field.
fn widened<const FIELD: usize>(digest: &[u8]) -> [u8; FIELD] {
    let digest = &digest[..digest.len().min(FIELD)];
    let mut wide = [0; FIELD];
    wide[FIELD - digest.len()..].copy_from_slice(digest);
    wide
}
