//! Mix F of faults, and a client that lives with it.

use std::time::Duration;

use crate::place::{Place, eventually};
use crate::raw::Rv;
use cryptoki_sys as sys;
use p11_sim::{MIX_F, mix_f};

/// What a client of one session meets, whose sessions and logins come back.
fn live_with(place: &Place, calls: usize) -> Vec<Rv<[u8; 32]>> {
    let mut ready = Ok((place.session, place.key));
    let mut answers = Vec::new();
    for call in 0..calls {
        if ready.is_err() {
            ready = once_there(place);
        }
        let answer = ready.and_then(|(session, key)| place.raw.mac(session, key, &call.to_ne_bytes()));
        if answer.is_err() {
            // A sound client uses no session on after an error.
            let _closed = ready.map(|(session, _)| place.raw.close(session));
            ready = Err(sys::CKR_SESSION_CLOSED);
        }
        answers.push(answer);
    }
    answers
}

/// A session, once the token is there.
fn once_there(place: &Place) -> Rv<(u64, u64)> {
    let mut ready = place.ready();
    eventually("the token is there", || {
        let away = ready == Err(sys::CKR_TOKEN_NOT_PRESENT);
        if away {
            ready = place.ready();
        }
        !away
    });
    ready
}

#[test]
fn most_calls_go_well_under_the_mix_and_none_is_the_last() {
    for place in Place::all("") {
        place.configure("faults=F:2:1");
        let answers = live_with(&place, 3_000);
        let failed = answers.iter().filter(|answer| answer.is_err()).count();
        // Two calls each with 1.1 % of errors, and three in a hundred more after each for a session and its key.
        assert!((20..200).contains(&failed), "{failed} of 3000 on {}", place.token);
        place.configure("faults=");
        eventually_well(&place);
    }
}

/// A token that was away comes back by itself.
fn eventually_well(place: &Place) {
    eventually("all is well", || {
        place.ready().is_ok_and(|(session, key)| place.raw.mac(session, key, b"x").is_ok())
    });
}

#[test]
fn the_mix_is_the_same_for_the_same_seed() {
    let failures = |seed: u32| {
        let place = Place::new(&format!("null=1,seed={seed}"));
        // Without time in it: what a token that is away answers depends on how long it has been.
        let timeless: Vec<_> = MIX_F.split(';').filter(|rule| !rule.contains("removed")).collect();
        let text = timeless.join(";").replace("hang-500", "hang-0");
        place.configure(&format!("fault={text}"));
        live_with(&place, 1_000).iter().map(Result::is_err).collect::<Vec<_>>()
    };
    let first = failures(1);
    assert_eq!(first, failures(1));
    assert_ne!(first, failures(2));
}

#[test]
fn the_mix_by_its_name_and_by_its_text_are_one() {
    let failures = |config: &str| {
        let place = Place::new(&format!("null=1,seed=9,{config}"));
        live_with(&place, 300).iter().map(|answer| answer.err()).collect::<Vec<_>>()
    };
    let text = mix_f(Duration::from_millis(1), Duration::from_millis(100));
    assert_eq!(failures("faults=F:1"), failures(&format!("fault={text}")));
    assert_eq!(mix_f(Duration::from_millis(500), Duration::from_millis(100)), MIX_F);
}
