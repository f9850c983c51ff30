//! Fields off the front of a message.

use crate::error::{Error, ErrorKind, Result};

/// What is left of a message that is being read.
pub(crate) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The next `len` bytes.
    ///
    /// # Errors
    /// `InvalidInput` if there are fewer.
    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let (field, rest) = self.0.split_at_checked(len).ok_or_else(|| malformed("it is cut off"))?;
        self.0 = rest;
        Ok(field)
    }

    /// The next `N` bytes.
    ///
    /// # Errors
    /// `InvalidInput` if there are fewer.
    pub(crate) fn array<const N: usize>(&mut self) -> Result<&'a [u8; N]> {
        let (field, rest) = self.0.split_first_chunk().ok_or_else(|| malformed("it is cut off"))?;
        self.0 = rest;
        Ok(field)
    }

    /// The next byte.
    ///
    /// # Errors
    /// `InvalidInput` if there is none.
    pub(crate) fn byte(&mut self) -> Result<u8> {
        self.array().map(|&[byte]| byte)
    }

    pub(crate) const fn left(&self) -> usize {
        self.0.len()
    }
}

/// The error of a message that no key needs to be asked about. It may say what is wrong: that follows from the bytes that
/// the caller has sent, and from nothing secret.
pub(crate) fn malformed(what: &str) -> Error {
    Error::refused(ErrorKind::InvalidInput, format!("not a message: {what}"))
}
