//! The mechanisms by hand, each against published vectors or other software than the simulator's own.

#![expect(unsafe_code, reason = "calls of the C interface")]
#![expect(clippy::unwrap_used, reason = "a helper of tests fails its test")]
#![expect(dead_code, reason = "shared with tests that use more of it")]

#[path = "support/raw.rs"]
mod raw;
#[path = "support/sim.rs"]
mod sim;

use cryptoki_sys as sys;
use p11_sim::Loaded;
use raw::{Raw, call, len};
use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use sim::{FALSE, Sim, TRUE, Template, bytes, oaep, words};

const MESSAGE: &[u8] = b"what is signed";

/// What the ciphertexts in `support` hold. OpenSSL 3.0 made them with the public half of `test-rsa2048-0.der`:
/// `openssl pkeyutl -encrypt -pubin -pkeyopt rsa_padding_mode:oaep -pkeyopt rsa_oaep_md:sha1` and its like.
const WRAPPED: &[u8] = b"a wrapped key";

#[test]
fn aes_modes_are_those_of_sp_800_38() {
    let sim = Sim::new("");
    let key = sim.import(
        sys::CKK_AES,
        "2b7e151628aed2a6abf7158809cf4f3c",
        &[(sys::CKA_SIGN, TRUE), (sys::CKA_VERIFY, TRUE)],
    );
    let plain = bytes("6bc1bee22e409f96e93d7e117393172a");
    // SP 800-38A, F.2.1.
    let iv = bytes("000102030405060708090a0b0c0d0e0f");
    let sealed = sim.encrypt(sys::CKM_AES_CBC, &iv, key, &plain).unwrap();
    assert_eq!(sealed, bytes("7649abac8119b246cee98e9b12e9197d"));
    assert_eq!(sim.decrypt(sys::CKM_AES_CBC, &iv, key, &sealed).unwrap(), plain);
    // The padding of a whole block is a block of sixteens (RFC 5652, 6.3).
    let padded = sim.encrypt(sys::CKM_AES_CBC_PAD, &iv, key, &plain).unwrap();
    let with_padding = sim.encrypt(sys::CKM_AES_CBC, &iv, key, &[&plain[..], &[16; 16]].concat());
    assert_eq!(padded, with_padding.unwrap());
    for taken in [0, 1, 15, 16] {
        let sealed = sim.encrypt(sys::CKM_AES_CBC_PAD, &iv, key, &plain[..taken]).unwrap();
        assert_eq!(sim.decrypt(sys::CKM_AES_CBC_PAD, &iv, key, &sealed).unwrap(), plain[..taken]);
    }
    assert_eq!(sim.decrypt(sys::CKM_AES_CBC_PAD, &iv, key, &sealed), Err(sys::CKR_ENCRYPTED_DATA_INVALID));
    assert_eq!(sim.encrypt(sys::CKM_AES_CBC, &iv, key, &plain[1..]), Err(sys::CKR_DATA_LEN_RANGE));
    assert_eq!(sim.encrypt(sys::CKM_AES_CBC, &iv[1..], key, &plain), Err(sys::CKR_MECHANISM_PARAM_INVALID));
    // SP 800-38A, F.5.1.
    let counter = |bits: u64, block: &str| [words(&[bits]), bytes(block)].concat();
    let first = counter(128, "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff");
    let sealed = sim.encrypt(sys::CKM_AES_CTR, &first, key, &plain).unwrap();
    assert_eq!(sealed, bytes("874d6191b620e3261bef6864990db6ce"));
    // SP 800-38B, D.1.
    for (data, mac) in
        [(&[][..], "bb1d6929e95937287fa37d129b756746"), (&plain, "070a16b46b4d4144f79bdd9dd04a287c")]
    {
        assert_eq!(sim.sign(sys::CKM_AES_CMAC, &[], key, data).unwrap(), bytes(mac));
        sim.verify(sys::CKM_AES_CMAC, &[], key, data, &bytes(mac)).unwrap();
    }
}

