//! `hsmux probe` on SoftHSM2 and on the simulated HSM.

use std::path::Path;

use hsmux::probe::{ModuleProfile, ProbeResult};

use crate::config::configured;
use crate::hsm::{Ended, Hsm};
use crate::sim::Sim;

/// Runs it on a simulator, with the PIN.
fn on_sim(sim: &Sim, arguments: &[&str]) -> Ended {
    let pin = format!("--pin-source=file:{}", sim.path("pin").display());
    sim.run(&[&["probe", "--time-limit", "10m"], arguments, &[pin.as_str()]].concat())
}

/// Files below a directory: SoftHSM2 has one for each object of a token, and a few of its own.
fn files(directory: &Path) -> usize {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { files(&path) } else { 1 }).sum()
}

#[test]
fn a_profile_of_softhsm_says_what_works_leaves_nothing_behind_and_starts_an_engine() {
    let Some(hsm) = Hsm::with_tokens(&["only"]) else { return };
    hsm.import("only", "card-signing", "0a0b");
    let (out, before) = (hsm.path("hsm.toml"), files(&hsm.path("tokens")));
    let probed = hsm.run_with_pin(&[
        "probe",
        "--out",
        out.to_str().unwrap(),
        "--sessions-max",
        "32",
        "--time-limit",
        "10m",
    ]);
    probed.succeeds();
    assert_eq!(files(&hsm.path("tokens")), before, "an object was left on the token");
    assert_eq!(probed.stderr, "", "no progress where there is no terminal");
    for part in ["SoftHSM v2", "sign-rsa-pss ", "listed but fails", "C_SignInit", "per second"] {
        assert!(probed.stdout.contains(part), "{part}: {}", probed.stdout);
    }
    let profile = ModuleProfile::read(&out).unwrap();
    let result = |operation| profile.mechanism(operation).unwrap().result;
    for operation in
        ["encrypt-aes-gcm", "decrypt-aes-gcm", "sign-rsa-pss", "sign-ecdsa-p256", "sign-hmac-sha512"]
    {
        assert_eq!(result(operation), ProbeResult::Works, "{operation}");
    }
    // SoftHSM2 2.6.1 lists OAEP, and takes SHA-1 only.
    assert_eq!(result("decrypt-rsa-oaep-sha256"), ProbeResult::ListedButFails);
    assert_eq!(profile.sessions.as_ref().map(|found| found.opened), Some(32));
    let config = configured(&hsm, "only", &format!("module_profile = \"{}\"", out.display()));
    hsm.run(&["config", "check", &config]).succeeds();
    let info = hsm.run(&["info", "--config", &config]);
    info.succeeds();
    assert!(info.stdout.contains("card-signing"), "{}", info.stdout);
}

#[test]
fn one_token_is_probed_and_it_is_certain_which() {
    let Some(hsm) = Hsm::with_tokens(&["north", "south"]) else { return };
    hsm.run_with_pin(&["probe"]).fails(4, &["several tokens", "north", "south"]);
    hsm.run_with_pin(&["probe", "--token", "north", "--token", "south"]).fails(2, &["one token"]);
    hsm.run(&["probe", "--token", "north"]).fails(2, &["--pin-source"]);
    hsm.run_with_pin(&["probe", "--token", "north", "--json", "--out", "-"]).fails(2, &["--json"]);
    let wrong = hsm.write_pin("wrong", "000000", 0o600);
    hsm.run(&["probe", "--token", "south", &wrong]).fails(5, &["refused"]);
    let nowhere = hsm.path("none/hsm.toml");
    let unwritten = ["probe", "--token", "south", &wrong, "--out", nowhere.to_str().unwrap()];
    hsm.run(&unwritten).fails(2, &["none/hsm.toml"]);
}

#[test]
fn a_configuration_with_a_wrong_profile_is_not_good() {
    let Some(hsm) = Hsm::with_tokens(&["only"]) else { return };
    let path = hsm.path("hsm.toml");
    std::fs::write(&path, "format = 1\nmade = \"soon\"\n").unwrap();
    let config = configured(&hsm, "only", &format!("module_profile = \"{}\"", path.display()));
    for command in [&["config", "check", &config][..], &["info", "--config", &config]] {
        hsm.run(command).fails(2, &["hsm.toml:2:8: "]);
    }
}

#[test]
fn the_limit_of_sessions_and_a_mechanism_that_only_is_listed_are_found() {
    let id: String = "hsmux-probe-ed25519".bytes().map(|byte| format!("{byte:02x}")).collect();
    let sim = Sim::new(&format!("seed=931,sessions=12,fault=C_SignInit:1+=0x70@/0x{id}"));
    let probed = on_sim(&sim, &["--out", "-"]);
    probed.succeeds();
    let profile: ModuleProfile = probed.stdout.parse().unwrap();
    let sessions = profile.sessions.as_ref().unwrap();
    assert_eq!((sessions.opened, sessions.refused.as_deref()), (12, Some("CKR_SESSION_COUNT")));
    let found = profile.mechanism("sign-ed25519").unwrap();
    assert_eq!(found.result, ProbeResult::ListedButFails);
    assert!(found.why.as_ref().unwrap().contains("CKR_MECHANISM_INVALID"), "{found:?}");
}

#[test]
fn a_profile_as_json_says_the_same() {
    let sim = Sim::new("seed=932,sessions=4");
    let probed = on_sim(&sim, &["--json", "--measure-copies"]);
    probed.succeeds();
    let json: serde_json::Value = serde_json::from_str(&probed.stdout).unwrap();
    assert_eq!((json["format"].as_u64(), json["sessions"]["opened"].as_u64()), (Some(1), Some(4)));
    assert_eq!(json["module"]["description"].as_str(), Some("simulated HSM"));
    assert!(json["copies"]["measured"].as_array().is_some_and(|measured| !measured.is_empty()));
    let of_ecdsa =
        json["mechanism"].as_array().unwrap().iter().find(|found| found["operation"] == "sign-ecdsa-p256");
    assert_eq!(of_ecdsa.unwrap()["result"].as_str(), Some("works"));
}
