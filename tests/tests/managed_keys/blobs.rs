//! Messages that say by what key they are to be read, and data keys.

use hsmux::{
    BlobRef, Curve, DataKeyProvider, EncryptionContext, Engine, Envelope, ErrorKind, Key, KeyConfig, KeySpec,
};
use hsmux_tests::Hsm;

fn context(pairs: &[(&str, &str)]) -> EncryptionContext {
    let add =
        |builder: hsmux::EncryptionContextBuilder, (name, value): &(&str, &str)| builder.pair(*name, *value);
    pairs.iter().fold(EncryptionContext::builder(), add).build().unwrap()
}

fn kind<T>(result: hsmux::Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

fn vault(engine: &Engine, name: &str) -> Key {
    engine.managed_keys().create(name, &KeyConfig::new(KeySpec::Aes(32))).unwrap();
    engine.key(name).unwrap()
}

#[test]
fn a_blob_is_read_by_whoever_has_it_and_its_context_also_after_rotations() {
    let hsm = Hsm::new(2, "seed=1");
    let engine = hsm.builder().build().unwrap();
    let (key, account) = (vault(&engine, "vault"), context(&[("account", "17"), ("purpose", "card")]));
    let first = key.seal(b"message".as_slice(), &account).unwrap().wait().unwrap();
    assert_eq!((first.parts().key_id(), first.parts().key_version().get()), (key.id().unwrap().as_str(), 1));
    engine.managed_keys().rotate("vault").unwrap();
    let second =
        futures::executor::block_on(key.seal(b"message".as_slice(), &account).unwrap().into_future())
            .unwrap();
    assert_eq!(second.parts().key_version().get(), 2);
    let other = hsm.builder().build().unwrap();
    for blob in [&first, &second] {
        assert_eq!(other.open(blob.as_bytes(), &account).unwrap().as_bytes(), b"message");
        let reader = other.key_for(&blob.parts()).unwrap();
        assert_eq!(reader.version_number(), Some(blob.parts().key_version().get()));
        let opened = futures::executor::block_on(reader.open(blob.parts(), &account).unwrap().into_future());
        assert_eq!(opened.unwrap().as_bytes(), b"message");
    }
    let renewed = key.re_encrypt(first.as_bytes(), &account, &context(&[("account", "18")])).unwrap();
    assert_eq!(renewed.parts().key_version().get(), 2);
    assert_eq!(
        engine.open(renewed.as_bytes(), &context(&[("account", "18")])).unwrap().as_bytes(),
        b"message"
    );
    assert_eq!(kind(engine.open(renewed.as_bytes(), &account)), Some(ErrorKind::DecryptFailed));
}

#[test]
fn of_a_hundred_thousand_altered_blobs_none_is_read() {
    let hsm = Hsm::new(1, "seed=1");
    let engine = hsm.builder().build().unwrap();
    let (keys, account) = ([vault(&engine, "a"), vault(&engine, "b")], context(&[("account", "17")]));
    let blobs: Vec<_> = (0..4_usize)
        .map(|i| keys[i % 2].seal(vec![b'x'; 8 + i], &account).unwrap().wait().unwrap().into_vec())
        .collect();
    let before = hsm.operations();
    let mut dice = 3_u64;
    let mut roll = |bound: usize| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(dice >> 33).unwrap() % bound
    };
    let (mut altered, mut sent) = (0, 0_u64);
    while altered < 100_000 {
        let mut blob = blobs[roll(4)].clone();
        let len = blob.len();
        match roll(6) {
            0 => blob[roll(len)] ^= 1 << roll(8),
            1 => blob.truncate(roll(len)),
            2 => blob.push(u8::try_from(roll(256)).unwrap()),
            3 => blob.swap(roll(len), roll(len)),
            4 => drop(blob.remove(roll(len))),
            // The front of one with the end of another.
            _ => {
                let (other, at) = (&blobs[roll(4)], roll(len));
                blob.truncate(at);
                blob.extend(other.iter().skip(at));
            }
        }
        if blobs.contains(&blob) {
            continue;
        }
        altered += 1;
        let (parsed, opened) = (BlobRef::parse(&blob).is_ok(), kind(engine.open(&blob, &account)));
        match opened {
            Some(ErrorKind::InvalidInput) => assert!(!parsed),
            // Another key id or version.
            Some(ErrorKind::KeyNotFound) => assert!(parsed),
            Some(ErrorKind::DecryptFailed) => sent += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(hsm.operations() - before >= sent, "the token refused what parsed");
    assert!(sent > 5_000 && sent < altered - 5_000, "{sent} of {altered} reached the token");
    for blob in &blobs {
        assert!(engine.open(blob, &account).is_ok());
        let moved = context(&[("account1", "7")]);
        assert_eq!(kind(engine.open(blob, &moved)), Some(ErrorKind::DecryptFailed));
    }
}

#[test]
fn an_envelope_asks_for_few_data_keys_and_forgets_them_when_its_key_changes() {
    let hsm = Hsm::new(1, "seed=1");
    let engine = hsm.builder().build().unwrap();
    let (key, account) = (vault(&engine, "vault"), context(&[("account", "17")]));
    let provider = key.data_keys().unwrap();
    let made = provider.generate(&account).unwrap();
    assert_eq!(provider.unwrap(&made.wrapped, &account).unwrap().as_bytes(), made.key.as_bytes());
    assert!(provider.unwrap(&made.wrapped, &EncryptionContext::empty()).is_err());
    let envelope = Envelope::new(provider);
    let before = hsm.operations();
    let messages: Vec<_> = (0..100_u8).map(|i| envelope.seal(&[i; 1_000], &account).unwrap()).collect();
    for (i, message) in (0_u8..).zip(&messages) {
        assert_eq!(envelope.open(message, &account).unwrap().as_bytes(), [i; 1_000]);
    }
    // Random bytes, an encryption, a decryption; and records of the catalogue that the engine looks at meanwhile.
    assert!(hsm.operations() - before < 10, "{} operations", hsm.operations() - before);
    engine.managed_keys().rotate("vault").unwrap();
    let after = envelope.seal(b"message", &account).unwrap();
    let wrapped = |message: &[u8]| hsmux::EnvelopeHeader::parse(message).unwrap().wrapped_key().to_vec();
    assert_eq!(BlobRef::parse(&wrapped(&after)).unwrap().key_version().get(), 2, "under the new version");
    assert!(envelope.open(&messages[0], &account).is_ok(), "what the old one has wrapped is still read");
    engine.managed_keys().suspend("vault").unwrap();
    assert_eq!(kind(envelope.seal(b"message", &account)), Some(ErrorKind::KeyState), "no data key is kept");
    assert!(envelope.open(&after, &account).is_ok());
    engine.managed_keys().mark_compromised("vault").unwrap();
    assert_eq!(kind(envelope.open(&after, &account)), Some(ErrorKind::KeyState));
}

#[test]
fn a_key_that_is_not_managed_or_no_cipher_makes_no_blobs() {
    let hsm = Hsm::new(1, "seed=1");
    let engine = hsm.builder().build().unwrap();
    let none = EncryptionContext::empty();
    let plain = engine.key("aes256").unwrap();
    assert_eq!(kind(plain.seal(b"x".as_slice(), &none).map(drop)), Some(ErrorKind::InvalidInput));
    assert_eq!(kind(plain.data_keys()), Some(ErrorKind::InvalidInput));
    engine.managed_keys().create("card", &KeyConfig::new(KeySpec::Ec(Curve::P256))).unwrap();
    let card = engine.key("card").unwrap();
    assert_eq!(kind(card.seal(b"x".as_slice(), &none).unwrap().wait()), Some(ErrorKind::KeyMismatch));
    assert_eq!(kind(engine.open(b"no blob", &none)), Some(ErrorKind::InvalidInput));
}
