//! A login to a token: what its service thread owns, and how it begins anew when the token has come back.

use std::time::Duration;

use cryptoki_sys as sys;

use crate::error::{Error, ErrorKind, Outcome, Result, Retry};
use crate::pin::Pin;
use crate::pkcs11::{self, Library, Slot, TokenInfo, refused_copy};
use crate::sync::{Arc, Mutex};
use crate::token::Counts;
use crate::token::epoch::Epoch;
use crate::token::gate::Gate;
use crate::token::hold::Holds;
use crate::token::message::Messages;
use crate::token::session::{Fate, Session};
use crate::token::verify::Checks;

/// What the service thread owns.
pub(super) struct Login {
    pub(super) library: Library,
    pub(super) slot: Slot,
    pub(super) index: usize,
    /// What the token is known by.
    pub(super) info: TokenInfo,
    pub(super) epoch: Arc<Epoch>,
    pub(super) current: Arc<Mutex<Arc<Epoch>>>,
    pub(super) pin: Arc<Pin>,
    pub(super) consent: bool,
    pub(super) gate: Arc<Gate>,
    /// For finding keys and writing objects.
    pub(super) session: pkcs11::Session,
    pub(super) counts: Arc<Mutex<Counts>>,
    pub(super) holds: Arc<Holds>,
    pub(super) checks: Arc<Checks>,
    /// Whether sessions may keep messages open, by direction.
    pub(super) messages: [bool; 2],
    /// Keeps the login alive: a token logs out when its last session closes (PKCS#11 2.40, 5.6). The last
    /// field, so that it closes last.
    pub(super) anchor: pkcs11::Session,
}

impl Login {
    pub(super) fn open(&mut self) -> Result<Session> {
        let raw = self.library.open(self.slot)?;
        self.counts.lock().add(Arc::clone(raw.counts()));
        let messages = Messages::new(|direction| self.messages[direction as usize]);
        let (epoch, holds, checks) =
            (Arc::clone(&self.epoch), Arc::clone(&self.holds), Arc::clone(&self.checks));
        Ok(Session::new(raw, self.index, epoch, messages, holds, checks))
    }

    /// Opens the token's own sessions anew and logs in, for a new epoch. The token is known by its serial number, label
    /// and model, for its slot may be another.
    ///
    /// # Errors
    /// With `refused`, once a login has failed in a way that a person has to look at: a wrong PIN is sent once.
    pub(super) fn begin_epoch(&mut self) -> Result<(), Missed> {
        // Without a wait: who has it may wait for this thread.
        let _pass = self.gate.pass(Duration::ZERO)?;
        let info = self.find_again()?;
        check_lock_out(&info, self.consent)?;
        let slot = info.slot;
        let mut anchor = self.library.open(slot)?;
        log_in(&self.library, slot, &info, &self.pin, &mut anchor).map_err(Missed::of_login)?;
        let session = self.library.open(slot)?;
        let mut counts = self.counts.lock();
        counts.add(Arc::clone(anchor.counts()));
        counts.add(Arc::clone(session.counts()));
        drop(counts);
        let gone = self.epoch.is_gone();
        for (old, new) in [(&mut self.session, session), (&mut self.anchor, anchor)] {
            let mut old = std::mem::replace(old, new);
            if gone {
                old.abandon();
            }
        }
        self.slot = slot;
        self.epoch = Arc::new(Epoch::new(self.epoch.number + 1));
        *self.current.lock() = Arc::clone(&self.epoch);
        Ok(())
    }

    /// Tries the session of the service thread. Where it alone is dead, the token is not lost: another takes its place.
    pub(super) fn check_session(&mut self) -> Result<()> {
        match self.session.random(&mut [0; 8]) {
            Err(fault) if Fate::from(fault) == Fate::Abandon => {
                self.session.abandon();
                self.anchor.random(&mut [0; 8])?;
                let session = self.library.open(self.slot)?;
                self.counts.lock().add(Arc::clone(session.counts()));
                self.session = session;
                self.holds.key_changes();
                Ok(())
            }
            tried => Ok(tried?),
        }
    }

    fn find_again(&self) -> Result<TokenInfo> {
        let known = |info: &TokenInfo| {
            let same = |of: fn(&TokenInfo) -> &String| of(info) == of(&self.info);
            same(|info| &info.serial) && same(|info| &info.label) && same(|info| &info.model)
        };
        // Where it was, first: a slot that hangs holds up only who asks it.
        if let Ok(info) = self.library.token_info(self.slot)
            && known(&info)
        {
            return Ok(info);
        }
        let mut present =
            self.library.slots()?.into_iter().filter_map(|slot| self.library.token_info(slot).ok());
        present.find(known).ok_or_else(|| {
            let text = format!("token {} is not there", self.info.label);
            Error::new(ErrorKind::TokenLost, Retry::Later, Outcome::NotDone).because(text)
        })
    }
}

