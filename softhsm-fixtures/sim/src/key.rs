//! Keys: their kinds and the material that an object holds.

use std::sync::{Arc, OnceLock};

use cryptoki_sys as sys;
use rsa::pkcs1::der::Decode;
use rsa::pkcs1::{DecodeRsaPrivateKey, RsaPrivateKeyRef};

use crate::material::{self, RSA_2048, RSA_4096};

/// The kinds of key that a token can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Aes,
    Hmac,
    P256,
    P384,
    P521,
    Ed25519,
    TripleDes,
    Rsa2048,
    Rsa4096,
}

/// What a key is for, where the kind alone does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// AES keys: MACs.
    Mac,
    /// AES keys: wrapping.
    Wrap,
    /// RSA keys: decryption.
    Decrypt,
    /// Keys on curves: key agreement.
    Agree,
}

/// What an object computes with. The public object of a pair holds the pair too: its flags keep it from signing.
#[derive(Clone)]
pub(crate) enum Key {
    Aes(Arc<[u8]>),
    Mac(Arc<[u8]>),
    P256(Arc<p256::ecdsa::SigningKey>),
    P384(Arc<p384::ecdsa::SigningKey>),
    P521(Arc<p521::ecdsa::SigningKey>),
    Ed25519(Arc<ed25519_dalek::SigningKey>),
    TripleDes(Arc<[u8]>),
    Rsa(&'static RsaKey),
}

/// One of the fixed RSA keys; its numbers are read when first used.
pub(crate) struct RsaKey {
    bits: u32,
    der: &'static [u8],
    parsed: OnceLock<Result<rsa::PrivateKey, sys::CK_RV>>,
}

impl Kind {
    pub(crate) const ALL: [Self; 9] = [
        Self::Aes,
        Self::Hmac,
        Self::P256,
        Self::P384,
        Self::P521,
        Self::Ed25519,
        Self::TripleDes,
        Self::Rsa2048,
        Self::Rsa4096,
    ];

    /// Those of which every token holds a key.
    pub(crate) const STOCK: [Self; 6] =
        [Self::Aes, Self::Hmac, Self::P256, Self::P384, Self::Rsa2048, Self::Rsa4096];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Aes => "aes",
            Self::Hmac => "hmac",
            Self::P256 => "p256",
            Self::P384 => "p384",
            Self::P521 => "p521",
            Self::Ed25519 => "ed25519",
            Self::TripleDes => "des3",
            Self::Rsa2048 => "rsa2048",
            Self::Rsa4096 => "rsa4096",
        }
    }

    /// The label of the key of this kind that every token holds.
    pub(crate) const fn stock_label(self) -> &'static str {
        match self {
            Self::Aes => "aes256",
            other => other.name(),
        }
    }

    pub(crate) fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Whether it is a pair of keys.
    pub(crate) const fn is_pair(self) -> bool {
        !matches!(self, Self::Aes | Self::Hmac | Self::TripleDes)
    }

    /// Whether a key of this kind can be for that alone.
    pub(crate) const fn can_be_for(self, usage: Use) -> bool {
        match usage {
            Use::Mac => matches!(self, Self::Aes | Self::TripleDes),
            Use::Wrap => matches!(self, Self::Aes),
            Use::Decrypt => matches!(self, Self::Rsa2048 | Self::Rsa4096),
            Use::Agree => matches!(self, Self::P256 | Self::P384 | Self::P521),
        }
    }
}

impl Use {
    pub(crate) fn by_name(name: &str) -> Option<Self> {
        match name {
            "mac" => Some(Self::Mac),
            "wrap" => Some(Self::Wrap),
            "decrypt" => Some(Self::Decrypt),
            "agree" => Some(Self::Agree),
            _ => None,
        }
    }

    /// The attributes that allow it, for both halves of a pair.
    pub(crate) const fn attributes(self) -> [sys::CK_ATTRIBUTE_TYPE; 2] {
        match self {
            Self::Mac => [sys::CKA_SIGN, sys::CKA_VERIFY],
            Self::Wrap => [sys::CKA_WRAP, sys::CKA_UNWRAP],
            Self::Decrypt => [sys::CKA_ENCRYPT, sys::CKA_DECRYPT],
            Self::Agree => [sys::CKA_DERIVE, sys::CKA_DERIVE],
        }
    }
}

impl Key {
    /// The key of this kind, label and variant; RSA keys know the variant only.
    pub(crate) fn derive(kind: Kind, seed: u64, label: &str, variant: u64) -> Self {
        match kind {
            Kind::Aes => Self::Aes(material::aes(seed, label, variant).into()),
            Kind::Hmac => Self::Mac(material::hmac(seed, label, variant).into()),
            Kind::P256 => Self::P256(material::p256(seed, label, variant).into()),
            Kind::P384 => Self::P384(material::p384(seed, label, variant).into()),
            Kind::P521 => Self::P521(material::p521(seed, label, variant).into()),
            Kind::Ed25519 => Self::Ed25519(material::ed25519(seed, label, variant).into()),
            Kind::TripleDes => Self::TripleDes(material::triple_des(seed, label, variant).into()),
            Kind::Rsa2048 => Self::Rsa(pick(&KEYS_2048, variant)),
            Kind::Rsa4096 => Self::Rsa(pick(&KEYS_4096, variant)),
        }
    }

