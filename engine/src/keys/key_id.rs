//! The identifier of a managed key: what callers hold instead of a key.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE64URL_NOPAD;

use crate::error::{Error, ErrorKind, Result};
use crate::keys::hex::Hex;

/// The opaque identifier of a managed key: printable, at most 128 characters of `[A-Za-z0-9._-]`, and made by
/// [`ManagedKeys::create`](crate::ManagedKeys::create).
///
/// It ends in 128 bits of a MAC, under a key that never leaves the token, of the key's name, group, tenant and what proves
/// its identity, so nobody can make up one of a key that exists. It is no secret: who may call the engine may use the
/// keys whose ids are known to it. An id stays the same for as long as its key lives, through rotations.
///
/// Parsing one says that it has the form of an id, not that there is such a key: [`Engine::key`](crate::Engine::key) looks
/// it up as a whole, in memory, so an altered one never reaches a token.
///
/// ```
/// use hsmux::KeyId;
///
/// assert!("hk1.AAAAAAAAAAAAAAAAAAAAAA.AAAAAAAAAAAAAAAAAAAAAA".parse::<KeyId>().is_ok());
/// assert!("../../etc/passwd".parse::<KeyId>().is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(String);

/// The number that a key has in its catalogue, for ever.
pub(crate) type KeyNumber = Hex<16>;

/// Longest id that is looked at.
const LEN_MAX: usize = 128;

const PREFIX: &str = "hk1.";

/// Bytes of the MAC that an id carries: SP 800-107 revision 1, 5.3.5, wants at least 64 bits; a guess at 128 is right once
/// in 3 x 10^38.
pub(crate) const TAG_LEN: usize = 16;

impl KeyId {
    /// Of a key of this number, with the front of this MAC of [`KeyId::bound`].
    pub(crate) fn new(number: KeyNumber, mac: &[u8]) -> Result<Self> {
        let tag = mac.get(..TAG_LEN).ok_or_else(|| Error::internal("a MAC of less than 16 bytes"))?;
        Ok(Self(format!(
            "{PREFIX}{}.{}",
            BASE64URL_NOPAD.encode(number.as_bytes()),
            BASE64URL_NOPAD.encode(tag)
        )))
    }

    /// What the MAC is made of. Every field comes with its length, so no two keys have the same.
    pub(crate) fn bound(number: KeyNumber, name: &str, group: &str, tenant: u64, proof: &[u8]) -> Vec<u8> {
        let mut bound = b"hsmux key id 1\n".to_vec();
        for field in [number.as_bytes(), name.as_bytes(), group.as_bytes(), &tenant.to_be_bytes(), proof] {
            bound.extend((field.len() as u64).to_be_bytes());
            bound.extend(field);
        }
        bound
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether a character may stand in an id.
const fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

impl FromStr for KeyId {
    type Err = Error;

    /// # Errors
    /// `KeyNotFound`, for whatever has not the form of an id: the same as for one of a key that is not there.
    fn from_str(text: &str) -> Result<Self> {
        let parts = text.strip_prefix(PREFIX).and_then(|rest| rest.split_once('.'));
        let is_part = |part: &str, len: usize| {
            // Decoded strictly: of two texts for the same bytes one is no id.
            BASE64URL_NOPAD.decode(part.as_bytes()).is_ok_and(|bytes| bytes.len() == len)
        };
        let fits = text.len() <= LEN_MAX
            && text.bytes().all(is_plain)
            && parts.is_some_and(|(number, tag)| is_part(number, 16) && is_part(tag, TAG_LEN));
        match fits {
            true => Ok(Self(text.to_owned())),
            false => Err(Error::refused(ErrorKind::KeyNotFound, "it has not the form of a key id")),
        }
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for KeyId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> KeyId {
        KeyId::new(KeyNumber::new([7; 16]), &[9; 32]).unwrap()
    }

    #[test]
    fn an_id_is_plain_short_and_read_back_as_it_was_written() {
        let text = id().to_string();
        assert!(text.len() <= LEN_MAX && text.bytes().all(is_plain), "{text}");
        assert_eq!(text.parse::<KeyId>().unwrap(), id());
    }

    #[test]
    fn what_has_not_the_form_of_an_id_is_none() {
        let whole = id().to_string();
        let cut = (0..whole.len()).map(|len| whole[..len].to_owned());
        let wrong =
            ["", "hk1", "hk2.AA.AA", "card-signing", "hk1.AAAA.BBBB", "hk1.\u{e9}.AA"].map(str::to_owned);
        let longer = [format!("{whole}A"), format!("{whole}."), format!(" {whole}"), "A".repeat(10_000)];
        // The last character of 16 bytes carries two bits: the other values of it are no second name of the same id.
        let second = format!("{}B", &whole[..whole.len() - 1]);
        for text in cut.chain(wrong).chain(longer).chain([second]) {
            assert_eq!(
                text.parse::<KeyId>().map_err(|error| error.kind()),
                Err(ErrorKind::KeyNotFound),
                "{text}"
            );
        }
    }

    #[test]
    fn whatever_an_id_is_bound_to_changes_what_is_macced() {
        let number = KeyNumber::new([1; 16]);
        let of = |name, group, tenant, proof: &[u8]| KeyId::bound(number, name, group, tenant, proof);
        let plain = of("ab", "c", 1, b"p");
        for other in
            [of("a", "bc", 1, b"p"), of("ab", "c", 2, b"p"), of("ab", "c", 1, b"q"), of("ab", "d", 1, b"p")]
        {
            assert_ne!(plain, other);
        }
        assert_ne!(plain, KeyId::bound(KeyNumber::new([2; 16]), "ab", "c", 1, b"p"));
    }
}
