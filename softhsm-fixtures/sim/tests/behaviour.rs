//! A loaded copy by hand: limits, hangs, login, counters, time, forwarding.

#![expect(unsafe_code, reason = "calls of the C interface")]
#![expect(clippy::unwrap_used, reason = "a helper of tests fails its test")]

#[path = "support/raw.rs"]
mod raw;

use std::ptr;
use std::time::Duration;

use cryptoki_sys as sys;
use p11_sim::Loaded;
use raw::{Raw, call, len};

/// A bound on waits for threads of the test itself.
const LONG: Duration = Duration::from_secs(30);

fn load(config: &str) -> (Loaded, Raw) {
    let sim = Loaded::private_copy(config).unwrap();
    let raw = Raw(sim.function_list());
    raw.initialise().unwrap();
    (sim, raw)
}

/// A session with the first token, logged in, and its key for MACs.
fn ready(raw: Raw) -> (u64, u64) {
    let session = raw.open(raw.slots().unwrap()[0]).unwrap();
    raw.log_in(session, "1234").unwrap();
    (session, raw.key(session, "hmac"))
}

/// Monotonic seconds, from the C library: a test may look at the clock, the code under test has its own.
fn now() -> Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the time is written to a live local.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs().try_into().unwrap())
}

#[test]
fn a_token_opens_as_many_sessions_as_it_says() {
    let (sim, raw) = load("sessions=2,tokens=2");
    let slots = raw.slots().unwrap();
    assert_eq!(raw.token_info(slots[0]).unwrap().ulMaxSessionCount, 2);
    let first = raw.open(slots[0]).unwrap();
    raw.open(slots[0]).unwrap();
    assert_eq!(raw.open(slots[0]), Err(sys::CKR_SESSION_COUNT));
    raw.open(slots[1]).unwrap();
    raw.close(first).unwrap();
    let again = raw.open(slots[0]).unwrap();
    assert_ne!(again, first, "a handle never comes twice");
    assert_eq!(raw.close(first), Err(sys::CKR_SESSION_HANDLE_INVALID));
    sim.configure("sessions=0").unwrap();
    raw.open(slots[0]).unwrap();
}

#[test]
fn a_hanging_call_returns_when_it_is_released_and_not_before() {
    let (sim, raw) = load("tokens=2,hang=C_Sign:2@sim-0");
    let (session, key) = ready(raw);
    raw.mac(session, key, b"one").unwrap();
    std::thread::scope(|scope| {
        let hung = scope.spawn(|| raw.mac(session, key, b"two"));
        assert!(sim.wait_hanging(1, LONG));
        assert_eq!((sim.hanging(), hung.is_finished()), (1, false));
        let other = raw.open(raw.slots().unwrap()[0]).unwrap();
        raw.mac(other, key, b"others are served").unwrap();
        sim.release_hangs();
        assert!(hung.join().unwrap().is_ok());
    });
    assert_eq!(sim.hanging(), 0);
    raw.mac(session, key, b"three").unwrap();
}

#[test]
fn every_later_call_hangs_too_where_the_rule_says_so() {
    let (sim, raw) = load("");
    let (session, key) = ready(raw);
    let other = raw.open(raw.slots().unwrap()[0]).unwrap();
    sim.configure("hang=C_Sign:1+@sim-0").unwrap();
    std::thread::scope(|scope| {
        let hung = [session, other].map(|session| scope.spawn(move || raw.mac(session, key, b"x")));
        assert!(sim.wait_hanging(2, LONG));
        sim.release_hangs();
        hung.into_iter().for_each(|thread| assert!(thread.join().unwrap().is_ok()));
    });
}

