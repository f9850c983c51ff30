//! Wrong configuration and an unhelpful environment: each has its kind, what to do about it, and leaves nothing open.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails its test")]

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::session::UserType;
use cryptoki::types::AuthPin;
use hsmux::{Engine, Error, ErrorKind, Hmac, Outcome, Retry};
use hsmux_tests::{Hsm, LONG};

fn says(error: &Error) -> (ErrorKind, Retry, Outcome) {
    (error.kind(), error.retry(), error.outcome())
}

/// What a person has to change.
fn for_operator(kind: ErrorKind) -> (ErrorKind, Retry, Outcome) {
    (kind, Retry::Operator, Outcome::NotDone)
}

fn module(path: impl Into<std::path::PathBuf>) -> Error {
    Engine::builder().module(path).tokens(["sim-0"]).pin("1234".to_owned()).build().unwrap_err()
}

#[test]
fn a_module_that_is_none_is_named() {
    let text = std::env::temp_dir().join(format!("hsmux-tests-{}.txt", std::process::id()));
    std::fs::write(&text, "no library").unwrap();
    let absent = text.with_extension("absent");
    for path in [&absent, &text] {
        let error = module(path);
        assert_eq!(says(&error), for_operator(ErrorKind::Module));
        assert!(error.to_string().contains(&format!("cannot load {}", path.display())), "{error}");
    }
    std::fs::remove_file(text).unwrap();
}

#[test]
#[cfg(target_os = "linux")]
fn a_library_that_is_no_module_is_named() {
    // Every process has the C library.
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let libc =
        maps.split_whitespace().find(|word| word.contains("/libc.so") || word.contains("/libc-")).unwrap();
    let error = module(libc);
    assert_eq!(says(&error), for_operator(ErrorKind::Module));
    assert!(error.to_string().contains("is not a PKCS#11 library"), "{error}");
}

#[test]
fn a_token_that_is_not_there_is_told_with_those_that_are() {
    let hsm = Hsm::new(3, "");
    let error = hsm.builder().tokens(["sim-1", "pay-1"]).build().unwrap_err();
    assert_eq!(says(&error), for_operator(ErrorKind::TokenNotFound));
    assert!(error.to_string().contains("pay-1; present are: sim-0, sim-1, sim-2"), "{error}");
    let none: [&str; 0] = [];
    let error = hsm.builder().tokens(none).build().unwrap_err();
    assert_eq!(says(&error), for_operator(ErrorKind::Configuration));
    assert_eq!(hsm.sim.calls_of("C_Login"), 0);
    hsm.wait_closed();
}

#[test]
fn a_wrong_pin_is_sent_once_and_the_next_is_not_sent_at_all() {
    let hsm = Hsm::new(2, "");
    let error = hsm.builder().pin("4321".to_owned()).build().unwrap_err();
    assert_eq!(says(&error), for_operator(ErrorKind::PinRefused));
    assert!(!error.to_string().contains("4321"), "{error}");
    assert_eq!(hsm.sim.calls_of("C_Login"), 1, "the first token refused it, so the second was not asked");
    hsm.wait_closed();
    // The right one: but who knows that before it is tried?
    let error = hsm.builder().build().unwrap_err();
    assert_eq!(says(&error), for_operator(ErrorKind::PinLocked));
    assert!(error.to_string().contains("sim-0"), "{error}");
    assert_eq!(hsm.sim.calls_of("C_Login"), 1);
    hsm.wait_closed();
    // The other token has not been tried.
    let engine = hsm.builder().tokens(["sim-1"]).build().unwrap();
    assert_eq!(engine.key("hmac").unwrap().sign(Hmac::SHA256, b"x").wait().unwrap().len(), 32);
}

#[test]
fn no_pin_is_sent_where_it_could_be_the_last() {
    let hsm = Hsm::new(1, "pin_tries=1");
    let error = hsm.builder().build().unwrap_err();
    assert_eq!(says(&error), for_operator(ErrorKind::PinLocked));
    assert!(error.to_string().contains("one more wrong try"), "{error}");
    assert_eq!(hsm.sim.calls_of("C_Login"), 0);
    hsm.wait_closed();
}

#[test]
fn no_pin_is_sent_to_a_token_that_is_locked() {
    let hsm = Hsm::new(1, "");
    // Other software than the engine, which would not do that.
    let other = Pkcs11::new(hsm.sim.path()).unwrap();
    other.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).unwrap();
    let session = other.open_rw_session(other.get_slots_with_token().unwrap()[0]).unwrap();
    for _ in 0..3 {
        session.login(UserType::User, Some(&AuthPin::from("0000"))).unwrap_err();
    }
    let error = hsm.builder().build().unwrap_err();
    assert_eq!(says(&error), for_operator(ErrorKind::PinLocked));
    assert!(error.to_string().contains("is locked"), "{error}");
    assert_eq!(hsm.sim.calls_of("C_Login"), 3);
}

#[test]
fn a_token_that_gives_fewer_sessions_works_with_those() {
    // Two of the four are the engine's own.
    let mut hsm = Hsm::new(2, "sessions=4,op_us=200");
    let engine = hsm.builder().sessions(8).build().unwrap();
    hsm.refused = 2;
    let snapshot = engine.snapshot();
    assert_eq!(snapshot.tokens.iter().map(|token| token.sessions).collect::<Vec<_>>(), [2, 2]);
    let key = engine.key("hmac").unwrap();
    let pending: Vec<_> =
        (0..100_u8).map(|i| key.sign(Hmac::SHA256, vec![i]).deadline_in(LONG).submit().unwrap()).collect();
    pending.into_iter().for_each(|pending| drop(pending.wait().unwrap()));
    assert_eq!(hsm.open_sessions(), 8);
    hsm.assert_sound();
    assert_eq!(engine.drain(LONG), 0);
    drop((key, engine));
    hsm.wait_closed();
}

#[test]
fn a_token_without_a_session_for_requests_is_busy() {
    let mut hsm = Hsm::new(1, "sessions=2");
    let error = hsm.builder().build().unwrap_err();
    hsm.refused = 1;
    assert_eq!(says(&error), (ErrorKind::Busy, Retry::Later, Outcome::NotDone));
    hsm.wait_closed();
}

#[test]
fn with_consent_the_right_pin_is_sent_despite_the_warning_and_clears_it() {
    let hsm = Hsm::new(1, "");
    let wrong = Engine::builder().module(hsm.sim.path()).tokens(["sim-0"]).pin("0000".to_owned());
    assert_eq!(says(&wrong.build().unwrap_err()), for_operator(ErrorKind::PinRefused));
    assert_eq!(says(&hsm.builder().build().unwrap_err()), for_operator(ErrorKind::PinLocked));
    let engine = hsm.builder().pin_despite_warning().build().unwrap();
    assert_eq!(hsm.sim.calls_of("C_Login"), 2);
    drop(engine);
    hsm.wait_closed();
    assert!(hsm.builder().build().is_ok(), "the flag is gone");
}
