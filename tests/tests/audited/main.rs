//! The audit log of an engine: every use and every change is in it, and no reply is given without its record.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails its test")]

mod changes;
mod faults;
mod labels;
mod uses;

use std::io::{BufRead, BufReader, Write};
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use futures::StreamExt;
use hsmux::{
    AesEcb, AesGcm, Audit, AuditKey, AuditLog, AuditMode, Curve, Ecdsa, Engine, ErrorKind, Hmac, KeyConfig,
    KeySpec, Outcome, pipeline,
};
use hsmux_tests::{Hsm, LONG, eventually};
use serde_json::Value;

/// Every record of a log.
fn records(directory: &Path) -> Vec<Value> {
    let mut tail = AuditLog::at(directory).tail(1_000_000).unwrap();
    std::iter::from_fn(|| tail.next_record().unwrap())
        .map(|line| serde_json::from_str(&line).unwrap())
        .collect()
}

fn of_kind<'a>(records: &'a [Value], kind: &str) -> Vec<&'a Value> {
    records.iter().filter(|record| record["kind"] == kind).collect()
}

fn window_of(requests: usize) -> NonZeroUsize {
    NonZeroUsize::new(requests).unwrap()
}

fn verify(directory: &Path, public_key: &[u8]) {
    let key = AuditKey::parse(public_key).unwrap();
    let report = AuditLog::at(directory).verify(&[key], None).unwrap();
    assert!(report.fault.is_none(), "{:?}", report.fault);
}

/// What a record says beyond where and when it was written.
fn said(record: &Value) -> Value {
    let mut said = record.clone();
    let fields = said.as_object_mut().unwrap();
    ["v", "seq", "time", "chain"].into_iter().for_each(|field| drop(fields.remove(field)));
    said
}

/// Every record was written between then and now.
fn assert_times(all: &[Value], then: SystemTime) {
    let outside = all.iter().find(|record| !(then..=SystemTime::now()).contains(&time_of(&record["time"])));
    assert!(outside.is_none(), "{outside:?}");
}

fn time_of(text: &Value) -> SystemTime {
    humantime::parse_rfc3339(text.as_str().unwrap()).unwrap()
}

/// The serial number of the simulator's first token.
const SERIAL: &str = "0000000000000000";

/// What a key of the simulator is called whose id is its label.
fn uri(label: &str) -> String {
    label.bytes().fold("pkcs11:id=".to_owned(), |uri, byte| format!("{uri}%{byte:02X}"))
}

/// Asks in every way there is.
fn ask_in_every_way(engine: &Engine) {
    let (card, vault, p256) = (engine.key("card").unwrap(), engine.key("vault").unwrap(), Ecdsa::P256_SHA256);
    // By the caller's own thread, by a worker, awaited, submitted.
    let request = || card.sign(p256, b"message").caller("shop 7");
    let signature = request().request_id("inline").deadline(None).wait().unwrap();
    request().request_id("queued").wait().unwrap();
    futures::executor::block_on(request().request_id("awaited").into_future()).unwrap();
    request().request_id("submitted").submit().unwrap().wait().unwrap();
    // By the host.
    assert!(card.verify(p256, b"message", &signature).request_id("verified").wait().unwrap().is_valid());
    let verified = card.verify(p256, b"message", &signature).request_id("verified-async");
    assert!(futures::executor::block_on(verified.into_future()).unwrap().is_valid());
    // One that is refused before anything runs: that is no use.
    assert!(vault.sign(Hmac::SHA256, b"x").request_id("refused").wait().is_err());
    // Many in one call, and a window.
    let blocks = vault.encrypt_many(AesEcb, (0..9_u8).map(|i| vec![i; 16])).request_id("batch").wait();
    assert!(blocks.iter().all(Result::is_ok));
    let window = (0..20_u8).map(|i| vault.encrypt(AesEcb, vec![i; 16]).request_id(u64::from(i)));
    let window: Vec<_> =
        futures::executor::block_on(pipeline(futures::stream::iter(window), window_of(8)).collect());
    assert!(window.iter().all(Result::is_ok));
}

