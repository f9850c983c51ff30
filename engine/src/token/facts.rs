//! What is known of a key from its attributes, cached when it is listed, so that requests are checked
//! before any session is used.

/// Everything about a key that decides whether a request fits it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyFacts {
    pub(crate) kind: KeyKind,
    pub(crate) sign: bool,
    pub(crate) verify: bool,
    pub(crate) encrypt: bool,
    pub(crate) decrypt: bool,
    /// `CKA_ALLOWED_MECHANISMS`, as `CKM_` numbers, where the token has it.
    pub(crate) allowed: Option<Vec<u64>>,
    /// `CKA_DERIVE`, `CKA_WRAP`, `CKA_UNWRAP`.
    pub(crate) derive: bool,
    pub(crate) wrap: bool,
    pub(crate) unwrap: bool,
    /// `CKA_ALWAYS_AUTHENTICATE`: it wants a login for every use.
    pub(crate) always_authenticate: bool,
    /// The public half, where the token shows it.
    pub(crate) public: Option<PublicKey>,
}

impl KeyFacts {
    /// Whether `CKA_ALLOWED_MECHANISMS`, where the token has it, lists a mechanism.
    pub(crate) fn allows(&self, mechanism: u64) -> bool {
        let allowed = self.allowed.as_deref().unwrap_or_default();
        allowed.is_empty() || allowed.contains(&mechanism)
    }
}

/// Attributes that decide no request, but say how well a key is guarded (PKCS#11 2.40, 4.7 to 4.10). An
/// attribute that the token does not show counts as false.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is an attribute of the standard")]
#[non_exhaustive]
pub struct KeyFlags {
    /// `CKA_TOKEN`: it lives on the token, not in a session.
    pub token: bool,
    /// `CKA_PRIVATE`: seen after a login only.
    pub private: bool,
    /// `CKA_SENSITIVE`: its value is not shown in plain text.
    pub sensitive: bool,
    /// `CKA_ALWAYS_SENSITIVE`: it has been sensitive all its life.
    pub always_sensitive: bool,
    /// `CKA_EXTRACTABLE`: it can be wrapped, and so leave the token.
    pub extractable: bool,
    /// `CKA_NEVER_EXTRACTABLE`: it has never been extractable.
    pub never_extractable: bool,
    /// `CKA_LOCAL`: it was made on this token.
    pub local: bool,
    /// `CKA_WRAP`: it may wrap other keys.
    pub wrap: bool,
    /// `CKA_UNWRAP`: it may unwrap keys.
    pub unwrap: bool,
    /// `CKA_DERIVE`: other keys may be derived from it.
    pub derive: bool,
}

/// Type and size of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum KeyKind {
    /// RSA with a modulus of so many bits.
    Rsa { bits: u32 },
    /// Elliptic curve in Weierstrass form.
    Ec(Curve),
    /// Edwards curve 25519.
    Ed25519,
    /// AES with a key of so many bytes.
    Aes { len: u32 },
    /// Triple DES with a key of 16 (`CKK_DES2`) or 24 bytes (`CKK_DES3`).
    TripleDes { len: u32 },
    /// A key for MACs (`CKK_GENERIC_SECRET` or `CKK_SHA256_HMAC` and its like) of so many bytes.
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
    /// NIST P-521, secp521r1.
    P521,
}

impl Curve {
    pub(crate) const ALL: [Self; 3] = [Self::P256, Self::P384, Self::P521];

    /// The curve's object identifier in DER, as `CKA_EC_PARAMS` has it (RFC 5480, 2.1.1.1).
    pub(crate) const fn oid_der(self) -> &'static [u8] {
        match self {
            Self::P256 => &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07],
            Self::P384 => &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22],
            Self::P521 => &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23],
        }
    }

    /// Length of a field element and of each half of a signature, in bytes.
    #[must_use]
    pub const fn field_len(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }

    /// Its size in bits, which names it.
    pub(crate) const fn bits(self) -> usize {
        match self {
            Self::P256 => 256,
            Self::P384 => 384,
            Self::P521 => 521,
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
    /// The encoded point (RFC 8032, 5.1.2).
    Ed25519([u8; 32]),
}
