//! What records say of that which failed half-way, or never began.

use std::future::{Future, IntoFuture};
use std::pin::pin;
use std::task::{Context, Waker};

use hsmux::{Error, KeyState};

use super::*;

/// `CKR_TOKEN_WRITE_PROTECTED`: the token has done nothing, and says so.
const NOT_DONE: &str = "0xe2";

fn last_of(log: &Path, operation: &str) -> Value {
    let is_of_it = |record: &Value| record["kind"] == "change" && record["operation"] == operation;
    records(log).into_iter().rfind(is_of_it).unwrap()
}

/// How a change ended by its record: its outcome, and whether it names an error.
fn end(record: &Value) -> (&str, bool) {
    (record["outcome"].as_str().unwrap(), record["error"].is_string())
}

#[test]
fn a_key_that_was_destroyed_on_one_token_is_recorded_so_when_the_next_one_fails() {
    let (hsm, site) = (Hsm::new(2, "seed=1"), tempfile::tempdir().unwrap());
    let log = site.path().join("audit");
    let engine = hsm.builder().audit(Audit::new(&log)).build().unwrap();
    hsm.sim.configure(&format!("fault=C_DestroyObject:1={NOT_DONE}@sim-1")).unwrap();
    let error = engine.destroy_key("p256").unwrap_err();
    assert_eq!(error.outcome(), Outcome::NotDone);
    let record = last_of(&log, "destroy-key");
    assert_eq!((end(&record), &record["fields"]["tokens"]), (("done", true), &SERIAL.into()));
    engine.drain(LONG);
}

#[test]
fn what_was_made_or_destroyed_is_recorded_so_whichever_listing_of_the_keys_fails() {
    let (hsm, site) = (Hsm::new(1, "seed=1"), tempfile::tempdir().unwrap());
    let log = site.path().join("audit");
    let engine = hsm.builder().audit(Audit::new(&log)).build().unwrap();
    let mut wanted = Vec::new();
    for at in 1..=12 {
        let name = format!("plain-{at}");
        let try_it = |change: &dyn Fn() -> Result<(), Error>| {
            hsm.sim.configure(&format!("fault=C_FindObjectsInit:{at}={NOT_DONE}")).unwrap();
            let has_failed = change().is_err();
            hsm.sim.configure("fault=").unwrap();
            (hsm.builder().build().unwrap().key(&*name).is_ok(), has_failed)
        };
        let (is_there, has_failed) = try_it(&|| engine.generate_key(&name, KeySpec::Aes(32)).map(drop));
        wanted.push(("generate-key", is_there, has_failed));
        if !is_there {
            engine.generate_key(&name, KeySpec::Aes(32)).unwrap();
            wanted.push(("generate-key", true, false));
        }
        let (is_there, has_failed) = try_it(&|| engine.destroy_key(&name));
        wanted.push(("destroy-key", !is_there, has_failed));
    }
    assert_eq!(engine.drain(LONG), 0);
    let all = records(&log);
    let changes = of_kind(&all, "change");
    assert_eq!(changes.len(), wanted.len());
    for (record, (operation, is_done, has_failed)) in changes.into_iter().zip(&wanted) {
        let outcome = if *is_done { "done" } else { "not-done" };
        assert_eq!((&record["operation"], end(record)), (&(*operation).into(), (outcome, *has_failed)));
        let tokens = if *is_done && *operation == "destroy-key" { SERIAL.into() } else { Value::Null };
        assert_eq!(record["fields"]["tokens"], tokens, "{record}");
    }
    for operation in ["generate-key", "destroy-key"] {
        assert!(wanted.contains(&(operation, true, true)), "no {operation} was done and failed then");
    }
}

#[test]
fn a_managed_key_whose_destruction_was_written_is_recorded_so_when_a_token_keeps_it_for_now() {
    let (hsm, site) = (Hsm::new(2, "seed=1"), tempfile::tempdir().unwrap());
    let log = site.path().join("audit");
    let engine = hsm.builder().audit(Audit::new(&log)).build().unwrap();
    let (keys, mut wanted) = (engine.managed_keys(), Vec::new());
    for at in 1..=6 {
        let id = keys.create(&format!("key-{at}"), &KeyConfig::new(KeySpec::Hmac(32))).unwrap();
        keys.deactivate(&id).unwrap();
        hsm.sim.configure(&format!("fault=C_DestroyObject:{at}={NOT_DONE}@sim-1")).unwrap();
        let has_failed = keys.destroy(&id).is_err();
        hsm.sim.configure("fault=").unwrap();
        let is_destroyed = keys.info(&id).unwrap().state == KeyState::Destroyed;
        wanted.push((if is_destroyed { "done" } else { "not-done" }, has_failed));
    }
    assert_eq!(engine.drain(LONG), 0);
    let all = records(&log);
    let changes = of_kind(&all, "change").into_iter();
    let ends: Vec<_> = changes.filter(|record| record["operation"] == "destroy-key").map(end).collect();
    assert_eq!(ends, wanted);
    assert!(wanted.contains(&("done", true)), "none was destroyed and failed then: {wanted:?}");
}

