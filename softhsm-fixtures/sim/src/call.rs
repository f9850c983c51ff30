//! What every call goes through: the count, the hangs, the time it takes.

use std::panic::{AssertUnwindSafe, catch_unwind};

use cryptoki_sys as sys;

use crate::clock;
use crate::counters;
use crate::device::{self, Device};
use crate::faults::{self, After, Before};
use crate::function::Function;
use crate::sessions::{self, Entered, Slot};
use crate::token::Token;

/// A call in a session.
pub(crate) struct Call {
    pub(crate) device: &'static Device,
    pub(crate) slot: &'static Slot,
    pub(crate) handle: u64,
    /// Number of the session's token.
    pub(crate) token: usize,
}

impl Call {
    /// The simulated token; there is none where calls are forwarded.
    pub(crate) fn token(&self) -> Result<&'static Token, sys::CK_RV> {
        self.device.tokens.get(self.token).ok_or(sys::CKR_GENERAL_ERROR)
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
    guarded(|| {
        let device = device::current()?;
        let slot = sessions::find(handle).ok_or(sys::CKR_SESSION_HANDLE_INVALID)?;
        let token = slot.token();
        let _inside = slot.enter(function);
        let call = Call { device, slot, handle, token };
        let after = meet(device, function, Some(token), Some(&call))?;
        // While the call hung, the session may have been closed and its slot given to another one.
        if slot.handle() != handle {
            return Err(sys::CKR_SESSION_HANDLE_INVALID);
        }
        let _working = device.work(token, function)?;
        let run = || timed(device, function, works.then_some(token), || run(&call));
        let result = faults::spoiling(after.spoil, run);
        if faults::armed() && slot.handle() != handle && function != Function::C_CloseSession {
            return Err(sys::CKR_DEVICE_REMOVED);
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
        let after = meet(device, function, token.ok(), None)?;
        if token.is_ok_and(|token| device.is_absent(token)) && function != Function::C_GetSlotInfo {
            return Err(sys::CKR_TOKEN_NOT_PRESENT);
        }
        after.answer(timed(device, function, None, || run(device, token?)))
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
        let after = meet(device, function, None, None)?;
        after.answer(timed(device, function, None, || run(device)))
    })
}

/// What the rules say of a call that is made before there is a device.
pub(crate) fn general_rules(function: Function) -> Result<(), sys::CK_RV> {
    meet(device::current()?, function, None, None)?.answer(Ok(()))
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
) -> Result<After, sys::CK_RV> {
    if !faults::armed() {
        return Ok(After::default());
    }
    let label = token.map(|token| device.label(token));
    match faults::before(function, label.as_deref()) {
        Before::Runs(after) => Ok(after),
        Before::Refused(code) => refused(function, call, code),
        Before::SessionLost => {
            if let Some(call) = call {
                device.lose_session(call.handle, call.slot.forwarded());
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
            return Ok(After { code: Some(code), spoil: None });
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
fn timed(
    device: &Device,
    function: Function,
    token: Option<usize>,
    run: impl FnOnce() -> Result<(), sys::CK_RV>,
) -> Result<(), sys::CK_RV> {
    if !device.delays() {
        return run();
    }
    let begun = clock::now_ns();
    let result = run();
    // A core also worked for these two answers; it did not for a call that was refused.
    let worked = matches!(result, Ok(()) | Err(sys::CKR_SIGNATURE_INVALID | sys::CKR_ENCRYPTED_DATA_INVALID));
    let works_on = token.filter(|_| worked && function.occupies_core());
    clock::sleep_until(device.ends_at(begun, works_on));
    result
}
