//! Bad input and bad luck: ids that are altered, of others and of keys that are gone; records that somebody has tampered with;
//! dates that have passed; keys that are reached for by their objects.

use std::time::{Duration, SystemTime};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;
use hsmux::{
    AesCbc, AesGcm, Builder, Curve, Ecdsa, Engine, ErrorKind, Hmac, KeyConfig, KeyId, KeyName, KeySpec,
    KeyState,
};
use hsmux_tests::{Hsm, eventually};
use p11_sim::Loaded;

const P256: KeySpec = KeySpec::Ec(Curve::P256);

fn kind<T>(result: hsmux::Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

/// Characters that an id may have, and some that it may not.
const CHARACTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_./ \0\n%";

#[test]
fn of_a_hundred_thousand_altered_ids_none_reaches_a_token() {
    let hsm = Hsm::new(1, "seed=1");
    let engine = hsm.builder().build().unwrap();
    let ids: Vec<_> = (0..4)
        .map(|index| {
            engine.managed_keys().create(&format!("key-{index}"), &KeyConfig::new(P256)).unwrap().to_string()
        })
        .collect();
    let key = engine.key(&ids[0].parse::<KeyId>().unwrap()).unwrap();
    key.sign(Ecdsa::P256_SHA256, b"message").wait().unwrap();
    let mut dice = 7_u64;
    let mut roll = |bound: usize| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(dice >> 33).unwrap() % bound
    };
    let (mut refused, mut parsed) = (0, 0);
    while refused < 100_000 {
        let mut altered = ids[roll(4)].clone().into_bytes();
        match roll(5) {
            0 => altered[roll(49)] = CHARACTERS[roll(CHARACTERS.len())],
            1 => altered.truncate(roll(49)),
            2 => altered.insert(roll(50), CHARACTERS[roll(CHARACTERS.len())]),
            3 => altered.swap(roll(49), roll(49)),
            // The number of one key with the tag of another.
            _ => altered[27..].copy_from_slice(&ids[roll(4)].as_bytes()[27..]),
        }
        let altered = String::from_utf8(altered).unwrap();
        if ids.contains(&altered) {
            continue;
        }
        let found = altered.parse::<KeyId>().and_then(|id| {
            parsed += 1;
            engine.key(&id)
        });
        assert_eq!(kind(found), Some(ErrorKind::KeyNotFound), "{altered}");
        refused += 1;
    }
    assert!(parsed > 10_000, "only {parsed} had the form of an id");
    // Only the one of before; the engine's own MACs of records are no requests.
    assert_eq!(engine.snapshot().tokens[0].operations.iter().map(|op| op.count).sum::<u64>(), 1);
}

#[test]
fn a_tenants_key_is_found_by_no_other_tenant() {
    let hsm = Hsm::new(1, "seed=1");
    let engine = hsm.builder().build().unwrap();
    let id = engine.managed_keys().create("card", &KeyConfig::new(P256).tenant(7)).unwrap();
    let key = engine.key(&id).unwrap();
    let sign = |tenant| key.sign(Ecdsa::P256_SHA256, b"message").tenant(tenant).wait();
    for tenant in [0, 6, 8, u64::MAX] {
        assert_eq!(kind(sign(tenant)), Some(ErrorKind::KeyNotFound), "{tenant}");
    }
    assert!(sign(7).is_ok());
    assert!(key.clone().for_tenant(7).sign(Ecdsa::P256_SHA256, b"message").wait().is_ok());
}

#[test]
fn a_managed_key_is_not_to_be_had_by_its_objects_nor_the_key_of_the_records_by_anything() {
    let hsm = Hsm::new(1, "seed=1");
    let engine = hsm.builder().build().unwrap();
    let keys = engine.managed_keys();
    let id = keys.create("card", &KeyConfig::new(P256)).unwrap();
    keys.suspend(&id).unwrap();
    let objects = engine.keys();
    for object in &objects {
        if ["card", "hsmux.catalogue"].contains(&object.label.as_str()) {
            let found = engine.key(KeyName::id(&object.id));
            assert_eq!(kind(found), Some(ErrorKind::KeyNotFound), "{}", object.label);
        }
    }
    let uri: hsmux::Pkcs11Uri = "pkcs11:object=card".parse().unwrap();
    assert_eq!(kind(engine.key(&uri)), Some(ErrorKind::KeyNotFound));
    assert_eq!(kind(engine.key("hsmux.catalogue")), Some(ErrorKind::KeyNotFound));
    let uri: hsmux::Pkcs11Uri = "pkcs11:object=hsmux.catalogue".parse().unwrap();
    assert_eq!(kind(engine.key(&uri)), Some(ErrorKind::KeyNotFound));
    assert_eq!(kind(engine.destroy_key("hsmux.catalogue")), Some(ErrorKind::KeyNotFound));
    assert_eq!(kind(engine.generate_key("hsmux.catalogue", P256)), Some(ErrorKind::InvalidInput));
    assert_eq!(kind(engine.destroy_key("card")), Some(ErrorKind::KeyNotFound));
}

