//! The course of runs: rates, errors and latencies over time.

use super::axis::Axis;
use super::chart::{Caption, Chart, fill_key, line_key};
use super::course::{self, names, shades, steps};
use super::table::Table;
use super::{Run, words};
use crate::result::Interval;

/// A percentile of an interval.
type Percentile = (&'static str, fn(&Interval) -> u64);

const PERCENTILES: [Percentile; 4] =
    [("p50", |it| it.p50_ns), ("p90", |it| it.p90_ns), ("p99", |it| it.p99_ns), ("max", |it| it.max_ns)];

/// How the latencies of a closed loop are to be read.
const CLOSED: &str = "Of operations by when they were asked. A closed loop asks nothing while it waits: a stall shows at \
                      its callers only, not at all who would have come meanwhile.";

/// Rates over time; empty if no run has a series.
pub(super) fn rates(runs: &[Run<'_>]) -> String {
    let all: Vec<_> = runs.iter().map(|run| steps(&run.result.series)).collect();
    if all.iter().all(Vec::is_empty) {
        return String::new();
    }
    let highest = |it: &Interval| it.per_s(it.ops.max(it.asked.unwrap_or(0)));
    let max = all.iter().flatten().map(highest).fold(1.0, f64::max);
    let x = Axis::moments(course::until_s(runs));
    let mut chart = Chart::new(x, Axis::linear(max * 1.02, words::round_rate)).with_strip_above();
    let has_errors = all.iter().flatten().any(|it| it.errors > 0);
    if runs.len() == 1 && has_errors {
        chart = chart.with_lane();
    }
    let shades = shades(&mut chart, runs);
    let mut legend = Vec::new();
    for (run, steps) in runs.iter().zip(&all) {
        draw_rates(&mut chart, &mut legend, run, steps);
    }
    legend.extend(shades);
    names(&mut chart, runs);
    let summaries = runs.iter().map(|run| {
        let total = &run.result.total;
        format!(
            "{}: {} on average, {} errors. ",
            run.name(),
            words::rate(total.ops_per_s),
            words::count(total.errors)
        )
    });
    chart.figure(&Caption {
        id: "rates",
        title: "Throughput over time",
        text: &format!("Operations per second, by when they were asked.{}", course::says(runs)),
        description: &summaries.collect::<String>(),
        legend: &legend,
        tables: &table(runs, &all),
    })
}

fn draw_rates(chart: &mut Chart, legend: &mut Vec<(String, String)>, run: &Run<'_>, steps: &[Interval]) {
    let colour = run.colour();
    let achieved = |it: &Interval| Some((it.middle_s(), it.per_s(it.ops)));
    if run.is_one_of_several {
        legend.push((line_key(colour), run.name()));
        return chart.line(&format!("s{colour}"), steps.iter().map(achieved));
    }
    if steps.iter().any(|it| it.asked.is_some()) {
        // In a colour of its own: it is no run.
        legend.push((line_key(1), "asked".to_owned()));
        chart.line("s1", steps.iter().map(|it| Some((it.middle_s(), it.per_s(it.asked?)))));
    }
    legend.push((line_key(colour), "succeeded".to_owned()));
    chart.line(&format!("s{colour}"), steps.iter().map(achieved));
    let most = steps.iter().map(|it| it.errors).max().unwrap_or(0);
    if most > 0 {
        legend.push((fill_key("errors"), format!("errors, at most {} in a step", words::count(most))));
        let bars: Vec<_> = steps.iter().map(|it| (it.at_s, it.until_s(), it.errors as f64)).collect();
        chart.lane("errors", &bars);
    }
    let said = |it: &Interval| {
        let asked =
            it.asked.map_or_else(String::new, |asked| format!(" of {} asked", words::rate(it.per_s(asked))));
        let (at, rate) = (words::moment(it.at_s), words::rate(it.per_s(it.ops)));
        (it.at_s, it.until_s(), format!("{at}: {rate}{asked}, {} errors", words::count(it.errors)))
    };
    chart.columns(steps.iter().map(said));
}

/// Latencies over time; empty if nothing succeeded.
pub(super) fn latencies(runs: &[Run<'_>]) -> String {
    let all: Vec<_> = runs.iter().map(|run| steps(&run.result.series)).collect();
    let times = || all.iter().flatten().filter(|it| it.ops > 0);
    let Some(low) = times().map(|it| it.p50_ns).min() else { return String::new() };
    let high = times().map(|it| if runs.len() == 1 { it.max_ns } else { it.p99_ns }).max().unwrap_or(low);
    let y = Axis::latency(low as f64, high as f64);
    let mut chart = Chart::new(Axis::moments(course::until_s(runs)), y).with_strip_above();
    let shades = shades(&mut chart, runs);
    let mut legend = Vec::new();
    for (run, steps) in runs.iter().zip(&all) {
        draw_latencies(&mut chart, &mut legend, run, steps);
    }
    legend.extend(shades);
    names(&mut chart, runs);
    let worst = |(run, steps): (&Run<'_>, &Vec<Interval>)| {
        let worst = steps.iter().max_by_key(|it| it.p99_ns);
        let said = worst.map(|it| format!("{} at {}", words::time(it.p99_ns as f64), words::moment(it.at_s)));
        format!("{}: the worst p99 is {}. ", run.name(), said.unwrap_or_default())
    };
    let text = match runs {
        [_] if all.iter().flatten().all(|it| it.asked.is_none()) => CLOSED,
        [_] => "Of operations by when they were asked: a stall shows at everyone whom it delayed.",
        _ => "The 99th percentile of operations by when they were asked.",
    };
    chart.figure(&Caption {
        id: "latencies",
        title: "Latency over time",
        text: &format!("{text}{}", course::says(runs)),
        description: &runs.iter().zip(&all).map(worst).collect::<String>(),
        legend: &legend,
        tables: &table(runs, &all),
    })
}

fn draw_latencies(chart: &mut Chart, legend: &mut Vec<(String, String)>, run: &Run<'_>, steps: &[Interval]) {
    let point =
        |it: &Interval, of: fn(&Interval) -> u64| (it.ops > 0).then(|| (it.middle_s(), of(it) as f64));
    if run.is_one_of_several {
        let colour = run.colour();
        legend.push((line_key(colour), format!("{} p99", run.name())));
        return chart.line(&format!("s{colour}"), steps.iter().map(|it| point(it, |it| it.p99_ns)));
    }
    for (colour, (name, of)) in PERCENTILES.into_iter().enumerate() {
        legend.push((line_key(colour), name.to_owned()));
        chart.line(&format!("s{colour}"), steps.iter().map(|it| point(it, of)));
    }
    let said = |it: &Interval| {
        let times = PERCENTILES.map(|(name, of)| format!("{name} {}", words::time(of(it) as f64)));
        (it.at_s, it.until_s(), format!("{}: {}", words::moment(it.at_s), times.join(", ")))
    };
    chart.columns(steps.iter().map(said));
}

fn table(runs: &[Run<'_>], all: &[Vec<Interval>]) -> String {
    let head =
        ["At", "Asked", "Succeeded", "Errors", "p50", "p90", "p99", "max", "Queued", "Sessions", "Tokens up"];
    let mut table = Table::of_runs("Course of the run", runs.len() > 1, 0, &head);
    for (run, steps) in runs.iter().zip(all) {
        for it in steps {
            let rates = [it.asked, Some(it.ops)].map(|count| count.map(|count| words::rate(it.per_s(count))));
            let times = PERCENTILES.map(|(_, of)| Some(words::time(of(it) as f64)));
            let gauges = [it.queued, it.sessions.map(u64::from), it.tokens_up.map(u64::from)];
            let cells = std::iter::once(Some(words::moment(it.at_s)))
                .chain(rates)
                .chain([Some(words::count(it.errors))])
                .chain(times)
                .chain(gauges.map(|value| value.map(words::count)));
            table.row(run.cell().into_iter().chain(cells.map(|cell| cell.unwrap_or_else(|| "–".to_owned()))));
        }
    }
    table.html()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::example;

    fn alone(result: &crate::result::LoadResult) -> [Run<'_>; 1] {
        [Run { index: 0, is_one_of_several: false, result }]
    }

    #[test]
    fn a_closed_loop_has_no_rate_that_was_asked_and_says_what_it_hides() {
        let open = example::payment_auth();
        let mut closed = open.clone();
        closed.series.iter_mut().for_each(|it| it.asked = None);
        let [open, closed] =
            [&open, &closed].map(|result| (rates(&alone(result)), latencies(&alone(result))));
        assert!(open.0.contains(">asked<") && !closed.0.contains(">asked<"));
        assert!(
            closed.1.contains("A closed loop asks nothing while it waits") && !open.1.contains("closed loop")
        );
    }

    #[test]
    fn the_loss_of_a_token_and_its_errors_are_seen() {
        let chart = rates(&alone(&example::payment_auth()));
        for part in ["class=\"lost\"", "2 of 3 tokens up", "class=\"errors\"", "warm-up, not counted"] {
            assert!(chart.contains(part), "{part}");
        }
    }
}
