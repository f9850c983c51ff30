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
mod tests {
    use std::time::Duration;

    use super::*;

    const TOKEN: TokenId<'_> = TokenId { serial: "0042", label: "pay-1", model: "m", manufacturer: "hsmux" };

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn file(seconds: u64) -> Generation {
        Generation { form: "file".to_owned(), changed: Some(at(seconds)) }
    }

    fn form(form: &str) -> Generation {
        Generation { form: form.to_owned(), changed: None }
    }

    fn begin(old: Generation, new: Generation, before: &FoundRotation) -> Rotation {
        Rotation::begin(TOKEN, &Begun { rotation: "0badcafe".to_owned(), old, new, at: at(3) }, before)
    }

    fn begun() -> Rotation {
        begin(file(1), file(2), &FoundRotation::Nothing)
    }

    fn at_stage(stage: Stage, tried_old: bool, tried_new: bool) -> Rotation {
        Rotation { stage, tried_old, tried_new, ..begun() }
    }

    #[test]
    fn what_is_sent_to_a_token_follows_from_record_sources_and_flags() {
        use Known::{New, Old, Other, Retired};
        use Stop::{Exhausted, NotYet, Replaced, Warned};
        const O: Side = Side::Old;
        const N: Side = Side::New;
        let of = |side, certain| Step::Try { side, certain };
        let (plain, no) = (Step::Plain, Step::Refuse);
        let all = [Given::One(Old), Given::One(New), Given::One(Retired), Given::One(Other), Given::Both];
        // Stage, tried old and new, flags warn: what becomes of who has all of these.
        let table = [
            (Stage::Old, [false, false], false, [plain(O), no(NotYet), no(Replaced), of(N, false), plain(O)]),
            (Stage::Old, [false, false], true, [plain(O), no(NotYet), no(Replaced), no(Warned), plain(O)]),
            (Stage::Old, [false, true], false, [plain(O), no(NotYet), no(Replaced), no(NotYet), plain(O)]),
            (Stage::Old, [false, true], true, [plain(O), no(NotYet), no(Replaced), no(NotYet), plain(O)]),
            (Stage::Old, [true, false], true, [plain(O), no(NotYet), no(Replaced), of(N, false), plain(O)]),
            (Stage::New, [false, false], false, [no(Replaced), plain(N), no(Replaced), plain(N), plain(N)]),
            (Stage::New, [false, false], true, [no(Replaced), plain(N), no(Replaced), plain(N), plain(N)]),
            (Stage::New, [true, false], true, [no(Replaced), plain(N), no(Replaced), plain(N), plain(N)]),
            (
                Stage::Changing,
                [false, false],
                false,
                [of(O, true), of(N, true), no(Replaced), of(N, false), of(N, true)],
            ),
            (
                Stage::Changing,
                [false, false],
                true,
                [no(Warned), no(Warned), no(Replaced), no(Warned), no(Warned)],
            ),
        ];
        for warns in [false, true] {
            let exhausted = [no(Exhausted), no(Exhausted), no(Replaced), no(Exhausted), no(Exhausted)];
            let replaced = [no(Replaced), no(Exhausted), no(Replaced), no(Exhausted), no(Exhausted)];
            let rest = [
                (Stage::Old, [true, true], warns, exhausted),
                (Stage::New, [true, true], warns, replaced),
                (
                    Stage::Changing,
                    [false, true],
                    warns,
                    [of(O, true), no(Exhausted), no(Replaced), no(Exhausted), of(O, true)],
                ),
                (
                    Stage::Changing,
                    [true, false],
                    warns,
                    [no(Exhausted), of(N, true), no(Replaced), of(N, false), of(N, true)],
                ),
                (Stage::Changing, [true, true], warns, exhausted),
            ];
            for (stage, [old, new], warns, wanted) in table.into_iter().chain(rest) {
                let record = at_stage(stage, old, new);
                let steps = all.map(|given| decide(&record, given, warns));
                assert_eq!(steps, wanted, "{stage:?}, tried {old} {new}, warns {warns}");
            }
        }
    }

