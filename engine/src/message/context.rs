//! What a message belongs to: names and values that are authenticated and not stored in it.

use std::collections::BTreeMap;
use std::fmt;

use crate::error::{Error, ErrorKind, Result};

/// Names and values that a message is bound to: it opens only if the same are given again.
///
/// They are not encrypted and not part of the message, so they should be what the reader knows anyway: the tenant, the
/// table and column, the purpose. Their order does not matter, each name is there once, and a pair is more than its text:
/// `("a", "bc")` is not `("ab", "c")`, and a name is not a value.
///
/// The empty context is a context like any other.
///
/// ```
/// use hsmux::EncryptionContext;
///
/// let context = EncryptionContext::try_from([("tenant", "7"), ("purpose", "card numbers")])?;
/// let same = EncryptionContext::builder().pair("purpose", "card numbers").pair("tenant", "7").build()?;
/// assert_eq!(context, same);
/// # Ok::<(), hsmux::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct EncryptionContext {
    pairs: BTreeMap<Box<str>, Box<str>>,
    encoded: Box<[u8]>,
}

/// Makes an [`EncryptionContext`] pair by pair.
#[derive(Clone, Default)]
#[must_use]
pub struct EncryptionContextBuilder {
    pairs: Vec<(Box<str>, Box<str>)>,
}

impl EncryptionContext {
    /// Most bytes of an encoded context: as many as AWS KMS sends to an external key store as additional data (XKS proxy
    /// API), and with all else that a blob authenticates less than the 16 KB that CloudHSM takes in one call of AES-GCM.
    pub const ENCODED_MAX: usize = 8_192;

    /// Begins a context without pairs.
    pub fn builder() -> EncryptionContextBuilder {
        EncryptionContextBuilder::default()
    }

    /// The context without pairs.
    #[must_use]
    pub fn empty() -> Self {
        Self { pairs: BTreeMap::new(), encoded: [0, 0].into() }
    }

    /// The pairs, sorted by the bytes of their names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(name, value)| (&**name, &**value))
    }

    /// The value of a name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs.get(name).map(|value| &**value)
    }

    /// How many pairs there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Whether there is no pair.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// The bytes that are authenticated: the number of pairs, then for each, sorted by name, the length of the name, the
    /// name, the length of the value, the value. Numbers are two bytes, big-endian. Different contexts have different
    /// encodings, and none is the front of another.
    #[must_use]
    pub fn as_encoded(&self) -> &[u8] {
        &self.encoded
    }

    fn of(given: impl IntoIterator<Item = (Box<str>, Box<str>)>) -> Result<Self> {
        let (mut pairs, mut len) = (BTreeMap::new(), 2_usize);
        for (name, value) in given {
            if name.is_empty() {
                return Err(refused("a name in the encryption context is empty"));
            }
            len = len.saturating_add(4 + name.len()).saturating_add(value.len());
            if len > Self::ENCODED_MAX {
                return Err(refused("the encryption context is longer than 8192 bytes"));
            }
            if pairs.insert(name, value).is_some() {
                return Err(refused("a name is twice in the encryption context"));
            }
        }
        let encoded = encode(&pairs, len)?;
        Ok(Self { pairs, encoded })
    }
}

impl EncryptionContextBuilder {
    /// Adds a pair. The name must not be empty; the value may be.
    pub fn pair(mut self, name: impl Into<Box<str>>, value: impl Into<Box<str>>) -> Self {
        self.pairs.push((name.into(), value.into()));
        self
    }

    /// The context.
    ///
    /// # Errors
    /// `InvalidInput` if a name is empty or there twice, or if the encoding is longer than
    /// [`EncryptionContext::ENCODED_MAX`].
    pub fn build(self) -> Result<EncryptionContext> {
        EncryptionContext::of(self.pairs)
    }
}

/// What [`EncryptionContext::as_encoded`] describes, `len` bytes.
fn encode(pairs: &BTreeMap<Box<str>, Box<str>>, len: usize) -> Result<Box<[u8]>> {
    let number = |n: usize| u16::try_from(n).map(u16::to_be_bytes);
    let too_long = |_| Error::internal("a context within its bound has a part that is not");
    let mut encoded = Vec::with_capacity(len);
    encoded.extend(number(pairs.len()).map_err(too_long)?);
    for text in pairs.iter().flat_map(|(name, value)| [name, value]) {
        encoded.extend(number(text.len()).map_err(too_long)?);
        encoded.extend_from_slice(text.as_bytes());
    }
    debug_assert_eq!(encoded.len(), len, "the bound was checked against the length");
    Ok(encoded.into())
}

fn refused(why: &str) -> Error {
    Error::refused(ErrorKind::InvalidInput, why)
}

impl Default for EncryptionContext {
    fn default() -> Self {
        Self::empty()
    }
}

