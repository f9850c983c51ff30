//! A login to a token: what its service thread owns, and how it begins anew when the token has come back.

use std::marker::PhantomData;
use std::time::Duration;

use cryptoki_sys as sys;

use crate::error::{Error, ErrorKind, Outcome, Result, Retry};
use crate::pin::{Attempt, Counted, Pin, TokenId, UNSETTLED_MAX};
use crate::pkcs11::{self, Fault, Library, MechanismInfo, Slot, TokenInfo, refused_copy};
use crate::sync::{Arc, Mutex};
use crate::token::epoch::{CurrentEpoch, Epoch, Loss};
use crate::token::gate::Gate;
use crate::token::hold::Holds;
use crate::token::message::Messages;
use crate::token::session::{Fate, Session};
use crate::token::verify::Checks;
use crate::token::{Counts, Duty, SERVICE_LIMIT};

/// What the service thread owns.
pub(super) struct Login {
    pub(super) library: Library,
    pub(super) slot: Slot,
    pub(super) index: usize,
    /// What the token is known by.
    pub(super) info: TokenInfo,
    pub(super) epoch: Arc<Epoch>,
    pub(super) current: CurrentEpoch,
    pub(super) pin: Arc<Pin>,
    pub(super) consent: bool,
    /// Logins in a row of which nobody knows how they ended.
    pub(super) unsettled: u32,
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
        if self.epoch.is_over() {
            return Err(stale());
        }
        let mut raw = self.library.open(self.slot)?;
        raw.share_presence(self.epoch.presence());
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
        // First of all, for as long as it is away nobody is kept from clearing its record.
        let slot = self.find_again()?;
        // Another process that logs in is not waited for either: the next attempt is soon.
        let claim = self.pin.claim(id(&self.info), Duration::ZERO)?;
        // Only now: who was here before may have tried a wrong PIN.
        let info = self.library.token_info(slot)?;
        if !self.is_known(&info) {
            return Err(self.not_there().into());
        }
        // The operator who clears it may have changed the PIN, of which this engine may keep the old one.
        let attempt = claim.allow(warns(&info)).map_err(|error| {
            // Nothing was sent, and what is read again may be another PIN by then.
            let refused = error.retry() != Retry::Later;
            Missed { error, refused, perhaps: false }
        })?;
        check_lock_out(&explained(&info, &attempt), self.consent)?;
        let mut anchor = self.library.open(slot)?;
        // Before the login, for a token without room for it would be logged in to again and again.
        let session = self.library.open(slot)?;
        if let Err(missed) = log_in(&self.library, slot, &info, attempt, &mut anchor, true) {
            if is_loss(&missed.error) {
                // Gone again: their numbers may be others' when they are dropped.
                let mut session = session;
                session.abandon();
                anchor.abandon();
            }
            return Err(self.unsettled(missed));
        }
        self.unsettled = 0;
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
        self.epoch = Arc::new(self.epoch.next());
        self.current.begin(&self.epoch);
        Ok(())
    }

    /// A login of this engine with this PIN went well before. One of which nobody knows how it ended may be followed by another,
    /// if the token's flags warn of nothing by then: as one that was cut off may, and no more often in a row.
    fn unsettled(&mut self, missed: Missed) -> Missed {
        self.unsettled += u32::from(missed.perhaps);
        let refused = missed.refused && !(missed.perhaps && self.unsettled < UNSETTLED_MAX);
        Missed { refused, ..missed }
    }

    /// Asks the token for random bytes, and for what its engine has set. An error says whether it is lost.
    pub(super) fn try_out(&mut self, duty: Option<&Duty>) -> Result<(), Untried> {
        let tried = self.check_session().and_then(|()| {
            duty.map_or(Ok(()), |duty| duty(&mut self.session, self.epoch.number)).inspect_err(|error| {
                if is_loss(error) {
                    // The session is there: it has answered just now.
                    self.epoch.end(Loss::Login);
                }
            })
        });
        match tried {
            Err(error) if is_loss(&error) => Err(Untried { error, loss: Some(self.epoch.loss()) }),
            // One that is busy is not broken, and neither is one whose canary key was destroyed.
            Err(error) if matches!(error.kind(), ErrorKind::Busy | ErrorKind::KeyNotFound) => {
                tracing::warn!(token = self.index, %error, "a token could not be tried");
                Ok(())
            }
            tried => tried.map_err(Untried::from),
        }
    }

    /// Tries the session of the service thread. Where it alone is dead, the token is not lost: another takes its place. Where
    /// none can, the epoch is over, for nothing is done without it.
    pub(super) fn check_session(&mut self) -> Result<()> {
        if self.epoch.is_over() {
            return Err(stale());
        }
        match self.session.random(&mut [0; 8]) {
            Err(fault) if Fate::from(fault) == Fate::Abandon => {
                self.session.abandon();
                if let Err(fault) = self.anchor.random(&mut [0; 8]) {
                    self.epoch.end(Loss::Token);
                    return Err(fault.into());
                }
                let session = self.library.open(self.slot).inspect_err(|_| self.epoch.end(Loss::Login))?;
                self.counts.lock().add(Arc::clone(session.counts()));
                self.session = session;
                self.holds.key_changes();
                Ok(())
            }
            Err(fault) => {
                if let Fate::TokenDown(loss) = fault.into() {
                    self.epoch.end(loss);
                }
                Err(fault.into())
            }
            Ok(()) => Ok(()),
        }
    }

    /// The slot that the token is in now.
    fn find_again(&self) -> Result<Slot> {
        // Where it was, first: a slot that hangs holds up only who asks it.
        if let Ok(info) = self.library.token_info(self.slot)
            && self.is_known(&info)
        {
            return Ok(self.slot);
        }
        let present = self.library.slots().map_err(module_is_dead)?;
        let is_it = |slot: &Slot| self.library.token_info(*slot).is_ok_and(|info| self.is_known(&info));
        present.into_iter().find(is_it).ok_or_else(|| self.not_there())
    }

    /// Whether a token is this one.
    fn is_known(&self, info: &TokenInfo) -> bool {
        let same = |of: fn(&TokenInfo) -> &String| of(info) == of(&self.info);
        same(|info| &info.serial) && same(|info| &info.label) && same(|info| &info.model)
    }

    fn not_there(&self) -> Error {
        let text = format!("token {} is not there", self.info.label);
        Error::new(ErrorKind::TokenLost, Retry::Later, Outcome::NotDone).because(text)
    }
}

