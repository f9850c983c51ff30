//! Objects: attributes around a key.

use std::collections::BTreeMap;

use cryptoki_sys as sys;

use crate::key::{Key, Kind};
use crate::rule::Names;

/// Attributes as a caller gives them, copied.
#[derive(Clone, Debug, Default)]
pub(crate) struct Template(pub(crate) Vec<(sys::CK_ATTRIBUTE_TYPE, Vec<u8>)>);

/// A key object.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    pub(crate) key: Key,
    attributes: BTreeMap<sys::CK_ATTRIBUTE_TYPE, Vec<u8>>,
    /// The generation of the session that it goes with; none if it is on the token.
    pub(crate) session: Option<u64>,
}

/// Attributes that carry secrets: shown only if the key is not sensitive and extractable (PKCS#11 2.40, 4.7).
const SECRET: [sys::CK_ATTRIBUTE_TYPE; 7] = [
    sys::CKA_VALUE,
    sys::CKA_PRIVATE_EXPONENT,
    sys::CKA_PRIME_1,
    sys::CKA_PRIME_2,
    sys::CKA_EXPONENT_1,
    sys::CKA_EXPONENT_2,
    sys::CKA_COEFFICIENT,
];

/// What only the token sets (PKCS#11 2.40, 4.7 to 4.10).
const TOKENS_OWN: [sys::CK_ATTRIBUTE_TYPE; 4] =
    [sys::CKA_LOCAL, sys::CKA_KEY_GEN_MECHANISM, sys::CKA_ALWAYS_SENSITIVE, sys::CKA_NEVER_EXTRACTABLE];

/// What a copy may change beside its label and id.
const COPY_CHANGES: [sys::CK_ATTRIBUTE_TYPE; 4] =
    [sys::CKA_TOKEN, sys::CKA_PRIVATE, sys::CKA_SENSITIVE, sys::CKA_EXTRACTABLE];

/// The curves' object identifiers in DER (RFC 5480, 2.1.1.1).
const P256_OID: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384_OID: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];
const P521_OID: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23];

/// That of Ed25519 (RFC 8410, 3), and its name (PKCS#11 3.0, 2.3.10).
const ED25519_OID: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x70];
const ED25519_NAME: &[u8] = b"\x13\x0cedwards25519";

/// Keys for HMAC with one hash.
pub(crate) const HMAC_TYPES: [sys::CK_KEY_TYPE; 3] =
    [sys::CKK_SHA256_HMAC, sys::CKK_SHA384_HMAC, sys::CKK_SHA512_HMAC];

impl Template {
    pub(crate) fn get(&self, kind: sys::CK_ATTRIBUTE_TYPE) -> Option<&[u8]> {
        self.0.iter().find(|(own, _)| *own == kind).map(|(_, value)| value.as_slice())
    }

    /// A `CK_ULONG`; an error if it is there with another length.
    pub(crate) fn number(&self, kind: sys::CK_ATTRIBUTE_TYPE) -> Result<Option<u64>, sys::CK_RV> {
        let read = |value: &[u8]| value.try_into().map(u64::from_ne_bytes);
        self.get(kind).map(read).transpose().map_err(|_| sys::CKR_ATTRIBUTE_VALUE_INVALID)
    }

    /// A `CK_BBOOL`; the default if it is not there.
    pub(crate) fn flag(&self, kind: sys::CK_ATTRIBUTE_TYPE, default: bool) -> Result<bool, sys::CK_RV> {
        match self.get(kind) {
            None => Ok(default),
            Some([byte]) => Ok(*byte != 0),
            Some(_) => Err(sys::CKR_ATTRIBUTE_VALUE_INVALID),
        }
    }
}

