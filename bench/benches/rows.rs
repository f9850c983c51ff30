//! The rows of the table that need no option of the command line, as criterion groups: what changed since the last
//! run. The ratios are `scripts/bench.sh`'s, which pairs the cells.

#![expect(clippy::expect_used, reason = "a row that is wrong would fail in every run")]

mod contenders;

use std::path::Path;

use contenders::{Contenders, Place, Settings};
use criterion::{Criterion, criterion_group, criterion_main};
use hsmux_bench::rows::{self, Options, ROWS, Row};
use hsmux_bench::{Api, BaselineName, Load, Runtime};
use softhsm_fixtures::{PIN, SoftHsm};

/// The options that this bench understands, in the words of `hsmux load --help`.
const KNOWN: &str =
    "--op\n--callers\n--deadline\n--api\n--batch\n--sessions\n--compare\n--threads\n--warm-up\n";

/// Thread counts of the baselines: 8 never beat both of these by more than the noise.
const THREADS: [usize; 2] = [1, 2];

fn rows(criterion: &mut Criterion) {
    let softhsm = SoftHsm::for_tests();
    let token = softhsm.map(SoftHsm::unique_token);
    let simulator = p11_sim::cdylib_path();
    for (place, row) in ROWS.iter().enumerate() {
        let Options::Known(options) = rows::options(row.load, KNOWN) else { continue };
        let name = format!("row-{:02}/{place}", row.number);
        let at = match (row.place, softhsm, &token, &simulator) {
            (rows::Place::SoftHsm, Some(softhsm), Some(token), _) => {
                Place { module: softhsm.module(), init_args: None, token: token.label(), pin: PIN }
            }
            (rows::Place::Sim(config), _, _, Some(path)) => {
                Place { module: path.as_path() as &Path, init_args: Some(config), token: "sim-0", pin: PIN }
            }
            _ => {
                eprintln!("SKIPPED: {name}: its module is not there");
                continue;
            }
        };
        run(criterion, &name, at, row, &options);
    }
}

fn run(criterion: &mut Criterion, name: &str, place: Place<'_>, row: &Row, options: &[String]) {
    let all = |option: &'static str| {
        options.windows(2).filter(move |pair| pair[0] == option).map(|pair| pair[1].as_str())
    };
    let one = |option| all(option).next();
    let number = |option| one(option).map(|text: &str| text.parse::<usize>().expect("a number"));
    let api = match one("--api") {
        Some("tasks") => Api::Async(Runtime::CurrentThread),
        Some("window") => Api::Window,
        Some("many") => Api::Many { batch: number("--batch").unwrap_or(64) },
        _ => Api::Blocking,
    };
    let load = Load { api, callers: number("--callers").unwrap_or(1) };
    let case = one("--op").and_then(|op| op.parse().ok()).expect("an operation");
    let settings = Settings { sessions: number("--sessions"), deadline: one("--deadline").is_none() };
    let contenders = Contenders::new(place, case, None, settings);
    eprintln!("{name}: {}", row.case);
    let mut group = contenders::group(criterion, name);
    for baseline in all("--compare").filter_map(|name| name.parse::<BaselineName>().ok()) {
        let threads = if baseline == BaselineName::Alone { &THREADS[..1] } else { &THREADS[..] };
        threads.iter().for_each(|&threads| contenders.baseline(&mut group, baseline, threads));
    }
    contenders.engine(&mut group, load);
    group.finish();
}

criterion_group!(benches, rows);
criterion_main!(benches);
