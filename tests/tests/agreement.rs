//! Key agreement: the key that a token derives is the one that the other side has.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails its test")]

use aes::cipher::{BlockCipherEncrypt, KeyInit};
use hsmux::{AesEcb, AgreementKdf, Curve, Engine, Hash, Key, KeySpec};
use hsmux_tests::{Hsm, LONG};
use p256::elliptic_curve::sec1::ToSec1Point;
use softhsm_fixtures::{PIN, SoftHsm};
use spki::DecodePublicKey;

/// The secret that the other side has, as whose key pair a fixed scalar serves, and its public point.
fn other_side(key: &Key) -> (Vec<u8>, Vec<u8>) {
    let own = p256::SecretKey::from_slice(&[7; 32]).unwrap();
    let token = p256::PublicKey::from_public_key_der(&key.public_key_der().unwrap()).unwrap();
    let secret = p256::ecdh::diffie_hellman(own.to_nonzero_scalar(), token.as_affine());
    let point = own.public_key().to_sec1_point(false).as_bytes().to_vec();
    (secret.raw_secret_bytes().to_vec(), point)
}

/// Whether the derived key encrypts as this one does.
fn assert_is(derived: &Key, wanted: [u8; 16]) {
    let mut block = aes::Block::from([3; 16]);
    aes::Aes128::new(&wanted.into()).encrypt_block(&mut block);
    assert_eq!(derived.encrypt(AesEcb, [3; 16].to_vec()).wait().unwrap().as_ref(), &block[..]);
}

fn check_raw(key: &Key) {
    let (secret, point) = other_side(key);
    let derived = key.agree(&point, AgreementKdf::Raw, &[], KeySpec::Aes(16)).unwrap();
    assert_is(&derived, *secret.last_chunk().unwrap());
}

#[test]
fn a_short_key_is_the_end_of_the_secret_on_softhsm() {
    let Some(softhsm) = SoftHsm::for_tests() else { return };
    let token = softhsm.unique_token();
    let builder = Engine::builder().module(softhsm.module()).tokens([token.label()]).pin(PIN);
    let engine = builder.build().unwrap();
    let key = engine.generate_key("agree", KeySpec::EcAgreement(Curve::P256)).unwrap();
    check_raw(&key);
    drop(key);
    assert_eq!(engine.drain(LONG), 0);
}

#[test]
fn both_derivations_are_right_on_the_simulator() {
    let hsm = Hsm::new(1, "keys=agree:p256-agree");
    let engine = hsm.builder().build().unwrap();
    let key = engine.key("agree").unwrap();
    check_raw(&key);
    let (secret, point) = other_side(&key);
    let derived = key.agree(&point, AgreementKdf::X963(Hash::Sha256), b"both", KeySpec::Aes(16)).unwrap();
    let digest = <sha2::Sha256 as sha2::Digest>::digest([&secret[..], &[0, 0, 0, 1], b"both"].concat());
    assert_is(&derived, *digest.first_chunk().unwrap());
    drop((derived, key));
    assert_eq!(engine.drain(LONG), 0);
}
