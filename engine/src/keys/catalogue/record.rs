//! What the catalogue says of a key or of an alias: one immutable record for each revision.
//!
//! `engine/docs/catalogue.md` describes the format for those who read records without this engine.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::keys::hex::{Hex, HexBytes};
use crate::keys::key_id::KeyNumber;
use crate::keys::state::KeyState;

/// Identifies a record: SHA-256 of its text.
pub(crate) type Hash = Hex<32>;

/// Who writes: a random number that an engine draws when it starts.
pub(crate) type Writer = Hex<8>;

/// The format that is written; any other is refused.
pub(crate) const FORMAT: u32 = 1;

/// One revision of a subject.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    pub(crate) format: u32,
    pub(crate) subject: Subject,
    /// From 1, without gaps.
    pub(crate) revision: u64,
    /// The record that this one follows; none of the first.
    pub(crate) parent: Option<Hash>,
    pub(crate) writer: Writer,
    /// Seconds of Unix time.
    pub(crate) written: u64,
    pub(crate) content: Content,
}

/// What a record is about.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Subject {
    Key(KeyNumber),
    /// A name: of an alias in records; of a key too where it is to be claimed.
    Name(String),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Content {
    Key(Box<KeyRecord>),
    /// The key that the alias stands for; none once it is taken away.
    Alias(Option<KeyNumber>),
}

/// Everything about a key that is no attribute of its objects, and what may be checked against them.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyRecord {
    /// Its identifier, as callers hold it.
    pub(crate) id: String,
    pub(crate) terms: Terms,
    pub(crate) state: KeyState,
    /// When it is to be destroyed, in seconds of Unix time.
    pub(crate) destroy_at: Option<u64>,
    /// In the order of their numbers.
    pub(crate) versions: Vec<VersionRecord>,
}

/// What is settled when a key is made, and never changed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Terms {
    pub(crate) name: String,
    pub(crate) group: String,
    /// 0: nobody's.
    pub(crate) tenant: u64,
    /// The name of its `KeySpec`.
    pub(crate) spec: String,
    /// Names of the algorithms that it may be used by; empty: all that fit it.
    pub(crate) algorithms: Vec<String>,
    pub(crate) host_modes: bool,
    /// Seconds of Unix time.
    pub(crate) created: u64,
    pub(crate) active_from: Option<u64>,
    pub(crate) active_until: Option<u64>,
    /// Seconds.
    pub(crate) rotate_every: Option<u64>,
}

/// One generation of a key's material.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct VersionRecord {
    /// From 1. The highest one is the primary.
    pub(crate) version: u32,
    /// `CKA_ID` of its objects.
    pub(crate) object: HexBytes,
    /// Seconds of Unix time.
    pub(crate) created: u64,
    pub(crate) origin: Origin,
    /// What proves its identity, where something can: a labelled hash.
    pub(crate) proof: Option<HexBytes>,
    /// Destroyed by itself, while the key lives on.
    pub(crate) destroyed: bool,
    /// Messages of AES-GCM that it may have encrypted, by writers whose leases are gone.
    pub(crate) messages: u64,
}

/// How a version's objects came to be, which says what their attributes can prove.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum KeyOrigin {
    /// Generated on the one token that holds it: `CKA_LOCAL`, `CKA_ALWAYS_SENSITIVE` and `CKA_NEVER_EXTRACTABLE` are set by the
    /// token and say that it has never been outside.
    Generated,
    /// Generated in a session of one token as an extractable key, carried to all of them, that one included, wrapped under a
    /// key that the tokens agreed on, and there unextractable from the first. No token can say of it that it was never
    /// extractable.
    Transported,
    /// Made by another tool, and adopted: its attributes say what they say.
    Adopted,
}

use KeyOrigin as Origin;

/// A record and its text's hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) record: Record,
    pub(crate) hash: Hash,
}

impl Entry {
    /// Of a record that is about to be written.
    ///
    /// # Errors
    /// None in practice: every field can be written as JSON.
    pub(crate) fn new(record: Record) -> Result<(Self, String), serde_json::Error> {
        let text = serde_json::to_string(&record)?;
        Ok((Self { hash: hash(&text), record }, text))
    }

