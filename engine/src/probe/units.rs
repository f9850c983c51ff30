//! How a profile writes values: with their units, as the configuration does. For `#[serde(with)]`.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Durations, as `"12us 300ns"`.
pub(super) mod duration {
    use std::time::Duration;

    use super::{Deserialize, Deserializer, Serializer};
    use serde::de::Error as _;

    pub(crate) fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&humantime::format_duration(*duration))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(from)?;
        humantime::parse_duration(&text).map_err(|_| D::Error::custom("a duration such as \"12us 300ns\""))
    }
}

/// Moments, as `"2026-11-29T16:20:00Z"`.
pub(super) mod moment {
    use std::time::SystemTime;

    use super::{Deserialize, Deserializer, Serializer};
    use serde::de::Error as _;

    pub(crate) fn serialize<S: Serializer>(moment: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&humantime::format_rfc3339_seconds(*moment))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SystemTime, D::Error> {
        let text = String::deserialize(from)?;
        let wrong = |_| D::Error::custom("a moment such as \"2026-11-29T16:20:00Z\"");
        humantime::parse_rfc3339(&text).map_err(wrong)
    }
}

/// Sizes that need not be known, as `"64KiB"`.
pub(super) mod size {
    use super::{Deserialize, Deserializer, Serialize, Serializer};
    use serde::de::Error as _;

    #[expect(clippy::ref_option, reason = "the form that serde calls it in")]
    pub(crate) fn serialize<S: Serializer>(size: &Option<usize>, to: S) -> Result<S::Ok, S::Error> {
        size.map(super::size_text).serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<usize>, D::Error> {
        let text = String::deserialize(from)?;
        let size = text.parse::<bytesize::ByteSize>().ok();
        let size = size.and_then(|size| usize::try_from(size.as_u64()).ok());
        size.map(Some).ok_or_else(|| D::Error::custom("a size such as \"64KiB\""))
    }
}

/// A version, major and minor, as `"2.40"`: not `2.4`, which a number would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Version(pub(super) (u8, u8));

/// For `#[serde(with)]`.
pub(super) mod version {
    use super::{Deserialize, Deserializer, Serializer, Version};

    pub(crate) fn serialize<S: Serializer>(version: &(u8, u8), to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&Version(*version))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<(u8, u8), D::Error> {
        Version::deserialize(from).map(|version| version.0)
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0.0, self.0.1)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let parts =
            text.split_once('.').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
        parts.map(Self).ok_or_else(|| D::Error::custom("a version such as \"2.40\""))
    }
}

/// The greatest unit in which a size is whole, so that no byte of it is lost.
fn size_text(size: usize) -> String {
    match size {
        0 => "0B".to_owned(),
        size if size.is_multiple_of(1 << 20) => format!("{}MiB", size >> 20),
        size if size.is_multiple_of(1 << 10) => format!("{}KiB", size >> 10),
        size => format!("{size}B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_written_whole_and_reads_back() {
        for (size, text) in [(0, "0B"), (1, "1B"), (1_025, "1025B"), (64 << 10, "64KiB"), (3 << 20, "3MiB")] {
            assert_eq!(size_text(size), text);
            assert_eq!(text.parse::<bytesize::ByteSize>().unwrap().as_u64(), size as u64);
        }
    }
}
