//! What callers do that they should not, counted.

use std::ptr;

use crate::place::{LONG, Place};
use crate::raw::call;
use cryptoki_sys as sys;

#[test]
fn an_operation_that_is_active_at_the_next_init_is_counted_in_every_mode() {
    for place in Place::all("").into_iter().chain([Place::new("null=1,call_us=1")]) {
        let init = || place.raw.sign_init(place.session, sys::CKM_SHA256_HMAC, place.key);
        place.mac(b"x").unwrap();
        init().unwrap();
        assert_eq!(place.sim.active_at_init(), 0, "{}", place.token);
        assert_eq!(init(), Err(sys::CKR_OPERATION_ACTIVE), "{}", place.token);
        assert_eq!(place.sim.active_at_init(), 1, "{}", place.token);
    }
}

#[test]
fn what_a_rule_answers_is_no_mistake_of_the_caller() {
    for place in Place::all("") {
        place.configure("fault=C_SignInit:1=0x90;C_SignInit:2=0xb3;C_SignInit:3=0x60");
        for code in [sys::CKR_OPERATION_ACTIVE, sys::CKR_SESSION_HANDLE_INVALID, sys::CKR_KEY_HANDLE_INVALID]
        {
            assert_eq!(place.mac(b"x"), Err(code));
        }
        let counted = (place.sim.active_at_init(), place.sim.stale_sessions(), place.sim.stale_objects());
        assert_eq!(counted, (0, 0, 0), "{}", place.token);
    }
}

#[test]
fn stale_numbers_are_counted() {
    for place in Place::all("") {
        let other = place.raw.open(place.slot).unwrap();
        place.raw.close(other).unwrap();
        assert!(place.raw.mac(other, place.key, b"x").is_err());
        assert!(place.raw.close(other).is_err());
        assert_eq!(place.sim.stale_sessions(), 2, "{}", place.token);
        let code = place.raw.mac(place.session, 7, b"x").unwrap_err();
        assert!([sys::CKR_KEY_HANDLE_INVALID, sys::CKR_OBJECT_HANDLE_INVALID].contains(&code), "{code:#x}");
        assert_eq!(place.sim.stale_objects(), 1, "{}", place.token);
        place.sim.reset_counters();
        assert_eq!((place.sim.stale_sessions(), place.sim.stale_objects()), (0, 0));
    }
}

#[test]
fn calls_that_finalize_finds_inside_are_counted() {
    for place in Place::all("") {
        place.configure("hang=C_Sign:1;C_GetSlotList:1");
        std::thread::scope(|scope| {
            let in_session = scope.spawn(|| place.mac(b"x"));
            let outside = scope.spawn(|| place.raw.slots());
            assert!(place.sim.wait_hanging(2, LONG));
            place.raw.finalise().unwrap();
            let inside = place.sim.finalised_inside();
            // Before anything is asserted: a test that fails must not wait for threads that hang.
            place.sim.release_hangs();
            assert_eq!(inside, 2, "{}", place.token);
            assert_eq!(in_session.join().unwrap(), Err(sys::CKR_SESSION_HANDLE_INVALID));
            drop(outside.join().unwrap());
        });
        place.raw.initialise().unwrap();
        place.ready().unwrap();
        place.raw.finalise().unwrap();
        assert_eq!(place.sim.finalised_inside(), 2, "nobody else: {}", place.token);
    }
}

#[test]
fn a_finalize_that_is_refused_finds_nobody() {
    let place = Place::new("");
    assert_eq!(call!(place.raw, C_Finalize(ptr::dangling_mut())), Err(sys::CKR_ARGUMENTS_BAD));
    assert_eq!(place.sim.finalised_inside(), 0);
}
