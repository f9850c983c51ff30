//! Keys and tokens by label, by identifier and by PKCS#11 URI, on real tokens.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails its test")]

use std::path::Path;
use std::time::Duration;

use hsmux::{Ecdsa, Engine, Error, ErrorKind, Hmac, Key, KeyName, KeySpec, Pkcs11Uri};
use hsmux_tests::{Hsm, LONG};
use softhsm_fixtures::{PIN, SoftHsm, TestKey};

fn engine(module: &Path, tokens: &[&str]) -> Engine {
    Engine::builder().module(module).tokens(tokens.iter().copied()).pin(PIN).sessions(1).build().unwrap()
}

fn uri(text: &str) -> Pkcs11Uri {
    text.parse().unwrap()
}

fn refused(engine: &Engine, text: &str) -> Error {
    engine.key(&uri(text)).map(drop).unwrap_err()
}

/// A MAC tells which key it was.
fn mac(key: &Key) -> Vec<u8> {
    key.sign(Hmac::SHA256, b"which key is it?").wait().unwrap().into_vec()
}

#[test]
fn a_key_is_found_by_label_by_identifier_and_by_uri() {
    let Some(softhsm) = SoftHsm::for_tests() else { return };
    let token = softhsm.unique_token();
    token.import_with_id("card signing", &[0, 0xff, b'%'], TestKey::Hmac);
    token.import_hmac("other", &[9; 32]);
    token.import("pair", TestKey::P256);
    let engine = engine(softhsm.module(), &[token.label()]);
    let wanted = mac(&engine.key("card signing").unwrap());
    assert_ne!(wanted, mac(&engine.key(&String::from("other")).unwrap()));
    assert_eq!(mac(&engine.key(KeyName::id(&[0, 0xff, b'%'])).unwrap()), wanted);
    for text in [
        "pkcs11:object=card%20signing".to_owned(),
        "pkcs11:id=%00%ff%25".to_owned(),
        "pkcs11:id=%00%ff%25;object=card%20signing;type=secret-key".to_owned(),
        format!("pkcs11:token={};serial={};id=%00%FF%25", token.label(), token.serial()),
        "pkcs11:model=SoftHSM%20v2;manufacturer=SoftHSM%20project;object=card%20signing?x-why=not".to_owned(),
        format!("pkcs11:id=%00%ff%25?module-name=softhsm2&module-path={}", softhsm.module().display()),
    ] {
        assert_eq!(mac(&engine.key(&uri(&text)).unwrap()), wanted, "{text}");
    }
    let pair = engine.key(&uri("pkcs11:type=private")).unwrap();
    assert_eq!(pair.sign(Ecdsa::P256_SHA256, b"x").wait().unwrap().len(), 64);
    assert_eq!(engine.drain(LONG), 0);
}

#[test]
fn a_name_that_fits_no_key_is_not_found_and_names_nothing() {
    let Some(softhsm) = SoftHsm::for_tests() else { return };
    let token = softhsm.unique_token();
    token.import_with_id("card", &[7; 20], TestKey::Hmac);
    let engine = engine(softhsm.module(), &[token.label()]);
    assert_eq!(engine.key(KeyName::id(b"card")).map(drop).unwrap_err().kind(), ErrorKind::KeyNotFound);
    let elsewhere = refused(&engine, "pkcs11:object=card;token=elsewhere");
    assert_eq!(elsewhere.to_string(), "no such key: asked of 0 of 1 tokens");
    for text in [
        "pkcs11:object=secretive",
        "pkcs11:object=card;id=%07",
        "pkcs11:object=card;type=private",
        "pkcs11:object=card;type=public",
        "pkcs11:object=card;serial=secretive",
        "pkcs11:object=card;slot-id=9999999",
    ] {
        let error = refused(&engine, text);
        assert_eq!(error.kind(), ErrorKind::KeyNotFound, "{text}");
        let said = format!("{error} {error:?}");
        assert!(!said.contains("card") && !said.contains("secretive"), "{said}");
    }
}

