//! Scripts that are played on a loaded simulator, which is called by hand.

#![expect(unsafe_code, reason = "calls of the C interface")]
#![expect(clippy::unwrap_used, reason = "a helper of tests fails its test")]
#![expect(dead_code, unused_imports, reason = "what the helpers can do beside this")]

#[path = "support/raw.rs"]
mod raw;

use std::time::Duration;

use cryptoki_sys as sys;
use p11_sim::{Happened, Playing, Script, Simulated};
use raw::{Raw, Rv};

/// A bound on what should take a moment: only a test that fails waits for it.
const LONG: Duration = Duration::from_secs(30);

/// The device of a script, in use.
struct Device {
    simulated: Simulated,
    raw: Raw,
}

/// Two tokens, and these events.
fn device(events: &str) -> Device {
    let simulated = Script::parse(&format!("tokens = 2\nop = \"1us\"\n{events}")).unwrap().load().unwrap();
    let raw = Raw(simulated.sim().function_list());
    raw.initialise().unwrap();
    Device { simulated, raw }
}

/// An event after so many milliseconds.
fn at(ms: u64, rest: &str) -> String {
    format!("[[at]]\nafter = \"{ms}ms\"\n{}\n", rest.replace("; ", "\n"))
}

impl Device {
    fn session(&self, token: usize) -> Rv<(u64, u64)> {
        let session = self.raw.open(self.raw.slots()?[token])?;
        match self.raw.log_in(session, self.simulated.pin()) {
            Ok(()) | Err(sys::CKR_USER_ALREADY_LOGGED_IN) => {}
            Err(code) => return Err(code),
        }
        Ok((session, self.raw.key(session, "hmac")))
    }

    fn now(&self) -> Duration {
        Duration::from_nanos(self.simulated.sim().now_ns())
    }

    /// Waits for something that no event tells of.
    fn eventually(&self, what: &str, mut condition: impl FnMut() -> bool) {
        let end = self.now() + LONG;
        while !condition() {
            assert!(self.now() < end, "waited in vain until {what}");
            std::thread::yield_now();
        }
    }

    fn wait_happened(&self, playing: &Playing, count: usize) {
        self.eventually("it has happened", || playing.so_far().len() >= count);
    }
}

fn said(happened: &[Happened]) -> Vec<&str> {
    happened.iter().map(|happened| happened.what.as_str()).collect()
}

#[test]
fn a_token_is_lost_and_comes_back_when_the_script_says() {
    let device = device(&(at(30, "what = \"lost\"; token = 0") + &at(500, "what = \"back\"; token = 0")));
    let begun = device.now();
    let playing = device.simulated.play(Duration::ZERO).unwrap();
    device.eventually("one is lost", || device.raw.slots().unwrap().len() == 1);
    assert!(device.now() - begun >= Duration::from_millis(30));
    device.eventually("it is back", || device.raw.slots().unwrap().len() == 2);
    assert!(device.now() - begun >= Duration::from_millis(500));
    device.wait_happened(&playing, 2);
    let happened = playing.stop();
    assert_eq!(said(&happened), ["token sim-0 lost", "token sim-0 back"]);
    assert!(happened[0].at >= Duration::from_millis(30) && happened[1].at >= Duration::from_millis(500));
}

#[test]
fn a_run_that_has_begun_before_has_what_was_due_at_once() {
    let device = device(&(at(3_600_000, "what = \"lost\"; token = 1") + &at(36_000_000, "what = \"lost\"")));
    let playing = device.simulated.play(Duration::from_secs(3_600)).unwrap();
    device.wait_happened(&playing, 1);
    assert_eq!(device.raw.slots().unwrap().len(), 1);
    let happened = playing.stop();
    assert_eq!(said(&happened), ["token sim-1 lost"]);
    assert!(happened[0].at >= Duration::from_secs(3_600));
    assert_eq!(happened[0].to_string(), format!("token sim-1 lost at {:.1} s", happened[0].at.as_secs_f64()));
}

