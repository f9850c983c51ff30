//! The safe face of the simulator that is linked into a program, beside its function list.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use cryptoki_sys as sys;
use parking_lot::Mutex;

use crate::function::Function;
use crate::hangs::HANGS;
use crate::{device, sessions};

/// Answers but `CKR_OK`, by code.
static ANSWERS: Mutex<BTreeMap<sys::CK_RV, u64>> = Mutex::new(BTreeMap::new());

/// Calls with the number of a session that is not open.
static STALE_SESSIONS: AtomicU64 = AtomicU64::new(0);

/// Calls with the number of an object that is not there.
static STALE_OBJECTS: AtomicU64 = AtomicU64::new(0);

/// Operations that were to begin in a session which had not ended another one.
static ACTIVE_AT_INIT: AtomicU64 = AtomicU64::new(0);

/// Calls that `C_Finalize` found inside the module.
static FINALISED_INSIDE: AtomicU64 = AtomicU64::new(0);

/// Outputs that were written after their call had returned.
static LATE_WRITES: AtomicU64 = AtomicU64::new(0);

/// What callers do that they should not, and what was done to them late.
#[derive(Clone, Copy)]
pub(crate) enum Event {
    StaleSession,
    StaleObject,
    ActiveAtInit,
    FinalisedInside,
    LateWrite,
}

impl Event {
    const ALL: [Self; 5] =
        [Self::StaleSession, Self::StaleObject, Self::ActiveAtInit, Self::FinalisedInside, Self::LateWrite];

    /// By what a call has come to without any rule.
    const fn of(function: Function, code: sys::CK_RV) -> Option<Self> {
        Some(match code {
            sys::CKR_SESSION_HANDLE_INVALID => Self::StaleSession,
            sys::CKR_KEY_HANDLE_INVALID
            | sys::CKR_OBJECT_HANDLE_INVALID
            | sys::CKR_WRAPPING_KEY_HANDLE_INVALID
            | sys::CKR_UNWRAPPING_KEY_HANDLE_INVALID => Self::StaleObject,
            sys::CKR_OPERATION_ACTIVE if function.begins_operation() => Self::ActiveAtInit,
            _ => return None,
        })
    }

    /// It has come about so many times more. Release: pairs with the Acquire in `count`; who sees a late write counted
    /// sees what was written.
    pub(crate) fn add(self, times: u64) {
        self.counter().fetch_add(times, Ordering::Release);
    }

    pub(crate) fn count(self) -> u64 {
        self.counter().load(Ordering::Acquire)
    }

    const fn counter(self) -> &'static AtomicU64 {
        match self {
            Self::StaleSession => &STALE_SESSIONS,
            Self::StaleObject => &STALE_OBJECTS,
            Self::ActiveAtInit => &ACTIVE_AT_INIT,
            Self::FinalisedInside => &FINALISED_INSIDE,
            Self::LateWrite => &LATE_WRITES,
        }
    }
}

/// A call has come to this, before rules change what it answers.
pub(crate) fn came_to(function: Function, result: Result<(), sys::CK_RV>) {
    if let Err(code) = result
        && let Some(event) = Event::of(function, code)
    {
        event.add(1);
    }
}

/// A call has answered this.
pub(crate) fn answered(code: sys::CK_RV) {
    *ANSWERS.lock().entry(code).or_default() += 1;
}

/// How many calls have answered this code, those that a rule told to included.
pub(crate) fn answers_of(code: sys::CK_RV) -> u64 {
    ANSWERS.lock().get(&code).copied().unwrap_or(0)
}

/// Sets all that is counted here to zero.
pub(crate) fn reset() {
    ANSWERS.lock().clear();
    Event::ALL.into_iter().for_each(|event| event.counter().store(0, Ordering::Relaxed));
}

/// What the linked simulator has counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counters {
    calls: [u64; Function::ALL.len()],
    /// How often a thread entered a session that another one was in. 0 in a sound program.
    pub concurrent_use: u64,
    /// Calls with the number of a session that is not open.
    pub stale_sessions: u64,
    /// Calls with the number of an object that is not there, or may not be seen.
    pub stale_objects: u64,
    /// Operations that were to begin in a session which had not ended another one. 0 in a sound program.
    pub active_at_init: u64,
    /// Calls that `C_Finalize` found inside the module. 0 in a sound program without hangs.
    pub finalised_inside: u64,
    /// Outputs that were written after their call had returned, as a rule told.
    pub late_writes: u64,
    /// How many calls hang now.
    pub hanging: u64,
}

impl Counters {
    /// Calls of the function of this name, as `C_Sign`; none if there is no such function.
    #[must_use]
    pub fn calls_of(&self, function: &str) -> Option<u64> {
        Function::by_name(function).map(|function| self.calls[function as usize])
    }
}

/// The counters now, summed over all sessions.
#[must_use]
pub fn counters() -> Counters {
    Counters {
        calls: Function::ALL.map(|function| sessions::calls(function, None)),
        concurrent_use: sessions::overlaps(),
        stale_sessions: Event::StaleSession.count(),
        stale_objects: Event::StaleObject.count(),
        active_at_init: Event::ActiveAtInit.count(),
        finalised_inside: Event::FinalisedInside.count(),
        late_writes: Event::LateWrite.count(),
        hanging: HANGS.hanging(),
    }
}

/// Configures the linked simulator: whole before `C_Initialize`, in parts while it is in use.
///
/// # Errors
/// `CKR_ARGUMENTS_BAD`, with a line on standard error, if the text is wrong.
pub fn configure(text: &str) -> Result<(), sys::CK_RV> {
    device::configure(text)
}

/// Lets every call of the linked simulator go that hangs now, and forgets the rules by which calls hang.
pub fn release_hangs() {
    device::release_hangs();
}
