//! Key generation: private, sensitive, unextractable keys that live on a token.

use cryptoki::object::{Attribute, KeyType, ObjectClass};
use cryptoki_sys as sys;

use crate::error::{Error, ErrorKind, Result};
use crate::keys::listing::ED25519_PARAMS;
use crate::pkcs11::{Fault, Mechanism, ObjectHandle, Session};
use crate::token::copies::SESSION_LABEL;
use crate::token::facts::{Curve, KeyFacts, KeyKind};

/// What kind of key to generate, and for which purpose: purposes do not mix (SP 800-57 part 1, 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeySpec {
    /// RSA for signatures, with a modulus of so many bits and exponent 65 537.
    Rsa(u32),
    /// RSA for decryption, with a modulus of so many bits and exponent 65 537.
    RsaDecryption(u32),
    /// Elliptic curve for signatures.
    Ec(Curve),
    /// Elliptic curve for key agreement ([`Key::agree`](crate::Key::agree)).
    EcAgreement(Curve),
    /// Edwards curve for signatures.
    Ed25519,
    /// AES for encryption, so many bytes long: 16, 24 or 32.
    Aes(u32),
    /// AES for MACs (CMAC), so many bytes long.
    AesMac(u32),
    /// AES for wrapping other keys, so many bytes long.
    AesWrap(u32),
    /// Triple DES for encryption, 24 bytes with the parity.
    TripleDes,
    /// A key for HMAC, so many bytes long.
    Hmac(u32),
}

/// What a key is for.
#[derive(Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "each is an attribute of the standard, or two")]
struct Purposes {
    sign: bool,
    encrypt: bool,
    wrap: bool,
    agree: bool,
}

/// The objects of a generated key.
pub(crate) struct Generated {
    pub(crate) key: ObjectHandle,
    pub(crate) public: Option<ObjectHandle>,
}

/// How the objects of a key are to be made, beside what its spec says.
#[derive(Clone, Debug)]
pub(crate) struct Making {
    pub(crate) label: Vec<u8>,
    pub(crate) id: Vec<u8>,
    /// Attributes of the private or secret key that a token need not have: `CKA_ALLOWED_MECHANISMS`, dates.
    pub(crate) limits: Vec<Attribute>,
    /// Not on the token and not for use, but to be wrapped and carried to tokens.
    pub(crate) to_carry: bool,
}

/// Generates a key on the token of this session.
pub(crate) fn generate(session: &mut Session, name: &str, spec: KeySpec) -> Result<Generated> {
    let mut id = vec![0; 16];
    session.random(&mut id)?;
    let making = Making { label: name.as_bytes().to_vec(), id, limits: Vec::new(), to_carry: false };
    Ok(making.generate(session, spec)?)
}

impl Making {
    /// Generates a key; with the limits where the token has such attributes.
    pub(crate) fn generate(&self, session: &mut Session, spec: KeySpec) -> Result<Generated, Fault> {
        self.try_with_limits(|limits| {
            generate_with(session, &self.private(spec, limits), &self.public(spec), spec)
        })
    }

    /// Makes something with the limits, and without them if the token has no such attributes: the engine keeps to them all the
    /// same.
    pub(crate) fn try_with_limits<T>(
        &self,
        mut make: impl FnMut(&[Attribute]) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        match make(&self.limits) {
            Err(fault) if !self.limits.is_empty() && fault.is(sys::CKR_ATTRIBUTE_TYPE_INVALID) => make(&[]),
            made => made,
        }
    }

    /// The private or secret key.
    pub(crate) fn private(&self, spec: KeySpec, limits: &[Attribute]) -> Vec<Attribute> {
        let mut template = self.named();
        template.extend([
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(self.to_carry),
        ]);
        template.extend(spec.uses());
        template.extend_from_slice(limits);
        template
    }

    /// The public half.
    pub(crate) fn public(&self, spec: KeySpec) -> Vec<Attribute> {
        let mut template = self.named();
        template.extend(spec.public_uses());
        template
    }

    /// Label and id: both halves of a pair carry the same (PKCS#11 2.40, 4.6).
    fn named(&self) -> Vec<Attribute> {
        vec![
            Attribute::Token(!self.to_carry),
            Attribute::Label(if self.to_carry { SESSION_LABEL.to_vec() } else { self.label.clone() }),
            Attribute::Id(self.id.clone()),
        ]
    }
}

