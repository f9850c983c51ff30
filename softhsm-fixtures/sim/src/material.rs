//! The material behind the keys, for tests that check outputs by other software.
//!
//! Everything derives from the seed (`seed=`, 0 by default), the label and the variant, except RSA keys: those
//! are fixed, for to find primes takes seconds. All of it is public and protects nothing.

use sha2::{Digest, Sha256, Sha384, Sha512};

use crate::key::Kind;

/// A fixed RSA key pair for tests, as a PKCS#1 `RSAPrivateKey` in DER.
#[derive(Clone, Copy, Debug)]
pub struct TestRsaKey {
    pub(crate) der: &'static [u8],
}

/// RSA keys of 2048 bits: the one with label `rsa2048`, then those that `C_GenerateKeyPair` gives out in turn.
pub const RSA_2048: [TestRsaKey; 4] = [
    TestRsaKey { der: include_bytes!("../keys/test-rsa2048-0.der") },
    TestRsaKey { der: include_bytes!("../keys/test-rsa2048-1.der") },
    TestRsaKey { der: include_bytes!("../keys/test-rsa2048-2.der") },
    TestRsaKey { der: include_bytes!("../keys/test-rsa2048-3.der") },
];

/// RSA keys of 4096 bits: the one with label `rsa4096`, then that of `C_GenerateKeyPair`.
pub const RSA_4096: [TestRsaKey; 2] = [
    TestRsaKey { der: include_bytes!("../keys/test-rsa4096-0.der") },
    TestRsaKey { der: include_bytes!("../keys/test-rsa4096-1.der") },
];

impl TestRsaKey {
    /// The key pair as a PKCS#1 `RSAPrivateKey` in DER.
    #[must_use]
    pub const fn pkcs1_der(self) -> &'static [u8] {
        self.der
    }
}

/// The AES-256 key of this label and variant; the one that all tokens hold is `aes256`, variant 0.
#[must_use]
pub fn aes(seed: u64, label: &str, variant: u64) -> [u8; 32] {
    derived::<Sha256>(seed, Kind::Aes, label, variant, 0).into()
}

/// The HMAC key of this label and variant; the one that all tokens hold is `hmac`, variant 0.
#[must_use]
pub fn hmac(seed: u64, label: &str, variant: u64) -> [u8; 32] {
    derived::<Sha256>(seed, Kind::Hmac, label, variant, 0).into()
}

/// The P-256 key of this label and variant; the one that all tokens hold is `p256`, variant 0.
///
/// # Panics
/// Never: a hash that is no scalar of the curve is followed by another try.
#[must_use]
#[expect(clippy::expect_used, reason = "one of 2^32 candidates is out of range, and a hundred are tried")]
pub fn p256(seed: u64, label: &str, variant: u64) -> p256::ecdsa::SigningKey {
    let candidate = |attempt| {
        p256::ecdsa::SigningKey::from_slice(&derived::<Sha256>(seed, Kind::P256, label, variant, attempt))
            .ok()
    };
    (0..100).find_map(candidate).expect("a scalar in range")
}

/// The P-384 key of this label and variant; the one that all tokens hold is `p384`, variant 0.
///
/// # Panics
/// Never: a hash that is no scalar of the curve is followed by another try.
#[must_use]
#[expect(clippy::expect_used, reason = "hardly any candidate is out of range, and a hundred are tried")]
pub fn p384(seed: u64, label: &str, variant: u64) -> p384::ecdsa::SigningKey {
    let candidate = |attempt| {
        p384::ecdsa::SigningKey::from_slice(&derived::<Sha384>(seed, Kind::P384, label, variant, attempt))
            .ok()
    };
    (0..100).find_map(candidate).expect("a scalar in range")
}

/// The P-521 key of this label and variant.
///
/// # Panics
/// Never: a hash is shorter than a scalar, and zero is followed by another try.
#[must_use]
#[expect(clippy::expect_used, reason = "no candidate but zero is out of range, and a hundred are tried")]
pub fn p521(seed: u64, label: &str, variant: u64) -> p521::ecdsa::SigningKey {
    let candidate = |attempt| {
        let mut scalar = [0; 66];
        // 512 of 521 bits: enough for a key that protects nothing.
        scalar[2..].copy_from_slice(&derived::<Sha512>(seed, Kind::P521, label, variant, attempt));
        p521::ecdsa::SigningKey::from_slice(&scalar).ok()
    };
    (0..100).find_map(candidate).expect("a scalar in range")
}

/// The Ed25519 key of this label and variant.
#[must_use]
pub fn ed25519(seed: u64, label: &str, variant: u64) -> ed25519_dalek::SigningKey {
    let secret: [u8; 32] = derived::<Sha256>(seed, Kind::Ed25519, label, variant, 0).into();
    ed25519_dalek::SigningKey::from_bytes(&secret)
}

/// The triple DES key of this label and variant, of three parts and with their parity.
#[must_use]
pub fn triple_des(seed: u64, label: &str, variant: u64) -> [u8; 24] {
    let mut key = [0; 24];
    key.copy_from_slice(&derived::<Sha256>(seed, Kind::TripleDes, label, variant, 0)[..24]);
    set_parity(&mut key);
    key
}

/// Makes the number of ones odd in each byte (SP 800-67, 3.1): the lowest bit is for that.
pub(crate) fn set_parity(key: &mut [u8]) {
    key.iter_mut().for_each(|byte| *byte ^= u8::from(byte.count_ones().is_multiple_of(2)));
}

fn derived<D: Digest>(
    seed: u64,
    kind: Kind,
    label: &str,
    variant: u64,
    attempt: u32,
) -> sha2::digest::Output<D> {
    let mut hash = D::new();
    hash.update(b"p11-sim test key");
    hash.update(kind.name());
    hash.update([0]);
    hash.update(seed.to_be_bytes());
    hash.update(variant.to_be_bytes());
    hash.update(attempt.to_be_bytes());
    hash.update(label);
    hash.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seed_label_and_variant_each_change_the_key() {
        let keys = [aes(0, "a", 0), aes(1, "a", 0), aes(0, "b", 0), aes(0, "a", 1), hmac(0, "a", 0)];
        for (i, key) in keys.iter().enumerate() {
            assert!(!keys[..i].contains(key), "key {i} is not new");
        }
        assert_eq!(aes(0, "a", 0), keys[0]);
    }
}
