//! Rules by which calls do not go as they should, by hand.

#![expect(unsafe_code, reason = "calls of the C interface")]
#![expect(clippy::unwrap_used, reason = "a helper of tests fails its test")]
#![expect(dead_code, unused_imports, reason = "what the helpers can do beside this")]

#[path = "support/raw.rs"]
mod raw;

use cryptoki_sys as sys;
use p11_sim::Loaded;
use raw::Raw;

const DEVICE_ERROR: &str = "0x30";

/// A simulator of two tokens, with a session of the first that is logged in and its key for MACs.
fn ready(config: &str) -> (Loaded, Raw, u64, u64) {
    let sim = Loaded::private_copy(&format!("tokens=2,{config}")).unwrap();
    let raw = Raw(sim.function_list());
    raw.initialise().unwrap();
    let (session, key) = log_in(raw, 0);
    (sim, raw, session, key)
}

fn log_in(raw: Raw, token: usize) -> (u64, u64) {
    let session = raw.open(raw.slots().unwrap()[token]).unwrap();
    raw.log_in(session, "1234").unwrap();
    (session, raw.key(session, "hmac"))
}

#[test]
fn a_call_is_refused_before_it_does_anything_and_the_operation_is_over() {
    let (sim, raw, session, key) = ready("");
    sim.configure(&format!("fault=C_Sign:2={DEVICE_ERROR}@sim-0")).unwrap();
    let right = raw.mac(session, key, b"one").unwrap();
    let mut out = [0; 32];
    raw.sign_init(session, sys::CKM_SHA256_HMAC, key).unwrap();
    assert_eq!(raw.sign_into(session, b"one", &mut out).0, Err(sys::CKR_DEVICE_ERROR));
    assert_eq!(out, [0; 32]);
    assert_eq!(raw.mac(session, key, b"one"), Ok(right));
    assert_eq!(sim.answers_of(sys::CKR_DEVICE_ERROR), 1);
    assert_eq!(sim.answers_of(sys::CKR_OPERATION_ACTIVE), 0);
}

#[test]
fn a_call_that_begins_after_the_moment_in_its_input_is_counted() {
    const EARLY_NS: u64 = 60_000_000_000;
    let (sim, raw, session, key) = ready("stamped=1");
    let sign = |due_ns: u64| raw.mac(session, key, &due_ns.to_be_bytes()).unwrap();
    sign(sim.now_ns() + EARLY_NS);
    assert_eq!(sim.late().0, 0);
    let due = sim.now_ns() - EARLY_NS;
    sign(due);
    let (late, by) = sim.late();
    assert!(late == 1 && by.as_nanos() >= u128::from(EARLY_NS), "{late}, {by:?}");
    sim.reset_counters();
    assert_eq!(sim.late().0, 0);
}

#[test]
fn a_reply_is_lost_after_all_was_done() {
    let (sim, raw, session, key) = ready("");
    let right = raw.mac(session, key, b"one").unwrap();
    sim.configure("fault=C_Sign:1=0x5!").unwrap();
    let mut out = [0; 32];
    raw.sign_init(session, sys::CKM_SHA256_HMAC, key).unwrap();
    assert_eq!(raw.sign_into(session, b"one", &mut out).0, Err(sys::CKR_GENERAL_ERROR));
    assert_eq!(out, right);
}

#[test]
fn outputs_come_out_wrong_as_the_rule_says() {
    let (sim, raw, session, key) = ready("");
    let (one, two) = (raw.mac(session, key, b"one").unwrap(), raw.mac(session, key, b"two").unwrap());
    sim.configure("fault=C_Sign:1=flip;C_Sign:3=repeat;C_Sign:4=short").unwrap();
    let flipped = raw.mac(session, key, b"one").unwrap();
    let bits = one.iter().zip(flipped).map(|(a, b)| (a ^ b).count_ones()).sum::<u32>();
    assert_eq!(bits, 1);
    assert_eq!(raw.mac(session, key, b"one").unwrap(), one);
    assert_eq!(raw.mac(session, key, b"two").unwrap(), one, "the output before it");
    raw.sign_init(session, sys::CKM_SHA256_HMAC, key).unwrap();
    assert_eq!(raw.sign_into(session, b"two", &mut [0; 32]), (Ok(()), 31));
    assert_eq!(raw.mac(session, key, b"two").unwrap(), two);
}

#[test]
fn a_share_of_the_calls_is_the_same_for_the_same_seed() {
    let failed = |seed: u32| {
        let (_sim, raw, session, key) = ready(&format!("seed={seed},fault=ops:5%=0x30"));
        (0..400).map(|_| raw.mac(session, key, b"x").is_err()).collect::<Vec<_>>()
    };
    let first = failed(3);
    assert!((15..80).contains(&first.iter().filter(|failed| **failed).count()));
    assert_eq!(first, failed(3));
    assert_ne!(first, failed(4));
}

