use cryptoki_sys as sys;

use super::super::algorithm::{
    AesCbc, AesCtr, AesEcb, AesGcm, Cmac, Ed25519, Hmac, MacPadding, RawMechanism, RetailMac, RsaOaep,
    RsaPkcs1, RsaPkcs1Encryption, RsaPss, TripleDesCbc,
};
use super::super::oracle::{aes, ec, ed25519, facts, hmac, rsa_2048, triple_des};
use super::*;
use crate::error::Outcome;
use crate::token::facts::Curve;

/// The kind of error for this request, or `None` if it is let through.
fn refusal(ask: &Ask, facts: &KeyFacts, input_len: usize) -> Option<ErrorKind> {
    let error = ask.check(Some(facts), &vec![0; input_len]).err()?;
    if error.kind() != ErrorKind::DecryptFailed {
        assert_eq!(error.outcome(), Outcome::NotDone, "{error}");
    }
    Some(error.kind())
}

fn rsa_bits(bits: u32) -> KeyFacts {
    KeyFacts { kind: KeyKind::Rsa { bits }, ..rsa_2048() }
}

#[test]
fn what_fits_is_let_through() {
    let fitting = [
        (Ask::sign(Ecdsa::P256_SHA256), ec(Curve::P256), 0),
        (Ask::sign(Ecdsa::P384_SHA256), ec(Curve::P384), 1_000_000),
        (Ask::sign(RsaPkcs1::SHA512), rsa_2048(), 3),
        (Ask::sign(RsaPss::SHA512), rsa_2048(), 3),
        (Ask::sign(Hmac::SHA256), hmac(), 0),
        (Ask::verify(Ecdsa::P256_SHA256, &[]), ec(Curve::P256), 3),
        (Ask::verify(RsaPss::SHA256, &[]), rsa_2048(), 3),
        (Ask::verify(Hmac::SHA256, &[]), hmac(), 3),
        (Ask::encrypt(AesGcm::new()), aes(), 0),
        (Ask::decrypt(AesGcm::new()), aes(), 28),
        (Ask::encrypt(AesEcb), aes(), 32),
        (Ask::decrypt(AesEcb), aes(), 16),
    ];
    for (ask, facts, input_len) in fitting {
        assert_eq!(refusal(&ask, &facts, input_len), None, "{ask:?} with {:?}", facts.kind);
    }
}

#[test]
fn a_key_of_another_type_is_a_mismatch() {
    let asks = [
        (Ask::sign(Ecdsa::P256_SHA256), 0),
        (Ask::sign(RsaPkcs1::SHA256), 1),
        (Ask::sign(RsaPss::SHA256), 1),
        (Ask::sign_digest(RsaPss::SHA256), 1),
        (Ask::verify(Ecdsa::P256_SHA256, &[]), 0),
        (Ask::sign(Hmac::SHA256), 2),
        (Ask::verify(Hmac::SHA256, &[]), 2),
        (Ask::encrypt(AesGcm::new()), 3),
        (Ask::decrypt(AesGcm::new()), 3),
        (Ask::encrypt(AesEcb), 3),
        (Ask::decrypt(AesEcb), 3),
    ];
    let keys = [ec(Curve::P256), rsa_2048(), hmac(), aes(), facts(KeyKind::Other)];
    for (ask, own) in asks {
        for (place, key) in keys.iter().enumerate() {
            let expected = (place != own).then_some(ErrorKind::KeyMismatch);
            assert_eq!(refusal(&ask, key, 32), expected, "{ask:?} with {:?}", key.kind);
        }
    }
}

#[test]
fn a_key_on_another_curve_is_a_mismatch() {
    for (algorithm, other) in [
        (Ecdsa::P256_SHA256, Curve::P384),
        (Ecdsa::P384_SHA256, Curve::P256),
        (Ecdsa::P384_SHA384, Curve::P256),
    ] {
        assert_eq!(refusal(&Ask::sign(algorithm), &ec(other), 3), Some(ErrorKind::KeyMismatch));
        assert_eq!(refusal(&Ask::verify(algorithm, &[]), &ec(other), 3), Some(ErrorKind::KeyMismatch));
    }
}

