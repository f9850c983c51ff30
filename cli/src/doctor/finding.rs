//! What was looked at, how it is, and what to do about it.

use serde::Serialize;

use crate::exit::{Exit, printable};

/// How something is. In the order of what weighs more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    Ok,
    /// It could not be looked at.
    Skipped,
    /// It works, and somebody should know.
    Warning,
    /// A service does not start with it, or does not work.
    Problem,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// What was checked, for programs: it stays the same. Up to the point, the area.
    pub(super) check: &'static str,
    pub(super) level: Level,
    /// A sentence, with what was measured.
    pub(super) what: String,
    /// A command or setting.
    pub(super) advice: Option<String>,
    /// How the program ends if this is the first of its level.
    #[serde(skip)]
    pub(super) exit: Exit,
}

/// The areas in the order in which they are looked at, with their titles.
const AREAS: [(&str, &str); 9] = [
    ("config", "Configuration"),
    ("audit", "Audit log"),
    ("pin", "PIN"),
    ("module", "Module"),
    ("token", "Tokens"),
    ("sessions", "Sessions"),
    ("limits", "Limits of the system"),
    ("clock", "Clock"),
    ("login", "Login"),
];

impl Level {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Skipped => "skipped",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

impl Finding {
    pub(super) fn ok(check: &'static str, what: impl AsRef<str>) -> Self {
        Self::new(check, Level::Ok, what.as_ref(), None)
    }

    /// `why` it could not be looked at.
    pub(super) fn skipped(check: &'static str, why: impl AsRef<str>) -> Self {
        Self::new(check, Level::Skipped, why.as_ref(), None)
    }

    pub(super) fn warning(check: &'static str, what: impl AsRef<str>, advice: impl AsRef<str>) -> Self {
        Self::new(check, Level::Warning, what.as_ref(), Some(advice.as_ref()))
    }

    pub(super) fn problem(check: &'static str, what: impl AsRef<str>, advice: impl AsRef<str>) -> Self {
        Self::new(check, Level::Problem, what.as_ref(), Some(advice.as_ref()))
    }

    /// The same, with what to do so that it can be looked at.
    pub(super) fn advise(mut self, advice: impl AsRef<str>) -> Self {
        self.advice = Some(printable(advice.as_ref()));
        self
    }

    /// The same, of a class that its area does not tell.
    pub(super) const fn with_exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// The title of its area.
    pub(super) fn area(&self) -> &'static str {
        let name = self.check.split('.').next().unwrap_or_default();
        AREAS.iter().find(|(area, _)| *area == name).map_or("Other", |(_, title)| title)
    }

    /// Labels come from tokens, and a terminal obeys what it is sent.
    fn new(check: &'static str, level: Level, what: &str, advice: Option<&str>) -> Self {
        Self { check, level, what: printable(what), advice: advice.map(printable), exit: class(check) }
    }
}

/// The class of a problem that a check finds.
fn class(check: &str) -> Exit {
    let area = check.split('.').next().unwrap_or_default();
    match (area, check) {
        (_, "token.pin_tries" | "token.user_pin" | "token.pin_entry") | ("pin", _) => Exit::Pin,
        ("config" | "audit" | "sessions" | "limits", _) => Exit::Usage,
        ("module", _) => Exit::Module,
        ("token", _) => Exit::Token,
        (_, "login.canary") => Exit::Key,
        _ => Exit::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_tells_its_area_and_the_class_of_its_problems() {
        let known = [
            ("config.file", "Configuration", Exit::Usage),
            ("audit.space", "Audit log", Exit::Usage),
            ("pin.permissions", "PIN", Exit::Pin),
            ("module.load", "Module", Exit::Module),
            ("token.present", "Tokens", Exit::Token),
            ("token.pin_tries", "Tokens", Exit::Pin),
            ("sessions.room", "Sessions", Exit::Usage),
            ("limits.memory", "Limits of the system", Exit::Usage),
            ("clock.system", "Clock", Exit::Other),
            ("login.canary", "Login", Exit::Key),
        ];
        for (check, area, exit) in known {
            let finding = Finding::problem(check, "a", "b");
            assert_eq!((finding.area(), finding.exit), (area, exit), "{check}");
        }
    }

    #[test]
    fn nothing_that_a_token_says_is_obeyed_by_a_terminal() {
        let finding = Finding::warning("token.present", "pay\u{1b}[31m", "a\nb");
        assert_eq!((finding.what.as_str(), finding.advice.as_deref()), ("pay?[31m", Some("a?b")));
        assert_eq!(Finding::skipped("token.present", "a").advise("\u{7}").advice.as_deref(), Some("?"));
    }
}