impl Object {
    /// A secret key; `local` if the token made it.
    pub(crate) fn secret(key: Key, template: &Template, local: bool) -> Result<Self, sys::CK_RV> {
        let value = match &key {
            Key::Aes(value) | Key::Mac(value) | Key::TripleDes(value) => value.to_vec(),
            _ => return Err(sys::CKR_GENERAL_ERROR),
        };
        let macs = matches!(key, Key::Mac(_));
        let (encrypts, has_len) = (!macs, !matches!(key, Key::TripleDes(_)));
        let mut object = Self::new(key, sys::CKO_SECRET_KEY, template, true)?;
        object.guard(template, local)?;
        // PKCS#11 2.40, mechanisms 2.15.2: keys of triple DES have no CKA_VALUE_LEN.
        if has_len {
            object.set_number(sys::CKA_VALUE_LEN, value.len() as u64);
        }
        object.set(sys::CKA_VALUE, value);
        let flags = [
            (sys::CKA_ENCRYPT, encrypts),
            (sys::CKA_DECRYPT, encrypts),
            (sys::CKA_SIGN, macs),
            (sys::CKA_VERIFY, macs),
            (sys::CKA_WRAP, false),
            (sys::CKA_UNWRAP, false),
            (sys::CKA_TRUSTED, false),
            (sys::CKA_WRAP_WITH_TRUSTED, false),
        ];
        object.set_flags(template, &flags)?;
        Ok(object)
    }

    /// The private half of a pair that the token made.
    pub(crate) fn private(key: Key, template: &Template) -> Result<Self, sys::CK_RV> {
        let mut object = Self::new(key, sys::CKO_PRIVATE_KEY, template, true)?;
        object.guard(template, true)?;
        match object.key.clone() {
            Key::P256(key) => object.set_ec(P256_OID, &key.to_bytes()),
            Key::P384(key) => object.set_ec(P384_OID, &key.to_bytes()),
            Key::P521(key) => object.set_ec(P521_OID, &key.to_bytes()),
            Key::Ed25519(key) => object.set_ec(ED25519_OID, key.as_bytes()),
            Key::Rsa(key) => {
                let [modulus, exponent, private_exponent] = key.numbers();
                object.set(sys::CKA_MODULUS, modulus);
                object.set(sys::CKA_PUBLIC_EXPONENT, exponent);
                object.set(sys::CKA_PRIVATE_EXPONENT, private_exponent);
            }
            Key::Aes(_) | Key::Mac(_) | Key::TripleDes(_) => return Err(sys::CKR_GENERAL_ERROR),
        }
        let flags = [
            (sys::CKA_SIGN, true),
            (sys::CKA_DECRYPT, false),
            (sys::CKA_SIGN_RECOVER, false),
            (sys::CKA_UNWRAP, false),
            (sys::CKA_ALWAYS_AUTHENTICATE, false),
            (sys::CKA_WRAP_WITH_TRUSTED, false),
        ];
        object.set_flags(template, &flags)?;
        Ok(object)
    }

    /// The public half of a pair that the token made.
    pub(crate) fn public(key: Key, template: &Template) -> Result<Self, sys::CK_RV> {
        let mut object = Self::new(key, sys::CKO_PUBLIC_KEY, template, false)?;
        object.made_here(true);
        match object.key.clone() {
            Key::P256(key) => {
                object.set_point(P256_OID, key.verifying_key().to_sec1_point(false).as_bytes());
            }
            Key::P384(key) => {
                object.set_point(P384_OID, key.verifying_key().to_sec1_point(false).as_bytes());
            }
            Key::P521(key) => {
                object.set_point(P521_OID, key.verifying_key().to_sec1_point(false).as_bytes());
            }
            Key::Ed25519(key) => object.set_point(ED25519_OID, key.verifying_key().as_bytes()),
            Key::Rsa(key) => {
                let [modulus, exponent, _] = key.numbers();
                object.set(sys::CKA_MODULUS, modulus);
                object.set(sys::CKA_PUBLIC_EXPONENT, exponent);
                object.set_number(sys::CKA_MODULUS_BITS, key.bits().into());
            }
            Key::Aes(_) | Key::Mac(_) | Key::TripleDes(_) => return Err(sys::CKR_GENERAL_ERROR),
        }
        let flags = [
            (sys::CKA_VERIFY, true),
            (sys::CKA_ENCRYPT, false),
            (sys::CKA_VERIFY_RECOVER, false),
            (sys::CKA_WRAP, false),
            (sys::CKA_TRUSTED, false),
        ];
        object.set_flags(template, &flags)?;
        Ok(object)
    }

