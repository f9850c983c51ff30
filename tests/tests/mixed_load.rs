//! Many callers on two tokens, every kind of operation mixed, every output checked by other software.
//!
//! `HSMUX_SOAK_OPERATIONS` says how many operations, 10,000 without it; `HSMUX_SOAK_SECONDS`, which `scripts/soak.sh` sets,
//! for how long instead.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails its test")]

use std::sync::Arc;
use std::time::Duration;

use hsmux::{Engine, Sessions, Snapshot};
use hsmux_bench::check::{FurtherMaterial, Material, Software};
use hsmux_bench::mixed::{Check, Further, Labels, Mixed, Report, Work};
use hsmux_tests::{Ready, eventually, wait_idle};
use p256::elliptic_curve::sec1::ToSec1Point;
use p256::pkcs8::EncodePublicKey;
use quanta::Instant;
use softhsm_fixtures::{CurveName, CustomKey, KeyUse, PIN, PairKind, SoftHsm, TestKey};

const LABELS: Labels =
    Labels { rsa: "rsa", p256: "p256", p384: "p384", aes: "aes", hmac: "hmac", further: Some(FURTHER) };

const FURTHER: Further =
    Further { p256: "p256-2", aes: "aes-2", hmac: "hmac-2", cmac: "cmac", des: "des", des_mac: "des-mac" };

const KEYS: [(&str, TestKey); 5] = [
    ("rsa", TestKey::Rsa2048),
    ("p256", TestKey::P256),
    ("p384", TestKey::P384),
    ("aes", TestKey::Aes256),
    ("hmac", TestKey::Hmac),
];

/// Keys that protect nothing, of different bytes. Those of DES have odd parity (FIPS 46-3), which SoftHSM2 may set.
const P256: [u8; 32] = [3; 32];
const AES: [u8; 32] = [0x24; 32];
const HMAC: [u8; 32] = [0x42; 32];
const CMAC: [u8; 32] = [0x17; 32];
const DES: [u8; 24] =
    *b"\x01\x23\x45\x67\x89\xab\xcd\xef\xfe\xdc\xba\x98\x76\x54\x32\x10\x13\x25\x46\x68\x8a\xa8\xce\xec";
const DES_MAC: [u8; 24] =
    *b"\x13\x25\x46\x68\x8a\xa8\xce\xec\x01\x23\x45\x67\x89\xab\xcd\xef\xfe\xdc\xba\x98\x76\x54\x32\x10";

/// The second key on P-256.
fn p256() -> p256::SecretKey {
    p256::SecretKey::from_slice(&P256).unwrap()
}