#[test]
fn a_key_is_used_for_what_it_was_made_for_and_for_nothing_else() {
    let hsm = Hsm::new(1, "seed=1");
    let engine = hsm.builder().build().unwrap();
    let keys = engine.managed_keys();
    let config = KeyConfig::new(P256).signs_by(Ecdsa::P256_SHA256);
    keys.create("card", &config).unwrap();
    let key = engine.key("card").unwrap();
    assert!(key.sign(Ecdsa::P256_SHA256, b"message").wait().is_ok());
    // The token would not tell this one: it is given a digest, and the mechanism is the same.
    assert_eq!(kind(key.sign(Ecdsa::P256_SHA512, b"message").wait()), Some(ErrorKind::NotPermitted));
    let other = key.sign_digest(Ecdsa::P256_SHA384, [0; 48].to_vec()).wait();
    assert_eq!(kind(other), Some(ErrorKind::NotPermitted));
    keys.create("vault", &KeyConfig::new(KeySpec::Aes(32)).encrypts_by(AesGcm::new())).unwrap();
    let vault = engine.key("vault").unwrap();
    assert!(vault.encrypt(AesGcm::new(), b"message").wait().is_ok());
    assert_eq!(kind(vault.encrypt(AesCbc::new(), b"message").wait()), Some(ErrorKind::NotPermitted));
    // The token enforces it too: CKM_AES_CBC is not among its CKA_ALLOWED_MECHANISMS.
    let object = engine.keys().into_iter().find(|object| object.label == "vault").unwrap();
    assert_eq!(object.allowed, ["CKM_AES_GCM"]);
    keys.create("mac", &KeyConfig::new(KeySpec::Hmac(32))).unwrap();
    assert_eq!(
        kind(engine.key("mac").unwrap().encrypt(AesGcm::new(), b"x").wait()),
        Some(ErrorKind::KeyMismatch)
    );
}

#[test]
fn a_key_begins_and_ends_with_its_dates() {
    let hsm = Hsm::new(1, "seed=1");
    let engine = hsm.builder().build().unwrap();
    let in_seconds = |seconds| SystemTime::now() + Duration::from_secs(seconds);
    let config = KeyConfig::new(P256).active_from(in_seconds(3)).active_until(in_seconds(8));
    let id = engine.managed_keys().create("card", &config).unwrap();
    let key = engine.key(&id).unwrap();
    let state = || engine.managed_keys().info(&id).unwrap().state;
    let sign = || key.sign(Ecdsa::P256_SHA256, b"message").wait();
    assert_eq!((state(), kind(sign())), (KeyState::PreActivation, Some(ErrorKind::KeyState)));
    eventually("it has become active", || sign().is_ok());
    assert_eq!(state(), KeyState::Active);
    let signature = sign().unwrap();
    eventually("it is deactivated", || kind(sign()) == Some(ErrorKind::KeyState));
    assert_eq!(state(), KeyState::Deactivated);
    assert!(key.verify(Ecdsa::P256_SHA256, b"message", &signature).wait().unwrap().is_valid());
    let object = engine.keys().into_iter().find(|object| object.label == "card").unwrap();
    assert!(object.flags.sensitive);
}

#[test]
fn a_scheduled_destruction_can_be_cancelled_and_else_happens_by_itself() {
    let hsm = Hsm::new(2, "seed=1");
    let engine = hsm.builder().build().unwrap();
    let keys = engine.managed_keys();
    for name in ["saved", "doomed"] {
        keys.create(name, &KeyConfig::new(P256)).unwrap();
        keys.schedule_destruction(name, Duration::from_secs(if name == "saved" { 3600 } else { 2 })).unwrap();
        let refused = engine.key(name).unwrap().sign(Ecdsa::P256_SHA256, b"message").wait();
        assert_eq!(kind(refused), Some(ErrorKind::KeyState), "{name}");
    }
    keys.cancel_destruction("saved").unwrap();
    assert!(engine.key("saved").unwrap().sign(Ecdsa::P256_SHA256, b"message").wait().is_ok());
    assert_eq!(kind(keys.cancel_destruction("saved")), Some(ErrorKind::KeyState));
    assert_eq!(
        kind(keys.schedule_destruction("saved", Duration::from_millis(10))),
        Some(ErrorKind::InvalidInput)
    );
    eventually("it is destroyed", || engine.keys().iter().all(|object| object.label != "doomed"));
    assert_eq!(engine.keys().iter().filter(|object| object.label == "saved").count(), 2);
}

