//! A mixed load under everything that can go wrong at once (mix F of `p11-sim`): each request is answered once, and what is
//! handed out is right.
//!
//! `HSMUX_FAULTS_OPERATIONS` says how many operations; 12,000 without it. `scripts/soak.sh --faults N` runs it with N.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails its test")]

#[path = "support/simulated.rs"]
mod simulated;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use aes::cipher::BlockCipherEncrypt;
use hmac::{KeyInit, Mac};
use hsmux::{AesEcb, Engine, Health, Hmac, Key, Snapshot, VerifyOutputs};
use hsmux_bench::mixed::{Check, Mixed};
use hsmux_tests::{Hsm, eventually, wait_idle};
use p11_sim::material;
use simulated::{KEYS, LABELS, software};

/// Tokens, callers of the mixed load, and the time that an operation takes. Many tokens, for the shares of the mix are of
/// calls: each is lost every few hundred requests, and is looked for after pauses of up to two seconds. Code that is
/// optimised is so fast that all of them would be away most of the time.
fn scale() -> (usize, u32, &'static str) {
    if count() < 1_000_000 { (16, 32, "op_us=0") } else { (64, 16, "op_us=2000") }
}

/// Hangs that end by themselves, after the hang limit; and tokens that are away for a while. In a long run threads lose their
/// cores for 200 ms now and then, where other programs run: a call that was only kept waiting is not to be written off.
fn mix() -> (&'static str, Duration) {
    let ms = Duration::from_millis;
    if count() < 1_000_000 { ("faults=F:300:20", ms(200)) } else { ("faults=F:800:20", ms(500)) }
}

/// Only a test that fails takes so long.
const LIMIT: Duration = Duration::from_secs(3 * 3600);

/// Further callers, who give up requests and are in a hurry.
const HASTY: u64 = 4;

fn count() -> u64 {
    std::env::var("HSMUX_FAULTS_OPERATIONS").map_or(12_000, |text| text.parse().unwrap())
}

/// Of a large count one in so many is of the mixed load, but no more than so many in all: with its RSA in the simulator and in
/// the software that checks it, one takes 15 ms of processor time. The others are MACs and enciphered blocks, which take
/// microseconds.
const MIXED_PART: u64 = 50;
const MIXED_MAX: u64 = 40_000;

/// Callers of these, and requests that each has in flight at once.
const STEADY: u64 = 8;
const BATCH: u64 = 64;

/// What became of the requests of those who ask for much and wait for it.
#[derive(Debug, Default)]
struct Steady {
    answered: AtomicU64,
    failed: AtomicU64,
    wrong: AtomicU64,
}

/// Makes so many requests in batches, each with a text of its own, and checks every answer.
fn go_on(thread: u64, count: u64, mac: &Key, aes: &Key, steady: &Steady) {
    let maccing = hmac::Hmac::<sha2::Sha256>::new_from_slice(&material::hmac(0, LABELS.hmac, 0)).unwrap();
    let cipher = aes::Aes256::new_from_slice(&material::aes(0, LABELS.aes, 0)).unwrap();
    let add = |count: &AtomicU64, more: u64| count.fetch_add(more, Ordering::Relaxed);
    for first in (0..count).step_by(usize::try_from(BATCH).unwrap()) {
        let texts: Vec<_> =
            (first..first + BATCH).map(|i| [thread.to_be_bytes(), i.to_be_bytes()].concat()).collect();
        let answers: Vec<Result<bool, _>> = match (first / BATCH).is_multiple_of(2) {
            true => {
                let macs =
                    mac.sign_many(Hmac::SHA256, texts.iter().cloned()).wait_for_room().wait().into_iter();
                let is_right = |(mac, text): (hsmux::Signature, &Vec<u8>)| {
                    maccing.clone().chain_update(text).verify_slice(mac.as_bytes()).is_ok()
                };
                macs.zip(&texts).map(|(mac, text)| mac.map(|mac| is_right((mac, text)))).collect()
            }
            false => {
                let blocks =
                    aes.encrypt_many(AesEcb, texts.iter().cloned()).wait_for_room().wait().into_iter();
                let is_right = |(made, text): (hsmux::Ciphertext, &Vec<u8>)| {
                    let mut block = aes::Block::try_from(text.as_slice()).unwrap();
                    cipher.encrypt_block(&mut block);
                    made.as_bytes() == block.as_slice()
                };
                blocks.zip(&texts).map(|(made, text)| made.map(|made| is_right((made, text)))).collect()
            }
        };
        let right = answers.iter().filter(|answer| matches!(answer, Ok(true))).count() as u64;
        let wrong = answers.iter().filter(|answer| matches!(answer, Ok(false))).count() as u64;
        add(&steady.answered, right + wrong);
        add(&steady.wrong, wrong);
        add(&steady.failed, BATCH - right - wrong);
    }
}

