//! Objects by hand: data, public keys that were brought in, attributes that are kept, changed and enforced.

#![expect(unsafe_code, reason = "calls of the C interface")]
#![expect(clippy::unwrap_used, reason = "a helper of tests fails its test")]
#![expect(dead_code, reason = "shared with tests that use more of it")]

#[path = "support/raw.rs"]
mod raw;
#[path = "support/sim.rs"]
mod sim;

use std::ptr;

use cryptoki_sys as sys;
use raw::{Rv, call, len};
use sim::{FALSE, Sim, TRUE, Template, words};

const DATA: [u8; 8] = sys::CKO_DATA.to_ne_bytes();
const PUBLIC_KEY: [u8; 8] = sys::CKO_PUBLIC_KEY.to_ne_bytes();

/// Data with a label, on the token, for everybody unless more says otherwise.
fn data(sim: &Sim, label: &str, value: &[u8], more: Template<'_>) -> Rv<u64> {
    let own: Template<'_> = &[
        (sys::CKA_CLASS, &DATA),
        (sys::CKA_APPLICATION, b"ledger"),
        (sys::CKA_LABEL, label.as_bytes()),
        (sys::CKA_VALUE, value),
    ];
    sim.create(&[own, more].concat())
}

#[test]
fn data_are_created_found_read_and_destroyed() {
    let sim = Sim::new("");
    let one = data(&sim, "one", b"first", &[(sys::CKA_OBJECT_ID, &[6, 1, 42])]).unwrap();
    let two = data(&sim, "two", b"second", &[]).unwrap();
    assert_eq!(sim.find(&[(sys::CKA_APPLICATION, b"ledger")]), [one, two]);
    assert_eq!(sim.find(&[(sys::CKA_CLASS, &DATA), (sys::CKA_LABEL, b"two")]), [two]);
    assert_eq!(sim.find(&[(sys::CKA_VALUE, b"first")]), [one], "a value that is no secret can be looked for");
    let read = |kind| sim.read(one, kind);
    assert_eq!(read(sys::CKA_VALUE).unwrap(), b"first");
    assert_eq!(read(sys::CKA_OBJECT_ID).unwrap(), [6, 1, 42]);
    assert_eq!(sim.value(two, sys::CKA_OBJECT_ID), b"");
    assert_eq!(read(sys::CKA_KEY_TYPE), Err(sys::CKR_ATTRIBUTE_TYPE_INVALID));
    let flags = [sys::CKA_TOKEN, sys::CKA_PRIVATE, sys::CKA_MODIFIABLE, sys::CKA_DESTROYABLE];
    assert_eq!(sim.flags(one, flags), [false, true, true, true]);
    let mut short = [0; 3];
    let mut wanted = sys::CK_ATTRIBUTE {
        type_: sys::CKA_VALUE,
        pValue: short.as_mut_ptr().cast(),
        ulValueLen: len(&short),
    };
    let answer = call!(sim.raw, C_GetAttributeValue(sim.session, one, &raw mut wanted, 1));
    assert_eq!(answer, Err(sys::CKR_BUFFER_TOO_SMALL));
    assert_eq!((wanted.ulValueLen, short), (sys::CK_UNAVAILABLE_INFORMATION, [0; 3]));
    sim.destroy(one).unwrap();
    assert_eq!(sim.read(one, sys::CKA_VALUE), Err(sys::CKR_OBJECT_HANDLE_INVALID));
    assert_eq!(sim.find(&[(sys::CKA_APPLICATION, b"ledger")]), [two]);
}