/// A session of another program, with the same PIN.
fn outsider(sim: &Loaded, config: &str) -> (Pkcs11, Session) {
    let module = Pkcs11::new(sim.path()).unwrap();
    let _text = config;
    module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).unwrap();
    let slot = module.get_slots_with_token().unwrap()[0];
    let session = module.open_rw_session(slot).unwrap();
    session.login(UserType::User, Some(&AuthPin::new("1234".into()))).unwrap();
    (module, session)
}

/// What the catalogue's objects say.
fn records(session: &Session) -> Vec<(ObjectHandle, Vec<u8>)> {
    let template = [Attribute::Class(ObjectClass::DATA), Attribute::Application(b"hsmux catalogue".to_vec())];
    let found = session.find_objects(&template).unwrap();
    let value = |object| match session.get_attributes(object, &[AttributeType::Value]).unwrap().remove(0) {
        Attribute::Value(value) => value,
        other => panic!("{other:?}"),
    };
    found.into_iter().map(|object| (object, value(object))).collect()
}

fn put(session: &Session, label: &str, value: Vec<u8>) {
    let template = [
        Attribute::Class(ObjectClass::DATA),
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Application(b"hsmux catalogue".to_vec()),
        Attribute::Label(label.as_bytes().to_vec()),
        Attribute::Value(value),
    ];
    session.create_object(&template).unwrap();
}

pub(crate) fn on_store(site: &tempfile::TempDir, number: u64) -> (Loaded, String) {
    let config = format!("store={},seed={number}", site.path().display());
    (Loaded::private_copy(&config).unwrap(), config)
}

pub(crate) fn build(sim: &Loaded, config: &str) -> Engine {
    let builder: Builder<_, _, _> = Engine::builder().module(sim.path()).tokens(["sim-0"]);
    builder.pin("1234".to_owned()).init_args(config).sessions(1).build().unwrap()
}

#[test]
fn a_record_that_was_tampered_with_is_refused_and_named_and_the_others_are_none_the_worse() {
    let site = tempfile::tempdir().unwrap();
    let ids = {
        let (sim, config) = on_store(&site, 1);
        let engine = build(&sim, &config);
        let create = |name| engine.managed_keys().create(name, &KeyConfig::new(P256)).unwrap();
        let ids = [create("good"), create("tampered"), create("suspended")];
        engine.managed_keys().suspend("suspended").unwrap();
        assert_eq!(engine.drain(Duration::from_secs(10)), 0);
        ids
    };
    {
        let (sim, config) = on_store(&site, 2);
        sim.configure(&config).unwrap();
        let (module, session) = outsider(&sim, &config);
        let all = records(&session);
        let of = |text: &str| {
            all.iter().filter(|(_, value)| String::from_utf8_lossy(value).contains(text)).collect::<Vec<_>>()
        };
        // One is changed, for the object itself cannot be: it goes, and another takes its place.
        for (object, value) in of("\"tampered\"") {
            session.destroy_object(*object).unwrap();
            let text = String::from_utf8(value.clone()).unwrap().replace("\"tenant\":0", "\"tenant\":9");
            put(&session, "changed", text.into_bytes());
        }
        // One is put back to what it was before: its MAC is right, and the later one holds all the same.
        let active = of("\"suspended\"")
            .iter()
            .find(|(_, value)| String::from_utf8_lossy(value).contains("\"active\""))
            .unwrap()
            .1
            .clone();
        put(&session, "older", active);
        for (label, value) in
            [("empty", b"".to_vec()), ("noise", vec![0xff; 4_000]), ("text", b"{}\n00 00".to_vec())]
        {
            put(&session, label, value);
        }
        drop(session);
        module.finalize().unwrap();
    }
    let (sim, config) = on_store(&site, 3);
    let engine = build(&sim, &config);
    let mut refused: Vec<_> =
        engine.managed_keys().refused_records().unwrap().into_iter().map(|it| it.label).collect();
    refused.sort();
    assert_eq!(refused, ["changed", "empty", "noise", "text"]);
    assert!(engine.key(&ids[0]).unwrap().sign(Ecdsa::P256_SHA256, b"message").wait().is_ok());
    assert_eq!(kind(engine.key(&ids[1])), Some(ErrorKind::KeyNotFound));
    let suspended = engine.key(&ids[2]).unwrap();
    assert_eq!(kind(suspended.sign(Ecdsa::P256_SHA256, b"message").wait()), Some(ErrorKind::KeyState));
    assert_eq!(engine.managed_keys().list().unwrap().len(), 2);
}

