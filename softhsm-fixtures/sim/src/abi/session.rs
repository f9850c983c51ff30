//! Sessions and login.

#![expect(non_snake_case, reason = "the standard's names")]

use std::ffi::c_void;

use cryptoki_sys as sys;

use super::{raw, session_calls};
use crate::call::{Call, guarded, in_session, on_slot, result};
use crate::device;
use crate::function::Function;
use crate::sessions;

pub(super) unsafe extern "C" fn C_OpenSession(
    slot: sys::CK_SLOT_ID,
    flags: sys::CK_FLAGS,
    application: *mut c_void,
    notify: sys::CK_NOTIFY,
    session: *mut sys::CK_SESSION_HANDLE,
) -> sys::CK_RV {
    on_slot(Function::C_OpenSession, slot, |device, token| {
        if flags & sys::CKF_SERIAL_SESSION == 0 {
            return Err(sys::CKR_SESSION_PARALLEL_NOT_SUPPORTED);
        }
        if session.is_null() {
            return Err(sys::CKR_ARGUMENTS_BAD);
        }
        let mut inner = 0;
        if let Some(forward) = &device.forward {
            let function = forward.list.C_OpenSession.ok_or(sys::CKR_FUNCTION_NOT_SUPPORTED)?;
            // SAFETY: the caller has kept the standard's rules for this function; the handle is a live local.
            result(unsafe { function(slot, flags, application, notify, &raw mut inner) })?;
        }
        let (limit, seed, reuse) = (device.sessions_max(), device.config.seed, device.config.reuse.sessions);
        let opened = sessions::open(token, flags, limit, seed, inner, reuse);
        match (opened, &device.forward) {
            // SAFETY: as above.
            (Ok(handle), _) => unsafe { raw::put(session, handle) },
            (Err(code), Some(forward)) => {
                forward.close(inner);
                Err(code)
            }
            (Err(code), None) => Err(code),
        }
    })
}

pub(super) unsafe extern "C" fn C_CloseSession(session: sys::CK_SESSION_HANDLE) -> sys::CK_RV {
    in_session(Function::C_CloseSession, session, true, |call| {
        let inner = call.slot.forwarded();
        let (token, left) = sessions::close(call.handle)?;
        call.device.session_gone(token, call.generation, left);
        match &call.device.forward {
            Some(forward) => {
                let function = forward.list.C_CloseSession.ok_or(sys::CKR_FUNCTION_NOT_SUPPORTED)?;
                // SAFETY: a plain call; the session was open until now.
                result(unsafe { function(inner) })
            }
            None => Ok(()),
        }
    })
}

pub(super) unsafe extern "C" fn C_CloseAllSessions(slot: sys::CK_SLOT_ID) -> sys::CK_RV {
    on_slot(Function::C_CloseAllSessions, slot, |device, token| {
        for closed in sessions::close_all(Some(token)) {
            device.session_gone(token, closed.generation, 0);
        }
        match &device.forward {
            Some(forward) => {
                let function = forward.list.C_CloseAllSessions.ok_or(sys::CKR_FUNCTION_NOT_SUPPORTED)?;
                // SAFETY: a plain call.
                result(unsafe { function(slot) })
            }
            None => Ok(()),
        }
    })
}

session_calls!(
    C_GetSessionInfo(info: *mut sys::CK_SESSION_INFO) = session_info;
    C_Logout() = log_out;
);

/// As the others, but that the PIN is written down before anything else becomes of the call.
pub(super) unsafe extern "C" fn C_Login(
    session: sys::CK_SESSION_HANDLE,
    user: sys::CK_USER_TYPE,
    pin: *mut sys::CK_UTF8CHAR,
    pin_len: sys::CK_ULONG,
) -> sys::CK_RV {
    // SAFETY: the caller has kept the standard's rules for this function.
    let noted = unsafe { note_pin(session, pin, pin_len) };
    if noted != sys::CKR_OK {
        return noted;
    }
    in_session(Function::C_Login, session, true, |call| match &call.device.forward {
        Some(forward) => {
            let function = forward.list.C_Login.ok_or(sys::CKR_FUNCTION_NOT_SUPPORTED)?;
            // SAFETY: as above.
            result(unsafe { function(call.slot.forwarded(), user, pin, pin_len) })
        }
        // SAFETY: as above.
        None => unsafe { log_in(call, user, pin, pin_len) },
    })
}

