//! `--state-dir` and `hsmux pin`: a PIN that was refused, and the operator who clears that.

use std::path::Path;

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
