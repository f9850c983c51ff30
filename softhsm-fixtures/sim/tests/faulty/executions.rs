//! How often each input was executed.

use std::ptr;

use crate::place::Place;
use crate::raw::call;
use cryptoki_sys as sys;

#[test]
fn each_execution_is_counted_by_function_key_and_input() {
    for place in Place::all("count_executions=100") {
        let other = place.raw.key(place.session, "hmac2");
        for input in [b"a", b"b", b"b"] {
            place.mac(input).unwrap();
        }
        place.raw.mac(place.session, other, b"b").unwrap();
        let (sim, token) = (&place.sim, &place.token);
        assert_eq!((sim.executions(b"a"), sim.executions(b"b"), sim.executions(b"c")), (1, 3, 0), "{token}");
        assert_eq!((sim.executions_of("C_Sign", b"b"), sim.executions_of("C_Encrypt", b"b")), (3, 0));
        let more_than = [0, 1, 2].map(|times| sim.executed_more_than(times));
        assert_eq!(more_than, [3, 1, 0], "a and b with one key, b with the other: {token}");
        sim.reset_counters();
        assert_eq!(sim.executions(b"b"), 0);
    }
}

#[test]
fn a_lost_reply_is_an_execution_and_a_refusal_is_none() {
    for place in Place::all("count_executions=100") {
        place.configure("fault=C_Sign:1=0x30!;C_Sign:2=session-lost");
        assert_eq!(place.mac(b"lost"), Err(sys::CKR_DEVICE_ERROR));
        assert_eq!(place.mac(b"never"), Err(sys::CKR_SESSION_HANDLE_INVALID));
        assert_eq!(
            (place.sim.executions(b"lost"), place.sim.executions(b"never")),
            (1, 0),
            "{}",
            place.token
        );
    }
}

#[test]
fn a_question_for_the_length_is_no_execution() {
    for place in Place::all("count_executions=100") {
        place.raw.sign_init(place.session, sys::CKM_SHA256_HMAC, place.key).unwrap();
        let mut length = 0;
        let data = b"x".as_ptr().cast_mut();
        call!(place.raw, C_Sign(place.session, data, 1, ptr::null_mut(), &raw mut length)).unwrap();
        let small = place.raw.sign_into(place.session, b"x", &mut [0; 4]).0;
        assert_eq!(
            (small, place.sim.executions(b"x")),
            (Err(sys::CKR_BUFFER_TOO_SMALL), 0),
            "{}",
            place.token
        );
        place.raw.sign_into(place.session, b"x", &mut [0; 32]).0.unwrap();
        assert_eq!(place.sim.executions(b"x"), 1, "{}", place.token);
    }
}

#[test]
fn an_output_over_its_input_leaves_the_count_as_it_is() {
    let place = Place::new("count_executions=100");
    place.raw.sign_init(place.session, sys::CKM_SHA256_HMAC, place.key).unwrap();
    let (mut buffer, mut length) = ([7; 32], 32);
    let data = buffer.as_mut_ptr();
    call!(place.raw, C_Sign(place.session, data, 32, data, &raw mut length)).unwrap();
    assert_ne!(buffer, [7; 32]);
    assert_eq!(place.sim.executions(&[7; 32]), 1);
}

#[test]
fn objects_that_are_made_are_counted_by_their_label() {
    for place in Place::all("count_executions=100") {
        place.configure("fault=C_GenerateKey:2=0x30!;C_GenerateKey:3=0x30");
        place.generate_key("one").unwrap();
        assert_eq!(place.generate_key("two"), Err(sys::CKR_DEVICE_ERROR));
        assert_eq!(place.generate_key("three"), Err(sys::CKR_DEVICE_ERROR));
        assert!(place.generate_key_of("four", 7).is_err(), "refused by the token itself");
        let made = |label: &[u8]| place.sim.executions_of("C_GenerateKey", label);
        assert_eq!([&b"one"[..], b"two", b"three", b"four"].map(made), [1, 1, 0, 0], "{}", place.token);
        let there = place.raw.find(place.session, &[(sys::CKA_LABEL, b"two")]).unwrap().len();
        assert_eq!(there, 1, "the reply was lost, not the key");
    }
}

#[test]
fn more_inputs_than_there_is_room_for_are_counted_as_forgotten() {
    let place = Place::new("count_executions=2");
    for input in [b"1", b"2", b"3", b"1", b"3"] {
        place.mac(input).unwrap();
    }
    let counted = [b"1", b"2", b"3"].map(|input| place.sim.executions(input));
    assert_eq!((counted, place.sim.executions_forgotten()), ([2, 1, 0], 2));
    place.configure("count_executions=0");
    place.mac(b"1").unwrap();
    assert_eq!(place.sim.executions(b"1"), 2, "what is counted stays");
}
