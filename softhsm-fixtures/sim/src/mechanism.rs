//! Mechanisms, read from the caller's memory into values, and what the token says of them.

use cryptoki_sys as sys;

use crate::key::Key;

/// A mechanism of an operation with its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mechanism {
    /// Over a DigestInfo, or to decrypt.
    RsaPkcs,
    /// The bare function.
    RsaRaw,
    RsaPkcsHashing(Hash),
    /// Over a digest, or a message that the token hashes.
    RsaPss {
        hash: Hash,
        salt_len: usize,
        hashing: bool,
    },
    RsaOaep {
        hash: Hash,
        label: Vec<u8>,
    },
    /// Over a digest, or a message that the token hashes.
    Ecdsa(Option<Hash>),
    Ed25519,
    Hmac(Hash),
    Cmac(Cipher),
    Ecb(Cipher),
    Cbc {
        cipher: Cipher,
        iv: Vec<u8>,
        padded: bool,
    },
    AesCtr {
        block: [u8; 16],
        counter_bits: u32,
    },
    AesGcm {
        iv: Vec<u8>,
        aad: Vec<u8>,
    },
}

/// A hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hash {
    Sha1,
    Sha256,
    Sha384,
    Sha512,
}

/// A block cipher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cipher {
    Aes,
    TripleDes,
}

/// Length of a GCM tag: the only one offered.
pub(crate) const TAG_LEN: usize = 16;

/// A mechanism as `C_GetMechanismInfo` tells of it: number, smallest and largest key, flags.
pub(crate) type Offered = (sys::CK_MECHANISM_TYPE, u64, u64, sys::CK_FLAGS);

/// What every token has, but for what the configuration hides.
pub(crate) const OFFERED: [Offered; 38] = [
    (sys::CKM_RSA_PKCS, 2_048, 4_096, SIGNS | sys::CKF_DECRYPT),
    (sys::CKM_RSA_X_509, 2_048, 4_096, DECRYPTS),
    (sys::CKM_RSA_PKCS_OAEP, 2_048, 4_096, DECRYPTS),
    (sys::CKM_RSA_PKCS_PSS, 2_048, 4_096, SIGNS),
    (sys::CKM_SHA256_RSA_PKCS, 2_048, 4_096, SIGNS),
    (sys::CKM_SHA384_RSA_PKCS, 2_048, 4_096, SIGNS),
    (sys::CKM_SHA512_RSA_PKCS, 2_048, 4_096, SIGNS),
    (sys::CKM_SHA256_RSA_PKCS_PSS, 2_048, 4_096, SIGNS),
    (sys::CKM_SHA384_RSA_PKCS_PSS, 2_048, 4_096, SIGNS),
    (sys::CKM_SHA512_RSA_PKCS_PSS, 2_048, 4_096, SIGNS),
    (sys::CKM_ECDSA, 256, 521, SIGNS | CURVES),
    (sys::CKM_ECDSA_SHA256, 256, 521, SIGNS | CURVES),
    (sys::CKM_ECDSA_SHA384, 256, 521, SIGNS | CURVES),
    (sys::CKM_ECDSA_SHA512, 256, 521, SIGNS | CURVES),
    (sys::CKM_EDDSA, 256, 256, SIGNS | CURVES),
    (sys::CKM_ECDH1_DERIVE, 256, 521, sys::CKF_HW | sys::CKF_DERIVE | CURVES),
    (sys::CKM_SHA256_HMAC, 16, 512, SIGNS),
    (sys::CKM_SHA384_HMAC, 16, 512, SIGNS),
    (sys::CKM_SHA512_HMAC, 16, 512, SIGNS),
    (sys::CKM_AES_CMAC, 16, 32, SIGNS),
    (sys::CKM_AES_GCM, 16, 32, ENCRYPTS),
    (sys::CKM_AES_ECB, 16, 32, ENCRYPTS),
    (sys::CKM_AES_CBC, 16, 32, ENCRYPTS),
    (sys::CKM_AES_CBC_PAD, 16, 32, ENCRYPTS),
    (sys::CKM_AES_CTR, 16, 32, ENCRYPTS),
    (sys::CKM_AES_KEY_WRAP, 16, 32, WRAPS),
    (sys::CKM_AES_KEY_WRAP_PAD, 16, 32, WRAPS),
    (sys::CKM_AES_KEY_WRAP_KWP, 16, 32, WRAPS),
    (sys::CKM_DES3_CMAC, 24, 24, SIGNS),
    (sys::CKM_DES3_ECB, 24, 24, ENCRYPTS),
    (sys::CKM_DES3_CBC, 24, 24, ENCRYPTS),
    (sys::CKM_DES3_CBC_PAD, 24, 24, ENCRYPTS),
    (sys::CKM_AES_KEY_GEN, 16, 32, GENERATES),
    (sys::CKM_DES3_KEY_GEN, 24, 24, GENERATES),
    (sys::CKM_GENERIC_SECRET_KEY_GEN, 16, 512, GENERATES),
    (sys::CKM_EC_KEY_PAIR_GEN, 256, 521, PAIRS | CURVES),
    (sys::CKM_EC_EDWARDS_KEY_PAIR_GEN, 256, 256, PAIRS | CURVES),
    (sys::CKM_RSA_PKCS_KEY_PAIR_GEN, 2_048, 4_096, PAIRS),
];

