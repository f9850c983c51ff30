//! The source of the PIN, and what is remembered of PINs that were refused.

mod record;

use std::path::Path;

use hsmux::{PinFault, PinSource};

use super::access::quoted;
use super::finding::Finding;

pub(super) use record::{Refusals, judge as judge_records};

/// A source of the PIN, as it was examined.
pub(super) struct Source {
    source: PinSource,
    /// Where it was looked, in words: of a file, the path.
    place: String,
    faults: Vec<PinFault>,
    ends_in_blank: Option<bool>,
    /// Whether it is one that only the service's own start provides, and this is none.
    is_elsewhere: bool,
}

impl Source {
    /// `has_config`: a configuration names the source, which need not be there where the doctor is run by hand.
    pub(super) fn look(source: &PinSource, has_config: bool) -> Self {
        let examined = source.examine();
        let (place, faults, ends_in_blank) = (examined.place, examined.faults, examined.ends_in_blank);
        let is_missing = match source {
            PinSource::Credential(_) => std::env::var_os("CREDENTIALS_DIRECTORY").is_none(),
            PinSource::Env(name) => std::env::var_os(name).is_none(),
            _ => false,
        };
        let is_elsewhere = has_config && is_missing;
        Self { source: source.clone(), place, faults, ends_in_blank, is_elsewhere }
    }

    /// Why it cannot be read here, and what to do, where only the service's own start provides it.
    pub(super) fn elsewhere(&self) -> Option<(String, &'static str)> {
        let advice = match &self.source {
            PinSource::Credential(_) => {
                "run it as the unit does: systemd-run --pty --uid=USER -p LoadCredential=NAME:PATH hsmux doctor --config FILE"
            }
            _ => {
                "run it as the unit does: systemd-run --pty --uid=USER -p EnvironmentFile=PATH hsmux doctor --config FILE"
            }
        };
        let why = || format!("{}: it is not there outside of the service's unit", self.place);
        self.is_elsewhere.then(|| (why(), advice))
    }

    fn is_file(&self) -> bool {
        matches!(self.source, PinSource::File(_) | PinSource::Credential(_))
    }
}

/// Said where this process cannot be kept from leaving the PIN in a core file.
pub(super) fn exposed(error: &hsmux::Error) -> Finding {
    Finding::warning("pin.process", error.to_string(), "ulimit -c 0, and LimitCORE=0 in the service's unit")
}

/// Whether the source can be used, and how well it keeps the PIN.
pub(super) fn judge(source: Option<&Source>, has_config: bool) -> Vec<Finding> {
    let Some(source) = source else {
        let advice = if has_config { "pin = \"file:PATH\"" } else { "--pin-source file:PATH" };
        return vec![Finding::skipped("pin.source", "no PIN source was named").advise(advice)];
    };
    let mut findings = vec![judge_form(source)];
    let Some(unread) = source.faults.iter().find(|fault| is_unread(fault)) else {
        if source.is_file() {
            findings.extend([judge_owner(source), judge_permissions(source)]);
        }
        findings.extend(judge_content(source));
        return findings;
    };
    if let Some((why, advice)) = source.elsewhere() {
        findings.push(Finding::skipped("pin.content", why).advise(advice));
        return findings;
    }
    let what = format!("{}: {unread}", source.place);
    let advice = match &source.source {
        PinSource::Env(_) => "set that variable; better: --pin-source file:PATH",
        PinSource::Credential(_) => "LoadCredential=NAME:PATH in the unit, by the name that the source has",
        _ => "put the PIN into a file of the service's user there: install -m 600 /dev/stdin PATH",
    };
    findings.push(Finding::problem("pin.content", what, advice));
    findings
}

const fn is_unread(fault: &PinFault) -> bool {
    matches!(fault, PinFault::Unreadable(_) | PinFault::NotAFile)
}

fn judge_form(source: &Source) -> Finding {
    const CHECK: &str = "pin.source";
    const FILE: &str = "pin = \"file:PATH\", or with systemd LoadCredential= and pin = \"credential:NAME\"";
    match &source.source {
        PinSource::Env(_) => Finding::warning(
            CHECK,
            "the PIN comes from the environment: this user sees it in /proc, and every child inherits it",
            FILE,
        ),
        PinSource::Prompt => Finding::warning(
            CHECK,
            "a person at the terminal is asked for the PIN: a service that starts by itself has none",
            FILE,
        ),
        PinSource::ProtectedAuthenticationPath => Finding::ok(CHECK, "the token asks for the PIN itself"),
        PinSource::File(_) => Finding::ok(CHECK, format!("the PIN comes from a file, {}", source.place)),
        PinSource::Credential(_) => Finding::ok(CHECK, "the PIN comes from a credential of systemd"),
        PinSource::Fd(number) => Finding::ok(CHECK, format!("the PIN comes from file descriptor {number}")),
        _ => Finding::ok(CHECK, "the program has the PIN"),
    }
}

fn judge_owner(source: &Source) -> Finding {
    const CHECK: &str = "pin.owner";
    if !source.faults.contains(&PinFault::AnotherUsers) {
        return Finding::ok(CHECK, format!("{} belongs to this user or root", source.place));
    }
    let what = format!("{}: {}", source.place, PinFault::AnotherUsers);
    let shell = quoted(Path::new(&source.place));
    Finding::problem(
        CHECK,
        what,
        format!("chown \"$(id -u)\" {shell}   # or run the doctor as the user of the service"),
    )
}

