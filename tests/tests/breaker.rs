//! Tokens that are there and fail what they are asked: when they are taken out of service, and how they come back.

use hsmux::{AesGcm, Engine, ErrorKind, Health, Key, Outcome};
use hsmux_tests::{Hsm, LONG, eventually, health, sign, wait_for};
use quanta::Instant;

/// Signs until the token's health is another, whatever that yields.
fn sign_until(engine: &Engine, key: &Key, token: usize, wanted: Health) {
    eventually("the token's health is as it should be", || {
        let _answer = sign(key, b"x");
        health(engine, token) == wanted
    });
}

#[test]
fn a_token_that_fails_whatever_it_is_asked_goes_out_and_the_other_serves_without_an_error() {
    let hsm = Hsm::new(2, "");
    let engine = hsm.builder().build().unwrap();
    let key = engine.key("hmac").unwrap();
    let right = sign(&key, b"x").unwrap();
    hsm.sim.configure("fault=ops:1+=0x30@sim-1").unwrap();
    eventually("the token is out", || {
        assert_eq!(sign(&key, b"x").unwrap(), right, "what fails on one is served by the other");
        health(&engine, 1) == Health::Failing
    });
    let before = hsm.operations_on("sim-1");
    for _ in 0..1_000 {
        assert_eq!(sign(&key, b"x").unwrap(), right);
    }
    let asked = hsm.operations_on("sim-1") - before;
    assert!(asked < 50, "{asked} operations on a token that is out of service");
    hsm.sim.configure("fault=").unwrap();
    wait_for(&engine, 1, Health::Serving);
}

#[test]
fn a_token_that_fails_for_longer_is_logged_in_to_anew_when_it_does_well_again() {
    let hsm = Hsm::new(1, "");
    let engine = hsm.builder().build().unwrap();
    let key = engine.key("hmac").unwrap();
    let right = sign(&key, b"x").unwrap();
    hsm.sim.configure("fault=ops:1+=0x30").unwrap();
    sign_until(&engine, &key, 0, Health::Failing);
    let error = sign(&key, b"x").unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::TokenLost, Outcome::NotDone));
    // After three trials it is taken for lost: then it is there, and random bytes are not asked for before it serves.
    eventually("it is logged in to again", || hsm.sim.calls_of("C_Login") == 2);
    hsm.sim.configure("fault=").unwrap();
    eventually("it serves", || sign(&key, b"x").is_ok_and(|mac| mac == right));
    eventually("the sessions of before are closed", || hsm.open_sessions() == 4);
}

#[test]
fn bad_ciphertexts_however_many_take_no_token_out_and_cost_no_session() {
    let hsm = Hsm::new(1, "");
    let engine = hsm.builder().build().unwrap();
    let key = engine.key("aes256").unwrap();
    let good = key.encrypt(AesGcm::new(), b"x".as_slice()).wait().unwrap();
    let opened = hsm.sim.calls_of("C_OpenSession");
    // Whatever a module says to them; that of a real fault goes to the device's account and is not among these.
    for code in ["0x5", "0x6", "0x40", "0x41", "0x20", "0xc0"] {
        hsm.sim.configure(&format!("fault=C_Decrypt:1+={code}")).unwrap();
        for _ in 0..200 {
            let error = key.decrypt(AesGcm::new(), good.as_bytes()).wait().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::DecryptFailed, "{code}");
        }
    }
    hsm.sim.configure("fault=").unwrap();
    assert!(key.decrypt(AesGcm::new(), good.as_bytes()).wait().is_ok());
    assert_eq!((health(&engine, 0), engine.snapshot().tokens_lost), (Health::Serving, 0));
    assert_eq!(hsm.sim.calls_of("C_OpenSession"), opened);
}

