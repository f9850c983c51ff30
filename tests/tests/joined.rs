//! Requests that are put together before they are queued: in the window of a stream, and in batches by host modes.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails its test")]

use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::executor::block_on;
use futures::stream::{self, Stream, StreamExt};
use hsmux::{
    AesCbc, AesCtr, AesEcb, Cipher, Ciphertext, Engine, Error, ErrorKind, Key, Operation, Plaintext,
    Priority, Request, Stage, TripleDesCbc, pipeline,
};
use hsmux_tests::{Hsm, LONG, blocks, outputs, wait_idle};

const WINDOW: usize = 256;

/// A simulator whose tokens also hold a key of triple DES.
fn hsm(config: &str) -> Hsm {
    Hsm::new(1, &format!("op_us=0,keys=des:des3;other:aes{config}"))
}

fn piped<'a, O: Operation>(requests: impl Iterator<Item = Request<'a, O>>) -> Vec<Result<O::Output, Error>> {
    block_on(pipeline(stream::iter(requests), WINDOW.try_into().unwrap()).collect())
}

fn plaintexts(answers: Vec<Result<Plaintext, Error>>) -> Vec<Vec<u8>> {
    answers.into_iter().map(|answer| answer.unwrap().as_bytes().to_vec()).collect()
}

/// An engine of one session whose keys have host modes, and one of the token's keys.
fn engine(hsm: &Hsm, name: &str) -> (Engine, Key) {
    let engine = hsm.builder().sessions(1).holding(false).host_modes([name]).build().unwrap();
    let key = engine.key(name).unwrap();
    (engine, key)
}

#[test]
fn a_window_puts_blocks_together_and_yields_them_in_order() {
    let hsm = hsm("");
    let messages = blocks(4_000);
    let wanted = hsm.one_by_one("aes256", AesEcb, &messages);
    let (engine, key) = engine(&hsm, "aes256");
    let before = hsm.sim.calls_of("C_Encrypt");
    assert_eq!(outputs(piped(messages.iter().map(|message| key.encrypt(AesEcb, message)))), wanted);
    let calls = hsm.sim.calls_of("C_Encrypt") - before;
    // A quarter of the window, or one of each, would be 63 or 4 000.
    assert!(calls <= 100, "{calls} calls");
    assert_eq!(engine.snapshot().tokens[0].merges.requests, 4_000);
    wait_idle(&engine);
    assert_eq!(engine.snapshot().bytes_in_flight, 0);
}

/// Holds the only session inside a call while `look` is at work.
fn while_held(hsm: &Hsm, key: &Key, look: impl FnOnce()) {
    hsm.sim.configure("hang=C_Encrypt:1").unwrap();
    let held = key.encrypt(AesEcb, vec![0; 16]).deadline(None).submit().unwrap();
    assert!(hsm.sim.wait_hanging(1, LONG));
    look();
    hsm.sim.release_hangs();
    held.wait().unwrap();
}

#[test]
fn only_what_waits_in_one_lane_until_one_time_is_put_together() {
    let hsm = hsm("");
    let engine = hsm.builder().sessions(1).hang_limit(LONG).build().unwrap();
    let (key, other) = (engine.key("aes256").unwrap(), engine.key("other").unwrap());
    let messages = blocks(48);
    let request = |i: usize| match i / 4 % 4 {
        0 => key.encrypt(AesEcb, &messages[i]),
        1 => key.encrypt(AesEcb, &messages[i]).deadline_in(LONG),
        2 => key.encrypt(AesEcb, &messages[i]).priority(Priority::High),
        _ => other.encrypt(AesEcb, &messages[i]).tenant(7),
    };
    while_held(&hsm, &key, || {
        let requests = stream::iter((0..48).map(request));
        let mut answers = pin!(pipeline(requests, WINDOW.try_into().unwrap()));
        assert!(answers.as_mut().poll_next(&mut Context::from_waker(Waker::noop())).is_pending());
        // Four by four, and the one that is held.
        assert_eq!(engine.snapshot().in_flight, 12 + 1);
    });
    let wanted = ["aes256", "other"].map(|key| hsm.one_by_one(key, AesEcb, &messages));
    for (i, answer) in outputs(piped((0..48).map(request))).into_iter().enumerate() {
        assert_eq!(answer, wanted[usize::from(i / 4 % 4 == 3)][i]);
    }
}