#[test]
fn a_modulus_too_small_for_the_padding_is_a_mismatch() {
    // 19 + 64 + 11 = 94 bytes for the DigestInfo of SHA-512; 2 * 64 + 2 = 130 bytes for PSS, one bit less.
    for (ask, bits_min) in
        [(Ask::sign(RsaPkcs1::SHA512), 93 * 8 + 1), (Ask::sign(RsaPss::SHA512), 129 * 8 + 2)]
    {
        assert_eq!(refusal(&ask, &rsa_bits(bits_min), 3), None, "{ask:?}");
        assert_eq!(refusal(&ask, &rsa_bits(bits_min - 1), 3), Some(ErrorKind::KeyMismatch), "{ask:?}");
        assert_eq!(refusal(&ask, &rsa_bits(0), 3), Some(ErrorKind::KeyMismatch), "{ask:?}");
    }
}

#[test]
fn rsa_keys_beyond_the_reach_of_the_host_are_a_mismatch_for_verification_only() {
    for bits in [1024, 8200] {
        assert_eq!(refusal(&Ask::sign(RsaPkcs1::SHA256), &rsa_bits(bits), 3), None);
        let verify = Ask::verify(RsaPkcs1::SHA256, &[]);
        assert_eq!(refusal(&verify, &rsa_bits(bits), 3), Some(ErrorKind::KeyMismatch), "{bits} bits");
    }
}

#[test]
fn an_aes_key_of_an_odd_size_is_a_mismatch() {
    for len in [0, 8, 20, 31, 64] {
        let key = facts(KeyKind::Aes { len });
        assert_eq!(refusal(&Ask::encrypt(AesEcb), &key, 16), Some(ErrorKind::KeyMismatch), "{len} bytes");
    }
}

#[test]
fn an_empty_mac_key_is_a_mismatch() {
    let key = facts(KeyKind::Generic { len: 0 });
    assert_eq!(refusal(&Ask::sign(Hmac::SHA256), &key, 3), Some(ErrorKind::KeyMismatch));
}

#[test]
fn a_key_without_the_attribute_for_the_use_is_not_permitted() {
    let cases = [
        (Ask::sign(Ecdsa::P256_SHA256), KeyFacts { sign: false, ..ec(Curve::P256) }),
        (Ask::verify(Ecdsa::P256_SHA256, &[]), KeyFacts { verify: false, ..ec(Curve::P256) }),
        (Ask::verify(Hmac::SHA256, &[]), KeyFacts { verify: false, ..hmac() }),
        (Ask::encrypt(AesGcm::new()), KeyFacts { encrypt: false, ..aes() }),
        (Ask::decrypt(AesGcm::new()), KeyFacts { decrypt: false, ..aes() }),
    ];
    for (ask, facts) in cases {
        assert_eq!(refusal(&ask, &facts, 32), Some(ErrorKind::NotPermitted), "{ask:?}");
    }
}

#[test]
fn a_mac_key_that_may_not_sign_cannot_verify() {
    let facts = KeyFacts { sign: false, ..hmac() };
    assert_eq!(refusal(&Ask::verify(Hmac::SHA256, &[]), &facts, 3), Some(ErrorKind::NotPermitted));
}

#[test]
fn verification_needs_no_permission_to_sign_where_the_host_does_it() {
    let facts = KeyFacts { sign: false, ..ec(Curve::P256) };
    assert_eq!(refusal(&Ask::verify(Ecdsa::P256_SHA256, &[]), &facts, 3), None);
}

#[test]
fn verification_without_a_public_half_is_not_permitted() {
    let facts = KeyFacts { public: None, ..ec(Curve::P256) };
    assert_eq!(refusal(&Ask::verify(Ecdsa::P256_SHA256, &[]), &facts, 3), Some(ErrorKind::NotPermitted));
}

