//! PKCS#11 URIs (RFC 7512): how people name tokens and keys, across tools.

mod error;
mod matching;
mod parse;
mod print;

use std::fmt;
use std::str::FromStr;

use secrecy::{ExposeSecret, SecretString};

use crate::error::{Error, ErrorKind};
use crate::uri::parse::PinValues;

pub use crate::uri::error::{UriError, UriErrorKind};
pub(crate) use crate::uri::print::uri_of_key;

/// A PKCS#11 URI, parsed and decoded.
///
/// It parses from text by [`FromStr`] and prints by [`Display`](fmt::Display); what it prints parses to the same.
/// Names of attributes and the values of `type` are read in either case, for the grammar of RFC 7512 writes them as
/// ABNF strings; other values are compared as they are. `Debug` tells which attributes there are, not what they say.
///
/// `pin-value` is refused: a PIN in a URI ends up in shell histories and process lists. See
/// [`PinSource`](crate::PinSource) for what to use instead.
///
/// ```
/// use hsmux::Pkcs11Uri;
///
/// let uri: Pkcs11Uri = "pkcs11:token=pay-1;object=card%20signing;type=private".parse()?;
/// assert_eq!((uri.token(), uri.object(), uri.id()), (Some("pay-1"), Some("card signing"), None));
/// # Ok::<(), hsmux::UriError>(())
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Pkcs11Uri {
    token: Option<String>,
    manufacturer: Option<String>,
    serial: Option<String>,
    model: Option<String>,
    library_manufacturer: Option<String>,
    library_description: Option<String>,
    library_version: Option<(u8, u8)>,
    slot_manufacturer: Option<String>,
    slot_description: Option<String>,
    slot_id: Option<u64>,
    object: Option<String>,
    object_type: Option<ObjectType>,
    id: Option<Vec<u8>>,
    vendor_path: Vec<Vendor>,
    pin_source: Option<String>,
    pin_value: Option<PinValue>,
    module_name: Option<String>,
    module_path: Option<String>,
    vendor_query: Vec<Vendor>,
}

/// The class of an object, as the attribute `type` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ObjectType {
    /// `private`: the private half of a pair.
    Private,
    /// `secret-key`: a symmetric key.
    SecretKey,
    /// `public`: the public half of a pair.
    Public,
    /// `cert`: a certificate.
    Cert,
    /// `data`: anything else that an application has stored.
    Data,
}

/// An attribute that RFC 7512 does not define.
#[derive(Clone, PartialEq, Eq)]
struct Vendor {
    name: String,
    value: Vec<u8>,
}

#[derive(Clone)]
struct PinValue(SecretString);

macro_rules! texts {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        $(
            $(#[$doc])*
            #[must_use]
            pub fn $name(&self) -> Option<&str> {
                self.$name.as_deref()
            }
        )*
    };
}

impl Pkcs11Uri {
    /// As [`FromStr`], but takes a `pin-value` and keeps it as a secret that is neither shown nor printed. For tests.
    ///
    /// # Errors
    /// As [`FromStr`], and if there is a `pin-source` too: RFC 7512, 2.4, allows one of the two.
    pub fn parse_with_pin_value(text: &str) -> Result<Self, UriError> {
        parse::parse(text, PinValues::Kept)
    }

    /// The attribute `pin-value`; only [`Pkcs11Uri::parse_with_pin_value`] lets one in.
    #[must_use]
    pub fn pin_value(&self) -> Option<&SecretString> {
        self.pin_value.as_ref().map(|value| &value.0)
    }

    texts!(
        /// Label of the token.
        token,
        /// Manufacturer of the token.
        manufacturer,
        /// Serial number of the token.
        serial,
        /// Model of the token.
        model,
        /// Manufacturer of the module.
        library_manufacturer,
        /// Description of the module.
        library_description,
        /// Manufacturer of the slot.
        slot_manufacturer,
        /// Description of the slot.
        slot_description,
        /// Label of the object (`CKA_LABEL`).
        object,
        /// Where the PIN is: text for whoever reads the URI.
        pin_source,
        /// Name of the module's library, without prefix and suffix.
        module_name,
        /// Absolute path of the module's library.
        module_path,
    );

    /// Version of the module, major and minor.
    #[must_use]
    pub const fn library_version(&self) -> Option<(u8, u8)> {
        self.library_version
    }

    /// Number of the slot.
    #[must_use]
    pub const fn slot_id(&self) -> Option<u64> {
        self.slot_id
    }

    /// Class of the object: the attribute `type`.
    #[must_use]
    pub const fn object_type(&self) -> Option<ObjectType> {
        self.object_type
    }

    /// Identifier of the object (`CKA_ID`): any bytes.
    #[must_use]
    pub fn id(&self) -> Option<&[u8]> {
        self.id.as_deref()
    }

    /// Attributes of the path that RFC 7512 does not define, by name and decoded value.
    ///
    /// A URI that has any matches nothing: "each additional attribute present in the URI path component further
    /// restricts the selection" (2.5), and nobody here knows how.
    pub fn vendor_path_attributes(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.vendor_path.iter().map(|vendor| (vendor.name.as_str(), vendor.value.as_slice()))
    }

    /// Attributes of the query that RFC 7512 does not define, by name and decoded value, in their order; a name may
    /// come several times (2.4). They select nothing.
    pub fn vendor_query_attributes(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.vendor_query.iter().map(|vendor| (vendor.name.as_str(), vendor.value.as_slice()))
    }

    /// The names of the attributes that are there.
    fn names(&self) -> Vec<&str> {
        let standard = [
            ("token", self.token.is_some()),
            ("manufacturer", self.manufacturer.is_some()),
            ("serial", self.serial.is_some()),
            ("model", self.model.is_some()),
            ("library-manufacturer", self.library_manufacturer.is_some()),
            ("library-description", self.library_description.is_some()),
            ("library-version", self.library_version.is_some()),
            ("slot-manufacturer", self.slot_manufacturer.is_some()),
            ("slot-description", self.slot_description.is_some()),
            ("slot-id", self.slot_id.is_some()),
            ("object", self.object.is_some()),
            ("type", self.object_type.is_some()),
            ("id", self.id.is_some()),
            ("pin-source", self.pin_source.is_some()),
            ("pin-value", self.pin_value.is_some()),
            ("module-name", self.module_name.is_some()),
            ("module-path", self.module_path.is_some()),
            ("vendor's in the path", !self.vendor_path.is_empty()),
            ("vendor's in the query", !self.vendor_query.is_empty()),
        ];
        standard.into_iter().filter_map(|(name, is_there)| is_there.then_some(name)).collect()
    }
}

impl ObjectType {
    const ALL: [Self; 5] = [Self::Private, Self::SecretKey, Self::Public, Self::Cert, Self::Data];

    /// The value in a URI.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::SecretKey => "secret-key",
            Self::Public => "public",
            Self::Cert => "cert",
            Self::Data => "data",
        }
    }
}

impl FromStr for Pkcs11Uri {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        parse::parse(text, PinValues::Refused)
    }
}

impl fmt::Debug for Pkcs11Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pkcs11Uri").field(&self.names()).finish()
    }
}

impl PartialEq for PinValue {
    fn eq(&self, other: &Self) -> bool {
        self.0.expose_secret() == other.0.expose_secret()
    }
}

impl Eq for PinValue {}

impl From<UriError> for Error {
    fn from(error: UriError) -> Self {
        Self::operator(ErrorKind::Configuration, format!("PKCS#11 URI: {error}"))
    }
}

#[cfg(test)]
mod tests;
