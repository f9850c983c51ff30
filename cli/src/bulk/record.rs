//! One record of input: a line of JSON, taken apart.

use std::fmt;

use data_encoding::{BASE64, Encoding, HEXLOWER_PERMISSIVE};
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

/// What a line asks for.
///
/// Its input and additional data are wiped when it is dropped, and no `Debug` form shows them.
pub struct Record<'a> {
    /// The caller's name for it, to be echoed.
    pub id: Option<Id<'a>>,
    /// The bytes to work on.
    pub input: Zeroizing<Vec<u8>>,
    /// Additional data for AES-GCM.
    pub aad: Option<Zeroizing<Vec<u8>>>,
}

/// A JSON scalar as it was written: numbers keep every digit.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Id<'a>(&'a str);

/// Why a line is no record, with its id as far as that could be read.
#[derive(Debug, PartialEq, Eq)]
pub struct RecordError<'a> {
    /// The caller's name for it, to be echoed.
    pub id: Option<Id<'a>>,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong with a line. The text names fields of ours and places, nothing that the line holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    /// There is nothing on it.
    Empty,
    /// It is no JSON, at this byte of the line, from 1.
    NotJson(usize),
    /// It is JSON but no object.
    NotAnObject,
    /// It has a field that means nothing here.
    UnknownField,
    /// It has this field twice.
    Twice(&'static str),
    /// This field is no string.
    NotAString(&'static str),
    /// This field is a string that is no text: a half of a surrogate pair.
    NotText(&'static str),
    /// This field is not base64 as RFC 4648, section 4, has it, with padding.
    NotBase64(&'static str),
    /// `hex` is no even number of hexadecimal digits.
    NotHex,
    /// The id is an object or an array.
    IdNotScalar,
    /// None of `data`, `text` and `hex` is there.
    NoInput,
    /// More than one of `data`, `text` and `hex` is there.
    SeveralInputs,
    /// The algorithm takes no additional data.
    AadNotTaken,
}

/// Takes a line apart, without the newline at its end.
///
/// A record is an object with one of `data` (base64), `text` and `hex`, and optionally `id`, any scalar, and
/// `aad` (base64). Whatever else it has is refused.
///
/// ```
/// let record = hsmux_cli::bulk::parse_record(br#"{"id": 7, "text": "pay 10 to A"}"#).map_err(|e| e.problem)?;
/// assert_eq!(record.input.as_slice(), b"pay 10 to A");
/// assert_eq!(record.id.map(|id| id.as_json()), Some("7"));
/// # Ok::<(), hsmux_cli::bulk::Problem>(())
/// ```
///
/// # Errors
/// [`RecordError`], with the id if that could be read. Never a panic, whatever the line holds.
pub fn parse_record(line: &[u8]) -> Result<Record<'_>, RecordError<'_>> {
    if line.iter().all(u8::is_ascii_whitespace) {
        return Err(RecordError { id: None, problem: Problem::Empty });
    }
    let mut fields = Fields::default();
    let mut json = serde_json::Deserializer::from_slice(line);
    let read = (&mut json).deserialize_map(&mut fields).and_then(|()| json.end());
    if let Err(error) = read {
        fields.fail(if error.is_data() { Problem::NotAnObject } else { Problem::NotJson(error.column()) });
    }
    fields.record()
}

impl<'a> Id<'a> {
    /// As it was written.
    #[must_use]
    pub const fn as_json(self) -> &'a str {
        self.0
    }

    fn parse(raw: &'a str) -> Result<Self, Problem> {
        match raw.as_bytes().first() {
            Some(b'{' | b'[') => Err(Problem::IdNotScalar),
            // What was not read yet is whether every escape means something.
            Some(b'"') => text(raw, "id").map(|_| Self(raw)),
            _ => Ok(Self(raw)),
        }
    }
}

/// The fields of a line, each as it was written, and the first thing that is wrong with them.
#[derive(Default)]
struct Fields<'a> {
    id: Option<Id<'a>>,
    id_seen: bool,
    input: Option<(Form, &'a str)>,
    aad: Option<&'a str>,
    problem: Option<Problem>,
}

/// How the input is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Data,
    Text,
    Hex,
}

impl<'a> Fields<'a> {
    /// Keeps the first problem: what follows may be its consequence.
    fn fail(&mut self, problem: Problem) {
        self.problem.get_or_insert(problem);
    }

    fn set(&mut self, name: &str, value: &'a str) {
        let outcome = match name {
            "id" => self.set_id(value),
            "data" => self.set_input(Form::Data, value),
            "text" => self.set_input(Form::Text, value),
            "hex" => self.set_input(Form::Hex, value),
            "aad" => match self.aad.replace(value) {
                Some(_) => Err(Problem::Twice("aad")),
                None => Ok(()),
            },
            _ => Err(Problem::UnknownField),
        };
        outcome.unwrap_or_else(|problem| self.fail(problem));
    }

    fn set_id(&mut self, value: &'a str) -> Result<(), Problem> {
        if std::mem::replace(&mut self.id_seen, true) {
            // Neither is echoed: nobody can tell which is meant.
            self.id = None;
            return Err(Problem::Twice("id"));
        }
        self.id = Some(Id::parse(value)?);
        Ok(())
    }

    fn set_input(&mut self, form: Form, value: &'a str) -> Result<(), Problem> {
        match self.input.replace((form, value)) {
            Some((earlier, _)) if earlier == form => Err(Problem::Twice(form.name())),
            Some(_) => Err(Problem::SeveralInputs),
            None => Ok(()),
        }
    }

    fn record(self) -> Result<Record<'a>, RecordError<'a>> {
        self.decode().map_err(|problem| RecordError { id: self.id, problem })
    }

    fn decode(&self) -> Result<Record<'a>, Problem> {
        if let Some(problem) = self.problem {
            return Err(problem);
        }
        let (form, value) = self.input.ok_or(Problem::NoInput)?;
        let content = text(value, form.name())?;
        let input = match form {
            Form::Data => base64(&content).ok_or(Problem::NotBase64("data"))?,
            Form::Hex => decode(&HEXLOWER_PERMISSIVE, &content).ok_or(Problem::NotHex)?,
            Form::Text => Zeroizing::new(content.as_bytes().to_vec()),
        };
        let aad = match self.aad {
            Some(value) => Some(base64(&text(value, "aad")?).ok_or(Problem::NotBase64("aad"))?),
            None => None,
        };
        Ok(Record { id: self.id, input, aad })
    }
}

