//! Outputs that are checked before they are handed out: none that is wrong comes out, and its token is taken out of
//! service until an operator readmits it.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails its test")]

mod kinds;
mod load;
#[path = "../support/simulated.rs"]
mod simulated;

use std::collections::HashSet;
use std::time::Duration;

use hsmux::{
    AesCbc, AesCtr, AesEcb, AesGcm, Ciphertext, Ecdsa, Engine, ErrorKind, Health, Hmac, Key, Outcome,
    Plaintext, RsaOaep, VerifyOutputs,
};
use hsmux_tests::{Hsm, LONG, Ready, blocks, eventually};
use kinds::{CIPHERTEXTS, KEYS, Kind, LABELS, NUMBERS, PLAINTEXTS, SIGNATURES, message, seal};
use p11_sim::material;
use p256::elliptic_curve::sec1::ToSec1Point;
use softhsm_fixtures::{CurveName, CustomKey, KeyUse, PIN, SoftHsm};

/// As [`Hsm::builder`], with every output checked.
fn always(hsm: &Hsm) -> Ready {
    hsm.builder().verify_outputs(VerifyOutputs::Always)
}

type Answer = Result<Vec<u8>, hsmux::Error>;

fn health(engine: &Engine, token: usize) -> Health {
    engine.snapshot().tokens[token].health
}

/// On the calling thread, if a session is idle: it finds the one that it had last.
fn mac(key: &Key, text: &[u8]) -> Answer {
    key.sign(Hmac::SHA256, text).deadline(None).wait().map(Into::into)
}

/// By whichever token takes it.
fn queued_mac(key: &Key, text: &[u8]) -> Answer {
    key.sign(Hmac::SHA256, text).deadline_in(LONG).wait().map(Into::into)
}

/// Outputs of all tokens found right, found wrong, and unchecked.
fn checks(engine: &Engine) -> (u64, u64, u64) {
    let tokens = engine.snapshot().tokens;
    let sum = |of: fn(&hsmux::CheckSnapshot) -> u64| tokens.iter().map(|token| of(&token.checks)).sum();
    (sum(|checks| checks.right), sum(|checks| checks.wrong), sum(|checks| checks.unchecked))
}

fn all_kinds() -> impl Iterator<Item = &'static Kind> {
    SIGNATURES.iter().chain(&CIPHERTEXTS).chain(&PLAINTEXTS)
}

/// A simulated HSM without some mechanisms, and its keys.
fn hsm_without(hide: &str) -> Hsm {
    let hide = if hide.is_empty() { String::new() } else { format!(",hide={hide}") };
    Hsm::new(1, &format!("{KEYS}{hide}"))
}