#[test]
fn a_counter_counts_across_blocks_and_never_past_its_last_value() {
    use ctr::cipher::{KeyIvInit, StreamCipher};
    let sim = Sim::new("");
    let key = sim.import(sys::CKK_AES, &"42".repeat(32), &[]);
    let block = bytes("00112233445566778899aabbfffffffe");
    for (bits, blocks) in [(64, 3), (40, 3), (32, 2), (8, 2), (2, 2)] {
        let parameter = [words(&[bits]), block.clone()].concat();
        let data = vec![7; 16 * blocks - 5];
        let mut expected = data.clone();
        let mut cipher = ctr::Ctr128BE::<aes::Aes256>::new(&[0x42; 32].into(), block[..].try_into().unwrap());
        cipher.apply_keystream(&mut expected);
        assert_eq!(sim.encrypt(sys::CKM_AES_CTR, &parameter, key, &data).unwrap(), expected, "{bits} bits");
        if blocks == 2 {
            let refused = sim.decrypt(sys::CKM_AES_CTR, &parameter, key, &[7; 33]);
            assert_eq!(refused, Err(sys::CKR_DATA_LEN_RANGE), "{bits} bits");
        }
    }
}

#[test]
fn triple_des_is_that_of_sp_800_67_and_38b() {
    let sim = Sim::new("");
    let key = sim.import(sys::CKK_DES3, "0123456789abcdef23456789abcdef01456789abcdef0123", &[]);
    let plain = b"The qufck brown fox jump";
    let sealed = sim.encrypt(sys::CKM_DES3_ECB, &[], key, plain).unwrap();
    assert_eq!(sealed, bytes("a826fd8ce53b855fcce21c8112256fe668d5c05dd9b6b900"));
    assert_eq!(sim.decrypt(sys::CKM_DES3_ECB, &[], key, &sealed).unwrap(), plain);
    // The first block of CBC under a zero IV is that of ECB, and the second one chained with it.
    let chained = sim.encrypt(sys::CKM_DES3_CBC, &[0; 8], key, plain).unwrap();
    let mut second: Vec<u8> = plain[8..16].to_vec();
    second.iter_mut().zip(&chained[..8]).for_each(|(byte, front)| *byte ^= front);
    assert_eq!(chained[..8], sealed[..8]);
    assert_eq!(chained[8..16], sim.encrypt(sys::CKM_DES3_ECB, &[], key, &second).unwrap());
    let padded = sim.encrypt(sys::CKM_DES3_CBC_PAD, &[0; 8], key, &plain[..20]).unwrap();
    assert_eq!(padded.len(), 24);
    assert_eq!(sim.decrypt(sys::CKM_DES3_CBC_PAD, &[0; 8], key, &padded).unwrap(), plain[..20]);
    // SP 800-38B, D.4.
    let sign = &[(sys::CKA_SIGN, TRUE)];
    let key = sim.import(sys::CKK_DES3, "8aa83bf8cbda10620bc1bf19fbb6cd58bc313d4a371ca8b5", sign);
    let block = bytes("6bc1bee22e409f96");
    assert_eq!(sim.sign(sys::CKM_DES3_CMAC, &[], key, &[]).unwrap(), bytes("b7a688e122ffaf95"));
    assert_eq!(sim.sign(sys::CKM_DES3_CMAC, &[], key, &block).unwrap(), bytes("8e8f293136283797"));
}

#[test]
fn ring_makes_the_same_macs() {
    let sim = Sim::new("");
    let key = sim.import(sys::CKK_GENERIC_SECRET, &"0b".repeat(20), &[]);
    for (how, hash) in
        [(sys::CKM_SHA384_HMAC, ring::hmac::HMAC_SHA384), (sys::CKM_SHA512_HMAC, ring::hmac::HMAC_SHA512)]
    {
        let expected = ring::hmac::sign(&ring::hmac::Key::new(hash, &[0x0b; 20]), MESSAGE);
        assert_eq!(sim.sign(how, &[], key, MESSAGE).unwrap(), expected.as_ref());
        sim.verify(how, &[], key, MESSAGE, expected.as_ref()).unwrap();
        let refused = sim.verify(how, &[], key, b"another", expected.as_ref());
        assert_eq!(refused, Err(sys::CKR_SIGNATURE_INVALID));
    }
}

