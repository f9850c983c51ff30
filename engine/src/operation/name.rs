//! The algorithms by name, as configurations and command lines write them.
//!
//! A new algorithm is one line in one of the three tables.

use std::fmt;
use std::str::FromStr;

use super::algorithm::{
    AesCbc, AesCtr, AesEcb, AesGcm, Cipher, Cmac, Ecdsa, Hmac, RsaOaep, RsaPkcs1, RsaPkcs1Encryption, RsaPss,
    SignAlgorithm, TripleDesCbc, TripleDesEcb,
};
use crate::error::{Error, ErrorKind};
use crate::token::task::Hash;

/// A name, a shorter one that is understood too (empty if there is none), and what they mean.
type Row<T> = (&'static str, &'static str, T);

static SIGNATURES: &[Row<SignAlgorithm>] = &[
    ("ecdsa-p256-sha256", "ecdsa-p256", SignAlgorithm::Ecdsa(Ecdsa::P256_SHA256)),
    ("ecdsa-p256-sha256-der", "ecdsa-p256-der", SignAlgorithm::Ecdsa(Ecdsa::P256_SHA256.der())),
    ("ecdsa-p256-sha384", "", SignAlgorithm::Ecdsa(Ecdsa::P256_SHA384)),
    ("ecdsa-p256-sha384-der", "", SignAlgorithm::Ecdsa(Ecdsa::P256_SHA384.der())),
    ("ecdsa-p256-sha512", "", SignAlgorithm::Ecdsa(Ecdsa::P256_SHA512)),
    ("ecdsa-p256-sha512-der", "", SignAlgorithm::Ecdsa(Ecdsa::P256_SHA512.der())),
    ("ecdsa-p384-sha256", "", SignAlgorithm::Ecdsa(Ecdsa::P384_SHA256)),
    ("ecdsa-p384-sha256-der", "", SignAlgorithm::Ecdsa(Ecdsa::P384_SHA256.der())),
    ("ecdsa-p384-sha384", "ecdsa-p384", SignAlgorithm::Ecdsa(Ecdsa::P384_SHA384)),
    ("ecdsa-p384-sha384-der", "ecdsa-p384-der", SignAlgorithm::Ecdsa(Ecdsa::P384_SHA384.der())),
    ("ecdsa-p384-sha512", "", SignAlgorithm::Ecdsa(Ecdsa::P384_SHA512)),
    ("ecdsa-p384-sha512-der", "", SignAlgorithm::Ecdsa(Ecdsa::P384_SHA512.der())),
    ("ecdsa-p521-sha256", "", SignAlgorithm::Ecdsa(Ecdsa::P521_SHA256)),
    ("ecdsa-p521-sha256-der", "", SignAlgorithm::Ecdsa(Ecdsa::P521_SHA256.der())),
    ("ecdsa-p521-sha384", "", SignAlgorithm::Ecdsa(Ecdsa::P521_SHA384)),
    ("ecdsa-p521-sha384-der", "", SignAlgorithm::Ecdsa(Ecdsa::P521_SHA384.der())),
    ("ecdsa-p521-sha512", "ecdsa-p521", SignAlgorithm::Ecdsa(Ecdsa::P521_SHA512)),
    ("ecdsa-p521-sha512-der", "ecdsa-p521-der", SignAlgorithm::Ecdsa(Ecdsa::P521_SHA512.der())),
    ("ed25519", "", SignAlgorithm::Ed25519),
    ("rsa-pkcs1-sha256", "", SignAlgorithm::RsaPkcs1(RsaPkcs1::SHA256)),
    ("rsa-pkcs1-sha384", "", SignAlgorithm::RsaPkcs1(RsaPkcs1::SHA384)),
    ("rsa-pkcs1-sha512", "", SignAlgorithm::RsaPkcs1(RsaPkcs1::SHA512)),
    ("rsa-pss-sha256", "", SignAlgorithm::RsaPss(RsaPss::SHA256)),
    ("rsa-pss-sha384", "", SignAlgorithm::RsaPss(RsaPss::SHA384)),
    ("rsa-pss-sha512", "", SignAlgorithm::RsaPss(RsaPss::SHA512)),
];

