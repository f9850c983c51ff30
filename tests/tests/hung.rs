//! Calls that hang on a worker: who waits is answered, the session is replaced, and what comes back late is dropped.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails its test")]

use std::time::Duration;

use hsmux::{Engine, Error, ErrorKind, Hmac, Outcome, Retry};
use hsmux_tests::{Hsm, LONG, eventually, wait_idle};

/// More than a busy machine keeps a thread waiting: a call that only was preempted is not to be written off.
const HANG_LIMIT: Duration = Duration::from_secs(2);

/// Hung calls of one token that are replaced by new sessions.
const WRITTEN_OFF_MAX: usize = 4;

fn says(error: &Error) -> (ErrorKind, Retry, Outcome) {
    (error.kind(), error.retry(), error.outcome())
}

/// (sessions, written off) of a token.
fn seats(engine: &Engine, token: usize) -> (usize, usize) {
    let snapshot = engine.snapshot();
    (snapshot.tokens[token].sessions, snapshot.tokens[token].written_off)
}

#[test]
fn a_call_that_hangs_is_answered_at_the_limit_and_its_session_replaced() {
    let hsm = Hsm::new(1, "");
    let engine = hsm.builder().sessions(2).hang_limit(HANG_LIMIT).build().unwrap();
    let key = engine.key("hmac").unwrap();
    let (open, closed) = (hsm.open_sessions(), hsm.sim.calls_of("C_CloseSession"));
    hsm.sim.configure("hang=C_Sign:1").unwrap();
    let start = quanta::Instant::now();
    let error = key.sign(Hmac::SHA256, b"hangs").deadline_in(LONG).wait().unwrap_err();
    assert_eq!(says(&error), (ErrorKind::Hung, Retry::Later, Outcome::Unknown));
    assert!(start.elapsed() >= HANG_LIMIT, "{:?} is before the limit", start.elapsed());
    assert_eq!((engine.snapshot().hung, hsm.sim.hanging()), (1, 1));
    eventually("another session stands in for it", || seats(&engine, 0) == (2, 1));
    for i in 0..20_u8 {
        assert_eq!(key.sign(Hmac::SHA256, vec![i]).deadline_in(LONG).wait().unwrap().len(), 32);
    }
    assert_eq!(hsm.open_sessions(), open + 1);
    hsm.sim.release_hangs();
    eventually("it has come back and is closed", || seats(&engine, 0) == (2, 0));
    eventually("its session is closed", || hsm.sim.calls_of("C_CloseSession") == closed + 1);
    assert_eq!(hsm.open_sessions(), open);
    wait_idle(&engine);
    assert_eq!(engine.snapshot().panics, 0);
    hsm.assert_sound();
    assert_eq!(engine.drain(LONG), 0);
    drop((key, engine));
    hsm.wait_closed();
}

/// Deadline of the first try.
const FIRST_LIMIT: Duration = Duration::from_millis(20);

/// Asks, with ever more time, until a session has begun the request when its deadline passes: on a machine that
/// stalls it may pass before. Returns that error, and how many deadlines have passed.
fn caught<T>(ask: impl Fn(Duration) -> Result<T, Error>) -> (Error, u64) {
    let tries = (0..8).map(|tries| (ask(FIRST_LIMIT * 2_u32.pow(tries)), u64::from(tries) + 1));
    let ends = tries.map(|(answer, tries)| (answer.map(drop).unwrap_err(), tries));
    let mut begun = ends.filter(|(error, _)| error.outcome() != Outcome::NotDone);
    begun.next().unwrap()
}

#[test]
fn a_deadline_before_the_hang_limit_answers_first_and_the_session_is_kept() {
    let hsm = Hsm::new(1, "");
    let engine = hsm.builder().sessions(2).hang_limit(LONG).build().unwrap();
    let key = engine.key("hmac").unwrap();
    hsm.sim.configure("hang=C_Sign:1;C_Sign:2").unwrap();
    let request = |limit| key.sign(Hmac::SHA256, b"hangs").deadline_in(limit);
    let (awaited, first) = caught(|limit| futures::executor::block_on(request(limit).into_future()));
    let (blocking, second) = caught(|limit| request(limit).wait());
    for error in [awaited, blocking] {
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::DeadlineExceeded, Outcome::Unknown));
    }
    assert_eq!(hsm.sim.hanging(), 2);
    // Both sessions are inside: what is queued behind them did not run.
    let behind = request(FIRST_LIMIT).wait().unwrap_err();
    assert_eq!((behind.kind(), behind.outcome()), (ErrorKind::DeadlineExceeded, Outcome::NotDone));
    hsm.sim.release_hangs();
    assert_eq!(key.sign(Hmac::SHA256, b"after").deadline_in(LONG).wait().unwrap().len(), 32);
    wait_idle(&engine);
    let snapshot = engine.snapshot();
    assert_eq!((snapshot.hung, snapshot.expired), (0, first + second + 1));
    assert_eq!((seats(&engine, 0), hsm.sim.calls_of("C_CloseSession")), ((2, 0), 0));
    hsm.assert_sound();
    assert_eq!(engine.drain(LONG), 0);
}

