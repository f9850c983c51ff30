//! Key generation: private, sensitive, unextractable keys that live on a token.

use cryptoki::object::{Attribute, KeyType, ObjectClass};
use cryptoki_sys as sys;

use crate::error::{Error, ErrorKind, Result};
use crate::keys::catalogue::ED25519_PARAMS;
use crate::pkcs11::{Mechanism, ObjectHandle, Session};
use crate::token::copies::SESSION_LABEL;
use crate::token::facts::{Curve, KeyKind};

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

/// The objects of a generated key.
pub(crate) struct Generated {
    pub(crate) key: ObjectHandle,
    pub(crate) public: Option<ObjectHandle>,
}

/// Generates a key on the token of this session.
pub(crate) fn generate(session: &mut Session, name: &str, spec: KeySpec) -> Result<Generated> {
    let mut id = vec![0; 16];
    session.random(&mut id)?;
    let mut private = named(name, &id);
    private.extend(guarded());
    private.extend(spec.uses());
    let mut public = named(name, &id);
    public.extend(spec.public_uses());
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

impl KeySpec {
    /// The uses of the private or secret key: each is said, because a token fills in what is not (SoftHSM2 2.6.1 with
    /// true), and a key that wraps and decrypts gives away what it has wrapped.
    fn uses(self) -> Vec<Attribute> {
        let signs =
            matches!(self, Self::Rsa(_) | Self::Ec(_) | Self::Ed25519 | Self::AesMac(_) | Self::Hmac(_));
        let encrypts = matches!(self, Self::Aes(_) | Self::TripleDes);
        let wraps = matches!(self, Self::AesWrap(_));
        let mut uses = vec![
            Attribute::Sign(signs),
            Attribute::Decrypt(encrypts || matches!(self, Self::RsaDecryption(_))),
            Attribute::Unwrap(wraps),
            Attribute::Derive(matches!(self, Self::EcAgreement(_))),
        ];
        if self.secret_len().is_ok() {
            uses.extend([Attribute::Verify(signs), Attribute::Encrypt(encrypts), Attribute::Wrap(wraps)]);
        }
        uses
    }

    /// The uses of the public half.
    fn public_uses(self) -> [Attribute; 3] {
        let verifies = matches!(self, Self::Rsa(_) | Self::Ec(_) | Self::Ed25519);
        let encrypts = matches!(self, Self::RsaDecryption(_));
        [Attribute::Verify(verifies), Attribute::Encrypt(encrypts), Attribute::Wrap(false)]
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
        let (kind, len) = match self {
            Self::TripleDes => (KeyType::DES3, None),
            Self::Hmac(_) => (KeyType::GENERIC_SECRET, Some(len)),
            _ => (KeyType::AES, Some(len)),
        };
        let mut template = vec![Attribute::Class(ObjectClass::SECRET_KEY), Attribute::KeyType(kind)];
        template.extend([Attribute::Token(false), Attribute::Label(SESSION_LABEL.to_vec())]);
        template.extend(guarded());
        template.extend(self.uses());
        template.extend(len.map(|len| Attribute::ValueLen(u64::from(len).into())));
        Ok(template)
    }
}

/// Seen after a login only, never shown, never wrapped.
fn guarded() -> [Attribute; 3] {
    [Attribute::Private(true), Attribute::Sensitive(true), Attribute::Extractable(false)]
}

fn generate_secret(
    session: &mut Session,
    mechanism: sys::CK_MECHANISM_TYPE,
    template: &[Attribute],
) -> Result<Generated> {
    let key = session.generate_key(&Mechanism::Plain(mechanism), template)?;
    Ok(Generated { key, public: None })
}

fn generate_pair(
    session: &mut Session,
    mechanism: sys::CK_MECHANISM_TYPE,
    public: &[Attribute],
    private: &[Attribute],
) -> Result<Generated> {
    let (public, key) = session.generate_key_pair(&Mechanism::Plain(mechanism), public, private)?;
    Ok(Generated { key, public: Some(public) })
}

/// Label and id: both halves of a pair carry the same (PKCS#11 2.40, 4.6).
fn named(name: &str, id: &[u8]) -> Vec<Attribute> {
    vec![Attribute::Token(true), Attribute::Label(name.as_bytes().to_vec()), Attribute::Id(id.to_vec())]
}
