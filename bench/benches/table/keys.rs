//! Row 15: whether it matters how many keys a token holds.
//!
//! SoftHSM2 loads every token of its directory, so each count has a directory of its own, kept by a child of this
//! process while the row runs: it makes the keys, says where they are, and removes them when its input ends.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hsmux_bench::rows::{Figure, Measurement, What};
use quanta::Instant;
use serde_json::Value;
use softhsm_fixtures::SoftHsm;

use crate::place::{Places, report};
use crate::write_line;

/// Keys on each token. The first is the measure.
const COUNTS: [usize; 3] = [16, 1_000, 10_000];

const ROUNDS: usize = 7;

const TOKEN: &str = "keys";

const LOAD: &str = "--op aes-gcm:32 --callers 2 --deadline none --key key-0 --seconds 0.4";

/// How long the program counts and warms up; what it takes beyond that is start and end.
const COUNTED: Duration = Duration::from_millis(600);

/// A directory with keys, while its child lives.
struct Kept {
    child: Child,
    conf: PathBuf,
}

/// What one run shows.
struct Run {
    ops_per_s: f64,
    start_s: f64,
    searches: f64,
}

/// The child: makes the keys and holds them until its input ends.
pub(crate) fn keep(count: usize) {
    let softhsm = SoftHsm::start().expect("SoftHSM2");
    let token = softhsm.token(TOKEN).expect("a token");
    for number in 0..count {
        let value: Vec<u8> = number.to_be_bytes().repeat(4);
        token.import_aes(&format!("key-{number}"), &value);
    }
    println!("{}", std::env::var("SOFTHSM2_CONF").expect("the fixtures set it"));
    let _ended = std::io::stdin().read_to_end(&mut Vec::new());
}

/// Runs the row.
pub(crate) fn run(places: &Places) {
    let Some(module) = places.module() else {
        return say(COUNTS[1], Err("needs SoftHSM2"));
    };
    eprintln!("row 15: making keys; this takes a minute or two");
    // All at once, each in its own directory.
    let children: Vec<_> = COUNTS.iter().map(|&count| child(count)).collect();
    let kept: Vec<_> = children.into_iter().map(Kept::of).collect();
    let mut runs: Vec<Vec<Run>> = COUNTS.iter().map(|_| Vec::new()).collect();
    for round in 0..ROUNDS {
        for place in 0..COUNTS.len() {
            // In another order each round, so that none always follows the same other.
            let place = (place + round) % COUNTS.len();
            match load(places, module, &kept[place].conf) {
                Ok(run) => runs[place].push(run),
                Err(why) => return say(COUNTS[place], Err(&why)),
            }
        }
    }
    for (place, count) in COUNTS.into_iter().enumerate().skip(1) {
        let ratios: Vec<_> =
            runs[place].iter().zip(&runs[0]).map(|(many, few)| many.ops_per_s / few.ops_per_s).collect();
        say(count, Measurement::of(&ratios).ok_or("nothing ran"));
    }
    let most = &runs[COUNTS.len() - 1];
    let of = |figure: fn(&Run) -> f64| Measurement::of(&most.iter().map(figure).collect::<Vec<_>>());
    let searches: Vec<_> =
        most.iter().zip(&runs[0]).map(|(many, few)| many.searches / few.searches).collect();
    let asked = "one sweep: as many searches as with 16 keys, x";
    tell("start-up with 10,000 keys", asked, Figure::at_most(What::Other, 1.0), Measurement::of(&searches));
    tell("the same", "report: s to start and stop", Figure::told(What::Other), of(|run| run.start_s));
}

fn child(count: usize) -> Child {
    let this = std::env::current_exe().expect("this program");
    let mut command = Command::new(this);
    command.args(["--keep-keys", &count.to_string()]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a child starts")
}

impl Kept {
    /// Waits until the keys are there.
    fn of(mut child: Child) -> Self {
        let mut conf = String::new();
        let output = child.stdout.take().expect("it was asked for");
        BufReader::new(output).read_line(&mut conf).expect("a path");
        assert!(!conf.is_empty(), "no keys were made");
        Self { child, conf: conf.trim().into() }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ended = self.child.wait();
    }
}

fn load(places: &Places, module: &Path, conf: &Path) -> Result<Run, String> {
    let metrics = conf.with_file_name("metrics");
    let mut command = places.command(module, TOKEN);
    command.args(LOAD.split_whitespace()).arg("--prometheus").arg(&metrics).env("SOFTHSM2_CONF", conf);
    let start = Instant::now();
    let report: Value = report(&mut command)?;
    let took = start.elapsed();
    let page = std::fs::read_to_string(&metrics).map_err(|error| error.to_string())?;
    let searches = "hsmux_pkcs11_calls_total{function=\"C_FindObjectsInit\"} ";
    let searches = page.lines().find_map(|line| line.strip_prefix(searches)?.parse().ok());
    Ok(Run {
        ops_per_s: report["ops_per_s"].as_f64().ok_or("no rate")?,
        start_s: took.saturating_sub(COUNTED).as_secs_f64(),
        searches: searches.ok_or("no searches were counted")?,
    })
}

fn say(count: usize, measured: Result<Measurement, &str>) {
    let case = format!("AES-GCM 32 B, 2 blocking callers, {count} keys on the token");
    let figure = Figure::at_least(What::Other, 0.9);
    write_line(15, &case, ">= 0.90 of the rate with 16 keys", &figure, measured, LOAD);
}

fn tell(case: &str, asked: &str, figure: Figure, measured: Option<Measurement>) {
    write_line(15, case, asked, &figure, measured.ok_or("nothing ran"), LOAD);
}