static MACS: &[Row<SignAlgorithm>] = &[
    ("hmac-sha256", "", SignAlgorithm::Hmac(Hmac::SHA256)),
    ("hmac-sha384", "", SignAlgorithm::Hmac(Hmac::SHA384)),
    ("hmac-sha512", "", SignAlgorithm::Hmac(Hmac::SHA512)),
    ("aes-cmac", "", SignAlgorithm::Cmac(Cmac::Aes)),
    ("3des-cmac", "", SignAlgorithm::Cmac(Cmac::TripleDes)),
];

/// What a cipher's name means, and which ciphers bear it, whatever IV and additional data they carry.
type Named = (fn() -> Cipher, fn(&Cipher) -> bool);

static CIPHERS: &[Row<Named>] = &[
    ("aes-gcm", "", (|| AesGcm::new().into(), |cipher| matches!(cipher, Cipher::AesGcm(_)))),
    ("aes-ecb", "", (|| AesEcb.into(), |cipher| matches!(cipher, Cipher::AesEcb))),
    ("aes-cbc", "", (|| AesCbc::new().into(), |c| matches!(c, Cipher::AesCbc(AesCbc { padded: true, .. })))),
    (
        "aes-cbc-unpadded",
        "",
        (|| AesCbc::new().unpadded().into(), |c| matches!(c, Cipher::AesCbc(AesCbc { padded: false, .. }))),
    ),
    ("aes-ctr", "", (|| AesCtr::new().into(), |cipher| matches!(cipher, Cipher::AesCtr(_)))),
    ("3des-ecb", "", (|| TripleDesEcb.into(), |cipher| matches!(cipher, Cipher::TripleDesEcb))),
    (
        "3des-cbc",
        "",
        (
            || TripleDesCbc::new().into(),
            |c| matches!(c, Cipher::TripleDesCbc(TripleDesCbc { padded: true, .. })),
        ),
    ),
    (
        "3des-cbc-unpadded",
        "",
        (
            || TripleDesCbc::new().unpadded().into(),
            |c| matches!(c, Cipher::TripleDesCbc(TripleDesCbc { padded: false, .. })),
        ),
    ),
    ("rsa-oaep-sha1", "", (|| RsaOaep::SHA1.into(), |cipher| is_oaep(cipher, Hash::Sha1))),
    ("rsa-oaep-sha256", "rsa-oaep", (|| RsaOaep::SHA256.into(), |cipher| is_oaep(cipher, Hash::Sha256))),
    ("rsa-oaep-sha384", "", (|| RsaOaep::SHA384.into(), |cipher| is_oaep(cipher, Hash::Sha384))),
    ("rsa-oaep-sha512", "", (|| RsaOaep::SHA512.into(), |cipher| is_oaep(cipher, Hash::Sha512))),
    ("rsa-pkcs1", "", (|| RsaPkcs1Encryption.into(), |cipher| matches!(cipher, Cipher::RsaPkcs1))),
];

fn is_oaep(cipher: &Cipher, with: Hash) -> bool {
    matches!(cipher, Cipher::RsaOaep(RsaOaep { hash, .. }) if *hash == with)
}

impl SignAlgorithm {
    /// Whether it makes MACs: whoever can verify them can make them too.
    #[must_use]
    pub fn is_mac(&self) -> bool {
        matches!(self, Self::RetailMac(_)) || MACS.iter().any(|(.., mac)| mac == self)
    }

    /// The names of the algorithms that make signatures.
    pub fn signature_names() -> impl Iterator<Item = &'static str> + Clone + Send + Sync {
        names(SIGNATURES)
    }

    /// The names of the algorithms that make MACs.
    pub fn mac_names() -> impl Iterator<Item = &'static str> + Clone + Send + Sync {
        names(MACS)
    }
}

impl Cipher {
    /// The names of the ciphers.
    pub fn names() -> impl Iterator<Item = &'static str> + Clone + Send + Sync {
        names(CIPHERS)
    }
}

/// From its name, as `ecdsa-p256-sha256` or `hmac-sha256`; an unknown one is a `Configuration` error that lists
/// those there are.
///
/// ```
/// use hsmux::{Ecdsa, SignAlgorithm};
///
/// let algorithm: SignAlgorithm = "ecdsa-p256-sha256-der".parse()?;
/// assert_eq!(algorithm, Ecdsa::P256_SHA256.der().into());
/// assert_eq!(algorithm.to_string(), "ecdsa-p256-sha256-der");
/// # Ok::<(), hsmux::Error>(())
/// ```
impl FromStr for SignAlgorithm {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let found = find(SIGNATURES, name).or_else(|| find(MACS, name));
        found.cloned().ok_or_else(|| unknown(Self::signature_names().chain(Self::mac_names())))
    }
}

