//! What `hsmux load` runs on all sides of a comparison is the operation it is called by: other software accepts every
//! output of the engine and of every baseline.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails its test")]

use std::sync::Arc;

use hsmux::{Engine, Result};
use hsmux_bench::check::{CaseKey, is_right};
use hsmux_bench::{BaselineName, Case, Op, Site, Target, TemporaryKey};
use hsmux_tests::{Hsm, LONG};
use p11_sim::material;
use softhsm_fixtures::{PIN, SoftHsm};

/// A key for each operation on the simulator.
const KEYS: &str = "keys=dec:rsa2048-decrypt;ed:ed25519;cmac:aes-mac";

fn case(op: Op) -> Case {
    op.as_str().parse().unwrap()
}

const fn label(op: Op) -> &'static str {
    match op {
        Op::Rsa2048Sha256 | Op::Rsa2048Pss => "rsa2048",
        Op::Rsa4096Sha256 => "rsa4096",
        Op::Rsa2048Oaep => "dec",
        Op::EcdsaP256 => "p256",
        Op::EcdsaP384 => "p384",
        Op::Ed25519 => "ed",
        Op::HmacSha256 => "hmac",
        Op::AesCmac => "cmac",
        _ => "aes256",
    }
}

/// Another bit anywhere makes an output wrong, but those of random bytes.
fn assert_right(target: &Target, key: CaseKey<'_>, side: &str, (input, output): &Sides) {
    let (inputs, op) = (target.inputs(), target.case().op);
    assert!(is_right(inputs, key, input, output), "{} by {side}", op.as_str());
    let mut changed = output.clone();
    changed[output.len() / 2] ^= 1;
    assert!(op == Op::Random || !is_right(inputs, key, input, &changed), "{} by {side}", op.as_str());
}

/// An input and its output.
type Sides = (Vec<u8>, Vec<u8>);

/// The outputs of one operation by each baseline that can do it: by each the third, so that IVs have gone on.
fn baselines(site: &Site, target: &Target, key: Option<&str>) -> Vec<(&'static str, Sides)> {
    let can = |name: &BaselineName| *name != BaselineName::RawCopy || key.is_some();
    let names = BaselineName::ALL.into_iter().filter(can);
    let by = |name: BaselineName| {
        let baseline = name.open(site, target, key, 2).unwrap();
        (0..2).for_each(|_| drop(baseline.once().unwrap()));
        (name.as_str(), baseline.once().unwrap())
    };
    names.map(by).collect()
}

#[test]
fn all_sides_of_every_operation_are_right_on_the_simulator() {
    let hsm = Hsm::new(1, KEYS);
    let engine = Arc::new(hsm.builder().sessions(2).build().unwrap());
    let site = Site::new(hsm.sim.path(), None, vec!["sim-0".into()], "1234".to_owned().into());
    for op in Op::ALL {
        let label = (op != Op::Random).then_some(label(op));
        let target = Target::new(&engine, case(op), label).unwrap();
        let public = label.and_then(|label| engine.key(label).unwrap().public_key_der().ok());
        let secret = match op {
            Op::HmacSha256 => material::hmac(0, "hmac", 0),
            Op::AesCmac => material::aes(0, "cmac", 0),
            _ => material::aes(0, "aes256", 0),
        };
        let key = public.as_deref().map_or(CaseKey::Secret(&secret), CaseKey::Public);
        (0..3).for_each(|_| assert_right(&target, key, "engine", &target.once().unwrap()));
        for (name, sides) in baselines(&site, &target, label) {
            assert_right(&target, key, name, &sides);
        }
    }
}

#[test]
fn all_sides_of_operations_with_pairs_are_right_on_softhsm_with_temporary_keys() {
    let Some(softhsm) = SoftHsm::for_tests() else { return };
    let token = softhsm.unique_token();
    let builder = Engine::builder().module(softhsm.module()).tokens([token.label()]).pin(PIN.to_owned());
    let engine = Arc::new(builder.sessions(2).build().unwrap());
    let site = Site::new(softhsm.module(), None, vec![token.label().into()], PIN.to_owned().into());
    for op in [Op::Rsa2048Oaep, Op::Ed25519, Op::EcdsaP256, Op::EcdsaP384, Op::Rsa2048Pss] {
        let temporary = TemporaryKey::generate(&engine, op.key_spec().unwrap()).unwrap();
        let label = Some(temporary.label());
        let target = Target::new(&engine, case(op), label).unwrap();
        let public = engine.key(temporary.label()).unwrap().public_key_der().unwrap();
        assert_right(&target, CaseKey::Public(&public), "engine", &target.once().unwrap());
        for (name, sides) in baselines(&site, &target, label) {
            assert_right(&target, CaseKey::Public(&public), name, &sides);
        }
        temporary.remove().unwrap();
    }
    // Of secret keys nobody but the token knows the material: that all sides run them is what can be seen.
    for op in [Op::AesCmac, Op::AesCbcEncrypt, Op::AesCbcDecrypt, Op::AesCtr] {
        let temporary = TemporaryKey::generate(&engine, op.key_spec().unwrap()).unwrap();
        let label = Some(temporary.label());
        let target = Target::new(&engine, case(op), label).unwrap();
        let engine = target.once().unwrap();
        for (name, sides) in baselines(&site, &target, label) {
            let lens = (sides.0.len(), sides.1.len());
            assert_eq!(lens, (engine.0.len(), engine.1.len()), "{} by {name}", op.as_str());
        }
        temporary.remove().unwrap();
    }
    assert_eq!(engine.drain(LONG), 0);
}

#[test]
fn a_key_of_another_kind_is_refused_when_the_target_is_made() {
    let hsm = Hsm::new(1, KEYS);
    let engine = Arc::new(hsm.builder().build().unwrap());
    let refused = |op, label| -> Result<()> { Target::new(&engine, case(op), Some(label)).map(drop) };
    for (op, label) in [(Op::Rsa2048Oaep, "p256"), (Op::Ed25519, "p256"), (Op::AesCmac, "hmac")] {
        let Err(error) = refused(op, label) else { panic!("{} with {label}", op.as_str()) };
        assert_eq!(error.kind(), hsmux::ErrorKind::KeyMismatch, "{error}");
    }
    let Err(error) = refused(Op::Rsa2048Oaep, "rsa2048") else { panic!("a key that may not decrypt") };
    assert_eq!(error.kind(), hsmux::ErrorKind::NotPermitted, "{error}");
}
