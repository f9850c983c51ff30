//! `hsmux keys` on SoftHSM2, and on simulated tokens without data objects.

use crate::hsm::{Ended, Hsm};
use crate::sim::Sim;

fn json(ended: &Ended) -> serde_json::Value {
    ended.succeeds();
    serde_json::from_str(&ended.stdout).unwrap()
}

#[test]
fn a_key_is_made_shown_rotated_suspended_and_destroyed_by_other_processes_each() {
    let Some(hsm) = Hsm::with_tokens(&["only"]) else { return };
    let keys = |arguments: &[&str]| hsm.run_with_pin(&[&["keys"], arguments].concat());
    let made =
        keys(&["create", "card", "--spec", "ec-p256", "--for", "ecdsa-p256-sha256", "--rotate-every", "90d"]);
    made.succeeds();
    let id = made.stdout.trim();
    assert!(id.starts_with("hk1.") && made.stdout.lines().count() == 1, "{made:?}");
    let shown = json(&keys(&["show", id, "--json"]));
    assert_eq!((shown["name"].as_str(), shown["state"].as_str()), (Some("card"), Some("active")));
    assert_eq!(shown["rotate_every_s"], 90 * 86_400);
    assert_eq!(shown["algorithms"], serde_json::json!(["ecdsa-p256-sha256"]));
    assert_eq!(json(&keys(&["rotate", "card", "--json"]))["primary_version"], 2);
    keys(&["alias", "current", "card"]).succeeds();
    assert_eq!(json(&keys(&["show", "current", "--json"]))["id"], id);
    assert_eq!(json(&keys(&["suspend", "current", "--json"]))["state"], "suspended");
    keys(&["rotate", "card"]).fails(7, &["suspended"]);
    assert_eq!(json(&keys(&["resume", "card", "--json"]))["state"], "active");
    keys(&["destroy", "card"]).fails(2, &["--yes"]);
    keys(&["destroy", "card", "--yes"]).fails(7, &["active"]);
    let doomed = json(&keys(&["schedule-destroy", "card", "--wait", "1h", "--yes", "--json"]));
    assert!(doomed["destroy_at"].is_string(), "{doomed}");
    assert!(json(&keys(&["cancel-destroy", "card", "--json"]))["destroy_at"].is_null());
    keys(&["deactivate", "card", "--yes"]).succeeds();
    assert_eq!(json(&keys(&["destroy", "card", "--yes", "--json"]))["state"], "destroyed");
    assert_eq!(json(&keys(&["list", "--json"])), serde_json::json!([]));
    assert_eq!(json(&keys(&["list", "--json", "--all"])).as_array().unwrap().len(), 1);
    let info = hsm.run_with_pin(&["info"]);
    assert!(!info.stdout.contains("card"), "its objects are gone: {}", info.stdout);
}

#[test]
fn a_key_of_another_tool_is_adopted_as_it_is() {
    let Some(hsm) = Hsm::with_tokens(&["only"]) else { return };
    hsm.import("only", "old", "0a0b");
    let keys = |arguments: &[&str]| hsm.run_with_pin(&[&["keys"], arguments].concat());
    keys(&["adopt", "old", "card", "--spec", "aes-256"]).fails(7, &["another kind"]);
    keys(&["adopt", "none", "card", "--spec", "ec-p256"]).fails(6, &["no such key"]);
    keys(&["adopt", "old", "card", "--spec", "ec-p256"]).succeeds();
    let shown = json(&keys(&["show", "card", "--json"]));
    assert_eq!(
        (&shown["versions"][0]["origin"], &shown["versions"][0]["object"]),
        (&"adopted".into(), &"0a0b".into())
    );
    keys(&["adopt", "old", "twice", "--spec", "ec-p256"]).fails(6, &["managed"]);
}

