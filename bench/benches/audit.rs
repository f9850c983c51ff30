//! What an audit log takes: records a second with 64 appenders, how long each waits, how long the disk synchronises.
//!
//! `cargo bench -p hsmux-bench --bench audit`, in the directory `HSMUX_AUDIT_BENCH_DIR` or one for temporary files: it must
//! lie on the disk that is to be measured. No criterion: there is one figure each, and it is the disk's.

#![expect(clippy::print_stdout, reason = "a bench talks to people")]
#![expect(clippy::expect_used, reason = "a bench that cannot run says why")]

use std::path::PathBuf;
use std::time::Duration;

use hdrhistogram::Histogram;
use hsmux::{Audit, AuditMode, AuditTrial};

const APPENDERS: usize = 64;

/// A second or so each.
const RECORDS_EACH: [(AuditMode, u64); 3] = [
    (AuditMode::Strict, 500),
    (AuditMode::Window { records: 4_096, age: Duration::from_millis(100) }, 2_000),
    (AuditMode::Window { records: 256, age: Duration::from_millis(10) }, 2_000),
];

fn main() {
    // `cargo test --benches` only wants to see that it runs.
    let is_test = std::env::args().any(|argument| argument == "--test");
    let parent = std::env::var_os("HSMUX_AUDIT_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    println!("{APPENDERS} appenders, each waits for its answer; times in µs");
    println!(
        "{:<58} {:>10} {:>9} {:>9} {:>9} {:>9} {:>7}",
        "mode", "records/s", "wait p50", "p99", "sync p50", "p99", "syncs"
    );
    for (number, (mode, records)) in RECORDS_EACH.into_iter().enumerate() {
        let directory = parent.join(format!("hsmux-audit-bench-{}-{number}", std::process::id()));
        let trial = AuditTrial::new(Audit::new(&directory).mode(mode));
        let figures =
            trial.run(APPENDERS, if is_test { 1 } else { records }).expect("a log in that directory");
        std::fs::remove_dir_all(&directory).expect("the log is removed");
        let per_second = u128::from(figures.records) * 1_000_000 / figures.time.as_micros().max(1);
        let us = |of: &Histogram<u64>, at: f64| of.value_at_quantile(at) / 1_000;
        println!(
            "{:<58} {per_second:>10} {:>9} {:>9} {:>9} {:>9} {:>7}",
            format!("{mode:?}"),
            us(&figures.wait_ns, 0.5),
            us(&figures.wait_ns, 0.99),
            us(&figures.sync_ns, 0.5),
            us(&figures.sync_ns, 0.99),
            figures.sync_ns.len(),
        );
    }
}
