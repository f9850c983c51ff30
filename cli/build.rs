//! Tells the program of what commit it is, for the results of its load runs: `HSMUX_COMMIT`, unless that is set.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=HSMUX_COMMIT");
    if std::env::var_os("HSMUX_COMMIT").is_some() {
        return;
    }
    // Of a source package, or without git, nothing is told.
    let Some(log) = git(&["rev-parse", "--path-format=absolute", "--git-path", "logs/HEAD"]) else { return };
    if std::path::Path::new(&log).exists() {
        println!("cargo::rerun-if-changed={log}");
    }
    if let Some(commit) = git(&["rev-parse", "HEAD"]) {
        println!("cargo::rustc-env=HSMUX_COMMIT={commit}");
    }
}

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
