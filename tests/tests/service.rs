//! What an operator changes while the engine runs: tiers, tokens in and out of service, limits.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails its test")]

use std::io::Write;
use std::time::Duration;

use hsmux::{Config, ErrorKind, Hmac, Key, Outcome, Pending, Sign, Tier};
use hsmux_tests::{Hsm, LONG, eventually};
use tempfile::NamedTempFile;

/// So far that a test on a machine that stalls sees no help from there.
const FAR: Tier = Tier { rank: 1, extra_latency: LONG };

const NEARER: Tier = Tier { rank: 1, extra_latency: Duration::from_millis(5) };

fn submit(key: &Key, count: u8) -> Vec<Pending<Sign>> {
    (0..count).map(|i| key.sign(Hmac::SHA256, vec![i]).deadline_in(LONG).submit().unwrap()).collect()
}

fn sign_one(key: &Key, limit: Option<Duration>) {
    key.sign(Hmac::SHA256, b"one").deadline(limit).wait().unwrap();
}

#[test]
fn a_far_token_is_left_alone_while_a_near_one_keeps_up() {
    let hsm = Hsm::new(2, "op_us=0");
    let engine = hsm.builder().sessions(2).tier("sim-1", FAR).build().unwrap();
    let key = engine.key("hmac").unwrap();
    let before = hsm.operations_on("sim-1");
    for _ in 0..50 {
        // Queued, and by the caller itself.
        sign_one(&key, Some(LONG));
        sign_one(&key, None);
    }
    assert_eq!(hsm.operations_on("sim-1"), before);
    hsm.assert_sound();
}

#[test]
fn a_far_token_helps_when_requests_have_waited_longer_than_it_takes() {
    let hsm = Hsm::new(2, "");
    let engine = hsm.builder().sessions(1).tier("sim-1", NEARER).build().unwrap();
    let key = engine.key("hmac").unwrap();
    let before = hsm.operations_on("sim-1");
    hsm.sim.configure("hang=C_Sign:1@sim-0").unwrap();
    let held = submit(&key, 1);
    assert!(hsm.sim.wait_hanging(1, LONG));
    // The near token is held up, so that these wait; the far one serves them all.
    submit(&key, 20).into_iter().for_each(|pending| drop(pending.wait().unwrap()));
    assert_eq!(hsm.operations_on("sim-1") - before, 20);
    hsm.sim.release_hangs();
    held.into_iter().for_each(|pending| drop(pending.wait().unwrap()));
    hsm.assert_sound();
}

#[test]
fn the_far_token_serves_alone_while_the_near_one_is_out_of_service() {
    let hsm = Hsm::new(2, "op_us=0");
    let engine = hsm.builder().sessions(2).tier("sim-1", FAR).build().unwrap();
    let key = engine.key("hmac").unwrap();
    assert_eq!(engine.drain_token("sim-0", LONG).unwrap(), 0);
    let before = hsm.operations_on("sim-0");
    for _ in 0..20 {
        sign_one(&key, Some(LONG));
        sign_one(&key, None);
    }
    assert_eq!(hsm.operations_on("sim-0"), before);
    assert!(engine.snapshot().tokens[0].drained && !engine.snapshot().tokens[1].drained);
    engine.undrain_token("sim-0").unwrap();
    let before = hsm.operations_on("sim-1");
    (0..20).for_each(|_| sign_one(&key, Some(LONG)));
    assert_eq!(hsm.operations_on("sim-1"), before, "the near token serves again");
    hsm.assert_sound();
}

#[test]
fn tiers_can_change_while_requests_run() {
    let hsm = Hsm::new(2, "op_us=0");
    let engine = hsm.builder().sessions(1).build().unwrap();
    let key = engine.key("hmac").unwrap();
    engine.set_tier("sim-0", FAR).unwrap();
    let before = hsm.operations_on("sim-0");
    (0..20).for_each(|_| sign_one(&key, Some(LONG)));
    assert_eq!(hsm.operations_on("sim-0"), before);
    let unknown = engine.set_tier("sim-9", FAR).unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::TokenNotFound);
}

#[test]
fn a_drain_of_one_token_lets_it_finish_and_moves_what_is_queued() {
    let hsm = Hsm::new(2, "op_us=5000");
    let engine = hsm.builder().sessions(1).build().unwrap();
    let key = engine.key("hmac").unwrap();
    let pending = submit(&key, 40);
    assert_eq!(engine.drain_token("sim-0", LONG).unwrap(), 0);
    let at_rest = hsm.operations_on("sim-0");
    for pending in pending {
        pending.wait().unwrap();
    }
    assert_eq!(hsm.operations_on("sim-0"), at_rest, "nothing ran there after the drain");
    hsm.assert_sound();
}

