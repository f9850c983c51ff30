//! The algorithms a caller can name.

use std::fmt;
use std::sync::Arc;

use crate::token::facts::Curve;
use crate::token::task::{GCM_IV_LEN, Hash, Iv};

/// ECDSA over a message that the host hashes.
///
/// A signature is the two halves `r || s`, each as long as a field element (IEEE P1363), unless
/// [`Ecdsa::der`] asks for the DER form.
///
/// ```
/// use hsmux::{Ecdsa, SignAlgorithm};
///
/// let for_a_certificate = SignAlgorithm::from(Ecdsa::P256_SHA256.der());
/// assert_ne!(for_a_certificate, Ecdsa::P256_SHA256.into());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ecdsa {
    pub(super) curve: Curve,
    pub(super) hash: Hash,
    pub(super) der: bool,
}

impl Ecdsa {
    /// ECDSA on P-256 with SHA-256.
    pub const P256_SHA256: Self = Self { curve: Curve::P256, hash: Hash::Sha256, der: false };
    /// ECDSA on P-384 with SHA-256.
    pub const P384_SHA256: Self = Self { curve: Curve::P384, hash: Hash::Sha256, der: false };
    /// ECDSA on P-384 with SHA-384.
    pub const P384_SHA384: Self = Self { curve: Curve::P384, hash: Hash::Sha384, der: false };

    /// The same algorithm with signatures in DER, as X.509 and TLS carry them (RFC 3279, 2.2.3).
    #[must_use]
    pub const fn der(mut self) -> Self {
        self.der = true;
        self
    }
}

/// RSA signature with the padding of PKCS#1 v1.5 (RFC 8017, 8.2) over a message that the host hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RsaPkcs1 {
    pub(super) hash: Hash,
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
/// The mask is MGF1 with the same hash and the salt is as long as a digest, as TLS 1.3 and most others
/// have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RsaPss {
    pub(super) hash: Hash,
}

impl RsaPss {
    /// PSS with SHA-256 and a salt of 32 bytes.
    pub const SHA256: Self = Self { hash: Hash::Sha256 };
    /// PSS with SHA-384 and a salt of 48 bytes.
    pub const SHA384: Self = Self { hash: Hash::Sha384 };
    /// PSS with SHA-512 and a salt of 64 bytes.
    pub const SHA512: Self = Self { hash: Hash::Sha512 };
}

/// HMAC (RFC 2104) over the whole message, on the token: its key never leaves, so the host cannot hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Hmac {
    pub(super) hash: Hash,
}

impl Hmac {
    /// HMAC with SHA-256.
    pub const SHA256: Self = Self { hash: Hash::Sha256 };
}

/// An algorithm that signs or makes MACs, and verifies them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SignAlgorithm {
    /// ECDSA.
    Ecdsa(Ecdsa),
    /// RSA with the padding of PKCS#1 v1.5.
    RsaPkcs1(RsaPkcs1),
    /// RSA with PSS padding.
    RsaPss(RsaPss),
    /// HMAC.
    Hmac(Hmac),
}

impl SignAlgorithm {
    pub(super) const fn hash(self) -> Hash {
        match self {
            Self::Ecdsa(Ecdsa { hash, .. })
            | Self::RsaPkcs1(RsaPkcs1 { hash })
            | Self::RsaPss(RsaPss { hash })
            | Self::Hmac(Hmac { hash }) => hash,
        }
    }
}

/// AES-GCM with a tag of 16 bytes (SP 800-38D).
///
/// Without [`AesGcm::with_iv`] the engine draws a fresh random IV of 12 bytes for every message, and the
/// bytes of a ciphertext are `iv || body || tag`: what encryption yields is what decryption takes.
///
/// ```
/// use std::sync::Arc;
///
/// use hsmux::{AesGcm, Cipher};
///
/// let header: Arc<[u8]> = b"tenant 7".as_slice().into();
/// let cipher = Cipher::from(AesGcm::new().aad(header));
/// assert_ne!(cipher, AesGcm::new().into());
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct AesGcm {
    pub(super) iv: Iv,
    pub(super) aad: Option<Arc<[u8]>>,
}

