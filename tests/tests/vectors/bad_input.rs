//! Requests for the newer operations that cannot succeed, on a real token: each has its kind, and what is wrong with
//! a ciphertext does not show.

use std::sync::OnceLock;

use hsmux::{
    AesCbc, AesCtr, AgreementKdf, Cmac, Ed25519, Engine, Error, ErrorKind, Hash, Key, KeySpec, KeyWrap,
    MacPadding, Operation, Outcome, RawMechanism, Request, RetailMac, RsaOaep, RsaPkcs1Encryption,
    TripleDesCbc, TripleDesEcb,
};
use hsmux_tests::{LONG, eventually};
use rsa::pkcs8::DecodePublicKey;
use softhsm_fixtures::{CustomKey, KeyUse, SoftHsm};

use crate::independent;
use crate::support::{Way, builder_on, is_decrypt_failed};

/// The request fails alike in every way to ask.
#[track_caller]
fn fails<'a, O: Operation>(make: impl Fn() -> Request<'a, O>, kind: ErrorKind) {
    for way in Way::ALL {
        let error = way.of(make()).map(drop).unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (kind, Outcome::NotDone), "{error}");
    }
}

/// The ciphertext is refused as every bad one, in every way to ask.
#[track_caller]
fn refused<'a, O: Operation>(make: impl Fn() -> Request<'a, O>) {
    for way in Way::ALL {
        let error = way.of(make()).map(drop).unwrap_err();
        assert!(is_decrypt_failed(&error), "{error:?}");
    }
}

/// An engine on the one token of these tests, which tells tokens to decrypt with PKCS#1 v1.5 or not.
fn engine(allow_pkcs1: bool) -> Option<Engine> {
    static TOKEN: OnceLock<String> = OnceLock::new();
    let softhsm = SoftHsm::for_tests()?;
    let label = TOKEN.get_or_init(|| {
        let token = softhsm.unique_token();
        let no_unwrap = CustomKey::aes(&[3; 32]).may(&[KeyUse::Wrap]);
        let ecb_only =
            CustomKey::aes(&[4; 32]).may(&[KeyUse::Encrypt, KeyUse::Decrypt]).allow(&[CKM_AES_ECB]);
        let keys = independent::keys();
        let keys = keys.iter().map(|(label, key)| (label.as_str(), key));
        token.import_volatile(keys.chain([("no-unwrap", &no_unwrap), ("ecb-only", &ecb_only)]));
        token.label().to_owned()
    });
    let builder = builder_on(softhsm, [label.as_str()]);
    let builder = if allow_pkcs1 { builder.allow_rsa_pkcs1_decryption() } else { builder };
    Some(builder.build().unwrap())
}

const CKM_AES_ECB: u64 = 0x1081;

#[test]
fn what_does_not_fit_the_newer_operations_is_refused_with_its_kind() {
    let Some(engine) = engine(false) else { return };
    let key = |label: &str| engine.key(label).unwrap();
    requests_that_do_not_fit(&key);
    keys_that_cannot_be_made(&key);
    dropped_keys_are_destroyed(&engine, &key);
    assert_eq!(engine.drain(LONG), 0);
}

fn requests_that_do_not_fit(key: &dyn Fn(&str) -> Key) {
    use ErrorKind::{InvalidInput, KeyMismatch, MechanismUnavailable, NotPermitted};
    let (aes, triple_des, retail) = (key("aes"), key("3des"), key("retail"));
    fails(|| aes.encrypt(AesCbc::new().unpadded(), [0; 15].to_vec()), InvalidInput);
    fails(|| aes.encrypt(AesCbc::new().unpadded(), Vec::new()), InvalidInput);
    fails(|| aes.encrypt(AesCbc::new().with_iv([0; 8]), b"text"), InvalidInput);
    fails(|| triple_des.encrypt(TripleDesEcb, [0; 12].to_vec()), InvalidInput);
    fails(|| triple_des.encrypt(TripleDesCbc::new().with_iv([0; 16]), b"text"), InvalidInput);
    // The last counter block is the 255th: one block fits, two do not.
    let last = AesCtr::new().with_counter([0xFF; 16], 8);
    for way in Way::ALL {
        assert_eq!(way.of(aes.encrypt(last.clone(), [0; 16].to_vec())).unwrap().len(), 16);
    }
    fails(|| aes.encrypt(last.clone(), [0; 17].to_vec()), InvalidInput);
    fails(|| aes.decrypt(last.clone(), [0; 17].to_vec()), InvalidInput);
    fails(|| aes.encrypt(AesCtr::new().with_counter([0; 16], 0), b"text"), InvalidInput);
    fails(|| aes.encrypt(AesCtr::new().with_counter([0; 16], 129), b"text"), InvalidInput);
    let ecb_only = key("ecb-only");
    fails(|| ecb_only.encrypt(AesCbc::new(), b"text"), NotPermitted);
    fails(|| aes.sign(Cmac::Aes, b"text"), NotPermitted);
    fails(|| triple_des.sign(Cmac::Aes, b"text"), KeyMismatch);
    fails(
        || retail.sign_digest(RetailMac::new(&retail, MacPadding::Method1).unwrap(), [0; 32].to_vec()),
        InvalidInput,
    );
    let ed25519 = key("ed25519");
    fails(|| ed25519.sign_digest(Ed25519, [0; 64].to_vec()), InvalidInput);
    assert_eq!(ed25519.sign_stream(Ed25519).map(drop).unwrap_err().kind(), InvalidInput);
    let rsa = key("rsa-decryption");
    fails(|| rsa.encrypt(RsaOaep::SHA256, vec![0; 256 - 65]), InvalidInput);
    fails(|| rsa.encrypt(RsaPkcs1Encryption, vec![0; 256 - 10]), InvalidInput);
    fails(|| rsa.decrypt(RsaPkcs1Encryption, vec![0; 256]), NotPermitted);
    let hmac = key("hmac");
    fails(|| hmac.sign(RawMechanism::new(0x8000_4711), b"text"), MechanismUnavailable);
    fails(|| hmac.verify(RawMechanism::new(0x251), b"text", &[0; 32]), InvalidInput);
}

