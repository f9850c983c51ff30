//! Every operation on real tokens, checked by other code.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails its test")]

use std::time::Duration;

use hmac::{KeyInit, Mac};
use hsmux::{AesEcb, AesGcm, Curve, Ecdsa, Engine, ErrorKind, Hmac, KeySpec, Outcome, RsaPkcs1, RsaPss};
use p256::ecdsa::signature::Verifier;
use softhsm_fixtures::{PIN, SoftHsm};
use spki::DecodePublicKey;

fn engine(softhsm: &SoftHsm, tokens: &[&str]) -> Engine {
    Engine::builder().module(softhsm.module()).tokens(tokens.iter().copied()).pin(PIN).build().unwrap()
}

#[test]
fn signatures_of_generated_keys_verify_with_other_code() {
    let Some(softhsm) = SoftHsm::for_tests() else { return };
    let token = softhsm.unique_token();
    let engine = engine(softhsm, &[token.label()]);
    let key = engine.generate_key("card", KeySpec::Ec(Curve::P256)).unwrap();
    let public = p256::ecdsa::VerifyingKey::from_public_key_der(&key.public_key_der().unwrap()).unwrap();
    let fixed = key.sign(Ecdsa::P256_SHA256, b"message").deadline(None).wait().unwrap();
    public.verify(b"message", &p256::ecdsa::Signature::from_slice(&fixed).unwrap()).unwrap();
    let der = key.sign(Ecdsa::P256_SHA256.der(), b"message").wait().unwrap();
    public.verify(b"message", &p256::ecdsa::Signature::from_der(&der).unwrap()).unwrap();

    let rsa = engine.generate_key("rsa", KeySpec::Rsa(2048)).unwrap();
    let signature = rsa.sign(RsaPkcs1::SHA256, b"message").wait().unwrap();
    assert!(rsa.verify(RsaPkcs1::SHA256, b"message", &signature).wait().unwrap().is_valid());
    let signature = futures::executor::block_on(rsa.sign(RsaPss::SHA256, b"message").into_future()).unwrap();
    assert!(!rsa.verify(RsaPss::SHA256, b"massage", &signature).wait().unwrap().is_valid());
    assert_eq!(engine.drain(Duration::from_secs(10)), 0);
}

#[test]
fn one_key_on_two_tokens_is_used_on_both_and_logged_in_to_once_each() {
    let Some(softhsm) = SoftHsm::for_tests() else { return };
    let tokens = [softhsm.unique_token(), softhsm.unique_token()];
    for token in &tokens {
        token.import_hmac("mac", &[3; 32]);
        token.import_aes("aes", &[4; 32]);
    }
    let engine = engine(softhsm, &[tokens[0].label(), tokens[1].label()]);
    let (mac, aes) = (engine.key("mac").unwrap(), engine.key("aes").unwrap());
    let wanted = |message: &[u8]| {
        let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(&[3; 32]).unwrap();
        mac.update(message);
        mac.finalize().into_bytes().to_vec()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let requests = (0..500_u32).map(|i| {
            let (mac, aes) = (mac.clone(), aes.clone());
            async move {
                let message = i.to_be_bytes().to_vec();
                let made = mac.sign(Hmac::SHA256, message.clone()).await.unwrap();
                let sealed =
                    aes.encrypt(AesGcm::new().aad(message.clone()), message.repeat(9)).await.unwrap();
                let opened =
                    aes.decrypt(AesGcm::new().aad(message.clone()), sealed.into_vec()).await.unwrap();
                (message, made.into_vec(), opened.into_vec())
            }
        });
        for (message, made, opened) in futures::future::join_all(requests).await {
            assert_eq!((made, opened), (wanted(&message), message.repeat(9)));
        }
    });
    let snapshot = engine.snapshot();
    assert_eq!(
        snapshot.tokens.iter().flat_map(|token| &token.operations).map(|op| op.count).sum::<u64>(),
        1_500
    );
    assert!(snapshot.tokens.iter().all(|token| !token.operations.is_empty()), "one token did nothing");
    assert_eq!(snapshot.in_flight, 0);
    assert_eq!(snapshot.calls["C_Login"], 2);
}

#[test]
fn bad_input_is_refused_with_its_own_kind() {
    let Some(softhsm) = SoftHsm::for_tests() else { return };
    let token = softhsm.unique_token();
    token.import_aes("aes", &[4; 32]);
    token.import_aes("twin", &[5; 32]);
    token.import_aes("twin", &[6; 32]);
    let engine = engine(softhsm, &[token.label()]);
    let aes = engine.key("aes").unwrap();
    let kind = |result: hsmux::Result<()>| result.unwrap_err().kind();
    assert_eq!(kind(engine.key("none").map(drop)), ErrorKind::KeyNotFound);
    let twins = engine.key("twin").map(drop).unwrap_err();
    assert_eq!((twins.kind(), twins.outcome()), (ErrorKind::KeyAmbiguous, Outcome::NotDone));
    let named =
        format!("token {} holds 2 keys of this name: Aes {{ len: 32 }}, Aes {{ len: 32 }}", token.label());
    assert!(twins.to_string().ends_with(&named), "{twins}");
    assert_eq!(kind(aes.sign(Hmac::SHA256, b"x").wait().map(drop)), ErrorKind::KeyMismatch);
    assert_eq!(kind(aes.encrypt(AesEcb, b"not a block").wait().map(drop)), ErrorKind::InvalidInput);
    let mut sealed = aes.encrypt(AesGcm::new(), b"secret").wait().unwrap().into_vec();
    sealed[14] ^= 1;
    assert_eq!(kind(aes.decrypt(AesGcm::new(), sealed).wait().map(drop)), ErrorKind::DecryptFailed);
    let past = aes.encrypt(AesEcb, [0; 16].to_vec()).deadline_in(Duration::ZERO).wait().unwrap_err();
    assert_eq!((past.kind(), past.outcome()), (ErrorKind::DeadlineExceeded, Outcome::NotDone));
    assert_eq!(engine.drain(Duration::from_secs(10)), 0);
    assert_eq!(kind(aes.encrypt(AesEcb, [0; 16].to_vec()).wait().map(drop)), ErrorKind::Draining);
}