#[test]
fn a_drain_of_one_token_tells_of_sessions_that_are_still_inside_at_the_limit() {
    let hsm = Hsm::new(1, "op_us=0,hang=C_Sign:1@sim-0");
    let engine = hsm.builder().sessions(1).build().unwrap();
    let key = engine.key("hmac").unwrap();
    let hung = key.sign(Hmac::SHA256, b"hangs").submit().unwrap();
    assert!(hsm.sim.wait_hanging(1, LONG));
    assert_eq!(engine.drain_token("sim-0", Duration::from_millis(20)).unwrap(), 1);
    hsm.sim.release_hangs();
    hung.wait().unwrap();
}

#[test]
fn a_hung_call_counts_as_inside_also_when_its_session_was_written_off() {
    let hsm = Hsm::new(1, "op_us=0,hang=C_Sign:1@sim-0");
    let builder = hsm.builder().sessions(1).hang_limit(Duration::from_millis(50));
    let engine = builder.build().unwrap();
    let key = engine.key("hmac").unwrap();
    assert_eq!(key.sign(Hmac::SHA256, b"hangs").wait().unwrap_err().kind(), ErrorKind::Hung);
    assert_eq!(engine.drain_token("sim-0", Duration::from_millis(20)).unwrap(), 1);
    hsm.sim.release_hangs();
    assert_eq!(engine.drain_token("sim-0", LONG).unwrap(), 0);
}

#[test]
fn a_token_that_comes_into_the_first_tier_serves_what_waits_already() {
    let hsm = Hsm::new(2, "op_us=0,hang=C_Sign:2@sim-0");
    let engine = hsm.builder().sessions(1).tier("sim-1", FAR).build().unwrap();
    let key = engine.key("hmac").unwrap();
    // The first signature of each token has proven the key; the next one there hangs.
    let pending = submit(&key, 3);
    assert!(hsm.sim.wait_hanging(1, LONG));
    let before = hsm.operations_on("sim-1");
    engine.set_tier("sim-1", Tier::default()).unwrap();
    eventually("it serves", || hsm.operations_on("sim-1") > before);
    hsm.sim.release_hangs();
    pending.into_iter().for_each(|pending| drop(pending.wait().unwrap()));
}

#[test]
fn a_lower_tier_without_extra_latency_helps_at_once() {
    let hsm = Hsm::new(2, "");
    let engine =
        hsm.builder().sessions(1).tier("sim-1", Tier { rank: 1, ..Tier::default() }).build().unwrap();
    let key = engine.key("hmac").unwrap();
    let before = hsm.operations_on("sim-1");
    hsm.sim.configure("hang=C_Sign:1@sim-0").unwrap();
    let held = submit(&key, 1);
    assert!(hsm.sim.wait_hanging(1, LONG));
    submit(&key, 4).into_iter().for_each(|pending| drop(pending.wait().unwrap()));
    assert_eq!(hsm.operations_on("sim-1") - before, 4);
    hsm.sim.release_hangs();
    held.into_iter().for_each(|pending| drop(pending.wait().unwrap()));
}

#[test]
fn a_name_that_fits_two_tokens_drains_none() {
    let hsm = Hsm::new(2, "");
    let engine = hsm.builder().build().unwrap();
    assert_eq!(engine.drain_token("pkcs11:", LONG).unwrap_err().kind(), ErrorKind::TokenNotFound);
    assert!(engine.snapshot().tokens.iter().all(|token| !token.drained));
}

#[test]
fn requests_that_only_a_drained_token_could_serve_fail_before_they_run() {
    let hsm = Hsm::new(2, "op_us=0,keys=here:hmac@sim-0");
    let engine = hsm.builder().sessions(1).build().unwrap();
    let key = engine.key("here").unwrap();
    engine.drain_token("sim-0", LONG).unwrap();
    for limit in [None, Some(LONG)] {
        let error = key.sign(Hmac::SHA256, b"none").deadline(limit).wait().unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::TokenLost, Outcome::NotDone));
    }
    engine.undrain_token("sim-0").unwrap();
    sign_one(&key, Some(LONG));
}

