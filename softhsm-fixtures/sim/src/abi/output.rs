//! Where the output of a call goes and when: as it is made, or as a rule says.

use cryptoki_sys as sys;

use super::raw;
use crate::call::Call;
use crate::counters::Event;
use crate::executions::{self, EXECUTIONS};
use crate::faults::{self, Written};
use crate::function::Function;
use crate::hangs::HANGS;

/// A buffer of the caller's that is written when the caller may have done away with it.
struct Forsaken(*mut u8);

// SAFETY: it is the address that goes to another thread; whether it may be written there is for `write_later` to say.
unsafe impl Send for Forsaken {}

/// Runs a call with its output: right or wrong, at once or late, as the rules for it say.
///
/// # Safety
/// `out` is null or good for writing as many bytes as `len` says, which is null or good for reading and writing; `run`
/// may be given any other two of that kind. Where a rule says `late`, `out` is written after the call has returned.
pub(super) unsafe fn deliver(
    out: *mut u8,
    len: *mut sys::CK_ULONG,
    run: impl FnOnce(*mut u8, *mut sys::CK_ULONG) -> Result<(), sys::CK_RV>,
) -> Result<(), sys::CK_RV> {
    let late = faults::written_late().filter(|_| !out.is_null() && !len.is_null());
    let Some(written) = late else {
        run(out, len)?;
        // SAFETY: as the caller says; the output is as long as was just written.
        unsafe { raw::spoil(out, len) };
        return Ok(());
    };
    // SAFETY: as the caller says.
    let mut made = unsafe { raw::get(len) }?;
    let mut aside = vec![0; raw::to_usize(made)];
    if let Err(code) = run(aside.as_mut_ptr(), &raw mut made) {
        // SAFETY: as the caller says.
        unsafe { raw::put(len, made) }?;
        return Err(code);
    }
    aside.truncate(raw::to_usize(made));
    let said = faults::spoil(&mut aside) as sys::CK_ULONG;
    faults::forget_output();
    match written {
        Written::Later(delay) => write_later(aside, Forsaken(out), delay),
        Written::AtReturn(limit) => {
            HANGS.hold(HANGS.releases(), limit);
            // SAFETY: the call has not returned, and what was made fits: `run` was told the length.
            unsafe { raw::copy(&aside, out) };
            // SAFETY: as the caller says.
            unsafe { raw::put(len, said) }?;
        }
        Written::AtOnce => {}
    }
    Ok(())
}

/// Runs a call on an input and counts the execution. A verdict is one; a refusal is none, nor is a call that `works` not,
/// but asks for a length.
///
/// # Safety
/// `input` is null or good for reading `len` bytes.
pub(super) unsafe fn executing(
    call: &Call,
    function: Function,
    works: bool,
    (input, len): (*mut u8, sys::CK_ULONG),
    run: impl FnOnce() -> Result<(), sys::CK_RV>,
) -> Result<(), sys::CK_RV> {
    if !works || !EXECUTIONS.counting() {
        return run();
    }
    // Before it runs: the output may be written over the input.
    // SAFETY: as the caller says.
    let Ok(input) = unsafe { raw::bytes(input, len) }.map(executions::hash) else { return run() };
    let done = run();
    if matches!(done, Ok(()) | Err(sys::CKR_SIGNATURE_INVALID | sys::CKR_ENCRYPTED_DATA_INVALID)) {
        EXECUTIONS.note(function, call.slot.names.lock().as_deref(), input);
    }
    done
}

/// Writes an output from a thread of the module, so long after now.
fn write_later(bytes: Vec<u8>, to: Forsaken, delay: std::time::Duration) {
    std::thread::spawn(move || {
        // The whole value goes along, not the pointer in it, which may not.
        let to = to;
        faults::sleep(delay);
        // SAFETY: there is none but the configuration's word for it: `late` is the fault of a module that writes to a
        // buffer which is no longer its own, and whoever asks for it keeps the buffer, or wants to see what happens.
        unsafe { raw::copy(&bytes, to.0) };
        Event::LateWrite.add(1);
    });
}
