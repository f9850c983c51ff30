//! Drain and drop: whoever waits is answered, and nothing of the module stays open.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails its test")]

use std::time::Duration;

use hsmux::{Error, ErrorKind, Hmac, Key, Outcome, Pending, Sign};
use hsmux_tests::{Hsm, LONG, wait_idle};

fn submit(key: &Key, count: u8) -> Vec<Pending<Sign>> {
    (0..count).map(|i| key.sign(Hmac::SHA256, vec![i]).deadline_in(LONG).submit().unwrap()).collect()
}

fn says(error: &Error) -> (ErrorKind, Outcome) {
    (error.kind(), error.outcome())
}

const DRAINING: (ErrorKind, Outcome) = (ErrorKind::Draining, Outcome::NotDone);

/// Everything that was accepted is answered: signed, or refused because the engine stops. Returns how many of each.
fn answers(pending: Vec<Pending<Sign>>) -> (usize, usize) {
    let total = pending.len();
    let signed = pending.into_iter().map(Pending::wait).filter(|answer| match answer {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(says(error), DRAINING, "{error}");
            false
        }
    });
    let signed = signed.count();
    (signed, total - signed)
}

#[test]
fn a_drain_serves_what_was_accepted_and_takes_nothing_more() {
    let hsm = Hsm::new(2, "op_us=2000,cores=1");
    let engine = hsm.builder().sessions(2).build().unwrap();
    let key = engine.key("hmac").unwrap();
    let pending = submit(&key, 60);
    assert_eq!(engine.drain(LONG), 0);
    assert_eq!(answers(pending), (60, 0));
    for limit in [None, Some(LONG)] {
        let error = key.sign(Hmac::SHA256, b"late").deadline(limit).wait().unwrap_err();
        assert_eq!(says(&error), DRAINING);
    }
    let awaited = futures::executor::block_on(key.sign(Hmac::SHA256, b"late").into_future());
    assert_eq!(says(&awaited.unwrap_err()), DRAINING);
    let refused = key.sign(Hmac::SHA256, b"late").submit().unwrap_err();
    assert_eq!(says(&refused.error), DRAINING);
    assert_eq!(says(&engine.random(8).wait().unwrap_err()), DRAINING);
    assert_eq!(engine.drain(LONG), 0, "a second time");
    hsm.assert_sound();
    drop(refused);
    drop((key, engine));
    hsm.wait_closed();
}

#[test]
fn a_drain_that_runs_out_of_time_answers_the_rest() {
    // Each session signs once or not at all before both are held up.
    let hsm = Hsm::new(1, "op_us=20000,hang=C_Sign:2+");
    let engine = hsm.builder().sessions(2).hang_limit(LONG).build().unwrap();
    let key = engine.key("hmac").unwrap();
    let pending = submit(&key, 200);
    assert!(hsm.sim.wait_hanging(2, LONG));
    assert_eq!(engine.drain(Duration::from_millis(50)), 2);
    hsm.sim.release_hangs();
    let (signed, refused) = answers(pending);
    assert!(refused > 100 && signed > 0, "{signed} signed, {refused} refused");
    drop((key, engine));
    hsm.wait_closed();
}

#[test]
fn a_drain_returns_at_its_limit_with_the_session_that_hangs() {
    let hsm = Hsm::new(1, "hang=C_Sign:1");
    let engine = hsm.builder().sessions(4).hang_limit(LONG).build().unwrap();
    let key = engine.key("hmac").unwrap();
    let pending = submit(&key, 1);
    assert!(hsm.sim.wait_hanging(1, LONG));
    let start = quanta::Instant::now();
    let limit = Duration::from_millis(100);
    assert_eq!(engine.drain(limit), 1);
    assert!(start.elapsed() >= limit && start.elapsed() < LONG, "{:?}", start.elapsed());
    hsm.sim.release_hangs();
    assert_eq!(answers(pending), (1, 0));
    drop((key, engine));
    hsm.wait_closed();
}

#[test]
fn dropping_the_engine_answers_everyone_and_closes_everything() {
    let hsm = Hsm::new(2, "op_us=5000");
    let engine = hsm.builder().sessions(2).hang_limit(LONG).build().unwrap();
    let key = engine.key("hmac").unwrap();
    hsm.sim.configure("hang=C_Sign:1+").unwrap();
    let mut pending = submit(&key, 100);
    assert!(hsm.sim.wait_hanging(4, LONG));
    drop(engine);
    // Those that are inside hold up nobody: the last one is answered while they hang.
    assert_eq!(says(&pending.pop().unwrap().wait().unwrap_err()), DRAINING);
    hsm.sim.release_hangs();
    let (signed, refused) = answers(pending);
    assert!(signed >= 4 && refused > 0, "{signed} signed, {refused} refused");
    assert_eq!(says(&key.sign(Hmac::SHA256, b"late").wait().unwrap_err()), DRAINING);
    hsm.assert_sound();
    drop(key);
    hsm.wait_closed();
}

#[test]
fn a_drain_counts_those_inside_whose_sessions_were_written_off() {
    let hsm = Hsm::new(1, "hang=C_Sign:1");
    let engine = hsm.builder().sessions(2).hang_limit(Duration::from_millis(100)).build().unwrap();
    let key = engine.key("hmac").unwrap();
    let error = submit(&key, 1).pop().unwrap().wait().unwrap_err();
    assert_eq!(says(&error), (ErrorKind::Hung, Outcome::Unknown));
    assert_eq!(engine.drain(Duration::from_millis(50)), 1);
    hsm.sim.release_hangs();
    assert_eq!(engine.drain(LONG), 0, "it waits for them");
    drop((key, engine));
    hsm.wait_closed();
}

#[test]
fn dropping_the_engine_while_a_call_hangs_waits_for_nothing() {
    let hsm = Hsm::new(1, "hang=C_Sign:1");
    let engine = hsm.builder().sessions(2).hang_limit(Duration::from_millis(100)).build().unwrap();
    let key = engine.key("hmac").unwrap();
    let pending = submit(&key, 1);
    assert!(hsm.sim.wait_hanging(1, LONG));
    drop(engine);
    assert_eq!(hsm.sim.hanging(), 1);
    let error = pending.into_iter().next().unwrap().wait().unwrap_err();
    assert_eq!(says(&error), (ErrorKind::Hung, Outcome::Unknown));
    drop(key);
    // One is inside, and the module cannot be finalised under it.
    assert_eq!(hsm.sim.calls_of("C_Finalize"), 0);
    hsm.sim.release_hangs();
    hsm.wait_closed();
}

#[test]
fn an_abandoned_future_is_nobodys_burden_when_the_engine_goes() {
    let hsm = Hsm::new(1, "op_us=1000");
    let engine = hsm.builder().sessions(1).build().unwrap();
    let key = engine.key("hmac").unwrap();
    drop(submit(&key, 50));
    wait_idle(&engine);
    assert_eq!(engine.drain(LONG), 0);
}