/// What became of the requests of those who give up and are in a hurry.
#[derive(Debug, Default)]
struct Hasty {
    asked: AtomicU64,
    answered: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
    wrong: AtomicU64,
}

/// Makes requests with deadlines between nothing and 30 ms, and drops one of twenty at once, until told to stop. Each has a
/// text of its own, so that an answer to another one is seen.
fn hurry(thread: u64, key: &Key, stop: &AtomicBool, hasty: &Hasty) {
    let software = hmac::Hmac::<sha2::Sha256>::new_from_slice(&material::hmac(0, LABELS.hmac, 0)).unwrap();
    let add = |count: &AtomicU64| count.fetch_add(1, Ordering::Relaxed);
    let mut dice = thread;
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let text = [thread.to_be_bytes(), u64::to_be_bytes(number)].concat();
        let limit = Duration::from_micros((dice >> 33) % 30_000);
        add(&hasty.asked);
        let Ok(pending) = key.sign(Hmac::SHA256, text.clone()).deadline_in(limit).submit() else {
            add(&hasty.failed);
            continue;
        };
        if (dice >> 20).is_multiple_of(20) {
            drop(pending);
            add(&hasty.dropped);
            continue;
        }
        match pending.wait() {
            Ok(mac) => {
                let right = software.clone().chain_update(&text).verify_slice(mac.as_bytes()).is_ok();
                add(&hasty.answered);
                hasty.wrong.fetch_add(u64::from(!right), Ordering::Relaxed);
            }
            Err(_) => drop(add(&hasty.failed)),
        }
    }
}

