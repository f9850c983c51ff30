//! Parts of a run: tokens, classes of errors, operations, phases.

use super::chart::{Caption, WIDTH};
use super::table::Table;
use super::words::escape;
use super::{Run, words};
use crate::result::{Summary, TokenShare};

/// Height of a token's name and bar.
const ROW: f64 = 54.0;

/// From the edge to the bars.
const SIDE: f64 = 4.0;

/// Who did the work: a figure; empty if the documents do not say.
pub(super) fn tokens(runs: &[Run<'_>]) -> String {
    let all: Vec<_> = runs.iter().flat_map(|run| run.result.tokens.iter().map(move |it| (run, it))).collect();
    if all.is_empty() {
        return String::new();
    }
    let mut svg = String::new();
    let mut said = String::new();
    for (row, (run, it)) in all.iter().enumerate() {
        let name = run.cell().map_or_else(|| it.token.clone(), |letter| format!("{letter}: {}", it.token));
        let share = words::percent(it.share);
        said.push_str(&format!("{name}: {share}. "));
        svg.push_str(&share_bar(&name, it, &share, ROW * row as f64, run.colour()));
    }
    let caption = Caption {
        id: "tokens",
        title: "Share of each token",
        text: "Of all operations that succeeded.",
        description: &said,
        legend: &[],
        tables: &token_table(runs),
    };
    caption.figure(ROW * all.len() as f64 + 8.0, &svg)
}

fn share_bar(name: &str, it: &TokenShare, share: &str, top: f64, colour: usize) -> String {
    let width = WIDTH - 2.0 * SIDE;
    let errors = if it.errors == 0 { String::new() } else { format!(", {} errors", words::count(it.errors)) };
    format!(
        "<text class=\"row\" x=\"{SIDE}\" y=\"{:.1}\">{}</text>\
         <text class=\"row n\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{share}{errors}</text>\
         <rect class=\"track\" x=\"{SIDE}\" y=\"{:.1}\" width=\"{width}\" height=\"16\"/>\
         <rect class=\"f{colour}\" x=\"{SIDE}\" y=\"{:.1}\" width=\"{:.1}\" height=\"16\"/>",
        top + 20.0,
        escape(name),
        WIDTH - SIDE,
        top + 20.0,
        top + 29.0,
        top + 29.0,
        it.share.clamp(0.0, 1.0) * width,
    )
}

fn token_table(runs: &[Run<'_>]) -> String {
    let mut table = Table::of_runs("Tokens", runs.len() > 1, 1, &["Token", "Succeeded", "Share", "Errors"]);
    for run in runs {
        for it in &run.result.tokens {
            let figures = [words::count(it.ops), words::percent(it.share), words::count(it.errors)];
            table.row(run.cell().into_iter().chain([it.token.clone()]).chain(figures));
        }
    }
    table.html()
}

/// What failed; empty if nothing did.
pub(super) fn errors(runs: &[Run<'_>]) -> String {
    let head = ["Kind", "Did it run?", "Text of the first", "First at", "Count", "Of all asked"];
    let mut table = Table::of_runs("Errors", runs.len() > 1, 3, &head);
    for run in runs {
        let total = &run.result.total;
        let all = (total.ops + total.errors).max(1) as f64;
        for it in &run.result.errors {
            let texts = [&it.kind, &it.outcome, &it.first].map(Clone::clone);
            let figures = [
                format!("{:.1} s", it.first_s),
                words::count(it.count),
                words::percent(it.count as f64 / all),
            ];
            table.row(run.cell().into_iter().chain(texts).chain(figures));
        }
    }
    table.section()
}

/// The mix; empty if documents do not say.
pub(super) fn operations(runs: &[Run<'_>]) -> String {
    let mut table = Table::of_runs("Operations", runs.len() > 1, 1, &[&["Operation"], &FIGURES[..]].concat());
    for run in runs {
        for it in &run.result.operations {
            table.row(run.cell().into_iter().chain([it.name.clone()]).chain(figures(&it.summary)));
        }
    }
    table.section()
}

/// What happened phase by phase; empty if documents do not say.
pub(super) fn phases(runs: &[Run<'_>]) -> String {
    let head = [&["Phase", "From", "Until"], &FIGURES[..]].concat();
    let mut table = Table::of_runs("Phases", runs.len() > 1, 1, &head);
    for run in runs {
        for it in &run.result.phases {
            let name = if it.counted { it.name.clone() } else { format!("{} (not counted)", it.name) };
            let bounds = [it.from_s, it.until_s].map(words::moment);
            table.row(run.cell().into_iter().chain([name]).chain(bounds).chain(figures(&it.summary)));
        }
    }
    table.section()
}

const FIGURES: [&str; 8] = ["Asked", "Succeeded", "Errors", "p50", "p90", "p99", "p99.9", "max"];

fn figures(it: &Summary) -> impl Iterator<Item = String> {
    let asked = it.asked_per_s.map_or_else(|| "–".to_owned(), words::rate);
    let of = &it.latency;
    let times = [of.p50_ns, of.p90_ns, of.p99_ns, of.p999_ns, of.max_ns].map(|ns| words::time(ns as f64));
    [asked, words::rate(it.ops_per_s), words::count(it.errors)].into_iter().chain(times)
}
