//! Searches on simulated devices whose best settings are known, and the ends of searches.

mod duels;
mod ends;

use super::*;
use crate::dice::Dice;

/// A device, and what measurements of it are off by.
#[derive(Clone, Copy, Debug)]
struct Device {
    /// Operations that it does at once: further sessions gain nothing.
    servers: usize,
    /// What one module does at most, in operations at once: a lock that instances have of their own.
    lock: usize,
    /// The rate with coalescing over that without.
    coalescing: f64,
    /// The same of copies.
    copies: f64,
    /// Most sessions: beyond it there are none.
    sessions: usize,
    /// Deviation of a measurement, as a part.
    noise: f64,
    /// How often a measurement is spoilt by a stall.
    stalls: f64,
}

const PLAIN: Device = Device {
    servers: 4,
    lock: usize::MAX,
    coalescing: 1.0,
    copies: 1.0,
    sessions: usize::MAX,
    noise: 0.02,
    stalls: 0.02,
};

/// What a server does in a second.
const PER_S: f64 = 1000.0;

/// Searches on each device.
const SEEDS: u64 = 60;

/// Of those, so many may go wrong: one in twenty.
const WRONG_MAX: u64 = SEEDS / 20;

/// What goes with a measurement.
const BESIDE: Duration = Duration::from_millis(200);

impl Device {
    /// What it does, without noise.
    fn per_s(&self, setting: Setting) -> f64 {
        let of_module = setting.sessions.min(self.lock);
        let at_once = (of_module * setting.instances).min(self.servers);
        let with = |is_on: bool, factor: f64| if is_on { factor } else { 1.0 };
        let factor = with(setting.coalescing, self.coalescing) * with(setting.copies, self.copies);
        PER_S * at_once as f64 * factor
    }

    fn measure(&self, setting: Setting, lasts: Duration, dice: &mut Dice) -> Sample {
        let took = lasts + BESIDE;
        if setting.sessions * setting.instances > self.sessions {
            return Sample { took, outcome: Err("no more sessions".to_owned()) };
        }
        let stall = if dice.unit() < self.stalls { 0.4 } else { 1.0 };
        let per_s = self.per_s(setting) * (self.noise * dice.normal()).exp() * stall;
        Sample { took, outcome: Ok(figures(per_s)) }
    }

    fn tune(&self, start: Setting, limits: Limits, seed: u64) -> Advice {
        let (mut tuner, mut dice) = (Tuner::new(start, limits), Dice::new(seed));
        loop {
            match tuner.next() {
                Step::Measure { setting, lasts } => tuner.measured(self.measure(setting, lasts, &mut dice)),
                Step::Done(advice) => return *advice,
            }
        }
    }

    /// Searches with many seeds, and checks that nearly all of them end where `is_right` says and within 5 % of the best.
    #[track_caller]
    fn check(&self, limits: &Limits, best_per_s: f64, is_right: impl Fn(Setting) -> bool) {
        let mut wrong = Vec::new();
        for seed in 0..SEEDS {
            let advice = self.tune(Setting::default().with_sessions(8), limits.clone(), seed);
            let best = advice.best.unwrap();
            if !is_right(best) || self.per_s(best) < best_per_s * 0.95 {
                wrong.push((seed, advice.to_string()));
            }
        }
        assert!(wrong.len() as u64 <= WRONG_MAX, "{self:?}: {wrong:#?}");
    }
}

fn figures(ops_per_s: f64) -> Figures {
    Figures { ops_per_s, ops: 1_000, errors: 0, latencies_ns: [1_000_000; 5] }
}

fn without_instances() -> Limits {
    Limits::default()
}

#[test]
fn as_many_sessions_are_advised_as_the_device_has_servers() {
    for servers in [1, 2, 4, 6, 16, 48] {
        let device = Device { servers, ..PLAIN };
        device.check(&without_instances(), servers as f64 * PER_S, |best| {
            (servers.div_ceil(2)..=servers * 2).contains(&best.sessions)
                && best.has_switches_of(Setting::default())
        });
    }
}

#[test]
fn where_all_settings_are_alike_the_simplest_wins_whatever_the_noise() {
    for noise in [0.0, 0.02, 0.06] {
        let device = Device { servers: 1, noise, ..PLAIN };
        let limits = Limits { instances_max: 4, ..Limits::default() };
        // With much noise nothing shows that less is not slower: then what runs today stays.
        let start = Setting::default().with_sessions(8);
        device.check(&limits, PER_S, |best| best == Setting::default() || noise > 0.02 && best == start);
    }
}

#[test]
fn coalescing_that_hurts_is_turned_off_and_such_that_helps_stays() {
    for (coalescing, stays) in [(0.85, false), (3.0, true)] {
        let device = Device { coalescing, ..PLAIN };
        let best = 4.0 * PER_S * coalescing.max(1.0);
        device.check(&without_instances(), best, |best| best.coalescing == stays && best.copies);
    }
}

#[test]
fn copies_that_cost_are_turned_off_and_such_that_pay_stay() {
    for (copies, stays) in [(0.9, false), (2.0, true)] {
        let device = Device { copies, ..PLAIN };
        let best = 4.0 * PER_S * copies.max(1.0);
        device.check(&without_instances(), best, |best| best.copies == stays && best.coalescing);
    }
}

#[test]
fn instances_are_advised_where_a_lock_holds_one_up_and_their_sessions_are_looked_at_again() {
    let device = Device { servers: 4, lock: 1, ..PLAIN };
    let limits = Limits { instances_max: 8, ..Limits::default() };
    device.check(&limits, 4.0 * PER_S, |best| (best.instances, best.sessions) == (4, 1));
    let kept = device.tune(Setting::default(), Limits::default(), 1).best;
    assert_eq!(kept, Some(Setting::default()), "whether a module may be loaded twice is not tried unasked");
}

