//! Interfaces (PKCS#11 3.0, 5.4.5 and 5.4.6): the function list of 2.40, and that of 3.0 unless the configuration
//! takes it away.

#![expect(non_snake_case, reason = "the standard's names")]

use std::ffi::{CStr, c_void};
use std::ptr;

use cryptoki_sys as sys;

use super::{LIST, message, raw};
use crate::call::guarded;
use crate::function::Function;
use crate::{device, sessions};

/// Interfaces point to statics that nobody writes to, although their type in C would let callers.
struct Interfaces([sys::CK_INTERFACE; 2]);

// SAFETY: what the pointers lead to is never written.
unsafe impl Sync for Interfaces {}

/// The one to use first.
static INTERFACES: Interfaces = Interfaces([
    interface((&raw const LIST_3).cast::<c_void>()),
    interface((&raw const LIST).cast::<c_void>()),
]);

pub(super) const VERSION_3: sys::CK_VERSION = sys::CK_VERSION { major: 3, minor: 0 };

const NAME: &CStr = c"PKCS 11";

const fn interface(list: *const c_void) -> sys::CK_INTERFACE {
    let name = NAME.as_ptr().cast_mut().cast();
    sys::CK_INTERFACE { pInterfaceName: name, pFunctionList: list.cast_mut(), flags: 0 }
}

/// # Safety
/// `count` is null or good for reading and writing, `list` null or good for writing as many interfaces as it says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetInterfaceList(
    list: *mut sys::CK_INTERFACE,
    count: *mut sys::CK_ULONG,
) -> sys::CK_RV {
    guarded(|| {
        sessions::count_loose(Function::C_GetInterfaceList);
        // SAFETY: as the caller says.
        unsafe { raw::list(offered(), list, count) }
    })
}

/// # Safety
/// `name` is null or ends in a zero byte, `version` is null or good for reading, `interface` null or good for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetInterface(
    name: *mut sys::CK_UTF8CHAR,
    version: *mut sys::CK_VERSION,
    interface: *mut *mut sys::CK_INTERFACE,
    flags: sys::CK_FLAGS,
) -> sys::CK_RV {
    guarded(|| {
        sessions::count_loose(Function::C_GetInterface);
        // SAFETY: not null, and a text that ends, says the caller.
        let named = name.is_null() || unsafe { CStr::from_ptr(name.cast()) } == NAME;
        let wanted = match version.is_null() {
            true => None,
            // SAFETY: not null, and good for reading, says the caller.
            false => Some(unsafe { raw::get(version) }?),
        };
        // An interface matches if it has all of the flags; what nothing matches fails.
        let mut fitting = offered().iter().filter(|own| named && flags & !own.flags == 0);
        let found = fitting.find(|own| wanted.is_none_or(|wanted| is_of(own, wanted)));
        let found = ptr::from_ref(found.ok_or(sys::CKR_FUNCTION_FAILED)?);
        // SAFETY: as the caller says.
        unsafe { raw::put(interface, found.cast_mut()) }
    })
}

/// Asked before anyone has initialised the module, too: what is configured then counts.
fn offered() -> &'static [sys::CK_INTERFACE] {
    let from = usize::from(!device::offers_interface_3());
    INTERFACES.0.get(from..).unwrap_or_default()
}

fn is_of(own: &sys::CK_INTERFACE, wanted: sys::CK_VERSION) -> bool {
    let version = match ptr::eq(own.pFunctionList, (&raw const LIST_3).cast()) {
        true => LIST_3.version,
        false => LIST.version,
    };
    (version.major, version.minor) == (wanted.major, wanted.minor)
}

/// What the simulator does not have.
macro_rules! missing {
    ($($name:ident($($kind:ty),* $(,)?);)*) => { $(
        unsafe extern "C" fn $name(_: sys::CK_SESSION_HANDLE, $(_: $kind),*) -> sys::CK_RV {
            sys::CKR_FUNCTION_NOT_SUPPORTED
        }
    )* };
}

type Bytes = *mut sys::CK_BYTE;
type Ulong = sys::CK_ULONG;
type Handle = sys::CK_OBJECT_HANDLE;
type Mechanism = *mut sys::CK_MECHANISM;

missing!(
    C_LoginUser(sys::CK_USER_TYPE, Bytes, Ulong, Bytes, Ulong);
    C_SessionCancel(sys::CK_FLAGS);
    C_CryptMessageBegin(*mut c_void, Ulong, Bytes, Ulong);
    C_CryptMessageNext(*mut c_void, Ulong, Bytes, Ulong, Bytes, *mut Ulong, sys::CK_FLAGS);
    C_MessageInit(Mechanism, Handle);
    C_SignMessage(*mut c_void, Ulong, Bytes, Ulong, Bytes, *mut Ulong);
    C_MessageBegin(*mut c_void, Ulong);
    C_VerifyMessage(*mut c_void, Ulong, Bytes, Ulong, Bytes, Ulong);
    C_MessageFinal();
);

