//! What a record says. `docs/audit.md` is the specification; a test holds the two together.

use std::borrow::Cow;
use std::fmt;
use std::time::SystemTime;

use serde::{Serialize, Serializer};

use super::hex::serde::Hex;
use super::merkle::{Hash, Tree, leaf_of};
use crate::error::{Error, ErrorKind, Outcome};
use crate::sync::Arc;

/// One record: what happened, and when by the time of day.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) time: SystemTime,
    pub(crate) what: What,
}

/// What happened.
#[derive(Clone, Debug)]
pub(crate) enum What {
    /// One operation, and how it ended.
    Use(On, Use, End),
    /// One call that served several requests.
    Uses(On, Uses, End),
    /// An operation or a change that is about to begin.
    Intent(On, Intent),
    /// A key was created, rotated, suspended or the like.
    Change(On, Change, End),
    /// Records that were not written.
    Gap(Gap),
    /// A checkpoint was signed and stored.
    Checkpoint(Stored),
    /// A writer has opened the log.
    Start(Start),
    /// A writer has closed it.
    Stop(Stop),
}

/// Text that many records share.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Text(Arc<str>);

/// Who does what with which key.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct On {
    /// The label that the application has given to whoever asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) caller: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<u32>,
    /// Of a key that is not managed: what its objects are called on the tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) object: Option<Text>,
    pub(crate) operation: Cow<'static, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) algorithm: Option<Cow<'static, str>>,
}

/// The one request of an operation.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Use {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) request: Option<Box<str>>,
    /// SHA-256 of what the operation is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) input: Option<Hex>,
    /// The other key of an operation on two: that which is wrapped, the first one of a retail MAC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) other: Option<Text>,
}

/// What is about to begin, as far as it is known by then.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Intent {
    Use(Use),
    Change(Change),
}

/// The requests of one call: how many, and the root of a tree over them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Uses {
    count: u64,
    root: Hex,
}

/// Requests of one call, as they are put together.
#[derive(Default)]
pub(crate) struct Gathered(Tree);

/// What has been changed, beyond the key that it was done to.
#[derive(Clone, Serialize)]
pub(crate) struct Change {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) request: Option<Box<str>>,
    #[serde(serialize_with = "as_map", skip_serializing_if = "Vec::is_empty")]
    pub(crate) fields: Fields,
}

/// What a change is said to be of: names and texts, each name once.
pub(crate) type Fields = Vec<(&'static str, Box<str>)>;

/// How an operation ended, and where.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct End {
    /// The number of the record that said that it was about to begin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) intent: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<Text>,
    #[serde(serialize_with = "outcome_name")]
    pub(crate) outcome: Outcome,
    #[serde(serialize_with = "error_name", skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<ErrorKind>,
}

/// Records that were not written: each would have been of an operation that was refused for it (`stop`) or that was not
/// (`shed`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Gap {
    pub(crate) count: u64,
    /// The times of the first and of the last of them.
    #[serde(serialize_with = "time_text")]
    pub(crate) from: SystemTime,
    #[serde(serialize_with = "time_text")]
    pub(crate) to: SystemTime,
    pub(crate) policy: &'static str,
    /// Why the first was not written.
    pub(crate) why: Box<str>,
}

/// A checkpoint that lies in the log's directory.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Stored {
    pub(crate) size: u64,
    /// Of the file, signatures included: who takes it away or puts another in its place contradicts this record.
    pub(crate) sha256: Hex,
}

/// What a writer has found at its start.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Start {
    /// The log's name: the origin of its checkpoints.
    pub(crate) log: Box<str>,
    pub(crate) writer: &'static str,
    pub(crate) mode: &'static str,
    /// `new`, `stopped` (the writer before had closed it) or `cut-off`.
    pub(crate) found: Found,
    /// The last checkpoint, of which there may be no record yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) checkpoint: Option<Stored>,
    /// The end of an incomplete write, which was moved out of the way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) torn: Option<Torn>,
}

/// How the writer before has left a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Found {
    New,
    Stopped,
    CutOff,
}

/// Bytes at the end of the last segment that were no whole record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Torn {
    pub(crate) file: Box<str>,
    pub(crate) bytes: u64,
    pub(crate) sha256: Hex,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Stop {
    pub(crate) reason: &'static str,
}

