//! Curves, as `CKA_EC_PARAMS` names them.

use super::Kind;

/// The curves' object identifiers in DER (RFC 5480, 2.1.1.1).
const P256_OID: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384_OID: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];
const P521_OID: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23];

/// That of Ed25519 (RFC 8410, 3), and its name (PKCS#11 3.0, 2.3.10).
const ED25519_OID: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x70];
const ED25519_NAME: &[u8] = b"\x13\x0cedwards25519";

/// The kind of key on the curve that an identifier names.
pub(crate) fn on_curve(params: &[u8]) -> Option<Kind> {
    match params {
        P256_OID => Some(Kind::P256),
        P384_OID => Some(Kind::P384),
        P521_OID => Some(Kind::P521),
        ED25519_OID | ED25519_NAME => Some(Kind::Ed25519),
        _ => None,
    }
}

/// The identifier of the curve of such keys; nothing for keys on none.
pub(super) const fn curve_of(kind: Kind) -> &'static [u8] {
    match kind {
        Kind::P256 => P256_OID,
        Kind::P384 => P384_OID,
        Kind::P521 => P521_OID,
        Kind::Ed25519 => ED25519_OID,
        Kind::Aes | Kind::Hmac | Kind::TripleDes | Kind::Rsa2048 | Kind::Rsa4096 => &[],
    }
}
