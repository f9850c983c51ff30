//! Tokens that are lost and come back; sessions and logins that are lost; calls that fail and are made once more.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails its test")]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hsmux::{AgreementKdf, Copies, Engine, Error, ErrorKind, Health, Hmac, Key, KeySpec, Outcome};
use hsmux_tests::{Hsm, LONG, eventually, health, sign, wait_for, wait_idle};

/// `CKR_DEVICE_ERROR`: the device may have carried out what it was asked, or not.
const DEVICE_ERROR: &str = "0x30";

/// Removes a token and has requests under a key that others hold too notice it.
fn remove_one(hsm: &Hsm, engine: &Engine, key: &Key, token: usize) {
    hsm.sim.configure(&format!("removed=sim-{token}")).unwrap();
    eventually("the loss is noticed", || {
        sign(key, b"x").unwrap();
        health(engine, token) == Health::Lost
    });
}

#[test]
fn a_token_that_was_removed_serves_again_when_it_is_put_back() {
    let hsm = Hsm::new(1, "");
    let engine = hsm.builder().build().unwrap();
    let key = engine.key("hmac").unwrap();
    let right = sign(&key, b"x").unwrap();
    for returns in 1..=5 {
        hsm.sim.configure("removed=sim-0").unwrap();
        let error = sign(&key, b"x").unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::TokenLost, Outcome::NotDone));
        wait_for(&engine, 0, Health::Lost);
        hsm.sim.configure("removed=").unwrap();
        wait_for(&engine, 0, Health::Serving);
        assert_eq!(sign(&key, b"x").unwrap(), right);
        assert_eq!(engine.key("hmac").unwrap().sign(Hmac::SHA256, b"x").wait().unwrap().as_bytes(), right);
        assert_eq!(hsm.sim.calls_of("C_Login"), 1 + returns, "one login for each return");
    }
    assert_eq!(engine.snapshot().tokens_lost, 5);
    assert_eq!(hsm.sim.concurrent_use(), 0);
    eventually("all sessions are there again", || engine.snapshot().tokens[0].sessions == 2);
    assert_eq!(engine.drain(LONG), 0);
}

