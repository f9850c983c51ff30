//! Rates, times and tables as people read them.

use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};

/// How many a second, without a fraction.
pub(crate) fn per_second(count: u64, elapsed: Duration) -> String {
    format!("{:.0}", ratio(count * 1_000, u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)))
}

/// 0 of nothing.
#[expect(clippy::cast_precision_loss, reason = "for people, who read three digits")]
pub(crate) fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// Nanoseconds for people: three digits or so, with a unit.
pub(crate) fn time(ns: u64) -> String {
    let units = [(1, "ns"), (1_000, "us"), (1_000_000, "ms"), (1_000_000_000, "s")];
    let (unit_ns, unit) = units.into_iter().rev().find(|(unit_ns, _)| ns >= *unit_ns).unwrap_or((1, "ns"));
    let digits = if unit_ns == 1 || ns / unit_ns >= 100 { 0 } else { 1 };
    format!("{:.digits$} {unit}", ratio(ns, unit_ns))
}

/// A plain table; columns from `numbers` on are aligned to the right.
pub(crate) fn table<const N: usize>(header: [&str; N], numbers: usize) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    table.column_iter_mut().skip(numbers).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_the_unit_that_fits() {
        let times = [0, 999, 1_000, 12_345, 123_456, 1_500_000, 2_000_000_000].map(time);
        assert_eq!(times, ["0 ns", "999 ns", "1.0 us", "12.3 us", "123 us", "1.5 ms", "2.0 s"]);
    }

    #[test]
    fn rates_are_per_second_whatever_the_time() {
        assert_eq!(per_second(500, Duration::from_millis(250)), "2000");
        assert_eq!(per_second(500, Duration::ZERO), "0");
    }
}
