//! Keys of any kind and material, for known answers and for odd cases: what they are and what they may.

use cryptoki::mechanism::MechanismType;
use cryptoki::object::{Attribute, KeyType, ObjectClass};

use crate::error::Error;
use crate::keys::{named, Templates, P256_OID, P384_OID};

/// A key to be imported: its material, its uses, how well it is guarded. Without [`CustomKey::may`] it may do
/// nothing; it is sensitive and not extractable.
#[derive(Clone)]
#[expect(missing_debug_implementations, reason = "it holds keys")]
pub struct CustomKey {
    material: Material,
    uses: Vec<KeyUse>,
    extractable: bool,
    always_authenticate: bool,
    allowed: Vec<u64>,
}

/// What a key may do. Of a pair, the public half verifies, encrypts and wraps; the private half does the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyUse {
    /// `CKA_SIGN`.
    Sign,
    /// `CKA_VERIFY`.
    Verify,
    /// `CKA_ENCRYPT`.
    Encrypt,
    /// `CKA_DECRYPT`.
    Decrypt,
    /// `CKA_DERIVE`.
    Derive,
    /// `CKA_WRAP`.
    Wrap,
    /// `CKA_UNWRAP`.
    Unwrap,
}

/// The numbers of an RSA private key, big-endian; those that are empty are left out. SoftHSM2 wants all of them to
/// sign or decrypt, and only modulus and exponents to store the key.
#[derive(Clone, Default)]
#[expect(missing_debug_implementations, reason = "it holds keys")]
pub struct RsaNumbers {
    /// Modulus.
    pub n: Vec<u8>,
    /// Public exponent.
    pub e: Vec<u8>,
    /// Private exponent.
    pub d: Vec<u8>,
    /// First prime.
    pub p: Vec<u8>,
    /// Second prime.
    pub q: Vec<u8>,
    /// `d mod p - 1`.
    pub dp: Vec<u8>,
    /// `d mod q - 1`.
    pub dq: Vec<u8>,
    /// `1 / q mod p`.
    pub qi: Vec<u8>,
}

/// A named curve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CurveName {
    /// secp256r1.
    P256,
    /// secp384r1.
    P384,
    /// secp521r1.
    P521,
    /// Edwards curve 25519.
    Ed25519,
}

#[derive(Clone)]
enum Material {
    Secret(KeyType, Vec<u8>),
    Rsa(RsaNumbers),
    Curve { curve: CurveName, private: Vec<u8>, public: Vec<u8> },
}

/// `CKA_EC_PARAMS` of P-521 (RFC 5480, 2.1.1.1) and of Ed25519 (RFC 8410, 3). SoftHSM2 2.6.1 takes the object
/// identifier of the latter as well as the name "edwards25519".
const P521_OID: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23];
const ED25519_OID: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x70];

impl CustomKey {
    /// An AES key.
    #[must_use]
    pub fn aes(value: &[u8]) -> Self {
        Self::of(Material::Secret(KeyType::AES, value.to_vec()))
    }

    /// A triple DES key: of two keys if it has 16 bytes (`CKK_DES2`), else of three.
    #[must_use]
    pub fn triple_des(value: &[u8]) -> Self {
        let kind = if value.len() == 16 { KeyType::DES2 } else { KeyType::DES3 };
        Self::of(Material::Secret(kind, value.to_vec()))
    }

    /// A generic secret, such as a key for HMAC.
    #[must_use]
    pub fn generic(value: &[u8]) -> Self {
        Self::of(Material::Secret(KeyType::GENERIC_SECRET, value.to_vec()))
    }

    /// An RSA pair.
    #[must_use]
    pub fn rsa(numbers: RsaNumbers) -> Self {
        Self::of(Material::Rsa(numbers))
    }

    /// A pair on a curve: the scalar (of Ed25519 the seed), and the point as software writes it (uncompressed; of
    /// Ed25519 its 32 bytes). The halves need not belong together: who verifies needs the public one only.
    #[must_use]
    pub fn on_curve(curve: CurveName, private: &[u8], public: &[u8]) -> Self {
        Self::of(Material::Curve { curve, private: private.to_vec(), public: public.to_vec() })
    }

    /// Lets the key be used so.
    #[must_use]
    pub fn may(mut self, uses: &[KeyUse]) -> Self {
        self.uses.extend(uses);
        self
    }

    /// Lets the key be wrapped.
    #[must_use]
    pub fn extractable(mut self) -> Self {
        self.extractable = true;
        self
    }

    /// Has the key want a login for every use. Of a pair the private half does.
    #[must_use]
    pub fn always_authenticate(mut self) -> Self {
        self.always_authenticate = true;
        self
    }

    /// Lets the key be used with these mechanisms only, by their `CKM_` numbers.
    #[must_use]
    pub fn allow(mut self, mechanisms: &[u64]) -> Self {
        self.allowed.extend(mechanisms);
        self
    }

