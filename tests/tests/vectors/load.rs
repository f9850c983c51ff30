//! Every operation at once from many callers, blocking and async, on two tokens: every output is checked by software.
//!
//! The mixed load of `hsmux-bench` serves the demonstration, with five keys that any HSM may hold; this one takes the
//! cases of `independent.rs`, with keys whose material software knows, and key agreement and wrapping beside them.
//! `HSMUX_SOAK_SECONDS` says how long: 3 without it, as many as asked for in `scripts/soak.sh`.

use std::time::Duration;

use hsmux::Engine;
use hsmux_tests::{LONG, eventually, wait_idle};
use quanta::Instant;

use crate::independent::{Case, cases, engine_on, random_bytes};
use crate::support::{CALLERS, Seen, Way};

/// What one caller has seen.
struct Told {
    counts: Vec<u64>,
    wrong: Vec<String>,
}

/// Messages are mostly short, as they are; one in a hundred takes long.
const SHORT: usize = 300;
const LONG_MESSAGE: usize = 20_000;

fn call(caller: usize, cases: &[Case], until: Instant) -> Told {
    let mut told = Told { counts: vec![0; cases.len()], wrong: Vec::new() };
    let mut turn = caller;
    while Instant::now() < until {
        let dice = random_bytes(u64::try_from(turn * CALLERS + caller).unwrap(), 4);
        let number = usize::from(u16::from_be_bytes([dice[0], dice[1]]));
        let most = if number.is_multiple_of(100) { LONG_MESSAGE } else { SHORT };
        // Who asked and when stands in front: an answer that went to another caller is found out.
        let seed = u64::try_from(caller << 32 | turn).unwrap();
        let message = [&seed.to_be_bytes()[..], &random_bytes(seed, number % most)].concat();
        let (place, way) = (turn % cases.len(), Way::ALL[caller % Way::ALL.len()]);
        told.counts[place] += 1;
        match (cases[place].check)(&message, way) {
            Ok(Seen::Right) => {}
            found => told.wrong.push(format!("{} of {} bytes: {found:?}", cases[place].name, message.len())),
        }
        turn += 1;
    }
    told
}

fn objects(engine: &Engine) -> (u64, u64) {
    let calls = engine.snapshot().calls;
    let of = |function| calls.get(function).copied().unwrap_or(0);
    // The first key of a kind is tested with one that is generated and destroyed.
    let made = of("C_DeriveKey") + of("C_UnwrapKey") + of("C_GenerateKey");
    (made, of("C_DestroyObject"))
}

#[test]
fn sixty_four_callers_of_every_operation_get_nothing_wrong() {
    let Some(engine) = engine_on(2) else { return };
    let seconds = std::env::var("HSMUX_SOAK_SECONDS").map_or(3, |text| text.parse().unwrap());
    let cases = cases(&engine);
    // What was tried as a copy and did not pay is destroyed by now.
    let (made, destroyed) = objects(&engine);
    let until = Instant::now() + Duration::from_secs(seconds);
    let told: Vec<Told> = std::thread::scope(|scope| {
        let cases = &cases;
        let callers = (0..CALLERS).map(|caller| scope.spawn(move || call(caller, cases, until)));
        let callers: Vec<_> = callers.collect();
        callers.into_iter().map(|caller| caller.join().unwrap()).collect()
    });
    let wrong: Vec<&String> = told.iter().flat_map(|told| &told.wrong).collect();
    assert!(wrong.is_empty(), "{} wrong: {:?}", wrong.len(), &wrong[..wrong.len().min(5)]);
    let mut total = 0;
    for (place, case) in cases.iter().enumerate() {
        let count: u64 = told.iter().map(|told| told.counts[place]).sum();
        println!("  {:40} {count:8}", case.name);
        assert!(count > 0, "{} never came up", case.name);
        total += count;
    }
    println!("{seconds} s, {CALLERS} callers, two tokens: {total} checks, 0 wrong");
    assert_nothing_left(&engine, destroyed - made);
    drop(cases);
    assert_eq!(engine.drain(LONG), 0);
}

/// No error on a token, nothing in flight, both tokens at work, and every derived or unwrapped key gone.
fn assert_nothing_left(engine: &Engine, destroyed_before: u64) {
    wait_idle(engine);
    let snapshot = engine.snapshot();
    let operations = snapshot.tokens.iter().flat_map(|token| &token.operations);
    let errors: Vec<_> = operations.flat_map(|operation| &operation.errors).collect();
    assert!(errors.is_empty(), "errors on the tokens: {errors:?}");
    assert!(snapshot.tokens.iter().all(|token| !token.operations.is_empty()), "one token did nothing");
    assert_eq!((snapshot.refused, snapshot.expired, snapshot.hung, snapshot.panics), (0, 0, 0, 0));
    eventually("every session key is destroyed", || {
        let (made, destroyed) = objects(engine);
        made + destroyed_before == destroyed
    });
}