    /// Reads what was written. None if it is no record of this format.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let record: Record = serde_json::from_str(text).ok()?;
        let sound = record.format == FORMAT && record.revision > 0 && record.is_about_its_subject();
        sound.then(|| Self { hash: hash(text), record })
    }

    /// Whether this one holds where both are there: the higher revision, and of one revision that with the lower hash. But what
    /// is destroyed stays so, and what is compromised is never trusted again, whatever was written where nobody knew.
    pub(crate) fn beats(&self, other: &Self) -> bool {
        let rank = |entry: &Self| (entry.finality(), entry.record.revision, std::cmp::Reverse(entry.hash));
        rank(self) > rank(other)
    }

    /// Whether it comes too late: another record of its revision, or a later one, is there. One that does not hold beside it, whatever
    /// its revision, overtakes nothing: else what is compromised could never be destroyed.
    pub(crate) fn is_overtaken_by(&self, other: &Self) -> bool {
        let (ours, theirs) = (&self.record, &other.record);
        let is_later = theirs.revision >= ours.revision && self.finality() <= other.finality();
        theirs.subject == ours.subject && is_later && self.hash != other.hash
    }

    fn finality(&self) -> u8 {
        match self.key().map(|(_, key)| key.state) {
            Some(KeyState::Destroyed) => 2,
            Some(KeyState::Compromised) => 1,
            _ => 0,
        }
    }

    pub(crate) fn key(&self) -> Option<(KeyNumber, &KeyRecord)> {
        match (&self.record.subject, &self.record.content) {
            (Subject::Key(number), Content::Key(key)) => Some((*number, key)),
            _ => None,
        }
    }

    /// The record that follows, with another content.
    pub(crate) fn next(&self, content: Content, writer: Writer, written: u64) -> Record {
        Record {
            format: FORMAT,
            subject: self.record.subject.clone(),
            revision: self.record.revision + 1,
            parent: Some(self.hash),
            writer,
            written,
            content,
        }
    }
}

fn hash(text: &str) -> Hash {
    Hash::new(Sha256::digest(text.as_bytes()).into())
}

impl Record {
    /// The first one of a subject.
    pub(crate) const fn first(subject: Subject, content: Content, writer: Writer, written: u64) -> Self {
        Self { format: FORMAT, subject, revision: 1, parent: None, writer, written, content }
    }

    fn is_about_its_subject(&self) -> bool {
        match (&self.subject, &self.content) {
            (Subject::Key(_), Content::Key(key)) => key.is_sound(),
            (Subject::Name(_), Content::Alias(_)) => true,
            _ => false,
        }
    }
}

impl KeyRecord {
    /// Versions are numbered from 1 without gaps; a key that lives has one.
    fn is_sound(&self) -> bool {
        let numbered = self.versions.iter().zip(1..).all(|(version, number)| version.version == number);
        numbered && !self.versions.is_empty()
    }

    /// The version that new work uses.
    pub(crate) fn primary(&self) -> u32 {
        self.versions.last().map_or(0, |version| version.version)
    }

    pub(crate) fn version(&self, number: u32) -> Option<&VersionRecord> {
        self.versions.iter().find(|version| version.version == number && !version.destroyed)
    }

    /// The state at a time of day: dates do their work without a record. `now` in seconds of Unix time.
    pub(crate) fn state_at(&self, now: u64) -> KeyState {
        let past = |date: Option<u64>| date.is_some_and(|date| now >= date);
        match self.state {
            KeyState::PreActivation | KeyState::Active | KeyState::Suspended
                if past(self.terms.active_until) =>
            {
                KeyState::Deactivated
            }
            KeyState::PreActivation if past(self.terms.active_from) => KeyState::Active,
            state => state,
        }
    }

    /// Whether its destruction is scheduled.
    pub(crate) const fn is_doomed(&self) -> bool {
        self.destroy_at.is_some()
    }