impl Record {
    /// Appends the record as one JSON object, with its number: the bytes that are hashed.
    ///
    /// # Errors
    /// None that can come about: what is written has no maps with other keys than text.
    pub(crate) fn write(&self, sequence: u64, out: &mut Vec<u8>) -> Result<(), Error> {
        use std::io::Write as _;
        let time = humantime::format_rfc3339_nanos(self.time);
        let kind = self.what.kind();
        write!(out, r#"{{"v":1,"seq":{sequence},"time":"{time}","kind":"{kind}"}}"#).map_err(cannot)?;
        match &self.what {
            What::Use(on, one, end) => [extend(out, on), extend(out, one), extend(out, end)],
            What::Uses(on, all, end) => [extend(out, on), extend(out, all), extend(out, end)],
            What::Intent(on, one) => [extend(out, on), extend(out, one), Ok(())],
            What::Change(on, change, end) => [extend(out, on), extend(out, change), extend(out, end)],
            What::Gap(gap) => [extend(out, gap), Ok(()), Ok(())],
            What::Checkpoint(stored) => [extend(out, stored), Ok(()), Ok(())],
            What::Start(start) => [extend(out, start), Ok(()), Ok(())],
            What::Stop(stop) => [extend(out, stop), Ok(()), Ok(())],
        }
        .into_iter()
        .collect()
    }
}

/// Bytes of free texts with which a record is surely short enough to be read back, escaped as JSON as they may be.
const TEXTS_MAX: usize = 8 * 1024;

impl Record {
    /// Whether it is a use, and surely short enough to be written: then it may be answered for before it is.
    pub(crate) fn is_short(&self) -> bool {
        let len = |text: &Option<Text>| text.as_ref().map_or(0, |text| text.0.len());
        let of_on = |on: &On| len(&on.caller) + len(&on.key) + len(&on.object);
        match &self.what {
            What::Use(on, one, _) => {
                of_on(on) + len(&one.other) + one.request.as_ref().map_or(0, |text| text.len()) < TEXTS_MAX
            }
            What::Uses(on, ..) => of_on(on) < TEXTS_MAX,
            _ => false,
        }
    }
}

impl What {
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Use(..) => "use",
            Self::Uses(..) => "uses",
            Self::Intent(..) => "intent",
            Self::Change(..) => "change",
            Self::Gap(_) => "gap",
            Self::Checkpoint(_) => "checkpoint",
            Self::Start(_) => "start",
            Self::Stop(_) => "stop",
        }
    }
}

impl Use {
    /// Of a request by its id, and of what it is given.
    pub(crate) fn of(request: Option<Box<str>>, input: &[u8]) -> Self {
        Self { request, input: Some(Hex(super::merkle::sha256(input))), other: None }
    }

    /// Of a request by its id.
    pub(crate) const fn named(request: Option<Box<str>>) -> Self {
        Self { request, input: None, other: None }
    }
}

impl Uses {
    /// Of requests by their ids and the SHA-256 of what each was given (32 zero bytes if that was nothing).
    #[cfg(test)]
    pub(crate) fn of<'a>(requests: impl IntoIterator<Item = (&'a str, &'a Hash)>) -> Self {
        let mut all = Gathered::default();
        requests.into_iter().for_each(|(id, input)| all.push(id, input));
        all.end()
    }
}

impl Gathered {
    /// Adds a request by its id and what it is given.
    pub(crate) fn add(&mut self, id: &str, input: &[u8]) {
        self.push(id, &super::merkle::sha256(input));
    }

    fn push(&mut self, id: &str, input: &Hash) {
        // The digest first: it has one length, so that no other pair gives the same bytes.
        self.0.push(leaf_of(&[input, id.as_bytes()]));
    }

    pub(crate) fn end(self) -> Uses {
        Uses { count: self.0.size(), root: Hex(self.0.root()) }
    }
}

impl<T: Into<Arc<str>>> From<T> for Text {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

/// Not what it says: it may be what a key is called.
impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Text({} bytes)", self.0.len())
    }
}

/// The names of its fields only.
impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.fields.iter().map(|(name, _)| name)).finish()
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// Puts the fields of an object at the end of the one that was written last.
fn extend(out: &mut Vec<u8>, fields: &impl Serialize) -> Result<(), Error> {
    let end = out.len() - 1;
    out.truncate(end);
    serde_json::to_writer(&mut *out, fields).map_err(cannot)?;
    if out[end..] == *b"{}" {
        out.remove(end);
    } else {
        // Its bracket opens no object now, but parts a field from the next.
        out[end] = b',';
    }
    Ok(())
}

fn cannot(why: impl std::fmt::Display) -> Error {
    Error::internal(format!("a record cannot be written down: {why}"))
}

fn time_text<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_rfc3339_nanos(*time))
}

fn outcome_name<S: Serializer>(outcome: &Outcome, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(outcome.name())
}

fn error_name<S: Serializer>(error: &Option<ErrorKind>, serializer: S) -> Result<S::Ok, S::Error> {
    error.map(ErrorKind::name).serialize(serializer)
}

fn as_map<S: Serializer>(fields: &[(&'static str, Box<str>)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(fields.iter().map(|(name, value)| (name, value)))
}

#[cfg(test)]
pub(super) mod tests;
