//! What is remembered of a change of a token's PIN, so that it can be cut off anywhere: which of two PINs the token has, as
//! far as that is known, and which of them were tried to find it out. Nothing that either PIN tells.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::directory::RECORD_LEN_MAX;
use super::record::{Generation, TokenId, time, written};

/// Which PIN a token has, as far as anybody knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Stage {
    Old,
    /// One of the two: it is being changed, or whoever changed it was cut off.
    Changing,
    New,
}

/// One of the two PINs of a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Old,
    New,
}

/// The content of a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rotation {
    version: u32,
    /// Which rotation this is: the same for all of its tokens. A random number.
    pub(super) rotation: String,
    pub(super) stage: Stage,
    serial: String,
    label: String,
    /// Of the stage. Seconds, as in RFC 3339.
    #[serde(with = "time")]
    pub(super) since: SystemTime,
    /// Tries since the last one that was right: each was written down before it was sent.
    #[serde(default)]
    pub(super) tried_old: bool,
    #[serde(default)]
    pub(super) tried_new: bool,
    pub(super) old: Generation,
    pub(super) new: Generation,
    /// Those before the old one, the last ones of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) retired: Vec<Generation>,
}

/// A rotation that begins.
#[derive(Clone, Debug)]
pub(super) struct Begun {
    pub(super) rotation: String,
    pub(super) old: Generation,
    pub(super) new: Generation,
    pub(super) at: SystemTime,
}

/// What there is of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FoundRotation {
    Nothing,
    Rotation(Rotation),
    /// Something that is no record.
    Damaged,
}

/// What is known of the PIN that a process has, by its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    Old,
    New,
    /// One of before the old one.
    Retired,
    /// The source was changed since, or is of a form that has no time of change.
    Other,
}

/// The PINs that a process has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Given {
    One(Known),
    /// Both of the rotation: somebody has said so.
    Both,
}

/// What is to be done about a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// As any login: the token has this PIN.
    Plain(Side),
    /// This one is tried, to find out. `certain`: it is one of the two, so that a refusal tells that it is the other.
    Try {
        side: Side,
        certain: bool,
    },
    Refuse(Stop),
}

/// Why no PIN is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// It is not the token's any more.
    Replaced,
    /// It is not the token's yet.
    NotYet,
    /// The token warns of wrong tries that are not those written down here.
    Warned,
    /// What this process has was tried, and may have been wrong.
    Exhausted,
}

/// The format that is written; any other counts as damaged.
const VERSION: u32 = 1;

/// How many sources of earlier PINs are remembered: more rotations than anybody makes while a process sleeps.
const RETIRED_MAX: usize = 8;

/// Decides about a login to a token whose PIN was changed, or is being changed. `warns`: its flags say that wrong PINs were
/// tried, read after the record was.
///
/// Each of the two PINs is tried once at most while nobody knows which one holds, and none while the flags warn of tries
/// that are not written down. So a token gets two wrong ones in a row at most, and only if it has neither of the two: the
/// strictest known lock at the third.
pub(super) fn decide(record: &Rotation, given: Given, warns: bool) -> Step {
    use Known::{New, Old, Other, Retired};
    let unexplained = warns && !record.is_tried();
    match (record.stage, given) {
        (_, Given::One(Retired)) | (Stage::New, Given::One(Old)) => Step::Refuse(Stop::Replaced),
        // Both may have been wrong: a third one could lock it.
        _ if record.tried_old && record.tried_new => Step::Refuse(Stop::Exhausted),
        (Stage::New, Given::One(New | Other) | Given::Both) => Step::Plain(Side::New),
        (Stage::Old, Given::One(Old) | Given::Both) => Step::Plain(Side::Old),
        (Stage::Old, Given::One(New)) => Step::Refuse(Stop::NotYet),
        (Stage::Old, Given::One(Other)) if record.tried_new => Step::Refuse(Stop::NotYet),
        (Stage::Old | Stage::Changing, _) if unexplained => Step::Refuse(Stop::Warned),
        (Stage::Old, Given::One(Other)) => Step::Try { side: Side::New, certain: false },
        (Stage::Changing, Given::One(New) | Given::Both) if !record.tried_new => {
            Step::Try { side: Side::New, certain: true }
        }
        (Stage::Changing, Given::One(Old) | Given::Both) if !record.tried_old => {
            Step::Try { side: Side::Old, certain: true }
        }
        (Stage::Changing, Given::One(Other)) if !record.tried_new => {
            Step::Try { side: Side::New, certain: false }
        }
        (Stage::Changing, _) => Step::Refuse(Stop::Exhausted),
    }
}

