//! The source of the PIN, and what is remembered of PINs that were refused.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use hsmux::{PinFault, PinRecord, PinSource, PinState};

use super::access::quoted;
use super::finding::Finding;
use crate::connection::{Site, is_uri};

/// A source of the PIN, as it was examined.
pub(super) struct Source {
    source: PinSource,
    /// Where it was looked, in words: of a file, the path.
    place: String,
    faults: Vec<PinFault>,
    ends_in_blank: Option<bool>,
}

/// What a state directory says of logins.
pub(super) enum Refusals {
    /// There is no such directory, or none that could be read.
    Unknown,
    Known {
        directory: PathBuf,
        refusals: Vec<Refusal>,
    },
}

/// A token that a PIN was refused by, or may have been.
#[derive(Debug)]
pub(super) struct Refusal {
    id: String,
    /// Label and serial number; empty if the record is damaged.
    token: String,
    state: PinState,
    since: Option<SystemTime>,
    /// Whether it may be one of the tokens that are asked about.
    concerns: bool,
}

impl Source {
    pub(super) fn look(source: &PinSource) -> Self {
        let examined = source.examine();
        let (place, faults, ends_in_blank) = (examined.place, examined.faults, examined.ends_in_blank);
        Self { source: source.clone(), place, faults, ends_in_blank }
    }

    fn is_file(&self) -> bool {
        matches!(self.source, PinSource::File(_) | PinSource::Credential(_))
    }
}

impl Refusals {
    pub(super) fn look(site: &Site) -> Self {
        let Some(directory) = site.state_dir() else { return Self::Unknown };
        let Ok(records) = PinRecord::list(directory) else { return Self::Unknown };
        let refusals = records.iter().map(|record| Refusal::of(record, site.named())).collect();
        Self::Known { directory: directory.to_owned(), refusals }
    }
}

impl Refusal {
    fn of(record: &PinRecord, named: &[String]) -> Self {
        // What a URI names is not known before the tokens are.
        let may_be = |name: &String| is_uri(name) || record.is_named(name);
        let concerns = record.label().is_empty() || named.is_empty() || named.iter().any(may_be);
        let token = match record.label() {
            "" => String::new(),
            label => format!("{label} (serial {})", record.serial()),
        };
        Self { id: record.id().to_owned(), token, state: record.state(), since: record.since(), concerns }
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
    let what = format!("{}: {unread}", source.place);
    let advice = match &source.source {
        PinSource::Env(_) => "set that variable where the service is started; better: pin = \"file:PATH\"",
        PinSource::Credential(_) => {
            "LoadCredential=NAME:PATH in the unit; outside of it: --pin-source file:PATH"
        }
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

/// Whether the PIN is kept from tokens because one was refused.
pub(super) fn judge_records(refusals: &Refusals) -> Vec<Finding> {
    const CHECK: &str = "pin.record";
    let Refusals::Known { directory, refusals } = refusals else {
        return vec![Finding::skipped(
            CHECK,
            "there is no state_dir of this user's in which refused PINs are remembered",
        )];
    };
    if refusals.is_empty() {
        return vec![Finding::ok(CHECK, "no refused PIN is on record")];
    }
    refusals.iter().map(|refusal| judge_record(directory, refusal)).collect()
}

fn judge_record(directory: &Path, refusal: &Refusal) -> Finding {
    const CHECK: &str = "pin.record";
    let time = |time| humantime::format_rfc3339_seconds(time).to_string();
    let since = refusal.since.map_or_else(String::new, |since| format!(" at {}", time(since)));
    let token = if refusal.token.is_empty() { &refusal.id } else { &refusal.token };
    let clear = format!(
        "make sure that the PIN is right, then: hsmux pin clear --state-dir {} {}",
        quoted(directory),
        refusal.id
    );
    let (what, advice) = match refusal.state {
        // The next login goes on.
        PinState::Trying => {
            let what = format!("a login to {token} was cut off{since}, or is under way");
            return Finding::warning(CHECK, what, clear);
        }
        PinState::Refused => {
            (format!("{token} refused the PIN{since}, and none is sent to it until that is cleared"), clear)
        }
        PinState::Changing => (
            format!("the change of the PIN of {token} was cut off{since}"),
            "hsmux pin rotate --config FILE --new-pin-source SOURCE --resume".to_owned(),
        ),
        _ => (format!("the record of {token} is damaged, which counts as a refused PIN"), clear),
    };
    match refusal.concerns {
        true => Finding::problem(CHECK, what, advice),
        false => Finding::warning(CHECK, format!("{what}; it is none of the tokens asked about"), advice),
    }
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
        let source = Source { source, place: "/run/pin".to_owned(), faults, ends_in_blank };
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
    fn a_refusal_on_record_is_a_problem_with_the_command_that_clears_it() {
        let of = |state, concerns| {
            let since = Some(SystemTime::UNIX_EPOCH);
            let refusal =
                Refusal { id: "0a1b".into(), token: "pay-1 (serial 7)".into(), state, since, concerns };
            let directory = PathBuf::from("/s");
            judge_records(&Refusals::Known { directory, refusals: vec![refusal] }).remove(0)
        };
        let refused = of(PinState::Refused, true);
        assert_eq!(refused.level, Level::Problem);
        assert!(refused.what.contains("pay-1 (serial 7) refused the PIN at 1970-01-01"), "{refused:?}");
        assert!(refused.advice.unwrap().ends_with("hsmux pin clear --state-dir /s 0a1b"));
        assert_eq!(of(PinState::Damaged, true).level, Level::Problem);
        assert!(of(PinState::Changing, true).advice.unwrap().contains("--resume"));
        assert_eq!(of(PinState::Trying, true).level, Level::Warning);
        assert_eq!(of(PinState::Refused, false).level, Level::Warning, "another token's");
        let none = Refusals::Known { directory: "/s".into(), refusals: Vec::new() };
        assert_eq!(judge_records(&none)[0].level, Level::Ok);
        assert_eq!(judge_records(&Refusals::Unknown)[0].level, Level::Skipped);
    }
}
