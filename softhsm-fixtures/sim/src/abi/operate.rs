//! Signing, verifying, encrypting, decrypting, random bytes.

#![expect(non_snake_case, reason = "the standard's names")]

use cryptoki_sys as sys;

use super::output;
use super::raw::{self, Room};
use crate::call::{Call, fast, in_session, result, with_key};
use crate::config::OwnIv;
use crate::counters;
use crate::function::Function;
use crate::stamps;
use crate::work::{Active, Kind};

pub(super) type Byte = sys::CK_BYTE;
pub(super) type Ulong = sys::CK_ULONG;

/// Entries of the four Init functions.
macro_rules! inits {
    ($($name:ident = $kind:expr;)*) => { $(
        pub(super) unsafe extern "C" fn $name(
            session: sys::CK_SESSION_HANDLE,
            mechanism: *mut sys::CK_MECHANISM,
            key: sys::CK_OBJECT_HANDLE,
        ) -> sys::CK_RV {
            if let Some(entered) = fast(session, Function::$name) {
                // SAFETY: the caller has kept the standard's rules for this function.
                let result = unsafe { super::null::init(entered.slot, $kind, mechanism, key) };
                return code(result.inspect_err(|&code| counters::came_to(Function::$name, Err(code))));
            }
            with_key(Function::$name, session, Some(key), true, |call| {
                if let Some(forward) = &call.device.forward {
                    let function = forward.list.$name.ok_or(sys::CKR_FUNCTION_NOT_SUPPORTED)?;
                    // SAFETY: as above.
                    return result(unsafe { function(call.slot.forwarded(), mechanism, key) });
                }
                // SAFETY: as above.
                unsafe { init(call, $kind, mechanism, key) }
            })
        }
    )* };
}

/// Entries of the functions that turn an input into an output.
macro_rules! runs {
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
                return code(unsafe { super::null::run(entered.slot, $kind, input_len, out, out_len) });
            }
            in_session(Function::$name, session, !out.is_null(), |call| {
                let works = !out.is_null();
                let run = |out, out_len| {
                    if let Some(forward) = &call.device.forward {
                        let function = forward.list.$name.ok_or(sys::CKR_FUNCTION_NOT_SUPPORTED)?;
                        // SAFETY: as above.
                        return result(unsafe { function(call.slot.forwarded(), input, input_len, out, out_len) });
                    }
                    // SAFETY: as above.
                    unsafe { run(call, $kind, (input, input_len), out, out_len) }
                };
                let run = |out, out_len| {
                    let input = (input, input_len);
                    // SAFETY: as above.
                    unsafe { output::executing(call, Function::$name, works, input, || run(out, out_len)) }
                };
                // SAFETY: as above.
                unsafe { output::deliver(out, out_len, run) }
            })
        }
    )* };
}

inits!(
    C_SignInit = Kind::Sign;
    C_VerifyInit = Kind::Verify;
    C_EncryptInit = Kind::Encrypt;
    C_DecryptInit = Kind::Decrypt;
);

runs!(
    C_Sign = Kind::Sign;
    C_Encrypt = Kind::Encrypt;
    C_Decrypt = Kind::Decrypt;
);

pub(super) unsafe extern "C" fn C_Verify(
    session: sys::CK_SESSION_HANDLE,
    data: *mut Byte,
    data_len: Ulong,
    signature: *mut Byte,
    signature_len: Ulong,
) -> sys::CK_RV {
    if let Some(entered) = fast(session, Function::C_Verify) {
        return code(super::null::verify(entered.slot, signature_len));
    }
    in_session(Function::C_Verify, session, true, |call| {
        // SAFETY: the caller has kept the standard's rules for this function.
        let run = || unsafe { verify(call, (data, data_len), (signature, signature_len)) };
        // SAFETY: as above.
        unsafe { output::executing(call, Function::C_Verify, true, (data, data_len), run) }
    })
}

pub(super) unsafe extern "C" fn C_GenerateRandom(
    session: sys::CK_SESSION_HANDLE,
    out: *mut Byte,
    len: Ulong,
) -> sys::CK_RV {
    if let Some(entered) = fast(session, Function::C_GenerateRandom) {
        // SAFETY: the caller has kept the standard's rules for this function.
        return code(unsafe { random(&entered.slot.random, out, len) });
    }
    in_session(Function::C_GenerateRandom, session, true, |call| {
        if let Some(forward) = &call.device.forward {
            let function = forward.list.C_GenerateRandom.ok_or(sys::CKR_FUNCTION_NOT_SUPPORTED)?;
            // SAFETY: as above.
            return result(unsafe { function(call.slot.forwarded(), out, len) });
        }
        // SAFETY: as above.
        unsafe { random(&call.slot.random, out, len) }
    })
}

/// # Safety
/// As for the entry.
unsafe fn init(
    call: &Call,
    kind: Kind,
    mechanism: *mut sys::CK_MECHANISM,
    key: sys::CK_OBJECT_HANDLE,
) -> Result<(), sys::CK_RV> {
    // SAFETY: as for the entry.
    let number = unsafe { raw::get(mechanism) }?.mechanism;
    call.token()?.check_offered(number, kind.flag())?;
    if call.null() {
        // SAFETY: as for the entry.
        return unsafe { super::null::init(call.slot, kind, mechanism, key) };
    }
    let mut work = call.slot.work.lock();
    let work = work.as_mut().ok_or(sys::CKR_SESSION_HANDLE_INVALID)?;
    if work.active.is_some() || work.message.is_some() {
        return Err(sys::CKR_OPERATION_ACTIVE);
    }
    let read = match (call.device.config.own_iv, kind) {
        (OwnIv::Written, Kind::Encrypt) => super::mechanism::with_own_iv,
        (OwnIv::Silent, _) => super::mechanism::without_iv,
        _ => super::mechanism::mechanism,
    };
    // SAFETY: as for the entry.
    let how = unsafe { read(mechanism) }?;
    let object = call.token()?.object(key)?.ok_or(sys::CKR_KEY_HANDLE_INVALID)?;
    let active = Active::new(kind, object, how)?;
    active.object.check_allows(number)?;
    work.active = Some(active.going_wrong(&call.device.config.wrong));
    Ok(())
}

