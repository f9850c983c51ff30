//! Deadlines too short to be met, a hundred thousand of them: each is answered, and no session goes with them.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails its test")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt;
use hsmux::{AesEcb, ErrorKind, Key, Outcome, Request, Result};
use hsmux_tests::{Hsm, LONG, eventually, wait_idle};

const TOKENS: usize = 2;
const SESSIONS: usize = 4;
const CALLERS: u64 = 4;
const EACH: u64 = 12_500;
const TINY: Duration = Duration::from_micros(1);

/// How requests ended.
#[derive(Debug, Default)]
struct Ends {
    done: AtomicU64,
    not_done: AtomicU64,
    unknown: AtomicU64,
}

impl Ends {
    fn count(&self, result: Result<hsmux::Ciphertext>) {
        let end = match result {
            Ok(output) => {
                assert_eq!(output.len(), 16);
                &self.done
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{error:?}");
                assert_ne!(error.outcome(), Outcome::Done, "it was done, and its answer is lost");
                if error.outcome() == Outcome::NotDone { &self.not_done } else { &self.unknown }
            }
        };
        end.fetch_add(1, Ordering::Relaxed);
    }

    fn read(&self) -> [u64; 3] {
        [&self.done, &self.not_done, &self.unknown].map(|end| end.load(Ordering::Relaxed))
    }
}

fn request(key: &Key) -> Request<'_, hsmux::Encrypt> {
    key.encrypt(AesEcb, vec![7; 16]).deadline_in(TINY)
}

fn flood(config: &str) {
    let hsm = Hsm::new(TOKENS, config);
    // Each request is a call, so that calls tell how many ran.
    let engine = hsm.builder().sessions(SESSIONS).coalescing(false).holding(false).build().unwrap();
    let key = engine.key("aes256").unwrap();
    let (open, before) = (hsm.open_sessions(), hsm.sim.calls_of("C_Encrypt"));
    let ends = Ends::default();
    std::thread::scope(|scope| {
        for _ in 0..CALLERS {
            scope.spawn(|| (0..EACH).for_each(|_| ends.count(request(&key).wait())));
        }
        for _ in 0..CALLERS {
            scope.spawn(|| {
                let requests = futures::stream::iter(0..EACH).map(|_| request(&key).into_future());
                let counted = requests.buffer_unordered(64).for_each(|result| {
                    ends.count(result);
                    std::future::ready(())
                });
                futures::executor::block_on(counted);
            });
        }
    });
    // Nothing but time was short: whoever has some is served, by every session.
    let pending: Vec<_> =
        (0..200).map(|_| key.encrypt(AesEcb, vec![7; 16]).deadline_in(LONG).submit().unwrap()).collect();
    pending.into_iter().for_each(|pending| ends.count(pending.wait()));
    wait_idle(&engine);

    let [done, not_done, unknown] = ends.read();
    assert_eq!(done + not_done + unknown, 2 * CALLERS * EACH + 200);
    assert!(done >= 200 && not_done > 0, "{ends:?}");
    let ran = hsm.sim.calls_of("C_Encrypt") - before;
    assert!(ran >= done && ran <= done + unknown, "{ran} ran: {ends:?}");
    let snapshot = engine.snapshot();
    assert_eq!((snapshot.hung, snapshot.panics, snapshot.refused), (0, 0, 0));
    // A request that its waiter gives up while a session begins it may be counted by both.
    assert!(snapshot.expired.abs_diff(not_done + unknown) <= 1_000, "{} expired: {ends:?}", snapshot.expired);
    for token in &snapshot.tokens {
        assert_eq!((token.sessions, token.written_off), (SESSIONS, 0), "{}", token.label);
    }
    eventually("all sessions idle", || engine.snapshot().tokens.iter().all(|token| token.idle == SESSIONS));
    assert_eq!(hsm.open_sessions(), open);
    hsm.assert_sound();
    assert_eq!(engine.drain(LONG), 0);
    drop((key, engine));
    hsm.wait_closed();
}

#[test]
fn a_hundred_thousand_deadlines_of_a_microsecond_lose_no_session() {
    flood("null=1");
}

#[test]
fn deadlines_that_pass_inside_the_module_lose_no_session() {
    flood("null=1,op_us=20");
}
