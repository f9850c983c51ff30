//! Algorithms that sign or make MACs.

use std::sync::Arc;

use super::raw::RawMechanism;
use crate::token::facts::Curve;
use crate::token::task::{Handles, Hash};

/// ECDSA over a message that the host hashes.
///
/// A signature is the two halves `r || s`, each as long as a field element (IEEE P1363), unless
/// [`Ecdsa::der`] asks for the DER form. Of a digest that is longer than the field, the leftmost bits count
/// (FIPS 186-5, 6.4.1). Where the nonce comes from is the token's choice: random with nearly all of them, so two
/// signatures of one message differ.
///
/// ```
/// use hsmux::{Ecdsa, SignAlgorithm};
///
/// let for_a_certificate = SignAlgorithm::from(Ecdsa::P256_SHA256.der());
/// assert_ne!(for_a_certificate, Ecdsa::P256_SHA256.into());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ecdsa {
    pub(in crate::operation) curve: Curve,
    pub(in crate::operation) hash: Hash,
    pub(in crate::operation) der: bool,
}

impl Ecdsa {
    /// ECDSA on P-256 with SHA-256.
    pub const P256_SHA256: Self = Self::new(Curve::P256, Hash::Sha256);
    /// ECDSA on P-256 with SHA-384, of which 256 bits count.
    pub const P256_SHA384: Self = Self::new(Curve::P256, Hash::Sha384);
    /// ECDSA on P-256 with SHA-512, of which 256 bits count.
    pub const P256_SHA512: Self = Self::new(Curve::P256, Hash::Sha512);
    /// ECDSA on P-384 with SHA-256.
    pub const P384_SHA256: Self = Self::new(Curve::P384, Hash::Sha256);
    /// ECDSA on P-384 with SHA-384.
    pub const P384_SHA384: Self = Self::new(Curve::P384, Hash::Sha384);
    /// ECDSA on P-384 with SHA-512, of which 384 bits count.
    pub const P384_SHA512: Self = Self::new(Curve::P384, Hash::Sha512);
    /// ECDSA on P-521 with SHA-256.
    pub const P521_SHA256: Self = Self::new(Curve::P521, Hash::Sha256);
    /// ECDSA on P-521 with SHA-384.
    pub const P521_SHA384: Self = Self::new(Curve::P521, Hash::Sha384);
    /// ECDSA on P-521 with SHA-512.
    pub const P521_SHA512: Self = Self::new(Curve::P521, Hash::Sha512);

    const fn new(curve: Curve, hash: Hash) -> Self {
        Self { curve, hash, der: false }
    }

    /// The same algorithm with signatures in DER, as X.509 and TLS carry them (RFC 3279, 2.2.3).
    #[must_use]
    pub const fn der(mut self) -> Self {
        self.der = true;
        self
    }

    /// Bytes of a digest that the token is given.
    pub(in crate::operation) const fn digest_len(self) -> usize {
        let (hash, field) = (self.hash.len(), self.curve.field_len());
        if hash < field { hash } else { field }
    }
}

/// Ed25519 (RFC 8032): deterministic, over the whole message, on the token. It takes no digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ed25519;

/// RSA signature with the padding of PKCS#1 v1.5 (RFC 8017, 8.2) over a message that the host hashes:
/// deterministic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RsaPkcs1 {
    pub(in crate::operation) hash: Hash,
}

impl RsaPkcs1 {
    /// PKCS#1 v1.5 with SHA-256.
    pub const SHA256: Self = Self { hash: Hash::Sha256 };
    /// PKCS#1 v1.5 with SHA-384.
    pub const SHA384: Self = Self { hash: Hash::Sha384 };
    /// PKCS#1 v1.5 with SHA-512.
    pub const SHA512: Self = Self { hash: Hash::Sha512 };
}

/// RSA signature with PSS padding (RFC 8017, 8.1) over a message that the host hashes.
///
/// The mask is MGF1 with the same hash. The salt is random and as long as a digest, as TLS 1.3 and most others
/// have it, unless [`RsaPss::salt_len`] says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RsaPss {
    pub(in crate::operation) hash: Hash,
    pub(in crate::operation) salt_len: u16,
}

impl RsaPss {
    /// PSS with SHA-256 and a salt of 32 bytes.
    pub const SHA256: Self = Self { hash: Hash::Sha256, salt_len: 32 };
    /// PSS with SHA-384 and a salt of 48 bytes.
    pub const SHA384: Self = Self { hash: Hash::Sha384, salt_len: 48 };
    /// PSS with SHA-512 and a salt of 64 bytes.
    pub const SHA512: Self = Self { hash: Hash::Sha512, salt_len: 64 };

