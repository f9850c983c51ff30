//! `--state-dir` and `hsmux pin`: a PIN that was refused, and the operator who clears that.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::hsm::Ended;
use crate::sim::Sim;

/// A simulator that writes down every login, with a PIN in a file.
fn site(log: &Path, pin: &str) -> Sim {
    let sim = Sim::new(&format!("pin_log={}", log.display()));
    write_pin(&sim, pin);
    sim
}

fn write_pin(sim: &Sim, pin: &str) {
    // Its permissions stay as they are.
    std::fs::write(sim.path("pin"), pin).unwrap();
}

/// `hsmux info` with the PIN, which logs in.
fn log_in(sim: &Sim, more: &[&str]) -> Ended {
    let pin = format!("--pin-source=file:{}", sim.path("pin").display());
    let state = format!("--state-dir={}", sim.path("state").display());
    sim.run(&[&["info", "--token", "sim-0", &pin, &state], more].concat())
}

#[test]
fn a_refused_pin_is_not_sent_again_before_an_operator_clears_it_as_the_message_says() {
    let place = tempfile::tempdir().unwrap();
    let log = place.path().join("logins");
    let sim = site(&log, "4321");
    let state = sim.path("state");
    let pin = |arguments: &[&str]| {
        let (what, rest) = arguments.split_first().unwrap();
        sim.run(&[&["pin", what, "--state-dir", state.to_str().unwrap()], rest].concat())
    };
    let logins = || std::fs::read_to_string(&log).unwrap().lines().count();

    log_in(&sim, &[]).fails(5, &["CKR_PIN_INCORRECT", "hsmux pin clear --state-dir"]);
    write_pin(&sim, "1234");
    let again = log_in(&sim, &["--pin-despite-warning"]);
    again.fails(5, &["was refused", "hsmux pin clear --state-dir"]);
    assert_eq!(logins(), 1);
    let listed = pin(&["list"]);
    listed.succeeds();
    for word in ["sim-0 (serial 0000000000000000): refused at 2", "PIN from file, which was changed at 2"] {
        assert!(listed.stdout.contains(word), "{listed:?}");
    }

    pin(&["clear", "sim-1"]).fails(4, &["nothing is remembered of such a token"]);
    // What the message says, word by word.
    let command = again.stderr.split('`').nth(1).unwrap();
    let words: Vec<_> = command.split(' ').skip(1).collect();
    let cleared = sim.run(&words);
    cleared.succeeds();
    assert!(cleared.stdout.starts_with("cleared: ") && cleared.stdout.contains("sim-0"), "{cleared:?}");
    assert!(pin(&["list"]).stdout.starts_with("nothing is remembered"));
    log_in(&sim, &["--pin-despite-warning"]).succeeds();
    log_in(&sim, &[]).succeeds();
    assert_eq!(logins(), 3);
}

#[test]
fn a_configuration_says_where_it_is_remembered_too() {
    let place = tempfile::tempdir().unwrap();
    let log = place.path().join("logins");
    let sim = site(&log, "4321");
    let config = sim.path("hsmux.toml");
    let text = format!(
        "module = {:?}\npin = \"file:{}\"\nstate_dir = {:?}\n[[token]]\nname = \"sim-0\"\n",
        p11_sim::cdylib_path().unwrap(),
        sim.path("pin").display(),
        sim.path("state"),
    );
    std::fs::write(&config, text).unwrap();
    let config = config.to_str().unwrap();
    for _ in 0..2 {
        sim.run(&["info", "--config", config]).fails(5, &["hsmux pin clear --state-dir"]);
    }
    assert_eq!(std::fs::read_to_string(&log).unwrap().lines().count(), 1);
    let both = sim.run(&["info", "--config", config, "--state-dir", "elsewhere"]);
    both.fails(2, &[]);
}