#[test]
fn a_mechanism_outside_the_list_of_the_key_is_not_permitted() {
    let only = |mechanisms: &[u64], facts| KeyFacts { allowed: Some(mechanisms.to_vec()), ..facts };
    let gcm = only(&[sys::CKM_AES_CBC, sys::CKM_AES_GCM], aes());
    assert_eq!(refusal(&Ask::encrypt(AesGcm::new()), &gcm, 16), None);
    assert_eq!(refusal(&Ask::encrypt(AesEcb), &gcm, 16), Some(ErrorKind::NotPermitted));
    assert_eq!(refusal(&Ask::decrypt(AesEcb), &gcm, 16), Some(ErrorKind::NotPermitted));
    let mac = only(&[sys::CKM_SHA512_HMAC], hmac());
    assert_eq!(refusal(&Ask::verify(Hmac::SHA256, &[]), &mac, 16), Some(ErrorKind::NotPermitted));
    let pss = only(&[sys::CKM_RSA_PKCS_PSS], rsa_2048());
    assert_eq!(refusal(&Ask::sign(RsaPkcs1::SHA256), &pss, 16), Some(ErrorKind::NotPermitted));
    assert_eq!(refusal(&Ask::sign(RsaPss::SHA256), &pss, 16), None);
}

#[test]
fn an_empty_list_of_mechanisms_forbids_nothing() {
    let facts = KeyFacts { allowed: Some(vec![]), ..aes() };
    assert_eq!(refusal(&Ask::encrypt(AesEcb), &facts, 16), None);
}

#[test]
fn a_digest_of_the_wrong_length_is_invalid() {
    for (ask, facts, len) in [
        (Ask::sign_digest(Ecdsa::P384_SHA256), ec(Curve::P384), 32),
        (Ask::sign_digest(RsaPkcs1::SHA384), rsa_2048(), 48),
        (Ask::sign_digest(RsaPss::SHA512), rsa_2048(), 64),
    ] {
        assert_eq!(refusal(&ask, &facts, len), None, "{ask:?}");
        for wrong in [0, len - 1, len + 1] {
            assert_eq!(refusal(&ask, &facts, wrong), Some(ErrorKind::InvalidInput), "{ask:?}: {wrong}");
        }
    }
}

#[test]
fn hmac_of_a_digest_is_invalid() {
    assert_eq!(refusal(&Ask::sign_digest(Hmac::SHA256), &hmac(), 32), Some(ErrorKind::InvalidInput));
}

#[test]
fn an_incomplete_block_is_invalid() {
    for len in [0, 1, 15, 17, 33] {
        assert_eq!(refusal(&Ask::encrypt(AesEcb), &aes(), len), Some(ErrorKind::InvalidInput), "{len} bytes");
    }
}

#[test]
fn a_given_iv_of_an_impossible_length_is_invalid() {
    for (len, expected) in
        [(0, Some(ErrorKind::InvalidInput)), (1, None), (256, None), (257, Some(ErrorKind::InvalidInput))]
    {
        let cipher = AesGcm::new().with_iv(vec![7; len]);
        assert_eq!(refusal(&Ask::encrypt(cipher.clone()), &aes(), 16), expected, "{len} bytes");
        assert_eq!(refusal(&Ask::decrypt(cipher), &aes(), 16), expected, "{len} bytes");
    }
}

#[test]
#[cfg(target_pointer_width = "64")]
fn a_text_longer_than_gcm_allows_is_refused() {
    let max = (1_usize << 36) - 32;
    // By the length alone: nobody has the memory.
    let refusal = |ask: Ask, len| ask.check_input(aes().kind, len).err().map(|error| error.kind());
    assert_eq!(refusal(Ask::encrypt(AesGcm::new()), max), None);
    assert_eq!(refusal(Ask::encrypt(AesGcm::new()), max + 1), Some(ErrorKind::InvalidInput));
    assert_eq!(refusal(Ask::decrypt(AesGcm::new()), 28 + max), None);
    assert_eq!(refusal(Ask::decrypt(AesGcm::new()), 28 + max + 1), Some(ErrorKind::DecryptFailed));
}

