//! Verdicts on simulated runs of a known ratio, and on what is no run.

use proptest::prelude::*;

use super::*;
use crate::dice::Dice;

/// A minute: what it takes to find 5 % where noise persists. With white noise half of it does.
const SECONDS: usize = 60;

/// Pairs of runs of each kind; none may err. So 20 of 20 is what is to be expected.
const PAIRS: u32 = 60;

/// What disturbs a run.
#[derive(Clone, Copy, Debug)]
enum Noise {
    /// Each second by itself.
    White,
    /// Half of a second's deviation stays for the next.
    Persistent,
    /// The rate falls over the run, as with a CPU that grows hot.
    Drift,
    /// One second reaches two fifths of the rate.
    Outlier,
}

const NOISES: [Noise; 4] = [Noise::White, Noise::Persistent, Noise::Drift, Noise::Outlier];

/// Deviation of a second.
const DEVIATION: f64 = 0.01;

/// What a run loses with [`Noise::Drift`] from begin to end.
const DRIFT: f64 = 0.02;

/// Operations per second of each second of a run at this rate.
fn run(per_s: f64, noise: Noise, seconds: usize, deviation: f64, dice: &mut Dice) -> Vec<f64> {
    let carried = if matches!(noise, Noise::Persistent) { 0.5_f64 } else { 0.0 };
    let mut deviates = dice.normal();
    let mut series: Vec<_> = (0..seconds)
        .map(|second| {
            deviates = carried * deviates + (1.0 - carried * carried).sqrt() * dice.normal();
            let lost =
                if matches!(noise, Noise::Drift) { DRIFT * second as f64 / seconds as f64 } else { 0.0 };
            per_s * (1.0 + deviation * deviates - lost)
        })
        .collect();
    if matches!(noise, Noise::Outlier) {
        series[dice.small(seconds as u64)] *= 0.4;
    }
    series
}

/// The verdicts on pairs of runs whose rates have this ratio.
fn verdicts(ratio: f64, noise: Noise, deviation: f64) -> impl Iterator<Item = Verdict> {
    (0..PAIRS).map(move |number| {
        let mut dice = Dice::of(number.into(), 3);
        let before = run(1e4, noise, SECONDS, deviation, &mut dice);
        let after = run(1e4 * ratio, noise, SECONDS, deviation, &mut dice);
        Verdict::of(&before, &after, &Settings::rates())
    })
}

#[track_caller]
fn assert_all(ratio: f64, deviation: f64, call: Call) {
    for noise in NOISES {
        for verdict in verdicts(ratio, noise, deviation) {
            assert_eq!(verdict.call, call, "{noise:?}: {verdict}");
        }
    }
}

#[test]
fn a_thing_against_itself_is_no_difference() {
    assert_all(1.0, DEVIATION, Call::NoDifference);
}

#[test]
fn a_thing_against_itself_is_no_difference_however_noisy() {
    assert_all(1.0, 3.0 * DEVIATION, Call::NoDifference);
}

#[test]
fn a_true_difference_of_5_percent_is_found() {
    assert_all(1.05, DEVIATION, Call::Faster);
    assert_all(1.0 / 1.05, DEVIATION, Call::Slower);
}

#[test]
fn a_difference_that_does_not_count_is_not_called() {
    assert_all(1.01, DEVIATION, Call::NoDifference);
}

#[test]
fn the_interval_holds_the_true_ratio_as_often_as_it_says() {
    for noise in NOISES {
        let held = |verdict: &Verdict| {
            verdict.interval.is_some_and(|interval| interval.low <= 1.1 && 1.1 <= interval.high)
        };
        let missed = verdicts(1.1, noise, DEVIATION).filter(|verdict| !held(verdict)).count();
        // Of 60 with 99 % confidence 0.6 are to be expected; 4 or more would be a chance of 1 in 300.
        assert!(missed <= 3, "{noise:?}: {missed} of {PAIRS}");
    }
}

/// Rounds in which a machine slows down and recovers by a tenth: the same for both sides, as they ran in turn.
fn shared_rounds(ratio: f64, seed: u64) -> Vec<(f64, f64)> {
    let mut dice = Dice::new(seed);
    let mut noise = move || 1.0 + DEVIATION * dice.normal();
    let machine = |round: usize| 1e4 * (1.0 + 0.1 * (round as f64 / 3.0).sin());
    (0..24).map(|round| (machine(round) * noise(), machine(round) * noise() * ratio)).collect()
}

#[test]
fn rounds_in_turn_show_what_the_machine_hides() {
    for seed in 0..u64::from(PAIRS) {
        let [itself, other] = [1.0, 1.05].map(|ratio| shared_rounds(ratio, seed));
        assert_eq!(Verdict::paired(&itself, &Settings::rates()).call, Call::NoDifference, "{seed}");
        let verdict = Verdict::paired(&other, &Settings::rates());
        assert_eq!(verdict.call, Call::Faster, "{seed}: {verdict}");
        let (before, after): (Vec<_>, Vec<_>) = other.into_iter().unzip();
        assert_eq!(Verdict::of(&before, &after, &Settings::rates()).reason, Some(Reason::TooNoisy), "{seed}");
    }
}