/// Whether the token, its sessions or the login are not there any more.
pub(super) fn is_loss(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::TokenLost | ErrorKind::SessionLost)
}

/// Which slots there are is asked of the module and of no token: one that cannot say it has lost its state, or what is
/// behind it. The client of p11-kit 0.24 answers `CKR_DEVICE_ERROR` to everything once its server has gone, and until it is
/// finalised; NSS does after a self-test has failed.
fn module_is_dead(fault: Fault) -> Error {
    let error = Error::from(fault);
    match error.kind() {
        ErrorKind::Device => {
            Error::new(ErrorKind::Module, Retry::Later, Outcome::NotDone).because(error.why().to_owned())
        }
        _ => error,
    }
}

/// Why a token is not back.
#[derive(Debug)]
pub(crate) struct Missed {
    pub(crate) error: Error,
    /// A login has failed, and is not tried again.
    pub(crate) refused: bool,
    /// Nobody knows whether that login counts as a wrong try.
    pub(super) perhaps: bool,
}

impl<E: Into<Error>> From<E> for Missed {
    fn from(error: E) -> Self {
        Self { error: error.into(), refused: false, perhaps: false }
    }
}

/// Whom to tell the end of an attempt: also if the thread that makes it does not come to it.
pub(super) struct Answer<E: From<Error>, F: FnOnce(Result<(), E>)>(Option<F>, PhantomData<fn(E)>);

impl<E: From<Error>, F: FnOnce(Result<(), E>)> Answer<E, F> {
    pub(super) const fn new(done: F) -> Self {
        Self(Some(done), PhantomData)
    }

    pub(super) fn give(mut self, result: Result<(), E>) {
        if let Some(done) = self.0.take() {
            done(result);
        }
    }
}

impl<E: From<Error>, F: FnOnce(Result<(), E>)> Drop for Answer<E, F> {
    fn drop(&mut self) {
        if let Some(done) = self.0.take() {
            done(Err(Error::internal("the token's service thread did not come to it").into()));
        }
    }
}

/// Why a token failed when it was tried, and whether it is lost.
#[derive(Debug)]
pub(crate) struct Untried {
    pub(crate) error: Error,
    pub(crate) loss: Option<Loss>,
}

impl From<Error> for Untried {
    fn from(error: Error) -> Self {
        Self { error, loss: None }
    }
}

/// Objects of an epoch that is over.
pub(crate) fn stale() -> Error {
    Error::new(ErrorKind::SessionLost, Retry::Later, Outcome::NotDone).because("the token was lost meanwhile")
}

