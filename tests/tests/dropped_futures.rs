//! Futures that are dropped at every stage: no session, no room and no request is lost with them.
//!
//! `HSMUX_FAILURES=long` is the form with the numbers of the promise: a million. `scripts/soak.sh --failures` runs it under
//! the address sanitizer too, where a toolchain has that.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails its test")]

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use hsmux::{AesEcb, Engine, ErrorKind, Hmac, Key, pipeline};
use hsmux_tests::figures::by_form;
use hsmux_tests::{Hsm, LONG, eventually, wait_idle};

const TOKENS: usize = 2;
const SESSIONS: usize = 3;
const THREADS: u64 = 4;
/// Futures that one thread keeps before it drops one of them.
const KEPT: usize = 48;
/// Fewer than all threads keep, so that some wait for room.
const REQUESTS_MAX: usize = 150;
/// Requests of a batch, and of a window.
const TOGETHER: usize = 16;

/// Requests of futures that were dropped, by how far they had come; and of those that were answered before.
#[derive(Debug, Default)]
struct Dropped {
    unpolled: u64,
    /// Waiting for room, queued, or running.
    pending: u64,
    /// Answered, and not collected.
    done: u64,
    collected: u64,
}

impl Dropped {
    fn total(&self) -> u64 {
        self.unpolled + self.pending + self.done
    }

    fn add(mut self, other: &Self) -> Self {
        self.unpolled += other.unpolled;
        self.pending += other.pending;
        self.done += other.done;
        self.collected += other.collected;
        self
    }
}

/// A waker that says whether it was woken.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A future that was polled once, and how many requests it stands for.
struct Kept<'a> {
    work: Work<'a>,
    requests: u64,
    woken: Arc<Woken>,
}

enum Work<'a> {
    One(Pin<Box<dyn Future<Output = ()> + 'a>>),
    Window(Pin<Box<dyn Stream<Item = ()> + 'a>>),
}

impl<'a> Kept<'a> {
    /// Polls it; none if it was ready at once.
    fn of(mut work: Work<'a>, requests: usize, dropped: &mut Dropped) -> Option<Self> {
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut context = Context::from_waker(&waker);
        let is_ready = match &mut work {
            Work::One(future) => future.as_mut().poll(&mut context).is_ready(),
            Work::Window(answers) => answers.as_mut().poll_next(&mut context).is_ready(),
        };
        if is_ready {
            dropped.collected += 1;
            return None;
        }
        Some(Self { work, requests: requests as u64, woken })
    }

    fn drop_it(self, dropped: &mut Dropped) {
        let done = self.woken.0.load(Ordering::Relaxed);
        *(if done { &mut dropped.done } else { &mut dropped.pending }) += self.requests;
        drop(self.work);
    }
}

/// Numbers that look random, from a seed (Marsaglia, "Xorshift RNGs", 2003).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// Something to drop: a request, with or without room, a batch of a kind that is put together or not, or a window.
fn work<'a>(mac: &'a Key, aes: &'a Key, dice: &mut Dice) -> (Work<'a>, usize) {
    let block = || vec![7; 16];
    let one = |request: hsmux::Request<'a, hsmux::Sign>| {
        let answer = async { expected(request.await) };
        (Work::One(Box::pin(answer)), 1)
    };
    match dice.below(8) {
        0 => {
            let many = aes.encrypt_many(AesEcb, vec![block(); TOGETHER]).deadline_in(LONG);
            let all = async { many.await.into_iter().for_each(expected) };
            (Work::One(Box::pin(all)), TOGETHER)
        }
        1 => {
            let many = mac.sign_many(Hmac::SHA256, vec![b"many"; TOGETHER]).deadline_in(LONG);
            let all = async { many.await.into_iter().for_each(expected) };
            (Work::One(Box::pin(all)), TOGETHER)
        }
        2 => {
            let requests = (0..TOGETHER).map(move |_| aes.encrypt(AesEcb, block()).deadline_in(LONG));
            let answers = pipeline(stream::iter(requests), TOGETHER.try_into().unwrap()).map(expected);
            (Work::Window(Box::pin(answers)), TOGETHER)
        }
        3 => one(mac.sign(Hmac::SHA256, vec![1; 20_000]).wait_for_room()),
        4 => one(mac.sign(Hmac::SHA256, b"without a deadline").deadline(None).wait_for_room()),
        _ => one(mac.sign(Hmac::SHA256, b"message").deadline_in(LONG)),
    }
}

/// An answer, or a refusal for want of room: nothing else may come of a request that has time.
fn expected<T>(answer: Result<T, hsmux::Error>) {
    if let Err(error) = answer {
        assert_eq!(error.kind(), ErrorKind::Overloaded, "{error}");
    }
}

