//! The configuration: whether it can be read, who may change it, and where logins are remembered.

use std::path::{Path, PathBuf};

use hsmux::{Config, Copies, PinKeep};

use super::access::{Place, Private, me};
use super::finding::Finding;
use crate::connection::Site;
use crate::exit::{Failure, Result};

/// A configuration file.
pub(super) struct File {
    path: PathBuf,
    /// How many tokens it names, or why it cannot be read.
    parsed: std::result::Result<usize, String>,
    /// It and the directory that it is in, if they are there.
    places: Option<[Place; 2]>,
    me: u32,
}

/// Where logins are remembered.
pub(super) enum StateDir {
    Unset { has_config: bool },
    Set { path: PathBuf, private: Private, me: u32 },
}

impl File {
    pub(super) fn look(path: &Path, site: &Result<Site>) -> Self {
        let parsed = match site {
            Ok(site) => Ok(site.named().len()),
            Err(Failure::Said { text, .. }) => Err(text.clone()),
            Err(Failure::OutputClosed) => Err("it cannot be read".to_owned()),
        };
        let places = Place::look(path).and_then(|file| Ok([file, Place::look_above(path)?])).ok();
        Self { path: path.to_owned(), parsed, places, me: me() }
    }
}

impl StateDir {
    pub(super) fn look(site: &Site) -> Self {
        match site.state_dir() {
            None => Self::Unset { has_config: site.has_config() },
            Some(path) => Self::Set { path: path.to_owned(), private: Private::look(path), me: me() },
        }
    }
}

/// Whether it can be read, and who may change it.
pub(super) fn judge(file: &File) -> Vec<Finding> {
    let path = file.path.display();
    let parsed = match &file.parsed {
        Ok(1) => Finding::ok("config.file", format!("{path} is well formed and names 1 token")),
        Ok(tokens) => Finding::ok("config.file", format!("{path} is well formed and names {tokens} tokens")),
        Err(why) => Finding::problem(
            "config.file",
            why,
            "correct that line; `hsmux config example` prints every field with what it is for",
        ),
    };
    vec![parsed, permissions(file)]
}

fn permissions(file: &File) -> Finding {
    const CHECK: &str = "config.permissions";
    let Some(places) = &file.places else {
        return Finding::skipped(CHECK, format!("{} cannot be looked at", file.path.display()));
    };
    match places.iter().find_map(|place| place.open_to(file.me)) {
        Some((why, advice)) => {
            Finding::problem(CHECK, format!("{why}: it says which library the service loads"), advice)
        }
        None => {
            let what = format!(
                "nobody but its owner may change {} (mode {:04o})",
                file.path.display(),
                places[0].mode
            );
            Finding::ok(CHECK, what)
        }
    }
}

/// Settings of a configuration that no login of the doctor's tries, if there are any.
pub(super) fn untried(config: &Config) -> Option<Finding> {
    let set = [
        (config.instances() > 1, format!("instances = {}", config.instances())),
        (config.copies() == Copies::Required, "copies = \"required\"".to_owned()),
        (config.pin_keep() == PinKeep::Reread, "pin_keep = \"reread\"".to_owned()),
    ];
    let set: Vec<_> = set.into_iter().filter_map(|(is_set, what)| is_set.then_some(what)).collect();
    let what = format!("not tried here, nor by --login: {}", set.join(", "));
    let advice = "with the service stopped: hsmux info --config FILE   # builds an engine with all of it, which logs in";
    (!set.is_empty()).then(|| Finding::skipped("config.untried", what).advise(advice))
}

/// Whether the file of the module's profile can be read, if one is named: no engine starts without it.
pub(super) fn judge_profile(config: &Config) -> Option<Finding> {
    const CHECK: &str = "config.module_profile";
    match config.module_profile() {
        Ok(profile) => profile.map(|_| Finding::ok(CHECK, "the profile of the module can be read")),
        Err(error) => {
            let advice = "hsmux probe makes it anew; or leave module_profile out of the configuration";
            Some(Finding::problem(CHECK, error.to_string(), advice))
        }
    }
}

