//! Several instances of one module, on the simulated HSM: one token to whoever names it, and each what it has alone.
//! The further instances are devices of their own here; what those of one device do to each other is in
//! `instance_writes.rs`.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails its test")]

use std::time::Duration;

use hsmux::{
    AesGcm, AgreementKdf, Curve, Engine, Error, ErrorKind, Hmac, Key, KeySpec, Outcome, Snapshot, Tier,
};
use hsmux_tests::{Hsm, LONG, Ready, eventually};
use p256::elliptic_curve::sec1::ToSec1Point;
use softhsm_fixtures::{PIN, SoftHsm};

/// Operations that succeeded, by instance.
fn served(snapshot: &Snapshot) -> Vec<u64> {
    let of = |token: &hsmux::TokenSnapshot| token.operations.iter().map(|operation| operation.count).sum();
    snapshot.tokens.iter().map(of).collect()
}

fn sign(key: &Key, count: u32) -> Vec<Vec<u8>> {
    let pending: Vec<_> = (0..count)
        .map(|i| key.sign(Hmac::SHA256, i.to_be_bytes().to_vec()).deadline_in(LONG).submit().unwrap())
        .collect();
    pending.into_iter().map(|pending| pending.wait().unwrap().into_vec()).collect()
}

fn refused(builder: Ready) -> Error {
    let error = builder.build().map(drop).unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Configuration, Outcome::NotDone), "{error}");
    error
}

fn logins(engine: &Engine) -> u64 {
    engine.snapshot().calls["C_Login"]
}

#[test]
fn instances_are_one_token_with_the_work_shared_among_them() {
    let hsm = Hsm::new(1, "op_us=2000,cores=1");
    let engine = hsm.instances(2).sessions(1).build().unwrap();
    let described = engine.tokens();
    assert_eq!(described.iter().map(|token| token.instances).collect::<Vec<_>>(), [2]);
    let mut keys: Vec<_> = engine.keys().into_iter().map(|key| key.label).collect();
    keys.dedup();
    assert_eq!(keys.len(), engine.keys().len(), "each key once");
    assert_eq!(logins(&engine), 2, "one per instance");

    let alone = Hsm::new(1, "");
    let alone = alone.builder().build().unwrap();
    assert_eq!(sign(&engine.key("hmac").unwrap(), 60), sign(&alone.key("hmac").unwrap(), 60));
    let snapshot = engine.snapshot();
    assert_eq!(snapshot.tokens.iter().map(|token| token.instance).collect::<Vec<_>>(), [0, 1]);
    assert!(served(&snapshot).iter().all(|&count| count > 0), "{:?}", served(&snapshot));
    let page = snapshot.to_prometheus();
    for instance in ["0", "1"] {
        let sample = format!("hsmux_sessions{{token=\"sim-0\",module_instance=\"{instance}\",state=\"");
        assert!(page.contains(&sample), "{page}");
    }
}

#[test]
fn an_operator_names_all_instances_of_a_token_at_once() {
    let hsm = Hsm::new(2, "");
    let engine = hsm.instances(3).sessions(1).build().unwrap();
    let key = engine.key("hmac").unwrap();
    let drained = || engine.snapshot().tokens.iter().map(|token| token.drained).collect::<Vec<_>>();
    assert_eq!(engine.drain_token("sim-0", LONG).unwrap(), 0);
    assert_eq!(drained(), [true, false, true, false, true, false]);
    sign(&key, 30);
    let by_token = served(&engine.snapshot());
    assert_eq!((by_token[0], by_token[2], by_token[4]), (0, 0, 0), "{by_token:?}");
    engine.drain_token("sim-1", LONG).unwrap();
    let error = key.sign(Hmac::SHA256, b"x").wait().unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::TokenLost, Outcome::NotDone));
    ["sim-0", "sim-1"].into_iter().for_each(|token| engine.undrain_token(token).unwrap());
    assert_eq!(drained(), [false; 6]);

    engine.set_tier("sim-1", Tier { rank: 1, extra_latency: LONG }).unwrap();
    let before = served(&engine.snapshot());
    sign(&key, 30);
    let after = served(&engine.snapshot());
    assert_eq!([1, 3, 5].map(|token| after[token] - before[token]), [0; 3], "the lower tier");
    assert_eq!(engine.set_tier("sim-2", Tier::default()).unwrap_err().kind(), ErrorKind::TokenNotFound);
}

#[test]
fn a_name_that_no_key_has_says_how_many_tokens_were_asked() {
    let hsm = Hsm::new(2, "");
    let engine = hsm.instances(2).build().unwrap();
    let error = engine.key("none").map(drop).unwrap_err();
    assert_eq!(error.to_string(), "no such key: asked of 2 tokens");
}

#[test]
fn a_session_key_is_used_in_the_instance_that_made_it_only() {
    let hsm = Hsm::new(1, "keys=pair:p256-agree");
    let engine = hsm.instances(2).sessions(1).build().unwrap();
    let ours = p256::SecretKey::from_slice(&[7; 32]).unwrap();
    let point = ours.public_key().to_sec1_point(false);
    let pair = engine.key("pair").unwrap();
    let agreed = pair.agree(point.as_bytes(), AgreementKdf::Raw, &[], KeySpec::Aes(32)).unwrap();
    let before = served(&engine.snapshot());
    for i in 0..40_u8 {
        let limit = i.is_multiple_of(2).then_some(LONG);
        let sealed = agreed.encrypt(AesGcm::new(), vec![i]).deadline(limit).wait().unwrap().into_vec();
        assert_eq!(agreed.decrypt(AesGcm::new(), sealed).deadline(limit).wait().unwrap()[..], [i]);
    }
    let after = served(&engine.snapshot());
    assert_eq!((after[0] - before[0], after[1] - before[1]), (80, 0));
}