fn generate_with(
    session: &mut Session,
    private: &[Attribute],
    public: &[Attribute],
    spec: KeySpec,
) -> Result<Generated, Fault> {
    let (mut private, mut public) = (private.to_vec(), public.to_vec());
    match spec {
        KeySpec::Rsa(bits) | KeySpec::RsaDecryption(bits) => {
            public.extend([
                Attribute::ModulusBits(u64::from(bits).into()),
                Attribute::PublicExponent(vec![1, 0, 1]),
            ]);
            generate_pair(session, sys::CKM_RSA_PKCS_KEY_PAIR_GEN, &public, &private)
        }
        KeySpec::Ec(curve) | KeySpec::EcAgreement(curve) => {
            public.push(Attribute::EcParams(curve.oid_der().to_vec()));
            generate_pair(session, sys::CKM_EC_KEY_PAIR_GEN, &public, &private)
        }
        KeySpec::Ed25519 => {
            public.push(Attribute::EcParams(ED25519_PARAMS[0].to_vec()));
            generate_pair(session, sys::CKM_EC_EDWARDS_KEY_PAIR_GEN, &public, &private)
        }
        KeySpec::Aes(len) | KeySpec::AesMac(len) | KeySpec::AesWrap(len) => {
            private.push(Attribute::ValueLen(u64::from(len).into()));
            generate_secret(session, sys::CKM_AES_KEY_GEN, &private)
        }
        KeySpec::TripleDes => generate_secret(session, sys::CKM_DES3_KEY_GEN, &private),
        KeySpec::Hmac(len) => {
            private.push(Attribute::ValueLen(u64::from(len).into()));
            generate_secret(session, sys::CKM_GENERIC_SECRET_KEY_GEN, &private)
        }
    }
}

/// Generates a key of a block cipher in the session, for whoever destroys it soon.
///
/// # Errors
/// `KeyMismatch`, if it is none; what the token answers.
pub(crate) fn generate_throw_away(session: &mut Session, kind: KeyKind) -> Result<ObjectHandle> {
    let (mechanism, len) = match kind {
        KeyKind::Aes { len } => (sys::CKM_AES_KEY_GEN, Some(len)),
        KeyKind::TripleDes { len: 16 } => (sys::CKM_DES2_KEY_GEN, None),
        KeyKind::TripleDes { .. } => (sys::CKM_DES3_KEY_GEN, None),
        _ => return Err(Error::refused(ErrorKind::KeyMismatch, "it is no key of a block cipher")),
    };
    let mut template = vec![Attribute::Token(false), Attribute::Label(SESSION_LABEL.to_vec())];
    template.extend(guarded());
    template.extend(KeySpec::TripleDes.uses());
    template.extend(len.map(|len| Attribute::ValueLen(u64::from(len).into())));
    Ok(session.generate_key(&Mechanism::Plain(mechanism), &template)?)
}

/// Generates a key of a spec in the session, with this id, for whoever destroys it soon.
pub(crate) fn generate_in_session(
    session: &mut Session,
    spec: KeySpec,
    id: &[u8],
) -> Result<Generated, Fault> {
    let named = || {
        vec![Attribute::Token(false), Attribute::Label(SESSION_LABEL.to_vec()), Attribute::Id(id.to_vec())]
    };
    let (mut private, mut public) = (named(), named());
    private.extend(guarded());
    private.extend(spec.uses());
    public.extend(spec.public_uses());
    generate_with(session, &private, &public, spec)
}

impl KeySpec {
    /// The uses of the private or secret key: each is said, because a token fills in what is not (SoftHSM2 2.6.1 with
    /// true), and a key that wraps and decrypts gives away what it has wrapped.
    fn uses(self) -> Vec<Attribute> {
        let may = self.purposes();
        let mut uses = vec![
            Attribute::Sign(may.sign),
            Attribute::Decrypt(may.encrypt),
            Attribute::Unwrap(may.wrap),
            Attribute::Derive(may.agree),
        ];
        if self.secret_len().is_ok() {
            uses.extend([
                Attribute::Verify(may.sign),
                Attribute::Encrypt(may.encrypt),
                Attribute::Wrap(may.wrap),
            ]);
        }
        uses
    }

    /// What it is for. Each purpose has two sides: who signs may verify, and so on.
    const fn purposes(self) -> Purposes {
        let (mut sign, mut encrypt, mut wrap, mut agree) = (false, false, false, false);
        match self {
            Self::Rsa(_) | Self::Ec(_) | Self::Ed25519 | Self::AesMac(_) | Self::Hmac(_) => sign = true,
            Self::RsaDecryption(_) | Self::Aes(_) | Self::TripleDes => encrypt = true,
            Self::AesWrap(_) => wrap = true,
            Self::EcAgreement(_) => agree = true,
        }
        Purposes { sign, encrypt, wrap, agree }
    }

    /// What of a key's attributes a spec leaves: no other purpose than its own, and the size where the token tells none.
    pub(crate) fn shape(self, facts: &mut KeyFacts) {
        let may = self.purposes();
        facts.kind = self.sized(facts.kind);
        facts.sign &= may.sign;
        facts.verify &= may.sign;
        facts.encrypt &= may.encrypt;
        facts.decrypt &= may.encrypt;
        facts.wrap &= may.wrap;
        facts.unwrap &= may.wrap;
        facts.derive &= may.agree;
    }