/// Each kind by itself, on a device without what the kind must not come by.
fn each_kind(mut test: impl FnMut(&'static Kind, &Hsm, &Engine)) {
    for hide in ["", "0x1041", "0x1", "0xd", "0x1082", "0x133", "0x9"] {
        let hsm = hsm_without(hide);
        let judge = hsm.builder().allow_rsa_pkcs1_decryption().build().unwrap();
        for kind in all_kinds().filter(|kind| kind.hide == hide) {
            seal(&judge, kind);
            test(kind, &hsm, &judge);
        }
    }
}

/// An engine of one session that leaves each request a call of its own.
fn single(builder: Ready) -> Engine {
    let builder = builder.sessions(1).coalescing(false).holding(false).message_api(false).random_pool(false);
    let engine = builder.allow_rsa_pkcs1_decryption().build().unwrap();
    LABELS.iter().for_each(|label| drop(engine.key(*label).unwrap()));
    engine
}

#[test]
fn of_no_kind_a_wrong_output_is_handed_out_and_the_first_takes_the_token_out() {
    // Kinds of which an output came again that was another request's.
    let mut repeated = HashSet::new();
    each_kind(|kind, hsm, judge| {
        let engine = single(always(hsm));
        let Kind { name, function, call, .. } = *kind;
        // Each time another message: what is repeated is wrong for this one.
        let mut numbers = 0..NUMBERS;
        let mut run = || {
            let number = numbers.next().unwrap();
            (number, (kind.run)(&engine, number))
        };
        for (onwards, fault) in [("", "flip"), ("", "short"), ("", "repeat"), ("+", "flip"), ("+", "short")] {
            if onwards == "+" && IS_UNSEEN_TWICE.contains(&name) {
                continue;
            }
            let (number, good) = run();
            assert!((kind.is_right)(judge, number, &good.unwrap()), "{name}");
            hsm.sim.configure(&format!("fault={function}:{call}{onwards}={fault}")).unwrap();
            let (number, answer) = run();
            hsm.sim.configure("fault=").unwrap();
            let is_right = answer.as_ref().is_ok_and(|made| (kind.is_right)(judge, number, made));
            if fault == "repeat" && is_right {
                // The session's own thread ran it, which had made nothing that could come again.
                continue;
            }
            if fault == "repeat" {
                repeated.insert((name, function));
            }
            let error = answer.expect_err(name);
            let case = format!("{name}, {call}{onwards}={fault}: {error}");
            assert!([ErrorKind::Device, ErrorKind::TokenLost].contains(&error.kind()), "{case}");
            assert_ne!(error.outcome(), Outcome::NotDone, "{case}");
            assert_eq!(health(&engine, 0), Health::Ejected, "{case}");
            assert_eq!(run().1.unwrap_err().kind(), ErrorKind::TokenLost, "{case}");
            engine.readmit_token("sim-0").unwrap();
            let (number, good) = run();
            assert!((kind.is_right)(judge, number, &good.unwrap()), "{case}");
        }
        assert_eq!(checks(&engine).2, 0, "{name}");
        assert_eq!(engine.drain(LONG), 0);
    });
    for group in [&SIGNATURES[..], &CIPHERTEXTS, &PLAINTEXTS] {
        let met = group.iter().filter(|kind| repeated.contains(&(kind.name, kind.function)));
        assert!(met.count() > 0, "{} and its like: nothing came again", group[0].name);
    }
}

/// What is deciphered twice, and may come out wrong twice in the same way.
const IS_UNSEEN_TWICE: [&str; 2] = ["OAEP", "CBC, padding taken off by the token"];

#[test]
fn without_a_check_the_wrong_output_is_handed_out() {
    each_kind(|kind, hsm, judge| {
        let engine = single(hsm.builder());
        (kind.run)(&engine, 0).unwrap();
        hsm.sim.configure(&format!("fault={}:{}=flip", kind.function, kind.call)).unwrap();
        let answer = (kind.run)(&engine, 1);
        hsm.sim.configure("fault=").unwrap();
        // A padding that is taken off may be refused, and an authentication is.
        match answer {
            // Of 205 bytes of random padding one is another.
            Ok(made) if kind.name.starts_with("PKCS#1, padding") => assert!((kind.is_right)(judge, 1, &made)),
            Ok(made) => assert!(!(kind.is_right)(judge, 1, &made), "{}", kind.name),
            Err(error) => assert_eq!(error.kind(), ErrorKind::DecryptFailed, "{}", kind.name),
        }
        assert_eq!(health(&engine, 0), Health::Serving, "{}", kind.name);
        assert_eq!(checks(&engine), (0, 0, 0));
    });
}

#[test]
fn a_check_takes_as_many_calls_as_are_said() {
    each_kind(|kind, hsm, _| {
        for (builder, wanted) in [(hsm.builder(), kind.calls.0), (always(hsm), kind.calls.1)] {
            let engine = single(builder);
            (kind.run)(&engine, 0).unwrap();
            let calls = || engine.snapshot().calls.values().sum::<u64>();
            let before = calls();
            (0..8).for_each(|number| drop((kind.run)(&engine, number).unwrap()));
            assert_eq!(calls() - before, 8 * wanted, "{}", kind.name);
        }
    });
}

#[test]
fn the_other_token_answers_in_place_of_one_that_has_answered_wrongly() {
    let hsm = Hsm::new(2, "");
    let engine = always(&hsm).build().unwrap();
    let key = engine.key("hmac").unwrap();
    let right = mac(&key, b"x").unwrap();
    hsm.sim.configure("fault=C_Sign:1+=flip@sim-1").unwrap();
    for limit in [None, Some(LONG)] {
        for _ in 0..200 {
            let made = key.sign(Hmac::SHA256, b"x").deadline(limit).wait().unwrap();
            assert_eq!(made.as_bytes(), right);
        }
        let many = key.sign_many(Hmac::SHA256, vec![b"x"; 200]).deadline(limit).wait();
        assert!(many.into_iter().all(|made| made.unwrap().as_bytes() == right));
    }
    assert_eq!((health(&engine, 0), health(&engine, 1)), (Health::Serving, Health::Ejected));
    assert_eq!(engine.snapshot().tokens_ejected, 1);
    let asked = hsm.operations_on("sim-1");
    assert!((0..100).all(|_| mac(&key, b"x").is_ok()));
    assert_eq!(hsm.operations_on("sim-1"), asked, "it is asked for nothing");
}

#[test]
fn a_wrong_output_is_wiped_where_the_caller_wanted_it_and_is_not_tried_again_if_he_forbids_it() {
    let hsm = hsm_without("");
    let engine = single(always(&hsm));
    let key = engine.key("hmac").unwrap();
    hsm.sim.configure("fault=C_Sign:1=flip").unwrap();
    let mut out = [0xEE; 32];
    let error = key.sign(Hmac::SHA256, b"x").deadline(None).at_most_once().wait_into(&mut out).unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Device, Outcome::Done), "{error}");
    assert_eq!(out, [0; 32]);
    assert_eq!(hsm.sim.calls_of("C_Sign"), 1);
}

