use super::*;

fn of(function: Function, code: u64) -> Class {
    Fault::new(function, code).class()
}

#[test]
fn a_module_without_such_objects_is_told_from_one_that_is_full_or_gone() {
    let says = |code| Fault::new(Function::CreateObject, code).refuses_such_objects();
    assert!(says(sys::CKR_ATTRIBUTE_VALUE_INVALID) && says(sys::CKR_TEMPLATE_INCONSISTENT));
    assert!(says(sys::CKR_FUNCTION_NOT_SUPPORTED));
    assert!(Fault::of(Function::CreateObject, Code::Missing).refuses_such_objects());
    for code in [
        sys::CKR_DEVICE_MEMORY,
        sys::CKR_DEVICE_REMOVED,
        sys::CKR_DEVICE_ERROR,
        sys::CKR_FUNCTION_FAILED,
        sys::CKR_GENERAL_ERROR,
        sys::CKR_SESSION_HANDLE_INVALID,
        sys::CKR_USER_NOT_LOGGED_IN,
        sys::CKR_SESSION_READ_ONLY,
        sys::CKR_TOKEN_WRITE_PROTECTED,
    ] {
        assert!(!says(code), "0x{code:x}");
    }
    assert!(!Fault::of(Function::CreateObject, Code::Resetting).refuses_such_objects());
}

#[test]
fn the_table_lists_every_code_once_and_by_its_own_name() {
    for (i, row) in TABLE.iter().enumerate() {
        assert!(
            TABLE[..i].iter().all(|other| other.code != row.code && other.name != row.name),
            "{}",
            row.name
        );
        assert!(row.name.starts_with("CKR_"), "{}", row.name);
    }
    for code in [0x05, 0x30, 0x70, 0x90, 0xa0, 0xa4, 0xb3, 0x101, 0x150, 0x190] {
        assert!(find(code).is_some(), "0x{code:x}");
    }
}

#[test]
fn what_may_be_repeated_by_the_engine_has_not_run() {
    // `Retry::Now` with another outcome leaves the decision to the caller.
    let lost = of(Function::Sign, 0xb3);
    assert_eq!((lost.kind, lost.retry, lost.outcome), (K::SessionLost, R::Now, O::NotDone));
    let device = of(Function::Sign, 0x30);
    assert_eq!((device.kind, device.outcome, device.session), (K::Device, O::Unknown, F::Close));
    assert_eq!(of(Function::SignInit, 0x30).outcome, O::NotDone);
}

#[test]
fn every_refused_ciphertext_gives_the_same_error() {
    for code in [0x05, 0x06, 0x20, 0x21, 0x40, 0x41, 0x42, 0xc0] {
        let error = Error::from(Fault::new(Function::Decrypt, code));
        assert_eq!(error.to_string(), Error::decrypt_failed().to_string());
        assert_eq!((error.retry(), error.outcome()), (R::Never, O::Done));
        assert_eq!(of(Function::Decrypt, code).session, F::Keep, "0x{code:x}");
        assert_eq!(of(Function::DecryptMessage, code), of(Function::Decrypt, code), "0x{code:x}");
    }
    for code in [0x05, 0x06, 0x20, 0x21, 0x40, 0x41, 0x110, 0x112] {
        let error = Error::from(Fault::new(Function::UnwrapKey, code));
        assert_eq!(error.to_string(), Error::decrypt_failed().to_string(), "0x{code:x}");
    }
    assert_ne!(of(Function::Encrypt, 0x40).kind, of(Function::Encrypt, 0x30).kind);
}

#[test]
fn an_active_operation_costs_the_session_and_a_wrong_pin_does_not() {
    assert_eq!(of(Function::SignInit, 0x90).session, F::Close);
    assert_eq!(of(Function::Login, 0xa0).session, F::Keep);
    assert_eq!(of(Function::Login, 0xa0).kind, K::PinRefused);
    assert_eq!(of(Function::Login, 0xa4).kind, K::PinLocked);
    assert_eq!(of(Function::OpenSession, 0xe0).session, F::TokenDown);
}

#[test]
fn an_unlisted_code_is_a_fault_of_unknown_outcome() {
    assert_eq!(of(Function::Sign, 0x8000_1234), UNLISTED);
    assert!(
        Error::from(Fault::new(Function::Sign, 0x8000_1234))
            .to_string()
            .ends_with("C_Sign answered 0x80001234")
    );
}
