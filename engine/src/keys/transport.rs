//! How a new key comes to every token of a group: wrapped under a key that two tokens agree on.
//!
//! Each token generates a pair of P-256 in its session, and both derive an AES key of 256 bits from their own half and the other's
//! public one (ECDH, SP 800-56A). Neither half ever leaves its token; all of them are session objects that nobody can
//! extract, and are destroyed at once. The public halves pass through this process: whoever controls it while a key is made
//! could put his own in their place. That is so for every way of giving two tokens a key that begins with nothing but their
//! PIN.

use cryptoki::object::{Attribute, AttributeType as A, KeyType, ObjectClass};
use cryptoki_sys as sys;

use crate::error::{Error, ErrorKind, Result};
use crate::keys::derive::{Agreement, AgreementKdf};
use crate::keys::generate::{Generated, KeySpec, Making};
use crate::keys::wrap::{KeyWrap, WRAPPED_LEN_MAX};
use crate::pkcs11::{Mechanism, ObjectHandle, Session};
use crate::token::Token;
use crate::token::facts::Curve;

/// One token's half of an agreement.
#[derive(Clone, Debug)]
pub(crate) struct Half {
    private: ObjectHandle,
    public: ObjectHandle,
    /// The uncompressed point.
    pub(crate) point: Vec<u8>,
}

/// A key on its way, and what others may know of it.
#[derive(Clone, Debug)]
pub(crate) struct Parcel {
    wrapped: Vec<u8>,
    /// Attributes of the public half, which is made anew where it arrives.
    public: Vec<Attribute>,
}

/// The spec of the keys under which keys are carried.
const CARRIER: KeySpec = KeySpec::AesWrap(32);

const CURVE: Curve = Curve::P256;

/// The mechanism by which keys are wrapped on a token: AES key wrap with padding takes any key.
///
/// # Errors
/// `MechanismUnavailable`.
pub(crate) fn wrapping(token: &Token) -> Result<u64> {
    KeyWrap::AesKwp.numbers_on(token).next().ok_or_else(|| missing("AES key wrap with padding"))
}

/// Whether the token can send and receive keys.
///
/// # Errors
/// `MechanismUnavailable`.
pub(crate) fn check(token: &Token, spec: KeySpec) -> Result<()> {
    wrapping(token)?;
    if !token.offers(sys::CKM_ECDH1_DERIVE) || !token.offers(sys::CKM_EC_KEY_PAIR_GEN) {
        return Err(missing("ECDH"));
    }
    match spec {
        KeySpec::Hmac(len) if token.is_softhsm() && !len.is_multiple_of(8) => {
            Err(missing("a right way of wrapping keys of other lengths than whole 8 bytes"))
        }
        // SoftHSM2 2.6.1 answers CKR_KEY_NOT_WRAPPABLE.
        KeySpec::Ed25519 if token.is_softhsm() => Err(missing("a way of wrapping keys of Edwards curves")),
        _ => Ok(()),
    }
}

fn missing(what: &str) -> Error {
    let text = format!("to give a key to several tokens, each needs {what}");
    Error::operator(ErrorKind::MechanismUnavailable, text)
}

impl Half {
    /// Generates one in the session.
    pub(crate) fn generate(session: &mut Session) -> Result<Self> {
        let making = Making { label: Vec::new(), id: Vec::new(), limits: Vec::new(), to_carry: true };
        let mut private = making.private(KeySpec::EcAgreement(CURVE), &[]);
        // To be derived from, never to be carried itself.
        private.retain(|attribute| !matches!(attribute, Attribute::Extractable(_)));
        private.push(Attribute::Extractable(false));
        let mut public = making.public(KeySpec::EcAgreement(CURVE));
        public.push(Attribute::EcParams(CURVE.oid_der().to_vec()));
        let how = Mechanism::Plain(sys::CKM_EC_KEY_PAIR_GEN);
        let (public, private) = session.generate_key_pair(&how, &public, &private)?;
        let point = session.attributes(public, &[A::EcPoint])?.pop().flatten();
        let point = point.and_then(|value| crate::keys::listing::point(&value, CURVE));
        let point =
            point.ok_or_else(|| Error::internal("a token shows no public key that it has just made"))?;
        Ok(Self { private, public, point })
    }

