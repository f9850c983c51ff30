//! What a process does that is told by other tests what to do: changes and uses of keys by its engine, and what that sees.

use hsmux::{
    AesGcm, Curve, Ecdsa, Engine, Error, ErrorKind, Key, KeyConfig, KeyId, KeyInfo, KeySpec, KeyState,
};
use serde_json::{Value, json};

use crate::worker::say;

/// Does what an order says, and returns what came of it.
pub(crate) fn obey(engine: &Engine, words: &[&str]) -> Result<String, Error> {
    let keys = engine.managed_keys();
    Ok(match *words {
        ["create", name] => keys.create(name, &KeyConfig::new(KeySpec::Ec(Curve::P256)))?.to_string(),
        ["rotate", name] => keys.rotate(name)?.to_string(),
        ["suspend", name] => done(keys.suspend(name)?),
        ["resume", name] => done(keys.resume(name)?),
        ["deactivate", name] => done(keys.deactivate(name)?),
        ["destroy", name] => done(keys.destroy(name)?),
        ["alias", alias, name] => done(keys.set_alias(alias, name)?),
        ["sign", id, text] => sign(&engine.key(&id.parse::<KeyId>()?)?, text)?,
        ["create-aes", name] => keys.create(name, &KeyConfig::new(KeySpec::Aes(32)))?.to_string(),
        ["encrypt", name, times] => ivs(&engine.key(name)?, times.parse().unwrap()).join(" "),
        ["loop", seed] => run_wild(engine, seed.parse().unwrap()),
        ["look"] => look(engine)?.to_string(),
        ["publics", id] => publics(engine, &id.parse()?)?,
        _ => unreachable!("no such order: {words:?}"),
    })
}

/// A signature and the version that made it: the one that was current before and after, as versions never come again.
fn sign(key: &Key, text: &str) -> Result<String, Error> {
    loop {
        let before = key.version_number();
        let signature = key.sign(Ecdsa::P256_SHA256, text.as_bytes().to_vec()).wait()?;
        if key.version_number() == before {
            return Ok(format!("{} {}", before.unwrap_or(0), hex(signature.as_bytes())));
        }
    }
}

fn done((): ()) -> String {
    String::new()
}

/// Encrypts so often, or until that is refused for good, and returns the IVs.
fn ivs(key: &Key, times: usize) -> Vec<String> {
    let mut ivs = Vec::new();
    while ivs.len() < times {
        match key.encrypt(AesGcm::new(), b"message").wait() {
            Ok(sealed) => ivs.push(hex(&sealed.as_bytes()[..12])),
            // A lease is being written.
            Err(error) if error.kind() == ErrorKind::Busy => std::thread::yield_now(),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::KeyState, "{error}");
                break;
            }
        }
    }
    ivs
}

/// Creates, rotates and destroys keys for ever, and says what it has done.
fn run_wild(engine: &Engine, mut dice: u64) -> ! {
    let keys = engine.managed_keys();
    loop {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let name = format!("key-{}", (dice >> 40) % 4);
        let what = ["create", "rotate", "destroy"][usize::try_from((dice >> 33) % 3).unwrap()];
        say(&format!("begins {what} {name}"));
        let newest = |info: KeyInfo| info.versions.last().map(|version| version.object.clone()).unwrap();
        let outcome = match what {
            "create" => keys
                .create(&name, &KeyConfig::new(KeySpec::Ec(Curve::P256)))
                .and_then(|id| Ok(format!("{id} {}", newest(keys.info(&id)?)))),
            "rotate" => {
                keys.rotate(&name).and_then(|version| Ok(format!("{version} {}", newest(keys.info(&name)?))))
            }
            _ => destroy(engine, &name).map(done),
        };
        match outcome {
            Ok(answer) => say(&format!("did {what} {name} {answer}")),
            Err(error) => say(&format!("failed {what} {name} {} {error}", error.kind().name())),
        }
    }
}

/// Destroys a key, also one that somebody has deactivated and had no time to destroy.
fn destroy(engine: &Engine, name: &str) -> Result<(), Error> {
    let keys = engine.managed_keys();
    if keys.info(name)?.state != KeyState::Deactivated {
        keys.deactivate(name)?;
    }
    keys.destroy(name)
}

/// What a new engine finds: keys that live, with what every version of them does; names and ids of objects of keys; and how
/// many records are not believed.
fn look(engine: &Engine) -> Result<Value, Error> {
    let infos = engine.managed_keys().list()?;
    let living = infos.iter().filter(|info| info.state != KeyState::Destroyed);
    let keys: Vec<_> = living
        .map(|info| {
            let objects: Vec<_> = info.versions.iter().map(|version| &version.object).collect();
            let fault = use_all(engine, info).err().map(|error| error.to_string());
            json!({ "name": info.name, "id": info.id.to_string(), "objects": objects, "fault": fault })
        })
        .collect();
    let listed = engine.keys().into_iter().filter(|key| key.label.starts_with("key-"));
    let objects: Vec<_> = listed.map(|key| (key.label, hex(&key.id))).collect();
    Ok(json!({ "keys": keys, "objects": objects, "refused": engine.managed_keys().refused_records()?.len() }))
}

/// Reads every version of a key, and signs with the newest if it is in use.
fn use_all(engine: &Engine, info: &KeyInfo) -> Result<(), Error> {
    let key = engine.key(&info.id)?;
    for version in &info.versions {
        key.version_numbered(version.version)?.public_key_der()?;
    }
    if info.state == KeyState::Active {
        let signature = key.sign(Ecdsa::P256_SHA256, b"message").wait()?;
        assert!(key.verify(Ecdsa::P256_SHA256, b"message", &signature).wait()?.is_valid());
    }
    Ok(())
}

/// The number of each version of a key, and its public key in DER.
fn publics(engine: &Engine, id: &KeyId) -> Result<String, Error> {
    let key = engine.key(id)?;
    let versions = engine.managed_keys().info(id)?.versions.into_iter();
    let of = |number| Ok(format!("{number}:{}", hex(&key.version_numbered(number)?.public_key_der()?)));
    versions.map(|version| of(version.version)).collect::<Result<Vec<_>, _>>().map(|all| all.join(" "))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
