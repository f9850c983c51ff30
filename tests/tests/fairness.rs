//! Many lanes on few sessions: nothing starves, nothing is passed by many, and no call is made that need not be.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Wake};

use futures::{FutureExt, StreamExt};
use hsmux::{AesEcb, AesGcm, Ecdsa, Hmac, Priority};
use hsmux_tests::{Hsm, LONG, eventually};

/// Every call that a token has had since the engine and its keys were there.
fn assert_two_calls_each(hsm: &Hsm, before: (u64, u64)) {
    let (calls, operations) = (hsm.calls() - before.0, hsm.operations() - before.1);
    assert_eq!(calls, 2 * operations, "Init and the operation, no more");
}

#[test]
fn of_half_a_thousand_in_flight_on_sixty_four_sessions_none_is_passed_by_many() {
    const IN_FLIGHT: usize = 512;
    const REQUESTS: usize = 20_000;
    let hsm = Hsm::new(1, "null=1,op_us=1000,cores=16");
    let engine = hsm.builder().sessions(64).build().unwrap();
    let key = engine.key("hmac").unwrap();
    let before = (hsm.calls(), hsm.operations());
    // The clock is how many were answered: a machine that stalls holds up all of them, and reorders none.
    let answered = AtomicU64::new(0);
    let requests = futures::stream::iter(0..REQUESTS).map(|_| {
        let request = key.sign(Hmac::SHA256, b"message").deadline_in(LONG).into_future();
        async {
            let before = answered.load(Ordering::Relaxed);
            request.await.unwrap();
            answered.fetch_add(1, Ordering::Relaxed) - before
        }
    });
    let passed = requests.buffer_unordered(IN_FLIGHT).collect::<Vec<_>>();
    let mut passed = futures::executor::block_on(passed);
    passed.sort_unstable();
    assert_eq!(passed.len(), REQUESTS);
    assert_two_calls_each(&hsm, before);
    let [p50, p99] = [REQUESTS / 2, REQUESTS / 100 * 99].map(|rank| passed[rank]);
    println!("answered meanwhile: p50 {p50}, p99 {p99}, max {}", passed[REQUESTS - 1]);
    assert!(p99 <= 3 * p50, "{p99} were answered before one of a hundred, {p50} in the middle");
    hsm.assert_sound();
    assert_eq!(engine.drain(LONG), 0);
}

/// A waker that writes down how many operations the token had been asked for when it was called.
struct Woken {
    hsm: Arc<Hsm>,
    operations: AtomicU64,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.operations.store(self.hsm.operations(), Ordering::Relaxed);
    }
}

#[test]
fn an_answer_does_not_wait_for_the_operation_that_the_session_runs_next() {
    const REQUESTS: u64 = 4;
    let hsm = Arc::new(Hsm::new(1, "op_us=5000"));
    let engine = hsm.builder().sessions(1).hang_limit(LONG).build().unwrap();
    let key = engine.key("hmac").unwrap();
    let request = || key.sign(Hmac::SHA256, b"message").deadline_in(LONG);
    request().wait().unwrap();
    let before = hsm.operations();
    // The first stays in the token until the others queue, so that those after the second have waited for an operation.
    hsm.sim.configure("hang=C_Sign:1").unwrap();
    let mut flying = Vec::new();
    for _ in 0..REQUESTS {
        let woken = Arc::new(Woken { hsm: Arc::clone(&hsm), operations: AtomicU64::new(0) });
        let mut pending = request().submit().unwrap();
        assert!(pending.poll_unpin(&mut Context::from_waker(&Arc::clone(&woken).into())).is_pending());
        assert!(hsm.sim.wait_hanging(1, LONG));
        flying.push((pending, woken));
    }
    hsm.sim.release_hangs();
    let operations = |woken: &Woken| woken.operations.load(Ordering::Relaxed);
    eventually("all are woken", || flying.iter().all(|(_, woken)| operations(woken) != 0));
    // Each by the session's own thread, before it asked for the next one.
    let woken: Vec<_> = flying.iter().map(|(_, woken)| operations(woken) - before).collect();
    assert_eq!(woken, (1..=REQUESTS).collect::<Vec<_>>());
    flying.into_iter().for_each(|(pending, _)| drop(pending.wait().unwrap()));
    assert_eq!(engine.drain(LONG), 0);
}