    #[test]
    fn two_tries_are_the_most_while_nobody_knows_which_pin_holds_whatever_is_killed() {
        let (mut record, mut sent) = (at_stage(Stage::Changing, false, false), Vec::new());
        for round in 0..100 {
            let given = [Given::Both, Given::One(Known::Old), Given::One(Known::Other)][round % 3];
            // The token never warns, and each one is killed before it hears the answer.
            if let Step::Try { side, .. } = decide(&record, given, false) {
                record.set_tried(side);
                sent.push(side);
            }
        }
        assert_eq!(sent, [Side::New, Side::Old]);
    }

    #[test]
    fn a_source_is_known_by_its_form_and_time_and_one_without_a_time_is_not() {
        let first = begun();
        let second = begin(file(2), file(5), &FoundRotation::Rotation(first));
        for (source, known) in [
            (file(1), Known::Retired),
            (file(2), Known::Old),
            (file(5), Known::New),
            (file(7), Known::Other),
            (Generation { form: "credential".to_owned(), ..file(2) }, Known::Other),
            (form("value"), Known::Other),
        ] {
            assert_eq!(second.known(&source), known, "{source:?}");
        }
        let same = begin(form("value"), form("value"), &FoundRotation::Nothing);
        assert_eq!((same.known(&form("value")), same.known(&file(1))), (Known::Other, Known::Other));
        // A time that no record has words for is the one that is written in its place.
        let odd = file(1 << 40);
        let odd_one = begin(odd.clone(), file(2), &FoundRotation::Nothing);
        assert_eq!(odd_one.known(&odd), Known::Old);
    }

    #[test]
    fn a_record_is_read_as_it_was_written_and_says_nothing_of_a_pin() {
        let mut record = begun();
        record.set_stage(Stage::Changing, at(1_000_000_000));
        record.set_tried(Side::New);
        let text = record.to_text().unwrap();
        let expected = "\
version = 1
rotation = \"0badcafe\"
stage = \"changing\"
serial = \"0042\"
label = \"pay-1\"
since = \"2001-09-09T01:46:40Z\"
tried_old = false
tried_new = true

[old]
form = \"file\"
changed = \"1970-01-01T00:00:01.000000000Z\"

[new]
form = \"file\"
changed = \"1970-01-01T00:00:02.000000000Z\"
";
        assert_eq!(text, expected);
        let read = |text: &str| FoundRotation::read(Some(text.as_bytes()), Some(TOKEN));
        assert_eq!(read(&text), FoundRotation::Rotation(record));
        for (from, to) in [
            ("version = 1", "version = 2"),
            ("changing", "done"),
            ("0042", "0043"),
            ("pay-1", "pay-2"),
            ("2001-09-09", "2001-99-09"),
            ("tried_new", "more"),
            ("[old]", "[older]"),
        ] {
            assert_eq!(read(&text.replace(from, to)), FoundRotation::Damaged, "{to}");
        }
        assert_eq!(read(&format!("{text}#{}", "x".repeat(RECORD_LEN_MAX))), FoundRotation::Damaged);
        assert_eq!(FoundRotation::read(None, Some(TOKEN)), FoundRotation::Nothing);
    }

    #[test]
    fn what_was_undone_leaves_the_sources_of_earlier_pins_known() {
        let first = begun();
        assert_eq!(first.before(), None);
        let undone = begin(file(2), file(5), &FoundRotation::Rotation(first)).before().unwrap();
        let known = [file(1), file(2), file(5)].map(|source| undone.known(&source));
        assert_eq!((undone.stage, known), (Stage::New, [Known::Old, Known::New, Known::Other]));
    }

    #[test]
    fn a_hundred_rotations_are_remembered_in_a_record_that_can_be_read() {
        let mut found = FoundRotation::Nothing;
        for number in 0..100 {
            let next = begin(file(number), file(number + 1), &found);
            let text = next.to_text().unwrap();
            assert!(text.len() < RECORD_LEN_MAX);
            found = FoundRotation::read(Some(text.as_bytes()), Some(TOKEN));
        }
        let FoundRotation::Rotation(last) = found else { unreachable!("{found:?}") };
        assert_eq!((last.known(&file(95)), last.known(&file(99))), (Known::Retired, Known::Old));
    }
}