#[test]
fn a_key_whose_requests_all_fail_takes_no_token_out_that_does_well_when_it_is_tried() {
    let hsm = Hsm::new(1, "");
    let engine = hsm.builder().canary_key("hmac").build().unwrap();
    let key = engine.key("aes256").unwrap();
    let started = Instant::now();
    hsm.sim.configure("fault=C_Encrypt:1+=0x30").unwrap();
    let tried = hsm.sim.calls_of("C_Sign");
    eventually("the token is tried", || {
        key.encrypt(AesGcm::new(), b"x".as_slice()).wait().unwrap_err();
        hsm.sim.calls_of("C_Sign") > tried
    });
    for _ in 0..100 {
        let error = key.encrypt(AesGcm::new(), b"x".as_slice()).wait().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Device);
    }
    let trials = hsm.sim.calls_of("C_Sign") - tried;
    let took = started.elapsed();
    assert!(trials <= 1 + took.as_secs(), "once a second at most, not {trials} times in {took:?}");
    assert_eq!((health(&engine, 0), engine.snapshot().tokens_lost), (Health::Serving, 0));
}

#[test]
fn a_canary_key_that_yields_something_else_than_before_takes_the_token_out() {
    let hsm = Hsm::new(1, "");
    let engine = hsm.builder().canary_key("hmac").build().unwrap();
    let key = engine.key("aes256").unwrap();
    let suspect = || {
        hsm.sim.configure("fault=C_Encrypt:1+=0x30").unwrap();
        let tried = hsm.sim.calls_of("C_Sign");
        eventually("the token is tried", || {
            let _failed = key.encrypt(AesGcm::new(), b"x".as_slice()).wait();
            hsm.sim.calls_of("C_Sign") > tried
        });
    };
    suspect();
    hsm.sim.configure("fault=").unwrap();
    assert_eq!(health(&engine, 0), Health::Serving, "it is known now what the key yields");
    hsm.sim.configure("fault=C_Encrypt:1+=0x30,fault=C_Sign:1+=flip").unwrap();
    eventually("the token is out", || {
        let _failed = key.encrypt(AesGcm::new(), b"x".as_slice()).wait();
        health(&engine, 0) == Health::Failing
    });
    hsm.sim.configure("fault=").unwrap();
    wait_for(&engine, 0, Health::Serving);
}

#[test]
fn where_random_bytes_are_fine_and_nothing_else_succeeds_the_token_goes_out_all_the_same() {
    let hsm = Hsm::new(1, "");
    let engine = hsm.builder().build().unwrap();
    let (mac, aes) = (engine.key("hmac").unwrap(), engine.key("aes256").unwrap());
    let fail = || {
        let _failed = sign(&mac, b"x");
        let _failed = aes.encrypt(AesGcm::new(), b"x".as_slice()).deadline_in(LONG).wait();
    };
    hsm.sim.configure("fault=C_Encrypt:1+=0x30,fault=C_Sign:1+=0x30").unwrap();
    eventually("the token is out", || {
        fail();
        health(&engine, 0) == Health::Failing
    });
    let lost = engine.snapshot().tokens_lost;
    wait_for(&engine, 0, Health::Serving);
    fail();
    assert_eq!(engine.snapshot().tokens_lost, lost + 1, "the first fault takes it out again");
    hsm.sim.configure("fault=").unwrap();
    eventually("it serves", || sign(&mac, b"x").is_ok());
}

#[test]
fn a_key_that_cannot_be_asked_for_anything_is_no_canary() {
    let hsm = Hsm::new(1, "");
    let error = hsm.builder().canary_key("no such key").build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::KeyNotFound);
}

#[test]
fn whether_a_key_can_be_a_canary_is_found_out_by_using_it_on_each_token() {
    let hsm = Hsm::new(2, "keys=wrapping:aes-wrap");
    let engine = hsm.builder().build().unwrap();
    engine.check_canary_key("hmac").unwrap();
    for (key, kind) in [("no such key", ErrorKind::KeyNotFound), ("wrapping", ErrorKind::KeyMismatch)] {
        assert_eq!(engine.check_canary_key(key).unwrap_err().kind(), kind, "{key}");
        assert_eq!(hsm.builder().canary_key(key).build().unwrap_err().kind(), kind, "{key}");
    }
}
