//! The same faults in every mode, and in front of other modules.

use std::process::Command;

use cryptoki_sys as sys;

use crate::place::{LONG, Place, eventually};

#[test]
fn codes_come_before_and_after_the_call() {
    for place in Place::all("count_executions=100") {
        place.configure("fault=C_Sign:1=0x30!;C_Sign:2=0x31;C_SignInit:3=0x6");
        assert_eq!(place.mac(b"one"), Err(sys::CKR_DEVICE_ERROR), "{}", place.token);
        assert_eq!(place.mac(b"two"), Err(sys::CKR_DEVICE_MEMORY), "{}", place.token);
        assert_eq!(place.mac(b"three"), Err(sys::CKR_FUNCTION_FAILED), "{}", place.token);
        place.mac(b"four").unwrap();
        assert_eq!(place.sim.executions(b"one"), 1, "{}", place.token);
        assert_eq!(place.sim.executions(b"three"), 0, "{}", place.token);
        let answered = [0x30, 0x31, 0x6].map(|code| place.sim.answers_of(code));
        assert_eq!(answered, [1, 1, 1], "{}", place.token);
    }
}

#[test]
fn outputs_are_flipped_cut_stretched_and_repeated() {
    for place in Place::all("") {
        place.configure("fault=C_Sign:2=flip;C_Sign:3=short;C_Sign:4=long;C_Sign:6=repeat");
        let right = place.mac(b"x").unwrap();
        let flipped = place.mac(b"x").unwrap();
        let bits = right.iter().zip(flipped).map(|(a, b)| (a ^ b).count_ones()).sum::<u32>();
        assert_eq!(bits, 1, "{}", place.token);
        for length in [31, 33, 32] {
            place.raw.sign_init(place.session, sys::CKM_SHA256_HMAC, place.key).unwrap();
            let said = place.raw.sign_into(place.session, b"x", &mut [0; 40]);
            assert_eq!(said, (Ok(()), length), "{}", place.token);
        }
        assert_eq!(place.mac(b"y"), Ok(right), "that of the call before: {}", place.token);
    }
}

#[test]
fn sessions_logins_tokens_and_the_module_are_lost_and_come_back() {
    for place in Place::all("") {
        let right = place.mac(b"x").unwrap();
        let losses = [
            ("session-lost", Some(sys::CKR_SESSION_HANDLE_INVALID)),
            ("removed-20", Some(sys::CKR_DEVICE_REMOVED)),
            // What a module answers to that is its own affair, and the null mode knows no login.
            ("login-lost", None),
            ("dead", Some(sys::CKR_CRYPTOKI_NOT_INITIALIZED)),
        ];
        for (loss, code) in losses {
            let (session, key) = place.ready().unwrap();
            place.configure(&format!("fault=C_SignInit:1={loss}"));
            let answer = place.raw.mac(session, key, b"x");
            if code.is_some() {
                assert_eq!(answer.err(), code, "{loss} on {}", place.token);
            }
            if loss == "dead" {
                place.raw.initialise().unwrap();
            }
            let again = || place.ready().and_then(|(session, key)| place.raw.mac(session, key, b"x"));
            eventually("it is back", || again() == Ok(right));
        }
    }
}

#[test]
fn a_lost_login_takes_the_private_keys_along() {
    for place in [Place::new(""), Place::forwarding("")].into_iter().chain(Place::softhsm("")) {
        place.configure("fault=C_SignInit:1=login-lost");
        place.mac(b"x").unwrap_err();
        let found = place.raw.find(place.session, &[(sys::CKA_LABEL, b"hmac")]).unwrap();
        assert!(found.is_empty(), "{}", place.token);
    }
}

#[test]
fn what_is_too_much_at_once_is_refused() {
    for place in Place::all("") {
        let (other, key) = place.ready().unwrap();
        place.raw.sign_init(other, sys::CKM_SHA256_HMAC, key).unwrap();
        place.configure("throttle=1,fault=C_Sign:1=hang!");
        std::thread::scope(|scope| {
            let runs = scope.spawn(|| place.mac(b"x"));
            assert!(place.sim.wait_hanging(1, LONG));
            let refused = place.raw.sign_into(other, b"x", &mut [0; 32]).0;
            place.sim.release_hangs();
            assert_eq!(refused, Err(sys::CKR_FUNCTION_FAILED), "{}", place.token);
            runs.join().unwrap().unwrap();
        });
    }
}

/// Runs this test in a process of its own, which a rule ends. Of the signals the numbers are those of Linux and macOS.
#[test]
fn a_process_ends_as_the_rule_says() {
    use std::os::unix::process::ExitStatusExt;
    const RULE: &str = "P11_SIM_TEST_ENDS_BY";
    if let Ok(rule) = std::env::var(RULE) {
        let place = Place::new(&format!("fault=C_Sign:1={rule}"));
        place.mac(b"x").unwrap();
        return;
    }
    let name = "everywhere::a_process_ends_as_the_rule_says";
    for (rule, signal) in [("abort", Some(libc::SIGABRT)), ("segfault", Some(libc::SIGSEGV)), ("flip", None)]
    {
        let mut child = Command::new(std::env::current_exe().unwrap());
        let ended = child.args(["--exact", name]).env(RULE, rule).output().unwrap().status;
        assert_eq!(ended.signal(), signal, "{rule}");
    }
}
