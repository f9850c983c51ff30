//! Latency against throughput, and the knee.

use super::axis::Axis;
use super::chart::{Caption, Chart, line_key};
use super::table::Table;
use super::{Run, words};
use crate::result::{CurvePoint, Knee};

/// A percentile of a point.
type Percentile = (&'static str, fn(&CurvePoint) -> u64);

const PERCENTILES: [Percentile; 3] =
    [("p50", |it| it.p50_ns), ("p99", |it| it.p99_ns), ("p99.9", |it| it.p999_ns)];

/// The percentile that is shown of each of several runs.
const P99: Percentile = PERCENTILES[1];

/// The figure; empty if no run searched for its knee.
pub(super) fn figure(runs: &[Run<'_>]) -> String {
    let runs: Vec<_> = runs.iter().filter(|run| !run.result.curve.is_empty()).collect();
    let points = || runs.iter().flat_map(|run| &run.result.curve);
    let lowest = points().map(|it| it.p50_ns).min();
    let Some(low) = lowest else { return String::new() };
    let high = points().map(|it| it.p999_ns.max(it.p99_ns)).max().unwrap_or(low);
    let rate = points().map(|it| it.ops_per_s).fold(0.0, f64::max);
    let mut chart = Chart::new(Axis::linear(rate, words::round_rate), Axis::latency(low as f64, high as f64));
    let mut legend = Vec::new();
    for run in &runs {
        if run.is_one_of_several {
            legend.push((line_key(run.colour()), format!("{} p99", run.name())));
            draw(&mut chart, run, P99, run.colour());
        } else {
            for (colour, percentile) in PERCENTILES.into_iter().enumerate() {
                legend.push((line_key(colour), percentile.0.to_owned()));
                draw(&mut chart, run, percentile, colour);
            }
        }
    }
    let mut said = String::new();
    for run in &runs {
        if let Some(knee) = &run.result.knee {
            said.push_str(&mark(&mut chart, run, knee));
        }
    }
    chart.figure(&Caption {
        id: "curve",
        title: "Latency by throughput",
        text: "Rates that were tried in search of the knee: filled marks met the objective, hollow ones did not.",
        description: &said,
        legend: &legend,
        tables: &table(&runs),
    })
}

fn draw(chart: &mut Chart, run: &Run<'_>, (name, of): Percentile, colour: usize) {
    let mut points: Vec<_> = run.result.curve.iter().collect();
    points.sort_by(|a, b| a.asked_per_s.total_cmp(&b.asked_per_s));
    chart.line(&format!("s{colour}"), points.iter().map(|it| Some((it.ops_per_s, of(it) as f64))));
    for it in points {
        let class = format!("dot s{colour} {}", if it.meets { "meets" } else { "misses" });
        let (asked, ops) = (words::rate(it.asked_per_s), words::rate(it.ops_per_s));
        let title = format!("{ops} of {asked} asked: {name} {}", words::time(of(it) as f64));
        chart.dot(&class, it.ops_per_s, of(it) as f64, &title);
    }
}

/// Marks the knee and its objective; returns what is said of them.
fn mark(chart: &mut Chart, run: &Run<'_>, knee: &Knee) -> String {
    let rate = words::rate(knee.per_s);
    let (low, high) = (words::rate(knee.low), words::rate(knee.high));
    let title = format!("{rate} meets {}, between {low} and {high}", knee.slo);
    chart.band("knee-range", knee.low, knee.high, &title);
    chart.upright("knee", knee.per_s);
    let letter = if run.is_one_of_several { format!("{}: ", run.letter()) } else { String::new() };
    chart.label("knee-name", knee.per_s, run.index as f64, &format!("{letter}{rate}"));
    if let Some(ns) = objective_ns(&knee.slo) {
        chart.level("knee", ns);
    }
    format!("{letter}the knee is at {title}. ")
}

/// The bound of an objective as `p99=5ms`.
fn objective_ns(slo: &str) -> Option<f64> {
    let (_, bound) = slo.split_once('=')?;
    let digits = bound.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = bound.split_at(digits);
    let unit_ns = match unit.trim() {
        "ns" => 1.0,
        "us" | "µs" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * unit_ns)
}

fn table(runs: &[&Run<'_>]) -> String {
    let is_of_several = runs.iter().any(|run| run.is_one_of_several);
    let head = ["Asked", "Achieved", "p50", "p99", "p99.9", "Errors", "Objective"];
    let mut table = Table::of_runs("Latency by throughput", is_of_several, 0, &head);
    for run in runs {
        for it in &run.result.curve {
            let rates = [it.asked_per_s, it.ops_per_s].map(words::rate);
            let times = [it.p50_ns, it.p99_ns, it.p999_ns].map(|ns| words::time(ns as f64));
            let ends = [words::count(it.errors), if it.meets { "met" } else { "missed" }.to_owned()];
            table.row(run.cell().into_iter().chain(rates).chain(times).chain(ends));
        }
    }
    table.html()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_of_an_objective_is_read_with_its_unit() {
        assert_eq!(objective_ns("p99=5ms"), Some(5e6));
        assert_eq!(objective_ns("p99.9=1.5 s"), Some(1.5e9));
        for slo in ["p99", "p99=", "p99=5", "p99=5h", "p99=..ms"] {
            assert_eq!(objective_ns(slo), None, "{slo}");
        }
    }
}