#[test]
fn a_switch_that_must_not_be_turned_stays_as_it_was_at_start() {
    let device = Device { coalescing: 2.0, copies: 0.5, ..PLAIN };
    let limits = Limits { coalescing: false, copies: false, ..Limits::default() };
    let start = Setting { coalescing: false, instances: 2, ..Setting::default() };
    let advice = device.tune(start, limits, 1);
    assert!(advice.tried.iter().all(|tried| tried.setting.has_switches_of(start)), "{advice:#?}");
}

#[test]
fn beyond_the_limit_no_sessions_are_asked_for_and_what_fails_ends_nothing() {
    let limits = Limits { sessions_min: 2, sessions_max: 6, ..Limits::default() };
    let advice = Device { servers: 64, ..PLAIN }.tune(Setting::default().with_sessions(2), limits, 1);
    assert_eq!(advice.best.unwrap().sessions, 6);
    assert!(advice.tried.iter().all(|tried| (2..=6).contains(&tried.setting.sessions)));
    let few = Device { servers: 64, sessions: 3, ..PLAIN };
    let advice = few.tune(Setting::default(), Limits::default(), 1);
    assert_eq!((advice.best.unwrap().sessions, advice.end), (3, End::Found));
    let failed = advice.tried_with(Setting::default().with_sessions(4)).unwrap();
    assert!(advice.tried.iter().all(|tried| tried.setting.sessions <= 4), "who is refused asks for no more");
    assert_eq!((failed.per_s, failed.failed.as_deref()), (None, Some("no more sessions")));
    let none = Device { sessions: 0, ..PLAIN }.tune(Setting::default(), Limits::default(), 1);
    assert_eq!((none.best, none.to_string().as_str()), (None, "no setting worked"));
}

#[test]
fn of_the_settings_that_meet_the_objective_the_fastest_is_advised() {
    // The more sessions, the more is done, and the longer each operation takes.
    let measure = |setting: Setting, lasts: Duration, dice: &mut Dice| {
        let per_s = PER_S * (setting.sessions as f64).sqrt() * (0.01 * dice.normal()).exp();
        let latency_ns = 1_000_000 * setting.sessions as u64;
        let figures = Figures { latencies_ns: [latency_ns; 5], ..figures(per_s) };
        Sample { took: lasts + BESIDE, outcome: Ok(figures) }
    };
    let advise = |slo: &str| {
        let limits = Limits { slo: Some(slo.parse().unwrap()), ..Limits::default() };
        let (mut tuner, mut dice) = (Tuner::new(Setting::default(), limits), Dice::new(1));
        loop {
            match tuner.next() {
                Step::Measure { setting, lasts } => tuner.measured(measure(setting, lasts, &mut dice)),
                Step::Done(advice) => return *advice,
            }
        }
    };
    let advice = advise("p99=8500us");
    assert_eq!((advice.best.unwrap().sessions, advice.meets), (8, true), "{advice}");
    assert!(advice.too_short_s.is_some_and(|needed| needed > 2.0), "10,000 requests for p99: {advice}");
    let advice = advise("p99=500us");
    assert!(!advice.meets && advice.to_string().contains("no setting was seen to meet"), "{advice}");
}

#[test]
fn the_gain_over_the_start_is_told_with_its_bounds() {
    let start = Setting { copies: false, ..Setting::default().with_sessions(2) };
    let advice = Device { copies: 1.5, ..PLAIN }.tune(start, Limits::default(), 3);
    let gain = advice.gain.unwrap();
    let interval = gain.interval.unwrap();
    // Twice the sessions, and half as much again by copies.
    assert!(interval.low < 3.0 && 3.0 < interval.high && (2.9..3.1).contains(&gain.ratio), "{advice}");
    let same = PLAIN.tune(Setting::default().with_sessions(4), Limits::default(), 1);
    assert!(same.gain.is_none() && same.to_string().ends_with("as at start"), "{same}");
}

#[test]
fn a_start_that_was_better_than_all_that_was_tried_stays() {
    // Only with eleven sessions and no copies everything fits, which no step of the search tries.
    let measure = |setting: Setting, lasts: Duration| {
        let per_s = if setting.sessions == 11 && !setting.copies { 8000.0 } else { 4000.0 };
        Sample { took: lasts, outcome: Ok(figures(per_s)) }
    };
    let start = Setting { copies: false, ..Setting::default().with_sessions(11) };
    let mut tuner = Tuner::new(start, Limits::default());
    let advice = loop {
        match tuner.next() {
            Step::Measure { setting, lasts } => tuner.measured(measure(setting, lasts)),
            Step::Done(advice) => break advice,
        }
    };
    assert_eq!(advice.best, Some(start), "{advice}");
}

#[test]
fn two_settings_are_measured_in_turn_and_in_changing_order() {
    let (mut tuner, mut dice, mut order) =
        (Tuner::new(Setting::default(), Limits::default()), Dice::new(1), Vec::new());
    while let Step::Measure { setting, lasts } = tuner.next() {
        order.push(setting);
        tuner.measured(PLAIN.measure(setting, lasts, &mut dice));
    }
    let without = |setting: &Setting| !setting.copies;
    let first = order.iter().position(without).unwrap();
    let turns: Vec<_> = order[first - 1..first + 7].iter().map(without).collect();
    assert_eq!(turns, [false, true, true, false, false, true, true, false]);
}
