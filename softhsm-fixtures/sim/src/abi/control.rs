//! The simulator's own symbols: configuration, counters, hangs. [`Loaded`](crate::Loaded) is their safe face.

use std::ffi::{CStr, c_char};
use std::time::Duration;

use cryptoki_sys as sys;

use super::raw;
use crate::call::guarded;
use crate::counters::Event;
use crate::executions::EXECUTIONS;
use crate::function::Function;
use crate::hangs::HANGS;
use crate::sessions;
use crate::{clock, counters, device, stamps};

/// Sets the configuration: whole before `C_Initialize`, in parts while the module is in use.
///
/// # Safety
/// `text` is null or ends in a zero byte.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn p11_sim_configure(text: *const c_char) -> sys::CK_RV {
    // SAFETY: as the caller says.
    let text = unsafe { read(text) };
    guarded(|| device::configure(text.ok_or(sys::CKR_ARGUMENTS_BAD)?))
}

/// Changes the live part of the configuration, now if the module is in use, and for every `C_Initialize` to come.
///
/// # Safety
/// `text` is null or ends in a zero byte.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn p11_sim_change(text: *const c_char) -> sys::CK_RV {
    // SAFETY: as the caller says.
    let text = unsafe { read(text) };
    guarded(|| device::change(text.ok_or(sys::CKR_ARGUMENTS_BAD)?))
}

/// Calls of the function of this name so far; all ones if there is none.
///
/// # Safety
/// `name` is null or ends in a zero byte.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn p11_sim_calls_of(name: *const c_char) -> u64 {
    // SAFETY: as the caller says.
    let function = unsafe { read(name) }.and_then(Function::by_name);
    function.map_or(u64::MAX, |function| sessions::calls(function, None))
}

/// Calls on one token of the function of this name so far; all ones if there is no such function, or no such
/// token in the device in use, or in the last one.
///
/// # Safety
/// `name` and `label` are null or end in a zero byte.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn p11_sim_calls_on(name: *const c_char, label: *const c_char) -> u64 {
    // SAFETY: as the caller says.
    let function = unsafe { read(name) }.and_then(Function::by_name);
    // SAFETY: as the caller says.
    let label = unsafe { read(label) };
    let token = label.and_then(device::token_named);
    function.zip(token).map_or(u64::MAX, |(function, token)| sessions::calls(function, Some(token)))
}

/// How often a thread entered a session that another one was in. 0 in a sound program.
#[unsafe(no_mangle)]
pub extern "C" fn p11_sim_concurrent_use() -> u64 {
    sessions::overlaps()
}

/// How many calls have answered this code, which is not `CKR_OK`; those that a rule told to included.
#[unsafe(no_mangle)]
pub extern "C" fn p11_sim_answers_of(code: sys::CK_RV) -> u64 {
    counters::answers_of(code)
}

/// Calls of `C_Sign` that began after the moment in their input, with `stamped=1`.
#[unsafe(no_mangle)]
pub extern "C" fn p11_sim_late() -> u64 {
    stamps::late()
}

/// By how many nanoseconds the latest of them did.
#[unsafe(no_mangle)]
pub extern "C" fn p11_sim_latest_ns() -> u64 {
    stamps::latest_ns()
}

/// Nanoseconds of the monotonic clock.
#[unsafe(no_mangle)]
pub extern "C" fn p11_sim_now_ns() -> u64 {
    clock::now_ns()
}

/// Sets every counter to zero.
#[unsafe(no_mangle)]
pub extern "C" fn p11_sim_reset_counters() {
    sessions::reset_counters();
    counters::reset();
    EXECUTIONS.reset();
    stamps::reset();
}

/// Calls with the number of a session that is not open.
#[unsafe(no_mangle)]
pub extern "C" fn p11_sim_stale_sessions() -> u64 {
    Event::StaleSession.count()
}

/// Calls with the number of an object that is not there, or may not be seen.
#[unsafe(no_mangle)]
pub extern "C" fn p11_sim_stale_objects() -> u64 {
    Event::StaleObject.count()
}

/// Operations that were to begin in a session which had not ended another one. 0 in a sound program.
#[unsafe(no_mangle)]
pub extern "C" fn p11_sim_active_at_init() -> u64 {
    Event::ActiveAtInit.count()
}

/// Calls that `C_Finalize` found inside the module. 0 in a sound program without hangs.
#[unsafe(no_mangle)]
pub extern "C" fn p11_sim_finalised_inside() -> u64 {
    Event::FinalisedInside.count()
}

/// Outputs that were written after their call had returned, as a rule told.
#[unsafe(no_mangle)]
pub extern "C" fn p11_sim_late_writes() -> u64 {
    Event::LateWrite.count()
}

/// How often an input was executed, by the function of this name, or by all if it is null; all ones if there is no such
/// function.
///
/// # Safety
/// `name` is null or ends in a zero byte; `input` is null or good for reading `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn p11_sim_executions(name: *const c_char, input: *const u8, len: u64) -> u64 {
    // SAFETY: as the caller says.
    let function = unsafe { read(name) }.map(Function::by_name);
    // SAFETY: as the caller says.
    let input = unsafe { raw::bytes(input, len) }.unwrap_or_default();
    match function {
        Some(None) => u64::MAX,
        function => EXECUTIONS.of(function.flatten(), input),
    }
}

/// How many inputs one function has executed with one key more than so often.
#[unsafe(no_mangle)]
pub extern "C" fn p11_sim_executed_more_than(times: u64) -> u64 {
    EXECUTIONS.above(times)
}

/// Executions that were not counted, because there were too many different inputs.
#[unsafe(no_mangle)]
pub extern "C" fn p11_sim_executions_forgotten() -> u64 {
    EXECUTIONS.forgotten()
}

/// Lets every call go that hangs now, and forgets the rules by which calls hang.
#[unsafe(no_mangle)]
pub extern "C" fn p11_sim_release_hangs() {
    device::release_hangs();
}

/// How many calls hang now.
#[unsafe(no_mangle)]
pub extern "C" fn p11_sim_hanging() -> u64 {
    HANGS.hanging()
}

/// Waits until so many calls hang at once: 1, or 0 if they do not within so many milliseconds.
#[unsafe(no_mangle)]
pub extern "C" fn p11_sim_wait_hanging(count: u64, limit_ms: u64) -> u64 {
    HANGS.wait_hanging(count, Duration::from_millis(limit_ms)).into()
}

/// # Safety
/// `text` is null or ends in a zero byte, and outlives the result.
unsafe fn read<'a>(text: *const c_char) -> Option<&'a str> {
    if text.is_null() {
        return None;
    }
    // SAFETY: not null, and as the caller says.
    unsafe { CStr::from_ptr(text) }.to_str().ok()
}