#[test]
fn ring_accepts_what_the_token_hashes_and_signs() {
    let sim = Sim::new("keys=ed:ed25519");
    let cases: [(&str, u64, Vec<u8>, &dyn VerificationAlgorithm); 9] = [
        ("ed", sys::CKM_EDDSA, vec![], &signature::ED25519),
        ("p256", sys::CKM_ECDSA_SHA256, vec![], &signature::ECDSA_P256_SHA256_FIXED),
        ("p384", sys::CKM_ECDSA_SHA384, vec![], &signature::ECDSA_P384_SHA384_FIXED),
        ("rsa2048", sys::CKM_SHA256_RSA_PKCS, vec![], &signature::RSA_PKCS1_2048_8192_SHA256),
        ("rsa2048", sys::CKM_SHA384_RSA_PKCS, vec![], &signature::RSA_PKCS1_2048_8192_SHA384),
        ("rsa2048", sys::CKM_SHA512_RSA_PKCS, vec![], &signature::RSA_PKCS1_2048_8192_SHA512),
        (
            "rsa2048",
            sys::CKM_SHA256_RSA_PKCS_PSS,
            words(&[sys::CKM_SHA256, sys::CKG_MGF1_SHA256, 32]),
            &signature::RSA_PSS_2048_8192_SHA256,
        ),
        (
            "rsa2048",
            sys::CKM_SHA384_RSA_PKCS_PSS,
            words(&[sys::CKM_SHA384, sys::CKG_MGF1_SHA384, 48]),
            &signature::RSA_PSS_2048_8192_SHA384,
        ),
        (
            "rsa2048",
            sys::CKM_SHA512_RSA_PKCS_PSS,
            words(&[sys::CKM_SHA512, sys::CKG_MGF1_SHA512, 64]),
            &signature::RSA_PSS_2048_8192_SHA512,
        ),
    ];
    // ring reads RSA keys as PKCS#1, and the test keys are such with more behind.
    let rsa = || {
        let public = sim.key(sys::CKO_PUBLIC_KEY, "rsa2048");
        (sim.value(public, sys::CKA_MODULUS), sim.value(public, sys::CKA_PUBLIC_EXPONENT))
    };
    for (label, how, parameter, verifier) in &cases {
        let private = sim.key(sys::CKO_PRIVATE_KEY, label);
        let mut made = sim.sign(*how, parameter, private, MESSAGE).unwrap();
        let public = match *label {
            "rsa2048" => rsa_public_key(&rsa()),
            label => sim.point(label),
        };
        UnparsedPublicKey::new(*verifier, &public).verify(MESSAGE, &made).unwrap();
        let token_public = sim.key(sys::CKO_PUBLIC_KEY, label);
        sim.verify(*how, parameter, token_public, MESSAGE, &made).unwrap();
        made[9] ^= 1;
        let refused = sim.verify(*how, parameter, token_public, MESSAGE, &made);
        assert_eq!(refused, Err(sys::CKR_SIGNATURE_INVALID), "{how:#x}");
    }
    let wrong = words(&[sys::CKM_SHA256, sys::CKG_MGF1_SHA256, 32]);
    let private = sim.key(sys::CKO_PRIVATE_KEY, "rsa2048");
    let refused = sim.sign(sys::CKM_SHA512_RSA_PKCS_PSS, &wrong, private, MESSAGE);
    assert_eq!(refused, Err(sys::CKR_MECHANISM_PARAM_INVALID));
}

/// A PKCS#1 `RSAPublicKey` in DER, for a modulus of 256 bytes.
fn rsa_public_key((modulus, exponent): &(Vec<u8>, Vec<u8>)) -> Vec<u8> {
    let exponent = [&[2, u8::try_from(exponent.len()).unwrap()], &exponent[..]].concat();
    let modulus = [&[2, 0x82, 1, 1, 0], &modulus[..]].concat();
    let body_len = u16::try_from(modulus.len() + exponent.len()).unwrap().to_be_bytes();
    [&[0x30, 0x82], &body_len[..], &modulus, &exponent].concat()
}

