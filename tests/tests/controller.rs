//! Sessions in use follow what pays: on devices with many cores, with one, with few sessions, and when sessions hang.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails its test")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt;
use hsmux::{Adjustment, Engine, ErrorKind, Hmac, Key, ScopeSnapshot, Sessions};
use hsmux_tests::{Hsm, LONG, eventually, wait_idle};

const IN_FLIGHT: usize = 256;

/// Far more operations than the controller needs on a quiet machine: a test that comes so far has failed.
const OPERATIONS_MAX: usize = 60_000;

fn scope(engine: &Engine) -> ScopeSnapshot {
    engine.snapshot().scopes.remove(0)
}

fn decided(scope: &ScopeSnapshot, what: Adjustment) -> u64 {
    scope.adjustments.iter().find(|(other, _)| *other == what).unwrap().1
}

/// Keeps requests in flight until something holds of the first scope; says how many it took.
fn load_until(engine: &Engine, key: &Key, mut holds: impl FnMut(&ScopeSnapshot) -> bool) -> usize {
    let request = |_| key.sign(Hmac::SHA256, b"message").deadline_in(LONG).into_future();
    let requests = futures::stream::iter(0..OPERATIONS_MAX).map(request).buffer_unordered(IN_FLIGHT);
    let mut done = 0;
    let mut came = false;
    futures::executor::block_on(async {
        let mut requests = std::pin::pin!(requests);
        while let Some(answer) = requests.next().await {
            answer.unwrap();
            done += 1;
            if done % 64 == 0 && holds(&scope(engine)) {
                came = true;
                break;
            }
        }
    });
    assert!(came, "in vain for {done} operations: {:?}", scope(engine));
    wait_idle(engine);
    done
}

#[test]
fn a_device_with_64_cores_gets_64_sessions() {
    let hsm = Hsm::new(1, "null=1,op_us=20000,cores=64");
    let engine = hsm.builder().sessions(Sessions::AUTO).build().unwrap();
    let key = engine.key("hmac").unwrap();
    let begin = scope(&engine);
    assert_eq!((begin.floor, begin.ceiling, begin.tokens), (1, 64, vec!["sim-0".to_owned()]));
    assert!((2..=8).contains(&begin.in_use), "{}", begin.in_use);
    // It is measured with each number on the way before it goes on.
    let done = load_until(&engine, &key, |scope| scope.in_use == 64);
    eventually("the last ones are opened", || engine.snapshot().tokens[0].sessions == 64);
    println!("64 sessions after {done} operations");
    let snapshot = engine.snapshot();
    assert!(decided(&snapshot.scopes[0], Adjustment::Grew) >= 2);
    let line = format!("hsmux_sessions_in_use{{scope=\"sim-0\"}} {}\n", snapshot.scopes[0].in_use);
    assert!(snapshot.to_prometheus().contains(&line));
    hsm.assert_sound();
    assert_eq!(engine.drain(LONG), 0);
    drop((key, engine));
    hsm.wait_closed();
}

#[test]
fn behind_one_core_one_session_stays_and_the_others_are_parked() {
    let hsm = Hsm::new(1, "null=1,op_us=1000,cores=1");
    let engine = hsm.builder().sessions(1..=64).build().unwrap();
    let key = engine.key("hmac").unwrap();
    load_until(&engine, &key, |scope| scope.in_use == 1 && decided(scope, Adjustment::Shrank) > 0);
    // Nothing is in flight, so that it decides nothing more; a session may still be opened that was asked for before.
    eventually("those out of use are parked", || {
        let snapshot = engine.snapshot();
        let (token, in_use) = (&snapshot.tokens[0], snapshot.scopes[0].in_use);
        token.sessions >= 2 && token.parked == token.sessions.saturating_sub(in_use)
    });
    assert!(hsm.open_sessions() >= 2 + 2, "they stay open");
    hsm.assert_sound();
    assert_eq!(engine.drain(LONG), 0, "parked sessions are closed too");
    drop((key, engine));
    hsm.wait_closed();
}

#[test]
fn inline_callers_take_from_the_same_sessions() {
    let hsm = Hsm::new(1, "null=1,op_us=1000,cores=1");
    let engine = hsm.builder().sessions(1..=16).deadline(None).build().unwrap();
    let key = engine.key("hmac").unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope_of_threads| {
        for _ in 0..8 {
            scope_of_threads.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    key.sign(Hmac::SHA256, b"message").wait().unwrap();
                }
            });
        }
        eventually("one session is left", || scope(&engine).in_use == 1);
        stop.store(true, Ordering::Relaxed);
    });
    hsm.assert_sound();
    assert_eq!(engine.drain(LONG), 0);
}