#[test]
fn the_others_stand_still_while_one_writes_and_go_on_when_it_is_done() {
    let hsm = Hsm::new(1, "hang=C_GenerateKey:1");
    let engine = hsm.instances(2).sessions(1).build().unwrap();
    let key = engine.key("hmac").unwrap();
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| engine.generate_key("new", KeySpec::Hmac(32)));
        assert!(hsm.sim.wait_hanging(1, LONG));
        let before = served(&engine.snapshot());
        sign(&key, 30);
        for _ in 0..30 {
            key.sign(Hmac::SHA256, b"inline, where a session idles").deadline(None).wait().unwrap();
        }
        let meanwhile = served(&engine.snapshot());
        assert_eq!((meanwhile[0] - before[0], meanwhile[1] - before[1]), (60, 0));
        hsm.sim.release_hangs();
        sign(&writing.join().unwrap().unwrap(), 3);
    });
    let before = served(&engine.snapshot())[1];
    eventually("the other instance serves again", || {
        sign(&key, 10);
        served(&engine.snapshot())[1] > before
    });
    assert_eq!(engine.drain(LONG), 0);
}

#[test]
fn a_stop_does_not_wait_for_what_a_write_holds() {
    let hsm = Hsm::new(1, "hang=C_GenerateKey:1");
    let engine = hsm.instances(2).sessions(1).build().unwrap();
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| engine.generate_key("new", KeySpec::Hmac(32)).map(drop));
        assert!(hsm.sim.wait_hanging(1, LONG));
        assert!(engine.drain(Duration::ZERO) >= 1, "at least the session that is held");
        hsm.sim.release_hangs();
        // Whether it ends well depends on what was closed first.
        let _ended = writing.join().unwrap();
    });
    drop(engine);
    hsm.wait_closed();
}

#[test]
fn a_key_that_each_device_has_for_itself_is_destroyed_on_each() {
    let hsm = Hsm::new(1, "");
    let engine = hsm.instances(2).build().unwrap();
    // Devices of their own: what one generates the other does not have, which an instance of the same device would.
    let made = engine.generate_key("made", KeySpec::Ec(Curve::P256)).unwrap();
    assert!(made.is_same(&engine.key("made").unwrap()));
    for name in ["made", "hmac"] {
        engine.destroy_key(name).unwrap();
        assert_eq!(engine.key(name).map(drop).unwrap_err().kind(), ErrorKind::KeyNotFound, "{name}");
    }
}

#[test]
fn every_instance_is_closed_and_finalised_and_can_be_used_again() {
    let hsm = Hsm::new(2, "");
    for drains in [true, false] {
        let engine = hsm.instances(2).sessions(2).build().unwrap();
        let key = engine.key("hmac").unwrap();
        sign(&key, 30);
        if drains {
            assert_eq!(engine.drain(LONG), 0);
            let calls = engine.snapshot().calls;
            // Two sessions for requests and two of its own, on each of two tokens, in each of two instances.
            assert_eq!((calls["C_OpenSession"], calls["C_CloseSession"], calls["C_Login"]), (16, 16, 4));
        }
        drop((key, engine));
        hsm.wait_closed();
    }
}

#[test]
fn two_engines_have_the_same_instances() {
    let hsm = Hsm::new(1, "");
    let one = hsm.instances(2).build().unwrap();
    let other = hsm.instances(3).build().unwrap();
    assert_eq!(
        (logins(&one), logins(&other)),
        (2, 3),
        "one each, of which those in use answer that they are"
    );
    for engine in [&one, &other] {
        sign(&engine.key("hmac").unwrap(), 30);
    }
    drop(one);
    sign(&other.key("hmac").unwrap(), 30);
    assert_eq!(other.drain(LONG), 0);
}

#[test]
fn a_wrong_pin_is_tried_once_however_many_instances_there_are() {
    let hsm = Hsm::new(1, "");
    let error = hsm.instances(3).pin("4711".to_owned()).build().map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PinRefused);
    assert_eq!(hsm.sim.calls_of("C_Login"), 1);
    assert_eq!(hsm.sim.calls_of("C_Initialize"), 1);
}

#[test]
fn more_than_fit_are_refused_before_any_login() {
    let hsm = Hsm::new(2, "");
    let error = refused(hsm.instances(33));
    assert!(error.to_string().contains("64 at most"), "{error}");
    assert_eq!(hsm.sim.calls_of("C_Login"), 0);
}

#[test]
fn a_copy_that_shows_other_tokens_is_refused() {
    let hsm = Hsm::new(2, "");
    // Nobody configures the copy, so it has one token.
    let error = refused(hsm.builder().instances(2));
    assert!(error.to_string().contains("does not bear several instances"), "{error}");
    assert!(error.to_string().contains("no token like sim-1"), "{error}");
}

#[test]
fn a_copy_that_leads_to_the_globals_of_another_is_refused() {
    let Some(softhsm) = SoftHsm::for_tests() else { return };
    let (token, front) = (softhsm.unique_token(), Hsm::new(1, ""));
    let forward = format!("forward={}", softhsm.module().display());
    front.sim.configure(&forward).unwrap();
    let through = |instances| {
        let builder = Engine::builder().module(front.sim.path()).tokens([token.label()]);
        builder.pin(PIN.to_owned()).init_args(&forward).instances(instances)
    };
    assert!(through(1).build().is_ok());
    // Each copy of the simulator has globals of its own, but both pass their calls on to one and the same module.
    let error = refused(through(2));
    assert!(error.to_string().contains("a login to one holds for the other"), "{error}");
}
