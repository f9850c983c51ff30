//! How often the provider is asked, and what becomes of data keys.

use std::num::NonZeroU64;
use std::sync::Barrier;

use super::super::data_key::tests::wiped_keys;
use super::*;

fn with(settings: EnvelopeSettings) -> Envelope<Vault> {
    Envelope::with(Vault::new(), settings)
}

fn per_key(messages: u64) -> EnvelopeSettings {
    EnvelopeSettings::default().messages_max(NonZeroU64::new(messages).unwrap())
}

#[test]
fn one_data_key_serves_as_many_messages_as_it_may() {
    let envelope = with(per_key(3));
    let messages: Vec<_> = (0..7).map(|_| envelope.seal(b"text", &context()).unwrap()).collect();
    assert_eq!(envelope.provider().generated(), 3);
    for message in &messages {
        envelope.open(message, &context()).unwrap();
    }
    assert_eq!(envelope.provider().unwrapped(), 3, "each data key is unwrapped once");
}

#[test]
fn without_a_cache_every_message_has_a_data_key_of_its_own() {
    let envelope = with(per_key(1).opening_keys_max(0));
    for _ in 0..3 {
        let message = envelope.seal(b"text", &context()).unwrap();
        envelope.open(&message, &context()).unwrap();
    }
    assert_eq!((envelope.provider().generated(), envelope.provider().unwrapped()), (3, 3));
    assert_eq!(envelope.kept(), 0);
}

#[test]
fn one_data_key_serves_as_many_bytes_as_it_may() {
    let envelope = with(EnvelopeSettings::default().bytes_max(10_000));
    for _ in 0..5 {
        envelope.seal(&[0; 4_000], &context()).unwrap();
    }
    assert_eq!(envelope.provider().generated(), 3);
    envelope.seal(&[0; 20_000], &context()).unwrap();
    assert_eq!(envelope.provider().generated(), 4, "a message beyond the bound has a key to itself");
    envelope.seal(&[], &context()).unwrap();
    assert_eq!(envelope.provider().generated(), 5);
}

#[test]
fn bytes_that_were_written_piece_by_piece_count() {
    let envelope = with(EnvelopeSettings::default().bytes_max(10_000));
    let mut writer = envelope.writer(Vec::new(), &context()).unwrap();
    writer.write_all(&[0; 20_000]).unwrap();
    writer.finish().unwrap();
    envelope.seal(b"text", &context()).unwrap();
    assert_eq!(envelope.provider().generated(), 2);
}

#[test]
fn every_context_has_data_keys_of_its_own() {
    let envelope = with(EnvelopeSettings::default());
    let other = EncryptionContext::try_from([("tenant", "8")]).unwrap();
    for context in [context(), other.clone(), context(), other.clone()] {
        envelope.seal(b"text", &context).unwrap();
    }
    assert_eq!((envelope.provider().generated(), envelope.kept()), (2, 2));
    // A key that was unwrapped for one context does not open under another without the provider.
    let message = envelope.seal(b"text", &context()).unwrap();
    envelope.open(&message, &context()).unwrap();
    assert_eq!(refused(envelope.open(&message, &other)), decrypt_failed());
    assert_eq!(envelope.provider().unwrapped(), 2);
}

#[test]
fn after_a_change_of_the_provider_no_key_from_before_it_is_used() {
    let envelope = with(EnvelopeSettings::default());
    let message = envelope.seal(b"text", &context()).unwrap();
    envelope.open(&message, &context()).unwrap();
    envelope.provider().epoch.store(1, Ordering::SeqCst);
    let wiped = wiped_keys();
    envelope.seal(b"text", &context()).unwrap();
    envelope.open(&message, &context()).unwrap();
    assert_eq!((envelope.provider().generated(), envelope.provider().unwrapped()), (2, 2));
    assert_eq!(wiped_keys(), wiped + 2);
}

