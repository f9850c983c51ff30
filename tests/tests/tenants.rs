//! One tenant asks for ten times its share: the others are refused nothing, wait little longer and get what they ask for.
//!
//! `HSMUX_FAILURES=long` is the form with the bounds of the promise.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails its test")]

use std::time::Duration;

use hsmux::{ErrorKind, Hmac, Key};
use hsmux_tests::figures::{Times, by_form};
use hsmux_tests::{Hsm, LONG, wait_idle};
use tokio::time::Instant;

const TENANTS: usize = 10;
/// The number of the one that floods; the others are numbered from 1.
const FLOODS: usize = TENANTS;
const TOKENS: usize = 2;
const SESSIONS: usize = 4;
const OPERATION: Duration = Duration::from_millis(50);
/// Part of what the tokens can do that all tenants ask for together while each keeps to its share.
const LOAD: f64 = 0.7;
const FLOOD: f64 = 10.0;
/// So few in the short form that a flood of seconds fills its part.
fn requests_max() -> usize {
    by_form(60, 200)
}

/// What became of the requests of one tenant.
#[derive(Debug, Default)]
struct Tenant {
    times: Times,
    refused: u64,
}

/// Operations a second that the tokens can do.
fn capacity() -> f64 {
    (TOKENS * SESSIONS) as f64 / OPERATION.as_secs_f64()
}

fn share() -> f64 {
    LOAD * capacity() / TENANTS as f64
}

/// Asks once, whatever becomes of the others. How long it took; none if it was refused.
async fn ask(key: Key, tenant: usize) -> Option<Duration> {
    let started = Instant::now();
    let request = key.sign(Hmac::SHA256, b"message").tenant(tenant as u64).deadline_in(LONG);
    match request.await {
        Ok(_) => Some(started.elapsed()),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Overloaded, "{error}");
            assert!(error.to_string().contains("tenant"), "{error}");
            None
        }
    }
}

/// One tenant, which asks so many times a second by the clock. Ends when all is answered.
async fn tenant(key: &Key, number: usize, rate: f64, time: Duration) -> Tenant {
    let begin = Instant::now();
    let phase = number as f64 / TENANTS as f64;
    let due = |count: u32| begin + Duration::from_secs_f64((f64::from(count) + phase) / rate);
    let mut asked = Vec::new();
    for due in (0..).map(due).take_while(|&due| due < begin + time) {
        // The load is by the clock: nothing is waited for here but the moment of the next request.
        tokio::time::sleep_until(due).await;
        asked.push(tokio::spawn(ask(key.clone(), number)));
    }
    let mut tenant = Tenant::default();
    for asked in asked {
        match asked.await.unwrap() {
            Some(took) => tenant.times.push(took),
            None => tenant.refused += 1,
        }
    }
    tenant
}

/// Each tenant asks for its share; the last one for so many times that.
async fn load(key: &Key, flood: f64, time: Duration) -> Vec<Tenant> {
    let rate = |number| share() * if number == FLOODS { flood } else { 1.0 };
    let tenants = (1..=TENANTS).map(|number| tenant(key, number, rate(number), time));
    futures::future::join_all(tenants).await
}

/// The index of Jain, Chiu and Hawe ("A Quantitative Measure of Fairness", 1984): 1 where all get alike.
fn jain(parts: &[f64]) -> f64 {
    let (sum, squares) = (parts.iter().sum::<f64>(), parts.iter().map(|part| part * part).sum::<f64>());
    sum * sum / (parts.len() as f64 * squares)
}

/// What each tenant was served, of what it asked for or, if that was more, of what the others leave.
fn parts(tenants: &[Tenant], took: Duration) -> Vec<f64> {
    let left = capacity() - share() * (TENANTS - 1) as f64;
    let fair = |tenant: usize| if tenant == FLOODS { left } else { share() };
    let served = tenants.iter().map(|tenant| tenant.times.len() as f64 / took.as_secs_f64());
    served.zip(1..).map(|(served, tenant)| served / fair(tenant)).collect()
}

#[test]
fn a_tenant_at_ten_times_its_share_costs_the_others_no_request_and_little_time() {
    let (rounds, time) = (by_form(1, 3), by_form(Duration::from_millis(1_800), Duration::from_secs(20)));
    let config = format!("op_us={},cores={SESSIONS}", OPERATION.as_micros());
    let hsm = Hsm::new(TOKENS, &config);
    let engine = hsm.builder().sessions(SESSIONS).requests_max(requests_max()).build().unwrap();
    let key = engine.key("hmac").unwrap();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
    let (mut alone, mut beside, mut fairness, mut refused) =
        (Times::default(), Times::default(), Vec::new(), 0);
    for _ in 0..rounds {
        let calm = runtime.block_on(load(&key, 1.0, time));
        assert!(calm.iter().all(|tenant| tenant.refused == 0), "refused without a flood");
        alone.extend(calm.into_iter().take(FLOODS - 1).flat_map(|tenant| tenant.times));
        let flooded = runtime.block_on(load(&key, FLOOD, time));
        fairness.push(jain(&parts(&flooded, time)));
        refused += flooded[FLOODS - 1].refused;
        for tenant in flooded.into_iter().take(FLOODS - 1) {
            assert_eq!(tenant.refused, 0, "another than the one that floods is refused");
            beside.extend(tenant.times);
        }
    }
    println!("the others without a flood: {alone}");
    println!("the others beside one at {FLOOD} times its share: {beside}");
    println!("of which {refused} were refused; Jain's index by round {fairness:.4?}");
    let slack = by_form(Duration::from_millis(150), Duration::ZERO);
    assert!(beside.quantile(0.99) <= 2 * alone.quantile(0.99) + slack, "{beside}, {alone}");
    let least = by_form(0.85, 0.95);
    assert!(fairness.iter().all(|&index| index >= least), "{fairness:?}");
    let snapshot = engine.snapshot();
    assert!(refused > 0, "the flood was not one");
    assert_eq!((snapshot.refused, snapshot.refused_tenants), (refused, refused));
    wait_idle(&engine);
    hsm.assert_sound();
    assert_eq!(engine.drain(LONG), 0);
}
