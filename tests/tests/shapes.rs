//! The public shape: every way to start a request gives the same answers, on any executor.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails its test")]

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use aes::cipher::{BlockCipherEncrypt, KeyInit};
use futures::StreamExt;
use hsmux::{AesEcb, AesGcm, Builder, Engine, ErrorKind, Key, Outcome, pipeline};
use hsmux_tests::wait_idle;
use softhsm_fixtures::{PIN, SoftHsm, TestToken};

type Ready = Builder<std::path::PathBuf, Vec<String>, hsmux::PinSource>;

fn builder(softhsm: &SoftHsm, token: &TestToken<'_>) -> Ready {
    token.import_aes("aes", &[4; 32]);
    Engine::builder().module(softhsm.module()).tokens([token.label()]).pin(PIN).sessions(2)
}

fn block(number: u32) -> Vec<u8> {
    number.to_be_bytes().repeat(4)
}

/// The block under the key of these tests, by other code.
fn encrypted(number: u32) -> Vec<u8> {
    let mut sealed = aes::Block::try_from(&block(number)[..]).unwrap();
    aes::Aes256::new(&[4; 32].into()).encrypt_block(&mut sealed);
    sealed.to_vec()
}

#[test]
fn wait_into_leaves_the_bytes_in_the_callers_memory_inline_and_queued() {
    let Some(softhsm) = SoftHsm::for_tests() else { return };
    let token = softhsm.unique_token();
    let engine = builder(softhsm, &token).build().unwrap();
    let key = engine.key("aes").unwrap();
    for limit in [None, Some(Duration::from_secs(10))] {
        let mut out = [0xEE; 20];
        let written = key.encrypt(AesEcb, block(7)).deadline(limit).wait_into(&mut out).unwrap();
        assert_eq!((written, &out[..16], &out[16..]), (16, &encrypted(7)[..], &[0xEE; 4][..]));
        let sealed = key.encrypt(AesGcm::new(), b"card").wait().unwrap();
        // Exactly as long as the plaintext: the module may ask for more, and gets the engine's memory.
        let mut plain = [0; 4];
        let request = key.decrypt(AesGcm::new(), sealed.as_bytes()).deadline(limit);
        assert_eq!((request.wait_into(&mut plain).unwrap(), &plain), (4, b"card"));
        let short = key.encrypt(AesEcb, block(7)).deadline(limit).wait_into(&mut out[..15]).unwrap_err();
        assert_eq!((short.kind(), short.outcome()), (ErrorKind::InvalidInput, Outcome::NotDone));
    }
}

#[test]
fn a_failed_wait_into_leaves_no_plaintext_behind() {
    let Some(softhsm) = SoftHsm::for_tests() else { return };
    let token = softhsm.unique_token();
    let engine = builder(softhsm, &token).build().unwrap();
    let key = engine.key("aes").unwrap();
    let mut sealed = key.encrypt(AesGcm::new(), &[1; 64]).wait().unwrap().into_vec();
    *sealed.last_mut().unwrap() ^= 1;
    let mut plain = [0xEE; 80];
    let error = key.decrypt(AesGcm::new(), sealed).deadline(None).wait_into(&mut plain).unwrap_err();
    assert_eq!((error.kind(), plain), (ErrorKind::DecryptFailed, [0; 80]));
}

#[test]
fn many_requests_are_answered_in_order_each_with_its_own_result() {
    let Some(softhsm) = SoftHsm::for_tests() else { return };
    let token = softhsm.unique_token();
    // Room for far fewer than there are: the batch waits for its own.
    let engine = builder(softhsm, &token).requests_max(10).build().unwrap();
    let key = engine.key("aes").unwrap();
    let blocks: Vec<Vec<u8>> = (0..300).map(|i| if i == 57 { vec![0; 3] } else { block(i) }).collect();
    let check = |answers: Vec<hsmux::Result<hsmux::Ciphertext>>| {
        assert_eq!(answers.len(), 300);
        for (i, answer) in (0..).zip(answers) {
            match i {
                57 => assert_eq!(answer.unwrap_err().kind(), ErrorKind::InvalidInput),
                i => assert_eq!(answer.unwrap().as_bytes(), encrypted(i)),
            }
        }
    };
    check(key.encrypt_many(AesEcb, &blocks).wait());
    check(futures::executor::block_on(key.encrypt_many(AesEcb, &blocks).into_future()));
    let reused = key.encrypt_many(AesGcm::new().with_iv([1; 12]), &blocks).wait();
    assert!(reused.iter().all(|answer| answer.as_ref().unwrap_err().kind() == ErrorKind::InvalidInput));
    wait_idle(&engine);
}

/// Runs a pipeline of 1 000 requests; returns the outputs, and the most requests that were taken from the source and
/// not yielded, seen whenever one was yielded.
fn piped(key: &Key, window: usize) -> (Vec<Vec<u8>>, usize) {
    let taken = AtomicUsize::new(0);
    let source = futures::stream::iter(0..1_000_u32).map(|i| {
        taken.fetch_add(1, Ordering::Relaxed);
        key.encrypt(AesEcb, block(i))
    });
    let mut answers = pipeline(source, window.try_into().unwrap());
    let mut most = 0;
    let collected = futures::executor::block_on(async {
        let mut all = Vec::new();
        while let Some(answer) = answers.next().await {
            most = most.max(taken.load(Ordering::Relaxed) - all.len());
            all.push(answer.unwrap().into_vec());
        }
        all
    });
    (collected, most)
}