impl Form {
    const fn name(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Text => "text",
            Self::Hex => "hex",
        }
    }
}

impl<'a> Visitor<'a> for &mut Fields<'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        // A name may be written with escapes, so it is read; values are taken as they are written.
        while let Some(name) = map.next_key::<Name>()? {
            match name.0 {
                Some(name) => self.set(name, map.next_value::<&RawValue>()?.get()),
                None => {
                    self.fail(Problem::UnknownField);
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// The name of a field, if it is one of ours.
struct Name(Option<&'static str>);

impl<'de> serde::Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Known;
        impl Visitor<'_> for Known {
            type Value = Name;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Name, E> {
                Ok(Name(["id", "data", "text", "hex", "aad"].into_iter().find(|known| *known == name)))
            }
        }
        deserializer.deserialize_str(Known)
    }
}

/// The content of a JSON string. Borrowed if it has no escapes; else a copy, which wipes itself.
fn text<'a>(raw: &'a str, name: &'static str) -> Result<Content<'a>, Problem> {
    let inner = raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let inner = inner.ok_or(Problem::NotAString(name))?;
    if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
        return Ok(Content::Borrowed(inner));
    }
    unescaped(inner).map(Content::Owned).ok_or(Problem::NotText(name))
}

/// A string without its escapes (RFC 8259, section 7). By hand, for the decoder of JSON leaves a copy in memory.
fn unescaped(inner: &str) -> Option<Zeroizing<String>> {
    // No escape is shorter than what it stands for, so this never grows, which would leave a copy behind too.
    let mut text = Zeroizing::new(String::with_capacity(inner.len()));
    let mut rest = inner;
    while let Some((before, escape)) = rest.split_once('\\') {
        text.push_str(before);
        let (char, after) = escaped_char(escape)?;
        text.push(char);
        rest = after;
    }
    text.push_str(rest);
    Some(text)
}