#[test]
fn a_token_that_gives_no_more_sessions_is_not_asked_again_and_again() {
    // Two of them are the engine's own. The token says how many there are, but the operator has said otherwise.
    let hsm = Hsm::new(1, "null=1,op_us=20000,cores=64,sessions=14");
    let engine = hsm.builder().sessions(1..=64).build().unwrap();
    let key = engine.key("hmac").unwrap();
    load_until(&engine, &key, |scope| decided(scope, Adjustment::Refused) > 0);
    let snapshot = engine.snapshot();
    assert_eq!(snapshot.tokens[0].sessions, 12);
    assert!(snapshot.scopes[0].in_use <= 12, "{:?}", snapshot.scopes);
    let refused = hsm.sim.calls_of("C_OpenSession") - 14;
    assert!((1..=2).contains(&refused), "{refused} refused");
    hsm.assert_sound();
    assert_eq!(engine.drain(LONG), 0);
}

#[test]
fn by_itself_it_leaves_sessions_to_other_applications() {
    let hsm = Hsm::new(1, "null=1,op_us=20000,cores=64,sessions=16");
    let engine = hsm.builder().sessions(Sessions::AUTO).build().unwrap();
    assert_eq!(scope(&engine).ceiling, 10);
    let key = engine.key("hmac").unwrap();
    load_until(&engine, &key, |scope| scope.in_use == 10);
    eventually("the last ones are opened", || hsm.open_sessions() == 12);
    assert_eq!(engine.drain(LONG), 0);
}

#[test]
fn tokens_of_one_scope_are_counted_together_and_each_has_a_session() {
    let hsm = Hsm::new(3, "null=1,op_us=1000,cores=1");
    let builder = hsm.builder().sessions(1..=8).scope("sim-0", "rack").scope("sim-2", "rack");
    let engine = builder.build().unwrap();
    let scopes = engine.snapshot().scopes;
    let names: Vec<_> = scopes.iter().map(|scope| (scope.name.as_str(), scope.tokens.len())).collect();
    assert_eq!(names, [("rack", 2), ("sim-1", 1)]);
    assert_eq!((scopes[0].floor, scopes[0].ceiling), (2, 16));
    let key = engine.key("hmac").unwrap();
    load_until(&engine, &key, |scope| scope.in_use <= 3);
    let before: Vec<_> = hsm.tokens.iter().map(|token| hsm.operations_on(token)).collect();
    assert!(before.iter().all(|&operations| operations > 0), "{before:?}");
    hsm.assert_sound();
    assert_eq!(engine.drain(LONG), 0);
}

#[test]
fn a_fixed_number_is_left_alone() {
    let hsm = Hsm::new(1, "null=1,op_us=1000,cores=1");
    let engine = hsm.builder().sessions(3).build().unwrap();
    let key = engine.key("hmac").unwrap();
    let mut looks = 0;
    load_until(&engine, &key, |scope| {
        looks += 1;
        assert_eq!((scope.in_use, scope.floor, scope.ceiling), (3, 3, 3));
        looks == 16
    });
    let scope = scope(&engine);
    assert!(scope.adjustments.iter().all(|(_, count)| *count == 0), "{scope:?}");
    assert_eq!(engine.snapshot().tokens[0].parked, 0);
    assert_eq!(engine.drain(LONG), 0);
}

#[test]
fn a_parked_session_takes_the_place_of_one_that_hangs() {
    let hsm = Hsm::new(1, "null=1,op_us=1000,cores=1");
    let engine = hsm.builder().sessions(1..=4).hang_limit(Duration::from_secs(2)).build().unwrap();
    let key = engine.key("hmac").unwrap();
    load_until(&engine, &key, |scope| scope.in_use == 1);
    // None can be opened in its stead.
    hsm.sim.configure("hang=C_Sign:1;C_OpenSession:1+").unwrap();
    let hangs = key.sign(Hmac::SHA256, b"hangs").deadline_in(LONG).submit().unwrap();
    assert!(hsm.sim.wait_hanging(1, LONG));
    let behind = key.sign(Hmac::SHA256, b"behind").deadline_in(LONG).submit().unwrap();
    assert_eq!(hangs.wait().unwrap_err().kind(), ErrorKind::Hung);
    behind.wait().unwrap();
    hsm.sim.release_hangs();
    assert_eq!(engine.drain(LONG), 0);
}
