use proptest::prelude::*;
use rsa::rand_core::{Infallible, TryCryptoRng, TryRng};
use rsa::signature::{RandomizedSigner, SignatureEncoding, Signer};
use rsa::{pkcs1v15, pss};
use sha2::{Digest, Sha256, Sha384, Sha512};

use super::super::algorithm::{Ed25519, RsaOaep, RsaPkcs1, RsaPkcs1Encryption, RsaPss, SignAlgorithm};
use super::super::oracle;
use super::*;
use crate::error::ErrorKind;

const MESSAGE: &[u8] = b"pay 12.50 to the bearer";

/// Salts for PSS. They need not be secret here, only to be had.
struct Salt;

impl TryRng for Salt {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(0x5A5A_5A5A)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(0x5A5A_5A5A_5A5A_5A5A)
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        bytes.fill(0x5A);
        Ok(())
    }
}

impl TryCryptoRng for Salt {}

/// A signature by other software for every algorithm that the host verifies.
fn signed(message: &[u8]) -> Vec<(SignAlgorithm, KeyFacts, Vec<u8>)> {
    let p256: p256::ecdsa::Signature = oracle::p256().sign(message);
    let p384: p384::ecdsa::Signature = oracle::p384().sign(message);
    let prehashed = Sha256::digest(message);
    let p384_sha256: p384::ecdsa::Signature =
        p384::ecdsa::signature::hazmat::PrehashSigner::sign_prehash(&oracle::p384(), &prehashed).unwrap();
    let (of_p256, of_p384) = (oracle::ec(Curve::P256), oracle::ec(Curve::P384));
    let mut all = vec![
        (Ecdsa::P256_SHA256.into(), of_p256.clone(), p256.to_bytes().to_vec()),
        (Ecdsa::P256_SHA256.der().into(), of_p256, p256.to_der().as_bytes().to_vec()),
        (Ecdsa::P384_SHA384.into(), of_p384.clone(), p384.to_bytes().to_vec()),
        (Ecdsa::P384_SHA384.der().into(), of_p384.clone(), p384.to_der().as_bytes().to_vec()),
        (Ecdsa::P384_SHA256.into(), of_p384.clone(), p384_sha256.to_bytes().to_vec()),
        (Ecdsa::P384_SHA256.der().into(), of_p384, p384_sha256.to_der().as_bytes().to_vec()),
    ];
    all.extend(of_long_and_short_digests(message));
    let ed25519 = oracle::ed25519_key().sign(message).to_bytes().to_vec();
    all.push((Ed25519.into(), oracle::ed25519(), ed25519));
    let rsa = || oracle::rsa().clone();
    let pkcs1: [(RsaPkcs1, pkcs1v15::Signature); 3] = [
        (RsaPkcs1::SHA256, pkcs1v15::SigningKey::<Sha256>::new(rsa()).sign(message)),
        (RsaPkcs1::SHA384, pkcs1v15::SigningKey::<Sha384>::new(rsa()).sign(message)),
        (RsaPkcs1::SHA512, pkcs1v15::SigningKey::<Sha512>::new(rsa()).sign(message)),
    ];
    all.extend(pkcs1.map(|(algorithm, made)| (algorithm.into(), oracle::rsa_2048(), made.to_vec())));
    let pss: [(RsaPss, pss::Signature); 3] = [
        (RsaPss::SHA256, pss::SigningKey::<Sha256>::new(rsa()).sign_with_rng(&mut Salt, message)),
        (RsaPss::SHA384, pss::SigningKey::<Sha384>::new(rsa()).sign_with_rng(&mut Salt, message)),
        (RsaPss::SHA512, pss::SigningKey::<Sha512>::new(rsa()).sign_with_rng(&mut Salt, message)),
    ];
    all.extend(pss.map(|(algorithm, made)| (algorithm.into(), oracle::rsa_2048(), made.to_vec())));
    let unsalted = pss::SigningKey::<Sha256>::new_with_salt_len(rsa(), 0).sign_with_rng(&mut Salt, message);
    all.push((RsaPss::SHA256.salt_len(0).into(), oracle::rsa_2048(), unsalted.to_vec()));
    all
}

