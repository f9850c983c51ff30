//! What every call goes through: the count, the hangs, the time it takes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cryptoki_sys as sys;

use crate::clock;
use crate::counters::{self, Event};
use crate::device::{self, Device};
use crate::faults::{self, After, Before};
use crate::function::Function;
use crate::rule::Names;
use crate::sessions::{self, Entered, Slot};
use crate::stalls::STALLS;
use crate::token::Token;

/// A call in a session.
pub(crate) struct Call {
    pub(crate) device: &'static Device,
    pub(crate) slot: &'static Slot,
    pub(crate) handle: u64,
    /// That of the session: handles may come again.
    pub(crate) generation: u64,
    /// Number of the session's token.
    pub(crate) token: usize,
}

impl Call {
    /// The simulated token; there is none where calls are forwarded.
    pub(crate) fn token(&self) -> Result<&'static Token, sys::CK_RV> {
        self.device.tokens.get(self.token).ok_or(sys::CKR_GENERAL_ERROR)
    }

    /// What the key is called with which the call runs: the one that it names, or that of the active operation.
    fn names(&self, function: Function, key: Option<sys::CK_OBJECT_HANDLE>) -> Option<Arc<Names>> {
        if let Some(key) = key {
            return self.device.names(self.token, self.slot.forwarded(), key).map(Arc::new);
        }
        if function.runs_with_key() { self.slot.names.lock().clone() } else { None }
    }

    /// Whether the session is gone, or its place given to another one.
    fn is_over(&self) -> bool {
        self.slot.generation() != self.generation
    }

    /// Whether operations do no cryptography.
    pub(crate) const fn null(&self) -> bool {
        self.device.config.null
    }
}

/// The session, if the short way may be taken: null mode without delays and hangs.
#[inline]
pub(crate) fn fast(handle: u64, function: Function) -> Option<Entered> {
    if !device::fast() {
        return None;
    }
    sessions::find(handle).map(|slot| slot.enter_cheaply(function))
}

/// A call in a session. `works` is false if it only asks for a length.
pub(crate) fn in_session(
    function: Function,
    handle: u64,
    works: bool,
    run: impl FnOnce(&Call) -> Result<(), sys::CK_RV>,
) -> sys::CK_RV {
    with_key(function, handle, None, works, run)
}

/// A call in a session that names a key or another object, or may do so.
pub(crate) fn with_key(
    function: Function,
    handle: u64,
    key: Option<sys::CK_OBJECT_HANDLE>,
    works: bool,
    run: impl FnOnce(&Call) -> Result<(), sys::CK_RV>,
) -> sys::CK_RV {
    guarded(|| {
        let device = device::current()?;
        let Some(slot) = sessions::find(handle) else {
            Event::StaleSession.add(1);
            return Err(sys::CKR_SESSION_HANDLE_INVALID);
        };
        let token = slot.token();
        let call = Call { device, slot, handle, generation: slot.generation(), token };
        let _inside = slot.enter(function);
        let armed = faults::armed();
        let names = if armed && faults::keyed() { call.names(function, key) } else { None };
        let after = meet(device, function, Some(token), Some(&call), names.as_deref())?;
        // While the call hung, the session may have been closed and its slot given to another one.
        if call.is_over() {
            return Err(sys::CKR_SESSION_HANDLE_INVALID);
        }
        let _working = device.work(token, function)?;
        let run = || {
            let result = timed(device, function, Some(token), works, after.times, || run(&call));
            counters::came_to(function, result);
            let was_cut_off = armed && call.is_over() && function != Function::C_CloseSession;
            if was_cut_off { Err(sys::CKR_DEVICE_REMOVED) } else { result }
        };
        // One that hangs after that has had its answer when the token went.
        let result = faults::with_output(after.output, run);
        if armed && function.begins_operation() && result.is_ok() && !call.is_over() {
            *slot.names.lock() = names;
        }
        after.answer(result)
    })
}

