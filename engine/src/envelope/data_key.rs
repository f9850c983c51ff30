//! Keys for bulk data, and who makes and unwraps them.

use std::fmt;

use zeroize::{Zeroize, Zeroizing};

use crate::error::{Error, ErrorKind, Result};
use crate::message::context::EncryptionContext;
use crate::sync::Arc;

/// A plain data key: 32 bytes that encrypt other data.
///
/// They lie in one place on the heap, which is wiped when the key is dropped; they are never moved or cloned. What uses
/// them (HKDF-SHA-256 in `ring`) works on copies on the stack that nobody wipes.
pub struct DataKey {
    bytes: Box<[u8; DataKey::LEN]>,
}

/// A data key that was just made, plain and wrapped.
#[derive(Debug)]
pub struct GeneratedDataKey {
    /// The plain key.
    pub key: DataKey,
    /// The same key, encrypted by the key that holds it; opaque to who stores it.
    pub wrapped: Vec<u8>,
}

/// Who makes data keys and unwraps them: a key in an HSM.
///
/// Both calls may take as long as a call of a token takes, and are made on the thread of whoever seals or opens a message.
/// An implementation bounds their time by its own deadlines.
pub trait DataKeyProvider {
    /// Makes a fresh random data key and wraps it under the context.
    ///
    /// # Errors
    /// What the token answers.
    fn generate(&self, context: &EncryptionContext) -> Result<GeneratedDataKey>;

    /// Unwraps a data key. It must authenticate every byte of `wrapped`, and the context.
    ///
    /// # Errors
    /// `DecryptFailed` for whatever was not wrapped so, without more; else what the token answers.
    fn unwrap(&self, wrapped: &[u8], context: &EncryptionContext) -> Result<DataKey>;

    /// A number that grows whenever a data key that is known may no longer be used: a version of the key was disabled, or
    /// has been replaced by another. Data keys from before that are then forgotten. It is read for every message, so it
    /// should be an atomic load; it must never fall.
    fn epoch(&self) -> u64 {
        0
    }
}

impl DataKey {
    /// Length of a data key, in bytes.
    pub const LEN: usize = 32;

    /// Takes the key out of `source`, which is wiped, whatever its length.
    ///
    /// # Errors
    /// `InvalidInput` if there are not exactly 32 bytes.
    pub fn take(source: &mut [u8]) -> Result<Self> {
        let wrong = || Error::refused(ErrorKind::InvalidInput, "a data key that is not 32 bytes long");
        // In its place before it is filled: a key that is moved leaves itself behind.
        let mut key = Self { bytes: Box::new([0; Self::LEN]) };
        let fits = source.len() == Self::LEN;
        if fits {
            key.bytes.copy_from_slice(source);
        }
        source.zeroize();
        fits.then_some(key).ok_or_else(wrong)
    }

    /// A key of random bytes of the operating system.
    ///
    /// # Errors
    /// `Internal` if the operating system has none.
    pub fn random() -> Result<Self> {
        let mut key = Self { bytes: Box::new([0; Self::LEN]) };
        getrandom::fill(&mut *key.bytes).map_err(no_random)?;
        Ok(key)
    }

    /// The bytes. Whoever copies them has to wipe the copy.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.bytes
    }
}

pub(super) fn no_random(error: getrandom::Error) -> Error {
    Error::internal(format!("the operating system has no random bytes: {error}"))
}

impl Drop for DataKey {
    fn drop(&mut self) {
        self.bytes.zeroize();
        #[cfg(test)]
        tests::dropped(&self.bytes);
    }
}

impl TryFrom<Vec<u8>> for DataKey {
    type Error = Error;

    /// As [`DataKey::take`]; all memory of the vector is wiped.
    fn try_from(bytes: Vec<u8>) -> Result<Self> {
        Self::take(&mut Zeroizing::new(bytes))
    }
}

/// Shows nothing of the key.
impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKey(..)")
    }
}

impl<P: DataKeyProvider + ?Sized> DataKeyProvider for &P {
    fn generate(&self, context: &EncryptionContext) -> Result<GeneratedDataKey> {
        (**self).generate(context)
    }

    fn unwrap(&self, wrapped: &[u8], context: &EncryptionContext) -> Result<DataKey> {
        (**self).unwrap(wrapped, context)
    }

    fn epoch(&self) -> u64 {
        (**self).epoch()
    }
}

impl<P: DataKeyProvider + ?Sized> DataKeyProvider for Arc<P> {
    fn generate(&self, context: &EncryptionContext) -> Result<GeneratedDataKey> {
        (**self).generate(context)
    }

    fn unwrap(&self, wrapped: &[u8], context: &EncryptionContext) -> Result<DataKey> {
        (**self).unwrap(wrapped, context)
    }

    fn epoch(&self) -> u64 {
        (**self).epoch()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        static DROPPED: Cell<usize> = const { Cell::new(0) };
    }

    /// A key's memory, just before it is freed.
    pub(super) fn dropped(bytes: &[u8; DataKey::LEN]) {
        assert_eq!(*bytes, [0; DataKey::LEN], "a data key is freed and not wiped");
        DROPPED.set(DROPPED.get() + 1);
    }

    /// How many keys this thread has dropped so far; each was wiped.
    pub(in crate::envelope) fn wiped_keys() -> usize {
        DROPPED.get()
    }

    #[test]
    fn a_key_takes_its_bytes_and_leaves_none_behind() {
        let mut source = [0xA5; 32];
        let key = DataKey::take(&mut source).unwrap();
        assert_eq!((key.as_bytes(), source), (&[0xA5; 32], [0; 32]));
    }

    #[test]
    fn bytes_that_are_no_key_are_wiped_too() {
        for len in [0, 31, 33] {
            let mut source = vec![0xA5; len];
            assert_eq!(DataKey::take(&mut source).unwrap_err().kind(), ErrorKind::InvalidInput);
            assert_eq!(source, vec![0; len]);
        }
    }

    #[test]
    fn a_key_that_is_dropped_is_wiped() {
        let before = wiped_keys();
        drop(DataKey::random().unwrap());
        drop(DataKey::try_from(vec![0xA5; 32]));
        assert_eq!(wiped_keys(), before + 2);
    }

    #[test]
    fn random_keys_differ_and_show_nothing() {
        let (one, other) = (DataKey::random().unwrap(), DataKey::random().unwrap());
        assert_ne!(one.as_bytes(), other.as_bytes());
        assert_eq!(format!("{one:?}"), "DataKey(..)");
    }
}