    /// Whether a key's attributes allow what it would be for: one side of its purpose at least.
    pub(crate) const fn is_allowed_by(self, facts: &KeyFacts) -> bool {
        let may = self.purposes();
        may.sign && (facts.sign || facts.verify)
            || may.encrypt && (facts.encrypt || facts.decrypt)
            || may.wrap && (facts.wrap || facts.unwrap)
            || may.agree && facts.derive
    }

    /// The uses of the public half.
    fn public_uses(self) -> [Attribute; 3] {
        let may = self.purposes();
        [Attribute::Verify(may.sign), Attribute::Encrypt(may.encrypt), Attribute::Wrap(false)]
    }

    /// Whether a key is of this type and size.
    pub(crate) fn is_kind(self, kind: KeyKind) -> bool {
        match (self, kind) {
            (Self::Aes(len) | Self::AesMac(len) | Self::AesWrap(len), KeyKind::Aes { len: of_key })
            | (Self::Hmac(len), KeyKind::Generic { len: of_key }) => len == of_key,
            (Self::TripleDes, KeyKind::TripleDes { len }) => len == 24,
            (Self::Rsa(bits) | Self::RsaDecryption(bits), KeyKind::Rsa { bits: of_key }) => bits == of_key,
            (Self::Ec(curve) | Self::EcAgreement(curve), KeyKind::Ec(of_key)) => curve == of_key,
            (Self::Ed25519, KeyKind::Ed25519) => true,
            _ => false,
        }
    }

    /// Bytes of the secret key.
    ///
    /// # Errors
    /// `InvalidInput`, if it is no secret key.
    pub(crate) fn secret_len(self) -> Result<u32> {
        match self {
            Self::Aes(len) | Self::AesMac(len) | Self::AesWrap(len) | Self::Hmac(len) => Ok(len),
            Self::TripleDes => Ok(24),
            Self::Rsa(_) | Self::RsaDecryption(_) | Self::Ec(_) | Self::EcAgreement(_) | Self::Ed25519 => {
                Err(Error::refused(ErrorKind::InvalidInput, "a secret key is wanted, not a key pair"))
            }
        }
    }

    /// What an unwrapped key of this spec is.
    pub(crate) fn class(self) -> [Attribute; 2] {
        let pair = |kind| [Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::KeyType(kind)];
        let secret = |kind| [Attribute::Class(ObjectClass::SECRET_KEY), Attribute::KeyType(kind)];
        match self {
            Self::Rsa(_) | Self::RsaDecryption(_) => pair(KeyType::RSA),
            Self::Ec(_) | Self::EcAgreement(_) => pair(KeyType::EC),
            Self::Ed25519 => pair(KeyType::EC_EDWARDS),
            Self::Aes(_) | Self::AesMac(_) | Self::AesWrap(_) => secret(KeyType::AES),
            Self::TripleDes => secret(KeyType::DES3),
            Self::Hmac(_) => secret(KeyType::GENERIC_SECRET),
        }
    }

    /// The kind of a key, with this length where the token tells none: SoftHSM2 2.6.1 shows a `CKA_VALUE_LEN` of 0
    /// for keys that it has unwrapped.
    pub(crate) const fn sized(self, kind: KeyKind) -> KeyKind {
        match (self, kind) {
            (Self::Aes(len) | Self::AesMac(len) | Self::AesWrap(len), KeyKind::Aes { len: 0 }) => {
                KeyKind::Aes { len }
            }
            (Self::Hmac(len), KeyKind::Generic { len: 0 }) => KeyKind::Generic { len },
            (_, kind) => kind,
        }
    }

    /// What a secret key is that is not generated but derived or unwrapped: in a session, guarded as a generated one.
    ///
    /// # Errors
    /// `InvalidInput`, if it is no secret key.
    pub(crate) fn secret_template(self) -> Result<Vec<Attribute>> {
        let len = self.secret_len()?;
        let len = (self != Self::TripleDes).then_some(len);
        let mut template = self.class().to_vec();
        template.extend([Attribute::Token(false), Attribute::Label(SESSION_LABEL.to_vec())]);
        template.extend(guarded());
        template.extend(self.uses());
        template.extend(len.map(|len| Attribute::ValueLen(u64::from(len).into())));
        Ok(template)
    }
}

/// Seen after a login only, never shown, never wrapped.
pub(crate) fn guarded() -> [Attribute; 3] {
    [Attribute::Private(true), Attribute::Sensitive(true), Attribute::Extractable(false)]
}

fn generate_secret(
    session: &mut Session,
    mechanism: sys::CK_MECHANISM_TYPE,
    template: &[Attribute],
) -> Result<Generated, Fault> {
    let key = session.generate_key(&Mechanism::Plain(mechanism), template)?;
    Ok(Generated { key, public: None })
}

fn generate_pair(
    session: &mut Session,
    mechanism: sys::CK_MECHANISM_TYPE,
    public: &[Attribute],
    private: &[Attribute],
) -> Result<Generated, Fault> {
    let (public, key) = session.generate_key_pair(&Mechanism::Plain(mechanism), public, private)?;
    Ok(Generated { key, public: Some(public) })
}
