//! One caller floods with ciphertexts that are not valid: the others keep their throughput, the token stays in service,
//! and no session goes, whatever code the module has for it.
//!
//! `HSMUX_FAILURES=long` is the form with the numbers of the promise: a hundred thousand a minute.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails its test")]

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hsmux::{AesCbc, AesGcm, Cipher, Decrypt, Engine, ErrorKind, Hmac, Key, Pending};
use hsmux_tests::figures::{by_form, let_pass};
use hsmux_tests::{Hsm, LONG, wait_idle};
use quanta::Instant;

const TOKENS: usize = 2;
const SESSIONS: usize = 8;
const OPERATION: Duration = Duration::from_millis(2);
/// Few enough that there is a session for each, the flood's included.
const CALLERS: usize = 4;
const IN_FLIGHT: usize = 16;

/// What modules answer to a ciphertext that they do not accept, beside the simulator's own code:
/// `CKR_GENERAL_ERROR` (SoftHSM2), `CKR_FUNCTION_FAILED`, `CKR_ENCRYPTED_DATA_INVALID`, `CKR_SIGNATURE_INVALID`.
const CODES: [&str; 5] =
    ["", "C_Decrypt:1+=0x5", "C_Decrypt:1+=0x6", "C_Decrypt:1+=0x40", "C_Decrypt:1+=0xc0"];

/// Ciphertexts of which each is wrong in another way.
fn bad(key: &Key) -> Vec<(Cipher, Vec<u8>)> {
    let sealed = key.encrypt(AesGcm::new(), b"4111 1111 1111 1111").wait().unwrap().into_vec();
    let chained = key.encrypt(AesCbc::new(), &[7; 40]).wait().unwrap().into_vec();
    let flipped = |bytes: &[u8], at: usize| {
        let mut bytes = bytes.to_vec();
        bytes[at] ^= 1;
        bytes
    };
    let last = sealed.len() - 1;
    // The block before the last says what the padding comes out as: no byte of it is as it was.
    let padding = chained.len() - 17;
    vec![
        (AesGcm::new().into(), flipped(&sealed, 0)),
        (AesGcm::new().into(), flipped(&sealed, last)),
        (AesGcm::new().into(), sealed[..last].to_vec()),
        (AesCbc::new().into(), flipped(&chained, padding)),
    ]
}

/// Sends so many a second by the clock until told to stop; how many, of which all were answered as they have to be.
fn flood(key: &Key, bad: &[(Cipher, Vec<u8>)], rate: f64, stop: &AtomicBool) -> u64 {
    let (mut sent, mut flying) = (0_u64, VecDeque::<Pending<Decrypt>>::new());
    let collect = |pending: Pending<Decrypt>| {
        assert_eq!(pending.wait().map(drop).unwrap_err().kind(), ErrorKind::DecryptFailed);
    };
    let started = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        while (sent as f64) < started.elapsed().as_secs_f64() * rate {
            let (how, bytes) = &bad[usize::try_from(sent).unwrap() % bad.len()];
            flying.push_back(key.decrypt(how.clone(), bytes).deadline_in(LONG).submit().unwrap());
            sent += 1;
            if flying.len() > IN_FLIGHT {
                flying.pop_front().into_iter().for_each(collect);
            }
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
    flying.into_iter().for_each(collect);
    sent
}

/// Signs until told to stop, every other caller by running its requests itself.
fn sign(key: &Key, signed: &AtomicU64, stop: &AtomicBool, caller: usize) {
    let limit = caller.is_multiple_of(2).then_some(LONG);
    while !stop.load(Ordering::Relaxed) {
        assert_eq!(key.sign(Hmac::SHA256, b"message").deadline(limit).wait().unwrap().len(), 32);
        signed.fetch_add(1, Ordering::Relaxed);
    }
}

/// How many a second others sign, for so long.
fn throughput(signed: &AtomicU64, time: Duration) -> f64 {
    let (started, before) = (Instant::now(), signed.load(Ordering::Relaxed));
    let_pass(time);
    (signed.load(Ordering::Relaxed) - before) as f64 / started.elapsed().as_secs_f64()
}

/// Throughput of the others beside the flood, of that before it, by code; and how many bad ones there were.
fn rounds(hsm: &Hsm, engine: &Engine, bad: &[(Cipher, Vec<u8>)]) -> (Vec<f64>, u64) {
    let (mac, aes) = (engine.key("hmac").unwrap(), engine.key("aes256").unwrap());
    let rate = by_form(300.0, 100_000.0 / 60.0);
    let time = by_form(Duration::from_millis(250), Duration::from_secs(12));
    let (stop, signed) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for caller in 0..CALLERS {
            let (mac, signed, stop) = (&mac, &signed, &stop);
            scope.spawn(move || sign(mac, signed, stop, caller));
        }
        let round = |code: &&str| {
            hsm.sim.configure("fault=").unwrap();
            let before = throughput(&signed, time);
            hsm.sim.configure(&format!("fault={code}")).unwrap();
            let end = AtomicBool::new(false);
            let (beside, sent) = std::thread::scope(|scope| {
                let flooding = scope.spawn(|| flood(&aes, bad, rate, &end));
                let beside = throughput(&signed, time);
                end.store(true, Ordering::Relaxed);
                (beside, flooding.join().unwrap())
            });
            (beside / before, sent)
        };
        let (kept, sent): (Vec<_>, Vec<_>) = CODES.iter().map(round).unzip();
        stop.store(true, Ordering::Relaxed);
        (kept, sent.into_iter().sum())
    })
}

#[test]
fn a_flood_of_bad_ciphertexts_costs_the_others_no_throughput_and_no_session() {
    // Without the functions for messages, so that the rules meet the function that all modules have.
    let config = format!("op_us={},interface=2.40", OPERATION.as_micros());
    let hsm = Hsm::new(TOKENS, &config);
    let engine = hsm.builder().sessions(SESSIONS).build().unwrap();
    let bad = bad(&engine.key("aes256").unwrap());
    let sessions = || (hsm.sim.calls_of("C_OpenSession"), hsm.sim.calls_of("C_CloseSession"));
    let before = sessions();
    let (mut kept, sent) = rounds(&hsm, &engine, &bad);
    println!("{sent} bad ciphertexts; throughput of the others of that before, by code: {kept:.3?}");
    kept.sort_by(f64::total_cmp);
    assert!(kept[kept.len() / 2] >= by_form(0.6, 0.9), "{kept:?}");
    assert_eq!(sessions(), before, "sessions were opened or closed");
    let snapshot = engine.snapshot();
    assert_eq!((snapshot.tokens_lost, snapshot.hung, snapshot.panics), (0, 0, 0));
    assert!(snapshot.tokens.iter().all(|token| token.sessions == SESSIONS));
    let refused: u64 = snapshot
        .tokens
        .iter()
        .flat_map(|token| &token.operations)
        .flat_map(|operation| &operation.errors)
        .filter(|(kind, _)| *kind == ErrorKind::DecryptFailed)
        .map(|(_, count)| count)
        .sum();
    assert!(refused <= sent, "{refused} of {sent}: none was tried twice");
    wait_idle(&engine);
    hsm.assert_sound();
    assert_eq!(engine.drain(LONG), 0);
}