#[test]
fn every_way_of_asking_leaves_a_record() {
    // No digest has such a PIN in it by chance.
    let (hsm, site) = (Hsm::new(2, &format!("seed=1,pin={PIN}")), tempfile::tempdir().unwrap());
    let log = site.path().join("audit");
    let builder = Engine::builder().module(hsm.sim.path()).tokens(hsm.tokens.clone()).pin(PIN.to_owned());
    let engine = builder.sessions(2).audit(Audit::new(&log).name("example.com/tests")).build().unwrap();
    let keys = engine.managed_keys();
    keys.create("card", &KeyConfig::new(KeySpec::Ec(Curve::P256))).unwrap();
    keys.create("vault", &KeyConfig::new(KeySpec::Aes(32))).unwrap();
    ask_in_every_way(&engine);
    assert_eq!(engine.key("hsmux.audit").unwrap_err().kind(), ErrorKind::KeyNotFound);
    let public_key = keys.audit_public_key().unwrap();
    assert_eq!(engine.drain(LONG), 0);

    let all = records(&log);
    let uses = of_kind(&all, "use");
    let named = |id: &str| {
        let found: Vec<_> = uses.iter().filter(|record| record["request"] == id).collect();
        assert_eq!(found.len(), 1, "{id}");
        *found[0]
    };
    for name in ["inline", "queued", "awaited", "submitted"] {
        let record = named(name);
        assert_eq!((&record["caller"], &record["outcome"]), (&"shop 7".into(), &"done".into()));
        assert!(record["token"].is_string() && record["input"] == ring_sha256(b"message"), "{record}");
    }
    assert!(named("verified")["token"].is_null() && named("verified-async")["operation"] == "verify");
    assert!(uses.iter().all(|record| record["request"] != "refused"));
    // Of blocks together: one record a call, which counts them.
    let counted: u64 = of_kind(&all, "uses").iter().map(|record| record["count"].as_u64().unwrap()).sum();
    let single = uses.iter().filter(|record| record["operation"] == "encrypt-aes-ecb").count() as u64;
    assert!(counted + single == 29 && counted > 9, "{counted} and {single}");
    verify(&log, &public_key);
    assert!(!std::fs::read_to_string(log.join("00000000.jsonl")).is_ok_and(|text| text.contains(PIN)));
}

const PIN: &str = "zirconium";