/// # Safety
/// As for the entry.
unsafe fn verify(
    call: &Call,
    (data, data_len): (*mut Byte, Ulong),
    (signature, signature_len): (*mut Byte, Ulong),
) -> Result<(), sys::CK_RV> {
    if let Some(forward) = &call.device.forward {
        let function = forward.list.C_Verify.ok_or(sys::CKR_FUNCTION_NOT_SUPPORTED)?;
        let inner = call.slot.forwarded();
        // SAFETY: as for the entry.
        return result(unsafe { function(inner, data, data_len, signature, signature_len) });
    }
    if call.null() {
        return super::null::verify(call.slot, signature_len);
    }
    let active = take(call, Kind::Verify)?;
    // SAFETY: as for the entry.
    let data = unsafe { raw::bytes(data, data_len) }?;
    // SAFETY: as for the entry.
    let signature = unsafe { raw::bytes(signature, signature_len) }?;
    active.verify(data, signature)
}

/// Every answer but two ends the operation: a query for the length, and a buffer that is too small
/// (PKCS#11 2.40, 5.2).
///
/// # Safety
/// As for the entry.
unsafe fn run(
    call: &Call,
    kind: Kind,
    (input, input_len): (*const Byte, Ulong),
    out: *mut Byte,
    out_len: *mut Ulong,
) -> Result<(), sys::CK_RV> {
    if call.null() {
        // SAFETY: as for the entry.
        return unsafe { super::null::run(call.slot, kind, input_len, out, out_len) };
    }
    let needed = {
        let work = call.slot.work.lock();
        let active = work.as_ref().and_then(|work| work.active.as_ref());
        let active = active.filter(|active| active.kind == kind).ok_or(sys::CKR_OPERATION_NOT_INITIALIZED)?;
        active.output_len(raw::to_usize(input_len))
    };
    // SAFETY: as for the entry.
    match unsafe { raw::room(out, out_len, needed as Ulong) } {
        Ok(Room::Query) => return Ok(()),
        Ok(Room::TooSmall) => return Err(sys::CKR_BUFFER_TOO_SMALL),
        Ok(Room::Enough) => {}
        Err(code) => return take(call, kind).and(Err(code)),
    }
    let active = take(call, kind)?;
    check_len(call, kind, input_len)?;
    // SAFETY: as for the entry.
    let input = unsafe { raw::bytes(input, input_len) }?;
    if call.device.config.stamped && kind == Kind::Sign {
        stamps::note(input);
    }
    // The output is made aside, so that it may overlap the input.
    let output = active.run(input, &call.slot.random)?;
    // SAFETY: as for the entry; the output is at most as long as `needed`.
    unsafe { raw::list(&output, out, out_len) }
}

/// Takes the active operation, which ends with this call. Its key must still be visible.
pub(super) fn take(call: &Call, kind: Kind) -> Result<Active, sys::CK_RV> {
    let mut work = call.slot.work.lock();
    let active = work.as_mut().and_then(|work| work.active.take_if(|active| active.kind == kind));
    let active = active.ok_or(sys::CKR_OPERATION_NOT_INITIALIZED)?;
    if active.object.flag(sys::CKA_PRIVATE) && !call.token()?.logged_in() {
        return Err(sys::CKR_USER_NOT_LOGGED_IN);
    }
    Ok(active)
}

/// Refuses what the device does not take in one call.
pub(super) fn check_len(call: &Call, kind: Kind, input_len: Ulong) -> Result<(), sys::CK_RV> {
    let max = call.device.config.input_max;
    let ciphers = matches!(kind, Kind::Encrypt | Kind::Decrypt);
    if ciphers && max > 0 && input_len > max { Err(sys::CKR_DATA_LEN_RANGE) } else { Ok(()) }
}

/// Puts an operation back that goes on.
pub(super) fn put_back(call: &Call, active: Active) {
    if let Some(work) = call.slot.work.lock().as_mut() {
        work.active = Some(active);
    }
}

/// # Safety
/// `out` is null or good for writing `len` bytes.
unsafe fn random(random: &crate::rng::Random, out: *mut Byte, len: Ulong) -> Result<(), sys::CK_RV> {
    if out.is_null() {
        return Err(sys::CKR_ARGUMENTS_BAD);
    }
    let (mut chunk, mut done, len) = ([0; 256], 0, raw::to_usize(len));
    while done < len {
        let part = chunk.len().min(len - done);
        random.fill(&mut chunk[..part]);
        // SAFETY: `done` is below `len`.
        let to = unsafe { out.add(done) };
        // SAFETY: as many bytes are left; the chunk is a local.
        unsafe { raw::copy(&chunk[..part], to) };
        done += part;
    }
    Ok(())
}

#[inline]
pub(super) fn code(result: Result<(), sys::CK_RV>) -> sys::CK_RV {
    result.err().unwrap_or(sys::CKR_OK)
}
