//! The C interface: the function list and what stands behind each entry.
//!
//! Every function here takes what PKCS#11 2.40, or 3.0, says it takes, and relies on the caller for what the standard asks
//! of it: pointers are null where that is allowed, or good for the length that comes with them, until the call
//! returns. Where a function is forwarded, the module behind relies on the same.

#![expect(unsafe_code, reason = "the C interface")]

mod control;
mod general;
mod generate;
mod interface;
mod mechanism;
mod message;
mod null;
mod objects;
mod operate;
mod output;
mod raw;
mod rest;
mod session;
mod transport;
mod update;

use cryptoki_sys as sys;

pub use interface::{C_GetInterface, C_GetInterfaceList};

pub use control::{
    p11_sim_active_at_init, p11_sim_answers_of, p11_sim_calls_of, p11_sim_calls_on, p11_sim_change,
    p11_sim_concurrent_use, p11_sim_configure, p11_sim_executed_more_than, p11_sim_executions,
    p11_sim_executions_forgotten, p11_sim_finalised_inside, p11_sim_hanging, p11_sim_late,
    p11_sim_late_writes, p11_sim_latest_ns, p11_sim_now_ns, p11_sim_release_hangs, p11_sim_reset_counters,
    p11_sim_stale_objects, p11_sim_stale_sessions, p11_sim_wait_hanging,
};

/// The function list, for programs that link the simulator instead of loading it.
#[must_use]
pub fn function_list() -> *const sys::CK_FUNCTION_LIST {
    &raw const LIST
}

/// Touches memory that is nobody's.
pub(crate) fn segfault() {
    // SAFETY: there is none: this is the fault that was asked for, and the process ends here.
    unsafe { std::ptr::without_provenance_mut::<u8>(8).write_volatile(0) };
}

/// The one symbol that a PKCS#11 program needs.
///
/// # Safety
/// `list` is null or may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetFunctionList(list: *mut *mut sys::CK_FUNCTION_LIST) -> sys::CK_RV {
    // Callers must not write to the list, although its type in C lets them.
    // SAFETY: `list` is null or may be written to, says the caller.
    crate::call::guarded(|| unsafe { raw::put(list, function_list().cast_mut()) })
}

/// Entries of functions that take a session first. `with` names the argument that is a key or another object, `makes`
/// those that are the template of a new one.
macro_rules! session_calls {
    ($($name:ident($($arg:ident: $kind:ty),* $(,)?)
        $(with $key:ident)? $(makes $template:ident $count:ident)? = $local:expr;)*) => { $(
        pub(super) unsafe extern "C" fn $name(session: sys::CK_SESSION_HANDLE, $($arg: $kind),*) -> sys::CK_RV {
            let key = [$($key)?].first().copied();
            crate::call::with_key(crate::function::Function::$name, session, key, true, |call| {
                let result = match &call.device.forward {
                    Some(forward) => {
                        let function = forward.list.$name.ok_or(sys::CKR_FUNCTION_NOT_SUPPORTED)?;
                        // SAFETY: the caller has kept the standard's rules for this function.
                        crate::call::result(unsafe { function(call.slot.forwarded(), $($arg),*) })
                    }
                    // SAFETY: as above.
                    None => unsafe { $local(call, $($arg),*) },
                };
                // SAFETY: as above.
                $(unsafe { super::objects::made(crate::function::Function::$name, result, $template, $count) };)?
                result
            })
        }
    )* };
}

/// Entries of functions that take a slot first.
macro_rules! slot_calls {
    ($($name:ident($($arg:ident: $kind:ty),* $(,)?) = $local:expr;)*) => { $(
        pub(super) unsafe extern "C" fn $name(slot: sys::CK_SLOT_ID, $($arg: $kind),*) -> sys::CK_RV {
            crate::call::on_slot(crate::function::Function::$name, slot, |device, token| {
                match &device.forward {
                    Some(forward) => {
                        let function = forward.list.$name.ok_or(sys::CKR_FUNCTION_NOT_SUPPORTED)?;
                        // SAFETY: the caller has kept the standard's rules for this function.
                        crate::call::result(unsafe { function(slot, $($arg),*) })
                    }
                    // SAFETY: as above.
                    None => unsafe { $local(device, token, $($arg),*) },
                }
            })
        }
    )* };
}

use {session_calls, slot_calls};

/// PKCS#11 2.40, the version of every structure here.
const VERSION: sys::CK_VERSION = sys::CK_VERSION { major: 2, minor: 40 };

