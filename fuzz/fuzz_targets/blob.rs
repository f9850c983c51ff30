//! Blobs: no bytes panic; what parses is, byte for byte, what its parts encode to, and has the lengths that it says; errors
//! show nothing of it.

#![no_main]

use hsmux::{Blob, BlobHeader, BlobRef, EncryptionContext, ErrorKind, Outcome};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    // Most inputs fail at the magic or at a length: the same with these put right.
    if let [key_id_len, rest @ ..] = bytes {
        let header_len = usize::from(*key_id_len) + 4;
        let ciphertext_len = rest.len().saturating_sub(header_len + 4 + 28);
        let mut blob = [b"HSXB\x01\x01", bytes].concat();
        if let Some(len) = blob.get_mut(7 + header_len..11 + header_len) {
            len.copy_from_slice(&u32::try_from(ciphertext_len).expect("inputs are short").to_be_bytes());
        }
        check(&blob);
    }
});

fn check(bytes: &[u8]) {
    match BlobRef::parse(bytes) {
        Ok(read) => {
            let len = read.ciphertext().len();
            assert_eq!((read.iv().len(), read.tag().len()), (12, 16));
            assert_eq!(bytes.len(), 43 + read.key_id().len() + len);
            let header = BlobHeader::new(read.key_id(), read.key_version(), read.algorithm(), len);
            let header = header.expect("what was read can be written");
            let context = EncryptionContext::empty();
            assert_eq!(header.additional_data(&context), read.additional_data(&context));
            let again = header.blob(read.sealed()).expect("the lengths are those that were read");
            assert_eq!(again.as_bytes(), bytes);
            assert_eq!(Blob::parse(bytes.to_vec()).expect("it parses").parts(), read);
        }
        Err(error) => {
            assert_eq!((error.kind(), error.outcome()), (ErrorKind::InvalidInput, Outcome::NotDone));
            let text = error.to_string();
            assert!(text.len() < 120 && text.is_ascii() && !text.contains(char::is_control), "{text:?}");
        }
    }
}
