//! Key wrapping: keys leave a token, and come to one, encrypted under another key.

use cryptoki_sys as sys;

use crate::token::Token;
use crate::token::facts::KeyKind;

/// How a key is wrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyWrap {
    /// AES key wrap (RFC 3394; SP 800-38F, KW): keys of whole 8 bytes, at least 16.
    AesKw,
    /// AES key wrap with padding (RFC 5649; SP 800-38F, KWP): keys of any length.
    AesKwp,
}

impl KeyWrap {
    /// The algorithm by name, and the operations by it, as the audit log has them: of wrapping, and of unwrapping.
    pub(crate) const fn names(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::AesKw => ("aes-kw", "wrap-aes-kw", "unwrap-aes-kw"),
            Self::AesKwp => ("aes-kwp", "wrap-aes-kwp", "unwrap-aes-kwp"),
        }
    }

    /// The mechanisms that do it, in the order in which they are asked for.
    ///
    /// KWP has two numbers: `CKM_AES_KEY_WRAP_PAD` of 2.40, whose padding the standard left open until 3.0 gave
    /// RFC 5649 the new one. SoftHSM2 2.6.1 has the old number and follows RFC 5649.
    const fn numbers(self) -> &'static [sys::CK_MECHANISM_TYPE] {
        match self {
            Self::AesKw => &[sys::CKM_AES_KEY_WRAP],
            Self::AesKwp => &[sys::CKM_AES_KEY_WRAP_KWP, sys::CKM_AES_KEY_WRAP_PAD],
        }
    }

    /// How many bytes a key of so many bytes has when it is wrapped (RFC 3394, 2.2.1; RFC 5649, 4.1).
    pub(crate) const fn wrapped_len(self, len: usize) -> usize {
        match self {
            Self::AesKw => len + 8,
            Self::AesKwp => len.div_ceil(8) * 8 + 8,
        }
    }

    /// Whether the token wraps a key of this kind as the RFC says. SoftHSM2 2.6.1 fills a key up with zeros to whole
    /// 8 bytes and wraps that, which is another key; of one whose length nobody knows, such as a private key's
    /// encoding, the zeros are behind its end.
    pub(crate) fn is_right_on(self, token: &Token, kind: KeyKind) -> bool {
        match (self, kind) {
            (Self::AesKwp, KeyKind::Generic { len }) => len.is_multiple_of(8) || !token.is_softhsm(),
            _ => true,
        }
    }

    /// The mechanisms of this token that do it.
    pub(crate) fn numbers_on(self, token: &Token) -> impl Iterator<Item = sys::CK_MECHANISM_TYPE> {
        self.numbers().iter().copied().filter(|&number| token.offers(number))
    }
}

/// Longest wrapped key, in bytes: an RSA key of 8 192 bits with all its parts takes less than 5 000.
pub(crate) const WRAPPED_LEN_MAX: usize = 8192;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrapped_keys_are_as_long_as_in_the_examples_of_the_rfcs() {
        // RFC 3394, 4.1, 4.2 and 4.6.
        for (len, wrapped) in [(16, 24), (24, 32), (32, 40)] {
            assert_eq!(KeyWrap::AesKw.wrapped_len(len), wrapped);
        }
        // RFC 5649, 6.
        for (len, wrapped) in [(20, 32), (7, 16), (8, 16), (1, 16)] {
            assert_eq!(KeyWrap::AesKwp.wrapped_len(len), wrapped);
        }
    }
}
