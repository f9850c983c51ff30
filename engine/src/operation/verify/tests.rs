use proptest::prelude::*;
use rsa::rand_core::{Infallible, TryCryptoRng, TryRng};
use rsa::signature::{RandomizedSigner, SignatureEncoding, Signer};
use rsa::{pkcs1v15, pss};
use sha2::{Digest, Sha256, Sha384, Sha512};

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
    all
}

fn verdict(algorithm: SignAlgorithm, facts: &KeyFacts, message: &[u8], signature: &[u8]) -> Verdict {
    let ask = Ask::verify(algorithm, signature);
    ask.check(Some(facts), message.len()).unwrap();
    assert!(ask.call().is_none(), "{algorithm:?} is verified on the host");
    ask.verify_on_host(facts, message).unwrap()
}

#[test]
fn signatures_made_by_other_software_are_valid() {
    for (algorithm, facts, signature) in signed(MESSAGE) {
        assert_eq!(verdict(algorithm, &facts, MESSAGE, &signature), Verdict::Valid, "{algorithm:?}");
    }
}

#[test]
fn another_message_makes_every_signature_invalid() {
    for (algorithm, facts, signature) in signed(MESSAGE) {
        let verdict = verdict(algorithm, &facts, b"pay 92.50 to the bearer", &signature);
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
            let verdict = verdict(algorithm, &facts, MESSAGE, malformed);
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
        assert_eq!(ask.verify_on_host(facts, MESSAGE).unwrap_err().kind(), ErrorKind::Internal);
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
            prop_assert_eq!(verdict(*algorithm, facts, MESSAGE, &flipped), Verdict::Invalid, "{:?}", algorithm);
        }
    }
}