#[test]
#[cfg(target_pointer_width = "64")]
fn additional_data_longer_than_a_module_can_be_told_is_invalid() {
    let refused = check_gcm_parameters(&Iv::Drawn, 1 << 32).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    assert!(check_gcm_parameters(&Iv::Drawn, (1 << 32) - 1).is_ok());
}

#[test]
fn a_ciphertext_of_an_impossible_length_fails_like_any_other() {
    let given = AesGcm::new().with_iv([7; 12]);
    for (ask, len) in [
        (Ask::decrypt(AesGcm::new()), 0),
        (Ask::decrypt(AesGcm::new()), 27),
        (Ask::decrypt(given), 15),
        (Ask::decrypt(AesEcb), 0),
        (Ask::decrypt(AesEcb), 17),
        (Ask::decrypt(AesCbc::new()), 16),
        (Ask::decrypt(AesCbc::new()), 33),
        (Ask::decrypt(AesCbc::new().with_iv([0; 16])), 0),
        (Ask::decrypt(AesCtr::new()), 15),
    ] {
        let error = ask.check(Some(&aes()), &vec![0; len]).unwrap_err();
        let like_any_other = Error::decrypt_failed();
        assert_eq!(format!("{error:?}"), format!("{like_any_other:?}"), "{ask:?}: {len}");
    }
}

#[test]
fn no_or_too_many_random_bytes_are_invalid() {
    for (len, valid) in [(0, false), (1, true), (RANDOM_LEN_MAX, true), (RANDOM_LEN_MAX + 1, false)] {
        let refused = Ask::random(len).check(None, &[]).err().map(|error| error.kind());
        assert_eq!(refused, (!valid).then_some(ErrorKind::InvalidInput), "{len} bytes");
    }
}

#[test]
fn an_operation_with_a_key_needs_one() {
    let error = Ask::sign(Hmac::SHA256).check(None, &[0; 3]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
}

/// A counter block that ends in this number.
fn counter(last: u128) -> [u8; 16] {
    last.to_be_bytes()
}

#[test]
fn a_message_that_would_overflow_the_counter_is_refused() {
    let ctr = |last, bits| AesCtr::new().with_counter(counter(last), bits);
    // 256 values from 0: 255 more blocks after the first.
    assert_eq!(refusal(&Ask::encrypt(ctr(0, 8)), &aes(), 256 * 16), None);
    assert_eq!(refusal(&Ask::encrypt(ctr(0, 8)), &aes(), 256 * 16 + 1), Some(ErrorKind::InvalidInput));
    assert_eq!(refusal(&Ask::encrypt(ctr(255, 8)), &aes(), 16), None);
    assert_eq!(refusal(&Ask::encrypt(ctr(255, 8)), &aes(), 17), Some(ErrorKind::InvalidInput));
    assert_eq!(refusal(&Ask::decrypt(ctr(255, 8)), &aes(), 17), Some(ErrorKind::InvalidInput));
    // The bits above the counter do not count.
    assert_eq!(refusal(&Ask::encrypt(ctr(u128::MAX - 1, 8)), &aes(), 32), None);
    assert_eq!(refusal(&Ask::encrypt(ctr(u128::MAX, 128)), &aes(), 16), None);
    assert_eq!(refusal(&Ask::encrypt(ctr(u128::MAX, 128)), &aes(), 17), Some(ErrorKind::InvalidInput));
    for bits in [0, 129] {
        assert_eq!(refusal(&Ask::encrypt(ctr(0, bits)), &aes(), 16), Some(ErrorKind::InvalidInput));
    }
}

#[test]
fn a_forged_counter_in_front_of_a_ciphertext_fails_like_any_other() {
    let input = [&counter(u128::from(u32::MAX))[..], &[0; 17]].concat();
    let error = Ask::decrypt(AesCtr::new()).check(Some(&aes()), &input).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DecryptFailed);
    assert!(Ask::decrypt(AesCtr::new()).check(Some(&aes()), &input[..32]).is_ok());
}

