//! Modules that have lost their state, and are finalised and initialised anew.

use std::time::Duration;

use hsmux::{ErrorKind, Health, Outcome};
use hsmux_tests::{Hsm, LONG, eventually, health, sign};

#[test]
fn a_module_that_says_it_is_not_initialised_is_initialised_anew_and_every_token_serves() {
    let hsm = Hsm::new(3, "");
    let engine = hsm.builder().build().unwrap();
    let key = engine.key("hmac").unwrap();
    let right = sign(&key, b"x").unwrap();
    for times in 1..=3 {
        hsm.sim.configure("fault=ops:1=dead").unwrap();
        let error = sign(&key, b"x").err();
        if let Some(error) = error {
            assert_eq!(error.outcome(), Outcome::NotDone);
        }
        eventually("the module is initialised anew", || engine.snapshot().resets == times);
        eventually("all tokens serve", || (0..3).all(|token| health(&engine, token) == Health::Serving));
        assert_eq!(sign(&key, b"x").unwrap(), right);
    }
    for token in &hsm.tokens {
        assert_eq!(hsm.sim.calls_on("C_Login", token), 4, "one login for each time");
    }
    eventually("all sessions are there again", || {
        engine.snapshot().tokens.iter().all(|token| token.sessions == 2)
    });
    assert_eq!(hsm.sim.concurrent_use(), 0);
    assert_eq!(engine.drain(LONG), 0);
}

#[test]
fn a_module_none_of_whose_tokens_comes_back_is_initialised_anew_after_a_while() {
    let hsm = Hsm::new(2, "");
    let engine = hsm.builder().build().unwrap();
    let key = engine.key("hmac").unwrap();
    hsm.sim.configure("removed=sim-0;sim-1").unwrap();
    eventually("both are lost", || {
        sign(&key, b"x").is_err() && (0..2).all(|token| health(&engine, token) == Health::Lost)
    });
    eventually("the module is initialised anew", || engine.snapshot().resets > 0);
    hsm.sim.configure("removed=").unwrap();
    eventually("both serve", || (0..2).all(|token| health(&engine, token) == Health::Serving));
    assert!(sign(&key, b"x").is_ok());
}

#[test]
fn while_another_token_of_the_module_serves_it_is_left_alone() {
    let hsm = Hsm::new(2, "");
    let engine = hsm.builder().build().unwrap();
    let key = engine.key("hmac").unwrap();
    hsm.sim.configure("removed=sim-0").unwrap();
    eventually("it is lost", || sign(&key, b"x").is_ok() && health(&engine, 0) == Health::Lost);
    let listed = hsm.sim.calls_of("C_GetSlotList");
    // Each attempt asks which slots there are, twice; a reset would come after the fifth.
    eventually("it has been looked for many times", || hsm.sim.calls_of("C_GetSlotList") > listed + 14);
    assert_eq!((engine.snapshot().resets, hsm.sim.calls_of("C_Finalize")), (0, 0));
    assert!(sign(&key, b"x").is_ok());
}

#[test]
fn a_call_that_hangs_keeps_its_module_from_being_finalised_until_it_returns() {
    let hsm = Hsm::new(1, "");
    let engine = hsm.builder().hang_limit(Duration::from_millis(50)).build().unwrap();
    let key = engine.key("hmac").unwrap();
    let right = sign(&key, b"x").unwrap();
    hsm.sim.configure("hang=C_Sign:1").unwrap();
    assert_eq!(sign(&key, b"x").unwrap_err().kind(), ErrorKind::Hung);
    hsm.sim.configure("fault=ops:1=dead").unwrap();
    eventually("the module is stuck", || {
        assert!(sign(&key, b"x").is_err());
        health(&engine, 0) == Health::Stuck
    });
    assert_eq!(hsm.sim.calls_of("C_Finalize"), 0, "a thread is inside");
    hsm.sim.release_hangs();
    eventually("it serves", || sign(&key, b"x").is_ok_and(|mac| mac == right));
    assert_eq!(engine.snapshot().resets, 1);
}

#[test]
fn another_engine_on_the_module_keeps_it_from_being_finalised_under_it() {
    let hsm = Hsm::new(2, "");
    let of = |token: usize| hsm.builder().tokens([hsm.tokens[token].clone()]);
    let (first, second) = (of(0).build().unwrap(), of(1).build().unwrap());
    let (key, other) = (first.key("hmac").unwrap(), second.key("hmac").unwrap());
    hsm.sim.configure("removed=sim-0").unwrap();
    eventually("it is lost", || sign(&key, b"x").is_err() && health(&first, 0) == Health::Lost);
    eventually("a reset was wanted, and could not be", || health(&first, 0) == Health::Stuck);
    assert!(sign(&other, b"x").is_ok());
    assert_eq!((first.snapshot().resets, hsm.sim.calls_of("C_Finalize")), (0, 0));
    drop((other, second));
    eventually("once the other has gone it can be", || first.snapshot().resets > 0);
    hsm.sim.configure("removed=").unwrap();
    eventually("it serves", || sign(&key, b"x").is_ok());
}

#[test]
fn where_it_is_turned_off_a_module_is_never_finalised_while_the_engine_lives() {
    let hsm = Hsm::new(1, "");
    let engine = hsm.builder().module_reset(false).build().unwrap();
    let key = engine.key("hmac").unwrap();
    hsm.sim.configure("fault=ops:1=dead").unwrap();
    // The simulator counts no calls while it is not initialised.
    let looked_for = || engine.snapshot().calls.get("C_GetTokenInfo").copied().unwrap_or_default();
    let (error, before) = (sign(&key, b"x").unwrap_err(), looked_for());
    assert_eq!(error.outcome(), Outcome::NotDone);
    eventually("it has been looked for", || looked_for() > before + 4);
    assert_eq!((engine.snapshot().resets, hsm.sim.calls_of("C_Finalize")), (0, 0));
}