#[test]
fn nothing_but_an_operator_brings_a_token_back_that_was_taken_out() {
    let hsm = Hsm::new(2, "");
    let engine = always(&hsm).build().unwrap();
    let key = engine.key("hmac").unwrap();
    hsm.sim.configure("fault=C_Sign:1=flip@sim-1").unwrap();
    eventually("it is taken out", || queued_mac(&key, b"x").is_ok() && health(&engine, 1) == Health::Ejected);
    engine.undrain_token("sim-1").unwrap();
    assert_eq!(health(&engine, 1), Health::Ejected);
    assert!(!engine.snapshot().tokens[1].drained);
    // Not that it has been away, either.
    let logins = || hsm.sim.calls_on("C_Login", "sim-1");
    let before = logins();
    hsm.sim.configure("removed=sim-1").unwrap();
    assert!((0..50).all(|_| mac(&key, b"x").is_ok()));
    hsm.sim.configure("removed=").unwrap();
    assert_eq!((health(&engine, 1), logins()), (Health::Ejected, before));
    let text = engine.snapshot().to_prometheus();
    assert!(text.contains("hsmux_token_ejected{token=\"sim-1\"} 1"), "{text}");
    assert!(text.contains("hsmux_token_lost{token=\"sim-1\"} 0"), "{text}");
    assert!(text.contains("hsmux_outputs_wrong_total{token=\"sim-1\"} 1"), "{text}");
    engine.drain_token("sim-1", Duration::ZERO).unwrap();
    engine.readmit_token("sim-1").unwrap();
    assert!(engine.snapshot().tokens[1].drained, "it is out for another reason");
    engine.undrain_token("sim-1").unwrap();
    let asked = hsm.operations_on("sim-1");
    eventually("it serves", || queued_mac(&key, b"x").is_ok() && hsm.operations_on("sim-1") > asked);
    eventually("it is healthy", || health(&engine, 1) == Health::Serving);
    assert_eq!(engine.readmit_token("sim-9").unwrap_err().kind(), ErrorKind::TokenNotFound);
}