/// As `C_Login`: the old PIN takes a try too.
pub(super) unsafe extern "C" fn C_SetPIN(
    session: sys::CK_SESSION_HANDLE,
    old: *mut sys::CK_UTF8CHAR,
    old_len: sys::CK_ULONG,
    new: *mut sys::CK_UTF8CHAR,
    new_len: sys::CK_ULONG,
) -> sys::CK_RV {
    // SAFETY: the caller has kept the standard's rules for this function.
    let noted = unsafe { note_pin(session, old, old_len) };
    if noted != sys::CKR_OK {
        return noted;
    }
    in_session(Function::C_SetPIN, session, true, |call| match &call.device.forward {
        Some(forward) => {
            let function = forward.list.C_SetPIN.ok_or(sys::CKR_FUNCTION_NOT_SUPPORTED)?;
            // SAFETY: as above.
            result(unsafe { function(call.slot.forwarded(), old, old_len, new, new_len) })
        }
        // SAFETY: as above.
        None => unsafe { set_pin(call, (old, old_len), (new, new_len)) },
    })
}

/// Writes a PIN down, where that is asked for.
///
/// # Safety
/// `pin` is null or good for reading `len` bytes.
unsafe fn note_pin(
    session: sys::CK_SESSION_HANDLE,
    pin: *mut sys::CK_UTF8CHAR,
    len: sys::CK_ULONG,
) -> sys::CK_RV {
    guarded(|| {
        // What is wrong with the call, if anything, it says itself.
        let (Ok(device), Some(slot)) = (device::current(), sessions::find(session)) else { return Ok(()) };
        let Some(token) = device.tokens.get(slot.token()) else { return Ok(()) };
        // SAFETY: as the caller says.
        let bytes = unsafe { raw::bytes(pin, len) };
        token.note_pin(bytes.ok().filter(|_| !pin.is_null()))
    })
}

/// # Safety
/// As for the entry.
unsafe fn session_info(call: &Call, info: *mut sys::CK_SESSION_INFO) -> Result<(), sys::CK_RV> {
    let flags = call.slot.flags();
    let state = match (call.token()?.logged_in(), flags & sys::CKF_RW_SESSION != 0) {
        (false, false) => sys::CKS_RO_PUBLIC_SESSION,
        (false, true) => sys::CKS_RW_PUBLIC_SESSION,
        (true, false) => sys::CKS_RO_USER_FUNCTIONS,
        (true, true) => sys::CKS_RW_USER_FUNCTIONS,
    };
    let slotID = crate::device::SLOT_FIRST + call.token as sys::CK_SLOT_ID;
    // SAFETY: as for the entry.
    unsafe { raw::put(info, sys::CK_SESSION_INFO { slotID, state, flags, ulDeviceError: 0 }) }
}

/// # Safety
/// As for the entry.
unsafe fn log_in(
    call: &Call,
    user: sys::CK_USER_TYPE,
    pin: *mut sys::CK_UTF8CHAR,
    pin_len: sys::CK_ULONG,
) -> Result<(), sys::CK_RV> {
    match user {
        sys::CKU_USER => {
            let token = call.token()?;
            if let (true, Some(typed)) = (pin.is_null(), token.typed()?) {
                return token.log_in(typed.as_bytes());
            }
            // SAFETY: as for the entry.
            let pin = unsafe { raw::bytes(pin, pin_len) }?;
            token.log_in(pin)
        }
        sys::CKU_CONTEXT_SPECIFIC => Err(sys::CKR_OPERATION_NOT_INITIALIZED),
        _ => Err(sys::CKR_USER_TYPE_INVALID),
    }
}

/// The PIN of the user, logged in or not: so the standard has it in read/write sessions (PKCS#11 2.40, `C_SetPIN`).
/// Nobody types a new one at a keypad.
///
/// # Safety
/// As for the entry.
unsafe fn set_pin(
    call: &Call,
    (old, old_len): (*mut sys::CK_UTF8CHAR, sys::CK_ULONG),
    (new, new_len): (*mut sys::CK_UTF8CHAR, sys::CK_ULONG),
) -> Result<(), sys::CK_RV> {
    if call.slot.flags() & sys::CKF_RW_SESSION == 0 {
        return Err(sys::CKR_SESSION_READ_ONLY);
    }
    if old.is_null() || new.is_null() {
        return Err(sys::CKR_ARGUMENTS_BAD);
    }
    // SAFETY: as for the entry.
    let old = unsafe { raw::bytes(old, old_len) }?;
    // SAFETY: as for the entry.
    let new = unsafe { raw::bytes(new, new_len) }?;
    call.token()?.set_pin(old, new)
}

/// # Safety
/// None is needed; the entries are of one kind.
unsafe fn log_out(call: &Call) -> Result<(), sys::CK_RV> {
    call.token()?.log_out()
}
