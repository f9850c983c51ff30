use proptest::prelude::*;

use super::super::algorithm::{AesEcb, Ed25519, RawMechanism, RsaPkcs1Encryption, TripleDesEcb};
use super::super::oracle::{aes, ec, ed25519, hmac, rsa_2048, triple_des};
use super::super::verdict;
use super::*;
use crate::token::facts::{Curve, KeyFacts};
use crate::token::task::Handles;

/// Encodes, lets `module` write in place of a token, and finishes.
fn served(
    ask: &Ask,
    facts: &KeyFacts,
    input: &[u8],
    module: impl FnOnce(&[u8], &mut [u8]) -> usize,
) -> Result<Vec<u8>> {
    ask.check(Some(facts), input)?;
    let mut scratch = Scratch::new();
    let encoded = ask.encode(input, &mut scratch);
    let mut output = vec![0xEE; ask.output_len(Some(facts.kind), input.len())];
    let written = module(encoded, &mut output);
    let len = ask.finish(Some(facts.kind), &mut output, written)?;
    output.truncate(len);
    Ok(output)
}

/// A module that writes so many bytes of a pattern, or says so.
fn writes(len: usize) -> impl FnOnce(&[u8], &mut [u8]) -> usize {
    move |_, output| {
        output.iter_mut().take(len).for_each(|byte| *byte = 0x81);
        len
    }
}

fn retail_mac(padding: MacPadding) -> RetailMac {
    let first = FirstKey { handles: Arc::new(Handles::new([])), tokens: 1, engine: 1 };
    RetailMac { first, padding }
}

fn gcm_with_iv() -> AesGcm {
    AesGcm::new().with_iv([7; 12])
}

#[test]
fn every_output_has_the_length_of_its_algorithm() {
    let cases = [
        (Ask::sign(Ecdsa::P256_SHA256), ec(Curve::P256), 3, 64),
        (Ask::sign(Ecdsa::P384_SHA256), ec(Curve::P384), 3, 96),
        (Ask::sign(RsaPkcs1::SHA256), rsa_2048(), 3, 256),
        (Ask::sign(RsaPss::SHA256), rsa_2048(), 3, 256),
        (Ask::sign(RsaPss::SHA256), KeyFacts { kind: KeyKind::Rsa { bits: 2047 }, ..rsa_2048() }, 3, 256),
        (Ask::sign(Hmac::SHA256), hmac(), 3, 32),
        (Ask::verify(Hmac::SHA256, &[]), hmac(), 3, 32),
        (Ask::encrypt(AesGcm::new()), aes(), 5, 12 + 5 + 16),
        (Ask::encrypt(gcm_with_iv()), aes(), 5, 5 + 16),
        (Ask::encrypt(AesEcb), aes(), 48, 48),
        (Ask::decrypt(AesEcb), aes(), 48, 48),
        (Ask::random(7), aes(), 0, 7),
        (Ask::sign(Ecdsa::P521_SHA512), ec(Curve::P521), 3, 132),
        (Ask::sign(Ed25519), ed25519(), 3, 64),
        (Ask::sign(Hmac::SHA512), hmac(), 3, 64),
        (Ask::sign(Cmac::Aes), aes(), 3, 16),
        (Ask::sign(Cmac::TripleDes), triple_des(), 3, 8),
        (Ask::sign(retail_mac(MacPadding::Method1)), triple_des(), 3, 8),
        (Ask::encrypt(AesCbc::new()), aes(), 16, 16 + 32),
        (Ask::encrypt(AesCbc::new().with_iv([7; 16])), aes(), 15, 16),
        (Ask::encrypt(AesCbc::new().unpadded()), aes(), 16, 16 + 16),
        (Ask::decrypt(AesCbc::new().unpadded()), aes(), 48, 32),
        (Ask::encrypt(TripleDesCbc::new()), triple_des(), 3, 8 + 8),
        (Ask::encrypt(TripleDesEcb), triple_des(), 8, 8),
        (Ask::encrypt(AesCtr::new()), aes(), 5, 16 + 5),
        (Ask::decrypt(AesCtr::new()), aes(), 21, 5),
        (Ask::encrypt(AesCtr::new().with_counter([0; 16], 64)), aes(), 5, 5),
    ];
    for (ask, facts, input_len, len) in cases {
        assert_eq!(ask.output_len(Some(facts.kind), input_len), len, "{ask:?}");
        let input = vec![0; input_len];
        assert_eq!(served(&ask, &facts, &input, writes(len)).unwrap().len(), len, "{ask:?}");
    }
}