/// Key agreement and wrapping are calls, not requests.
fn keys_that_cannot_be_made(key: &dyn Fn(&str) -> Key) {
    use ErrorKind::{InvalidInput, KeyMismatch, NotPermitted};
    let kind = |made: hsmux::Result<Key>| made.unwrap_err().kind();
    let (p256, kek, aes) = (key("p256"), key("kek"), key("aes"));
    let other = p256.public_key_der().unwrap();
    let point = &other[other.len() - 65..];
    let raw = |peer: &[u8], spec| p256.agree(peer, AgreementKdf::Raw, &[], spec);
    assert!(raw(point, KeySpec::Aes(32)).is_ok());
    let mut off_curve = point.to_vec();
    off_curve[64] ^= 1;
    for peer in [&off_curve[..], &point[1..], &point[..64], &[0], &[], &[4; 65]] {
        assert_eq!(kind(raw(peer, KeySpec::Aes(32))), InvalidInput, "{} bytes", peer.len());
    }
    assert_eq!(kind(raw(point, KeySpec::Rsa(2048))), InvalidInput);
    assert_eq!(kind(p256.agree(point, AgreementKdf::Raw, b"info", KeySpec::Aes(32))), InvalidInput);
    assert_eq!(kind(key("rsa").agree(point, AgreementKdf::Raw, &[], KeySpec::Aes(32))), KeyMismatch);
    // A function that SoftHSM2 2.6.1 has not is refused by it, and no key comes of it.
    assert!(p256.agree(point, AgreementKdf::X963(Hash::Sha256), b"info", KeySpec::Aes(32)).is_err());

    let refused = |made: hsmux::Result<hsmux::WrappedKey>| made.unwrap_err().kind();
    assert_eq!(refused(kek.wrap(KeyWrap::AesKw, &key("aes-mac"))), NotPermitted);
    assert_eq!(refused(aes.wrap(KeyWrap::AesKw, &aes)), NotPermitted);
    assert_eq!(refused(key("hmac").wrap(KeyWrap::AesKw, &aes)), KeyMismatch);
    let wrapped = kek.wrap(KeyWrap::AesKw, &aes).unwrap().into_vec();
    let unwrap = |bytes: &[u8], spec| kek.unwrap(KeyWrap::AesKw, bytes, spec);
    assert!(unwrap(&wrapped, KeySpec::Aes(32)).is_ok());
    assert_eq!(kind(key("no-unwrap").unwrap(KeyWrap::AesKw, &wrapped, KeySpec::Aes(32))), NotPermitted);
    assert_eq!(kind(unwrap(&wrapped, KeySpec::Aes(16))), InvalidInput);
    assert_eq!(kind(unwrap(&wrapped, KeySpec::Ed25519)), InvalidInput);
    assert_eq!(kind(unwrap(&[], KeySpec::Aes(32))), InvalidInput);
    assert_eq!(kind(unwrap(&wrapped[..39], KeySpec::Aes(32))), InvalidInput);
    for place in 0..wrapped.len() {
        let mut changed = wrapped.clone();
        changed[place] ^= 0x40;
        let error: Error = unwrap(&changed, KeySpec::Aes(32)).unwrap_err();
        assert!(is_decrypt_failed(&error), "{error:?}");
    }
}