fn judge_permissions(source: &Source) -> Finding {
    const CHECK: &str = "pin.permissions";
    let open = source.faults.iter().find_map(|fault| match fault {
        PinFault::OpenToOthers { remedy } => Some(*remedy),
        _ => None,
    });
    match open {
        Some(remedy) => {
            let what = format!("others may read or write {}, and the engine refuses it", source.place);
            Finding::problem(CHECK, what, format!("{remedy} {}", quoted(Path::new(&source.place))))
        }
        None => Finding::ok(CHECK, format!("nobody else may read or write {}", source.place)),
    }
}

/// None for a source that was not read.
fn judge_content(source: &Source) -> Option<Finding> {
    const CHECK: &str = "pin.content";
    let bad = |fault: &&PinFault| matches!(fault, PinFault::Empty | PinFault::TooLong | PinFault::NotUtf8);
    if let Some(fault) = source.faults.iter().find(bad) {
        let what = format!("{} holds no PIN: {fault}", source.place);
        return Some(Finding::problem(
            CHECK,
            what,
            "put the PIN there, and nothing else, with one line end at most",
        ));
    }
    Some(match source.ends_in_blank? {
        true => Finding::warning(
            CHECK,
            format!("the PIN in {} ends in a blank or a second line end, which is sent too", source.place),
            "take it away, unless the PIN is so: a wrong PIN costs a try",
        ),
        false => Finding::ok(CHECK, format!("{} holds a PIN", source.place)),
    })
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    fn judged(
        source: &str,
        faults: Vec<PinFault>,
        ends_in_blank: Option<bool>,
    ) -> Vec<(&'static str, Level)> {
        let source = source.parse().unwrap();
        let source =
            Source { source, place: "/run/pin".to_owned(), faults, ends_in_blank, is_elsewhere: false };
        judge(Some(&source), true).iter().map(|finding| (finding.check, finding.level)).collect()
    }

    #[test]
    fn every_form_of_source_has_its_level() {
        for (form, level) in [
            ("file:/run/pin", Level::Ok),
            ("credential:pin", Level::Ok),
            ("fd:3", Level::Ok),
            ("protected", Level::Ok),
            ("env:PIN", Level::Warning),
            ("prompt", Level::Warning),
        ] {
            assert_eq!(judged(form, Vec::new(), None)[0], ("pin.source", level), "{form}");
        }
        assert_eq!(judge(None, true)[0].level, Level::Skipped);
    }

    #[test]
    fn each_fault_of_a_file_is_found_whatever_else_is_wrong() {
        let open = || PinFault::OpenToOthers { remedy: "chmod 600" };
        let levels = |faults: Vec<PinFault>, blank| {
            let found = judged("file:/run/pin", faults, blank);
            let checks: Vec<_> = found.iter().map(|(check, _)| *check).collect();
            assert_eq!(checks[1..3], ["pin.owner", "pin.permissions"]);
            found[1..].iter().map(|(_, level)| *level).collect::<Vec<_>>()
        };
        assert_eq!(levels(vec![], Some(false)), [Level::Ok, Level::Ok, Level::Ok]);
        assert_eq!(levels(vec![open()], Some(false)), [Level::Ok, Level::Problem, Level::Ok]);
        assert_eq!(
            levels(vec![PinFault::AnotherUsers, open(), PinFault::Empty], None),
            [Level::Problem, Level::Problem, Level::Problem]
        );
        assert_eq!(levels(vec![], Some(true)), [Level::Ok, Level::Ok, Level::Warning]);
    }

    #[test]
    fn the_advice_is_the_command_for_the_file() {
        let source = Source {
            source: "file:/run/my pin".parse().unwrap(),
            place: "/run/my pin".to_owned(),
            faults: vec![PinFault::OpenToOthers { remedy: "chmod 600" }],
            ends_in_blank: Some(false),
            is_elsewhere: false,
        };
        assert_eq!(judge_permissions(&source).advice.as_deref(), Some("chmod 600 '/run/my pin'"));
    }

    #[test]
    fn a_source_that_cannot_be_read_is_one_problem_and_a_variable_has_no_permissions() {
        let gone = || vec![PinFault::Unreadable("No such file".to_owned())];
        for source in ["file:/run/pin", "credential:pin", "env:PIN"] {
            let found = judged(source, gone(), None);
            assert_eq!(found[1..], [("pin.content", Level::Problem)], "{source}");
        }
        assert_eq!(judged("env:PIN", vec![], Some(false))[1..], [("pin.content", Level::Ok)]);
        assert_eq!(judged("prompt", vec![], None).len(), 1);
    }

    #[test]
    fn a_source_that_only_the_units_start_provides_is_skipped_outside_of_it() {
        let credential: PinSource = "credential:pin".parse().unwrap();
        let env: PinSource = "env:HSMUX_DOCTOR_NO_SUCH_VARIABLE".parse().unwrap();
        for (source, advice) in [(&credential, "-p LoadCredential="), (&env, "-p EnvironmentFile=")] {
            let skipped = judge(Some(&Source::look(source, true)), true).remove(1);
            assert_eq!((skipped.check, skipped.level), ("pin.content", Level::Skipped));
            assert!(skipped.advice.unwrap().contains(advice));
            // Who names it here means here.
            let found = judge(Some(&Source::look(source, false)), false).remove(1);
            assert_eq!((found.check, found.level), ("pin.content", Level::Problem));
        }
    }
}
