//! Attributes as modules answer them: whatever lengths and values a module gives to a listing of its keys, nothing panics, and
//! no memory is made because it says so.

#![no_main]

use hsmux::fuzzing::{AttributeAnswer, list_keys};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

/// Most objects of a token, and attributes of one: the engine reads 24.
const OBJECTS_MAX: usize = 4;
const ATTRIBUTES_MAX: usize = 32;

#[derive(Arbitrary, Debug)]
struct Object<'a> {
    attributes: Vec<Attribute<'a>>,
}

#[derive(Arbitrary, Debug)]
struct Attribute<'a> {
    lengths: Lengths,
    value: Value<'a>,
}

#[derive(Arbitrary, Debug)]
enum Lengths {
    /// As the standard has it.
    True,
    /// It has none, or shows none (`CK_UNAVAILABLE_INFORMATION`).
    Unavailable,
    /// It is gone when it is asked for the value.
    Vanishes,
    /// Another one when it is asked for the value.
    Changes(u16),
    Any(u64, u64),
}

#[derive(Arbitrary, Debug)]
enum Value<'a> {
    Flag(bool),
    /// A class, a type of key, a length: small numbers mean something.
    Number(u8),
    Wide(u64),
    Bytes(&'a [u8]),
    /// DER: a tag, and a length that need not be that of what is in it.
    Nested {
        tag: u8,
        len: u8,
        inner: &'a [u8],
    },
}

impl Value<'_> {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Flag(flag) => vec![u8::from(*flag)],
            Self::Number(number) => u64::from(*number).to_ne_bytes().into(),
            Self::Wide(number) => number.to_ne_bytes().into(),
            Self::Bytes(bytes) => bytes.to_vec(),
            Self::Nested { tag, len, inner } => [&[*tag, *len], *inner].concat(),
        }
    }
}

impl Lengths {
    fn of(&self, len: usize) -> (u64, u64) {
        let len = len as u64;
        match self {
            Self::True => (len, len),
            Self::Unavailable => (u64::MAX, u64::MAX),
            Self::Vanishes => (len, u64::MAX),
            Self::Changes(to) => (len, u64::from(*to)),
            Self::Any(first, second) => (*first, *second),
        }
    }
}

fuzz_target!(|objects: Vec<Object<'_>>| {
    let values: Vec<Vec<(&Lengths, Vec<u8>)>> = objects
        .iter()
        .take(OBJECTS_MAX)
        .map(|it| {
            it.attributes.iter().take(ATTRIBUTES_MAX).map(|it| (&it.lengths, it.value.bytes())).collect()
        })
        .collect();
    let answers: Vec<Vec<AttributeAnswer<'_>>> =
        values.iter().map(|object| object.iter().map(answer).collect()).collect();
    let _ = list_keys(&answers);
});

fn answer<'a>((lengths, bytes): &'a (&Lengths, Vec<u8>)) -> AttributeAnswer<'a> {
    let (first, second) = lengths.of(bytes.len());
    (first, second, bytes)
}
