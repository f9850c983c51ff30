//! `hsmux doctor`: what it finds, what it says to do, and how it ends.

mod directories;
mod simulated;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Value;

use crate::config::configured;
use crate::hsm::{Ended, Hsm, PIN};
use crate::sim::ThroughShell;

/// What a run with `--json` found.
struct Found {
    ended: Ended,
    document: Value,
}

impl Found {
    fn of(ended: Ended) -> Self {
        assert!(!format!("{ended:?}").contains(PIN), "{ended:?}");
        let document = serde_json::from_str(&ended.stdout);
        let document: Value = document.unwrap_or_else(|error| panic!("{error}: {ended:?}"));
        assert_eq!((&document["schema"], &document["version"]), (&"hsmux-doctor".into(), &1.into()));
        Self { ended, document }
    }

    /// The findings of a check.
    fn all(&self, check: &str) -> Vec<&Value> {
        let findings = self.document["findings"].as_array().unwrap();
        findings.iter().filter(|finding| finding["check"] == check).collect()
    }

    /// Checks that one finding of this check has this level and these words, in its sentence or its advice.
    #[track_caller]
    fn has(&self, check: &str, level: &str, words: &[&str]) {
        let fits = |finding: &&&Value| {
            let text = format!("{} {}", finding["what"], finding["advice"]);
            finding["level"] == level && words.iter().all(|word| text.contains(word))
        };
        let all = self.all(check);
        assert_eq!(all.iter().filter(fits).count(), 1, "{check} {level} {words:?}: {all:?}");
    }

    /// Checks that everything of these levels is found by one of these checks, and how it ends.
    #[track_caller]
    fn ends(&self, code: i32, problems: &[&str]) {
        assert_eq!(self.ended.code, Some(code), "{}", self.document);
        let findings = self.document["findings"].as_array().unwrap();
        let found: Vec<_> = findings
            .iter()
            .filter(|finding| finding["level"] == "problem")
            .map(|finding| finding["check"].as_str().unwrap())
            .collect();
        assert_eq!(found, problems, "{}", self.document);
        assert_eq!(self.document["worst"] == "problem", !problems.is_empty(), "{}", self.document);
    }
}

/// SoftHSM2 with a token `north` and a configuration that nothing is wrong with.
fn healthy() -> Option<(Hsm, String)> {
    let hsm = Hsm::with_tokens(&["north"])?;
    hsm.import("north", "card-signing", "0a0b");
    for directory in ["state", "audit"] {
        std::fs::create_dir(hsm.path(directory)).unwrap();
        set_mode(&hsm.path(directory), 0o700);
    }
    let config = configured(&hsm, "north", &whole(&hsm));
    set_mode(Path::new(&config), 0o600);
    Some((hsm, config))
}