    /// Whether its destruction is due.
    pub(crate) fn is_due(&self, now: u64) -> bool {
        self.state != KeyState::Destroyed && self.destroy_at.is_some_and(|at| now >= at)
    }

    /// Whether its period says that it is to be rotated.
    pub(crate) fn rotates(&self, now: u64) -> bool {
        let newest = self.versions.last().map_or(u64::MAX, |version| version.created);
        let due = self.terms.rotate_every.is_some_and(|every| now >= newest.saturating_add(every));
        due && self.state_at(now) == KeyState::Active && !self.is_doomed()
    }
}

impl Subject {
    /// What labels show of it: nothing of a name.
    pub(crate) fn short(&self) -> String {
        match self {
            Self::Key(number) => number.to_string(),
            Self::Name(name) => HexBytes(Sha256::digest(name.as_bytes())[..8].to_vec()).to_string(),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(number) => write!(f, "key:{number}"),
            Self::Name(name) => write!(f, "name:{name}"),
        }
    }
}

/// Names of keys are nobody's business in logs.
impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(number) => write!(f, "key:{number}"),
            Self::Name(_) => f.write_str("name:.."),
        }
    }
}

impl FromStr for Subject {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            Some(("key", number)) => number.parse().map(Self::Key).map_err(|_| "no key number"),
            Some(("name", name)) => Ok(Self::Name(name.to_owned())),
            _ => Err("neither a key nor a name"),
        }
    }
}

impl Serialize for Subject {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Subject {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Debug for KeyRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let versions = self.versions.len();
        f.debug_struct("KeyRecord")
            .field("state", &self.state)
            .field("versions", &versions)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Terms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Terms").field("spec", &self.spec).finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn key_record() -> KeyRecord {
        let terms = Terms {
            name: "card-signing".to_owned(),
            group: "default".to_owned(),
            tenant: 7,
            spec: "ec-p256".to_owned(),
            algorithms: vec!["ecdsa-p256-sha256".to_owned()],
            host_modes: false,
            created: 1_000,
            active_from: Some(2_000),
            active_until: Some(3_000),
            rotate_every: Some(500),
        };
        let version = VersionRecord {
            version: 1,
            object: HexBytes(vec![1, 2, 3]),
            created: 1_000,
            origin: KeyOrigin::Generated,
            proof: Some(HexBytes(vec![4; 32])),
            destroyed: false,
            messages: 0,
        };
        let versions = vec![version];
        KeyRecord {
            id: "hk1.x.y".to_owned(),
            terms,
            state: KeyState::PreActivation,
            destroy_at: None,
            versions,
        }
    }

    pub(crate) fn record(number: u8, key: KeyRecord) -> Record {
        let subject = Subject::Key(KeyNumber::new([number; 16]));
        Record::first(subject, Content::Key(Box::new(key)), Writer::new([9; 8]), 1_234)
    }

    #[test]
    fn a_record_is_read_back_as_it_was_written() {
        let (entry, text) = Entry::new(record(1, key_record())).unwrap();
        assert_eq!(Entry::read(&text), Some(entry.clone()));
        let alias = entry.next(Content::Alias(None), Writer::new([1; 8]), 5);
        let alias = Record { subject: Subject::Name("a:b c".to_owned()), ..alias };
        let (alias, text) = Entry::new(alias).unwrap();
        assert_eq!(Entry::read(&text), Some(alias));
    }

    #[test]
    fn what_is_no_record_of_this_format_is_refused() {
        let good = record(1, key_record());
        let text = |record: Record| serde_json::to_string(&record).unwrap();
        let mut key = key_record();
        key.versions[0].version = 2;
        let misnumbered = record(1, key);
        let mut key = key_record();
        key.versions.clear();
        let empty = record(1, key);
        let other = Record { subject: Subject::Name("a".to_owned()), ..good.clone() };
        let later = Record { format: 2, ..good.clone() };
        let zeroth = Record { revision: 0, ..good.clone() };
        for wrong in [misnumbered, empty, other, later, zeroth] {
            assert_eq!(Entry::read(&text(wrong)), None);
        }
        let good = text(good);
        assert!(Entry::read(&good).is_some());
        assert_eq!(Entry::read(&good.replacen('{', "{\"more\":1,", 1)), None);
        assert_eq!(Entry::read(&format!("{good} x")), None);
        assert_eq!(Entry::read(""), None);
    }

