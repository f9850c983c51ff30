//! The course of a run in as many steps as a chart can show.

use super::Run;
use super::chart::{Chart, fill_key};
use crate::result::Interval;

/// Most steps that are drawn: two units of the view box each, and a page of a day's run stays small.
pub(super) const STEPS_MAX: usize = 240;

/// The intervals, so many at a time as one where there are too many: counts are sums, latencies the worst of them.
pub(super) fn steps(series: &[Interval]) -> Vec<Interval> {
    let at_a_time = series.len().div_ceil(STEPS_MAX).max(1);
    series.chunks(at_a_time).filter_map(merged).collect()
}

fn merged(intervals: &[Interval]) -> Option<Interval> {
    let (first, rest) = intervals.split_first()?;
    let mut step = first.clone();
    for it in rest {
        step.seconds += it.seconds;
        step.ops += it.ops;
        step.errors += it.errors;
        step.asked = step.asked.zip(it.asked).map(|(sum, asked)| sum + asked);
        step.p50_ns = step.p50_ns.max(it.p50_ns);
        step.p90_ns = step.p90_ns.max(it.p90_ns);
        step.p99_ns = step.p99_ns.max(it.p99_ns);
        step.max_ns = step.max_ns.max(it.max_ns);
        step.tokens_up = step.tokens_up.into_iter().chain(it.tokens_up).min();
        step.heat.extend(&it.heat);
    }
    Some(step)
}

/// What is said below a chart whose steps are longer than a second; empty if they are not.
pub(super) fn says(runs: &[Run<'_>]) -> String {
    let longest = runs.iter().map(|run| run.result.series.len().div_ceil(STEPS_MAX)).max().unwrap_or(0);
    if longest > 1 { format!(" Each step is the worst of {longest} intervals.") } else { String::new() }
}

impl Interval {
    /// When it ended.
    pub(super) fn until_s(&self) -> f64 {
        self.at_s + self.seconds
    }

    /// Its middle, where lines have their points.
    pub(super) fn middle_s(&self) -> f64 {
        self.at_s + self.seconds / 2.0
    }

    /// A count of it, per second.
    pub(super) fn per_s(&self, count: u64) -> f64 {
        if self.seconds > 0.0 { count as f64 / self.seconds } else { 0.0 }
    }
}

/// When the longest of the runs ended.
pub(super) fn until_s(runs: &[Run<'_>]) -> f64 {
    runs.iter().filter_map(|run| run.result.series.last()).map(Interval::until_s).fold(0.0, f64::max)
}

/// Draws, below the figures, when tokens were away, and what does not count of a run that stands alone. Returns what the
/// legend says of it.
pub(super) fn shades(chart: &mut Chart, runs: &[Run<'_>]) -> Vec<(String, String)> {
    let mut legend = Vec::new();
    for away in runs.iter().flat_map(|run| away(&run.result.series)) {
        chart.band("lost", away.from_s, away.until_s, &away.said());
    }
    let [run] = runs else { return legend };
    for phase in run.result.phases.iter().filter(|phase| !phase.counted) {
        chart.band("uncounted", phase.from_s, phase.until_s, &format!("{}: not counted", phase.name));
        legend.push((fill_key("uncounted"), format!("{}, not counted", phase.name)));
    }
    legend
}

/// Writes, above the figures, how many tokens were there, and phases and notes of a run that stands alone.
pub(super) fn names(chart: &mut Chart, runs: &[Run<'_>]) {
    for (line, run) in runs.iter().enumerate() {
        for away in away(&run.result.series) {
            let letter = run.cell().filter(|_| runs.len() > 1);
            let text = letter.map_or_else(|| away.said(), |letter| format!("{letter}: {}", away.said()));
            chart.label("lost-name", away.from_s, line as f64, &text);
        }
    }
    let [run] = runs else { return };
    for phase in &run.result.phases {
        if phase.from_s > 0.0 {
            chart.upright("phase", phase.from_s);
        }
        chart.name_above(phase.from_s, phase.until_s, &phase.name);
    }
    for (number, note) in (1..).zip(&run.result.notes) {
        if let Some(at) = moment_of(note).filter(|at| *at <= until_s(runs)) {
            chart.upright("note", at);
            chart.number(at, &format!("{number}"));
        }
    }
}

/// A time in which not all tokens were in service.
#[derive(Debug, PartialEq)]
struct Away {
    from_s: f64,
    until_s: f64,
    fewest: u32,
    all: u32,
}

fn away(series: &[Interval]) -> Vec<Away> {
    let all = series.iter().filter_map(|it| it.tokens_up).max().unwrap_or(0);
    let mut found: Vec<Away> = Vec::new();
    for it in series {
        let Some(up) = it.tokens_up.filter(|up| *up < all) else { continue };
        match found.last_mut().filter(|away| (away.until_s - it.at_s).abs() < 1e-3) {
            Some(away) => (away.until_s, away.fewest) = (it.until_s(), away.fewest.min(up)),
            None => found.push(Away { from_s: it.at_s, until_s: it.until_s(), fewest: up, all }),
        }
    }
    found
}

impl Away {
    fn said(&self) -> String {
        format!("{} of {} tokens up", self.fewest, self.all)
    }
}

/// The moment that a note names, as `at 10.0 s`.
fn moment_of(note: &str) -> Option<f64> {
    let words: Vec<_> = note.split_whitespace().collect();
    let moment = |three: &[&str]| match three {
        ["at", number, unit] if unit.trim_end_matches([',', '.', ';']) == "s" => number.parse().ok(),
        _ => None,
    };
    words.windows(3).find_map(moment).filter(|at: &f64| at.is_finite() && *at >= 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(count: u32) -> Vec<Interval> {
        let second = |at: u32| Interval {
            at_s: f64::from(at),
            seconds: 1.0,
            ops: 10,
            p99_ns: u64::from(at),
            tokens_up: Some(if (20..30).contains(&at) { 1 } else { 2 }),
            heat: vec![(1_000, 10)],
            ..Interval::default()
        };
        (0..count).map(second).collect()
    }

    #[test]
    fn a_minute_is_shown_second_by_second_and_a_day_in_steps() {
        assert_eq!(steps(&seconds(60)), seconds(60));
        let day = steps(&seconds(86_400));
        assert_eq!(day.len(), STEPS_MAX);
        assert_eq!((day[0].ops, day[0].p99_ns, day[0].tokens_up), (3_600, 359, Some(1)));
        assert_eq!((day[1].at_s, day[1].seconds, day[1].heat.len()), (360.0, 360.0, 360));
    }

    #[test]
    fn the_time_without_a_token_is_one_stretch() {
        let lost = Away { from_s: 20.0, until_s: 30.0, fewest: 1, all: 2 };
        assert_eq!(away(&seconds(60)), [lost]);
        assert_eq!(away(&[]), []);
    }

    #[test]
    fn a_note_tells_its_moment() {
        assert_eq!(moment_of("token sim-0 lost at 10.0 s, and more"), Some(10.0));
        for note in ["looked at 3 tokens", "at -1 s", "at inf s", "at", ""] {
            assert_eq!(moment_of(note), None, "{note}");
        }
    }
}