    /// What `C_CreateObject` takes.
    pub(crate) fn templates(&self, label: &str) -> Result<Templates, Error> {
        let mut secret = named(label).to_vec();
        secret.extend([
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(self.extractable),
        ]);
        if !self.allowed.is_empty() {
            let allowed = self.allowed.iter().map(|&number| MechanismType::try_from(number));
            secret.push(Attribute::AllowedMechanisms(allowed.collect::<Result<_, _>>()?));
        }
        let public = match &self.material {
            Material::Secret(kind, value) => {
                secret.extend([Attribute::Class(ObjectClass::SECRET_KEY), Attribute::KeyType(*kind)]);
                secret.push(Attribute::Value(value.clone()));
                secret.extend(KeyUse::ALL.map(|used| self.flag(used)));
                return Ok((secret, None));
            }
            Material::Rsa(numbers) => {
                secret.extend(numbers.private());
                numbers.public()
            }
            Material::Curve { curve, private, public } => {
                secret.extend(curve.pair());
                secret.push(Attribute::Value(private.clone()));
                let mut template = curve.pair();
                template.push(Attribute::EcPoint(octet_string(public)));
                template
            }
        };
        secret.push(Attribute::Class(ObjectClass::PRIVATE_KEY));
        secret.push(Attribute::AlwaysAuthenticate(self.always_authenticate));
        let (public_uses, private_uses): (Vec<_>, Vec<_>) =
            KeyUse::ALL.into_iter().partition(|used| used.is_public());
        secret.extend(private_uses.into_iter().map(|used| self.flag(used)));
        let mut shown = named(label).to_vec();
        shown.push(Attribute::Class(ObjectClass::PUBLIC_KEY));
        shown.extend(public);
        shown.extend(public_uses.into_iter().map(|used| self.flag(used)));
        Ok((secret, Some(shown)))
    }

    /// Said of every use: SoftHSM2 allows most of those that nothing is said of.
    fn flag(&self, used: KeyUse) -> Attribute {
        used.attribute(self.uses.contains(&used))
    }

    const fn of(material: Material) -> Self {
        Self {
            material,
            uses: Vec::new(),
            extractable: false,
            always_authenticate: false,
            allowed: Vec::new(),
        }
    }
}

impl KeyUse {
    const ALL: [Self; 7] =
        [Self::Sign, Self::Verify, Self::Encrypt, Self::Decrypt, Self::Derive, Self::Wrap, Self::Unwrap];

    const fn is_public(self) -> bool {
        matches!(self, Self::Verify | Self::Encrypt | Self::Wrap)
    }

    const fn attribute(self, allowed: bool) -> Attribute {
        match self {
            Self::Sign => Attribute::Sign(allowed),
            Self::Verify => Attribute::Verify(allowed),
            Self::Encrypt => Attribute::Encrypt(allowed),
            Self::Decrypt => Attribute::Decrypt(allowed),
            Self::Derive => Attribute::Derive(allowed),
            Self::Wrap => Attribute::Wrap(allowed),
            Self::Unwrap => Attribute::Unwrap(allowed),
        }
    }
}

impl RsaNumbers {
    fn public(&self) -> Vec<Attribute> {
        let (n, e) = (self.n.clone(), self.e.clone());
        vec![Attribute::KeyType(KeyType::RSA), Attribute::Modulus(n), Attribute::PublicExponent(e)]
    }

    fn private(&self) -> Vec<Attribute> {
        let mut template = self.public();
        let others = [
            Attribute::PrivateExponent(self.d.clone()),
            Attribute::Prime1(self.p.clone()),
            Attribute::Prime2(self.q.clone()),
            Attribute::Exponent1(self.dp.clone()),
            Attribute::Exponent2(self.dq.clone()),
            Attribute::Coefficient(self.qi.clone()),
        ];
        let given = [&self.d, &self.p, &self.q, &self.dp, &self.dq, &self.qi];
        let given = others.into_iter().zip(given).filter(|(_, number)| !number.is_empty());
        template.extend(given.map(|(attribute, _)| attribute));
        template
    }
}

impl CurveName {
    fn pair(self) -> Vec<Attribute> {
        let (kind, oid) = match self {
            Self::P256 => (KeyType::EC, P256_OID),
            Self::P384 => (KeyType::EC, P384_OID),
            Self::P521 => (KeyType::EC, P521_OID),
            Self::Ed25519 => (KeyType::EC_EDWARDS, ED25519_OID),
        };
        vec![Attribute::KeyType(kind), Attribute::EcParams(oid.to_vec())]
    }
}

/// PKCS#11 2.40, curves, 2.3.3: the point is a "DER-encoding of ANSI X9.62 ECPoint value Q", an OCTET STRING; so
/// SoftHSM2 has it of Ed25519, too. A length of 128 or more, as of P-521, takes two bytes.
fn octet_string(point: &[u8]) -> Vec<u8> {
    let len = u8::try_from(point.len()).unwrap_or(u8::MAX);
    let header: &[u8] = if len < 0x80 { &[0x04, len] } else { &[0x04, 0x81, len] };
    [header, point].concat()
}