/// The fields of a configuration that leave nothing to be said.
fn whole(hsm: &Hsm) -> String {
    let (state, audit) = (hsm.path("state"), hsm.path("audit"));
    format!(
        "sessions = \"1-4\"\ncanary_key = \"card-signing\"\nstate_dir = {state:?}\naudit = {{ directory = {audit:?} }}\n"
    )
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn doctor(hsm: &Hsm, config: &str, more: &[&str]) -> Found {
    Found::of(hsm.run(&[&["doctor", "--config", config, "--json"], more].concat()))
}

#[test]
fn nothing_is_wrong_with_a_sound_set_up_and_every_area_is_looked_at() {
    let Some((hsm, config)) = healthy() else { return };
    let found = doctor(&hsm, &config, &[]);
    found.ends(0, &[]);
    for check in [
        "config.file",
        "config.permissions",
        "config.state_dir",
        "audit.directory",
        "audit.log",
        "pin.source",
        "pin.owner",
        "pin.permissions",
        "pin.content",
        "pin.record",
        "module.file",
        "module.permissions",
        "module.load",
        "module.version",
        "module.kind",
        "token.present",
        "token.slots",
        "token.state",
        "token.user_pin",
        "token.pin_tries",
        "token.pin_entry",
        "token.login",
        "token.writable",
        "sessions.room",
        "limits.files",
        "clock.system",
    ] {
        found.has(check, "ok", &[]);
    }
    found.has("login.pin", "skipped", &["no PIN was sent", "--login"]);
    for (check, words) in [("audit.space", "free for audit records"), ("audit.sync", "to synchronise")] {
        assert!(found.all(check)[0]["what"].as_str().unwrap().contains(words), "{:?}", found.all(check));
    }
    assert_eq!(hsm.path("audit").read_dir().unwrap().count(), 0, "what was tried there is gone");
}

#[test]
fn people_read_it_by_area_with_advice_beneath_and_without_colours_in_a_pipe() {
    let Some((hsm, config)) = healthy() else { return };
    set_mode(&hsm.path("pin"), 0o644);
    let ended = hsm.run(&["doctor", "--config", &config]);
    let pin = hsm.path("pin");
    for part in [
        "Configuration\n  ok       ".to_owned(),
        format!(
            "\n  problem  others may read or write {0}, and the engine refuses it\n           -> chmod 600 {0}\n",
            pin.display()
        ),
        "\nTokens\n  ok       north is there".to_owned(),
        "\n1 problem, ".to_owned(),
    ] {
        assert!(ended.stdout.contains(&part), "{part:?} in {}", ended.stdout);
    }
    assert!(!ended.stdout.contains('\u{1b}') && !ended.stdout.contains(PIN), "{}", ended.stdout);
    assert_eq!(ended.code, Some(5));
    assert!(ended.stderr.starts_with("hsmux: doctor: others may read or write "), "{}", ended.stderr);
}

#[test]
fn with_a_login_keys_are_listed_and_the_canary_is_used() {
    let Some((hsm, config)) = healthy() else { return };
    let found = doctor(&hsm, &config, &["--login"]);
    found.ends(0, &[]);
    found.has("login.pin", "ok", &["north took the PIN"]);
    found.has("login.keys", "ok", &["north holds 1 "]);
    found.has("login.canary", "ok", &["card-signing is there"]);
    found.has("login.operation", "ok", &["north signed with key card-signing in "]);
    assert_eq!(hsm.path("audit").read_dir().unwrap().count(), 0, "the service's log is not touched");
    // Where its use would have to be recorded, no other key is used.
    let text = std::fs::read_to_string(&config).unwrap().replace("canary_key = \"card-signing\"", "");
    std::fs::write(&config, text).unwrap();
    let found = doctor(&hsm, &config, &["--login"]);
    found.ends(0, &[]);
    found.has("login.operation", "skipped", &["audit log", "canary_key"]);
}

#[test]
fn a_pin_file_that_others_may_read_is_a_problem_and_the_rest_is_still_looked_at() {
    let Some((hsm, config)) = healthy() else { return };
    std::fs::write(hsm.path("pin"), format!("{PIN} \n")).unwrap();
    set_mode(&hsm.path("pin"), 0o644);
    let found = doctor(&hsm, &config, &["--login"]);
    found.ends(5, &["pin.permissions", "login.pin"]);
    found.has("pin.permissions", "problem", &["chmod 600 "]);
    found.has("pin.content", "warning", &["ends in a blank"]);
    found.has("pin.owner", "ok", &[]);
    found.has("token.present", "ok", &["north"]);
    found.has("login.pin", "problem", &["PIN source not usable"]);
}

#[test]
fn a_module_that_is_missing_is_a_problem_and_what_needs_it_is_skipped() {
    let Some((hsm, config)) = healthy() else { return };
    let text = std::fs::read_to_string(&config).unwrap();
    let module = hsm.module().to_str().unwrap();
    std::fs::write(&config, text.replace(module, "/no/such/module.so")).unwrap();
    let found = doctor(&hsm, &config, &["--login"]);
    found.ends(3, &["module.file", "module.load"]);
    found.has("module.file", "problem", &["/no/such/module.so", "module = "]);
    for check in ["token.present", "sessions.room", "login.pin"] {
        found.has(check, "skipped", &["the module does not load"]);
    }
    for check in ["pin.permissions", "audit.directory", "clock.system"] {
        found.has(check, "ok", &[]);
    }
}

#[test]
fn a_token_that_is_misspelt_is_a_problem_that_names_those_present() {
    let Some((hsm, config)) = healthy() else { return };
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("\"north\"", "\"nroth\"")).unwrap();
    let found = doctor(&hsm, &config, &["--login"]);
    found.ends(4, &["token.present"]);
    found.has(
        "token.present",
        "problem",
        &["there is no token named nroth; present are: north", "not initialised"],
    );
    found.has("clock.system", "ok", &[]);
    found.has("login.pin", "skipped", &[]);
}

#[test]
fn two_tokens_of_one_label_are_told_by_their_serial_numbers() {
    let Some(hsm) = Hsm::with_tokens(&["twin", "twin"]) else { return };
    let found = doctor(&hsm, &configured(&hsm, "twin", ""), &[]);
    found.ends(4, &["token.present"]);
    found.has(
        "token.present",
        "problem",
        &["twin names several tokens: twin (serial ", "by its serial number"],
    );
}