    /// The key that both sides have then.
    pub(crate) fn agree(&self, session: &mut Session, peer: &[u8]) -> Result<ObjectHandle> {
        Agreement::new(CURVE, AgreementKdf::Raw, &[], peer)?.derive(session, self.private, CARRIER)
    }

    pub(crate) fn destroy(&self, session: &mut Session) {
        for object in [self.private, self.public] {
            // A session object: it goes with the session at the latest.
            let _gone = session.destroy(object);
        }
    }
}

/// A carrier of a token's own, for what it sends to itself.
pub(crate) fn own_carrier(session: &mut Session) -> Result<ObjectHandle> {
    let making = Making { label: Vec::new(), id: Vec::new(), limits: Vec::new(), to_carry: true };
    let mut template = making.private(CARRIER, &[]);
    template.retain(|attribute| !matches!(attribute, Attribute::Extractable(_)));
    template.extend([Attribute::Extractable(false), Attribute::ValueLen(32_u64.into())]);
    Ok(session.generate_key(&Mechanism::Plain(sys::CKM_AES_KEY_GEN), &template)?)
}

impl Parcel {
    /// Wraps a key that was made to be carried.
    pub(crate) fn wrap(
        session: &mut Session,
        number: u64,
        carrier: ObjectHandle,
        made: &Generated,
        spec: KeySpec,
    ) -> Result<Self> {
        let mut wrapped = vec![0; WRAPPED_LEN_MAX];
        let len = session.wrap(carrier, &Mechanism::Plain(number), made.key, &mut wrapped)?;
        wrapped.truncate(len);
        let public = made.public.map_or(Ok(Vec::new()), |public| shown(session, public, spec))?;
        Ok(Self { wrapped, public })
    }

    /// Makes the objects of the key where it has arrived: unextractable from the first.
    pub(crate) fn unwrap(
        &self,
        session: &mut Session,
        number: u64,
        carrier: ObjectHandle,
        making: &Making,
        spec: KeySpec,
    ) -> Result<Generated> {
        let key = making.try_with_limits(|limits| {
            let mut template = spec.class().to_vec();
            template.extend(making.private(spec, limits));
            session.unwrap(carrier, &Mechanism::Plain(number), &self.wrapped, &template)
        })?;
        let mut template = making.public(spec);
        template.extend(self.public.iter().cloned());
        let public = match self.public.is_empty() {
            true => None,
            false => Some(session.create(&template)?),
        };
        Ok(Generated { key, public })
    }
}

/// What makes a public key, as the token shows it.
fn shown(session: &mut Session, public: ObjectHandle, spec: KeySpec) -> Result<Vec<Attribute>> {
    let of_kind: (KeyType, &[A]) = match spec {
        KeySpec::Rsa(_) | KeySpec::RsaDecryption(_) => (KeyType::RSA, &[A::Modulus, A::PublicExponent]),
        KeySpec::Ed25519 => (KeyType::EC_EDWARDS, &[A::EcParams, A::EcPoint]),
        _ => (KeyType::EC, &[A::EcParams, A::EcPoint]),
    };
    let (kind, types) = of_kind;
    let mut template = vec![Attribute::Class(ObjectClass::PUBLIC_KEY), Attribute::KeyType(kind)];
    for (&of, value) in types.iter().zip(session.attributes(public, types)?) {
        let value =
            value.ok_or_else(|| Error::internal("a token shows no public key that it has just made"))?;
        template.push(match of {
            A::Modulus => Attribute::Modulus(value),
            A::PublicExponent => Attribute::PublicExponent(value),
            A::EcParams => Attribute::EcParams(value),
            _ => Attribute::EcPoint(value),
        });
    }
    Ok(template)
}