#[test]
fn a_token_that_had_data_objects_gets_no_file_when_its_module_shows_none_any_more() {
    let site = tempfile::tempdir().unwrap();
    let (sim, config) = on_store(&site, 11);
    let engine = build(&sim, &config);
    engine.managed_keys().create("card", &KeyConfig::new(P256)).unwrap();
    assert_eq!(engine.drain(Duration::from_secs(10)), 0);
    drop(engine);
    {
        let (sim, config) = on_store(&site, 12);
        sim.configure(&config).unwrap();
        let (module, session) = outsider(&sim, &config);
        for (object, _) in records(&session) {
            session.destroy_object(object).unwrap();
        }
        drop(session);
        module.finalize().unwrap();
    }
    let state = tempfile::tempdir().unwrap();
    let config = format!("store={},seed=13,data=0", site.path().display());
    let sim = Loaded::private_copy(&config).unwrap();
    let builder: Builder<_, _, _> = Engine::builder().module(sim.path()).tokens(["sim-0"]);
    let builder = builder.pin("1234".to_owned()).init_args(&config).sessions(1).state_dir(state.path());
    let engine = builder.build().unwrap();
    assert_eq!(engine.managed_keys().list().unwrap(), []);
    // An empty file would be believed in the place of the records, for ever.
    let error = engine.managed_keys().create("new", &KeyConfig::new(P256)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
    assert!(error.to_string().contains("does not show any more"), "{error}");
    let files = state.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name());
    assert!(files.into_iter().all(|name| !name.to_string_lossy().ends_with(".redb")));
}

#[test]
fn a_token_that_was_away_has_no_key_that_was_destroyed_meanwhile_and_learns_what_has_changed() {
    let hsm = Hsm::new(2, "seed=1");
    let engine = hsm.builder().build().unwrap();
    let keys = engine.managed_keys();
    for name in ["gone", "suspended"] {
        keys.create(name, &KeyConfig::new(KeySpec::Hmac(32))).unwrap();
        engine.key(name).unwrap();
    }
    hsm.sim.configure("removed=sim-1").unwrap();
    eventually("the loss is noticed", || {
        let _asked = engine.key("suspended").unwrap().sign(Hmac::SHA256, b"message").wait();
        engine.snapshot().tokens[1].health == hsmux::Health::Lost
    });
    assert_eq!(
        kind(keys.create("new", &KeyConfig::new(P256))),
        Some(ErrorKind::TokenLost),
        "for it cannot have it later"
    );
    keys.deactivate("gone").unwrap();
    keys.destroy("gone").unwrap();
    keys.suspend("suspended").unwrap();
    hsm.sim.configure("removed=").unwrap();
    eventually("it is back", || engine.snapshot().tokens[1].health == hsmux::Health::Serving);
    let left = || engine.keys().into_iter().filter(|object| object.label == "gone").count();
    eventually("the destroyed key is gone from it too", || left() == 0);
    eventually("it has the records", || {
        hsm.sim.configure("removed=sim-0").unwrap();
        let alone = hsm_alone(&hsm);
        hsm.sim.configure("removed=").unwrap();
        alone
    });
}

/// Whether the second token alone tells an engine how things stand.
fn hsm_alone(hsm: &Hsm) -> bool {
    let Ok(alone) =
        Engine::builder().module(hsm.sim.path()).tokens(["sim-1"]).pin("1234".to_owned()).sessions(1).build()
    else {
        return false;
    };
    let state = |name: &str| {
        alone.managed_keys().list().unwrap().into_iter().find(|key| key.name == name).map(|key| key.state)
    };
    (state("gone"), state("suspended")) == (Some(KeyState::Destroyed), Some(KeyState::Suspended))
}

