//! How many took how long, second by second.

use std::collections::BTreeMap;

use super::axis::Axis;
use super::chart::{Caption, Chart, fill_key};
use super::course::{self, names, shades, steps};
use super::table::Table;
use super::{Run, words};
use crate::result::Interval;

/// Shades, from few to many.
const SHADES: usize = 7;

/// What lies between two bounds.
const BOUND_RATIO: f64 = std::f64::consts::SQRT_2;

/// A figure for each run that has counts.
pub(super) fn figures(runs: &[Run<'_>]) -> String {
    runs.iter().map(figure).collect()
}

fn figure(run: &Run<'_>) -> String {
    let steps: Vec<_> = steps(&run.result.series).into_iter().map(|it| (counts(&it), it)).collect();
    let bounds = || steps.iter().flat_map(|(counts, _)| counts.keys().copied());
    let (Some(low), Some(high)) = (bounds().min(), bounds().max()) else { return String::new() };
    let most = steps.iter().flat_map(|(counts, _)| counts.values().copied()).max().unwrap_or(1);
    let alone = std::slice::from_ref(run);
    let y = Axis::latency(low as f64 / BOUND_RATIO, high as f64);
    let mut chart = Chart::new(Axis::moments(course::until_s(alone)), y).with_strip_above();
    shades(&mut chart, alone);
    let mut paths = [const { String::new() }; SHADES];
    for (counts, it) in &steps {
        for (bound, count) in counts {
            let bound = *bound as f64;
            let cell = chart.cell([it.at_s, it.until_s()], [bound / BOUND_RATIO, bound]);
            paths[shade(*count, most)].push_str(&cell);
        }
    }
    for (shade, path) in paths.iter().enumerate() {
        chart.cells(&format!("h{shade}"), path);
    }
    names(&mut chart, alone);
    let title = if run.is_one_of_several {
        format!("Latencies over time: {}", run.name())
    } else {
        "All latencies over time".to_owned()
    };
    chart.figure(&Caption {
        id: &format!("heat-{}", run.index),
        title: &title,
        text: &format!("How many operations took how long.{}", course::says(alone)),
        description: &format!(
            "From {} to {}.",
            words::time(low as f64 / BOUND_RATIO),
            words::time(high as f64)
        ),
        legend: &legend(most),
        tables: &table(&steps),
    })
}

/// Counts by upper bound; intervals that were merged have a bound several times.
fn counts(it: &Interval) -> BTreeMap<u64, u64> {
    let mut counts = BTreeMap::new();
    for (bound, count) in it.heat.iter().filter(|(bound, count)| *bound > 0 && *count > 0) {
        *counts.entry(*bound).or_insert(0) += count;
    }
    counts
}

/// By the logarithm, so that a few slow ones show beside the many: each shade begins at the same factor over the last.
fn shade(count: u64, most: u64) -> usize {
    let begins = |shade: &usize| count as f64 >= least(*shade, most);
    (1..SHADES).take_while(begins).last().unwrap_or(0)
}

/// The least count of a shade.
fn least(shade: usize, most: u64) -> f64 {
    (most.max(2) as f64).powf(shade as f64 / SHADES as f64)
}

fn legend(most: u64) -> Vec<(String, String)> {
    let entry = |shade: usize| {
        let name = if shade == 0 { "from 1".to_owned() } else { format!("{:.0}", least(shade, most).ceil()) };
        (fill_key(&format!("h{shade}")), name)
    };
    // A shade that no whole number falls into is left out.
    let is_used = |shade: &usize| *shade == 0 || least(*shade, most).ceil() > least(*shade - 1, most).ceil();
    (0..SHADES).filter(is_used).map(entry).collect()
}

/// By bound, over the whole run: a table of each second would have a thousand cells.
fn table(steps: &[(BTreeMap<u64, u64>, Interval)]) -> String {
    let mut all = BTreeMap::new();
    for (bound, count) in steps.iter().flat_map(|(counts, _)| counts) {
        *all.entry(*bound).or_insert(0) += count;
    }
    let mut table = Table::new("Latencies of the run", 0, &["Up to", "Operations"]);
    for (bound, count) in all {
        table.row([words::time(bound as f64), words::count(count)]);
    }
    table.html()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shades_go_from_one_to_the_most() {
        assert_eq!(
            [1, 2, 9, 10, 9_999_999, 10_000_000].map(|count| shade(count, 10_000_000)),
            [0, 0, 0, 1, 6, 6]
        );
        assert_eq!(shade(1, 1), 0);
        let names: Vec<_> = legend(10_000_000).into_iter().map(|entry| entry.1).collect();
        assert_eq!(names[..3], ["from 1", "10", "100"]);
    }

    #[test]
    fn a_bound_that_comes_twice_is_one_cell() {
        let it = Interval { heat: vec![(1_414, 2), (1_000, 1), (1_414, 3), (0, 9)], ..Interval::default() };
        assert_eq!(counts(&it), BTreeMap::from([(1_000, 1), (1_414, 5)]));
    }
}