#[test]
fn signatures_on_p_521_verify_by_its_own_public_key_for_every_length_of_digest() {
    use p521::ecdsa::signature::hazmat::PrehashVerifier;
    let sim = Sim::new("seed=5,keys=big:p521");
    let private = sim.key(sys::CKO_PRIVATE_KEY, "big");
    let public = p521::ecdsa::VerifyingKey::from_sec1_bytes(&sim.point("big")).unwrap();
    assert_eq!(public, *p11_sim::material::p521(5, "big", 0).verifying_key());
    for digest_len in [20, 32, 48, 64] {
        let digest = vec![0x77; digest_len];
        let made = sim.sign(sys::CKM_ECDSA, &[], private, &digest).unwrap();
        // As an integer of the field's length.
        let wide = [vec![0; 66 - digest_len], digest].concat();
        public.verify_prehash(&wide, &p521::ecdsa::Signature::from_slice(&made).unwrap()).unwrap();
    }
    let hashed = sim.sign(sys::CKM_ECDSA_SHA512, &[], private, MESSAGE).unwrap();
    let digest = ring::digest::digest(&ring::digest::SHA512, MESSAGE);
    let on_token = sim.key(sys::CKO_PUBLIC_KEY, "big");
    sim.verify(sys::CKM_ECDSA, &[], on_token, digest.as_ref(), &hashed).unwrap();
}

#[test]
fn what_openssl_encrypts_is_decrypted_and_what_is_wrong_refused() {
    let sim = Sim::new("keys=dec:rsa2048-decrypt");
    let key = sim.key(sys::CKO_PRIVATE_KEY, "dec");
    let sha1 = oaep(sys::CKM_SHA_1, sys::CKG_MGF1_SHA1, &[]);
    let sha512 = oaep(sys::CKM_SHA512, sys::CKG_MGF1_SHA512, b"label");
    let cases: [(u64, &[u8], &[u8]); 3] = [
        (sys::CKM_RSA_PKCS_OAEP, &sha1, include_bytes!("support/oaep-sha1.bin")),
        (sys::CKM_RSA_PKCS_OAEP, &sha512, include_bytes!("support/oaep-sha512-label.bin")),
        (sys::CKM_RSA_PKCS, &[], include_bytes!("support/pkcs1.bin")),
    ];
    for (how, parameter, sealed) in cases {
        assert_eq!(sim.decrypt(how, parameter, key, sealed).unwrap(), WRAPPED);
        let mut changed = sealed.to_vec();
        changed[200] ^= 1;
        assert_eq!(sim.decrypt(how, parameter, key, &changed), Err(sys::CKR_ENCRYPTED_DATA_INVALID));
        let short = sim.decrypt(how, parameter, key, &sealed[1..]);
        assert_eq!(short, Err(sys::CKR_ENCRYPTED_DATA_LEN_RANGE));
        // The bare function shows the block: padding and all.
        let block = sim.decrypt(sys::CKM_RSA_X_509, &[], key, sealed).unwrap();
        assert_eq!((block.len(), block[0]), (256, 0));
        assert_eq!(block.ends_with(WRAPPED), how == sys::CKM_RSA_PKCS);
    }
    let unlabelled = oaep(sys::CKM_SHA512, sys::CKG_MGF1_SHA512, &[]);
    let refused = sim.decrypt(sys::CKM_RSA_PKCS_OAEP, &unlabelled, key, cases[1].2);
    assert_eq!(refused, Err(sys::CKR_ENCRYPTED_DATA_INVALID));
    let signs = sim.sign(sys::CKM_RSA_PKCS, &[], key, MESSAGE);
    assert_eq!(signs, Err(sys::CKR_KEY_FUNCTION_NOT_PERMITTED), "a key for decryption");
    let encrypts = sim.encrypt(sys::CKM_RSA_PKCS, &[], sim.key(sys::CKO_PUBLIC_KEY, "dec"), WRAPPED);
    assert_eq!(encrypts, Err(sys::CKR_MECHANISM_INVALID), "the public half is for the host");
}