    /// A copy with changes. It may become harder to read, never easier (PKCS#11 2.40, `C_CopyObject`).
    pub(crate) fn copy(&self, changes: &Template) -> Result<Self, sys::CK_RV> {
        let mut copy = self.clone();
        for (kind, value) in &changes.0 {
            match *kind {
                sys::CKA_LABEL | sys::CKA_ID => {}
                kind if COPY_CHANGES.contains(&kind) => {
                    let flag = changes.flag(kind, false)?;
                    let looser = match kind {
                        sys::CKA_SENSITIVE => self.flag(kind) && !flag,
                        sys::CKA_EXTRACTABLE => !self.flag(kind) && flag,
                        _ => false,
                    };
                    if looser || !self.attributes.contains_key(&kind) {
                        return Err(sys::CKR_TEMPLATE_INCONSISTENT);
                    }
                }
                _ => return Err(sys::CKR_ATTRIBUTE_READ_ONLY),
            }
            copy.set(*kind, value.clone());
        }
        Ok(copy)
    }

    /// The value of an attribute, or why it is not shown.
    pub(crate) fn read(&self, kind: sys::CK_ATTRIBUTE_TYPE) -> Result<&[u8], sys::CK_RV> {
        let value = self.attributes.get(&kind).ok_or(sys::CKR_ATTRIBUTE_TYPE_INVALID)?;
        let hidden = self.flag(sys::CKA_SENSITIVE) || !self.flag(sys::CKA_EXTRACTABLE);
        if SECRET.contains(&kind) && hidden { Err(sys::CKR_ATTRIBUTE_SENSITIVE) } else { Ok(value) }
    }

    /// Whether every attribute of the template is there, may be seen and is the same.
    pub(crate) fn matches(&self, template: &Template) -> bool {
        template.0.iter().all(|(kind, value)| self.read(*kind).is_ok_and(|own| own == value))
    }

    /// Its class and its type of key: equal for objects that are used alike.
    pub(crate) fn kind(&self) -> Vec<u8> {
        [sys::CKA_CLASS, sys::CKA_KEY_TYPE].map(|kind| self.value(kind)).concat()
    }

    /// What it is called.
    pub(crate) fn names(&self) -> Names {
        Names { label: self.value(sys::CKA_LABEL).to_vec(), id: self.value(sys::CKA_ID).to_vec() }
    }

    fn value(&self, kind: sys::CK_ATTRIBUTE_TYPE) -> &[u8] {
        self.attributes.get(&kind).map(Vec::as_slice).unwrap_or_default()
    }

    pub(crate) fn flag(&self, kind: sys::CK_ATTRIBUTE_TYPE) -> bool {
        self.attributes.get(&kind).is_some_and(|value| value.first() == Some(&1))
    }

    fn new(
        key: Key,
        class: sys::CK_OBJECT_CLASS,
        template: &Template,
        private: bool,
    ) -> Result<Self, sys::CK_RV> {
        if template.0.iter().any(|(kind, _)| TOKENS_OWN.contains(kind)) {
            return Err(sys::CKR_ATTRIBUTE_READ_ONLY);
        }
        if template.number(sys::CKA_CLASS)?.is_some_and(|wanted| wanted != class) {
            return Err(sys::CKR_TEMPLATE_INCONSISTENT);
        }
        let key_type = template.number(sys::CKA_KEY_TYPE)?.unwrap_or(key.key_type());
        // A key for MACs may be for HMAC with one hash alone.
        let fits =
            key_type == key.key_type() || (matches!(key, Key::Mac(_)) && HMAC_TYPES.contains(&key_type));
        if !fits {
            return Err(sys::CKR_TEMPLATE_INCONSISTENT);
        }
        let mut object = Self { key, attributes: BTreeMap::new(), session: None };
        object.set_number(sys::CKA_CLASS, class);
        object.set_number(sys::CKA_KEY_TYPE, key_type);
        for kind in [sys::CKA_LABEL, sys::CKA_ID] {
            object.set(kind, template.get(kind).unwrap_or_default().to_vec());
        }
        let flags = [
            (sys::CKA_TOKEN, false),
            (sys::CKA_PRIVATE, private),
            (sys::CKA_MODIFIABLE, true),
            (sys::CKA_COPYABLE, true),
            (sys::CKA_DESTROYABLE, true),
            (sys::CKA_DERIVE, false),
        ];
        object.set_flags(template, &flags)?;
        Ok(object)
    }

