//! The plain mode through the `cryptoki` crate: outputs are checked by ring and by published vectors.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a helper of tests fails its test")]

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::mechanism::rsa::{PkcsMgfType, PkcsPssParams};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;
use p11_sim::{Loaded, material};
use ring::digest::{SHA256, SHA384, SHA512, digest};
use ring::signature as ring_signature;

const MESSAGE: &[u8] = b"what is signed";

/// A simulator of its own and a session that is logged in.
fn session(config: &str) -> (Loaded, Session) {
    let sim = Loaded::private_copy(config).unwrap();
    let pkcs11 = Pkcs11::new(sim.path()).unwrap();
    pkcs11.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).unwrap();
    let slot = pkcs11.get_slots_with_token().unwrap()[0];
    let session = pkcs11.open_rw_session(slot).unwrap();
    session.login(UserType::User, Some(&AuthPin::from("1234"))).unwrap();
    (sim, session)
}

fn key(session: &Session, class: ObjectClass, label: &str) -> ObjectHandle {
    session.find_objects(&[Attribute::Class(class), Attribute::Label(label.into())]).unwrap()[0]
}

fn private(session: &Session, label: &str) -> ObjectHandle {
    key(session, ObjectClass::PRIVATE_KEY, label)
}

fn import(session: &Session, kind: KeyType, value: &[u8]) -> ObjectHandle {
    let template =
        [Attribute::Class(ObjectClass::SECRET_KEY), Attribute::KeyType(kind), Attribute::Value(value.into())];
    session.create_object(&template).unwrap()
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
}

fn code<T: std::fmt::Debug>(result: Result<T, Error>) -> RvError {
    match result.unwrap_err() {
        Error::Pkcs11(code, _) => code,
        other => panic!("{other}"),
    }
}

/// Checks a signature with the modulus and exponent that the token shows.
fn rsa_verifies(
    session: &Session,
    label: &str,
    how: &'static ring_signature::RsaParameters,
    signature: &[u8],
) -> bool {
    let public = key(session, ObjectClass::PUBLIC_KEY, label);
    let wanted = [AttributeType::Modulus, AttributeType::PublicExponent];
    let values = session.get_attributes(public, &wanted).unwrap();
    let [Attribute::Modulus(n), Attribute::PublicExponent(e)] = &values[..] else { panic!("{values:?}") };
    ring_signature::RsaPublicKeyComponents { n, e }.verify(how, MESSAGE, signature).is_ok()
}

/// Checks a signature with the point that the token shows, without its wrapping.
fn ec_verifies(
    session: &Session,
    label: &str,
    how: &'static dyn ring_signature::VerificationAlgorithm,
    signature: &[u8],
) -> bool {
    let public = key(session, ObjectClass::PUBLIC_KEY, label);
    let values = session.get_attributes(public, &[AttributeType::EcPoint]).unwrap();
    let [Attribute::EcPoint(point)] = &values[..] else { panic!("{values:?}") };
    ring_signature::UnparsedPublicKey::new(how, &point[2..]).verify(MESSAGE, signature).is_ok()
}

#[test]
fn ring_accepts_rsa_signatures_of_both_paddings() {
    let (_sim, session) = session("");
    let info = bytes("3031300d060960864801650304020105000420");
    let pkcs1 = [&info[..], digest(&SHA256, MESSAGE).as_ref()].concat();
    for label in ["rsa2048", "rsa4096"] {
        let private = private(&session, label);
        let mut signature = session.sign(&Mechanism::RsaPkcs, private, &pkcs1).unwrap();
        assert!(rsa_verifies(&session, label, &ring_signature::RSA_PKCS1_2048_8192_SHA256, &signature));
        signature[9] ^= 1;
        assert!(!rsa_verifies(&session, label, &ring_signature::RSA_PKCS1_2048_8192_SHA256, &signature));
    }
    let cases = [
        (MechanismType::SHA256, PkcsMgfType::MGF1_SHA256, &SHA256, &ring_signature::RSA_PSS_2048_8192_SHA256),
        (MechanismType::SHA384, PkcsMgfType::MGF1_SHA384, &SHA384, &ring_signature::RSA_PSS_2048_8192_SHA384),
        (MechanismType::SHA512, PkcsMgfType::MGF1_SHA512, &SHA512, &ring_signature::RSA_PSS_2048_8192_SHA512),
    ];
    for (hash_alg, mgf, hash, how) in cases {
        let hashed = digest(hash, MESSAGE);
        let s_len = u64::try_from(hashed.as_ref().len()).unwrap().into();
        let pss = Mechanism::RsaPkcsPss(PkcsPssParams { hash_alg, mgf, s_len });
        let signature = session.sign(&pss, private(&session, "rsa2048"), hashed.as_ref()).unwrap();
        assert!(rsa_verifies(&session, "rsa2048", how, &signature), "{hash_alg}");
        let public = key(&session, ObjectClass::PUBLIC_KEY, "rsa2048");
        session.verify(&pss, public, hashed.as_ref(), &signature).unwrap();
    }
}

