//! The controller on simulated devices, in virtual time.

use super::device::{Device, MS, US, World};
use super::*;

const SECOND: u64 = 1_000 * MS;

/// Calls take up to 5 % longer than said.
const JITTER: f64 = 1.025;

fn decided(world: &World, what: Adjustment) -> u64 {
    world.controller.decisions().find(|(other, _)| *other == what).unwrap().1
}

#[test]
fn a_device_with_64_cores_is_filled_within_a_second_of_a_cold_start() {
    let mut world = World::new(Device { cores: 64, ..Device::default() }, 1, 64, 2);
    let (_, most) = world.range(SECOND);
    assert_eq!(most, 64);
    let rate = world.run(4 * SECOND);
    assert!(rate >= 0.97 * 64_000.0 / JITTER, "{rate}");
}

#[test]
fn where_the_ceiling_is_higher_than_the_device_it_stops_near_the_cores() {
    for cores in [3, 10, 24, 64] {
        let mut world = World::new(Device { cores, ..Device::default() }, 1, 128, 2);
        world.run(3 * SECOND);
        let (rate, in_use) = (world.run(2 * SECOND), world.controller.in_use());
        assert!((cores..=cores * 5 / 4 + 1).contains(&in_use), "{cores} cores: {in_use} in use");
        assert!(rate >= 0.95 * cores as f64 * 1_000.0 / JITTER, "{cores} cores: {rate}");
    }
}

#[test]
fn behind_a_mutex_one_session_stays_in_use_wherever_it_began() {
    for start in [1, 2, 8, 32] {
        let mut world = World::new(Device { kinds: vec![(0, 20 * US)], ..Device::default() }, 1, 64, start);
        world.run(2 * SECOND);
        assert_eq!(world.controller.in_use(), 1, "from {start}");
    }
}

#[test]
fn two_tokens_behind_one_mutex_keep_the_one_session_that_each_needs() {
    // Of one scope: its floor is a session each, and its sessions are counted together.
    let mut world = World::new(Device { kinds: vec![(0, 20 * US)], ..Device::default() }, 2, 128, 4);
    world.run(2 * SECOND);
    assert_eq!(world.controller.in_use(), 2);
}

#[test]
fn calls_that_slow_each_other_down_are_not_piled_up() {
    // Each of n calls takes 1 + n/10 times as long: work is n / (1 + n/10), which never gets beyond 10, and of which
    // the last session brings a quarter of its share at 30.
    let device = Device { cores: 1_000, doubles_at: Some(10), ..Device::default() };
    let mut world = World::new(device, 1, 256, 2);
    world.run(5 * SECOND);
    let (least, most) = world.range(5 * SECOND);
    assert!(least >= 10 && most <= 75, "{least} to {most}");
    let in_use = world.controller.in_use();
    assert!((16..=50).contains(&in_use), "{in_use}");
}

#[test]
fn a_device_that_throttles_is_given_way_to_and_still_used() {
    let device = Device { cores: 1_000, throttles_at: Some(20), ..Device::default() };
    let mut world = World::new(device, 1, 64, 2);
    world.run(3 * SECOND);
    assert!(decided(&world, Adjustment::PushedBack) > 0);
    let (done, failed) = (world.done, world.failed);
    world.run(10 * SECOND);
    let (done, failed) = (world.done - done, world.failed - failed);
    assert!(failed * 25 < done, "{failed} failed beside {done}");
    assert!(done as f64 >= 0.7 * 20.0 * 10_000.0 / JITTER, "{done} of 200000");
}

#[test]
fn errors_that_have_nothing_to_do_with_the_number_of_sessions_do_not_take_them_all() {
    let mut world = World::new(Device { cores: 16, ..Device::default() }, 1, 16, 16);
    world.run(SECOND);
    // Whatever is tried, one call in ten fails.
    world.change(|device| device.fails_each = Some(10));
    let (least, _) = world.range(5 * SECOND);
    assert!(least >= 6, "{least}");
    assert!(world.controller.in_use() >= 12, "{}", world.controller.in_use());
}

#[test]
fn capacity_that_grows_half_way_is_found_and_used() {
    let mut world = World::new(Device { cores: 8, ..Device::default() }, 1, 64, 2);
    world.run(20 * SECOND);
    assert!(world.controller.in_use() <= 11, "{}", world.controller.in_use());
    world.change(|device| device.cores = 40);
    world.run(HOLD_MAX_NS + 2 * SECOND);
    assert!(world.controller.in_use() >= 40, "{}", world.controller.in_use());
}

