//! What the audit log costs: 64 tasks that sign with one ECDSA P-256 key of SoftHSM2, without a log, with `strict` and with a
//! window, in rounds that take turns. Prints the ratios to the engine without a log, the processor time, and the time that the disk
//! takes to synchronise.
//!
//! Each round has an engine of its own, and one is open at a time: how fast two sessions of SoftHSM are beside each other hangs on
//! where the allocator puts what they use. Of five engines open at once in one process, without a log, the slowest made 11 500
//! signatures a second and the fastest 25 600, each as many in every round: threads that share an arena of glibc are the slow ones.
//! A run whose rounds without a log are far apart says little of the log.
//!
//! `cargo run --release -p hsmux-tests --example audit_cost [SECONDS_A_ROUND]`

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a program for people, which ends when something fails"
)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hsmux::{Audit, AuditMode, Curve, Ecdsa, Engine, KeyConfig, KeySpec};
use quanta::Instant;
use softhsm_fixtures::{PIN, SoftHsm};

const TASKS: usize = 64;
const ROUNDS: usize = 15;
const NAME: &str = "card";

/// What 64 tasks got done.
struct Round {
    /// Signatures a second.
    rate: f64,
    /// Processor time of this process for each, in microseconds.
    cpu_us: f64,
    /// Of that, what the log's threads took.
    log_us: f64,
    /// How long the disk took to synchronise.
    sync: String,
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

/// The processor time of the log's threads so far, in microseconds.
fn log_us() -> f64 {
    let threads = std::fs::read_dir("/proc/self/task").unwrap().map(|thread| thread.unwrap().path());
    let read = |path: &Path, file| std::fs::read_to_string(path.join(file)).unwrap_or_default();
    let of_the_log = threads.filter(|thread| read(thread, "comm").starts_with("hsmux-audit"));
    let ns = of_the_log.map(|thread| read(&thread, "schedstat"));
    ns.filter_map(|stat| stat.split_whitespace().next()?.parse::<f64>().ok()).sum::<f64>() / 1000.0
}

fn round(engine: &Engine, time: Duration) -> Round {
    let (before, log_before) = (cpu_us(), log_us());
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
    let rate = signatures / started.elapsed().as_secs_f64();
    let log_us = (log_us() - log_before) / signatures;
    Round { rate, cpu_us: (cpu_us() - before) / signatures, log_us, sync: String::new() }
}

fn sync(engine: &Engine) -> String {
    let audit = engine.snapshot().audit;
    format!("synchronised in {:.0?}, 99 % in {:.0?}", audit.sync_p50, audit.sync_p99)
}

fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

/// The median of sorted values, and between which half of them lie.
fn middle(values: &[f64], digits: usize) -> String {
    let [low, median, high] = [1, 2, 3].map(|quarter| values[(values.len() - 1) * quarter / 4]);
    format!("{median:.digits$} (half of the rounds from {low:.digits$} to {high:.digits$})")
}

/// The median of a figure of these rounds.
fn of(rounds: &[Round], figure: impl Fn(&Round) -> f64) -> f64 {
    sorted(rounds.iter().map(figure).collect())[rounds.len() / 2]
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
    build(None).managed_keys().create(NAME, &KeyConfig::new(KeySpec::Ec(Curve::P256))).unwrap();
    let logs = [
        None,
        Some(Audit::new(site.path().join("strict"))),
        Some(Audit::new(site.path().join("window")).mode(window)),
    ];
    let mut rounds: [Vec<Round>; 3] = Default::default();
    for number in 0..ROUNDS {
        for place in 0..logs.len() {
            let which = (place + number) % logs.len();
            let engine = build(logs[which].clone());
            round(&engine, time / 8);
            let ran = round(&engine, time);
            rounds[which].push(Round { sync: sync(&engine), ..ran });
            engine.drain(Duration::from_secs(10));
        }
    }
    let [plain, logged @ ..] = &rounds;
    let rates = sorted(plain.iter().map(|round| round.rate).collect());
    let cpu = of(plain, |round| round.cpu_us);
    println!("without a log: {} signatures a second, {cpu:.1} us of processor time each", middle(&rates, 0));
    for (name, rounds) in ["strict", "window"].into_iter().zip(logged) {
        let ratios = rounds.iter().zip(plain).map(|(logged, plain)| logged.rate / plain.rate).collect();
        let ratios = sorted(ratios);
        let cpu = of(rounds, |round| round.cpu_us) - cpu;
        let own = of(rounds, |round| round.log_us);
        let sync = &rounds[ROUNDS - 1].sync;
        println!(
            "{name}: {} of that, {cpu:+.1} us, {own:.1} in the log's threads; {sync}",
            middle(&ratios, 3)
        );
    }
}