#[test]
fn a_window_goes_on_whatever_room_there_is_and_whatever_its_size() {
    let hsm = hsm("");
    let messages = blocks(120);
    let wanted = ["aes256", "other"].map(|key| hsm.one_by_one(key, AesEcb, &messages));
    // A request takes 544 bytes and more, so some of these have no room for a joint, some for one, some for several.
    for (bytes, requests) in [(700, 9), (1_150, 9), (2_000, 2), (4_000, 1), (100_000, 3)] {
        let engine = hsm.builder().sessions(1).bytes_max(bytes).requests_max(requests).build().unwrap();
        let keys = ["aes256", "other"].map(|name| engine.key(name).unwrap());
        // Runs of one to six under one key.
        let key = |i: usize| i * i / 7 % 2;
        for window in [1, 2, 3, 4, 5, 8, 30, 256] {
            let source = stream::iter((0..120).map(|i| keys[key(i)].encrypt(AesEcb, &messages[i])));
            let answers = block_on(pipeline(source, window.try_into().unwrap()).collect::<Vec<_>>());
            for (i, answer) in answers.into_iter().enumerate() {
                let case = format!("{bytes} bytes, {requests} requests, a window of {window}, {i}");
                assert_eq!(Vec::from(answer.expect(&case)), wanted[key(i)][i], "{case}");
            }
        }
        wait_idle(&engine);
    }
}

