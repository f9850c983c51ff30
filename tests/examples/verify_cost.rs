//! What checks of outputs cost: one caller and one session, without a check, with a sample and with every output
//! checked, in turns.
//!
//! `cargo run --release -p hsmux-tests --example verify_cost`

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a report")]

use std::time::Duration;

use hsmux::{AesCtr, AesEcb, AesGcm, Cmac, Ecdsa, Engine, Hmac, Key, RsaPkcs1, VerifyOutputs};
use p11_sim::Loaded;
use quanta::Instant;
use softhsm_fixtures::{CustomKey, KeyUse, PIN, SoftHsm, TestKey};

/// Rounds of each operation; their middle is reported.
const ROUNDS: usize = 21;

/// How long an operation runs in each round and way.
const ROUND: Duration = Duration::from_millis(40);

const WAYS: [VerifyOutputs; 3] = [VerifyOutputs::Off, VerifyOutputs::Sampled, VerifyOutputs::Always];

struct Case {
    name: &'static str,
    label: &'static str,
    run: fn(&Key),
}

const TEXT: &[u8] = &[0x5A; 64];

const CASES: [Case; 7] = [
    Case { name: "HMAC-SHA-256", label: "hmac", run: |key| drop(sign(key, Hmac::SHA256)) },
    Case { name: "AES-CMAC", label: "mac", run: |key| drop(sign(key, Cmac::Aes)) },
    Case { name: "ECDSA P-256", label: "p256", run: |key| drop(sign(key, Ecdsa::P256_SHA256)) },
    Case { name: "RSA-2048 PKCS#1", label: "rsa2048", run: |key| drop(sign(key, RsaPkcs1::SHA256)) },
    Case { name: "AES-GCM encryption", label: "aes256", run: |key| encrypt(key, AesGcm::new()) },
    Case { name: "AES-CTR encryption", label: "aes256", run: |key| encrypt(key, AesCtr::new()) },
    Case { name: "AES-ECB encryption", label: "aes256", run: |key| encrypt(key, AesEcb) },
];

fn sign(key: &Key, how: impl Into<hsmux::SignAlgorithm>) -> hsmux::Signature {
    key.sign(how.into(), TEXT).deadline(None).wait().unwrap()
}

fn encrypt(key: &Key, how: impl Into<hsmux::Cipher>) {
    drop(key.encrypt(how.into(), TEXT).deadline(None).wait().unwrap());
}

fn main() {
    if let Some(softhsm) = SoftHsm::for_tests() {
        let token = softhsm.unique_token();
        for (label, key) in [
            ("rsa2048", TestKey::Rsa2048),
            ("p256", TestKey::P256),
            ("aes256", TestKey::Aes256),
            ("hmac", TestKey::Hmac),
        ] {
            token.import(label, key);
        }
        token.import_custom("mac", &CustomKey::aes(&[7; 32]).may(&[KeyUse::Sign]));
        let engine = |verify| {
            let builder = Engine::builder().module(softhsm.module()).tokens([token.label()]).pin(PIN);
            builder.sessions(1).verify_outputs(verify).build().unwrap()
        };
        report("SoftHSM2", engine);
    }
    for op_us in [0, 250] {
        let config = format!("tokens=1,op_us={op_us},keys=mac:aes-mac");
        let sim = Loaded::private_copy(&config).unwrap();
        let engine = |verify| {
            let builder = Engine::builder().module(sim.path()).tokens(["sim-0"]).pin("1234".to_owned());
            builder.sessions(1).verify_outputs(verify).build().unwrap()
        };
        report(&format!("p11-sim, {op_us} us an operation"), engine);
    }
}

/// One line for each operation: microseconds and calls of the module for one, in each way.
fn report(what: &str, engine: impl Fn(VerifyOutputs) -> Engine) {
    println!("{what}: microseconds and calls of one operation: off, sampled, always");
    for case in CASES {
        let engines = WAYS.map(&engine);
        let keys = engines.each_ref().map(|engine| engine.key(case.label).unwrap());
        let calls = |engine: &Engine| engine.snapshot().calls.values().sum::<u64>();
        let before = engines.each_ref().map(calls);
        let (mut times, mut operations) = ([const { Vec::new() }; WAYS.len()], [0; WAYS.len()]);
        for _ in 0..ROUNDS {
            for (way, key) in keys.iter().enumerate() {
                let (start, mut count) = (Instant::now(), 0);
                while start.elapsed() < ROUND {
                    (0..4).for_each(|_| (case.run)(key));
                    count += 4;
                }
                times[way].push(start.elapsed().as_secs_f64() * 1e6 / f64::from(count));
                operations[way] += count;
            }
        }
        let middle = times.map(|mut times| {
            times.sort_by(f64::total_cmp);
            times[ROUNDS / 2]
        });
        print!("  {:20}", case.name);
        for (way, engine) in engines.iter().enumerate() {
            let made = u32::try_from(calls(engine) - before[way]).unwrap();
            print!("{:9.1} {:5.2}", middle[way], f64::from(made) / f64::from(operations[way]));
        }
        println!("   x {:.2}, x {:.2}", middle[1] / middle[0], middle[2] / middle[0]);
        drop(keys);
        engines.iter().for_each(|engine| assert_eq!(engine.drain(Duration::from_secs(5)), 0));
    }
}
