//! Keys that one instance of SoftHSM2 makes and destroys while another one works on the same files. Alone in its file,
//! for whatever else wrote to this process's tokens beside it would be one more writer.
//!
//! `HSMUX_INSTANCE_WRITES` says how many keys come and go: 200 without it, 10 000 in `scripts/soak.sh`.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails its test")]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use hmac::{KeyInit, Mac};
use hsmux::{AesGcm, Curve, Ecdsa, Engine, ErrorKind, Hmac, Key, KeySpec};
use hsmux_tests::{LONG, eventually};
use p256::ecdsa::signature::Verifier;
use softhsm_fixtures::{PIN, SoftHsm};
use spki::DecodePublicKey;

/// Operations that succeeded, by instance.
fn served(engine: &Engine) -> Vec<u64> {
    let of = |token: &hsmux::TokenSnapshot| token.operations.iter().map(|operation| operation.count).sum();
    engine.snapshot().tokens.iter().map(of).collect()
}

/// Works with a key, which `check` does once, until both instances have: whichever session idles serves.
fn on_both(engine: &Engine, mut check: impl FnMut()) {
    let before = served(engine);
    eventually("both instances have served", || {
        check();
        served(engine).iter().zip(&before).all(|(now, before)| now > before)
    });
}

fn errors(engine: &Engine) -> usize {
    let snapshot = engine.snapshot();
    let operations = snapshot.tokens.iter().flat_map(|token| &token.operations);
    operations.map(|operation| operation.errors.len()).sum()
}

/// Makes MACs until it is told to stop, and checks each. Returns how many.
fn load(key: &Key, value: &[u8], caller: u64, stop: &AtomicBool) -> u64 {
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        let message = (caller << 48 | count).to_be_bytes();
        // Some through the queue, some on this thread.
        let limit = count.is_multiple_of(2).then_some(LONG);
        let made = key.sign(Hmac::SHA256, &message).deadline(limit).wait().unwrap();
        let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(value).unwrap();
        mac.update(&message);
        assert_eq!(made[..], mac.finalize().into_bytes()[..], "MAC {count} of caller {caller}");
        count += 1;
    }
    count
}

/// Tells the load to stop, also when a check fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn come_and_go(engine: &Engine, writes: u64) {
    for number in 0..writes {
        let name = format!("key-{number}");
        // Now and then a pair, whose two objects go together.
        let key = if number % 10 == 9 {
            engine.generate_key(&name, KeySpec::Ec(Curve::P256)).unwrap()
        } else {
            engine.generate_key(&name, KeySpec::Hmac(32)).unwrap()
        };
        if number % 10 == 9 {
            let public =
                p256::ecdsa::VerifyingKey::from_public_key_der(&key.public_key_der().unwrap()).unwrap();
            let signature = key.sign(Ecdsa::P256_SHA256, b"x").wait().unwrap();
            public.verify(b"x", &p256::ecdsa::Signature::from_slice(&signature).unwrap()).unwrap();
        }
        engine.destroy_key(&name).unwrap();
        assert_eq!(engine.key(&name).map(drop).unwrap_err().kind(), ErrorKind::KeyNotFound);
    }
}

#[test]
fn keys_come_and_go_in_one_instance_while_the_other_works() {
    let Some(softhsm) = SoftHsm::for_tests() else { return };
    let token = softhsm.unique_token();
    token.import_hmac("mac", &[3; 32]);
    let builder = || Engine::builder().module(softhsm.module()).tokens([token.label()]).pin(PIN).instances(2);
    let engine = builder().build().unwrap();
    assert_eq!(engine.snapshot().calls["C_Login"], 2, "one per instance");
    let mac = engine.key("mac").unwrap();

    // What is made while two instances run works on both.
    let pair = engine.generate_key("pair", KeySpec::Ec(Curve::P256)).unwrap();
    let public = p256::ecdsa::VerifyingKey::from_public_key_der(&pair.public_key_der().unwrap()).unwrap();
    on_both(&engine, || {
        let signature = pair.sign(Ecdsa::P256_SHA256, b"message").wait().unwrap();
        public.verify(b"message", &p256::ecdsa::Signature::from_slice(&signature).unwrap()).unwrap();
    });
    let aes = engine.generate_key("aes", KeySpec::Aes(32)).unwrap();
    on_both(&engine, || {
        let sealed = aes.encrypt(AesGcm::new(), b"secret").wait().unwrap().into_vec();
        assert_eq!(aes.decrypt(AesGcm::new(), sealed).deadline(None).wait().unwrap()[..], *b"secret");
    });

    let writes = std::env::var("HSMUX_INSTANCE_WRITES").map_or(200, |count| count.parse().unwrap());
    let (stop, macs, before) = (AtomicBool::new(false), AtomicU64::new(0), served(&engine));
    std::thread::scope(|scope| {
        for caller in 0..2 {
            let (mac, stop, macs) = (&mac, &stop, &macs);
            scope.spawn(move || macs.fetch_add(load(mac, &[3; 32], caller, stop), Ordering::Relaxed));
        }
        let _stop = Stop(&stop);
        come_and_go(&engine, writes);
    });
    let gained: Vec<_> = served(&engine).iter().zip(&before).map(|(now, before)| now - before).collect();
    eprintln!("{writes} keys came and went beside {} MACs, {gained:?} by instance", macs.into_inner());
    assert!(gained.iter().all(|&count| count > 0), "{gained:?}");
    assert_eq!(errors(&engine), 0);

    // What one has destroyed is gone for the other.
    engine.destroy_key("pair").unwrap();
    assert_eq!(engine.key("pair").map(drop).unwrap_err().kind(), ErrorKind::KeyNotFound);
    for _ in 0..20 {
        assert!(pair.sign(Ecdsa::P256_SHA256, b"message").wait().is_err());
    }

    // And again, with what is on the disk, after both have stopped.
    assert_eq!(engine.drain(LONG), 0);
    drop((mac, pair, aes, engine));
    let again = builder().build().unwrap();
    let aes = again.key("aes").unwrap();
    on_both(&again, || {
        let sealed = aes.encrypt(AesGcm::new(), b"secret").wait().unwrap().into_vec();
        assert_eq!(aes.decrypt(AesGcm::new(), sealed).wait().unwrap()[..], *b"secret");
    });
    assert_eq!(again.keys().len(), 2, "mac and aes");
    // A mere drop, with the process ending right after it.
}
