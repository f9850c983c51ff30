//! Tokens that come back while something else goes wrong.

use std::time::Duration;

use hsmux::{AesEcb, ErrorKind, Health, Hmac};
use hsmux_tests::{Hsm, LONG, eventually, health, sign, wait_idle};

#[test]
fn a_token_that_goes_again_while_its_keys_are_listed_comes_back_and_closes_no_others_sessions() {
    let hsm = Hsm::new(1, "reuse=sessions;objects");
    let engine = hsm.builder().build().unwrap();
    let key = engine.key("hmac").unwrap();
    let right = sign(&key, b"x").unwrap();
    hsm.sim.configure("removed=sim-0").unwrap();
    eventually("it is lost", || sign(&key, b"x").is_err() && health(&engine, 0) == Health::Lost);
    // Again, after the login: the new sessions have the numbers of those that went.
    hsm.sim.configure("removed=,fault=C_FindObjects:1=removed-10").unwrap();
    eventually("it serves", || sign(&key, b"x").is_ok_and(|mac| mac == right));
    let logins = hsm.sim.calls_of("C_Login");
    assert!(logins <= 3, "{logins} logins for two returns and the start");
    assert_eq!(hsm.sim.concurrent_use(), 0);
}

#[test]
fn a_login_of_which_nobody_knows_how_it_ended_is_followed_by_one_more_and_no_further() {
    for (logins, health_then) in [(1, Health::Serving), (2, Health::GivenUp)] {
        let hsm = Hsm::new(1, "");
        let engine = hsm.builder().build().unwrap();
        let key = engine.key("hmac").unwrap();
        hsm.sim.configure("removed=sim-0").unwrap();
        eventually("it is lost", || sign(&key, b"x").is_err() && health(&engine, 0) == Health::Lost);
        let faults: Vec<_> = (1..=logins).map(|login| format!("C_Login:{login}=0x30")).collect();
        hsm.sim.configure(&format!("removed=,fault={}", faults.join(";"))).unwrap();
        eventually("its health is settled", || health(&engine, 0) == health_then);
        assert_eq!(hsm.sim.calls_of("C_Login"), 3, "with the first, {logins} of unknown outcome");
    }
}

#[test]
fn a_key_that_cannot_show_that_it_is_the_same_keeps_no_token_out() {
    let hsm = Hsm::new(2, "");
    let engine = hsm.builder().build().unwrap();
    let (mac, aes) = (engine.key("hmac").unwrap(), engine.key("aes256").unwrap());
    let right = sign(&mac, b"x").unwrap();
    hsm.sim.configure("removed=sim-1").unwrap();
    eventually("it is lost", || sign(&mac, b"x").is_ok() && health(&engine, 1) == Health::Lost);
    hsm.sim.configure("removed=,fault=C_EncryptInit:1+=0x5@sim-1/aes256").unwrap();
    eventually("it serves", || health(&engine, 1) == Health::Serving);
    let before = hsm.operations_on("sim-1");
    eventually("with its other keys", || {
        assert_eq!(sign(&mac, b"x").unwrap(), right);
        hsm.operations_on("sim-1") > before + 10
    });
    // That key is used where it is known to be.
    assert!(aes.encrypt(AesEcb, &[0; 16]).deadline_in(LONG).wait().is_ok());
}

#[test]
fn a_key_whose_proof_is_not_finished_leaves_no_operation_active_for_the_next() {
    let hsm = Hsm::new(2, "");
    let engine = hsm.builder().build().unwrap();
    let (mac, aes) = (engine.key("hmac").unwrap(), engine.key("aes256").unwrap());
    sign(&mac, b"x").unwrap();
    hsm.sim.configure("removed=sim-1").unwrap();
    eventually("it is lost", || sign(&mac, b"x").is_ok() && health(&engine, 1) == Health::Lost);
    // Whichever of the two is proven first leaves its operation active.
    hsm.sim.configure("removed=,fault=C_Encrypt:1=0x150@sim-1;C_Sign:1=0x150@sim-1").unwrap();
    eventually("it serves", || health(&engine, 1) == Health::Serving);
    assert!(hsm.sim.answers_of(0x150) > 0);
    hsm.sim.configure("fault=").unwrap();
    aes.encrypt(AesEcb, &[0; 16]).deadline_in(LONG).wait().unwrap();
    assert_eq!(hsm.sim.active_at_init(), 0);
}

