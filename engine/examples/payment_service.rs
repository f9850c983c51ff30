//! A payment service keeps card numbers encrypted: AES-GCM with a key that never leaves the HSM.
//!
//! What to copy: the merchant's id as additional data, so that a record cannot be moved to another merchant; the
//! key is named by its label only; whatever is wrong with a ciphertext, the error is the same.
//!
//! `PKCS11_MODULE_PATH`, `TOKEN`, `PIN_FILE` and `KEY` (the label of an AES key) name your own token; without them
//! the example makes two throw-away tokens of SoftHSM2.

#![expect(clippy::print_stdout, reason = "an example talks to people")]

use std::time::Duration;

use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes256Gcm, KeyInit};
use hsmux::{AesGcm, Engine, ErrorKind, Key};
use softhsm_fixtures::{ExampleHsm, TestKey};

type Failed = Box<dyn std::error::Error>;

/// A stored card: nothing in it is secret without the HSM.
struct Record {
    merchant: String,
    /// `iv || body || tag`, with an IV that the engine drew.
    sealed: Vec<u8>,
}

const CARDS: u64 = 1_000;

fn main() -> Result<(), Failed> {
    let name = std::env::var("KEY").unwrap_or_else(|_| "card-data".into());
    let Some(hsm) = ExampleHsm::open(2, &[(&name, TestKey::Aes256)])? else { return Ok(()) };
    let engine = Engine::builder().module(hsm.module()).tokens(hsm.tokens()).pin(hsm.pin()).build()?;
    let key = engine.key(&name)?;

    let cards: Vec<_> =
        (0..CARDS).map(|n| (format!("merchant-{}", n % 7), format!("{:016}", 4_000 + n))).collect();
    let records = cards.iter().map(|(merchant, card)| store(&key, merchant, card));
    let records = records.collect::<hsmux::Result<Vec<_>>>()?;
    for (record, (_, card)) in records.iter().zip(&cards) {
        if load(&key, record)? != card.as_bytes() {
            return Err("a card came back changed".into());
        }
        // A throw-away key is known, so that software can open what the HSM has sealed.
        if hsm.is_throw_away() && open_in_software(record)? != card.as_bytes() {
            return Err("software reads another card".into());
        }
    }
    let refused = refuse_forgeries(&key, &records)?;

    let left = engine.drain(Duration::from_secs(5));
    let by = if hsm.is_throw_away() { "the HSM and by other software" } else { "the HSM" };
    println!("encrypted {CARDS} cards, each read back by {by}; {refused} forged records refused alike");
    println!("drained, {left} sessions left");
    Ok(())
}

fn store(key: &Key, merchant: &str, card: &str) -> hsmux::Result<Record> {
    // No deadline: this thread may run the call itself, which is the fastest way while nobody else waits.
    let sealed = key.encrypt(bound_to(merchant), card.as_bytes()).deadline(None).wait()?;
    Ok(Record { merchant: merchant.to_owned(), sealed: sealed.into_vec() })
}

fn load(key: &Key, record: &Record) -> hsmux::Result<Vec<u8>> {
    let opened = key.decrypt(bound_to(&record.merchant), record.sealed.as_slice()).deadline(None).wait()?;
    // `into_vec` ends the wiping of the engine's copy: the caller looks after the bytes from here.
    Ok(opened.into_vec())
}

/// Authenticated with the card, but not stored in its ciphertext.
fn bound_to(merchant: &str) -> AesGcm {
    AesGcm::new().aad(merchant.as_bytes())
}

/// A flipped bit in IV, body or tag, a cut record, another merchant: all must fail, and look alike.
fn refuse_forgeries(key: &Key, records: &[Record]) -> Result<usize, Failed> {
    let genuine = &records[0];
    let flipped = |place: usize| {
        let mut sealed = genuine.sealed.clone();
        sealed[place] ^= 1;
        Record { merchant: genuine.merchant.clone(), sealed }
    };
    let last = genuine.sealed.len() - 1;
    let forgeries = [
        flipped(0),
        flipped(12),
        flipped(last),
        Record { merchant: genuine.merchant.clone(), sealed: genuine.sealed[..last].to_vec() },
        Record { merchant: "merchant-of-another".to_owned(), sealed: genuine.sealed.clone() },
    ];
    for forged in &forgeries {
        match load(key, forged) {
            Err(error) if error.kind() == ErrorKind::DecryptFailed => {}
            Err(error) => return Err(format!("a forged record is told apart: {error}").into()),
            Ok(_) => return Err("a forged record was accepted".into()),
        }
    }
    Ok(forgeries.len())
}

fn open_in_software(record: &Record) -> Result<Vec<u8>, Failed> {
    let value = TestKey::Aes256.secret().ok_or("the key is not known")?;
    let (iv, msg) = record.sealed.split_first_chunk::<12>().ok_or("the record is too short")?;
    let payload = Payload { msg, aad: record.merchant.as_bytes() };
    let opened = Aes256Gcm::new(value.into()).decrypt(&(*iv).into(), payload);
    opened.map_err(|_| "software refuses the record".into())
}
