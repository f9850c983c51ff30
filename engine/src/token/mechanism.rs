//! Mechanisms with their parameters, as plain data that a request carries.

use std::sync::Arc;

use cryptoki_sys as sys;
use smallvec::SmallVec;

use crate::token::task::Handles;

/// Length of the IV that the engine draws for AES-GCM, in bytes (SP 800-38D, 8.2.2: 96 random bits).
pub(crate) const GCM_IV_LEN: usize = 12;

/// Length of every AES-GCM tag, in bytes.
pub(crate) const GCM_TAG_LEN: usize = 16;

/// Length of an AES block in bytes (FIPS 197).
pub(crate) const AES_BLOCK_LEN: usize = 16;

/// Length of a DES block in bytes (SP 800-67).
pub(crate) const DES_BLOCK_LEN: usize = 8;

/// A hash that runs on the host or is named in a mechanism's parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hash {
    /// SHA-1 (FIPS 180-4): for RSA-OAEP only, where old tokens know no other and collisions do no harm.
    Sha1,
    /// SHA-256 (FIPS 180-4).
    Sha256,
    /// SHA-384 (FIPS 180-4).
    Sha384,
    /// SHA-512 (FIPS 180-4).
    Sha512,
}

impl Hash {
    /// Length of a digest in bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "the length of a digest, not of a collection")]
    pub const fn len(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    /// Its mechanism, and its mask generation function.
    pub(crate) const fn numbers(self) -> (sys::CK_MECHANISM_TYPE, sys::CK_RSA_PKCS_MGF_TYPE) {
        match self {
            Self::Sha1 => (sys::CKM_SHA_1, sys::CKG_MGF1_SHA1),
            Self::Sha256 => (sys::CKM_SHA256, sys::CKG_MGF1_SHA256),
            Self::Sha384 => (sys::CKM_SHA384, sys::CKG_MGF1_SHA384),
            Self::Sha512 => (sys::CKM_SHA512, sys::CKG_MGF1_SHA512),
        }
    }
}

/// A mechanism with its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mechanism {
    /// `CKM_RSA_PKCS`: a DigestInfo that the host has built, or a ciphertext.
    RsaPkcs1,
    /// `CKM_RSA_X_509`: the bare function on a block as long as the modulus.
    RsaRaw,
    /// `CKM_RSA_PKCS_PSS` over a digest that the host has computed.
    RsaPss { hash: Hash, salt_len: u32 },
    /// `CKM_SHA256_RSA_PKCS` and its like, over the message.
    RsaPkcs1Hashing(Hash),
    /// `CKM_SHA256_RSA_PKCS_PSS` and its like, over the message.
    RsaPssHashing { hash: Hash, salt_len: u32 },
    /// `CKM_RSA_PKCS_OAEP`. No label is `None`.
    RsaOaep { hash: Hash, label: Option<Arc<[u8]>> },
    /// `CKM_ECDSA` over a digest that the host has computed.
    Ecdsa,
    /// `CKM_ECDSA_SHA256` and its like, over the message.
    EcdsaHashing(Hash),
    /// `CKM_EDDSA` without parameters: Ed25519 over the message (RFC 8032).
    Ed25519,
    /// `CKM_SHA256_HMAC` and its like.
    Hmac(Hash),
    /// `CKM_AES_CMAC`.
    AesCmac,
    /// `CKM_DES3_CMAC`.
    TripleDesCmac,
    /// `CKM_DES3_CBC` with the first key over all blocks but the last, then `CKM_DES3_ECB` over the last. `tokens`
    /// is the mask of those that hold the first key, `engine` the number of its engine.
    RetailMac { first: Arc<Handles>, tokens: u64, engine: u64 },
    /// `CKM_AES_ECB`.
    AesEcb,
    /// `CKM_AES_CBC`.
    AesCbc(Iv),
    /// `CKM_AES_CBC_PAD`.
    AesCbcPad(Iv),
    /// `CKM_AES_CTR`; the IV is the first counter block.
    AesCtr { iv: Iv, counter_bits: u32 },
    /// `CKM_AES_GCM` with a tag of [`GCM_TAG_LEN`] bytes. No AAD is `None`, never an empty slice, so that the
    /// common request touches no shared reference count.
    AesGcm { iv: Iv, aad: Option<Arc<[u8]>> },
    /// `CKM_DES3_ECB`.
    TripleDesEcb,
    /// `CKM_DES3_CBC`.
    TripleDesCbc(Iv),
    /// `CKM_DES3_CBC_PAD`.
    TripleDesCbcPad(Iv),
    /// Whatever the caller named.
    Raw { number: u64, parameter: Arc<[u8]> },
}

/// What a mechanism is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Usage {
    Sign,
    Encrypt,
    Decrypt,
}

