//! Objects: keys and data, with attributes around them.

mod attributes;
mod change;
mod make;

use cryptoki_sys as sys;

use crate::key::Key;
use crate::rule::Names;
use crate::store::FileName;

pub(crate) use attributes::{Attributes, Template};
pub(crate) use make::Origin;

/// An object.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    content: Content,
    attributes: Attributes,
    pub(crate) home: Home,
}

/// What is in an object beside what its attributes show.
#[derive(Clone, Debug)]
enum Content {
    Key(Key),
    Data,
}

/// Where an object lives, and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Home {
    /// In the memory of the token.
    Token,
    /// In the token's folder, where other processes see it.
    File(FileName),
    /// In the session of this generation, with which it goes.
    Session(u64),
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

impl Object {
    /// The key in it; none in data.
    pub(crate) const fn key(&self) -> Option<&Key> {
        match &self.content {
            Content::Key(key) => Some(key),
            Content::Data => None,
        }
    }

    pub(crate) const fn attributes(&self) -> &Attributes {
        &self.attributes
    }

    /// The value of an attribute, or why it is not shown.
    pub(crate) fn read(&self, kind: sys::CK_ATTRIBUTE_TYPE) -> Result<&[u8], sys::CK_RV> {
        let value = self.attributes.get(kind).ok_or(sys::CKR_ATTRIBUTE_TYPE_INVALID)?;
        if SECRET.contains(&kind) && self.hides_secrets() {
            return Err(sys::CKR_ATTRIBUTE_SENSITIVE);
        }
        Ok(value)
    }

    /// Whether every attribute of the template is there, may be seen and is the same.
    pub(crate) fn matches(&self, template: &Template) -> bool {
        template.0.iter().all(|(kind, value)| self.read(*kind).is_ok_and(|own| own == value))
    }

    /// An error if the key may not be used with this mechanism. An empty list, which keys have that were made without
    /// one, forbids nothing, as in `SoftHSM2`.
    pub(crate) fn check_allows(&self, mechanism: sys::CK_MECHANISM_TYPE) -> Result<(), sys::CK_RV> {
        let list = self.attributes.value(sys::CKA_ALLOWED_MECHANISMS);
        let (allowed, _) = list.as_chunks::<{ size_of::<sys::CK_MECHANISM_TYPE>() }>();
        let found = allowed.iter().any(|number| sys::CK_MECHANISM_TYPE::from_ne_bytes(*number) == mechanism);
        if found || allowed.is_empty() { Ok(()) } else { Err(sys::CKR_MECHANISM_INVALID) }
    }

    /// Its class and its type of key: equal for objects that are used alike.
    pub(crate) fn kind(&self) -> Vec<u8> {
        [sys::CKA_CLASS, sys::CKA_KEY_TYPE].map(|kind| self.attributes.value(kind)).concat()
    }

    /// What it is called.
    pub(crate) fn names(&self) -> Names {
        let [label, id] = [sys::CKA_LABEL, sys::CKA_ID].map(|kind| self.attributes.value(kind).to_vec());
        Names { label, id }
    }

    pub(crate) fn flag(&self, kind: sys::CK_ATTRIBUTE_TYPE) -> bool {
        self.attributes.flag(kind)
    }

    fn hides_secrets(&self) -> bool {
        match self.content {
            Content::Key(_) => self.flag(sys::CKA_SENSITIVE) || !self.flag(sys::CKA_EXTRACTABLE),
            Content::Data => false,
        }
    }
}
