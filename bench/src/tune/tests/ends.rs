//! Searches that end early.

use super::*;

/// A search on a device up to where it is to end.
fn search(device: Device, start: Setting, limits: &Limits, is_end: impl Fn(&Tuner) -> bool) -> Tuner {
    let (mut tuner, mut dice) = (Tuner::new(start, limits.clone()), Dice::new(1));
    while let Step::Measure { setting, lasts } = tuner.next()
        && !is_end(&tuner)
    {
        tuner.measured(device.measure(setting, lasts, &mut dice));
    }
    tuner
}

#[test]
fn time_bounds_the_search_and_what_runs_today_stays_if_nothing_has_beaten_it_by_then() {
    for seconds in [8, 20] {
        let total = Duration::from_secs(seconds);
        let limits = Limits { total, ..Limits::default() };
        let tuner = search(PLAIN, Setting::default(), &limits, |_| false);
        let Step::Done(advice) = tuner.next() else { panic!("it is not over") };
        assert!(tuner.spent <= total, "{:?}", tuner.spent);
        assert_eq!(
            (advice.end, advice.best, advice.decided),
            (End::OutOfTime, Some(Setting::default()), false)
        );
        assert!((3..=8).contains(&tuner.best().unwrap().0.sessions), "{advice}");
        let ends = "unfinished: time was used up before anything was seen to beat the settings at start";
        assert!(advice.to_string().ends_with(ends), "{advice}");
    }
}

#[test]
fn the_settings_at_start_are_measured_first() {
    let start = Setting { copies: false, ..Setting::default().with_sessions(100) };
    let tuner = Tuner::new(start, Limits::default());
    assert!(matches!(tuner.next(), Step::Measure { setting, .. } if setting == start));
    assert_eq!((tuner.stopped().best, tuner.best()), (Some(start), None));
}

#[test]
fn the_winner_of_single_looks_is_not_advised() {
    let tuner = search(PLAIN, Setting::default(), &Limits::default(), |tuner| tuner.history.len() == 4);
    let advice = tuner.stopped();
    assert_eq!((advice.best, advice.end, advice.decided), (Some(Setting::default()), End::Stopped, false));
    assert_eq!(tuner.best().map(|(best, _)| best.sessions), Some(4));
}

#[test]
fn what_has_won_a_comparison_with_the_start_is_advised_even_if_it_is_stopped() {
    // Eight sessions are the start, the most that is tried, and exactly as fast as four.
    let start = Setting::default().with_sessions(8);
    let device = Device { noise: 0.0, stalls: 0.0, ..PLAIN };
    let is_won = |tuner: &Tuner| tuner.found.duels.iter().any(|duel| duel.beaten_by(start).is_some());
    let tuner = search(device, start, &Limits { sessions_max: 8, ..Limits::default() }, is_won);
    let advice = tuner.stopped();
    let beats = advice.duels.last().and_then(|duel| duel.beaten_by(start));
    assert!(advice.end == End::Stopped && advice.decided && advice.best == beats, "{advice:?}");
    assert!(advice.to_string().ends_with("it was stopped, this is the best so far"), "{advice}");
}

#[test]
fn a_start_that_does_not_work_is_not_advised_but_nothing_else_is_decided_yet() {
    let device = Device { sessions: 4, ..PLAIN };
    let start = Setting::default().with_sessions(16);
    let tuner = search(device, start, &Limits::default(), |tuner| tuner.history.len() == 3);
    let advice = tuner.stopped();
    assert_eq!((advice.best.map(|best| best.sessions), advice.decided), (Some(2), false), "{advice}");
    let advice = device.tune(start, Limits::default(), 1);
    assert_eq!((advice.best.map(|best| best.sessions), advice.decided), (Some(4), true), "{advice}");
}

#[test]
fn measurements_are_as_long_as_an_objective_needs_where_there_is_time() {
    let slo = Some("p99=5ms".parse().unwrap());
    let lasts = |total| {
        let limits = Limits { slo: slo.clone(), total, ..Limits::default() };
        let tuner = search(PLAIN, Setting::default(), &limits, |tuner| tuner.history.len() == 20);
        let longest = tuner.history.iter().map(|visit| visit.lasts).max().unwrap();
        (longest, tuner.stopped().too_short_s)
    };
    let hours = Duration::from_secs(3 * 3600);
    let (longest, too_short_s) = lasts(hours);
    // 10,000 operations at 1,000 a second, but for those that were looked at for the first time.
    assert!(longest >= Duration::from_secs(9) && too_short_s.is_some(), "{longest:?}");
    let (longest, too_short_s) = lasts(Duration::from_secs(60));
    assert!(longest < Duration::from_secs(1) && too_short_s.is_some(), "{longest:?}");
}
