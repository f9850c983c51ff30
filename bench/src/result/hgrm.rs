//! A distribution as a table of percentiles (`.hgrm`), which `HdrHistogram`'s plotters read.

use super::Latency;

/// The unit of a table's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Microseconds.
    Microseconds,
    /// Milliseconds, which the plotters take values for unless told otherwise.
    Milliseconds,
}

/// Rows per halving of what is left above them: what the makers of such files use.
const ROWS_PER_HALVING: u32 = 5;

/// The table: value, percentile as a fraction, how many are at or below it, and 1/(1 - percentile), which the last row
/// lacks. Lines that begin with `#` hold mean, standard deviation, longest, count and the unit. `None` if the
/// document holds no histogram.
#[must_use]
pub fn table(latency: &Latency, unit: Unit) -> Option<String> {
    let histogram = latency.histogram()?;
    let mut text =
        format!("{:>12} {:>14} {:>10} {:>14}\n\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)");
    let mut count = 0;
    for row in histogram.iter_quantiles(ROWS_PER_HALVING) {
        count += row.count_since_last_iteration();
        let (value, quantile) = (unit.of(row.value_iterated_to() as f64), row.quantile_iterated_to());
        text.push_str(&format!("{value:12.3} {quantile:14.12} {count:10}"));
        if quantile < 1.0 {
            text.push_str(&format!(" {:14.2}", 1.0 / (1.0 - quantile)));
        }
        text.push('\n');
    }
    let [mean, deviation] = [histogram.mean(), histogram.stdev()].map(|ns| unit.of(ns));
    let (max, total) = (unit.of(histogram.max() as f64), histogram.len());
    // Two sub-buckets for each distinguishable value, rounded up to a power of two.
    let sub_buckets = (2 * 10_u64.pow(histogram.sigfig().into())).next_power_of_two();
    text.push_str(&format!("#[Mean    = {mean:12.3}, StdDeviation   = {deviation:12.3}]\n"));
    text.push_str(&format!("#[Max     = {max:12.3}, Total count    = {total:12}]\n"));
    text.push_str(&format!("#[Buckets = {:12}, SubBuckets     = {sub_buckets:12}]\n", histogram.buckets()));
    text.push_str(&format!("#[Values are {}]\n", unit.as_str()));
    Some(text)
}

impl Unit {
    /// Its name, as the table states it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Microseconds => "microseconds",
            Self::Milliseconds => "milliseconds",
        }
    }

    fn of(self, ns: f64) -> f64 {
        match self {
            Self::Microseconds => ns / 1e3,
            Self::Milliseconds => ns / 1e6,
        }
    }
}

#[cfg(test)]
mod tests {
    use hdrhistogram::Histogram;

    use super::*;

    fn thousand(unit: Unit) -> String {
        let mut histogram = Histogram::new(3).unwrap();
        (1..=1_000).for_each(|us| histogram.record(us * 1_000).unwrap());
        table(&Latency::of(&histogram), unit).unwrap()
    }

    /// The rows as a plotter takes them: four numbers, and no hash before them.
    fn rows(text: &str) -> Vec<[f64; 4]> {
        let numbers = |line: &str| line.split_whitespace().map(str::parse).collect::<Result<Vec<f64>, _>>();
        text.lines().filter_map(|line| numbers(line).ok()?.try_into().ok()).collect()
    }

    #[test]
    fn each_row_says_how_many_are_at_or_below_its_value() {
        let rows = rows(&thousand(Unit::Milliseconds));
        assert!(rows.len() > 20 && rows.is_sorted_by_key(|row| row[2]), "{rows:?}");
        for [value, percentile, count, inverse] in rows {
            assert!((value - count / 1e3).abs() <= value * 1e-3, "{value} ms, {count}");
            assert!((inverse * (1.0 - percentile) - 1.0).abs() < 0.01, "{percentile} {inverse}");
        }
    }

    #[test]
    fn the_unit_is_stated_and_true() {
        let [ms, us] = [Unit::Milliseconds, Unit::Microseconds].map(thousand);
        assert!(ms.ends_with("#[Values are milliseconds]\n") && us.ends_with("#[Values are microseconds]\n"));
        for ([ms, ..], [us, ..]) in rows(&ms).into_iter().zip(rows(&us)) {
            assert!((ms * 1e3 - us).abs() < 0.6, "{ms} {us}");
        }
    }

    #[test]
    fn the_table_ends_with_the_longest_and_the_count() {
        let text = thousand(Unit::Microseconds);
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].ends_with("1/(1-Percentile)") && lines[1].is_empty());
        let last = lines.iter().rfind(|line| !line.starts_with('#')).unwrap();
        let words: Vec<_> = last.split_whitespace().collect();
        assert_eq!(words[1..], ["1.000000000000", "1000"], "{last}");
        let footer = lines[lines.len() - 4..].join("\n");
        for part in ["#[Mean    =", "StdDeviation   =", "#[Max     =", "Total count    =         1000]"] {
            assert!(footer.contains(part), "{part}: {footer}");
        }
        assert!(footer.contains("SubBuckets     =         2048]"), "{footer}");
    }

    #[test]
    fn a_document_without_a_histogram_has_no_table() {
        assert_eq!(table(&Latency::default(), Unit::Milliseconds), None);
    }
}
