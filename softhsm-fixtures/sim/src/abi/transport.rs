//! Keys made of other keys: wrapped, unwrapped, derived.

#![expect(non_snake_case, reason = "the standard's names")]

use cryptoki_sys as sys;

use super::objects::{Attributes, Handle, Ulong, add};
use super::raw::Room;
use super::{mechanism, raw, session_calls};
use crate::call::Call;
use crate::crypto::pkcs8;
use crate::crypto::wrap::Wrapping;
use crate::key::Key;
use crate::object::{Object, Origin, Template};

session_calls!(
    C_WrapKey(
        mechanism: *mut sys::CK_MECHANISM,
        wrapping: Handle,
        key: Handle,
        out: *mut sys::CK_BYTE,
        out_len: *mut Ulong,
    ) with wrapping = wrap;
    C_UnwrapKey(
        mechanism: *mut sys::CK_MECHANISM,
        unwrapping: Handle,
        wrapped: *mut sys::CK_BYTE,
        len: Ulong,
        template: Attributes,
        count: Ulong,
        key: *mut Handle,
    ) with unwrapping makes template count = unwrap;
    C_DeriveKey(
        mechanism: *mut sys::CK_MECHANISM,
        base: Handle,
        template: Attributes,
        count: Ulong,
        key: *mut Handle,
    ) with base makes template count = derive;
);

/// # Safety
/// As for the entry.
unsafe fn wrap(
    call: &Call,
    mechanism: *mut sys::CK_MECHANISM,
    wrapping: Handle,
    key: Handle,
    out: *mut sys::CK_BYTE,
    out_len: *mut Ulong,
) -> Result<(), sys::CK_RV> {
    let token = call.token()?;
    // SAFETY: as for the entry.
    let (number, how) = unsafe { plain(call, mechanism, sys::CKF_WRAP) }?;
    let wrapping = token.object(wrapping)?.ok_or(sys::CKR_WRAPPING_KEY_HANDLE_INVALID)?;
    let key = token.object(key)?.ok_or(sys::CKR_KEY_HANDLE_INVALID)?;
    if !wrapping.flag(sys::CKA_WRAP) {
        return Err(sys::CKR_KEY_FUNCTION_NOT_PERMITTED);
    }
    wrapping.check_allows(number)?;
    let value = wrappable(&key)?;
    let wrapping = wrapping.key().ok_or(sys::CKR_WRAPPING_KEY_HANDLE_INVALID)?;
    let wrapped = how.wrap(wrapping, &value)?;
    // SAFETY: as for the entry.
    match unsafe { raw::room(out, out_len, wrapped.len() as Ulong) }? {
        Room::Query => Ok(()),
        Room::TooSmall => Err(sys::CKR_BUFFER_TOO_SMALL),
        // SAFETY: as for the entry.
        Room::Enough => unsafe { raw::list(&wrapped, out, out_len) },
    }
}

/// # Safety
/// As for the entry.
#[expect(clippy::too_many_arguments, reason = "the standard's")]
unsafe fn unwrap(
    call: &Call,
    mechanism: *mut sys::CK_MECHANISM,
    unwrapping: Handle,
    wrapped: *mut sys::CK_BYTE,
    len: Ulong,
    template: Attributes,
    count: Ulong,
    key: *mut Handle,
) -> Result<(), sys::CK_RV> {
    // SAFETY: as for the entry.
    let (number, how) = unsafe { plain(call, mechanism, sys::CKF_UNWRAP) }?;
    // SAFETY: as for the entry.
    let template = unsafe { raw::template(template, count) }?;
    // SAFETY: as for the entry.
    let wrapped = unsafe { raw::bytes(wrapped, len) }?;
    let unwrapping = call.token()?.object(unwrapping)?.ok_or(sys::CKR_UNWRAPPING_KEY_HANDLE_INVALID)?;
    if !unwrapping.flag(sys::CKA_UNWRAP) {
        return Err(sys::CKR_KEY_FUNCTION_NOT_PERMITTED);
    }
    unwrapping.check_allows(number)?;
    // PKCS#11 2.40, C_UnwrapKey: the wrapped key says its length.
    if template.get(sys::CKA_VALUE_LEN).is_some() {
        return Err(sys::CKR_TEMPLATE_INCONSISTENT);
    }
    let unwrapping = unwrapping.key().ok_or(sys::CKR_UNWRAPPING_KEY_HANDLE_INVALID)?;
    let object = unwrapped(&how.unwrap(unwrapping, wrapped)?, &template)?;
    // SAFETY: as for the entry.
    unsafe { add(call, object, key) }
}

