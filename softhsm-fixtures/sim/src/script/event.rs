//! What a script says is to happen, and what becomes of it at its beginning and end.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use super::code::Code;

/// An event of the file, checked by itself.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Event {
    pub(super) at: Duration,
    /// How long it lasts; until the end if not said.
    pub(super) length: Option<Duration>,
    /// The token's number; all if not said.
    pub(super) token: Option<usize>,
    pub(super) what: What,
    /// Its place in the file.
    pub(super) span: Range<usize>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum What {
    Lost,
    Back,
    Stall,
    Hang { calls: String },
    Errors { calls: String, share: Option<String>, code: Code },
    Slower { thousandths: u64 },
}

/// The word for what happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Lost,
    Back,
    Stall,
    Hang,
    Errors,
    Slower,
}

impl Kind {
    pub(super) const ALL: [Self; 6] =
        [Self::Lost, Self::Back, Self::Stall, Self::Hang, Self::Errors, Self::Slower];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Back => "back",
            Self::Stall => "stall",
            Self::Hang => "hang",
            Self::Errors => "errors",
            Self::Slower => "slower",
        }
    }

    pub(super) fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Fields that it has to have, beside when and what.
    pub(super) const fn needs(self) -> &'static [&'static str] {
        match self {
            Self::Lost | Self::Back | Self::Hang => &[],
            Self::Stall => &["for"],
            Self::Errors => &["code"],
            Self::Slower => &["by"],
        }
    }

    /// Fields that it may have, too.
    pub(super) const fn takes(self) -> &'static [&'static str] {
        match self {
            Self::Lost | Self::Slower => &["token", "for"],
            Self::Back | Self::Stall => &["token"],
            Self::Hang => &["token", "for", "calls"],
            Self::Errors => &["token", "for", "calls", "share"],
        }
    }
}

/// The label of the token of this number.
pub(super) fn label(token: usize) -> String {
    format!("sim-{token}")
}

impl Event {
    /// `@sim-1`, or nothing for all tokens.
    pub(super) fn place(&self) -> String {
        self.token.map_or_else(String::new, |token| format!("@{}", label(token)))
    }

    /// ` of token sim-1`, or nothing for all tokens.
    fn of(&self) -> String {
        self.token.map_or_else(String::new, |token| format!(" of token {}", label(token)))
    }

    fn on(&self) -> String {
        self.token.map_or_else(String::new, |token| format!(" on token {}", label(token)))
    }

    fn subject(&self) -> String {
        self.token.map_or_else(|| "all tokens".to_owned(), |token| format!("token {}", label(token)))
    }

    fn lasting(&self) -> String {
        self.length.map_or_else(String::new, |time| format!(" for {}", humantime::format_duration(time)))
    }

    /// What is said of its end, if that is a moment of its own: when a hang ends, the call that hangs decides.
    pub(super) fn end(&self) -> Option<String> {
        Some(match &self.what {
            What::Lost => format!("{} back", self.subject()),
            What::Back | What::Hang { .. } => return None,
            What::Stall => format!("stall{} over", self.of()),
            What::Errors { code, .. } => format!("no more {code}{}", self.on()),
            What::Slower { .. } => format!("{} no longer slower", self.subject()),
        })
    }
}

/// What is said of its beginning.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (subject, lasting, on) = (self.subject(), self.lasting(), self.on());
        match &self.what {
            What::Lost => write!(f, "{subject} lost"),
            What::Back => write!(f, "{subject} back"),
            What::Stall => write!(f, "stall{}{lasting}", self.of()),
            What::Hang { calls } => write!(f, "the next call of {calls}{on} hangs{lasting}"),
            What::Errors { calls, share, code } => {
                let share = share.as_deref().unwrap_or("all");
                write!(f, "{code} from {share} of {calls}{on}{lasting}")
            }
            What::Slower { thousandths } => {
                write!(f, "{subject} slower by {}{lasting}", *thousandths as f64 / 1e3)
            }
        }
    }
}
