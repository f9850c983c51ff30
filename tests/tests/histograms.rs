//! Histograms tell the truth: they hold each operation once, and times between what the device took and what the caller
//! saw.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails its test")]

use std::time::Duration;

use hsmux::{Hmac, OperationKind, Stage};
use hsmux_tests::figures::Times;
use hsmux_tests::{Hsm, LONG};
use quanta::Instant;

const OPERATIONS: u64 = 1_000;
/// What the device takes, and what it takes longer for one operation in a hundred.
const USUAL: Duration = Duration::from_micros(300);
const LONGER: Duration = Duration::from_millis(10);

/// Two significant digits: a value is off by less than one part in a hundred.
const DIGITS: f64 = 0.01;

/// Makes the operations, each by one caller after the other; what the caller saw and what the engine has recorded of the time
/// on the token, by quantile.
fn measured(deadline: Option<Duration>) -> Vec<(f64, Duration, Duration)> {
    let hsm = Hsm::new(1, &format!("op_us={}", USUAL.as_micros()));
    let engine = hsm.builder().sessions(1).build().unwrap();
    let key = engine.key("hmac").unwrap();
    let slow = (1..=OPERATIONS).step_by(100).map(|call| format!("C_Sign:{call}=slow-{}", LONGER.as_micros()));
    hsm.sim.configure(&format!("fault={}", slow.collect::<Vec<_>>().join(";"))).unwrap();
    let mut seen = Times::default();
    for number in 0..OPERATIONS {
        let started = Instant::now();
        key.sign(Hmac::SHA256, number.to_be_bytes().to_vec()).deadline(deadline).wait().unwrap();
        seen.push(started.elapsed());
    }
    let snapshot = engine.snapshot();
    let signed = snapshot.tokens[0].operations.iter().find(|of| of.kind == OperationKind::SignHmac).unwrap();
    let recorded = signed.stage(Stage::Token);
    assert_eq!((signed.count, recorded.len()), (OPERATIONS, OPERATIONS), "each operation once");
    assert_eq!(hsm.sim.calls_of("C_Sign"), OPERATIONS);
    let quantile = |part: f64| {
        let nanoseconds = recorded.value_at_quantile(part);
        (part, Duration::from_nanos(nanoseconds), seen.quantile(part))
    };
    [0.01, 0.5, 0.9, 0.989, 0.995, 0.999, 1.0].map(quantile).to_vec()
}

#[test]
fn times_on_the_token_lie_between_those_of_the_device_and_those_of_the_caller() {
    for deadline in [None, Some(LONG)] {
        for (part, recorded, seen) in measured(deadline) {
            // One in a hundred takes longer, and no other does.
            let device = if part > 0.99 { USUAL + LONGER } else { USUAL };
            let off = recorded.mul_f64(DIGITS);
            assert!(recorded + off >= device, "{part}: {recorded:?}, and the device takes {device:?}");
            assert!(recorded <= seen + off, "{part}: {recorded:?}, and the caller saw {seen:?}");
        }
    }
}