fn further_keys() -> [(&'static str, CustomKey); 6] {
    let cipher = [KeyUse::Encrypt, KeyUse::Decrypt];
    let point = p256().public_key().to_sec1_point(false);
    [
        (FURTHER.p256, CustomKey::on_curve(CurveName::P256, &P256, point.as_bytes()).may(&[KeyUse::Sign])),
        (FURTHER.aes, CustomKey::aes(&AES).may(&cipher)),
        (FURTHER.hmac, CustomKey::generic(&HMAC).may(&[KeyUse::Sign])),
        (FURTHER.cmac, CustomKey::aes(&CMAC).may(&[KeyUse::Sign])),
        (FURTHER.des, CustomKey::triple_des(&DES).may(&cipher)),
        (FURTHER.des_mac, CustomKey::triple_des(&DES_MAC).may(&[KeyUse::Sign])),
    ]
}

/// Init and the operation make two; the rest is room for a repair now and then.
const CALLS_PER_OPERATION_MAX: f64 = 2.05;

/// An engine on two new tokens that hold the same keys.
fn engine(softhsm: &SoftHsm, sessions: Sessions) -> Arc<Engine> {
    Arc::new(builder(softhsm).sessions(sessions).build().unwrap())
}

/// As [`engine`], with everything that has to be asked for: modes on the host, and two instances of the module. What
/// else makes calls fewer or cheaper is there by default.
fn engine_with_every_trick(softhsm: &SoftHsm) -> Arc<Engine> {
    let host_modes = [LABELS.aes, FURTHER.aes, FURTHER.des];
    Arc::new(builder(softhsm).host_modes(host_modes).instances(INSTANCES).build().unwrap())
}

const INSTANCES: usize = 2;

fn builder(softhsm: &SoftHsm) -> Ready {
    let tokens = [softhsm.unique_token(), softhsm.unique_token()];
    for token in &tokens {
        KEYS.iter().for_each(|&(label, key)| token.import(label, key));
        further_keys().iter().for_each(|(label, key)| token.import_custom(label, key));
    }
    let labels: Vec<_> = tokens.iter().map(|token| token.label().to_owned()).collect();
    Engine::builder().module(softhsm.module()).tokens(labels).pin(PIN)
}

fn software() -> Arc<Software> {
    let public = |key: TestKey| key.public_key_der().unwrap();
    let p256 = p256().public_key().to_public_key_der().unwrap();
    let further = FurtherMaterial {
        p256: p256.as_bytes(),
        aes: &AES,
        hmac: &HMAC,
        cmac: &CMAC,
        des: &DES,
        des_mac: &DES_MAC,
    };
    let material = Material {
        rsa: public(TestKey::Rsa2048),
        p256: public(TestKey::P256),
        p384: public(TestKey::P384),
        aes: TestKey::Aes256.secret().unwrap(),
        hmac: TestKey::Hmac.secret().unwrap(),
        further: Some(further),
    };
    Arc::new(Software::new(material).unwrap())
}

/// Calls that the engine counts for the module as a whole, so that other tests' engines show in them. A session
/// opened for an operation would show all the same: it has to be closed. And those by which the originals of warm
/// copies are looked at once a second, whatever the load.
const SHARED: [&str; 9] = [
    "C_GetAttributeValue",
    "C_Initialize",
    "C_GetInfo",
    "C_GetSlotInfo",
    "C_GetSlotList",
    "C_GetTokenInfo",
    "C_GetMechanismList",
    "C_GetMechanismInfo",
    "C_OpenSession",
];

/// PKCS#11 calls between two snapshots.
fn calls(before: &Snapshot, after: &Snapshot) -> u64 {
    let own = |snapshot: &Snapshot| {
        snapshot.calls.iter().filter(|(name, _)| !SHARED.contains(name)).map(|(_, count)| count).sum::<u64>()
    };
    own(after) - own(before)
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn ratio(calls: u64, operations: u64) -> f64 {
    calls as f64 / operations as f64
}

/// Operations where nobody says how many. A count and not a time: of the rarest kinds it has fifty each on any machine.
const COUNT: u64 = 10_000;

/// Operations of each kind by itself.
const EACH: u64 = 200;

/// Requests among which every kind comes up, also where one in three is looked at.
const EVERY_KIND: u64 = 5_000;

/// How long a count of operations may take: ten million take a software token minutes.
const SOAK_MAX: Duration = Duration::from_secs(6 * 3600);

/// Nothing failed on a token, not even something that the engine then repeated: among that would be
/// `CKR_OPERATION_ACTIVE`.
fn assert_flawless(report: &Report, snapshot: &Snapshot, logins: usize) {
    assert!(report.is_clean(), "{report}");
    let errors = snapshot.tokens.iter().flat_map(|token| &token.operations).flat_map(|op| &op.errors);
    let errors: Vec<_> = errors.collect();
    assert!(errors.is_empty(), "errors on the tokens: {errors:?}");
    assert_eq!((snapshot.refused, snapshot.expired, snapshot.hung, snapshot.panics), (0, 0, 0, 0));
    assert_eq!((snapshot.in_flight, snapshot.bytes_in_flight), (0, 0));
    assert_eq!(snapshot.calls["C_Login"], logins as u64, "one login for each token of each instance");
}

#[test]
fn two_hundred_and_fifty_six_callers_lose_nothing_and_get_nothing_wrong() {
    let Some(softhsm) = SoftHsm::for_tests() else { return };
    let variable = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let (seconds, count) = (variable("HSMUX_SOAK_SECONDS"), variable("HSMUX_SOAK_OPERATIONS"));
    let engine = engine_with_every_trick(softhsm);
    let mixed = Mixed::new(LABELS, 256, Check::Every);
    let before = engine.snapshot();
    let start = Instant::now();
    let report = match (seconds, count) {
        (Some(seconds), None) => mixed.run_for(Duration::from_secs(seconds), &engine, &software()),
        (_, count) => mixed.run_count(count.unwrap_or(COUNT), SOAK_MAX, &engine, &software()),
    };
    let report = report.unwrap();
    wait_idle(&engine);
    let seconds = start.elapsed().as_secs();
    let after = engine.snapshot();

    let total = report.total();
    println!("{seconds} s, 256 callers, two tokens: {report}");
    for (work, tally) in &report.works {
        println!(
            "  {work:20} {:9} asked {:9} answered {:9} checked",
            tally.asked, tally.answered, tally.checked
        );
    }
    for (function, count) in &after.calls {
        let made = count - before.calls.get(function).unwrap_or(&0);
        if made > 0 {
            println!("  {function:20} {made:9}");
        }
    }
    let per_operation = ratio(calls(&before, &after), total.answered);
    println!("  {per_operation:.4} calls per operation, {} logins", after.calls["C_Login"]);

    assert_flawless(&report, &after, 2 * INSTANCES);
    assert_eq!(report.works.len(), Work::ALL.len(), "a kind was never asked for");
    assert_eq!((total.asked, total.checked), (total.answered, total.answered));
    // The pool may be filling itself just now.
    eventually("the engine counts what the callers counted", || {
        counted(&engine.snapshot()) == total.answered
    });
    assert!(after.tokens.iter().all(|token| !token.operations.is_empty()), "one token did nothing");
    assert!(per_operation <= CALLS_PER_OPERATION_MAX, "{per_operation} calls per operation");
    assert_eq!(engine.drain(Duration::from_secs(10)), 0);
}

/// Operations that were carried out: those that the pool of random bytes served in place of its refills.
fn counted(snapshot: &Snapshot) -> u64 {
    let operations =
        snapshot.tokens.iter().flat_map(|token| &token.operations).map(|op| op.count).sum::<u64>();
    operations + snapshot.random_pool.requests - snapshot.random_pool.refills
}

/// Each kind by itself: in the mix a rare one with a third call would not show.
#[test]
fn no_kind_of_operation_takes_more_than_two_calls() {
    let Some(softhsm) = SoftHsm::for_tests() else { return };
    // Nor is the opening of sessions, which a controller spreads over the first seconds.
    let (engine, software) = (engine(softhsm, 2.into()), software());
    // Keys are proven once: that is no part of an operation.
    let further = further_keys();
    let labels = KEYS.iter().map(|(label, _)| label).chain(further.iter().map(|(label, _)| label));
    labels.for_each(|label| drop(engine.key(label).unwrap()));
    for work in Work::ALL {
        let mixed = Mixed { works: vec![work], ..Mixed::new(LABELS, 8, Check::Every) };
        let before = engine.snapshot();
        let report = mixed.run_count(EACH, SOAK_MAX, &engine, &software).unwrap();
        wait_idle(&engine);
        let after = engine.snapshot();
        assert_flawless(&report, &after, 2);
        let per_operation = ratio(calls(&before, &after), report.total().answered);
        println!("  {work:20} {per_operation:.4} calls per operation of {}", report.total().answered);
        assert!(per_operation <= CALLS_PER_OPERATION_MAX, "{work}: {per_operation} calls per operation");
    }
    assert_eq!(engine.drain(Duration::from_secs(10)), 0);
}

#[test]
fn a_sample_is_of_every_kind_and_software_finds_what_is_wrong() {
    let Some(softhsm) = SoftHsm::for_tests() else { return };
    let (engine, software) = (engine(softhsm, Sessions::AUTO), software());
    let mixed = Mixed::new(LABELS, 8, Check::Sample(3));
    let report = mixed.run_for(Duration::from_secs(1), &engine, &software).unwrap();
    assert!(report.is_clean(), "{report}");
    assert!(report.works.iter().all(|(_, tally)| tally.checked <= 8 * 3), "{report:?}");
    // The same tokens, but software with other keys: every signature, MAC and ciphertext must be found wrong.
    let other = softhsm.unique_token();
    let (p256, p384) = (other.generate("a", PairKind::P256), other.generate("b", PairKind::P384));
    let rsa = other.generate("c", PairKind::Rsa2048);
    let holder = Engine::builder().module(softhsm.module()).tokens([other.label()]).pin(PIN).build().unwrap();
    for (label, public) in [("a", &p256), ("b", &p384), ("c", &rsa)] {
        assert_eq!(&holder.key(label).unwrap().public_key_der().unwrap(), public);
    }
    drop(holder);
    let further = FurtherMaterial {
        p256: &p256,
        aes: &[3; 32],
        hmac: &[4; 32],
        cmac: &[5; 32],
        des: &DES_MAC,
        des_mac: &DES,
    };
    let (aes, hmac) = (&[1; 32], &[2; 32]);
    let material = Material { rsa: &rsa, p256: &p256, p384: &p384, aes, hmac, further: Some(further) };
    let other = Arc::new(Software::new(material).unwrap());
    let report = mixed.run_count(EVERY_KIND, SOAK_MAX, &engine, &other).unwrap();
    for (work, tally) in &report.works {
        let told = match work {
            Work::Random => tally.wrong == 0,
            // The token refuses a ciphertext of another key, as it should.
            Work::DecryptGcm => tally.failed == tally.asked,
            // Most paddings are refused; what is left is wrong.
            Work::DecryptCbcPad | Work::DecryptDesCbc => tally.wrong == tally.checked && tally.lost() == 0,
            // Of an empty message every key makes the same: only that there are none but these cannot be.
            Work::EncryptCtr | Work::DecryptCtr => tally.wrong > 0 || tally.checked < 8,
            _ => tally.checked > 0 && tally.wrong == tally.checked,
        };
        assert!(told, "{work}: {tally:?}");
    }
    assert_eq!(engine.drain(Duration::from_secs(10)), 0);
}
