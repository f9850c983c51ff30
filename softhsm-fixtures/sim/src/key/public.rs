//! Public keys.

use std::sync::Arc;

use cryptoki_sys as sys;
use rsa::pkcs8::der::Decode;
use rsa::pkcs8::der::asn1::OctetStringRef;

use super::curve::curve_of;
use super::rsa::RsaPublicKey;
use super::{Kind, on_curve};
use crate::object::Attributes;

/// The public half of a pair, whether the token has the other half or not.
#[derive(Clone)]
pub(crate) enum PublicKey {
    P256(Arc<p256::ecdsa::VerifyingKey>),
    P384(Arc<p384::ecdsa::VerifyingKey>),
    P521(Arc<p521::ecdsa::VerifyingKey>),
    Ed25519(Arc<ed25519_dalek::VerifyingKey>),
    Rsa(Arc<RsaPublicKey>),
}

impl PublicKey {
    /// The key of this type that the attributes tell.
    pub(crate) fn from_attributes(
        key_type: sys::CK_KEY_TYPE,
        attributes: &Attributes,
    ) -> Result<Self, sys::CK_RV> {
        let needed = |kind| attributes.get(kind).ok_or(sys::CKR_TEMPLATE_INCOMPLETE);
        match key_type {
            sys::CKK_RSA => {
                let key = RsaPublicKey::new(needed(sys::CKA_MODULUS)?, needed(sys::CKA_PUBLIC_EXPONENT)?)?;
                Ok(Self::Rsa(Arc::new(key)))
            }
            sys::CKK_EC | sys::CKK_EC_EDWARDS => {
                let kind = on_curve(needed(sys::CKA_EC_PARAMS)?).ok_or(sys::CKR_CURVE_NOT_SUPPORTED)?;
                let key = Self::from_point(kind, needed(sys::CKA_EC_POINT)?)?;
                if key.key_type() == key_type { Ok(key) } else { Err(sys::CKR_TEMPLATE_INCONSISTENT) }
            }
            _ => Err(sys::CKR_ATTRIBUTE_VALUE_INVALID),
        }
    }

    pub(crate) const fn key_type(&self) -> sys::CK_KEY_TYPE {
        match self {
            Self::P256(_) | Self::P384(_) | Self::P521(_) => sys::CKK_EC,
            Self::Ed25519(_) => sys::CKK_EC_EDWARDS,
            Self::Rsa(_) => sys::CKK_RSA,
        }
    }

    /// Length of a signature in bytes.
    pub(crate) fn signature_len(&self) -> usize {
        match self {
            Self::P256(_) | Self::Ed25519(_) => 64,
            Self::P384(_) => 96,
            Self::P521(_) => 132,
            Self::Rsa(key) => key.len(),
        }
    }

    /// The attributes that tell it.
    pub(crate) fn attributes(&self) -> Vec<(sys::CK_ATTRIBUTE_TYPE, Vec<u8>)> {
        let (kind, point) = match self {
            Self::P256(key) => (Kind::P256, key.to_sec1_point(false).as_bytes().to_vec()),
            Self::P384(key) => (Kind::P384, key.to_sec1_point(false).as_bytes().to_vec()),
            Self::P521(key) => (Kind::P521, key.to_sec1_point(false).as_bytes().to_vec()),
            Self::Ed25519(key) => (Kind::Ed25519, key.as_bytes().to_vec()),
            Self::Rsa(key) => {
                let bits = key.len() as u64 * 8;
                return vec![
                    (sys::CKA_MODULUS, key.modulus().to_vec()),
                    (sys::CKA_PUBLIC_EXPONENT, key.exponent().to_vec()),
                    (sys::CKA_MODULUS_BITS, bits.to_ne_bytes().to_vec()),
                ];
            }
        };
        vec![(sys::CKA_EC_PARAMS, curve_of(kind).to_vec()), (sys::CKA_EC_POINT, wrapped(&point))]
    }

    /// `CKA_EC_POINT` is a DER OCTET STRING around the point (PKCS#11 2.40 curves, 2.3.3).
    fn from_point(kind: Kind, point: &[u8]) -> Result<Self, sys::CK_RV> {
        let point = <&OctetStringRef>::from_der(point).map_err(|_| sys::CKR_ATTRIBUTE_VALUE_INVALID)?;
        let point = point.as_bytes();
        let key = match kind {
            Kind::P256 => {
                p256::ecdsa::VerifyingKey::from_sec1_bytes(point).ok().map(|key| Self::P256(key.into()))
            }
            Kind::P384 => {
                p384::ecdsa::VerifyingKey::from_sec1_bytes(point).ok().map(|key| Self::P384(key.into()))
            }
            Kind::P521 => {
                p521::ecdsa::VerifyingKey::from_sec1_bytes(point).ok().map(|key| Self::P521(key.into()))
            }
            Kind::Ed25519 => {
                let key = point.try_into().ok().map(ed25519_dalek::VerifyingKey::from_bytes);
                key.and_then(Result::ok).map(|key| Self::Ed25519(key.into()))
            }
            Kind::Aes | Kind::Hmac | Kind::TripleDes | Kind::Rsa2048 | Kind::Rsa4096 => None,
        };
        key.ok_or(sys::CKR_ATTRIBUTE_VALUE_INVALID)
    }
}

/// A DER OCTET STRING around a point.
fn wrapped(point: &[u8]) -> Vec<u8> {
    // 32, 65 and 97 bytes: the length takes one byte; 133: it takes two (X.690, 8.1.3).
    let mut wrapped = vec![0x04];
    if point.len() > 127 {
        wrapped.push(0x81);
    }
    wrapped.push(u8::try_from(point.len()).unwrap_or(0));
    wrapped.extend_from_slice(point);
    wrapped
}
