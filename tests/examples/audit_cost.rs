//! What the audit log costs: 64 tasks that sign with one ECDSA P-256 key of SoftHSM2, without a log, with `strict` and with a
//! window, in rounds that take turns. Prints the ratios to the engine without a log, the processor time, and the time that the disk
//! takes to synchronise.
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

/// What 64 tasks got done.
struct Round {
    /// Signatures a second.
    rate: f64,
    /// Processor time of this process for each, in microseconds.
    cpu_us: f64,
}

/// The processor time of this process so far, in microseconds: it counts in hundredths of a second, and does not count what other
/// programs take.
fn cpu_us() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    // After the name, which may have spaces: user and system time are the 12th and 13th.
    let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: f64 = fields[11..13].iter().map(|field| field.parse::<f64>().unwrap()).sum();
    ticks * 10_000.0
}

fn round(engine: &Engine, time: Duration) -> Round {
    let before = cpu_us();
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
    let signatures = done.load(Ordering::Relaxed) as f64;
    Round { rate: signatures / started.elapsed().as_secs_f64(), cpu_us: (cpu_us() - before) / signatures }
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
        round(engine, time / 4);
    }
    let mut rounds: [Vec<[f64; 2]>; 3] = Default::default();
    for _ in 0..ROUNDS {
        let base = round(&plain, time);
        rounds[0].push([base.rate, base.cpu_us]);
        for (engine, rounds) in [&strict, &windowed].into_iter().zip(&mut rounds[1..]) {
            let round = round(engine, time);
            rounds.push([round.rate / base.rate, round.cpu_us - base.cpu_us]);
        }
    }
    let of =
        |engine: usize, figure: usize| median(rounds[engine].iter().map(|round| round[figure]).collect());
    let sync = |engine: &Engine| {
        let audit = engine.snapshot().audit;
        format!(
            "synchronised in {:.0?}, 99 % in {:.0?}; {} records",
            audit.sync_p50, audit.sync_p99, audit.records
        )
    };
    println!("without a log: {:.0} signatures a second, {:.1} us of processor time each", of(0, 0), of(0, 1));
    for (index, name, engine) in [(1, "strict", &strict), (2, "window", &windowed)] {
        println!("{name}: {:.3} of that, {:+.1} us; {}", of(index, 0), of(index, 1), sync(engine));
    }
    for engine in [plain, strict, windowed] {
        engine.drain(Duration::from_secs(10));
    }
}