impl Usage {
    pub(crate) const ALL: [Self; 3] = [Self::Sign, Self::Encrypt, Self::Decrypt];

    /// Its flag in `CK_MECHANISM_INFO`.
    pub(crate) const fn flag(self) -> sys::CK_FLAGS {
        match self {
            Self::Sign => sys::CKF_SIGN,
            Self::Encrypt => sys::CKF_ENCRYPT,
            Self::Decrypt => sys::CKF_DECRYPT,
        }
    }
}

/// Where the IV of a call comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Iv {
    /// Drawn by the session from the kernel's generator just before the call, anew for every attempt.
    Drawn,
    /// Given: always so for decryption. Inline up to 16 bytes, so that the usual IV costs no allocation.
    Given(SmallVec<[u8; 16]>),
}

impl Mechanism {
    /// How many mechanisms have a place in a table, which is all but the raw one.
    pub(crate) const COUNT: usize = 30;

    /// Their `CKM_` numbers, by [`Mechanism::index`].
    pub(crate) const NUMBERS: [sys::CK_MECHANISM_TYPE; Self::COUNT] = [
        sys::CKM_RSA_PKCS,
        sys::CKM_RSA_X_509,
        sys::CKM_RSA_PKCS_PSS,
        sys::CKM_SHA256_RSA_PKCS,
        sys::CKM_SHA384_RSA_PKCS,
        sys::CKM_SHA512_RSA_PKCS,
        sys::CKM_SHA256_RSA_PKCS_PSS,
        sys::CKM_SHA384_RSA_PKCS_PSS,
        sys::CKM_SHA512_RSA_PKCS_PSS,
        sys::CKM_RSA_PKCS_OAEP,
        sys::CKM_RSA_PKCS_OAEP,
        sys::CKM_ECDSA,
        sys::CKM_ECDSA_SHA256,
        sys::CKM_ECDSA_SHA384,
        sys::CKM_ECDSA_SHA512,
        sys::CKM_EDDSA,
        sys::CKM_SHA256_HMAC,
        sys::CKM_SHA384_HMAC,
        sys::CKM_SHA512_HMAC,
        sys::CKM_AES_CMAC,
        sys::CKM_DES3_CMAC,
        sys::CKM_DES3_CBC,
        sys::CKM_AES_ECB,
        sys::CKM_AES_CBC,
        sys::CKM_AES_CBC_PAD,
        sys::CKM_AES_CTR,
        sys::CKM_AES_GCM,
        sys::CKM_DES3_ECB,
        sys::CKM_DES3_CBC,
        sys::CKM_DES3_CBC_PAD,
    ];

    /// The place of OAEP with another hash than SHA-1, or with a label, which not every token that lists the
    /// mechanism has.
    pub(crate) const OAEP_MORE: usize = 10;

    /// The place of the retail MAC, which takes two mechanisms.
    pub(crate) const RETAIL_MAC: usize = 21;

    /// Its place among all mechanisms; none for a raw one.
    #[inline]
    pub(crate) const fn index(&self) -> Option<usize> {
        Some(match self {
            Self::RsaPkcs1 => 0,
            Self::RsaRaw => 1,
            Self::RsaPss { .. } => 2,
            Self::RsaPkcs1Hashing(hash) => 3 + of_sha2(*hash),
            Self::RsaPssHashing { hash, .. } => 6 + of_sha2(*hash),
            Self::RsaOaep { hash: Hash::Sha1, label: None } => 9,
            Self::RsaOaep { .. } => Self::OAEP_MORE,
            Self::Ecdsa => 11,
            Self::EcdsaHashing(hash) => 12 + of_sha2(*hash),
            Self::Ed25519 => 15,
            Self::Hmac(hash) => 16 + of_sha2(*hash),
            Self::AesCmac => 19,
            Self::TripleDesCmac => 20,
            Self::RetailMac { .. } => Self::RETAIL_MAC,
            Self::AesEcb => 22,
            Self::AesCbc(_) => 23,
            Self::AesCbcPad(_) => 24,
            Self::AesCtr { .. } => 25,
            Self::AesGcm { .. } => 26,
            Self::TripleDesEcb => 27,
            Self::TripleDesCbc(_) => 28,
            Self::TripleDesCbcPad(_) => 29,
            Self::Raw { .. } => return None,
        })
    }

    /// The `CKM_` number under which tokens list it.
    pub(crate) const fn number(&self) -> sys::CK_MECHANISM_TYPE {
        match (self, self.index()) {
            (_, Some(index)) => Self::NUMBERS[index],
            (Self::Raw { number, .. }, None) => *number,
            (_, None) => sys::CKM_VENDOR_DEFINED,
        }
    }