#[test]
fn with_the_end_of_the_play_nothing_is_the_matter_any_more() {
    let events = at(0, "what = \"lost\"; token = 1")
        + &at(0, "what = \"errors\"; code = \"CKR_DEVICE_ERROR\"; calls = \"C_GetTokenInfo\"")
        + &at(0, "what = \"hang\"; calls = \"C_Sign\"")
        + &at(0, "what = \"slower\"; by = 1000000")
        + &at(3_600_000, "what = \"lost\"; token = 0");
    let device = device(&events);
    let (session, key) = device.session(0).unwrap();
    let playing = device.simulated.play(Duration::ZERO).unwrap();
    device.wait_happened(&playing, 4);
    let slot = device.raw.slots().unwrap()[0];
    assert_eq!(device.raw.token_info(slot).unwrap_err(), sys::CKR_DEVICE_ERROR);
    std::thread::scope(|scope| {
        let call = scope.spawn(|| device.raw.mac(session, key, b"x"));
        assert!(device.simulated.sim().wait_hanging(1, LONG));
        assert_eq!(playing.stop().len(), 4);
        assert!(call.join().unwrap().is_ok());
    });
    assert_eq!(device.raw.slots().unwrap().len(), 2);
    assert!(device.raw.token_info(slot).is_ok());
    let begun = device.now();
    device.raw.mac(session, key, b"x").unwrap();
    assert!(device.now() - begun < Duration::from_secs(1));
}

#[test]
fn a_play_that_is_dropped_ends_a_stall() {
    let device = device(&at(0, "what = \"stall\"; for = \"1m\""));
    let begun = device.now();
    let playing = device.simulated.play(Duration::ZERO).unwrap();
    device.wait_happened(&playing, 1);
    std::thread::scope(|scope| {
        let call = scope.spawn(|| device.raw.slots());
        drop(playing);
        assert!(call.join().unwrap().is_ok());
    });
    assert!(device.now() - begun < Duration::from_secs(60));
}

#[test]
fn a_stall_holds_calls_until_it_is_over() {
    let device = device(&at(0, "what = \"stall\"; for = \"100ms\""));
    let begun = device.now();
    let playing = device.simulated.play(Duration::ZERO).unwrap();
    device.wait_happened(&playing, 1);
    device.raw.slots().unwrap();
    assert!(device.now() - begun >= Duration::from_millis(100));
    device.wait_happened(&playing, 2);
    assert_eq!(said(&playing.stop()), ["stall for 100ms", "stall over"]);
}

#[test]
fn each_hang_is_one_call_though_other_rules_come_between_them() {
    let hang = "what = \"hang\"; calls = \"C_Sign\"; for = \"1s\"";
    let other = "what = \"errors\"; code = \"5\"; calls = \"C_GetInfo\"";
    let device = device(&(at(0, hang) + &at(1_100, other) + &at(2_500, hang)));
    let (session, key) = device.session(0).unwrap();
    let playing = device.simulated.play(Duration::ZERO).unwrap();
    let hangs = || {
        let begun = device.now();
        device.raw.mac(session, key, b"x").unwrap();
        device.now() - begun >= Duration::from_secs(1)
    };
    device.wait_happened(&playing, 1);
    assert_eq!([hangs(), hangs()], [true, false]);
    device.wait_happened(&playing, 2);
    assert!(!hangs());
    device.wait_happened(&playing, 3);
    assert_eq!([hangs(), hangs()], [true, false]);
}

#[test]
fn errors_come_for_their_share_of_the_calls_and_for_their_time() {
    let errors = "what = \"errors\"; code = \"CKR_DEVICE_ERROR\"; share = \"20%\"; token = 0; for = \"1h\"";
    let device = device(&(at(0, errors) + &at(3_600_000, "what = \"errors\"; code = \"5\"; for = \"1ms\"")));
    let sessions = [device.session(0).unwrap(), device.session(1).unwrap()];
    let playing = device.simulated.play(Duration::ZERO).unwrap();
    device.wait_happened(&playing, 1);
    let failed = |(session, key)| {
        let fails = (0..1_000).filter(|_| device.raw.mac(session, key, b"x") == Err(sys::CKR_DEVICE_ERROR));
        fails.count()
    };
    let failed = sessions.map(failed);
    assert!((140..=260).contains(&failed[0]) && failed[1] == 0, "{failed:?} of 1000");
    drop(playing.stop());
    let playing = device.simulated.play(Duration::from_secs(3_601)).unwrap();
    device.wait_happened(&playing, 4);
    assert_eq!(device.raw.mac(sessions[0].0, sessions[0].1, b"x").map(drop), Ok(()));
    assert_eq!(said(&playing.stop()).last(), Some(&"no more CKR_GENERAL_ERROR"));
}
