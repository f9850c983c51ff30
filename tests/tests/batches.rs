//! Batches: one deadline for all, or one for each.

use std::time::Duration;

use hsmux::{AesEcb, Error, ErrorKind, Hmac, Key, Many, Outcome, Sign, TokenSnapshot};
use hsmux_tests::{Hsm, LONG, blocks, outputs, wait_idle};

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

#[test]
fn blocks_of_a_batch_share_calls_and_each_message_has_its_own_output() {
    let hsm = Hsm::new(1, "op_us=0");
    let messages = blocks(1_500);
    let wanted = hsm.one_by_one("aes256", AesEcb, &messages);
    let engine = hsm.builder().sessions(1).holding(false).build().unwrap();
    let key = engine.key("aes256").unwrap();
    let calls = |function| hsm.sim.calls_of(function);
    let before = calls("C_Encrypt");
    assert_eq!(outputs(key.encrypt_many(AesEcb, &messages).wait()), wanted);
    // 48 KB, at most 16 KiB and 1 024 of them in each.
    assert!(calls("C_Encrypt") - before <= 4, "{} calls", calls("C_Encrypt") - before);
    let plain = key.decrypt_many(AesEcb, &wanted).wait();
    assert!(plain.into_iter().zip(&messages).all(|(plain, message)| plain.unwrap().as_bytes() == message));
    assert!(calls("C_Decrypt") <= 4, "{} calls", calls("C_Decrypt"));
    // Each is counted.
    assert_eq!(engine.snapshot().tokens[0].merges.requests, 3_000);
    let served =
        |token: &TokenSnapshot| token.operations.iter().map(|operation| operation.count).sum::<u64>();
    assert_eq!(engine.snapshot().tokens.iter().map(served).sum::<u64>(), 3_000);
    assert_eq!(engine.drain(LONG), 0);
}

#[test]
fn what_is_wrong_with_one_message_is_its_own_error() {
    let hsm = Hsm::new(1, "op_us=0");
    let good = blocks(8);
    let wanted = hsm.one_by_one("aes256", AesEcb, &good);
    let engine = hsm.builder().sessions(1).build().unwrap();
    let key = engine.key("aes256").unwrap();
    let mut mixed = good;
    mixed.insert(3, vec![0; 15]);
    mixed.push(Vec::new());
    let mut answers = key.encrypt_many(AesEcb, &mixed).wait();
    for place in [9, 3] {
        assert_eq!(answers.remove(place).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    assert_eq!(outputs(answers), wanted);
    assert_eq!(engine.snapshot().tokens[0].merges.requests, 8);
}

#[test]
fn blocks_that_find_no_room_together_are_run_one_by_one() {
    let messages = blocks(64);
    let hsm = Hsm::new(1, "op_us=0");
    let wanted = hsm.one_by_one("aes256", AesEcb, &messages);
    let engine = hsm.builder().sessions(1).bytes_max(2_000).build().unwrap();
    let key = engine.key("aes256").unwrap();
    assert_eq!(outputs(key.encrypt_many(AesEcb, &messages).wait()), wanted);
}

#[test]
fn blocks_that_fail_together_are_run_one_by_one_and_after_three_failures_no_more_are_put_together() {
    let messages = blocks(64);
    let hsm = Hsm::new(1, "op_us=0,input_max=256");
    let wanted = hsm.one_by_one("aes256", AesEcb, &messages);
    let engine = hsm.builder().sessions(1).build().unwrap();
    let key = engine.key("aes256").unwrap();
    for _ in 0..5 {
        assert_eq!(outputs(key.encrypt_many(AesEcb, &messages).wait()), wanted);
    }
    let snapshot = engine.snapshot();
    assert!(snapshot.tokens[0].operations.iter().all(|operation| operation.errors.is_empty()));
    assert_eq!(snapshot.tokens[0].merges.failures, 3);
}

#[test]
fn the_answers_of_a_batch_stay_in_order_where_some_of_it_fails_together() {
    // Three chunks, of which the one in the middle is too much for the module: 64 x 256 bytes between short ones.
    let hsm = Hsm::new(1, "op_us=0,input_max=8192");
    let short = |number: u16| number.to_be_bytes().repeat(8);
    let mut messages: Vec<_> = (0..200).map(short).collect();
    messages.extend((200..264).map(|number: u16| number.to_be_bytes().repeat(128)));
    messages.extend((264..400).map(short));
    let wanted = hsm.one_by_one("aes256", AesEcb, &messages);
    let engine = hsm.builder().sessions(1).build().unwrap();
    let key = engine.key("aes256").unwrap();
    assert_eq!(outputs(key.encrypt_many(AesEcb, &messages).wait()), wanted);
    let merges = &engine.snapshot().tokens[0].merges;
    assert!(merges.failures > 0 && merges.requests > 0, "{merges:?}");
}

#[test]
fn blocks_whose_call_hangs_are_not_tried_again() {
    let hsm = Hsm::new(1, "");
    let engine = hsm.builder().sessions(2).hang_limit(Duration::from_millis(50)).build().unwrap();
    let key = engine.key("aes256").unwrap();
    hsm.sim.configure("hang=C_Encrypt:1+").unwrap();
    let answers = key.encrypt_many(AesEcb, blocks(10)).deadline_in(LONG).wait();
    let hung =
        |answer: &Result<_, Error>| answer.as_ref().is_err_and(|error| error.kind() == ErrorKind::Hung);
    assert!(answers.iter().all(hung), "{answers:?}");
    assert_eq!(engine.snapshot().hung, 1);
    hsm.sim.configure("hang=").unwrap();
    hsm.sim.release_hangs();
    assert!(key.encrypt_many(AesEcb, blocks(10)).wait().iter().all(Result::is_ok));
    wait_idle(&engine);
    assert_eq!((engine.snapshot().in_flight, engine.snapshot().bytes_in_flight), (0, 0));
}

#[test]
fn blocks_of_a_batch_that_are_late_are_late_each() {
    let hsm = Hsm::new(1, "");
    let engine = hsm.builder().sessions(1).hang_limit(LONG).build().unwrap();
    let key = engine.key("aes256").unwrap();
    // Not before: a key is tested with calls of its own.
    hsm.sim.configure("hang=C_Encrypt:1").unwrap();
    let held = key.encrypt(AesEcb, vec![0; 16]).deadline(None).submit().unwrap();
    assert!(hsm.sim.wait_hanging(1, LONG));
    let answers = key.encrypt_many(AesEcb, blocks(10)).deadline_in(Duration::from_millis(10)).wait();
    assert_eq!(late(&answers), 10);
    assert_eq!(engine.snapshot().expired, 10);
    hsm.sim.release_hangs();
    held.wait().unwrap();
}
