//! Mechanisms in the caller's memory, read with their parameters.

use cryptoki_sys as sys;

use super::raw::{bytes, get, to_usize};
use crate::crypto::derive::Agreement;
use crate::mechanism::{Cipher, Hash, Mechanism};

/// The mechanism of an operation, with its parameters copied.
///
/// # Safety
/// `mechanism` is null or good for reading, and so is its parameter for the length given.
pub(super) unsafe fn mechanism(mechanism: *const sys::CK_MECHANISM) -> Result<Mechanism, sys::CK_RV> {
    // SAFETY: as the caller says.
    let mechanism = unsafe { get(mechanism) }?;
    match plain(mechanism.mechanism) {
        Some(plain) if mechanism.ulParameterLen == 0 => Ok(plain),
        Some(_) => Err(sys::CKR_MECHANISM_PARAM_INVALID),
        // SAFETY: as the caller says.
        None => unsafe { with_parameter(&mechanism) },
    }
}

/// As [`mechanism`], for encryption under IVs of the module's own: another one is written over that of AES-GCM.
///
/// # Safety
/// As for [`mechanism`]; the IV is good for writing.
pub(super) unsafe fn with_own_iv(mechanism: *const sys::CK_MECHANISM) -> Result<Mechanism, sys::CK_RV> {
    // SAFETY: as the caller says.
    let mut how = unsafe { self::mechanism(mechanism) }?;
    if let Mechanism::AesGcm { iv, .. } = &mut how {
        // Any other will do.
        iv.iter_mut().for_each(|byte| *byte ^= 0xa5);
        // SAFETY: as the caller says.
        let mechanism = unsafe { get(mechanism) }?;
        // SAFETY: as the caller says.
        let parameters = unsafe { parameter::<sys::CK_GCM_PARAMS>(&mechanism) }?;
        // SAFETY: the caller vouches for the IV, which is as long as the one that was read from there.
        unsafe { std::ptr::copy_nonoverlapping(iv.as_ptr(), parameters.pIv, iv.len()) };
    }
    Ok(how)
}

/// As [`mechanism`], with the same IV whatever the caller's is.
///
/// # Safety
/// As for [`mechanism`].
pub(super) unsafe fn without_iv(mechanism: *const sys::CK_MECHANISM) -> Result<Mechanism, sys::CK_RV> {
    // SAFETY: as the caller says.
    let mut how = unsafe { self::mechanism(mechanism) }?;
    match &mut how {
        Mechanism::AesGcm { iv, .. } | Mechanism::Cbc { iv, .. } => iv.fill(0xa5),
        Mechanism::AesCtr { block, .. } => block.fill(0xa5),
        _ => {}
    }
    Ok(how)
}

/// What `CKM_ECDH1_DERIVE` is given.
///
/// # Safety
/// As for [`mechanism`].
pub(super) unsafe fn agreement(mechanism: &sys::CK_MECHANISM) -> Result<Agreement, sys::CK_RV> {
    // SAFETY: as the caller says.
    let parameters = unsafe { parameter::<sys::CK_ECDH1_DERIVE_PARAMS>(mechanism) }?;
    let kdf = match parameters.kdf {
        sys::CKD_NULL => None,
        sys::CKD_SHA1_KDF => Some(Hash::Sha1),
        sys::CKD_SHA256_KDF => Some(Hash::Sha256),
        sys::CKD_SHA384_KDF => Some(Hash::Sha384),
        sys::CKD_SHA512_KDF => Some(Hash::Sha512),
        _ => return Err(sys::CKR_MECHANISM_PARAM_INVALID),
    };
    // SAFETY: the parameter's pointers are the caller's too.
    let shared = unsafe { part(parameters.pSharedData, parameters.ulSharedDataLen) }?;
    // SAFETY: as above.
    let peer = unsafe { part(parameters.pPublicData, parameters.ulPublicDataLen) }?;
    // PKCS#11 2.40, curves 2.3.6: with CKD_NULL there is no shared data.
    if kdf.is_none() && !shared.is_empty() {
        return Err(sys::CKR_MECHANISM_PARAM_INVALID);
    }
    Ok(Agreement { kdf, shared: shared.to_vec(), peer: peer.to_vec() })
}