/// ECDSA with hashes of another length than the field.
fn of_long_and_short_digests(message: &[u8]) -> Vec<(SignAlgorithm, KeyFacts, Vec<u8>)> {
    use p521::ecdsa::signature::hazmat::PrehashSigner;
    let (sha256, sha384, sha512) =
        (Sha256::digest(message), Sha384::digest(message), Sha512::digest(message));
    let p256 = |digest: &[u8]| -> p256::ecdsa::Signature { oracle::p256().sign_prehash(digest).unwrap() };
    let p384 = |digest: &[u8]| -> p384::ecdsa::Signature { oracle::p384().sign_prehash(digest).unwrap() };
    let p521 = |digest: &[u8]| -> p521::ecdsa::Signature { oracle::p521().sign_prehash(digest).unwrap() };
    // That crate refuses the digest of SHA-256 for P-521; zeros in front make the same number.
    let whole = [&[0; 34][..], &sha256].concat();
    let of = oracle::ec;
    vec![
        (Ecdsa::P256_SHA384.into(), of(Curve::P256), p256(&sha384).to_bytes().to_vec()),
        (Ecdsa::P256_SHA512.der().into(), of(Curve::P256), p256(&sha512).to_der().as_bytes().to_vec()),
        (Ecdsa::P384_SHA512.into(), of(Curve::P384), p384(&sha512).to_bytes().to_vec()),
        (Ecdsa::P521_SHA256.into(), of(Curve::P521), p521(&whole).to_bytes().to_vec()),
        (Ecdsa::P521_SHA384.into(), of(Curve::P521), p521(&sha384).to_bytes().to_vec()),
        (Ecdsa::P521_SHA512.der().into(), of(Curve::P521), p521(&sha512).to_der().as_bytes().to_vec()),
    ]
}

fn judged(ask: &Ask, facts: &KeyFacts, input: &[u8]) -> Verdict {
    ask.check(Some(facts), input).unwrap();
    assert!(ask.call().is_none(), "verified on the host");
    Verdict::from_valid(ask.on_host(facts, input).unwrap() == [1])
}

fn verdict(algorithm: SignAlgorithm, facts: &KeyFacts, message: &[u8], signature: &[u8]) -> Verdict {
    judged(&Ask::verify(algorithm, signature), facts, message)
}

#[test]
fn signatures_made_by_other_software_are_valid() {
    for (algorithm, facts, signature) in signed(MESSAGE) {
        let verdict = verdict(algorithm.clone(), &facts, MESSAGE, &signature);
        assert_eq!(verdict, Verdict::Valid, "{algorithm:?}");
    }
}

#[test]
fn the_signature_of_a_message_is_that_of_its_digest() {
    for (algorithm, facts, signature) in signed(MESSAGE) {
        let ask = Ask::verify_digest(algorithm.clone(), &signature);
        let Some(hash) = ask.hash() else { continue };
        let digest = hashed(hash, MESSAGE);
        assert_eq!(judged(&ask, &facts, digest.as_ref()), Verdict::Valid, "{algorithm:?}");
        let other = hashed(hash, b"another");
        assert_eq!(judged(&ask, &facts, other.as_ref()), Verdict::Invalid, "{algorithm:?}");
    }
}