static LIST: sys::CK_FUNCTION_LIST = sys::CK_FUNCTION_LIST {
    version: VERSION,
    C_Initialize: Some(general::C_Initialize),
    C_Finalize: Some(general::C_Finalize),
    C_GetInfo: Some(general::C_GetInfo),
    C_GetFunctionList: Some(C_GetFunctionList),
    C_GetSlotList: Some(general::C_GetSlotList),
    C_GetSlotInfo: Some(general::C_GetSlotInfo),
    C_GetTokenInfo: Some(general::C_GetTokenInfo),
    C_GetMechanismList: Some(general::C_GetMechanismList),
    C_GetMechanismInfo: Some(general::C_GetMechanismInfo),
    C_InitToken: Some(rest::C_InitToken),
    C_InitPIN: Some(rest::C_InitPIN),
    C_SetPIN: Some(session::C_SetPIN),
    C_OpenSession: Some(session::C_OpenSession),
    C_CloseSession: Some(session::C_CloseSession),
    C_CloseAllSessions: Some(session::C_CloseAllSessions),
    C_GetSessionInfo: Some(session::C_GetSessionInfo),
    C_GetOperationState: Some(rest::C_GetOperationState),
    C_SetOperationState: Some(rest::C_SetOperationState),
    C_Login: Some(session::C_Login),
    C_Logout: Some(session::C_Logout),
    C_CreateObject: Some(objects::C_CreateObject),
    C_CopyObject: Some(objects::C_CopyObject),
    C_DestroyObject: Some(objects::C_DestroyObject),
    C_GetObjectSize: Some(rest::C_GetObjectSize),
    C_GetAttributeValue: Some(objects::C_GetAttributeValue),
    C_SetAttributeValue: Some(objects::C_SetAttributeValue),
    C_FindObjectsInit: Some(objects::C_FindObjectsInit),
    C_FindObjects: Some(objects::C_FindObjects),
    C_FindObjectsFinal: Some(objects::C_FindObjectsFinal),
    C_EncryptInit: Some(operate::C_EncryptInit),
    C_Encrypt: Some(operate::C_Encrypt),
    C_EncryptUpdate: Some(update::C_EncryptUpdate),
    C_EncryptFinal: Some(update::C_EncryptFinal),
    C_DecryptInit: Some(operate::C_DecryptInit),
    C_Decrypt: Some(operate::C_Decrypt),
    C_DecryptUpdate: Some(update::C_DecryptUpdate),
    C_DecryptFinal: Some(update::C_DecryptFinal),
    C_DigestInit: Some(rest::C_DigestInit),
    C_Digest: Some(rest::C_Digest),
    C_DigestUpdate: Some(rest::C_DigestUpdate),
    C_DigestKey: Some(rest::C_DigestKey),
    C_DigestFinal: Some(rest::C_DigestFinal),
    C_SignInit: Some(operate::C_SignInit),
    C_Sign: Some(operate::C_Sign),
    C_SignUpdate: Some(rest::C_SignUpdate),
    C_SignFinal: Some(rest::C_SignFinal),
    C_SignRecoverInit: Some(rest::C_SignRecoverInit),
    C_SignRecover: Some(rest::C_SignRecover),
    C_VerifyInit: Some(operate::C_VerifyInit),
    C_Verify: Some(operate::C_Verify),
    C_VerifyUpdate: Some(rest::C_VerifyUpdate),
    C_VerifyFinal: Some(rest::C_VerifyFinal),
    C_VerifyRecoverInit: Some(rest::C_VerifyRecoverInit),
    C_VerifyRecover: Some(rest::C_VerifyRecover),
    C_DigestEncryptUpdate: Some(rest::C_DigestEncryptUpdate),
    C_DecryptDigestUpdate: Some(rest::C_DecryptDigestUpdate),
    C_SignEncryptUpdate: Some(rest::C_SignEncryptUpdate),
    C_DecryptVerifyUpdate: Some(rest::C_DecryptVerifyUpdate),
    C_GenerateKey: Some(generate::C_GenerateKey),
    C_GenerateKeyPair: Some(generate::C_GenerateKeyPair),
    C_WrapKey: Some(transport::C_WrapKey),
    C_UnwrapKey: Some(transport::C_UnwrapKey),
    C_DeriveKey: Some(transport::C_DeriveKey),
    C_SeedRandom: Some(rest::C_SeedRandom),
    C_GenerateRandom: Some(operate::C_GenerateRandom),
    C_GetFunctionStatus: Some(rest::C_GetFunctionStatus),
    C_CancelFunction: Some(rest::C_CancelFunction),
    C_WaitForSlotEvent: Some(general::C_WaitForSlotEvent),
};