#[test]
fn a_configuration_that_cannot_be_read_is_a_problem_with_its_line_and_what_needs_it_is_skipped() {
    let Some((hsm, config)) = healthy() else { return };
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("sessions", "sesions")).unwrap();
    set_mode(Path::new(&config), 0o666);
    let found = doctor(&hsm, &config, &[]);
    found.ends(2, &["config.file", "config.permissions"]);
    found.has("config.file", "problem", &["hsmux.toml:3:1: unknown field `sesions`", "config example"]);
    found.has("config.permissions", "problem", &["chmod go-w "]);
    for check in ["config.state_dir", "pin.source", "module.file", "token.present"] {
        found.has(check, "skipped", &["the configuration cannot be read"]);
    }
    found.has("clock.system", "ok", &[]);
    doctor(&hsm, "/no/such/hsmux.toml", &[]).ends(2, &["config.file"]);
}

#[test]
fn a_warning_counts_only_if_it_is_asked_to() {
    let Some((hsm, config)) = healthy() else { return };
    let state = format!("state_dir = {:?}\n", hsm.path("state"));
    std::fs::write(&config, std::fs::read_to_string(&config).unwrap().replace(&state, "")).unwrap();
    let found = doctor(&hsm, &config, &[]);
    found.ends(0, &[]);
    found.has("config.state_dir", "warning", &["no state_dir", "state_dir = "]);
    assert_eq!(found.document["worst"], "warning");
    doctor(&hsm, &config, &["--strict"]).ends(2, &[]);
}

#[test]
fn a_credential_is_skipped_outside_of_the_unit_and_so_is_the_login() {
    let Some((hsm, config)) = healthy() else { return };
    let text = std::fs::read_to_string(&config).unwrap();
    let file = format!("file:{}", hsm.path("pin").display());
    std::fs::write(&config, text.replace(&file, "credential:hsm-pin")).unwrap();
    let mut command = hsm.command(&["doctor", "--config", &config, "--json", "--login"]);
    let found = Found::of(Ended::of(&command.env_remove("CREDENTIALS_DIRECTORY").output().unwrap()));
    found.ends(0, &[]);
    for check in ["pin.content", "login.pin"] {
        found.has(check, "skipped", &["systemd-run ", "-p LoadCredential="]);
    }
    // Within it the credential is to be there.
    let found =
        Found::of(Ended::of(&command.env("CREDENTIALS_DIRECTORY", hsm.path("state")).output().unwrap()));
    found.ends(5, &["pin.content", "login.pin"]);
}

#[test]
fn a_canary_key_that_an_engine_does_not_take_and_one_that_is_missing_in_host_modes_are_problems() {
    let Some((hsm, config)) = healthy() else { return };
    let text = std::fs::read_to_string(&config).unwrap();
    hsm.import("north", "card-signing", "0c");
    std::fs::write(&config, format!("host_modes = [\"vault\"]\n{text}")).unwrap();
    let found = doctor(&hsm, &config, &["--login"]);
    found.ends(6, &["login.canary", "login.host_modes"]);
    found.has("login.canary", "problem", &["key is ambiguous"]);
    found.has("login.host_modes", "problem", &["key vault of host_modes is on no token"]);
    found.has("login.operation", "skipped", &["canary key cannot be used"]);
    found.has("login.pin", "ok", &["north"]);
}

#[test]
fn a_process_that_may_lock_no_memory_is_warned_and_can_still_log_in() {
    let Some((hsm, config)) = healthy() else { return };
    let command = hsm.command(&["doctor", "--config", &config, "--json", "--login"]);
    // Root may lock memory all the same, unless that is taken from it.
    let script = "ulimit -l 0; test \"$(id -u)\" != 0 || set -- setpriv --bounding-set -ipc_lock --inh-caps -ipc_lock \"$0\" \"$@\"; \
                  test \"$(id -u)\" = 0 || set -- \"$0\" \"$@\"; exec \"$@\"";
    let found = Found::of(Ended::of(&command.through_shell(script, Path::new("/")).output().unwrap()));
    found.ends(0, &[]);
    found.has("limits.memory", "warning", &["RLIMIT_MEMLOCK is 0 bytes", "LimitMEMLOCK"]);
    found.has("login.pin", "ok", &["north took the PIN"]);
}