#[test]
fn what_is_forgotten_is_wiped_and_asked_for_anew() {
    let envelope = with(EnvelopeSettings::default());
    let message = envelope.seal(b"text", &context()).unwrap();
    envelope.open(&message, &context()).unwrap();
    let wiped = wiped_keys();
    envelope.forget_old();
    assert_eq!((envelope.kept(), wiped_keys()), (2, wiped), "nothing is old yet");
    envelope.forget();
    assert_eq!((envelope.kept(), wiped_keys()), (0, wiped + 2));
    envelope.open(&message, &context()).unwrap();
    assert_eq!(envelope.provider().unwrapped(), 2);
}

#[test]
fn a_message_being_written_keeps_its_key_and_the_last_user_wipes_the_data_key() {
    let envelope = with(EnvelopeSettings::default());
    let mut writer = envelope.writer(Vec::new(), &context()).unwrap();
    writer.write_all(b"te").unwrap();
    let wiped = wiped_keys();
    envelope.forget();
    assert_eq!(wiped_keys(), wiped);
    writer.write_all(b"xt").unwrap();
    let message = writer.finish().unwrap();
    assert_eq!(wiped_keys(), wiped + 1);
    assert_eq!(envelope.open(&message, &context()).unwrap().as_bytes(), b"text");
}

#[test]
fn a_cipher_that_is_dropped_wipes_its_keys() {
    let envelope = with(EnvelopeSettings::default());
    let message = envelope.seal(b"text", &context()).unwrap();
    envelope.open(&message, &context()).unwrap();
    let wiped = wiped_keys();
    drop(envelope);
    assert_eq!(wiped_keys(), wiped + 2);
}

#[test]
fn a_wrapped_key_that_does_not_unwrap_is_not_remembered() {
    let envelope = with(EnvelopeSettings::default());
    let message = envelope.seal(b"text", &context()).unwrap();
    let mut altered = message.clone();
    altered[60] ^= 1;
    for _ in 0..2 {
        assert_eq!(refused(envelope.open(&altered, &context())), decrypt_failed());
    }
    assert_eq!((envelope.provider().unwrapped(), envelope.kept()), (2, 1));
}

#[test]
fn a_wrapped_key_that_no_header_holds_is_refused() {
    struct Odd(usize);
    impl DataKeyProvider for Odd {
        fn generate(&self, _context: &EncryptionContext) -> Result<GeneratedDataKey> {
            Ok(GeneratedDataKey { key: DataKey::random()?, wrapped: vec![0; self.0] })
        }

        fn unwrap(&self, _wrapped: &[u8], _context: &EncryptionContext) -> Result<DataKey> {
            DataKey::random()
        }
    }
    for len in [0, 8_193, 70_000] {
        let envelope = Envelope::new(Odd(len));
        let mut out = b"front".to_vec();
        let outcome = envelope.seal_into(b"text", &context(), &mut out);
        assert_eq!((refused(outcome).0, &out[..]), (ErrorKind::InvalidInput, &b"front"[..]));
        assert_eq!(envelope.kept(), 0);
    }
    let envelope = Envelope::new(Odd(8_192));
    let message = envelope.seal(b"text", &context()).unwrap();
    assert_eq!(refused(envelope.open(&message, &context())), decrypt_failed(), "another data key");
}

#[test]
fn many_threads_share_data_keys_and_every_message_opens() {
    const THREADS: usize = 8;
    let (envelope, start) = (with(per_key(100)), Barrier::new(THREADS));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                start.wait();
                for len in 0..100 {
                    let message = envelope.seal(&plaintext(len), &context()).unwrap();
                    assert_eq!(envelope.open(&message, &context()).unwrap().as_bytes(), plaintext(len));
                }
            });
        }
    });
    assert_eq!(envelope.provider().generated(), 8, "800 messages, 100 for each data key");
    // A thread may hold a message whose data key nobody has unwrapped yet, and no other.
    assert_eq!(envelope.provider().unwrapped(), 8);
}