    /// Whether it enciphers block by block.
    pub(crate) const fn is_ecb(&self) -> bool {
        matches!(self, Self::AesEcb | Self::TripleDesEcb)
    }

    /// The IV of a mechanism that has one.
    pub(crate) const fn iv(&self) -> Option<&Iv> {
        match self {
            Self::AesCbc(iv)
            | Self::AesCbcPad(iv)
            | Self::TripleDesCbc(iv)
            | Self::TripleDesCbcPad(iv)
            | Self::AesCtr { iv, .. }
            | Self::AesGcm { iv, .. } => Some(iv),
            _ => None,
        }
    }

    /// As [`Mechanism::iv`], to set it.
    pub(crate) const fn iv_mut(&mut self) -> Option<&mut Iv> {
        match self {
            Self::AesCbc(iv)
            | Self::AesCbcPad(iv)
            | Self::TripleDesCbc(iv)
            | Self::TripleDesCbcPad(iv)
            | Self::AesCtr { iv, .. }
            | Self::AesGcm { iv, .. } => Some(iv),
            _ => None,
        }
    }

    /// How an IV that the engine draws looks: so many bytes, of which so many at the front are random and the rest
    /// zero. That of CTR ends in a counter of 32 bits that begins at 0.
    pub(crate) const fn drawn_iv_len(&self) -> (usize, usize) {
        match self {
            Self::AesGcm { .. } => (GCM_IV_LEN, GCM_IV_LEN),
            Self::AesCtr { .. } => (AES_BLOCK_LEN, AES_BLOCK_LEN - DRAWN_COUNTER_BITS as usize / 8),
            Self::AesCbc(_) | Self::AesCbcPad(_) => (AES_BLOCK_LEN, AES_BLOCK_LEN),
            Self::TripleDesCbc(_) | Self::TripleDesCbcPad(_) => (DES_BLOCK_LEN, DES_BLOCK_LEN),
            _ => (0, 0),
        }
    }
}

/// Bits of the counter in a counter block that the engine draws: 96 bits are left to be random, as in GCM, and
/// 64 GiB fit under one block.
pub(crate) const DRAWN_COUNTER_BITS: u8 = 32;

/// SHA-1 stands beside no mechanism that hashes: no algorithm of this crate signs with it.
const fn of_sha2(hash: Hash) -> usize {
    match hash {
        Hash::Sha1 | Hash::Sha256 => 0,
        Hash::Sha384 => 1,
        Hash::Sha512 => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mechanism_stands_at_its_own_index_under_its_own_number() {
        let hashes = [Hash::Sha256, Hash::Sha384, Hash::Sha512];
        let mut all = vec![Mechanism::RsaPkcs1, Mechanism::RsaRaw];
        all.push(Mechanism::RsaPss { hash: Hash::Sha256, salt_len: 32 });
        all.extend(hashes.map(Mechanism::RsaPkcs1Hashing));
        all.extend(hashes.map(|hash| Mechanism::RsaPssHashing { hash, salt_len: 0 }));
        all.extend([Hash::Sha1, Hash::Sha256].map(|hash| Mechanism::RsaOaep { hash, label: None }));
        all.push(Mechanism::Ecdsa);
        all.extend(hashes.map(Mechanism::EcdsaHashing));
        all.push(Mechanism::Ed25519);
        all.extend(hashes.map(Mechanism::Hmac));
        all.extend([Mechanism::AesCmac, Mechanism::TripleDesCmac]);
        all.push(Mechanism::RetailMac { first: Arc::new(Handles::new([])), tokens: 0, engine: 0 });
        all.extend([Mechanism::AesEcb, Mechanism::AesCbc(Iv::Drawn), Mechanism::AesCbcPad(Iv::Drawn)]);
        all.push(Mechanism::AesCtr { iv: Iv::Drawn, counter_bits: 32 });
        all.push(Mechanism::AesGcm { iv: Iv::Drawn, aad: None });
        all.extend([Mechanism::TripleDesEcb, Mechanism::TripleDesCbc(Iv::Drawn)]);
        all.push(Mechanism::TripleDesCbcPad(Iv::Drawn));
        assert_eq!(all.len(), Mechanism::COUNT);
        for (i, mechanism) in all.iter().enumerate() {
            assert_eq!(mechanism.index(), Some(i), "{mechanism:?}");
            assert_eq!(mechanism.number(), Mechanism::NUMBERS[i], "{mechanism:?}");
        }
    }

    #[test]
    fn a_raw_mechanism_has_a_number_and_no_place() {
        let raw = Mechanism::Raw { number: 0x8000_0007, parameter: [].into() };
        assert_eq!((raw.index(), raw.number()), (None, 0x8000_0007));
    }
}
