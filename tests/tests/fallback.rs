//! Tokens that lack the mechanism an operation would rather have: the table of `engine/src/operation/alternatives.rs`,
//! row by row. Outputs and inputs are checked and made by other software.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails its test")]

use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockModeDecrypt, BlockModeEncrypt, KeyIvInit};
use hsmux::{
    AesCbc, Ecdsa, Engine, Error, ErrorKind, Outcome, Result, Retry, RsaOaep, RsaPkcs1, RsaPkcs1Encryption,
    RsaPss, TripleDesCbc,
};
use hsmux_tests::{Hsm, LONG, wait_idle};
use p11_sim::material;
use p256::ecdsa::signature::Verifier;
use rsa::pkcs1::DecodeRsaPrivateKey;
use sha2::{Sha256, Sha384, Sha512};

/// A row of the table, and an operation of it with the check of its output.
struct Row {
    name: &'static str,
    /// Numbers of the mechanisms.
    first: u64,
    second: u64,
    run: fn(&Engine) -> Result<()>,
}

const MESSAGE: &[u8] = b"a message that ends inside a block";

/// Numbers are those of the standard's header.
const ROWS: [Row; 13] = [
    Row { name: "ECDSA on P-256", first: 0x1041, second: 0x1044, run: p256 },
    Row { name: "ECDSA on P-384", first: 0x1041, second: 0x1045, run: p384 },
    Row { name: "ECDSA on P-521", first: 0x1041, second: 0x1046, run: p521 },
    Row { name: "PKCS#1 with SHA-256", first: 0x1, second: 0x40, run: pkcs1_sha256 },
    Row { name: "PKCS#1 with SHA-512", first: 0x1, second: 0x42, run: pkcs1_sha512 },
    Row { name: "PSS with SHA-256", first: 0xd, second: 0x43, run: pss_sha256 },
    Row { name: "PSS with SHA-384", first: 0xd, second: 0x44, run: pss_sha384 },
    Row { name: "encryption by AES-CBC", first: 0x1082, second: 0x1085, run: encrypt_aes },
    Row { name: "decryption by AES-CBC", first: 0x1082, second: 0x1085, run: decrypt_aes },
    Row { name: "encryption by triple DES", first: 0x133, second: 0x136, run: encrypt_triple_des },
    Row { name: "decryption by triple DES", first: 0x133, second: 0x136, run: decrypt_triple_des },
    Row { name: "decryption by OAEP", first: 0x9, second: 0x3, run: decrypt_oaep },
    Row { name: "decryption by PKCS#1", first: 0x3, second: 0x1, run: decrypt_pkcs1 },
];

fn p256(engine: &Engine) -> Result<()> {
    let signature = engine.key("p256")?.sign(Ecdsa::P256_SHA256, MESSAGE).wait()?;
    let signature = p256::ecdsa::Signature::from_slice(signature.as_ref()).unwrap();
    material::p256(0, "p256", 0).verifying_key().verify(MESSAGE, &signature).unwrap();
    Ok(())
}

fn p384(engine: &Engine) -> Result<()> {
    let signature = engine.key("p384")?.sign(Ecdsa::P384_SHA384.der(), MESSAGE).wait()?;
    let signature = p384::ecdsa::Signature::from_der(signature.as_ref()).unwrap();
    material::p384(0, "p384", 0).verifying_key().verify(MESSAGE, &signature).unwrap();
    Ok(())
}

fn p521(engine: &Engine) -> Result<()> {
    let signature = engine.key("p521")?.sign(Ecdsa::P521_SHA512, MESSAGE).wait()?;
    let signature = p521::ecdsa::Signature::from_slice(signature.as_ref()).unwrap();
    material::p521(0, "p521", 0).verifying_key().verify(MESSAGE, &signature).unwrap();
    Ok(())
}

fn pkcs1_sha256(engine: &Engine) -> Result<()> {
    let signature = engine.key("rsa2048")?.sign(RsaPkcs1::SHA256, MESSAGE).wait()?;
    let signature = rsa::pkcs1v15::Signature::try_from(signature.as_ref()).unwrap();
    rsa::pkcs1v15::VerifyingKey::<Sha256>::new(public()).verify(MESSAGE, &signature).unwrap();
    Ok(())
}