#[test]
fn a_pipeline_keeps_its_window_full_and_its_order_and_waits_for_room() {
    let Some(softhsm) = SoftHsm::for_tests() else { return };
    let token = softhsm.unique_token();
    // Apart, so that each takes a place.
    let engine = builder(softhsm, &token).requests_max(20).coalescing(false).build().unwrap();
    let key = engine.key("aes").unwrap();
    let expected: Vec<_> = (0..1_000).map(encrypted).collect();
    let (collected, most) = piped(&key, 16);
    assert_eq!((collected == expected, most), (true, 16), "the window fits the room");
    // More than there is room for: how many were answered while it filled is a matter of speed.
    let (collected, most) = piped(&key, 50);
    assert!(collected == expected && (20..=50).contains(&most), "{most} at once");
}

#[test]
fn who_waits_for_room_gets_it_or_the_deadline_blocking_and_async() {
    let Some(softhsm) = SoftHsm::for_tests() else { return };
    let token = softhsm.unique_token();
    let engine = builder(softhsm, &token).bytes_max(70_000).build().unwrap();
    let key = engine.key("aes").unwrap();
    let large = || key.encrypt(AesEcb, vec![0; 32_000]);
    // Bytes stay taken until the answer is collected, so while this one is held there is no room.
    let held = large().submit().unwrap();
    assert_eq!(large().submit().unwrap_err().error.kind(), ErrorKind::Overloaded);
    let waiting = || large().wait_for_room().deadline_in(Duration::from_millis(20));
    let blocked = waiting().submit().unwrap_err();
    assert_eq!(
        (blocked.error.kind(), blocked.error.outcome()),
        (ErrorKind::DeadlineExceeded, Outcome::NotDone)
    );
    let late = futures::executor::block_on(waiting().into_future()).unwrap_err();
    assert_eq!((late.kind(), late.outcome()), (ErrorKind::DeadlineExceeded, Outcome::NotDone));
    assert_eq!(engine.snapshot().expired, 2, "both count as answered at their deadline");
    std::thread::scope(|scope| {
        let blocking = scope.spawn(|| large().wait_for_room().wait().map(|sealed| sealed.len()));
        assert_eq!(held.wait().unwrap().len(), 32_000);
        assert_eq!(blocking.join().unwrap().unwrap(), 32_000);
    });
    let held = large().submit().unwrap();
    let mut entering = pin!(large().wait_for_room().into_future());
    assert!(entering.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    drop(held.wait().unwrap());
    assert_eq!(futures::executor::block_on(entering).unwrap().len(), 32_000);
    wait_idle(&engine);
}

#[test]
fn a_request_that_was_never_polled_has_not_happened() {
    let Some(softhsm) = SoftHsm::for_tests() else { return };
    let token = softhsm.unique_token();
    let engine = builder(softhsm, &token).build().unwrap();
    let key = engine.key("aes").unwrap();
    let begun = || engine.snapshot().calls.get("C_EncryptInit").copied();
    let before = begun();
    drop(key.encrypt(AesEcb, block(1)));
    drop(key.encrypt(AesEcb, block(1)).into_future());
    assert_eq!((begun(), engine.snapshot().in_flight), (before, 0));
}

async fn round_trips(key: Key, from: u32) {
    for i in from..from + 50 {
        let sealed = key.encrypt(AesEcb, block(i)).await.unwrap();
        assert_eq!(sealed.as_bytes(), encrypted(i));
        assert_eq!(key.decrypt(AesEcb, sealed.into_vec()).await.unwrap().as_bytes(), block(i));
    }
}

#[test]
fn futures_run_on_tokio_and_on_another_executor() {
    let Some(softhsm) = SoftHsm::for_tests() else { return };
    let token = softhsm.unique_token();
    let engine = builder(softhsm, &token).build().unwrap();
    let key = engine.key("aes").unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(async {
        let tasks: Vec<_> = (0..16).map(|i| tokio::spawn(round_trips(key.clone(), i * 1_000))).collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
    let pool = futures::executor::ThreadPool::builder().pool_size(2).create().unwrap();
    let (done, finished) = futures::channel::mpsc::unbounded();
    for i in 0..16 {
        let (key, done) = (key.clone(), done.clone());
        pool.spawn_ok(async move {
            round_trips(key, i * 1_000).await;
            done.unbounded_send(()).unwrap();
        });
    }
    drop(done);
    assert_eq!(futures::executor::block_on(finished.count()), 16);
}

#[test]
fn a_blocked_pipeline_is_pending_and_holds_nobody() {
    let Some(softhsm) = SoftHsm::for_tests() else { return };
    let token = softhsm.unique_token();
    let engine = builder(softhsm, &token).build().unwrap();
    let key = engine.key("aes").unwrap();
    let (sender, source) = futures::channel::mpsc::unbounded();
    let mut answers = pin!(pipeline(source, 4.try_into().unwrap()));
    let mut context = Context::from_waker(Waker::noop());
    assert!(answers.as_mut().poll_next_unpin(&mut context).is_pending());
    sender.unbounded_send(key.encrypt(AesEcb, block(3))).unwrap();
    drop(sender);
    let all: Vec<_> = futures::executor::block_on(answers.collect());
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].as_ref().unwrap().as_bytes(), encrypted(3));
}