#[test]
fn private_data_are_there_after_the_login_only_and_those_of_a_session_while_it_lasts() {
    let sim = Sim::new("");
    let (on_token, open) = ((sys::CKA_TOKEN, TRUE), (sys::CKA_PRIVATE, FALSE));
    let hidden = data(&sim, "hidden", b"x", &[on_token]).unwrap();
    let shown = data(&sim, "shown", b"x", &[on_token, open]).unwrap();
    let other = sim.raw.open(sim.raw.slots().unwrap()[0]).unwrap();
    let passing = sim.raw.create(other, &[(sys::CKA_CLASS, &DATA), (sys::CKA_APPLICATION, b"ledger")]);
    let of_ledger: Template<'_> = &[(sys::CKA_APPLICATION, b"ledger")];
    assert_eq!(sim.find(of_ledger), [hidden, shown, passing.unwrap()]);
    sim.raw.close(other).unwrap();
    assert_eq!(sim.find(of_ledger), [hidden, shown]);
    call!(sim.raw, C_Logout(sim.session)).unwrap();
    assert_eq!(sim.find(of_ledger), [shown]);
    assert_eq!(sim.read(hidden, sys::CKA_LABEL), Err(sys::CKR_OBJECT_HANDLE_INVALID));
    assert_eq!(sim.destroy(hidden), Err(sys::CKR_OBJECT_HANDLE_INVALID));
    assert_eq!(data(&sim, "new", b"", &[]), Err(sys::CKR_USER_NOT_LOGGED_IN));
    data(&sim, "new", b"", &[open]).unwrap();
    sim.raw.log_in(sim.session, "1234").unwrap();
    assert_eq!(sim.value(hidden, sys::CKA_LABEL), b"hidden");
}

#[test]
fn data_are_no_keys_and_have_no_attributes_of_keys() {
    let sim = Sim::new("");
    let object = data(&sim, "one", b"x", &[]).unwrap();
    assert_eq!(sim.raw.mac(sim.session, object, b"x"), Err(sys::CKR_KEY_HANDLE_INVALID));
    let kek = sim.import(sys::CKK_AES, &"11".repeat(16), &[(sys::CKA_WRAP, TRUE)]);
    assert_eq!(sim.wrap(sys::CKM_AES_KEY_WRAP_KWP, kek, object), Err(sys::CKR_KEY_HANDLE_INVALID));
    for kind in [sys::CKA_ID, sys::CKA_SIGN, sys::CKA_SENSITIVE] {
        let refused = data(&sim, "two", b"x", &[(kind, FALSE)]);
        assert_eq!(refused, Err(sys::CKR_ATTRIBUTE_TYPE_INVALID), "{kind:#x}");
    }
}

#[test]
fn a_token_without_data_refuses_them_and_takes_keys() {
    let sim = Sim::new("data=0");
    assert_eq!(data(&sim, "one", b"x", &[]), Err(sys::CKR_ATTRIBUTE_VALUE_INVALID));
    assert!(sim.find(&[(sys::CKA_CLASS, &DATA)]).is_empty());
    sim.import(sys::CKK_AES, &"11".repeat(16), &[]);
}

#[test]
fn objects_are_changed_copied_and_destroyed_as_far_as_they_allow() {
    let sim = Sim::new("");
    let free = data(&sim, "one", b"x", &[]).unwrap();
    let changes: Template<'_> =
        &[(sys::CKA_VALUE, b"longer"), (sys::CKA_LABEL, b"1"), (sys::CKA_APPLICATION, b"other")];
    sim.set(free, changes).unwrap();
    assert_eq!(sim.find(changes), [free]);
    let wrong: Template<'_> = &[(sys::CKA_VALUE, b"y"), (sys::CKA_PRIVATE, FALSE)];
    assert_eq!(sim.set(free, wrong), Err(sys::CKR_ATTRIBUTE_READ_ONLY));
    assert_eq!(sim.value(free, sys::CKA_VALUE), b"longer", "all of the changes or none");
    let more = [sys::CKA_MODIFIABLE, sys::CKA_COPYABLE, sys::CKA_DESTROYABLE].map(|flag| (flag, FALSE));
    let fixed = data(&sim, "fixed", b"x", &more).unwrap();
    assert_eq!(sim.set(fixed, &[(sys::CKA_VALUE, b"y")]), Err(sys::CKR_ACTION_PROHIBITED));
    assert_eq!(sim.destroy(fixed), Err(sys::CKR_ACTION_PROHIBITED));
    let mut copy = 0;
    let copied = call!(sim.raw, C_CopyObject(sim.session, fixed, ptr::null_mut(), 0, &raw mut copy));
    assert_eq!(copied, Err(sys::CKR_ACTION_PROHIBITED));
    assert_eq!(sim.value(fixed, sys::CKA_VALUE), b"x");
}