#[test]
fn what_the_host_encrypts_other_software_decrypts() {
    let (facts, key) = (oracle::rsa_2048(), oracle::rsa());
    let encrypted = |ask: Ask| {
        ask.check(Some(&facts), MESSAGE).unwrap();
        let made = ask.on_host(&facts, MESSAGE).unwrap();
        assert_eq!(made.len(), ask.final_len_max(Some(facts.kind), MESSAGE.len()));
        made
    };
    let sha1 = encrypted(Ask::encrypt(RsaOaep::SHA1));
    assert_eq!(key.decrypt(Oaep::<Sha1>::new(), &sha1).unwrap(), MESSAGE);
    let sha512 = encrypted(Ask::encrypt(RsaOaep::SHA512));
    assert_eq!(key.decrypt(Oaep::<Sha512>::new(), &sha512).unwrap(), MESSAGE);
    let labelled = encrypted(Ask::encrypt(RsaOaep::SHA256.label(b"pay".as_slice())));
    let with = |label: &[u8]| Oaep::<Sha256>::new_with_label(label);
    assert_eq!(key.decrypt(with(b"pay"), &labelled).unwrap(), MESSAGE);
    assert!(key.decrypt(with(b"say"), &labelled).is_err());
    let pkcs1 = encrypted(Ask::encrypt(RsaPkcs1Encryption));
    assert_eq!(key.decrypt(Pkcs1v15Encrypt, &pkcs1).unwrap(), MESSAGE);
}

#[test]
fn another_message_makes_every_signature_invalid() {
    for (algorithm, facts, signature) in signed(MESSAGE) {
        let verdict = verdict(algorithm.clone(), &facts, b"pay 92.50 to the bearer", &signature);
        assert_eq!(verdict, Verdict::Invalid, "{algorithm:?}");
    }
}

#[test]
fn a_signature_of_the_wrong_length_is_invalid_and_no_error() {
    for (algorithm, facts, signature) in signed(MESSAGE) {
        let longer = [&signature[..], &[0]].concat();
        let far_longer = [&signature[..], &[0; 5000]].concat();
        let shorter = &signature[..signature.len() - 1];
        for malformed in [&[], shorter, &longer, &far_longer] {
            let verdict = verdict(algorithm.clone(), &facts, MESSAGE, malformed);
            assert_eq!(verdict, Verdict::Invalid, "{algorithm:?}, {} bytes", malformed.len());
        }
    }
}

#[test]
fn a_signature_in_the_other_form_is_invalid() {
    let signature: p256::ecdsa::Signature = oracle::p256().sign(MESSAGE);
    let (fixed, der) = (signature.to_bytes(), signature.to_der());
    let facts = oracle::ec(Curve::P256);
    let plain = Ecdsa::P256_SHA256;
    assert_eq!(verdict(plain.into(), &facts, MESSAGE, der.as_bytes()), Verdict::Invalid);
    assert_eq!(verdict(plain.der().into(), &facts, MESSAGE, &fixed), Verdict::Invalid);
}

#[test]
fn zero_halves_are_invalid() {
    let facts = oracle::ec(Curve::P256);
    assert_eq!(verdict(Ecdsa::P256_SHA256.into(), &facts, MESSAGE, &[0; 64]), Verdict::Invalid);
}

#[test]
fn a_request_that_is_not_for_the_host_is_an_internal_error() {
    let of_p256 = oracle::ec(Curve::P256);
    let without = KeyFacts { public: None, ..of_p256.clone() };
    let other = KeyFacts { public: Some(oracle::rsa_public()), ..of_p256.clone() };
    let verify = Ask::verify(Ecdsa::P256_SHA256, &[0; 64]);
    for (ask, facts) in [(&verify, &without), (&verify, &other), (&Ask::random(3), &of_p256)] {
        assert_eq!(ask.on_host(facts, MESSAGE).unwrap_err().kind(), ErrorKind::Internal);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn one_flipped_bit_makes_every_signature_invalid(byte in any::<prop::sample::Index>(), bit in 0..8_u32) {
        use std::sync::LazyLock;
        static SIGNED: LazyLock<Vec<(SignAlgorithm, KeyFacts, Vec<u8>)>> = LazyLock::new(|| signed(MESSAGE));
        for (algorithm, facts, signature) in SIGNED.iter() {
            let mut flipped = signature.clone();
            flipped[byte.index(signature.len())] ^= 1 << bit;
            prop_assert_eq!(verdict(algorithm.clone(), facts, MESSAGE, &flipped), Verdict::Invalid, "{:?}", algorithm);
        }
    }
}