#[test]
fn a_call_that_hung_while_its_session_was_closed_does_nothing() {
    let (sim, raw) = load("hang=C_Sign:1");
    let (session, key) = ready(raw);
    std::thread::scope(|scope| {
        let hung = scope.spawn(|| raw.mac(session, key, b"x"));
        assert!(sim.wait_hanging(1, LONG));
        raw.finalise().unwrap();
        raw.initialise().unwrap();
        assert_eq!(sim.hanging(), 1, "it outlives the instance");
        sim.release_hangs();
        assert_eq!(hung.join().unwrap(), Err(sys::CKR_SESSION_HANDLE_INVALID));
    });
}

#[test]
fn two_threads_in_one_session_are_noticed() {
    let (sim, raw) = load("hang=C_Sign:1");
    let (session, key) = ready(raw);
    std::thread::scope(|scope| {
        let hung = scope.spawn(|| raw.mac(session, key, b"x"));
        assert!(sim.wait_hanging(1, LONG));
        assert_eq!(sim.concurrent_use(), 0);
        raw.info(session).unwrap();
        assert_eq!(sim.concurrent_use(), 1);
        sim.release_hangs();
        hung.join().unwrap().unwrap();
    });
}

#[test]
fn three_wrong_pins_lock_the_token_for_good() {
    let (_sim, raw) = load("");
    let slot = raw.slots().unwrap()[0];
    let flag = |flag| raw.token_info(slot).unwrap().flags & flag != 0;
    let session = raw.open(slot).unwrap();
    assert_eq!(raw.log_in(session, "0"), Err(sys::CKR_PIN_INCORRECT));
    assert!(flag(sys::CKF_USER_PIN_COUNT_LOW) && !flag(sys::CKF_USER_PIN_FINAL_TRY));
    assert_eq!(raw.log_in(session, "0"), Err(sys::CKR_PIN_INCORRECT));
    assert!(flag(sys::CKF_USER_PIN_FINAL_TRY) && !flag(sys::CKF_USER_PIN_LOCKED));
    assert_eq!(raw.log_in(session, "0"), Err(sys::CKR_PIN_INCORRECT));
    assert!(flag(sys::CKF_USER_PIN_LOCKED));
    raw.finalise().unwrap();
    raw.initialise().unwrap();
    let session = raw.open(slot).unwrap();
    assert_eq!(raw.log_in(session, "1234"), Err(sys::CKR_PIN_LOCKED));
}

#[test]
fn the_login_belongs_to_all_sessions_and_goes_with_the_last() {
    let (_sim, raw) = load("");
    let slot = raw.slots().unwrap()[0];
    let (first, second) = (raw.open(slot).unwrap(), raw.open(slot).unwrap());
    assert_eq!(raw.find(first, &[]).unwrap().len(), 4, "the public halves");
    raw.log_in(first, "1234").unwrap();
    assert_eq!(raw.log_in(second, "1234"), Err(sys::CKR_USER_ALREADY_LOGGED_IN));
    assert_eq!(raw.info(second).unwrap().state, sys::CKS_RW_USER_FUNCTIONS);
    let key = raw.key(second, "hmac");
    raw.close(first).unwrap();
    raw.mac(second, key, b"x").unwrap();
    raw.close(second).unwrap();
    let third = raw.open(slot).unwrap();
    assert_eq!(raw.info(third).unwrap().state, sys::CKS_RW_PUBLIC_SESSION);
    assert_eq!(raw.mac(third, key, b"x"), Err(sys::CKR_KEY_HANDLE_INVALID));
}