#[test]
fn several_keys_of_one_name_are_told_by_type_and_size_only() {
    let Some(softhsm) = SoftHsm::for_tests() else { return };
    let token = softhsm.unique_token();
    token.import_with_id("card", b"one", TestKey::Hmac);
    token.import_with_id("card", b"two", TestKey::Aes256);
    token.import_with_id("desk", b"two", TestKey::P384);
    let engine = engine(softhsm.module(), &[token.label()]);
    let by_label = engine.key("card").map(drop).unwrap_err();
    let by_id = engine.key(KeyName::id(b"two")).map(drop).unwrap_err();
    for (error, count) in [(by_label, 2), (by_id, 2), (refused(&engine, "pkcs11:"), 3)] {
        assert_eq!(error.kind(), ErrorKind::KeyAmbiguous);
        let said = error.to_string();
        assert!(said.contains(&format!("{count} keys of this name: ")) && said.contains("Aes"), "{said}");
        assert!(["card", "desk", "one", "two"].iter().all(|name| !said.contains(name)), "{said}");
    }
    // Each is reached by saying more.
    assert_eq!(mac(&engine.key(&uri("pkcs11:object=card;id=one")).unwrap()).len(), 32);
    assert!(engine.key(&uri("pkcs11:object=desk;id=two")).is_ok());
    assert!(engine.key(&uri("pkcs11:object=card;type=secret-key;id=%74wo")).is_ok());
}

#[test]
fn a_uri_restricts_the_tokens_on_which_a_key_is_used() {
    let Some(softhsm) = SoftHsm::for_tests() else { return };
    let tokens = [softhsm.unique_token(), softhsm.unique_token()];
    tokens.iter().for_each(|token| token.import("mac", TestKey::Hmac));
    let engine = engine(softhsm.module(), &[tokens[0].label(), tokens[1].label()]);
    let second = engine.key(&uri(&format!("pkcs11:token={};object=mac", tokens[1].label()))).unwrap();
    let both = engine.key("mac").unwrap();
    let served = || {
        let of = |label: &str| {
            let snapshot = engine.snapshot();
            let mut tokens = snapshot.tokens.iter().filter(|token| token.label == label);
            tokens
                .next()
                .map_or(0, |token| token.operations.iter().map(|operation| operation.count).sum::<u64>())
        };
        (of(tokens[0].label()), of(tokens[1].label()))
    };
    let messages: Vec<_> = (0..200_u32).map(|i| i.to_be_bytes().to_vec()).collect();
    assert!(second.sign_many(Hmac::SHA256, messages.clone()).wait().iter().all(Result::is_ok));
    assert_eq!(served(), (0, 200));
    // The key of both tokens is another one for the engine, and may use either.
    assert!(both.sign_many(Hmac::SHA256, messages).wait().iter().all(Result::is_ok));
    assert_eq!(served().0 + served().1, 400);
    assert_eq!(mac(&both), mac(&second));
}

#[test]
fn a_uri_for_another_module_or_with_unknown_attributes_is_refused_by_name() {
    let Some(softhsm) = SoftHsm::for_tests() else { return };
    let token = softhsm.unique_token();
    token.import("mac", TestKey::Hmac);
    let engine = engine(softhsm.module(), &[token.label()]);
    for (text, part) in [
        ("pkcs11:object=mac?module-name=opencryptoki", "module-name"),
        ("pkcs11:object=mac?module-path=/no/such.so", "module-path"),
        ("pkcs11:object=mac;library-manufacturer=nobody", "library-manufacturer"),
        ("pkcs11:object=mac;library-description=nothing", "library-description"),
        ("pkcs11:object=mac;library-version=99.1", "library-version"),
        ("pkcs11:object=mac;x-shelf=3", "RFC 7512"),
    ] {
        let error = refused(&engine, text);
        assert_eq!(error.kind(), ErrorKind::Configuration, "{text}");
        assert!(error.to_string().contains(part), "{error}");
        let token = format!("{text}{}", if text.contains('?') { "&x=1" } else { "?x=1" });
        let build = Engine::builder().module(softhsm.module()).tokens([token]).pin(PIN).build();
        assert_eq!(build.map(drop).unwrap_err().to_string(), error.to_string());
    }
    assert!(engine.key(&uri("pkcs11:object=mac;library-description=Implementation%20of%20PKCS11")).is_ok());
}