#[test]
fn a_read_only_session_changes_no_token_object() {
    let sim = Sim::new("");
    let (slot, mut reads) = (sim.raw.slots().unwrap()[0], 0);
    let flags = sys::CKF_SERIAL_SESSION;
    call!(sim.raw, C_OpenSession(slot, flags, ptr::null_mut(), None, &raw mut reads)).unwrap();
    let stays = data(&sim, "one", b"x", &[(sys::CKA_TOKEN, TRUE)]).unwrap();
    let label: Template<'_> = &[(sys::CKA_LABEL, b"two")];
    let mut template = raw::attributes(label);
    let refused = call!(sim.raw, C_SetAttributeValue(reads, stays, template.as_mut_ptr(), 1));
    assert_eq!(refused, Err(sys::CKR_SESSION_READ_ONLY));
    assert_eq!(call!(sim.raw, C_DestroyObject(reads, stays)), Err(sys::CKR_SESSION_READ_ONLY));
    let created = sim.raw.create(reads, &[(sys::CKA_CLASS, &DATA), (sys::CKA_TOKEN, TRUE)]);
    assert_eq!(created, Err(sys::CKR_SESSION_READ_ONLY));
    assert_eq!(sim.raw.set_pin(reads, "1234", "56789"), Err(sys::CKR_SESSION_READ_ONLY));
    assert_eq!(sim.value(stays, sys::CKA_LABEL), b"one");
}

#[test]
fn names_and_dates_of_keys_are_kept_shown_and_changed() {
    let sim = Sim::new("");
    let dates: Template<'_> = &[(sys::CKA_START_DATE, b"20240101"), (sys::CKA_END_DATE, b"20241231")];
    let key = sim.import(sys::CKK_GENERIC_SECRET, &"0b".repeat(20), dates);
    assert_eq!(sim.find(dates), [key]);
    sim.raw.mac(sim.session, key, b"past its end").unwrap();
    assert_eq!(sim.value(sim.key(sys::CKO_SECRET_KEY, "hmac"), sys::CKA_END_DATE), b"");
    let changes: Template<'_> =
        &[(sys::CKA_LABEL, b"new"), (sys::CKA_ID, b"\x01\x02"), (sys::CKA_END_DATE, b"20991231")];
    sim.set(key, changes).unwrap();
    assert_eq!(sim.find(changes), [key]);
    for wrong in [&b"2024"[..], b"2024-1-1"] {
        assert_eq!(sim.set(key, &[(sys::CKA_START_DATE, wrong)]), Err(sys::CKR_ATTRIBUTE_VALUE_INVALID));
    }
    for kind in [sys::CKA_SIGN, sys::CKA_VALUE, sys::CKA_LOCAL, sys::CKA_CLASS, sys::CKA_ALLOWED_MECHANISMS] {
        assert_eq!(sim.set(key, &[(kind, TRUE)]), Err(sys::CKR_ATTRIBUTE_READ_ONLY), "{kind:#x}");
    }
}

#[test]
fn a_key_becomes_harder_to_read_and_never_easier() {
    let sim = Sim::new("");
    let open: Template<'_> = &[(sys::CKA_SENSITIVE, FALSE), (sys::CKA_EXTRACTABLE, TRUE)];
    let key = sim.import(sys::CKK_AES, &"11".repeat(16), open);
    assert_eq!(sim.value(key, sys::CKA_VALUE), [0x11; 16]);
    sim.set(key, &[(sys::CKA_SENSITIVE, TRUE)]).unwrap();
    assert_eq!(sim.read(key, sys::CKA_VALUE), Err(sys::CKR_ATTRIBUTE_SENSITIVE));
    sim.set(key, &[(sys::CKA_EXTRACTABLE, FALSE)]).unwrap();
    for back in open {
        assert_eq!(sim.set(key, &[*back]), Err(sys::CKR_TEMPLATE_INCONSISTENT));
    }
    let flags = [sys::CKA_SENSITIVE, sys::CKA_EXTRACTABLE, sys::CKA_ALWAYS_SENSITIVE];
    assert_eq!(sim.flags(key, flags), [true, false, false]);
}

