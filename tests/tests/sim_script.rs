//! Engines on simulated devices to which something happens by a script, under a small load.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails its test")]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hsmux::{Engine, Error, ErrorKind, Health, Hmac, Key};
use hsmux_tests::{LONG, eventually, health};
use p11_sim::{Playing, Script, Simulated};
use quanta::Instant;

const CALLERS: usize = 4;

/// A device of two tokens to which this happens, and an engine on it.
fn begin(events: &str) -> (Simulated, Engine) {
    let script = format!("tokens = 2\nop = \"200us\"\n{events}");
    let device = Script::parse(&script).unwrap().load().unwrap();
    let builder = Engine::builder().module(device.module()).init_args(device.init_args());
    let builder = builder.tokens(device.tokens().to_vec()).pin(device.pin().to_owned());
    let engine = builder.sessions(2).build().unwrap();
    (device, engine)
}

/// An event after so many milliseconds.
fn at(ms: u64, rest: &str) -> String {
    format!("[[at]]\nafter = \"{ms}ms\"\n{}\n", rest.replace("; ", "\n"))
}

/// What the load came to.
#[derive(Debug, Default)]
struct Load {
    stop: AtomicBool,
    done: AtomicU64,
    failed: AtomicU64,
}

impl Load {
    /// Keeps some callers asking for as long as the other runs.
    fn during<R>(&self, key: &Key, run: impl FnOnce() -> R) -> R {
        /// Stops the callers also if the other panics, so that its test ends.
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        std::thread::scope(|scope| {
            (0..CALLERS).for_each(|_| drop(scope.spawn(|| self.ask(key))));
            let _stop = Stop(&self.stop);
            run()
        })
    }

    fn ask(&self, key: &Key) {
        while !self.stop.load(Ordering::Relaxed) {
            let counter = if sign(key).is_ok() { &self.done } else { &self.failed };
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until so many more requests are done.
    fn wait_more(&self, more: u64) {
        let before = self.done.load(Ordering::Relaxed);
        eventually("requests are done", || self.done.load(Ordering::Relaxed) >= before + more);
    }
}

fn sign(key: &Key) -> Result<(), Error> {
    key.sign(Hmac::SHA256, b"message").deadline_in(LONG).wait().map(drop)
}

fn wait_happened(playing: &Playing, count: usize) {
    eventually("it has happened", || playing.so_far().len() >= count);
}

fn said(playing: Playing) -> Vec<String> {
    playing.stop().into_iter().map(|happened| happened.what).collect()
}

#[test]
fn the_share_of_a_lost_token_moves_to_the_other_and_comes_back() {
    let (device, engine) =
        begin(&(at(100, "what = \"lost\"; token = 0") + &at(2_500, "what = \"back\"; token = 0")));
    let key = engine.key("hmac").unwrap();
    let served = |token: usize| device.sim().calls_on("C_Sign", &device.tokens()[token]);
    let grows = |token: usize| {
        let before = served(token);
        eventually("the token serves", || served(token) >= before + 20);
    };
    let load = Load::default();
    let said = load.during(&key, || {
        (0..2).for_each(grows);
        let playing = device.play(Duration::ZERO).unwrap();
        wait_happened(&playing, 1);
        eventually("it is lost", || health(&engine, 0) == Health::Lost || playing.so_far().len() == 2);
        let before = served(0);
        grows(1);
        load.wait_more(20);
        let after = served(0);
        assert!(after == before || playing.so_far().len() == 2, "a lost token served {}", after - before);
        wait_happened(&playing, 2);
        grows(0);
        said(playing)
    });
    assert_eq!(said, ["token sim-0 lost", "token sim-0 back"]);
    assert_eq!(load.failed.load(Ordering::Relaxed), 0, "another token served");
    assert_eq!(engine.snapshot().tokens_lost, 1);
    assert_eq!(engine.drain(LONG), 0);
}

#[test]
fn tokens_that_are_all_lost_stay_so_although_the_module_is_initialised_anew() {
    let (device, engine) = begin(&at(0, "what = \"lost\""));
    let key = engine.key("hmac").unwrap();
    let playing = device.play(Duration::ZERO).unwrap();
    wait_happened(&playing, 1);
    let lost = || (0..2).all(|token| health(&engine, token) == Health::Lost);
    eventually("both are lost", || sign(&key).is_err() && lost());
    eventually("the module is initialised anew", || engine.snapshot().resets > 0);
    assert!(sign(&key).is_err() && lost());
    assert_eq!(said(playing), ["all tokens lost"]);
    eventually("both serve", || (0..2).all(|token| health(&engine, token) == Health::Serving));
    assert!(sign(&key).is_ok());
}

#[test]
fn a_stall_delays_every_request_and_costs_none() {
    const STALL: Duration = Duration::from_millis(300);
    let (device, engine) = begin(&at(0, "what = \"stall\"; for = \"300ms\""));
    let key = engine.key("hmac").unwrap();
    let load = Load::default();
    let took = load.during(&key, || {
        load.wait_more(20);
        let begun = Instant::now();
        let playing = device.play(Duration::ZERO).unwrap();
        wait_happened(&playing, 1);
        sign(&key).unwrap();
        let took = begun.elapsed();
        assert_eq!(said(playing)[0], "stall for 300ms");
        took
    });
    assert!(took >= STALL, "{took:?}");
    assert_eq!(load.failed.load(Ordering::Relaxed), 0);
    assert_eq!(engine.snapshot().tokens_lost, 0);
}

#[test]
fn a_call_that_hangs_holds_one_request_and_no_other() {
    let (device, engine) = begin(&at(0, "what = \"hang\"; calls = \"C_Sign\""));
    let key = engine.key("hmac").unwrap();
    let load = Load::default();
    load.during(&key, || {
        let playing = device.play(Duration::ZERO).unwrap();
        assert!(device.sim().wait_hanging(1, LONG));
        load.wait_more(50);
        assert_eq!(device.sim().hanging(), 1);
        drop(playing);
        eventually("it has returned", || device.sim().hanging() == 0);
    });
    assert_eq!(load.failed.load(Ordering::Relaxed), 0);
}

#[test]
fn errors_end_with_their_time() {
    let errors = "what = \"errors\"; code = \"0x7\"; calls = \"C_Sign\"; for = \"1h\"";
    let (device, engine) = begin(&at(0, errors));
    let key = engine.key("hmac").unwrap();
    let playing = device.play(Duration::ZERO).unwrap();
    wait_happened(&playing, 1);
    let error = sign(&key).unwrap_err();
    assert_eq!((error.kind(), device.sim().answers_of(7) > 0), (ErrorKind::Internal, true), "{error}");
    drop(playing);
    let playing = device.play(Duration::from_secs(3_601)).unwrap();
    wait_happened(&playing, 2);
    eventually("it signs", || sign(&key).is_ok());
    assert_eq!(said(playing), ["0x7 from all of C_Sign for 1h", "no more 0x7"]);
}