/// A mechanism that takes no parameter.
const fn plain(number: sys::CK_MECHANISM_TYPE) -> Option<Mechanism> {
    Some(match number {
        sys::CKM_RSA_PKCS => Mechanism::RsaPkcs,
        sys::CKM_RSA_X_509 => Mechanism::RsaRaw,
        sys::CKM_SHA256_RSA_PKCS => Mechanism::RsaPkcsHashing(Hash::Sha256),
        sys::CKM_SHA384_RSA_PKCS => Mechanism::RsaPkcsHashing(Hash::Sha384),
        sys::CKM_SHA512_RSA_PKCS => Mechanism::RsaPkcsHashing(Hash::Sha512),
        sys::CKM_ECDSA => Mechanism::Ecdsa(None),
        sys::CKM_ECDSA_SHA256 => Mechanism::Ecdsa(Some(Hash::Sha256)),
        sys::CKM_ECDSA_SHA384 => Mechanism::Ecdsa(Some(Hash::Sha384)),
        sys::CKM_ECDSA_SHA512 => Mechanism::Ecdsa(Some(Hash::Sha512)),
        sys::CKM_EDDSA => Mechanism::Ed25519,
        sys::CKM_SHA256_HMAC => Mechanism::Hmac(Hash::Sha256),
        sys::CKM_SHA384_HMAC => Mechanism::Hmac(Hash::Sha384),
        sys::CKM_SHA512_HMAC => Mechanism::Hmac(Hash::Sha512),
        sys::CKM_AES_CMAC => Mechanism::Cmac(Cipher::Aes),
        sys::CKM_DES3_CMAC => Mechanism::Cmac(Cipher::TripleDes),
        sys::CKM_AES_ECB => Mechanism::Ecb(Cipher::Aes),
        sys::CKM_DES3_ECB => Mechanism::Ecb(Cipher::TripleDes),
        _ => return None,
    })
}

/// # Safety
/// The parameter is null or good for reading the length given.
unsafe fn with_parameter(mechanism: &sys::CK_MECHANISM) -> Result<Mechanism, sys::CK_RV> {
    let pss = |hashing| {
        // SAFETY: as the caller says.
        let parameters = unsafe { parameter::<sys::CK_RSA_PKCS_PSS_PARAMS>(mechanism) }?;
        Mechanism::pss(&parameters, hashing)
    };
    let cbc = |cipher, padded| {
        // SAFETY: as the caller says.
        let iv = unsafe { part(mechanism.pParameter.cast(), mechanism.ulParameterLen) }?;
        Mechanism::cbc(cipher, iv, padded)
    };
    match mechanism.mechanism {
        sys::CKM_RSA_PKCS_PSS => pss(None),
        sys::CKM_SHA256_RSA_PKCS_PSS => pss(Some(Hash::Sha256)),
        sys::CKM_SHA384_RSA_PKCS_PSS => pss(Some(Hash::Sha384)),
        sys::CKM_SHA512_RSA_PKCS_PSS => pss(Some(Hash::Sha512)),
        sys::CKM_AES_CBC => cbc(Cipher::Aes, false),
        sys::CKM_AES_CBC_PAD => cbc(Cipher::Aes, true),
        sys::CKM_DES3_CBC => cbc(Cipher::TripleDes, false),
        sys::CKM_DES3_CBC_PAD => cbc(Cipher::TripleDes, true),
        sys::CKM_AES_CTR => {
            // SAFETY: as the caller says.
            let parameters = unsafe { parameter::<sys::CK_AES_CTR_PARAMS>(mechanism) }?;
            Mechanism::ctr(&parameters)
        }
        sys::CKM_RSA_PKCS_OAEP => {
            // SAFETY: as the caller says.
            let parameters = unsafe { parameter::<sys::CK_RSA_PKCS_OAEP_PARAMS>(mechanism) }?;
            if parameters.source != sys::CKZ_DATA_SPECIFIED {
                return Err(sys::CKR_MECHANISM_PARAM_INVALID);
            }
            // SAFETY: the parameter's pointer is the caller's too.
            let label = unsafe { part(parameters.pSourceData.cast(), parameters.ulSourceDataLen) }?;
            let hash = Hash::with_mask(parameters.hashAlg, parameters.mgf)?;
            Ok(Mechanism::RsaOaep { hash, label: label.to_vec() })
        }
        sys::CKM_AES_GCM => {
            // SAFETY: as the caller says.
            let parameters = unsafe { parameter::<sys::CK_GCM_PARAMS>(mechanism) }?;
            // SAFETY: the parameter's pointers are the caller's too.
            let iv = unsafe { part(parameters.pIv, parameters.ulIvLen) }?;
            // SAFETY: as above.
            let aad = unsafe { part(parameters.pAAD, parameters.ulAADLen) }?;
            Mechanism::gcm(iv, aad, parameters.ulTagBits)
        }
        _ => Err(sys::CKR_MECHANISM_INVALID),
    }
}

/// Bytes that belong to a parameter.
///
/// # Safety
/// `data` is null or good for reading `len` bytes while the result lives.
unsafe fn part<'a>(data: *const u8, len: sys::CK_ULONG) -> Result<&'a [u8], sys::CK_RV> {
    // SAFETY: as the caller says.
    unsafe { bytes(data, len) }.map_err(|_| sys::CKR_MECHANISM_PARAM_INVALID)
}

/// # Safety
/// The parameter is null or good for reading the length given.
unsafe fn parameter<P: Copy>(mechanism: &sys::CK_MECHANISM) -> Result<P, sys::CK_RV> {
    if to_usize(mechanism.ulParameterLen) != size_of::<P>() {
        return Err(sys::CKR_MECHANISM_PARAM_INVALID);
    }
    // SAFETY: the length fits, and the caller vouches for the pointer.
    unsafe { get(mechanism.pParameter.cast::<P>()) }.map_err(|_| sys::CKR_MECHANISM_PARAM_INVALID)
}
