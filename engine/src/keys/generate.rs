//! Key generation: private, sensitive, unextractable keys that live on a token.

use cryptoki::object::Attribute;
use cryptoki_sys as sys;

use crate::error::Result;
use crate::pkcs11::{Mechanism, ObjectHandle, Session};
use crate::token::facts::Curve;

/// What kind of key to generate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeySpec {
    /// RSA for signatures, with a modulus of so many bits and exponent 65 537.
    Rsa(u32),
    /// Elliptic curve for signatures.
    Ec(Curve),
    /// AES for encryption, so many bytes long: 16, 24 or 32.
    Aes(u32),
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
    let mut secret = named(name, &id);
    secret.extend([Attribute::Private(true), Attribute::Sensitive(true), Attribute::Extractable(false)]);
    match spec {
        KeySpec::Rsa(bits) => {
            let own =
                [Attribute::ModulusBits(u64::from(bits).into()), Attribute::PublicExponent(vec![1, 0, 1])];
            generate_pair(session, sys::CKM_RSA_PKCS_KEY_PAIR_GEN, named(name, &id), &own, secret)
        }
        KeySpec::Ec(curve) => {
            let own = [Attribute::EcParams(curve.oid_der().to_vec())];
            generate_pair(session, sys::CKM_EC_KEY_PAIR_GEN, named(name, &id), &own, secret)
        }
        KeySpec::Aes(len) => {
            secret.extend([
                Attribute::ValueLen(u64::from(len).into()),
                Attribute::Encrypt(true),
                Attribute::Decrypt(true),
            ]);
            let key = session.generate_key(&Mechanism::Plain(sys::CKM_AES_KEY_GEN), &secret)?;
            Ok(Generated { key, public: None })
        }
        KeySpec::Hmac(len) => {
            secret.extend([
                Attribute::ValueLen(u64::from(len).into()),
                Attribute::Sign(true),
                Attribute::Verify(true),
            ]);
            let key = session.generate_key(&Mechanism::Plain(sys::CKM_GENERIC_SECRET_KEY_GEN), &secret)?;
            Ok(Generated { key, public: None })
        }
    }
}

fn generate_pair(
    session: &mut Session,
    mechanism: sys::CK_MECHANISM_TYPE,
    mut public: Vec<Attribute>,
    own: &[Attribute],
    mut private: Vec<Attribute>,
) -> Result<Generated> {
    public.extend_from_slice(own);
    public.push(Attribute::Verify(true));
    private.push(Attribute::Sign(true));
    let (public, key) = session.generate_key_pair(&Mechanism::Plain(mechanism), &public, &private)?;
    Ok(Generated { key, public: Some(public) })
}

/// Label and id: both halves of a pair carry the same (PKCS#11 2.40, 4.6).
fn named(name: &str, id: &[u8]) -> Vec<Attribute> {
    vec![Attribute::Token(true), Attribute::Label(name.as_bytes().to_vec()), Attribute::Id(id.to_vec())]
}