/// A token that was logged in to, and its first sessions.
pub(crate) struct Entered {
    pub(crate) info: TokenInfo,
    pub(crate) mechanisms: Vec<MechanismInfo>,
    /// The one that logged in.
    pub(crate) anchor: pkcs11::Session,
    pub(crate) session: pkcs11::Session,
}

/// Logs in to a token for the first time: once, or where nobody knows which of two PINs it has and both are here, once with
/// each.
pub(crate) fn enter(
    library: &Library,
    slot: Slot,
    known: &TokenInfo,
    pin: &Pin,
    consent: bool,
) -> Result<Entered> {
    let mut opened = None;
    for is_last in [false, true] {
        let claim = pin.claim(id(known), SERVICE_LIMIT)?;
        // Only now: who was here before may have tried a wrong PIN.
        let info = library.token_info(slot)?;
        let attempt = claim.allow(warns(&info))?;
        check_lock_out(&explained(&info, &attempt), consent)?;
        let (mechanisms, mut anchor, session) = match opened.take() {
            Some(opened) => opened,
            None => (library.mechanisms(slot)?, library.open(slot)?, library.open(slot)?),
        };
        let may_try_other = attempt.settles() && !is_last;
        match log_in(library, slot, &info, attempt, &mut anchor, false) {
            Ok(()) => return Ok(Entered { info, mechanisms, anchor, session }),
            Err(missed) if may_try_other && missed.error.kind() == ErrorKind::PinRefused => {
                opened = Some((mechanisms, anchor, session));
            }
            Err(missed) => return Err(missed.error),
        }
    }
    Err(Error::internal("a login that came to no end"))
}

/// Logs in, once. Where another engine of this process has done so, that login holds for all of its sessions.
///
/// # Errors
/// With `refused`, unless it is certain that the token counts no wrong try and that another attempt may help.
pub(super) fn log_in(
    library: &Library,
    slot: Slot,
    info: &TokenInfo,
    attempt: Attempt<'_>,
    session: &mut pkcs11::Session,
    was_right: bool,
) -> Result<(), Missed> {
    let keypad = info.flags & sys::CKF_PROTECTED_AUTHENTICATION_PATH != 0;
    let (remedy, settles) = (attempt.remedy(), attempt.settles());
    // A PIN that nobody has logged in with yet is taken for wrong where it may be.
    let counts = |fault: &Fault| match counted(*fault) {
        Counted::Perhaps if !was_right => Counted::Yes,
        counted => counted,
    };
    match attempt.send(keypad, |pin| session.login(pin), counts)? {
        Ok(()) => library.note_login(slot),
        Err(fault) if fault.is(sys::CKR_USER_ALREADY_LOGGED_IN) && library.may_be_logged_in(slot) => {}
        Err(fault) if fault.is(sys::CKR_USER_ALREADY_LOGGED_IN) => {
            let error = refused_copy("a login to one holds for the other");
            return Err(Missed { error, refused: true, perhaps: false });
        }
        Err(fault) => {
            let missed = missed(fault, remedy);
            // It was one of two PINs: what is written down says whether the other one may be tried.
            return Err(Missed { refused: missed.refused && !settles, ..missed });
        }
    }
    Ok(())
}

/// Why a login has failed. Unless it is certain that it did not count, only a person can help: who tried again at once
/// would send the PIN once more.
fn missed(fault: Fault, remedy: Option<String>) -> Missed {
    use ErrorKind::{Busy, SessionLost, TokenLost};
    let error = Error::from(fault);
    let counted = counted(fault);
    if counted == Counted::No {
        let refused = !matches!(error.kind(), Busy | SessionLost | TokenLost);
        return Missed { error, refused, perhaps: false };
    }
    let said = match remedy {
        Some(remedy) => format!("{}; {remedy}", error.why()),
        None => error.why().to_owned(),
    };
    let error = Error::new(error.kind(), Retry::Operator, error.outcome()).because(said);
    Missed { error, refused: true, perhaps: counted == Counted::Perhaps }
}

/// Whether a login that was answered so counts as a wrong try. Certainly not, if the token or the session was gone before
/// the call, the token had no room, or the module was not there.
fn counted(fault: Fault) -> Counted {
    use ErrorKind::{Busy, Forked, Module, PinLocked, PinRefused, SessionLost, TokenLost};
    // Somebody at the token has broken it off, and would be asked again and again.
    if fault.is(sys::CKR_FUNCTION_CANCELED) {
        return Counted::Yes;
    }
    let class = fault.class();
    let harmless = matches!(class.kind, Busy | Forked | Module | SessionLost | TokenLost);
    if (harmless && class.outcome == Outcome::NotDone) || fault.is(sys::CKR_USER_ALREADY_LOGGED_IN) {
        return Counted::No;
    }
    // What has another length is another PIN.
    if fault.is(sys::CKR_PIN_INCORRECT) || fault.is(sys::CKR_PIN_LEN_RANGE) {
        return Counted::Wrong;
    }
    if matches!(class.kind, PinRefused | PinLocked) { Counted::Yes } else { Counted::Perhaps }
}

