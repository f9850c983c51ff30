//! How many messages of AES-GCM a key encrypts is counted over all processes, whichever way they end, and bounded.

use std::collections::HashSet;

use hsmux::{AesGcm, ErrorKind};

use crate::worker::{MESSAGES_MAX, Records, Site, Worker};

/// Parts of a block that each process may leave unused when it ends, and the margin for requests in flight.
const UNUSED_MAX: u64 = MESSAGES_MAX / 16 + MESSAGES_MAX / 32;

#[test]
fn a_key_encrypts_no_more_messages_than_it_may_over_processes_that_are_killed_and_never_under_one_iv_twice() {
    for (tokens, records) in [(1, Records::OnToken), (2, Records::OnToken), (1, Records::InFile)] {
        let site = Site::new();
        let place = site.place(tokens, records);
        Worker::start(&place).ask("create-aes vault").unwrap();
        let (mut ivs, mut processes) = (HashSet::new(), 0);
        let mut encrypted = 0;
        loop {
            // Two at a time, each killed with a part of its block unused.
            let mut workers = [Worker::start(&place), Worker::start(&place)];
            workers.iter_mut().for_each(|worker| worker.order("encrypt vault 250"));
            let before = encrypted;
            for worker in &mut workers {
                let answer = worker.next().unwrap();
                for iv in answer.strip_prefix("ok").unwrap().split_whitespace() {
                    encrypted += 1;
                    assert!(ivs.insert(iv.to_owned()), "an IV was used twice");
                }
                worker.kill();
                processes += 1;
            }
            if encrypted == before {
                break;
            }
            assert!(processes < 40);
        }
        assert!(encrypted <= MESSAGES_MAX, "{encrypted}");
        assert!(encrypted + processes * UNUSED_MAX >= MESSAGES_MAX, "{encrypted} by {processes}");
        let engine = place.engine().unwrap();
        let key = engine.key("vault").unwrap();
        let error = key.encrypt(AesGcm::new(), b"message").wait().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::KeyState, "{error}");
        assert!(error.to_string().contains("rotate"), "{error}");
        engine.managed_keys().rotate("vault").unwrap();
        let sealed = key.encrypt(AesGcm::new(), b"message").wait().unwrap();
        assert_eq!(key.decrypt(AesGcm::new(), sealed.into_vec()).wait().unwrap().as_bytes(), b"message");
        println!(
            "{tokens} tokens, {records:?}: {encrypted} of {MESSAGES_MAX} messages by {processes} processes"
        );
    }
}