impl AesGcm {
    /// AES-GCM with an IV drawn by the engine and no additional data.
    #[must_use]
    pub const fn new() -> Self {
        Self { iv: Iv::Drawn, aad: None }
    }

    /// Data that is authenticated with the message but neither encrypted nor part of the ciphertext.
    ///
    /// Decryption must be given the same data. Default: none. Pass an `Arc<[u8]>` to share one copy
    /// between many requests.
    #[must_use]
    pub fn aad(mut self, aad: impl Into<Arc<[u8]>>) -> Self {
        let aad = aad.into();
        self.aad = (!aad.is_empty()).then_some(aad);
        self
    }

    /// Uses this IV, of 1 to 256 bytes, in place of one that the engine draws.
    ///
    /// To encrypt two messages under one key and IV reveals the XOR of the messages and lets anyone forge
    /// further ones (SP 800-38D, section 8 and appendix A), and the engine cannot see that an IV is used
    /// again. For encryption set it only where a protocol prescribes the IV.
    ///
    /// With an IV given, the bytes of a ciphertext are `body || tag`, both ways.
    #[must_use]
    pub fn with_iv(mut self, iv: impl AsRef<[u8]>) -> Self {
        self.iv = Iv::Given(iv.as_ref().into());
        self
    }

    /// Bytes of IV in front of a ciphertext.
    pub(super) const fn front_len(&self) -> usize {
        match self.iv {
            Iv::Drawn => GCM_IV_LEN,
            Iv::Given(_) => 0,
        }
    }
}

impl Default for AesGcm {
    fn default() -> Self {
        Self::new()
    }
}

/// Shows lengths only: additional data is payload.
impl fmt::Debug for AesGcm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let iv_len = match &self.iv {
            Iv::Drawn => None,
            Iv::Given(iv) => Some(iv.len()),
        };
        f.debug_struct("AesGcm")
            .field("given_iv_len", &iv_len)
            .field("aad_len", &self.aad.as_ref().map_or(0, |aad| aad.len()))
            .finish()
    }
}

/// AES on single blocks of 16 bytes, without a mode (SP 800-38A, 6.1).
///
/// Equal blocks give equal ciphertext and nothing is authenticated: for random values such as keys, for
/// tokens of payment schemes, and as a building block; not for messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AesEcb;

/// An algorithm that encrypts and decrypts.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cipher {
    /// AES-GCM.
    AesGcm(AesGcm),
    /// AES on single blocks.
    AesEcb,
}

impl Cipher {
    /// Whether the caller has chosen the IV.
    pub(crate) const fn gives_iv(&self) -> bool {
        matches!(self, Self::AesGcm(AesGcm { iv: Iv::Given(_), .. }))
    }
}

impl From<Ecdsa> for SignAlgorithm {
    fn from(algorithm: Ecdsa) -> Self {
        Self::Ecdsa(algorithm)
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

impl From<AesGcm> for Cipher {
    fn from(algorithm: AesGcm) -> Self {
        Self::AesGcm(algorithm)
    }
}

impl From<AesEcb> for Cipher {
    fn from(AesEcb: AesEcb) -> Self {
        Self::AesEcb
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_debug_form_of_gcm_shows_lengths_only() {
        let algorithm = AesGcm::new().aad(b"account".as_slice()).with_iv([0xA7; 12]);
        assert_eq!(format!("{algorithm:?}"), "AesGcm { given_iv_len: Some(12), aad_len: 7 }");
    }

    #[test]
    fn empty_additional_data_is_no_additional_data() {
        assert_eq!(AesGcm::new().aad(b"".as_slice()), AesGcm::new());
    }

    #[test]
    fn no_digest_is_longer_than_the_field_of_its_curve() {
        for algorithm in [Ecdsa::P256_SHA256, Ecdsa::P384_SHA256, Ecdsa::P384_SHA384] {
            assert!(algorithm.hash.len() <= algorithm.curve.field_len(), "{algorithm:?}");
        }
    }
}
