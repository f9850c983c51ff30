//! What is no longer as it was sealed does not open.

use super::*;
use crate::mutation::{Mutation, single_bits};

/// Header and chunks of a message, each chunk with its tag.
fn parts(message: &[u8]) -> (&[u8], Vec<&[u8]>) {
    let header = EnvelopeHeader::parse(message).unwrap().as_bytes();
    (header, message[header.len()..].chunks(CHUNK + TAG_LEN).collect())
}

/// A message with its chunks as they are told.
fn joined(header: &[u8], chunks: &[&[u8]]) -> Vec<u8> {
    [&[header], chunks].concat().concat()
}

/// Opens at once and as a stream: both must refuse, and the stream must have yielded nothing but the front of the text.
fn opens_nowhere(envelope: &Envelope<Vault>, message: &[u8], text: &[u8], what: &str) {
    let (kind, why) = refused(envelope.open(message, &context()));
    assert!(matches!(kind, ErrorKind::DecryptFailed | ErrorKind::InvalidInput), "{what}: {kind:?}");
    assert!(kind != ErrorKind::DecryptFailed || why.is_empty(), "{what}: one error for all");
    let mut yielded = Vec::new();
    let outcome =
        envelope.reader(message, &context()).and_then(|mut reader| reader.read_to_end(&mut yielded));
    let error = outcome.expect_err(what);
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData, "{what}");
    let error: &Error = error.get_ref().and_then(|error| error.downcast_ref()).unwrap();
    assert!(error.kind() == kind, "{what}: {error} as a stream, {kind:?} at once");
    assert!(text.starts_with(&yielded) && yielded.len() % CHUNK == 0, "{what}: {} bytes", yielded.len());
}

#[test]
fn chunks_that_are_swapped_repeated_missing_or_of_another_message_do_not_open() {
    let envelope = envelope();
    for len in [2 * CHUNK + 5, 3 * CHUNK] {
        let message = envelope.seal(&plaintext(len), &context()).unwrap();
        let other = envelope.seal(&plaintext(len), &context()).unwrap();
        let (header, chunks) = parts(&message);
        let (_, others) = parts(&other);
        let [a, b, c] = chunks[..] else { panic!("three chunks") };
        let text = plaintext(len);
        for (chunks, what) in [
            (vec![b, a, c], "swapped"),
            (vec![a, c, b], "the last one moved"),
            (vec![a, a, b, c], "the first one twice"),
            (vec![a, b, b, c], "another one twice"),
            (vec![a, b, c, c], "the last one twice"),
            (vec![b, c], "the first one missing"),
            (vec![a, c], "the middle one missing"),
            (vec![a, b], "the last one missing"),
            (vec![c], "the last one alone"),
            (vec![], "none"),
            (vec![others[0], b, c], "the first one another's"),
            (vec![a, b, others[2]], "the last one another's"),
        ] {
            opens_nowhere(&envelope, &joined(header, &chunks), &text, what);
        }
        let (other_header, _) = parts(&other);
        opens_nowhere(&envelope, &joined(other_header, &chunks), &text, "another header");
        assert_eq!(envelope.open(&joined(header, &chunks), &context()).unwrap().as_bytes(), text);
    }
}

#[test]
fn a_message_that_is_cut_does_not_open_at_any_length() {
    let envelope = envelope();
    for len in [0, 5, CHUNK, 2 * CHUNK + 5] {
        let (text, message) = (plaintext(len), envelope.seal(&plaintext(len), &context()).unwrap());
        for cut in 0..message.len() {
            opens_nowhere(&envelope, &message[..cut], &text, &format!("{cut} of {}", message.len()));
        }
    }
}

#[test]
fn bytes_behind_the_end_are_no_part_of_a_message() {
    let envelope = envelope();
    for len in [0, 5, CHUNK - 1, CHUNK, 2 * CHUNK] {
        let message = envelope.seal(&plaintext(len), &context()).unwrap();
        for more in [1, 15, 16, 17, CHUNK, CHUNK + 16, CHUNK + 17] {
            let longer = [&message[..], &vec![0; more]].concat();
            opens_nowhere(&envelope, &longer, &plaintext(len), &format!("{more} bytes behind {len}"));
        }
    }
}

