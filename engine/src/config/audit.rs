//! The audit log, as a configuration has it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use super::value::{Limit, path};
use crate::audit::{Audit, AuditLoss, AuditMode};

/// One table, as `{ directory = "/var/lib/hsmux/audit", mode = "window" }`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AuditConfig {
    #[serde(deserialize_with = "path")]
    directory: PathBuf,
    name: Option<String>,
    #[serde(default)]
    mode: Mode,
    window_records: Option<u64>,
    #[serde(default, deserialize_with = "duration")]
    window_age: Option<Duration>,
    #[serde(default)]
    loss: Loss,
    checkpoint_records: Option<u64>,
    #[serde(default, deserialize_with = "duration")]
    checkpoint_time: Option<Duration>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    #[default]
    Strict,
    #[serde(rename = "strict+intent")]
    StrictIntent,
    Window,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Loss {
    #[default]
    Stop,
    Shed,
}

/// What a window allows if nothing else is said: so many records, or a tenth of a second, may be lost with the power.
const WINDOW: (u64, Duration) = (1_000, Duration::from_millis(100));

impl AuditConfig {
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn settings(&self) -> Audit {
        let mode = match self.mode {
            Mode::Strict => AuditMode::Strict,
            Mode::StrictIntent => AuditMode::StrictIntent,
            Mode::Window => AuditMode::Window {
                records: self.window_records.unwrap_or(WINDOW.0),
                age: self.window_age.unwrap_or(WINDOW.1),
            },
        };
        let loss = match self.loss {
            Loss::Stop => AuditLoss::Stop,
            Loss::Shed => AuditLoss::Shed,
        };
        let audit = Audit::new(&self.directory).mode(mode).loss(loss);
        let (records, time) = (audit.checkpoint_records, audit.checkpoint_time);
        let audit = audit
            .checkpoints(self.checkpoint_records.unwrap_or(records), self.checkpoint_time.unwrap_or(time));
        self.name.iter().fold(audit, |audit, name| audit.name(name))
    }
}

fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    Limit::deserialize(from).map(|limit| limit.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_strict_unless_something_else_is_said() {
        let read = |text: &str| toml::from_str::<AuditConfig>(text).map(|config| config.settings());
        assert_eq!(read("directory = \"/a\"").unwrap(), Audit::new("/a"));
        let all = "directory = \"/a\"\nname = \"n\"\nmode = \"window\"\nwindow_records = 7\nwindow_age = \"5ms\"\n\
                   loss = \"shed\"\ncheckpoint_records = 9\ncheckpoint_time = \"3s\"";
        let mode = AuditMode::Window { records: 7, age: Duration::from_millis(5) };
        let wanted = Audit::new("/a").name("n").mode(mode).loss(AuditLoss::Shed);
        assert_eq!(read(all).unwrap(), wanted.checkpoints(9, Duration::from_secs(3)));
        for wrong in
            ["", "directory = \"\"", "directory = \"/a\"\nmode = \"lax\"", "directory = \"/a\"\nmore = 1"]
        {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