#[test]
fn no_ciphertext_takes_a_token_out() {
    let hsm = Hsm::new(1, &format!("{KEYS},op_us=0"));
    let engine = always(&hsm).sessions(1).allow_rsa_pkcs1_decryption().build().unwrap();
    let (aes, rsa) = (engine.key("aes256").unwrap(), engine.key("dec").unwrap());
    let sealed: Vec<u8> = aes.encrypt(AesGcm::new(), b"text").wait().unwrap().into();
    let oaep: Vec<u8> = rsa.encrypt(RsaOaep::SHA256, b"text").wait().unwrap().into();
    for at in 0..sealed.len() {
        let mut other = sealed.clone();
        other[at] ^= 1;
        let error = aes.decrypt(AesGcm::new(), &other).wait().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DecryptFailed);
    }
    for number in 0..64_u8 {
        // Paddings of CBC, most of which are wrong; of RSA, and numbers that are no less than the modulus.
        let _padded = aes.decrypt(AesCbc::new(), vec![number; 48]).wait();
        aes.decrypt(AesCbc::new().unpadded(), vec![number; 48]).wait().unwrap();
        aes.decrypt(AesEcb, vec![number; 48]).wait().unwrap();
        aes.decrypt(AesCtr::new(), vec![number; 48]).wait().unwrap();
        let mut other = oaep.clone();
        other[0] ^= number.wrapping_mul(4) | 3;
        rsa.decrypt(RsaOaep::SHA256, &other).wait().unwrap_err();
        // Of many thousand one has this padding by chance.
        if let Err(error) = rsa.decrypt(hsmux::Cipher::RsaPkcs1, &other).wait() {
            assert_eq!(error.kind(), ErrorKind::DecryptFailed);
        }
    }
    assert_eq!(checks(&engine).1, 0);
    assert_eq!(health(&engine, 0), Health::Serving);
}

#[test]
fn a_sample_finds_a_token_that_errs_always_within_two_thousand_calls() {
    let hsm = Hsm::new(1, "");
    let engine = hsm.builder().sessions(1).verify_outputs(VerifyOutputs::Sampled).build().unwrap();
    let key = engine.key("hmac").unwrap();
    let right = mac(&key, b"x").unwrap();
    assert_eq!(checks(&engine), (1, 0, 0), "the first call of a session");
    hsm.sim.configure("fault=C_Sign:1+=flip").unwrap();
    let handed_out = (0..5_000).take_while(|_| mac(&key, b"x").is_ok_and(|made| made != right)).count();
    assert!(handed_out < 2_000, "{handed_out} wrong ones were handed out");
    assert_eq!((health(&engine, 0), checks(&engine)), (Health::Ejected, (1, 1, 0)));
}

#[test]
fn of_a_sample_every_length_is_looked_at() {
    let hsm = Hsm::new(1, "");
    let engine = hsm.builder().sessions(1).verify_outputs(VerifyOutputs::Sampled).build().unwrap();
    let key = engine.key("hmac").unwrap();
    mac(&key, b"x").unwrap();
    hsm.sim.configure("fault=C_Sign:1=short").unwrap();
    mac(&key, b"x").unwrap_err();
    assert_eq!((health(&engine, 0), checks(&engine)), (Health::Ejected, (1, 1, 0)));
}

#[test]
fn a_sample_checks_what_is_held_open_and_messages_too() {
    let hsm = Hsm::new(1, "");
    let engine = hsm.builder().sessions(1).verify_outputs(VerifyOutputs::Sampled).build().unwrap();
    let key = engine.key("aes256").unwrap();
    let text = [7; 32];
    for _ in 0..6_000 {
        key.encrypt(AesEcb, &text[..]).deadline(None).wait().unwrap();
    }
    for _ in 0..6_000 {
        key.encrypt(AesGcm::new(), &text[..]).deadline(None).wait().unwrap();
    }
    assert!(hsm.sim.calls_of("C_EncryptUpdate") > 5_900, "operations are held open");
    assert!(hsm.sim.calls_of("C_EncryptMessage") > 5_900, "messages are used");
    let (right, wrong, unchecked) = checks(&engine);
    assert!(right >= 6 && (wrong, unchecked) == (0, 0), "{right}");
    hsm.sim.configure("fault=C_EncryptMessage:1+=flip").unwrap();
    let run = |_: &u32| key.encrypt(AesGcm::new(), &text[..]).deadline(None).wait().is_ok();
    let handed_out = (0..5_000).take_while(run).count();
    assert!(handed_out < 2_000, "{handed_out}");
    assert_eq!(health(&engine, 0), Health::Ejected);
}

