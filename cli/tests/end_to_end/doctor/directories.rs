//! The directories that an engine keeps its own files in.

use super::{doctor, healthy, set_mode};

#[test]
fn a_record_that_cannot_be_read_is_a_problem() {
    let Some((hsm, config)) = healthy() else { return };
    let record = hsm.path("state").join(format!("pin-{}.toml", "0".repeat(64)));
    // Root reads what this user may not, and follows no link here either.
    std::os::unix::fs::symlink("/nonexistent", record).unwrap();
    let found = doctor(&hsm, &config, &[]);
    found.ends(5, &["pin.record"]);
    found.has("pin.record", "problem", &["no engine sends a PIN", "ls -l "]);
}

#[test]
fn a_state_directory_below_what_others_may_change_is_a_problem_before_it_is_made() {
    let Some((hsm, config)) = healthy() else { return };
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::create_dir(hsm.path("open")).unwrap();
    set_mode(&hsm.path("open"), 0o777);
    let (old, new) = (hsm.path("state").display().to_string(), hsm.path("open/state"));
    std::fs::write(&config, text.replace(&old, &new.display().to_string())).unwrap();
    let found = doctor(&hsm, &config, &["--login"]);
    found.ends(2, &["config.state_dir"]);
    found.has("config.state_dir", "problem", &["others may write there", "namei -l "]);
    found.has("login.pin", "skipped", &["the state_dir cannot remember"]);
    assert!(!new.exists());
}

#[test]
fn an_audit_log_that_no_engine_goes_on_with_is_a_problem() {
    let Some((hsm, config)) = healthy() else { return };
    std::fs::write(hsm.path("audit").join("00000000.jsonl"), "{\"v\":1,\"kind\":\"start\"}\n").unwrap();
    let found = doctor(&hsm, &config, &[]);
    found.ends(11, &["audit.log"]);
    found.has("audit.log", "problem", &["record 0", "hsmux audit verify "]);
    // A lock that this user cannot open: root neither, where a directory is in its place.
    std::fs::create_dir(hsm.path("audit").join("lock")).unwrap();
    let found = doctor(&hsm, &config, &[]);
    found.ends(2, &["audit.log"]);
    found.has("audit.log", "problem", &["lock", "ls -l "]);
}
