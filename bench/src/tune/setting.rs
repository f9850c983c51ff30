//! What is tuned.

use std::fmt;

use serde::Serialize;

/// What is tuned. The rest of a configuration stays as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Setting {
    /// Sessions per token and instance.
    pub sessions: usize,
    /// How often the module is loaded.
    pub instances: usize,
    /// Whether requests share calls.
    pub coalescing: bool,
    /// Whether keys get warm copies where the engine finds that they pay.
    pub copies: bool,
}

/// One session, and the engine's defaults.
impl Default for Setting {
    fn default() -> Self {
        Self { sessions: 1, instances: 1, coalescing: true, copies: true }
    }
}

impl Setting {
    /// With so many sessions.
    #[must_use]
    pub const fn with_sessions(self, sessions: usize) -> Self {
        Self { sessions, ..self }
    }

    /// Whether all but the sessions are the same.
    #[must_use]
    pub fn has_switches_of(self, other: Self) -> bool {
        self.with_sessions(0) == other.with_sessions(0)
    }

    /// What makes one setting simpler than another: fewer sessions in all, then fewer instances and more defaults.
    pub(super) const fn weight(self) -> (usize, usize, bool, bool) {
        (self.sessions.saturating_mul(self.instances), self.instances, !self.coalescing, !self.copies)
    }
}

/// As it is told: `8 sessions`, with what differs from the defaults.
impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} session{}", self.sessions, if self.sessions == 1 { "" } else { "s" })?;
        if self.instances > 1 {
            write!(f, " in each of {} instances", self.instances)?;
        }
        f.write_str(if self.coalescing { "" } else { ", no coalescing" })?;
        f.write_str(if self.copies { "" } else { ", no copies" })
    }
}