#[test]
fn more_time_is_slower() {
    let p99 = |ms: f64| run(ms, Noise::White, SECONDS, DEVIATION, &mut Dice::new(5));
    let call = |after| Verdict::of(&p99(5.0), &p99(after), &Settings::times()).call;
    assert_eq!((call(6.0), call(4.0), call(5.1)), (Call::Slower, Call::Faster, Call::NoDifference));
}

#[test]
fn too_few_rounds_are_never_a_guess() {
    let [few, enough] = [ROUNDS_MIN - 1, ROUNDS_MIN].map(|rounds| vec![1.0; rounds]);
    let twice = vec![2.0; 100];
    let verdict = Verdict::of(&few, &twice, &Settings::rates());
    assert_eq!((verdict.call, verdict.reason), (Call::NoDifference, Some(Reason::TooFewRounds)));
    assert_eq!(verdict.to_string(), "no difference: too few rounds to tell (7, at least 8 are needed)");
    assert_eq!(Verdict::of(&enough, &twice, &Settings::rates()).call, Call::Faster);
    let pairs = |rounds| vec![(1.0, 2.0); rounds];
    assert_eq!(
        Verdict::paired(&pairs(ROUNDS_MIN - 1), &Settings::rates()).reason,
        Some(Reason::TooFewRounds)
    );
    assert_eq!(Verdict::paired(&pairs(ROUNDS_MIN), &Settings::rates()).call, Call::Faster);
}

#[test]
fn a_side_that_gets_nothing_done_is_slower_and_two_are_no_evidence() {
    let [alive, dead] = [vec![1e3; SECONDS], vec![0.0; SECONDS]];
    assert_eq!(Verdict::of(&alive, &dead, &Settings::rates()).call, Call::Slower);
    assert_eq!(Verdict::of(&dead, &alive, &Settings::rates()).call, Call::Faster);
    assert_eq!(Verdict::of(&dead, &dead, &Settings::rates()).ratio, None);
}

#[test]
fn what_is_no_figure_is_no_round() {
    let mut odd = vec![1.0; SECONDS];
    odd.extend([f64::NAN, f64::INFINITY, -1.0]);
    assert_eq!(Verdict::of(&odd, &odd, &Settings::rates()).rounds, [SECONDS; 2]);
    let pairs: Vec<_> = odd.iter().map(|&value| (1.0, value)).collect();
    assert_eq!(Verdict::paired(&pairs, &Settings::rates()).rounds, [SECONDS; 2]);
}

#[test]
fn a_second_in_which_nothing_got_done_has_no_latency() {
    let before = vec![5.0; SECONDS];
    let after: Vec<_> = (0..SECONDS).map(|second| if second % 2 == 0 { 0.0 } else { 5.0 }).collect();
    let verdict = Verdict::of(&before, &after, &Settings::times());
    assert_eq!((verdict.call, verdict.rounds), (Call::NoDifference, [SECONDS, SECONDS / 2]));
}

#[test]
fn a_verdict_is_one_sentence() {
    let series = |per_s, deviation| run(per_s, Noise::White, SECONDS, deviation, &mut Dice::new(2));
    let before = series(1e3, 0.0);
    let said = |after: &[f64], settings| Verdict::of(&before, after, &settings).to_string();
    let end = "with 99 % confidence, 60 and 60 rounds)";
    assert_eq!(
        said(&series(1.25e3, 0.0), Settings::rates()),
        format!("faster: +25.0 % operations per second (+25.0 % to +25.0 % {end}")
    );
    assert_eq!(
        said(&series(900.0, 0.0), Settings::times()),
        format!("faster: -10.0 % time (-10.0 % to -10.0 % {end}")
    );
    let noisy = said(&series(1e3, 0.2), Settings::rates());
    assert!(
        noisy.starts_with("no difference: ") && noisy.contains("; too noisy to tell less than "),
        "{noisy}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_verdict_is_the_same_again_and_turns_round_with_its_sides(
        before in prop::collection::vec(0.0..1e6_f64, 0..40),
        after in prop::collection::vec(0.0..1e6_f64, 0..40),
        seed: u64,
    ) {
        let settings = Settings { draws: 100, seed, ..Settings::rates() };
        let verdict = Verdict::of(&before, &after, &settings);
        prop_assert_eq!(&verdict, &Verdict::of(&before, &after, &settings));
        let turned = Verdict::of(&after, &before, &settings);
        if let (Some(one), Some(other)) = (verdict.ratio, turned.ratio) {
            prop_assert!((one * other - 1.0).abs() < 1e-6, "{} and {}", one, other);
            let interval = verdict.interval.unwrap();
            prop_assert!(interval.low <= one && one <= interval.high, "{:?}", verdict);
        }
    }

    #[test]
    fn units_do_not_matter(series in prop::collection::vec(1.0..100.0_f64, 8..40), unit in 1e-3..1e3_f64) {
        let settings = Settings { draws: 100, ..Settings::rates() };
        let measured: Vec<_> = series.iter().map(|value| value * unit).collect();
        let verdict = Verdict::of(&series, &measured, &settings);
        prop_assert!((verdict.ratio.unwrap() / unit - 1.0).abs() < 1e-9, "{}", verdict);
    }
}