/// Why a token is not back.
#[derive(Debug)]
pub(crate) struct Missed {
    pub(crate) error: Error,
    /// A login has failed, and is not tried again.
    pub(crate) refused: bool,
}

impl Missed {
    /// A login of which nobody knows whether it counted as a wrong try is treated as one. Where the token or the session
    /// was not there, or had no room, it was not.
    fn of_login(error: Error) -> Self {
        use ErrorKind::{Busy, PinUnavailable, SessionLost, TokenLost};
        let harmless = matches!(error.kind(), Busy | PinUnavailable | SessionLost | TokenLost);
        Self { refused: !harmless, error }
    }
}

impl<E: Into<Error>> From<E> for Missed {
    fn from(error: E) -> Self {
        Self { error: error.into(), refused: false }
    }
}

/// Whom to tell the end of an attempt: also if the thread that makes it ends before.
pub(super) struct Answer<F: FnOnce(Result<(), Missed>)>(pub(super) Option<F>);

impl<F: FnOnce(Result<(), Missed>)> Answer<F> {
    pub(super) fn give(mut self, result: Result<(), Missed>) {
        if let Some(done) = self.0.take() {
            done(result);
        }
    }
}

impl<F: FnOnce(Result<(), Missed>)> Drop for Answer<F> {
    fn drop(&mut self) {
        if let Some(done) = self.0.take() {
            done(Err(Missed::from(Error::internal("the token's service thread has ended"))));
        }
    }
}

/// Objects of an epoch that is over.
pub(super) fn stale() -> Error {
    Error::new(ErrorKind::SessionLost, Retry::Later, Outcome::NotDone).because("the token was lost meanwhile")
}

/// Logs in, once. Where another engine of this process has done so, that login holds for all of its sessions.
pub(super) fn log_in(
    library: &Library,
    slot: Slot,
    info: &TokenInfo,
    pin: &Pin,
    session: &mut pkcs11::Session,
) -> Result<()> {
    let keypad = info.flags & sys::CKF_PROTECTED_AUTHENTICATION_PATH != 0;
    match pin.show(keypad, |pin| session.login(pin))? {
        Ok(()) => library.note_login(slot),
        Err(fault) if fault.is(sys::CKR_USER_ALREADY_LOGGED_IN) && library.may_be_logged_in(slot) => {}
        Err(fault) if fault.is(sys::CKR_USER_ALREADY_LOGGED_IN) => {
            return Err(refused_copy("a login to one holds for the other"));
        }
        Err(fault) => return Err(fault.into()),
    }
    Ok(())
}

/// PKCS#11 2.40, `CK_TOKEN_INFO`: the flags say that the next wrong PIN locks, or that it is locked.
pub(super) fn check_lock_out(info: &TokenInfo, consent: bool) -> Result<()> {
    let why = [
        (sys::CKF_USER_PIN_LOCKED, "is locked"),
        (sys::CKF_USER_PIN_FINAL_TRY, "would be locked by one more wrong try; it is sent with consent only"),
        (
            sys::CKF_USER_PIN_COUNT_LOW,
            "has been tried wrongly since the last login; it is sent with consent only",
        ),
    ];
    let flags = if consent { info.flags & sys::CKF_USER_PIN_LOCKED } else { info.flags };
    match why.iter().find(|(flag, _)| flags & flag != 0) {
        Some((_, why)) => {
            Err(Error::operator(ErrorKind::PinLocked, format!("token {}: the user PIN {why}", info.label)))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(flags: u64) -> TokenInfo {
        let text = || "pay-1".to_owned();
        TokenInfo {
            slot: Slot::numbered(1),
            slot_description: text(),
            slot_manufacturer: text(),
            label: text(),
            serial: text(),
            model: text(),
            manufacturer: text(),
            flags,
            sessions_max: None,
        }
    }

    #[test]
    fn no_pin_is_sent_to_a_token_whose_flags_say_that_a_wrong_one_could_lock_it() {
        assert!(check_lock_out(&info(0), false).is_ok());
        for flag in [sys::CKF_USER_PIN_LOCKED, sys::CKF_USER_PIN_FINAL_TRY, sys::CKF_USER_PIN_COUNT_LOW] {
            assert_eq!(check_lock_out(&info(flag), false).unwrap_err().kind(), ErrorKind::PinLocked);
        }
    }

    #[test]
    fn consent_sends_the_pin_despite_a_warning_but_never_to_a_locked_token() {
        assert!(check_lock_out(&info(sys::CKF_USER_PIN_COUNT_LOW), true).is_ok());
        assert!(check_lock_out(&info(sys::CKF_USER_PIN_FINAL_TRY), true).is_ok());
        let locked = info(sys::CKF_USER_PIN_LOCKED | sys::CKF_USER_PIN_COUNT_LOW);
        assert_eq!(check_lock_out(&locked, true).unwrap_err().kind(), ErrorKind::PinLocked);
    }
}
