//! Latency against percentile.

use super::axis::Axis;
use super::chart::{Caption, Chart, line_key};
use super::table::Table;
use super::{RUNS_MAX, Run, words};
use crate::result::Latency;

/// Points of a line for each further nine.
const POINTS_PER_NINE: u32 = 24;

/// A distribution that is drawn.
struct Line<'a> {
    name: String,
    latency: &'a Latency,
}

/// The figure; empty if nothing succeeded.
pub(super) fn figure(runs: &[Run<'_>]) -> String {
    let mut lines = lines(runs);
    lines.retain(|line| line.latency.count > 0);
    let count = lines.iter().map(|line| line.latency.count).max().unwrap_or(0);
    let high = lines.iter().map(|line| line.latency.max_ns).max().unwrap_or(0);
    let Some(low) = lines.iter().map(|line| line.latency.min_ns).min() else { return String::new() };
    let mut chart = Chart::new(Axis::nines(count), Axis::latency(low as f64, high as f64));
    let until = chart.x.until();
    for (number, line) in lines.iter().enumerate() {
        let points = points(line.latency, until);
        chart.line(&format!("s{}", number % RUNS_MAX), points.into_iter().map(Some));
    }
    let legend: Vec<_> = lines
        .iter()
        .enumerate()
        .map(|(number, line)| (line_key(number % RUNS_MAX), line.name.clone()))
        .collect();
    let said = |line: &Line<'_>| {
        let Latency { p50_ns, p99_ns, max_ns, .. } = *line.latency;
        let [p50, p99, max] = [p50_ns, p99_ns, max_ns].map(|ns| words::time(ns as f64));
        format!("{}: half within {p50}, 99 % within {p99}, all within {max}. ", line.name)
    };
    chart.figure(&Caption {
        id: "percentiles",
        title: "Latency by percentile",
        text: "How long all but the slowest took. Each step to the right leaves out a tenth of what was left.",
        description: &lines.iter().map(said).collect::<String>(),
        legend: &legend,
        tables: &table(&lines),
    })
}

/// All of each run; of one that stands alone also each operation, as far as there are colours.
fn lines<'a>(runs: &[Run<'a>]) -> Vec<Line<'a>> {
    let [run] = runs else {
        return runs
            .iter()
            .map(|run| Line { name: run.name(), latency: &run.result.total.latency })
            .collect();
    };
    let all = Line { name: "all operations".to_owned(), latency: &run.result.total.latency };
    let parts = &run.result.operations;
    let parts = if parts.len() > 1 { parts.as_slice() } else { &[] };
    let part = parts.iter().map(|part| Line { name: part.name.clone(), latency: &part.summary.latency });
    std::iter::once(all).chain(part.take(RUNS_MAX - 1)).collect()
}

/// 1/(1 - p) and latency, in order; of a document without histogram the few that it has.
fn points(latency: &Latency, until: f64) -> Vec<(f64, f64)> {
    let Latency { count, p50_ns, p90_ns, p99_ns, p999_ns, p9999_ns, max_ns, .. } = *latency;
    let count = count as f64;
    let last = (count.min(until), max_ns as f64);
    let mut points = match latency.histogram() {
        Some(histogram) => {
            let inverses = (0..6 * POINTS_PER_NINE)
                .map(|step| 10_f64.powf(f64::from(step) / f64::from(POINTS_PER_NINE)));
            let at = |inverse: f64| (inverse, histogram.value_at_quantile(1.0 - 1.0 / inverse) as f64);
            inverses.take_while(|inverse| *inverse < last.0).map(at).collect()
        }
        None => {
            let few = [(2.0, p50_ns), (10.0, p90_ns), (100.0, p99_ns), (1e3, p999_ns), (1e4, p9999_ns)];
            let few = few.map(|(inverse, ns)| (inverse, ns as f64));
            few.into_iter().filter(|(inverse, _)| *inverse < last.0).collect::<Vec<_>>()
        }
    };
    points.push(last);
    points
}

fn table(lines: &[Line<'_>]) -> String {
    let head = ["", "min", "mean", "p50", "p90", "p99", "p99.9", "p99.99", "max"];
    let mut table = Table::new("Latency by percentile", 1, &head);
    for Line { name, latency } in lines {
        let Latency { min_ns, p50_ns, p90_ns, p99_ns, p999_ns, p9999_ns, max_ns, .. } = **latency;
        let after = [p50_ns, p90_ns, p99_ns, p999_ns, p9999_ns, max_ns].map(|ns| ns as f64);
        let times = [min_ns as f64, latency.mean_ns].into_iter().chain(after).map(words::time);
        table.row(std::iter::once(name.clone()).chain(times));
    }
    table.html()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::example;

    #[test]
    fn the_line_goes_through_the_figures_and_ends_with_the_longest() {
        let latency = example::payment_auth().total.latency;
        let points = points(&latency, 1e6);
        assert!(points.is_sorted_by_key(|point| point.1));
        for (inverse, ns) in [(10.0, latency.p90_ns), (100.0, latency.p99_ns), (1e3, latency.p999_ns)] {
            let (_, at) = points.iter().find(|point| (point.0 / inverse - 1.0).abs() < 1e-9).unwrap();
            assert!((at / ns as f64 - 1.0).abs() < 0.01, "{inverse}: {at} {ns}");
        }
        assert_eq!(points.last(), Some(&(latency.count as f64, latency.max_ns as f64)));
    }

    #[test]
    fn a_document_without_a_histogram_has_a_line_of_its_figures() {
        let mut latency = example::payment_auth().total.latency;
        latency.histogram.clear();
        let points = points(&latency, 1e6);
        assert_eq!(points.len(), 6);
        assert_eq!(points[2], (100.0, latency.p99_ns as f64));
    }
}