fn pkcs1_sha512(engine: &Engine) -> Result<()> {
    let signature = engine.key("rsa2048")?.sign(RsaPkcs1::SHA512, MESSAGE).wait()?;
    let signature = rsa::pkcs1v15::Signature::try_from(signature.as_ref()).unwrap();
    rsa::pkcs1v15::VerifyingKey::<Sha512>::new(public()).verify(MESSAGE, &signature).unwrap();
    Ok(())
}

fn pss_sha256(engine: &Engine) -> Result<()> {
    let signature = engine.key("rsa2048")?.sign(RsaPss::SHA256, MESSAGE).wait()?;
    let signature = rsa::pss::Signature::try_from(signature.as_ref()).unwrap();
    rsa::pss::VerifyingKey::<Sha256>::new(public()).verify(MESSAGE, &signature).unwrap();
    Ok(())
}

fn pss_sha384(engine: &Engine) -> Result<()> {
    let signature = engine.key("rsa2048")?.sign(RsaPss::SHA384, MESSAGE).wait()?;
    let signature = rsa::pss::Signature::try_from(signature.as_ref()).unwrap();
    rsa::pss::VerifyingKey::<Sha384>::new(public()).verify(MESSAGE, &signature).unwrap();
    Ok(())
}

fn encrypt_aes(engine: &Engine) -> Result<()> {
    let sealed = engine.key("aes256")?.encrypt(AesCbc::new(), MESSAGE).wait()?;
    let (iv, body) = sealed.as_ref().split_first_chunk::<16>().unwrap();
    let cipher = cbc::Decryptor::<aes::Aes256>::new(&material::aes(0, "aes256", 0).into(), iv.into());
    assert_eq!(cipher.decrypt_padded_vec::<Pkcs7>(body).unwrap(), MESSAGE);
    Ok(())
}

fn decrypt_aes(engine: &Engine) -> Result<()> {
    let iv = [9; 16];
    let cipher = cbc::Encryptor::<aes::Aes256>::new(&material::aes(0, "aes256", 0).into(), &iv.into());
    let sealed = [&iv[..], &cipher.encrypt_padded_vec::<Pkcs7>(MESSAGE)].concat();
    let key = engine.key("aes256")?;
    assert_eq!(key.decrypt(AesCbc::new(), &sealed).wait()?.as_ref(), MESSAGE);
    // Another last byte of the last IV changes the last byte of the only block: wrong padding, by whomever it is read.
    let cipher = cbc::Encryptor::<aes::Aes256>::new(&material::aes(0, "aes256", 0).into(), &iv.into());
    let mut short = [&iv[..], &cipher.encrypt_padded_vec::<Pkcs7>(b"short")].concat();
    short[15] ^= 0x40;
    assert_eq!(key.decrypt(AesCbc::new(), &short).wait().unwrap_err().kind(), ErrorKind::DecryptFailed);
    Ok(())
}

fn encrypt_triple_des(engine: &Engine) -> Result<()> {
    let sealed = engine.key("des")?.encrypt(TripleDesCbc::new(), MESSAGE).wait()?;
    let (iv, body) = sealed.as_ref().split_first_chunk::<8>().unwrap();
    let cipher = cbc::Decryptor::<des::TdesEde3>::new(&material::triple_des(0, "des", 0).into(), iv.into());
    assert_eq!(cipher.decrypt_padded_vec::<Pkcs7>(body).unwrap(), MESSAGE);
    Ok(())
}

fn decrypt_triple_des(engine: &Engine) -> Result<()> {
    let iv = [9; 8];
    let cipher = cbc::Encryptor::<des::TdesEde3>::new(&material::triple_des(0, "des", 0).into(), &iv.into());
    let sealed = [&iv[..], &cipher.encrypt_padded_vec::<Pkcs7>(MESSAGE)].concat();
    assert_eq!(engine.key("des")?.decrypt(TripleDesCbc::new(), &sealed).wait()?.as_ref(), MESSAGE);
    Ok(())
}

