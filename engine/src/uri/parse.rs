//! From text to a URI: the grammar of RFC 7512, 2.3, no more and no less.

use std::fmt::Write;

use secrecy::SecretString;

use super::error::UriErrorKind as Kind;
use super::{ObjectType, PinValue, Pkcs11Uri, UriError, Vendor};

/// Longest URI, in bytes. All attributes of a token, its slot and its module fit 1 KiB even if every byte is encoded,
/// and a path 4 KiB (Linux, PATH_MAX); the rest is for labels and identifiers, which the standard does not bound.
pub(super) const LEN_MAX: usize = 8192;

const SCHEME: &str = "pkcs11:";

const PATH: [&str; 13] = [
    "token",
    "manufacturer",
    "serial",
    "model",
    "library-manufacturer",
    "library-description",
    "library-version",
    "slot-manufacturer",
    "slot-description",
    "slot-id",
    "object",
    "type",
    "id",
];

const QUERY: [&str; 4] = ["pin-source", "pin-value", "module-name", "module-path"];

/// What becomes of a `pin-value`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum PinValues {
    Refused,
    Kept,
}

/// One `name=value`, not decoded yet.
struct Attribute<'a> {
    name: &'a str,
    /// The name in RFC 7512, if it is there.
    standard: Option<&'static str>,
    value: &'a str,
    /// Where the name begins.
    at: usize,
    /// Which characters may stand in the value as they are.
    is_plain: fn(u8) -> bool,
}

pub(super) fn parse(text: &str, pin_values: PinValues) -> Result<Pkcs11Uri, UriError> {
    if text.len() > LEN_MAX {
        return Err(UriError::new(Kind::TooLong, None, LEN_MAX));
    }
    // RFC 3986, 3.1: "schemes are case-insensitive".
    let rest = match text.split_at_checked(SCHEME.len()) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case(SCHEME) => rest,
        _ => return Err(UriError::new(Kind::Scheme, None, 0)),
    };
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let mut uri = Pkcs11Uri::default();
    for attribute in attributes(path, ';', SCHEME.len(), is_plain_in_path) {
        set_in_path(&mut uri, &attribute?)?;
    }
    for attribute in attributes(query, '&', SCHEME.len() + path.len() + 1, is_plain_in_query) {
        set_in_query(&mut uri, &attribute?, pin_values)?;
    }
    check_printed_len(&uri)?;
    Ok(uri)
}

/// What a URI prints may be longer than what it was read from, for an `id` is printed with every byte encoded. It
/// has to be readable too.
fn check_printed_len(uri: &Pkcs11Uri) -> Result<(), UriError> {
    struct Room(usize);
    impl Write for Room {
        fn write_str(&mut self, text: &str) -> std::fmt::Result {
            self.0 = self.0.checked_sub(text.len()).ok_or(std::fmt::Error)?;
            Ok(())
        }
    }
    write!(Room(LEN_MAX), "{uri}").map_err(|_| UriError::new(Kind::TooLong, None, LEN_MAX))
}

/// The attributes of the path or the query; either may be empty.
fn attributes(
    component: &str,
    separator: char,
    start: usize,
    is_plain: fn(u8) -> bool,
) -> impl Iterator<Item = Result<Attribute<'_>, UriError>> {
    let mut next = start;
    let parts = component.split(separator).filter(|_| !component.is_empty());
    parts.map(move |text| {
        let at = next;
        next += text.len() + 1;
        Attribute::of(text, at, is_plain)
    })
}

fn set_in_path(uri: &mut Pkcs11Uri, attribute: &Attribute<'_>) -> Result<(), UriError> {
    let Some(name) = attribute.standard else {
        // RFC 7512, 2.3, allows no attribute twice in the path.
        if uri.vendor_path.iter().any(|known| known.name == attribute.name) {
            return Err(attribute.fault(Kind::Duplicate, attribute.at));
        }
        uri.vendor_path.push(attribute.vendor()?);
        return Ok(());
    };
    let text = match name {
        "token" => &mut uri.token,
        "manufacturer" => &mut uri.manufacturer,
        "serial" => &mut uri.serial,
        "model" => &mut uri.model,
        "library-manufacturer" => &mut uri.library_manufacturer,
        "library-description" => &mut uri.library_description,
        "slot-manufacturer" => &mut uri.slot_manufacturer,
        "slot-description" => &mut uri.slot_description,
        "object" => &mut uri.object,
        "library-version" => return attribute.put(&mut uri.library_version, attribute.version()),
        "slot-id" => return attribute.put(&mut uri.slot_id, attribute.of_digits(attribute.value)),
        "type" => return attribute.put(&mut uri.object_type, attribute.object_type()),
        "id" => return attribute.put(&mut uri.id, attribute.bytes()),
        // Not a vendor's: who reads it as one would drop what its writer meant.
        _ => return Err(attribute.fault(Kind::Misplaced, attribute.at)),
    };
    attribute.put(text, attribute.text())
}

