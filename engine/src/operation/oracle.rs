//! Keys and facts for the tests of this room, and software that signs with them in place of a token.

use std::sync::LazyLock;

use rsa::traits::PublicKeyParts;
use rsa::{BoxedUint, PrivateKey};

use crate::token::facts::{Curve, KeyFacts, KeyKind, PublicKey};

/// Facts of a key that may do everything and shows no public half.
pub(super) fn facts(kind: KeyKind) -> KeyFacts {
    KeyFacts {
        kind,
        sign: true,
        verify: true,
        encrypt: true,
        decrypt: true,
        derive: true,
        wrap: true,
        unwrap: true,
        allowed: None,
        always_authenticate: false,
        public: None,
    }
}

pub(super) fn aes() -> KeyFacts {
    facts(KeyKind::Aes { len: 32 })
}

pub(super) fn hmac() -> KeyFacts {
    facts(KeyKind::Generic { len: 32 })
}

pub(super) fn ec(curve: Curve) -> KeyFacts {
    let public = match curve {
        Curve::P256 => p256_public(),
        Curve::P384 => p384_public(),
        Curve::P521 => p521_public(),
    };
    KeyFacts { public: Some(public), ..facts(KeyKind::Ec(curve)) }
}

pub(super) fn triple_des() -> KeyFacts {
    facts(KeyKind::TripleDes { len: 24 })
}

pub(super) fn ed25519() -> KeyFacts {
    let public = PublicKey::Ed25519(ed25519_key().verifying_key().to_bytes());
    KeyFacts { public: Some(public), ..facts(KeyKind::Ed25519) }
}

pub(super) fn ed25519_key() -> ed25519_dalek::SigningKey {
    ed25519_dalek::SigningKey::from_bytes(&[0x5A; 32])
}

pub(super) fn rsa_2048() -> KeyFacts {
    KeyFacts { public: Some(rsa_public()), ..facts(KeyKind::Rsa { bits: 2048 }) }
}

pub(super) fn p256() -> p256::ecdsa::SigningKey {
    p256::ecdsa::SigningKey::from_slice(&[0x5A; 32]).unwrap()
}

pub(super) fn p384() -> p384::ecdsa::SigningKey {
    p384::ecdsa::SigningKey::from_slice(&[0x5A; 48]).unwrap()
}

pub(super) fn p521() -> p521::ecdsa::SigningKey {
    let mut scalar = [0x5A; 66];
    // Below the order, which has 521 bits.
    scalar[..2].copy_from_slice(&[0, 0x5A]);
    p521::ecdsa::SigningKey::from_slice(&scalar).unwrap()
}

/// A key of 2048 bits from two fixed primes: to find new ones for each run would take longer than all tests.
pub(super) fn rsa() -> &'static PrivateKey {
    static KEY: LazyLock<PrivateKey> = LazyLock::new(|| {
        let prime = |hex| BoxedUint::from_str_radix_vartime(hex, 16).unwrap();
        PrivateKey::from_p_q(prime(P), prime(Q), 65_537_u64.into()).unwrap()
    });
    &KEY
}

pub(super) fn p256_public() -> PublicKey {
    let point = p256().verifying_key().to_sec1_point(false).as_bytes().to_vec();
    PublicKey::Ec { curve: Curve::P256, point }
}

pub(super) fn p384_public() -> PublicKey {
    let point = p384().verifying_key().to_sec1_point(false).as_bytes().to_vec();
    PublicKey::Ec { curve: Curve::P384, point }
}

pub(super) fn p521_public() -> PublicKey {
    let point = p521().verifying_key().to_sec1_point(false).as_bytes().to_vec();
    PublicKey::Ec { curve: Curve::P521, point }
}

pub(super) fn rsa_public() -> PublicKey {
    let modulus = rsa().n_bytes().to_vec();
    let exponent = rsa().e_bytes().to_vec();
    PublicKey::Rsa { modulus, exponent }
}

/// Two primes of 1024 bits, made for these tests and used nowhere else.
const P: &str = concat!(
    "d16adf3fe41aff335cd0b5406a879921e7ac1716f9e2d378968a3441ebe45a32e8d68e43f1c937d072d4a6cc2e4b863d",
    "e3b0ac393b5e4f7986ff11eac3304ad4163f6d95a546dea1822832a8ce8be6d2968dab1504126ab5681eb29e6fd75570",
    "91d97b7e53f74269bf3d8768808921669c8af3b1e6b53156a05e835438479639",
);
const Q: &str = concat!(
    "eac91e1fcda8e531b1ca09006397197720fe3d3a9fbaa9abd8db4313c5d66a3f9f171e7af99899ea7831c0b7a99d8ff1",
    "1f657e48e8728d98a49759dfc8f4d38fd514ae7e21a9868d7bdaf0eb5f390ed7f59f6dc248cd446cdd8b2e9fe8588eb8",
    "b19d0f495678a9a19ef2f8154c293cf0b19ef886aabc218ef35d4523ec40378d",
);
