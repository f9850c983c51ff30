use proptest::prelude::*;

use super::*;

fn rate(per_s: f64) -> Rate {
    Rate::per_second(per_s).unwrap()
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// Arrivals of each stretch.
fn counts(pace: Pace, stretches: &[Stretch], seed: u64) -> Vec<u64> {
    let mut counts = vec![0; stretches.len()];
    Schedule::new(pace, stretches.iter().copied(), seed).for_each(|arrival| counts[arrival.phase] += 1);
    counts
}

/// Length, and rates at the start and at the end.
type Shape = (Duration, f64, f64);

fn integral((length, from, to): Shape) -> f64 {
    (from + to) / 2.0 * length.as_secs_f64()
}

fn of_shapes(shapes: &[Shape]) -> Vec<Stretch> {
    shapes.iter().map(|&(length, from, to)| Stretch::ramp(length, rate(from), rate(to))).collect()
}

/// What is between the arrivals of an endless Poisson process of 1000/s, in milliseconds.
fn gaps(schedule: Schedule, count: usize) -> Vec<f64> {
    let at: Vec<_> = schedule.take(count + 1).map(|arrival| arrival.at.as_secs_f64() * 1e3).collect();
    at.windows(2).map(|two| two[1] - two[0]).collect()
}

fn assert_exponential(gaps: &[f64], mean: f64) {
    let n = gaps.len() as f64;
    let got = gaps.iter().sum::<f64>() / n;
    let variance = gaps.iter().map(|gap| (gap - got).powi(2)).sum::<f64>() / n;
    // 100,000 gaps: three standard errors are 1 % of the mean, and 3 % of the variance.
    assert!((got / mean - 1.0).abs() < 0.01, "mean {got}, expected {mean}");
    assert!((variance / (mean * mean) - 1.0).abs() < 0.03, "variance {variance}, expected {}", mean * mean);
    // Half of them are below ln 2.
    let below = gaps.iter().filter(|&&gap| gap < mean * std::f64::consts::LN_2).count() as f64;
    assert!((below / n - 0.5).abs() < 0.005, "{below} of {n} are below the median");
}

#[test]
fn a_constant_pace_has_even_distances_from_the_start_on() {
    let at: Vec<_> = Schedule::new(Pace::Constant, [Stretch::endless(rate(3.0))], 9).take(7).collect();
    let thirds = [0, 333_333_333, 666_666_667, 1_000_000_000, 1_333_333_333, 1_666_666_667, 2_000_000_000];
    assert_eq!(at, thirds.map(|ns| Arrival { at: Duration::from_nanos(ns), phase: 0 }));
}

#[test]
fn hours_at_a_million_a_second_do_not_drift() {
    let mut schedule = Schedule::new(Pace::Constant, [Stretch::endless(rate(1e6))], 1);
    // Ten hours on, and a third of an arrival, as if so many had been taken.
    schedule.next.add(36e9 + 1.0 / 3.0);
    let at: Vec<_> = schedule.take(3).map(|arrival| arrival.at.as_nanos()).collect();
    assert_eq!(at, [36_000_000_000_333, 36_000_000_001_333, 36_000_000_002_333]);
}

#[test]
fn what_is_left_of_a_step_is_carried_over_the_border() {
    // A third of a second at 2/s is two thirds of a step: the rest takes a sixth of a second at 2/s, or 1/12 at 4/s.
    let stretches = [(1.0 / 3.0, 2.0), (1.0, 4.0)].map(|(s, per_s)| Stretch::new(seconds(s), rate(per_s)));
    let at: Vec<_> =
        Schedule::new(Pace::Constant, stretches, 1).map(|a| (a.phase, a.at.as_millis())).collect();
    assert_eq!(at, [(0, 0), (1, 416), (1, 666), (1, 916), (1, 1166)]);
}

#[test]
fn stretches_that_are_too_short_for_an_arrival_add_up_to_one() {
    let short = [Stretch::new(Duration::from_millis(100), rate(2.5)); 40];
    let counts = counts(Pace::Constant, &short, 1);
    assert_eq!(counts.iter().sum::<u64>(), 10);
    assert_eq!(counts[..8], [1, 0, 0, 0, 1, 0, 0, 0]);
}

#[test]
fn an_arrival_at_the_border_belongs_to_what_begins_there() {
    let two = [Stretch::new(seconds(0.1), rate(30.0)), Stretch::new(seconds(0.1), rate(30.0))];
    assert_eq!(counts(Pace::Constant, &two, 1), [3, 3]);
    let third = Schedule::new(Pace::Constant, two, 1).nth(3);
    assert_eq!(third, Some(Arrival { at: seconds(0.1), phase: 1 }));
}

#[test]
fn a_schedule_without_stretches_is_over() {
    assert_eq!(Schedule::new(Pace::Constant, [], 1).next(), None);
    let empty = Stretch::new(Duration::ZERO, rate(5.0));
    let mut schedule = Schedule::new(Pace::Poisson, [empty], 1);
    assert_eq!((schedule.next(), schedule.next()), (None, None));
}

#[test]
fn gaps_of_a_poisson_process_are_exponential() {
    let schedule = Schedule::new(Pace::Poisson, [Stretch::endless(rate(1e3))], 5);
    assert_exponential(&gaps(schedule.clone(), 100_000), 1.0);
    let again = Schedule::new(Pace::Poisson, [Stretch::endless(rate(1e3))], 5);
    assert!(schedule.take(1_000).eq(again.take(1_000)), "the seed decides");
}

#[test]
fn shares_of_a_poisson_process_superimposed_are_one_of_the_whole_rate() {
    let whole = Schedule::new(Pace::Poisson, [Stretch::endless(rate(1e3))], 5);
    let four = NonZeroU32::new(4).unwrap();
    let shares = (0..4).map(|index| whole.clone().share(index, four));
    let mut at: Vec<_> = shares.flat_map(|share| share.take(27_000).map(|arrival| arrival.at)).collect();
    at.sort_unstable();
    let ms: Vec<_> = at.iter().map(|at| at.as_secs_f64() * 1e3).take(100_001).collect();
    assert_exponential(&ms.windows(2).map(|two| two[1] - two[0]).collect::<Vec<_>>(), 1.0);
}

#[test]
fn a_poisson_process_on_a_ramp_follows_it() {
    let ramp = Stretch::ramp(seconds(100.0), rate(100.0), rate(1900.0));
    let at: Vec<_> =
        Schedule::new(Pace::Poisson, [ramp], 3).map(|arrival| arrival.at.as_secs_f64()).collect();
    for tenth in 1..=10_u32 {
        let until = 10.0 * f64::from(tenth);
        let expected = 100.0 * until + 9.0 * until * until;
        let got = at.iter().filter(|&&at| at < until).count() as f64;
        // The number of arrivals of a Poisson process has its mean as variance.
        assert!((got - expected).abs() < 3.0 * expected.sqrt(), "{got} until {until} s, expected {expected}");
    }
}

fn shapes() -> impl Strategy<Value = Vec<Shape>> {
    let rates = prop_oneof![0.01..10.0_f64, 10.0..3_000.0_f64];
    let lengths = prop_oneof![1_u64..5_000, (1_u64..5_000).prop_map(|ms| ms * 1_000_003)];
    let shape = (lengths, rates.clone(), rates, any::<bool>());
    let shape =
        shape.prop_map(|(ns, from, to, ramp)| (Duration::from_nanos(ns), from, if ramp { to } else { from }));
    prop::collection::vec(shape, 1..6)
}

proptest! {
    #[test]
    fn counts_of_a_constant_pace_are_the_integrals_of_the_rates(shapes in shapes()) {
        let (mut all, mut expected) = (0, 0.0);
        for (count, &shape) in counts(Pace::Constant, &of_shapes(&shapes), 1).into_iter().zip(&shapes) {
            prop_assert!((count as f64 - integral(shape)).abs() < 1.0 + 1e-6, "{count} in {shape:?}");
            all += count;
            expected += integral(shape);
            prop_assert!((all as f64 - expected).abs() < 1.0 + 1e-6, "{all} so far, expected {expected}");
        }
    }

    #[test]
    fn counts_of_a_poisson_process_are_near_the_integrals(shapes in shapes(), seed: u64) {
        let got: u64 = counts(Pace::Poisson, &of_shapes(&shapes), seed).iter().sum();
        let expected: f64 = shapes.iter().copied().map(integral).sum();
        // Six deviations, and a few for means so small that the distribution is skewed.
        prop_assert!((got as f64 - expected).abs() < 6.0 * expected.sqrt() + 6.0, "{got}, expected {expected}");
    }

    #[test]
    fn arrivals_never_go_back_and_stay_in_their_stretch(shapes in shapes(), seed: u64, poisson: bool) {
        let stretches = of_shapes(&shapes);
        let pace = if poisson { Pace::Poisson } else { Pace::Constant };
        let mut last = Arrival { at: Duration::ZERO, phase: 0 };
        for arrival in Schedule::new(pace, stretches.iter().copied(), seed) {
            prop_assert!(arrival.at >= last.at && arrival.phase >= last.phase);
            let from: Duration = stretches[..arrival.phase].iter().map(Stretch::length).sum();
            let length = stretches[arrival.phase].length();
            prop_assert!((from..=from + length).contains(&arrival.at), "{arrival:?}");
            last = arrival;
        }
    }

    #[test]
    fn shares_of_a_constant_pace_are_its_arrivals(shapes in shapes(), shares in 1_u32..7) {
        let shares = NonZeroU32::new(shares).unwrap();
        let whole = Schedule::new(Pace::Constant, of_shapes(&shapes), 1);
        let parts = (0..shares.get()).flat_map(|index| whole.clone().share(index, shares));
        let mut parts: Vec<_> = parts.map(|arrival| (arrival.at, arrival.phase)).collect();
        parts.sort_unstable();
        prop_assert!(whole.map(|arrival| (arrival.at, arrival.phase)).eq(parts));
    }
}
