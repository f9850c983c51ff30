//! From a URI to text.

use std::fmt::{self, Write};

use super::parse::{is_plain_in_path, is_plain_in_query};
use super::{ObjectType, Pkcs11Uri};

/// Writes what an attribute's value is, percent-encoded as its place demands.
struct Attributes<'a, 'f> {
    f: &'a mut fmt::Formatter<'f>,
    /// What stands before the next attribute.
    before: &'static str,
    separator: &'static str,
    is_plain: fn(u8) -> bool,
}

impl Attributes<'_, '_> {
    fn put(&mut self, name: &str, value: Option<&[u8]>) -> fmt::Result {
        let Some(value) = value else { return Ok(()) };
        self.f.write_str(self.before)?;
        self.before = self.separator;
        write!(self.f, "{name}")?;
        write_encoded(self.f, "=", value, self.is_plain)
    }

    fn text(&mut self, name: &str, value: Option<&str>) -> fmt::Result {
        self.put(name, value.map(str::as_bytes))
    }
}

/// A URI of a key by its id or, where that is empty, by its label.
pub(crate) fn uri_of_key(id: &[u8], label: &[u8]) -> String {
    let mut uri = String::new();
    // A string takes whatever is written to it.
    let _written = match id.is_empty() {
        true => write_encoded(&mut uri, "pkcs11:object=", label, is_plain_in_path),
        false => write_encoded(&mut uri, "pkcs11:id=", id, |_| false),
    };
    uri
}

fn write_encoded(out: &mut impl Write, before: &str, value: &[u8], is_plain: fn(u8) -> bool) -> fmt::Result {
    out.write_str(before)?;
    value.iter().try_for_each(|&byte| match is_plain(byte) {
        true => out.write_char(byte.into()),
        false => write!(out, "%{byte:02X}"),
    })
}

/// The URI, but for a `pin-value`. It names labels: print it for those who may know them.
impl fmt::Display for Pkcs11Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("pkcs11:")?;
        let mut path = Attributes { f, before: "", separator: ";", is_plain: is_plain_in_path };
        path.text("token", self.token())?;
        path.text("manufacturer", self.manufacturer())?;
        path.text("serial", self.serial())?;
        path.text("model", self.model())?;
        path.text("library-manufacturer", self.library_manufacturer())?;
        path.text("library-description", self.library_description())?;
        let version = self.library_version().map(|(major, minor)| format!("{major}.{minor}"));
        path.text("library-version", version.as_deref())?;
        path.text("slot-manufacturer", self.slot_manufacturer())?;
        path.text("slot-description", self.slot_description())?;
        path.text("slot-id", self.slot_id().map(|id| id.to_string()).as_deref())?;
        path.text("object", self.object())?;
        path.text("type", self.object_type().map(ObjectType::as_str))?;
        // RFC 7512, 2.3, wants the whole identifier encoded, for it is no text.
        path.is_plain = |_| false;
        path.put("id", self.id())?;
        path.is_plain = is_plain_in_path;
        self.vendor_path_attributes().try_for_each(|(name, value)| path.put(name, Some(value)))?;
        let mut query = Attributes { f, before: "?", separator: "&", is_plain: is_plain_in_query };
        query.text("pin-source", self.pin_source())?;
        query.text("module-name", self.module_name())?;
        query.text("module-path", self.module_path())?;
        self.vendor_query_attributes().try_for_each(|(name, value)| query.put(name, Some(value)))
    }
}
