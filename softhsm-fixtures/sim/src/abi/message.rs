//! Message-based encryption and decryption (PKCS#11 3.0, 5.9 and 5.11): one Init, any number of messages, each with
//! parameters of its own. AES-GCM only, with IVs that the caller has chosen.
//!
//! Section 5.9: "The message-based encryption process is active until the application calls C_MessageEncryptFinal";
//! until then every other Init of the session answers `CKR_OPERATION_ACTIVE`, as strict devices do. The key is looked
//! up by Init alone, so that it can be used on after it was destroyed, as in some modules.

#![expect(non_snake_case, reason = "the standard's names")]

use std::ffi::c_void;

use cryptoki_sys as sys;

use super::output;
use super::raw::{self, Room};
use crate::call::{Call, fast, in_session, with_key};
use crate::config::Messages;
use crate::function::Function;
use crate::mechanism::{Mechanism, TAG_LEN};
use crate::null;
use crate::work::{Active, Kind, Message};

type Bytes = *mut sys::CK_BYTE;
type Ulong = sys::CK_ULONG;

/// One message as it comes in: parameters, associated data, input and room for the output.
#[derive(Clone, Copy)]
struct Given {
    parameter: (*const c_void, Ulong),
    aad: (Bytes, Ulong),
    input: (Bytes, Ulong),
    out: Bytes,
    out_len: *mut Ulong,
}

/// Entries of both directions.
macro_rules! messages {
    ($($init:ident, $run:ident, $finish:ident = $kind:expr;)*) => { $(
        pub(super) unsafe extern "C" fn $init(
            session: sys::CK_SESSION_HANDLE,
            mechanism: *mut sys::CK_MECHANISM,
            key: sys::CK_OBJECT_HANDLE,
        ) -> sys::CK_RV {
            with_key(Function::$init, session, Some(key), true, |call| {
                check_supported(call)?;
                // SAFETY: the caller has kept the standard's rules for this function.
                unsafe { init(call, $kind, mechanism, key) }
            })
        }

        pub(super) unsafe extern "C" fn $run(
            session: sys::CK_SESSION_HANDLE,
            parameter: *mut c_void,
            parameter_len: Ulong,
            aad: Bytes,
            aad_len: Ulong,
            input: Bytes,
            input_len: Ulong,
            out: Bytes,
            out_len: *mut Ulong,
        ) -> sys::CK_RV {
            let (aad, input) = ((aad, aad_len), (input, input_len));
            let given = Given { parameter: (parameter, parameter_len), aad, input, out, out_len };
            if let Some(entered) = fast(session, Function::$run) {
                // SAFETY: the caller has kept the standard's rules for this function.
                return unsafe { run_null(entered.slot, $kind, &given) }.err().unwrap_or(sys::CKR_OK);
            }
            in_session(Function::$run, session, !out.is_null(), |call| {
                check_supported(call)?;
                let works = !out.is_null();
                let run = |out, out_len| {
                    // SAFETY: as above.
                    let run = || unsafe { run(call, $kind, &Given { out, out_len, ..given }) };
                    // SAFETY: as above.
                    unsafe { output::executing(call, Function::$run, works, input, run) }
                };
                // SAFETY: as above.
                unsafe { output::deliver(out, out_len, run) }
            })
        }

        pub(super) unsafe extern "C" fn $finish(session: sys::CK_SESSION_HANDLE) -> sys::CK_RV {
            in_session(Function::$finish, session, true, |call| {
                check_supported(call)?;
                finish(call, $kind)
            })
        }
    )* };
}

messages!(
    C_MessageEncryptInit, C_EncryptMessage, C_MessageEncryptFinal = Kind::Encrypt;
    C_MessageDecryptInit, C_DecryptMessage, C_MessageDecryptFinal = Kind::Decrypt;
);

/// What a configuration without these functions answers, and a module that calls are forwarded to.
fn check_supported(call: &Call) -> Result<(), sys::CK_RV> {
    let config = &call.device.config;
    let has = config.interface_3 && config.messages != Messages::Missing && call.device.forward.is_none();
    if has { Ok(()) } else { Err(sys::CKR_FUNCTION_NOT_SUPPORTED) }
}

/// # Safety
/// As for the entry.
unsafe fn init(
    call: &Call,
    kind: Kind,
    mechanism: *mut sys::CK_MECHANISM,
    key: sys::CK_OBJECT_HANDLE,
) -> Result<(), sys::CK_RV> {
    if mechanism.is_null() {
        // 5.9.1: "can be called with pMechanism set to NULL_PTR to terminate a message-based encryption process".
        return finish(call, kind).or(Ok(()));
    }
    // SAFETY: as for the entry.
    let number = unsafe { raw::get(mechanism) }?.mechanism;
    call.token()?.check_offered(number, kind.flag())?;
    if number != sys::CKM_AES_GCM {
        return Err(sys::CKR_MECHANISM_INVALID);
    }
    if call.null() {
        return null::init_messages(call.slot, kind, key);
    }
    let mut work = call.slot.work.lock();
    let work = work.as_mut().ok_or(sys::CKR_SESSION_HANDLE_INVALID)?;
    if work.active.is_some() || work.message.is_some() {
        return Err(sys::CKR_OPERATION_ACTIVE);
    }
    let object = call.token()?.object(key)?.ok_or(sys::CKR_KEY_HANDLE_INVALID)?;
    let how = Mechanism::AesGcm { iv: vec![0; 12], aad: Vec::new() };
    Active::new(kind, object.clone(), how)?;
    object.check_allows(number)?;
    work.message = Some(Message { kind, object });
    Ok(())
}