#[test]
fn a_source_that_has_nothing_now_and_then_is_asked_again() {
    let hsm = hsm("");
    let messages = blocks(500);
    let wanted = hsm.one_by_one("aes256", AesEcb, &messages);
    let (_engine, key) = engine(&hsm, "aes256");
    let (mut polls, mut rest) = (0, messages.iter());
    let source = stream::poll_fn(|context| {
        polls += 1;
        if polls % 4 == 0 {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(rest.next().map(|message| key.encrypt(AesEcb, message)))
    });
    let answers = block_on(pipeline(source, 64.try_into().unwrap()).collect());
    assert_eq!(outputs(answers), wanted);
}

#[test]
fn what_runs_again_by_itself_has_no_more_time_than_it_had() {
    // Init and call take 80 ms: once is in time, twice is not.
    let hsm = hsm(",input_max=64");
    let engine = hsm.builder().sessions(1).holding(false).build().unwrap();
    let key = engine.key("aes256").unwrap();
    hsm.sim.configure("call_us=40000").unwrap();
    let in_time = |message: Vec<u8>| key.encrypt(AesEcb, message).deadline_in(Duration::from_millis(110));
    let answers = piped((0..5_u8).map(|i| in_time(vec![i; 16])));
    let late = |answer: &Result<_, Error>| {
        answer.as_ref().is_err_and(|error| error.kind() == ErrorKind::DeadlineExceeded)
    };
    assert!(answers.iter().all(late), "{answers:?}");
    wait_idle(&engine);
}

#[test]
fn what_is_wrong_with_one_of_a_window_is_its_own_error() {
    let hsm = hsm("");
    let mut mixed = blocks(60);
    let wanted = hsm.one_by_one("aes256", AesEcb, &mixed);
    mixed.insert(31, vec![0; 15]);
    mixed.insert(0, Vec::new());
    let (engine, key) = engine(&hsm, "aes256");
    let mut answers = piped(mixed.iter().map(|message| key.encrypt(AesEcb, message)));
    for place in [32, 0] {
        assert_eq!(answers.remove(place).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    assert_eq!(outputs(answers), wanted);
    assert_eq!(engine.snapshot().tokens[0].merges.requests, 60);
}

#[test]
fn what_fails_together_runs_one_by_one_and_after_three_failures_nothing_is_put_together() {
    let hsm = hsm(",input_max=256");
    let messages = blocks(2_000);
    let wanted = hsm.one_by_one("aes256", AesEcb, &messages);
    let engine = hsm.builder().sessions(1).build().unwrap();
    let key = engine.key("aes256").unwrap();
    assert_eq!(outputs(piped(messages.iter().map(|message| key.encrypt(AesEcb, message)))), wanted);
    let snapshot = engine.snapshot();
    assert!(snapshot.tokens[0].operations.iter().all(|operation| operation.errors.is_empty()));
    assert!(snapshot.tokens[0].merges.failures >= 3, "{:?}", snapshot.tokens[0].merges);
    assert!(!engine.key("aes256").unwrap().encrypt_many(AesEcb, &messages).wait().iter().any(Result::is_err));
    assert_eq!(engine.snapshot().tokens[0].merges.failures, snapshot.tokens[0].merges.failures);
}

#[test]
fn what_hangs_together_is_hung_each_and_not_tried_again() {
    let hsm = Hsm::new(1, "");
    let engine = hsm.builder().sessions(2).hang_limit(Duration::from_millis(50)).build().unwrap();
    let key = engine.key("aes256").unwrap();
    hsm.sim.configure("hang=C_Encrypt:1+").unwrap();
    let answers = piped(blocks(10).into_iter().map(|message| key.encrypt(AesEcb, message).deadline_in(LONG)));
    let hung =
        |answer: &Result<_, Error>| answer.as_ref().is_err_and(|error| error.kind() == ErrorKind::Hung);
    assert!(answers.iter().all(hung), "{answers:?}");
    assert_eq!(engine.snapshot().hung, 1);
    hsm.sim.configure("hang=").unwrap();
    hsm.sim.release_hangs();
    wait_idle(&engine);
    assert_eq!((engine.snapshot().in_flight, engine.snapshot().bytes_in_flight), (0, 0));
}

#[test]
fn a_window_that_is_dropped_withdraws_what_it_has_put_together() {
    let hsm = hsm("");
    let engine = hsm.builder().sessions(1).hang_limit(LONG).build().unwrap();
    let key = engine.key("aes256").unwrap();
    while_held(&hsm, &key, || {
        let requests = blocks(100).into_iter().map(|message| key.encrypt(AesEcb, message));
        let mut answers = pin!(pipeline(stream::iter(requests), WINDOW.try_into().unwrap()));
        assert!(answers.as_mut().poll_next(&mut Context::from_waker(Waker::noop())).is_pending());
        assert_eq!(engine.snapshot().in_flight, 2 + 1);
    });
    wait_idle(&engine);
    assert_eq!((engine.snapshot().in_flight, engine.snapshot().bytes_in_flight), (0, 0));
    // Only the one that was held has run.
    assert_eq!(engine.snapshot().tokens[0].operations.iter().map(|it| it.count).sum::<u64>(), 1);
}

/// Encrypts by batch and by window, each under IVs that the engine draws, and decrypts by both and one by one.
fn there_and_back(name: &str, how: impl Fn() -> Cipher, lengths: impl Iterator<Item = usize>) {
    let hsm = hsm("");
    let message = |(i, len): (u8, usize)| (0..len).map(|j| i ^ u8::try_from(j).unwrap()).collect::<Vec<u8>>();
    let messages: Vec<_> = (0..=u8::MAX).cycle().zip(lengths).map(message).collect();
    let (engine, key) = engine(&hsm, name);
    let alone = hsm.builder().sessions(1).coalescing(false).holding(false).build().unwrap();
    let alone = alone.key(name).unwrap();
    let sealed = [
        outputs(key.encrypt_many(how(), &messages).wait()),
        outputs(piped(messages.iter().map(|message| key.encrypt(how(), message)))),
    ];
    assert_ne!(sealed[0], sealed[1], "under IVs of their own");
    for sealed in sealed {
        let before = hsm.sim.calls_of("C_Decrypt") + hsm.sim.calls_of("C_Encrypt");
        assert_eq!(plaintexts(key.decrypt_many(how(), &sealed).wait()), messages);
        assert_eq!(plaintexts(piped(sealed.iter().map(|sealed| key.decrypt(how(), sealed)))), messages);
        let calls = hsm.sim.calls_of("C_Decrypt") + hsm.sim.calls_of("C_Encrypt") - before;
        assert!(calls * 8 < 300, "{calls} calls");
        for (sealed, message) in sealed.iter().zip(&messages) {
            assert_eq!(alone.decrypt(how(), sealed).wait().unwrap().as_bytes(), message);
        }
    }
    wait_idle(&engine);
}

#[test]
fn counters_of_any_length_are_put_together() {
    there_and_back("aes256", || AesCtr::new().into(), (0..300).map(|i| i * 7 % 100));
}

#[test]
fn chains_with_and_without_padding_are_put_together_to_decrypt() {
    there_and_back("aes256", || AesCbc::new().unpadded().into(), (0..300).map(|i| 16 + i % 5 * 16));
    there_and_back("aes256", || AesCbc::new().into(), (0..300).map(|i| i % 70));
    there_and_back("des", || TripleDesCbc::new().into(), (0..300).map(|i| i % 40));
}

#[test]
fn bad_padding_among_many_is_one_error_and_the_others_have_their_text() {
    let hsm = hsm("");
    let (_engine, key) = engine(&hsm, "aes256");
    let messages: Vec<_> = (0..40_u8).map(|i| vec![i; 20]).collect();
    let mut sealed = outputs(key.encrypt_many(AesCbc::new(), &messages).wait());
    let flip = sealed[17].len() - 17;
    // The last byte of the last block but one: the padding of 12 becomes one of 13.
    sealed[17][flip] ^= 1;
    sealed[23].truncate(30);
    for answers in [
        key.decrypt_many(AesCbc::new(), &sealed).wait(),
        piped(sealed.iter().map(|sealed| key.decrypt(AesCbc::new(), sealed))),
    ] {
        for (i, answer) in answers.into_iter().enumerate() {
            match i {
                17 | 23 => assert_eq!(answer.unwrap_err().kind(), ErrorKind::DecryptFailed),
                _ => assert_eq!(answer.unwrap().as_bytes(), messages[i]),
            }
        }
    }
}

/// How long the requests of an engine have queued at most, in nanoseconds.
fn queued_ns(engine: &Engine) -> u64 {
    let snapshot = engine.snapshot();
    let longest = |operation: &hsmux::OperationSnapshot| operation.stage(Stage::Queued).max();
    snapshot.tokens.iter().flat_map(|token| token.operations.iter().map(longest)).max().unwrap()
}

#[test]
fn a_small_batch_without_a_deadline_is_run_by_its_caller() {
    let hsm = hsm("");
    let messages = blocks(200);
    let wanted = hsm.one_by_one("aes256", AesEcb, &messages);
    let (engine, key) = engine(&hsm, "aes256");
    let before = hsm.sim.calls_of("C_Encrypt");
    assert_eq!(outputs(key.encrypt_many(AesEcb, &messages).deadline(None).wait()), wanted);
    assert_eq!((hsm.sim.calls_of("C_Encrypt") - before, queued_ns(&engine)), (1, 0));
    assert_eq!(engine.snapshot().tokens[0].merges.requests, 200);
    assert_eq!(outputs(key.encrypt_many(AesEcb, &messages).wait()), wanted);
    assert!(queued_ns(&engine) > 0, "with a deadline it is not");
}

#[test]
fn a_small_batch_that_fails_on_its_callers_thread_runs_one_by_one_and_demotes() {
    let hsm = hsm(",input_max=256");
    let messages = blocks(64);
    let wanted = hsm.one_by_one("aes256", AesEcb, &messages);
    let engine = hsm.builder().sessions(1).build().unwrap();
    let key = engine.key("aes256").unwrap();
    for _ in 0..5 {
        let answers: Vec<Result<Ciphertext, _>> = key.encrypt_many(AesEcb, &messages).deadline(None).wait();
        assert_eq!(outputs(answers), wanted);
    }
    let snapshot = engine.snapshot();
    assert!(snapshot.tokens[0].operations.iter().all(|operation| operation.errors.is_empty()));
    assert_eq!(snapshot.tokens[0].merges.failures, 3);
}

#[test]
fn counters_that_run_again_by_themselves_have_an_iv_of_their_own() {
    let hsm = hsm(",input_max=64");
    let (engine, key) = engine(&hsm, "aes256");
    let messages: Vec<_> = (0..100_u8).map(|i| vec![i; 20]).collect();
    let sealed = [
        outputs(key.encrypt_many(AesCtr::new(), &messages).wait()),
        outputs(piped(messages.iter().map(|message| key.encrypt(AesCtr::new(), message)))),
    ]
    .concat();
    assert!(engine.snapshot().tokens[0].merges.failures > 0);
    let ivs: std::collections::HashSet<_> = sealed.iter().map(|sealed| &sealed[..16]).collect();
    assert_eq!(ivs.len(), sealed.len());
    for (sealed, message) in sealed.iter().zip(messages.iter().cycle()) {
        assert_eq!(key.decrypt(AesCtr::new(), sealed).wait().unwrap().as_bytes(), message);
    }
}

#[test]
fn what_has_no_company_runs_as_what_it_is() {
    let hsm = hsm("");
    let (engine, key) = engine(&hsm, "aes256");
    // A joint of 1 024, one more, one too large for any.
    let mut messages = vec![vec![7; 16]; 1_025];
    messages.push(vec![8; 40_000]);
    for limit in [None, Some(LONG)] {
        let before = engine.snapshot().tokens[0].merges.requests;
        let sealed = outputs(key.encrypt_many(AesCtr::new(), &messages).deadline(limit).wait());
        // The others may meet in a turn.
        let merged = engine.snapshot().tokens[0].merges.requests - before;
        assert!((1_024..=1_026).contains(&merged), "{merged}");
        for (sealed, message) in sealed.iter().zip(&messages).skip(1_020) {
            assert_eq!(key.decrypt(AesCtr::new(), sealed).wait().unwrap().as_bytes(), message);
        }
    }
    assert_eq!(engine.snapshot().tokens[0].merges.failures, 0);
    let mut batch = vec![vec![0; 15]; 3];
    batch.push(vec![1; 16]);
    let answers = key.encrypt_many(AesEcb, &batch).deadline(None).wait();
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
    assert!(answers[3].is_ok());
}

#[test]
fn a_batch_that_its_caller_would_run_is_refused_by_an_engine_that_stops() {
    let hsm = hsm("");
    let (engine, key) = engine(&hsm, "aes256");
    assert_eq!(engine.drain(LONG), 0);
    let answers = key.encrypt_many(AesEcb, blocks(10)).deadline(None).wait();
    let stopping =
        |answer: &Result<_, Error>| answer.as_ref().is_err_and(|error| error.kind() == ErrorKind::Draining);
    assert!(answers.iter().all(stopping), "{answers:?}");
}
