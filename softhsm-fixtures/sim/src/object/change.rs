//! What of an object can be changed: itself, or in a copy.

use cryptoki_sys as sys;

use super::{Content, Object, Template};

/// What a copy may change beside what may be changed of the object itself.
const OF_COPIES: [sys::CK_ATTRIBUTE_TYPE; 2] = [sys::CKA_TOKEN, sys::CKA_PRIVATE];

impl Object {
    /// The object with changes (PKCS#11 2.40, `C_SetAttributeValue`).
    pub(crate) fn changed(&self, changes: &Template) -> Result<Self, sys::CK_RV> {
        // "Certain objects may not be modified. Calling C_SetAttributeValue on such objects will result in the
        // CKR_ACTION_PROHIBITED error code."
        if !self.flag(sys::CKA_MODIFIABLE) {
            return Err(sys::CKR_ACTION_PROHIBITED);
        }
        let mut changed = self.clone();
        changes.0.iter().try_for_each(|(kind, value)| changed.change(*kind, value))?;
        Ok(changed)
    }

    /// A copy with changes (PKCS#11 2.40, `C_CopyObject`).
    pub(crate) fn copy(&self, changes: &Template) -> Result<Self, sys::CK_RV> {
        if !self.flag(sys::CKA_COPYABLE) {
            return Err(sys::CKR_ACTION_PROHIBITED);
        }
        let mut copy = self.clone();
        for (kind, value) in &changes.0 {
            if OF_COPIES.contains(kind) {
                copy.attributes.set_flags(changes, &[(*kind, false)])?;
            } else {
                copy.change(*kind, value)?;
            }
        }
        Ok(copy)
    }

    /// Changes one attribute. A key may become harder to read, never easier.
    fn change(&mut self, kind: sys::CK_ATTRIBUTE_TYPE, value: &[u8]) -> Result<(), sys::CK_RV> {
        match (&self.content, kind) {
            (_, sys::CKA_LABEL)
            | (Content::Key(_), sys::CKA_ID)
            | (Content::Data, sys::CKA_APPLICATION | sys::CKA_OBJECT_ID | sys::CKA_VALUE) => {}
            (Content::Key(_), sys::CKA_START_DATE | sys::CKA_END_DATE) => check_date(value)?,
            (_, sys::CKA_SENSITIVE | sys::CKA_EXTRACTABLE) if self.attributes.get(kind).is_some() => {
                let [byte] = value else { return Err(sys::CKR_ATTRIBUTE_VALUE_INVALID) };
                let (was, is) = (self.flag(kind), *byte != 0);
                let looser = if kind == sys::CKA_SENSITIVE { was && !is } else { !was && is };
                if looser {
                    return Err(sys::CKR_TEMPLATE_INCONSISTENT);
                }
                self.attributes.set_flag(kind, is);
                return Ok(());
            }
            _ => return Err(sys::CKR_ATTRIBUTE_READ_ONLY),
        }
        self.attributes.set(kind, value.to_vec());
        Ok(())
    }
}

/// A `CK_DATE` (PKCS#11 2.40, 3.4): year, month and day in digits; or nothing.
pub(super) fn check_date(date: &[u8]) -> Result<(), sys::CK_RV> {
    let right = date.is_empty() || (date.len() == 8 && date.iter().all(u8::is_ascii_digit));
    if right { Ok(()) } else { Err(sys::CKR_ATTRIBUTE_VALUE_INVALID) }
}

/// Mechanisms in a row.
pub(super) const fn check_mechanisms(list: &[u8]) -> Result<(), sys::CK_RV> {
    let whole = list.len().is_multiple_of(size_of::<sys::CK_MECHANISM_TYPE>());
    if whole { Ok(()) } else { Err(sys::CKR_ATTRIBUTE_VALUE_INVALID) }
}