#[test]
fn ring_accepts_ecdsa_signatures_of_stock_and_generated_keys() {
    let (_sim, session) = session("seed=3");
    let template = [
        Attribute::Token(true),
        Attribute::Label("new".into()),
        Attribute::EcParams(bytes("06082a8648ce3d030107")),
    ];
    let named = [Attribute::Token(true), Attribute::Label("new".into())];
    session.generate_key_pair(&Mechanism::EccKeyPairGen, &template, &named).unwrap();
    let p256: &dyn ring_signature::VerificationAlgorithm = &ring_signature::ECDSA_P256_SHA256_FIXED;
    let p384: &dyn ring_signature::VerificationAlgorithm = &ring_signature::ECDSA_P384_SHA384_FIXED;
    for (label, hash, how) in [("p256", &SHA256, p256), ("p384", &SHA384, p384), ("new", &SHA256, p256)] {
        let hashed = digest(hash, MESSAGE);
        let mut signature =
            session.sign(&Mechanism::Ecdsa, private(&session, label), hashed.as_ref()).unwrap();
        assert!(ec_verifies(&session, label, how, &signature), "{label}");
        let public = key(&session, ObjectClass::PUBLIC_KEY, label);
        session.verify(&Mechanism::Ecdsa, public, hashed.as_ref(), &signature).unwrap();
        signature[40] ^= 1;
        assert!(!ec_verifies(&session, label, how, &signature), "{label}");
        let refused = session.verify(&Mechanism::Ecdsa, public, hashed.as_ref(), &signature);
        assert_eq!(code(refused), RvError::SignatureInvalid, "{label}");
    }
}

#[test]
fn the_keys_are_those_that_material_tells() {
    let (_sim, session) = session("seed=7,keys=extra:hmac#2");
    for (label, value) in [("hmac", material::hmac(7, "hmac", 0)), ("extra", material::hmac(7, "extra", 2))] {
        let on_token = key(&session, ObjectClass::SECRET_KEY, label);
        let made = session.sign(&Mechanism::Sha256Hmac, on_token, MESSAGE).unwrap();
        let expected = ring::hmac::sign(&ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &value), MESSAGE);
        assert_eq!(made, expected.as_ref(), "{label}");
    }
    let gcm_key = ring::aead::UnboundKey::new(&ring::aead::AES_256_GCM, &material::aes(7, "aes256", 0));
    let mut expected = MESSAGE.to_vec();
    let nonce = ring::aead::Nonce::assume_unique_for_key([9; 12]);
    let sealing = ring::aead::LessSafeKey::new(gcm_key.unwrap());
    sealing.seal_in_place_append_tag(nonce, ring::aead::Aad::from(b"aad"), &mut expected).unwrap();
    let mut iv = [9; 12];
    let gcm = Mechanism::AesGcm(GcmParams::new(&mut iv, b"aad", 128.into()).unwrap());
    let aes = key(&session, ObjectClass::SECRET_KEY, "aes256");
    assert_eq!(session.encrypt(&gcm, aes, MESSAGE).unwrap(), expected);
}

