//! What the audit log costs: 64 tasks that sign with one ECDSA P-256 key of SoftHSM2, without a log, with `strict` and with a
//! window, in rounds that take turns. Prints the ratios to the engine without a log, and how long the disk takes to synchronise.
//!
//! `cargo run --release -p hsmux-tests --example audit_cost [SECONDS_A_ROUND]`

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a program for people, which ends when something fails"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hsmux::{Audit, AuditMode, Curve, Ecdsa, Engine, KeyConfig, KeySpec};
use quanta::Instant;
use softhsm_fixtures::{PIN, SoftHsm};

const TASKS: usize = 64;
const ROUNDS: usize = 7;
const NAME: &str = "card";

/// Signatures a second of 64 tasks, for so long.
fn rate(engine: &Engine, time: Duration) -> f64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let key = engine.key(NAME).unwrap();
    let (done, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let started = Instant::now();
    runtime.block_on(async {
        let tasks = (0..TASKS).map(|_| async {
            while !stop.load(Ordering::Relaxed) {
                key.sign(Ecdsa::P256_SHA256, b"a message".as_slice()).await.unwrap();
                if done.fetch_add(1, Ordering::Relaxed) % 64 == 0 && started.elapsed() > time {
                    stop.store(true, Ordering::Relaxed);
                }
            }
        });
        futures::future::join_all(tasks).await;
    });
    done.load(Ordering::Relaxed) as f64 / started.elapsed().as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let seconds = std::env::args().nth(1).map_or(2.0, |text| text.parse().unwrap());
    let time = Duration::from_secs_f64(seconds);
    let softhsm = SoftHsm::for_tests().unwrap();
    let token = softhsm.unique_token();
    let site = tempfile::tempdir().unwrap();
    let build = |audit: Option<Audit>| {
        let builder = Engine::builder().module(softhsm.module()).tokens([token.label()]).pin(PIN).sessions(2);
        let builder = audit.into_iter().fold(builder, |builder, audit| builder.audit(audit));
        builder.build().unwrap()
    };
    let window = AuditMode::Window { records: 10_000, age: Duration::from_millis(100) };
    let plain = build(None);
    plain.managed_keys().create(NAME, &KeyConfig::new(KeySpec::Ec(Curve::P256))).unwrap();
    let strict = build(Some(Audit::new(site.path().join("strict"))));
    let windowed = build(Some(Audit::new(site.path().join("window")).mode(window)));
    for engine in [&plain, &strict, &windowed] {
        rate(engine, time / 4);
    }
    let (mut rates, mut to_strict, mut to_window) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let base = rate(&plain, time);
        to_strict.push(rate(&strict, time) / base);
        to_window.push(rate(&windowed, time) / base);
        rates.push(base);
    }
    let sync = |engine: &Engine| {
        let audit = engine.snapshot().audit;
        format!(
            "synchronised in {:.0?}, 99 % in {:.0?}; {} records",
            audit.sync_p50, audit.sync_p99, audit.records
        )
    };
    println!("without a log: {:.0} signatures a second", median(rates));
    println!("strict: {:.3} of that; {}", median(to_strict), sync(&strict));
    println!("window: {:.3} of that; {}", median(to_window), sync(&windowed));
    for engine in [plain, strict, windowed] {
        engine.drain(Duration::from_secs(10));
    }
}