/// Signs with four keys' worth of threads until told to stop; how many were signed, and what failed.
fn load(key: &Key, stop: &AtomicBool, signed: &AtomicU64) -> Vec<Error> {
    let one = |thread: u64| {
        let mut failed = Vec::new();
        let mut number = thread << 32;
        while !stop.load(Ordering::Relaxed) {
            number += 1;
            // Every other one runs on the thread itself.
            let limit = number.is_multiple_of(2).then_some(LONG);
            match key.sign(Hmac::SHA256, number.to_be_bytes().to_vec()).deadline(limit).wait() {
                Ok(mac) => assert_eq!(mac.len(), 32),
                Err(error) => failed.push(error),
            }
            signed.fetch_add(1, Ordering::Relaxed);
        }
        failed
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|thread| scope.spawn(move || one(thread))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn requests_of_a_token_that_is_lost_are_served_by_the_others() {
    const TIMES: usize = 12;
    let hsm = Hsm::new(4, "op_us=50,cores=2");
    let engine = hsm.builder().build().unwrap();
    let key = engine.key("hmac").unwrap();
    let (stop, signed) = (AtomicBool::new(false), AtomicU64::new(0));
    let failed = std::thread::scope(|scope| {
        let loading = scope.spawn(|| load(&key, &stop, &signed));
        for time in 0..TIMES {
            let token = time % 4;
            // During a call, so that what was asked may have been carried out.
            hsm.sim.configure(&format!("fault=ops:1=removed@sim-{token}")).unwrap();
            wait_for(&engine, token, Health::Lost);
            let before = signed.load(Ordering::Relaxed);
            eventually("the others go on", || signed.load(Ordering::Relaxed) > before + 50);
            hsm.sim.configure("fault=,removed=").unwrap();
            wait_for(&engine, token, Health::Serving);
        }
        stop.store(true, Ordering::Relaxed);
        loading.join().unwrap()
    });
    assert!(
        failed.is_empty(),
        "{} of {}: {:?}",
        failed.len(),
        signed.load(Ordering::Relaxed),
        failed.first()
    );
    assert_eq!(engine.snapshot().tokens_lost, TIMES as u64);
    assert_eq!(hsm.sim.calls_of("C_Login"), 4 + TIMES as u64);
    assert_eq!(hsm.sim.concurrent_use(), 0);
    wait_idle(&engine);
}

#[test]
fn a_login_that_is_lost_is_made_again_once_and_sessions_are_closed() {
    let hsm = Hsm::new(2, "");
    let engine = hsm.builder().build().unwrap();
    let key = engine.key("hmac").unwrap();
    hsm.sim.configure("fault=C_Sign:1=login-lost@sim-1").unwrap();
    let failed: Vec<_> = (0..2_000_u32).filter_map(|i| sign(&key, &i.to_be_bytes()).err()).collect();
    assert!(failed.is_empty(), "{:?}", failed.first());
    wait_for(&engine, 1, Health::Serving);
    assert_eq!((hsm.sim.calls_on("C_Login", "sim-1"), engine.snapshot().tokens_lost), (2, 1));
    // Two for requests, and the token's own two.
    eventually("no session is left over", || hsm.open_sessions() == 8);
    assert_eq!(engine.drain(LONG), 0);
    eventually("every session is closed", || hsm.open_sessions() == 0);
}

#[test]
fn sessions_that_are_lost_are_replaced_and_nobody_notices() {
    let hsm = Hsm::new(1, "fault=C_Sign:4%=session-lost");
    let engine = hsm.builder().sessions(4).build().unwrap();
    let key = engine.key("hmac").unwrap();
    let failed: Vec<_> = (0..3_000_u32).filter_map(|i| sign(&key, &i.to_be_bytes()).err()).collect();
    assert!(failed.is_empty(), "{}: {:?}", failed.len(), failed.first());
    hsm.sim.configure("fault=").unwrap();
    eventually("all sessions are there", || engine.snapshot().tokens[0].sessions == 4);
    assert_eq!(hsm.sim.concurrent_use(), 0);
}

#[test]
fn a_pin_that_is_refused_when_the_token_returns_is_not_sent_again() {
    let hsm = Hsm::new(1, "");
    let engine = hsm.builder().build().unwrap();
    let key = engine.key("hmac").unwrap();
    // CKR_PIN_INCORRECT.
    hsm.sim.configure("removed=sim-0,fault=C_Login:1+=0xa0").unwrap();
    sign(&key, b"x").unwrap_err();
    hsm.sim.configure("removed=").unwrap();
    wait_for(&engine, 0, Health::GivenUp);
    assert_eq!(hsm.sim.calls_of("C_Login"), 2);
    for _ in 0..100 {
        assert_eq!(sign(&key, b"x").unwrap_err().kind(), ErrorKind::TokenLost);
    }
    assert_eq!(hsm.sim.calls_of("C_Login"), 2);
}

#[test]
fn a_key_that_is_another_when_the_token_returns_is_not_used() {
    let hsm = Hsm::new(1, "");
    let engine = hsm.builder().build().unwrap();
    let held = engine.generate_key("fleeting", KeySpec::Hmac(32)).unwrap();
    let stays = engine.key("hmac").unwrap();
    sign(&held, b"x").unwrap();
    let other = hsm.builder().build().unwrap();
    other.destroy_key("fleeting").unwrap();
    let made = other.generate_key("fleeting", KeySpec::Hmac(32)).unwrap();
    let right = sign(&made, b"x").unwrap();
    hsm.sim.configure("removed=sim-0").unwrap();
    sign(&stays, b"x").unwrap_err();
    hsm.sim.configure("removed=").unwrap();
    wait_for(&engine, 0, Health::Serving);
    sign(&stays, b"x").unwrap();
    assert_eq!(sign(&held, b"x").unwrap_err().kind(), ErrorKind::KeyNotFound);
    assert_eq!(sign(&engine.key("fleeting").unwrap(), b"x").unwrap(), right);
}

#[test]
fn a_key_can_be_opened_while_a_token_that_holds_it_is_lost() {
    let hsm = Hsm::new(2, "");
    let engine = hsm.builder().build().unwrap();
    let random = || engine.random(300).deadline_in(LONG).wait();
    hsm.sim.configure("removed=sim-0").unwrap();
    eventually("the loss is noticed", || {
        // Those that meet it go to the other token.
        random().unwrap();
        health(&engine, 0) == Health::Lost
    });
    let opened = engine.key("hmac").unwrap();
    let right = sign(&opened, b"x").unwrap();
    hsm.sim.configure("removed=").unwrap();
    wait_for(&engine, 0, Health::Serving);
    let again = engine.key("hmac").unwrap();
    // Now the other one: who asked while the first was lost does not know that the two hold the same.
    hsm.sim.configure("removed=sim-1").unwrap();
    eventually("the loss is noticed", || {
        assert_eq!(sign(&again, b"x").unwrap(), right);
        health(&engine, 1) == Health::Lost || sign(&opened, b"x").is_err()
    });
    assert_eq!(sign(&again, b"x").unwrap(), right);
    assert_eq!(sign(&opened, b"x").unwrap_err().kind(), ErrorKind::TokenLost);
}

#[test]
fn what_may_have_been_carried_out_is_done_again_unless_the_caller_forbids_it() {
    let hsm = Hsm::new(1, "");
    // Sessions enough for the retries.
    let engine = hsm.builder().sessions(8).build().unwrap();
    let key = engine.key("hmac").unwrap();
    for limit in [None, Some(LONG)] {
        let request = || key.sign(Hmac::SHA256, b"x").deadline(limit);
        hsm.sim.configure(&format!("fault=C_Sign:1={DEVICE_ERROR}!")).unwrap();
        assert!(request().wait().is_ok());
        hsm.sim.configure(&format!("fault=C_Sign:1={DEVICE_ERROR}!")).unwrap();
        let error = request().at_most_once().wait().unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Device, Outcome::Unknown));
        // Twice is enough, and what came of the first try is not forgotten.
        hsm.sim.configure(&format!("fault=C_Sign:1={DEVICE_ERROR};C_SignInit:2={DEVICE_ERROR}")).unwrap();
        let error = request().wait().unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Device, Outcome::Unknown));
        hsm.sim.configure("fault=").unwrap();
    }
    assert!(request_many(&key).iter().all(Result::is_ok));
}

