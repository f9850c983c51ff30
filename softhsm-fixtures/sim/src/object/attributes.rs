//! Attributes: as a caller gives them, and as an object keeps them.

use std::collections::BTreeMap;

use cryptoki_sys as sys;

/// Attributes as a caller gives them, copied.
#[derive(Clone, Debug, Default)]
pub(crate) struct Template(pub(crate) Vec<(sys::CK_ATTRIBUTE_TYPE, Vec<u8>)>);

/// An object's attributes by their types.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attributes(BTreeMap<sys::CK_ATTRIBUTE_TYPE, Vec<u8>>);

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

    /// What an object of these attributes alone would have.
    pub(crate) fn to_attributes(&self) -> Attributes {
        self.0.iter().cloned().collect()
    }
}

impl Attributes {
    pub(crate) fn get(&self, kind: sys::CK_ATTRIBUTE_TYPE) -> Option<&[u8]> {
        self.0.get(&kind).map(Vec::as_slice)
    }

    /// The value; nothing if it is not there.
    pub(crate) fn value(&self, kind: sys::CK_ATTRIBUTE_TYPE) -> &[u8] {
        self.get(kind).unwrap_or_default()
    }

    /// Whether a `CK_BBOOL` is there and true.
    pub(crate) fn flag(&self, kind: sys::CK_ATTRIBUTE_TYPE) -> bool {
        self.value(kind).first() == Some(&1)
    }

    pub(crate) fn number(&self, kind: sys::CK_ATTRIBUTE_TYPE) -> Option<u64> {
        self.get(kind)?.try_into().ok().map(u64::from_ne_bytes)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (sys::CK_ATTRIBUTE_TYPE, &[u8])> {
        self.0.iter().map(|(&kind, value)| (kind, value.as_slice()))
    }

    pub(crate) fn set(&mut self, kind: sys::CK_ATTRIBUTE_TYPE, value: Vec<u8>) {
        self.0.insert(kind, value);
    }

    pub(crate) fn set_flag(&mut self, kind: sys::CK_ATTRIBUTE_TYPE, value: bool) {
        self.set(kind, vec![u8::from(value)]);
    }

    pub(crate) fn set_number(&mut self, kind: sys::CK_ATTRIBUTE_TYPE, value: u64) {
        self.set(kind, value.to_ne_bytes().to_vec());
    }

    /// Takes flags over from a template, or their defaults.
    pub(crate) fn set_flags(
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
}

impl FromIterator<(sys::CK_ATTRIBUTE_TYPE, Vec<u8>)> for Attributes {
    fn from_iter<I: IntoIterator<Item = (sys::CK_ATTRIBUTE_TYPE, Vec<u8>)>>(iter: I) -> Self {
        Self(iter.into_iter().collect())
    }
}

impl Extend<(sys::CK_ATTRIBUTE_TYPE, Vec<u8>)> for Attributes {
    fn extend<I: IntoIterator<Item = (sys::CK_ATTRIBUTE_TYPE, Vec<u8>)>>(&mut self, iter: I) {
        self.0.extend(iter);
    }
}