fn decrypt_oaep(engine: &Engine) -> Result<()> {
    let mut sealed = public().oaep_encrypt::<Sha256>(MESSAGE).unwrap();
    let key = engine.key("dec")?;
    assert_eq!(key.decrypt(RsaOaep::SHA256, &sealed).wait()?.as_ref(), MESSAGE);
    sealed[77] ^= 1;
    let error = key.decrypt(RsaOaep::SHA256, &sealed).wait().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DecryptFailed);
    Ok(())
}

fn decrypt_pkcs1(engine: &Engine) -> Result<()> {
    let mut sealed = public().pkcs1v15_encrypt(MESSAGE).unwrap();
    let key = engine.key("dec")?;
    assert_eq!(key.decrypt(RsaPkcs1Encryption, &sealed).wait()?.as_ref(), MESSAGE);
    sealed[77] ^= 1;
    let error = key.decrypt(RsaPkcs1Encryption, &sealed).wait().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DecryptFailed);
    Ok(())
}

/// The public half of `rsa2048` and of `dec`: variant 0 of one size is one key.
fn public() -> rsa::PublicKey {
    rsa::PrivateKey::from_pkcs1_der(material::RSA_2048[0].pkcs1_der()).unwrap().to_public_key()
}

/// Two tokens from which these mechanisms are hidden.
fn tokens(hide: &str) -> (Hsm, Engine) {
    let keys = "keys=p521:p521;des:des3;dec:rsa2048-decrypt";
    let hsm = Hsm::new(2, &format!("{keys},hide={hide}"));
    let engine = hsm.builder().sessions(1).allow_rsa_pkcs1_decryption().build().unwrap();
    (hsm, engine)
}

fn says(error: &Error) -> (ErrorKind, Retry, Outcome) {
    (error.kind(), error.retry(), error.outcome())
}

#[test]
fn without_the_first_mechanism_the_second_gives_right_answers() {
    for Row { name, first, run, .. } in ROWS {
        let (hsm, engine) = tokens(&format!("{first:#x}"));
        let before = hsm.operations();
        run(&engine).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(hsm.operations() > before, "{name} ran on no token");
        hsm.assert_sound();
        assert_eq!(engine.drain(LONG), 0);
    }
}

#[test]
fn without_both_the_request_is_refused_before_any_call() {
    for Row { name, first, second, run } in ROWS {
        let (hsm, engine) = tokens(&format!("{first:#x};{second:#x}"));
        // To have the key looked up and its identity proven, which takes calls of its own.
        run(&engine).unwrap_err();
        let before = hsm.calls();
        let error = run(&engine).unwrap_err();
        let refused = (ErrorKind::MechanismUnavailable, Retry::Never, Outcome::NotDone);
        assert_eq!(says(&error), refused, "{name}: {error}");
        assert_eq!(hsm.calls(), before, "{name}: the module was called");
        assert_eq!(engine.drain(LONG), 0);
    }
}

#[test]
fn where_one_token_has_the_first_and_one_the_second_all_goes_to_the_first() {
    const CALLERS: usize = 4;
    for Row { name, first, second, run } in ROWS {
        for (has_first, has_second) in [(0, 1), (1, 0)] {
            let hide = format!("{first:#x}@sim-{has_second};{second:#x}@sim-{has_first}");
            let (hsm, engine) = tokens(&hide);
            run(&engine).unwrap_or_else(|error| panic!("{name}: {error}"));
            let done = || [has_first, has_second].map(|token| hsm.operations_on(&format!("sim-{token}")));
            let before = done();
            std::thread::scope(|scope| {
                for _ in 0..CALLERS {
                    scope.spawn(|| run(&engine).unwrap_or_else(|error| panic!("{name}: {error}")));
                }
            });
            let after = done();
            assert!(after[0] - before[0] >= CALLERS as u64, "{name}: {before:?}, {after:?}");
            assert_eq!(after[1], before[1], "{name}: the token without the first was asked");
            wait_idle(&engine);
            hsm.assert_sound();
            assert_eq!(engine.drain(LONG), 0);
        }
    }
}
