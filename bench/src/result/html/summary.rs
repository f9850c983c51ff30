//! What is read first: what ran, the head-line figures, what a reader must know; and all figures of the total.

use super::chart::line_key;
use super::table::Table;
use super::words::escape;
use super::{Run, words};
use crate::result::{LoadResult, Summary};

/// A head-line figure.
struct Figure {
    name: &'static str,
    /// Its value in a run, and as text.
    of: fn(&LoadResult) -> Option<(f64, String)>,
    /// What stands below it where one run is shown.
    below: fn(&LoadResult) -> String,
    /// Whether more is better than less.
    more_is_better: bool,
}

const FIGURES: [Figure; 7] = [
    Figure {
        name: "Throughput",
        of: |it| Some((it.total.ops_per_s, words::rate(it.total.ops_per_s))),
        below: |it| match it.total.asked_per_s {
            Some(asked) => format!("of {} asked", words::rate(asked)),
            None => "closed loop".to_owned(),
        },
        more_is_better: true,
    },
    Figure {
        name: "p50",
        of: |it| time(it, it.total.latency.p50_ns),
        below: |_| "half within".to_owned(),
        more_is_better: false,
    },
    Figure {
        name: "p99",
        of: |it| time(it, it.total.latency.p99_ns),
        below: |_| "99 of 100 within".to_owned(),
        more_is_better: false,
    },
    Figure {
        name: "p99.9",
        of: |it| time(it, it.total.latency.p999_ns),
        below: |_| "999 of 1,000 within".to_owned(),
        more_is_better: false,
    },
    Figure {
        name: "Longest",
        of: |it| time(it, it.total.latency.max_ns),
        below: |_| "all within".to_owned(),
        more_is_better: false,
    },
    Figure {
        name: "Errors",
        of: |it| Some((failed(&it.total), words::percent(failed(&it.total)))),
        below: |it| {
            format!("{} of {}", words::count(it.total.errors), words::count(it.total.ops + it.total.errors))
        },
        more_is_better: false,
    },
    Figure {
        name: "Knee",
        of: |it| it.knee.as_ref().map(|knee| (knee.per_s, words::rate(knee.per_s))),
        below: |it| {
            it.knee.as_ref().map_or_else(String::new, |knee| format!("highest rate with {}", knee.slo))
        },
        more_is_better: true,
    },
];

/// None if nothing was counted: 0 would be the best of all.
fn time(it: &LoadResult, ns: u64) -> Option<(f64, String)> {
    (it.total.latency.count > 0).then(|| (ns as f64, words::time(ns as f64)))
}

fn failed(it: &Summary) -> f64 {
    it.errors as f64 / (it.ops + it.errors).max(1) as f64
}