#[test]
fn requests_that_share_calls_are_checked_together() {
    let hsm = Hsm::new(2, "");
    let engine = always(&hsm).host_modes(["aes256"]).build().unwrap();
    let (key, messages) = (engine.key("aes256").unwrap(), blocks(300));
    let cbc = || AesCbc::new().unpadded();
    let (ecb, sealed) =
        (hsm.one_by_one("aes256", AesEcb, &messages), hsm.one_by_one("aes256", cbc(), &messages));
    let bytes = |made: Result<Ciphertext, _>| made.map(Vec::from);
    let encrypt = || key.encrypt_many(AesEcb, messages.clone()).wait().into_iter().map(bytes).collect();
    let plain = |made: Result<Plaintext, _>| made.map(Plaintext::into_vec);
    let decrypt = || key.decrypt_many(cbc(), sealed.clone()).wait().into_iter().map(plain).collect();
    let ways: [(_, &dyn Fn() -> Vec<Answer>, _); 2] =
        [("C_Encrypt", &encrypt, &ecb), ("C_Decrypt", &decrypt, &messages)];
    for (function, run, right) in ways {
        let fault = format!("fault={function}:1=flip@sim-0;{function}:1=flip@sim-1");
        hsm.sim.configure(&fault).unwrap();
        let before = checks(&engine).1;
        // Whichever token is asked, the other answers; if both err, nothing is handed out.
        for (made, right) in run().into_iter().zip(right.iter()) {
            assert!(made.is_err() || made.is_ok_and(|made| made == *right), "{function}");
        }
        assert!(checks(&engine).1 > before, "{function}");
        hsm.sim.configure("fault=").unwrap();
        hsm.tokens.iter().for_each(|token| engine.readmit_token(token).unwrap());
        let calls = hsm.operations();
        assert_eq!(run().into_iter().map(Result::unwrap).collect::<Vec<_>>(), *right);
        assert!(hsm.operations() - calls < 100, "they share calls");
    }
}

#[test]
fn all_instances_of_a_token_are_taken_out_and_readmitted() {
    let hsm = Hsm::new(1, "");
    let engine = hsm.instances(2).verify_outputs(VerifyOutputs::Always).build().unwrap();
    let key = engine.key("hmac").unwrap();
    hsm.sim.configure("fault=C_Sign:1=flip").unwrap();
    eventually("it is taken out", || {
        // Some go to the instance that errs.
        let made = key.sign_many(Hmac::SHA256, vec![b"x"; 50]).wait();
        made.iter().any(Result::is_err) || health(&engine, 0) == Health::Ejected
    });
    assert!((0..2).all(|token| health(&engine, token) == Health::Ejected));
    assert_eq!(engine.snapshot().tokens_ejected, 1);
    engine.readmit_token("sim-0").unwrap();
    assert!((0..2).all(|token| health(&engine, token) == Health::Serving));
    eventually("it serves", || mac(&key, b"x").is_ok());
}