#[test]
fn keys_that_wrap_and_agree_obey_their_state_and_tenant_too() {
    use hsmux::{AgreementKdf, KeyWrap, MacPadding, RawMechanism, RetailMac};
    let hsm = Hsm::new(1, "seed=1");
    let engine = hsm.builder().build().unwrap();
    let keys = engine.managed_keys();
    keys.create("agrees", &KeyConfig::new(KeySpec::EcAgreement(Curve::P256)).tenant(7)).unwrap();
    keys.create("wraps", &KeyConfig::new(KeySpec::AesWrap(32))).unwrap();
    keys.create("peer", &KeyConfig::new(KeySpec::EcAgreement(Curve::P256))).unwrap();
    let agrees = engine.key("agrees").unwrap();
    let der = engine.key("peer").unwrap().public_key_der().unwrap();
    let point = &der[der.len() - 65..];
    let agree = |key: &hsmux::Key| key.agree(point, AgreementKdf::Raw, &[], KeySpec::Aes(32)).map(drop);
    assert_eq!(kind(agree(&agrees)), Some(ErrorKind::KeyNotFound), "another tenant's");
    let ours = agrees.clone().for_tenant(7);
    agree(&ours).unwrap();
    let wraps = engine.key("wraps").unwrap();
    let carried = ours.agree(point, AgreementKdf::Raw, &[], KeySpec::Aes(32)).unwrap();
    assert_eq!(
        kind(wraps.wrap(KeyWrap::AesKw, &agrees)),
        Some(ErrorKind::NotPermitted),
        "no managed key leaves"
    );
    // Session keys are not extractable; that is not for the state to say.
    assert_ne!(kind(wraps.wrap(KeyWrap::AesKw, &carried)), Some(ErrorKind::KeyState));
    for name in ["agrees", "wraps"] {
        keys.suspend(name).unwrap();
    }
    assert_eq!(kind(agree(&ours)), Some(ErrorKind::KeyState));
    assert_eq!(kind(wraps.wrap(KeyWrap::AesKw, &carried)), Some(ErrorKind::KeyState));
    let unwrap = |key: &hsmux::Key| key.unwrap(KeyWrap::AesKw, &[0; 40], KeySpec::Aes(32)).map(drop);
    assert_ne!(kind(unwrap(&wraps)), Some(ErrorKind::KeyState), "suspended keys process");
    keys.mark_compromised("wraps").unwrap();
    assert_eq!(kind(unwrap(&wraps)), Some(ErrorKind::KeyState));
    keys.create("des", &KeyConfig::new(KeySpec::TripleDes)).unwrap();
    let des = engine.key("des").unwrap();
    assert_eq!(kind(RetailMac::new(&des, MacPadding::Method2)), Some(ErrorKind::NotPermitted));
    keys.create("vault", &KeyConfig::new(KeySpec::Aes(32))).unwrap();
    let vault = engine.key("vault").unwrap();
    let raw = vault.encrypt(RawMechanism::new(0x1081), [0; 16].to_vec()).wait();
    assert_eq!(kind(raw), Some(ErrorKind::NotPermitted), "raw mechanisms pass by what a key was made for");
    assert_eq!(
        kind(vault.with_host_modes()),
        Some(ErrorKind::NotPermitted),
        "nor are host modes added later"
    );
}

#[test]
fn a_certificate_of_the_same_id_outlives_its_key_and_so_does_a_key_that_is_made_later() {
    let site = tempfile::tempdir().unwrap();
    let (id, label) = (vec![0x01], b"mine".to_vec());
    let outside = |number, act: &dyn Fn(&Session)| {
        let (sim, config) = on_store(&site, number);
        sim.configure(&config).unwrap();
        let (module, session) = outsider(&sim, &config);
        act(&session);
        drop(session);
        module.finalize().unwrap();
    };
    let make = |session: &Session| {
        let template = [
            Attribute::Token(true),
            Attribute::Label(label.clone()),
            Attribute::Id(id.clone()),
            Attribute::ValueLen(32_u64.into()),
            Attribute::Sign(true),
        ];
        session.generate_key(&cryptoki::mechanism::Mechanism::GenericSecretKeyGen, &template).unwrap();
    };
    outside(1, &make);
    {
        let (sim, config) = on_store(&site, 2);
        let engine = build(&sim, &config);
        engine.key("mine").unwrap();
        engine.managed_keys().adopt("mine", "adopted", &KeyConfig::new(KeySpec::Hmac(32))).unwrap();
        assert_eq!(
            kind(engine.key("mine")),
            Some(ErrorKind::KeyNotFound),
            "it is managed now, also where it was known"
        );
        engine.key("adopted").unwrap();
        engine.managed_keys().deactivate("adopted").unwrap();
        engine.managed_keys().destroy("adopted").unwrap();
        assert!(engine.keys().iter().all(|key| key.label != "mine"));
        assert_eq!(engine.drain(Duration::from_secs(10)), 0);
    }
    outside(3, &make);
    let (sim, config) = on_store(&site, 4);
    let engine = build(&sim, &config);
    engine.managed_keys().list().unwrap();
    assert!(
        engine.keys().iter().any(|key| key.label == "mine"),
        "a new key of an old id is nobody's to destroy"
    );
}
