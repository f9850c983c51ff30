//! What a key's attributes or its token forbid is refused before any call, and the error says which of the two.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails its test")]

use std::path::Path;
use std::process::Command;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::mechanism::MechanismType;
use cryptoki::object::{Attribute, KeyType, ObjectClass};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;
use hsmux::{AesEcb, AesGcm, Copies, Engine, Error, ErrorKind, Hmac, Outcome, Retry};
use hsmux_tests::{Hsm, LONG};
use softhsm_fixtures::{PIN, SoftHsm};

fn says(error: &Error) -> (ErrorKind, Retry, Outcome) {
    (error.kind(), error.retry(), error.outcome())
}

const NOT_PERMITTED: (ErrorKind, Retry, Outcome) = (ErrorKind::NotPermitted, Retry::Never, Outcome::NotDone);

fn log_in(module: &Pkcs11, slot: Slot, pin: &str) -> Session {
    let session = module.open_rw_session(slot).unwrap();
    session.login(UserType::User, Some(&AuthPin::from(pin))).unwrap();
    session
}

/// Puts a key on the token that can do no more than what is said last.
fn import(session: &Session, label: &str, key_type: KeyType, uses: &[Attribute]) {
    let mut template = vec![
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(key_type),
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Label(label.into()),
        Attribute::Id(label.into()),
        Attribute::Value(vec![7; 32]),
    ];
    template.extend_from_slice(uses);
    session.create_object(&template).unwrap();
}

#[test]
fn a_use_that_the_key_does_not_have_is_refused_before_any_call() {
    let hsm = Hsm::new(1, "");
    let other = Pkcs11::new(hsm.sim.path()).unwrap();
    other.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).unwrap();
    let session = log_in(&other, other.get_slots_with_token().unwrap()[0], "1234");
    import(&session, "seal", KeyType::AES, &[Attribute::Encrypt(true), Attribute::Decrypt(false)]);
    import(&session, "open", KeyType::AES, &[Attribute::Encrypt(false), Attribute::Decrypt(true)]);
    import(&session, "check", KeyType::GENERIC_SECRET, &[Attribute::Sign(false), Attribute::Verify(true)]);
    let engine = hsm.builder().sessions(2).build().unwrap();
    let key = |name| engine.key(name).unwrap();
    let (seal, open, check) = (key("seal"), key("open"), key("check"));
    let calls = hsm.calls();
    for limit in [None, Some(LONG)] {
        for error in [
            seal.decrypt(AesGcm::new(), [0; 40].to_vec()).deadline(limit).wait().map(drop).unwrap_err(),
            open.encrypt(AesEcb, [0; 16].to_vec()).deadline(limit).wait().map(drop).unwrap_err(),
            check.sign(Hmac::SHA256, b"x").deadline(limit).wait().map(drop).unwrap_err(),
        ] {
            assert_eq!(says(&error), NOT_PERMITTED, "{error}");
            assert!(error.to_string().ends_with("is not set"), "{error}");
        }
    }
    assert_eq!(hsm.calls(), calls, "the module was called");
    let sealed = seal.encrypt(AesEcb, [0; 16].to_vec()).wait().unwrap().into_vec();
    assert_eq!(open.decrypt(AesEcb, sealed).wait().unwrap()[..], [0; 16]);
    assert_eq!(engine.drain(LONG), 0);
}