#[test]
fn decryption_by_gcm_leaves_room_for_the_tag_and_yields_the_body() {
    for (ask, front) in [(Ask::decrypt(AesGcm::new()), 12), (Ask::decrypt(gcm_with_iv()), 0)] {
        for body_len in [0, 1, 16, 100] {
            let input = vec![0; front + body_len + 16];
            assert_eq!(ask.output_len(Some(aes().kind), input.len()), body_len + 16);
            assert_eq!(served(&ask, &aes(), &input, writes(body_len)).unwrap(), vec![0x81; body_len]);
        }
    }
}

#[test]
fn padding_is_put_on_for_the_token_and_taken_off_of_what_it_yields() {
    let ask = Ask::encrypt(AesCbc::new().with_iv([7; 16]));
    let mut scratch = Scratch::new();
    assert_eq!(ask.encode(b"0123456789", &mut scratch), b"0123456789\x06\x06\x06\x06\x06\x06");
    let yields = |block: &'static [u8; 16]| {
        move |_: &[u8], output: &mut [u8]| {
            output.copy_from_slice(block);
            16
        }
    };
    let ask = Ask::decrypt(AesCbc::new().with_iv([7; 16]));
    let padded = b"0123456789\x06\x06\x06\x06\x06\x06";
    assert_eq!(served(&ask, &aes(), &[0; 16], yields(padded)).unwrap(), b"0123456789");
    let wrong = served(&ask, &aes(), &[0; 16], yields(b"0123456789\x06\x06\x06\x06\x06\x07")).unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::DecryptFailed);
    let mac = Ask::sign(retail_mac(MacPadding::Method2));
    assert_eq!(mac.encode(b"12345678", &mut scratch), b"12345678\x80\0\0\0\0\0\0\0");
}

#[test]
fn what_padding_is_taken_off_of_leaves_nothing_behind_the_message() {
    let ask = Ask::decrypt(AesCbc::new().with_iv([7; 16]));
    let mut output = *b"0123456789\x06\x06\x06\x06\x06\x06";
    assert_eq!(ask.finish(Some(aes().kind), &mut output, 16).unwrap(), 10);
    assert_eq!(&output, b"0123456789\0\0\0\0\0\0");
}

#[test]
fn a_token_that_pads_by_itself_may_write_any_length_of_the_last_block() {
    let mut ask = Ask::decrypt(AesCbc::new());
    ask.choose(|_, mechanism| matches!(mechanism, Mechanism::AesCbcPad(_)));
    for len in 16..32 {
        assert_eq!(served(&ask, &aes(), &[0; 48], writes(len)).unwrap().len(), len);
    }
    for wrong in [15, 32] {
        let error = served(&ask, &aes(), &[0; 48], writes(wrong)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Device, "{wrong}");
    }
}

#[test]
fn a_raw_mechanism_may_write_what_it_likes_up_to_its_bound() {
    let ask = Ask::sign(RawMechanism::new(1).output_max(8));
    for len in [0, 1, 8] {
        assert_eq!(served(&ask, &aes(), b"message", writes(len)).unwrap().len(), len);
    }
    assert_eq!(Ask::encrypt(RawMechanism::new(1)).output_len(None, 7), 7 + 1024);
}

#[test]
fn rsa_padding_is_taken_off_by_whoever_the_mechanism_says() {
    let oaep = Ask::decrypt(RsaOaep::SHA256);
    assert_eq!(oaep.final_len_max(Some(rsa_2048().kind), 256), 256 - 66);
    assert_eq!(served(&oaep, &rsa_2048(), &[0; 256], writes(5)).unwrap().len(), 5);
    assert_eq!(served(&oaep, &rsa_2048(), &[0; 256], writes(191)).unwrap_err().kind(), ErrorKind::Device);
    let mut raw = oaep;
    raw.choose(|_, mechanism| matches!(mechanism, Mechanism::RsaRaw));
    // The pattern is no block with padding.
    let refused = served(&raw, &rsa_2048(), &[0; 256], writes(256)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::DecryptFailed);
    let pkcs1 = Ask::decrypt(RsaPkcs1Encryption);
    let block = |_: &[u8], output: &mut [u8]| {
        output.fill(0xAA);
        output[..2].copy_from_slice(&[0, 2]);
        output[253] = 0;
        256
    };
    assert_eq!(served(&pkcs1, &rsa_2048(), &[0; 256], block).unwrap(), [0xAA, 0xAA]);
}

