//! Records of `hsmux bulk`: no line panics; a record is what another reading of the line says, and a bad one keeps
//! its id; nothing that stands on the line is shown.

#![no_main]

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hsmux_cli::bulk::{Id, Problem, Record, RecordError, parse_record};
use libfuzzer_sys::fuzz_target;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

/// A payload that no message holds by chance.
const PAYLOAD: &[u8] = b"qZ9~7x_Jk";

fuzz_target!(|line: &[u8]| {
    let outcome = parse_record(line);
    if let Err(error) = &outcome {
        if let Problem::NotJson(at) = error.problem {
            assert!(line.contains(&b'\n') || (1..=line.len()).contains(&at), "byte {at} of {}", line.len());
        }
    }
    match serde_json::from_slice::<Fields>(line) {
        Ok(fields) => agrees(&fields, &outcome),
        // The id comes back as it was written, so it may be a number that no `f64` holds.
        Err(error) if error.to_string().starts_with("number out of range") => {}
        Err(error) => assert!(outcome.is_err(), "{error}"),
    }
    assert!(outcome.is_err() || std::str::from_utf8(line).is_ok());
    shows_nothing(line);
});

/// Looks at an outcome against the fields that the line has.
fn agrees(fields: &Fields, outcome: &Result<Record<'_>, RecordError<'_>>) {
    let id = fields.only("id").filter(|id| !id.is_object() && !id.is_array());
    match outcome {
        Ok(record) => {
            let (input, aad) = fields.content().expect("it is a record by the other reading too");
            assert_eq!(record.input.as_slice(), input);
            assert_eq!(record.aad.as_ref().map(|aad| aad.to_vec()), aad);
            assert_eq!(record.id.map(value).as_ref(), id);
        }
        Err(error) => {
            assert!(fields.content().is_none(), "refused: {}", error.problem);
            assert_eq!(error.id.map(value).as_ref(), id, "{}", error.problem);
            let of_other_lines = [Problem::Empty, Problem::NotAnObject];
            assert!(!of_other_lines.contains(&error.problem), "{}", error.problem);
            assert!(!matches!(error.problem, Problem::NotJson(_)), "{}", error.problem);
        }
    }
}

fn value(id: Id<'_>) -> Value {
    serde_json::from_str(id.as_json()).expect("an id is JSON")
}

/// With a payload put where values stand, whether or not that leaves it JSON.
fn shows_nothing(line: &[u8]) {
    let after = |byte| line.iter().position(|b| *b == byte).map_or(0, |at| at + 1);
    let last_quote = line.iter().rposition(|b| *b == b'"').unwrap_or(line.len());
    for at in [after(b'{'), after(b':'), last_quote, line.len()] {
        let line = [&line[..at], PAYLOAD, &line[at..]].concat();
        let shown = match parse_record(&line) {
            Ok(record) => format!("{record:?} {:?}", record.id),
            Err(error) => format!("{} {error:?}", error.problem),
        };
        assert!(!shown.as_bytes().windows(PAYLOAD.len()).any(|part| part == PAYLOAD), "{shown}");
    }
}

/// The fields of an object, in order; what is there twice, twice.
struct Fields(Vec<(String, Value)>);

impl Fields {
    fn named(&self, name: &str) -> impl Iterator<Item = &Value> {
        self.0.iter().filter(move |field| field.0 == name).map(|field| &field.1)
    }

    /// The field of this name if it is there once.
    fn only(&self, name: &str) -> Option<&Value> {
        self.named(name).next().filter(|_| self.named(name).count() == 1)
    }

    /// The input and the additional data, if these fields are a record.
    fn content(&self) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
        let known =
            self.0.iter().all(|(name, _)| ["id", "data", "text", "hex", "aad"].contains(&name.as_str()));
        let twice = ["id", "aad"].iter().any(|name| self.named(name).count() > 1);
        let inputs: Vec<_> =
            self.0.iter().filter(|(name, _)| !["id", "aad"].contains(&name.as_str())).collect();
        let id_scalar = self.named("id").all(|id| !id.is_object() && !id.is_array());
        let [(form, input)] = inputs.as_slice() else { return None };
        if !known || twice || !id_scalar {
            return None;
        }
        let input = match form.as_str() {
            "text" => input.as_str()?.as_bytes().to_vec(),
            "hex" => unhex(input.as_str()?)?,
            _ => STANDARD.decode(input.as_str()?).ok()?,
        };
        match self.only("aad") {
            Some(aad) => Some((input, Some(STANDARD.decode(aad.as_str()?).ok()?))),
            None => Some((input, None)),
        }
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u32>> = text.chars().map(|c| c.to_digit(16)).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    digits.chunks(2).map(|pair| u8::try_from(pair[0] << 4 | pair[1]).ok()).collect()
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }

        from.deserialize_map(Object)
    }
}