const SIGNS: sys::CK_FLAGS = sys::CKF_HW | sys::CKF_SIGN | sys::CKF_VERIFY;
const ENCRYPTS: sys::CK_FLAGS = sys::CKF_HW | sys::CKF_ENCRYPT | sys::CKF_DECRYPT;
/// Whoever has the public key encrypts by himself.
const DECRYPTS: sys::CK_FLAGS = sys::CKF_HW | sys::CKF_DECRYPT;
const WRAPS: sys::CK_FLAGS = sys::CKF_HW | sys::CKF_WRAP | sys::CKF_UNWRAP;
const GENERATES: sys::CK_FLAGS = sys::CKF_HW | sys::CKF_GENERATE;
const PAIRS: sys::CK_FLAGS = sys::CKF_HW | sys::CKF_GENERATE_KEY_PAIR;
const CURVES: sys::CK_FLAGS = sys::CKF_EC_F_P | sys::CKF_EC_NAMEDCURVE;

impl Mechanism {
    /// PSS over a digest, or over a message with `hashing`. The mask generation function must use the same hash, as
    /// every caller here does.
    pub(crate) fn pss(
        parameters: &sys::CK_RSA_PKCS_PSS_PARAMS,
        hashing: Option<Hash>,
    ) -> Result<Self, sys::CK_RV> {
        let hash = Hash::with_mask(parameters.hashAlg, parameters.mgf)?;
        // No salt is longer than the modulus; the key says later whether this one fits.
        let salt_len = usize::try_from(parameters.sLen).ok().filter(|&len| len <= 512);
        let salt_len = salt_len.ok_or(sys::CKR_MECHANISM_PARAM_INVALID)?;
        if hash == Hash::Sha1 || hashing.is_some_and(|hashing| hashing != hash) {
            return Err(sys::CKR_MECHANISM_PARAM_INVALID);
        }
        Ok(Self::RsaPss { hash, salt_len, hashing: hashing.is_some() })
    }

    /// AES-GCM with an IV of 12 or 16 bytes and a tag of 16.
    pub(crate) fn gcm(iv: &[u8], aad: &[u8], tag_bits: u64) -> Result<Self, sys::CK_RV> {
        if !matches!(iv.len(), 12 | 16) || tag_bits != TAG_LEN as u64 * 8 {
            return Err(sys::CKR_MECHANISM_PARAM_INVALID);
        }
        Ok(Self::AesGcm { iv: iv.to_vec(), aad: aad.to_vec() })
    }

    /// CBC with an IV of one block.
    pub(crate) fn cbc(cipher: Cipher, iv: &[u8], padded: bool) -> Result<Self, sys::CK_RV> {
        let iv = if iv.len() == cipher.block_len() { Ok(iv.to_vec()) } else { Err(()) };
        Ok(Self::Cbc { cipher, iv: iv.map_err(|()| sys::CKR_MECHANISM_PARAM_INVALID)?, padded })
    }

