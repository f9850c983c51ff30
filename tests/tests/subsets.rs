//! Keys that live on some of the tokens only: a request runs on a token that holds its key, and on each of them.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails its test")]

use aes::cipher::{BlockCipherEncrypt, KeyInit as _};
use hmac::Mac;
use hsmux::{AesEcb, Ecdsa, Engine, Hmac, Key};
use hsmux_tests::{Hsm, LONG, eventually, wait_idle};
use p11_sim::material;
use p256::ecdsa::signature::Verifier;

/// Bit i of a subset is token i.
const SUBSETS: std::ops::RangeInclusive<u32> = 1..=15;

fn label(subset: u32) -> String {
    format!("key-{subset}")
}

/// Every third key is of one kind.
fn kind(subset: u32) -> &'static str {
    ["aes", "hmac", "p256"][subset as usize % 3]
}

fn hsm(op_us: u32) -> Hsm {
    let keys: Vec<_> = SUBSETS
        .map(|subset| {
            let on = (0..4).filter(|token| subset >> token & 1 == 1).map(|token| format!("sim-{token}"));
            format!("{}:{}@{}", label(subset), kind(subset), on.collect::<Vec<_>>().join("+"))
        })
        .collect();
    Hsm::new(4, &format!("op_us={op_us},keys={}", keys.join(";")))
}

/// A key with what software needs to check its outputs.
struct Checked {
    subset: u32,
    key: Key,
    p256: p256::ecdsa::VerifyingKey,
}

impl Checked {
    fn new(engine: &Engine, subset: u32) -> Self {
        let label = label(subset);
        let p256 = *material::p256(0, &label, 0).verifying_key();
        Self { subset, key: engine.key(&label).unwrap(), p256 }
    }

    /// A block that is the message of every kind.
    fn block(number: u32) -> Vec<u8> {
        number.to_be_bytes().repeat(4)
    }

    fn blocking(&self, number: u32) {
        // Without a deadline the caller may run it; with one a worker does.
        let limit = (number.is_multiple_of(2)).then_some(LONG);
        let (key, block) = (&self.key, Self::block(number));
        let output = match kind(self.subset) {
            "aes" => key.encrypt(AesEcb, block).deadline(limit).wait().unwrap().into_vec(),
            "hmac" => key.sign(Hmac::SHA256, block).deadline(limit).wait().unwrap().into_vec(),
            _ => key.sign(Ecdsa::P256_SHA256, block).deadline(limit).wait().unwrap().into_vec(),
        };
        self.check(number, &output);
    }

    async fn awaited(&self, number: u32) {
        let (key, block) = (&self.key, Self::block(number));
        let output = match kind(self.subset) {
            "aes" => key.encrypt(AesEcb, block).deadline_in(LONG).await.unwrap().into_vec(),
            "hmac" => key.sign(Hmac::SHA256, block).deadline_in(LONG).await.unwrap().into_vec(),
            _ => key.sign(Ecdsa::P256_SHA256, block).deadline_in(LONG).await.unwrap().into_vec(),
        };
        self.check(number, &output);
    }

    fn check(&self, number: u32, output: &[u8]) {
        let (label, block) = (label(self.subset), Self::block(number));
        match kind(self.subset) {
            "aes" => {
                let mut sealed = aes::Block::try_from(&block[..]).unwrap();
                aes::Aes256::new(&material::aes(0, &label, 0).into()).encrypt_block(&mut sealed);
                assert_eq!(output, &sealed[..]);
            }
            "hmac" => {
                let mut mac =
                    hmac::Hmac::<sha2::Sha256>::new_from_slice(&material::hmac(0, &label, 0)).unwrap();
                mac.update(&block);
                assert_eq!(output, &mac.finalize().into_bytes()[..]);
            }
            _ => self.p256.verify(&block, &p256::ecdsa::Signature::from_slice(output).unwrap()).unwrap(),
        }
    }
}

#[test]
fn a_key_is_served_by_every_token_that_holds_it_and_by_no_other() {
    let hsm = hsm(200);
    // Each request is a call, so that calls tell how many ran.
    let engine = hsm.builder().sessions(2).coalescing(false).build().unwrap();
    for subset in SUBSETS {
        let key = Checked::new(&engine, subset);
        let before: Vec<_> = hsm.tokens.iter().map(|token| hsm.operations_on(token)).collect();
        let load = || {
            std::thread::scope(|scope| {
                for caller in 0..4 {
                    let key = &key;
                    scope.spawn(move || (0..8).for_each(|i| key.blocking(caller * 8 + i)));
                }
                futures::executor::block_on(futures::future::join_all((100..164).map(|i| key.awaited(i))));
            });
            let served = |(token, before): (&String, &u64)| u32::from(hsm.operations_on(token) > *before);
            let served = hsm.tokens.iter().zip(&before).map(served).enumerate();
            served.fold(0, |mask, (index, served)| mask | served << index)
        };
        // How much of a load each serves is the machine's affair: one may be asleep for all of it.
        eventually("every token that holds the key has served it", || load() & subset == subset);
        assert_eq!(load(), subset, "those that served");
    }
    hsm.assert_sound();
    assert_eq!(engine.drain(LONG), 0);
}

#[test]
fn fifteen_keys_on_all_subsets_of_four_tokens_do_not_hold_each_other_up() {
    const BLOCKING: u32 = 8;
    const ROUNDS: u32 = 20;
    const AWAITED: u32 = 600;
    let hsm = hsm(50);
    // Each request is a call, so that calls tell how many ran.
    let engine = hsm.builder().sessions(3).coalescing(false).build().unwrap();
    let keys: Vec<_> = SUBSETS.map(|subset| Checked::new(&engine, subset)).collect();
    let before = hsm.operations();
    std::thread::scope(|scope| {
        for caller in 0..BLOCKING {
            let keys = &keys;
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    keys.iter().for_each(|key| key.blocking(caller * ROUNDS + round));
                }
            });
        }
        let keys = keys.iter().cycle().zip(0..AWAITED);
        futures::executor::block_on(futures::future::join_all(keys.map(|(key, number)| key.awaited(number))));
    });
    // Each ran once: a request on a token without its key would have failed there and run again elsewhere.
    let asked = u64::from(BLOCKING * ROUNDS * 15 + AWAITED);
    assert_eq!(hsm.operations() - before, asked);
    let snapshot = engine.snapshot();
    let operations = || snapshot.tokens.iter().flat_map(|token| &token.operations);
    assert_eq!(operations().map(|operation| operation.count).sum::<u64>(), asked);
    assert!(operations().all(|operation| operation.errors.is_empty()), "{:?}", snapshot.tokens);
    assert_eq!((snapshot.expired, snapshot.refused), (0, 0));
    wait_idle(&engine);
    hsm.assert_sound();
    assert_eq!(engine.drain(LONG), 0);
}
