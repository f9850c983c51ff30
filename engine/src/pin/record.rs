//! What is remembered of a login: that it is being tried, or that the PIN was refused. Nothing that the PIN tells: not even
//! which code the token answered, for one says that its length is wrong.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::directory::RECORD_LEN_MAX;

/// What a token is known by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TokenId<'a> {
    pub(crate) serial: &'a str,
    pub(crate) label: &'a str,
    pub(crate) model: &'a str,
    pub(crate) manufacturer: &'a str,
}

/// How a login stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum PinState {
    /// The PIN is being sent, or whoever sent it was killed before it knew the answer.
    Trying,
    /// The token refused it, or may have: it is not sent again.
    Refused,
    /// The record cannot be read, which counts as refused.
    #[serde(skip)]
    Damaged,
    /// The PIN is being changed, or whoever changed it was cut off: the token has one of two, or the other tokens of the
    /// rotation have another.
    #[serde(skip)]
    Changing,
}

/// The content of a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    version: u32,
    pub(super) state: PinState,
    pub(super) serial: String,
    pub(super) label: String,
    /// Of the state. Seconds, as in RFC 3339.
    #[serde(with = "time")]
    pub(super) since: SystemTime,
    /// Attempts in a row of which nobody knows how they ended, the one under way counted in.
    pub(super) attempts: u32,
    pub(super) source: Generation,
}

/// Where the PIN came from, and which one of those that were there: for the operator to compare.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Generation {
    pub(super) form: String,
    /// When the file was changed last.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional_time")]
    pub(super) changed: Option<SystemTime>,
}

/// What there is of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Nothing,
    Record(Record),
    /// Something that is no record.
    Damaged,
}

/// Whether a login may be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// As the attempt of this number in a row of which nobody knows how they ended.
    Try {
        attempts: u32,
    },
    Refused(Why),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// It was refused before.
    Refused,
    Damaged,
    /// The record of a rotation.
    DamagedRotation,
    /// Whoever tried was killed, and the token warns of wrong tries.
    Warned,
    /// So many were killed that a token which does not warn could be locked by the next.
    Unsettled,
}

/// Logins in a row that may be cut off before anybody knows how they ended. Flags of tokens "may always be false"
/// (PKCS#11 2.40, `CK_TOKEN_INFO`), or may be read before the token has judged what a process sent that is gone: then as
/// many wrong tries are made at most. Three lock the strictest tokens that are known of (opencryptoki; a Luna's security
/// officer).
pub(crate) const UNSETTLED_MAX: u32 = 2;

/// The format that is written; any other counts as damaged.
const VERSION: u32 = 1;

/// Decides about a login. `warns`: the token's flags say that wrong PINs were tried, read after the record was.
///
/// Consent to send a PIN in spite of such flags does not matter here: it stands in a configuration, and would be given
/// again at each restart.
pub(super) fn judge(found: &Found, warns: bool) -> Verdict {
    match found {
        Found::Nothing => Verdict::Try { attempts: 1 },
        Found::Damaged => Verdict::Refused(Why::Damaged),
        Found::Record(record) => match record.state {
            PinState::Trying if warns => Verdict::Refused(Why::Warned),
            PinState::Trying if record.attempts >= UNSETTLED_MAX => Verdict::Refused(Why::Unsettled),
            PinState::Trying => Verdict::Try { attempts: record.attempts + 1 },
            PinState::Refused | PinState::Damaged | PinState::Changing => Verdict::Refused(Why::Refused),
        },
    }
}

impl TokenId<'_> {
    /// The name of the token's files.
    pub(crate) fn hash(&self) -> String {
        let mut hash = Sha256::new_with_prefix(b"hsmux pin record 1");
        for part in [self.serial, self.label, self.model, self.manufacturer] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }
}

impl Generation {
    /// As a record has it.
    pub(super) fn into_written(self) -> Self {
        Self { changed: self.changed.map(written), ..self }
    }
}

