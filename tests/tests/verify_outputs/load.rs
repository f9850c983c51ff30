//! A mixed load on two tokens of which one errs now and then, and is readmitted whenever it was taken out: so that it
//! errs as often as it can. Every output is checked by other software.
//!
//! `HSMUX_VERIFY_OPERATIONS` says how many operations for each kind of fault; 4,000 without it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hsmux::{Engine, Health, VerifyOutputs};
use hsmux_bench::mixed::{Check, Mixed, Report};
use hsmux_tests::Hsm;

use crate::simulated::{KEYS, LABELS, software};

/// Operations for each kind of fault where nobody says how many: a count that takes unoptimised code a few seconds.
const COUNT: u64 = 4_000;

/// Only a test that fails takes so long.
const LIMIT: Duration = Duration::from_secs(3 * 3600);

/// A load on two tokens of which the second errs so in one of a hundred calls; it is readmitted whenever it was taken
/// out.
fn load(fault: &str, count: u64, verify: VerifyOutputs) -> (Report, hsmux::Snapshot) {
    let hsm = Hsm::new(2, KEYS);
    let engine: Arc<Engine> = Arc::new(hsm.builder().verify_outputs(verify).build().unwrap());
    let mixed = Mixed::new(LABELS, 16, Check::Every);
    // Its keys are opened while nothing errs.
    let software = Arc::new(software());
    let warm = mixed.run_count(100, LIMIT, &engine, &software).unwrap();
    assert_eq!(warm.total().wrong, 0, "{warm}");
    hsm.sim.configure(&format!("fault=ops:1%={fault}@sim-1")).unwrap();
    let over = AtomicBool::new(false);
    let report = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                if engine.snapshot().tokens[1].health == Health::Ejected {
                    engine.readmit_token("sim-1").unwrap();
                }
                std::thread::park_timeout(Duration::from_millis(1));
            }
        });
        let report = mixed.run_count(count, LIMIT, &engine, &software).unwrap();
        over.store(true, Ordering::Relaxed);
        report
    });
    assert_eq!(hsm.sim.concurrent_use(), 0);
    (report, engine.snapshot())
}

fn count() -> u64 {
    std::env::var("HSMUX_VERIFY_OPERATIONS").map_or(COUNT, |text| text.parse().unwrap())
}

/// Returns what there is to say.
fn assert_none_is_wrong(fault: &str) -> String {
    let (report, snapshot) = load(fault, count(), VerifyOutputs::Always);
    let total = report.total();
    let wrong: u64 = snapshot.tokens.iter().map(|token| token.checks.wrong).sum();
    assert_eq!((total.wrong, total.lost(), report.repeated, report.panicked), (0, 0, 0, 0), "{report}");
    // A request may meet the bad token twice, or it when it has just been readmitted.
    assert!(total.failed * 100 < total.asked, "{report}");
    assert!(snapshot.tokens_ejected > 0 && wrong >= snapshot.tokens_ejected);
    format!("{fault}: {report}; {wrong} found wrong, {} ejections", snapshot.tokens_ejected)
}

#[test]
fn of_a_load_no_flipped_bit_is_handed_out() {
    println!("{}", assert_none_is_wrong("flip"));
}

#[test]
fn of_a_load_no_short_output_is_handed_out() {
    println!("{}", assert_none_is_wrong("short"));
}

#[test]
fn of_a_load_no_answer_to_another_request_is_handed_out() {
    println!("{}", assert_none_is_wrong("repeat"));
}

/// The load would see it.
#[test]
fn without_a_check_wrong_outputs_are_handed_out() {
    let (report, snapshot) = load("flip", 5_000, VerifyOutputs::Off);
    assert!(report.total().wrong > 0, "{report}");
    assert_eq!(snapshot.tokens_ejected, 0);
}