    /// The same with a salt of so many bytes. 0 makes the signature deterministic (RFC 8017, 9.1, note 4).
    #[must_use]
    pub const fn salt_len(mut self, bytes: u16) -> Self {
        self.salt_len = bytes;
        self
    }
}

/// HMAC (RFC 2104) over the whole message, on the token: its key never leaves, so the host cannot hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Hmac {
    pub(in crate::operation) hash: Hash,
}

impl Hmac {
    /// HMAC with SHA-256.
    pub const SHA256: Self = Self { hash: Hash::Sha256 };
    /// HMAC with SHA-384.
    pub const SHA384: Self = Self { hash: Hash::Sha384 };
    /// HMAC with SHA-512.
    pub const SHA512: Self = Self { hash: Hash::Sha512 };
}

/// CMAC (SP 800-38B), a MAC made of a block cipher, on the token. The MAC is a whole block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cmac {
    /// With AES: 16 bytes.
    Aes,
    /// With triple DES: 8 bytes. For old payment systems.
    TripleDes,
}

/// The retail MAC of payment systems: ISO/IEC 9797-1, MAC algorithm 3 with DES, also known as ANSI X9.19. 8 bytes.
///
/// PKCS#11 has no mechanism for it. It is made of two triple DES keys that the token holds: the key that is asked,
/// `K1 || K2 || K1`, and a `first` one, `K1 || K1 || K1`, which is single DES with the first half. A message of one
/// block takes two PKCS#11 calls, a longer one four; both keys must allow `CKA_ENCRYPT`.
///
/// Made by [`RetailMac::new`].
#[derive(Clone)]
pub struct RetailMac {
    pub(crate) first: FirstKey,
    pub(crate) padding: MacPadding,
}

/// The first key of a retail MAC, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FirstKey {
    pub(crate) handles: Arc<Handles>,
    /// The tokens that hold it: bit i is token i.
    pub(crate) tokens: u64,
    /// Number of its engine: handles mean nothing to another.
    pub(crate) engine: u64,
}

/// How a message is filled up to whole blocks before a retail MAC (ISO/IEC 9797-1, 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MacPadding {
    /// Method 1: with zeros. Messages that differ in zeros at the end have the same MAC.
    Method1,
    /// Method 2: with one bit 1 and then zeros.
    Method2,
}

/// An algorithm that signs or makes MACs, and verifies them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SignAlgorithm {
    /// ECDSA.
    Ecdsa(Ecdsa),
    /// Ed25519.
    Ed25519,
    /// RSA with the padding of PKCS#1 v1.5.
    RsaPkcs1(RsaPkcs1),
    /// RSA with PSS padding.
    RsaPss(RsaPss),
    /// HMAC.
    Hmac(Hmac),
    /// CMAC.
    Cmac(Cmac),
    /// The retail MAC.
    RetailMac(RetailMac),
    /// Whatever the token makes of it; cannot be verified.
    Raw(RawMechanism),
}

impl PartialEq for RetailMac {
    fn eq(&self, other: &Self) -> bool {
        self.first == other.first && self.padding == other.padding
    }
}

impl Eq for RetailMac {}

impl std::fmt::Debug for RetailMac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RetailMac").field("padding", &self.padding).finish_non_exhaustive()
    }
}

impl From<Ecdsa> for SignAlgorithm {
    fn from(algorithm: Ecdsa) -> Self {
        Self::Ecdsa(algorithm)
    }
}

impl From<Ed25519> for SignAlgorithm {
    fn from(Ed25519: Ed25519) -> Self {
        Self::Ed25519
    }
}

impl From<RsaPkcs1> for SignAlgorithm {
    fn from(algorithm: RsaPkcs1) -> Self {
        Self::RsaPkcs1(algorithm)
    }
}

impl From<RsaPss> for SignAlgorithm {
    fn from(algorithm: RsaPss) -> Self {
        Self::RsaPss(algorithm)
    }
}

impl From<Hmac> for SignAlgorithm {
    fn from(algorithm: Hmac) -> Self {
        Self::Hmac(algorithm)
    }
}

impl From<Cmac> for SignAlgorithm {
    fn from(algorithm: Cmac) -> Self {
        Self::Cmac(algorithm)
    }
}

impl From<RetailMac> for SignAlgorithm {
    fn from(algorithm: RetailMac) -> Self {
        Self::RetailMac(algorithm)
    }
}

impl From<RawMechanism> for SignAlgorithm {
    fn from(mechanism: RawMechanism) -> Self {
        Self::Raw(mechanism)
    }
}