#[test]
fn with_several_tokens_the_operator_says_which_and_a_wrong_directory_is_told() {
    let sim = Sim::new("tokens=2");
    write_pin(&sim, "4321");
    let pin = format!("--pin-source=file:{}", sim.path("pin").display());
    let state = sim.path("state").display().to_string();
    for token in ["sim-0", "sim-1"] {
        sim.run(&["info", "--token", token, &pin, "--state-dir", &state]).fails(5, &["CKR_PIN_INCORRECT"]);
    }
    let clear = |more: &[&str]| sim.run(&[&["pin", "clear", "--state-dir", &state], more].concat());
    clear(&[]).fails(4, &["several tokens: say which by its id: "]);
    clear(&["sim-0"]).succeeds();
    clear(&[]).succeeds();
    clear(&[]).fails(4, &["nothing is remembered"]);
    sim.run(&["pin", "list", "--state-dir", "/nonexistent"]).fails(2, &["state directory: /nonexistent: "]);
}

/// `hsmux pin rotate` on tokens whose PINs outlive the process.
fn rotate(sim: &Sim, old: &str, more: &[&str]) -> Ended {
    let source = |option: &str, name: &str| format!("--{option}=file:{}", sim.path(name).display());
    let (old, new) = (source("pin-source", old), source("new-pin-source", "new"));
    let state = format!("--state-dir={}", sim.path("state").display());
    let named = ["pin", "rotate", "--token", "sim-0", "--token", "sim-1"];
    sim.run(&[&named[..], &[old.as_str(), new.as_str(), state.as_str()], more].concat())
}

/// A file with a PIN, of another time than the others.
fn write_private(sim: &Sim, name: &str, pin: &str, hours: u64) {
    let path = sim.path(name);
    std::fs::write(&path, pin).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let then = SystemTime::now() - Duration::from_secs(3600 * hours);
    std::fs::File::open(path).unwrap().set_modified(then).unwrap();
}

#[test]
fn a_rotation_tells_what_was_done_and_what_is_to_be_done_and_the_old_pin_is_sent_no_more() {
    let place = tempfile::tempdir().unwrap();
    let log = place.path().join("logins");
    let config = format!("tokens=2,store={},pin_log={}", place.path().join("store").display(), log.display());
    let sim = Sim::new(&config);
    write_private(&sim, "pin", "1234\n", 3);
    write_private(&sim, "new", "canary-5678\n", 2);
    // Nobody can be asked here, and without a state directory nothing is begun.
    rotate(&sim, "pin", &[]).fails(2, &["the PIN of sim-0, sim-1 is changed: say --yes"]);
    let pins = ["pin", "new"].map(|name| format!("file:{}", sim.path(name).display()));
    let without =
        ["pin", "rotate", "--token", "sim-0", "--pin-source", &pins[0], "--new-pin-source", &pins[1]];
    sim.run(&without).fails(2, &["a --state-dir is needed"]);
    rotate(&sim, "new", &["--yes", "--resume"]).fails(2, &["no rotation of the PIN was cut off"]);
    assert!(!log.exists());

    let rotated = rotate(&sim, "pin", &["--yes"]);
    rotated.succeeds();
    let lines: Vec<_> = rotated.stdout.lines().collect();
    assert_eq!(lines[0], "sim-0 (serial 0000000000000000): has the new PIN");
    assert!(lines[2].starts_with("next: put the new PIN where"), "{rotated:?}");
    log_in(&sim, &[]).fails(5, &["the PIN was rotated at 2"]);
    rotate(&sim, "pin", &["--yes"]).fails(5, &["the PIN was rotated at 2"]);
    std::fs::rename(sim.path("new"), sim.path("pin")).unwrap();
    log_in(&sim, &[]).succeeds();

    write_private(&sim, "new", "canary-9999", 1);
    let json = rotate(&sim, "pin", &["--yes", "--json"]);
    json.succeeds();
    let report: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(report["tokens"][1]["label"], "sim-1");
    assert_eq!(report["tokens"][1]["pin"], "changed");
    assert!(!std::fs::read_to_string(&log).unwrap().contains("wrong"));
    for ended in [rotated, json] {
        assert!(!format!("{}{}", ended.stdout, ended.stderr).contains("canary"));
    }
}