#[test]
fn calls_are_counted_by_function_and_token_and_survive_their_sessions() {
    let (sim, raw) = load("tokens=2");
    let slots = raw.slots().unwrap();
    for (slot, calls) in slots.iter().zip([3, 5]) {
        let session = raw.open(*slot).unwrap();
        raw.log_in(session, "1234").unwrap();
        let key = raw.key(session, "hmac");
        (0..calls).for_each(|_| assert!(raw.mac(session, key, b"x").is_ok()));
        raw.close(session).unwrap();
    }
    raw.open(slots[1]).unwrap();
    let of =
        |function| (sim.calls_on(function, "sim-0"), sim.calls_on(function, "sim-1"), sim.calls_of(function));
    assert_eq!((of("C_Sign"), of("C_SignInit")), ((3, 5, 8), (3, 5, 8)));
    assert_eq!((of("C_OpenSession"), of("C_CloseSession")), ((1, 2, 3), (1, 1, 2)));
    assert_eq!((of("C_Initialize"), of("C_GetSlotList")), ((0, 0, 1), (0, 0, 1)));
    raw.finalise().unwrap();
    assert_eq!(of("C_Sign"), (3, 5, 8));
    sim.reset_counters();
    assert_eq!(of("C_Sign"), (0, 0, 0));
}

#[test]
fn a_query_and_a_small_buffer_keep_the_operation_and_success_ends_it() {
    for config in ["", "null=1", "null=1,call_us=1"] {
        let (_sim, raw) = load(config);
        let (session, key) = ready(raw);
        raw.sign_init(session, sys::CKM_SHA256_HMAC, key).unwrap();
        assert_eq!(raw.sign_init(session, sys::CKM_SHA256_HMAC, key), Err(sys::CKR_OPERATION_ACTIVE));
        let mut length = 0;
        let data = b"x".as_ptr().cast_mut();
        call!(raw, C_Sign(session, data, 1, ptr::null_mut(), &raw mut length)).unwrap();
        assert_eq!(length, 32, "{config}");
        let mut small = [0; 31];
        assert_eq!(raw.sign_into(session, b"x", &mut small), (Err(sys::CKR_BUFFER_TOO_SMALL), 32));
        assert_eq!(small, [0; 31], "{config}");
        let mut large = [0; 40];
        assert_eq!(raw.sign_into(session, b"x", &mut large), (Ok(()), 32));
        assert_eq!(&large[32..], [0; 8], "{config}");
        let again = raw.sign_into(session, b"x", &mut large).0;
        assert_eq!(again, Err(sys::CKR_OPERATION_NOT_INITIALIZED), "{config}");
    }
}

#[test]
fn each_attribute_is_answered_by_itself() {
    let (_sim, raw) = load("");
    let (session, key) = ready(raw);
    let (mut label, mut short, mut value) = ([0_u8; 10], [0_u8; 1], [0_u8; 32]);
    let attribute = |type_, buffer: &mut [u8]| sys::CK_ATTRIBUTE {
        type_,
        pValue: buffer.as_mut_ptr().cast(),
        ulValueLen: len(buffer),
    };
    let mut template = [
        attribute(sys::CKA_VALUE, &mut value),
        attribute(sys::CKA_LABEL, &mut label),
        attribute(sys::CKA_CLASS, &mut short),
        attribute(sys::CKA_MODULUS, &mut []),
        sys::CK_ATTRIBUTE { type_: sys::CKA_ID, ..Default::default() },
    ];
    let code = |result: Result<(), u64>| result.unwrap_err();
    let one = |at: usize, template: &mut [sys::CK_ATTRIBUTE; 5]| {
        call!(raw, C_GetAttributeValue(session, key, &raw mut template[at], 1))
    };
    assert_eq!(code(one(0, &mut template)), sys::CKR_ATTRIBUTE_SENSITIVE);
    assert_eq!(code(one(2, &mut template)), sys::CKR_BUFFER_TOO_SMALL);
    assert_eq!(code(one(3, &mut template)), sys::CKR_ATTRIBUTE_TYPE_INVALID);
    template[2].ulValueLen = 1;
    assert!(call!(raw, C_GetAttributeValue(session, key, template.as_mut_ptr(), 5)).is_err());
    let unavailable = sys::CK_UNAVAILABLE_INFORMATION;
    let lengths = template.map(|attribute| attribute.ulValueLen);
    assert_eq!(lengths, [unavailable, 4, unavailable, unavailable, 4]);
    assert_eq!((&label[..4], value), (&b"hmac"[..], [0; 32]));
}

