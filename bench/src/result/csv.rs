//! The course of a run as CSV: one row a second.

use std::fmt::Display;

use super::{Interval, LoadResult};

/// The first line. Columns are those of [`Interval`], with the rate achieved between them; what was not measured is an
/// empty field.
pub const HEADER: &str =
    "at_s,seconds,ops,errors,asked,ops_per_s,p50_ns,p90_ns,p99_ns,max_ns,sessions,queued,tokens_up";

/// [`HEADER`], and a line for each interval of the run. Fields are numbers, so none needs quotes.
#[must_use]
pub fn series(result: &LoadResult) -> String {
    let mut text = format!("{HEADER}\n");
    for interval in &result.series {
        text.push_str(&row(interval));
        text.push('\n');
    }
    text
}

fn row(it: &Interval) -> String {
    let rate = if it.seconds > 0.0 { it.ops as f64 / it.seconds } else { 0.0 };
    let Interval { at_s, seconds, ops, errors, p50_ns, p90_ns, p99_ns, max_ns, .. } = it;
    let [asked, queued] = [it.asked, it.queued].map(field);
    let [sessions, tokens] = [it.sessions, it.tokens_up].map(field);
    format!(
        "{at_s:.3},{seconds:.3},{ops},{errors},{asked},{rate:.1},{p50_ns},{p90_ns},{p99_ns},{max_ns},\
         {sessions},{queued},{tokens}"
    )
}

fn field(value: Option<impl Display>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::example;

    #[test]
    fn every_second_is_a_row_with_a_field_for_each_column() {
        let result = example::payment_auth();
        let text = series(&result);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 1 + result.series.len());
        assert_eq!(lines[0], HEADER);
        assert!(lines.iter().all(|line| line.split(',').count() == 13), "{text}");
        let tokens_up = |line: &str| line.rsplit(',').next().map(str::to_owned);
        assert_eq!(tokens_up(lines[1]).as_deref(), Some("3"));
        assert_eq!(tokens_up(lines[26]).as_deref(), Some("2"));
    }

    #[test]
    fn what_was_not_measured_is_an_empty_field() {
        let interval = Interval { at_s: 2.0, seconds: 0.5, ops: 10, p50_ns: 7, ..Interval::default() };
        assert_eq!(row(&interval), "2.000,0.500,10,0,,20.0,7,0,0,0,,,");
    }
}
