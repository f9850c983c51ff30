use proptest::prelude::*;

use super::*;
use crate::case::Op;

const DRAWS: u32 = 100_000;

fn operation(op: Op, weight: u32) -> Operation {
    let case = crate::case::Case { op, size: op.default_size() };
    Operation { weight, ..Operation::of(case) }
}

/// How often each index comes up.
fn shares(len: usize, mut draw: impl FnMut(&mut Dice) -> usize) -> Vec<f64> {
    let (mut counts, mut dice) = (vec![0_u32; len], Dice::new(13));
    (0..DRAWS).for_each(|_| counts[draw(&mut dice)] += 1);
    counts.into_iter().map(|count| f64::from(count) / f64::from(DRAWS)).collect()
}

/// Within four standard errors of a share of so many draws.
fn assert_shares(got: &[f64], expected: &[f64]) {
    assert_eq!(got.len(), expected.len());
    for (index, (got, expected)) in got.iter().zip(expected).enumerate() {
        let error = (expected * (1.0 - expected) / f64::from(DRAWS)).sqrt();
        assert!((got - expected).abs() <= 4.0 * error, "{index}: {got}, expected {expected}");
    }
}

fn sizes(size: Size, op: Op) -> Vec<usize> {
    let mix = Mix::new(&[Operation { size, ..operation(op, 1) }]);
    let mut dice = Dice::new(17);
    (0..DRAWS).map(|_| mix.draw(&mut dice).size).collect()
}

#[test]
fn operations_come_up_by_weight_and_those_of_none_never() {
    let mix = Mix::new(&[0, 70, 25, 0, 5].map(|weight| operation(Op::AesGcm, weight)));
    assert_shares(&shares(5, |dice| mix.draw(dice).operation), &[0.0, 0.7, 0.25, 0.0, 0.05]);
}

#[test]
fn ranks_follow_zipfs_law() {
    let ranks = Ranks::new(Spread { count: 4, zipf: 1.0 });
    assert_shares(&shares(4, |dice| ranks.draw(dice)), &[12.0, 6.0, 4.0, 3.0].map(|part| part / 25.0));
    let squares = Ranks::new(Spread { count: 3, zipf: 2.0 });
    assert_shares(&shares(3, |dice| squares.draw(dice)), &[36.0, 9.0, 4.0].map(|part| part / 49.0));
    let even = Ranks::new(Spread { count: 5, zipf: 0.0 });
    assert_shares(&shares(5, |dice| even.draw(dice)), &[0.2; 5]);
}

#[test]
fn tenants_count_from_one_for_nobody_is_zero() {
    let tenant = |tenant| Mix::new(&[Operation { tenant, ..operation(Op::AesGcm, 1) }]);
    let many = tenant(Tenant::Many(Spread { count: 2, zipf: 1.0 }));
    let index = |dice: &mut Dice| usize::try_from(many.draw(dice).tenant).unwrap();
    assert_shares(&shares(3, index), &[0.0, 2.0 / 3.0, 1.0 / 3.0]);
    assert_eq!(tenant(Tenant::One(9)).draw(&mut Dice::new(1)).tenant, 9);
}

#[test]
fn keys_spread_over_those_of_the_operation() {
    let mix = Mix::new(&[Operation { keys: Spread { count: 3, zipf: 0.0 }, ..operation(Op::AesGcm, 1) }]);
    assert_shares(&shares(3, |dice| mix.draw(dice).key), &[1.0 / 3.0; 3]);
}

#[test]
fn sizes_of_a_choice_come_up_by_weight() {
    let drawn = sizes(Size::Choice(vec![(64, 90), (1024, 10), (5, 0)]), Op::HmacSha256);
    let share = |size| drawn.iter().filter(|&&drawn| drawn == size).count() as f64 / f64::from(DRAWS);
    assert_shares(&[share(64), share(1024), share(5)], &[0.9, 0.1, 0.0]);
}

