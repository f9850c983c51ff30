//! The safe face of the simulator that is linked into a program, beside its function list.

use std::collections::BTreeMap;

use cryptoki_sys as sys;
use parking_lot::Mutex;

use crate::function::Function;
use crate::hangs::HANGS;
use crate::{device, sessions};

/// Answers but `CKR_OK`, by code.
static ANSWERS: Mutex<BTreeMap<sys::CK_RV, u64>> = Mutex::new(BTreeMap::new());

/// A call has answered this.
pub(crate) fn answered(code: sys::CK_RV) {
    *ANSWERS.lock().entry(code).or_default() += 1;
}

/// How many calls have answered this code, those that a rule told to included.
pub(crate) fn answers_of(code: sys::CK_RV) -> u64 {
    ANSWERS.lock().get(&code).copied().unwrap_or(0)
}

/// Forgets the answers.
pub(crate) fn reset_answers() {
    ANSWERS.lock().clear();
}

/// What the linked simulator has counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counters {
    calls: [u64; Function::ALL.len()],
    /// How often a thread entered a session that another one was in. 0 in a sound program.
    pub concurrent_use: u64,
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
