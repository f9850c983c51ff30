//! Random bytes from the pool: few calls, no byte twice, every way to ask, and every way in which a fetch can end.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails its test")]

use std::collections::HashSet;
use std::time::Duration;

use futures::StreamExt;
use hsmux::{Engine, Error, ErrorKind, Outcome, Priority, pipeline};
use hsmux_tests::{Hsm, LONG, eventually, wait_idle};

const CALL: &str = "C_GenerateRandom";

/// No eight bytes in a row come twice anywhere, whoever got them.
fn assert_never_repeated(outputs: impl IntoIterator<Item = Vec<u8>>) {
    let mut seen = HashSet::new();
    for output in outputs {
        let mut windows = output.windows(8);
        assert!(windows.all(|window| seen.insert(<[u8; 8]>::try_from(window).unwrap())), "bytes came twice");
    }
}

fn kind<T>(result: hsmux::Result<T>) -> ErrorKind {
    result.map(drop).unwrap_err().kind()
}

#[test]
fn a_thousand_small_requests_need_few_calls_and_share_no_byte() {
    let hsm = Hsm::new(1, "");
    let engine = hsm.builder().build().unwrap();
    let outputs: Vec<_> = (0..1_000).map(|_| engine.random(32).wait().unwrap().into_vec()).collect();
    let calls = hsm.sim.calls_of(CALL);
    assert!(outputs.iter().all(|output| output.len() == 32));
    assert_never_repeated(outputs);
    // 8 KiB each would be 4. While fetches seem slow, as on a busy machine, they stay small: at least 256 bytes.
    assert!(calls <= 1_000 * 32 / 256, "{calls} calls");
    wait_idle(&engine);
    eventually("every fetch has been collected", || {
        engine.snapshot().random_pool.refills == hsm.sim.calls_of(CALL)
    });
    let pool = engine.snapshot().random_pool;
    assert_eq!((pool.requests, pool.given), (1_000, 32_000));
    assert_eq!(pool.fetched, pool.given + pool.held as u64);
    hsm.assert_sound();
}

#[test]
fn every_way_to_ask_is_served_from_the_pool_and_shares_no_byte() {
    let hsm = Hsm::new(1, "");
    let engine = hsm.builder().sessions(2).build().unwrap();
    let mut outputs = Vec::new();
    for len in (1..=256).step_by(5) {
        outputs.push(engine.random(len).wait().unwrap().into_vec());
        outputs.push(engine.random(len).deadline(None).wait().unwrap().into_vec());
        let mut out = vec![0; len + 3];
        assert_eq!(engine.random(len).wait_into(&mut out).unwrap(), len);
        assert_eq!(out.split_off(len), [0; 3]);
        outputs.push(out);
        outputs.push(engine.random(len).submit().unwrap().wait().unwrap().into_vec());
        let future = engine.random(len).priority(Priority::High).into_future();
        outputs.push(futures::executor::block_on(future).unwrap().into_vec());
    }
    let asks = futures::stream::iter((0..300).map(|_| engine.random(24)));
    let piped: Vec<_> = futures::executor::block_on(pipeline(asks, 32.try_into().unwrap()).collect());
    outputs.extend(piped.into_iter().map(|output| output.unwrap().into_vec()));
    let count = outputs.len() as u64;
    assert_never_repeated(outputs);
    assert!(hsm.sim.calls_of(CALL) < count, "{} calls for {count}", hsm.sim.calls_of(CALL));
    wait_idle(&engine);
}