#[test]
fn ivs_for_cbc_are_as_long_as_a_block() {
    for len in [0, 8, 15, 17] {
        let ask = Ask::encrypt(AesCbc::new().with_iv(vec![0; len]));
        assert_eq!(refusal(&ask, &aes(), 16), Some(ErrorKind::InvalidInput), "{len} bytes");
    }
    assert_eq!(refusal(&Ask::encrypt(TripleDesCbc::new().with_iv([0; 8])), &triple_des(), 3), None);
    let long = Ask::encrypt(TripleDesCbc::new().with_iv([0; 16]));
    assert_eq!(refusal(&long, &triple_des(), 3), Some(ErrorKind::InvalidInput));
}

#[test]
fn a_message_longer_than_the_modulus_less_its_padding_is_refused() {
    for (ask, len_max) in [
        (Ask::encrypt(RsaOaep::SHA1), 256 - 42),
        (Ask::encrypt(RsaOaep::SHA512), 256 - 130),
        (Ask::encrypt(RsaPkcs1Encryption), 256 - 11),
    ] {
        assert_eq!(refusal(&ask, &rsa_2048(), len_max), None, "{ask:?}");
        assert_eq!(refusal(&ask, &rsa_2048(), len_max + 1), Some(ErrorKind::InvalidInput), "{ask:?}");
    }
    for ask in [Ask::decrypt(RsaOaep::SHA256), Ask::decrypt(RsaPkcs1Encryption)] {
        assert_eq!(refusal(&ask, &rsa_2048(), 256), None, "{ask:?}");
        assert_eq!(refusal(&ask, &rsa_2048(), 255), Some(ErrorKind::DecryptFailed), "{ask:?}");
    }
}

#[test]
fn each_algorithm_has_its_own_type_of_key() {
    let keys = [ec(Curve::P521), ed25519(), rsa_2048(), hmac(), aes(), triple_des()];
    let handles = std::sync::Arc::new(crate::token::task::Handles::new([]));
    let first = super::super::algorithm::FirstKey { handles, tokens: 1, engine: 1 };
    let retail = RetailMac { first, padding: MacPadding::Method1 };
    for (ask, own) in [
        (Ask::sign(Ecdsa::P521_SHA512), 0),
        (Ask::sign(Ed25519), 1),
        (Ask::verify(Ed25519, &[]), 1),
        (Ask::encrypt(RsaOaep::SHA1), 2),
        (Ask::sign(Hmac::SHA384), 3),
        (Ask::sign(Cmac::Aes), 4),
        (Ask::encrypt(AesCbc::new()), 4),
        (Ask::encrypt(AesCtr::new()), 4),
        (Ask::sign(Cmac::TripleDes), 5),
        (Ask::sign(retail), 5),
        (Ask::encrypt(TripleDesCbc::new()), 5),
    ] {
        for (place, key) in keys.iter().enumerate() {
            let expected = (place != own).then_some(ErrorKind::KeyMismatch);
            assert_eq!(refusal(&ask, key, 32), expected, "{ask:?} with {:?}", key.kind);
        }
    }
    for key in &keys {
        assert_eq!(refusal(&Ask::sign(RawMechanism::new(1)), key, 3), None, "a raw mechanism takes any key");
    }
}

#[test]
fn what_only_the_token_can_hash_takes_no_digest_and_what_is_raw_cannot_be_verified() {
    for (ask, facts) in [
        (Ask::sign_digest(Hmac::SHA256), hmac()),
        (Ask::sign_digest(Ed25519), ed25519()),
        (Ask::sign_digest(Cmac::Aes), aes()),
        (Ask::verify(RawMechanism::new(1), &[]), hmac()),
    ] {
        assert_eq!(refusal(&ask, &facts, 32), Some(ErrorKind::InvalidInput), "{ask:?}");
    }
}
