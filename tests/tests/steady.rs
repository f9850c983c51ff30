//! Nothing grows while a service runs: memory, descriptors, threads and sessions, under all faults at once and at about half
//! of what the device can do.
//!
//! `HSMUX_STEADY_SECONDS` says for how long; 6 without it. `scripts/soak.sh --steady SECONDS` runs it for as long as that.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails its test")]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hsmux::{Engine, Health, Hmac, Key};
use hsmux_tests::figures::{Times, let_pass, slope};
use hsmux_tests::{Hsm, eventually, wait_idle};
use quanta::Instant;

const TOKENS: usize = 16;
const CALLERS: u64 = 8;
/// Sessions are two for each token: they could do 16 times as much as the callers ask for, if none were ever away.
const OPERATION_US: u64 = 1_000;
const PAUSE: Duration = Duration::from_millis(3);

/// How much of the process there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Holdings {
    /// In KiB.
    memory: u64,
    descriptors: usize,
    threads: usize,
}

impl Holdings {
    fn now() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let field = |name: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().trim_end_matches(" kB").parse().unwrap()
        };
        let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().count();
        Self { memory: field("RssAnon:"), descriptors, threads: field("Threads:").try_into().unwrap() }
    }
}

fn seconds() -> u64 {
    std::env::var("HSMUX_STEADY_SECONDS").map_or(6, |text| text.parse().unwrap())
}

/// Signs now and then until told to stop; how long each answer took.
fn call(key: &Key, stop: &AtomicBool, failed: &AtomicU64, number: u64) -> Times {
    let mut times = Times::default();
    for call in 0_u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let started = Instant::now();
        let text = [number.to_be_bytes(), call.to_be_bytes()].concat();
        match key.sign(Hmac::SHA256, text).deadline_in(Duration::from_secs(2)).wait() {
            // Few enough for a day of it, and spread over all of it.
            Ok(_) if call.is_multiple_of(64) => times.push(started.elapsed()),
            Ok(_) => {}
            Err(_) => drop(failed.fetch_add(1, Ordering::Relaxed)),
        }
        std::thread::park_timeout(PAUSE);
    }
    times
}

/// Everything is there and at rest.
fn settle(hsm: &Hsm, engine: &Engine) {
    hsm.sim.configure("faults=,removed=").unwrap();
    wait_idle(engine);
    eventually("every session of every token is there", || {
        let whole = |token: &hsmux::TokenSnapshot| {
            token.health == Health::Serving && token.sessions == 2 && token.written_off == 0
        };
        engine.snapshot().tokens.iter().all(whole)
    });
}

#[test]
#[cfg(target_os = "linux")]
fn what_a_process_holds_does_not_grow_under_faults() {
    let hsm = Hsm::new(TOKENS, &format!("op_us={OPERATION_US}"));
    let engine = hsm.builder().hang_limit(Duration::from_millis(200)).build().unwrap();
    let key = engine.key("hmac").unwrap();
    let (stop, failed) = (AtomicBool::new(false), AtomicU64::new(0));
    let whole = Holdings::now();
    let (points, times) = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS)
            .map(|number| {
                let (key, stop, failed) = (&key, &stop, &failed);
                scope.spawn(move || call(key, stop, failed, number))
            })
            .collect();
        hsm.sim.configure("faults=F:300:20").unwrap();
        let (started, length) = (Instant::now(), Duration::from_secs(seconds()));
        let mut points = Vec::new();
        while started.elapsed() < length {
            let_pass(length / 200);
            points.push((started.elapsed().as_secs_f64(), Holdings::now().memory as f64));
        }
        stop.store(true, Ordering::Relaxed);
        let times: Times = callers.into_iter().flat_map(|caller| caller.join().unwrap()).collect();
        (points, times)
    });
    settle(&hsm, &engine);
    // Threads of callers have ended: what is left is the engine's, as before. Threads take a moment to end.
    eventually("no thread is left over", || Holdings::now().threads == whole.threads);
    let after = Holdings::now();
    assert_eq!(after.descriptors, whole.descriptors);
    // Without the first quarter, in which histograms and buffers are made.
    let (per_second, half_width) = slope(&points[points.len() / 4..]);
    let (day, mean) =
        (24.0 * 3_600.0, points.iter().map(|(_, memory)| memory).sum::<f64>() / points.len() as f64);
    println!("{times}; {} failed", failed.load(Ordering::Relaxed));
    println!(
        "memory {mean:.0} KiB, grows by {:.1} KiB an hour, within {:.1} of that (95 %): {:.2} % a day",
        per_second * 3_600.0,
        half_width * 3_600.0,
        per_second * day / mean * 100.0
    );
    // Ten times what the promise allows, and that only if it is no accident.
    let growth = (per_second - half_width) * day / mean;
    assert!(growth < 0.1 || seconds() < 600, "{:.1} % a day at least", growth * 100.0);
    assert!(after.memory < whole.memory + 16 * 1_024, "{whole:?}, then {after:?}");
}