impl<N: Into<Box<str>>, V: Into<Box<str>>, const LEN: usize> TryFrom<[(N, V); LEN]> for EncryptionContext {
    type Error = Error;

    fn try_from(pairs: [(N, V); LEN]) -> Result<Self> {
        Self::of(pairs.into_iter().map(|(name, value)| (name.into(), value.into())))
    }
}

impl<N: Into<Box<str>>, V: Into<Box<str>>> TryFrom<Vec<(N, V)>> for EncryptionContext {
    type Error = Error;

    fn try_from(pairs: Vec<(N, V)>) -> Result<Self> {
        Self::of(pairs.into_iter().map(|(name, value)| (name.into(), value.into())))
    }
}

/// Shows how many pairs there are, and neither names nor values.
impl fmt::Debug for EncryptionContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EncryptionContext({} pairs)", self.pairs.len())
    }
}

/// Shows how many pairs there are, and neither names nor values.
impl fmt::Debug for EncryptionContextBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EncryptionContextBuilder({} pairs)", self.pairs.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn context<const LEN: usize>(pairs: [(&str, &str); LEN]) -> EncryptionContext {
        EncryptionContext::try_from(pairs).unwrap()
    }

    #[test]
    fn the_encoding_is_the_one_of_the_document() {
        assert_eq!(EncryptionContext::empty().as_encoded(), [0, 0]);
        assert_eq!(EncryptionContext::empty(), context([]));
        let encoded = b"\0\x02\0\x01a\0\x02bc\0\x06tenant\0\0";
        assert_eq!(context([("tenant", ""), ("a", "bc")]).as_encoded(), encoded);
    }

    #[test]
    fn names_sort_by_their_bytes() {
        // UTF-16 would sort U+10000 before U+FFFD.
        let names: Vec<_> = ["\u{10000}", "Z", "a", "\u{fffd}", "ab"].map(|name| (name, "")).into();
        let sorted = EncryptionContext::try_from(names).unwrap();
        assert!(sorted.iter().map(|(name, _)| name).eq(["Z", "a", "ab", "\u{fffd}", "\u{10000}"]));
    }

    #[test]
    fn empty_names_and_names_that_come_twice_are_refused() {
        for pairs in [[("", "a"), ("b", "c")], [("a", "b"), ("a", "b")], [("a", "b"), ("a", "c")]] {
            assert_eq!(EncryptionContext::try_from(pairs).unwrap_err().kind(), ErrorKind::InvalidInput);
        }
    }

    #[test]
    fn a_context_of_8192_bytes_is_taken_and_one_byte_more_is_not() {
        let of = |len: usize| EncryptionContext::builder().pair("name", "v".repeat(len - 2 - 4 - 4)).build();
        assert_eq!(of(8_192).unwrap().as_encoded().len(), EncryptionContext::ENCODED_MAX);
        assert_eq!(of(8_193).unwrap_err().kind(), ErrorKind::InvalidInput);
    }

    #[test]
    fn debug_forms_and_errors_show_no_name_and_no_value() {
        let builder = EncryptionContext::builder().pair("qZ9x", "7xJk");
        assert_eq!(format!("{builder:?}"), "EncryptionContextBuilder(1 pairs)");
        assert_eq!(format!("{:?}", builder.clone().build().unwrap()), "EncryptionContext(1 pairs)");
        let twice = builder.pair("qZ9x", "7xJk").build().unwrap_err();
        assert!(!format!("{twice} {twice:?}").contains("qZ9x"));
    }

    /// Reads an encoding by the document alone.
    fn decode(mut bytes: &[u8]) -> BTreeMap<String, String> {
        fn number(bytes: &mut &[u8]) -> usize {
            let (number, rest) = bytes.split_first_chunk().unwrap();
            *bytes = rest;
            u16::from_be_bytes(*number).into()
        }
        fn text(bytes: &mut &[u8]) -> String {
            let len = number(bytes);
            let (text, rest) = bytes.split_at(len);
            *bytes = rest;
            String::from_utf8(text.into()).unwrap()
        }
        let pairs = number(&mut bytes);
        let decoded = (0..pairs).map(|_| (text(&mut bytes), text(&mut bytes))).collect();
        assert!(bytes.is_empty());
        decoded
    }

    proptest! {
        /// The encoding can be read back, so no two contexts share one.
        #[test]
        fn an_encoding_has_one_reading(pairs in proptest::collection::btree_map(".{1,20}", ".{0,20}", 0..20)) {
            let list: Vec<(String, String)> = pairs.clone().into_iter().rev().collect();
            let context = EncryptionContext::try_from(list).unwrap();
            prop_assert_eq!(decode(context.as_encoded()), pairs.clone());
            prop_assert_eq!(context.len(), pairs.len());
            prop_assert!(pairs.iter().all(|(name, value)| context.get(name) == Some(value)));
        }
    }
}