#[test]
fn a_mechanism_that_the_key_does_not_allow_is_refused_before_any_call() {
    let Some(softhsm) = SoftHsm::for_tests() else { return };
    let token = softhsm.unique_token();
    // Beside the fixtures' own use of the module, which has initialised it.
    let other = Pkcs11::new(softhsm.module()).unwrap();
    let slots = other.get_slots_with_token().unwrap();
    let is_ours = |slot: &Slot| other.get_token_info(*slot).is_ok_and(|info| info.label() == token.label());
    let session = log_in(&other, slots.into_iter().find(is_ours).unwrap(), PIN);
    let uses = [
        Attribute::Encrypt(true),
        Attribute::Decrypt(true),
        Attribute::AllowedMechanisms(vec![MechanismType::AES_ECB]),
    ];
    import(&session, "ecb", KeyType::AES, &uses);
    let engine = Engine::builder().module(softhsm.module()).tokens([token.label()]).pin(PIN).build().unwrap();
    let key = engine.key("ecb").unwrap();
    let calls = || engine.snapshot().calls.get("C_EncryptInit").copied();
    let before = calls();
    let error = key.encrypt(AesGcm::new(), b"x").wait().map(drop).unwrap_err();
    assert_eq!(says(&error), NOT_PERMITTED, "{error}");
    assert!(error.to_string().contains("CKA_ALLOWED_MECHANISMS"), "{error}");
    assert_eq!(calls(), before, "the module was called");
    assert_eq!(key.encrypt(AesEcb, [0; 16].to_vec()).wait().unwrap().len(), 16);
    assert_eq!(engine.drain(LONG), 0);
}

/// Set in the process that runs SoftHSM2 with a configuration of its own, which it reads once per process.
const MODULE: &str = "HSMUX_TESTS_LIMITED_MODULE";

#[test]
fn a_mechanism_that_no_token_offers_is_told_before_any_call() {
    if let Some(module) = std::env::var_os(MODULE) {
        return use_a_token_without_gcm(Path::new(&module));
    }
    let Some(softhsm) = SoftHsm::for_tests() else { return };
    let directory = std::env::temp_dir().join(format!("hsmux-tests-limited-{}", std::process::id()));
    std::fs::create_dir_all(directory.join("tokens")).unwrap();
    let conf = directory.join("softhsm2.conf");
    let tokens = directory.join("tokens");
    let text = format!("directories.tokendir = {}\nslots.mechanisms = CKM_AES_ECB\n", tokens.display());
    std::fs::write(&conf, text).unwrap();
    let mut again = Command::new(std::env::current_exe().unwrap());
    again.args(["--exact", "a_mechanism_that_no_token_offers_is_told_before_any_call"]);
    let child = again.env("SOFTHSM2_CONF", &conf).env(MODULE, softhsm.module()).output().unwrap();
    std::fs::remove_dir_all(directory).unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && said.contains("1 passed"), "{said}");
}

fn use_a_token_without_gcm(module: &Path) {
    let other = Pkcs11::new(module).unwrap();
    other.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).unwrap();
    let slot = other.get_all_slots().unwrap()[0];
    other.init_token(slot, &AuthPin::from("12345678"), "limited").unwrap();
    let slot = other.get_slots_with_initialized_token().unwrap()[0];
    let officer = other.open_rw_session(slot).unwrap();
    officer.login(UserType::So, Some(&AuthPin::from("12345678"))).unwrap();
    officer.init_pin(&AuthPin::from(PIN)).unwrap();
    drop(officer);
    let session = log_in(&other, slot, PIN);
    import(&session, "aes", KeyType::AES, &[Attribute::Encrypt(true), Attribute::Decrypt(true)]);
    // What is done once a second and when there is time would show among the calls.
    let builder = Engine::builder().module(module).tokens(["limited"]).pin(PIN);
    let engine = builder.copies(Copies::Off).sessions(2).build().unwrap();
    let key = engine.key("aes").unwrap();
    let before = engine.snapshot().calls;
    for limit in [None, Some(LONG)] {
        let error = key.encrypt(AesGcm::new(), b"x").deadline(limit).wait().map(drop).unwrap_err();
        let wanted = (ErrorKind::MechanismUnavailable, Retry::Never, Outcome::NotDone);
        assert_eq!(says(&error), wanted, "{error}");
    }
    assert_eq!(engine.snapshot().calls, before, "the module was called");
    assert_eq!(key.encrypt(AesEcb, [0; 16].to_vec()).wait().unwrap().len(), 16);
    assert_eq!(engine.drain(LONG), 0);
}
