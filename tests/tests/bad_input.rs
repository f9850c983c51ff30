//! Requests that cannot succeed: each has its kind, and none reaches the module that need not.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails its test")]

use hsmux::{
    AesEcb, AesGcm, Ecdsa, Error, ErrorKind, Hmac, Operation, Outcome, Request, Retry, RsaPkcs1, RsaPss,
};
use hsmux_tests::{Hsm, LONG};
use softhsm_fixtures::{PIN, SoftHsm};

fn says(error: &Error) -> (ErrorKind, Retry, Outcome) {
    (error.kind(), error.retry(), error.outcome())
}

/// The request fails so on the inline way, on the queued one and as a future.
fn assert_fails<'a, O: Operation>(make: impl Fn() -> Request<'a, O>, wanted: (ErrorKind, Retry, Outcome)) {
    for limit in [None, Some(LONG)] {
        let error = make().deadline(limit).wait().map(drop).unwrap_err();
        assert_eq!(says(&error), wanted, "{error}");
        let error = make().deadline(limit).submit().map(drop).unwrap_err().error;
        assert_eq!(says(&error), wanted, "{error}");
    }
    let error = futures::executor::block_on(make().into_future()).map(drop).unwrap_err();
    assert_eq!(says(&error), wanted, "{error}");
}

#[test]
fn what_does_not_fit_key_or_algorithm_is_refused_before_the_module_sees_it() {
    let hsm = Hsm::new(1, "");
    let engine = hsm.builder().sessions(2).build().unwrap();
    let key = |name| engine.key(name).unwrap();
    let (aes, mac, p256, rsa) = (key("aes256"), key("hmac"), key("p256"), key("rsa2048"));
    let calls = hsm.calls();
    let refused = |kind| (kind, Retry::Never, Outcome::NotDone);
    let (mismatch, invalid) = (refused(ErrorKind::KeyMismatch), refused(ErrorKind::InvalidInput));
    assert_fails(|| aes.sign(Hmac::SHA256, b"x"), mismatch);
    assert_fails(|| mac.encrypt(AesEcb, [0; 16].to_vec()), mismatch);
    assert_fails(|| p256.sign(RsaPkcs1::SHA256, b"x"), mismatch);
    assert_fails(|| p256.sign(Ecdsa::P384_SHA384, b"x"), mismatch);
    assert_fails(|| rsa.sign(Ecdsa::P256_SHA256, b"x"), mismatch);
    assert_fails(|| rsa.decrypt(AesGcm::new(), [0; 40].to_vec()), mismatch);
    assert_fails(|| p256.sign_digest(Ecdsa::P256_SHA256, [0; 31].to_vec()), invalid);
    assert_fails(|| p256.sign_digest(Ecdsa::P256_SHA256, [0; 64].to_vec()), invalid);
    assert_fails(|| rsa.sign_digest(RsaPss::SHA256, [0; 20].to_vec()), invalid);
    assert_fails(|| aes.encrypt(AesEcb, [0; 15].to_vec()), invalid);
    assert_fails(|| aes.encrypt(AesEcb, Vec::new()), invalid);
    assert_fails(|| aes.encrypt(AesGcm::new().with_iv([]), b"text"), invalid);
    assert_fails(|| engine.random(0), invalid);
    assert_fails(|| engine.random((1 << 20) + 1), invalid);
    assert_eq!(hsm.calls(), calls, "the module was called");
    drop((aes, mac, p256, rsa));
    assert_eq!(engine.drain(LONG), 0);
}

#[test]
fn a_request_above_the_cap_is_too_large_and_never_overloaded() {
    let hsm = Hsm::new(1, "");
    let engine = hsm.builder().bytes_max(10_000).build().unwrap();
    let key = engine.key("aes256").unwrap();
    let calls = hsm.calls();
    let error = key.encrypt(AesEcb, vec![0; 6_000 / 16 * 16]).wait().map(drop).unwrap_err();
    assert_eq!(says(&error), (ErrorKind::TooLarge, Retry::Never, Outcome::NotDone), "{error}");
    assert_eq!(hsm.calls(), calls, "the module was called");
    assert_eq!(engine.drain(LONG), 0);
}

#[test]
fn whatever_is_wrong_with_a_ciphertext_the_error_is_the_same() {
    let check = |engine: &hsmux::Engine, name: &str| {
        let key = engine.key(name).unwrap();
        let aad = || AesGcm::new().aad(b"merchant".as_slice());
        let sealed = key.encrypt(aad(), b"4111 1111 1111 1111").wait().unwrap().into_vec();
        let with = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut other = sealed.clone();
            change(&mut other);
            other
        };
        let last = sealed.len() - 1;
        let cases = [
            (aad(), with(&|bytes| bytes[0] ^= 1)),
            (aad(), with(&|bytes| bytes[12] ^= 1)),
            (aad(), with(&|bytes| bytes[last] ^= 1)),
            (aad(), with(&|bytes| bytes.truncate(last))),
            (aad(), with(&|bytes| bytes.truncate(20))),
            (aad(), with(&|bytes| bytes.push(0))),
            (aad(), Vec::new()),
            (AesGcm::new(), sealed.clone()),
            (AesGcm::new().aad(b"another".as_slice()), sealed.clone()),
        ];
        let mut texts = Vec::new();
        for (how, bytes) in cases {
            for limit in [None, Some(LONG)] {
                let request = key.decrypt(how.clone(), bytes.clone()).deadline(limit);
                let error = request.wait().map(drop).unwrap_err();
                assert_eq!(says(&error), (ErrorKind::DecryptFailed, Retry::Never, Outcome::Done), "{error}");
                texts.push(format!("{error} {error:?}"));
            }
        }
        assert!(texts.iter().all(|text| *text == texts[0]), "{texts:?}");
        // None of them cost a session.
        assert!(engine.snapshot().tokens.iter().all(|token| token.sessions == 2));
        assert_eq!(key.decrypt(aad(), sealed).wait().unwrap().as_bytes(), b"4111 1111 1111 1111");
    };
    let hsm = Hsm::new(1, "");
    check(&hsm.builder().sessions(2).build().unwrap(), "aes256");
    let Some(softhsm) = SoftHsm::for_tests() else { return };
    let token = softhsm.unique_token();
    token.import_aes("aes", &[9; 32]);
    let builder = hsmux::Engine::builder().module(softhsm.module()).tokens([token.label()]).pin(PIN);
    check(&builder.sessions(2).build().unwrap(), "aes");
}

#[test]
fn keys_of_one_name_that_differ_are_refused_and_the_error_says_where() {
    let hsm = Hsm::new(2, "keys=card:aes#1@sim-0;card:aes#2@sim-1");
    let engine = hsm.builder().sessions(1).build().unwrap();
    let error = engine.key("card").map(drop).unwrap_err();
    assert_eq!(says(&error), (ErrorKind::KeyAmbiguous, Retry::Operator, Outcome::NotDone));
    assert!(error.to_string().contains("tokens 0 and 1 hold different keys"), "{error}");
    let error = engine.key("nobody").map(drop).unwrap_err();
    assert_eq!(says(&error), (ErrorKind::KeyNotFound, Retry::Operator, Outcome::NotDone));
    assert_eq!(engine.drain(LONG), 0);
}
