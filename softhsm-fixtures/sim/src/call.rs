//! What every call goes through: the count, the hangs, the time it takes.

use std::panic::{AssertUnwindSafe, catch_unwind};

use cryptoki_sys as sys;

use crate::clock;
use crate::device::{self, Device};
use crate::function::Function;
use crate::hangs::HANGS;
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
        hold(device, function, Some(token));
        // While the call hung, the session may have been closed and its slot given to another one.
        if slot.handle() != handle {
            return Err(sys::CKR_SESSION_HANDLE_INVALID);
        }
        timed(device, function, works.then_some(token), || run(&Call { device, slot, handle, token }))
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
        hold(device, function, token.ok());
        timed(device, function, None, || run(device, token?))
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
        hold(device, function, None);
        timed(device, function, None, || run(device))
    })
}

/// Turns a result into a return code, and a panic into `CKR_GENERAL_ERROR`: nothing unwinds into C.
pub(crate) fn guarded(run: impl FnOnce() -> Result<(), sys::CK_RV>) -> sys::CK_RV {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result.err().unwrap_or(sys::CKR_OK),
        Err(_) => sys::CKR_GENERAL_ERROR,
    }
}

/// A return code as a result.
pub(crate) fn result(code: sys::CK_RV) -> Result<(), sys::CK_RV> {
    if code == sys::CKR_OK { Ok(()) } else { Err(code) }
}

fn hold(device: &Device, function: Function, token: Option<usize>) {
    if HANGS.armed() {
        let label = token.map(|token| device.label(token));
        HANGS.pass(function, label.as_deref());
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
