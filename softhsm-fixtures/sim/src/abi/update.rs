//! Encryption and decryption in parts: of ECB only, the rest is forwarded or refused.
#![expect(non_snake_case, reason = "the standard's names")]

use cryptoki_sys as sys;

use super::operate::{self, Byte, Ulong, code};
use super::output;
use super::raw::{self, Room};
use crate::call::{Call, fast, in_session, result};
use crate::function::Function;
use crate::work::Kind;

/// Entries of the functions that take a part.
macro_rules! updates {
    ($($name:ident = $kind:expr;)*) => { $(
        pub(super) unsafe extern "C" fn $name(
            session: sys::CK_SESSION_HANDLE,
            input: *mut Byte,
            input_len: Ulong,
            out: *mut Byte,
            out_len: *mut Ulong,
        ) -> sys::CK_RV {
            if let Some(entered) = fast(session, Function::$name) {
                // SAFETY: the caller has kept the standard's rules for this function.
                return code(unsafe { super::null::update(entered.slot, $kind, input_len, out, out_len) });
            }
            in_session(Function::$name, session, !out.is_null(), |call| {
                let run = |out, out_len| {
                    if let Some(forward) = &call.device.forward {
                        let function = forward.list.$name.ok_or(sys::CKR_FUNCTION_NOT_SUPPORTED)?;
                        // SAFETY: as above.
                        return result(unsafe { function(call.slot.forwarded(), input, input_len, out, out_len) });
                    }
                    // SAFETY: as above.
                    unsafe { update(call, $kind, (input, input_len), out, out_len) }
                };
                // SAFETY: as above.
                unsafe { output::deliver(out, out_len, run) }
            })
        }
    )* };
}

/// Entries of the functions that end an operation in parts.
macro_rules! finals {
    ($($name:ident = $kind:expr;)*) => { $(
        pub(super) unsafe extern "C" fn $name(
            session: sys::CK_SESSION_HANDLE,
            out: *mut Byte,
            out_len: *mut Ulong,
        ) -> sys::CK_RV {
            in_session(Function::$name, session, !out.is_null(), |call| {
                let run = |out, out_len| {
                    if let Some(forward) = &call.device.forward {
                        let function = forward.list.$name.ok_or(sys::CKR_FUNCTION_NOT_SUPPORTED)?;
                        // SAFETY: the caller has kept the standard's rules for this function.
                        return result(unsafe { function(call.slot.forwarded(), out, out_len) });
                    }
                    // SAFETY: as above.
                    unsafe { finish(call, $kind, out, out_len) }
                };
                // SAFETY: as above.
                unsafe { output::deliver(out, out_len, run) }
            })
        }
    )* };
}

updates!(
    C_EncryptUpdate = Kind::Encrypt;
    C_DecryptUpdate = Kind::Decrypt;
);
finals!(
    C_EncryptFinal = Kind::Encrypt;
    C_DecryptFinal = Kind::Decrypt;
);

/// PKCS#11 2.40, `C_EncryptUpdate`: a query and a buffer that is too small leave the operation as it is; any other
/// error ends it.
///
/// # Safety
/// As for the entry.
unsafe fn update(
    call: &Call,
    kind: Kind,
    (input, input_len): (*const Byte, Ulong),
    out: *mut Byte,
    out_len: *mut Ulong,
) -> Result<(), sys::CK_RV> {
    if call.null() {
        // SAFETY: as for the entry.
        return unsafe { super::null::update(call.slot, kind, input_len, out, out_len) };
    }
    let mut active = operate::take(call, kind)?;
    operate::check_len(call, kind, input_len)?;
    let holds_back = call.device.config.holds_back;
    let needed = active.part_len(raw::to_usize(input_len), holds_back)?;
    // SAFETY: as for the entry.
    let room = unsafe { raw::room(out, out_len, needed as Ulong) }?;
    let done = match room {
        Room::Query => Ok(()),
        Room::TooSmall => Err(sys::CKR_BUFFER_TOO_SMALL),
        Room::Enough => {
            // SAFETY: as for the entry.
            let output = active.part(unsafe { raw::bytes(input, input_len) }?, holds_back)?;
            // SAFETY: as for the entry; the output is as long as `needed`.
            unsafe { raw::list(&output, out, out_len) }
        }
    };
    operate::put_back(call, active);
    done
}

/// Ends the operation; what it held back comes out.
///
/// # Safety
/// As for the entry.
unsafe fn finish(call: &Call, kind: Kind, out: *mut Byte, out_len: *mut Ulong) -> Result<(), sys::CK_RV> {
    if call.null() {
        crate::null::output_len(call.slot, kind, 0)?;
        crate::null::end(call.slot);
        // SAFETY: as for the entry.
        return unsafe { raw::put(out_len, 0) };
    }
    let active = operate::take(call, kind)?;
    let needed = active.held_back().len();
    // SAFETY: as for the entry.
    match unsafe { raw::room(out, out_len, needed as Ulong) }? {
        // A query for nothing is as good as the end: a length of 0 is right, and there is nothing to write.
        Room::Query if needed > 0 => {
            operate::put_back(call, active);
            Ok(())
        }
        Room::TooSmall => {
            operate::put_back(call, active);
            Err(sys::CKR_BUFFER_TOO_SMALL)
        }
        Room::Query => Ok(()),
        Room::Enough => {
            let output = active.rest()?;
            // SAFETY: as for the entry; the output is as long as `needed`.
            unsafe { raw::list(&output, out, out_len) }
        }
    }
}