#[test]
fn published_vectors_come_out() {
    let (_sim, session) = session("");
    // FIPS 197, appendix C.3.
    let aes = import(
        &session,
        KeyType::AES,
        &bytes("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"),
    );
    let plain = bytes("00112233445566778899aabbccddeeff");
    let block = session.encrypt(&Mechanism::AesEcb, aes, &plain).unwrap();
    assert_eq!(block, bytes("8ea2b7ca516745bfeafc49904b496089"));
    assert_eq!(session.decrypt(&Mechanism::AesEcb, aes, &block).unwrap(), plain);
    // McGrew and Viega, The Galois/Counter Mode of Operation, test case 4.
    let aes = import(&session, KeyType::AES, &bytes("feffe9928665731c6d6a8f9467308308"));
    let plain = bytes(concat!(
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72",
        "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
    ));
    let (mut iv, aad) =
        (bytes("cafebabefacedbaddecaf888"), bytes("feedfacedeadbeeffeedfacedeadbeefabaddad2"));
    let gcm = Mechanism::AesGcm(GcmParams::new(&mut iv, &aad, 128.into()).unwrap());
    let sealed = session.encrypt(&gcm, aes, &plain).unwrap();
    let expected = bytes(concat!(
        "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e",
        "21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e0915bc94fbc3221a5db94fae95ae7121a47",
    ));
    assert_eq!(sealed, expected);
    assert_eq!(session.decrypt(&gcm, aes, &sealed).unwrap(), plain);
    // RFC 4231, test case 1 (its key is 20 bytes).
    let mac = import(&session, KeyType::GENERIC_SECRET, &[0x0b; 20]);
    let made = session.sign(&Mechanism::Sha256Hmac, mac, b"Hi There").unwrap();
    assert_eq!(made, bytes("b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"));
}

#[test]
fn a_changed_ciphertext_and_an_empty_iv_are_refused() {
    let (_sim, session) = session("");
    let aes = key(&session, ObjectClass::SECRET_KEY, "aes256");
    let mut iv = [1; 12];
    let gcm = Mechanism::AesGcm(GcmParams::new(&mut iv, &[], 128.into()).unwrap());
    let sealed = session.encrypt(&gcm, aes, MESSAGE).unwrap();
    for i in [0, MESSAGE.len(), sealed.len() - 1] {
        let mut changed = sealed.clone();
        changed[i] ^= 1;
        assert_eq!(code(session.decrypt(&gcm, aes, &changed)), RvError::EncryptedDataInvalid, "byte {i}");
    }
    assert_eq!(code(session.decrypt(&gcm, aes, &sealed[..15])), RvError::EncryptedDataLenRange);
    let mut none = [];
    let empty = Mechanism::AesGcm(GcmParams::new(&mut none, &[], 128.into()).unwrap());
    assert_eq!(code(session.encrypt(&empty, aes, MESSAGE)), RvError::MechanismParamInvalid);
    assert_eq!(code(session.encrypt(&Mechanism::AesEcb, aes, &[0; 15])), RvError::DataLenRange);
}

#[test]
fn a_key_does_only_what_its_kind_and_flags_allow() {
    let (_sim, session) = session("");
    let (aes, p256) = (key(&session, ObjectClass::SECRET_KEY, "aes256"), private(&session, "p256"));
    let refused = session.sign(&Mechanism::Ecdsa, aes, &[0; 32]);
    assert_eq!(code(refused), RvError::KeyTypeInconsistent);
    let public = key(&session, ObjectClass::PUBLIC_KEY, "p256");
    assert_eq!(code(session.sign(&Mechanism::Ecdsa, public, &[0; 32])), RvError::KeyFunctionNotPermitted);
    assert_eq!(code(session.encrypt(&Mechanism::Ecdsa, p256, &[0; 32])), RvError::MechanismInvalid);
}

#[test]
fn random_bytes_repeat_with_the_seed_only() {
    let drawn = |config| {
        let (_sim, session) = session(config);
        session.generate_random_vec(300).unwrap()
    };
    assert_eq!(drawn("seed=1"), drawn("seed=1"));
    assert_ne!(drawn("seed=1"), drawn("seed=2"));
}

#[test]
fn a_device_that_is_wrong_answers_one_block_rightly_and_its_modes_come_back() {
    let (_sim, session) = session("wrong=ecb;cbc;ctr");
    let (_good, right) = self::session("");
    let keys = [&session, &right].map(|session| import(session, KeyType::AES, &[7; 32]));
    let seal = |how: &Mechanism<'_>, data: &[u8]| {
        [(&session, keys[0]), (&right, keys[1])]
            .map(|(session, key)| session.encrypt(how, key, data).unwrap())
    };
    let [one, wanted] = seal(&Mechanism::AesEcb, &[1; 16]);
    assert_eq!(one, wanted);
    let [two, wanted] = seal(&Mechanism::AesEcb, &[1; 32]);
    assert!(two[..16] == wanted[..16] && two[16..] != wanted[16..]);
    let [cbc, wanted] = seal(&Mechanism::AesCbc([3; 16]), &[1; 16]);
    assert_ne!(cbc, wanted);
    assert_eq!(session.decrypt(&Mechanism::AesCbc([3; 16]), keys[0], &cbc).unwrap(), [1; 16]);
}