    /// CTR with a counter of 1 to 128 bits.
    pub(crate) fn ctr(parameters: &sys::CK_AES_CTR_PARAMS) -> Result<Self, sys::CK_RV> {
        let counter_bits =
            u32::try_from(parameters.ulCounterBits).ok().filter(|bits| (1..=128).contains(bits));
        let counter_bits = counter_bits.ok_or(sys::CKR_MECHANISM_PARAM_INVALID)?;
        Ok(Self::AesCtr { block: parameters.cb, counter_bits })
    }

    /// Whether a key is of the type that it takes.
    pub(crate) const fn fits(&self, key: &Key) -> bool {
        key.key_type() == self.key_type()
    }

    const fn key_type(&self) -> sys::CK_KEY_TYPE {
        match self {
            Self::RsaPkcs
            | Self::RsaRaw
            | Self::RsaPkcsHashing(_)
            | Self::RsaPss { .. }
            | Self::RsaOaep { .. } => sys::CKK_RSA,
            Self::Ecdsa(_) => sys::CKK_EC,
            Self::Ed25519 => sys::CKK_EC_EDWARDS,
            Self::Hmac(_) => sys::CKK_GENERIC_SECRET,
            Self::AesCtr { .. } | Self::AesGcm { .. } => sys::CKK_AES,
            Self::Cmac(cipher) | Self::Ecb(cipher) | Self::Cbc { cipher, .. } => match cipher {
                Cipher::Aes => sys::CKK_AES,
                Cipher::TripleDes => sys::CKK_DES3,
            },
        }
    }

    /// Length of a signature or MAC by such a key.
    pub(crate) fn signature_len(&self, key: &Key) -> usize {
        match self {
            Self::Hmac(hash) => hash.len(),
            Self::Cmac(cipher) => cipher.block_len(),
            _ => key.signature_len(),
        }
    }

    /// Length of a ciphertext.
    pub(crate) const fn encrypted_len(&self, len: usize) -> usize {
        match self {
            Self::AesGcm { .. } => len + TAG_LEN,
            Self::Cbc { cipher, padded: true, .. } => (len / cipher.block_len() + 1) * cipher.block_len(),
            _ => len,
        }
    }

    /// Most bytes of a plaintext: of a padded one the padding is counted, for nobody knows its length before.
    pub(crate) fn decrypted_len_max(&self, key: &Key, len: usize) -> usize {
        match self {
            Self::AesGcm { .. } => len.saturating_sub(TAG_LEN),
            Self::RsaPkcs | Self::RsaRaw | Self::RsaOaep { .. } => key.signature_len(),
            _ => len,
        }
    }
}

impl Hash {
    /// The hash of this number, with the mask generation function that uses it.
    pub(crate) const fn with_mask(
        hash: sys::CK_MECHANISM_TYPE,
        mask: sys::CK_RSA_PKCS_MGF_TYPE,
    ) -> Result<Self, sys::CK_RV> {
        match (hash, mask) {
            (sys::CKM_SHA_1, sys::CKG_MGF1_SHA1) => Ok(Self::Sha1),
            (sys::CKM_SHA256, sys::CKG_MGF1_SHA256) => Ok(Self::Sha256),
            (sys::CKM_SHA384, sys::CKG_MGF1_SHA384) => Ok(Self::Sha384),
            (sys::CKM_SHA512, sys::CKG_MGF1_SHA512) => Ok(Self::Sha512),
            _ => Err(sys::CKR_MECHANISM_PARAM_INVALID),
        }
    }

    pub(crate) const fn len(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }
}

impl Cipher {
    pub(crate) const fn block_len(self) -> usize {
        match self {
            Self::Aes => 16,
            Self::TripleDes => 8,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mechanism_is_offered_once() {
        for (i, (mechanism, ..)) in OFFERED.iter().enumerate() {
            assert!(!OFFERED[..i].iter().any(|(other, ..)| other == mechanism), "{mechanism:#x}");
        }
    }
}
