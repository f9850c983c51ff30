//! The algorithms a caller can name.

mod cipher;
mod raw;
mod sign;

pub use cipher::{
    AesCbc, AesCtr, AesEcb, AesGcm, Cipher, RsaOaep, RsaPkcs1Encryption, TripleDesCbc, TripleDesEcb,
};
pub use raw::RawMechanism;
pub(crate) use sign::FirstKey;
pub use sign::{Cmac, Ecdsa, Ed25519, Hmac, MacPadding, RetailMac, RsaPkcs1, RsaPss, SignAlgorithm};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_forms_show_lengths_only() {
        let gcm = AesGcm::new().aad(b"account".as_slice()).with_iv([0xA7; 12]);
        assert_eq!(format!("{gcm:?}"), "AesGcm { given_iv_len: Some(12), aad_len: 7 }");
        let cbc = AesCbc::new().with_iv([0xA7; 16]);
        assert_eq!(format!("{cbc:?}"), "AesCbc { given_iv_len: Some(16), padded: true }");
        let ctr = AesCtr::new().with_counter([0xA7; 16], 64);
        assert_eq!(format!("{ctr:?}"), "AesCtr { given: true, counter_bits: 64 }");
        let oaep = RsaOaep::SHA256.label(b"account".as_slice());
        assert_eq!(format!("{oaep:?}"), "RsaOaep { hash: Sha256, label_len: 7 }");
        let raw = RawMechanism::new(0x1084).parameter([0xA7; 8]);
        assert_eq!(format!("{raw:?}"), "RawMechanism { number: 0x1084, parameter_len: 8, output_max: None }");
    }

    #[test]
    fn empty_additional_data_is_no_additional_data() {
        assert_eq!(AesGcm::new().aad(b"".as_slice()), AesGcm::new());
        assert_eq!(RsaOaep::SHA1.label(b"".as_slice()), RsaOaep::SHA1);
    }
}
