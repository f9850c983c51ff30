//! Functions that the simulator does not have by itself and only forwards.

#![expect(non_snake_case, reason = "the standard's names")]

use cryptoki_sys as sys;

use crate::call;
use crate::device::Device;
use crate::function::Function;

type Bytes = *mut sys::CK_BYTE;
type Text = *mut sys::CK_UTF8CHAR;
type Mechanism = *mut sys::CK_MECHANISM;
type Ulong = sys::CK_ULONG;
type Handle = sys::CK_OBJECT_HANDLE;

/// Entries that answer with one code unless they are forwarded.
macro_rules! forwarded {
    ($enter:ident, $first:ty; $($name:ident($($arg:ident: $kind:ty),* $(,)?) = $code:expr;)*) => { $(
        pub(super) unsafe extern "C" fn $name(first: $first, $($arg: $kind),*) -> sys::CK_RV {
            let run = |device: &Device, first: $first| {
                let Some(forward) = &device.forward else { return Err($code) };
                let function = forward.list.$name.ok_or(sys::CKR_FUNCTION_NOT_SUPPORTED)?;
                // SAFETY: the caller has kept the standard's rules for this function.
                call::result(unsafe { function(first, $($arg),*) })
            };
            $enter(Function::$name, first, run)
        }
    )* };
}

fn on_slot(
    function: Function,
    slot: sys::CK_SLOT_ID,
    run: impl FnOnce(&Device, sys::CK_SLOT_ID) -> Result<(), sys::CK_RV>,
) -> sys::CK_RV {
    call::on_slot(function, slot, |device, _| run(device, slot))
}

fn in_session(
    function: Function,
    session: sys::CK_SESSION_HANDLE,
    run: impl FnOnce(&Device, sys::CK_SESSION_HANDLE) -> Result<(), sys::CK_RV>,
) -> sys::CK_RV {
    call::in_session(function, session, true, |call| run(call.device, call.slot.forwarded()))
}

forwarded!(on_slot, sys::CK_SLOT_ID;
    C_InitToken(pin: Text, len: Ulong, label: Text) = sys::CKR_FUNCTION_NOT_SUPPORTED;
);

forwarded!(in_session, sys::CK_SESSION_HANDLE;
    C_InitPIN(pin: Text, len: Ulong) = sys::CKR_FUNCTION_NOT_SUPPORTED;
    C_GetOperationState(state: Bytes, len: *mut Ulong) = sys::CKR_FUNCTION_NOT_SUPPORTED;
    C_SetOperationState(state: Bytes, len: Ulong, encryption: Handle, authentication: Handle) = sys::CKR_FUNCTION_NOT_SUPPORTED;
    C_GetObjectSize(object: Handle, size: *mut Ulong) = sys::CKR_FUNCTION_NOT_SUPPORTED;
    C_DigestInit(mechanism: Mechanism) = sys::CKR_FUNCTION_NOT_SUPPORTED;
    C_Digest(data: Bytes, len: Ulong, out: Bytes, out_len: *mut Ulong) = sys::CKR_FUNCTION_NOT_SUPPORTED;
    C_DigestUpdate(data: Bytes, len: Ulong) = sys::CKR_FUNCTION_NOT_SUPPORTED;
    C_DigestKey(key: Handle) = sys::CKR_FUNCTION_NOT_SUPPORTED;
    C_DigestFinal(out: Bytes, out_len: *mut Ulong) = sys::CKR_FUNCTION_NOT_SUPPORTED;
    C_SignUpdate(data: Bytes, len: Ulong) = sys::CKR_FUNCTION_NOT_SUPPORTED;
    C_SignFinal(out: Bytes, out_len: *mut Ulong) = sys::CKR_FUNCTION_NOT_SUPPORTED;
    C_SignRecoverInit(mechanism: Mechanism, key: Handle) = sys::CKR_FUNCTION_NOT_SUPPORTED;
    C_SignRecover(data: Bytes, len: Ulong, out: Bytes, out_len: *mut Ulong) = sys::CKR_FUNCTION_NOT_SUPPORTED;
    C_VerifyUpdate(data: Bytes, len: Ulong) = sys::CKR_FUNCTION_NOT_SUPPORTED;
    C_VerifyFinal(signature: Bytes, len: Ulong) = sys::CKR_FUNCTION_NOT_SUPPORTED;
    C_VerifyRecoverInit(mechanism: Mechanism, key: Handle) = sys::CKR_FUNCTION_NOT_SUPPORTED;
    C_VerifyRecover(signature: Bytes, len: Ulong, out: Bytes, out_len: *mut Ulong) = sys::CKR_FUNCTION_NOT_SUPPORTED;
    C_DigestEncryptUpdate(data: Bytes, len: Ulong, out: Bytes, out_len: *mut Ulong) = sys::CKR_FUNCTION_NOT_SUPPORTED;
    C_DecryptDigestUpdate(data: Bytes, len: Ulong, out: Bytes, out_len: *mut Ulong) = sys::CKR_FUNCTION_NOT_SUPPORTED;
    C_SignEncryptUpdate(data: Bytes, len: Ulong, out: Bytes, out_len: *mut Ulong) = sys::CKR_FUNCTION_NOT_SUPPORTED;
    C_DecryptVerifyUpdate(data: Bytes, len: Ulong, out: Bytes, out_len: *mut Ulong) = sys::CKR_FUNCTION_NOT_SUPPORTED;
    C_SeedRandom(seed: Bytes, len: Ulong) = sys::CKR_RANDOM_SEED_NOT_SUPPORTED;
    C_GetFunctionStatus() = sys::CKR_FUNCTION_NOT_PARALLEL;
    C_CancelFunction() = sys::CKR_FUNCTION_NOT_PARALLEL;
);