/// The page's title: each title of a run once.
pub(super) fn title(runs: &[Run<'_>]) -> String {
    let mut titles: Vec<&str> = Vec::new();
    for run in runs {
        if !titles.contains(&run.result.title.as_str()) {
            titles.push(&run.result.title);
        }
    }
    titles.join(", ")
}

/// Title, when and on what, and which runs there are.
pub(super) fn header(runs: &[Run<'_>]) -> String {
    let lines: String = runs.iter().map(line).collect();
    format!(
        "<header><p class=\"kind\">{}</p><h1>{}</h1>{lines}</header>\n",
        if runs.len() > 1 { "Load runs compared" } else { "Load run" },
        escape(&title(runs)),
    )
}

fn line(run: &Run<'_>) -> String {
    let made = &run.result.made;
    let commit = made.commit.as_ref().map(|commit| format!("commit {commit}"));
    let facts = [
        Some(format!("arrivals {}", run.result.arrivals)),
        Some(made.time.clone()),
        commit,
        Some(made.machine.cpu.clone()),
    ];
    let facts: Vec<_> = facts.into_iter().flatten().map(|fact| escape(&fact)).collect();
    let facts = facts.join(" · ");
    if run.is_one_of_several {
        format!("<p class=\"made\">{}<b>{}</b> {facts}</p>", line_key(run.colour()), escape(&run.name()))
    } else {
        format!("<p class=\"made\">{facts}</p>")
    }
}

/// The head-line figures, side by side with ratios to the first, and the notes.
pub(super) fn headline(runs: &[Run<'_>]) -> String {
    let tiles: String = FIGURES.iter().map(|figure| tile(figure, runs)).collect();
    let ratios = match runs {
        [] | [_] => "",
        _ => {
            "<p class=\"aside\">Ratios are to run A. Whether one is more than chance is for \
              <code>hsmux load --compare</code> to say.</p>"
        }
    };
    format!("<dl class=\"tiles\">{tiles}</dl>{ratios}{}", runs.iter().map(notes).collect::<String>())
}

fn tile(figure: &Figure, runs: &[Run<'_>]) -> String {
    let values: Vec<_> = runs.iter().map(|run| (figure.of)(run.result)).collect();
    if values.iter().all(Option::is_none) {
        return String::new();
    }
    let name = escape(figure.name);
    if let ([run], [Some((_, value))]) = (runs, &values[..]) {
        let below = escape(&(figure.below)(run.result));
        return format!(
            "<div><dt>{name}</dt><dd class=\"alone\">{value}</dd><dd class=\"below\">{below}</dd></div>"
        );
    }
    let first = values.first().cloned().flatten();
    let mut cells = String::new();
    for (run, value) in runs.iter().zip(values) {
        let text = value.as_ref().map_or("–", |(_, text)| text);
        let ratio =
            if run.index == 0 { String::new() } else { ratio(figure, value.as_ref(), first.as_ref()) };
        cells.push_str(&format!(
            "<dd class=\"beside\"><i class=\"c{}\">{}</i><b>{text}</b>{ratio}</dd>",
            run.colour(),
            run.letter()
        ));
    }
    format!("<div><dt>{name}</dt>{cells}</div>")
}

fn ratio(figure: &Figure, value: Option<&(f64, String)>, first: Option<&(f64, String)>) -> String {
    let Some(((value, _), (first, _))) = value.zip(first) else { return String::new() };
    let text = words::ratio(*value, *first);
    let class = match value > first {
        // What is equal as it is written has no colour.
        _ if text == words::ratio(1.0, 1.0) || value == first => "same",
        is_more if is_more == figure.more_is_better => "better",
        _ => "worse",
    };
    format!("<span class=\"{class}\">{text}</span>")
}

fn notes(run: &Run<'_>) -> String {
    if run.result.notes.is_empty() {
        return String::new();
    }
    let notes: String = run.result.notes.iter().map(|note| format!("<li>{}</li>", escape(note))).collect();
    let name = if run.is_one_of_several { format!("<b>{}</b>", escape(&run.name())) } else { String::new() };
    format!("<div class=\"notes\" role=\"note\">{name}<ol>{notes}</ol></div>")
}

/// Every figure of the total: a row each, a column for each run, with ratios to the first.
pub(super) fn all(runs: &[Run<'_>]) -> String {
    let names: Vec<_> = runs
        .iter()
        .map(|run| if run.is_one_of_several { run.letter() } else { "Value".to_owned() })
        .collect();
    let mut head = vec!["Figure"];
    for name in &names {
        head.push(name);
        if name != "A" && runs.len() > 1 {
            head.push("of A");
        }
    }
    let mut table = Table::new("All figures of the total", 1, &head);
    for (name, of, write) in rows() {
        let values: Vec<_> = runs.iter().map(|run| of(&run.result.total)).collect();
        if values.iter().all(Option::is_none) {
            continue;
        }
        let mut cells = vec![name.to_owned()];
        for (run, value) in runs.iter().zip(&values) {
            cells.push(value.map_or_else(|| "–".to_owned(), write));
            if run.index > 0 {
                let both = value.zip(values[0]);
                cells.push(
                    both.map_or_else(|| "–".into(), |(value, first)| words::ratio(value, first)).into_owned(),
                );
            }
        }
        table.row(cells);
    }
    table.wide_section()
}

type Row = (&'static str, fn(&Summary) -> Option<f64>, fn(f64) -> String);

fn rows() -> [Row; 17] {
    const fn late(it: &Summary) -> Option<&crate::result::Latency> {
        it.lateness.as_ref()
    }
    [
        ("Succeeded", |it| Some(it.ops as f64), words::count_of),
        ("Errors", |it| Some(it.errors as f64), words::count_of),
        ("Counted for", |it| Some(it.seconds), words::seconds),
        ("Asked", |it| it.asked_per_s, words::rate),
        ("Throughput", |it| Some(it.ops_per_s), words::rate),
        ("Shortest", |it| Some(it.latency.min_ns as f64), words::time),
        ("Mean", |it| Some(it.latency.mean_ns), words::time),
        ("p50", |it| Some(it.latency.p50_ns as f64), words::time),
        ("p90", |it| Some(it.latency.p90_ns as f64), words::time),
        ("p99", |it| Some(it.latency.p99_ns as f64), words::time),
        ("p99.9", |it| Some(it.latency.p999_ns as f64), words::time),
        ("p99.99", |it| Some(it.latency.p9999_ns as f64), words::time),
        ("Longest", |it| Some(it.latency.max_ns as f64), words::time),
        ("Begun late by the harness, p50", |it| late(it).map(|it| it.p50_ns as f64), words::time),
        ("Begun late by the harness, p99", |it| late(it).map(|it| it.p99_ns as f64), words::time),
        ("Begun late by the harness, longest", |it| late(it).map(|it| it.max_ns as f64), words::time),
        ("CPU time per operation", |it| it.cpu_ns_per_op, words::time),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::example;

    #[test]
    fn a_ratio_is_better_where_more_or_less_is() {
        let [throughput, p50] = [&FIGURES[0], &FIGURES[1]];
        let value = |value: f64| (value, String::new());
        let class = |figure, of: f64| ratio(figure, Some(&value(of)), Some(&value(1.0)));
        assert!(class(throughput, 2.0).contains("better") && class(throughput, 0.5).contains("worse"));
        assert!(class(p50, 2.0).contains("worse") && class(p50, 0.5).contains("better"));
        assert!(class(p50, 1.0).contains("same") && class(p50, 1.004).contains("same"));
        assert_eq!(ratio(p50, None, Some(&value(1.0))), "");
    }

    #[test]
    fn runs_of_one_title_share_it() {
        let results = [example::payment_auth(), example::payment_auth_tuned()];
        let run = |index| Run { index, is_one_of_several: true, result: &results[index] };
        assert_eq!(title(&[run(0), run(1)]), "payment-auth");
    }
}
