//! What one token holds: its keys, listed in one sweep per epoch.

use std::collections::HashMap;

use cryptoki::object::AttributeType as A;
use cryptoki_sys as sys;
use smallvec::SmallVec;

use crate::clock::{Time, now};
use crate::error::{Error, ErrorKind, Result};
use crate::keys::catalogue::store::is_sealer;
use crate::keys::name::KeyName;
use crate::pkcs11::{ObjectHandle, Session};
use crate::token::copies::SESSION_LABEL;
use crate::token::facts::{Curve, KeyFacts, KeyFlags, KeyKind, PublicKey};
use crate::token::task::Handle;
use crate::uri::{ObjectType, uri_of_key};

/// The keys of a token by label.
#[derive(Default)]
pub(crate) struct Listing {
    token: String,
    /// In which it was made.
    pub(crate) epoch: u64,
    keys: HashMap<Vec<u8>, Vec<Listed>>,
}

/// A private or secret key on a token.
#[derive(Clone)]
pub(crate) struct Listed {
    pub(crate) object: ObjectHandle,
    /// The public half's object, where the token has one.
    pub(crate) public: Option<ObjectHandle>,
    pub(crate) epoch: u64,
    pub(crate) facts: KeyFacts,
    /// Private or secret.
    pub(crate) class: ObjectType,
    pub(crate) id: Vec<u8>,
    /// Where it has no id.
    label: Vec<u8>,
    pub(crate) flags: KeyFlags,
}

/// Not what they are called.
impl std::fmt::Debug for Listing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let labels = self.keys.len();
        f.debug_struct("Listing").field("epoch", &self.epoch).field("labels", &labels).finish_non_exhaustive()
    }
}

/// Not what it is called.
impl std::fmt::Debug for Listed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { object, public, epoch, facts, class, id, label: _, flags } = self;
        let mut shown = f.debug_struct("Listed");
        shown.field("object", object).field("public", public).field("epoch", epoch);
        shown.field("facts", facts).field("class", class).field("id", id).field("flags", flags);
        shown.finish_non_exhaustive()
    }
}

/// The attributes that are read, in this order.
const READ: [A; 25] = [
    A::Class,
    A::KeyType,
    A::Label,
    A::Id,
    A::Sign,
    A::Verify,
    A::Encrypt,
    A::Decrypt,
    A::Modulus,
    A::PublicExponent,
    A::EcParams,
    A::EcPoint,
    A::ValueLen,
    A::AllowedMechanisms,
    A::Private,
    A::Token,
    A::Sensitive,
    A::Extractable,
    A::AlwaysSensitive,
    A::NeverExtractable,
    A::Local,
    A::Wrap,
    A::Unwrap,
    A::Derive,
    A::AlwaysAuthenticate,
];

impl Listing {
    /// Lists every object of the token.
    pub(crate) fn list(token: String, session: &mut Session, epoch: u64) -> Result<Self> {
        Self::list_until(token, session, epoch, Time::from_ns(u64::MAX))
    }

    /// Lists the objects of the token that there is time to read.
    pub(crate) fn list_until(token: String, session: &mut Session, epoch: u64, until: Time) -> Result<Self> {
        let mut objects = Vec::new();
        for object in session.find(&[])? {
            if now() >= until {
                break;
            }
            let values = match session.attributes(object, &READ).map_err(Error::from) {
                Ok(values) => Values(values),
                // It has just gone: other processes make and destroy objects too.
                Err(error) if error.kind() == ErrorKind::KeyNotFound => continue,
                // SoftHSM2 2.6.1 goes on to show an object whose maker was killed before it had a class, and answers
                // CKR_ATTRIBUTE_VALUE_INVALID to whatever is asked of it. It is nobody's key. A fault of the token's own says
                // nothing about the object, and stays one.
                Err(error) if error.kind() == ErrorKind::InvalidInput => {
                    tracing::warn!(token, %error, "an object that cannot be read is left out");
                    continue;
                }
                Err(error) => return Err(error),
            };
            // Keys of agreements and unwrapped ones are their holders' own, and may be gone at any moment.
            if values.flag(A::Token) || values.get(A::Label) != Some(SESSION_LABEL) {
                objects.push((object, values));
            }
        }
        Ok(Self::of(token, epoch, &objects))
    }

