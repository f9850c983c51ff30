//! A change of the token's PIN on its service session, while its sessions go on.

use std::time::Duration;

use cryptoki_sys as sys;

use crate::error::{Error, ErrorKind, Outcome, Result};
use crate::pin::{Failed, Side, Stage, TURN_LIMIT, Turn};
use crate::pkcs11::Fault;
use crate::sync::Arc;
use crate::token::epoch::{Epoch, Loss};
use crate::token::login::{Login, check_lock_out, id, stale};
use crate::token::session::Fate;
use crate::token::{SERVICE_LIMIT, Token};

/// What came of a change of the token's PIN.
#[derive(Debug)]
pub(crate) enum Changed {
    Done,
    /// It had it already.
    Already,
    /// The token has the PIN that it had.
    No(Error, Option<Lost>),
    /// Nobody knows.
    Unknown(Error, Option<Lost>),
}

/// That the token, or its login, was lost in this epoch: the engine is to be told.
#[derive(Debug)]
pub(crate) struct Lost {
    pub(crate) loss: Loss,
    pub(crate) epoch: Arc<Epoch>,
}

impl Token {
    /// The lengths of a PIN that the token takes, in bytes.
    ///
    /// # Errors
    /// If it is not in service.
    pub(crate) fn pin_lengths(&self) -> Result<(usize, usize)> {
        self.service.call(SERVICE_LIMIT, |login| match login.epoch.is_over() {
            true => Err(stale()),
            false => Ok(login.library.pin_lengths(login.slot)?),
        })
    }

    /// Gives the token one of the two PINs of a rotation in the place of the other. One of which nobody knows whether the
    /// token has it is given once more, if the session has outlived that: the answer tells.
    ///
    /// # Blocking
    /// Until the token has answered, a minute at most: then nobody knows, and what it answers later is written down
    /// all the same.
    pub(crate) fn change_pin(&self, to: Side) -> Changed {
        let changed = self.change_pin_once(to);
        match changed {
            Changed::Unknown(error, None) if error.kind() != ErrorKind::Hung && !self.epoch.is_over() => {
                match self.change_pin_once(to) {
                    Changed::Done | Changed::Already => Changed::Done,
                    // What came first may have changed it.
                    Changed::No(_, lost) | Changed::Unknown(_, lost) => Changed::Unknown(error, lost),
                }
            }
            changed => changed,
        }
    }

    fn change_pin_once(&self, to: Side) -> Changed {
        let pass = match self.pass_gate() {
            Ok(pass) => pass,
            Err(error) => return Changed::No(error, None),
        };
        let change = move |login: &mut Login| {
            let _pass = pass;
            Ok(login.change_pin(to))
        };
        self.service.call(SERVICE_LIMIT + TURN_LIMIT, change).unwrap_or_else(|error| match error.outcome() {
            Outcome::NotDone => Changed::No(error, None),
            _ => Changed::Unknown(error, None),
        })
    }
}

impl Login {
    fn change_pin(&mut self, to: Side) -> Changed {
        let pin = Arc::clone(&self.pin);
        let info = self.info.clone();
        let turn = match pin.turn(id(&info), TURN_LIMIT) {
            Ok(turn) => turn,
            Err(error) => return Changed::No(error, None),
        };
        let stage = turn.stage();
        if stage == to_stage(to) {
            return Changed::Already;
        }
        if self.epoch.is_over() {
            return if stage == Stage::Changing {
                Changed::Unknown(stale(), None)
            } else {
                Changed::No(stale(), None)
            };
        }
        match self.take(turn, to) {
            // As before, and nobody knew.
            Changed::No(error, lost) if stage == Stage::Changing => Changed::Unknown(error, lost),
            changed => changed,
        }
    }

    fn take(&mut self, turn: Turn<'_>, to: Side) -> Changed {
        // Who tries a wrong PIN elsewhere meanwhile would have this one be the last try.
        let flags = self.library.token_info(self.slot).map_err(Error::from).and_then(|mut info| {
            if turn.explains_warning() {
                info.flags &= !sys::CKF_USER_PIN_COUNT_LOW;
            }
            check_lock_out(&info, false)
        });
        if let Err(error) = flags {
            return Changed::No(error, None);
        }
        let session = &mut self.session;
        match turn.set(to, |old, new| session.set_pin(old, new), |fault: &Fault| failed(*fault)) {
            Ok(Ok(())) => Changed::Done,
            Ok(Err(fault)) => {
                let lost = self.after(fault);
                match failed(fault) {
                    Failed::Unknown => Changed::Unknown(fault.into(), lost),
                    Failed::Unchanged | Failed::NotItsPin => Changed::No(fault.into(), lost),
                }
            }
            Err(error) => Changed::No(error, None),
        }
    }

    /// What becomes of the session after a call that failed; the epoch, if the token is lost.
    fn after(&mut self, fault: Fault) -> Option<Lost> {
        let loss = match Fate::from(fault) {
            Fate::TokenDown(loss) => Some(loss),
            _ => self
                .check_session()
                .is_err()
                .then(|| self.epoch.is_over().then(|| self.epoch.loss()))
                .flatten(),
        };
        loss.map(|loss| Lost { loss, epoch: Arc::clone(&self.epoch) })
    }
}

const fn to_stage(side: Side) -> Stage {
    match side {
        Side::Old => Stage::Old,
        Side::New => Stage::New,
    }
}

/// What a change that was answered so came to. "If a function fails, the token is as it was before" holds unless the reply may
/// have been lost, or the module says that it does not know (PKCS#11 2.40, 5.1, `CKR_GENERAL_ERROR`).
fn failed(fault: Fault) -> Failed {
    if fault.is(sys::CKR_PIN_INCORRECT) {
        return Failed::NotItsPin;
    }
    if fault.class().outcome == Outcome::NotDone { Failed::Unchanged } else { Failed::Unknown }
}

/// How long the engine waits for another that changes the PIN.
pub(crate) const ALONE_LIMIT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pkcs11::Function;

    #[test]
    fn what_a_token_refuses_by_itself_changes_nothing_and_a_fault_leaves_it_open() {
        let of = |code| failed(Fault::new(Function::SetPIN, code));
        let refused = [
            sys::CKR_PIN_INVALID,
            sys::CKR_PIN_LEN_RANGE,
            sys::CKR_PIN_EXPIRED,
            sys::CKR_PIN_LOCKED,
            sys::CKR_PIN_TOO_WEAK,
            sys::CKR_TOKEN_WRITE_PROTECTED,
            sys::CKR_SESSION_READ_ONLY,
            sys::CKR_SESSION_HANDLE_INVALID,
            sys::CKR_FUNCTION_NOT_SUPPORTED,
        ];
        for code in refused {
            assert_eq!(of(code), Failed::Unchanged, "0x{code:x}");
        }
        let open = [
            sys::CKR_GENERAL_ERROR,
            sys::CKR_FUNCTION_FAILED,
            sys::CKR_DEVICE_ERROR,
            sys::CKR_DEVICE_REMOVED,
            sys::CKR_SESSION_CLOSED,
            sys::CKR_VENDOR_DEFINED,
        ];
        for code in open {
            assert_eq!(of(code), Failed::Unknown, "0x{code:x}");
        }
        assert_eq!(of(sys::CKR_PIN_INCORRECT), Failed::NotItsPin);
    }
}
