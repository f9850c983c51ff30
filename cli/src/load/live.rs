//! What a run does now: a block on the terminal that is drawn anew each second, or a line each second elsewhere.

use std::collections::BTreeMap;
use std::io::{self, Write};

use hdrhistogram::Histogram;
use hsmux_bench::profile::Profile;
use hsmux_bench::record::Counts;
use hsmux_bench::run::Interval;

use crate::figures::{per_second, time};

/// The live display.
pub(super) struct Live {
    title: String,
    length_s: f64,
    terminal: bool,
    /// Lines that are on the terminal and will be drawn over.
    drawn: usize,
    all: Counts,
}

/// Bars of the small histogram: from the emptiest to the fullest.
const BARS: [char; 8] =
    ['\u{2581}', '\u{2582}', '\u{2583}', '\u{2584}', '\u{2585}', '\u{2586}', '\u{2587}', '\u{2588}'];

impl Live {
    pub(super) fn new(profile: &Profile, terminal: bool) -> Self {
        let (title, length_s) = (profile.name.clone(), profile.length().as_secs_f64());
        Self { title, length_s, terminal, drawn: 0, all: Counts::default() }
    }

    /// Shows an interval that has ended.
    pub(super) fn show(&mut self, out: &mut impl Write, interval: &Interval) -> io::Result<()> {
        self.all.add(&interval.counts);
        if self.terminal {
            let lines = self.block(interval);
            // Up to the first line of the last drawing, and clear from there (ECMA-48: CPL, ED).
            let up = if self.drawn > 0 { format!("\x1b[{}F\x1b[J", self.drawn) } else { String::new() };
            self.drawn = lines.len();
            writeln!(out, "{up}{}", lines.join("\n"))?;
        } else {
            writeln!(out, "{}", self.line(interval))?;
        }
        out.flush()
    }

    fn block(&self, interval: &Interval) -> Vec<String> {
        let row = |name: &str, counts: &Counts, rate: String| {
            let [p50, p99, max] = figures(&counts.latency);
            format!("{name:10}{rate:>12}{p50:>12}{p99:>12}{max:>12}{:>10}", counts.errors)
        };
        let rate = per_second(interval.counts.ops, interval.until - interval.from);
        let mean = per_second(self.all.ops, interval.until);
        let mut lines = vec![
            format!(
                "{}, {:.0} of {:.0} s: {}",
                self.title,
                interval.until.as_secs_f64(),
                self.length_s,
                standing(interval)
            ),
            format!("{:10}{:>12}{:>12}{:>12}{:>12}{:>10}", "", "per second", "p50", "p99", "max", "errors"),
            row("now", &interval.counts, rate),
            row("all", &self.all, mean),
        ];
        lines.extend(bars(&interval.counts.latency));
        lines
    }

    fn line(&self, interval: &Interval) -> String {
        let rate = per_second(interval.counts.ops, interval.until - interval.from);
        let [p50, p99, max] = figures(&interval.counts.latency);
        format!(
            "{:.0} s: {rate} operations/s, p50 {p50}, p99 {p99}, max {max}, {} errors, {}",
            interval.until.as_secs_f64(),
            interval.counts.errors,
            standing(interval)
        )
    }
}

fn standing(interval: &Interval) -> String {
    let engine = interval.engine;
    format!(
        "{} sessions, {} requests queued, {} tokens in service",
        engine.sessions, engine.queued, engine.tokens_up
    )
}

fn figures(latency: &Histogram<u64>) -> [String; 3] {
    let at = |quantile| {
        if latency.is_empty() { "-".to_owned() } else { time(latency.value_at_quantile(quantile)) }
    };
    [at(0.5), at(0.99), at(1.0)]
}

/// How often requests took how long, by powers of two; none if nothing succeeded.
fn bars(latency: &Histogram<u64>) -> Option<String> {
    let mut counts = BTreeMap::new();
    for value in latency.iter_recorded() {
        *counts.entry(value.value_iterated_to().max(1).ilog2()).or_insert(0_u64) +=
            value.count_since_last_iteration();
    }
    let (&first, &last) = (counts.keys().next()?, counts.keys().next_back()?);
    let most = counts.values().copied().max()?;
    let bar = |power: u32| match counts.get(&power) {
        None => ' ',
        // From 0 to 7: a power that has any has a bar.
        Some(count) => BARS[usize::try_from(count * 7 / most).unwrap_or(7)],
    };
    let bars: String = (first..=last).map(bar).collect();
    Some(format!("{} |{bars}| {}", time(1 << first), time(1 << (last + 1).min(63))))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hsmux_bench::run::Standing;

    use super::*;

    fn interval(ns: &[u64]) -> Interval {
        let mut counts = Counts { ops: ns.len() as u64, errors: 2, ..Counts::default() };
        ns.iter().for_each(|&ns| counts.latency.record(ns).unwrap());
        let (from, until) = (Duration::from_secs(1), Duration::from_secs(2));
        Interval { from, until, counts, engine: Standing { sessions: 4, queued: 7, tokens_up: 1 } }
    }

    fn shown(terminal: bool, intervals: &[Interval]) -> String {
        let profile = Profile::preset("dnssec").unwrap();
        let (mut live, mut out) = (Live::new(&profile, terminal), Vec::new());
        intervals.iter().for_each(|interval| live.show(&mut out, interval).unwrap());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn where_there_is_no_terminal_each_second_is_a_plain_line() {
        let text = shown(false, &[interval(&[1_000_000, 2_000_000]), interval(&[])]);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        assert!(lines[0].starts_with("2 s: 2 operations/s, p50 1.0"), "{}", lines[0]);
        assert!(
            lines[0].ends_with("2 errors, 4 sessions, 7 requests queued, 1 tokens in service"),
            "{}",
            lines[0]
        );
        assert!(lines[1].contains("p50 -, p99 -"), "{}", lines[1]);
        assert!(!text.contains('\x1b'));
    }

    #[test]
    fn on_a_terminal_a_block_is_drawn_over_the_last_one() {
        let text = shown(true, &[interval(&[1_000]), interval(&[1_000])]);
        assert_eq!(text.matches("\x1b[5F\x1b[J").count(), 1);
        assert_eq!(text.lines().count(), 10);
    }

    #[test]
    fn the_small_histogram_has_a_bar_for_each_power_of_two_that_came_up() {
        let bars = bars(&interval(&[1_100, 1_100, 4_200, 4_200, 4_200, 9_000]).counts.latency).unwrap();
        assert!(bars.contains("|\u{2585} \u{2588}\u{2583}|"), "{bars}");
        assert_eq!(super::bars(&interval(&[]).counts.latency), None);
    }
}
