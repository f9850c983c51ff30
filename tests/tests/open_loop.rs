//! The load generator charges a stall to everybody whom it delays; a closed loop hides it.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails its test")]

use std::sync::Arc;
use std::time::Duration;

use hsmux_bench::Works;
use hsmux_bench::profile::Profile;
use hsmux_bench::run::{Flow, INTERVAL, Outcome, run};
use hsmux_tests::Hsm;

/// A device that takes 2 ms for an operation, four at a time: 2,000 a second at most.
const DEVICE: &str = "keys=mac:hmac,op_us=2000";
const SESSIONS: usize = 4;
const LENGTH: Duration = Duration::from_secs(10);

/// In the middle it does nothing for so long.
const STALL: Duration = Duration::from_secs(1);

/// Runs a load, with a stall in its middle.
fn stalled(demand: &str) -> Outcome {
    let hsm = Hsm::new(1, DEVICE);
    let engine = Arc::new(hsm.builder().sessions(SESSIONS).build().unwrap());
    let text = format!("name = 'a'\n{demand}\n[[operation]]\nop = 'hmac-sha256'\n");
    let profile = Profile::parse(&text).unwrap();
    let works = Arc::new(Works::new(&engine, &profile, |_, _| Some("mac".to_owned())).unwrap());
    let mut seconds = 0;
    let outcome = run(&engine, profile, &works, |ended| {
        seconds += u32::from(ended.is_some());
        if ended.is_some() && INTERVAL * seconds == LENGTH / 2 {
            hsm.sim.configure(&format!("stall={}", STALL.as_millis())).unwrap();
        }
        Flow::Continue
    });
    outcome.unwrap()
}

#[test]
fn a_stall_is_charged_to_all_that_it_delays_and_a_closed_loop_hides_it() {
    let phase = |demand: &str| format!("[[phase]]\nname = 'steady'\nfor = '10s'\n{demand}");
    let open = stalled(&format!("pace = 'constant'\ncallers = 4000\n{}", phase("rate = '1000/s'")));
    let all = open.all.of(|_, _| true);
    assert_eq!((all.ops, all.errors), (10_000, 0));
    // A request that is due a time t after the stall began waits for its rest, and for those before it, which half of the
    // device's capacity brings: STALL - t + t / 2. Of ten seconds, one request in a thousand is due in the first ten
    // milliseconds of it, and one in a hundred in the first hundred.
    for (quantile, after_ms) in [(0.999, 10), (0.99, 100)] {
        let analytic = (STALL - Duration::from_millis(after_ms) / 2).as_secs_f64();
        let measured = all.latency.value_at_quantile(quantile) as f64 / 1e9;
        println!("open loop: {quantile} of requests within {measured:.4} s, analytic {analytic:.4} s");
        assert!((measured / analytic - 1.0).abs() < 0.02, "{quantile}: {measured} s, not {analytic} s");
    }

    let closed = stalled(&phase("callers = 4"));
    let all = closed.all.of(|_, _| true);
    let hidden = all.latency.value_at_quantile(0.999) as f64 / 1e9;
    println!("closed loop: 0.999 of requests within {hidden:.4} s");
    assert!(hidden < 0.1 && all.latency.max() > 900_000_000, "{hidden} s, at most {} ns", all.latency.max());
}
