//! What is known of a key from its attributes, cached when it is listed, so that requests are checked
//! before any session is used.

use cryptoki::mechanism::MechanismType;

/// Everything about a key that decides whether a request fits it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyFacts {
    pub(crate) kind: KeyKind,
    pub(crate) sign: bool,
    pub(crate) verify: bool,
    pub(crate) encrypt: bool,
    pub(crate) decrypt: bool,
    /// `CKA_ALLOWED_MECHANISMS` where the token has it.
    pub(crate) allowed: Option<Vec<MechanismType>>,
    /// The public half, where the token shows it.
    pub(crate) public: Option<PublicKey>,
}

/// Type and size of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum KeyKind {
    /// RSA with a modulus of so many bits.
    Rsa { bits: u32 },
    /// Elliptic curve.
    Ec(Curve),
    /// AES with a key of so many bytes.
    Aes { len: u32 },
    /// A key for MACs (`CKK_GENERIC_SECRET` or `CKK_SHA256_HMAC`) of so many bytes.
    Generic { len: u32 },
    /// Anything else the token holds: listed, not usable.
    Other,
}

/// The named curves that the engine knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Curve {
    /// NIST P-256, secp256r1.
    P256,
    /// NIST P-384, secp384r1.
    P384,
}

impl Curve {
    /// The curve's object identifier in DER, as `CKA_EC_PARAMS` has it (RFC 5480, 2.1.1.1).
    pub(crate) const fn oid_der(self) -> &'static [u8] {
        match self {
            Self::P256 => &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07],
            Self::P384 => &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22],
        }
    }

    /// Length of a field element and of each half of a signature, in bytes.
    #[must_use]
    pub const fn field_len(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
        }
    }
}

/// A public key as the token's attributes give it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum PublicKey {
    /// Big-endian modulus and exponent without leading zeros.
    Rsa { modulus: Vec<u8>, exponent: Vec<u8> },
    /// Uncompressed point, `04 || x || y`.
    Ec { curve: Curve, point: Vec<u8> },
}