/// A call that names a slot.
pub(crate) fn on_slot(
    function: Function,
    slot: sys::CK_SLOT_ID,
    run: impl FnOnce(&'static Device, usize) -> Result<(), sys::CK_RV>,
) -> sys::CK_RV {
    guarded(|| {
        let device = device::current()?;
        let token = device.token_in(slot);
        match token {
            Ok(token) => sessions::count_on(token, function),
            Err(_) => sessions::count_loose(function),
        }
        let _inside = Passing::enter();
        let after = meet(device, function, token.ok(), None, None)?;
        if token.is_ok_and(|token| device.is_absent(token)) && function != Function::C_GetSlotInfo {
            return Err(sys::CKR_TOKEN_NOT_PRESENT);
        }
        let run = || timed(device, function, token.ok(), false, after.times, || run(device, token?));
        after.answer(faults::with_output(after.output, run))
    })
}

/// A call that names neither session nor slot.
pub(crate) fn general(
    function: Function,
    run: impl FnOnce(&'static Device) -> Result<(), sys::CK_RV>,
) -> sys::CK_RV {
    guarded(|| {
        let device = device::current()?;
        sessions::count_loose(function);
        let _inside = Passing::enter();
        let after = meet(device, function, None, None, None)?;
        let run = || timed(device, function, None, false, after.times, || run(device));
        after.answer(faults::with_output(after.output, run))
    })
}

/// What the rules say of a call that is made before there is a device.
pub(crate) fn general_rules(function: Function) -> Result<(), sys::CK_RV> {
    meet(device::current()?, function, None, None, None)?.answer(Ok(()))
}

/// How many other calls are inside the module, in sessions or not: for a call that is in no session.
pub(crate) fn others_inside() -> u64 {
    sessions::inside() + PASSING.load(Ordering::Relaxed).saturating_sub(1)
}

/// Calls inside that are in no session.
static PASSING: AtomicU64 = AtomicU64::new(0);

/// One of them, until it is dropped.
struct Passing;

impl Passing {
    fn enter() -> Self {
        PASSING.fetch_add(1, Ordering::Relaxed);
        Self
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        PASSING.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Turns a result into a return code, and a panic into `CKR_GENERAL_ERROR`: nothing unwinds into C.
pub(crate) fn guarded(run: impl FnOnce() -> Result<(), sys::CK_RV>) -> sys::CK_RV {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(())) => sys::CKR_OK,
        Ok(Err(code)) => {
            counters::answered(code);
            code
        }
        Err(_) => sys::CKR_GENERAL_ERROR,
    }
}

/// A return code as a result.
pub(crate) fn result(code: sys::CK_RV) -> Result<(), sys::CK_RV> {
    if code == sys::CKR_OK { Ok(()) } else { Err(code) }
}

/// What rules have become of a call before it runs; an error if it does not.
fn meet(
    device: &'static Device,
    function: Function,
    token: Option<usize>,
    call: Option<&Call>,
    names: Option<&Names>,
) -> Result<After, sys::CK_RV> {
    STALLS.wait(token);
    if !faults::armed() {
        return Ok(After::default());
    }
    let label = token.map(|token| device.label(token));
    match faults::before(function, label.as_deref(), names) {
        Before::Runs(after) => Ok(after),
        Before::Refused(code) => refused(function, call, code),
        Before::SessionLost => {
            if let Some(call) = call {
                device.lose_session(call);
            }
            Err(sys::CKR_SESSION_HANDLE_INVALID)
        }
        Before::LoginLost => {
            if let Some(call) = call {
                device.lose_login(call.token, call.slot.forwarded());
            }
            Ok(After::default())
        }
        Before::Removed(until) => {
            token.into_iter().for_each(|token| device.remove(token, until));
            Err(if call.is_some() { sys::CKR_DEVICE_REMOVED } else { sys::CKR_TOKEN_NOT_PRESENT })
        }
        Before::Dead => {
            device::finalise()?;
            Err(sys::CKR_CRYPTOKI_NOT_INITIALIZED)
        }
    }
}

/// A call that does nothing but answer this. It ends the active operation as the call itself would.
fn refused(function: Function, call: Option<&Call>, code: sys::CK_RV) -> Result<After, sys::CK_RV> {
    if let Some(call) = call
        && function.ends_operation()
        && code != sys::CKR_BUFFER_TOO_SMALL
    {
        if call.device.forward.is_some() {
            // Nothing but the call itself ends the operation in the module behind.
            return Ok(After { code: Some(code), ..After::default() });
        }
        crate::null::end(call.slot);
        call.slot.work.lock().iter_mut().for_each(|work| work.active = None);
    }
    Err(code)
}

impl After {
    fn answer(self, result: Result<(), sys::CK_RV>) -> Result<(), sys::CK_RV> {
        result.and_then(|()| self.code.map_or(Ok(()), Err))
    }
}

/// Runs the call and returns when the simulated device would. What it does on this host counts into that time.
///
/// A stall that has begun meanwhile holds it until its end.
fn timed(
    device: &Device,
    function: Function,
    token: Option<usize>,
    works: bool,
    times: Option<u32>,
    run: impl FnOnce() -> Result<(), sys::CK_RV>,
) -> Result<(), sys::CK_RV> {
    let result = delayed(device, function, token, works, times, run);
    STALLS.wait(token);
    result
}

fn delayed(
    device: &Device,
    function: Function,
    token: Option<usize>,
    works: bool,
    times: Option<u32>,
    run: impl FnOnce() -> Result<(), sys::CK_RV>,
) -> Result<(), sys::CK_RV> {
    if !device.delays() && times.is_none() {
        return run();
    }
    let begun = clock::now_ns();
    let result = run();
    // A core also worked for these two answers; it did not for a call that was refused.
    let worked = matches!(result, Ok(()) | Err(sys::CKR_SIGNATURE_INVALID | sys::CKR_ENCRYPTED_DATA_INVALID));
    let works = works && worked && function.occupies_core();
    clock::sleep_until(device.ends_at(begun, token, works));
    if let Some(times) = times {
        let now = clock::now_ns();
        // Without a configured latency there is still the one that the call had, as of a module behind.
        let usual = match device.usual_ns(token, works) {
            0 => now - begun,
            usual => usual,
        };
        clock::sleep_until(now.saturating_add(usual.saturating_mul(u64::from(times) - 1)));
    }
    result
}
