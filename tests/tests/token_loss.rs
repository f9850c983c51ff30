//! A token is lost and comes back, again and again, under load: no caller notices, and each return costs one login.
//!
//! `HSMUX_FAILURES=long` is the form with the bounds of the promise: a thousand times.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests fail them and say what they measured"
)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hsmux::{Engine, Error, Health, Hmac, Key};
use hsmux_tests::figures::{Times, by_form, let_pass};
use hsmux_tests::{Hsm, LONG, eventually, wait_idle};
use quanta::Instant;

const TOKENS: usize = 4;
const SESSIONS: usize = 2;
/// More than the sessions of the three tokens that are left, so that some always wait.
const CALLERS: usize = 12;
/// Rerouted, and back.
const REROUTED_MAX: Duration = Duration::from_secs(1);
const BACK_MAX: Duration = Duration::from_secs(5);

/// What callers saw until they were told to stop: how long each request took, and what failed.
fn load(key: &Key, limit: Duration, stop: &AtomicBool) -> (Times, Vec<Error>) {
    let one = |caller: usize| {
        let (mut times, mut failed) = (Times::default(), Vec::new());
        while !stop.load(Ordering::Relaxed) {
            let started = Instant::now();
            let request = key.sign(Hmac::SHA256, b"message").deadline_in(limit);
            let answer = match caller.is_multiple_of(2) {
                true => request.wait(),
                false => futures::executor::block_on(request.into_future()),
            };
            times.push(started.elapsed());
            failed.extend(answer.err());
        }
        (times, failed)
    };
    std::thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS).map(|caller| scope.spawn(move || one(caller))).collect();
        let all = callers.into_iter().map(|caller| caller.join().unwrap());
        all.fold((Times::default(), Vec::new()), |mut all, (times, failed)| {
            all.0.extend(times);
            all.1.extend(failed);
            all
        })
    })
}

/// Four times the p99 of this load while nothing fails; on a busy machine no less than a stall takes.
fn deadline(key: &Key) -> Duration {
    let stop = AtomicBool::new(false);
    let (times, failed) = std::thread::scope(|scope| {
        let loading = scope.spawn(|| load(key, LONG, &stop));
        let_pass(by_form(Duration::from_millis(500), Duration::from_secs(5)));
        stop.store(true, Ordering::Relaxed);
        loading.join().unwrap()
    });
    assert!(failed.is_empty(), "{:?}", failed.first());
    println!("before: {times}");
    (4 * times.quantile(0.99)).max(by_form(Duration::from_millis(500), Duration::ZERO))
}

/// What one loss took: until nothing was sent to the token any more, and from when it was there again until it served.
struct Loss {
    rerouted: Duration,
    back: Duration,
}

fn lose(hsm: &Hsm, engine: &Engine, time: usize) -> Loss {
    let token = time % TOKENS;
    let health = || engine.snapshot().tokens[token].health;
    let sessions = || engine.snapshot().tokens[token].sessions;
    let served = || hsm.sim.calls_on("C_Sign", &format!("sim-{token}"));
    // Between two calls, or in the middle of one, which then may have been carried out.
    let how = match (time / TOKENS).is_multiple_of(2) {
        true => format!("removed=sim-{token}"),
        false => format!("fault=ops:1=removed@sim-{token}"),
    };
    let started = Instant::now();
    hsm.sim.configure(&how).unwrap();
    eventually("the loss is noticed", || health() == Health::Lost);
    let rerouted = started.elapsed();
    // Away for long enough to be looked for in vain, most times.
    let_pass(Duration::from_millis(17 * (time as u64 % 8)));
    hsm.sim.configure("fault=,removed=").unwrap();
    let started = Instant::now();
    eventually("the token has its sessions again", || health() == Health::Serving && sessions() == SESSIONS);
    // The calls before may have been the engine's own, by which it finds its keys again.
    let before = served();
    eventually("the token serves again", || served() > before);
    Loss { rerouted, back: started.elapsed() }
}

#[test]
fn a_token_lost_again_and_again_costs_no_error_and_one_login_for_each_return() {
    let times = by_form(12, 1_000);
    let hsm = Hsm::new(TOKENS, &format!("op_us=20000,cores={SESSIONS}"));
    let engine = hsm.builder().sessions(SESSIONS).build().unwrap();
    let key = engine.key("hmac").unwrap();
    let limit = deadline(&key);
    let stop = AtomicBool::new(false);
    let (losses, (served, failed)) = std::thread::scope(|scope| {
        let loading = scope.spawn(|| load(&key, limit, &stop));
        let losses =
            scope.spawn(|| (0..times).map(|time| lose(&hsm, &engine, time)).collect::<Vec<_>>()).join();
        stop.store(true, Ordering::Relaxed);
        (losses.unwrap(), loading.join().unwrap())
    });
    let rerouted: Times = losses.iter().map(|loss| loss.rerouted).collect();
    let back: Times = losses.iter().map(|loss| loss.back).collect();
    println!("rerouted after: {rerouted}");
    println!("back after: {back}");
    println!("requests, with a deadline of {limit:.1?}: {served}; {} failed", failed.len());
    assert!(failed.is_empty(), "{} of {}: {:?}", failed.len(), served.len(), failed.first());
    assert!(rerouted.max() <= REROUTED_MAX, "{rerouted}");
    assert!(back.max() <= BACK_MAX, "{back}");
    // The first few returns of each wait for no more than two short pauses: a token that is looked for finds its sessions.
    let typical = by_form(Duration::from_millis(800), BACK_MAX);
    assert!(back.quantile(0.5) <= typical, "{back}");
    assert_eq!(engine.snapshot().tokens_lost, times as u64);
    for token in &hsm.tokens {
        let logins = hsm.sim.calls_on("C_Login", token);
        assert_eq!(logins, 1 + (times / TOKENS) as u64, "one at first, and one for each return of {token}");
    }
    assert_eq!(hsm.sim.concurrent_use(), 0);
    wait_idle(&engine);
    eventually("all sessions are there", || {
        engine.snapshot().tokens.iter().all(|token| token.sessions == SESSIONS)
    });
    assert_eq!(engine.drain(LONG), 0);
}
