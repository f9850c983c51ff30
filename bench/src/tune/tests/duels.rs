//! Comparisons of two settings.

use super::*;
use crate::tune::duel::Rule;

/// A duel of a simpler setting, by what it does in each round: its part of what the other does, and which of them meets the
/// objective.
fn duel(rule: Rule, of_round: impl Fn(usize) -> (f64, [bool; 2])) -> Duel {
    let champion = Setting::default().with_sessions(8);
    let mut duel = Duel::new(champion, Setting::default(), rule, 0);
    let mut verdicts = HashMap::new();
    for round in 0.. {
        let (part, meets) = of_round(round);
        for setting in duel.round() {
            let side = usize::from(setting != champion);
            duel.took(setting, Some(1000.0 * [1.0, part][side]), meets[side]);
        }
        duel.judge(&mut verdicts);
        if duel.is_over() {
            break;
        }
    }
    duel
}

/// One that does these parts in turn, without an objective.
fn simpler(rule: Rule, parts: [f64; 2]) -> Duel {
    duel(rule, |round| (parts[round % 2], [true; 2]))
}

#[test]
fn a_simpler_setting_wins_unless_it_is_surely_slower() {
    let alike = simpler(Rule::NotSlower, [0.98, 1.0]);
    assert!(alike.challenger_wins() && alike.outcome == Outcome::NoDifference, "{alike:?}");
    for parts in [[0.8, 1.2], [0.93, 1.01]] {
        let noisy = simpler(Rule::NotSlower, parts);
        assert!(noisy.challenger_wins() && noisy.outcome == Outcome::TooNoisy, "{noisy:?}");
    }
    for parts in [[0.5, 0.6], [0.9, 0.95], [0.85, 1.0]] {
        let slower = simpler(Rule::NotSlower, parts);
        assert!(!slower.challenger_wins() && slower.outcome == Outcome::Slower, "{slower:?}");
    }
}

#[test]
fn against_what_runs_today_noise_is_no_reason_to_change_anything() {
    let alike = simpler(Rule::AsGood, [0.98, 1.0]);
    assert!(alike.challenger_wins() && alike.interval.unwrap().low >= 1.0 / 1.03, "{alike:?}");
    for parts in [[0.8, 1.2], [0.93, 1.01]] {
        let noisy = simpler(Rule::AsGood, parts);
        assert!(!noisy.challenger_wins() && noisy.beaten_by(noisy.champion).is_none(), "{noisy:?}");
    }
    assert!(simpler(Rule::AsGood, [1.2, 1.25]).challenger_wins());
}

#[test]
fn an_objective_overrides_rates_only_where_it_is_clearly_met_by_one_alone() {
    let clear = duel(Rule::NotSlower, |_| (0.5, [false, true]));
    assert_eq!(clear.outcome, Outcome::MeetsObjective, "{clear:?}");
    let clear = duel(Rule::Faster, |_| (1.5, [true, false]));
    assert_eq!(clear.outcome, Outcome::MissesObjective, "{clear:?}");
    // In about every other round: that is a coin.
    let luck = duel(Rule::Faster, |round| (1.5, [round % 2 == 0 || round == 1, round % 2 == 1]));
    assert_eq!(luck.outcome, Outcome::Faster, "{luck:?}");
}

#[test]
fn the_chance_of_heads_is_that_of_the_tables() {
    let of = |throws, heads| crate::tune::duel::chance_of_heads(throws, heads);
    assert_eq!([of(0, 0), of(6, 6), of(6, 5), of(3, 0)], [1.0, 1.0 / 64.0, 7.0 / 64.0, 1.0]);
}