#[test]
fn a_claimed_length_that_the_algorithm_cannot_have_is_a_fault_of_the_device() {
    let cases = [
        (Ask::sign(Ecdsa::P256_SHA256), ec(Curve::P256), 0, 64),
        (Ask::sign(Ecdsa::P256_SHA256.der()), ec(Curve::P256), 0, 64),
        (Ask::sign(RsaPkcs1::SHA256), rsa_2048(), 0, 256),
        (Ask::sign(Hmac::SHA256), hmac(), 0, 32),
        (Ask::verify(Hmac::SHA256, &[]), hmac(), 0, 32),
        (Ask::encrypt(AesGcm::new()), aes(), 5, 33),
        (Ask::decrypt(AesGcm::new()), aes(), 33, 5),
        (Ask::encrypt(AesEcb), aes(), 16, 16),
        (Ask::decrypt(AesEcb), aes(), 16, 16),
        (Ask::random(7), aes(), 0, 7),
    ];
    for (ask, facts, input_len, len) in cases {
        let input = vec![0; input_len];
        assert!(served(&ask, &facts, &input, writes(len)).is_ok(), "{ask:?}");
        for wrong in [0, len - 1, len + 1, usize::MAX] {
            let error = served(&ask, &facts, &input, writes(wrong)).unwrap_err();
            assert_eq!(
                (error.kind(), error.outcome()),
                (ErrorKind::Device, Outcome::Done),
                "{ask:?}: {wrong}"
            );
        }
    }
}

#[test]
fn a_buffer_shorter_than_what_was_written_is_a_fault_and_no_panic() {
    let ask = Ask::sign(Ecdsa::P256_SHA256.der());
    let error = ask.finish(Some(ec(Curve::P256).kind), &mut [0; 10], 64).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Device);
}

#[test]
fn what_the_token_does_follows_from_the_algorithm() {
    let pss = Mechanism::RsaPss { hash: Hash::Sha384, salt_len: 48 };
    let aad = Some(b"header".as_slice().into());
    let given = Iv::Given([7; 12].as_slice().into());
    let cases = [
        (Ask::sign(Ecdsa::P384_SHA384), Some(Call::Sign(Mechanism::Ecdsa))),
        (Ask::sign(RsaPkcs1::SHA512), Some(Call::Sign(Mechanism::RsaPkcs1))),
        (Ask::sign_digest(RsaPss::SHA384), Some(Call::Sign(pss))),
        (Ask::sign(Hmac::SHA256), Some(Call::Sign(Mechanism::Hmac(Hash::Sha256)))),
        (Ask::verify(Hmac::SHA256, &[]), Some(Call::Sign(Mechanism::Hmac(Hash::Sha256)))),
        (Ask::verify(RsaPss::SHA384, &[]), None),
        (
            Ask::encrypt(AesGcm::new().aad(b"header".as_slice())),
            Some(Call::Encrypt(Mechanism::AesGcm { iv: Iv::Drawn, aad })),
        ),
        (Ask::decrypt(gcm_with_iv()), Some(Call::Decrypt(Mechanism::AesGcm { iv: given, aad: None }))),
        (Ask::encrypt(AesEcb), Some(Call::Encrypt(Mechanism::AesEcb))),
        (Ask::decrypt(AesEcb), Some(Call::Decrypt(Mechanism::AesEcb))),
        (Ask::random(3), Some(Call::Random)),
        (Ask::sign(Hmac::SHA512), Some(Call::Sign(Mechanism::Hmac(Hash::Sha512)))),
        (
            Ask::sign(RsaPss::SHA256.salt_len(0)),
            Some(Call::Sign(Mechanism::RsaPss { hash: Hash::Sha256, salt_len: 0 })),
        ),
        (
            Ask::encrypt(AesCtr::new()),
            Some(Call::Encrypt(Mechanism::AesCtr { iv: Iv::Drawn, counter_bits: 32 })),
        ),
        (Ask::encrypt(RsaOaep::SHA256), None),
        (Ask::encrypt(RsaPkcs1Encryption), None),
        (Ask::decrypt(RsaPkcs1Encryption), Some(Call::Decrypt(Mechanism::RsaRaw))),
    ];
    for (ask, call) in cases {
        assert_eq!(ask.call(), call.as_ref(), "{ask:?}");
    }
}

#[test]
fn the_iv_in_front_of_a_ciphertext_moves_into_the_call() {
    let input: Vec<u8> = (0..40).collect();
    let mut ask = Ask::decrypt(AesGcm::new());
    for _ in 0..2 {
        ask.bind(&input);
        let iv = Iv::Given(input[..12].into());
        assert_eq!(ask.call(), Some(&Call::Decrypt(Mechanism::AesGcm { iv, aad: None })));
        assert_eq!(ask.encode(&input, &mut Scratch::new()), &input[12..]);
    }
}

