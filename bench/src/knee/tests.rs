//! Searches on simulated queues of known capacity, and the ends of searches.

use super::*;
use crate::dice::Dice;

/// A queue in the order of arrival, with servers that take a millisecond, exactly or on average.
#[derive(Clone, Copy, Debug)]
struct Device {
    servers: usize,
    /// Whether service times are exponential (M/M/c) or all the same (M/D/c).
    varies: bool,
    /// How often all servers stop, and for how long, in seconds.
    stall: Option<[f64; 2]>,
}

const SERVICE_S: f64 = 1e-3;

/// The objective of all searches here, on the 99th percentile.
const LIMIT_S: f64 = 10e-3;

const SLO: &str = "p99=10ms";

impl Device {
    const fn new(servers: usize, varies: bool) -> Self {
        Self { servers, varies, stall: None }
    }

    /// Latencies in seconds of Poisson arrivals at this rate.
    fn latencies(&self, per_s: f64, seconds: f64, dice: &mut Dice) -> Vec<f64> {
        let mut free = vec![0.0_f64; self.servers];
        let mut latencies = Vec::new();
        let mut now = dice.exponential() / per_s;
        let mut stall = self.stall.map(|[every, _]| every * dice.unit());
        while now < seconds {
            if let (Some(at), Some([every, lasts])) = (&mut stall, self.stall)
                && now >= *at
            {
                free.iter_mut().for_each(|free| *free = free.max(*at) + lasts);
                *at += every;
            }
            let first = (0..free.len()).min_by(|&one, &other| free[one].total_cmp(&free[other])).unwrap();
            free[first] =
                free[first].max(now) + SERVICE_S * if self.varies { dice.exponential() } else { 1.0 };
            latencies.push(free[first] - now);
            now += dice.exponential() / per_s;
        }
        latencies
    }

    /// As a harness measures it: what is read off is off by 2 %.
    fn measure(&self, per_s: f64, lasts: Duration, dice: &mut Dice) -> Point {
        let mut latencies = self.latencies(per_s, lasts.as_secs_f64(), dice);
        let noise = 1.0 + 0.02 * dice.normal();
        let latencies_ns = Percentile::ALL.map(|of| ns(quantile(&mut latencies, of.share()) * noise));
        let ops = latencies.len() as u64;
        // Those that end after the end are not counted as done: of an overloaded device, many.
        let seconds = lasts.as_secs_f64() + latencies.last().copied().unwrap_or_default();
        Point {
            asked_per_s: per_s,
            ops_per_s: ops as f64 / seconds,
            ops,
            errors: 0,
            kept_up: true,
            latencies_ns,
        }
    }

