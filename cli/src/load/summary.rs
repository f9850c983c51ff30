//! The results of a profile for people.

use std::io::{self, Write};

use hsmux_bench::result::{Latency, LoadResult, Summary};

use crate::figures::{table, time};

const COLUMNS: [&str; 9] = ["", "asked/s", "per second", "p50", "p90", "p99", "p99.9", "max", "errors"];

/// Writes them: by operation, by phase if there are several, in all, and what a reader has to know.
pub(super) fn write(out: &mut impl Write, result: &LoadResult) -> io::Result<()> {
    writeln!(out, "{}, {}, {:.1} s counted", result.title, result.arrivals, result.total.seconds)?;
    let mut table = table(COLUMNS, 1);
    if result.operations.len() > 1 {
        table.add_rows(result.operations.iter().map(|part| row(&part.name, &part.summary)));
    }
    if result.phases.len() > 1 {
        for phase in &result.phases {
            let name =
                if phase.counted { phase.name.clone() } else { format!("{} (not counted)", phase.name) };
            table.add_row(row(&name, &phase.summary));
        }
    }
    table.add_row(row("all", &result.total));
    writeln!(out, "{table}")?;
    if let Some(late) = &result.total.lateness {
        writeln!(out, "begun late by {}; latencies include that", quantiles(late))?;
    }
    for error in &result.errors {
        writeln!(
            out,
            "{} errors {} ({}), the first at {:.1} s: {}",
            error.count, error.kind, error.outcome, error.first_s, error.first
        )?;
    }
    result.notes.iter().try_for_each(|note| writeln!(out, "note: {note}"))
}

fn row(name: &str, summary: &Summary) -> Vec<String> {
    let latency = &summary.latency;
    let times = [latency.p50_ns, latency.p90_ns, latency.p99_ns, latency.p999_ns, latency.max_ns];
    let shown = |ns| if latency.count == 0 { "-".to_owned() } else { time(ns) };
    let asked = summary.asked_per_s.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.0}"));
    let mut row = vec![name.to_owned(), asked, format!("{:.0}", summary.ops_per_s)];
    row.extend(times.map(shown));
    row.push(summary.errors.to_string());
    row
}

fn quantiles(latency: &Latency) -> String {
    format!("{} (p50), {} (p99)", time(latency.p50_ns), time(latency.p99_ns))
}

#[cfg(test)]
mod tests {
    use hsmux_bench::result::example;

    use super::*;

    #[test]
    fn operations_phases_errors_and_notes_are_told_each_on_a_line() {
        let (result, mut out) = (example::payment_auth(), Vec::new());
        write(&mut out, &result).unwrap();
        let text = String::from_utf8(out).unwrap();
        for part in &result.operations {
            assert!(text.contains(&part.name), "{text}");
        }
        assert!(text.contains("warm-up (not counted)") && text.contains("all "), "{text}");
        for line in result.errors.iter().map(|error| &error.first).chain(&result.notes) {
            assert!(text.contains(line.as_str()), "{text}");
        }
    }
}
