//! Numbers of sessions and objects that come again.

use crate::place::{LONG, Place};
use crate::raw::{call, len};
use cryptoki_sys as sys;

fn places(config: &str) -> Vec<Place> {
    let places = Place::all(&format!("reuse=sessions,{config}"));
    assert!(places.len() >= 3);
    places
}

#[test]
fn the_lowest_number_of_a_session_that_is_free_comes_again() {
    for place in places("") {
        let open = || place.raw.open(place.slot).unwrap();
        let sessions = [open(), open(), open()];
        for closed in [sessions[2], sessions[0], sessions[1]] {
            place.raw.close(closed).unwrap();
        }
        assert_eq!([open(), open(), open()], sessions, "{}", place.token);
        assert!(sessions.iter().all(|&session| session <= 4), "{sessions:?}");
    }
}

#[test]
fn who_keeps_the_number_of_a_lost_session_uses_that_of_another() {
    for place in places("") {
        place.configure("fault=C_SignInit:1=session-lost");
        assert_eq!(place.mac(b"x"), Err(sys::CKR_SESSION_HANDLE_INVALID));
        assert_eq!(place.mac(b"x"), Err(sys::CKR_SESSION_HANDLE_INVALID));
        let (other, key) = place.ready().unwrap();
        assert_eq!(other, place.session, "{}", place.token);
        let state = place.raw.info(place.session).unwrap().state;
        assert_eq!(state, sys::CKS_RW_USER_FUNCTIONS, "it looks as it did");
        place.raw.mac(place.session, key, b"x").unwrap();
        assert_eq!(place.sim.stale_sessions(), 1, "the call after the loss, not that in the other session");
    }
}

#[test]
fn random_bytes_do_not_come_again_with_a_number() {
    let place = Place::new("reuse=sessions");
    let draw = || {
        let session = place.raw.open(place.slot).unwrap();
        let mut out = [0; 16];
        call!(place.raw, C_GenerateRandom(session, out.as_mut_ptr(), len(&out))).unwrap();
        place.raw.close(session).unwrap();
        (session, out)
    };
    let (first, second) = (draw(), draw());
    assert_eq!(first.0, second.0);
    assert_ne!(first.1, second.1);
}

#[test]
fn a_call_that_hung_leaves_the_next_session_of_its_number_alone() {
    for place in places("hang=C_Sign:2") {
        place.mac(b"x").unwrap();
        std::thread::scope(|scope| {
            let hung = scope.spawn(|| place.mac(b"x"));
            assert!(place.sim.wait_hanging(1, LONG));
            // By another thread: the place becomes free although a call is inside.
            place.raw.close(place.session).unwrap();
            let (next, key) = place.ready().unwrap();
            let begun = place.raw.sign_init(next, sys::CKM_SHA256_HMAC, key);
            // Before anything is asserted: a test that fails must not wait for a thread that hangs.
            place.sim.release_hangs();
            assert_eq!((next, begun), (place.session, Ok(())));
            assert_eq!(hung.join().unwrap(), Err(sys::CKR_SESSION_HANDLE_INVALID), "{}", place.token);
            place.raw.sign_into(next, b"x", &mut [0; 32]).0.unwrap();
        });
    }
}

/// A place of the simulator's own with four keys for MACs.
fn with_keys() -> Place {
    Place::new("reuse=sessions;objects,keys=one:hmac;two:hmac;three:hmac")
}

#[test]
fn a_key_handle_is_good_for_another_key_after_every_login() {
    let place = with_keys();
    let right = place.mac(b"x").unwrap();
    let mut seen = vec![right];
    for _ in 0..3 {
        call!(place.raw, C_Logout(place.session)).unwrap();
        place.raw.log_in(place.session, "1234").unwrap();
        let wrong = place.mac(b"x").unwrap();
        assert!(!seen.contains(&wrong), "each time another one");
        seen.push(wrong);
        let key = place.raw.key(place.session, "hmac");
        assert_eq!(place.raw.mac(place.session, key, b"x"), Ok(right), "who searches again finds it");
    }
}

#[test]
fn a_key_handle_is_good_for_another_key_after_a_removal_and_a_restart() {
    let place = with_keys();
    let right = place.mac(b"x").unwrap();
    place.configure("removed=sim-0");
    place.configure("removed=");
    let (session, key) = place.ready().unwrap();
    assert_eq!(session, place.session);
    assert_ne!(place.mac(b"x").unwrap(), right);
    assert_eq!(place.raw.mac(session, key, b"x"), Ok(right));
    place.raw.finalise().unwrap();
    place.raw.initialise().unwrap();
    let (again, new_key) = place.ready().unwrap();
    assert_eq!(again, session);
    assert_ne!(place.raw.mac(again, key, b"x").unwrap(), right);
    assert_eq!(place.raw.mac(again, new_key, b"x"), Ok(right));
}

#[test]
fn the_number_of_an_object_that_was_destroyed_comes_again() {
    let place = with_keys();
    let make = |label: &str| place.generate_key(label).unwrap();
    let (first, second) = (make("a"), make("b"));
    call!(place.raw, C_DestroyObject(place.session, first)).unwrap();
    assert_eq!(make("c"), first);
    assert_ne!(make("d"), second);
    let unique = Place::new("");
    let make = |label: &str| unique.generate_key(label).unwrap();
    let first = make("a");
    call!(unique.raw, C_DestroyObject(unique.session, first)).unwrap();
    assert_ne!(make("c"), first, "without the option");
}
