//! Codes that single vendors' modules mean otherwise than the standard.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails its test")]

use hsmux::{AesGcm, Error, ErrorKind, ModuleKind, Outcome, Retry};
use hsmux_tests::{Hsm, LONG, eventually};

/// What a caller hears of a code that a module of this kind answers to `C_Decrypt`, and how many sessions it costs.
fn told(kind: ModuleKind, function: &str, code: &str) -> (ErrorKind, Retry, Outcome, u64) {
    let hsm = Hsm::new(1, "");
    let engine = hsm.builder().sessions(1).module_kind(kind).build().unwrap();
    let key = engine.key("aes256").unwrap();
    let good = key.encrypt(AesGcm::new(), b"x".as_slice()).wait().unwrap();
    let opened = hsm.sim.calls_of("C_OpenSession");
    hsm.sim.configure(&format!("fault={function}:1={code}")).unwrap();
    let request = key.decrypt(AesGcm::new(), good.as_bytes()).at_most_once();
    let error: Error = request.deadline_in(LONG).wait().unwrap_err();
    // The session after the one that was lost, if it was, has been opened once it has served.
    let serves = || key.decrypt(AesGcm::new(), good.as_bytes()).deadline_in(LONG).wait().is_ok();
    eventually("it serves again", serves);
    (error.kind(), error.retry(), error.outcome(), hsm.sim.calls_of("C_OpenSession") - opened)
}

#[test]
fn a_code_is_told_as_the_module_means_it_and_costs_a_session_only_where_it_should() {
    use {ErrorKind as K, Outcome as O, Retry as R};
    let cases = [
        (ModuleKind::Standard, "C_Decrypt", "0x6", (K::DecryptFailed, R::Never, O::Done, 0)),
        (ModuleKind::CloudHsmSdk5, "C_Decrypt", "0x6", (K::Busy, R::Later, O::NotDone, 0)),
        (ModuleKind::YubiHsm, "C_Decrypt", "0x6", (K::Device, R::Now, O::Unknown, 1)),
        (ModuleKind::CloudHsmSdk3, "C_DecryptInit", "0x90", (K::Busy, R::Later, O::NotDone, 1)),
        (ModuleKind::Pkcs11Proxy, "C_Decrypt", "0x30", (K::SessionLost, R::Now, O::Unknown, 1)),
        (ModuleKind::Standard, "C_Decrypt", "0x30", (K::Device, R::Now, O::Unknown, 1)),
    ];
    for (kind, function, code, expected) in cases {
        assert_eq!(told(kind, function, code), expected, "{kind:?}: {function} answers {code}");
    }
}

#[test]
fn a_group_of_luna_that_has_lost_all_members_is_a_lost_token() {
    let (kind, _, outcome, opened) = told(ModuleKind::LunaHa, "C_Decrypt", "0x30");
    // The token's own two sessions, and the one for requests.
    assert_eq!((kind, outcome, opened), (ErrorKind::TokenLost, Outcome::Unknown, 3));
}

#[test]
fn a_module_is_of_one_kind_in_a_process() {
    let hsm = Hsm::new(1, "");
    let _engine = hsm.builder().build().unwrap();
    let error = hsm.builder().module_kind(ModuleKind::YubiHsm).build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
}
