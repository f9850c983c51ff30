//! What a key is used for, to see that it works.

use hsmux::{AesEcb, Ecdsa, Ed25519, Hmac, Key, KeyDescription, RsaPkcs1};

/// What is signed: a text that no protocol uses. As a block of AES it has the right length.
const TEXT: &[u8] = b"hsmux doctor: 1 ";

/// What a key is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Ecdsa(Ecdsa),
    Ed25519,
    RsaPkcs1,
    Hmac,
    AesEcb,
}

impl Way {
    pub(super) fn of(key: &KeyDescription) -> Option<Self> {
        // A key for some mechanisms only, or one with a name that others have too, is not tried.
        if !key.allowed.is_empty() || key.label.is_empty() {
            return None;
        }
        Self::of_kind(&key.kind, &key.uses)
    }

    fn of_kind(kind: &str, uses: &[&str]) -> Option<Self> {
        let may = |it: &str| uses.contains(&it);
        match kind {
            "EC P-256" if may("sign") => Some(Self::Ecdsa(Ecdsa::P256_SHA256)),
            "EC P-384" if may("sign") => Some(Self::Ecdsa(Ecdsa::P384_SHA384)),
            "EC P-521" if may("sign") => Some(Self::Ecdsa(Ecdsa::P521_SHA512)),
            "Ed25519" if may("sign") => Some(Self::Ed25519),
            rsa if rsa.starts_with("RSA-") && may("sign") => Some(Self::RsaPkcs1),
            hmac if hmac.starts_with("HMAC-") && may("sign") => Some(Self::Hmac),
            aes if aes.starts_with("AES-") && may("encrypt") => Some(Self::AesEcb),
            _ => None,
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::AesEcb => "encrypted a block",
            Self::Hmac => "made a MAC",
            _ => "signed",
        }
    }

    /// What the key makes of a text that others do not, if that is the same each time.
    pub(super) fn output(self, key: &Key) -> Option<Vec<u8>> {
        match self {
            Self::Hmac => key.sign(Hmac::SHA256, TEXT).wait().ok().map(|made| made.as_bytes().to_vec()),
            Self::AesEcb => key.encrypt(AesEcb, TEXT).wait().ok().map(|made| made.as_bytes().to_vec()),
            _ => None,
        }
    }

    /// Uses the key once.
    pub(super) fn run(self, key: &Key) -> hsmux::Result<()> {
        match self {
            Self::Ecdsa(how) => key.sign(how, TEXT).wait().map(drop),
            Self::Ed25519 => key.sign(Ed25519, TEXT).wait().map(drop),
            Self::RsaPkcs1 => key.sign(RsaPkcs1::SHA256, TEXT).wait().map(drop),
            Self::Hmac => key.sign(Hmac::SHA256, TEXT).wait().map(drop),
            Self::AesEcb => key.encrypt(AesEcb, TEXT).wait().map(drop),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_used_for_what_it_may_do() {
        let all = ["sign", "verify", "encrypt", "decrypt"];
        for (kind, way) in [
            ("EC P-256", Some(Way::Ecdsa(Ecdsa::P256_SHA256))),
            ("EC P-521", Some(Way::Ecdsa(Ecdsa::P521_SHA512))),
            ("Ed25519", Some(Way::Ed25519)),
            ("RSA-2048", Some(Way::RsaPkcs1)),
            ("HMAC-256", Some(Way::Hmac)),
            ("AES-256", Some(Way::AesEcb)),
            ("3DES-168", None),
            ("other", None),
        ] {
            assert_eq!(Way::of_kind(kind, &all), way, "{kind}");
        }
        assert_eq!(Way::of_kind("RSA-2048", &["decrypt"]), None);
        assert_eq!(Way::of_kind("AES-256", &["sign"]), None);
        assert_eq!(TEXT.len(), 16);
    }
}