#[test]
fn keys_are_wrapped_as_rfc_3394_and_rfc_5649_have_it() {
    let sim = Sim::new("");
    let wraps: Template<'_> = &[(sys::CKA_WRAP, TRUE), (sys::CKA_UNWRAP, TRUE)];
    let out: Template<'_> = &[(sys::CKA_EXTRACTABLE, TRUE)];
    let (kw, kwp) = (sys::CKM_AES_KEY_WRAP, sys::CKM_AES_KEY_WRAP_KWP);
    // RFC 3394, 4.1; RFC 5649, 6.
    let kek = sim.import(sys::CKK_AES, "000102030405060708090a0b0c0d0e0f", wraps);
    let value = "00112233445566778899aabbccddeeff";
    let wrapped = sim.wrap(kw, kek, sim.import(sys::CKK_AES, value, out)).unwrap();
    assert_eq!(wrapped, bytes("1fa68b0a8112b447aef34bd8fb5a7b829d3e862371d2cfe5"));
    assert_eq!(sim.unwrap(kw, kek, &wrapped, sys::CKK_AES).unwrap(), bytes(value));
    let kek192 = sim.import(sys::CKK_AES, "5840df6e29b02af1ab493b705bf16ea1ae8338f4dcc176a8", wraps);
    let value = "c37b7e6492584340bed12207808941155068f738";
    let odd = sim.import(sys::CKK_GENERIC_SECRET, value, out);
    let wrapped = sim.wrap(kwp, kek192, odd).unwrap();
    assert_eq!(wrapped, bytes("138bdeaa9b8fa7fc61f97742e72248ee5ae6ae5360d1ae6a5f54f373fa543b6a"));
    assert_eq!(sim.unwrap(kwp, kek192, &wrapped, sys::CKK_GENERIC_SECRET).unwrap(), bytes(value));
    assert_eq!(sim.wrap(kw, kek192, odd), Err(sys::CKR_KEY_SIZE_RANGE), "no whole blocks");
    let mut changed = wrapped;
    changed[3] ^= 1;
    let refused = sim.unwrap(kwp, kek192, &changed, sys::CKK_GENERIC_SECRET);
    assert_eq!(refused, Err(sys::CKR_WRAPPED_KEY_INVALID));
    let kept = sim.key(sys::CKO_SECRET_KEY, "aes256");
    assert_eq!(sim.wrap(kw, kek, kept), Err(sys::CKR_KEY_UNEXTRACTABLE));
    assert_eq!(sim.wrap(kw, kept, odd), Err(sys::CKR_KEY_FUNCTION_NOT_PERMITTED));
}

