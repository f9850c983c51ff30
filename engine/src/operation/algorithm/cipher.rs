//! Algorithms that encrypt and decrypt.

use std::fmt;
use std::sync::Arc;

use smallvec::SmallVec;

use super::raw::RawMechanism;
use crate::token::mechanism::DRAWN_COUNTER_BITS;
use crate::token::task::{AES_BLOCK_LEN, DES_BLOCK_LEN, GCM_IV_LEN, Hash, Iv};

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
    pub(in crate::operation) iv: Iv,
    pub(in crate::operation) aad: Option<Arc<[u8]>>,
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
        self.iv = given(iv);
        self
    }

    /// Bytes of IV in front of a ciphertext.
    pub(in crate::operation) const fn front_len(&self) -> usize {
        front_len(&self.iv, GCM_IV_LEN)
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
        f.debug_struct("AesGcm")
            .field("given_iv_len", &given_len(&self.iv))
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

/// Triple DES on single blocks of 8 bytes, without a mode. For old payment systems; SP 800-131A disallows it for
/// encryption since 2024.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TripleDesEcb;

/// Declares a cipher in CBC mode: the two differ in their block only.
macro_rules! cbc {
    ($(#[$doc:meta])* $name:ident, $block:expr, $size:literal) => {
        $(#[$doc])*
        ///
        /// Any message is filled up to whole blocks by PKCS#7 padding (RFC 5652, 6.3), which the host adds and takes
        /// off, unless this is
        #[doc = concat!("[`", stringify!($name), "::unpadded`]. The engine draws a fresh random IV for every message, and")]
        #[doc = concat!("the bytes of a ciphertext are `iv || body`, unless [`", stringify!($name), "::with_iv`] gives one.")]
        /// Nothing is authenticated: who can have altered ciphertexts decrypted and learns which of them are refused
        /// learns the messages. All refusals look alike here, but nothing hides that there was one.
        #[derive(Clone, PartialEq, Eq)]
        pub struct $name {
            pub(in crate::operation) iv: Iv,
            pub(in crate::operation) padded: bool,
        }

        impl $name {
            /// With padding, and an IV drawn by the engine.
            #[must_use]
            pub const fn new() -> Self {
                Self { iv: Iv::Drawn, padded: true }
            }

            /// Without padding: messages are whole blocks, at least one.
            #[must_use]
            pub const fn unpadded(mut self) -> Self {
                self.padded = false;
                self
            }

            #[doc = concat!("Uses this IV of ", $size, " bytes in place of one that the engine draws.")]
            ///
            /// For encryption it must not be predictable (SP 800-38A, appendix C): set it only where a protocol
            /// prescribes it. With an IV given, the bytes of a ciphertext are those of the blocks alone.
            #[must_use]
            pub fn with_iv(mut self, iv: impl AsRef<[u8]>) -> Self {
                self.iv = given(iv);
                self
            }

            pub(in crate::operation) const fn front_len(&self) -> usize {
                front_len(&self.iv, $block)
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::new()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name))
                    .field("given_iv_len", &given_len(&self.iv))
                    .field("padded", &self.padded)
                    .finish()
            }
        }
    };
}

cbc!(
    /// AES in CBC mode (SP 800-38A, 6.2).
    AesCbc, AES_BLOCK_LEN, "16"
);
cbc!(
    /// Triple DES in CBC mode. For old payment systems.
    TripleDesCbc, DES_BLOCK_LEN, "8"
);

/// AES in counter mode (SP 800-38A, 6.5): as long as the message, not authenticated.
///
/// Without [`AesCtr::with_counter`] the engine draws the first counter block, 96 random bits and a counter of 32
/// bits from 0, and the bytes of a ciphertext are `counter block || body`.
#[derive(Clone, PartialEq, Eq)]
pub struct AesCtr {
    pub(in crate::operation) iv: Iv,
    pub(in crate::operation) counter_bits: u8,
}

impl AesCtr {
    /// With a counter block drawn by the engine.
    #[must_use]
    pub const fn new() -> Self {
        Self { iv: Iv::Drawn, counter_bits: DRAWN_COUNTER_BITS }
    }

    /// Uses this first counter block, of which the last `counter_bits` bits (1 to 128) count.
    ///
    /// A message that would take the counter past its last value is refused (PKCS#11 2.40, `CK_AES_CTR_PARAMS`):
    /// wrapped, it would come to counter blocks that may have been used. No counter block may ever
    /// be used twice with one key, in this message or another: that reveals the XOR of what they hide. With a block
    /// given, the bytes of a ciphertext are those of the body alone.
    #[must_use]
    pub fn with_counter(mut self, block: [u8; 16], counter_bits: u8) -> Self {
        self.iv = given(block);
        self.counter_bits = counter_bits;
        self
    }

    pub(in crate::operation) const fn front_len(&self) -> usize {
        front_len(&self.iv, AES_BLOCK_LEN)
    }
}

impl Default for AesCtr {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for AesCtr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AesCtr")
            .field("given", &(self.iv != Iv::Drawn))
            .field("counter_bits", &self.counter_bits)
            .finish()
    }
}

