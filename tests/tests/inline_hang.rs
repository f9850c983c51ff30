//! Callers that run their requests themselves while a token hangs: nobody can free those inside, the others go on.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hsmux::{ErrorKind, Hmac, Outcome};
use hsmux_tests::{Hsm, LONG, eventually, wait_idle};

/// More than a busy machine keeps a thread waiting: a call of a worker that was only preempted is not to be written off.
const HANG_LIMIT: Duration = Duration::from_secs(2);

/// Ends the callers, however the test ends.
struct End<'a> {
    hsm: &'a Hsm,
    stop: &'a AtomicBool,
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.hsm.sim.release_hangs();
    }
}

/// Counts of what each caller was answered.
type Answered = [AtomicU64; CALLERS];

const CALLERS: usize = 100;

fn counts(answered: &Answered) -> Vec<u64> {
    answered.iter().map(|count| count.load(Ordering::Relaxed)).collect()
}

/// Until each token of these has served so many more, and all callers but so many have been answered as often.
fn wait_for_progress(hsm: &Hsm, tokens: &[&str], answered: &Answered, held_max: usize) {
    const EACH: u64 = 20;
    let served = || tokens.iter().map(|token| hsm.sim.calls_on("C_Sign", token)).collect::<Vec<_>>();
    let (served_before, before) = (served(), counts(answered));
    let behind = |before: &[u64], after: &[u64]| {
        before.iter().zip(after).filter(|(before, after)| **after < **before + EACH).count()
    };
    eventually("the callers go on", || {
        behind(&before, &counts(answered)) <= held_max && behind(&served_before, &served()) == 0
    });
}

#[test]
fn a_hundred_inline_callers_go_on_with_three_tokens_while_the_fourth_hangs() {
    const ROUNDS: usize = 2;
    // A session for each caller: hardly any is queued, and the token can catch as many callers as it has sessions,
    // and with those that replace the ones of workers.
    const SESSIONS: usize = 25;
    const CAUGHT_MAX: usize = SESSIONS + 4;
    let hsm = Hsm::new(4, "op_us=1000,cores=2");
    let engine = hsm.builder().sessions(SESSIONS).deadline(None).hang_limit(HANG_LIMIT).build().unwrap();
    let key = engine.key("hmac").unwrap();
    let open = hsm.open_sessions();
    let (stop, answered, hung) =
        (AtomicBool::new(false), [const { AtomicU64::new(0) }; CALLERS], AtomicU64::new(0));
    std::thread::scope(|scope| {
        // Or a test that fails would wait for its callers for ever.
        let _end = End { hsm: &hsm, stop: &stop };
        for answered in &answered {
            let (key, stop, hung) = (&key, &stop, &hung);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    match key.sign(Hmac::SHA256, b"inline").wait() {
                        Ok(mac) => assert_eq!(mac.len(), 32),
                        // Who found every session taken was queued, and was inside with a worker.
                        Err(error) => {
                            let end = (error.kind(), error.outcome());
                            assert_eq!(end, (ErrorKind::Hung, Outcome::Unknown), "{error}");
                            hung.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for _ in 0..ROUNDS {
            wait_for_progress(&hsm, &["sim-0", "sim-1", "sim-2", "sim-3"], &answered, 0);
            hsm.sim.configure("hang=C_Sign:1+@sim-1").unwrap();
            assert!(hsm.sim.wait_hanging(1, LONG), "nothing hung");
            wait_for_progress(&hsm, &["sim-0", "sim-2", "sim-3"], &answered, CAUGHT_MAX);
            // Until it is known that they hang, and then no more.
            assert!(!hsm.sim.wait_hanging(CAUGHT_MAX as u64 + 1, 2 * HANG_LIMIT), "more calls hang than may");
            wait_for_progress(&hsm, &["sim-0", "sim-2", "sim-3"], &answered, CAUGHT_MAX);
            hsm.sim.release_hangs();
            eventually("all calls have returned", || hsm.sim.hanging() == 0);
        }
    });
    // Everything ended, and nothing is lost.
    let whole = || {
        let snapshot = engine.snapshot();
        snapshot.tokens.iter().all(|token| (token.sessions, token.written_off) == (SESSIONS, 0))
    };
    eventually("every token has its sessions", whole);
    wait_idle(&engine);
    let snapshot = engine.snapshot();
    assert_eq!(snapshot.panics, 0);
    assert_eq!(snapshot.hung, hung.load(Ordering::Relaxed));
    eventually("no session more or less is open", || hsm.open_sessions() == open);
    hsm.assert_sound();
    assert_eq!(engine.drain(LONG), 0);
}

#[test]
fn callers_do_not_walk_into_a_token_that_hangs_and_come_back_when_it_does_not() {
    let hsm = Hsm::new(2, "null=1");
    let limit = Duration::from_millis(100);
    let engine = hsm.builder().sessions(4).deadline(None).hang_limit(limit).build().unwrap();
    let key = engine.key("hmac").unwrap();
    // A new thread has no session that it had last, and begins at the first token.
    let probe = || key.sign(Hmac::SHA256, b"probe").wait().map(drop);
    hsm.sim.configure("hang=C_Sign:1+@sim-0").unwrap();
    std::thread::scope(|scope| {
        let _end = End { hsm: &hsm, stop: &AtomicBool::new(false) };
        let mut caught = vec![scope.spawn(probe)];
        assert!(hsm.sim.wait_hanging(1, LONG));
        // When the watcher has seen it, nothing tells: a few may walk in before, on a machine that stalls.
        while !hsm.sim.wait_hanging(caught.len() as u64 + 1, 10 * limit) {
            let inside = caught.len() as u64;
            let other = scope.spawn(probe);
            eventually("it is served, or inside", || other.is_finished() || hsm.sim.hanging() > inside);
            if hsm.sim.hanging() == inside {
                other.join().unwrap().unwrap();
                break;
            }
            caught.push(other);
            assert!(caught.len() < 4, "every session of the token hangs");
        }
        let inside = hsm.sim.hanging();
        // One after the other: who found no session of the other token idle would be queued, and a worker of the one
        // that hangs might take it.
        for _ in 0..20 {
            let other = scope.spawn(probe);
            eventually("it is served", || {
                assert_eq!(hsm.sim.hanging(), inside, "another one walked in");
                other.is_finished()
            });
            other.join().unwrap().unwrap();
        }
        assert_eq!((hsm.sim.hanging(), caught.iter().any(|caught| caught.is_finished())), (inside, false));
        assert_eq!(engine.snapshot().hung, 0, "a caller's thread is nobody's to write off");
        hsm.sim.release_hangs();
        caught.into_iter().for_each(|caught| caught.join().unwrap().unwrap());
        let before = hsm.sim.calls_on("C_Sign", "sim-0");
        eventually("the first token is used again", || {
            scope.spawn(probe).join().unwrap().unwrap();
            hsm.sim.calls_on("C_Sign", "sim-0") > before
        });
    });
    hsm.assert_sound();
    assert_eq!(engine.drain(LONG), 0);
}
