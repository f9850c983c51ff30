//! What is remembered of PINs that were refused.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use hsmux::{PinRecord, PinState};

use super::super::access::{Private, quoted};
use super::super::finding::Finding;
use crate::connection::{Site, is_uri};

/// What a state directory says of logins.
pub(in crate::doctor) enum Refusals {
    /// There is no such directory, or none that an engine takes, which is said elsewhere.
    Unknown,
    /// No engine sends a PIN, for it cannot be read why.
    Unreadable {
        directory: PathBuf,
        why: String,
    },
    Known {
        directory: PathBuf,
        refusals: Vec<Refusal>,
    },
}

/// A token that a PIN was refused by, or may have been.
#[derive(Debug)]
pub(in crate::doctor) struct Refusal {
    id: String,
    /// Label and serial number; empty if the record is damaged.
    token: String,
    state: PinState,
    since: Option<SystemTime>,
    /// Whether it may be one of the tokens that are asked about.
    concerns: bool,
}

impl Refusals {
    pub(in crate::doctor) fn look(site: &Site) -> Self {
        let Some(directory) = site.state_dir() else { return Self::Unknown };
        if !matches!(Private::look(directory), Private::Usable | Private::Unwritable { .. }) {
            return Self::Unknown;
        }
        let directory = directory.to_owned();
        match PinRecord::list(&directory) {
            Ok(records) => {
                let refusals = records.iter().map(|record| Refusal::of(record, site.named())).collect();
                Self::Known { directory, refusals }
            }
            Err(error) => Self::Unreadable { directory, why: error.to_string() },
        }
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

/// Whether the PIN is kept from tokens because one was refused.
pub(in crate::doctor) fn judge(refusals: &Refusals) -> Vec<Finding> {
    const CHECK: &str = "pin.record";
    let (directory, refusals) = match refusals {
        Refusals::Known { directory, refusals } => (directory, refusals),
        Refusals::Unknown => {
            let why = "there is no state_dir of this user's in which refused PINs are remembered";
            return vec![Finding::skipped(CHECK, why)];
        }
        Refusals::Unreadable { directory, why } => {
            let what =
                format!("what is remembered of logins cannot be read, and no engine sends a PIN then: {why}");
            let advice = format!("see who made that file: ls -l {}", quoted(directory));
            return vec![Finding::problem(CHECK, what, advice)];
        }
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
    use super::super::super::finding::Level;
    use super::*;

    #[test]
    fn a_refusal_on_record_is_a_problem_with_the_command_that_clears_it() {
        let of = |state, concerns| {
            let since = Some(SystemTime::UNIX_EPOCH);
            let refusal =
                Refusal { id: "0a1b".into(), token: "pay-1 (serial 7)".into(), state, since, concerns };
            let directory = PathBuf::from("/s");
            judge(&Refusals::Known { directory, refusals: vec![refusal] }).remove(0)
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
        assert_eq!(judge(&none)[0].level, Level::Ok);
        assert_eq!(judge(&Refusals::Unknown)[0].level, Level::Skipped);
    }

    #[test]
    fn a_record_that_cannot_be_read_is_a_problem_for_no_engine_sends_a_pin_then() {
        let unreadable = Refusals::Unreadable { directory: "/s".into(), why: "/s/pin-0a: denied".into() };
        let finding = judge(&unreadable).remove(0);
        assert!(finding.level == Level::Problem && finding.what.contains("/s/pin-0a: denied"), "{finding:?}");
    }
}
