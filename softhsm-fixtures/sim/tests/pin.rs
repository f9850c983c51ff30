//! `C_SetPIN`: tries, limits, faults, and whose PIN it is.

#![expect(unsafe_code, reason = "calls of the C interface")]
#![expect(clippy::unwrap_used, reason = "a helper of tests fails its test")]
#![expect(dead_code, reason = "shared with tests that use more of it")]

#[path = "support/raw.rs"]
mod raw;
#[path = "support/sim.rs"]
mod sim;

use std::ptr;

use cryptoki_sys as sys;
use raw::{call, len};
use sim::Sim;

const LOGGED_IN: sys::CK_STATE = sys::CKS_RW_USER_FUNCTIONS;

impl Sim {
    fn set_pin(&self, old: &str, new: &str) -> raw::Rv<()> {
        self.raw.set_pin(self.session, old, new)
    }

    fn state(&self) -> sys::CK_STATE {
        self.raw.info(self.session).unwrap().state
    }

    fn log_out(&self) {
        call!(self.raw, C_Logout(self.session)).unwrap();
    }

    fn log_in(&self, pin: &str) -> raw::Rv<()> {
        self.raw.log_in(self.session, pin)
    }

    fn pin_flags(&self, token: usize) -> sys::CK_FLAGS {
        let slot = self.raw.slots().unwrap()[token];
        let all = sys::CKF_USER_PIN_COUNT_LOW | sys::CKF_USER_PIN_FINAL_TRY | sys::CKF_USER_PIN_LOCKED;
        self.raw.token_info(slot).unwrap().flags & all
    }
}

#[test]
fn a_new_pin_is_that_of_its_token_alone_and_the_login_stays() {
    let sim = Sim::new("tokens=2");
    sim.set_pin("1234", "new PIN").unwrap();
    assert_eq!(sim.state(), LOGGED_IN);
    sim.log_out();
    assert_eq!(sim.log_in("1234"), Err(sys::CKR_PIN_INCORRECT));
    sim.log_in("new PIN").unwrap();
    let other = sim.raw.open(sim.raw.slots().unwrap()[1]).unwrap();
    sim.raw.log_in(other, "1234").unwrap();
    sim.raw.finalise().unwrap();
    sim.raw.initialise().unwrap();
    let session = sim.raw.open(sim.raw.slots().unwrap()[0]).unwrap();
    assert_eq!(sim.raw.log_in(session, "1234"), Err(sys::CKR_PIN_INCORRECT), "as objects it stays");
    sim.raw.log_in(session, "new PIN").unwrap();
}

#[test]
fn wrong_old_pins_are_tries_as_those_of_a_login_are() {
    let sim = Sim::new("tokens=2");
    assert_eq!(sim.set_pin("0", "56789"), Err(sys::CKR_PIN_INCORRECT));
    assert_eq!(sim.pin_flags(0), sys::CKF_USER_PIN_COUNT_LOW);
    sim.set_pin("1234", "56789").unwrap();
    assert_eq!(sim.pin_flags(0), 0, "a right one forgives");
    sim.log_out();
    assert_eq!(sim.log_in("1234"), Err(sys::CKR_PIN_INCORRECT));
    assert_eq!(sim.set_pin("1234", "abcd"), Err(sys::CKR_PIN_INCORRECT));
    assert_eq!(sim.pin_flags(0), sys::CKF_USER_PIN_COUNT_LOW | sys::CKF_USER_PIN_FINAL_TRY);
    assert_eq!(sim.set_pin("1234", "abcd"), Err(sys::CKR_PIN_INCORRECT));
    assert_eq!((sim.pin_flags(0), sim.pin_flags(1)), (sys::CKF_USER_PIN_LOCKED, 0));
    assert_eq!(sim.set_pin("56789", "abcd"), Err(sys::CKR_PIN_LOCKED));
    assert_eq!(sim.log_in("56789"), Err(sys::CKR_PIN_LOCKED));
}

#[test]
fn a_new_pin_has_the_lengths_that_the_token_tells() {
    let sim = Sim::new("");
    let info = sim.raw.token_info(sim.raw.slots().unwrap()[0]).unwrap();
    assert_eq!((info.ulMinPinLen, info.ulMaxPinLen), (4, 64));
    for len in [0, 3, 65] {
        assert_eq!(sim.set_pin("1234", &"x".repeat(len)), Err(sys::CKR_PIN_LEN_RANGE), "{len}");
        assert_eq!(sim.set_pin("wrong", &"x".repeat(len)), Err(sys::CKR_PIN_LEN_RANGE), "{len}");
    }
    assert_eq!(sim.pin_flags(0), 0, "no PIN was tried");
    sim.set_pin("1234", &"x".repeat(64)).unwrap();
    sim.set_pin(&"x".repeat(64), "yyyy").unwrap();
    let no_text = [0xff; 8];
    let (old, new) = (b"yyyy".as_ptr().cast_mut(), no_text.as_ptr().cast_mut());
    let set = |new, new_len| call!(sim.raw, C_SetPIN(sim.session, old, 4, new, new_len));
    assert_eq!(set(new, len(&no_text)), Err(sys::CKR_PIN_INVALID));
    assert_eq!(set(ptr::null_mut(), 0), Err(sys::CKR_ARGUMENTS_BAD));
}

#[test]
fn who_has_not_logged_in_sets_the_pin_by_the_old_one_too() {
    let sim = Sim::new("");
    sim.log_out();
    sim.set_pin("1234", "56789").unwrap();
    assert_eq!(sim.state(), sys::CKS_RW_PUBLIC_SESSION);
    sim.log_in("56789").unwrap();
}

#[test]
fn a_new_pin_is_lost_before_the_call_and_kept_after_it_as_rules_say() {
    let sim = Sim::new("fault=C_SetPIN:1=0x30;C_SetPIN:2=0x30!;C_SetPIN:3=session-lost");
    assert_eq!(sim.set_pin("1234", "before"), Err(sys::CKR_DEVICE_ERROR));
    assert_eq!(sim.set_pin("1234", "after"), Err(sys::CKR_DEVICE_ERROR));
    assert_eq!(sim.set_pin("after", "again"), Err(sys::CKR_SESSION_HANDLE_INVALID));
    assert_eq!(sim.sim.calls_on("C_SetPIN", "sim-0"), 3);
    let session = sim.raw.open(sim.raw.slots().unwrap()[0]).unwrap();
    sim.raw.log_in(session, "after").unwrap();
}

#[test]
fn old_pins_are_written_down_and_counted_by_whoever_comes_later() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let config = format!("pin_log={}", log.display());
    let sim = Sim::new(&config);
    assert_eq!(sim.set_pin("0", "56789"), Err(sys::CKR_PIN_INCORRECT));
    let later = Sim::new("");
    later.raw.finalise().unwrap();
    later.sim.configure(&config).unwrap();
    later.raw.initialise().unwrap();
    assert_eq!(later.pin_flags(0), sys::CKF_USER_PIN_COUNT_LOW);
    sim.set_pin("1234", "56789").unwrap();
    let lines = std::fs::read_to_string(log).unwrap();
    assert_eq!(lines, "sim-0 right\nsim-0 wrong\nsim-0 right\n");
}