    /// What keeps a private or secret key in.
    fn guard(&mut self, template: &Template, local: bool) -> Result<(), sys::CK_RV> {
        self.set_flags(template, &[(sys::CKA_SENSITIVE, local), (sys::CKA_EXTRACTABLE, false)])?;
        // A key that came from outside has been in the open (PKCS#11 2.40, 4.10).
        self.set_flag(sys::CKA_ALWAYS_SENSITIVE, local && self.flag(sys::CKA_SENSITIVE));
        self.set_flag(sys::CKA_NEVER_EXTRACTABLE, local && !self.flag(sys::CKA_EXTRACTABLE));
        self.made_here(local);
        Ok(())
    }

    fn made_here(&mut self, local: bool) {
        self.set_flag(sys::CKA_LOCAL, local);
        let mechanism = match &self.key {
            _ if !local => sys::CK_UNAVAILABLE_INFORMATION,
            Key::Aes(_) => sys::CKM_AES_KEY_GEN,
            Key::Mac(_) => sys::CKM_GENERIC_SECRET_KEY_GEN,
            Key::TripleDes(_) => sys::CKM_DES3_KEY_GEN,
            Key::P256(_) | Key::P384(_) | Key::P521(_) => sys::CKM_EC_KEY_PAIR_GEN,
            Key::Ed25519(_) => sys::CKM_EC_EDWARDS_KEY_PAIR_GEN,
            Key::Rsa(_) => sys::CKM_RSA_PKCS_KEY_PAIR_GEN,
        };
        self.set_number(sys::CKA_KEY_GEN_MECHANISM, mechanism);
    }

    fn set_ec(&mut self, curve: &[u8], value: &[u8]) {
        self.set(sys::CKA_EC_PARAMS, curve.to_vec());
        self.set(sys::CKA_VALUE, value.to_vec());
    }

    /// `CKA_EC_POINT` is a DER OCTET STRING around the point (PKCS#11 2.40 curves, 2.3.3).
    fn set_point(&mut self, curve: &[u8], point: &[u8]) {
        // 32, 65 and 97 bytes: the length takes one byte; 133: it takes two (X.690, 8.1.3).
        let mut wrapped = vec![0x04];
        if point.len() > 127 {
            wrapped.push(0x81);
        }
        wrapped.push(u8::try_from(point.len()).unwrap_or(0));
        wrapped.extend_from_slice(point);
        self.set(sys::CKA_EC_PARAMS, curve.to_vec());
        self.set(sys::CKA_EC_POINT, wrapped);
    }

    fn set_flags(
        &mut self,
        template: &Template,
        defaults: &[(sys::CK_ATTRIBUTE_TYPE, bool)],
    ) -> Result<(), sys::CK_RV> {
        for &(kind, default) in defaults {
            let value = template.flag(kind, default)?;
            self.set_flag(kind, value);
        }
        Ok(())
    }

    fn set_flag(&mut self, kind: sys::CK_ATTRIBUTE_TYPE, value: bool) {
        self.set(kind, vec![u8::from(value)]);
    }

    fn set_number(&mut self, kind: sys::CK_ATTRIBUTE_TYPE, value: u64) {
        self.set(kind, value.to_ne_bytes().to_vec());
    }

    fn set(&mut self, kind: sys::CK_ATTRIBUTE_TYPE, value: Vec<u8>) {
        self.attributes.insert(kind, value);
    }
}

/// The kind of key on the curve that an identifier names.
pub(crate) fn on_curve(params: &[u8]) -> Option<Kind> {
    match params {
        P256_OID => Some(Kind::P256),
        P384_OID => Some(Kind::P384),
        P521_OID => Some(Kind::P521),
        ED25519_OID | ED25519_NAME => Some(Kind::Ed25519),
        _ => None,
    }
}
