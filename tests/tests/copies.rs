//! Warm copies of token keys: as good as these, and gone when they are.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails its test")]

use cryptoki::context::Pkcs11;
use cryptoki::object::Attribute;
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;
use hmac::{Hmac as HmacOf, KeyInit, Mac};
use hsmux::{AesEcb, Copies, Engine, ErrorKind, Hmac, Key, KeySpec, Verdict};
use hsmux_tests::{Hsm, LONG, eventually};
use softhsm_fixtures::{PIN, SoftHsm};

fn engine(hsm: &Hsm) -> Engine {
    hsm.builder().sessions(1).holding(false).copies(Copies::Required).build().unwrap()
}

fn sign(key: &Key) -> hsmux::Result<hsmux::Signature> {
    key.sign(Hmac::SHA256, b"message").deadline(None).wait()
}

/// The MAC of the simulator's key, by other code.
fn assert_right(signature: &hsmux::Signature) {
    let mut mac = HmacOf::<sha2::Sha256>::new_from_slice(&p11_sim::material::hmac(0, "hmac", 0)).unwrap();
    mac.update(b"message");
    mac.verify_slice(signature.as_ref()).unwrap();
}

/// A session of another user of the module in this process.
fn somebody_else(hsm: &Hsm) -> Session {
    let module = Pkcs11::new(hsm.sim.path()).unwrap();
    let session = module.open_rw_session(module.get_slots_with_token().unwrap()[0]).unwrap();
    // The login of the engine holds for all sessions of the process.
    let _logged_in = session.login(UserType::User, Some(&AuthPin::from("1234".to_owned())));
    session
}

/// What an engine calls its copies.
fn copies() -> [Attribute; 2] {
    [Attribute::Label(b"hsmux session key".to_vec()), Attribute::Token(false)]
}

#[test]
fn a_key_with_a_copy_answers_as_without_and_nobody_lists_the_copy() {
    let hsm = Hsm::new(2, "op_us=0");
    let engine = engine(&hsm);
    let key = engine.key("hmac").unwrap();
    assert_right(&sign(&key).unwrap());
    assert_eq!(hsm.sim.calls_of("C_CopyObject"), 2);
    assert!(engine.snapshot().tokens.iter().all(|token| token.copies == 1));
    // Found once, also by who begins now, and no second copy is made of the same key.
    assert!(engine.key("hmac").unwrap().is_same(&key));
    let other = hsm.builder().copies(Copies::Off).build().unwrap();
    assert_right(&sign(&other.key("hmac").unwrap()).unwrap());
    assert_eq!(hsm.sim.calls_of("C_CopyObject"), 2);
}

#[test]
fn where_copies_are_off_none_is_made() {
    let hsm = Hsm::new(1, "op_us=0");
    let engine = hsm.builder().copies(Copies::Off).build().unwrap();
    assert_right(&sign(&engine.key("hmac").unwrap()).unwrap());
    assert_eq!((hsm.sim.calls_of("C_CopyObject"), engine.snapshot().tokens[0].copies), (0, 0));
}

#[test]
fn a_copy_that_has_gone_falls_back_to_the_key_without_an_error_or_a_login() {
    let hsm = Hsm::new(1, "op_us=0");
    let engine = engine(&hsm);
    let key = engine.key("hmac").unwrap();
    let other = somebody_else(&hsm);
    let found = other.find_objects(&copies()).unwrap();
    assert_eq!(found.len(), 1);
    other.destroy_object(found[0]).unwrap();
    let logins = hsm.sim.calls_of("C_Login");
    assert_right(&sign(&key).unwrap());
    assert_right(&key.sign(Hmac::SHA256, b"message").deadline(Some(LONG)).wait().unwrap());
    assert_eq!(hsm.sim.calls_of("C_Login"), logins);
    eventually("the copy is forgotten", || engine.snapshot().tokens[0].copies == 0);
}

#[test]
fn a_key_that_somebody_else_destroys_is_not_used_for_long() {
    let hsm = Hsm::new(1, "op_us=0,keys=doomed:hmac");
    let engine = engine(&hsm);
    let key = engine.key("doomed").unwrap();
    sign(&key).unwrap();
    let other = somebody_else(&hsm);
    let originals = [Attribute::Label(b"doomed".to_vec()), Attribute::Token(true)];
    for object in other.find_objects(&originals).unwrap() {
        other.destroy_object(object).unwrap();
    }
    // A second, and what a busy machine takes.
    eventually("the copy is gone", || sign(&key).is_err());
    assert_eq!(sign(&key).unwrap_err().kind(), ErrorKind::KeyNotFound);
    assert!(other.find_objects(&copies()).unwrap().is_empty());
}

#[test]
fn a_key_that_the_engine_destroys_is_not_used_again() {
    let hsm = Hsm::new(1, "op_us=0");
    let engine = engine(&hsm);
    let key = engine.generate_key("short-lived", KeySpec::Aes(16)).unwrap();
    let encrypt = || key.encrypt(AesEcb, vec![1; 16]).deadline(None).wait();
    encrypt().unwrap();
    assert_eq!(engine.snapshot().tokens[0].copies, 1);
    engine.destroy_key("short-lived").unwrap();
    assert_eq!(encrypt().unwrap_err().kind(), ErrorKind::KeyNotFound);
    assert_eq!(engine.snapshot().tokens[0].copies, 0);
}

#[test]
fn the_copies_of_a_token_are_bounded_and_the_least_used_goes() {
    let labels: Vec<_> = (0..260).map(|i| format!("key-{i}")).collect();
    let kinds: Vec<_> = labels.iter().map(|label| format!("{label}:hmac")).collect();
    let hsm = Hsm::new(1, &format!("op_us=0,keys={}", kinds.join(";")));
    let engine = engine(&hsm);
    let keys: Vec<_> = labels.iter().map(|label| engine.key(label.as_str()).unwrap()).collect();
    assert_eq!(engine.snapshot().tokens[0].copies, 256);
    for key in &keys {
        sign(key).unwrap();
    }
    assert_eq!(somebody_else(&hsm).find_objects(&copies()).unwrap().len(), 256);
}

#[test]
fn on_softhsm_a_copy_of_a_symmetric_key_is_measured_to_be_faster_and_used() {
    let Some(softhsm) = SoftHsm::for_tests() else { return };
    let token = softhsm.unique_token();
    let engine = Engine::builder().module(softhsm.module()).tokens([token.label()]).pin(PIN).build().unwrap();
    let key = engine.generate_key("mac", KeySpec::Hmac(32)).unwrap();
    assert_eq!(engine.snapshot().tokens[0].copies, 1);
    let mac = sign(&key).unwrap();
    assert_eq!(key.verify(Hmac::SHA256, b"message", mac.as_ref()).wait().unwrap(), Verdict::Valid);
    drop(key);
    assert_eq!(engine.drain(LONG), 0);
}