#[test]
fn ring_agrees_on_the_same_secret() {
    use ring::agreement;
    let sim = Sim::new("keys=a:p256-agree;b:p384-agree");
    let random = ring::rand::SystemRandom::new();
    for (label, curve) in [("a", &agreement::ECDH_P256), ("b", &agreement::ECDH_P384)] {
        let ours = agreement::EphemeralPrivateKey::generate(curve, &random).unwrap();
        let peer = ours.compute_public_key().unwrap();
        let theirs = agreement::UnparsedPublicKey::new(curve, sim.point(label));
        let secret = agreement::agree_ephemeral(ours, &theirs, <[u8]>::to_vec).unwrap();
        let base = sim.key(sys::CKO_PRIVATE_KEY, label);
        let derive = |kdf, shared: &[u8], key_len| sim.derive(kdf, shared, peer.as_ref(), base, key_len);
        assert_eq!(derive(sys::CKD_NULL, &[], len(&secret)).unwrap(), secret);
        assert_eq!(derive(sys::CKD_NULL, &[], 16).unwrap(), secret[secret.len() - 16..], "its end");
        assert_eq!(derive(sys::CKD_NULL, &[], len(&secret) + 1), Err(sys::CKR_KEY_SIZE_RANGE));
        assert_eq!(derive(sys::CKD_NULL, b"x", 16), Err(sys::CKR_MECHANISM_PARAM_INVALID));
        let block = |counter: u8| {
            let data = [&secret[..], &[0, 0, 0, counter], b"shared"].concat();
            ring::digest::digest(&ring::digest::SHA256, &data).as_ref().to_vec()
        };
        let expected = [block(1), block(2)].concat();
        assert_eq!(derive(sys::CKD_SHA256_KDF, b"shared", 40).unwrap(), expected[..40]);
        let signs_only = sim.key(sys::CKO_PRIVATE_KEY, "p256");
        let refused = sim.derive(sys::CKD_NULL, &[], peer.as_ref(), signs_only, 16);
        assert_eq!(refused, Err(sys::CKR_KEY_FUNCTION_NOT_PERMITTED));
        let mut off_curve = peer.as_ref().to_vec();
        off_curve[20] ^= 1;
        let refused = sim.derive(sys::CKD_NULL, &[], &off_curve, base, 16);
        assert_eq!(refused, Err(sys::CKR_MECHANISM_PARAM_INVALID));
    }
}

#[test]
fn two_tokens_keys_on_p_521_agree_with_each_other() {
    let sim = Sim::new("keys=a:p521-agree;b:p521-agree");
    let derive = |own: &str, other: &str| {
        let base = sim.key(sys::CKO_PRIVATE_KEY, own);
        sim.derive(sys::CKD_SHA512_KDF, &[], &sim.point(other), base, 64).unwrap()
    };
    assert_eq!(derive("a", "b"), derive("b", "a"));
}

#[test]
fn a_hidden_mechanism_is_not_listed_and_refused_on_its_tokens_alone() {
    for mode in ["", ",null=1", ",null=1,op_us=1"] {
        let hide = "hide=0x251@sim-0;0x1080@sim-1;0x220";
        let sim = Loaded::private_copy(&format!("tokens=2,{hide}{mode}")).unwrap();
        let raw = Raw(sim.function_list());
        raw.initialise().unwrap();
        for (index, &slot) in raw.slots().unwrap().iter().enumerate() {
            let (mut list, mut count) = ([0; 100], 100);
            call!(raw, C_GetMechanismList(slot, list.as_mut_ptr(), &raw mut count)).unwrap();
            let listed = |number| list[..count.try_into().unwrap()].contains(&number);
            let session = raw.open(slot).unwrap();
            raw.log_in(session, "1234").unwrap();
            let key = raw.key(session, "hmac");
            let there = index == 1;
            assert_eq!(listed(sys::CKM_SHA256_HMAC), there);
            assert_eq!(raw.mac(session, key, b"x").is_ok(), there, "token {index} {mode}");
            let refused = raw.sign_init(session, sys::CKM_SHA256_HMAC, key);
            assert_eq!(refused, if there { Ok(()) } else { Err(sys::CKR_MECHANISM_INVALID) });
            assert_eq!(listed(sys::CKM_AES_KEY_GEN), !there);
            assert!(!listed(0x220) && listed(sys::CKM_SHA384_HMAC));
        }
    }
}

