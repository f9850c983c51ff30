//! Keys: their kinds and the material that an object holds.

mod curve;
mod public;
mod rsa;

use std::sync::Arc;

use cryptoki_sys as sys;

use crate::material;
use crate::object::Attributes;
use curve::curve_of;

pub(crate) use self::rsa::{RsaKey, RsaPublicKey, generated_rsa};
pub(crate) use curve::on_curve;
pub(crate) use public::PublicKey;

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

/// What a key object computes with.
#[derive(Clone)]
pub(crate) enum Key {
    Aes(Arc<[u8]>),
    Mac(Arc<[u8]>),
    TripleDes(Arc<[u8]>),
    P256(Arc<p256::ecdsa::SigningKey>),
    P384(Arc<p384::ecdsa::SigningKey>),
    P521(Arc<p521::ecdsa::SigningKey>),
    Ed25519(Arc<ed25519_dalek::SigningKey>),
    Rsa(Arc<RsaKey>),
    Public(PublicKey),
}

/// Sizes of a secret key for MACs, in bytes.
const MAC_KEY_LEN: std::ops::RangeInclusive<usize> = 16..=512;

/// Keys for HMAC with one hash.
pub(crate) const HMAC_TYPES: [sys::CK_KEY_TYPE; 3] =
    [sys::CKK_SHA256_HMAC, sys::CKK_SHA384_HMAC, sys::CKK_SHA512_HMAC];

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
            Kind::Rsa2048 => Self::Rsa(rsa::rsa_2048(variant)),
            Kind::Rsa4096 => Self::Rsa(rsa::rsa_4096(variant)),
        }
    }

    /// The secret key of this type and value.
    pub(crate) fn secret(key_type: sys::CK_KEY_TYPE, value: &[u8]) -> Result<Self, sys::CK_RV> {
        let macs = |kind| kind == sys::CKK_GENERIC_SECRET || HMAC_TYPES.contains(&kind);
        match key_type {
            sys::CKK_AES if matches!(value.len(), 16 | 24 | 32) => Ok(Self::Aes(value.into())),
            sys::CKK_DES3 if value.len() == 24 => Ok(Self::TripleDes(value.into())),
            kind if macs(kind) && MAC_KEY_LEN.contains(&value.len()) => Ok(Self::Mac(value.into())),
            _ => Err(sys::CKR_ATTRIBUTE_VALUE_INVALID),
        }
    }

    /// The private key that the attributes tell.
    pub(crate) fn private_from_attributes(attributes: &Attributes) -> Result<Self, sys::CK_RV> {
        let wrong = sys::CKR_ATTRIBUTE_VALUE_INVALID;
        let Some(curve) = attributes.get(sys::CKA_EC_PARAMS) else {
            return RsaKey::from_attributes(attributes).map(Self::Rsa);
        };
        let value = attributes.get(sys::CKA_VALUE).ok_or(sys::CKR_TEMPLATE_INCOMPLETE)?;
        let key = match on_curve(curve).ok_or(sys::CKR_CURVE_NOT_SUPPORTED)? {
            Kind::P256 => p256::ecdsa::SigningKey::from_slice(value).ok().map(|key| Self::P256(key.into())),
            Kind::P384 => p384::ecdsa::SigningKey::from_slice(value).ok().map(|key| Self::P384(key.into())),
            Kind::P521 => p521::ecdsa::SigningKey::from_slice(value).ok().map(|key| Self::P521(key.into())),
            _ => value
                .try_into()
                .ok()
                .map(|value| Self::Ed25519(ed25519_dalek::SigningKey::from_bytes(value).into())),
        };
        key.ok_or(wrong)
    }

    /// The attributes that tell a private or secret key.
    pub(crate) fn attributes(&self) -> Vec<(sys::CK_ATTRIBUTE_TYPE, Vec<u8>)> {
        let on_curve = |kind, value: &[u8]| {
            vec![(sys::CKA_EC_PARAMS, curve_of(kind).to_vec()), (sys::CKA_VALUE, value.to_vec())]
        };
        match self {
            Self::Aes(value) | Self::Mac(value) => {
                let len = value.len() as u64;
                vec![(sys::CKA_VALUE, value.to_vec()), (sys::CKA_VALUE_LEN, len.to_ne_bytes().to_vec())]
            }
            // PKCS#11 2.40, mechanisms 2.15.2: keys of triple DES have no CKA_VALUE_LEN.
            Self::TripleDes(value) => vec![(sys::CKA_VALUE, value.to_vec())],
            Self::P256(key) => on_curve(Kind::P256, &key.to_bytes()),
            Self::P384(key) => on_curve(Kind::P384, &key.to_bytes()),
            Self::P521(key) => on_curve(Kind::P521, &key.to_bytes()),
            Self::Ed25519(key) => on_curve(Kind::Ed25519, key.as_bytes()),
            Self::Rsa(key) => key.numbers(),
            Self::Public(key) => key.attributes(),
        }
    }

    /// The public half of a pair; none of a secret key.
    pub(crate) fn public(&self) -> Option<PublicKey> {
        Some(match self {
            Self::Aes(_) | Self::Mac(_) | Self::TripleDes(_) => return None,
            Self::P256(key) => PublicKey::P256((*key.verifying_key()).into()),
            Self::P384(key) => PublicKey::P384((*key.verifying_key()).into()),
            Self::P521(key) => PublicKey::P521((*key.verifying_key()).into()),
            Self::Ed25519(key) => PublicKey::Ed25519(key.verifying_key().into()),
            Self::Rsa(key) => PublicKey::Rsa(key.public().into()),
            Self::Public(key) => key.clone(),
        })
    }

    pub(crate) const fn class(&self) -> sys::CK_OBJECT_CLASS {
        match self {
            Self::Aes(_) | Self::Mac(_) | Self::TripleDes(_) => sys::CKO_SECRET_KEY,
            Self::P256(_) | Self::P384(_) | Self::P521(_) | Self::Ed25519(_) | Self::Rsa(_) => {
                sys::CKO_PRIVATE_KEY
            }
            Self::Public(_) => sys::CKO_PUBLIC_KEY,
        }
    }

    /// Length of a signature in bytes, and of a block of RSA; 0 for a secret key, where the mechanism says it.
    pub(crate) fn signature_len(&self) -> usize {
        match self {
            Self::Aes(_) | Self::Mac(_) | Self::TripleDes(_) => 0,
            Self::P256(_) | Self::Ed25519(_) => 64,
            Self::P384(_) => 96,
            Self::P521(_) => 132,
            Self::Rsa(key) => key.len(),
            Self::Public(key) => key.signature_len(),
        }
    }

    pub(crate) const fn key_type(&self) -> sys::CK_KEY_TYPE {
        match self {
            Self::Aes(_) => sys::CKK_AES,
            Self::Mac(_) => sys::CKK_GENERIC_SECRET,
            Self::TripleDes(_) => sys::CKK_DES3,
            Self::P256(_) | Self::P384(_) | Self::P521(_) => sys::CKK_EC,
            Self::Ed25519(_) => sys::CKK_EC_EDWARDS,
            Self::Rsa(_) => sys::CKK_RSA,
            Self::Public(key) => key.key_type(),
        }
    }
}

/// Says what kind of key it is and nothing of its material.
impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("key_type", &self.key_type()).finish_non_exhaustive()
    }
}
