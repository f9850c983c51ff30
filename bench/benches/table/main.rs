//! Runs every row of `hsmux_bench::rows` with the binary `hsmux`, and writes a table in Markdown on stdout.
//!
//! Not criterion: a row is a ratio of cells that ran side by side, which `hsmux load --compare` takes. Called by
//! `scripts/bench.sh`; `--hsmux PATH --sim PATH [--seconds S] [--rows N,..]`.

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a bench that cannot run says so and ends; the table is its output"
)]

mod counted;
mod keys;
mod place;

use std::path::PathBuf;
use std::process::ExitCode;

use hsmux_bench::rows::{self, Asked, Figure, Measurement, Options, ROWS, Row};
use place::Places;

/// What the command line says.
struct Args {
    hsmux: PathBuf,
    sim: PathBuf,
    /// What one comparison with one baseline may take.
    seconds: u32,
    /// Numbers of rows; all if empty.
    rows: Vec<u8>,
}

/// Seconds of a comparison with one baseline: eight rounds of five cells of 0.4 s.
const SECONDS: u32 = 16;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let Some(count) = after(&words, "--keep-keys") {
        keys::keep(count.parse().expect("a number of keys"));
        return ExitCode::SUCCESS;
    }
    let Some(args) = Args::of(&words) else {
        eprintln!("SKIPPED: this bench is run by scripts/bench.sh");
        return ExitCode::SUCCESS;
    };
    println!("| # | case | asked | measured | 90 % interval | met | `hsmux load` with |");
    println!("|---|---|---|---|---|---|---|");
    let places = Places::open(&args.hsmux, &args.sim);
    let help = places.help();
    for row in ROWS.iter().filter(|row| args.wants(row.number)) {
        run(row, &args, &places, &help);
    }
    if args.wants(15) {
        keys::run(&places);
    }
    if args.wants(16) {
        counted::run(&args.sim);
    }
    ExitCode::SUCCESS
}

impl Args {
    fn of(words: &[String]) -> Option<Self> {
        let rows = after(words, "--rows").unwrap_or_default();
        Some(Self {
            hsmux: after(words, "--hsmux")?.into(),
            sim: after(words, "--sim")?.into(),
            seconds: after(words, "--seconds").map_or(SECONDS, |text| text.parse().expect("seconds")),
            rows: rows.split(',').filter(|text| !text.is_empty()).map(number).collect(),
        })
    }

    fn wants(&self, number: u8) -> bool {
        self.rows.is_empty() || self.rows.contains(&number)
    }
}

fn number(text: &str) -> u8 {
    text.parse().expect("the number of a row")
}

fn after<'a>(words: &'a [String], option: &str) -> Option<&'a str> {
    let place = words.iter().position(|word| word == option)?;
    words.get(place + 1).map(String::as_str)
}

/// Runs the load of a row and writes a line for each of its figures.
fn run(row: &Row, args: &Args, places: &Places, help: &str) {
    eprintln!("row {}: {}", row.number, row.case);
    let options = match rows::options(row.load, help) {
        Options::Known(options) => options,
        Options::Needs(option) => {
            row.figures
                .iter()
                .for_each(|figure| line(row, figure, Err(&format!("needs {option}")), row.load));
            return;
        }
    };
    let rivals = options.iter().filter(|word| *word == "--compare").count();
    let seconds = args.seconds as usize * rivals;
    let command = options.join(" ");
    match places.load(row.place, &options, seconds) {
        Ok(report) => {
            row.figures.iter().for_each(|figure| line(row, figure, figure.of(&report), &command));
        }
        Err(why) => row.figures.iter().for_each(|figure| line(row, figure, Err(&why), &command)),
    }
}

fn line(row: &Row, figure: &Figure, measured: Result<Measurement, &str>, command: &str) {
    write_line(row.number, row.case, &figure.to_string(), figure, measured, command);
}

/// One line of the table.
fn write_line(
    number: u8,
    case: &str,
    asked: &str,
    figure: &Figure,
    measured: Result<Measurement, &str>,
    command: &str,
) {
    let (value, interval, met) = match measured {
        Ok(Measurement { median, interval }) => {
            let show = |value| figure.what.show(value);
            let interval = interval.map_or_else(
                || "fewer than 5 rounds".into(),
                |it| format!("{} to {}", show(it.low), show(it.high)),
            );
            let met = match (figure.asked, figure.asked.is_met_by(median)) {
                (Asked::Told, _) | (_, None) => "",
                (_, Some(true)) => "yes",
                (_, Some(false)) => "no",
            };
            (show(median), interval, met)
        }
        Err(why) => (why.to_owned(), String::new(), ""),
    };
    println!("| {number} | {case} | {asked} | {value} | {interval} | {met} | `{command}` |");
}
