//! Ciphertexts that are wrong in different ways are refused alike: the same bytes of error after the same time.
//!
//! On a device that takes the same time for each call, so that what differs is the engine's. `HSMUX_FAILURES=long` is the
//! form with the numbers of the promise: a hundred thousand of each kind.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails its test")]

use std::time::Duration;

use hsmux::{AesCbc, AesGcm, Cipher, ErrorKind, Key};
use hsmux_tests::figures::{by_form, median_interval};
use hsmux_tests::{Hsm, LONG};
use quanta::Instant;

/// A way to be wrong: its name, and a ciphertext.
type Kind = (&'static str, Vec<u8>);

/// The bytes with this one changed.
fn changed(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 0x80;
    bytes
}

/// What is not authentic, each of the same length but for those whose length is what is wrong.
fn sealed(key: &Key) -> (Cipher, Vec<Kind>) {
    let right = key.encrypt(AesGcm::new(), &[7; 48]).wait().unwrap().into_vec();
    let len = right.len();
    let kinds = vec![
        ("tag", changed(&right, len - 1)),
        ("first byte of the tag", changed(&right, len - 16)),
        ("body", changed(&right, 12)),
        ("IV", changed(&right, 0)),
        ("truncated", right[..len - 1].to_vec()),
        ("longer", [&right[..], &[0]].concat()),
    ];
    (AesGcm::new().into(), kinds)
}

/// What has no padding: as many ways as a padding can be wrong in.
fn padded(key: &Key) -> (Cipher, Vec<Kind>) {
    // One byte of padding, so that changing the block before changes what the padding says.
    let right = key.encrypt(AesCbc::new(), &[7; 47]).wait().unwrap().into_vec();
    let len = right.len();
    // The last byte of the plaintext is 1; these make it 0, 0x11 and 0x05 with a wrong byte before it.
    let last = |mask: u8| {
        let mut bytes = right.clone();
        bytes[len - 17] ^= mask;
        bytes
    };
    let kinds = vec![
        ("padding of 0", last(1)),
        ("padding of 17", last(0x10)),
        ("padding of 5 that is none", last(4)),
    ];
    (AesCbc::new().into(), kinds)
}

/// What nobody need ask a token about, for no ciphertext is so long: the sender knows that.
fn wrong_lengths(key: &Key) -> [(Cipher, Vec<u8>); 4] {
    let sealed = key.encrypt(AesGcm::new(), &[7; 48]).wait().unwrap().into_vec();
    let padded = key.encrypt(AesCbc::new(), &[7; 47]).wait().unwrap().into_vec();
    [
        (AesGcm::new().into(), sealed[..27].to_vec()),
        (AesGcm::new().into(), Vec::new()),
        (AesCbc::new().into(), padded[..40].to_vec()),
        (AesCbc::new().into(), padded[..16].to_vec()),
    ]
}

/// How long the request takes to be refused, and what is said.
fn refusal(key: &Key, how: &Cipher, bytes: &[u8], limit: Option<Duration>) -> (i64, String) {
    let request = key.decrypt(how.clone(), bytes).deadline(limit);
    let started = Instant::now();
    let answer = request.wait();
    let took = started.elapsed();
    let error = answer.map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DecryptFailed, "{error}");
    (i64::try_from(took.as_nanos()).unwrap(), format!("{error} {error:?}"))
}

/// By kind: how much longer each took than the first kind just before or after it.
fn differences(
    key: &Key,
    how: &Cipher,
    kinds: &[Kind],
    limit: Option<Duration>,
    times: usize,
) -> Vec<Vec<i64>> {
    let mut differences = vec![Vec::with_capacity(times); kinds.len()];
    let (_, said) = refusal(key, how, &kinds[0].1, limit);
    for time in 0..times {
        for (kind, (name, bytes)) in kinds.iter().enumerate().skip(1) {
            let measure = |bytes: &[u8]| {
                let (took, says) = refusal(key, how, bytes, limit);
                assert_eq!(says, said, "{name}");
                took
            };
            // In turn, so that what comes first is neither.
            let difference = match time % 2 {
                0 => -measure(&kinds[0].1) + measure(bytes),
                _ => measure(bytes) - measure(&kinds[0].1),
            };
            differences[kind].push(difference);
        }
    }
    differences
}

#[test]
fn whatever_is_wrong_with_a_ciphertext_it_is_refused_alike_and_after_the_same_time() {
    let times = by_form(300, 100_000);
    // Every call takes as long, whatever it answers. Of the short form, four times what it can tell apart: a kind that costs
    // a call less is seen.
    let call_us = by_form(200, 30);
    let hsm = Hsm::new(1, &format!("call_us={call_us},interface=2.40"));
    let engine = hsm.builder().sessions(1).build().unwrap();
    let key = engine.key("aes256").unwrap();
    let (how, kinds) = sealed(&key);
    let (_, said) = refusal(&key, &how, &kinds[0].1, None);
    for (how, bytes) in wrong_lengths(&key) {
        assert_eq!(refusal(&key, &how, &bytes, None).1, said);
    }
    for (how, kinds) in [(how, kinds), padded(&key)] {
        assert_eq!(refusal(&key, &how, &kinds[0].1, None).1, said, "of whatever mode");
        for limit in [None, Some(LONG)] {
            let differences = differences(&key, &how, &kinds, limit, times);
            for ((name, _), differences) in kinds.iter().zip(differences).skip(1) {
                let (median, [low, high]) = median_interval(differences);
                let way = if limit.is_some() { "queued" } else { "inline" };
                println!("{way}, {name} against {}: {median} ns, 99.7 % of {low} to {high} ns", kinds[0].0);
                let most = by_form(50_000, 1_000);
                assert!(median.abs() < most, "{name}: {median} ns");
                assert!(low <= by_form(most, 0) && high >= -by_form(most, 0), "{name}: {low} to {high} ns");
            }
        }
    }
    assert_eq!(hsm.sim.calls_of("C_CloseSession"), 0);
    assert_eq!(engine.drain(LONG), 0);
}