/// What records of logins know a token by.
pub(crate) fn id(info: &TokenInfo) -> TokenId<'_> {
    let TokenInfo { serial, label, model, manufacturer, .. } = info;
    TokenId { serial, label, model, manufacturer }
}

/// Whether the token's flags say that wrong PINs were tried since the last login.
pub(super) fn warns(info: &TokenInfo) -> bool {
    let warnings = sys::CKF_USER_PIN_COUNT_LOW | sys::CKF_USER_PIN_FINAL_TRY | sys::CKF_USER_PIN_LOCKED;
    info.flags & warnings != 0
}

/// What a token says of itself, without a warning of a wrong try that was written down, and made, to find out which of two
/// PINs it has. That the next one locks it is a warning all the same.
pub(super) fn explained(info: &TokenInfo, attempt: &Attempt<'_>) -> TokenInfo {
    let explained = if attempt.explains_warning() { sys::CKF_USER_PIN_COUNT_LOW } else { 0 };
    TokenInfo { flags: info.flags & !explained, ..info.clone() }
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
    use crate::pkcs11::Function;

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
            sessions: crate::pkcs11::SessionCounts::default(),
            clock: None,
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
    fn only_a_login_that_certainly_did_not_count_leaves_the_next_one_free() {
        let counted = |code| counted(Fault::new(Function::Login, code)) != Counted::No;
        let gone_before = [sys::CKR_SESSION_HANDLE_INVALID, sys::CKR_TOKEN_NOT_PRESENT];
        let no_room = [sys::CKR_SESSION_COUNT, sys::CKR_HOST_MEMORY, sys::CKR_DEVICE_MEMORY];
        let others = [sys::CKR_USER_ALREADY_LOGGED_IN, sys::CKR_CRYPTOKI_NOT_INITIALIZED];
        for code in gone_before.into_iter().chain(no_room).chain(others) {
            assert!(!counted(code), "0x{code:x}");
        }
        let pin = [
            sys::CKR_PIN_INCORRECT,
            sys::CKR_PIN_INVALID,
            sys::CKR_PIN_LEN_RANGE,
            sys::CKR_PIN_EXPIRED,
            sys::CKR_PIN_LOCKED,
            sys::CKR_USER_PIN_NOT_INITIALIZED,
        ];
        let unknown = [sys::CKR_GENERAL_ERROR, sys::CKR_FUNCTION_FAILED, sys::CKR_DEVICE_ERROR];
        let others = [sys::CKR_DEVICE_REMOVED, sys::CKR_SESSION_CLOSED, sys::CKR_FUNCTION_CANCELED];
        for code in pin.into_iter().chain(unknown).chain(others).chain([sys::CKR_VENDOR_DEFINED]) {
            assert!(counted(code), "0x{code:x}");
            let missed = missed(Fault::new(Function::Login, code), None);
            assert!(missed.refused && missed.error.retry() == Retry::Operator, "0x{code:x}");
        }
        assert!(!missed(Fault::new(Function::Login, sys::CKR_TOKEN_NOT_PRESENT), None).refused);
    }

    #[test]
    fn a_refusal_says_what_a_person_has_to_do_and_a_token_that_is_gone_does_not() {
        let said = |code| {
            let missed = missed(Fault::new(Function::Login, code), Some("do this".to_owned()));
            missed.error.to_string()
        };
        assert!(said(sys::CKR_PIN_INCORRECT).ends_with("C_Login answered CKR_PIN_INCORRECT; do this"));
        assert!(said(sys::CKR_TOKEN_NOT_PRESENT).ends_with("C_Login answered CKR_TOKEN_NOT_PRESENT"));
    }

    #[test]
    fn consent_sends_the_pin_despite_a_warning_but_never_to_a_locked_token() {
        assert!(check_lock_out(&info(sys::CKF_USER_PIN_COUNT_LOW), true).is_ok());
        assert!(check_lock_out(&info(sys::CKF_USER_PIN_FINAL_TRY), true).is_ok());
        let locked = info(sys::CKF_USER_PIN_LOCKED | sys::CKF_USER_PIN_COUNT_LOW);
        assert_eq!(check_lock_out(&locked, true).unwrap_err().kind(), ErrorKind::PinLocked);
    }
}
