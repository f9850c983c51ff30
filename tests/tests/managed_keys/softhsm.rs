//! On real tokens: what is made there is what was asked for, and other tools see it as the documents say.

use std::time::Duration;

use hsmux::{
    AesGcm, Cmac, Curve, Ecdsa, Ed25519, Engine, ErrorKind, Hmac, KeyConfig, KeyOrigin, KeySpec, KeyState,
    RsaOaep, RsaPss,
};
use softhsm_fixtures::{PIN, SoftHsm};

fn engine(softhsm: &SoftHsm, tokens: &[&str]) -> Engine {
    Engine::builder().module(softhsm.module()).tokens(tokens.iter().copied()).pin(PIN).build().unwrap()
}

/// Uses a key of each kind for what it is for, on every token that holds it.
fn use_it(engine: &Engine, name: &str, spec: KeySpec) {
    let key = engine.key(name).unwrap();
    let sign = |how: hsmux::SignAlgorithm| {
        for _ in 0..8 {
            let signature = key.sign(how.clone(), b"message").wait().unwrap();
            assert!(key.verify(how.clone(), b"message", &signature).wait().unwrap().is_valid());
        }
    };
    match spec {
        KeySpec::Rsa(_) => sign(RsaPss::SHA256.into()),
        KeySpec::Ec(Curve::P256) => sign(Ecdsa::P256_SHA256.into()),
        KeySpec::Ec(Curve::P384) => sign(Ecdsa::P384_SHA384.into()),
        KeySpec::Ed25519 => sign(Ed25519.into()),
        KeySpec::Hmac(_) => sign(Hmac::SHA256.into()),
        KeySpec::AesMac(_) => sign(Cmac::Aes.into()),
        KeySpec::RsaDecryption(_) => {
            let sealed = key.encrypt(RsaOaep::SHA256, b"message").wait().unwrap();
            assert_eq!(
                key.decrypt(RsaOaep::SHA256, sealed.into_vec()).wait().unwrap().as_bytes(),
                b"message"
            );
        }
        KeySpec::Aes(_) => {
            for _ in 0..8 {
                let sealed = key.encrypt(AesGcm::new(), b"message").wait().unwrap();
                assert_eq!(
                    key.decrypt(AesGcm::new(), sealed.into_vec()).wait().unwrap().as_bytes(),
                    b"message"
                );
            }
        }
        _ => {}
    }
}

/// Every kind of key that is offered, but for the slow ones of RSA.
fn specs() -> Vec<KeySpec> {
    let slow = ["rsa-3072", "rsa-4096", "rsa-3072-decryption", "rsa-4096-decryption"];
    KeySpec::names().filter(|name| !slow.contains(name)).map(|name| name.parse().unwrap()).collect()
}

#[test]
fn every_kind_of_key_is_made_on_one_token_in_place_and_does_what_it_is_for() {
    let Some(softhsm) = SoftHsm::for_tests() else { return };
    let token = softhsm.unique_token();
    let engine = engine(softhsm, &[token.label()]);
    for spec in specs() {
        let name = spec.to_string();
        let id = engine.managed_keys().create(&name, &KeyConfig::new(spec)).unwrap();
        let info = engine.managed_keys().info(&id).unwrap();
        assert_eq!(
            (info.state, info.versions.len(), info.spec.as_str()),
            (KeyState::Active, 1, name.as_str())
        );
        assert_eq!(info.versions[0].origin, KeyOrigin::Generated);
        use_it(&engine, &name, spec);
        let objects = engine.keys();
        let object = objects.iter().find(|key| key.label == name).unwrap();
        assert!(object.flags.sensitive && object.flags.never_extractable && object.flags.local, "{name}");
    }
    assert_eq!(engine.drain(Duration::from_secs(10)), 0);
}

