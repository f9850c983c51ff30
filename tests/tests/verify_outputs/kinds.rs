//! Every kind of operation, by every mechanism that it may come by, and what makes its output wrong.

use aes_gcm::aead::{Aead, KeyInit, Payload};
use hmac::Mac;
use hsmux::{
    AesCbc, AesCtr, AesEcb, AesGcm, Cipher, Cmac, Ecdsa, Ed25519, Engine, Hmac, MacPadding, Result,
    RetailMac, RsaOaep, RsaPkcs1, RsaPkcs1Encryption, RsaPss, SignAlgorithm, TripleDesCbc, TripleDesEcb,
};
use p11_sim::material;

/// A kind of operation.
pub(super) struct Kind {
    pub(super) name: &'static str,
    /// The function whose output is that of the operation, and by which of its calls.
    pub(super) function: &'static str,
    pub(super) call: u64,
    /// Mechanisms that the token does not have.
    pub(super) hide: &'static str,
    /// Runs it on the message of a number, on the calling thread.
    pub(super) run: fn(&Engine, u8) -> Result<Vec<u8>>,
    /// Whether an output is that of the message, by other software or by a token that makes no faults.
    pub(super) is_right: fn(&Engine, u8, &[u8]) -> bool,
    /// Calls of the token for one operation, unchecked and checked.
    pub(super) calls: (u64, u64),
}

pub(super) const KEYS: &str =
    "keys=mac:aes-mac;des:des3;des-mac:des3-mac;p521:p521;ed:ed25519;dec:rsa2048-decrypt";

/// Labels of all keys that are used.
pub(super) const LABELS: [&str; 12] =
    ["hmac", "mac", "des", "des-mac", "p256", "p384", "p521", "ed", "rsa2048", "dec", "aes256", "rsa4096"];

macro_rules! signs {
    ($name:literal, $label:literal, $how:expr, $calls:expr, hide $hide:literal) => {
        Kind {
            name: $name,
            function: "C_Sign",
            call: 1,
            hide: $hide,
            run: |engine, number| sign(engine, $label, $how, number),
            is_right: |judge, number, made| is_signature(judge, $label, $how, number, made),
            calls: $calls,
        }
    };
}

macro_rules! encrypts {
    ($name:literal, $label:literal, $how:expr, $calls:expr, hide $hide:literal) => {
        Kind {
            name: $name,
            function: "C_Encrypt",
            call: 1,
            hide: $hide,
            run: |engine, number| {
                Ok(engine.key($label)?.encrypt($how, message(number)).deadline(None).wait()?.into())
            },
            is_right: |judge, number, made| opens(judge, $label, $how, number, made),
            calls: $calls,
        }
    };
}

macro_rules! decrypts {
    ($name:literal, $label:literal, $how:expr, $calls:expr, hide $hide:literal) => {
        Kind {
            name: $name,
            function: "C_Decrypt",
            call: 1,
            hide: $hide,
            run: |engine, number| {
                let sealed = SEALED.with_borrow(|sealed| sealed.clone());
                let sealed = sealed.get(usize::from(number)).cloned().unwrap_or_default();
                Ok(engine.key($label)?.decrypt($how, sealed).deadline(None).wait()?.into_vec())
            },
            is_right: |_, number, made| made == message(number),
            calls: $calls,
        }
    };
}

/// Numbers of messages.
pub(super) const NUMBERS: u8 = 64;

