//! A managed key as the canary of its token.

use std::time::Duration;

use hsmux::{AesGcm, Builder, Engine, Health, Hmac, KeyConfig, KeySpec};
use hsmux_tests::{LONG, eventually, health};

use crate::hostile::{build, on_store};

#[test]
fn a_managed_key_is_a_canary_also_when_it_was_rotated_and_keeps_no_token_out_when_it_was_destroyed() {
    let site = tempfile::tempdir().unwrap();
    {
        let (sim, config) = on_store(&site, 21);
        let engine = build(&sim, &config);
        engine.managed_keys().create("canary", &KeyConfig::new(KeySpec::Hmac(32))).unwrap();
        assert_eq!(engine.drain(Duration::from_secs(10)), 0);
    }
    let (sim, config) = on_store(&site, 22);
    let builder: Builder<_, _, _> = Engine::builder().module(sim.path()).tokens(["sim-0"]);
    let builder = builder.pin("1234".to_owned()).init_args(&config).sessions(1).canary_key("canary");
    let engine = builder.build().unwrap();
    let (aes, mac) = (engine.key("aes256").unwrap(), engine.key("hmac").unwrap());
    let fail = || drop(aes.encrypt(AesGcm::new(), b"x".as_slice()).deadline_in(LONG).wait().unwrap_err());
    let is_tried = |when: &str| {
        sim.configure("fault=C_Encrypt:1+=0x30").unwrap();
        let before = sim.calls_of("C_Sign");
        eventually(when, || {
            fail();
            sim.calls_of("C_Sign") > before
        });
        sim.configure("fault=").unwrap();
        assert_eq!(health(&engine, 0), Health::Serving, "{when}: the canary does well");
    };
    is_tried("it is asked for a MAC");
    engine.managed_keys().rotate("canary").unwrap();
    is_tried("so it is after a rotation");
    engine.managed_keys().deactivate("canary").unwrap();
    engine.managed_keys().destroy("canary").unwrap();
    sim.configure("fault=C_Encrypt:1+=0x30").unwrap();
    for _ in 0..100 {
        fail();
    }
    sim.configure("fault=").unwrap();
    eventually("the token serves", || mac.sign(Hmac::SHA256, b"x").deadline_in(LONG).wait().is_ok());
}