/// Makes and drops futures until so many requests went with them.
fn drop_many(mac: &Key, aes: &Key, seed: u64, total: u64) -> Dropped {
    let (mut dice, mut kept, mut dropped) = (Dice(seed), Vec::new(), Dropped::default());
    while dropped.total() < total {
        let (work, requests) = work(mac, aes, &mut dice);
        if dice.below(8) == 0 {
            dropped.unpolled += requests as u64;
            continue;
        }
        kept.extend(Kept::of(work, requests, &mut dropped));
        if kept.len() > KEPT {
            let one: Kept<'_> = kept.swap_remove(usize::try_from(dice.below(KEPT as u64)).unwrap());
            one.drop_it(&mut dropped);
        }
    }
    kept.into_iter().for_each(|one| one.drop_it(&mut dropped));
    dropped
}

/// Nothing is lost: every session is idle, and the engine takes and answers as many requests as it may have in flight.
fn assert_whole(hsm: &Hsm, engine: &Engine, key: &Key, open: u64) {
    wait_idle(engine);
    let idle = || engine.snapshot().tokens.iter().all(|token| token.idle == SESSIONS);
    eventually("every session is idle", idle);
    let snapshot = engine.snapshot();
    assert_eq!((snapshot.hung, snapshot.panics, snapshot.tokens_lost, snapshot.queued), (0, 0, 0, 0));
    assert_eq!(hsm.open_sessions(), open);
    hsm.assert_sound();
    hsm.sim.configure("hang=C_Sign:1+").unwrap();
    let request = || key.sign(Hmac::SHA256, b"after").deadline_in(LONG);
    let all: Vec<_> = (0..REQUESTS_MAX).map(|_| request().submit().unwrap()).collect();
    assert_eq!(request().submit().unwrap_err().error.kind(), ErrorKind::Overloaded);
    assert!(hsm.sim.wait_hanging((TOKENS * SESSIONS) as u64, LONG), "a session does nothing");
    hsm.sim.release_hangs();
    all.into_iter().for_each(|pending| assert_eq!(pending.wait().unwrap().len(), 32));
    wait_idle(engine);
}

#[test]
fn futures_dropped_at_every_stage_lose_no_session_and_no_room() {
    let total: u64 = by_form(20_000, 1_000_000);
    let hsm = Hsm::new(TOKENS, "op_us=100,cores=2");
    let engine =
        hsm.builder().sessions(SESSIONS).requests_max(REQUESTS_MAX).hang_limit(LONG).build().unwrap();
    let (mac, aes) = (engine.key("hmac").unwrap(), engine.key("aes256").unwrap());
    let (open, before) = (hsm.open_sessions(), hsm.operations());
    let dropped = std::thread::scope(|scope| {
        let threads: Vec<_> = (1..=THREADS)
            .map(|seed| {
                let (mac, aes) = (&mac, &aes);
                scope.spawn(move || drop_many(mac, aes, seed, total / THREADS))
            })
            .collect();
        let all = threads.into_iter().map(|thread| thread.join().unwrap());
        all.fold(Dropped::default(), |sum, one| sum.add(&one))
    });
    wait_idle(&engine);
    let withdrawn = engine.snapshot().withdrawn;
    println!("{dropped:?}: {withdrawn} while queued; {} operations ran", hsm.operations() - before);
    assert!(dropped.total() >= total && withdrawn > 0, "{dropped:?}");
    assert!(dropped.unpolled > total / 100 && dropped.pending > total / 100 && dropped.done > total / 100);
    assert_whole(&hsm, &engine, &mac, open);
    assert_eq!(engine.drain(LONG), 0);
    drop((mac, aes, engine));
    hsm.wait_closed();
}

#[test]
fn a_future_dropped_while_its_request_runs_costs_nobody_the_session() {
    let times = by_form(50, 2_000);
    let hsm = Hsm::new(TOKENS, "");
    let engine =
        hsm.builder().sessions(SESSIONS).requests_max(REQUESTS_MAX).hang_limit(LONG).build().unwrap();
    let key = engine.key("hmac").unwrap();
    let open = hsm.open_sessions();
    for time in 0..times {
        hsm.sim.configure("hang=C_Sign:1").unwrap();
        let mut running = Box::pin(key.sign(Hmac::SHA256, b"runs").deadline_in(LONG).into_future());
        assert!(running.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        assert!(hsm.sim.wait_hanging(1, LONG), "nothing runs");
        // Inside the module, which writes to the request's memory when it is released.
        match time % 2 {
            0 => drop(running),
            _ => std::thread::scope(|scope| drop(scope.spawn(move || drop(running)))),
        }
        hsm.sim.release_hangs();
        eventually("the call has returned", || hsm.sim.hanging() == 0);
    }
    assert_whole(&hsm, &engine, &key, open);
    assert_eq!(engine.snapshot().withdrawn, 0, "none of them was queued");
    assert_eq!(engine.drain(Duration::from_secs(10)), 0);
    drop((key, engine));
    hsm.wait_closed();
}
