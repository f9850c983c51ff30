//! One token of four hangs completely: deadlines are kept, the others lose nothing, and the threads that are given up
//! are few.
//!
//! `HSMUX_FAILURES=long` is the form with the bounds of the promise.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests fail them and say what they measured"
)]

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hsmux::{Engine, Error, ErrorKind, Hmac, Key};
use hsmux_tests::figures::{Times, by_form, let_pass};
use hsmux_tests::{Hsm, LONG, eventually, wait_idle};
use quanta::Instant;

const TOKENS: usize = 4;
const SESSIONS: usize = 2;
/// Hung calls of one token that are replaced by new sessions.
const WRITTEN_OFF_MAX: usize = 4;
/// The token that hangs.
const HANGS: usize = 1;
/// More callers than the sessions that are left: every session always has work.
const BLOCKING: usize = 12;
const AWAITING: usize = 24;
const LIMIT: Duration = Duration::from_millis(500);
/// Of requests that only the token can serve that hangs: each of them is late by as much as the engine is.
const LONE_LIMIT: Duration = Duration::from_millis(50);
const LONE_BLOCKING: usize = 4;
const LONE_AWAITING: usize = 12;

/// How requests of one caller ended.
#[derive(Default)]
struct Ends {
    done: u64,
    /// By how much each answer came after its deadline.
    late: Times,
    others: Vec<Error>,
}

impl Ends {
    fn count<T>(&mut self, answer: Result<T, Error>, started: Instant, limit: Duration) {
        self.late.push(started.elapsed().saturating_sub(limit));
        match answer {
            Ok(_) => self.done += 1,
            Err(error) => self.others.push(error),
        }
    }

    fn add(mut self, other: Self) -> Self {
        self.done += other.done;
        self.late.extend(other.late);
        self.others.extend(other.others);
        self
    }
}

/// Callers on threads of their own and callers of one executor, who ask again when they are answered.
fn load(key: &Key, stop: &AtomicBool, (blocking, awaiting): (usize, usize), limit: Duration) -> Ends {
    let request = || key.sign(Hmac::SHA256, b"message").deadline_in(limit);
    let blocked = || {
        let mut ends = Ends::default();
        while !stop.load(Ordering::Relaxed) {
            let started = Instant::now();
            ends.count(request().wait(), started, limit);
        }
        ends
    };
    let awaited = || {
        futures::executor::block_on(futures::future::join_all((0..awaiting).map(|_| async {
            let mut ends = Ends::default();
            while !stop.load(Ordering::Relaxed) {
                let started = Instant::now();
                ends.count(request().await, started, limit);
            }
            ends
        })))
    };
    std::thread::scope(|scope| {
        let awaited = scope.spawn(awaited);
        let blocked: Vec<_> = (0..blocking).map(|_| scope.spawn(blocked)).collect();
        let blocked = blocked.into_iter().map(|thread| thread.join().unwrap());
        blocked.chain(awaited.join().unwrap()).fold(Ends::default(), Ends::add)
    })
}

/// What each token has served in this time, a second.
fn throughput(hsm: &Hsm, time: Duration) -> [f64; TOKENS] {
    let served = || std::array::from_fn(|token| hsm.sim.calls_on("C_Sign", &format!("sim-{token}")));
    let (started, before): (_, [u64; TOKENS]) = (Instant::now(), served());
    let_pass(time);
    let (elapsed, after) = (started.elapsed(), served());
    std::array::from_fn(|token| (after[token] - before[token]) as f64 / elapsed.as_secs_f64())
}

/// What the tokens that do not hang have served together.
fn of_others(throughput: [f64; TOKENS]) -> f64 {
    throughput.iter().enumerate().filter(|(token, _)| *token != HANGS).map(|(_, served)| served).sum()
}

/// Threads of the token that hang and were given up.
fn written_off(engine: &Engine) -> usize {
    engine.snapshot().tokens[HANGS].written_off
}