/// A message leaves the process active, whatever becomes of it.
///
/// # Safety
/// As for the entry.
unsafe fn run(call: &Call, kind: Kind, given: &Given) -> Result<(), sys::CK_RV> {
    if call.null() {
        // SAFETY: as for the entry.
        return unsafe { run_null(call.slot, kind, given) };
    }
    let object = {
        let work = call.slot.work.lock();
        let message = work.as_ref().and_then(|work| work.message.as_ref());
        let message = message.filter(|message| message.kind == kind);
        message.ok_or(sys::CKR_OPERATION_NOT_INITIALIZED)?.object.clone()
    };
    if object.flag(sys::CKA_PRIVATE) && !call.token()?.logged_in() {
        return Err(sys::CKR_USER_NOT_LOGGED_IN);
    }
    // SAFETY: as for the entry.
    let parameters = unsafe { parameters(given) }?;
    // SAFETY: as for the entry.
    let iv = unsafe { raw::bytes(parameters.pIv, parameters.ulIvLen) }?;
    // SAFETY: as for the entry.
    let aad = unsafe { raw::bytes(given.aad.0, given.aad.1) }?;
    let active = Active::new(kind, object, Mechanism::gcm(iv, aad, parameters.ulTagBits)?)?;
    // SAFETY: as for the entry.
    match unsafe { raw::room(given.out, given.out_len, given.input.1) }? {
        Room::Query => return Ok(()),
        Room::TooSmall => return Err(sys::CKR_BUFFER_TOO_SMALL),
        Room::Enough => {}
    }
    // SAFETY: as for the entry.
    let input = unsafe { raw::bytes(given.input.0, given.input.1) }?;
    let wrong = call.device.config.messages == Messages::Wrong;
    let output = match kind {
        Kind::Decrypt if wrong => return Err(sys::CKR_ARGUMENTS_BAD),
        Kind::Decrypt => {
            // SAFETY: as for the entry; the parameters say that the tag has this length.
            let tag = unsafe { raw::bytes(parameters.pTag, TAG_LEN as Ulong) }?;
            active.run(&[input, tag].concat(), &call.slot.random)?
        }
        _ => {
            let mut output = active.run(input, &call.slot.random)?;
            let mut tag = output.split_off(input.len());
            if parameters.pTag.is_null() {
                return Err(sys::CKR_MECHANISM_PARAM_INVALID);
            }
            if wrong {
                tag[0] ^= 1;
            }
            // SAFETY: not null, and good for the length that the parameters say.
            unsafe { raw::copy(&tag, parameters.pTag) };
            output
        }
    };
    // SAFETY: `room` found that the buffer is large enough.
    unsafe { raw::list(&output, given.out, given.out_len) }
}

/// The null mode: the pattern for text and tag, in a row.
///
/// # Safety
/// As for the entry.
#[inline]
unsafe fn run_null(slot: &crate::sessions::Slot, kind: Kind, given: &Given) -> Result<(), sys::CK_RV> {
    null::check_messages(slot, kind)?;
    // SAFETY: as for the entry.
    let parameters = unsafe { parameters(given) }?;
    // SAFETY: as for the entry.
    match unsafe { raw::room(given.out, given.out_len, given.input.1) }? {
        Room::Query => Ok(()),
        Room::TooSmall => Err(sys::CKR_BUFFER_TOO_SMALL),
        Room::Enough => {
            if kind == Kind::Encrypt && !parameters.pTag.is_null() {
                // As `C_Encrypt` has it behind a text of this length: engines compare the two ways.
                let from = raw::to_usize(given.input.1);
                let tag: [u8; TAG_LEN] =
                    std::array::from_fn(|i| null::PATTERN[(from + i) % null::PATTERN.len()]);
                // SAFETY: the parameters say that the tag has this length.
                unsafe { raw::copy(&tag, parameters.pTag) };
            }
            // SAFETY: `room` found that the buffer is large enough.
            unsafe { super::null::fill(given.out, raw::to_usize(given.input.1)) };
            // SAFETY: as for the entry.
            unsafe { raw::put(given.out_len, given.input.1) }
        }
    }
}

/// `CK_GCM_MESSAGE_PARAMS` with an IV of the caller's own and a tag of 16 bytes.
///
/// # Safety
/// The parameter is null or good for reading the length given.
unsafe fn parameters(given: &Given) -> Result<sys::CK_GCM_MESSAGE_PARAMS, sys::CK_RV> {
    let (parameter, len) = given.parameter;
    if raw::to_usize(len) != size_of::<sys::CK_GCM_MESSAGE_PARAMS>() {
        return Err(sys::CKR_MECHANISM_PARAM_INVALID);
    }
    // SAFETY: the length fits, and the caller vouches for the pointer.
    let parameters = unsafe { raw::get(parameter.cast::<sys::CK_GCM_MESSAGE_PARAMS>()) }?;
    let own_iv = parameters.ivGenerator == sys::CKG_NO_GENERATE;
    if own_iv && parameters.ulTagBits == TAG_LEN as Ulong * 8 {
        Ok(parameters)
    } else {
        Err(sys::CKR_MECHANISM_PARAM_INVALID)
    }
}

fn finish(call: &Call, kind: Kind) -> Result<(), sys::CK_RV> {
    if call.null() {
        null::check_messages(call.slot, kind)?;
        null::end(call.slot);
        return Ok(());
    }
    let mut work = call.slot.work.lock();
    let ended = work.as_mut().and_then(|work| work.message.take_if(|message| message.kind == kind));
    ended.map(drop).ok_or(sys::CKR_OPERATION_NOT_INITIALIZED)
}
