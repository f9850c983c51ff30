//! Tells the program of what commit it is, for the results of its load runs: `HSMUX_COMMIT`, unless that is set. With `-dirty` if
//! files were changed since.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=HSMUX_COMMIT");
    // Without git, or in a repository that is not this one's, nothing is told.
    if std::env::var_os("HSMUX_COMMIT").is_some()
        || git(&["ls-files", "--error-unmatch", "build.rs"]).is_none()
    {
        return;
    }
    // What a commit, a checkout and a change of what is tracked here touch.
    for name in ["logs/HEAD", "HEAD", "index"] {
        let path = git(&["rev-parse", "--path-format=absolute", "--git-path", name]);
        if let Some(path) = path.filter(|path| Path::new(path).exists()) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    println!("cargo::rerun-if-changed=src");
    if let Some(commit) = git(&["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]) {
        println!("cargo::rustc-env=HSMUX_COMMIT={commit}");
    }
}

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
