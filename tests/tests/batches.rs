//! Batches: one deadline for all, or one for each.

use std::time::Duration;

use hsmux::{Error, ErrorKind, Hmac, Key, Many, Outcome, Sign};
use hsmux_tests::{Hsm, LONG, wait_idle};

fn batch(key: &Key, len: usize) -> Many<'_, Sign> {
    key.sign_many(Hmac::SHA256, vec![b"message"; len])
}

/// How many of a batch were too late.
fn late(answers: &[Result<impl Sized, Error>]) -> usize {
    let late = |error: &&Error| error.kind() == ErrorKind::DeadlineExceeded;
    answers.iter().filter_map(|answer| answer.as_ref().err()).filter(late).count()
}

#[test]
fn the_deadline_of_a_batch_counts_from_its_start() {
    // One at a time, and so at most five in time however the machine is.
    let hsm = Hsm::new(1, "op_us=20000");
    let engine = hsm.builder().sessions(1).requests_max(1).build().unwrap();
    let key = engine.key("hmac").unwrap();
    let answers = batch(&key, 100).deadline_in(Duration::from_millis(100)).wait();
    let late = late(&answers);
    assert!(late >= 94, "{late} of 100 were late");
    wait_idle(&engine);
    assert_eq!(engine.snapshot().expired, late as u64);
    assert_eq!(engine.drain(LONG), 0);
}

#[test]
fn a_batch_that_finds_no_room_at_all_waits_for_one_deadline() {
    const LEN: usize = 600;
    let limit = Duration::from_millis(100);
    let hsm = Hsm::new(1, "hang=C_Sign:1");
    let engine = hsm.builder().sessions(1).requests_max(1).hang_limit(LONG).build().unwrap();
    let key = engine.key("hmac").unwrap();
    let held = key.sign(Hmac::SHA256, b"hangs").deadline(None).submit().unwrap();
    assert!(hsm.sim.wait_hanging(1, LONG));
    let start = quanta::Instant::now();
    let answers = batch(&key, LEN).wait_for_room().deadline_in(limit).wait();
    // A minute if each had its own.
    assert!(start.elapsed() < LONG, "{:?}", start.elapsed());
    assert_eq!(late(&answers), LEN);
    let outcome = |answer: Result<_, Error>| answer.map(drop).unwrap_err().outcome();
    assert!(answers.into_iter().map(outcome).all(|outcome| outcome == Outcome::NotDone));
    assert_eq!(engine.snapshot().expired, LEN as u64);
    hsm.sim.release_hangs();
    held.wait().unwrap();
}

#[test]
fn each_of_a_batch_may_have_its_own_time_in_flight() {
    // Four seconds together, three for each of them.
    let hsm = Hsm::new(1, "op_us=500000");
    let engine = hsm.builder().sessions(1).requests_max(1).build().unwrap();
    let key = engine.key("hmac").unwrap();
    let answers = batch(&key, 8).deadline_in(Duration::from_secs(3)).deadline_from_flight().wait();
    assert_eq!(answers.into_iter().filter(Result::is_ok).count(), 8);
    assert_eq!(engine.drain(LONG), 0);
}