    #[test]
    fn a_record_comes_too_late_where_another_of_its_revision_or_a_later_one_is() {
        let (first, _) = Entry::new(record(1, key_record())).unwrap();
        let next = |before: &Entry, written| {
            let Content::Key(key) = before.record.content.clone() else { panic!("it is a key") };
            Entry::new(before.next(Content::Key(key), Writer::new([3; 8]), written)).unwrap().0
        };
        let (ours, theirs) = (next(&first, 1), next(&first, 2));
        let later = next(&theirs, 3);
        let (other_key, _) = Entry::new(record(2, key_record())).unwrap();
        assert!(
            ours.is_overtaken_by(&theirs) && theirs.is_overtaken_by(&ours) && ours.is_overtaken_by(&later)
        );
        assert!(!ours.is_overtaken_by(&first) && !ours.is_overtaken_by(&ours));
        assert!(!first.is_overtaken_by(&other_key));
        // What is compromised holds beside later records of those who did not know, and so does what follows it.
        let mut key = key_record();
        key.state = KeyState::Compromised;
        let (compromised, _) =
            Entry::new(first.next(Content::Key(Box::new(key)), Writer::new([3; 8]), 4)).unwrap();
        assert!(!next(&compromised, 5).is_overtaken_by(&next(&later, 6)));
    }

    #[test]
    fn of_two_records_the_higher_revision_holds_and_then_the_lower_hash() {
        let (first, _) = Entry::new(record(1, key_record())).unwrap();
        let next = |written| {
            let content = Content::Key(Box::new(key_record()));
            Entry::new(first.next(content, Writer::new([1; 8]), written)).unwrap().0
        };
        let (a, b) = (next(1), next(2));
        assert!(a.beats(&first) && b.beats(&first) && !first.beats(&a));
        assert_eq!(a.beats(&b), a.hash < b.hash);
        assert_ne!(a.beats(&b), b.beats(&a));
        assert!(!a.beats(&a), "nor does a record beat itself");
        assert_eq!(a.record.parent, Some(first.hash));
    }

    #[test]
    fn dates_change_the_state_without_a_record() {
        let mut key = key_record();
        let at = |key: &KeyRecord, now| key.state_at(now);
        assert_eq!(at(&key, 1_999), KeyState::PreActivation);
        assert_eq!((at(&key, 2_000), at(&key, 2_999)), (KeyState::Active, KeyState::Active));
        assert_eq!(at(&key, 3_000), KeyState::Deactivated);
        key.state = KeyState::Compromised;
        assert_eq!(at(&key, 3_000), KeyState::Compromised);
        key.state = KeyState::Suspended;
        assert_eq!((at(&key, 2_500), at(&key, 3_000)), (KeyState::Suspended, KeyState::Deactivated));
        key.terms.active_from = None;
        key.state = KeyState::PreActivation;
        assert_eq!(at(&key, 2_500), KeyState::PreActivation, "without a date somebody has to activate it");
    }

    #[test]
    fn a_key_is_rotated_by_its_period_while_it_is_active_and_not_doomed() {
        let mut key = key_record();
        assert!(!key.rotates(1_500), "it is not active yet");
        assert!(key.rotates(2_000));
        key.versions[0].created = 1_900;
        assert!(!key.rotates(2_399) && key.rotates(2_400));
        key.destroy_at = Some(9_000);
        assert!(!key.rotates(2_400) && !key.is_due(8_999) && key.is_due(9_000));
    }

    #[test]
    fn names_of_keys_are_not_shown_in_debug() {
        let shown = format!("{:?} {:?}", record(1, key_record()), Subject::Name("card-signing".to_owned()));
        assert!(!shown.contains("card-signing"), "{shown}");
    }
}
