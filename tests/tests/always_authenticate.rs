//! Keys that want a PIN for every use: refused before any session is used, so that no use looks like a lost login.

use hsmux::{Ecdsa, Engine, ErrorKind, Health, Outcome};
use hsmux_tests::LONG;
use p256::elliptic_curve::sec1::ToSec1Point;
use softhsm_fixtures::{CurveName, CustomKey, KeyUse, PIN, SoftHsm};

#[test]
fn a_key_that_wants_a_pin_for_every_use_is_refused_and_its_public_half_is_not() {
    let Some(softhsm) = SoftHsm::for_tests() else { return };
    let secret = p256::SecretKey::from_slice(&[3; 32]).unwrap();
    let point = secret.public_key().to_sec1_point(false);
    let pair = || CustomKey::on_curve(CurveName::P256, &[3; 32], point.as_bytes());
    let token = softhsm.unique_token();
    token.import_custom("free", &pair().may(&[KeyUse::Sign, KeyUse::Verify]));
    token.import_custom("strict", &pair().may(&[KeyUse::Sign, KeyUse::Verify]).always_authenticate());
    let builder = Engine::builder().module(softhsm.module()).tokens([token.label()]).pin(PIN);
    let engine = builder.build().unwrap();
    let (free, strict) = (engine.key("free").unwrap(), engine.key("strict").unwrap());
    let signature = free.sign(Ecdsa::P256_SHA256, b"x").wait().unwrap();
    for _ in 0..20 {
        let error = strict.sign(Ecdsa::P256_SHA256, b"x").wait().unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::NotPermitted, Outcome::NotDone));
        assert!(error.to_string().contains("CKA_ALWAYS_AUTHENTICATE"), "{error}");
    }
    assert!(strict.verify(Ecdsa::P256_SHA256, b"x", signature.as_bytes()).wait().is_ok());
    let snapshot = engine.snapshot();
    assert_eq!((snapshot.tokens[0].health, snapshot.tokens_lost), (Health::Serving, 0));
    drop((free, strict));
    assert_eq!(engine.drain(LONG), 0);
}