impl Record {
    pub(super) fn new(
        token: TokenId<'_>,
        state: PinState,
        attempts: u32,
        source: Generation,
        since: SystemTime,
    ) -> Self {
        let (serial, label) = (token.serial.to_owned(), token.label.to_owned());
        let source = source.into_written();
        Self { version: VERSION, state, serial, label, since: written(since), attempts, source }
    }

    pub(super) fn to_text(&self) -> crate::Result<String> {
        toml::to_string(self).map_err(|error| crate::Error::internal(format!("a PIN record: {error}")))
    }
}

impl Found {
    /// Reads a record; who knows the token sees that it is this one's.
    pub(super) fn read(bytes: Option<&[u8]>, token: Option<TokenId<'_>>) -> Self {
        let Some(bytes) = bytes else { return Self::Nothing };
        let text = std::str::from_utf8(bytes).ok().filter(|text| text.len() <= RECORD_LEN_MAX);
        let record = text.and_then(|text| toml::from_str::<Record>(text).ok());
        let fits = |record: &Record| {
            let is_of = |token: TokenId<'_>| record.serial == token.serial && record.label == token.label;
            record.version == VERSION && record.attempts > 0 && token.is_none_or(is_of)
        };
        record.filter(fits).map_or(Self::Damaged, Self::Record)
    }
}

/// The time that is written for one, which RFC 3339 has no words for before 1970 or after the year 9999: clocks are set
/// wrong, and files may be dated as anybody likes.
pub(super) fn written(time: SystemTime) -> SystemTime {
    const YEARS: Duration = Duration::from_secs(253_402_300_799);
    time.clamp(SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH + YEARS)
}