fn request_many(key: &Key) -> Vec<Result<hsmux::Signature, Error>> {
    key.sign_many(Hmac::SHA256, vec![b"x"; 8]).at_most_once().wait()
}

#[test]
fn a_device_that_fails_everything_is_asked_little_more_than_it_was_given() {
    let hsm = Hsm::new(1, "");
    let engine = hsm.builder().sessions(2).build().unwrap();
    let key = engine.key("hmac").unwrap();
    // CKR_DEVICE_MEMORY from Init: nothing runs.
    hsm.sim.configure("fault=C_SignInit:1+=0x31").unwrap();
    let before = hsm.sim.calls_of("C_SignInit");
    let failed = (0..300_u32).filter(|i| sign(&key, &i.to_be_bytes()).is_err()).count();
    let calls = hsm.sim.calls_of("C_SignInit") - before;
    assert_eq!(failed, 300);
    assert!((300..=302).contains(&calls), "{calls} calls for 300 requests by two sessions");
}

#[test]
fn an_engine_waits_no_longer_than_two_seconds_for_a_token_that_is_back() {
    let hsm = Hsm::new(2, "");
    let engine = hsm.builder().build().unwrap();
    let key = engine.key("hmac").unwrap();
    remove_one(&hsm, &engine, &key, 1);
    let tried = || hsm.sim.calls_of("C_GetSlotList");
    let before = tried();
    eventually("it was looked for several times", || tried() >= before + 8);
    hsm.sim.configure("removed=").unwrap();
    let start = quanta::Instant::now();
    wait_for(&engine, 1, Health::Serving);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[test]
fn a_session_key_of_before_is_gone_and_harms_no_session_and_no_other_key() {
    let hsm = Hsm::new(1, "keys=agree:p256-agree");
    let engine = hsm.builder().sessions(4).build().unwrap();
    let (hmac, agree) = (engine.key("hmac").unwrap(), engine.key("agree").unwrap());
    let point = engine.key("agree").unwrap().public_key_der().unwrap();
    let peer = &point[point.len() - 65..];
    let made = || agree.agree(peer, AgreementKdf::Raw, b"", KeySpec::Hmac(32));
    let old = made().unwrap();
    sign(&old, b"x").unwrap();
    hsm.sim.configure("removed=sim-0").unwrap();
    sign(&hmac, b"x").unwrap_err();
    hsm.sim.configure("removed=").unwrap();
    wait_for(&engine, 0, Health::Serving);
    eventually("all sessions are there", || engine.snapshot().tokens[0].sessions == 4);
    let closed = hsm.sim.calls_of("C_CloseSession");
    for _ in 0..20 {
        let error = sign(&old, b"x").unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::KeyNotFound, Outcome::NotDone));
    }
    assert_eq!(hsm.sim.calls_of("C_CloseSession"), closed);
    let destroyed = hsm.sim.calls_of("C_DestroyObject");
    drop(old);
    let new = made().unwrap();
    // The service thread has had its turn: nothing of the number of the old one was destroyed.
    assert_eq!(hsm.sim.calls_of("C_DestroyObject"), destroyed);
    sign(&new, b"x").unwrap();
    sign(&hmac, b"x").unwrap();
}