/// # Safety
/// As for the entry.
unsafe fn derive(
    call: &Call,
    how: *mut sys::CK_MECHANISM,
    base: Handle,
    template: Attributes,
    count: Ulong,
    key: *mut Handle,
) -> Result<(), sys::CK_RV> {
    // SAFETY: as for the entry.
    let how = unsafe { raw::get(how) }?;
    call.token()?.check_offered(how.mechanism, sys::CKF_DERIVE)?;
    // SAFETY: as for the entry.
    let agreement = unsafe { mechanism::agreement(&how) }?;
    // SAFETY: as for the entry.
    let template = unsafe { raw::template(template, count) }?;
    let base = call.token()?.object(base)?.ok_or(sys::CKR_KEY_HANDLE_INVALID)?;
    if !base.flag(sys::CKA_DERIVE) {
        return Err(sys::CKR_KEY_FUNCTION_NOT_PERMITTED);
    }
    base.check_allows(how.mechanism)?;
    let (class, key_type) = described(&template)?;
    if class != sys::CKO_SECRET_KEY {
        return Err(sys::CKR_TEMPLATE_INCONSISTENT);
    }
    let (len, base_key) = (value_len(&template, key_type)?, base.key().ok_or(sys::CKR_KEY_HANDLE_INVALID)?);
    let mut value = agreement.agree(base_key, len)?;
    if key_type == sys::CKK_DES3 {
        crate::material::set_parity(&mut value);
    }
    let made = Key::secret(key_type, &value).map_err(|_| sys::CKR_KEY_SIZE_RANGE)?;
    let origin = Origin::Derived {
        always_sensitive: base.flag(sys::CKA_ALWAYS_SENSITIVE),
        never_extractable: base.flag(sys::CKA_NEVER_EXTRACTABLE),
    };
    // SAFETY: as for the entry.
    unsafe { add(call, Object::secret(made, &template, origin)?, key) }
}

/// Length of the value of a key that is derived.
fn value_len(template: &Template, key_type: sys::CK_KEY_TYPE) -> Result<usize, sys::CK_RV> {
    let len = match key_type {
        sys::CKK_DES3 => 24,
        _ => template.number(sys::CKA_VALUE_LEN)?.ok_or(sys::CKR_TEMPLATE_INCOMPLETE)?,
    };
    usize::try_from(len).ok().filter(|&len| len <= 512).ok_or(sys::CKR_KEY_SIZE_RANGE)
}

/// What of a key is wrapped: the value of a secret one, the encoding of a private one.
fn wrappable(object: &Object) -> Result<Vec<u8>, sys::CK_RV> {
    let key = object.key().ok_or(sys::CKR_KEY_HANDLE_INVALID)?;
    if object.attributes().number(sys::CKA_CLASS) == Some(sys::CKO_PUBLIC_KEY) {
        return Err(sys::CKR_KEY_NOT_WRAPPABLE);
    }
    if !object.flag(sys::CKA_EXTRACTABLE) {
        return Err(sys::CKR_KEY_UNEXTRACTABLE);
    }
    match key {
        Key::Aes(value) | Key::Mac(value) | Key::TripleDes(value) => Ok(value.to_vec()),
        key => pkcs8::encode(key).ok_or(sys::CKR_KEY_NOT_WRAPPABLE),
    }
}

/// The key that a template describes, of what was wrapped.
fn unwrapped(value: &[u8], template: &Template) -> Result<Object, sys::CK_RV> {
    match described(template)? {
        (sys::CKO_SECRET_KEY, key_type) => {
            let key = Key::secret(key_type, value).map_err(|_| sys::CKR_WRAPPED_KEY_LEN_RANGE)?;
            Object::secret(key, template, Origin::Unwrapped)
        }
        (sys::CKO_PRIVATE_KEY, key_type) => {
            Object::private(pkcs8::decode(key_type, value)?, template, Origin::Unwrapped)
        }
        _ => Err(sys::CKR_TEMPLATE_INCONSISTENT),
    }
}

/// A wrapping mechanism, which takes no parameter here, by its number and what it does.
///
/// # Safety
/// `mechanism` is null or good for reading.
unsafe fn plain(
    call: &Call,
    mechanism: *mut sys::CK_MECHANISM,
    purpose: sys::CK_FLAGS,
) -> Result<(sys::CK_MECHANISM_TYPE, Wrapping), sys::CK_RV> {
    // SAFETY: as the caller says.
    let mechanism = unsafe { raw::get(mechanism) }?;
    call.token()?.check_offered(mechanism.mechanism, purpose)?;
    if mechanism.ulParameterLen != 0 {
        return Err(sys::CKR_MECHANISM_PARAM_INVALID);
    }
    Ok((mechanism.mechanism, Wrapping::by_number(mechanism.mechanism)?))
}

/// Class and type of the key that a template describes.
fn described(template: &Template) -> Result<(sys::CK_OBJECT_CLASS, sys::CK_KEY_TYPE), sys::CK_RV> {
    let class = template.number(sys::CKA_CLASS)?.ok_or(sys::CKR_TEMPLATE_INCONSISTENT)?;
    Ok((class, template.number(sys::CKA_KEY_TYPE)?.ok_or(sys::CKR_TEMPLATE_INCOMPLETE)?))
}
