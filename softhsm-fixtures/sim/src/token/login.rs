//! The login of a token's user: PIN, tries, and the log of both.

use std::fs::OpenOptions;
use std::io::Write;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use cryptoki_sys as sys;

use crate::config::Config;

#[derive(Debug)]
pub(super) struct Login {
    pub(super) pin: String,
    tries_max: u32,
    pub(super) keypad: bool,
    /// Where PINs are written down.
    log: Option<PathBuf>,
    failures: u32,
    pub(super) user: bool,
}

/// Lengths of a PIN that may be set. The configured one may have any.
pub(crate) const PIN_LEN: RangeInclusive<usize> = 4..=64;

/// How a PIN is written down.
const RIGHT: &str = "right";
const WRONG: &str = "wrong";

impl Login {
    pub(super) fn new(config: &Config) -> Self {
        let (pin, tries_max, keypad) = (config.pin.clone(), config.pin_tries, config.keypad);
        Self { pin, tries_max, keypad, log: config.pin_log.clone(), failures: 0, user: false }
    }

    /// Writes down that somebody is about to use this PIN; none is what somebody types at the keypad.
    pub(super) fn note(&self, label: &str, pin: Option<&[u8]>) -> Result<(), sys::CK_RV> {
        let Some(log) = &self.log else { return Ok(()) };
        let right = pin.map_or(self.keypad, |pin| pin == self.pin.as_bytes());
        let line = format!("{label} {}\n", if right { RIGHT } else { WRONG });
        // One write, so that lines of several processes do not mix.
        let noted = OpenOptions::new().create(true).append(true).open(log);
        noted.and_then(|mut log| log.write_all(line.as_bytes())).map_err(|_| sys::CKR_DEVICE_ERROR)
    }

    /// Counts the wrong tries that are written down, if they are.
    pub(super) fn count_failures(&mut self, label: &str) {
        let Some(log) = &self.log else { return };
        // None, if nobody has tried yet.
        let log = std::fs::read_to_string(log).unwrap_or_default();
        self.failures = 0;
        for (of, how) in log.lines().filter_map(|line| line.split_once(' ')) {
            match how {
                _ if of != label || self.locked() => {}
                WRONG => self.failures += 1,
                _ => self.failures = 0,
            }
        }
    }

    /// `C_Login` of the user.
    pub(super) fn log_in(&mut self, pin: &[u8]) -> Result<(), sys::CK_RV> {
        if self.user {
            return Err(sys::CKR_USER_ALREADY_LOGGED_IN);
        }
        self.check(pin)?;
        self.user = true;
        Ok(())
    }

    /// Takes a try: a wrong PIN counts, a right one forgives.
    pub(super) fn check(&mut self, pin: &[u8]) -> Result<(), sys::CK_RV> {
        if self.locked() {
            return Err(sys::CKR_PIN_LOCKED);
        }
        if pin != self.pin.as_bytes() {
            self.failures += 1;
            return Err(sys::CKR_PIN_INCORRECT);
        }
        self.failures = 0;
        Ok(())
    }

    /// The PIN's part of the token's flags.
    pub(super) const fn flags(&self) -> sys::CK_FLAGS {
        let low = if self.failures > 0 { sys::CKF_USER_PIN_COUNT_LOW } else { 0 };
        let last = if self.failures + 1 == self.tries_max { sys::CKF_USER_PIN_FINAL_TRY } else { 0 };
        let keypad = if self.keypad { sys::CKF_PROTECTED_AUTHENTICATION_PATH } else { 0 };
        keypad | if self.locked() { sys::CKF_USER_PIN_LOCKED } else { low | last }
    }

    const fn locked(&self) -> bool {
        self.tries_max > 0 && self.failures >= self.tries_max
    }
}