#[test]
fn a_service_session_that_is_lost_alone_is_replaced_and_the_token_serves_on() {
    let hsm = Hsm::new(1, "");
    let engine = hsm.builder().sessions(2).build().unwrap();
    let key = engine.key("hmac").unwrap();
    // The first is a request's; when it is replaced the service session is tried, and that is the next.
    hsm.sim.configure("fault=C_Sign:1=session-lost;C_GenerateRandom:1=session-lost").unwrap();
    sign(&key, b"x").unwrap();
    eventually("both are replaced", || {
        hsm.sim.calls_of("C_GenerateRandom") >= 2 && engine.snapshot().tokens[0].sessions == 2
    });
    assert_eq!((engine.snapshot().tokens_lost, hsm.sim.calls_of("C_Login")), (0, 1));
    assert!(engine.key("aes256").is_ok());
}

#[test]
fn a_token_that_comes_back_without_a_key_leaves_it_to_the_others() {
    let hsm = Hsm::new(2, "");
    let engine = hsm.builder().build().unwrap();
    let (shared, stays) = (engine.key("hmac").unwrap(), engine.key("aes256").unwrap());
    let right = sign(&shared, b"x").unwrap();
    // An engine on the second token alone destroys the key there.
    let alone = hsmux::Engine::builder().module(hsm.sim.path()).tokens(["sim-1"]).pin("1234".to_owned());
    alone.build().unwrap().destroy_key("hmac").unwrap();
    hsm.sim.configure("removed=sim-1").unwrap();
    eventually("the loss is noticed", || {
        stays.encrypt(hsmux::AesEcb, vec![0; 16]).deadline_in(LONG).wait().unwrap();
        let _whoever_has_it = sign(&shared, b"x");
        health(&engine, 1) == Health::Lost
    });
    hsm.sim.configure("removed=").unwrap();
    wait_for(&engine, 1, Health::Serving);
    for _ in 0..100 {
        assert_eq!(sign(&shared, b"x").unwrap(), right);
    }
}

#[test]
fn an_engine_stops_while_a_token_is_lost() {
    let hsm = Hsm::new(2, "");
    let engine = hsm.builder().build().unwrap();
    let key = engine.key("hmac").unwrap();
    remove_one(&hsm, &engine, &key, 1);
    assert_eq!(engine.drain(LONG), 0);
    drop((key, engine));
    let finalised = || hsm.sim.calls_of("C_Finalize") == hsm.sim.calls_of("C_Initialize");
    eventually("the module is finalised", finalised);
}

#[test]
fn warm_copies_are_made_again_when_the_token_returns() {
    let hsm = Hsm::new(1, "");
    let engine = hsm.builder().copies(Copies::Required).build().unwrap();
    let key = engine.key("hmac").unwrap();
    let right = sign(&key, b"x").unwrap();
    assert_eq!(engine.snapshot().tokens[0].copies, 1);
    hsm.sim.configure("removed=sim-0").unwrap();
    sign(&key, b"x").unwrap_err();
    hsm.sim.configure("removed=").unwrap();
    wait_for(&engine, 0, Health::Serving);
    assert_eq!(engine.snapshot().tokens[0].copies, 1);
    assert_eq!(sign(&key, b"x").unwrap(), right);
}
