//! What must not mix: mechanisms in lanes, purposes of keys, keys of different engines, session keys in the listing.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails its test")]

use hsmux::{
    AesEcb, AgreementKdf, Cmac, Copies, Curve, Ecdsa, Engine, ErrorKind, Hmac, Key, KeySpec, KeyWrap,
    MacPadding, RawMechanism, RetailMac, RsaOaep, RsaPkcs1, SignAlgorithm,
};
use hsmux_tests::{Hsm, eventually};
use softhsm_fixtures::{PIN, SoftHsm};

/// Signs so many times at once; how many failed.
fn failures(key: &Key, how: &SignAlgorithm, count: u8) -> usize {
    let submit = |i| key.sign(how.clone(), vec![i; 32]).submit().unwrap();
    let pending: Vec<_> = (0..count).map(submit).collect();
    pending.into_iter().map(hsmux::Pending::wait).filter(Result::is_err).count()
}

#[test]
fn requests_of_one_kind_that_different_tokens_can_run_do_not_share_a_lane() {
    // CKM_SHA512_HMAC is on the first token only.
    let hsm = Hsm::new(2, "op_us=1000,hide=0x271@sim-1");
    let engine = hsm.builder().sessions(1).build().unwrap();
    let key = engine.key("hmac").unwrap();
    assert_eq!(failures(&key, &Hmac::SHA256.into(), 2), 0);
    assert_eq!(failures(&key, &Hmac::SHA512.into(), 40), 0);
    let before = hsm.operations_on("sim-1");
    eventually("the second token serves what it has", || {
        assert_eq!(failures(&key, &Hmac::SHA256.into(), 100), 0);
        hsm.operations_on("sim-1") > before
    });
    hsm.assert_sound();
}

#[test]
fn raw_mechanisms_go_to_the_tokens_that_list_them() {
    let hsm = Hsm::new(2, "hide=0x1041@sim-0;0x1044@sim-1");
    let engine = hsm.builder().sessions(1).build().unwrap();
    let key = engine.key("p256").unwrap();
    for number in [0x1041, 0x1044, 0x1041] {
        assert_eq!(failures(&key, &RawMechanism::new(number).into(), 10), 0, "{number:#x}");
    }
}

/// An engine on a new token of SoftHSM2.
fn engine(softhsm: &SoftHsm) -> Engine {
    let token = softhsm.unique_token();
    Engine::builder().module(softhsm.module()).tokens([token.label()]).pin(PIN).build().unwrap()
}

fn not_permitted<T>(result: hsmux::Result<T>, what: &str) {
    assert_eq!(result.err().map(|error| error.kind()), Some(ErrorKind::NotPermitted), "{what}");
}

#[test]
fn a_generated_key_has_one_purpose_whatever_the_token_adds_by_itself() {
    let Some(softhsm) = SoftHsm::for_tests() else { return };
    let engine = engine(softhsm);
    let generate = |spec| engine.generate_key(&format!("{spec:?}"), spec).unwrap();
    let (wraps, macs, encrypts) =
        (generate(KeySpec::AesWrap(32)), generate(KeySpec::AesMac(32)), generate(KeySpec::Aes(32)));
    for (key, purpose) in [(&wraps, 0), (&macs, 1), (&encrypts, 2)] {
        let what = format!("{key:?} {purpose}");
        if purpose != 0 {
            not_permitted(key.wrap(KeyWrap::AesKw, &encrypts), &what);
            not_permitted(key.unwrap(KeyWrap::AesKw, &[0; 40], KeySpec::Aes(32)), &what);
        }
        if purpose != 1 {
            not_permitted(key.sign(Cmac::Aes, vec![1; 16]).wait(), &what);
        }
        if purpose != 2 {
            not_permitted(key.encrypt(AesEcb, vec![1; 16]).wait(), &what);
            not_permitted(key.decrypt(AesEcb, vec![1; 16]).wait(), &what);
        }
    }
    let agrees = generate(KeySpec::EcAgreement(Curve::P256));
    not_permitted(agrees.sign(Ecdsa::P256_SHA256, b"x").wait(), "a key for agreement signs");
    let signs = generate(KeySpec::Rsa(2048));
    not_permitted(signs.decrypt(RsaOaep::SHA1, vec![1; 256]).wait(), "a key for signatures decrypts");
    not_permitted(signs.encrypt(RsaOaep::SHA1, b"x").wait(), "a key for signatures encrypts");
    let decrypts = generate(KeySpec::RsaDecryption(2048));
    not_permitted(decrypts.sign(RsaPkcs1::SHA256, b"x").wait(), "a key for decryption signs");
    for key in engine.keys() {
        let uses =
            usize::from(key.flags.wrap) + usize::from(key.flags.derive) + usize::from(!key.uses.is_empty());
        assert_eq!(uses, 1, "{key:?}");
    }
}

#[test]
fn keys_of_another_engine_are_refused_before_any_call() {
    let hsm = Hsm::new(2, "keys=asked:des3@sim-0;kek:aes-wrap@sim-0;first:des3@sim-1");
    let build = |token: &str| {
        let builder = Engine::builder().module(hsm.sim.path()).tokens([token]).pin("1234");
        builder.copies(Copies::Off).build().unwrap()
    };
    let (ours, theirs) = (build("sim-0"), build("sim-1"));
    let first = theirs.key("first").unwrap();
    let (mac, kek, aes) =
        (ours.key("asked").unwrap(), ours.key("kek").unwrap(), theirs.key("aes256").unwrap());
    let calls = hsm.calls();
    let mac = mac.sign(RetailMac::new(&first, MacPadding::Method2).unwrap(), vec![7; 20]).wait().unwrap_err();
    assert_eq!(mac.kind(), ErrorKind::InvalidInput);
    let wrapped = kek.wrap(KeyWrap::AesKw, &aes).unwrap_err();
    assert_eq!(wrapped.kind(), ErrorKind::InvalidInput);
    assert_eq!(hsm.calls(), calls);
}

#[test]
fn the_first_key_of_a_retail_mac_is_one_of_triple_des_that_may_encrypt() {
    let hsm = Hsm::new(1, "");
    let engine = hsm.builder().build().unwrap();
    let refused = RetailMac::new(&engine.key("aes256").unwrap(), MacPadding::Method2).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::KeyMismatch);
}

#[test]
fn session_keys_are_in_no_catalogue() {
    let hsm = Hsm::new(1, "keys=agree:p256-agree");
    let engine = hsm.builder().build().unwrap();
    let own = p256::SecretKey::from_slice(&[7; 32]).unwrap();
    let point = own.public_key().to_sec1_bytes();
    let before = engine.keys().len();
    let agreeing = engine.key("agree").unwrap();
    let derived = agreeing.agree(&point, AgreementKdf::Raw, &[], KeySpec::Aes(16)).unwrap();
    // Lists the token's objects anew.
    engine.generate_key("new", KeySpec::Aes(16)).unwrap();
    assert_eq!(engine.keys().len(), before + 1);
    for name in ["", "hsmux session key"] {
        assert_eq!(engine.key(name).unwrap_err().kind(), ErrorKind::KeyNotFound);
    }
    assert_eq!(derived.encrypt(AesEcb, vec![1; 16]).wait().unwrap().len(), 16);
}