#[test]
fn a_lost_session_is_unknown_and_the_others_go_on() {
    let (sim, raw, session, key) = ready("");
    let other = raw.open(raw.slots().unwrap()[0]).unwrap();
    sim.configure("fault=C_SignInit:1=session-lost").unwrap();
    assert_eq!(raw.mac(session, key, b"x"), Err(sys::CKR_SESSION_HANDLE_INVALID));
    assert_eq!(raw.close(session), Err(sys::CKR_SESSION_HANDLE_INVALID));
    raw.mac(other, key, b"x").unwrap();
}

#[test]
fn a_lost_login_leaves_the_sessions_and_takes_the_private_keys_away() {
    let (sim, raw, session, key) = ready("");
    sim.configure("fault=C_Sign:1=login-lost").unwrap();
    assert_eq!(raw.mac(session, key, b"x"), Err(sys::CKR_USER_NOT_LOGGED_IN));
    assert_eq!(raw.mac(session, key, b"x"), Err(sys::CKR_KEY_HANDLE_INVALID));
    raw.log_in(session, "1234").unwrap();
    raw.mac(session, raw.key(session, "hmac"), b"x").unwrap();
}

#[test]
fn a_token_that_is_removed_takes_its_sessions_along_until_it_is_put_back() {
    let (sim, raw, session, key) = ready("");
    let (other, its_key) = log_in(raw, 1);
    let slots = raw.slots().unwrap();
    sim.configure("fault=C_Sign:1=removed@sim-0").unwrap();
    assert_eq!(raw.mac(session, key, b"x"), Err(sys::CKR_DEVICE_REMOVED));
    assert_eq!(raw.mac(session, key, b"x"), Err(sys::CKR_SESSION_HANDLE_INVALID));
    assert_eq!(raw.open(slots[0]), Err(sys::CKR_TOKEN_NOT_PRESENT));
    assert_eq!(raw.slots().unwrap(), [slots[1]], "those with a token");
    raw.mac(other, its_key, b"x").unwrap();
    sim.configure("fault=,removed=").unwrap();
    let (session, key) = log_in(raw, 0);
    raw.mac(session, key, b"x").unwrap();
    sim.configure("removed=sim-1").unwrap();
    assert_eq!(raw.mac(other, its_key, b"x"), Err(sys::CKR_SESSION_HANDLE_INVALID));
}

#[test]
fn a_module_that_is_dead_can_be_initialised_again() {
    let (sim, raw, session, key) = ready("");
    sim.configure("fault=C_Sign:1=dead").unwrap();
    assert_eq!(raw.mac(session, key, b"x"), Err(sys::CKR_CRYPTOKI_NOT_INITIALIZED));
    assert_eq!(raw.slots(), Err(sys::CKR_CRYPTOKI_NOT_INITIALIZED));
    // The rule counts anew, as it does after every start.
    sim.configure("tokens=2").unwrap();
    raw.initialise().unwrap();
    let (session, key) = log_in(raw, 0);
    raw.mac(session, key, b"x").unwrap();
}

#[test]
fn a_token_that_throttles_refuses_what_is_too_much_at_once() {
    let (sim, raw, session, key) = ready("");
    let other = raw.open(raw.slots().unwrap()[0]).unwrap();
    sim.configure("throttle=1,op_us=300000").unwrap();
    let both = std::thread::scope(|scope| {
        let calls = [session, other].map(|session| scope.spawn(move || raw.mac(session, key, b"x")));
        calls.map(|call| call.join().unwrap())
    });
    let refused = both.iter().filter(|result| **result == Err(sys::CKR_FUNCTION_FAILED)).count();
    assert_eq!((refused, both.iter().filter(|result| result.is_ok()).count()), (1, 1));
}

#[test]
fn faults_are_applied_to_a_module_behind_too() {
    let Some(behind) = p11_sim::cdylib_path() else { return };
    let behind = Loaded::open(&behind).unwrap();
    let (sim, raw, session, key) = ready(&format!("forward={}", behind.path().display()));
    let right = raw.mac(session, key, b"x").unwrap();
    sim.configure("fault=C_Sign:1=flip;C_Sign:2=0x30;C_Sign:4=session-lost").unwrap();
    assert_ne!(raw.mac(session, key, b"x").unwrap(), right);
    assert_eq!(raw.mac(session, key, b"x"), Err(sys::CKR_DEVICE_ERROR));
    assert_eq!(raw.mac(session, key, b"x"), Ok(right));
    assert_eq!(raw.mac(session, key, b"x"), Err(sys::CKR_SESSION_HANDLE_INVALID));
}
