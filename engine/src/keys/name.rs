//! How callers name a key.

use std::fmt;

use crate::keys::key_id::KeyId;
use crate::keys::listing::Listed;
use crate::pkcs11::TokenInfo;
use crate::uri::Pkcs11Uri;

/// The name of a key: its label, its `CKA_ID`, or a PKCS#11 URI; of a managed key its identifier, its name or an alias.
///
/// Made from a `&str` it is the name or alias of a managed key or, if there is none, a label, whatever the text looks like. `Debug` tells the form of a name only.
///
/// ```
/// use hsmux::{KeyName, Pkcs11Uri};
///
/// # fn sign(engine: &hsmux::Engine) -> Result<(), Box<dyn std::error::Error>> {
/// let by_label = engine.key("card-signing")?;
/// let by_id = engine.key(KeyName::id(&[0x0a, 0x0b]))?;
/// let uri: Pkcs11Uri = "pkcs11:object=card-signing;type=private".parse()?;
/// let by_uri = engine.key(&uri)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy)]
pub struct KeyName<'a>(Form<'a>);

#[derive(Clone, Copy)]
enum Form<'a> {
    Label(&'a str),
    Id(&'a [u8]),
    Uri(&'a Pkcs11Uri),
    Managed(&'a KeyId),
}

impl<'a> KeyName<'a> {
    /// A managed key by its identifier.
    #[must_use]
    pub const fn managed(id: &'a KeyId) -> Self {
        Self(Form::Managed(id))
    }

    pub(crate) const fn managed_id(&self) -> Option<&'a KeyId> {
        match self.0 {
            Form::Managed(id) => Some(id),
            _ => None,
        }
    }

    /// The label, of a name that is nothing else.
    pub(crate) const fn plain_label(&self) -> Option<&'a str> {
        match self.0 {
            Form::Label(label) => Some(label),
            _ => None,
        }
    }

    /// A key by its label (`CKA_LABEL`).
    #[must_use]
    pub const fn label(label: &'a str) -> Self {
        Self(Form::Label(label))
    }

    /// A key by its identifier (`CKA_ID`).
    #[must_use]
    pub const fn id(id: &'a [u8]) -> Self {
        Self(Form::Id(id))
    }

    /// A key by a URI, whose attributes of token and slot say on which tokens it may be used.
    #[must_use]
    pub const fn uri(uri: &'a Pkcs11Uri) -> Self {
        Self(Form::Uri(uri))
    }

    /// The label that a key of this name has, if the name says it.
    pub(crate) fn known_label(&self) -> Option<&'a [u8]> {
        match self.0 {
            Form::Label(label) => Some(label.as_bytes()),
            Form::Id(_) | Form::Managed(_) => None,
            Form::Uri(uri) => uri.object().map(str::as_bytes),
        }
    }

    pub(crate) const fn known_uri(&self) -> Option<&'a Pkcs11Uri> {
        match self.0 {
            Form::Uri(uri) => Some(uri),
            Form::Label(_) | Form::Id(_) | Form::Managed(_) => None,
        }
    }

    /// Whether a key of this name may be looked for on a token.
    pub(crate) fn fits_token(&self, info: &TokenInfo) -> bool {
        self.known_uri().is_none_or(|uri| info.is_named_by(uri))
    }

    /// Whether a key of this label has this name.
    pub(crate) fn fits(&self, label: &[u8], listed: &Listed) -> bool {
        match self.0 {
            Form::Label(wanted) => wanted.as_bytes() == label,
            Form::Id(wanted) => wanted == listed.id,
            Form::Uri(uri) => uri.matches_key(label, &listed.id, listed.class),
            // Found in the catalogue, not among objects.
            Form::Managed(_) => false,
        }
    }
}

impl fmt::Debug for KeyName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Form::Label(_) => "KeyName::label(..)",
            Form::Id(_) => "KeyName::id(..)",
            Form::Uri(_) => "KeyName::uri(..)",
            Form::Managed(_) => "KeyName::managed(..)",
        })
    }
}

impl<'a> From<&'a str> for KeyName<'a> {
    fn from(label: &'a str) -> Self {
        Self::label(label)
    }
}

/// For `&&str`, as iterators give it.
impl<'a> From<&&'a str> for KeyName<'a> {
    fn from(label: &&'a str) -> Self {
        Self::label(label)
    }
}

impl<'a> From<&'a String> for KeyName<'a> {
    fn from(label: &'a String) -> Self {
        Self::label(label)
    }
}

impl<'a> From<&'a KeyId> for KeyName<'a> {
    fn from(id: &'a KeyId) -> Self {
        Self::managed(id)
    }
}

impl<'a> From<&'a Pkcs11Uri> for KeyName<'a> {
    fn from(uri: &'a Pkcs11Uri) -> Self {
        Self::uri(uri)
    }
}
