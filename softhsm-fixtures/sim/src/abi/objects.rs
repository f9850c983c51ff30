//! Objects: brought in, copied, found, read, changed, destroyed.

#![expect(non_snake_case, reason = "the standard's names")]

use cryptoki_sys as sys;

use super::{raw, session_calls};
use crate::call::Call;
use crate::executions::{self, EXECUTIONS};
use crate::function::Function;
use crate::key::{Key, PublicKey};
use crate::object::{Object, Origin, Template};

pub(super) type Attributes = *mut sys::CK_ATTRIBUTE;
pub(super) type Ulong = sys::CK_ULONG;
pub(super) type Handle = sys::CK_OBJECT_HANDLE;

session_calls!(
    C_CreateObject(template: Attributes, count: Ulong, object: *mut Handle) makes template count = create;
    C_CopyObject(from: Handle, template: Attributes, count: Ulong, object: *mut Handle) with from makes template count = copy;
    C_DestroyObject(object: Handle) with object = destroy;
    C_GetAttributeValue(object: Handle, template: Attributes, count: Ulong) with object = read;
    C_SetAttributeValue(object: Handle, template: Attributes, count: Ulong) with object = change;
    C_FindObjectsInit(template: Attributes, count: Ulong) = find_init;
    C_FindObjects(objects: *mut Handle, max: Ulong, count: *mut Ulong) = find;
    C_FindObjectsFinal() = find_final;
);

/// # Safety
/// As for the entry.
unsafe fn create(
    call: &Call,
    template: Attributes,
    count: Ulong,
    object: *mut Handle,
) -> Result<(), sys::CK_RV> {
    // SAFETY: as for the entry.
    let template = unsafe { raw::template(template, count) }?;
    let created = created(&template, call.device.config.data)?;
    // SAFETY: as for the entry.
    unsafe { add(call, created, object) }
}

/// Data if the token has such, a secret key or a public one. A token that has no data objects answers as `tpm2-pkcs11`
/// does where it is asked for a class that it cannot create.
fn created(template: &Template, has_data: bool) -> Result<Object, sys::CK_RV> {
    let key_type = || template.number(sys::CKA_KEY_TYPE)?.ok_or(sys::CKR_TEMPLATE_INCOMPLETE);
    match template.number(sys::CKA_CLASS)?.ok_or(sys::CKR_TEMPLATE_INCOMPLETE)? {
        sys::CKO_DATA if has_data => Object::data(template),
        sys::CKO_SECRET_KEY => {
            let value = template.get(sys::CKA_VALUE).ok_or(sys::CKR_TEMPLATE_INCOMPLETE)?;
            Object::secret(Key::secret(key_type()?, value)?, template, Origin::Created)
        }
        sys::CKO_PUBLIC_KEY => {
            let key = PublicKey::from_attributes(key_type()?, &template.to_attributes())?;
            Object::public(key, template, false)
        }
        _ => Err(sys::CKR_ATTRIBUTE_VALUE_INVALID),
    }
}

/// # Safety
/// As for the entry.
unsafe fn copy(
    call: &Call,
    from: Handle,
    template: Attributes,
    count: Ulong,
    object: *mut Handle,
) -> Result<(), sys::CK_RV> {
    // SAFETY: as for the entry.
    let changes = unsafe { raw::template(template, count) }?;
    let original = call.token()?.object(from)?.ok_or(sys::CKR_OBJECT_HANDLE_INVALID)?;
    // SAFETY: as for the entry.
    unsafe { add(call, original.copy(&changes)?, object) }
}

/// # Safety
/// None is needed; the entries are of one kind.
unsafe fn destroy(call: &Call, object: Handle) -> Result<(), sys::CK_RV> {
    let token = call.token()?;
    let found = token.object(object)?.ok_or(sys::CKR_OBJECT_HANDLE_INVALID)?;
    check_writable(call, found.flag(sys::CKA_TOKEN))?;
    token.remove(object)
}

/// # Safety
/// As for the entry.
unsafe fn change(call: &Call, object: Handle, template: Attributes, count: Ulong) -> Result<(), sys::CK_RV> {
    // SAFETY: as for the entry.
    let changes = unsafe { raw::template(template, count) }?;
    let token = call.token()?;
    let found = token.object(object)?.ok_or(sys::CKR_OBJECT_HANDLE_INVALID)?;
    check_writable(call, found.flag(sys::CKA_TOKEN))?;
    token.change(object, &changes)
}

