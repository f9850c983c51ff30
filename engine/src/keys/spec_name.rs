//! The names of key specs, as command lines, configurations and the catalogue write them.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind};
use crate::keys::generate::KeySpec;
use crate::token::facts::Curve;

/// A name and what it means. HMAC keys of other lengths than these have names of the same form.
static NAMES: &[(&str, KeySpec)] = &[
    ("rsa-2048", KeySpec::Rsa(2048)),
    ("rsa-3072", KeySpec::Rsa(3072)),
    ("rsa-4096", KeySpec::Rsa(4096)),
    ("rsa-2048-decryption", KeySpec::RsaDecryption(2048)),
    ("rsa-3072-decryption", KeySpec::RsaDecryption(3072)),
    ("rsa-4096-decryption", KeySpec::RsaDecryption(4096)),
    ("ec-p256", KeySpec::Ec(Curve::P256)),
    ("ec-p384", KeySpec::Ec(Curve::P384)),
    ("ec-p521", KeySpec::Ec(Curve::P521)),
    ("ec-p256-agreement", KeySpec::EcAgreement(Curve::P256)),
    ("ec-p384-agreement", KeySpec::EcAgreement(Curve::P384)),
    ("ec-p521-agreement", KeySpec::EcAgreement(Curve::P521)),
    ("ed25519", KeySpec::Ed25519),
    ("aes-128", KeySpec::Aes(16)),
    ("aes-192", KeySpec::Aes(24)),
    ("aes-256", KeySpec::Aes(32)),
    ("aes-128-mac", KeySpec::AesMac(16)),
    ("aes-192-mac", KeySpec::AesMac(24)),
    ("aes-256-mac", KeySpec::AesMac(32)),
    ("aes-128-wrap", KeySpec::AesWrap(16)),
    ("aes-192-wrap", KeySpec::AesWrap(24)),
    ("aes-256-wrap", KeySpec::AesWrap(32)),
    ("3des", KeySpec::TripleDes),
    ("hmac-256", KeySpec::Hmac(32)),
    ("hmac-384", KeySpec::Hmac(48)),
    ("hmac-512", KeySpec::Hmac(64)),
];

/// Lengths of HMAC keys in bytes. SP 800-107 revision 1, 5.3.4: a key of less than 112 bits has no approved strength; one that is
/// longer than the block of the longest hash is hashed first (RFC 2104, 3).
const HMAC_LENS: std::ops::RangeInclusive<u32> = 14..=128;

impl KeySpec {
    /// The names of the specs that are in common use; keys for HMAC may have any length from 14 to 128 bytes, as `hmac-160`.
    pub fn names() -> impl Iterator<Item = &'static str> + Clone + Send + Sync {
        NAMES.iter().map(|(name, _)| *name)
    }

    /// Whether a managed key may be made so.
    pub(crate) fn is_offered(self) -> bool {
        match self {
            Self::Hmac(len) => HMAC_LENS.contains(&len),
            spec => NAMES.iter().any(|(_, named)| *named == spec),
        }
    }
}

/// The name, as `ec-p256` or `aes-256-wrap`: sizes in bits, and the purpose where it is not the common one.
impl fmt::Display for KeySpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (NAMES.iter().find(|(_, spec)| spec == self), *self) {
            (Some((name, _)), _) => f.write_str(name),
            (None, Self::Hmac(len)) => write!(f, "hmac-{}", u64::from(len) * 8),
            (None, Self::Rsa(bits)) => write!(f, "rsa-{bits}"),
            (None, Self::RsaDecryption(bits)) => write!(f, "rsa-{bits}-decryption"),
            (None, Self::Aes(len)) => write!(f, "aes-{}", u64::from(len) * 8),
            (None, Self::AesMac(len)) => write!(f, "aes-{}-mac", u64::from(len) * 8),
            (None, Self::AesWrap(len)) => write!(f, "aes-{}-wrap", u64::from(len) * 8),
            (None, _) => f.write_str("unnamed"),
        }
    }
}

/// From its name; an unknown one is a `Configuration` error that lists those there are.
///
/// ```
/// use hsmux::{Curve, KeySpec};
///
/// let spec: KeySpec = "ec-p256".parse()?;
/// assert_eq!(spec, KeySpec::Ec(Curve::P256));
/// assert_eq!(spec.to_string(), "ec-p256");
/// # Ok::<(), hsmux::Error>(())
/// ```
impl FromStr for KeySpec {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let hmac = || {
            let bits: u32 = name.strip_prefix("hmac-")?.parse().ok()?;
            let spec = Self::Hmac(bits / 8);
            (bits.is_multiple_of(8) && spec.is_offered() && spec.to_string() == name).then_some(spec)
        };
        let named = NAMES.iter().find(|(known, _)| *known == name).map(|(_, spec)| *spec);
        named.or_else(hmac).ok_or_else(|| {
            let known = Self::names().collect::<Vec<_>>().join(", ");
            Error::operator(ErrorKind::Configuration, format!("no such kind of key; there are {known}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_means_one_spec_which_shows_it() {
        for (name, spec) in NAMES {
            assert_eq!((name.parse::<KeySpec>().unwrap(), spec.to_string().as_str()), (*spec, *name));
            assert!(spec.is_offered());
        }
        assert_eq!("hmac-160".parse::<KeySpec>().unwrap(), KeySpec::Hmac(20));
        assert_eq!(KeySpec::Hmac(20).to_string(), "hmac-160");
    }

    #[test]
    fn sizes_that_nobody_should_use_have_no_name() {
        for name in
            ["rsa-1024", "aes-64", "hmac-8", "hmac-0256", "hmac-257", "hmac-99999", "EC-P256", "", "des"]
        {
            assert_eq!(name.parse::<KeySpec>().unwrap_err().kind(), ErrorKind::Configuration, "{name}");
        }
        assert!(
            !KeySpec::Rsa(1024).is_offered()
                && !KeySpec::Aes(8).is_offered()
                && !KeySpec::Hmac(1).is_offered()
        );
    }
}