    fn of(token: String, epoch: u64, objects: &[(ObjectHandle, Values)]) -> Self {
        let of_class =
            |class| objects.iter().filter(move |(_, values)| values.number(A::Class) == Some(class));
        let mut keys: HashMap<_, Vec<_>> = HashMap::new();
        for (object, values) in of_class(sys::CKO_PRIVATE_KEY).chain(of_class(sys::CKO_SECRET_KEY)) {
            // The public half has the same CKA_ID (PKCS#11 2.40, 4.6).
            let is_half = |public: &Values| {
                [A::Id, A::Label, A::KeyType].into_iter().all(|of| public.get(of) == values.get(of))
            };
            let has_half = values.number(A::Class) == Some(sys::CKO_PRIVATE_KEY);
            let public = of_class(sys::CKO_PUBLIC_KEY).find(|(_, public)| has_half && is_half(public));
            let listed = Listed::of(*object, epoch, values, public.map(|(object, values)| (*object, values)));
            keys.entry(values.get(A::Label).unwrap_or_default().to_vec()).or_default().push(listed);
        }
        Self { token, epoch, keys }
    }

    /// Reads objects of a module that answers so, attribute by attribute.
    #[cfg(fuzzing)]
    pub(crate) fn of_answers(objects: &[Vec<crate::pkcs11::attributes::Answer<'_>>]) -> Self {
        let read = |answers: &Vec<_>| Values(crate::pkcs11::attributes::read_answers(&READ, answers));
        let objects =
            objects.iter().map(read).zip(1..).map(|(it, number)| (ObjectHandle::numbered(number), it));
        Self::of(String::new(), 1, &objects.collect::<Vec<_>>())
    }

    /// Every key, with its label.
    pub(crate) fn keys(&self) -> impl Iterator<Item = (&[u8], &Listed)> {
        self.keys.iter().flat_map(|(label, keys)| keys.iter().map(move |listed| (label.as_slice(), listed)))
    }

    /// Whether it lists a key with this object.
    pub(crate) fn lists(&self, handle: Handle) -> bool {
        self.keys().any(|(_, listed)| listed.handle() == handle)
    }

    /// The key that another listing had with this object: of the same label, id and attributes. None if there is none,
    /// or if there are several.
    pub(crate) fn find_again(&self, old: &Self, before: Handle) -> Option<&Listed> {
        let (label, was) = old.keys().find(|(_, listed)| listed.handle() == before)?;
        let same =
            |listed: &&Listed| (listed.class, &listed.id, &listed.facts) == (was.class, &was.id, &was.facts);
        let mut found = self.keys.get(label)?.iter().filter(same);
        found.next().filter(|_| found.next().is_none())
    }

    /// The key of this name; none if the token has none.
    ///
    /// # Errors
    /// `KeyAmbiguous` if it is the name of several keys of the token.
    pub(crate) fn find(&self, name: &KeyName<'_>) -> Result<Option<&Listed>> {
        // Whoever had the key of the catalogue's MACs could write records.
        let mut found = SmallVec::<[&Listed; 1]>::new();
        match name.known_label() {
            Some(label) => {
                let labelled = self.keys.get(label).into_iter().flatten().filter(|_| !is_sealer(label));
                found.extend(labelled.filter(|listed| name.fits(label, listed)));
            }
            None => found.extend(self.keys().filter_map(|(label, listed)| {
                (name.fits(label, listed) && !is_sealer(label)).then_some(listed)
            })),
        }
        match found[..] {
            [] => Ok(None),
            [listed] => Ok(Some(listed)),
            _ => Err(self.ambiguous(&found)),
        }
    }

    /// By type and size only: many tools make `CKA_ID` of the label, which no error may name.
    fn ambiguous(&self, several: &[&Listed]) -> Error {
        let shown = several.iter().take(SHOWN_MAX).map(|listed| format!("{:?}", listed.facts.kind));
        let more = if several.len() > SHOWN_MAX { ", ..." } else { "" };
        let kinds = shown.collect::<Vec<_>>().join(", ");
        let text = format!("token {} holds {} keys of this name: {kinds}{more}", self.token, several.len());
        Error::operator(ErrorKind::KeyAmbiguous, text)
    }
}

/// Keys that an error lists: a URI may select all that a token holds.
const SHOWN_MAX: usize = 8;

impl Listed {
    /// Reads one secret key.
    pub(crate) fn read(session: &mut Session, object: ObjectHandle, epoch: u64) -> Result<Self> {
        let values = Values(session.attributes(object, &READ)?);
        Ok(Self::of(object, epoch, &values, None))
    }

    /// Reads one private key, with its public half.
    pub(crate) fn read_pair(
        session: &mut Session,
        object: ObjectHandle,
        public: ObjectHandle,
        epoch: u64,
    ) -> Result<Self> {
        let values = Values(session.attributes(object, &READ)?);
        let half = Values(session.attributes(public, &READ)?);
        Ok(Self::of(object, epoch, &values, Some((public, &half))))
    }