/// The others' throughput while the token hangs, of what it was just before; and how many of its threads were given up.
fn round(hsm: &Hsm, engine: &Engine, number: usize) -> (f64, usize) {
    let time = by_form(Duration::from_millis(700), Duration::from_secs(3));
    let hung_for = by_form(Duration::from_millis(2_500), Duration::from_secs(20));
    eventually("all sessions serve", || throughput(hsm, LIMIT / 10)[HANGS] > 0.0);
    let before = of_others(throughput(hsm, time));
    // Every call but Init and login; or those of requests only, so that sessions are replaced, and hang in their turn.
    let calls = if number.is_multiple_of(2) { "C_Sign" } else { "ops" };
    hsm.sim.configure(&format!("hang={calls}:1+@sim-{HANGS}")).unwrap();
    assert!(hsm.sim.wait_hanging(SESSIONS as u64, LONG), "nothing hung");
    let during = of_others(throughput(hsm, hung_for));
    let given_up = written_off(engine);
    hsm.sim.release_hangs();
    eventually("the token has its sessions again", || {
        let token = &engine.snapshot().tokens[HANGS];
        (token.sessions, token.written_off) == (SESSIONS, 0)
    });
    (during / before, given_up)
}

fn assert_kept(ends: &Ends, who: &str, allowed: &[ErrorKind]) {
    println!("{who}: {} done, {} not; late by, {}", ends.done, ends.others.len(), ends.late);
    let other = ends.others.iter().find(|error| !allowed.contains(&error.kind()));
    assert!(other.is_none(), "{who}: {other:?}");
    let (p999, max) = by_form((500, 3_000), (10, 100));
    assert!(ends.late.quantile(0.999) <= Duration::from_millis(p999), "{who}: {}", ends.late);
    assert!(ends.late.max() <= Duration::from_millis(max), "{who}: {}", ends.late);
}

#[test]
fn deadlines_and_the_other_tokens_throughput_are_kept_while_one_of_four_hangs() {
    let rounds: Range<usize> = 0..by_form(1, 5);
    let hang_limit = by_form(Duration::from_secs(1), Duration::from_secs(5));
    let hsm = Hsm::new(TOKENS, &format!("op_us=4000,cores={SESSIONS},keys=lone:hmac@sim-{HANGS}"));
    let engine = hsm.builder().sessions(SESSIONS).hang_limit(hang_limit).build().unwrap();
    let (shared, lone) = (engine.key("hmac").unwrap(), engine.key("lone").unwrap());
    let stop = AtomicBool::new(false);
    let (rounds, others, lone) = std::thread::scope(|scope| {
        let others = scope.spawn(|| load(&shared, &stop, (BLOCKING, AWAITING), LIMIT));
        let lone = scope.spawn(|| load(&lone, &stop, (LONE_BLOCKING, LONE_AWAITING), LONE_LIMIT));
        let rounds =
            scope.spawn(|| rounds.map(|number| round(&hsm, &engine, number)).collect::<Vec<_>>()).join();
        stop.store(true, Ordering::Relaxed);
        hsm.sim.release_hangs();
        (rounds.unwrap(), others.join().unwrap(), lone.join().unwrap())
    });
    let (mut kept, given_up): (Vec<_>, Vec<_>) = rounds.into_iter().unzip();
    kept.sort_by(f64::total_cmp);
    println!("throughput of the others while one hangs, of that before, round by round: {kept:.3?}");
    println!("threads given up in each round: {given_up:?}");
    let least = by_form(0.7, 0.95);
    assert!(kept[kept.len() / 2] >= least, "{kept:?}");
    // Each was inside already, or replaces one that is.
    let most = SESSIONS + WRITTEN_OFF_MAX;
    assert!(given_up.iter().all(|&count| (SESSIONS..=most).contains(&count)), "{given_up:?}");
    // Those that the token has caught, and no more.
    assert_kept(&others, "requests that others can serve", &[ErrorKind::DeadlineExceeded, ErrorKind::Hung]);
    let met = others.others.len();
    assert!(met <= kept.len() * most, "{met} have met the token that hangs");
    let allowed = [ErrorKind::DeadlineExceeded, ErrorKind::Hung, ErrorKind::TokenLost];
    assert_kept(&lone, "requests that it alone can serve", &allowed);
    wait_idle(&engine);
    assert_eq!(engine.snapshot().panics, 0);
    assert_eq!(hsm.sim.concurrent_use(), 0);
    assert_eq!(engine.drain(LONG), 0);
    drop((shared, engine));
}