    /// The rate at which this share of requests takes the limit, by halving over long runs of the same arrivals.
    fn capacity(&self) -> f64 {
        let (mut low, mut high) = (0.0, self.servers as f64 / SERVICE_S);
        for _ in 0..9 {
            let middle = (low + high) / 2.0;
            let mut latencies = self.latencies(middle, 1e5 / middle, &mut Dice::new(1));
            if quantile(&mut latencies, 0.99) <= LIMIT_S { low = middle } else { high = middle }
        }
        low
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a latency is short and positive"
)]
fn ns(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of a length")]
fn quantile(values: &mut [f64], share: f64) -> f64 {
    let place = (values.len() as f64 * share) as usize;
    if values.is_empty() { 0.0 } else { *values.select_nth_unstable_by(place, f64::total_cmp).1 }
}

/// The rate of M/M/c at which 99 % of latencies keep to the limit, by Erlang's C formula: a request that has to wait
/// waits an exponential time with mean 1 / (c / service - rate), and is then served.
fn erlang_capacity(servers: usize) -> f64 {
    let served = 1.0 / SERVICE_S;
    let late = |per_s: f64| {
        let offered = per_s * SERVICE_S;
        // Erlang's B by its recursion, and from it C.
        let blocked =
            (1..=servers).fold(1.0, |blocked, n| offered * blocked / (n as f64 + offered * blocked));
        let waits = blocked / (1.0 - offered / servers as f64 * (1.0 - blocked));
        let drain = servers as f64 * served - per_s;
        let [slow, fast] = [served, drain].map(|rate| (-rate * LIMIT_S).exp());
        let both = if (drain / served - 1.0).abs() < 1e-9 {
            slow * (1.0 + served * LIMIT_S)
        } else {
            (drain * slow - served * fast) / (drain - served)
        };
        (1.0 - waits) * slow + waits * both
    };
    let (mut low, mut high) = (0.0, servers as f64 * served);
    for _ in 0..40 {
        let middle = (low + high) / 2.0;
        if late(middle) <= 0.01 { low = middle } else { high = middle }
    }
    low
}

/// Runs a search to its end.
fn knee_of(slo: &str, limits: Limits, mut measure: impl FnMut(f64, Duration) -> Point) -> Knee {
    let mut search = Search::new(slo.parse().unwrap(), limits);
    for _ in 0..200 {
        match search.next() {
            Step::Measure { per_s, lasts } => search.measured(measure(per_s, lasts)),
            Step::Done(knee) => return knee,
        }
    }
    panic!("no end after 200 measurements: {search:?}");
}

#[track_caller]
fn assert_found(device: Device, capacity: f64) {
    for seed in 0..3 {
        let mut dice = Dice::new(seed);
        let knee = knee_of(SLO, Limits::default(), |per_s, lasts| device.measure(per_s, lasts, &mut dice));
        let off = knee.low.unwrap_or_default() / capacity - 1.0;
        assert!(
            off.abs() < 0.05,
            "{device:?}, seed {seed}: {knee}, {:+.1} % off {capacity:.0}/s after {} measurements",
            off * 100.0,
            knee.curve.len()
        );
        assert!(matches!(knee.end, End::Found | End::OutOfTime), "{knee}");
    }
}

#[test]
fn the_knee_of_queues_with_random_service_is_found_within_5_percent() {
    for servers in [1, 2, 8] {
        let device = Device::new(servers, true);
        assert!((device.capacity() / erlang_capacity(servers) - 1.0).abs() < 0.03, "the simulation is off");
        assert_found(device, erlang_capacity(servers));
    }
}

#[test]
fn the_knee_of_queues_with_even_service_is_found_within_5_percent() {
    for servers in [1, 2, 8] {
        let device = Device::new(servers, false);
        assert_found(device, device.capacity());
    }
}

#[test]
fn a_stall_now_and_then_moves_no_knee() {
    // Once a minute 20 ms, and what it takes to catch up, are far less than the hundredth that may be late; a
    // measurement with a stall in it misses.
    let device = Device { stall: Some([60.0, 0.02]), ..Device::new(2, false) };
    assert_found(device, Device { stall: None, ..device }.capacity());
}

/// A device that does so much and no more, without any noise.
fn clean(most: f64) -> impl FnMut(f64, Duration) -> Point {
    move |per_s, lasts| {
        let ops = ns(per_s * lasts.as_secs_f64() / 1e9).max(1);
        let latencies_ns = [if per_s <= most { 1_000_000 } else { 1_000_000_000 }; 5];
        Point { asked_per_s: per_s, ops_per_s: per_s.min(most), ops, errors: 0, kept_up: true, latencies_ns }
    }
}

#[test]
fn a_quiet_search_takes_few_measurements_and_brackets_the_knee() {
    for most in [1.5, 99.0, 100.0, 777.0, 123_456.0] {
        let mut measurements = 0;
        let mut device = clean(most);
        let knee = knee_of(SLO, Limits::default(), |per_s, lasts| {
            measurements += 1;
            device(per_s, lasts)
        });
        let (low, high) = (knee.low.unwrap(), knee.high.unwrap());
        assert!(low <= most && most < high && high / low <= BRACKET, "{knee}");
        assert_eq!((knee.end, knee.curve.len()), (End::Found, measurements));
        let doublings = (most / 100.0).log2().abs().ceil();
        // Both ends are measured three times; six halvings make 2 % of a factor of 2.
        assert!(measurements as f64 <= doublings + 13.0, "{measurements} for {most}");
    }
}

#[test]
fn far_from_the_knee_a_look_will_do() {
    let mut lengths = Vec::new();
    let mut device = clean(777.0);
    let knee = knee_of(SLO, Limits::default(), |per_s, lasts| {
        lengths.push(lasts);
        device(per_s, lasts)
    });
    // 100, 200, 400 and 800/s, 566/s and 673/s; then within a fifth, from 734/s on.
    let looks = lengths.iter().take_while(|&&lasts| lasts == Limits::default().measure).count();
    assert_eq!(looks, 6, "{lengths:?}");
    assert!(
        lengths[looks..].iter().all(|&lasts| lasts > Duration::from_secs(10)) && !knee.short,
        "{lengths:?}"
    );
}

const fn rung(per_s: f64, met: u32, missed: u32) -> Rung {
    Rung { per_s, met, missed, not_asked: 0 }
}

#[test]
fn an_end_is_settled_by_three_ahead_or_by_the_majority_of_seven() {
    let settled = |met, missed| rung(1.0, met, missed).is_settled() && rung(1.0, missed, met).is_settled();
    assert!(settled(3, 0) && settled(4, 1) && settled(4, 3));
    assert!(!settled(2, 0) && !settled(3, 1) && !settled(3, 3));
}

#[test]
fn a_rate_with_as_many_hits_as_misses_is_measured_again() {
    let mut search = Search::new(SLO.parse().unwrap(), Limits::default());
    search.rungs = vec![rung(100.0, 1, 0), rung(101.0, 2, 2), rung(104.0, 0, 1)];
    let Step::Measure { per_s, .. } = search.next() else { panic!() };
    assert_eq!(per_s, 101.0);
}

#[test]
fn the_curve_has_every_point_in_order_of_rate() {
    let knee = knee_of(SLO, Limits::default(), clean(777.0));
    assert!(knee.curve.is_sorted_by(|one, other| one.point.asked_per_s <= other.point.asked_per_s));
    assert!(knee.curve.iter().all(|judged| judged.meets == (judged.point.asked_per_s <= 777.0)));
}

#[test]
fn one_spoilt_measurement_decides_nothing() {
    // Whichever of the first fifteen it is.
    for spoilt in 0..15 {
        let (mut device, mut number) = (clean(777.0), 0);
        let knee = knee_of(SLO, Limits::default(), |per_s, lasts| {
            let mut point = device(per_s, lasts);
            if number == spoilt {
                point.latencies_ns = [1_001_000_000 - point.latencies_ns[0]; 5];
            }
            number += 1;
            point
        });
        let low = knee.low.unwrap();
        assert!(low <= 777.0 && 777.0 < low * BRACKET && knee.end == End::Found, "{spoilt}: {knee}");
    }
}

#[test]
fn the_limits_of_a_search_are_said_plainly() {
    let rate = |per_s| Rate::per_second(per_s).unwrap();
    let limits = Limits { least: rate(1e3), most: rate(1e5), ..Limits::default() };
    let said = |most| {
        let knee = knee_of(SLO, limits, clean(most));
        (knee.end, knee.to_string())
    };
    let fast = "100000/s meets p99=10ms, and no higher rate was seen to miss it; that is the highest rate of the \
                search, the knee is above";
    assert_eq!(said(2e6), (End::AboveLimits, fast.to_owned()));
    let slow = "1000/s does not meet p99=10ms, and no lower rate was seen to; that is the lowest rate of the search, \
                the knee is below if there is one";
    assert_eq!(said(0.5), (End::BelowLimits, slow.to_owned()));
}

#[test]
fn a_harness_that_cannot_keep_up_is_not_the_device() {
    let mut device = clean(1e6);
    let knee = knee_of(SLO, Limits::default(), |per_s, lasts| Point {
        kept_up: per_s < 5e3,
        ..device(per_s, lasts)
    });
    assert!(knee.low.is_some_and(|low| (4_900.0..5_000.0).contains(&low)), "{knee}");
    assert_eq!(knee.end, End::Harness);
    assert!(knee.to_string().ends_with("; the harness cannot ask for more, the device may do it"), "{knee}");
}

#[test]
fn a_search_ends_with_its_time() {
    let total = Duration::from_secs(15);
    let mut spent = Duration::ZERO;
    let mut device = clean(777.0);
    let knee = knee_of(SLO, Limits { total, ..Limits::default() }, |per_s, lasts| {
        spent += lasts;
        device(per_s, lasts)
    });
    assert!(spent <= total && knee.end == End::OutOfTime, "{spent:?}, {knee}");
    assert!(knee.low.is_some_and(|low| low <= 777.0) && knee.high.is_some_and(|high| high > 777.0), "{knee}");
    assert!(knee.to_string().contains("; time was used up"), "{knee}");
}

#[test]
fn what_a_measurement_took_longer_is_time_of_the_search_and_a_search_that_is_stopped_tells_what_it_knows() {
    let limits = Limits { total: Duration::from_secs(15), ..Limits::default() };
    let mut search = Search::new(SLO.parse().unwrap(), limits);
    let Step::Measure { per_s, lasts } = search.next() else { panic!() };
    search.measured(clean(777.0)(per_s, lasts));
    let knee = search.stopped();
    assert_eq!((knee.end, knee.low, knee.curve.len()), (End::Stopped, Some(per_s), 1));
    assert!(knee.to_string().ends_with("; the search was stopped before the knee was found"), "{knee}");
    search.took_longer(Duration::from_secs(14));
    assert!(matches!(search.next(), Step::Done(knee) if knee.end == End::OutOfTime));
}

#[test]
fn a_search_without_any_time_measures_once_and_no_longer() {
    let total = Duration::from_millis(1);
    let knee = knee_of(SLO, Limits { total, ..Limits::default() }, |per_s, lasts| {
        assert_eq!(lasts, total);
        clean(777.0)(per_s, lasts)
    });
    assert_eq!((knee.curve.len(), knee.end), (1, End::OutOfTime));
}

#[test]
fn measurements_that_are_too_short_for_the_objective_are_owned_up_to() {
    let short = |slo| knee_of(slo, Limits::default(), clean(777.0)).short;
    assert!(short("p99.9=10ms") && !short("p99=10ms"));
    let said = knee_of("p99.9=10ms", Limits::default(), clean(777.0)).to_string();
    assert!(said.ends_with("; measurements were shorter than the objective needs"), "{said}");
}

#[test]
fn the_first_rate_is_moved_into_the_limits() {
    let rate = |per_s| Rate::per_second(per_s).unwrap();
    let limits = Limits { from: rate(5e6), most: rate(2e3), ..Limits::default() };
    let Step::Measure { per_s, .. } = Search::new(SLO.parse().unwrap(), limits).next() else { panic!() };
    assert_eq!(per_s, 2e3);
}