/// The list of 2.40 and what 3.0 adds to it.
static LIST_3: sys::CK_FUNCTION_LIST_3_0 = sys::CK_FUNCTION_LIST_3_0 {
    version: VERSION_3,
    C_Initialize: LIST.C_Initialize,
    C_Finalize: LIST.C_Finalize,
    C_GetInfo: LIST.C_GetInfo,
    C_GetFunctionList: LIST.C_GetFunctionList,
    C_GetSlotList: LIST.C_GetSlotList,
    C_GetSlotInfo: LIST.C_GetSlotInfo,
    C_GetTokenInfo: LIST.C_GetTokenInfo,
    C_GetMechanismList: LIST.C_GetMechanismList,
    C_GetMechanismInfo: LIST.C_GetMechanismInfo,
    C_InitToken: LIST.C_InitToken,
    C_InitPIN: LIST.C_InitPIN,
    C_SetPIN: LIST.C_SetPIN,
    C_OpenSession: LIST.C_OpenSession,
    C_CloseSession: LIST.C_CloseSession,
    C_CloseAllSessions: LIST.C_CloseAllSessions,
    C_GetSessionInfo: LIST.C_GetSessionInfo,
    C_GetOperationState: LIST.C_GetOperationState,
    C_SetOperationState: LIST.C_SetOperationState,
    C_Login: LIST.C_Login,
    C_Logout: LIST.C_Logout,
    C_CreateObject: LIST.C_CreateObject,
    C_CopyObject: LIST.C_CopyObject,
    C_DestroyObject: LIST.C_DestroyObject,
    C_GetObjectSize: LIST.C_GetObjectSize,
    C_GetAttributeValue: LIST.C_GetAttributeValue,
    C_SetAttributeValue: LIST.C_SetAttributeValue,
    C_FindObjectsInit: LIST.C_FindObjectsInit,
    C_FindObjects: LIST.C_FindObjects,
    C_FindObjectsFinal: LIST.C_FindObjectsFinal,
    C_EncryptInit: LIST.C_EncryptInit,
    C_Encrypt: LIST.C_Encrypt,
    C_EncryptUpdate: LIST.C_EncryptUpdate,
    C_EncryptFinal: LIST.C_EncryptFinal,
    C_DecryptInit: LIST.C_DecryptInit,
    C_Decrypt: LIST.C_Decrypt,
    C_DecryptUpdate: LIST.C_DecryptUpdate,
    C_DecryptFinal: LIST.C_DecryptFinal,
    C_DigestInit: LIST.C_DigestInit,
    C_Digest: LIST.C_Digest,
    C_DigestUpdate: LIST.C_DigestUpdate,
    C_DigestKey: LIST.C_DigestKey,
    C_DigestFinal: LIST.C_DigestFinal,
    C_SignInit: LIST.C_SignInit,
    C_Sign: LIST.C_Sign,
    C_SignUpdate: LIST.C_SignUpdate,
    C_SignFinal: LIST.C_SignFinal,
    C_SignRecoverInit: LIST.C_SignRecoverInit,
    C_SignRecover: LIST.C_SignRecover,
    C_VerifyInit: LIST.C_VerifyInit,
    C_Verify: LIST.C_Verify,
    C_VerifyUpdate: LIST.C_VerifyUpdate,
    C_VerifyFinal: LIST.C_VerifyFinal,
    C_VerifyRecoverInit: LIST.C_VerifyRecoverInit,
    C_VerifyRecover: LIST.C_VerifyRecover,
    C_DigestEncryptUpdate: LIST.C_DigestEncryptUpdate,
    C_DecryptDigestUpdate: LIST.C_DecryptDigestUpdate,
    C_SignEncryptUpdate: LIST.C_SignEncryptUpdate,
    C_DecryptVerifyUpdate: LIST.C_DecryptVerifyUpdate,
    C_GenerateKey: LIST.C_GenerateKey,
    C_GenerateKeyPair: LIST.C_GenerateKeyPair,
    C_WrapKey: LIST.C_WrapKey,
    C_UnwrapKey: LIST.C_UnwrapKey,
    C_DeriveKey: LIST.C_DeriveKey,
    C_SeedRandom: LIST.C_SeedRandom,
    C_GenerateRandom: LIST.C_GenerateRandom,
    C_GetFunctionStatus: LIST.C_GetFunctionStatus,
    C_CancelFunction: LIST.C_CancelFunction,
    C_WaitForSlotEvent: LIST.C_WaitForSlotEvent,
    C_GetInterfaceList: Some(C_GetInterfaceList),
    C_GetInterface: Some(C_GetInterface),
    C_LoginUser: Some(C_LoginUser),
    C_SessionCancel: Some(C_SessionCancel),
    C_MessageEncryptInit: Some(message::C_MessageEncryptInit),
    C_EncryptMessage: Some(message::C_EncryptMessage),
    C_EncryptMessageBegin: Some(C_CryptMessageBegin),
    C_EncryptMessageNext: Some(C_CryptMessageNext),
    C_MessageEncryptFinal: Some(message::C_MessageEncryptFinal),
    C_MessageDecryptInit: Some(message::C_MessageDecryptInit),
    C_DecryptMessage: Some(message::C_DecryptMessage),
    C_DecryptMessageBegin: Some(C_CryptMessageBegin),
    C_DecryptMessageNext: Some(C_CryptMessageNext),
    C_MessageDecryptFinal: Some(message::C_MessageDecryptFinal),
    C_MessageSignInit: Some(C_MessageInit),
    C_SignMessage: Some(C_SignMessage),
    C_SignMessageBegin: Some(C_MessageBegin),
    C_SignMessageNext: Some(C_SignMessage),
    C_MessageSignFinal: Some(C_MessageFinal),
    C_MessageVerifyInit: Some(C_MessageInit),
    C_VerifyMessage: Some(C_VerifyMessage),
    C_VerifyMessageBegin: Some(C_MessageBegin),
    C_VerifyMessageNext: Some(C_VerifyMessage),
    C_MessageVerifyFinal: Some(C_MessageFinal),
};