/// A time as people read it.
pub(super) mod time {
    use std::time::SystemTime;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(in crate::pin) fn serialize<S: Serializer>(time: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&humantime::format_rfc3339_seconds(*time))
    }

    pub(in crate::pin) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SystemTime, D::Error> {
        humantime::parse_rfc3339(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}

mod optional_time {
    use std::time::SystemTime;

    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(time: &Option<SystemTime>, to: S) -> Result<S::Ok, S::Error> {
        match time {
            // Whole: two files may be written within a second.
            Some(time) => to.collect_str(&humantime::format_rfc3339_nanos(*time)),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SystemTime>, D::Error> {
        super::time::deserialize(from).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TOKEN: TokenId<'_> = TokenId { serial: "0042", label: "pay-1", model: "m", manufacturer: "hsmux" };

    fn record(state: PinState, attempts: u32) -> Record {
        let source = Generation { form: "file".to_owned(), changed: Some(at(1_234_567_890)) };
        Record::new(TOKEN, state, attempts, source, at(1_000_000_000))
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_login_may_be_tried_as_record_and_flags_say() {
        use PinState::{Refused, Trying};
        let of = |state, attempts, warns| judge(&Found::Record(record(state, attempts)), warns);
        // Whether flags allow a first attempt is not decided here.
        for warns in [false, true] {
            assert_eq!(judge(&Found::Nothing, warns), Verdict::Try { attempts: 1 });
            assert_eq!(judge(&Found::Damaged, warns), Verdict::Refused(Why::Damaged));
            assert_eq!(of(Refused, 1, warns), Verdict::Refused(Why::Refused));
        }
        assert_eq!(of(Trying, 1, false), Verdict::Try { attempts: 2 });
        assert_eq!(of(Trying, 1, true), Verdict::Refused(Why::Warned));
        assert_eq!(of(Trying, UNSETTLED_MAX, true), Verdict::Refused(Why::Warned));
        for attempts in [UNSETTLED_MAX, u32::MAX] {
            assert_eq!(of(Trying, attempts, false), Verdict::Refused(Why::Unsettled));
        }
    }

    #[test]
    fn a_token_that_never_warns_is_tried_twice_at_most_however_many_are_killed() {
        let (mut found, mut sent) = (Found::Nothing, 0);
        for _ in 0..100 {
            if let Verdict::Try { attempts } = judge(&found, false) {
                sent += 1;
                found = Found::Record(record(PinState::Trying, attempts));
            }
        }
        assert_eq!(sent, 2);
    }

    #[test]
    fn a_record_is_a_few_lines_that_say_nothing_of_a_pin() {
        let text = record(PinState::Trying, 1).to_text().unwrap();
        let expected = "\
version = 1
state = \"trying\"
serial = \"0042\"
label = \"pay-1\"
since = \"2001-09-09T01:46:40Z\"
attempts = 1

[source]
form = \"file\"
changed = \"2009-02-13T23:31:30.000000000Z\"
";
        assert_eq!(text, expected);
        assert_eq!(
            Found::read(Some(text.as_bytes()), Some(TOKEN)),
            Found::Record(record(PinState::Trying, 1))
        );
        let mut without = record(PinState::Refused, 2);
        without.source = Generation { form: "prompt".to_owned(), changed: None };
        let text = without.to_text().unwrap();
        assert_eq!(Found::read(Some(text.as_bytes()), None), Found::Record(without));
    }

    #[test]
    fn a_time_that_cannot_be_written_keeps_no_record_from_being_written() {
        let long_ago = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
        for time in [long_ago, at(253_402_300_800), at(1 << 40)] {
            let source = Generation { form: "file".to_owned(), changed: Some(time) };
            let written = Record::new(TOKEN, PinState::Trying, 1, source, time);
            let text = written.to_text().unwrap();
            assert_eq!(Found::read(Some(text.as_bytes()), Some(TOKEN)), Found::Record(written));
        }
    }

    #[test]
    fn what_is_no_record_of_the_token_is_damaged() {
        let good = record(PinState::Trying, 1).to_text().unwrap();
        let damaged = |text: &str| Found::read(Some(text.as_bytes()), Some(TOKEN)) == Found::Damaged;
        assert!(!damaged(&good));
        // A beginning is damaged too, but for one that leaves out whole what is only told to the operator.
        for end in 0..good.len() - 1 {
            assert!(damaged(&good[..end]) || good[..end].trim_end().ends_with("form = \"file\""), "{end}");
        }
        for (from, to) in [
            ("version = 1", "version = 2"),
            ("trying", "damaged"),
            ("trying", "idle"),
            ("0042", "0043"),
            ("pay-1", "pay-2"),
            ("attempts = 1", "attempts = 0"),
            ("2001-09-09", "2001-99-09"),
            ("version = 1", "version = 1\nmore = 1"),
        ] {
            assert!(damaged(&good.replace(from, to)), "{to}");
        }
        assert!(damaged(&format!("{good}#{}", "x".repeat(RECORD_LEN_MAX))));
        assert_eq!(Found::read(Some(&[0xff, 0xfe]), Some(TOKEN)), Found::Damaged);
        assert_eq!(Found::read(None, Some(TOKEN)), Found::Nothing);
    }

    #[test]
    fn each_token_has_a_file_of_its_own() {
        let token = |[serial, label, model, manufacturer]: [&'static str; 4]| {
            TokenId { serial, label, model, manufacturer }.hash()
        };
        // The same letters, parted differently.
        let all = [["ab", "c", "", ""], ["a", "bc", "", ""], ["ab", "", "c", ""], ["ab", "c", "", "d"]];
        let names: std::collections::HashSet<_> = all.map(token).into_iter().collect();
        assert_eq!(names.len(), all.len());
        let plain = |name: &String| name.len() == 16 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        assert!(names.iter().all(plain), "{names:?}");
        assert_eq!(token(all[0]), token(all[0]));
    }

    proptest! {
        #[test]
        fn whatever_a_token_calls_itself_is_read_as_it_was_written(serial: String, label: String) {
            let token = TokenId { serial: &serial, label: &label, ..TOKEN };
            let source = Generation { form: "env".to_owned(), changed: None };
            let written = Record::new(token, PinState::Refused, 1, source, at(0));
            let text = written.to_text().unwrap();
            prop_assert_eq!(Found::read(Some(text.as_bytes()), Some(token)), Found::Record(written));
        }

        #[test]
        fn no_bytes_at_all_are_taken_for_leave_to_try(bytes: Vec<u8>) {
            prop_assert_eq!(Found::read(Some(&bytes), Some(TOKEN)), Found::Damaged);
        }
    }
}