#[test]
fn public_keys_that_were_brought_in_verify_what_the_private_half_signed_elsewhere() {
    let signer = Sim::new("keys=ed:ed25519;big:p521");
    let verifier = Sim::new("seed=9");
    let curve: &[sys::CK_ATTRIBUTE_TYPE] = &[sys::CKA_KEY_TYPE, sys::CKA_EC_PARAMS, sys::CKA_EC_POINT];
    let rsa: &[_] = &[sys::CKA_KEY_TYPE, sys::CKA_MODULUS, sys::CKA_PUBLIC_EXPONENT];
    let pss = words(&[sys::CKM_SHA256, sys::CKG_MGF1_SHA256, 32]);
    let cases: [(&str, &[_], u64, &[u8]); 6] = [
        ("p256", curve, sys::CKM_ECDSA_SHA256, &[]),
        ("p384", curve, sys::CKM_ECDSA_SHA384, &[]),
        ("big", curve, sys::CKM_ECDSA_SHA512, &[]),
        ("ed", curve, sys::CKM_EDDSA, &[]),
        ("rsa2048", rsa, sys::CKM_SHA256_RSA_PKCS, &[]),
        ("rsa4096", rsa, sys::CKM_SHA256_RSA_PKCS_PSS, &pss),
    ];
    for (label, kinds, how, parameter) in cases {
        let public = signer.key(sys::CKO_PUBLIC_KEY, label);
        let values: Vec<_> = kinds.iter().map(|kind| (*kind, signer.value(public, *kind))).collect();
        let mut template = vec![(sys::CKA_CLASS, &PUBLIC_KEY[..]), (sys::CKA_LABEL, b"copy")];
        template.extend(values.iter().map(|(kind, value)| (*kind, value.as_slice())));
        let copy = verifier.create(&template).unwrap();
        let private = signer.key(sys::CKO_PRIVATE_KEY, label);
        let mut made = signer.sign(how, parameter, private, b"message").unwrap();
        verifier.verify(how, parameter, copy, b"message", &made).unwrap();
        made[17] ^= 1;
        let refused = verifier.verify(how, parameter, copy, b"message", &made);
        assert_eq!(refused, Err(sys::CKR_SIGNATURE_INVALID), "{label}");
        let signs = verifier.sign(how, parameter, copy, b"message");
        assert_eq!(signs, Err(sys::CKR_KEY_FUNCTION_NOT_PERMITTED), "{label}");
        assert_eq!(verifier.flags(copy, [sys::CKA_LOCAL, sys::CKA_PRIVATE]), [false, false], "{label}");
        for missing in [0, 2, 3, 4] {
            let mut template = template.clone();
            template.remove(missing);
            assert_eq!(verifier.create(&template), Err(sys::CKR_TEMPLATE_INCOMPLETE), "{label}");
        }
        let point = &values[2].1;
        // An even exponent, or a point that is cut off.
        template[4].1 = if kinds == rsa { &[2] } else { &point[..point.len() - 1] };
        assert_eq!(verifier.create(&template), Err(sys::CKR_ATTRIBUTE_VALUE_INVALID), "{label}");
    }
}