fn set_in_query(
    uri: &mut Pkcs11Uri,
    attribute: &Attribute<'_>,
    pin_values: PinValues,
) -> Result<(), UriError> {
    let Some(name) = attribute.standard else {
        // RFC 7512, 2.4: "duplicate (vendor) attributes MAY be present in the URI query component".
        uri.vendor_query.push(attribute.vendor()?);
        return Ok(());
    };
    match name {
        "pin-source" => attribute.put(&mut uri.pin_source, attribute.text())?,
        "module-name" => attribute.put(&mut uri.module_name, attribute.text())?,
        "module-path" => attribute.put(&mut uri.module_path, attribute.absolute_path())?,
        "pin-value" if pin_values == PinValues::Kept => {
            let secret = attribute.text().map(|text| PinValue(SecretString::from(text)));
            attribute.put(&mut uri.pin_value, secret)?;
        }
        "pin-value" => return Err(attribute.fault(Kind::PinValue, attribute.at)),
        _ => return Err(attribute.fault(Kind::Misplaced, attribute.at)),
    }
    if uri.pin_source.is_some() && uri.pin_value.is_some() {
        return Err(attribute.fault(Kind::TwoPins, attribute.at));
    }
    Ok(())
}

impl<'a> Attribute<'a> {
    fn of(text: &'a str, at: usize, is_plain: fn(u8) -> bool) -> Result<Self, UriError> {
        let (name, value) = text.split_once('=').ok_or(UriError::new(Kind::NoValue, None, at))?;
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if name.is_empty() || !name.bytes().all(is_name) {
            return Err(UriError::new(Kind::Name, None, at));
        }
        // RFC 5234, 2.3: "ABNF strings are case insensitive". So `PIN-VALUE` is no vendor's.
        let mut standard = PATH.into_iter().chain(QUERY);
        let standard = standard.find(|known| known.eq_ignore_ascii_case(name));
        Ok(Self { name, standard, value, at, is_plain })
    }

    fn value_at(&self) -> usize {
        self.at + self.name.len() + 1
    }

    fn fault(&self, kind: Kind, offset: usize) -> UriError {
        UriError::new(kind, self.standard, offset)
    }

    fn wrong_value(&self) -> UriError {
        self.fault(Kind::Value, self.value_at())
    }

    fn put<T>(&self, place: &mut Option<T>, value: Result<T, UriError>) -> Result<(), UriError> {
        if place.is_some() {
            return Err(self.fault(Kind::Duplicate, self.at));
        }
        *place = Some(value?);
        Ok(())
    }

    /// The value with its escapes decoded.
    fn bytes(&self) -> Result<Vec<u8>, UriError> {
        let (raw, mut decoded) = (self.value.as_bytes(), Vec::with_capacity(self.value.len()));
        let mut at = 0;
        while let Some(&byte) = raw.get(at) {
            let (value, len) = match byte {
                b'%' => (escaped(&raw[at + 1..]).ok_or(Kind::Escape), 3),
                byte if (self.is_plain)(byte) => (Ok(byte), 1),
                _ => (Err(Kind::Character), 1),
            };
            decoded.push(value.map_err(|kind| self.fault(kind, self.value_at() + at))?);
            at += len;
        }
        Ok(decoded)
    }

    fn text(&self) -> Result<String, UriError> {
        String::from_utf8(self.bytes()?).map_err(|_| self.fault(Kind::NotUtf8, self.value_at()))
    }

    fn vendor(&self) -> Result<Vendor, UriError> {
        Ok(Vendor { name: self.name.to_owned(), value: self.bytes()? })
    }

    /// RFC 7512, 2.4, has relative paths refused: what they name depends on where the process was started.
    fn absolute_path(&self) -> Result<String, UriError> {
        let path = self.text()?;
        if path.starts_with('/') { Ok(path) } else { Err(self.wrong_value()) }
    }

    /// Numbers, versions and types have no escapes in the grammar.
    fn of_digits<N: std::str::FromStr>(&self, digits: &str) -> Result<N, UriError> {
        // `parse` would take a sign too.
        let number = digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok());
        number.flatten().ok_or_else(|| self.wrong_value())
    }

    /// Major and minor, a byte each as in `CK_VERSION`; a number alone is the major one.
    fn version(&self) -> Result<(u8, u8), UriError> {
        let (major, minor) = self.value.split_once('.').unwrap_or((self.value, "0"));
        Ok((self.of_digits(major)?, self.of_digits(minor)?))
    }

    fn object_type(&self) -> Result<ObjectType, UriError> {
        let mut types = ObjectType::ALL.into_iter();
        types.find(|known| known.as_str().eq_ignore_ascii_case(self.value)).ok_or_else(|| self.wrong_value())
    }
}

/// The byte that the two digits after a `%` stand for.
fn escaped(digits: &[u8]) -> Option<u8> {
    let digit = |index: usize| char::from(*digits.get(index)?).to_digit(16);
    u8::try_from(digit(0)? << 4 | digit(1)?).ok()
}

/// RFC 7512, 2.3: `pk11-pchar` without `pct-encoded`.
pub(super) fn is_plain_in_path(byte: u8) -> bool {
    is_plain(byte) || byte == b'&'
}

/// RFC 7512, 2.3: `pk11-qchar` without `pct-encoded`.
pub(super) fn is_plain_in_query(byte: u8) -> bool {
    is_plain(byte) || matches!(byte, b'/' | b'?' | b'|')
}

/// `unreserved` of RFC 3986, 2.3, and `pk11-res-avail`.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~:[]@!$'()*+,=".contains(&byte)
}