fn ring_sha256(text: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn with_intents_each_operation_is_known_before_it_begins() {
    let (hsm, site) = (Hsm::new(1, "seed=1"), tempfile::tempdir().unwrap());
    let log = site.path().join("audit");
    let engine = hsm.builder().audit(Audit::new(&log).mode(AuditMode::StrictIntent)).build().unwrap();
    engine.managed_keys().create("vault", &KeyConfig::new(KeySpec::Aes(32))).unwrap();
    let vault = engine.key("vault").unwrap();
    let encrypt = |id: u64| vault.encrypt(AesGcm::new(), b"message").request_id(id);
    encrypt(1).deadline(None).wait().unwrap();
    encrypt(2).wait().unwrap();
    futures::executor::block_on(encrypt(3).into_future()).unwrap();
    encrypt(4).submit().unwrap().wait().unwrap();
    let many = vault.encrypt_many(AesGcm::new(), [b"a", b"b"]).request_id(5_u64).wait();
    assert!(many.iter().all(Result::is_ok));
    let window = (6..12).map(encrypt);
    let window: Vec<_> =
        futures::executor::block_on(pipeline(futures::stream::iter(window), window_of(3)).collect());
    assert!(window.iter().all(Result::is_ok));
    let public_key = engine.managed_keys().audit_public_key().unwrap();
    assert_eq!(engine.drain(LONG), 0);
    let all = records(&log);
    for number in 1..12 {
        let id = &*number.to_string();
        let kinds: Vec<_> = all
            .iter()
            .filter(|record| record["request"] == id)
            .map(|record| record["kind"].as_str().unwrap())
            .collect();
        let wanted: &[&str] =
            if number == 5 { &["intent", "intent", "use", "use"] } else { &["intent", "use"] };
        assert_eq!(
            {
                let mut sorted = kinds.clone();
                sorted.sort_unstable();
                sorted
            },
            wanted,
            "{id}"
        );
        assert_eq!(kinds[0], "intent", "{id}");
    }
    verify(&log, &public_key);
}

#[test]
fn a_request_whose_time_is_over_when_its_intent_is_durable_is_not_run() {
    let (hsm, site) = (Hsm::new(1, "seed=1,count_executions=99"), tempfile::tempdir().unwrap());
    let log = site.path().join("audit");
    let engine = hsm.builder().audit(Audit::new(&log).mode(AuditMode::StrictIntent)).build().unwrap();
    let key = engine.key("hmac").unwrap();
    let sign = |id| key.sign(Hmac::SHA256, b"message").request_id(id).deadline_in(Duration::from_nanos(1));
    let many = key.sign_many(Hmac::SHA256, [b"message"]).request_id("many");
    let before = hsm.sim.calls_of("C_Sign");
    let answers = [
        sign("waited").wait(),
        futures::executor::block_on(sign("awaited").into_future()),
        sign("submitted").submit().map_or_else(|refused| Err(refused.error), |pending| pending.wait()),
        many.deadline_in(Duration::from_nanos(1)).wait().remove(0),
    ];
    let card = engine.key("p256").unwrap();
    let verify = card.verify(Ecdsa::P256_SHA256, b"message", &[0; 64]).request_id("verified");
    let verify = verify.deadline_in(Duration::from_nanos(1));
    let verified = futures::executor::block_on(verify.into_future()).map(drop);
    let verify = card.verify_many(Ecdsa::P256_SHA256, [(b"message", [0; 64])]).request_id("verified-many");
    let verified_many = verify.deadline_in(Duration::from_nanos(1)).wait().remove(0).map(drop);
    let answers = answers.map(|answer| answer.map(drop)).into_iter().chain([verified, verified_many]);
    let signed = || hsm.sim.executions_of("C_Sign", b"message");
    let (early, over) = (signed(), (ErrorKind::DeadlineExceeded, Outcome::NotDone));
    for answer in answers {
        assert_eq!(answer.map_err(|error| (error.kind(), error.outcome())), Err(over));
    }
    assert_eq!(hsm.sim.calls_of("C_Sign"), before);
    // A request that is refused may be submitted again, with an intent of its own.
    let refused = sign("again").submit().unwrap_err();
    assert!(refused.request.deadline_in(LONG).wait().is_ok());
    assert_eq!(engine.drain(LONG), 0);
    assert_eq!((early, signed()), (0, 1));
    let all = records(&log);
    let of = |id: &str| {
        let of_it = all.iter().filter(move |record| record["request"] == id);
        of_it.map(|record| (record["kind"].clone(), record["outcome"].clone())).collect::<Vec<_>>()
    };
    let error = |id: &str| &all.iter().rfind(|record| record["request"] == id).unwrap()["error"];
    ["verified", "verified-many"].iter().for_each(|id| assert_eq!(error(id), "deadline-exceeded"));
    let (intent, not_done) = (("intent".into(), Value::Null), ("use".into(), "not-done".into()));
    for id in ["waited", "awaited", "submitted", "many", "verified", "verified-many"] {
        assert_eq!(of(id), [intent.clone(), not_done.clone()], "{id}");
    }
    assert_eq!(of("again"), [intent.clone(), not_done, intent, ("use".into(), "done".into())]);
}

#[test]
fn who_gives_a_request_up_after_it_began_leaves_a_record_too() {
    let (hsm, site) = (Hsm::new(1, "seed=1"), tempfile::tempdir().unwrap());
    let log = site.path().join("audit");
    let engine = hsm.builder().audit(Audit::new(&log)).build().unwrap();
    engine.managed_keys().create("mac", &KeyConfig::new(KeySpec::Hmac(32))).unwrap();
    let key = engine.key("mac").unwrap();
    hsm.sim.configure("hang=C_Sign:1").unwrap();
    let pending = key.sign(Hmac::SHA256, b"message").request_id("given-up").submit().unwrap();
    eventually("it hangs", || hsm.sim.hanging() == 1);
    drop(pending);
    hsm.sim.release_hangs();
    assert_eq!(engine.drain(LONG), 0);
    let all = records(&log);
    let of_it: Vec<_> = all.iter().filter(|record| record["request"] == "given-up").collect();
    assert_eq!((of_it.len(), &of_it[0]["outcome"]), (1, &"unknown".into()));
}

/// The environment of a process that is killed.
const STORE: &str = "HSMUX_TEST_STORE";
const LOG: &str = "HSMUX_TEST_LOG";

fn build(store: &str, log: impl Into<std::path::PathBuf>) -> Engine {
    // It has to be there when the engine loads it.
    let sim = p11_sim::Loaded::private_copy(store).unwrap();
    let builder = Engine::builder().module(sim.path()).tokens(["sim-0"]).pin("1234".to_owned());
    builder.init_args(store).sessions(2).audit(Audit::new(log)).build().unwrap()
}

#[test]
fn a_process_that_other_tests_start() {
    let var = |name| std::env::var(name).ok();
    let (Some(store), Some(log)) = (var(STORE), var(LOG)) else { return };
    let engine = build(&store, log);
    let key = engine.key("hmac").unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let key = &key;
            scope.spawn(move || {
                for number in 0.. {
                    let id = format!("{}-{thread}-{number}", std::process::id());
                    key.sign(Hmac::SHA256, id.as_bytes()).request_id(id.as_str()).wait().unwrap();
                    // A reply, as the application gives it to whoever asked.
                    writeln!(std::io::stdout().lock(), "\nreply {id}").unwrap();
                }
            });
        }
    });
}

