//! Gates: what writes to a token goes one at a time, whichever instance and engine of this process it comes through.
//!
//! Instances of a module share the files of a token as processes do, and SoftHSM2 2.6.1 does not bear two that write
//! at once: 11 of 80 pairs of logins that began together failed with `CKR_GENERAL_ERROR`, none of 80 one by one.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Weak;
use std::time::Duration;

use once_cell::sync::Lazy;

use crate::clock::now;
use crate::error::{Error, ErrorKind, Outcome, Result, Retry};
use crate::pkcs11::TokenInfo;
use crate::sync::{Arc, Condvar, Mutex};

/// A lock that may change threads, and is held across calls: whoever writes has it for as long as the module writes.
pub(crate) struct Gate {
    held: Mutex<bool>,
    freed: Condvar,
}

/// Who has passed a gate; the next one may when it is dropped.
pub(crate) struct Pass(Arc<Gate>);

/// A module by its path, or one of its tokens by serial number and label.
type GateId = (PathBuf, Option<(String, String)>);

/// Gates of this process that somebody has.
static GATES: Lazy<Mutex<HashMap<GateId, Weak<Gate>>>> = Lazy::new(Mutex::default);

impl Gate {
    /// The gate by which engines start on a module: a token that is looked at while another instance logs in to it
    /// may be seen half written.
    pub(crate) fn of_module(module: &Path) -> Arc<Self> {
        Self::of((module.to_owned(), None))
    }

    /// The gate of a token.
    pub(crate) fn of_token(module: &Path, token: &TokenInfo) -> Arc<Self> {
        Self::of((module.to_owned(), Some((token.serial.clone(), token.label.clone()))))
    }

    /// Waits for the one before, at most for `limit`.
    ///
    /// # Errors
    /// `Busy`.
    pub(crate) fn pass(self: &Arc<Self>, limit: Duration) -> Result<Pass> {
        let until = now().after(limit);
        let mut held = self.held.lock();
        while *held {
            if self.freed.wait_for(&mut held, now().until(until)).timed_out() && *held {
                return Err(Error::new(ErrorKind::Busy, Retry::Later, Outcome::NotDone)
                    .because("another login or write on this token has not come back"));
            }
        }
        *held = true;
        Ok(Pass(Arc::clone(self)))
    }

    fn of(id: GateId) -> Arc<Self> {
        let mut gates = GATES.lock();
        if let Some(gate) = gates.get(&id).and_then(Weak::upgrade) {
            return gate;
        }
        gates.retain(|_, gate| gate.strong_count() > 0);
        let gate = Arc::new(Self { held: Mutex::new(false), freed: Condvar::new() });
        gates.insert(id, Arc::downgrade(&gate));
        gate
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        *self.0.held.lock() = false;
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn one_passes_at_a_time_and_who_waits_too_long_hears_of_it() {
        let module = Path::new("gate-1");
        let first = Gate::of_module(module).pass(LONG).unwrap();
        let error = Gate::of_module(module).pass(Duration::ZERO).map(drop).unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Busy, Outcome::NotDone));
        let waiting = std::thread::spawn(move || Gate::of_module(module).pass(LONG).is_ok());
        drop(first);
        assert!(waiting.join().unwrap());
        assert!(Gate::of_module(module).pass(Duration::ZERO).is_ok(), "it is free again");
    }

    #[test]
    fn a_pass_may_be_given_back_by_another_thread() {
        let module = Path::new("gate-2");
        let pass = Gate::of_module(module).pass(LONG).unwrap();
        std::thread::spawn(move || drop(pass)).join().unwrap();
        assert!(Gate::of_module(module).pass(Duration::ZERO).is_ok());
    }

    #[test]
    fn gates_that_nobody_has_are_forgotten() {
        let gate = Gate::of_module(Path::new("gate-3"));
        assert!(Arc::ptr_eq(&gate, &Gate::of_module(Path::new("gate-3"))));
        drop(gate);
        let _other = Gate::of_module(Path::new("gate-4"));
        assert!(!GATES.lock().contains_key(&(PathBuf::from("gate-3"), None)));
    }
}