/// An empty last chunk can only be made by who has the key; two encodings of one text would be.
#[test]
fn an_empty_chunk_behind_full_ones_does_not_open() {
    let envelope = envelope();
    let mut begun = envelope.begin(0, &context()).unwrap();
    let mut message = Vec::new();
    begun.write_header(&mut message).unwrap();
    let mut chunk = plaintext(CHUNK);
    let tag = begun.key.seal(&mut chunk, false).unwrap();
    message.extend([&chunk, tag.as_ref()].concat());
    message.extend(begun.key.seal(&mut [], true).unwrap().as_ref());
    opens_nowhere(&envelope, &message, &plaintext(CHUNK), "an empty chunk");
}

#[test]
fn a_message_opens_with_its_context_only() {
    let envelope = envelope();
    let message = envelope.seal(b"text", &context()).unwrap();
    for pairs in [
        vec![],
        vec![("tenant", "7")],
        vec![("tenant", "8"), ("purpose", "cards")],
        vec![("tenan", "t7"), ("purpose", "cards")],
        vec![("7", "tenant"), ("purpose", "cards")],
        vec![("tenant", "cards"), ("purpose", "7")],
    ] {
        let other = EncryptionContext::try_from(pairs.clone()).unwrap();
        assert_eq!(refused(envelope.open(&message, &other)), decrypt_failed(), "{pairs:?}");
    }
}

/// A provider that does not look at the context is no hole: the message's own key does.
#[test]
fn the_context_is_bound_without_the_provider() {
    struct Careless(Vault);
    impl DataKeyProvider for Careless {
        fn generate(&self, _context: &EncryptionContext) -> Result<GeneratedDataKey> {
            self.0.generate(&EncryptionContext::empty())
        }

        fn unwrap(&self, wrapped: &[u8], _context: &EncryptionContext) -> Result<DataKey> {
            self.0.unwrap(wrapped, &EncryptionContext::empty())
        }
    }
    let envelope = Envelope::new(Careless(Vault::new()));
    let message = envelope.seal(b"text", &context()).unwrap();
    assert_eq!(envelope.open(&message, &context()).unwrap().as_bytes(), b"text");
    assert_eq!(refused(envelope.open(&message, &EncryptionContext::empty())), decrypt_failed());
}

#[test]
fn a_malformed_header_is_refused_before_the_provider_is_asked() {
    let envelope = envelope();
    let message = envelope.seal(b"text", &context()).unwrap();
    let header_len = EnvelopeHeader::parse(&message).unwrap().as_bytes().len();
    for at in [0, 1, 2, 3, 4, 5] {
        for bytes in single_bits(&message).skip(at * 8).take(8) {
            assert_eq!(refused(envelope.open(&bytes, &context())).0, ErrorKind::InvalidInput);
        }
    }
    for len in 0..header_len {
        assert_eq!(refused(envelope.open(&message[..len], &context())).0, ErrorKind::InvalidInput);
    }
    for len in header_len..header_len + TAG_LEN {
        assert_eq!(refused(envelope.open(&message[..len], &context())), decrypt_failed());
    }
    assert_eq!(envelope.provider().unwrapped(), 0);
}

/// 10^5 altered messages, of which none opens.
#[test]
fn no_altered_message_opens() {
    let (envelope, mut altered) = (envelope(), 0);
    let mut check = |message: &[u8], bytes: &[u8]| {
        if bytes == message {
            return;
        }
        let (kind, why) = refused(envelope.open(bytes, &context()));
        altered += 1;
        match kind {
            ErrorKind::DecryptFailed => assert_eq!(why, "", "one error for all"),
            kind => assert_eq!(kind, ErrorKind::InvalidInput, "{why}"),
        }
    };
    for len in [0, 5, CHUNK, 2 * CHUNK + 5] {
        let message = envelope.seal(&plaintext(len), &context()).unwrap();
        single_bits(&message).for_each(|bytes| check(&message, &bytes));
        Mutation::some(&message, 20_000).for_each(|bytes| check(&message, &bytes));
    }
    assert!(altered >= 100_000, "{altered}");
}
