//! Others that did the same work, and how sure the ratio to them is.

use super::axis::Axis;
use super::chart::{Caption, WIDTH};
use super::table::Table;
use super::words::escape;
use super::{Run, words};
use crate::result::BaselineRun;

/// Height of a baseline's name and interval.
const ROW: f64 = 54.0;

/// Room for the axis below.
const FOOT: f64 = 40.0;

/// From the edge to the ends of the axis.
const SIDE: f64 = 30.0;

/// The figure; empty if there were no baselines.
pub(super) fn figure(runs: &[Run<'_>]) -> String {
    let all: Vec<_> =
        runs.iter().flat_map(|run| run.result.baselines.iter().map(move |it| (run, it))).collect();
    if all.is_empty() {
        return String::new();
    }
    let ends = || all.iter().flat_map(|(_, it)| it.bounds());
    // Equal to the engine is always on the axis.
    let axis = Axis::between(ends().fold(1.0, f64::min), ends().fold(1.0, f64::max), times);
    let height = ROW * all.len() as f64 + FOOT;
    let mut svg = grid(&axis, height);
    let mut said = String::new();
    for (row, (run, it)) in all.iter().enumerate() {
        let name = run.cell().map_or_else(|| it.name.clone(), |letter| format!("{letter}: {}", it.name));
        svg.push_str(&drawn(&name, it, &axis, ROW * row as f64, run.colour()));
        said.push_str(&format!("{name}: {}, {}. ", it.said(), it.verdict()));
    }
    let caption = Caption {
        id: "baselines",
        title: "Beside others in the same run",
        text: "The engine's rate over theirs, median of the rounds with its 90 % interval. Right of 1, the engine is faster.",
        description: &said,
        legend: &[],
        tables: &table(&all),
    };
    caption.figure(height, &svg)
}

fn times(ratio: f64) -> String {
    format!("{} ×", words::trimmed(ratio))
}

fn place(axis: &Axis, ratio: f64) -> f64 {
    SIDE + axis.place(ratio) * (WIDTH - 2.0 * SIDE)
}

fn grid(axis: &Axis, height: f64) -> String {
    let line = |class: &str, x: f64| {
        format!(
            "<line class=\"{class}\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"0\" y2=\"{:.1}\"/>",
            height - FOOT + 4.0
        )
    };
    let mut svg = String::new();
    for (ratio, name) in &axis.ticks {
        let x = place(axis, *ratio);
        svg.push_str(&line("grid", x));
        let y = height - 12.0;
        svg.push_str(&format!(
            "<text class=\"tick\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{name}</text>"
        ));
    }
    svg.push_str(&line("equal", place(axis, 1.0)));
    svg
}

fn drawn(name: &str, it: &BaselineRun, axis: &Axis, top: f64, colour: usize) -> String {
    let [low, high] = it.bounds().map(|ratio| place(axis, ratio));
    let (at, y) = (place(axis, it.ratio), top + 38.0);
    let mut svg = format!(
        "<text class=\"row\" x=\"4\" y=\"{:.1}\">{}</text>\
         <text class=\"row n\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
        top + 20.0,
        escape(name),
        WIDTH - 4.0,
        top + 20.0,
        it.said(),
    );
    if it.interval.is_some() {
        svg.push_str(&format!(
            "<path class=\"whisker s{colour}\" d=\"M{low:.1} {y}H{high:.1}M{low:.1} {}v12M{high:.1} {}v12\"/>",
            y - 6.0,
            y - 6.0
        ));
    }
    svg.push_str(&format!("<circle class=\"f{colour}\" cx=\"{at:.1}\" cy=\"{y}\" r=\"6\"/>"));
    svg
}

fn table(all: &[(&Run<'_>, &BaselineRun)]) -> String {
    let is_of_several = all.iter().any(|(run, _)| run.is_one_of_several);
    let head = ["Baseline", "The engine is", "Rate", "Ratio", "90 % interval", "p50", "p99"];
    let mut table = Table::of_runs("Baselines", is_of_several, 2, &head);
    for (run, it) in all {
        let interval = it.interval.map(|[low, high]| format!("{low:.3} to {high:.3}"));
        let names = [it.name.clone(), it.verdict().to_owned()];
        let figures = [
            words::rate(it.ops_per_s),
            format!("{:.3} ×", it.ratio),
            interval.unwrap_or_else(|| "–".to_owned()),
            words::time(it.p50_ns as f64),
            words::time(it.p99_ns as f64),
        ];
        table.row(run.cell().into_iter().chain(names).chain(figures));
    }
    table.html()
}

impl BaselineRun {
    /// The ends of its interval, or the ratio twice.
    fn bounds(&self) -> [f64; 2] {
        self.interval.unwrap_or([self.ratio; 2])
    }

    fn said(&self) -> String {
        let interval = self.interval.map(|[low, high]| format!(" ({low:.2} to {high:.2})"));
        format!("{:.2} ×{}", self.ratio, interval.unwrap_or_default())
    }

    /// What the interval shows of the engine.
    fn verdict(&self) -> &'static str {
        match self.interval {
            Some([low, _]) if low > 1.0 => "faster",
            Some([_, high]) if high < 1.0 => "slower",
            Some(_) => "not shown to differ",
            None => "measured too few times",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_interval_beside_one_is_a_verdict() {
        let run = |interval| BaselineRun {
            name: "raw".to_owned(),
            ops_per_s: 1.0,
            ratio: 1.1,
            interval,
            p50_ns: 1,
            p99_ns: 1,
        };
        let verdicts = [Some([1.05, 1.2]), Some([0.9, 1.2]), Some([0.8, 0.9]), None];
        let verdicts = verdicts.map(|interval| run(interval).verdict());
        assert_eq!(verdicts, ["faster", "not shown to differ", "slower", "measured too few times"]);
    }
}
