//! Mechanisms as plain data: what a request carries until a session turns it into a `CK_MECHANISM`.
//!
//! A `CK_MECHANISM` holds raw pointers into its parameters and so cannot travel between threads; these
//! values can.

use std::sync::Arc;

/// A hash that runs on the host or is named in a mechanism's parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hash {
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
    pub const fn len(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }
}

/// Length of the IV that the engine draws for AES-GCM, in bytes (SP 800-38D, 8.2.2: 96 random bits).
pub(crate) const GCM_IV_LEN: usize = 12;

/// A mechanism with its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mechanism {
    /// `CKM_RSA_PKCS` over a DigestInfo that the host has built.
    RsaPkcs1,
    /// `CKM_RSA_PKCS_PSS` over a digest that the host has computed.
    RsaPss { hash: Hash, salt_len: u32 },
    /// `CKM_ECDSA` over a digest that the host has computed.
    Ecdsa,
    /// `CKM_SHA256_HMAC`.
    HmacSha256,
    /// `CKM_AES_ECB`.
    AesEcb,
    /// `CKM_AES_GCM` with a tag of 16 bytes.
    AesGcm { iv: Iv, aad: Arc<[u8]> },
}

/// Where the IV of an AES-GCM call comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Iv {
    /// Drawn by the session from the kernel's generator just before the call, anew for every attempt.
    Drawn,
    /// Given: always so for decryption.
    Given(Arc<[u8]>),
}
