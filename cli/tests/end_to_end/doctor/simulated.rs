//! On the simulated HSM, which counts logins and says of itself what it is told to.

use super::{Found, set_mode};
use crate::hsm::{Ended, PIN};
use crate::sim::Sim;

/// A simulator that writes down every login.
struct Device {
    sim: Sim,
    place: tempfile::TempDir,
    tokens: usize,
}

impl Device {
    fn new(config: &str) -> Self {
        let place = tempfile::tempdir().unwrap();
        let sim =
            Sim::new(&format!("seed=process,pin_log={},{config}", place.path().join("logins").display()));
        std::fs::create_dir(place.path().join("state")).unwrap();
        set_mode(&place.path().join("state"), 0o700);
        Self { sim, place, tokens: if config.starts_with("tokens=2") { 2 } else { 1 } }
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

    /// A configuration of all tokens of the simulator, up to two.
    fn configured(&self, more: &str) -> String {
        let module = p11_sim::cdylib_path().unwrap();
        let (pin, state) = (self.sim.path("pin"), self.place.path().join("state"));
        let tokens = if self.tokens > 1 { "[[token]]\nname = \"sim-1\"\n" } else { "" };
        let text = format!(
            "module = {module:?}\npin = \"file:{}\"\nstate_dir = {state:?}\n{more}\n[[token]]\nname = \"sim-0\"\n{tokens}",
            pin.display()
        );
        let path = self.place.path().join("hsmux.toml");
        std::fs::write(&path, text).unwrap();
        set_mode(&path, 0o600);
        path.display().to_string()
    }

    /// The doctor on a configuration.
    fn doctor_on(&self, config: &str, more: &[&str]) -> Found {
        Found::of(self.sim.run(&[&["doctor", "--json", "--config", config][..], more].concat()))
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
        let consents = more.contains(&"--pin-despite-warning");
        let level = if consents { "warning" } else { "problem" };
        found.has("token.pin_tries", level, &["CKF_USER_PIN_COUNT_LOW"]);
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
        ("0x10000", "token.pin_tries", "problem", 5),
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
    found.ends(5, &["token.pin_tries", "login.pin"]);
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

#[test]
fn the_only_token_that_can_be_read_is_sent_no_pin_for_nobody_named_it() {
    let device = Device::new("tokens=2,fault=C_GetMechanismList:1+=0x30@sim-1");
    let pin = format!("--pin-source=file:{}", device.sim.path("pin").display());
    for named in [&[][..], &["--token", "pkcs11:model=p11-sim"], &["--token", "pkcs11:"]] {
        let run = |options: &[&str]| device.sim.run(&[options, named, &[&pin]].concat());
        run(&["info"]).fails(4, &["does not say what it holds", "--token"]);
        let found = Found::of(run(&["doctor", "--json", "--login"]));
        assert_eq!(found.ended.code, Some(4), "{:?}", found.ended);
        found.has("login.pin", "skipped", &["no token was found"]);
    }
    assert_eq!(device.logins(), 0);
    // Without a PIN what there is is shown, and with a name it is that token.
    let info = device.sim.run(&["info"]);
    info.succeeds();
    assert!(info.stdout.contains("unreadable slot 17: "), "{}", info.stdout);
    device.sim.run(&["info", "--token", "sim-0", &pin]).succeeds();
    assert_eq!(device.logins(), 1);
}

#[test]
fn after_a_login_of_which_nobody_knows_how_it_ended_the_next_token_is_sent_no_pin() {
    let device = Device::new("tokens=2,fault=C_Login:1=0x6@sim-0");
    let found = device.doctor(&["--token", "sim-1", "--login"]);
    found.ends(1, &["login.pin"]);
    found.has("login.pin", "problem", &["sim-0", "CKR_FUNCTION_FAILED"]);
    found.has("login.pin", "skipped", &["sim-1", "sim-0 may have been sent it"]);
    assert_eq!(device.logins(), 1);
}

#[test]
fn a_token_that_is_locked_out_by_its_flags_keeps_no_pin_from_the_next() {
    let device = Device::new("tokens=2,flags=0x20000@sim-0");
    let found = device.doctor(&["--token", "sim-1", "--login"]);
    found.ends(5, &["token.pin_tries", "login.pin"]);
    found.has("login.pin", "ok", &["sim-1 took the PIN"]);
    assert_eq!(device.logins(), 1);
}

#[test]
fn a_pin_that_cannot_be_read_is_said_to_be_so_on_each_token() {
    let device = Device::new("tokens=2");
    std::fs::remove_file(device.sim.path("pin")).unwrap();
    let found = device.doctor(&["--token", "sim-1", "--login"]);
    found.ends(5, &["pin.content", "login.pin"]);
    found.has("login.pin", "skipped", &["sim-1", "it cannot be read"]);
}

#[test]
fn a_refusal_on_record_keeps_the_pin_from_the_next_token_and_is_said_to_be_one() {
    let device = Device::new("tokens=2");
    std::fs::write(device.sim.path("pin"), "4321\n").unwrap();
    device.doctor(&["--login"]).ends(5, &["login.pin"]);
    let found = device.doctor(&["--token", "sim-1", "--login", "--pin-despite-warning"]);
    found.has("login.pin", "skipped", &["sim-1", "on record"]);
    assert_eq!(device.logins(), 1);
}

#[test]
fn a_module_that_hangs_is_a_problem_and_all_else_is_looked_at() {
    let device = Device::new("hang=C_GetSlotList:1+");
    let found = device.doctor(&["--module-limit", "200ms", "--login"]);
    found.ends(8, &["module.load"]);
    found.has("module.load", "problem", &["no answer in 200ms", "--module-limit"]);
    found.has("pin.content", "ok", &[]);
    found.has("token.present", "skipped", &["the module does not load"]);
}

#[test]
fn a_service_that_is_set_to_more_sessions_than_there_are_starts_with_fewer() {
    let device = Device::new("sessions=8,keys=beat:hmac");
    let config = device.configured("sessions = 8");
    let found = device.doctor_on(&config, &["--login"]);
    found.has("sessions.room", "warning", &["sim-0 has 8 sessions", "sessions = 6"]);
    assert_eq!(found.ended.code, Some(0), "{:?}", found.ended);
}

#[test]
fn a_canary_key_is_the_same_on_all_tokens_and_one_that_fits() {
    let keys = "keys=same:hmac;other:hmac#1@sim-0;other:hmac#2@sim-1;wrapping:aes-wrap;half:p256@sim-0";
    let device = Device::new(&format!("tokens=2,{keys}"));
    for (canary, level, words, code) in [
        ("same", "ok", "does what a canary is for", 0),
        ("other", "problem", "is another key on", 6),
        ("wrapping", "problem", "no engine starts with canary key wrapping", 7),
        ("half", "warning", "not on sim-1", 0),
        ("none", "problem", "on no token", 6),
    ] {
        let config = device.configured(&format!("canary_key = {canary:?}"));
        let found = device.doctor_on(&config, &["--login"]);
        found.has("login.canary", level, &[words]);
        assert_eq!(found.ended.code, Some(code), "{canary}: {:?}", found.ended);
        // As an engine has it.
        let started = device.sim.run(&["info", "--config", &config]);
        assert_eq!(started.code == Some(0), code == 0, "{canary}: {started:?}");
    }
}

#[test]
fn keys_of_host_modes_are_tried_as_an_engine_does() {
    let device = Device::new("tokens=2,keys=vault:aes;signing:p256");
    for (key, level) in [("vault", "ok"), ("signing", "problem"), ("none", "problem")] {
        let config = device.configured(&format!("host_modes = [{key:?}]"));
        let found = device.doctor_on(&config, &["--login"]);
        found.has("login.host_modes", level, &[key]);
        let started = device.sim.run(&["info", "--config", &config]);
        assert_eq!(started.code == Some(0), level == "ok", "{key}: {started:?}");
    }
}

#[test]
fn a_consent_of_the_configuration_makes_a_warning_of_what_keeps_others_from_starting() {
    let device = Device::new("flags=0x10000");
    let found = device.doctor_on(&device.configured(""), &[]);
    found.ends(5, &["token.pin_tries"]);
    let found = device.doctor_on(&device.configured("pin_despite_warning = true"), &[]);
    found.ends(0, &[]);
    found.has("token.pin_tries", "warning", &["pin_despite_warning"]);
    // The doctor itself takes none from there.
    let found = device.doctor_on(&device.configured("pin_despite_warning = true"), &["--login"]);
    found.ends(0, &[]);
    found.has("login.pin", "skipped", &["sim-0", "does not count here"]);
    assert_eq!(device.logins(), 0);
}

#[test]
fn keys_that_the_token_has_no_mechanism_for_are_passed_over() {
    // Of the keys that every token has all but those for MACs.
    let device = Device::new("hide=0x1041;0x1057;0x1;0x1081");
    let found = device.doctor(&["--login"]);
    found.ends(0, &[]);
    found.has("login.operation", "ok", &["made a MAC"]);
}