/// The name that [`FromStr`] takes.
impl fmt::Display for SignAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl SignAlgorithm {
    pub(crate) fn name(&self) -> &'static str {
        let row = SIGNATURES.iter().chain(MACS).find(|(.., algorithm)| algorithm == self);
        row.map_or_else(|| self.described(), |(name, ..)| name)
    }

    /// Of one that has no row, because a name does not say all of it.
    const fn described(&self) -> &'static str {
        match self {
            Self::RetailMac(_) => "retail-mac",
            Self::RsaPss(_) => "rsa-pss with a salt of another length",
            Self::Raw(_) => "raw",
            _ => UNNAMED,
        }
    }
}

/// From its name, as `aes-gcm`; an unknown one is a `Configuration` error that lists those there are.
impl FromStr for Cipher {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        find(CIPHERS, name).map(|(make, _)| make()).ok_or_else(|| unknown(Self::names()))
    }
}

/// The name that [`FromStr`] takes, without IV and additional data: those are payload.
impl fmt::Display for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Cipher {
    pub(crate) fn name(&self) -> &'static str {
        let row = CIPHERS.iter().find(|(.., (_, bears))| bears(self));
        let unnamed = if matches!(self, Self::Raw(_)) { "raw" } else { UNNAMED };
        row.map_or(unnamed, |(name, ..)| name)
    }
}

/// Of an algorithm that has no row: a mistake of ours, which a test finds.
const UNNAMED: &str = "unnamed";

fn names<T: Sync>(table: &'static [Row<T>]) -> impl Iterator<Item = &'static str> + Clone + Send + Sync {
    table.iter().map(|(name, ..)| *name)
}

fn find<T>(table: &'static [Row<T>], name: &str) -> Option<&'static T> {
    let named = |row: &&Row<T>| !name.is_empty() && (row.0 == name || row.1 == name);
    table.iter().find(named).map(|(.., meaning)| meaning)
}

fn unknown(known: impl Iterator<Item = &'static str>) -> Error {
    let known = known.collect::<Vec<_>>().join(", ");
    Error::operator(ErrorKind::Configuration, format!("no such algorithm; there are {known}"))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_name_means_one_algorithm_which_shows_it() {
        let signatures = SignAlgorithm::signature_names().map(|name| (name, false));
        for (name, is_mac) in signatures.chain(SignAlgorithm::mac_names().map(|name| (name, true))) {
            let algorithm: SignAlgorithm = name.parse().unwrap();
            assert_eq!((algorithm.to_string().as_str(), algorithm.is_mac()), (name, is_mac));
        }
        for name in Cipher::names() {
            assert_eq!(name.parse::<Cipher>().unwrap().to_string(), name);
        }
    }

    #[test]
    fn no_two_rows_share_a_name() {
        let signing = SIGNATURES.iter().chain(MACS).flat_map(|(name, short, _)| [*name, *short]);
        let all = signing.chain(CIPHERS.iter().flat_map(|(name, short, _)| [*name, *short]));
        let all: Vec<_> = all.filter(|name| !name.is_empty()).collect();
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len(), "{all:?}");
    }

    #[test]
    fn a_short_name_is_understood_and_not_shown() {
        let algorithm: SignAlgorithm = "ecdsa-p384".parse().unwrap();
        assert_eq!(algorithm, Ecdsa::P384_SHA384.into());
        assert_eq!(algorithm.to_string(), "ecdsa-p384-sha384");
    }

    #[test]
    fn a_cipher_shows_its_name_and_nothing_that_it_carries() {
        let cipher = Cipher::from(AesGcm::new().aad(b"account".as_slice()).with_iv([7; 12]));
        assert_eq!(cipher.to_string(), "aes-gcm");
    }

    #[test]
    fn an_unknown_name_is_refused_with_those_there_are() {
        for name in ["", "rot13", "ECDSA-P256", "aes-gcm "] {
            let error = name.parse::<SignAlgorithm>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration);
            assert!(error.to_string().contains("rsa-pss-sha256, ") && error.to_string().contains("hmac-"));
            assert!(name.parse::<Cipher>().unwrap_err().to_string().contains("aes-gcm, aes-ecb"));
        }
    }
}
