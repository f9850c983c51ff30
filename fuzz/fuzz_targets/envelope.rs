//! Headers of envelopes, and messages: no bytes panic; a header that parses is what its parts encode to; no message opens
//! that was not sealed, at once or as a stream, and the provider is not asked about a malformed one.

#![no_main]

use std::cell::Cell;
use std::io::Read;

use hsmux::{
    DataKey, DataKeyProvider, EncryptionContext, Envelope, EnvelopeHeader, ErrorKind, GeneratedDataKey,
    Outcome,
};
use libfuzzer_sys::fuzz_target;

/// Unwraps anything to the same key, so that all that is left to refuse a message is its own format.
#[derive(Default)]
struct Gullible {
    asked: Cell<usize>,
}

impl DataKeyProvider for Gullible {
    fn generate(&self, _context: &EncryptionContext) -> hsmux::Result<GeneratedDataKey> {
        Ok(GeneratedDataKey { key: DataKey::take(&mut [7; 32])?, wrapped: vec![1] })
    }

    fn unwrap(&self, _wrapped: &[u8], _context: &EncryptionContext) -> hsmux::Result<DataKey> {
        self.asked.set(self.asked.get() + 1);
        DataKey::take(&mut [7; 32])
    }
}

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    check(&[b"HSXE\x01\x01\x0a", bytes].concat());
});

fn check(bytes: &[u8]) {
    let header = EnvelopeHeader::parse(bytes);
    if let Ok(header) = &header {
        let again = header.with_wrapped_key(header.wrapped_key()).expect("what was read can be written");
        assert_eq!(again, header.as_bytes());
        assert!(bytes.starts_with(header.as_bytes()));
        assert!((1..=8_192).contains(&header.wrapped_key().len()));
        assert!((1 << 10..=1 << 20).contains(&header.chunk_size().bytes()));
    }
    let envelope = Envelope::new(Gullible::default());
    let error = envelope.open(bytes, &EncryptionContext::empty()).expect_err("nobody has sealed it");
    let asked = envelope.provider().asked.get();
    match header {
        Ok(_) => assert_eq!(
            (error.kind(), error.to_string().as_str()),
            (ErrorKind::DecryptFailed, ErrorKind::DecryptFailed.as_str())
        ),
        Err(_) => {
            assert_eq!((error.kind(), error.outcome(), asked), (ErrorKind::InvalidInput, Outcome::NotDone, 0))
        }
    }
    let mut text = Vec::new();
    let streamed =
        envelope.reader(bytes, &EncryptionContext::empty()).and_then(|mut from| from.read_to_end(&mut text));
    assert!(streamed.is_err() && text.is_empty());
}
