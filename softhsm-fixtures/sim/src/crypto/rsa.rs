//! RSA: both paddings of signatures, both of encryption, and the bare function.

use cryptoki_sys as sys;
use rsa::pss::Pss;
use rsa::traits::PaddingScheme;
use rsa::{BoxedUint, Oaep, Pkcs1v15Sign};
use sha1::Sha1;
use sha2::{Sha256, Sha384, Sha512};

use super::digest;
use crate::key::{RsaKey, RsaPublicKey};
use crate::mechanism::{Hash, Mechanism};
use crate::rng::Random;

pub(super) fn sign(
    key: &RsaKey,
    how: &Mechanism,
    data: &[u8],
    random: &Random,
) -> Result<Vec<u8>, sys::CK_RV> {
    let (private, mut rng) = (key.private()?, random);
    let signed = match how {
        Mechanism::RsaPkcs => {
            check_pkcs1_len(key.len(), data)?;
            private.sign(Pkcs1v15Sign::new_unprefixed(), data)
        }
        Mechanism::RsaPkcsHashing(hash) => private.sign(pkcs1(*hash)?, &digest(*hash, &[data])),
        Mechanism::RsaPss { hash, salt_len, hashing } => {
            let data = pss_digest(key.len(), *hash, *salt_len, *hashing, data)?;
            match hash {
                Hash::Sha384 => private.sign_with_rng(&mut rng, pss::<Sha384>(*salt_len), &data),
                Hash::Sha512 => private.sign_with_rng(&mut rng, pss::<Sha512>(*salt_len), &data),
                Hash::Sha1 | Hash::Sha256 => private.sign_with_rng(&mut rng, pss::<Sha256>(*salt_len), &data),
            }
        }
        _ => return Err(sys::CKR_KEY_TYPE_INCONSISTENT),
    };
    signed.map_err(|_| sys::CKR_DEVICE_ERROR)
}

/// Whether a signature is valid.
pub(super) fn verify(
    key: &RsaPublicKey,
    how: &Mechanism,
    data: &[u8],
    signature: &[u8],
) -> Result<bool, sys::CK_RV> {
    let public = key.prepared()?;
    let verified = match how {
        Mechanism::RsaPkcs => {
            check_pkcs1_len(key.len(), data)?;
            public.verify(Pkcs1v15Sign::new_unprefixed(), data, signature)
        }
        Mechanism::RsaPkcsHashing(hash) => public.verify(pkcs1(*hash)?, &digest(*hash, &[data]), signature),
        Mechanism::RsaPss { hash, salt_len, hashing } => {
            let data = pss_digest(key.len(), *hash, *salt_len, *hashing, data)?;
            match hash {
                Hash::Sha384 => public.verify(pss::<Sha384>(*salt_len), &data, signature),
                Hash::Sha512 => public.verify(pss::<Sha512>(*salt_len), &data, signature),
                Hash::Sha1 | Hash::Sha256 => public.verify(pss::<Sha256>(*salt_len), &data, signature),
            }
        }
        _ => return Err(sys::CKR_KEY_TYPE_INCONSISTENT),
    };
    Ok(verified.is_ok())
}

pub(super) fn decrypt(key: &RsaKey, how: &Mechanism, data: &[u8]) -> Result<Vec<u8>, sys::CK_RV> {
    if data.len() != key.len() {
        return Err(sys::CKR_ENCRYPTED_DATA_LEN_RANGE);
    }
    match how {
        Mechanism::RsaRaw => bare(key, data),
        // Not by the crate, which answers wrong paddings with random plaintexts: tokens of today answer an error.
        Mechanism::RsaPkcs => strip_pkcs1(&bare(key, data)?).map(<[u8]>::to_vec),
        Mechanism::RsaOaep { hash, label } => match hash {
            Hash::Sha1 => padded(key, Oaep::<Sha1>::new_with_label(label.as_slice()), data),
            Hash::Sha256 => padded(key, Oaep::<Sha256>::new_with_label(label.as_slice()), data),
            Hash::Sha384 => padded(key, Oaep::<Sha384>::new_with_label(label.as_slice()), data),
            Hash::Sha512 => padded(key, Oaep::<Sha512>::new_with_label(label.as_slice()), data),
        },
        _ => Err(sys::CKR_KEY_TYPE_INCONSISTENT),
    }
}

/// `CKM_RSA_PKCS` pads by at least 11 bytes (PKCS#11 2.40 mechanisms, 2.1.6).
const fn check_pkcs1_len(modulus_len: usize, data: &[u8]) -> Result<(), sys::CK_RV> {
    if data.len() + 11 > modulus_len { Err(sys::CKR_DATA_LEN_RANGE) } else { Ok(()) }
}

/// The digest that is signed. The salt leaves two bytes of the modulus beside it (RFC 8017, 9.1.1).
fn pss_digest(
    modulus_len: usize,
    hash: Hash,
    salt_len: usize,
    hashing: bool,
    data: &[u8],
) -> Result<Vec<u8>, sys::CK_RV> {
    let data = super::hashed(hashing.then_some(hash), data);
    if data.len() != hash.len() {
        return Err(sys::CKR_DATA_LEN_RANGE);
    }
    if hash.len() + salt_len + 2 > modulus_len { Err(sys::CKR_MECHANISM_PARAM_INVALID) } else { Ok(data) }
}

fn pkcs1(hash: Hash) -> Result<Pkcs1v15Sign, sys::CK_RV> {
    match hash {
        Hash::Sha1 => Err(sys::CKR_MECHANISM_INVALID),
        Hash::Sha256 => Ok(Pkcs1v15Sign::new::<Sha256>()),
        Hash::Sha384 => Ok(Pkcs1v15Sign::new::<Sha384>()),
        Hash::Sha512 => Ok(Pkcs1v15Sign::new::<Sha512>()),
    }
}

/// Without blinding: it changes no output, and the key is no secret.
fn pss<D: sha2::Digest>(salt_len: usize) -> Pss<D> {
    Pss { blinded: false, digest: D::new(), salt_len: Some(salt_len) }
}

fn padded(key: &RsaKey, padding: impl PaddingScheme, data: &[u8]) -> Result<Vec<u8>, sys::CK_RV> {
    key.private()?.decrypt(padding, data).map_err(|_| sys::CKR_ENCRYPTED_DATA_INVALID)
}

/// The bare function: as long as the modulus, with zeros in front.
fn bare(key: &RsaKey, data: &[u8]) -> Result<Vec<u8>, sys::CK_RV> {
    let number = BoxedUint::from_be_slice(data, key.bits()).map_err(|_| sys::CKR_ENCRYPTED_DATA_INVALID)?;
    // Without blinding, which would change nothing but the time.
    let result = rsa::hazmat::rsa_decrypt(None::<&mut &Random>, key.private()?, &number);
    let bytes = result.map_err(|_| sys::CKR_ENCRYPTED_DATA_INVALID)?.to_be_bytes();
    // Whole limbs, and so are the moduli here.
    Ok(bytes.into_vec())
}

/// `00 02 || eight nonzero bytes or more || 00 || message` (RFC 8017, 7.2.2). The key is no secret: time may tell.
fn strip_pkcs1(block: &[u8]) -> Result<&[u8], sys::CK_RV> {
    let [0, 2, rest @ ..] = block else { return Err(sys::CKR_ENCRYPTED_DATA_INVALID) };
    match rest.iter().position(|&byte| byte == 0) {
        Some(len) if len >= 8 => Ok(&rest[len + 1..]),
        _ => Err(sys::CKR_ENCRYPTED_DATA_INVALID),
    }
}