#[test]
fn tokens_are_named_by_uri_too() {
    let Some(softhsm) = SoftHsm::for_tests() else { return };
    let tokens = [softhsm.unique_token(), softhsm.unique_token()];
    tokens.iter().for_each(|token| token.import("mac", TestKey::Hmac));
    let names =
        [format!("pkcs11:serial={}", tokens[0].serial()), format!("PKCS11:token={}", tokens[1].label())];
    let engine = engine(softhsm.module(), &[&names[0], &names[1]]);
    let found = engine.tokens();
    assert_eq!([&found[0].label, &found[1].label], [tokens[0].label(), tokens[1].label()]);
    assert!(found[0].is_named(&names[0]).unwrap() && !found[0].is_named(&names[1]).unwrap());
    assert_eq!(mac(&engine.key("mac").unwrap()).len(), 32);
    let build = |names: &[&str]| {
        let builder = Engine::builder().module(softhsm.module()).tokens(names.iter().copied());
        builder.pin(PIN).build().map(drop).unwrap_err()
    };
    assert_eq!(build(&["pkcs11:token=nowhere"]).kind(), ErrorKind::TokenNotFound);
    assert_eq!(build(&["pkcs11:model=SoftHSM%20v2"]).kind(), ErrorKind::TokenNotFound);
    let error = build(&["pkcs11:token=a?pin-value=918273"]);
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(!error.to_string().contains("918273"), "{error}");
    let twice = build(&[tokens[0].label(), &names[0]]);
    assert!(twice.to_string().contains("twice"), "{twice}");
}

/// The simulator counts calls: a second name of a key asks no token for a proof.
#[test]
fn two_names_of_one_key_are_one_key() {
    let hsm = Hsm::new(2, "");
    let engine = hsm.builder().sessions(1).build().unwrap();
    let id = engine.keys().into_iter().find(|key| key.label == "hmac").unwrap().id;
    let by_label = engine.key("hmac").unwrap();
    let proven = hsm.operations();
    assert!(proven > 0, "two tokens prove that they hold the same key");
    let by_id = engine.key(KeyName::id(&id)).unwrap();
    let by_uri = engine.key(&uri("pkcs11:object=hmac;type=secret-key")).unwrap();
    assert!(by_label.is_same(&by_id) && by_label.is_same(&by_uri));
    assert_eq!(hsm.operations(), proven, "a second name was proven again");
    assert!(!by_label.is_same(&engine.key(&uri("pkcs11:object=hmac;token=sim-0")).unwrap()));
    assert!(!by_label.is_same(&engine.key("aes256").unwrap()));
}

#[test]
fn a_key_that_takes_the_place_of_a_destroyed_one_is_another_under_every_name() {
    let Some(softhsm) = SoftHsm::for_tests() else { return };
    let token = softhsm.unique_token();
    let engine = engine(softhsm.module(), &[token.label()]);
    let old = engine.generate_key("card", KeySpec::Hmac(32)).unwrap();
    let name = uri("pkcs11:object=card");
    assert!(old.is_same(&engine.key(&name).unwrap()));
    engine.destroy_key("card").unwrap();
    assert_eq!(engine.key(&name).map(drop).unwrap_err().kind(), ErrorKind::KeyNotFound);
    let new = engine.generate_key("card", KeySpec::Hmac(32)).unwrap();
    assert!(new.is_same(&engine.key(&name).unwrap()) && !new.is_same(&old));
    assert_eq!(engine.drain(Duration::from_secs(10)), 0);
}
