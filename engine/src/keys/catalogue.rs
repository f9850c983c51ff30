//! The catalogue of one token: its keys, listed in one sweep per epoch.

use std::collections::HashMap;

use cryptoki::mechanism::MechanismType;
use cryptoki::object::AttributeType as A;
use cryptoki_sys as sys;

use crate::error::{Error, ErrorKind, Result};
use crate::pkcs11::{ObjectHandle, Session};
use crate::token::facts::{Curve, KeyFacts, KeyKind, PublicKey};

/// The keys of a token by label.
#[derive(Debug, Default)]
pub(crate) struct Catalogue {
    token: String,
    keys: HashMap<Vec<u8>, Vec<Listed>>,
}

/// A private or secret key on a token.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    pub(crate) object: ObjectHandle,
    pub(crate) epoch: u64,
    pub(crate) facts: KeyFacts,
}

/// The attributes that are read, in this order.
const READ: [A; 16] = [
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
];

impl Catalogue {
    /// Lists every object of the token.
    pub(crate) fn list(token: String, session: &mut Session, epoch: u64) -> Result<Self> {
        let mut objects = Vec::new();
        for object in session.find(&[])? {
            objects.push((object, Values(session.attributes(object, &READ)?)));
        }
        let of_class =
            |class| objects.iter().filter(move |(_, values)| values.number(A::Class) == Some(class));
        let mut keys: HashMap<_, Vec<_>> = HashMap::new();
        for (object, values) in of_class(sys::CKO_PRIVATE_KEY).chain(of_class(sys::CKO_SECRET_KEY)) {
            // The public half has the same CKA_ID (PKCS#11 2.40, 4.6).
            let public = of_class(sys::CKO_PUBLIC_KEY).map(|(_, public)| public).find(|public| {
                public.get(A::Id) == values.get(A::Id) && public.get(A::Label) == values.get(A::Label)
            });
            let listed = Listed { object: *object, epoch, facts: facts(values, public) };
            keys.entry(values.get(A::Label).unwrap_or_default().to_vec()).or_default().push(listed);
        }
        Ok(Self { token, keys })
    }

    /// Reads one key of the token.
    pub(crate) fn list_objects(
        session: &mut Session,
        epoch: u64,
        object: ObjectHandle,
        public: Option<ObjectHandle>,
    ) -> Result<Listed> {
        let values = Values(session.attributes(object, &READ)?);
        let public = public.map(|public| session.attributes(public, &READ)).transpose()?.map(Values);
        Ok(Listed { object, epoch, facts: facts(&values, public.as_ref()) })
    }

    /// The key of this label; none if the token has none.
    ///
    /// # Errors
    /// `KeyAmbiguous` if several keys of the token carry it.
    pub(crate) fn find(&self, label: &str) -> Result<Option<Listed>> {
        match self.keys.get(label.as_bytes()).map_or(&[][..], Vec::as_slice) {
            [] => Ok(None),
            [listed] => Ok(Some(listed.clone())),
            several => {
                let kinds: Vec<_> = several.iter().map(|listed| format!("{:?}", listed.facts.kind)).collect();
                let text = format!(
                    "token {} holds {} keys of this name: {}",
                    self.token,
                    several.len(),
                    kinds.join(", ")
                );
                Err(Error::operator(ErrorKind::KeyAmbiguous, text))
            }
        }
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

    /// A `CK_ULONG` in the machine's own order.
    fn number(&self, attribute: A) -> Option<u64> {
        self.get(attribute)?.try_into().ok().map(u64::from_ne_bytes)
    }
}

fn facts(values: &Values, public: Option<&Values>) -> KeyFacts {
    let kind = kind(values);
    let allowed = values.get(A::AllowedMechanisms).map(|list| {
        let numbers =
            list.chunks_exact(8).filter_map(|number| number.try_into().ok().map(u64::from_ne_bytes));
        numbers.filter_map(|number| MechanismType::try_from(number).ok()).collect()
    });
    KeyFacts {
        kind,
        sign: values.flag(A::Sign),
        // A private key has no CKA_VERIFY: the public half says whether it may verify.
        verify: public.map_or_else(|| values.flag(A::Verify), |public| public.flag(A::Verify)),
        encrypt: values.flag(A::Encrypt),
        decrypt: values.flag(A::Decrypt),
        allowed,
        public: public_key(kind, values, public),
    }
}

fn kind(values: &Values) -> KeyKind {
    match values.number(A::KeyType) {
        Some(sys::CKK_RSA) => KeyKind::Rsa { bits: values.get(A::Modulus).map_or(0, bits) },
        Some(sys::CKK_EC) => values.get(A::EcParams).and_then(curve).map_or(KeyKind::Other, KeyKind::Ec),
        Some(sys::CKK_AES) => KeyKind::Aes { len: value_len(values) },
        Some(sys::CKK_GENERIC_SECRET | sys::CKK_SHA256_HMAC) => KeyKind::Generic { len: value_len(values) },
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
    [Curve::P256, Curve::P384].into_iter().find(|curve| curve.oid_der() == params)
}

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
        _ => None,
    }
}

/// `CKA_EC_POINT` is a DER OCTET STRING around the point (PKCS#11 2.40, curves 2.3.3); some modules give the
/// bare point.
fn point(value: &[u8], curve: Curve) -> Option<Vec<u8>> {
    let len = 1 + 2 * curve.field_len();
    let bare = match value {
        [0x04, inner_len, inner @ ..] if usize::from(*inner_len) == len && inner.len() == len => inner,
        bare => bare,
    };
    (bare.len() == len && bare[0] == 0x04).then(|| bare.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

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