impl Side {
    pub(super) const fn other(self) -> Self {
        match self {
            Self::Old => Self::New,
            Self::New => Self::Old,
        }
    }

    pub(super) const fn stage(self) -> Stage {
        match self {
            Self::Old => Stage::Old,
            Self::New => Stage::New,
        }
    }
}

impl Rotation {
    /// Of a token that has the old PIN, after what was remembered of it before.
    pub(super) fn begin(token: TokenId<'_>, what: &Begun, before: &FoundRotation) -> Self {
        let (serial, label, rotation) =
            (token.serial.to_owned(), token.label.to_owned(), what.rotation.clone());
        let (old, new) = (what.old.clone().into_written(), what.new.clone().into_written());
        let mut retired = match before {
            FoundRotation::Rotation(before) => {
                [before.retired.as_slice(), std::slice::from_ref(&before.old)].concat()
            }
            FoundRotation::Nothing | FoundRotation::Damaged => Vec::new(),
        };
        // A form without a time tells nothing, and a source may be what it was once.
        retired.retain(|of| of.changed.is_some() && *of != old && *of != new);
        retired.dedup();
        retired.drain(..retired.len().saturating_sub(RETIRED_MAX));
        Self {
            version: VERSION,
            rotation,
            stage: Stage::Old,
            serial,
            label,
            since: written(what.at),
            tried_old: false,
            tried_new: false,
            old,
            new,
            retired,
        }
    }

    /// What the record tells of a PIN by where it came from.
    pub(super) fn known(&self, source: &Generation) -> Known {
        let source = source.clone().into_written();
        match source {
            _ if source.changed.is_none() || self.old == self.new => Known::Other,
            _ if source == self.old => Known::Old,
            _ if source == self.new => Known::New,
            _ if self.retired.contains(&source) => Known::Retired,
            _ => Known::Other,
        }
    }

    /// What was remembered before this rotation, as far as it is of use: of the sources of earlier PINs.
    pub(super) fn before(&self) -> Option<Self> {
        let (last, earlier) = self.retired.split_last()?;
        let (rotation, old, new) = (format!("{}-undone", self.rotation), last.clone(), self.old.clone());
        Some(Self { rotation, stage: Stage::New, old, new, retired: earlier.to_vec(), ..self.clone() })
    }

    pub(super) const fn has_tried(&self, side: Side) -> bool {
        match side {
            Side::Old => self.tried_old,
            Side::New => self.tried_new,
        }
    }

    /// Whether a try was written down that may have been wrong.
    pub(super) const fn is_tried(&self) -> bool {
        self.tried_old || self.tried_new
    }

    pub(super) const fn set_tried(&mut self, side: Side) {
        match side {
            Side::Old => self.tried_old = true,
            Side::New => self.tried_new = true,
        }
    }

    /// The token has taken a PIN, by which it forgives wrong ones.
    pub(super) const fn clear_tried(&mut self) {
        (self.tried_old, self.tried_new) = (false, false);
    }

    pub(super) fn set_stage(&mut self, stage: Stage, now: SystemTime) {
        if self.stage != stage {
            (self.stage, self.since) = (stage, written(now));
        }
    }

    /// Serial number and label of its token.
    pub(super) fn token(&self) -> (&str, &str) {
        (&self.serial, &self.label)
    }

    pub(super) fn to_text(&self) -> crate::Result<String> {
        toml::to_string(self)
            .map_err(|error| crate::Error::internal(format!("a record of a rotation: {error}")))
    }
}

impl FoundRotation {
    /// Reads a record; who knows the token sees that it is this one's.
    pub(super) fn read(bytes: Option<&[u8]>, token: Option<TokenId<'_>>) -> Self {
        let Some(bytes) = bytes else { return Self::Nothing };
        let text = std::str::from_utf8(bytes).ok().filter(|text| text.len() <= RECORD_LEN_MAX);
        let record = text.and_then(|text| toml::from_str::<Rotation>(text).ok());
        let is_of = |record: &Rotation, token: TokenId<'_>| {
            record.serial == token.serial && record.label == token.label
        };
        let fits =
            |record: &Rotation| record.version == VERSION && token.is_none_or(|token| is_of(record, token));
        record.filter(fits).map_or(Self::Damaged, Self::Rotation)
    }
}

#[cfg(test)]
mod tests;
