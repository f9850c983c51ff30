//! How long calls take by rules.

use std::time::Duration;

use crate::place::{Place, now};
use cryptoki_sys as sys;

fn took(run: impl FnOnce()) -> Duration {
    let begun = now();
    run();
    now() - begun
}

#[test]
fn a_call_takes_so_many_times_as_long_as_is_configured() {
    for place in [Place::new(""), Place::new("null=1"), Place::forwarding("")] {
        place.configure("call_us=1000,op_us=1000,fault=C_Sign:1=x50");
        place.raw.sign_init(place.session, sys::CKM_SHA256_HMAC, place.key).unwrap();
        let sign = || place.raw.sign_into(place.session, b"x", &mut [0; 32]).0.unwrap();
        assert!(took(sign) >= Duration::from_millis(100));
    }
}

#[test]
fn a_call_without_a_configured_time_takes_so_many_times_its_own() {
    let behind = p11_sim::Loaded::private_copy("op_us=2000").unwrap();
    let place = Place::new(&format!("forward={}", behind.path().display()));
    place.configure("fault=C_Sign:1=x20");
    assert!(took(|| assert!(place.mac(b"x").is_ok())) >= Duration::from_millis(40));
}

#[test]
fn a_call_takes_longer_by_what_the_distribution_gives() {
    for place in Place::all("") {
        let cases = ["slow-20000", "slow-20000..30000", "slow-tail-20000"];
        for delay in cases {
            place.configure(&format!("fault=C_SignInit:1={delay}"));
            let took = took(|| assert!(place.mac(b"x").is_ok()));
            assert!(took >= Duration::from_millis(20), "{delay}: {took:?}");
        }
    }
}