    pub(crate) const fn handle(&self) -> Handle {
        Handle { epoch: self.epoch, object: self.object }
    }

    /// What it is called, for people: by its id if it has one. Not to be found by, for others may be called the same.
    pub(crate) fn uri(&self) -> Option<String> {
        let is_named = !self.id.is_empty() || !self.label.is_empty();
        is_named.then(|| uri_of_key(&self.id, &self.label))
    }

    fn of(
        object: ObjectHandle,
        epoch: u64,
        values: &Values,
        public: Option<(ObjectHandle, &Values)>,
    ) -> Self {
        let facts = facts(values, public.map(|(_, values)| values));
        let class = match values.number(A::Class) {
            Some(sys::CKO_PRIVATE_KEY) => ObjectType::Private,
            _ => ObjectType::SecretKey,
        };
        let id = values.get(A::Id).unwrap_or_default().to_vec();
        let label = values.get(A::Label).filter(|_| id.is_empty()).unwrap_or_default().to_vec();
        let public = public.map(|(object, _)| object);
        Self { object, public, epoch, facts, class, id, label, flags: values.flags() }
    }
}

/// Raw values in the order of [`READ`].
struct Values(Vec<Option<Vec<u8>>>);

impl Values {
    fn get(&self, attribute: A) -> Option<&[u8]> {
        READ.iter().position(|&read| read == attribute).and_then(|i| self.0.get(i)?.as_deref())
    }

    fn flag(&self, attribute: A) -> bool {
        self.get(attribute).is_some_and(|value| value.iter().any(|&byte| byte != 0))
    }

    fn flags(&self) -> KeyFlags {
        KeyFlags {
            token: self.flag(A::Token),
            private: self.flag(A::Private),
            sensitive: self.flag(A::Sensitive),
            always_sensitive: self.flag(A::AlwaysSensitive),
            extractable: self.flag(A::Extractable),
            never_extractable: self.flag(A::NeverExtractable),
            local: self.flag(A::Local),
            wrap: self.flag(A::Wrap),
            unwrap: self.flag(A::Unwrap),
            derive: self.flag(A::Derive),
        }
    }

