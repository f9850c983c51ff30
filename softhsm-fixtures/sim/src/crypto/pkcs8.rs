//! Private keys as they are wrapped: PKCS#8 `PrivateKeyInfo` (PKCS#11 2.40 mechanisms, 2.7) around a PKCS#1
//! `RSAPrivateKey`, an `ECPrivateKey` (RFC 5915) or a `CurvePrivateKey` (RFC 8410, 7).

use cryptoki_sys as sys;
use rsa::pkcs1::ALGORITHM_ID as RSA;
use rsa::pkcs8::der::asn1::OctetStringRef;
use rsa::pkcs8::der::{Decode, Encode};
use rsa::pkcs8::spki::AlgorithmIdentifierRef;
use rsa::pkcs8::{self, EncodePrivateKey, ObjectIdentifier, PrivateKeyInfoRef};

use crate::key::{Key, RsaKey};

/// RFC 8410, 3.
const ED25519: AlgorithmIdentifierRef<'static> =
    AlgorithmIdentifierRef { oid: ObjectIdentifier::new_unwrap("1.3.101.112"), parameters: None };

/// A private key in DER; none of a key of another class.
pub(crate) fn encode(key: &Key) -> Option<Vec<u8>> {
    let document = match key {
        Key::P256(key) => key.to_pkcs8_der(),
        Key::P384(key) => key.to_pkcs8_der(),
        Key::P521(key) => key.to_pkcs8_der(),
        Key::Ed25519(key) => {
            let seed = OctetStringRef::new(key.as_bytes()).and_then(|seed| seed.to_der());
            seed.map_err(Into::into).and_then(|seed| info(ED25519, &seed))
        }
        Key::Rsa(key) => info(RSA, key.der()),
        Key::Aes(_) | Key::Mac(_) | Key::TripleDes(_) | Key::Public(_) => return None,
    };
    document.ok().map(|document| document.as_bytes().to_vec())
}

/// The private key of this type that is encoded so.
pub(crate) fn decode(key_type: sys::CK_KEY_TYPE, der: &[u8]) -> Result<Key, sys::CK_RV> {
    let wrong = sys::CKR_WRAPPED_KEY_INVALID;
    let info = PrivateKeyInfoRef::from_der(der).map_err(|_| wrong)?;
    let key = match key_type {
        sys::CKK_RSA if info.algorithm == RSA => {
            let key = RsaKey::from_der(info.private_key.as_bytes()).map_err(|_| wrong)?;
            key.private().map_err(|_| wrong)?;
            Some(Key::Rsa(key))
        }
        sys::CKK_EC => on_curve(&info),
        sys::CKK_EC_EDWARDS if info.algorithm == ED25519 => {
            let seed = <&OctetStringRef>::from_der(info.private_key.as_bytes()).map_err(|_| wrong)?;
            let key = seed.as_bytes().try_into().ok();
            key.map(|seed| Key::Ed25519(ed25519_dalek::SigningKey::from_bytes(seed).into()))
        }
        _ => None,
    };
    key.ok_or(wrong)
}

/// On the curve that the encoding names: only one of them takes it.
fn on_curve(info: &PrivateKeyInfoRef<'_>) -> Option<Key> {
    let p256 = || p256::ecdsa::SigningKey::try_from(info.clone()).ok().map(|key| Key::P256(key.into()));
    let p384 = || p384::ecdsa::SigningKey::try_from(info.clone()).ok().map(|key| Key::P384(key.into()));
    let p521 = || p521::ecdsa::SigningKey::try_from(info.clone()).ok().map(|key| Key::P521(key.into()));
    p256().or_else(p384).or_else(p521)
}

fn info(algorithm: AlgorithmIdentifierRef<'_>, private_key: &[u8]) -> pkcs8::Result<pkcs8::SecretDocument> {
    PrivateKeyInfoRef::new(algorithm, OctetStringRef::new(private_key)?).try_into()
}
