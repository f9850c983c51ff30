//! Changes while the module is in use, for a while or for good: stalls, slowness, rules that are added.

use std::time::Duration;

use cryptoki_sys as sys;

use crate::place::{LONG, Place, now};

const STALL: Duration = Duration::from_millis(60);

fn took(run: impl FnOnce()) -> Duration {
    let begun = now();
    run();
    now() - begun
}

fn mac(place: &Place) {
    place.mac(b"x").unwrap();
}

#[test]
fn in_a_stall_no_call_begins_whether_it_is_to_a_token_or_not() {
    for place in Place::all("") {
        let calls: [&dyn Fn(); 3] =
            [&|| mac(&place), &|| assert!(place.raw.token_info(place.slot).is_ok()), &|| {
                assert!(place.raw.slots().is_ok())
            }];
        for call in calls {
            let begun = now();
            place.configure("stall=60");
            call();
            assert!(now() - begun >= STALL);
        }
    }
}

#[test]
fn a_stall_of_one_token_holds_calls_to_it_alone() {
    for mode in ["", "null=1"] {
        let place = Place::new(&format!("tokens=2,{mode}"));
        let other = place.raw.slots().unwrap()[1];
        let begun = now();
        place.configure("stall=60@sim-0;3600000@sim-1");
        assert!(place.raw.slots().is_ok());
        mac(&place);
        assert!(now() - begun >= STALL);
        place.configure("stall=0@sim-1");
        assert!(place.raw.token_info(other).is_ok());
    }
}

#[test]
fn a_call_that_is_inside_when_a_stall_begins_returns_at_its_end() {
    let place = Place::new("");
    place.configure("fault=C_Sign:1=hang");
    std::thread::scope(|scope| {
        let call = scope.spawn(|| {
            mac(&place);
            now()
        });
        assert!(place.sim.wait_hanging(1, LONG));
        let begun = now();
        place.configure("stall=60");
        place.sim.release_hangs();
        assert!(call.join().unwrap() - begun >= STALL);
    });
}

#[test]
fn a_stall_that_is_ended_lets_calls_go() {
    let place = Place::new("null=1");
    place.configure("stall=3600000");
    std::thread::scope(|scope| {
        let call = scope.spawn(|| mac(&place));
        place.configure("stall=");
        call.join().unwrap();
    });
}

#[test]
fn a_slower_token_occupies_its_core_for_longer() {
    for mode in ["", "null=1"] {
        let place = Place::new(&format!("tokens=2,op_us=5000,cores=1,{mode}"));
        place.configure("slower=2@sim-0;2;100@sim-1");
        let sign = || took(|| mac(&place));
        assert!(sign() >= Duration::from_millis(20), "twice twice");
        // One core, and two at once: the second waits for the first.
        let both = took(|| {
            let (session, key) = place.ready().unwrap();
            std::thread::scope(|scope| {
                scope.spawn(|| mac(&place));
                assert!(place.raw.mac(session, key, b"x").is_ok());
            });
        });
        assert!(both >= Duration::from_millis(40), "{both:?}");
        place.configure("op_us=1000,slower=");
        let usual = (0..20).map(|_| sign()).min().unwrap();
        assert!(usual < Duration::from_millis(4), "{usual:?}");
    }
}

#[test]
fn slower_calls_are_longer_on_their_way() {
    let place = Place::new("call_us=1000");
    place.configure("slower=20");
    assert!(took(|| assert!(place.raw.token_info(place.slot).is_ok())) >= Duration::from_millis(20));
}

#[test]
fn rules_that_are_added_leave_those_before_them_as_they_are() {
    for place in Place::all("") {
        place.configure("rules=C_Sign:1=0x30");
        assert_eq!(place.mac(b"x"), Err(sys::CKR_DEVICE_ERROR));
        place.configure("rules=C_Sign:1=0x30;C_SignInit:2=0x5");
        assert!(place.mac(b"x").is_ok());
        assert_eq!(place.mac(b"x"), Err(sys::CKR_GENERAL_ERROR));
        place.configure("rules=");
        assert!(place.mac(b"x").is_ok());
    }
}

/// Ends the use of the module and begins it anew.
fn anew(place: &mut Place) -> Result<(), sys::CK_RV> {
    place.raw.finalise()?;
    place.raw.initialise()?;
    (place.session, place.key) = place.ready()?;
    Ok(())
}

#[test]
fn what_is_changed_for_good_holds_after_the_module_is_initialised_anew() {
    for mode in ["", "null=1"] {
        let mut place = Place::new(&format!("tokens=2,op_us=10,{mode}"));
        place.sim.change("removed=sim-0,slower=1000,rules=C_Sign:1=0x30").unwrap();
        assert_eq!(anew(&mut place), Err(sys::CKR_TOKEN_NOT_PRESENT));
        place.sim.change("removed=").unwrap();
        anew(&mut place).unwrap();
        assert_eq!(place.mac(b"x"), Err(sys::CKR_DEVICE_ERROR), "the rule has not met a call before");
        anew(&mut place).unwrap();
        assert!(
            took(|| mac(&place)) >= Duration::from_millis(10),
            "the rule has met its call, slowness stays"
        );
        place.sim.change("slower=,rules=").unwrap();
        anew(&mut place).unwrap();
        mac(&place);
    }
}

#[test]
fn a_change_for_good_while_the_module_is_not_in_use_is_there_when_it_is_again() {
    let mut place = Place::new("tokens=2");
    place.raw.finalise().unwrap();
    let begun = now();
    place.sim.change("removed=sim-1,stall=60").unwrap();
    assert!(place.sim.change("tokens=3").is_err());
    place.raw.initialise().unwrap();
    assert_eq!(place.raw.slots().unwrap().len(), 1);
    (place.session, place.key) = place.ready().unwrap();
    assert!(now() - begun >= STALL, "a stall goes on whoever uses the module");
}

#[test]
fn what_is_configured_for_a_while_ends_with_the_use_of_the_module() {
    let mut place = Place::new("tokens=2");
    place.configure("removed=sim-1");
    assert_eq!(place.raw.slots().unwrap().len(), 1);
    anew(&mut place).unwrap();
    assert_eq!(place.raw.slots().unwrap().len(), 2);
}