#[test]
fn many_tasks_and_threads_at_once_share_fetches_and_no_byte() {
    let hsm = Hsm::new(2, "");
    let engine = std::sync::Arc::new(hsm.builder().sessions(2).build().unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let task = |engine: std::sync::Arc<Engine>| async move {
        let mut outputs = Vec::new();
        for _ in 0..100 {
            outputs.push(engine.random(32).await.unwrap().into_vec());
        }
        outputs
    };
    let tasks: Vec<_> = (0..64).map(|_| runtime.spawn(task(std::sync::Arc::clone(&engine)))).collect();
    let blocking = || (0..200).map(|_| engine.random(16).wait().unwrap().into_vec()).collect::<Vec<_>>();
    let mut outputs: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(blocking)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    for task in tasks {
        outputs.extend(runtime.block_on(task).unwrap());
    }
    assert_eq!(outputs.len(), 64 * 100 + 4 * 200);
    let calls = hsm.sim.calls_of(CALL);
    assert!(calls <= outputs.len() as u64 / 4, "{calls} calls for {}", outputs.len());
    assert_never_repeated(outputs);
    wait_idle(&engine);
    hsm.assert_sound();
}

#[test]
fn long_requests_and_an_engine_without_a_pool_ask_the_token_each_time() {
    let hsm = Hsm::new(1, "");
    let engine = hsm.builder().build().unwrap();
    (0..10).for_each(|_| assert_eq!(engine.random(257).wait().unwrap().len(), 257));
    assert_eq!((hsm.sim.calls_of(CALL), engine.snapshot().random_pool.requests), (10, 0));
    drop(engine);
    let hsm = Hsm::new(1, "");
    let engine = hsm.builder().random_pool(false).build().unwrap();
    (0..10).for_each(|_| assert_eq!(engine.random(32).wait().unwrap().len(), 32));
    assert_eq!((hsm.sim.calls_of(CALL), engine.snapshot().random_pool.fetched), (10, 0));
}

#[test]
fn when_no_token_serves_those_who_wait_hear_why_and_the_pool_works_again_after_it() {
    let hsm = Hsm::new(1, "");
    let engine = hsm.builder().build().unwrap();
    assert_eq!(engine.drain_token("sim-0", LONG).unwrap(), 0);
    for _ in 0..3 {
        assert_eq!(kind(engine.random(32).wait()), ErrorKind::TokenLost);
        assert_eq!(kind(engine.random(32).deadline(None).wait()), ErrorKind::TokenLost);
        assert_eq!(kind(futures::executor::block_on(engine.random(32).into_future())), ErrorKind::TokenLost);
    }
    wait_idle(&engine);
    engine.undrain_token("sim-0").unwrap();
    assert_eq!(engine.random(32).wait().unwrap().len(), 32);
}

#[test]
fn a_fetch_that_hangs_fails_those_who_wait_for_it_and_nobody_who_comes_later() {
    let hsm = Hsm::new(1, &format!("hang={CALL}:1"));
    let engine = hsm.builder().sessions(2).hang_limit(Duration::from_millis(400)).build().unwrap();
    // Waits for the fetch that hangs, and has time.
    let patient = engine.random(32).deadline(None).submit().unwrap();
    assert!(hsm.sim.wait_hanging(1, LONG));
    // So do these, and they have none: one blocks, the watcher keeps the other's deadline.
    let hasty = || engine.random(32).deadline_in(Duration::from_millis(1));
    let late = futures::executor::block_on(hasty().into_future()).map_err(|error| error.kind());
    // By now the fetch may count as late, and the token be asked directly, in time or not.
    assert!(late.is_ok() || late.unwrap_err() == ErrorKind::DeadlineExceeded);
    eventually("newcomers ask another session", || {
        engine.random(32).deadline_in(Duration::from_millis(20)).wait().is_ok()
    });
    let error: Error = patient.wait().unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Hung, Outcome::Unknown));
    assert_eq!(engine.random(32).wait().unwrap().len(), 32);
    hsm.sim.release_hangs();
    wait_idle(&engine);
}

#[test]
fn a_drain_serves_those_who_wait_for_a_fetch() {
    let hsm = Hsm::new(1, &format!("hang={CALL}:1"));
    let engine = hsm.builder().sessions(1).build().unwrap();
    // More than one fetch brings.
    let waiting: Vec<_> = (0..100).map(|_| engine.random(200).deadline(None).submit().unwrap()).collect();
    assert!(hsm.sim.wait_hanging(1, LONG));
    let drained = std::thread::scope(|scope| {
        let drained = scope.spawn(|| engine.drain(LONG));
        let asked = || kind(engine.random(1).deadline_in(Duration::from_millis(1)).wait());
        eventually("the drain has begun", || asked() == ErrorKind::Draining);
        hsm.sim.release_hangs();
        drained.join().unwrap()
    });
    let outputs: Vec<_> = waiting.into_iter().map(|pending| pending.wait().unwrap().into_vec()).collect();
    assert_eq!((drained, outputs.len()), (0, 100));
    assert_never_repeated(outputs);
    assert_eq!(engine.snapshot().random_pool.held, 0, "what nobody had is wiped");
}

#[test]
fn who_gives_up_gives_its_room_back_and_gets_nothing() {
    let hsm = Hsm::new(1, &format!("hang={CALL}:1"));
    let engine = hsm.builder().sessions(1).requests_max(8).build().unwrap();
    let waiting: Vec<_> = (0..8).map(|_| engine.random(32).deadline(None).submit().unwrap()).collect();
    assert!(hsm.sim.wait_hanging(1, LONG));
    assert_eq!(engine.random(32).submit().unwrap_err().error.kind(), ErrorKind::Overloaded);
    drop(waiting);
    hsm.sim.release_hangs();
    wait_idle(&engine);
    eventually("the fetch has been collected", || engine.snapshot().random_pool.refills == 1);
    let pool = engine.snapshot().random_pool;
    assert_eq!((pool.requests, pool.given, pool.held), (0, 0, 1_024));
}

#[test]
fn one_place_is_enough_to_ask_for_random_bytes() {
    let hsm = Hsm::new(1, "");
    let engine = hsm.builder().requests_max(1).build().unwrap();
    for _ in 0..200 {
        // The place of the one before is given back just after its answer.
        assert_eq!(engine.random(32).wait_for_room().wait().unwrap().len(), 32);
    }
}