#[test]
fn a_module_that_cannot_list_its_slots_while_one_token_is_away_costs_the_others_nothing() {
    let hsm = Hsm::new(2, "");
    let engine = hsm.builder().build().unwrap();
    let key = engine.key("hmac").unwrap();
    hsm.sim.configure("removed=sim-0,fault=C_GetSlotList:1+=0x5").unwrap();
    eventually("it is lost", || sign(&key, b"x").is_ok() && health(&engine, 0) == Health::Lost);
    let listed = hsm.sim.calls_of("C_GetSlotList");
    eventually("it has been looked for several times", || {
        assert!(sign(&key, b"x").is_ok());
        hsm.sim.calls_of("C_GetSlotList") > listed + 4
    });
    assert_eq!((health(&engine, 1), hsm.sim.calls_on("C_Login", "sim-1")), (Health::Serving, 1));
    assert_eq!((engine.snapshot().resets, engine.snapshot().tokens_lost), (0, 1));
}

#[test]
fn a_key_that_is_opened_while_its_token_comes_back_is_found_like_any_other() {
    let hsm = Hsm::new(1, "");
    let engine = hsm.builder().build().unwrap();
    let known = engine.key("hmac").unwrap();
    hsm.sim.configure("removed=sim-0").unwrap();
    eventually("it is lost", || sign(&known, b"x").is_err() && health(&engine, 0) == Health::Lost);
    // The service thread lists the keys, and the key that is opened meanwhile has an object of before.
    hsm.sim.configure("removed=,hang=C_FindObjects:1").unwrap();
    assert!(hsm.sim.wait_hanging(1, LONG));
    let opened = std::thread::scope(|scope| {
        let opening = scope.spawn(|| engine.key("aes256"));
        hsm.sim.release_hangs();
        opening.join().unwrap()
    });
    eventually("it serves", || sign(&known, b"x").is_ok());
    let key = opened.or_else(|_| engine.key("aes256")).unwrap();
    assert!(key.encrypt(AesEcb, &[0; 16]).deadline_in(LONG).wait().is_ok());
}

#[test]
fn keys_that_fail_on_a_token_that_does_well_when_it_is_tried_have_no_module_initialised_anew() {
    let hsm = Hsm::new(1, "");
    let engine = hsm.builder().build().unwrap();
    let (mac, aes) = (engine.key("hmac").unwrap(), engine.key("aes256").unwrap());
    hsm.sim.configure("fault=C_SignInit:1+=0x30;C_EncryptInit:1+=0x30").unwrap();
    // More often than attempts in vain have it initialised anew.
    eventually("it has gone out and come back many times", || {
        let _failed = sign(&mac, b"x");
        let _failed = aes.encrypt(AesEcb, &[0; 16]).deadline_in(LONG).wait();
        engine.snapshot().tokens_lost >= 7
    });
    assert_eq!((engine.snapshot().resets, hsm.sim.calls_of("C_Login")), (0, 1));
}

/// More than a busy machine keeps a thread waiting.
const HANG_LIMIT: Duration = Duration::from_secs(2);

#[test]
fn what_comes_out_of_init_after_its_token_has_been_lost_makes_no_call_with_a_number_that_is_anothers_now() {
    let hsm = Hsm::new(1, "reuse=sessions;objects");
    let engine = hsm.builder().sessions(1).hang_limit(HANG_LIMIT).build().unwrap();
    let key = engine.key("hmac").unwrap();
    let right = sign(&key, b"x").unwrap();
    hsm.sim.configure("fault=C_SignInit:1=hang!").unwrap();
    let hung = key.sign(Hmac::SHA256, b"hangs").deadline_in(LONG).wait().unwrap_err();
    assert_eq!((hung.kind(), hsm.sim.hanging()), (ErrorKind::Hung, 1));
    hsm.sim.configure("removed=sim-0").unwrap();
    eventually("it is lost", || sign(&key, b"x").is_err() && health(&engine, 0) == Health::Lost);
    hsm.sim.configure("removed=").unwrap();
    eventually("it serves", || sign(&key, b"x").is_ok_and(|mac| mac == right));
    wait_idle(&engine);
    let stale = hsm.sim.stale_sessions();
    hsm.sim.release_hangs();
    eventually("it has come back", || engine.snapshot().tokens[0].written_off == 0);
    assert_eq!(hsm.sim.stale_sessions(), stale, "nothing more is asked with that number");
    assert_eq!(sign(&key, b"x").unwrap(), right);
}