#[test]
fn generated_keys_of_the_new_kinds_work() {
    let hsm = Sim::new("");
    let key =
        hsm.generate(sys::CKM_DES3_KEY_GEN, &[(sys::CKA_SENSITIVE, FALSE), (sys::CKA_EXTRACTABLE, TRUE)]);
    let value = hsm.value(key.unwrap(), sys::CKA_VALUE);
    assert!(value.len() == 24 && value.iter().all(|byte| byte.count_ones() % 2 == 1), "odd parity");
    let pair = |mechanism: u64, params: &str| {
        hsm.generate_pair(mechanism, &[(sys::CKA_EC_PARAMS, &bytes(params))], &[])
    };
    let (public, private) = pair(sys::CKM_EC_EDWARDS_KEY_PAIR_GEN, "06032b6570").unwrap();
    let made = hsm.sign(sys::CKM_EDDSA, &[], private, MESSAGE).unwrap();
    let point = hsm.value(public, sys::CKA_EC_POINT);
    UnparsedPublicKey::new(&signature::ED25519, &point[2..]).verify(MESSAGE, &made).unwrap();
    let named = pair(sys::CKM_EC_EDWARDS_KEY_PAIR_GEN, "130c656477617264733235353139");
    assert!(named.is_ok(), "by its name");
    let (public, private) = pair(sys::CKM_EC_KEY_PAIR_GEN, "06052b81040023").unwrap();
    let made = hsm.sign(sys::CKM_ECDSA_SHA512, &[], private, MESSAGE).unwrap();
    hsm.verify(sys::CKM_ECDSA_SHA512, &[], public, MESSAGE, &made).unwrap();
    assert_eq!(pair(sys::CKM_EC_KEY_PAIR_GEN, "06032b6570"), Err(sys::CKR_CURVE_NOT_SUPPORTED));
}

#[test]
fn the_null_mode_knows_the_length_of_every_output() {
    let keys = "keys=p521:p521;ed:ed25519;des:des3;dec:rsa4096-decrypt;agree:p256-agree";
    let sim = Sim::new(&format!("null=1,{keys}"));
    let (secret, private) = (sys::CKO_SECRET_KEY, sys::CKO_PRIVATE_KEY);
    for (how, class, label, wanted) in [
        (sys::CKM_ECDSA, private, "p521", 132),
        (sys::CKM_ECDSA_SHA512, private, "p384", 96),
        (sys::CKM_EDDSA, private, "ed", 64),
        (sys::CKM_SHA512_RSA_PKCS, private, "rsa2048", 256),
        (sys::CKM_SHA512_RSA_PKCS_PSS, private, "rsa4096", 512),
        (sys::CKM_SHA384_HMAC, secret, "hmac", 48),
        (sys::CKM_SHA512_HMAC, secret, "hmac", 64),
        (sys::CKM_AES_CMAC, secret, "aes256", 16),
        (sys::CKM_DES3_CMAC, secret, "des", 8),
    ] {
        assert_eq!(sim.sign(how, &[], sim.key(class, label), MESSAGE).unwrap().len(), wanted, "{how:#x}");
    }
    let (aes, des) = (sim.key(secret, "aes256"), sim.key(secret, "des"));
    for (how, key, input_len, wanted) in [
        (sys::CKM_AES_CBC, aes, 32, 32),
        (sys::CKM_AES_CBC_PAD, aes, 31, 32),
        (sys::CKM_AES_CBC_PAD, aes, 32, 48),
        (sys::CKM_AES_CTR, aes, 33, 33),
        (sys::CKM_DES3_ECB, des, 24, 24),
        (sys::CKM_DES3_CBC, des, 24, 24),
        (sys::CKM_DES3_CBC_PAD, des, 24, 32),
    ] {
        let sealed = sim.encrypt(how, &[], key, &vec![0; input_len]).unwrap();
        assert_eq!(sealed.len(), wanted, "{how:#x}");
        let opened = sim.decrypt(how, &[], key, &sealed).unwrap().len();
        let exact = !matches!(how, sys::CKM_AES_CBC_PAD | sys::CKM_DES3_CBC_PAD);
        assert_eq!(opened, if exact { input_len } else { wanted - 1 }, "{how:#x}");
    }
    let dec = sim.key(private, "dec");
    for (how, wanted) in [(sys::CKM_RSA_X_509, 512), (sys::CKM_RSA_PKCS, 32), (sys::CKM_RSA_PKCS_OAEP, 32)] {
        assert_eq!(sim.decrypt(how, &[], dec, &[0; 512]).unwrap().len(), wanted, "{how:#x}");
    }
    let agree = sim.key(private, "agree");
    assert_eq!(sim.derive(sys::CKD_NULL, &[], &sim.point("p256"), agree, 20).unwrap().len(), 20);
}