#[test]
fn names_and_settings_that_cannot_be_are_refused() {
    let Some(hsm) = Hsm::with_tokens(&["only"]) else { return };
    let keys = |arguments: &[&str]| hsm.run_with_pin(&[&["keys"], arguments].concat());
    keys(&["create", "card", "--spec", "aes-256"]).succeeds();
    keys(&["create", "card", "--spec", "aes-256"]).fails(6, &["has this name"]);
    keys(&["create", "hsmux.catalogue", "--spec", "aes-256"]).fails(7, &["a name"]);
    keys(&["create", "x", "--spec", "aes-256", "--for", "rot13"]).fails(2, &["rot13", "aes-gcm"]);
    keys(&["create", "x", "--spec", "ec-p256", "--host-modes"]).fails(7, &["block ciphers"]);
    let past = ["--active-until", "2001-01-01T00:00:00Z"];
    keys(&[&["create", "x", "--spec", "aes-256"], &past[..]].concat()).fails(7, &["end before it begins"]);
    assert_eq!(hsm.run(&["keys", "create", "x", "--spec", "rsa-1024"]).code, Some(2));
    keys(&["show", "hk1.AAAAAAAAAAAAAAAAAAAAAA.AAAAAAAAAAAAAAAAAAAAAA"]).fails(6, &["no such key"]);
}

#[test]
fn changes_by_the_command_line_are_in_the_log_of_the_configuration_which_verifies_with_the_tokens_key() {
    let Some(hsm) = Hsm::with_tokens(&["only"]) else { return };
    let (log, config) = (hsm.path("audit"), hsm.path("hsmux.toml"));
    let text = format!(
        "module = \"{}\"\npin = \"file:{}\"\naudit = {{ directory = \"{}\" }}\n[[token]]\nname = \"only\"\n",
        hsm.module().display(),
        hsm.path("pin").display(),
        log.display()
    );
    std::fs::write(&config, text).unwrap();
    let config = config.to_str().unwrap();
    hsm.run(&["keys", "--config", config, "create", "card", "--spec", "ec-p256"]).succeeds();
    hsm.run(&["keys", "--config", config, "suspend", "card"]).succeeds();
    let key = hsm.run(&["audit", "key", "--config", config]);
    key.succeeds();
    let file = hsm.path("audit.pem");
    std::fs::write(&file, &key.stdout).unwrap();
    let log = log.to_str().unwrap();
    hsm.run(&["audit", "verify", log, "--key", file.to_str().unwrap()]).succeeds();
    let shown = hsm.run(&["audit", "tail", log, "--json"]);
    shown.succeeds();
    for part in ["create-key", "suspend-key", "\"kind\":\"change\""] {
        assert!(shown.stdout.contains(part), "{part}: {}", shown.stdout);
    }
    assert!(!shown.stdout.contains(crate::hsm::PIN));
}

#[test]
fn where_tokens_take_no_data_objects_the_operator_is_told_what_to_set_and_then_where_the_records_are() {
    let store = tempfile::tempdir().unwrap();
    let sim = Sim::new(&format!("data=0,store={}", store.path().display()));
    let pin = format!("--pin-source=file:{}", sim.path("pin").display());
    let state = format!("--state-dir={}", sim.path("state").display());
    let keys = |arguments: &[&str]| sim.run(&[&["keys"], arguments, &["--token", "sim-0", &pin]].concat());
    keys(&["create", "card", "--spec", "ec-p256"]).fails(2, &["no data objects", "state_dir"]);
    keys(&["create", "card", "--spec", "ec-p256", &state]).succeeds();
    let listed = keys(&["list", "--json", &state]);
    assert_eq!(json(&listed)[0]["name"], "card");
    let file = format!("hsmux: the records of sim-0 are in {}", sim.path("state").display());
    assert!(listed.stderr.contains(&file) && listed.stderr.contains("catalogue-"), "{listed:?}");
    keys(&["show", "card"]).fails(2, &["state_dir"]);
}