/// PKCS#11 2.40, `C_GetAttributeValue`: each attribute is answered by itself, and the code is that of any that
/// could not be.
///
/// # Safety
/// As for the entry.
unsafe fn read(call: &Call, object: Handle, template: Attributes, count: Ulong) -> Result<(), sys::CK_RV> {
    let object = call.token()?.object(object)?.ok_or(sys::CKR_OBJECT_HANDLE_INVALID)?;
    if template.is_null() {
        return Err(sys::CKR_ARGUMENTS_BAD);
    }
    let mut result = Ok(());
    for i in 0..raw::to_usize(count) {
        // SAFETY: within the `count` attributes that the caller vouches for.
        let at = unsafe { template.add(i) };
        // SAFETY: as for the entry.
        let mut attribute = unsafe { raw::get(at) }?;
        // SAFETY: as for the entry.
        match unsafe { read_one(&object, &attribute) } {
            Ok(len) => attribute.ulValueLen = len,
            Err(code) => {
                attribute.ulValueLen = sys::CK_UNAVAILABLE_INFORMATION;
                result = Err(code);
            }
        }
        // SAFETY: as for the entry.
        unsafe { raw::put(at, attribute) }?;
    }
    result
}

/// # Safety
/// As for the entry.
unsafe fn find_init(call: &Call, template: Attributes, count: Ulong) -> Result<(), sys::CK_RV> {
    // SAFETY: as for the entry.
    let template = unsafe { raw::template(template, count) }?;
    let mut work = call.slot.work.lock();
    let work = work.as_mut().ok_or(sys::CKR_SESSION_HANDLE_INVALID)?;
    if work.search.is_some() {
        return Err(sys::CKR_OPERATION_ACTIVE);
    }
    work.search = Some(call.token()?.find(&template)?.into_iter());
    Ok(())
}

/// # Safety
/// As for the entry.
unsafe fn find(call: &Call, objects: *mut Handle, max: Ulong, count: *mut Ulong) -> Result<(), sys::CK_RV> {
    let mut work = call.slot.work.lock();
    let search = work.as_mut().and_then(|work| work.search.as_mut());
    let search = search.ok_or(sys::CKR_OPERATION_NOT_INITIALIZED)?;
    if objects.is_null() {
        return Err(sys::CKR_ARGUMENTS_BAD);
    }
    let page: Vec<Handle> = search.take(raw::to_usize(max)).collect();
    // SAFETY: the caller vouches for `max` handles, and the page has no more.
    unsafe { raw::copy(&page, objects) };
    // SAFETY: as for the entry.
    unsafe { raw::put(count, page.len() as Ulong) }
}

/// # Safety
/// None is needed; the entries are of one kind.
unsafe fn find_final(call: &Call) -> Result<(), sys::CK_RV> {
    let mut work = call.slot.work.lock();
    let search = work.as_mut().and_then(|work| work.search.take());
    search.map(|_| ()).ok_or(sys::CKR_OPERATION_NOT_INITIALIZED)
}

/// Puts an object on the token or into the session, and its handle where the caller wants it.
///
/// # Safety
/// `handle` is null or good for writing.
pub(super) unsafe fn add(call: &Call, object: Object, handle: *mut Handle) -> Result<(), sys::CK_RV> {
    if handle.is_null() {
        return Err(sys::CKR_ARGUMENTS_BAD);
    }
    let on_token = object.flag(sys::CKA_TOKEN);
    check_writable(call, on_token)?;
    let added = call.token()?.add(object, (!on_token).then_some(call.generation))?;
    // SAFETY: as the caller says.
    unsafe { raw::put(handle, added) }
}

/// Counts an object that was made, by its label, or by its id if it has none.
///
/// # Safety
/// As for [`raw::template`].
pub(super) unsafe fn made(
    function: Function,
    result: Result<(), sys::CK_RV>,
    template: Attributes,
    count: Ulong,
) {
    if !EXECUTIONS.counting() || result.is_err() {
        return;
    }
    // SAFETY: as the caller says.
    if let Ok(template) = unsafe { raw::template(template, count) } {
        let named = [sys::CKA_LABEL, sys::CKA_ID].into_iter().filter_map(|kind| template.get(kind));
        let name = named.into_iter().find(|name| !name.is_empty()).unwrap_or_default();
        EXECUTIONS.note(function, None, executions::hash(name));
    }
}

/// A read-only session makes and destroys session objects only (PKCS#11 2.40, 6.7.1).
fn check_writable(call: &Call, on_token: bool) -> Result<(), sys::CK_RV> {
    let read_only = call.slot.flags() & sys::CKF_RW_SESSION == 0;
    if on_token && read_only { Err(sys::CKR_SESSION_READ_ONLY) } else { Ok(()) }
}

/// Copies one value out, or only tells its length.
///
/// # Safety
/// The attribute's value is null or good for writing as many bytes as it says.
unsafe fn read_one(object: &Object, attribute: &sys::CK_ATTRIBUTE) -> Result<Ulong, sys::CK_RV> {
    let value = object.read(attribute.type_)?;
    let len = value.len() as Ulong;
    if attribute.pValue.is_null() {
        return Ok(len);
    }
    if attribute.ulValueLen < len {
        return Err(sys::CKR_BUFFER_TOO_SMALL);
    }
    // SAFETY: as the caller says, and the value fits.
    unsafe { raw::copy(value, attribute.pValue.cast()) };
    Ok(len)
}
