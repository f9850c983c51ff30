//! Why a text is no PKCS#11 URI.

use std::fmt;

/// Why a text is no PKCS#11 URI, and where. It shows no value and no name that the text made up: either may be a
/// secret in the wrong place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UriError {
    kind: UriErrorKind,
    attribute: Option<&'static str>,
    offset: usize,
}

/// What is wrong with a URI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum UriErrorKind {
    /// It is longer than any sane URI.
    TooLong,
    /// It does not begin with `pkcs11:`.
    Scheme,
    /// An attribute has no name, or one with other characters than letters, digits, `-` and `_`.
    Name,
    /// An attribute has no `=`.
    NoValue,
    /// A character that has to be percent-encoded here.
    Character,
    /// A `%` without two hexadecimal digits.
    Escape,
    /// A text that is not UTF-8 once it is decoded.
    NotUtf8,
    /// A value that the attribute does not take.
    Value,
    /// An attribute that comes twice.
    Duplicate,
    /// An attribute of the path in the query, or the other way round.
    Misplaced,
    /// A `pin-value`: PINs do not belong into URIs.
    PinValue,
    /// Both a `pin-source` and a `pin-value`.
    TwoPins,
}

impl UriError {
    pub(super) const fn new(kind: UriErrorKind, attribute: Option<&'static str>, offset: usize) -> Self {
        Self { kind, attribute, offset }
    }

    /// What is wrong.
    #[must_use]
    pub const fn kind(&self) -> UriErrorKind {
        self.kind
    }

    /// In which attribute, if it is one of RFC 7512.
    #[must_use]
    pub const fn attribute(&self) -> Option<&'static str> {
        self.attribute
    }

    /// Where, in bytes from the beginning.
    #[must_use]
    pub const fn offset(&self) -> usize {
        self.offset
    }
}

impl UriErrorKind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::TooLong => "too long",
            Self::Scheme => "no pkcs11: at the beginning",
            Self::Name => "not the name of an attribute",
            Self::NoValue => "an attribute without a value",
            Self::Character => "a character that has to be percent-encoded",
            Self::Escape => "a % without two hexadecimal digits",
            Self::NotUtf8 => "not UTF-8",
            Self::Value => "not a value that this attribute takes",
            Self::Duplicate => "an attribute that comes twice",
            Self::Misplaced => "an attribute on the wrong side of the ?",
            Self::PinValue => "a PIN, which no URI may hold,",
            Self::TwoPins => "both pin-source and pin-value",
        }
    }
}

impl fmt::Display for UriError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.as_str())?;
        if let Some(attribute) = self.attribute {
            write!(f, " in {attribute}")?;
        }
        write!(f, " at byte {}", self.offset)
    }
}

impl std::error::Error for UriError {}
