//! What a search says: a line for each measurement on stderr, and at the end a table or a document on stdout.

use std::io::{self, Write};
use std::time::Duration;

use hsmux_bench::result::Made;
use hsmux_bench::tune::{Advice, Duel, Sample, Setting, Tried};
use serde::Serialize;

use super::args::Args;
use super::evidence::{Load, grouped};
use super::tell;
use crate::exit::{Result, printable};
use crate::figures::{table, time};

/// What `--json` prints, schema 1.
#[derive(Debug, Serialize)]
struct Document<'a> {
    schema: u32,
    made: &'a Made,
    load: &'a Load,
    /// Time of all measurements.
    seconds: f64,
    /// The advice as a sentence.
    summary: String,
    advice: &'a Advice,
}

const COLUMNS: [&str; 10] = [
    "",
    "sessions",
    "instances",
    "coalescing",
    "copies",
    "measured",
    "per second",
    "90 % between",
    "p99",
    "",
];

/// Says what was measured, and where the search is.
pub(super) fn live(
    setting: Setting,
    sample: &Sample,
    best: Option<(Setting, f64)>,
    [spent, total]: [Duration; 2],
) {
    let found = match &sample.outcome {
        Ok(figures) => {
            let p99 = figures.latencies_ns[hsmux_bench::knee::Percentile::P99 as usize];
            format!("{}/s, p99 {}", grouped(figures.ops_per_s), time(p99))
        }
        Err(why) => format!("failed: {}", printable(why)),
    };
    let best = best.map_or_else(
        || "nothing works so far".to_owned(),
        |(best, per_s)| format!("best so far: {best}, {}/s", grouped(per_s)),
    );
    tell(&format!("{:.0} of {:.0} s: {setting}: {found}; {best}", spent.as_secs_f64(), total.as_secs_f64()));
}

/// Says all of it.
pub(super) fn all(args: &Args, advice: &Advice, load: &Load, made: &Made, spent: Duration) -> Result {
    let mut out = io::stdout().lock();
    if args.json {
        let (seconds, summary) = (spent.as_secs_f64(), advice.to_string());
        let document = Document { schema: 1, made, load, seconds, summary, advice };
        let json = serde_json::to_string(&document).map_err(io::Error::from)?;
        writeln!(out, "{json}")?;
    } else {
        write(&mut out, advice, load)?;
    }
    Ok(out.flush()?)
}

fn write(out: &mut impl Write, advice: &Advice, load: &Load) -> io::Result<()> {
    let slo = load.slo.as_ref().map_or_else(String::new, |slo| format!(", {slo}"));
    let place = load.place.as_ref().map_or_else(String::new, |place| format!(", {place}"));
    writeln!(out, "{}, closed, {} callers{slo}{place}", load.profile, load.callers)?;
    let mut table = table(COLUMNS, 1);
    table.add_rows(advice.tried.iter().map(|tried| row(advice, tried)));
    writeln!(out, "{table}")?;
    for duel in &advice.duels {
        writeln!(out, "{}", told(duel))?;
    }
    writeln!(out, "advice: {advice}")
}

fn row(advice: &Advice, tried: &Tried) -> [String; 10] {
    let Setting { sessions, instances, coalescing, copies } = tried.setting;
    let mark = match (advice.best == Some(tried.setting), advice.start == tried.setting) {
        (true, true) => "advised, start",
        (true, false) => "advised",
        (false, true) => "start",
        (false, false) => "",
    };
    let number = |number: Option<f64>| number.map_or_else(|| "-".to_owned(), grouped);
    let bounds = tried.interval.map(|bounds| format!("{} and {}", grouped(bounds.low), grouped(bounds.high)));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "nanoseconds, for people")]
    let p99 = tried.p99_ns.map(|ns| time(ns as u64));
    let remark = match &tried.failed {
        Some(why) => format!("failed: {}", printable(why)),
        None if !tried.meets => "misses the objective".to_owned(),
        None => String::new(),
    };
    let on = |on| if on { "on" } else { "off" }.to_owned();
    [
        mark.to_owned(),
        sessions.to_string(),
        instances.to_string(),
        on(coalescing),
        if copies { "auto" } else { "off" }.to_owned(),
        tried.samples.to_string(),
        number(tried.per_s),
        bounds.unwrap_or_else(|| "-".to_owned()),
        p99.unwrap_or_else(|| "-".to_owned()),
        remark,
    ]
}

fn told(duel: &Duel) -> String {
    let gain = duel.gain().map_or_else(String::new, |gain| format!(" {gain}"));
    let outcome = duel.outcome.as_str();
    format!("{} against {}:{gain} in {} rounds: {outcome}", duel.challenger, duel.champion, duel.rounds)
}

#[cfg(test)]
mod tests {
    use hsmux_bench::tune::Limits;

    use super::super::evidence::tests::{advice, load};
    use super::*;

    #[test]
    fn every_setting_and_every_comparison_has_its_line() {
        let advice = advice(Setting::default(), &Limits::default());
        let mut out = Vec::new();
        write(&mut out, &advice, &load()).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.lines().count(), 3 + advice.tried.len() + advice.duels.len(), "{text}");
        let row = |mark: &str| text.lines().find(|line| line.trim_start().starts_with(mark)).unwrap();
        assert!(row("advised").contains("12,400 and 12,400"), "{text}");
        assert!(row("start").contains("3,100"), "{text}");
        assert!(text.contains("failed: no more?sessions"), "{text}");
        assert!(text.contains("4 sessions, no copies against 4 sessions: -50.0 %"), "{text}");
        let last = text.lines().last().unwrap();
        assert!(last.starts_with("advice: 4 sessions: 12400 operations/s; +300.0 % ("), "{last}");
    }

    #[test]
    fn the_document_has_every_part_by_name() {
        let advice = advice(Setting::default(), &Limits::default());
        let json = serde_json::to_value(&advice).unwrap();
        assert_eq!(json["best"]["sessions"], 4);
        assert_eq!((json["end"].as_str(), json["meets"].as_bool()), (Some("found"), Some(true)));
        assert_eq!(json["duels"][0]["outcome"], "no_difference");
        assert!(json["tried"].as_array().unwrap().len() > 4 && json["gain"]["interval"].is_array());
    }
}
