//! `hsmux audit`, on a log that was written without an HSM.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use hsmux::{Audit, AuditTrial};

use crate::hsm::Ended;

/// A log of 40 records and the key of its checkpoints, in a directory of its own.
struct Site {
    place: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        let site = Self { place: tempfile::tempdir().unwrap() };
        site.write();
        std::fs::write(site.path("key"), AuditTrial::public_key_der().unwrap()).unwrap();
        site
    }

    fn write(&self) {
        let settings = Audit::new(self.path("log")).name("example.com/pay");
        AuditTrial::new(settings.checkpoints(15, Duration::from_secs(60))).run(4, 10).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Runs the binary, which knows no module.
    fn run(arguments: &[&str]) -> Ended {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hsmux"));
        command.args(arguments).env_remove("PKCS11_MODULE_PATH").stdin(Stdio::null());
        Ended::of(&command.output().unwrap())
    }

    fn audit(&self, what: &str, more: &[&str]) -> Ended {
        Self::run(&[&["audit", what, &self.text("log")], more].concat())
    }

    /// Keeps a copy of the last checkpoint.
    fn keep_checkpoint(&self) -> String {
        let is_checkpoint =
            |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with("checkpoint-");
        let files = std::fs::read_dir(self.path("log")).unwrap().map(|entry| entry.unwrap().path());
        std::fs::copy(files.filter(is_checkpoint).max().unwrap(), self.path("kept")).unwrap();
        self.text("kept")
    }

    /// Changes a text in the first segment.
    fn tamper(&self, from: &str, to: &str) {
        let segment = self.path("log").join("00000000.jsonl");
        let text = std::fs::read_to_string(&segment).unwrap();
        std::fs::write(&segment, text.replacen(from, to, 1)).unwrap();
    }
}

#[test]
fn a_log_that_is_as_it_was_written_verifies_with_the_key_and_since_a_checkpoint() {
    let site = Site::new();
    let key = site.text("key");
    let good = site.audit("verify", &["--key", &key]);
    good.succeeds();
    assert!(good.stdout.starts_with("good: 4") && good.stdout.contains(" of example.com/pay/"), "{good:?}");
    assert!(!good.stdout.contains("signatures were not checked"));
    site.audit("verify", &[]).succeeds();
    assert!(site.audit("verify", &[]).stdout.contains("signatures were not checked"));

    let kept = site.keep_checkpoint();
    site.write();
    let report = site.audit("verify", &["--key", &key, "--since", &kept, "--json"]);
    report.succeeds();
    let report: serde_json::Value = serde_json::from_str(&report.stdout).unwrap();
    assert!(report["fault"].is_null() && report["covered"] == report["records"], "{report}");
}

#[test]
fn a_log_that_was_tampered_with_ends_with_its_own_code_and_says_where() {
    let site = Site::new();
    let kept = site.keep_checkpoint();
    site.tamper("card-signing", "card-singing");
    let bad = site.audit("verify", &[]);
    assert_eq!((bad.code, bad.stderr.as_str()), (Some(11), "hsmux: the audit log does not verify\n"));
    assert!(bad.stdout.starts_with("BAD: 00000000.jsonl, line 2: record 1: it was changed"), "{bad:?}");
    let bad = site.audit("verify", &["--json"]);
    let report: serde_json::Value = serde_json::from_str(&bad.stdout).unwrap();
    assert_eq!((&report["fault"]["line"], &report["fault"]["sequence"]), (&2.into(), &1.into()));

    std::fs::remove_dir_all(site.path("log")).unwrap();
    site.write();
    let other = site.audit("verify", &["--since", &kept]);
    assert!(other.code == Some(11) && other.stdout.contains("the remembered checkpoint is of"), "{other:?}");
    site.audit("prove", &["--sequence", "10000"]).fails(7, &["there is no such record"]);
}

#[test]
fn a_proof_is_checked_without_the_log() {
    let site = Site::new();
    let key = site.text("key");
    let prove = |more: &[&str], name: &str| {
        let proof = site.audit("prove", more);
        proof.succeeds();
        std::fs::write(site.path(name), &proof.stdout).unwrap();
        proof.stdout
    };
    let text = prove(&["--sequence", "7"], "proof");
    prove(&["--grown-from", "3"], "grown");
    std::fs::remove_dir_all(site.path("log")).unwrap();
    let checked = Site::run(&["audit", "check", &site.text("proof"), "--key", &key]);
    checked.succeeds();
    assert!(checked.stdout.starts_with("good: in the log is {\"v\":1,\"seq\":7,"), "{checked:?}");
    Site::run(&["audit", "check", &site.text("grown")]).succeeds();
    // Nobody has signed for three records.
    Site::run(&["audit", "check", &site.text("grown"), "--key", &key]).fails(11, &["there is no checkpoint"]);
    std::fs::write(site.path("other"), text.replace("\"sequence\":7", "\"sequence\":6")).unwrap();
    Site::run(&["audit", "check", &site.text("other")]).fails(11, &["does not lead to the root"]);
    Site::run(&["audit", "check", &key]).fails(2, &["no proof"]);
}

#[test]
fn the_last_records_are_shown_in_words_or_as_they_are() {
    let site = Site::new();
    let shown = site.audit("tail", &["-n", "2"]);
    shown.succeeds();
    let lines: Vec<_> = shown.stdout.lines().collect();
    assert!(lines.len() == 2 && lines[1].contains("stop"), "{lines:?}");
    let shown = site.audit("tail", &["-n", "1000", "--json"]);
    let first: serde_json::Value = serde_json::from_str(shown.stdout.lines().next().unwrap()).unwrap();
    assert_eq!(first["kind"], "start");
    assert!(site.audit("tail", &["-n", "1000"]).stdout.contains("operation=sign"));
}

#[test]
fn what_is_followed_goes_on_with_what_comes_until_nobody_reads() {
    use std::io::{BufRead, BufReader};
    let site = Site::new();
    let log = site.text("log");
    let mut command = Command::new(env!("CARGO_BIN_EXE_hsmux"));
    command.args(["audit", "tail", &log, "-n", "1", "--follow"]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(|line| line.unwrap());
    // It has begun before anything comes.
    assert!(lines.next().unwrap().contains("stop"));
    site.write();
    assert!(lines.next().unwrap().contains("start"));
    assert!(lines.any(|line| line.contains("stop")));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn what_is_not_there_or_no_key_is_told() {
    let site = Site::new();
    let nowhere = |what: &[&str]| Site::run(&[&["audit"], what].concat());
    nowhere(&["verify", "/nonexistent"]).fails(2, &["audit log: /nonexistent: "]);
    nowhere(&["tail", "/nonexistent"]).fails(2, &["audit log: /nonexistent: "]);
    let neither = nowhere(&["prove", "/nonexistent"]);
    assert!(neither.code == Some(2) && neither.stderr.contains("--sequence"), "{neither:?}");
    assert!(Path::new(&site.text("log")).is_dir());
    site.audit("verify", &["--key", "/nonexistent"]).fails(2, &["/nonexistent: "]);
    site.audit("verify", &["--key", &site.text("log/lock")])
        .fails(2, &["this is no public key for checkpoints"]);
    site.audit("verify", &["--since", &site.text("key")]).fails(2, &["this is no checkpoint"]);
}