#[test]
fn session_objects_go_with_their_session_and_token_objects_stay() {
    let (_sim, raw) = load("");
    let (session, _) = ready(raw);
    let slot = raw.slots().unwrap()[0];
    let other = raw.open(slot).unwrap();
    let make = |session: u64, label: &[u8], on_token: u8| {
        let (class, kind) = (sys::CKO_SECRET_KEY.to_ne_bytes(), sys::CKK_AES.to_ne_bytes());
        // Bound first: the template points to the values and does not keep them alive.
        let values: [(_, &[u8]); 5] = [
            (sys::CKA_CLASS, &class),
            (sys::CKA_KEY_TYPE, &kind),
            (sys::CKA_VALUE, &[5; 16]),
            (sys::CKA_LABEL, label),
            (sys::CKA_TOKEN, &[on_token]),
        ];
        let mut template = raw::attributes(&values);
        let mut object = 0;
        call!(raw, C_CreateObject(session, template.as_mut_ptr(), len(&template), &raw mut object)).unwrap();
    };
    let count = |session, label: &[u8]| raw.find(session, &[(sys::CKA_LABEL, label)]).unwrap().len();
    make(other, b"passing", 0);
    make(other, b"lasting", 1);
    assert_eq!((count(session, b"passing"), count(session, b"lasting")), (1, 1));
    raw.close(other).unwrap();
    assert_eq!((count(session, b"passing"), count(session, b"lasting")), (0, 1));
    raw.finalise().unwrap();
    raw.initialise().unwrap();
    let (session, _) = ready(raw);
    assert_eq!(count(session, b"lasting"), 1);
}

#[test]
fn an_operation_takes_its_time_and_one_core_does_one_after_the_other() {
    let (_sim, raw) = load("op_us=20000,call_us=10000,cores=1");
    let (session, key) = ready(raw);
    let other = raw.open(raw.slots().unwrap()[0]).unwrap();
    for session in [session, other] {
        raw.sign_init(session, sys::CKM_SHA256_HMAC, key).unwrap();
    }
    let begun = now();
    std::thread::scope(|scope| {
        for session in [session, other] {
            scope.spawn(move || raw.sign_into(session, b"x", &mut [0; 32]).0.unwrap());
        }
    });
    // 5 ms there, 20 ms for each on the core, 5 ms back.
    assert!(now() - begun >= Duration::from_millis(50), "{:?}", now() - begun);
}

#[test]
fn the_null_mode_answers_the_same_on_all_tokens_and_nothing_that_looks_empty() {
    let (_sim, raw) = load("null=1,tokens=2");
    let answers: Vec<_> = raw
        .slots()
        .unwrap()
        .into_iter()
        .map(|slot| {
            let session = raw.open(slot).unwrap();
            raw.log_in(session, "1234").unwrap();
            raw.mac(session, raw.key(session, "hmac"), b"x").unwrap()
        })
        .collect();
    assert_eq!(answers[0], answers[1]);
    assert!(answers[0].iter().collect::<std::collections::HashSet<_>>().len() > 20, "{answers:?}");
}

#[test]
fn the_null_mode_knows_the_length_of_every_signature() {
    let (_sim, raw) = load("null=1");
    let (session, _) = ready(raw);
    let cases = [
        ("rsa2048", sys::CKM_RSA_PKCS, 256),
        ("rsa4096", sys::CKM_RSA_PKCS, 512),
        ("p256", sys::CKM_ECDSA, 64),
        ("p384", sys::CKM_ECDSA, 96),
        ("hmac", sys::CKM_SHA256_HMAC, 32),
    ];
    for (label, mechanism, length) in cases {
        raw.sign_init(session, mechanism, raw.key(session, label)).unwrap();
        assert_eq!(raw.sign_into(session, &[0; 32], &mut [0; 600]), (Ok(()), length), "{label}");
    }
}