#[test]
fn no_reply_was_given_without_a_record_when_the_process_is_killed() {
    let kills: usize = std::env::var("HSMUX_KILLS").map_or(20, |text| text.parse().unwrap());
    let site = tempfile::tempdir().unwrap();
    let log = site.path().join("audit");
    let (mut replies, mut dice) = (Vec::new(), 5_u64);
    for kill in 0..kills {
        let store = format!("store={},seed={}", site.path().join("store").display(), kill + 1);
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "a_process_that_other_tests_start", "--nocapture"]);
        command.env(STORE, store).env(LOG, &log).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let reply = |line: String| line.strip_prefix("reply ").map(str::to_owned);
        // It serves; then it is killed at any moment of that.
        replies.push(lines.by_ref().find_map(reply).unwrap());
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        std::thread::park_timeout(Duration::from_micros((dice >> 33) % 30_000));
        child.kill().unwrap();
        child.wait().unwrap();
        replies.extend(lines.filter_map(reply));
    }
    let store = format!("store={},seed=999", site.path().join("store").display());
    let engine = build(&store, &log);
    let public_key = engine.managed_keys().audit_public_key().unwrap();
    assert_eq!(engine.drain(LONG), 0);
    let all = records(&log);
    let recorded: std::collections::HashSet<_> = of_kind(&all, "use")
        .iter()
        .map(|record| record["request"].as_str().unwrap_or_default().to_owned())
        .collect();
    let missing: Vec<_> = replies.iter().filter(|reply| !recorded.contains(*reply)).collect();
    assert!(missing.is_empty(), "{} of {} replies without a record", missing.len(), replies.len());
    println!("{kills} kills: {} replies, each with its record", replies.len());
    verify(&log, &public_key);
    assert!(replies.len() >= kills, "only {} replies", replies.len());
}

#[test]
fn a_drain_waits_for_answers_that_are_not_collected_and_each_has_its_record() {
    let (hsm, site) = (Hsm::new(1, "seed=1"), tempfile::tempdir().unwrap());
    let log = site.path().join("audit");
    let engine = hsm.builder().audit(Audit::new(&log)).build().unwrap();
    let key = engine.key("hmac").unwrap();
    let pending = key.sign(Hmac::SHA256, b"message").request_id("late").submit().unwrap();
    eventually("it is carried out", || engine.snapshot().in_flight == 0);
    std::thread::scope(|scope| {
        let drained = scope.spawn(|| engine.drain(LONG));
        eventually("the engine drains", || key.sign(Hmac::SHA256, b"x").wait().is_err());
        assert!(pending.wait().is_ok());
        assert_eq!(drained.join().unwrap(), 0);
    });
    let all = records(&log);
    assert_eq!(all.iter().filter(|record| record["request"] == "late").count(), 1);
}