fn dropped_keys_are_destroyed(engine: &Engine, key: &dyn Fn(&str) -> Key) {
    let destroyed = || engine.snapshot().calls.get("C_DestroyObject").copied().unwrap_or(0);
    let (kek, aes) = (key("kek"), key("aes"));
    let wrapped = kek.wrap(KeyWrap::AesKw, &aes).unwrap().into_vec();
    let unwrapped = kek.unwrap(KeyWrap::AesKw, &wrapped, KeySpec::Aes(32)).unwrap();
    let before = destroyed();
    let twin = unwrapped.clone();
    let pending = unwrapped.encrypt(hsmux::AesEcb, [0; 16].to_vec()).submit().unwrap();
    drop(unwrapped);
    // Who still has the key can use it, and so can a request in flight.
    assert_eq!(pending.wait().unwrap(), twin.encrypt(hsmux::AesEcb, [0; 16].to_vec()).wait().unwrap());
    assert_eq!(destroyed(), before, "a key that is used was destroyed");
    drop(twin);
    eventually("the unwrapped key is destroyed", || destroyed() == before + 1);
}

/// `text`, padded as section 7.2.1 of RFC 8017 says: one encryption in 400 of anything else is so by chance.
fn padded() -> Vec<u8> {
    let mut encoded = vec![0xA5; 256];
    encoded[..2].copy_from_slice(&[0, 2]);
    encoded[251] = 0;
    encoded[252..].copy_from_slice(b"text");
    encoded
}

/// What section 7.2.2 of RFC 8017 refuses: another type of block, no end of the padding, and a padding below 8 bytes.
fn badly_padded() -> [Vec<u8>; 4] {
    let changed = |place: usize, value: u8| {
        let mut encoded = padded();
        encoded[place] = value;
        encoded
    };
    [changed(1, 1), changed(1, 0), changed(251, 0xA5), changed(9, 0)]
}

/// The ciphertext that this RSA key decrypts to these bytes.
fn raise(key: &Key, encoded: &[u8]) -> Vec<u8> {
    let public = rsa::PublicKey::from_public_key_der(&key.public_key_der().unwrap()).unwrap();
    let message = rsa::BoxedUint::from_be_slice(encoded, 2048).unwrap();
    rsa::hazmat::rsa_encrypt(&public, &message).unwrap().to_be_bytes().into_vec()
}

#[test]
fn whatever_is_wrong_with_a_padding_the_error_is_the_same() {
    let Some(engine) = engine(true) else { return };
    let key = |label: &str| engine.key(label).unwrap();
    let (aes, triple_des, rsa) = (key("aes"), key("3des"), key("rsa-decryption"));
    let sealed = aes.encrypt(AesCbc::new(), b"4111 1111 1111 1111").wait().unwrap().into_vec();
    let old = triple_des.encrypt(TripleDesCbc::new(), b"4111 1111 1111 1111").wait().unwrap().into_vec();
    for len in [0, 1, 15, 16, 17, sealed.len() - 1] {
        refused(|| aes.decrypt(AesCbc::new(), &sealed[..len]));
    }
    for len in [0, 1, 7, 8, 9, old.len() - 1] {
        refused(|| triple_des.decrypt(TripleDesCbc::new(), &old[..len]));
    }
    // Every value of the byte that says how long the padding is, but the right one, 13, and 1, which is right too.
    for change in (1..=255).filter(|change| change ^ 13 != 1) {
        let mut changed = sealed.clone();
        changed[31] ^= change;
        refused(|| aes.decrypt(AesCbc::new(), &changed));
    }
    for (how, label) in [(RsaOaep::SHA1, "label"), (RsaOaep::SHA256, "label"), (RsaOaep::SHA1, "")] {
        let how = how.label(label.as_bytes());
        let sealed = rsa.encrypt(how.clone(), b"text").wait().unwrap().into_vec();
        assert_eq!(rsa.decrypt(how.clone(), &sealed).wait().unwrap().as_bytes(), b"text");
        refused(|| rsa.decrypt(how.clone().label(b"another".as_slice()), &sealed));
        refused(|| rsa.decrypt(how.clone(), &sealed[..255]));
        refused(|| rsa.decrypt(how.clone(), vec![0xFF; 256]));
    }
    for encoded in badly_padded() {
        refused(|| rsa.decrypt(RsaPkcs1Encryption, raise(&rsa, &encoded)));
    }
    assert_eq!(rsa.decrypt(RsaPkcs1Encryption, raise(&rsa, &padded())).wait().unwrap().as_bytes(), b"text");
    refused(|| rsa.decrypt(RsaPkcs1Encryption, vec![0; 255]));
    // None of them cost a session.
    assert!(engine.snapshot().tokens.iter().all(|token| token.sessions == 2));
    assert_eq!(engine.drain(LONG), 0);
}