#[test]
fn limits_and_the_deadline_can_change_while_the_engine_runs() {
    let hsm = Hsm::new(1, "op_us=0,hang=C_Sign:1@sim-0");
    let engine = hsm.builder().sessions(1).requests_max(1).build().unwrap();
    let key = engine.key("hmac").unwrap();
    let first = key.sign(Hmac::SHA256, b"1").submit().unwrap();
    let refused = key.sign(Hmac::SHA256, b"2").submit().unwrap_err();
    assert_eq!(refused.error.kind(), ErrorKind::Overloaded);
    engine.set_limits(2, 1 << 20);
    let second = refused.request.submit().unwrap();
    assert_eq!(engine.snapshot().limits, (2, 1 << 20));
    engine.set_deadline(Some(Duration::from_nanos(1)));
    engine.set_limits(3, 1 << 20);
    let late = key.sign(Hmac::SHA256, b"3").wait().unwrap_err();
    assert_eq!(late.kind(), ErrorKind::DeadlineExceeded);
    let too_large = key.sign(Hmac::SHA256, vec![0; 2 << 20]).wait().unwrap_err();
    assert_eq!(too_large.kind(), ErrorKind::TooLarge);
    hsm.sim.release_hangs();
    first.wait().unwrap();
    second.wait().unwrap();
}

/// A configuration of both tokens of a simulator.
fn config(hsm: &Hsm, pin: &NamedTempFile, limits: &str, first: &str, second: &str) -> Config {
    let (module, pin) = (hsm.sim.path().display(), pin.path().display());
    let text = format!(
        "module = \"{module}\"\npin = \"file:{pin}\"\nsessions = 1\n{limits}\n\
         [[token]]\nname = \"sim-0\"\n{first}\n[[token]]\nname = \"sim-1\"\n{second}\n"
    );
    text.parse().unwrap()
}

/// A file with the PIN of every simulator, which nobody else may read.
fn pin_file() -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(b"1234\n").unwrap();
    file
}

#[test]
fn a_configuration_is_taken_over_without_a_restart() {
    let hsm = Hsm::new(2, "op_us=0");
    let pin = pin_file();
    let before = config(&hsm, &pin, "requests_max = 100", "", "drained = true");
    let engine = before.build().unwrap();
    let key = engine.key("hmac").unwrap();
    let (first, second) = (hsm.operations_on("sim-0"), hsm.operations_on("sim-1"));
    (0..20).for_each(|_| sign_one(&key, Some(LONG)));
    assert_eq!((hsm.operations_on("sim-0") - first, hsm.operations_on("sim-1") - second), (20, 0));

    // Far away, or it would help while the other's only session still looks at the request that was late.
    let first = "tier = 1\nextra_latency = \"10s\"";
    let limits = "requests_max = 7\nbytes_max = \"1MiB\"\ndeadline = \"1ns\"";
    let after = config(&hsm, &pin, limits, first, "");
    assert!(before.needs_restart(&after).is_empty());
    engine.reload(&after).unwrap();
    assert_eq!(engine.snapshot().limits, (7, 1 << 20));
    assert_eq!(key.sign(Hmac::SHA256, b"late").wait().unwrap_err().kind(), ErrorKind::DeadlineExceeded);
    let (first, second) = (hsm.operations_on("sim-0"), hsm.operations_on("sim-1"));
    (0..20).for_each(|_| sign_one(&key, None));
    assert_eq!((hsm.operations_on("sim-0") - first, hsm.operations_on("sim-1") - second), (0, 20));
    hsm.assert_sound();
}

#[test]
fn one_token_takes_over_from_another_without_a_request_lost() {
    let hsm = Hsm::new(2, "op_us=1000");
    let pin = pin_file();
    let engine = config(&hsm, &pin, "", "", "drained = true").build().unwrap();
    let key = engine.key("hmac").unwrap();
    let swapped = config(&hsm, &pin, "", "drained = true", "");
    let back = config(&hsm, &pin, "", "", "drained = true");
    for round in 0..20 {
        let pending = submit(&key, 20);
        engine.reload(if round % 2 == 0 { &swapped } else { &back }).unwrap();
        for pending in pending {
            pending.wait().unwrap();
        }
    }
    hsm.assert_sound();
}

#[test]
fn a_configuration_with_another_token_changes_nothing() {
    let hsm = Hsm::new(2, "op_us=0");
    let engine = config(&hsm, &pin_file(), "requests_max = 100", "", "").build().unwrap();
    let other: &str = "module = \"m\"\npin = \"prompt\"\nrequests_max = 7\n[[token]]\nname = \"sim-0\"\n[[token]]\nname = \"sim-9\"";
    let refused = engine.reload(&other.parse().unwrap()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::TokenNotFound);
    assert_eq!(engine.snapshot().limits.0, 100);
}