#[test]
fn a_key_handle_of_another_token_is_refused() {
    for config in ["tokens=2", "tokens=2,null=1"] {
        let (_sim, raw) = load(config);
        let (_, key) = ready(raw);
        let other = raw.open(raw.slots().unwrap()[1]).unwrap();
        raw.log_in(other, "1234").unwrap();
        assert_eq!(raw.mac(other, key, b"x"), Err(sys::CKR_KEY_HANDLE_INVALID), "{config}");
    }
}

#[test]
fn calls_are_forwarded_with_counts_limits_and_hangs_in_front() {
    let behind = Loaded::private_copy("tokens=2,seed=4").unwrap();
    let (sim, raw) = load(&format!("forward={},sessions=1,hang=C_Sign:2@sim-0", behind.path().display()));
    let (session, key) = ready(raw);
    assert_eq!(raw.open(raw.slots().unwrap()[0]), Err(sys::CKR_SESSION_COUNT));
    let made = raw.mac(session, key, b"x").unwrap();
    let expected = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &p11_sim::material::hmac(4, "hmac", 0));
    assert_eq!(made, ring::hmac::sign(&expected, b"x").as_ref());
    std::thread::scope(|scope| {
        let hung = scope.spawn(|| raw.mac(session, key, b"x"));
        assert!(sim.wait_hanging(1, LONG));
        assert_eq!((sim.calls_on("C_Sign", "sim-0"), behind.calls_of("C_Sign")), (2, 1));
        sim.release_hangs();
        assert_eq!(hung.join().unwrap(), Ok(made));
    });
    raw.close(session).unwrap();
    raw.finalise().unwrap();
    assert_eq!((behind.calls_of("C_Sign"), behind.calls_of("C_Finalize")), (2, 1));
}

#[test]
fn a_wrong_configuration_is_refused_before_and_while_in_use() {
    assert!(Loaded::private_copy("colour=blue").is_err());
    let (sim, raw) = load("");
    assert!(sim.configure("tokens=3").is_err());
    assert!(sim.configure("op_us=fast").is_err());
    raw.finalise().unwrap();
    sim.configure("tokens=3").unwrap();
    let mut args =
        sys::CK_C_INITIALIZE_ARGS { pReserved: c"nonsense".as_ptr().cast_mut().cast(), ..Default::default() };
    call!(raw, C_Initialize((&raw mut args).cast())).unwrap();
    assert_eq!(raw.slots().unwrap().len(), 3, "what was configured by call comes first");
}

#[test]
fn what_cannot_be_done_is_answered_with_the_standards_code() {
    let (_sim, raw) = load("");
    let slot = raw.slots().unwrap()[0];
    assert_eq!(raw.initialise(), Err(sys::CKR_CRYPTOKI_ALREADY_INITIALIZED));
    assert_eq!(raw.open(slot + 7), Err(sys::CKR_SLOT_ID_INVALID));
    let session = raw.open(slot).unwrap();
    assert_eq!(call!(raw, C_DigestUpdate(session, ptr::null_mut(), 0)), Err(sys::CKR_FUNCTION_NOT_SUPPORTED));
    assert_eq!(call!(raw, C_CancelFunction(session)), Err(sys::CKR_FUNCTION_NOT_PARALLEL));
    let mut handle = 0;
    let parallel = call!(raw, C_OpenSession(slot, 0, ptr::null_mut(), None, &raw mut handle));
    assert_eq!(parallel, Err(sys::CKR_SESSION_PARALLEL_NOT_SUPPORTED));
    raw.finalise().unwrap();
    assert_eq!(raw.slots(), Err(sys::CKR_CRYPTOKI_NOT_INITIALIZED));
    assert_eq!(raw.info(session).err(), Some(sys::CKR_CRYPTOKI_NOT_INITIALIZED));
}
