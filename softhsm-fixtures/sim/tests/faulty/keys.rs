//! Rules for the calls of one key.

use crate::place::Place;
use crate::raw::call;
use cryptoki_sys as sys;

#[test]
fn a_rule_for_a_key_leaves_the_others_alone_in_every_mode() {
    for place in Place::all("") {
        let other = place.raw.key(place.session, "hmac2");
        let right = place.mac(b"x").unwrap();
        place.configure(&format!("fault=C_Sign:2=0x30@{}/hmac;C_Sign:2=flip@/hmac2", place.token));
        assert_eq!(place.mac(b"x"), Ok(right), "{}", place.token);
        let others = place.raw.mac(place.session, other, b"x").unwrap();
        assert_eq!(place.mac(b"x"), Err(sys::CKR_DEVICE_ERROR), "the second with this key: {}", place.token);
        let flipped = place.raw.mac(place.session, other, b"x").unwrap();
        assert_ne!(flipped, others, "the second with the other: {}", place.token);
        assert_eq!(place.mac(b"x"), Ok(right), "{}", place.token);
    }
}

#[test]
fn a_key_may_be_named_by_its_id() {
    // The keys of the simulator have their labels as ids.
    for place in [Place::new(""), Place::forwarding("")] {
        place.configure("fault=C_Sign:1=0x30@/0x686d6163;C_Sign:1=0x5@/0x686d6164");
        assert_eq!(place.mac(b"x"), Err(sys::CKR_DEVICE_ERROR));
        place.mac(b"x").unwrap();
    }
}

#[test]
fn a_key_counts_where_it_is_named_and_where_it_runs() {
    for place in Place::all("") {
        let rules = "fault=C_SignInit:1=0x30@/hmac;C_GetAttributeValue:1=0x31@/hmac";
        place.configure(rules);
        assert_eq!(place.mac(b"x"), Err(sys::CKR_DEVICE_ERROR));
        place.mac(b"x").unwrap();
        let mut attribute = sys::CK_ATTRIBUTE { type_: sys::CKA_ID, ..Default::default() };
        let mut read =
            || call!(place.raw, C_GetAttributeValue(place.session, place.key, &raw mut attribute, 1));
        assert_eq!(read(), Err(sys::CKR_DEVICE_MEMORY));
        read().unwrap();
    }
}

#[test]
fn a_call_without_a_key_is_no_call_of_any_key() {
    let place = Place::new("fault=C_GenerateRandom:1+=0x30@/hmac");
    place.mac(b"x").unwrap();
    let mut out = [0; 8];
    call!(place.raw, C_GenerateRandom(place.session, out.as_mut_ptr(), 8)).unwrap();
}
