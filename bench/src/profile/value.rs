//! Values of a profile as they are written: words, numbers, numbers with units, and tables in their place.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use bytesize::ByteSize;
use hsmux::Priority;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::operation::Deadline;
use super::{ProfileApi, parse};
use crate::arrivals::{Pace, Rate};
use crate::case::Op;

/// A value that is written as a word, a text with a unit, or a number.
pub(super) trait Value: Sized {
    /// What would be right.
    fn expected() -> String;

    fn of_text(_text: &str) -> Option<Self> {
        None
    }

    fn of_whole(_number: i64) -> Option<Self> {
        None
    }

    fn of_decimal(_number: f64) -> Option<Self> {
        None
    }
}

/// A value, read. Whatever is wrong with it is answered by what would be right.
#[derive(Clone, Copy, Debug)]
pub(super) struct Read<V>(pub(super) V);

/// A value, or a table that says more.
#[derive(Clone, Copy, Debug)]
pub(super) enum Either<V, T> {
    Value(V),
    Table(T),
}

/// The place of a table in a value that has none.
enum NoTable {}

/// A name in the results.
#[derive(Clone, Debug)]
pub(super) struct Name(pub(super) String);

/// Bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bytes(pub(super) usize);

/// A whole number between two.
#[derive(Clone, Copy, Debug)]
pub(super) struct Whole<const MIN: u64, const MAX: u64>(pub(super) u64);

/// The power of a spread, or the deviation of a logarithm. Above 5 all would be the first, or the largest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Power(pub(super) f64);

/// Longest name: a column of a table has room for it.
const NAME_MAX: usize = 64;

const POWER_MAX: f64 = 5.0;

impl Value for Name {
    fn expected() -> String {
        format!("a name of 1 to {NAME_MAX} characters in one line")
    }

    fn of_text(text: &str) -> Option<Self> {
        let fits = (1..=NAME_MAX).contains(&text.chars().count()) && !text.contains(char::is_control);
        fits.then(|| Self(text.to_owned()))
    }
}

impl Value for Pace {
    fn expected() -> String {
        format!("one of {}; without it the load is a closed loop", quoted(Self::ALL.map(Self::as_str)))
    }

    fn of_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl Value for ProfileApi {
    fn expected() -> String {
        format!("one of {}", quoted(Self::ALL.map(Self::as_str)))
    }

    fn of_text(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|api| api.as_str() == text)
    }
}

impl Value for Op {
    fn expected() -> String {
        format!("one of {}", quoted(Self::ALL.map(Self::as_str)))
    }

    fn of_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl Value for Priority {
    fn expected() -> String {
        format!("one of {}", quoted(PRIORITIES.map(priority_name)))
    }

    fn of_text(text: &str) -> Option<Self> {
        PRIORITIES.into_iter().find(|&priority| priority_name(priority) == text)
    }
}

impl Value for Rate {
    fn expected() -> String {
        Self::EXPECTED.to_owned()
    }

    fn of_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn of_whole(number: i64) -> Option<Self> {
        Self::of_decimal(number as f64)
    }

    fn of_decimal(number: f64) -> Option<Self> {
        Self::per_second(number).ok()
    }
}

/// The length of a phase.
impl Value for Duration {
    fn expected() -> String {
        "a duration such as \"500ms\", \"20s\" or \"1m 30s\", from \"1ms\" to \"12h\"".to_owned()
    }

    fn of_text(text: &str) -> Option<Self> {
        let range = parse::PHASE_MIN..=parse::LENGTH_MAX;
        humantime::parse_duration(text).ok().filter(|length| range.contains(length))
    }
}

impl Value for Deadline {
    fn expected() -> String {
        "a duration such as \"250ms\" or \"10s\", or \"none\"".to_owned()
    }

    fn of_text(text: &str) -> Option<Self> {
        match text {
            "none" => Some(Self::None),
            _ => humantime::parse_duration(text).ok().filter(|limit| !limit.is_zero()).map(Self::In),
        }
    }
}

impl Value for Bytes {
    fn expected() -> String {
        "a number of bytes, or a size such as \"4KiB\"".to_owned()
    }

    fn of_text(text: &str) -> Option<Self> {
        let size = text.parse::<ByteSize>().ok()?.as_u64();
        usize::try_from(size).ok().map(Self)
    }

    fn of_whole(number: i64) -> Option<Self> {
        usize::try_from(number).ok().map(Self)
    }
}

impl<const MIN: u64, const MAX: u64> Value for Whole<MIN, MAX> {
    fn expected() -> String {
        format!("a whole number from {MIN} to {MAX}")
    }

    fn of_whole(number: i64) -> Option<Self> {
        u64::try_from(number).ok().filter(|number| (MIN..=MAX).contains(number)).map(Self)
    }
}

impl<const MIN: u64, const MAX: u64> Whole<MIN, MAX> {
    /// For bounds that are such.
    pub(super) fn narrow(self) -> u32 {
        u32::try_from(self.0).unwrap_or(u32::MAX)
    }
}

impl Value for Power {
    fn expected() -> String {
        format!("a number from 0 to {POWER_MAX}")
    }

    fn of_whole(number: i64) -> Option<Self> {
        Self::of_decimal(number as f64)
    }

    fn of_decimal(number: f64) -> Option<Self> {
        (0.0..=POWER_MAX).contains(&number).then_some(Self(number))
    }
}

impl<'de, V: Value> Deserialize<'de> for Read<V> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match Either::<V, NoTable>::deserialize(from)? {
            Either::Value(value) => Ok(Self(value)),
            Either::Table(none) => match none {},
        }
    }
}

/// No table is one.
impl<'de> Deserialize<'de> for NoTable {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(D::Error::custom("expected no table here"))
    }
}

impl<'de, V: Value, T: Deserialize<'de>> Deserialize<'de> for Either<V, T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(EitherVisitor(PhantomData))
    }
}

struct EitherVisitor<V, T>(PhantomData<(V, T)>);

impl<'de, V: Value, T: Deserialize<'de>> Visitor<'de> for EitherVisitor<V, T> {
    type Value = Either<V, T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&V::expected())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        V::of_text(text).map(Either::Value).ok_or_else(wrong::<V, E>)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        V::of_whole(number).map(Either::Value).ok_or_else(wrong::<V, E>)
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Self::Value, E> {
        V::of_decimal(number).map(Either::Value).ok_or_else(wrong::<V, E>)
    }

    fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<Self::Value, M::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Either::Table)
    }
}

fn wrong<V: Value, E: Error>() -> E {
    E::custom(format_args!("expected {}", V::expected()))
}

/// The engine lists its priorities to itself only.
const PRIORITIES: [Priority; 3] = [Priority::High, Priority::Normal, Priority::Low];

/// The name in profiles.
pub(super) const fn priority_name(priority: Priority) -> &'static str {
    match priority {
        Priority::High => "high",
        Priority::Normal => "normal",
        Priority::Low => "low",
    }
}

fn quoted<const N: usize>(names: [&str; N]) -> String {
    names.map(|name| format!("\"{name}\"")).join(", ")
}