#[test]
fn a_key_runs_with_its_allowed_mechanisms_only() {
    let sim = Sim::new("");
    let only = |list: &[u64]| words(list);
    let (hmac, gcm) = (only(&[sys::CKM_SHA384_HMAC]), only(&[sys::CKM_AES_CTR, sys::CKM_AES_GCM]));
    let mac = sim.import(sys::CKK_GENERIC_SECRET, &"0b".repeat(20), &[(sys::CKA_ALLOWED_MECHANISMS, &hmac)]);
    assert_eq!(sim.value(mac, sys::CKA_ALLOWED_MECHANISMS), hmac);
    let made = sim.sign(sys::CKM_SHA384_HMAC, &[], mac, b"x").unwrap();
    sim.verify(sys::CKM_SHA384_HMAC, &[], mac, b"x", &made).unwrap();
    assert_eq!(sim.sign(sys::CKM_SHA256_HMAC, &[], mac, b"x"), Err(sys::CKR_MECHANISM_INVALID));
    let verified = sim.verify(sys::CKM_SHA256_HMAC, &[], mac, b"x", &made[..32]);
    assert_eq!(verified, Err(sys::CKR_MECHANISM_INVALID));
    let aes = sim.import(sys::CKK_AES, &"11".repeat(16), &[(sys::CKA_ALLOWED_MECHANISMS, &gcm)]);
    let counter = [words(&[128]), vec![0; 16]].concat();
    sim.encrypt(sys::CKM_AES_CTR, &counter, aes, b"x").unwrap();
    assert_eq!(sim.encrypt(sys::CKM_AES_ECB, &[], aes, &[0; 16]), Err(sys::CKR_MECHANISM_INVALID));
    assert_eq!(sim.decrypt(sys::CKM_AES_ECB, &[], aes, &[0; 16]), Err(sys::CKR_MECHANISM_INVALID));
    sim.encrypt(sys::CKM_AES_CTR, &counter, aes, b"a refusal leaves no operation behind").unwrap();
    let public = sim.generate_pair(
        sys::CKM_EC_KEY_PAIR_GEN,
        &[(sys::CKA_EC_PARAMS, &sim::bytes("06082a8648ce3d030107")), (sys::CKA_ALLOWED_MECHANISMS, &hmac)],
        &[],
    );
    let (public, private) = public.unwrap();
    let made = sim.sign(sys::CKM_ECDSA, &[], private, &[7; 32]).unwrap();
    let verified = sim.verify(sys::CKM_ECDSA, &[], public, &[7; 32], &made);
    assert_eq!(verified, Err(sys::CKR_MECHANISM_INVALID), "each half has its own list");
}

#[test]
fn lists_of_mechanisms_are_whole_and_an_empty_one_forbids_nothing() {
    let sim = Sim::new("");
    let class = sys::CKO_SECRET_KEY.to_ne_bytes();
    let kind = sys::CKK_GENERIC_SECRET.to_ne_bytes();
    let with = |list: &[u8]| {
        sim.create(&[
            (sys::CKA_CLASS, &class),
            (sys::CKA_KEY_TYPE, &kind),
            (sys::CKA_VALUE, &[7; 32]),
            (sys::CKA_ALLOWED_MECHANISMS, list),
        ])
    };
    assert_eq!(with(&[1; 12]), Err(sys::CKR_ATTRIBUTE_VALUE_INVALID));
    let free = with(&[]).unwrap();
    sim.raw.mac(sim.session, free, b"x").unwrap();
    assert_eq!(sim.value(free, sys::CKA_ALLOWED_MECHANISMS), b"");
}

#[test]
fn messages_begin_with_an_allowed_mechanism_only() {
    let sim = Sim::new("");
    let list = sim.sim.function_list_3().unwrap();
    for (allowed, expected) in
        [(sys::CKM_AES_GCM, sys::CKR_OK), (sys::CKM_AES_CTR, sys::CKR_MECHANISM_INVALID)]
    {
        let words = words(&[allowed]);
        let key = sim.import(sys::CKK_AES, &"11".repeat(16), &[(sys::CKA_ALLOWED_MECHANISMS, &words)]);
        let mut how = sim::mechanism(sys::CKM_AES_GCM, &[]);
        // SAFETY: the mechanism is a live local without a parameter.
        let code = unsafe { list.C_MessageEncryptInit.unwrap()(sim.session, &raw mut how, key) };
        assert_eq!(code, expected);
        if code == sys::CKR_OK {
            // SAFETY: a plain call.
            unsafe { list.C_MessageEncryptFinal.unwrap()(sim.session) };
        }
    }
}
