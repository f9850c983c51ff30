//! Deadlines, withdrawal and admission: waiters are answered in time, and nothing is lost with them.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails its test")]

use std::time::Duration;

use hsmux::{AesEcb, Engine, ErrorKind, Key};
use softhsm_fixtures::{PIN, SoftHsm, TestToken};

fn engine(softhsm: &SoftHsm, token: &TestToken<'_>) -> (Engine, Key) {
    token.import_aes("aes", &[4; 32]);
    let engine = Engine::builder().module(softhsm.module()).tokens([token.label()]).pin(PIN).sessions(4);
    let engine = engine.requests_max(1_000).build().unwrap();
    let key = engine.key("aes").unwrap();
    (engine, key)
}

#[test]
fn a_flood_of_tiny_deadlines_loses_no_session_and_leaves_no_request_behind() {
    let Some(softhsm) = SoftHsm::for_tests() else { return };
    let token = softhsm.unique_token();
    let (engine, key) = engine(softhsm, &token);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..1_000 {
                    let request = key.encrypt(AesEcb, [7; 16].to_vec()).deadline_in(Duration::from_micros(1));
                    match request.wait().map_err(|error| error.kind()) {
                        Ok(_) | Err(ErrorKind::DeadlineExceeded | ErrorKind::Overloaded) => {}
                        Err(kind) => panic!("{kind:?}"),
                    }
                }
            });
        }
    });
    assert_eq!(key.encrypt(AesEcb, [7; 16].to_vec()).wait().unwrap().len(), 16);
    let snapshot = engine.snapshot();
    assert_eq!((snapshot.tokens[0].sessions, snapshot.hung, snapshot.panics), (4, 0, 0));
    assert_eq!(engine.drain(Duration::from_secs(10)), 0);
    assert_eq!((engine.snapshot().in_flight, engine.snapshot().bytes_in_flight), (0, 0));
}

#[test]
fn async_deadlines_are_kept_by_the_engine_and_dropped_futures_free_their_room() {
    let Some(softhsm) = SoftHsm::for_tests() else { return };
    let token = softhsm.unique_token();
    let (engine, key) = engine(softhsm, &token);
    futures::executor::block_on(async {
        let requests = (0..900).map(|_| {
            key.encrypt(AesEcb, [7; 16].to_vec()).deadline_in(Duration::from_micros(50)).into_future()
        });
        for answer in futures::future::join_all(requests).await {
            assert!(answer.is_ok() || answer.unwrap_err().kind() == ErrorKind::DeadlineExceeded);
        }
    });
    for _ in 0..100 {
        drop(key.encrypt(AesEcb, vec![7; 4_096]).submit().unwrap());
    }
    assert_eq!(engine.drain(Duration::from_secs(10)), 0);
    assert_eq!((engine.snapshot().in_flight, engine.snapshot().bytes_in_flight), (0, 0));
}

#[test]
fn a_full_engine_hands_the_request_back_and_takes_it_later() {
    let Some(softhsm) = SoftHsm::for_tests() else { return };
    let token = softhsm.unique_token();
    token.import_aes("aes", &[4; 32]);
    let builder = Engine::builder().module(softhsm.module()).tokens([token.label()]).pin(PIN);
    let engine = builder.requests_max(1).bytes_max(100_000).build().unwrap();
    let key = engine.key("aes").unwrap();
    let large = key.encrypt(AesEcb, vec![0; 64_000]).submit().unwrap_err();
    assert_eq!(large.error.kind(), ErrorKind::TooLarge);
    // The bytes stay taken until the first is collected, so the second finds no room however fast the token is.
    let first = key.encrypt(AesEcb, vec![1; 40_000]).submit().unwrap();
    let refused = key.encrypt(AesEcb, vec![2; 40_000]).submit().unwrap_err();
    assert_eq!(refused.error.kind(), ErrorKind::Overloaded);
    assert_eq!(first.wait().unwrap().len(), 40_000);
    assert_eq!(refused.request.wait().unwrap().len(), 40_000);
}
