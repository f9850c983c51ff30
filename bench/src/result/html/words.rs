//! Figures and texts as the page writes them: three digits and a unit, nothing that markup could hide in.

use std::borrow::Cow;

/// The text with what means something in HTML as entities, and control characters shown as such.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' | '\t' => escaped.push(c),
            c if c.is_control() => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

/// `1,234,567`.
pub(super) fn count(value: u64) -> String {
    grouped(&value.to_string())
}

/// The same of a whole number that was computed with.
pub(super) fn count_of(value: f64) -> String {
    grouped(&format!("{value:.0}"))
}

/// `60 s`, `0.52 s`.
pub(super) fn seconds(seconds: f64) -> String {
    format!("{} s", trimmed(seconds))
}

/// `1,234/s`, `12.3/s`.
pub(super) fn rate(per_s: f64) -> String {
    let text = if per_s >= 999.5 { grouped(&format!("{per_s:.0}")) } else { digits(per_s) };
    format!("{text}/s")
}

/// A time of nanoseconds: `842 ns`, `1.20 µs`, `12.3 ms`, `1.50 s`.
pub(super) fn time(ns: f64) -> String {
    let (value, unit) = in_unit(ns);
    format!("{} {unit}", digits(value))
}

/// The same where the value is round, as at ticks: `1 ms`, `0.5 ms`, `20 s`.
pub(super) fn round_time(ns: f64) -> String {
    let (value, unit) = in_unit(ns);
    if ns == 0.0 { "0".to_owned() } else { format!("{} {unit}", trimmed(value)) }
}

/// Seconds of a run: `20 s`, `12.5 s`, `5 min`, `2 h`.
pub(super) fn moment(seconds: f64) -> String {
    match seconds {
        s if s >= 3_600.0 && s % 3_600.0 == 0.0 => format!("{} h", s / 3_600.0),
        s if s >= 300.0 && s % 60.0 == 0.0 => format!("{} min", s / 60.0),
        s => format!("{} s", trimmed(s)),
    }
}

/// A part of something, 0 to 1: `0.26 %`, `12.0 %`.
pub(super) fn percent(part: f64) -> String {
    if part > 0.0 && part < 0.000_05 {
        return "< 0.01 %".to_owned();
    }
    match part * 100.0 {
        0.0 => "0 %".to_owned(),
        percent if percent < 9.995 => format!("{percent:.2} %"),
        percent => format!("{percent:.1} %"),
    }
}

/// `1.24 ×`; a dash where there is nothing to compare with.
pub(super) fn ratio(of: f64, to: f64) -> Cow<'static, str> {
    let ratio = of / to;
    if ratio.is_finite() { format!("{ratio:.2} ×").into() } else { "–".into() }
}

/// A rate at a tick: `500`, `2k`, `1.5M`.
pub(super) fn round_rate(per_s: f64) -> String {
    match per_s {
        rate if rate >= 1e6 => format!("{}M/s", trimmed(rate / 1e6)),
        rate if rate >= 1e3 => format!("{}k/s", trimmed(rate / 1e3)),
        0.0 => "0".to_owned(),
        rate => format!("{}/s", trimmed(rate)),
    }
}

/// `8.0 GiB`.
pub(super) fn bytes(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
}

/// At most three decimals, and none that say nothing.
pub(super) fn trimmed(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn in_unit(ns: f64) -> (f64, &'static str) {
    // Half a digit below the next unit is the next unit already: there is no `1000 µs`.
    match ns {
        ns if ns < 999.5 => (ns, "ns"),
        ns if ns < 999.5e3 => (ns / 1e3, "µs"),
        ns if ns < 999.5e6 => (ns / 1e6, "ms"),
        ns => (ns / 1e9, "s"),
    }
}

fn digits(value: f64) -> String {
    match value {
        0.0 => "0".to_owned(),
        value if value < 9.995 => format!("{value:.2}"),
        value if value < 99.95 => format!("{value:.1}"),
        value => format!("{value:.0}"),
    }
}

fn grouped(digits: &str) -> String {
    let mut text = String::new();
    for (place, digit) in digits.char_indices() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits_and_the_unit_that_fits() {
        let times = [(842.0, "842 ns"), (999.7, "1.00 µs"), (12_340.0, "12.3 µs"), (999_600.0, "1.00 ms")];
        for (ns, text) in times.into_iter().chain([(1.5e9, "1.50 s"), (0.0, "0 ns"), (123.4e9, "123 s")]) {
            assert_eq!(time(ns), text);
        }
        assert_eq!([1e3, 2e4, 5e8].map(round_time), ["1 µs", "20 µs", "500 ms"]);
    }

    #[test]
    fn large_numbers_are_grouped_by_thousands() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0.0, 12.34, 999.7, 65_432.1].map(rate), ["0/s", "12.3/s", "1,000/s", "65,432/s"]);
        assert_eq!([500.0, 2_000.0, 1.5e6].map(round_rate), ["500/s", "2k/s", "1.5M/s"]);
    }

    #[test]
    fn small_parts_are_not_said_to_be_none() {
        assert_eq!(
            [0.0, 1e-6, 0.0026, 0.12, 1.0].map(percent),
            ["0 %", "< 0.01 %", "0.26 %", "12.0 %", "100.0 %"]
        );
    }

    #[test]
    fn moments_of_long_runs_are_minutes_and_hours() {
        assert_eq!([0.0, 12.5, 60.0, 600.0, 7_200.0].map(moment), ["0 s", "12.5 s", "60 s", "10 min", "2 h"]);
    }

    #[test]
    fn a_ratio_to_nothing_is_a_dash() {
        assert_eq!([ratio(3.0, 2.0), ratio(1.0, 0.0), ratio(0.0, 0.0)], ["1.50 ×", "–", "–"]);
    }

    #[test]
    fn markup_and_control_characters_are_taken_apart() {
        assert_eq!(escape("<a b='\"'>&\u{1b}\n"), "&lt;a b=&#39;&quot;&#39;&gt;&amp;\u{fffd}\n");
    }
}