thread_local! {
    /// Ciphertexts of the messages, by number.
    pub(super) static SEALED: std::cell::RefCell<Vec<Vec<u8>>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// What is signed or encrypted: whole blocks, so that every mode takes it.
pub(super) fn message(number: u8) -> Vec<u8> {
    (0..48).map(|at| number.wrapping_mul(37) ^ at).collect()
}

fn sign(engine: &Engine, label: &str, how: impl Into<SignAlgorithm>, number: u8) -> Result<Vec<u8>> {
    Ok(engine.key(label)?.sign(how.into(), message(number)).deadline(None).wait()?.into_vec())
}

fn is_signature(judge: &Engine, label: &str, how: impl Into<SignAlgorithm>, number: u8, made: &[u8]) -> bool {
    let how = how.into();
    if label == "hmac" {
        let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(&material::hmac(0, label, 0)).unwrap();
        mac.update(&message(number));
        return mac.verify_slice(made).is_ok();
    }
    judge.key(label).unwrap().verify(how, message(number), made).wait().unwrap().is_valid()
}

fn opens(judge: &Engine, label: &str, how: impl Into<Cipher>, number: u8, made: &[u8]) -> bool {
    let how = how.into();
    if let Cipher::AesGcm(_) = how {
        let key = aes_gcm::Aes256Gcm::new(&material::aes(0, label, 0).into());
        let (iv, body) = made.split_first_chunk::<12>().unwrap();
        let opened = key.decrypt(&(*iv).into(), Payload { msg: body, aad: AAD });
        return opened.is_ok_and(|opened| opened == message(number));
    }
    let opened = judge.key(label).unwrap().decrypt(how, made).wait();
    opened.is_ok_and(|opened| opened.as_bytes() == message(number))
}

const AAD: &[u8] = b"bound to it";

fn gcm() -> AesGcm {
    AesGcm::new().aad(AAD)
}

fn retail(engine: &Engine) -> RetailMac {
    RetailMac::new(&engine.key("des").unwrap(), MacPadding::Method2).unwrap()
}

pub(super) const SIGNATURES: [Kind; 16] = [
    signs!("HMAC", "hmac", Hmac::SHA256, (2, 4), hide ""),
    signs!("CMAC", "mac", Cmac::Aes, (2, 4), hide ""),
    signs!("CMAC by triple DES", "des-mac", Cmac::TripleDes, (2, 4), hide ""),
    signs!("P-256", "p256", Ecdsa::P256_SHA256, (2, 2), hide ""),
    signs!("P-256 with a long digest", "p256", Ecdsa::P256_SHA512.der(), (2, 2), hide ""),
    signs!("P-384", "p384", Ecdsa::P384_SHA384, (2, 2), hide ""),
    signs!("P-521", "p521", Ecdsa::P521_SHA256, (2, 2), hide ""),
    signs!("Ed25519", "ed", Ed25519, (2, 2), hide ""),
    signs!("PKCS#1", "rsa2048", RsaPkcs1::SHA384, (2, 2), hide ""),
    signs!("PSS", "rsa2048", RsaPss::SHA256, (2, 2), hide ""),
    signs!("P-256, hashed by the token", "p256", Ecdsa::P256_SHA256, (2, 2), hide "0x1041"),
    signs!("P-521, hashed by the token", "p521", Ecdsa::P521_SHA512, (2, 2), hide "0x1041"),
    signs!("PKCS#1, hashed by the token", "rsa2048", RsaPkcs1::SHA256, (2, 2), hide "0x1"),
    signs!("PSS, hashed by the token", "rsa2048", RsaPss::SHA512, (2, 2), hide "0xd"),
    signs!("PSS without salt", "rsa2048", RsaPss::SHA256.salt_len(0), (2, 2), hide ""),
    Kind {
        name: "retail MAC",
        function: "C_Encrypt",
        // After the chain, of which the last block counts.
        call: 2,
        hide: "",
        run: |engine, number| sign(engine, "des", retail(engine), number),
        is_right: |judge, number, made| is_signature(judge, "des", retail(judge), number, made),
        calls: (4, 10),
    },
];

pub(super) const CIPHERTEXTS: [Kind; 9] = [
    encrypts!("GCM", "aes256", gcm(), (2, 4), hide ""),
    encrypts!("CBC", "aes256", AesCbc::new(), (2, 4), hide ""),
    encrypts!("CBC without padding", "aes256", AesCbc::new().unpadded(), (2, 4), hide ""),
    encrypts!("CBC, padded by the token", "aes256", AesCbc::new(), (2, 4), hide "0x1082"),
    encrypts!("CTR", "aes256", AesCtr::new(), (2, 4), hide ""),
    encrypts!("ECB", "aes256", AesEcb, (2, 4), hide ""),
    encrypts!("triple DES in CBC", "des", TripleDesCbc::new(), (2, 4), hide ""),
    encrypts!("triple DES in CBC, padded by the token", "des", TripleDesCbc::new(), (2, 4), hide "0x133"),
    encrypts!("triple DES in ECB", "des", TripleDesEcb, (2, 4), hide ""),
];

pub(super) const PLAINTEXTS: [Kind; 11] = [
    decrypts!("GCM", "aes256", gcm(), (2, 4), hide ""),
    decrypts!("CBC", "aes256", AesCbc::new(), (2, 4), hide ""),
    decrypts!("CBC without padding", "aes256", AesCbc::new().unpadded(), (2, 4), hide ""),
    decrypts!("CBC, padding taken off by the token", "aes256", AesCbc::new(), (2, 4), hide "0x1082"),
    decrypts!("CTR", "aes256", AesCtr::new(), (2, 4), hide ""),
    decrypts!("ECB", "aes256", AesEcb, (2, 4), hide ""),
    decrypts!("triple DES in CBC", "des", TripleDesCbc::new(), (2, 4), hide ""),
    decrypts!("triple DES in ECB", "des", TripleDesEcb, (2, 4), hide ""),
    decrypts!("OAEP", "dec", RsaOaep::SHA256, (2, 4), hide ""),
    decrypts!("OAEP, padding taken off by the host", "dec", RsaOaep::SHA256, (2, 2), hide "0x9"),
    decrypts!("PKCS#1, padding taken off by the host", "dec", RsaPkcs1Encryption, (2, 2), hide ""),
];

/// Ciphertexts of the messages of all numbers, for a kind that decrypts.
pub(super) fn seal(judge: &Engine, kind: &Kind) {
    let cipher: Option<(&str, Cipher)> = match kind.name {
        name if name.starts_with("GCM") => Some(("aes256", gcm().into())),
        "CBC without padding" => Some(("aes256", AesCbc::new().unpadded().into())),
        name if name.starts_with("CBC") => Some(("aes256", AesCbc::new().into())),
        "CTR" => Some(("aes256", AesCtr::new().into())),
        "ECB" => Some(("aes256", AesEcb.into())),
        "triple DES in ECB" => Some(("des", TripleDesEcb.into())),
        name if name.starts_with("triple DES") => Some(("des", TripleDesCbc::new().into())),
        name if name.starts_with("OAEP") => Some(("dec", RsaOaep::SHA256.into())),
        name if name.starts_with("PKCS#1, padding") => Some(("dec", RsaPkcs1Encryption.into())),
        _ => None,
    };
    let Some((label, cipher)) = cipher else { return };
    let seal = |number| {
        let sealed = judge.key(label).unwrap().encrypt(cipher.clone(), message(number)).wait();
        Vec::from(sealed.unwrap())
    };
    SEALED.set((0..NUMBERS).map(seal).collect());
}
