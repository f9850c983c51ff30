//! Axes: where a value lies between the ends, and which values are named.

use super::words;

/// An axis with named values.
pub(super) struct Axis {
    from: f64,
    until: f64,
    is_log: bool,
    /// Values and their names, in order.
    pub(super) ticks: Vec<(f64, String)>,
}

/// Named values at most, about: on a phone more would touch.
const TICKS: f64 = 5.0;

/// Steps between named moments, in seconds: those of a clock.
const CLOCK_S: [f64; 16] = [
    1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_200.0, 1_800.0, 3_600.0, 7_200.0, 14_400.0,
    43_200.0,
];

impl Axis {
    /// From 0 to a round value at or above `max`; names come from `name`.
    pub(super) fn linear(max: f64, name: fn(f64) -> String) -> Self {
        Self::between(0.0, max, name)
    }

    /// Between round values around these two.
    pub(super) fn between(low: f64, high: f64, name: fn(f64) -> String) -> Self {
        let span = if high > low { high - low } else { 1.0 };
        let step = round_step(span / TICKS);
        let from = (low / step).floor() * step;
        let until = (high.max(low + span) / step).ceil() * step;
        let ticks = named(from, until, step).map(|at| (at, name(at))).collect();
        Self { from, until, is_log: false, ticks }
    }

    /// The time of a run: it ends where the run does.
    pub(super) fn moments(until_s: f64) -> Self {
        let until = if until_s > 0.0 { until_s } else { 1.0 };
        let fits = |step: &f64| until / step <= TICKS + 1.5;
        let days = || 86_400.0 * (until / 86_400.0 / TICKS).ceil();
        let step = match until {
            short if short < 2.0 => round_step(short / TICKS),
            _ => CLOCK_S.into_iter().find(fits).unwrap_or_else(days),
        };
        let ticks = named(0.0, until, step).map(|at| (at, words::moment(at))).collect();
        Self { from: 0.0, until, is_log: false, ticks }
    }

    /// Latencies in nanoseconds, by their logarithm.
    pub(super) fn latency(low_ns: f64, high_ns: f64) -> Self {
        let low = low_ns.max(1.0);
        let high = high_ns.max(low * 2.0);
        let from = steps_of_decades(low).filter(|at| *at <= low * 1.001).fold(1.0, f64::max);
        let until = steps_of_decades(high).find(|at| *at >= high * 0.999).unwrap_or(high);
        let decades = (until / from).log10();
        let is_named = |at: &f64| match decades {
            few if few <= 1.7 => true,
            _ => (at.log10() - at.log10().round()).abs() < 1e-9,
        };
        let within = steps_of_decades(until).filter(|at| *at >= from * 0.999 && *at <= until * 1.001);
        let ticks = within.filter(is_named).map(|at| (at, words::round_time(at))).collect();
        Self { from, until, is_log: true, ticks }
    }

    /// Percentiles, by 1/(1 - p): as many nines as `count` values have.
    pub(super) fn nines(count: u64) -> Self {
        let names = ["90 %", "99 %", "99.9 %", "99.99 %", "99.999 %", "99.9999 %"];
        let until = (count.max(2) as f64).clamp(10.0, 1e6);
        let nines = (1..).zip(names).map(|(nines, name)| (10_f64.powi(nines), name));
        let ticks = std::iter::once((2.0, "50 %")).chain(nines).filter(|(at, _)| *at <= until * 1.001);
        Self {
            from: 1.0,
            until,
            is_log: true,
            ticks: ticks.map(|(at, name)| (at, name.to_owned())).collect(),
        }
    }

    /// Where the value lies: 0 at the begin, 1 at the end, and no further.
    pub(super) fn place(&self, value: f64) -> f64 {
        let place = if self.is_log {
            (value.max(self.from) / self.from).ln() / (self.until / self.from).ln()
        } else {
            (value - self.from) / (self.until - self.from)
        };
        place.clamp(0.0, 1.0)
    }

    pub(super) const fn until(&self) -> f64 {
        self.until
    }
}

/// 1, 2 or 5 times a power of ten, at or above the value.
fn round_step(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    let step = [1.0, 2.0, 5.0].into_iter().map(|digit| digit * power).find(|step| *step >= value * 0.999);
    step.unwrap_or(10.0 * power)
}

/// The multiples of a step from one of them up to a bound.
fn named(from: f64, until: f64, step: f64) -> impl Iterator<Item = f64> {
    let places = (0_u32..64).map(move |place| from + f64::from(place) * step);
    places.take_while(move |at| *at <= until + step / 1e3)
}

/// 1, 2, 5, 10, 20 and so on, to past the value.
fn steps_of_decades(past: f64) -> impl Iterator<Item = f64> {
    let steps = (0..20).flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10_f64.powi(power)));
    steps.take_while(move |at| *at <= past * 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|(_, name)| name.as_str()).collect()
    }

    #[test]
    fn linear_axes_have_round_names_and_room_for_the_largest_value() {
        let axis = Axis::linear(1_534.0, words::round_rate);
        assert_eq!(names(&axis), ["0", "500/s", "1k/s", "1.5k/s", "2k/s"]);
        assert!(axis.place(1_534.0) < 1.0);
        for max in [1e-9, 0.07, 1.0, 3.0, 7.0, 99.0, 12_345.0, 9.9e8] {
            let axis = Axis::linear(max, words::round_rate);
            assert!((3..=7).contains(&axis.ticks.len()) && axis.until() >= max, "{max}");
        }
    }

    #[test]
    fn moments_are_those_of_a_clock() {
        assert_eq!(names(&Axis::moments(60.0)), ["0 s", "10 s", "20 s", "30 s", "40 s", "50 s", "60 s"]);
        assert_eq!(
            names(&Axis::moments(3_600.0)),
            ["0 s", "10 min", "20 min", "30 min", "40 min", "50 min", "1 h"]
        );
        for until in [0.0, 0.3, 1.0, 7.5, 61.0, 500.0, 1e4, 1e5, 1e7] {
            assert!((1..=8).contains(&Axis::moments(until).ticks.len()), "{until}");
        }
    }

    #[test]
    fn latencies_are_placed_by_their_logarithm() {
        let axis = Axis::latency(1e3, 1e9);
        assert_eq!(names(&axis), ["1 µs", "10 µs", "100 µs", "1 ms", "10 ms", "100 ms", "1 s"]);
        assert!((axis.place(1e6) - 0.5).abs() < 1e-9);
        assert_eq!(names(&Axis::latency(210_000.0, 4.2e6)), ["200 µs", "500 µs", "1 ms", "2 ms", "5 ms"]);
    }

    #[test]
    fn nines_go_as_far_as_there_are_values() {
        assert_eq!(names(&Axis::nines(1_500)), ["50 %", "90 %", "99 %", "99.9 %"]);
        assert_eq!(names(&Axis::nines(0)), ["50 %", "90 %"]);
        assert_eq!(Axis::nines(u64::MAX).ticks.len(), 7);
    }

    #[test]
    fn what_lies_outside_is_placed_at_the_end() {
        let axis = Axis::latency(1e3, 1e6);
        assert_eq!([axis.place(0.0), axis.place(1e9)], [0.0, 1.0]);
    }
}