    /// Length of a signature in bytes, and of a block of RSA; 0 for a secret key, where the mechanism says it.
    pub(crate) const fn signature_len(&self) -> usize {
        match self {
            Self::Aes(_) | Self::Mac(_) | Self::TripleDes(_) => 0,
            Self::P256(_) | Self::Ed25519(_) => 64,
            Self::P384(_) => 96,
            Self::P521(_) => 132,
            Self::Rsa(key) => key.len(),
        }
    }

    pub(crate) const fn key_type(&self) -> sys::CK_KEY_TYPE {
        match self {
            Self::Aes(_) => sys::CKK_AES,
            Self::Mac(_) => sys::CKK_GENERIC_SECRET,
            Self::P256(_) | Self::P384(_) | Self::P521(_) => sys::CKK_EC,
            Self::Ed25519(_) => sys::CKK_EC_EDWARDS,
            Self::TripleDes(_) => sys::CKK_DES3,
            Self::Rsa(_) => sys::CKK_RSA,
        }
    }
}

/// Says what kind of key it is and nothing of its material.
impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("key_type", &self.key_type()).finish_non_exhaustive()
    }
}

impl RsaKey {
    pub(crate) const fn bits(&self) -> u32 {
        self.bits
    }

    /// Length of the modulus in bytes.
    pub(crate) const fn len(&self) -> usize {
        (self.bits / 8) as usize
    }

    /// The key, checked and prepared for use, which takes a while the first time.
    pub(crate) fn private(&self) -> Result<&rsa::PrivateKey, sys::CK_RV> {
        let parse = || rsa::PrivateKey::from_pkcs1_der(self.der).map_err(|_| sys::CKR_DEVICE_ERROR);
        self.parsed.get_or_init(parse).as_ref().map_err(|&code| code)
    }

    /// Modulus, public and private exponent, big-endian without leading zeros, read without preparing the key.
    pub(crate) fn numbers(&self) -> [Vec<u8>; 3] {
        let numbers = RsaPrivateKeyRef::from_der(self.der);
        debug_assert!(numbers.is_ok(), "a fixed key is sound");
        numbers.map_or_else(
            |_| Default::default(),
            |key| {
                [key.modulus, key.public_exponent, key.private_exponent]
                    .map(|number| number.as_bytes().to_vec())
            },
        )
    }
}

/// The key that `C_GenerateKeyPair` gives out as the `count`th of its size: never that of the stock.
pub(crate) fn generated_rsa(bits: u64, count: u64) -> Option<&'static RsaKey> {
    let keys: &'static [RsaKey] = match bits {
        2_048 => &KEYS_2048[1..],
        4_096 => &KEYS_4096[1..],
        _ => return None,
    };
    Some(pick(keys, count))
}

fn pick(keys: &'static [RsaKey], number: u64) -> &'static RsaKey {
    let index = usize::try_from(number % keys.len() as u64).unwrap_or(0);
    &keys[index]
}

static KEYS_2048: [RsaKey; RSA_2048.len()] = [
    RsaKey { bits: 2_048, der: RSA_2048[0].der, parsed: OnceLock::new() },
    RsaKey { bits: 2_048, der: RSA_2048[1].der, parsed: OnceLock::new() },
    RsaKey { bits: 2_048, der: RSA_2048[2].der, parsed: OnceLock::new() },
    RsaKey { bits: 2_048, der: RSA_2048[3].der, parsed: OnceLock::new() },
];

static KEYS_4096: [RsaKey; RSA_4096.len()] = [
    RsaKey { bits: 4_096, der: RSA_4096[0].der, parsed: OnceLock::new() },
    RsaKey { bits: 4_096, der: RSA_4096[1].der, parsed: OnceLock::new() },
];

#[cfg(test)]
mod tests {
    use rsa::traits::PublicKeyParts;

    use super::*;

    #[test]
    fn every_fixed_rsa_key_is_sound_and_has_the_size_it_claims() {
        for key in KEYS_2048.iter().chain(&KEYS_4096) {
            let private = key.private().unwrap();
            private.validate().unwrap();
            let [modulus, exponent, _] = key.numbers();
            assert_eq!(modulus, private.n_bytes().to_vec());
            assert_eq!((modulus.len(), modulus[0] >> 7, exponent), (key.len(), 1, vec![1, 0, 1]));
        }
    }

    #[test]
    fn generated_rsa_keys_are_not_those_of_the_stock() {
        for count in 0..9 {
            assert!(!std::ptr::eq(generated_rsa(2_048, count).unwrap(), &raw const KEYS_2048[0]));
            assert!(!std::ptr::eq(generated_rsa(4_096, count).unwrap(), &raw const KEYS_4096[0]));
        }
        assert!(generated_rsa(3_072, 0).is_none());
    }
}