#[test]
fn every_kind_of_key_is_made_on_two_tokens_and_is_the_same_and_unextractable_on_both() {
    let Some(softhsm) = SoftHsm::for_tests() else { return };
    let tokens = [softhsm.unique_token(), softhsm.unique_token()];
    let both = engine(softhsm, &[tokens[0].label(), tokens[1].label()]);
    let mut ids = Vec::new();
    for spec in specs() {
        let name = spec.to_string();
        let made = both.managed_keys().create(&name, &KeyConfig::new(spec));
        if spec == KeySpec::Ed25519 {
            // SoftHSM2 2.6.1 wraps none: CKR_KEY_NOT_WRAPPABLE.
            assert_eq!(made.unwrap_err().kind(), ErrorKind::MechanismUnavailable);
            continue;
        }
        let id = made.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(both.managed_keys().info(&id).unwrap().versions[0].origin, KeyOrigin::Transported);
        use_it(&both, &name, spec);
        let held: Vec<_> = both.keys().into_iter().filter(|key| key.label == name).collect();
        assert_eq!(held.len(), 2, "{name}");
        for object in held {
            assert!(object.flags.sensitive && !object.flags.extractable && object.flags.token, "{name}");
        }
        ids.push((id, spec));
    }
    assert_eq!(both.drain(Duration::from_secs(10)), 0);
    drop(both);
    // Each token alone is enough for an engine to find and use them, by the ids that were given out.
    for token in &tokens {
        let alone = engine(softhsm, &[token.label()]);
        for (id, spec) in &ids {
            assert_eq!(alone.key(id).unwrap().id(), Some(id));
            use_it(&alone, &spec.to_string(), *spec);
        }
        assert_eq!(alone.drain(Duration::from_secs(10)), 0);
    }
}

#[test]
fn a_key_goes_through_its_life_and_its_objects_are_gone_at_the_end() {
    let Some(softhsm) = SoftHsm::for_tests() else { return };
    let token = softhsm.unique_token();
    let engine = engine(softhsm, &[token.label()]);
    let keys = engine.managed_keys();
    let id = keys.create("card", &KeyConfig::new(KeySpec::Ec(Curve::P256))).unwrap();
    let key = engine.key(&id).unwrap();
    let sign = || key.sign(Ecdsa::P256_SHA256, b"message").wait();
    let first = sign().unwrap();
    let verifies = |key: &hsmux::Key, signature: &[u8]| {
        key.verify(Ecdsa::P256_SHA256, b"message", signature).wait().map(|verdict| verdict.is_valid())
    };
    assert_eq!(keys.rotate(&id).unwrap(), 2);
    assert_eq!(key.version_number(), Some(2), "who holds the key passes on to the new version");
    let second = sign().unwrap();
    let old = key.version_numbered(1).unwrap();
    assert!(verifies(&old, &first).unwrap() && verifies(&key, &second).unwrap());
    assert!(!verifies(&key, &first).unwrap(), "another version has another key");
    let error = old.sign(Ecdsa::P256_SHA256, b"message").wait().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::KeyState, "{error}");

    keys.suspend("card").unwrap();
    assert_eq!(sign().unwrap_err().kind(), ErrorKind::KeyState);
    assert!(verifies(&key, &second).unwrap());
    keys.resume("card").unwrap();
    sign().unwrap();
    let early = keys.destroy("card").unwrap_err();
    assert_eq!(early.kind(), ErrorKind::KeyState, "what is in use is not destroyed: {early}");
    keys.mark_compromised("card").unwrap();
    assert_eq!(verifies(&key, &second).unwrap_err().kind(), ErrorKind::KeyState);
    assert!(verifies(&key.clone().at_risk(), &second).unwrap());
    keys.destroy("card").unwrap();
    assert_eq!(verifies(&key.clone().at_risk(), &second).unwrap_err().kind(), ErrorKind::KeyState);
    assert!(engine.keys().iter().all(|object| object.label != "card"), "{:?}", engine.keys());
    assert_eq!(engine.key("card").unwrap_err().kind(), ErrorKind::KeyNotFound);
    assert_eq!(engine.key(&id).unwrap_err().kind(), ErrorKind::KeyState);
    let other = keys.create("card", &KeyConfig::new(KeySpec::Hmac(32))).unwrap();
    assert_ne!(other, id, "the name is free, the id is not given again");
    assert_eq!(engine.drain(Duration::from_secs(10)), 0);
}
