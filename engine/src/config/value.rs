//! Values with units, and a PIN that is none: how the fields of a configuration are read.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer};

use crate::operate::HANG_MIN;
use crate::pin::PinSource;
use crate::sessions::EXPECTED;

/// A source of a PIN, with the text that named it.
#[derive(Clone)]
pub(super) struct Pin(pub(super) PinSource, pub(super) String);

/// A number of sessions, a range of them as a text or a table, or `"auto"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sessions(pub(super) crate::Sessions);

/// A number of instances of the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Instances(pub(super) usize);

/// A number of bytes, as in `"64KiB"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size(pub(super) usize);

/// A duration, as in `"250ms"`, or `"none"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limit(pub(super) Option<Duration>);

/// A hang limit: a duration, or `"auto"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct HangLimit(pub(super) Option<Duration>);

/// Most instances: the tokens of all of them are kept in the bits of a word.
const INSTANCES_MAX: usize = 64;

/// Longest file that is read, in bytes.
const FILE_LEN_MAX: u64 = 1 << 20;

/// The text of a file.
pub(crate) fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(FILE_LEN_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_LEN_MAX {
        return Err(std::io::Error::other("more than a mebibyte: no configuration"));
    }
    Ok(text)
}

/// For `#[serde(deserialize_with)]`, as the next three.
pub(super) fn path<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
    let path = PathBuf::deserialize(from)?;
    if path.as_os_str().is_empty() { Err(D::Error::custom("a path is missing here")) } else { Ok(path) }
}

/// A path that need not be there, but says something if it is.
pub(super) fn some_path<'de, D: Deserializer<'de>>(from: D) -> Result<Option<PathBuf>, D::Error> {
    path(from).map(Some)
}

/// The name of a token.
pub(super) fn name<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let name = String::deserialize(from)?;
    let needed = "a label, a serial number or a URI is missing here";
    if name.is_empty() { Err(D::Error::custom(needed)) } else { Ok(name) }
}

/// The module gets it as a string of C.
pub(super) fn init_args<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(from)?;
    if text.contains('\0') { Err(D::Error::custom("no zero byte may be in here")) } else { Ok(Some(text)) }
}

/// For `#[serde(with)]`.
pub(super) mod duration {
    use super::{Deserialize, Deserializer, Duration};
    use serde::de::Error as _;

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(from)?;
        humantime::parse_duration(&text)
            .map_err(|_| D::Error::custom("a duration such as \"20ms\" or \"0ms\""))
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        if text == "none" {
            return Ok(Self(None));
        }
        match humantime::parse_duration(&text) {
            Ok(duration) if !duration.is_zero() => Ok(Self(Some(duration))),
            _ => Err(D::Error::custom("a duration such as \"250ms\" or \"10s\", or \"none\"")),
        }
    }
}

impl<'de> Deserialize<'de> for HangLimit {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        if text == "auto" {
            return Ok(Self(None));
        }
        match humantime::parse_duration(&text) {
            Ok(limit) if limit >= HANG_MIN => Ok(Self(Some(limit))),
            _ => Err(D::Error::custom("a duration such as \"5s\", at least \"10ms\", or \"auto\"")),
        }
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let wrong = || D::Error::custom("a size such as \"64KiB\" or \"256MiB\"");
        let size: bytesize::ByteSize = String::deserialize(from)?.parse().map_err(|_| wrong())?;
        match usize::try_from(size.as_u64()) {
            Ok(bytes) if bytes > 0 => Ok(Self(bytes)),
            _ => Err(wrong()),
        }
    }
}

impl<'de> Deserialize<'de> for Sessions {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Number;

        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Range {
            min: usize,
            max: usize,
        }

        impl<'de> Visitor<'de> for Number {
            type Value = Sessions;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(EXPECTED)
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Sessions, E> {
                self.visit_str(&number.to_string())
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Sessions, E> {
                text.parse().map(Sessions).map_err(|_| E::custom(EXPECTED))
            }

            fn visit_map<M: serde::de::MapAccess<'de>>(self, map: M) -> Result<Sessions, M::Error> {
                let Range { min, max } = Range::deserialize(MapAccessDeserializer::new(map))?;
                self.visit_str(&format!("{min}-{max}"))
            }
        }

        from.deserialize_any(Number)
    }
}

impl Default for Instances {
    fn default() -> Self {
        Self(1)
    }
}

impl<'de> Deserialize<'de> for Instances {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match usize::deserialize(from)? {
            instances @ 1..=INSTANCES_MAX => Ok(Self(instances)),
            _ => Err(D::Error::custom("between 1 and 64 instances")),
        }
    }
}

/// Whatever stands there, no error repeats it: it may be the PIN itself.
impl<'de> Deserialize<'de> for Pin {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Source;

        impl Visitor<'_> for Source {
            type Value = Pin;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(PIN_SOURCES)
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Pin, E> {
                let source = text.parse().map_err(|_| E::custom(PIN_SOURCES))?;
                Ok(Pin(source, text.to_owned()))
            }
        }

        // Of numbers and truth values the error would tell which they are.
        from.deserialize_any(Source).map_err(|_| D::Error::custom(PIN_SOURCES))
    }
}

const PIN_SOURCES: &str =
    "a source of the PIN, such as \"file:/run/secrets/pin\" or \"env:NAME\": never the PIN itself";

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
