//! Profiles of every shape, written and read back; and texts that are none.

use hsmux::Priority;
use proptest::prelude::*;

use super::*;

fn name() -> impl Strategy<Value = String> {
    "[\\PC&&[^\\p{Cc}]]{1,64}"
}

fn deadline() -> impl Strategy<Value = Deadline> {
    let limit = (1..u64::from(u32::MAX)).prop_map(|ns| Deadline::In(Duration::from_nanos(ns * 1_001)));
    prop_oneof![Just(Deadline::Default), Just(Deadline::None), limit]
}

fn spread(max: u32) -> impl Strategy<Value = Spread> {
    let zipf = prop_oneof![Just(0.0), 0.0..5.0_f64, Just(5.0)];
    (1..=max, zipf).prop_map(|(count, zipf)| Spread { count, zipf })
}

fn size() -> impl Strategy<Value = Size> {
    let bytes = || (1_usize..=13).prop_map(|blocks| blocks * 16);
    prop_oneof![
        bytes().prop_map(Size::Fixed),
        (bytes(), bytes()).prop_map(|(one, other)| Size::Uniform(one.min(other), one.max(other))),
        prop::collection::vec((bytes(), 1..u32::MAX), 1..4).prop_map(Size::Choice),
        (bytes(), 0.0..5.0_f64, bytes()).prop_map(|(one, sigma, other)| Size::LogNormal {
            median: one.min(other),
            sigma,
            max: one.max(other)
        }),
    ]
}

fn operation() -> impl Strategy<Value = Operation> {
    let tenant =
        prop_oneof![(0..=i64::MAX as u64).prop_map(Tenant::One), spread(100_000).prop_map(Tenant::Many)];
    let priority = prop::sample::select(vec![Priority::High, Priority::Normal, Priority::Low]);
    let op = prop::sample::select(Op::ALL.to_vec());
    let fields = (op, name(), 1..=u32::MAX, size(), spread(1024), tenant, priority, deadline());
    fields.prop_map(|(op, name, weight, size, keys, tenant, priority, deadline)| {
        let keys = if op.key_spec().is_some() { keys } else { Spread::ONE };
        Operation { name, op, weight, size, keys, tenant, priority, deadline }
    })
}

fn phase(open: bool) -> impl Strategy<Value = Phase> {
    let rate = || (0.001..1e7_f64).prop_map(|per_s| Rate::per_second(per_s).unwrap());
    let demand = if open {
        prop_oneof![
            rate().prop_map(Demand::Rate),
            (rate(), rate()).prop_map(|(from, to)| Demand::Ramp(from, to))
        ]
        .boxed()
    } else {
        prop::option::of(1_u32..=4096).prop_map(Demand::Callers).boxed()
    };
    let length = (1_000_000..7_200_000_000_000_u64).prop_map(Duration::from_nanos);
    (name(), length, demand, any::<bool>()).prop_map(|(name, length, demand, counted)| Phase {
        name,
        length,
        demand,
        counted,
    })
}

fn profile() -> impl Strategy<Value = Profile> {
    let pace = prop::option::of(prop::sample::select(Pace::ALL.to_vec()));
    let api = prop::sample::select(ProfileApi::ALL.to_vec());
    let head = (name(), "(\\PC|\n|\t|\"|\\\\){0,200}", api, 1_u32..=4096, deadline(), 0..=i64::MAX as u64);
    (pace, head).prop_flat_map(|(pace, (name, description, api, callers, deadline, seed))| {
        let phases = prop::collection::vec(phase(pace.is_some()), 1..5);
        (phases, prop::collection::vec(operation(), 1..5)).prop_map(move |(mut phases, mut operations)| {
            phases[0].counted = true;
            phases
                .iter_mut()
                .enumerate()
                .for_each(|(n, phase)| phase.name = format!("{n}{}", cut(&phase.name)));
            let named = operations.iter_mut().enumerate();
            named.for_each(|(n, operation)| operation.name = format!("{n}{}", cut(&operation.name)));
            let (name, description) = (name.clone(), description.clone());
            Profile { name, description, pace, api, callers, deadline, seed, phases, operations }
        })
    })
}

/// Room for a number that no two names share.
fn cut(name: &str) -> String {
    name.chars().take(60).collect()
}

proptest! {
    #[test]
    fn a_profile_is_read_back_as_it_is_written(profile in profile()) {
        let text = profile.to_toml();
        match Profile::parse(&text) {
            Ok(read) => prop_assert_eq!(read, profile),
            Err(error) => prop_assert!(false, "{error}: {text}"),
        }
    }

    #[test]
    fn a_scaled_profile_lasts_to_the_nanosecond_as_long_as_is_asked(profile in profile(), ns in 1..40_000_000_000_000_u64) {
        let time = Duration::from_nanos(ns);
        if let Ok(scaled) = profile.for_time(time) {
            prop_assert_eq!(scaled.length(), time);
        }
    }

    #[test]
    fn no_text_makes_the_parser_panic(
        text in "\\PC*|((name|pace|phase|operation|for|rate|op|size|keys) = |\\[{1,2}|\\]{1,2}|\"|\n|\\{|\\}|[0-9a-z:])*"
    ) {
        let _parsed = Profile::parse(&text);
    }
}
