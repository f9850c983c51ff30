//! Digests as text: 64 lower-case hexadecimal digits.

use data_encoding::HEXLOWER;

use super::merkle::Hash;

/// Appends the digits of some bytes.
pub(super) fn push(out: &mut Vec<u8>, bytes: &[u8]) {
    let start = out.len();
    out.resize(start + HEXLOWER.encode_len(bytes.len()), 0);
    HEXLOWER.encode_mut(bytes, &mut out[start..]);
}

pub(super) fn text(bytes: &[u8]) -> String {
    HEXLOWER.encode(bytes)
}

/// The digest that the digits stand for; one text only stands for each.
pub(super) fn hash(text: &[u8]) -> Option<Hash> {
    HEXLOWER.decode(text).ok()?.try_into().ok()
}

/// For digests in JSON.
pub(super) mod serde {
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Hash;

    /// A digest that is written as its digits.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Hex(pub(crate) Hash);

    impl Serialize for Hex {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_str(&super::text(&self.0))
        }
    }

    impl<'de> Deserialize<'de> for Hex {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
            super::hash(text.as_bytes())
                .map(Self)
                .ok_or_else(|| D::Error::custom("no SHA-256 in hexadecimal digits"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_has_one_text() {
        let digest = super::super::merkle::sha256(b"");
        let digits = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!((text(&digest).as_str(), hash(digits.as_bytes())), (digits, Some(digest)));
        let mut out = b"is ".to_vec();
        push(&mut out, &digest[..2]);
        assert_eq!(out, b"is e3b0");
        for wrong in [&digits[1..], &digits.to_uppercase(), &format!("{digits}0"), &format!("{digits}00")] {
            assert_eq!(hash(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
