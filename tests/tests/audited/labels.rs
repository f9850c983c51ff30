//! Whose a request was, and its id, where several go into one call.

use super::*;

/// What the records of calls by ECB say.
fn uses_of(log: &Path) -> Vec<Value> {
    let is_of_ecb = |record: &Value| record["operation"] == "encrypt-aes-ecb";
    records(log).into_iter().filter(is_of_ecb).collect()
}

fn engine_on(hsm: &Hsm, log: &Path) -> Engine {
    let audit = Audit::new(log).mode(AuditMode::Strict);
    hsm.builder().sessions(1).holding(false).audit(audit).build().unwrap()
}

#[test]
fn the_id_of_a_key_is_in_the_root_of_those_that_go_together() {
    let (hsm, site) = (Hsm::new(1, "seed=1"), tempfile::tempdir().unwrap());
    let log = site.path().join("audit");
    let engine = engine_on(&hsm, &log);
    let key = engine.key("aes256").unwrap();
    let blocks = || (0..9_u8).map(|i| vec![i; 16]);
    let labelled = key.clone().for_request(4711_u64);
    let answers = [
        labelled.encrypt_many(AesEcb, blocks()).wait(),
        key.encrypt_many(AesEcb, blocks()).request_id(4711_u64).wait(),
        key.encrypt_many(AesEcb, blocks()).wait(),
    ];
    assert!(answers.iter().flatten().all(Result::is_ok));
    assert_eq!(engine.drain(LONG), 0);
    let roots: Vec<_> = uses_of(&log).iter().map(|record| record["root"].clone()).collect();
    assert_eq!((roots.len(), &roots[0]), (3, &roots[1]));
    assert_ne!(roots[0], roots[2]);
}

#[test]
fn those_that_run_again_by_themselves_keep_their_id() {
    let (hsm, site) = (Hsm::new(1, "seed=1"), tempfile::tempdir().unwrap());
    let log = site.path().join("audit");
    let engine = engine_on(&hsm, &log);
    let key = engine.key("aes256").unwrap().for_caller("desk");
    hsm.sim.configure("fault=C_Encrypt:1=0x21").unwrap();
    let answers = key.encrypt_many(AesEcb, (0..3_u8).map(|i| vec![i; 16])).request_id("batch").wait();
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(engine.drain(LONG), 0);
    let all = uses_of(&log);
    let single = of_kind(&all, "use");
    assert_eq!((of_kind(&all, "uses").len(), single.len()), (1, 3), "{all:?}");
    for record in single {
        assert_eq!((&record["request"], &record["caller"]), (&"batch".into(), &"desk".into()));
    }
}

#[test]
fn requests_of_two_callers_do_not_go_into_one_record() {
    let (hsm, site) = (Hsm::new(1, "seed=1"), tempfile::tempdir().unwrap());
    let log = site.path().join("audit");
    let engine = engine_on(&hsm, &log);
    let key = engine.key("aes256").unwrap();
    let (ours, theirs) = (key.clone().for_caller("ours"), key.for_caller("theirs"));
    let of = |i: u8| if (i / 4).is_multiple_of(2) { &ours } else { &theirs };
    let window = (0..48_u8).map(|i| of(i).encrypt(AesEcb, vec![i; 16]));
    let answers: Vec<_> =
        futures::executor::block_on(pipeline(futures::stream::iter(window), window_of(32)).collect());
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(engine.drain(LONG), 0);
    let all = uses_of(&log);
    assert!(!of_kind(&all, "uses").is_empty(), "none went together");
    for caller in ["ours", "theirs"] {
        let of_it = all.iter().filter(|record| record["caller"] == caller);
        assert_eq!(of_it.map(|record| record["count"].as_u64().unwrap_or(1)).sum::<u64>(), 24, "{caller}");
    }
}
