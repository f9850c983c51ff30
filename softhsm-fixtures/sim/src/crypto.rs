//! The cryptography of the plain mode, by RustCrypto.

mod block;
pub(crate) mod derive;
mod mac;
mod pair;
pub(crate) mod pkcs8;
mod rsa;
pub(crate) mod wrap;

use cryptoki_sys as sys;

use crate::key::{Key, PublicKey};
use crate::mechanism::{Hash, Mechanism};
use crate::rng::Random;

/// Signs or MACs.
pub(crate) fn sign(key: &Key, how: &Mechanism, data: &[u8], random: &Random) -> Result<Vec<u8>, sys::CK_RV> {
    match (how, key) {
        (Mechanism::Hmac(_) | Mechanism::Cmac(_), _) => mac::make(key, how, data),
        (_, Key::Rsa(key)) => rsa::sign(key, how, data, random),
        (Mechanism::Ecdsa(hashing), _) => pair::sign(key, &hashed(*hashing, data)),
        (Mechanism::Ed25519, Key::Ed25519(key)) => Ok(pair::sign_edwards(key, data)),
        _ => Err(sys::CKR_KEY_TYPE_INCONSISTENT),
    }
}

/// Verifies a signature or MAC.
pub(crate) fn verify(key: &Key, how: &Mechanism, data: &[u8], signature: &[u8]) -> Result<(), sys::CK_RV> {
    if signature.len() != how.signature_len(key) {
        return Err(sys::CKR_SIGNATURE_LEN_RANGE);
    }
    let valid = match (how, key) {
        (Mechanism::Hmac(_) | Mechanism::Cmac(_), _) => mac::make(key, how, data)? == signature,
        (_, Key::Public(PublicKey::Rsa(key))) => rsa::verify(key, how, data, signature)?,
        (Mechanism::Ecdsa(hashing), Key::Public(key)) => {
            pair::verify(key, &hashed(*hashing, data), signature)?
        }
        (Mechanism::Ed25519, Key::Public(PublicKey::Ed25519(key))) => {
            pair::verify_edwards(key, data, signature)
        }
        _ => return Err(sys::CKR_KEY_TYPE_INCONSISTENT),
    };
    if valid { Ok(()) } else { Err(sys::CKR_SIGNATURE_INVALID) }
}

/// Encrypts; a GCM tag follows the ciphertext.
pub(crate) fn encrypt(key: &Key, how: &Mechanism, data: &[u8]) -> Result<Vec<u8>, sys::CK_RV> {
    block::run(key, how, data, Direction::Encrypt)
}

/// Decrypts; a GCM tag is expected behind the ciphertext.
pub(crate) fn decrypt(key: &Key, how: &Mechanism, data: &[u8]) -> Result<Vec<u8>, sys::CK_RV> {
    match key {
        Key::Rsa(key) => rsa::decrypt(key, how, data),
        _ => block::run(key, how, data, Direction::Decrypt),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Encrypt,
    Decrypt,
}

/// A digest of several pieces in a row.
fn digest(hash: Hash, pieces: &[&[u8]]) -> Vec<u8> {
    fn of<D: sha2::Digest>(pieces: &[&[u8]]) -> Vec<u8> {
        let mut digest = D::new();
        pieces.iter().for_each(|piece| digest.update(piece));
        digest.finalize().to_vec()
    }
    match hash {
        Hash::Sha1 => of::<sha1::Sha1>(pieces),
        Hash::Sha256 => of::<sha2::Sha256>(pieces),
        Hash::Sha384 => of::<sha2::Sha384>(pieces),
        Hash::Sha512 => of::<sha2::Sha512>(pieces),
    }
}

/// What is signed: the data, or its digest where the token hashes.
fn hashed(hashing: Option<Hash>, data: &[u8]) -> Vec<u8> {
    hashing.map_or_else(|| data.to_vec(), |hash| digest(hash, &[data]))
}