/// Readmits tokens that gave a wrong answer, so that they give more, until told to stop.
fn readmit(engine: &Engine, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        for token in engine.snapshot().tokens {
            if token.health == Health::Ejected {
                engine.readmit_token(&token.label).unwrap();
            }
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

#[test]
fn under_all_faults_at_once_each_request_is_answered_once_and_none_wrongly() {
    let (tokens, callers, op) = scale();
    let hsm = Hsm::new(tokens, &format!("{KEYS},reuse=sessions;objects"));
    let (mix, hang_limit) = mix();
    let builder = hsm.builder().verify_outputs(VerifyOutputs::Always).hang_limit(hang_limit);
    let engine = Arc::new(builder.build().unwrap());
    let (mixed, software) = (Mixed::new(LABELS, callers, Check::Every), Arc::new(software()));
    // Its keys are opened while nothing fails.
    let warm = mixed.run_count(200, LIMIT, &engine, &software).unwrap();
    assert_eq!((warm.total().wrong, warm.total().failed), (0, 0), "{warm}");
    let key = engine.key(LABELS.hmac).unwrap();
    hsm.sim.configure(&format!("{mix},{op}")).unwrap();
    let (stop, hasty, steady) = (AtomicBool::new(false), Hasty::default(), Steady::default());
    let aes = engine.key(LABELS.aes).unwrap();
    let mixed_count = if count() < 1_000_000 { count() } else { (count() / MIXED_PART).min(MIXED_MAX) };
    let report = std::thread::scope(|scope| {
        scope.spawn(|| readmit(&engine, &stop));
        for thread in 0..HASTY {
            let (key, stop, hasty) = (&key, &stop, &hasty);
            scope.spawn(move || hurry(thread, key, stop, hasty));
        }
        let each = (count() - mixed_count) / STEADY;
        let steadily: Vec<_> = (0..STEADY)
            .map(|thread| {
                let (key, aes, steady) = (&key, &aes, &steady);
                scope.spawn(move || go_on(thread, each, key, aes, steady))
            })
            .collect();
        let report = mixed.run_count(mixed_count, LIMIT, &engine, &software).unwrap();
        steadily.into_iter().for_each(|steadily| steadily.join().unwrap());
        stop.store(true, Ordering::Relaxed);
        report
    });
    hsm.sim.configure("faults=,removed=,op_us=0").unwrap();
    let total = report.total();
    assert_eq!((total.wrong, total.lost(), report.repeated, report.panicked), (0, 0, 0, 0), "{report}");
    let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
    assert_eq!(of(&hasty.asked), of(&hasty.answered) + of(&hasty.failed) + of(&hasty.dropped), "{hasty:?}");
    assert_eq!((of(&hasty.wrong), of(&steady.wrong)), (0, 0), "{hasty:?} {steady:?}");
    let asked = (count() - mixed_count) / STEADY;
    assert_eq!(
        of(&steady.answered) + of(&steady.failed),
        asked.next_multiple_of(BATCH) * STEADY,
        "{steady:?}"
    );
    assert!(of(&hasty.answered) > 0 && of(&hasty.dropped) > 0, "{hasty:?}");
    assert!(total.failed * 20 < total.asked, "others serve what one fails: {report}");
    let snapshot = engine.snapshot();
    assert!(snapshot.tokens_lost > 0 && snapshot.hung > 0, "the mix has been met: {snapshot:?}");
    // Every token serves again, nothing is in flight, and the simulator has seen no rule of the standard broken.
    wait_idle(&engine);
    eventually("every token serves", || all_serve(&engine));
    let sim = &hsm.sim;
    let broken = (sim.concurrent_use(), sim.active_at_init(), sim.finalised_inside());
    assert_eq!(
        broken,
        (0, 0, 0),
        "two threads in a session, operations active at Init, threads inside C_Finalize"
    );
    let lost = snapshot.tokens_lost;
    assert!(sim.calls_of("C_Login") <= tokens as u64 + 2 * lost + snapshot.resets * tokens as u64);
    println!("who ask steadily: {steady:?}");
    println!("{report}\nwho give up and are in a hurry: {hasty:?}");
    println!("{}", attempts(&snapshot));
}

/// Whether every token is in service, and no call hangs; tokens that were taken out are readmitted.
fn all_serve(engine: &Engine) -> bool {
    let tokens = engine.snapshot().tokens;
    tokens.iter().filter(|token| token.health == Health::Ejected).for_each(|token| {
        engine.readmit_token(&token.label).unwrap();
    });
    tokens.iter().all(|token| token.health == Health::Serving && token.written_off == 0)
}

/// What attempts failed of, and what befell the tokens.
fn attempts(snapshot: &Snapshot) -> String {
    let mut failed = BTreeMap::new();
    for (kind, count) in snapshot.tokens.iter().flat_map(|token| &token.operations).flat_map(|of| &of.errors)
    {
        *failed.entry(kind.name()).or_insert(0) += count;
    }
    let (lost, hung) = (snapshot.tokens_lost, snapshot.hung);
    let (resets, ejected) = (snapshot.resets, snapshot.tokens_ejected);
    format!(
        "attempts that failed: {failed:?}; {lost} losses, {hung} hung, {resets} resets, {ejected} ejections"
    )
}