#[test]
fn the_version_of_a_change_is_the_one_that_another_engine_has_just_made() {
    let (hsm, site) = (Hsm::new(1, "seed=1"), tempfile::tempdir().unwrap());
    let log = site.path().join("audit");
    let engine = hsm.builder().audit(Audit::new(&log)).build().unwrap();
    engine.managed_keys().create("card", &KeyConfig::new(KeySpec::Hmac(32))).unwrap();
    let other = hsm.builder().build().unwrap();
    for (version, operation) in [(2, "set-alias"), (3, "suspend-key")] {
        assert_eq!(other.managed_keys().rotate("card").unwrap(), version);
        match operation {
            "set-alias" => engine.managed_keys().set_alias("pay", "card").unwrap(),
            _ => engine.managed_keys().suspend("card").unwrap(),
        }
        assert_eq!(last_of(&log, operation)["version"], version, "{operation}");
    }
    drop(other);
    engine.drain(LONG);
}

#[test]
fn the_record_of_a_rotated_pin_says_which_token_has_which_or_that_nobody_knows() {
    let (hsm, site) = (Hsm::new(3, "seed=1"), tempfile::tempdir().unwrap());
    let (log, state) = (site.path().join("audit"), site.path().join("state"));
    let engine = hsm.builder().state_dir(state).audit(Audit::new(&log)).build().unwrap();
    let rotate = |faults: &str| {
        hsm.sim.configure(&format!("fault={faults}")).unwrap();
        let rotated = engine.rotate_pin("5678".to_owned());
        hsm.sim.configure("fault=").unwrap();
        let fields = last_of(&log, "rotate-pin")["fields"].clone();
        let of = |name: &str| fields[name].as_str().unwrap_or_default().to_owned();
        (rotated, [of("new_pin"), of("old_pin"), of("unknown_pin")])
    };
    let serial = |token: usize| format!("{token:016}");
    let [first, second, third] = [serial(0), serial(1), serial(2)];
    let none = String::new;
    // The last one refuses it, and the second one will not have the old one back.
    let (rotated, pins) = rotate("C_SetPIN:1=0xa1@sim-2;C_SetPIN:2=0xa1@sim-1");
    assert_eq!(rotated.unwrap_err().outcome(), Outcome::Unknown);
    assert_eq!(pins, [second.clone(), format!("{third} {first}"), none()]);
    // The first one cannot be asked; nor can the second one on the way back, of which this rotation does not know.
    let (rotated, pins) = rotate("C_GetTokenInfo:2+=0x54@sim-0;C_GetTokenInfo:2+=0x54@sim-1");
    assert_eq!(rotated.unwrap_err().outcome(), Outcome::Unknown);
    assert_eq!(pins, [none(), format!("{third} {first}"), second.clone()]);
    // The first one's answer is lost, twice: the others are not asked.
    let (rotated, pins) = rotate("C_SetPIN:1+=0x06@sim-0");
    assert_eq!(rotated.unwrap_err().outcome(), Outcome::Unknown);
    assert_eq!(pins, [none(), none(), format!("{first} {second} {third}")]);
    engine.drain(LONG);
}

#[test]
fn what_was_given_up_while_it_waited_for_its_intent_did_not_run() {
    let (hsm, site) = (Hsm::new(1, "seed=1"), tempfile::tempdir().unwrap());
    let log = site.path().join("audit");
    let audit = Audit::new(&log).mode(AuditMode::StrictIntent);
    let engine = hsm.builder().sessions(1).audit(audit).build().unwrap();
    let key = engine.key("hmac").unwrap();
    // So that what enters its lane is not begun there either, if its intent should be durable at once.
    hsm.sim.configure("hang=C_Sign:1").unwrap();
    let held = key.sign(Hmac::SHA256, b"held").submit().unwrap();
    assert!(hsm.sim.wait_hanging(1, LONG));
    fn give_up(future: impl Future) {
        let _ = pin!(future).poll(&mut Context::from_waker(Waker::noop()));
    }
    give_up(key.sign(Hmac::SHA256, b"one").request_id("one").into_future());
    give_up(key.sign_many(Hmac::SHA256, [b"1", b"2"]).request_id("many").into_future());
    hsm.sim.release_hangs();
    held.wait().unwrap();
    assert_eq!(engine.drain(LONG), 0);
    let all = records(&log);
    for id in ["one", "many"] {
        let of_it: Vec<_> = all.iter().filter(|record| record["request"] == id).collect();
        let kinds: Vec<_> = of_it.iter().map(|record| &record["kind"]).collect();
        assert_eq!(kinds, ["intent", "use"], "{id}");
        assert_eq!((&of_it[1]["outcome"], &of_it[1]["intent"]), (&"not-done".into(), &of_it[0]["seq"]));
    }
}