#[test]
fn a_given_iv_stays_and_the_whole_input_goes_to_the_token() {
    let input: Vec<u8> = (0..40).collect();
    for mut ask in [Ask::decrypt(gcm_with_iv()), Ask::encrypt(gcm_with_iv()), Ask::encrypt(AesGcm::new())] {
        let before = ask.call().cloned();
        ask.bind(&input);
        assert_eq!(ask.call(), before.as_ref());
        assert_eq!(ask.encode(&input, &mut Scratch::new()), input);
    }
}

#[test]
fn too_short_an_input_binds_nothing() {
    let mut ask = Ask::decrypt(AesGcm::new());
    ask.bind(&[0; 11]);
    assert_eq!(ask.call(), Some(&Call::Decrypt(Mechanism::AesGcm { iv: Iv::Drawn, aad: None })));
}

#[test]
fn only_messages_for_public_key_algorithms_are_hashed_on_the_host() {
    assert!(Ask::sign(Ecdsa::P256_SHA256).hashes());
    assert!(Ask::sign(RsaPkcs1::SHA256).hashes());
    assert!(Ask::verify(RsaPss::SHA256, &[]).hashes());
    for ask in [
        Ask::sign_digest(Ecdsa::P256_SHA256),
        Ask::sign(Hmac::SHA256),
        Ask::verify(Hmac::SHA256, &[]),
        Ask::encrypt(AesGcm::new()),
        Ask::decrypt(AesEcb),
        Ask::random(3),
    ] {
        assert!(!ask.hashes(), "{ask:?}");
    }
}

#[test]
fn every_kind_of_operation_can_be_asked_for() {
    let signatures: [SignAlgorithm; 9] = [
        RsaPkcs1::SHA256.into(),
        RsaPss::SHA256.into(),
        Ecdsa::P256_SHA256.into(),
        Ed25519.into(),
        Hmac::SHA256.into(),
        Cmac::Aes.into(),
        Cmac::TripleDes.into(),
        retail_mac(MacPadding::Method2).into(),
        RawMechanism::new(1).into(),
    ];
    let ciphers: [Cipher; 9] = [
        AesGcm::new().into(),
        AesEcb.into(),
        AesCbc::new().into(),
        AesCtr::new().into(),
        TripleDesEcb.into(),
        TripleDesCbc::new().into(),
        RsaOaep::SHA1.into(),
        RsaPkcs1Encryption.into(),
        RawMechanism::new(1).into(),
    ];
    let mut asks: Vec<_> = signatures.into_iter().map(Ask::sign).collect();
    asks.extend(ciphers.into_iter().flat_map(|cipher| [Ask::encrypt(cipher.clone()), Ask::decrypt(cipher)]));
    asks.extend([Ask::random(3), Ask::verify(Hmac::SHA256, &[])]);
    let kinds: Vec<_> = asks.iter().map(Ask::kind).collect();
    assert_eq!(kinds, OperationKind::ALL);
}

#[test]
fn a_mac_made_again_on_the_token_gives_the_verdict() {
    use ::hmac::{KeyInit, Mac};
    let mut mac = ::hmac::Hmac::<sha2::Sha256>::new_from_slice(&[5; 32]).unwrap();
    mac.update(b"message");
    let tag = mac.finalize().into_bytes();
    let ask = Ask::verify(Hmac::SHA256, &tag);
    let module = |input: &[u8], output: &mut [u8]| {
        assert_eq!(input, b"message");
        output.copy_from_slice(&tag);
        32
    };
    let made = served(&ask, &hmac(), b"message", module).unwrap();
    assert!(verdict(&ask, made).unwrap().is_valid());
}

#[test]
fn a_long_signature_is_not_copied_whole() {
    let Ask { what: What::Verify { signature, .. }, .. } = Ask::verify(RsaPss::SHA256, &[1; 5000]) else {
        panic!("asked for a verification");
    };
    assert_eq!(signature.len(), SIGNATURE_KEPT_MAX);
}

proptest! {
    #[test]
    fn a_der_signature_is_that_of_an_independent_encoder(message: Vec<u8>) {
        use p256::ecdsa::signature::hazmat::PrehashSigner;
        use p256::ecdsa::Signature;
        let mut made = None;
        let module = |digest: &[u8], output: &mut [u8]| {
            let signature: Signature = super::super::oracle::p256().sign_prehash(digest).unwrap();
            output[..64].copy_from_slice(&signature.to_bytes());
            made = Some(signature);
            64
        };
        let der = served(&Ask::sign(Ecdsa::P256_SHA256.der()), &ec(Curve::P256), &message, module).unwrap();
        let expected = made.unwrap().to_der();
        prop_assert_eq!(&der[..], expected.as_bytes());
    }
}
