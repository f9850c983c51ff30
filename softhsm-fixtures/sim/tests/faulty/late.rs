//! Calls that return late, and outputs that are written late.

use std::time::Duration;

use crate::place::{LONG, Place, eventually, now};
use crate::raw::call;
use cryptoki_sys as sys;

/// A buffer for an output that outlives every call, as that of a caller should whose call does not return.
fn kept() -> &'static mut [u8; 32] {
    Box::leak(Box::new([0; 32]))
}

/// What is in it by now. The thread that writes it has been waited for, or waits itself.
fn content(buffer: usize) -> [u8; 32] {
    // SAFETY: the buffer is never freed, and nobody writes to it at this moment.
    unsafe { std::ptr::with_exposed_provenance::<[u8; 32]>(buffer).read_volatile() }
}

#[test]
fn a_hang_with_a_limit_ends_by_itself() {
    for place in Place::all("count_executions=100") {
        place.configure("fault=C_Sign:1=hang-100;C_Sign:2=hang-100!");
        for _ in 0..2 {
            let begun = now();
            place.mac(b"y").unwrap();
            assert!(now() - begun >= Duration::from_millis(100), "{}", place.token);
        }
        assert_eq!((place.sim.executions(b"y"), place.sim.hanging()), (2, 0), "{}", place.token);
    }
}

#[test]
fn a_call_that_hangs_runs_when_it_returns() {
    for place in Place::all("count_executions=100") {
        // The limit is out of reach.
        place.configure("fault=C_Sign:1=hang-3000000");
        std::thread::scope(|scope| {
            let hung = scope.spawn(|| place.mac(b"y"));
            assert!(place.sim.wait_hanging(1, LONG));
            let executions = place.sim.executions(b"y");
            // Before anything is asserted: a test that fails must not wait for a thread that hangs.
            place.sim.release_hangs();
            assert_eq!(executions, 0, "not yet: {}", place.token);
            hung.join().unwrap().unwrap();
        });
        assert_eq!(place.sim.executions(b"y"), 1, "{}", place.token);
    }
}

#[test]
fn a_call_that_hung_may_return_an_error_and_have_done_nothing() {
    for place in Place::all("count_executions=100") {
        place.configure("fault=C_Sign:1=hang-20;C_Sign:1=0x30");
        assert_eq!(place.mac(b"y"), Err(sys::CKR_DEVICE_ERROR));
        // The module behind is asked all the same: nothing else ends its operation.
        let behind = u64::from(place.forwards());
        assert_eq!(place.sim.executions(b"y"), behind, "{}", place.token);
        place.mac(b"y").unwrap();
    }
}

#[test]
fn a_call_may_run_at_once_and_write_its_output_when_it_is_released() {
    for place in Place::all("count_executions=100") {
        let right = place.mac(b"x").unwrap();
        place.configure("fault=C_Sign:1=hang!");
        place.raw.sign_init(place.session, sys::CKM_SHA256_HMAC, place.key).unwrap();
        let out = kept();
        let buffer = out.as_mut_ptr().expose_provenance();
        std::thread::scope(|scope| {
            let hung = scope.spawn(|| place.raw.sign_into(place.session, b"x", out));
            assert!(place.sim.wait_hanging(1, LONG));
            let (executions, written) = (place.sim.executions(b"x"), content(buffer));
            // Before anything is asserted: a test that fails must not wait for a thread that hangs.
            place.sim.release_hangs();
            assert_eq!((executions, written), (2, [0; 32]), "{}", place.token);
            assert_eq!(hung.join().unwrap(), (Ok(()), 32));
        });
        assert_eq!(content(buffer), right, "{}", place.token);
        assert_eq!(place.mac(b"x"), Ok(right), "the operation has ended: {}", place.token);
    }
}

#[test]
fn a_call_that_was_written_off_writes_its_output_although_its_session_is_gone() {
    for place in Place::all("") {
        let right = place.mac(b"x").unwrap();
        place.configure("fault=C_Sign:1=hang!");
        place.raw.sign_init(place.session, sys::CKM_SHA256_HMAC, place.key).unwrap();
        let out = kept();
        let buffer = out.as_mut_ptr().expose_provenance();
        std::thread::scope(|scope| {
            let hung = scope.spawn(|| place.raw.sign_into(place.session, b"x", out).0);
            assert!(place.sim.wait_hanging(1, LONG));
            let closed = call!(place.raw, C_CloseAllSessions(place.slot));
            place.sim.release_hangs();
            assert_eq!(closed, Ok(()), "{}", place.token);
            assert_eq!(hung.join().unwrap(), Err(sys::CKR_DEVICE_REMOVED), "{}", place.token);
        });
        assert_eq!(content(buffer), right, "{}", place.token);
    }
}

#[test]
fn a_call_without_an_output_may_run_at_once_and_hang_too() {
    let place = Place::new("fault=C_SignInit:1=hang!");
    std::thread::scope(|scope| {
        let hung = scope.spawn(|| place.raw.sign_init(place.session, sys::CKM_SHA256_HMAC, place.key));
        assert!(place.sim.wait_hanging(1, LONG));
        place.sim.release_hangs();
        hung.join().unwrap().unwrap();
    });
    place.raw.sign_into(place.session, b"x", &mut [0; 32]).0.unwrap();
}

#[test]
fn an_output_may_be_written_when_its_call_has_long_returned() {
    for place in Place::all("") {
        let right = place.mac(b"x").unwrap();
        place.configure("fault=C_Sign:1=late-200");
        place.raw.sign_init(place.session, sys::CKM_SHA256_HMAC, place.key).unwrap();
        let out = kept();
        let buffer = out.as_mut_ptr().expose_provenance();
        let begun = now();
        let answer = place.raw.sign_into(place.session, b"x", out).0;
        assert_eq!(answer, Err(sys::CKR_DEVICE_ERROR), "{}", place.token);
        eventually("the output is written", || place.sim.late_writes() == 1);
        assert!(now() - begun >= Duration::from_millis(200));
        assert_eq!(content(buffer), right, "{}", place.token);
    }
}

#[test]
fn nothing_is_late_that_no_rule_is_about() {
    let place = Place::new("fault=C_Sign:2=late-1;C_Sign:2=0x6!");
    place.mac(b"x").unwrap();
    assert_eq!(place.sim.late_writes(), 0);
    place.raw.sign_init(place.session, sys::CKM_SHA256_HMAC, place.key).unwrap();
    assert_eq!(place.raw.sign_into(place.session, b"x", kept()).0, Err(sys::CKR_FUNCTION_FAILED));
    eventually("the output is written", || place.sim.late_writes() == 1);
}