/// Whether a refused PIN is remembered.
pub(super) fn judge_state_dir(state_dir: &StateDir) -> Finding {
    const CHECK: &str = "config.state_dir";
    match state_dir {
        StateDir::Unset { has_config } => {
            let what = "no state_dir: after a refused PIN nothing remembers it, and each restart costs a try";
            let advice = if *has_config {
                "state_dir = \"/var/lib/hsmux\"   # a directory of the service's user; systemd: StateDirectory=hsmux"
            } else {
                "--state-dir DIR, a directory of the service's user"
            };
            Finding::warning(CHECK, what, advice)
        }
        StateDir::Set { path, private, me } => private.judge(CHECK, "state_dir", path, *me),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    const ME: u32 = 1000;

    fn file(parsed: std::result::Result<usize, String>, modes: Option<[u32; 2]>) -> Vec<Finding> {
        let place = |path: &str, is_file, mode| Place { path: path.into(), is_file, owner: ME, mode };
        let places = modes.map(|[file, above]| [place("/e/c.toml", true, file), place("/e", false, above)]);
        judge(&File { path: "/e/c.toml".into(), parsed, places, me: ME })
    }

    #[test]
    fn a_file_that_is_well_formed_and_its_owners_is_good() {
        let findings = file(Ok(2), Some([0o644, 0o755]));
        assert!(findings.iter().all(|finding| finding.level == Level::Ok), "{findings:?}");
        assert!(
            findings[0].what.contains("names 2 tokens") && findings[1].what.contains("0644"),
            "{findings:?}"
        );
    }

    #[test]
    fn a_file_that_cannot_be_read_is_a_problem_that_says_where_and_its_permissions_are_still_looked_at() {
        let findings = file(Err("/e/c.toml:3:1: unknown field".to_owned()), Some([0o666, 0o755]));
        assert_eq!(findings.iter().map(|finding| finding.level).collect::<Vec<_>>(), [Level::Problem; 2]);
        assert!(findings[0].what.contains(":3:1:"), "{findings:?}");
        let findings = file(Err("no such file".to_owned()), None);
        assert_eq!((findings[0].level, findings[1].level), (Level::Problem, Level::Skipped));
    }

    #[test]
    fn whoever_may_write_to_the_file_or_its_directory_is_a_problem() {
        for (modes, advice) in [
            ([0o664, 0o755], "chmod go-w /e/c.toml"),
            ([0o646, 0o755], "chmod go-w /e/c.toml"),
            ([0o644, 0o775], "chmod go-w /e"),
        ] {
            let finding = &file(Ok(1), Some(modes))[1];
            assert_eq!((finding.level, finding.advice.as_deref()), (Level::Problem, Some(advice)));
        }
        assert_eq!(file(Ok(1), Some([0o600, 0o1777]))[1].level, Level::Ok);
    }

    #[test]
    fn a_profile_that_cannot_be_read_is_a_problem_and_none_is_nothing() {
        let of = |more: &str| {
            let text = format!("module = \"m\"\npin = \"env:P\"\n{more}\n[[token]]\nname = \"t\"\n");
            judge_profile(&text.parse().unwrap())
        };
        assert_eq!(of(""), None);
        let missing = of("module_profile = \"/no/such/profile.toml\"").unwrap();
        assert!(
            missing.level == Level::Problem && missing.what.contains("/no/such/profile.toml"),
            "{missing:?}"
        );
    }

    #[test]
    fn what_no_login_tries_is_named() {
        let of = |more: &str| {
            let text = format!("module = \"m\"\npin = \"env:P\"\n{more}\n[[token]]\nname = \"t\"\n");
            untried(&text.parse().unwrap())
        };
        assert_eq!(of(""), None);
        let all = of("instances = 2\ncopies = \"required\"\npin_keep = \"reread\"").unwrap();
        assert_eq!(all.level, Level::Skipped);
        for part in ["instances = 2", "copies = \"required\"", "pin_keep = \"reread\""] {
            assert!(all.what.contains(part), "{all:?}");
        }
    }

    #[test]
    fn without_a_state_directory_there_is_a_warning_with_the_setting() {
        for (has_config, advice) in [(true, "state_dir = "), (false, "--state-dir")] {
            let finding = judge_state_dir(&StateDir::Unset { has_config });
            assert_eq!(finding.level, Level::Warning);
            assert!(finding.advice.unwrap_or_default().starts_with(advice));
        }
    }
}