    /// A `CK_ULONG` in the machine's own order.
    fn number(&self, attribute: A) -> Option<u64> {
        self.get(attribute)?.try_into().ok().map(u64::from_ne_bytes)
    }
}

fn facts(values: &Values, public: Option<&Values>) -> KeyFacts {
    let kind = kind(values);
    let allowed = values.get(A::AllowedMechanisms).map(|list| {
        list.chunks_exact(8).filter_map(|number| number.try_into().ok().map(u64::from_ne_bytes)).collect()
    });
    KeyFacts {
        kind,
        sign: values.flag(A::Sign),
        // A private key has no CKA_VERIFY: the public half says whether it may verify.
        verify: public.map_or_else(|| values.flag(A::Verify), |public| public.flag(A::Verify)),
        // Of a pair, the public half encrypts and the private one decrypts.
        encrypt: public.map_or_else(|| values.flag(A::Encrypt), |public| public.flag(A::Encrypt)),
        decrypt: values.flag(A::Decrypt),
        derive: values.flag(A::Derive),
        wrap: values.flag(A::Wrap),
        unwrap: values.flag(A::Unwrap),
        allowed,
        always_authenticate: values.flag(A::AlwaysAuthenticate),
        public: public_key(kind, values, public),
    }
}

fn kind(values: &Values) -> KeyKind {
    match values.number(A::KeyType) {
        Some(sys::CKK_RSA) => KeyKind::Rsa { bits: values.get(A::Modulus).map_or(0, bits) },
        Some(sys::CKK_EC) => values.get(A::EcParams).and_then(curve).map_or(KeyKind::Other, KeyKind::Ec),
        Some(sys::CKK_EC_EDWARDS) => match values.get(A::EcParams) {
            Some(params) if ED25519_PARAMS.contains(&params) => KeyKind::Ed25519,
            _ => KeyKind::Other,
        },
        Some(sys::CKK_AES) => KeyKind::Aes { len: value_len(values) },
        // PKCS#11 2.40, mechanisms 2.14 and 2.15: these have no CKA_VALUE_LEN.
        Some(sys::CKK_DES2) => KeyKind::TripleDes { len: 16 },
        Some(sys::CKK_DES3) => KeyKind::TripleDes { len: 24 },
        Some(
            sys::CKK_GENERIC_SECRET | sys::CKK_SHA256_HMAC | sys::CKK_SHA384_HMAC | sys::CKK_SHA512_HMAC,
        ) => KeyKind::Generic { len: value_len(values) },
        _ => KeyKind::Other,
    }
}

fn value_len(values: &Values) -> u32 {
    values.number(A::ValueLen).and_then(|len| len.try_into().ok()).unwrap_or(0)
}

fn bits(modulus: &[u8]) -> u32 {
    let trimmed = trim(modulus);
    let leading = trimmed.first().map_or(0, |byte| byte.leading_zeros());
    u32::try_from(trimmed.len() * 8).unwrap_or(u32::MAX) - leading
}

fn trim(number: &[u8]) -> &[u8] {
    &number[number.iter().position(|&byte| byte != 0).unwrap_or(number.len())..]
}

fn curve(params: &[u8]) -> Option<Curve> {
    Curve::ALL.into_iter().find(|curve| curve.oid_der() == params)
}

/// `CKA_EC_PARAMS` of Ed25519: the object identifier 1.3.101.112 (RFC 8410, 3) or the name "edwards25519" as a
/// PrintableString (PKCS#11 3.0, 2.3.10). Modules use both.
pub(super) const ED25519_PARAMS: [&[u8]; 2] = [b"\x06\x03\x2b\x65\x70", b"\x13\x0cedwards25519"];

fn public_key(kind: KeyKind, values: &Values, public: Option<&Values>) -> Option<PublicKey> {
    let read = |attribute| public.and_then(|public| public.get(attribute)).or_else(|| values.get(attribute));
    match kind {
        KeyKind::Rsa { .. } => {
            let (modulus, exponent) =
                (trim(read(A::Modulus)?).to_vec(), trim(read(A::PublicExponent)?).to_vec());
            (!modulus.is_empty() && !exponent.is_empty()).then_some(PublicKey::Rsa { modulus, exponent })
        }
        KeyKind::Ec(curve) => {
            let point = point(read(A::EcPoint)?, curve)?;
            Some(PublicKey::Ec { curve, point })
        }
        KeyKind::Ed25519 => edwards_point(read(A::EcPoint)?).map(PublicKey::Ed25519),
        _ => None,
    }
}

/// `CKA_EC_POINT` is a DER OCTET STRING around the point (PKCS#11 2.40, curves 2.3.3); some modules give the
/// bare point.
pub(crate) fn point(value: &[u8], curve: Curve) -> Option<Vec<u8>> {
    let len = 1 + 2 * curve.field_len();
    let bare = match value {
        [0x04, inner_len, inner @ ..] if usize::from(*inner_len) == len && inner.len() == len => inner,
        // The length of a point of P-521 takes two bytes.
        [0x04, 0x81, inner_len, inner @ ..] if usize::from(*inner_len) == len && inner.len() == len => inner,
        bare => bare,
    };
    (bare.len() == len && bare[0] == 0x04).then(|| bare.to_vec())
}

/// 34 bytes in their wrapping on SoftHSM2 2.6.1, 32 bare ones on kryoptic 1.5.4.
fn edwards_point(value: &[u8]) -> Option<[u8; 32]> {
    match value {
        [0x04, 32, inner @ ..] => inner.try_into().ok(),
        bare => bare.try_into().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edwards_points_and_those_of_p_521_are_read_with_and_without_their_wrapping() {
        assert_eq!(edwards_point(&[&[4, 32][..], &[7; 32]].concat()), Some([7; 32]));
        assert_eq!(edwards_point(&[7; 32]), Some([7; 32]));
        assert_eq!(edwards_point(&[7; 33]), None);
        let bare = [&[4][..], &[7; 132]].concat();
        let wrapped = [&[4, 0x81, 133][..], &bare].concat();
        assert_eq!(point(&bare, Curve::P521).as_deref(), Some(&bare[..]));
        assert_eq!(point(&wrapped, Curve::P521).as_deref(), Some(&bare[..]));
    }

    #[test]
    fn points_are_read_with_and_without_their_wrapping() {
        let mut bare = vec![0x04];
        bare.extend([7; 64]);
        let mut wrapped = vec![0x04, 65];
        wrapped.extend(&bare);
        assert_eq!(point(&bare, Curve::P256).as_deref(), Some(&bare[..]));
        assert_eq!(point(&wrapped, Curve::P256).as_deref(), Some(&bare[..]));
        assert_eq!(point(&bare[1..], Curve::P256), None);
        assert_eq!(point(&wrapped, Curve::P384), None);
    }

    #[test]
    fn the_size_of_a_modulus_is_counted_without_leading_zeros() {
        assert_eq!(bits(&[0, 0x80, 0]), 16);
        assert_eq!(bits(&[0x01, 0xff]), 9);
        assert_eq!(bits(&[]), 0);
    }
}