/// RSA-OAEP (RFC 8017, 7.1). The mask is MGF1 with the same hash.
///
/// The host encrypts, with the public half; the token decrypts. Where a token has the bare RSA function only, or
/// OAEP with SHA-1 and without labels only (SoftHSM2), it runs the bare function and the host takes the padding off,
/// in a time that depends on nothing secret.
#[derive(Clone, PartialEq, Eq)]
pub struct RsaOaep {
    pub(in crate::operation) hash: Hash,
    pub(in crate::operation) label: Option<Arc<[u8]>>,
}

impl RsaOaep {
    /// OAEP with SHA-1, which it does not weaken: what most old software uses.
    pub const SHA1: Self = Self { hash: Hash::Sha1, label: None };
    /// OAEP with SHA-256.
    pub const SHA256: Self = Self { hash: Hash::Sha256, label: None };
    /// OAEP with SHA-384.
    pub const SHA384: Self = Self { hash: Hash::Sha384, label: None };
    /// OAEP with SHA-512.
    pub const SHA512: Self = Self { hash: Hash::Sha512, label: None };

    /// A label that decryption must be given too. Default: empty.
    #[must_use]
    pub fn label(mut self, label: impl Into<Arc<[u8]>>) -> Self {
        let label = label.into();
        self.label = (!label.is_empty()).then_some(label);
        self
    }
}

impl fmt::Debug for RsaOaep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RsaOaep")
            .field("hash", &self.hash)
            .field("label_len", &self.label.as_ref().map_or(0, |label| label.len()))
            .finish()
    }
}

/// RSA encryption with the padding of PKCS#1 v1.5 (RFC 8017, 7.2): for protocols that know nothing better.
///
/// Decryption is refused unless
/// [`Builder::allow_rsa_pkcs1_decryption`](crate::Builder::allow_rsa_pkcs1_decryption) was called. Where the token
/// has the bare RSA function, the host takes the padding off, in a time that depends on nothing secret; all
/// refusals are the same error. Whoever passes on that there was one, in any way, is an oracle for the messages
/// (Bleichenbacher 1998; the Marvin attack, 2023): prefer [`RsaOaep`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RsaPkcs1Encryption;

/// An algorithm that encrypts and decrypts.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cipher {
    /// AES-GCM.
    AesGcm(AesGcm),
    /// AES on single blocks.
    AesEcb,
    /// AES in CBC mode.
    AesCbc(AesCbc),
    /// AES in counter mode.
    AesCtr(AesCtr),
    /// Triple DES on single blocks.
    TripleDesEcb,
    /// Triple DES in CBC mode.
    TripleDesCbc(TripleDesCbc),
    /// RSA-OAEP.
    RsaOaep(RsaOaep),
    /// RSA with the padding of PKCS#1 v1.5.
    RsaPkcs1,
    /// Whatever the token makes of it.
    Raw(RawMechanism),
}

impl Cipher {
    /// Whether the caller has chosen the IV.
    pub(crate) const fn gives_iv(&self) -> bool {
        matches!(
            self,
            Self::AesGcm(AesGcm { iv: Iv::Given(_), .. })
                | Self::AesCtr(AesCtr { iv: Iv::Given(_), .. })
                | Self::AesCbc(AesCbc { iv: Iv::Given(_), .. })
                | Self::TripleDesCbc(TripleDesCbc { iv: Iv::Given(_), .. })
        )
    }
}

fn given(iv: impl AsRef<[u8]>) -> Iv {
    Iv::Given(SmallVec::from_slice(iv.as_ref()))
}

const fn front_len(iv: &Iv, drawn: usize) -> usize {
    match iv {
        Iv::Drawn => drawn,
        Iv::Given(_) => 0,
    }
}

fn given_len(iv: &Iv) -> Option<usize> {
    match iv {
        Iv::Drawn => None,
        Iv::Given(iv) => Some(iv.len()),
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

impl From<AesCbc> for Cipher {
    fn from(algorithm: AesCbc) -> Self {
        Self::AesCbc(algorithm)
    }
}

impl From<AesCtr> for Cipher {
    fn from(algorithm: AesCtr) -> Self {
        Self::AesCtr(algorithm)
    }
}

impl From<TripleDesEcb> for Cipher {
    fn from(TripleDesEcb: TripleDesEcb) -> Self {
        Self::TripleDesEcb
    }
}

impl From<TripleDesCbc> for Cipher {
    fn from(algorithm: TripleDesCbc) -> Self {
        Self::TripleDesCbc(algorithm)
    }
}

impl From<RsaOaep> for Cipher {
    fn from(algorithm: RsaOaep) -> Self {
        Self::RsaOaep(algorithm)
    }
}

impl From<RsaPkcs1Encryption> for Cipher {
    fn from(RsaPkcs1Encryption: RsaPkcs1Encryption) -> Self {
        Self::RsaPkcs1
    }
}

impl From<RawMechanism> for Cipher {
    fn from(mechanism: RawMechanism) -> Self {
        Self::Raw(mechanism)
    }
}
