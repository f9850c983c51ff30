//! ECDSA and Ed25519, verified by the host with the public half: Wycheproof. Signatures that the token makes are
//! checked in `independent.rs`, those of Ed25519 against RFC 8032 in `nist.rs`.

use hsmux::{Ecdsa, Ed25519, Engine, SignAlgorithm};
use softhsm_fixtures::{CurveName, CustomKey, KeyUse};
use wycheproof::{EllipticCurve, HashFunction, TestResult, ecdsa, eddsa};

use crate::support::{Found, Keys, Seen, Tally, Way, add, engine, finish, text};

const ECDSA: [&str; 11] = [
    "ecdsa_secp256r1_sha256",
    "ecdsa_secp256r1_sha256_p1363",
    "ecdsa_secp256r1_sha512",
    "ecdsa_secp256r1_sha512_p1363",
    "ecdsa_secp384r1_sha256",
    "ecdsa_secp384r1_sha384",
    "ecdsa_secp384r1_sha384_p1363",
    "ecdsa_secp384r1_sha512",
    "ecdsa_secp384r1_sha512_p1363",
    "ecdsa_secp521r1_sha512",
    "ecdsa_secp521r1_sha512_p1363",
];

struct Vector {
    label: String,
    how: SignAlgorithm,
    id: usize,
    message: Vec<u8>,
    signature: Vec<u8>,
    result: TestResult,
}

/// Only the public half counts: the private one is any scalar.
fn import(keys: &mut Keys, curve: CurveName, point: &[u8]) -> String {
    add(keys, "public", point, || CustomKey::on_curve(curve, &[7; 32], point).may(&[KeyUse::Verify]))
}

fn ecdsa(keys: &mut Keys, file: &str) -> Vec<Vector> {
    let mut vectors = Vec::new();
    for group in ecdsa::TestSet::load(file.parse().unwrap()).unwrap().test_groups {
        let (curve, how) = match (group.key.curve, group.hash) {
            (EllipticCurve::Secp256r1, HashFunction::Sha2_256) => (CurveName::P256, Ecdsa::P256_SHA256),
            (EllipticCurve::Secp256r1, _) => (CurveName::P256, Ecdsa::P256_SHA512),
            (EllipticCurve::Secp384r1, HashFunction::Sha2_256) => (CurveName::P384, Ecdsa::P384_SHA256),
            (EllipticCurve::Secp384r1, HashFunction::Sha2_384) => (CurveName::P384, Ecdsa::P384_SHA384),
            (EllipticCurve::Secp384r1, _) => (CurveName::P384, Ecdsa::P384_SHA512),
            _ => (CurveName::P521, Ecdsa::P521_SHA512),
        };
        let how = if group.test_type == ecdsa::TestGroupTypeId::Ecdsa { how.der() } else { how };
        let label = import(keys, curve, &group.key.key);
        vectors.extend(group.tests.into_iter().map(|test| Vector {
            label: label.clone(),
            how: how.into(),
            id: test.tc_id,
            message: test.msg.to_vec(),
            signature: test.sig.to_vec(),
            result: test.result,
        }));
    }
    vectors
}

fn eddsa(keys: &mut Keys) -> Vec<Vector> {
    let mut vectors = Vec::new();
    for group in eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap().test_groups {
        let label = import(keys, CurveName::Ed25519, &group.key.pk);
        vectors.extend(group.tests.into_iter().map(|test| Vector {
            label: label.clone(),
            how: Ed25519.into(),
            id: test.tc_id,
            message: test.msg.to_vec(),
            signature: test.sig.to_vec(),
            result: test.result,
        }));
    }
    vectors
}

fn check(engine: &Engine, vector: &Vector, way: Way) -> Found {
    let key = engine.key(&vector.label).map_err(text)?;
    let how = &vector.how;
    let wanted = vector.result == TestResult::Valid;
    let verified = way.of(key.verify(how.clone(), &vector.message[..], &vector.signature)).map_err(text)?;
    // A digest has a verifier of its own where *ring* verifies messages; once is enough.
    let both = [Ecdsa::P256_SHA256, Ecdsa::P384_SHA256, Ecdsa::P384_SHA384];
    let both = both.iter().any(|pair| *how == (*pair).into() || *how == pair.der().into());
    let of_digest = match (way, key.sign_stream(how.clone())) {
        (Way::Inline, Ok(mut stream)) if both => {
            stream.update(&vector.message);
            way.of(stream.verify(&vector.signature)).map_err(text)?
        }
        _ => verified,
    };
    match (verified.is_valid() == wanted, of_digest.is_valid() == wanted) {
        (true, true) => Ok(Seen::Right),
        found => Err(format!("vector {}: message and digest {found:?}", vector.id)),
    }
}

#[test]
fn signatures_on_curves_are_verified_as_wycheproof_says() {
    let mut keys = Keys::new();
    let mut files: Vec<_> = ECDSA.iter().map(|file| (*file, ecdsa(&mut keys, file))).collect();
    files.push(("ed25519", eddsa(&mut keys)));
    let Some(engine) = engine(&keys) else { return };
    let tallied = files
        .into_iter()
        .map(|(file, vectors)| Tally::of(file, &vectors, |vector, way| check(&engine, vector, way)));
    finish(&tallied.collect::<Vec<_>>());
}