#[test]
fn capacity_that_is_lost_half_way_is_given_up_soon() {
    let mut world = World::new(Device { cores: 40, ..Device::default() }, 1, 64, 2);
    world.run(5 * SECOND);
    assert!(world.controller.in_use() >= 40, "{}", world.controller.in_use());
    world.change(|device| device.cores = 8);
    world.run(5 * SECOND);
    assert!((8..=12).contains(&world.controller.in_use()), "{}", world.controller.in_use());
}

#[test]
fn a_noisy_neighbour_takes_its_share_and_no_more() {
    let mut world = World::new(Device { cores: 32, callers: 128, ..Device::default() }, 1, 64, 2);
    world.run(2 * SECOND);
    world.change(|device| device.others = 40);
    world.run(SECOND);
    let (least, most) = world.range(8 * SECOND);
    assert!(least >= 12 && most <= 64, "{least} to {most}");
    world.change(|device| device.others = 0);
    world.run(HOLD_MAX_NS);
    let (_, most) = world.range(2 * SECOND);
    // A step up from there brings less than a quarter of its share.
    assert!(most >= 28, "{most}");
    assert!(world.run(SECOND) >= 0.85 * 32_000.0 / JITTER);
}

#[test]
fn a_mix_of_cheap_and_dear_operations_is_no_change_of_the_device() {
    let kinds = vec![(0, 6 * US), (1, 4 * MS), (0, 6 * US), (2, 500 * US)];
    let mut world = World::new(Device { cores: 2, callers: 64, kinds, ..Device::default() }, 1, 64, 1);
    world.run(5 * SECOND);
    assert!((2..=3).contains(&world.controller.in_use()), "{}", world.controller.in_use());
    // From all dear to all cheap, and back: a thousand times more of them, and still two sessions' work.
    for kinds in [vec![(1, 4 * MS)], vec![(0, 6 * US)], vec![(1, 4 * MS)]] {
        world.change(|device| device.kinds = kinds);
        let (least, most) = world.range(2 * SECOND);
        assert!(least >= 1 && most <= 4, "{least} to {most}");
        assert!((2..=3).contains(&world.controller.in_use()), "{}", world.controller.in_use());
    }
}

#[test]
fn without_work_that_waits_nothing_grows() {
    let mut world = World::new(Device { cores: 64, callers: 4, ..Device::default() }, 1, 64, 4);
    let (_, most) = world.range(3 * SECOND);
    assert_eq!(most, 4);
    let mut idle = World::new(Device { callers: 0, ..Device::default() }, 1, 64, 4);
    idle.run(3 * SECOND);
    assert_eq!((idle.controller.in_use(), idle.done), (4, 0));
}

#[test]
fn a_trial_ends_with_the_load() {
    let mut world = World::new(Device { cores: 64, ..Device::default() }, 1, 128, 64);
    let trying = (0..3_000).any(|_| {
        world.run(MS);
        world.controller.in_use() > 64
    });
    assert!(trying);
    world.change(|device| device.callers = 0);
    world.run(SECOND);
    assert_eq!((world.controller.in_use(), decided(&world, Adjustment::Abandoned)), (64, 1));
}

#[test]
fn fewer_callers_than_cores_get_a_session_each() {
    let mut world = World::new(Device { cores: 64, callers: 30, ..Device::default() }, 1, 128, 2);
    world.run(2 * SECOND);
    assert!((24..=64).contains(&world.controller.in_use()), "{}", world.controller.in_use());
    assert!(world.run(SECOND) >= 0.85 * 30_000.0 / JITTER);
}

#[test]
fn sessions_that_the_token_does_not_give_are_not_waited_for() {
    let mut world = World::new(Device { cores: 64, ..Device::default() }, 1, 64, 2);
    world.run(50 * MS);
    assert!(world.controller.in_use() < 64);
    // It is found out while sessions for a trial are opened.
    world.change(|device| device.most = 3);
    world.run(MS * 200);
    let (_, most) = world.range(2 * SECOND);
    assert_eq!(most, 3);
    assert_eq!(decided(&world, Adjustment::Refused), 1, "no more are asked for");
}

#[test]
fn it_stays_within_its_bounds_and_a_fixed_number_is_fixed() {
    let mut world = World::new(Device { cores: 64, ..Device::default() }, 4, 12, 1);
    assert_eq!((world.controller.in_use(), world.controller.is_fixed()), (4, false));
    let (least, most) = world.range(2 * SECOND);
    assert_eq!((least, most), (4, 12));
    assert!(Controller::new(3, 3, 8).is_fixed());
    assert_eq!(Controller::new(3, 3, 8).in_use(), 3);
    assert_eq!(Controller::new(0, 0, 0).bounds(), (1, 1));
}
