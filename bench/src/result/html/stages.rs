//! Where the time went inside the engine.

use super::axis::Axis;
use super::chart::{Caption, WIDTH, fill_key};
use super::table::Table;
use super::words::escape;
use super::{RUNS_MAX, Run, words};
use crate::result::Stage;

/// The stage that is the sum of the others.
const TOTAL: &str = "total";

/// What the stages leave of the total: the engine's own work after the token's answer.
const REST: &str = "finishing";

/// The least part of a total that is shown as [`REST`]: below it there is nothing to see.
const REST_MIN: f64 = 0.002;

/// Height of an operation's name and bar.
const ROW: f64 = 58.0;

/// Room for the axis below.
const FOOT: f64 = 40.0;

/// From the edge to the bars.
const SIDE: f64 = 28.0;

/// An operation's stages: name, and mean nanoseconds.
struct Bar {
    name: String,
    parts: Vec<(String, f64)>,
}

/// The figure; empty if no run has stages.
pub(super) fn figure(runs: &[Run<'_>]) -> String {
    let bars = bars(runs);
    let longest = bars.iter().map(Bar::total).fold(0.0, f64::max);
    if bars.is_empty() || longest <= 0.0 {
        return String::new();
    }
    let names = stage_names(&bars);
    let axis = Axis::linear(longest, words::round_time);
    let height = ROW * bars.len() as f64 + FOOT;
    let mut svg = grid(&axis, height);
    for (row, bar) in bars.iter().enumerate() {
        svg.push_str(&drawn(bar, &axis, ROW * row as f64, &names));
    }
    let legend: Vec<_> =
        names.iter().enumerate().map(|(number, name)| (fill_key(&fill(number)), name.clone())).collect();
    let said = bars.iter().map(|bar| format!("{}: {}. ", bar.name, bar.said()));
    let caption = Caption {
        id: "stages",
        title: "Where the time went",
        text: "Mean time of an operation inside the engine, by stage. Percentiles do not add up: they are in the table.",
        description: &said.collect::<String>(),
        legend: &legend,
        tables: &table(runs),
    };
    caption.figure(height, &svg)
}

fn bars(runs: &[Run<'_>]) -> Vec<Bar> {
    let mut bars: Vec<Bar> = Vec::new();
    for operation in operations(runs) {
        for run in runs {
            let of = run.result.stages.iter().filter(|stage| stage.operation == operation);
            let parts = parts(&of.collect::<Vec<_>>());
            let letter = run.cell().map_or_else(String::new, |letter| format!("{letter}: "));
            if !parts.is_empty() {
                bars.push(Bar { name: format!("{letter}{operation}"), parts });
            }
        }
    }
    bars
}

/// In the order in which they come first.
fn operations<'a>(runs: &[Run<'a>]) -> Vec<&'a str> {
    let mut names: Vec<&str> = Vec::new();
    for stage in runs.iter().flat_map(|run| &run.result.stages) {
        if !names.contains(&stage.operation.as_str()) {
            names.push(&stage.operation);
        }
    }
    names
}

/// The stages that a total is the sum of, and what they leave of it.
fn parts(stages: &[&Stage]) -> Vec<(String, f64)> {
    let total = stages.iter().find(|it| it.stage == TOTAL).map(|it| it.mean_ns);
    let single = stages.iter().filter(|it| it.stage != TOTAL);
    let mut parts: Vec<_> = single.map(|it| (it.stage.clone(), it.mean_ns.max(0.0))).collect();
    let sum: f64 = parts.iter().map(|part| part.1).sum();
    if let Some(total) = total.filter(|total| total - sum > total * REST_MIN) {
        parts.push((REST.to_owned(), total - sum));
    }
    parts
}

fn stage_names(bars: &[Bar]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for (name, _) in bars.iter().flat_map(|bar| &bar.parts) {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

fn fill(number: usize) -> String {
    format!("f{}", number % RUNS_MAX)
}

fn place(axis: &Axis, ns: f64) -> f64 {
    SIDE + axis.place(ns) * (WIDTH - 2.0 * SIDE)
}

fn grid(axis: &Axis, height: f64) -> String {
    let mut svg = String::new();
    for (ns, name) in &axis.ticks {
        let x = place(axis, *ns);
        svg.push_str(&format!(
            "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"0\" y2=\"{:.1}\"/>\
             <text class=\"tick\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{name}</text>",
            height - FOOT + 4.0,
            height - 12.0,
        ));
    }
    svg
}

fn drawn(bar: &Bar, axis: &Axis, top: f64, names: &[String]) -> String {
    let mut svg = format!(
        "<text class=\"row\" x=\"{SIDE}\" y=\"{:.1}\">{}</text>\
         <text class=\"row n\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
        top + 22.0,
        escape(&bar.name),
        WIDTH - SIDE,
        top + 22.0,
        words::time(bar.total()),
    );
    let mut from = 0.0;
    for (name, ns) in &bar.parts {
        let number = names.iter().position(|it| it == name).unwrap_or(0);
        let (left, right) = (place(axis, from), place(axis, from + ns));
        svg.push_str(&format!(
            "<rect class=\"{}\" x=\"{left:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"22\"><title>{}: {}</title></rect>",
            fill(number),
            top + 30.0,
            right - left,
            escape(name),
            words::time(*ns),
        ));
        from += ns;
    }
    svg
}

fn table(runs: &[Run<'_>]) -> String {
    let head = ["Operation", "Stage", "mean", "p50", "p99"];
    let mut table = Table::of_runs("Stages", runs.len() > 1, 2, &head);
    for run in runs {
        for it in &run.result.stages {
            let names = [it.operation.clone(), it.stage.clone()];
            let times = [it.mean_ns, it.p50_ns as f64, it.p99_ns as f64].map(words::time);
            table.row(run.cell().into_iter().chain(names).chain(times));
        }
    }
    table.html()
}

impl Bar {
    fn total(&self) -> f64 {
        self.parts.iter().map(|part| part.1).sum()
    }

    fn said(&self) -> String {
        let said: Vec<_> =
            self.parts.iter().map(|(name, ns)| format!("{name} {}", words::time(*ns))).collect();
        said.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(stage: &str, mean_ns: f64) -> Stage {
        Stage { operation: "x".to_owned(), stage: stage.to_owned(), p50_ns: 1, p99_ns: 2, mean_ns }
    }

    #[test]
    fn what_the_stages_leave_of_the_total_is_shown() {
        let [queued, token, total] = [stage("queued", 300.0), stage("token", 600.0), stage("total", 1_000.0)];
        let shown = parts(&[&queued, &token, &total]);
        assert_eq!(shown.iter().map(|part| part.1).collect::<Vec<_>>(), [300.0, 600.0, 100.0]);
        assert_eq!(shown[2].0, REST);
        assert_eq!(parts(&[&queued, &token]).len(), 2);
        assert_eq!(parts(&[&queued, &token, &stage("total", 901.0)]).len(), 2);
    }
}
