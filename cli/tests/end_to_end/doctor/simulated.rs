//! On the simulated HSM, which counts logins and says of itself what it is told to.

use super::{Found, set_mode};
use crate::hsm::{Ended, PIN};
use crate::sim::Sim;

/// A simulator that writes down every login.
struct Device {
    sim: Sim,
    place: tempfile::TempDir,
}

impl Device {
    fn new(config: &str) -> Self {
        let place = tempfile::tempdir().unwrap();
        let sim =
            Sim::new(&format!("seed=process,pin_log={},{config}", place.path().join("logins").display()));
        std::fs::create_dir(place.path().join("state")).unwrap();
        set_mode(&place.path().join("state"), 0o700);
        Self { sim, place }
    }

    /// The doctor on token `sim-0`.
    fn doctor(&self, more: &[&str]) -> Found {
        let pin = format!("--pin-source=file:{}", self.sim.path("pin").display());
        let state = self.state();
        let options = ["doctor", "--json", "--token", "sim-0", &pin, "--state-dir", &state];
        Found::of(self.sim.run(&[&options[..], more].concat()))
    }

    fn state(&self) -> String {
        self.place.path().join("state").display().to_string()
    }

    /// How many logins there were.
    fn logins(&self) -> usize {
        std::fs::read_to_string(self.place.path().join("logins")).unwrap_or_default().lines().count()
    }
}

#[test]
fn no_pin_is_sent_unless_it_is_asked_to_and_then_once_to_each_token() {
    let device = Device::new("tokens=2");
    device.doctor(&["--token", "sim-1"]).ends(0, &[]);
    assert_eq!(device.logins(), 0);
    let found = device.doctor(&["--token", "sim-1", "--login"]);
    found.ends(0, &[]);
    assert_eq!(device.logins(), 2);
    for token in ["sim-0", "sim-1"] {
        found.has("login.pin", "ok", &[token]);
        found.has("login.operation", "ok", &[token, " with key ", " in "]);
    }
}

#[test]
fn a_wrong_pin_is_sent_to_one_token_once_and_found_on_record_from_then_on() {
    let device = Device::new("tokens=2");
    std::fs::write(device.sim.path("pin"), "4321\n").unwrap();
    let found = device.doctor(&["--token", "sim-1", "--login"]);
    found.ends(5, &["login.pin"]);
    found.has("login.pin", "problem", &["sim-0", "CKR_PIN_INCORRECT"]);
    found.has("login.pin", "skipped", &["sim-1", "another token has refused it"]);
    assert_eq!(device.logins(), 1);

    std::fs::write(device.sim.path("pin"), "1234\n").unwrap();
    for more in [&[][..], &["--login"], &["--login", "--pin-despite-warning"]] {
        let found = device.doctor(more);
        assert_eq!(found.ended.code, Some(5), "{:?}", found.ended);
        found.has("pin.record", "problem", &["sim-0 (serial 0000000000000000) refused the PIN at 2"]);
        found.has("pin.record", "problem", &["hsmux pin clear --state-dir ", &device.state()]);
        found.has("token.pin_tries", "warning", &["CKF_USER_PIN_COUNT_LOW"]);
        found.has("sessions.room", "ok", &[]);
    }
    assert_eq!(device.logins(), 1);
    // The command that it says.
    let found = device.doctor(&[]);
    let advice = found.all("pin.record")[0]["advice"].as_str().unwrap();
    let command: Vec<_> = advice.split("hsmux ").nth(1).unwrap().split(' ').collect();
    device.sim.run(&command).succeeds();
    device.doctor(&["--login", "--pin-despite-warning"]).ends(0, &[]);
    assert_eq!(device.logins(), 2);
}

#[test]
fn every_flag_of_a_token_that_matters_is_told_with_its_exit_code() {
    for (flags, check, level, code) in [
        ("0x10000", "token.pin_tries", "warning", 0),
        ("0x20000", "token.pin_tries", "problem", 5),
        ("0x40000", "token.pin_tries", "problem", 5),
        ("0x80000", "token.user_pin", "problem", 5),
        ("0x8", "token.user_pin", "problem", 5),
        ("0x4", "token.login", "warning", 0),
        ("0x2", "token.writable", "warning", 0),
        ("0x1000000", "token.state", "problem", 4),
        ("0x100", "token.pin_entry", "warning", 0),
        ("0x400", "token.initialised", "problem", 4),
        ("0x40", "clock.token", "skipped", 0),
    ] {
        let device = Device::new(&format!("flags={flags}"));
        let found = device.doctor(&[]);
        found.has(check, level, &[]);
        assert_eq!(found.ended.code, Some(code), "{flags}: {:?}", found.ended);
        found.has("clock.system", "ok", &[]);
        assert_eq!(device.logins(), 0);
    }
}

#[test]
fn a_token_that_warns_is_sent_no_pin_unless_an_option_consents() {
    let device = Device::new("flags=0x10000");
    let found = device.doctor(&["--login"]);
    found.ends(5, &["login.pin"]);
    assert_eq!(device.logins(), 0);
    device.doctor(&["--login", "--pin-despite-warning"]).ends(0, &[]);
    assert_eq!(device.logins(), 1);
}

#[test]
fn a_token_with_too_few_sessions_is_a_problem_that_says_how_many_fit() {
    let device = Device::new("sessions=2");
    let found = device.doctor(&[]);
    found.ends(2, &["sessions.room"]);
    found.has("sessions.room", "problem", &["sim-0 has 2 sessions, of which 2 are free", "needs three"]);
    let device = Device::new("sessions=16");
    device.doctor(&[]).has("sessions.room", "ok", &["takes 3 to 12"]);
}

#[test]
fn options_that_say_nothing_of_a_module_are_refused_as_everywhere() {
    let device = Device::new("tokens=1");
    let mut nowhere = device.sim.command(&["doctor"]);
    Ended::of(&nowhere.env_remove("PKCS11_MODULE_PATH").output().unwrap()).fails(2, &["--module"]);
    device.sim.run(&["doctor", "--pin-source", PIN]).fails(2, &["never a PIN"]);
}