#[test]
fn a_flood_of_high_priority_starves_neither_normal_nor_low() {
    const FLOOD: u64 = 4_000;
    const LONE: usize = 20;
    let hsm = Hsm::new(1, "null=1,op_us=200,cores=2,interface=2.40");
    let engine = hsm.builder().sessions(2).build().unwrap();
    let (flood, lone) = (engine.key("p384").unwrap(), engine.key("aes256").unwrap());
    let before = (hsm.calls(), hsm.operations());
    let flooded = AtomicU64::new(0);
    futures::executor::block_on(async {
        let requests = (0..FLOOD).map(|_| {
            let request = flood.sign(Ecdsa::P384_SHA384, b"flood").priority(Priority::High).deadline_in(LONG);
            let request = request.into_future();
            async {
                request.await.unwrap();
                flooded.fetch_add(1, Ordering::Relaxed);
            }
        });
        let flood = futures::future::join_all(requests);
        let lone = futures::future::join_all([Priority::Normal, Priority::Low].map(|priority| {
            let (lone, flooded) = (&lone, &flooded);
            async move {
                // One after the other: a class that is served only when nothing else waits is last each time.
                for i in 0..LONE {
                    let request = match i % 2 {
                        0 => lone.encrypt(AesGcm::new(), b"lone").priority(priority).deadline_in(LONG).await,
                        _ => lone.encrypt(AesEcb, vec![7; 16]).priority(priority).deadline_in(LONG).await,
                    };
                    request.unwrap();
                }
                let meanwhile = flooded.load(Ordering::Relaxed);
                println!("{priority:?}: {LONE} served while {meanwhile} of {FLOOD} of the flood were");
                assert!(meanwhile < FLOOD, "{priority:?} came last");
            }
        }));
        futures::join!(flood, lone);
    });
    assert_eq!(flooded.load(Ordering::Relaxed), FLOOD);
    assert_two_calls_each(&hsm, before);
    hsm.assert_sound();
    assert_eq!(engine.drain(LONG), 0);
}

#[test]
fn a_flooding_tenant_and_a_dear_key_do_not_hold_up_a_cheap_one() {
    const FLOOD: u64 = 2_000;
    let hsm = Hsm::new(2, "null=1,op_us=300,cores=1");
    let engine = hsm.builder().sessions(1).build().unwrap();
    let (dear, cheap) = (engine.key("rsa4096").unwrap(), engine.key("hmac").unwrap());
    let before = (hsm.calls(), hsm.operations());
    let flooded = AtomicU64::new(0);
    futures::executor::block_on(async {
        let flood = (0..FLOOD).map(|i| {
            // Half of it on the very key that the other tenant asks for.
            let request = match i % 2 {
                0 => dear.sign(hsmux::RsaPss::SHA256, b"flood"),
                _ => cheap.sign(Hmac::SHA256, b"flood"),
            };
            let request = request.tenant(1).deadline_in(LONG).into_future();
            async {
                request.await.unwrap();
                flooded.fetch_add(1, Ordering::Relaxed);
            }
        });
        let lone = async {
            for _ in 0..20 {
                cheap.sign(Hmac::SHA256, b"lone").tenant(2).deadline_in(LONG).await.unwrap();
            }
            flooded.load(Ordering::Relaxed)
        };
        let (_, meanwhile) = futures::join!(futures::future::join_all(flood), lone);
        println!("20 of one tenant were served while {meanwhile} of {FLOOD} of the other were");
        assert!(meanwhile < FLOOD / 2, "it waited for {meanwhile} of {FLOOD}");
    });
    assert_two_calls_each(&hsm, before);
    hsm.assert_sound();
    assert_eq!(engine.drain(LONG), 0);
}

#[test]
fn every_way_to_ask_costs_two_calls_and_every_session_has_one_user() {
    const EACH: usize = 300;
    // Without messages, which take about one call each and have tests of their own.
    let hsm = Hsm::new(2, "interface=2.40");
    let engine = hsm.builder().sessions(3).build().unwrap();
    let (mac, aes) = (engine.key("hmac").unwrap(), engine.key("aes256").unwrap());
    let before = (hsm.calls(), hsm.operations());
    std::thread::scope(|scope| {
        for limit in [None, Some(LONG), None, Some(LONG)] {
            let (mac, aes) = (&mac, &aes);
            scope.spawn(move || {
                for _ in 0..EACH {
                    drop(mac.sign(Hmac::SHA256, b"x").deadline(limit).wait().unwrap());
                    let sealed = aes.encrypt(AesGcm::new(), b"x").deadline(limit).wait().unwrap().into_vec();
                    let opened = aes.decrypt(AesGcm::new(), sealed).deadline(limit).wait().unwrap();
                    assert_eq!(opened.as_bytes(), b"x");
                }
            });
        }
        let many = mac.sign_many(Hmac::SHA256, [b"x"; EACH]).wait();
        many.into_iter().for_each(|answer| drop(answer.unwrap()));
    });
    assert_eq!(hsm.operations() - before.1, (4 * 3 * EACH + EACH) as u64);
    assert_two_calls_each(&hsm, before);
    hsm.assert_sound();
    assert_eq!(engine.drain(LONG), 0);
}