/// What the escape after a backslash stands for, and what comes after it.
fn escaped_char(escape: &str) -> Option<(char, &str)> {
    let mut chars = escape.chars();
    let char = match chars.next()? {
        char @ ('"' | '\\' | '/') => char,
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'u' => return utf16_char(chars.as_str()),
        _ => return None,
    };
    Some((char, chars.as_str()))
}

/// The character of one unit of UTF-16, or of two with `\u` between them; a half of a pair is none.
fn utf16_char(digits: &str) -> Option<(char, &str)> {
    let (first, rest) = utf16_unit(digits)?;
    if let Some(char) = char::from_u32(first.into()) {
        return Some((char, rest));
    }
    let (second, rest) = utf16_unit(rest.strip_prefix("\\u")?)?;
    let char = char::decode_utf16([first, second]).next()?.ok()?;
    Some((char, rest))
}

fn utf16_unit(digits: &str) -> Option<(u16, &str)> {
    let (digits, rest) = digits.split_at_checked(4)?;
    Some((u16::from_str_radix(digits, 16).ok()?, rest))
}

enum Content<'a> {
    Borrowed(&'a str),
    Owned(Zeroizing<String>),
}

impl std::ops::Deref for Content<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::Borrowed(text) => text,
            Self::Owned(text) => text,
        }
    }
}

/// RFC 4648, 3.3: "Implementations MUST reject the encoded data if it contains characters outside the base
/// alphabet"; and padding stands at the end only, where the decoder alone would take it between groups too.
fn base64(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let padding = memchr::memchr(b'=', text.as_bytes()).unwrap_or(text.len());
    if text.len() - padding > 2 { None } else { decode(&BASE64, text) }
}

fn decode(encoding: &Encoding, text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(vec![0; encoding.decode_len(text.len()).ok()?]);
    let len = encoding.decode_mut(text.as_bytes(), &mut bytes).ok()?;
    bytes.truncate(len);
    Some(bytes)
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("empty line"),
            Self::NotJson(at) => write!(f, "no JSON at byte {at} of the line"),
            Self::NotAnObject => f.write_str("no JSON object"),
            Self::UnknownField => f.write_str("a field that is none of id, data, text, hex, aad"),
            Self::Twice(name) => write!(f, "{name} is there twice"),
            Self::NotAString(name) => write!(f, "{name} is no string"),
            Self::NotText(name) => write!(f, "{name} is no text"),
            Self::NotBase64(name) => write!(f, "{name} is not base64 with padding"),
            Self::NotHex => f.write_str("hex is no even number of hexadecimal digits"),
            Self::IdNotScalar => f.write_str("id is an object or an array"),
            Self::NoInput => f.write_str("none of data, text, hex is there"),
            Self::SeveralInputs => f.write_str("more than one of data, text, hex is there"),
            Self::AadNotTaken => f.write_str("the algorithm takes no aad"),
        }
    }
}

impl std::error::Error for Problem {}

/// Shows lengths only.
impl fmt::Debug for Record<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("input_len", &self.input.len())
            .field("aad_len", &self.aad.as_ref().map(|aad| aad.len()))
            .finish_non_exhaustive()
    }
}

/// Shows the length only: ids may be account numbers.
impl fmt::Debug for Id<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Id({} bytes)", self.0.len())
    }
}

#[cfg(test)]
mod tests;