#[test]
fn uniform_sizes_reach_both_ends_alike() {
    let drawn = sizes(Size::Uniform(16, 64), Op::AesEcb);
    let share = |size| drawn.iter().filter(|&&drawn| drawn == size).count() as f64 / f64::from(DRAWS);
    assert_shares(&[16, 32, 48, 64].map(share), &[0.25; 4]);
}

#[test]
fn logarithmic_sizes_have_their_median_deviation_and_bound() {
    let drawn = sizes(Size::LogNormal { median: 1024, sigma: 1.0, max: 65_536 }, Op::AesGcm);
    let below = |limit: f64| drawn.iter().filter(|&&size| size as f64 <= limit).count() as f64 / 100_000.0;
    // A deviation to each side of the median are 68.27 %; beyond 64 medians are 16 in a million.
    assert!((below(1024.0) - 0.5).abs() < 0.01, "{}", below(1024.0));
    let within = below(1024.0 * 1.0_f64.exp()) - below(1024.0 * (-1.0_f64).exp());
    assert!((within - 0.6827).abs() < 0.01, "{within}");
    assert!(drawn.iter().all(|size| (1..=65_536).contains(size)));
    let cut = sizes(Size::LogNormal { median: 1024, sigma: 1.0, max: 1024 }, Op::AesGcm);
    assert!(cut.iter().filter(|&&size| size == 1024).count() > 49_000);
}

#[test]
fn the_same_dice_draw_the_same_work() {
    let mut operation = operation(Op::AesGcm, 1);
    operation.size = Size::Uniform(1, 1_000_000);
    operation.keys = Spread { count: 4096, zipf: 0.3 };
    let mix = Mix::new(&[operation]);
    let draws = |seed| {
        let mut dice = Dice::new(seed);
        (0..100).map(|_| mix.draw(&mut dice)).collect::<Vec<_>>()
    };
    assert_eq!(draws(3), draws(3));
    assert_ne!(draws(3), draws(4));
}

#[test]
fn a_mix_of_nothing_draws_nothing() {
    let nothing = Draw { operation: 0, size: 0, key: 0, tenant: 0 };
    assert_eq!(Mix::new(&[]).draw(&mut Dice::new(1)), nothing);
}

fn any_size() -> impl Strategy<Value = Size> {
    let bytes = 1_usize..300;
    prop_oneof![
        bytes.clone().prop_map(Size::Fixed),
        (bytes.clone(), bytes.clone()).prop_map(|(min, max)| Size::Uniform(min, max)),
        prop::collection::vec((bytes.clone(), 0_u32..3), 1..4).prop_map(Size::Choice),
        (bytes.clone(), 0.0..5.0_f64, bytes).prop_map(|(median, sigma, max)| Size::LogNormal {
            median,
            sigma,
            max
        }),
    ]
}

proptest! {
    #[test]
    fn sizes_that_are_accepted_draw_only_what_the_operation_takes(
        op in prop::sample::select(Op::ALL.to_vec()),
        size in any_size(),
        blocks: bool,
        seed: u64,
    ) {
        let block = if blocks { op.block() } else { 1 };
        let size = match size {
            Size::Fixed(size) => Size::Fixed(size * block),
            Size::Uniform(min, max) => Size::Uniform(min * block, max * block),
            Size::Choice(sizes) => Size::Choice(sizes.into_iter().map(|(size, w)| (size * block, w)).collect()),
            Size::LogNormal { median, sigma, max } => Size::LogNormal { median, sigma, max: max * block },
        };
        if size.check(op).is_ok() {
            let mix = Mix::new(&[Operation { size, ..operation(op, 1) }]);
            let mut dice = Dice::new(seed);
            for _ in 0..100 {
                let drawn = mix.draw(&mut dice).size;
                prop_assert!(op.check_size(drawn).is_ok(), "{drawn}");
            }
        }
    }
}