#[test]
fn the_rest_of_a_turn_is_served_by_others_when_one_of_it_hangs() {
    const REQUESTS: usize = 50;
    let hsm = Hsm::new(1, "");
    let engine = hsm.builder().sessions(1).hang_limit(HANG_LIMIT).build().unwrap();
    let key = engine.key("hmac").unwrap();
    let sign = || key.sign_many(Hmac::SHA256, [b"message"; REQUESTS]).deadline_in(LONG).wait();
    // The one session learns that these are cheap, so that a turn is of many.
    (0..20).flat_map(|_| sign()).for_each(|signed| drop(signed.unwrap()));
    hsm.sim.configure("hang=C_Sign:5").unwrap();
    let (errors, signed): (Vec<_>, Vec<_>) = sign().into_iter().partition(Result::is_err);
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert_eq!(says(errors[0].as_ref().unwrap_err()), (ErrorKind::Hung, Retry::Later, Outcome::Unknown));
    let wanted = &signed[0].as_ref().unwrap()[..];
    assert!(signed.iter().all(|mac| &mac.as_ref().unwrap()[..] == wanted));
    // The hung thread keeps nobody's room, though it has answered some of the turn.
    eventually("all room is given back", || engine.snapshot().in_flight == 0);
    assert_eq!(hsm.sim.hanging(), 1);
    hsm.sim.release_hangs();
    eventually("it has come back", || seats(&engine, 0) == (1, 0));
    wait_idle(&engine);
    hsm.assert_sound();
    assert_eq!(engine.drain(LONG), 0);
}

#[test]
fn a_token_on_which_more_calls_hang_than_may_is_lost_and_the_other_goes_on() {
    const SESSIONS: usize = 2;
    let hsm = Hsm::new(2, "keys=lone:hmac@sim-0");
    let engine = hsm.builder().sessions(SESSIONS).hang_limit(HANG_LIMIT).build().unwrap();
    let (lone, both) = (engine.key("lone").unwrap(), engine.key("hmac").unwrap());
    let opened = hsm.sim.calls_on("C_OpenSession", "sim-0");
    hsm.sim.configure("hang=C_Sign:1+@sim-0").unwrap();
    let caught = SESSIONS + WRITTEN_OFF_MAX;
    let pending: Vec<_> =
        (0..caught + 5).map(|_| lone.sign(Hmac::SHA256, b"x").deadline_in(LONG).submit().unwrap()).collect();
    let mut ends: Vec<_> = pending.into_iter().map(|pending| says(&pending.wait().unwrap_err())).collect();
    let hung = (ErrorKind::Hung, Retry::Later, Outcome::Unknown);
    let lost = (ErrorKind::TokenLost, Retry::Later, Outcome::NotDone);
    ends.retain(|&end| end != hung);
    assert_eq!(ends, [lost; 5], "as many hang as the token had and was given sessions");
    assert_eq!(hsm.sim.calls_on("C_OpenSession", "sim-0") - opened, WRITTEN_OFF_MAX as u64);
    assert_eq!((seats(&engine, 0), seats(&engine, 1)), ((0, caught), (SESSIONS, 0)));
    // At once: no call is made for it, and no limit waited for.
    let error = lone.sign(Hmac::SHA256, b"x").deadline(None).wait().unwrap_err();
    assert_eq!(says(&error), lost);
    assert_eq!(hsm.sim.hanging(), caught as u64);
    for i in 0..50_u8 {
        let limit = (i % 2 == 0).then_some(LONG);
        assert_eq!(both.sign(Hmac::SHA256, vec![i]).deadline(limit).wait().unwrap().len(), 32);
    }
    hsm.sim.release_hangs();
    eventually("those inside have come back", || seats(&engine, 0).1 == 0);
    wait_idle(&engine);
    hsm.assert_sound();
    assert_eq!(engine.drain(LONG), 0);
    drop((lone, both, engine));
    hsm.wait_closed();
}