#[test]
fn a_check_that_fails_is_no_wrong_answer() {
    let hsm = hsm_without("");
    let engine = single(always(&hsm));
    let (key, aes) = (engine.key("hmac").unwrap(), engine.key("aes256").unwrap());
    // CKR_DEVICE_ERROR of the check: nobody knows, so nothing is handed out; the request is run again.
    hsm.sim.configure("fault=C_Verify:1=0x30").unwrap();
    assert!(key.sign(Hmac::SHA256, b"x").deadline_in(LONG).wait().is_ok());
    hsm.sim.configure("fault=C_Verify:1=0x30").unwrap();
    let error = key.sign(Hmac::SHA256, b"x").deadline_in(LONG).at_most_once().wait().unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Device, Outcome::Unknown));
    // Which is what a module may answer to a wrong tag, too: it is asked again.
    hsm.sim.configure("fault=C_Decrypt:1=0x05").unwrap();
    assert!(aes.encrypt(AesGcm::new(), b"x").deadline_in(LONG).wait().is_ok());
    // A module that has no such function, or does not allow it, has the operation run again.
    for (function, code) in [("C_VerifyInit", "0x54"), ("C_VerifyInit", "0x68"), ("C_DecryptInit", "0x70")] {
        hsm.sim.configure(&format!("fault={function}:1+={code}")).unwrap();
        assert!(mac(&key, b"x").is_ok(), "{function} {code}");
        assert!(aes.encrypt(AesCbc::new(), b"x").deadline(None).wait().is_ok(), "{function} {code}");
    }
    assert_eq!((checks(&engine).1, health(&engine, 0)), (0, Health::Serving));
}

/// The public object of another key has the same `CKA_ID`.
#[test]
fn a_public_half_that_is_another_keys_takes_no_token_out() {
    let Some(softhsm) = SoftHsm::for_tests() else { return };
    let secret = |byte| p256::SecretKey::from_slice(&[byte; 32]).unwrap();
    let point = |byte| secret(byte).public_key().to_sec1_point(false).as_bytes().to_vec();
    let pair = |public| CustomKey::on_curve(CurveName::P256, &[3; 32], &point(public)).may(&[KeyUse::Sign]);
    let token = softhsm.unique_token();
    token.import_custom("right", &pair(3));
    token.import_custom("wrong", &pair(5));
    token.import_custom("wrong-2", &pair(7));
    let builder = || Engine::builder().module(softhsm.module()).tokens([token.label()]).pin(PIN);
    let engine = builder().verify_outputs(VerifyOutputs::Always).build().unwrap();
    let (right, wrong) = (engine.key("right").unwrap(), engine.key("wrong").unwrap());
    for _ in 0..20 {
        let error = wrong.sign(Ecdsa::P256_SHA256, b"x").wait().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Device);
        assert!(error.to_string().contains("public half"), "{error}");
        right.sign(Ecdsa::P256_SHA256, b"x").wait().unwrap();
    }
    // Also where nothing but such keys is used.
    let other = engine.key("wrong-2").unwrap();
    for key in [&wrong, &other].into_iter().cycle().take(40) {
        key.sign(Ecdsa::P256_SHA256, b"x").wait().unwrap_err();
    }
    assert_eq!((health(&engine, 0), checks(&engine).1), (Health::Serving, 0));
    assert_eq!(engine.snapshot().tokens_lost, 0);
    drop((right, wrong, other));
    assert_eq!(engine.drain(LONG), 0);
    let unchecked = builder().build().unwrap();
    unchecked.key("wrong").unwrap().sign(Ecdsa::P256_SHA256, b"x").wait().unwrap();
}

#[test]
fn what_cannot_be_checked_is_counted() {
    let hsm = hsm_without("");
    let engine = single(always(&hsm));
    let raw = hsmux::RawMechanism::new(0x251).output_max(32);
    engine.key("hmac").unwrap().sign(raw, b"x").wait().unwrap();
    assert_eq!(checks(&engine), (0, 0, 1));
    engine.random(4).wait().unwrap();
    assert_eq!(checks(&engine), (0, 0, 2));
    engine.random(32).wait().unwrap();
    assert_eq!(checks(&engine), (1, 0, 2));
    let made = mac(&engine.key("hmac").unwrap(), &message(1)).unwrap();
    let software = {
        use hmac::{KeyInit, Mac};
        let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(&material::hmac(0, "hmac", 0)).unwrap();
        mac.update(&message(1));
        mac.finalize().into_bytes()
    };
    assert_eq!(made, software.as_slice());
}
