//! What a session is to do for one request, as plain data.
//!
//! An operation builds a [`Call`] on the caller's side, the schedule carries it without looking inside, and
//! the session that takes it turns it into PKCS#11 calls.

use std::sync::Arc;

use cryptoki::mechanism::MechanismType;

use crate::pkcs11::ObjectHandle;
use smallvec::SmallVec;

/// Length of the IV that the engine draws for AES-GCM, in bytes (SP 800-38D, 8.2.2: 96 random bits).
pub(crate) const GCM_IV_LEN: usize = 12;

/// Length of every AES-GCM tag, in bytes.
pub(crate) const GCM_TAG_LEN: usize = 16;

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
    #[expect(clippy::len_without_is_empty, reason = "the length of a digest, not of a collection")]
    pub const fn len(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }
}

/// One cryptographic operation of a session: Init and one call.
///
/// Output layout is the C function's own, but for [`Mechanism::AesGcm`] with [`Iv::Drawn`]: there the IV comes
/// first, then what `C_Encrypt` writes (ciphertext, then tag).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Sign(Mechanism),
    Encrypt(Mechanism),
    Decrypt(Mechanism),
    /// Fill the output with random bytes (`C_GenerateRandom`); there is no key and no input.
    Random,
}

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
    /// `CKM_AES_GCM` with a tag of [`GCM_TAG_LEN`] bytes. No AAD is `None`, never an empty slice, so that the
    /// common request touches no shared reference count.
    AesGcm { iv: Iv, aad: Option<Arc<[u8]>> },
}

/// Where the IV of an AES-GCM call comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Iv {
    /// Drawn by the session from the kernel's generator just before the call, anew for every attempt.
    Drawn,
    /// Given: always so for decryption. Inline up to 16 bytes, so that the usual IV costs no allocation.
    Given(SmallVec<[u8; 16]>),
}

impl Mechanism {
    /// How many mechanisms there are.
    pub(crate) const COUNT: usize = 6;

    /// Their types, by [`Mechanism::index`].
    pub(crate) const TYPES: [MechanismType; Self::COUNT] = [
        MechanismType::RSA_PKCS,
        MechanismType::RSA_PKCS_PSS,
        MechanismType::ECDSA,
        MechanismType::SHA256_HMAC,
        MechanismType::AES_ECB,
        MechanismType::AES_GCM,
    ];

    /// Its place among all mechanisms.
    pub(crate) const fn index(&self) -> usize {
        match self {
            Self::RsaPkcs1 => 0,
            Self::RsaPss { .. } => 1,
            Self::Ecdsa => 2,
            Self::HmacSha256 => 3,
            Self::AesEcb => 4,
            Self::AesGcm { .. } => 5,
        }
    }

    /// The type under which tokens list this mechanism.
    pub(crate) const fn mechanism_type(&self) -> MechanismType {
        Self::TYPES[self.index()]
    }
}

/// One request as a session runs it.
#[derive(Clone)]
pub(crate) struct Task {
    pub(crate) call: Call,
    /// None for calls without a key.
    pub(crate) handles: Option<Arc<Handles>>,
    /// Bytes the output needs at most.
    pub(crate) output_len: usize,
    /// Index of the kind of plan, for its cost.
    pub(crate) plan: usize,
}

/// Where a key lives: its object on each token of the engine that holds it.
///
/// Object handles belong to one epoch of one token and die with it.
#[derive(Debug)]
pub(crate) struct Handles(Box<[Option<Handle>]>);

/// A key's object on one token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Handle {
    pub(crate) epoch: u64,
    pub(crate) object: ObjectHandle,
}

impl Handles {
    /// By index of the token.
    pub(crate) fn new(by_token: impl IntoIterator<Item = Option<Handle>>) -> Self {
        Self(by_token.into_iter().collect())
    }

    pub(crate) fn on(&self, token: usize) -> Option<Handle> {
        self.0.get(token).copied().flatten()
    }
}
