//! One token: found by label or serial, logged in to once, and the sessions it gives.

pub(crate) mod facts;
pub(crate) mod service;
pub(crate) mod session;
pub(crate) mod task;

use std::time::Duration;

use cryptoki_sys as sys;
use secrecy::SecretString;

use crate::error::{Error, ErrorKind, Result};
use crate::pkcs11::{self, CallCounts, Library, MechanismInfo, Slot, TokenInfo};
use crate::sync::{Arc, CachePadded, Mutex};
use crate::token::service::Service;
use crate::token::session::Session;

/// Longest time that the engine waits for a token's service thread while it starts.
const SERVICE_LIMIT: Duration = Duration::from_secs(60);

/// A token that the engine is logged in to.
pub(crate) struct Token {
    pub(crate) index: usize,
    pub(crate) info: TokenInfo,
    pub(crate) mechanisms: Vec<MechanismInfo>,
    service: Service<Login>,
    counts: Arc<Mutex<Vec<Arc<CachePadded<CallCounts>>>>>,
}

/// What the service thread owns.
struct Login {
    library: Library,
    slot: Slot,
    index: usize,
    epoch: u64,
    /// For finding keys and writing objects.
    session: pkcs11::Session,
    counts: Arc<Mutex<Vec<Arc<CachePadded<CallCounts>>>>>,
    /// Keeps the login alive: a token logs out when its last session closes (PKCS#11 2.40, 5.6). The last
    /// field, so that it closes last.
    _anchor: pkcs11::Session,
}

impl Token {
    /// Logs in, once, and starts the service thread.
    ///
    /// The lock-out flags are read first: where a wrong PIN could lock the token, none is sent.
    pub(crate) fn log_in(library: &Library, slot: Slot, index: usize, pin: &SecretString) -> Result<Self> {
        let info = library.token_info(slot)?;
        check_lock_out(&info)?;
        let mechanisms = library.mechanisms(slot)?;
        let mut anchor = library.open(slot)?;
        match anchor.login(pin) {
            Ok(()) => {}
            // Another engine of this process has logged in: a login holds for all of its sessions.
            Err(fault) if fault.is(sys::CKR_USER_ALREADY_LOGGED_IN) => {}
            Err(fault) => return Err(fault.into()),
        }
        let session = library.open(slot)?;
        let counts = Arc::new(Mutex::new(vec![Arc::clone(anchor.counts()), Arc::clone(session.counts())]));
        let login = Login {
            library: library.clone(),
            slot,
            index,
            epoch: 1,
            session,
            counts: Arc::clone(&counts),
            _anchor: anchor,
        };
        let service = Service::start(format!("hsmux-{index}-service"), login)?;
        Ok(Self { index, info, mechanisms, service, counts })
    }

    /// Opens a session for requests.
    pub(crate) fn open(&self) -> Result<Session> {
        self.service.call(SERVICE_LIMIT, Login::open)
    }

    /// Has a session opened and tried (a few random bytes) on the service thread, then passed to `done` there.
    pub(crate) fn reopen(&self, done: impl FnOnce(Result<Session>) + Send + 'static) {
        self.service.post(|login| {
            let tried = login.session.random(&mut [0; 8]).map_err(Error::from);
            done(tried.and_then(|()| login.open()));
        });
    }

    /// Has something done with the service session, and waits for it.
    pub(crate) fn with_service<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut pkcs11::Session, u64) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        self.service.call(SERVICE_LIMIT, |login| job(&mut login.session, login.epoch))
    }

    /// PKCS#11 calls of all sessions that the token ever had, by function.
    pub(crate) fn add_counts(&self, sum: &CallCounts) {
        self.counts.lock().iter().for_each(|counts| sum.add(counts));
    }

    /// Whether the token lists a mechanism.
    pub(crate) fn offers(&self, mechanism: u64) -> bool {
        self.mechanisms.iter().any(|info| info.mechanism == mechanism)
    }
}

impl Login {
    fn open(&mut self) -> Result<Session> {
        let raw = self.library.open(self.slot)?;
        self.counts.lock().push(Arc::clone(raw.counts()));
        Ok(Session::new(raw, self.index, self.epoch))
    }
}

/// PKCS#11 2.40, `CK_TOKEN_INFO`: the flags say that the next wrong PIN locks, or that it is locked.
fn check_lock_out(info: &TokenInfo) -> Result<()> {
    let why = [
        (sys::CKF_USER_PIN_LOCKED, "is locked"),
        (sys::CKF_USER_PIN_FINAL_TRY, "would be locked by one more wrong try"),
        (sys::CKF_USER_PIN_COUNT_LOW, "has been tried wrongly since the last login"),
    ];
    match why.iter().find(|(flag, _)| info.flags & flag != 0) {
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
        assert!(check_lock_out(&info(0)).is_ok());
        for flag in [sys::CKF_USER_PIN_LOCKED, sys::CKF_USER_PIN_FINAL_TRY, sys::CKF_USER_PIN_COUNT_LOW] {
            assert_eq!(check_lock_out(&info(flag)).unwrap_err().kind(), ErrorKind::PinLocked);
        }
    }
}
