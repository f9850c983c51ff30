//! A module whose other half is a process, p11-kit's server: it is killed under load and started again, and stands still
//! for a while. Service resumes without a restart of this process.
//!
//! `HSMUX_FAILURES=long` is the form with more rounds, and the bounds of a machine that does nothing else.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails its test")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hsmux::{Copies, Engine, ErrorKind, Health, Hmac, Key};
use hsmux_tests::eventually;
use hsmux_tests::figures::{Times, by_form, let_pass};
use quanta::Instant;
use softhsm_fixtures::RemoteModule;

const CALLERS: usize = 4;
/// The deadline of a request.
const LIMIT: Duration = Duration::from_secs(1);

/// What callers have been answered.
#[derive(Default)]
struct Answered {
    signed: AtomicU64,
    failed: AtomicU64,
}

impl Answered {
    fn signed(&self) -> u64 {
        self.signed.load(Ordering::Relaxed)
    }

    fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }
}

/// Signs until told to stop; what failed, by kind. Each request is answered in time, whatever becomes of the server.
fn sign(key: &Key, right: &[u8], answered: &Answered, stop: &AtomicBool) -> BTreeMap<&'static str, u64> {
    let mut failed = BTreeMap::new();
    while !stop.load(Ordering::Relaxed) {
        let started = Instant::now();
        let answer = key.sign(Hmac::SHA256, b"message").deadline_in(LIMIT).wait();
        let late = started.elapsed().saturating_sub(LIMIT);
        assert!(late <= by_form(Duration::from_secs(2), Duration::from_millis(100)), "{late:?} late");
        match answer {
            Ok(mac) => {
                assert_eq!(mac.as_ref(), right);
                answered.signed.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                let known = [
                    ErrorKind::Device,
                    ErrorKind::TokenLost,
                    ErrorKind::SessionLost,
                    ErrorKind::Module,
                    ErrorKind::DeadlineExceeded,
                ];
                assert!(known.contains(&error.kind()), "{error}");
                *failed.entry(error.kind().name()).or_default() += 1;
                answered.failed.fetch_add(1, Ordering::Relaxed);
                // Who is refused at once does not ask again at once.
                std::thread::park_timeout(Duration::from_millis(1));
            }
        }
    }
    failed
}

/// Kills the server and starts another; how long after that service resumed. None if a call hangs in the client for ever,
/// which keeps it from being finalised: seen after 2 of about 80 kills with two sessions, which share the client's one
/// connection (p11-kit 0.24.1).
fn kill(remote: &mut RemoteModule, engine: &Engine, answered: &Answered, round: usize) -> Option<Duration> {
    let before = answered.failed();
    remote.kill().unwrap();
    // Every other time it is there again before anybody has missed it.
    if round.is_multiple_of(2) {
        eventually("its end is noticed", || answered.failed() > before);
        let_pass(Duration::from_millis(300));
    }
    remote.start().unwrap();
    resumed(engine, answered)
}

/// Has the server stand still; how long after that service resumed.
fn pause(remote: &RemoteModule, engine: &Engine, answered: &Answered) -> Option<Duration> {
    let before = answered.failed();
    remote.pause().unwrap();
    eventually("deadlines pass", || answered.failed() > before);
    remote.resume().unwrap();
    resumed(engine, answered)
}

fn resumed(engine: &Engine, answered: &Answered) -> Option<Duration> {
    let (started, before) = (Instant::now(), answered.signed());
    let is_stuck = || {
        let token = &engine.snapshot().tokens[0];
        token.health == Health::Stuck && token.written_off > 0
    };
    eventually("requests are served again", || answered.signed() > before + 20 || is_stuck());
    if is_stuck() {
        return None;
    }
    let resumed = started.elapsed();
    // A server that dies again at once is looked for ever more rarely: it is to be seen to serve.
    let_pass(Duration::from_millis(500));
    Some(resumed)
}

#[test]
fn service_resumes_when_the_server_of_a_remote_module_is_killed_and_comes_back() {
    let rounds = by_form(3, 50);
    // The server has it from here, and keys that are the same after every start.
    let provider = p11_sim::cdylib_path().unwrap();
    let Some(mut remote) = RemoteModule::for_tests(&provider) else { return };
    let engine = Engine::builder().module(remote.client()).tokens(["sim-0"]).pin("1234".to_owned());
    let engine = engine.copies(Copies::Off).sessions(2).build().unwrap();
    let key = engine.key("hmac").unwrap();
    let right = key.sign(Hmac::SHA256, b"message").wait().unwrap().as_bytes().to_vec();
    let (stop, answered) = (AtomicBool::new(false), Answered::default());
    let (killed, paused, failed) = std::thread::scope(|scope| {
        let callers: Vec<_> =
            (0..CALLERS).map(|_| scope.spawn(|| sign(&key, &right, &answered, &stop))).collect();
        let rounds = scope.spawn(|| {
            eventually("requests are served", || answered.signed() > 20);
            // What hangs in the client hangs for ever: the first one ends it.
            let kills = (0..rounds).map_while(|round| kill(&mut remote, &engine, &answered, round));
            let killed: Times = kills.collect();
            let pauses = if killed.len() == rounds { rounds.div_ceil(3) } else { 0 };
            let paused: Times = (0..pauses).map_while(|_| pause(&remote, &engine, &answered)).collect();
            (killed, paused)
        });
        let measured = rounds.join();
        stop.store(true, Ordering::Relaxed);
        let failed: Vec<_> = callers.into_iter().map(|caller| caller.join().unwrap()).collect();
        let (killed, paused) = measured.unwrap();
        (killed, paused, failed)
    });
    println!("{} signed; failed, by caller: {failed:?}", answered.signed());
    println!("service after a kill: {killed}");
    println!("service after a pause: {paused}");
    let most = by_form(Duration::from_secs(20), Duration::from_secs(5));
    assert!(killed.max() <= most && paused.max() <= most, "{killed}, {paused}");
    assert_eq!(engine.snapshot().panics, 0);
    let hung = engine.snapshot().tokens[0].written_off;
    if killed.len() < rounds {
        println!(
            "after {} of {rounds} kills {hung} calls hang in the client: only a new process helps",
            killed.len()
        );
    }
    assert_eq!(engine.drain(Duration::from_secs(1)), hung);
}
