//! Keys that come and go while an engine runs: made, destroyed and replaced by another one, or different under one name.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails its test")]

use hsmux::{AesEcb, Engine, Error, ErrorKind, Hmac, KeySpec, Outcome, Retry};
use hsmux_tests::{Hsm, LONG};

fn says(error: &Error) -> (ErrorKind, Retry, Outcome) {
    (error.kind(), error.retry(), error.outcome())
}

/// Two engines on one simulator, as two programs on one token.
fn engines(hsm: &Hsm) -> (Engine, Engine) {
    (hsm.builder().sessions(1).build().unwrap(), hsm.builder().sessions(1).build().unwrap())
}

const NOT_FOUND: (ErrorKind, Retry, Outcome) = (ErrorKind::KeyNotFound, Retry::Operator, Outcome::NotDone);

#[test]
fn a_key_that_another_has_made_is_found() {
    let hsm = Hsm::new(2, "");
    let (ours, theirs) = engines(&hsm);
    theirs.generate_key("made later", KeySpec::Aes(32)).unwrap();
    let key = ours.key("made later").unwrap();
    assert_eq!(key.encrypt(AesEcb, vec![1; 16]).deadline_in(LONG).wait().unwrap().len(), 16);
    assert!(ours.keys().iter().any(|key| key.label == "made later"));
}

#[test]
fn an_object_that_its_token_cannot_describe_hides_no_other_and_a_fault_of_the_token_stays_one() {
    let labels = |fault: &str| {
        let engine = Hsm::new(1, fault).builder().build()?;
        Ok::<_, Error>(engine.keys().into_iter().map(|key| key.label).collect::<Vec<_>>())
    };
    let all = labels("").unwrap();
    // CKR_ATTRIBUTE_VALUE_INVALID, as SoftHSM2 answers of an object without a class.
    let rest = labels("fault=C_GetAttributeValue:1=0x13").unwrap();
    assert!(rest.len() + 1 == all.len() && rest.iter().all(|label| all.contains(label)), "{rest:?}");
    // CKR_DEVICE_ERROR.
    assert_eq!(labels("fault=C_GetAttributeValue:1=0x30").unwrap_err().kind(), ErrorKind::Device);
}

#[test]
fn a_name_that_nobody_has_is_not_looked_for_on_the_token_each_time() {
    let hsm = Hsm::new(1, "");
    let engine = hsm.builder().sessions(1).build().unwrap();
    let listings = || hsm.sim.calls_of("C_FindObjectsInit");
    let before = listings();
    assert_eq!(says(&engine.key("nobody's").map(drop).unwrap_err()), NOT_FOUND);
    assert_eq!(listings() - before, 1);
    let start = quanta::Instant::now();
    let answers: Vec<_> = (0..1_000).map(|_| says(&engine.key("nobody's").map(drop).unwrap_err())).collect();
    let seconds = start.elapsed().as_secs() + 1;
    assert!(listings() - before <= 1 + seconds, "{} listings in {seconds} s", listings() - before);
    // Not listed again so soon: it may be there by now.
    let later = (ErrorKind::KeyNotFound, Retry::Later, Outcome::NotDone);
    assert!(answers.iter().all(|answer| [NOT_FOUND, later].contains(answer)), "{answers:?}");
}

#[test]
fn a_key_that_another_has_destroyed_is_gone_once_the_token_has_said_so() {
    let hsm = Hsm::new(1, "");
    let (ours, theirs) = engines(&hsm);
    let key = theirs.generate_key("k", KeySpec::Hmac(32)).map(drop).and_then(|()| ours.key("k")).unwrap();
    // Its first listing was a moment ago.
    theirs.destroy_key("k").unwrap();
    let request = || key.sign(Hmac::SHA256, b"x").deadline_in(LONG);
    let gone = (ErrorKind::KeyNotFound, Retry::Later, Outcome::NotDone);
    assert_eq!(says(&request().wait().unwrap_err()), gone);
    hsmux_tests::eventually("the engine has noticed", || ours.key("k").is_err());
    let made = ours.generate_key("k", KeySpec::Hmac(32)).unwrap();
    assert_eq!(made.sign(Hmac::SHA256, b"x").deadline_in(LONG).wait().unwrap().len(), 32);
}

#[test]
fn a_key_is_made_under_a_name_that_another_has_freed() {
    let hsm = Hsm::new(1, "");
    let ours = hsm.builder().sessions(1).build().unwrap();
    let old = ours.generate_key("k", KeySpec::Hmac(32)).unwrap();
    let theirs = hsm.builder().sessions(1).build().unwrap();
    theirs.destroy_key("k").unwrap();
    let new = ours.generate_key("k", KeySpec::Hmac(32)).unwrap();
    assert!(!new.is_same(&old));
    let taken = theirs.generate_key("k", KeySpec::Hmac(32)).map(drop).unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::KeyAmbiguous);
}

#[test]
fn different_keys_of_one_name_are_not_destroyed() {
    let hsm = Hsm::new(2, "keys=x:hmac@sim-0;x:hmac#1@sim-1");
    let engine = hsm.builder().sessions(1).build().unwrap();
    let count = || engine.keys().iter().filter(|key| key.label == "x").count();
    assert_eq!(engine.destroy_key("x").unwrap_err().kind(), ErrorKind::KeyAmbiguous);
    assert_eq!((count(), hsm.sim.calls_of("C_DestroyObject")), (2, 0));
}

#[test]
fn what_cannot_be_shown_to_be_one_key_is_destroyed_on_one_token_only() {
    // Keys that only wrap show nothing of themselves.
    let hsm = Hsm::new(2, "keys=kek:aes-wrap;alone:aes-wrap@sim-1");
    let engine = hsm.builder().sessions(1).build().unwrap();
    assert_eq!(engine.destroy_key("kek").unwrap_err().kind(), ErrorKind::KeyAmbiguous);
    assert_eq!(hsm.sim.calls_of("C_DestroyObject"), 0);
    engine.destroy_key("alone").unwrap();
    engine.destroy_key("hmac").unwrap();
    assert_eq!(hsm.sim.calls_of("C_DestroyObject"), 3, "one alone, and the same one on two tokens");
    let of_first = Engine::builder().module(hsm.sim.path()).tokens(["sim-0"]).pin("1234").build().unwrap();
    of_first.destroy_key("kek").unwrap();
}

#[test]
fn a_key_that_another_has_put_on_a_further_token_is_destroyed_with_the_others() {
    let hsm = Hsm::new(2, "keys=x:hmac@sim-0");
    let engine = hsm.builder().sessions(1).build().unwrap();
    let other = Engine::builder().module(hsm.sim.path()).tokens(["sim-1"]).pin("1234").build().unwrap();
    other.generate_key("x", KeySpec::Hmac(32)).unwrap();
    // It is another key: that is noticed, although it was not there when the engine began.
    assert_eq!(engine.destroy_key("x").unwrap_err().kind(), ErrorKind::KeyAmbiguous);
}
