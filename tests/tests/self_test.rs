//! Requests share calls only where the module has shown, on a key that is thrown away, that it answers them rightly,
//! and where the host may do the mode.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails its test")]

use aes::cipher::{BlockCipherEncrypt, KeyInit};
use cryptoki::context::Pkcs11;
use cryptoki::object::Attribute;
use hsmux::{
    AesCbc, AesCtr, AesEcb, Cipher, Copies, Engine, ErrorKind, Key, KeySpec, TripleDesCbc, TripleDesEcb,
};
use hsmux_tests::Hsm;
use softhsm_fixtures::{PIN, SoftHsm};

/// Of one session, so that requests wait for each other.
fn engine(hsm: &Hsm) -> Engine {
    hsm.builder().sessions(1).build().unwrap()
}

/// Requests of an engine that shared calls.
fn shared(engine: &Engine) -> u64 {
    engine.snapshot().tokens.iter().map(|token| token.merges.requests).sum()
}

/// Kinds of keys whose self-test has failed.
fn unproven(engine: &Engine) -> usize {
    engine.snapshot().tokens[0].merges.unproven
}

/// Messages of a block each.
fn blocks(len: usize) -> Vec<Vec<u8>> {
    (0..200).map(|number| vec![number; len]).collect()
}

/// Encrypts blocks that wait for each other.
fn encrypt(key: &Key, how: impl Into<Cipher>, len: usize) -> Vec<Vec<u8>> {
    let sealed = key.encrypt_many(how, blocks(len)).wait();
    sealed.into_iter().map(|one| one.unwrap().into()).collect()
}

/// Encrypts and decrypts blocks that wait for each other, and checks that they come back.
fn there_and_back(key: &Key, how: impl Into<Cipher>, len: usize) {
    let how = how.into();
    let opened = key.decrypt_many(how.clone(), encrypt(key, how, len)).wait();
    for (one, block) in opened.into_iter().zip(blocks(len)) {
        assert_eq!(one.unwrap().as_ref(), block);
    }
}

/// Whether messages under this cipher, which come back in any case, share calls.
fn shares(engine: &Engine, key: &Key, how: impl Into<Cipher>, len: usize) -> bool {
    let before = shared(engine);
    there_and_back(key, how, len);
    shared(engine) > before
}

#[test]
fn a_module_that_answers_several_blocks_wrongly_is_never_given_them_and_every_answer_is_right() {
    let devices = [("ecb", false), ("ecb", true), ("ecb-decrypt", false)];
    for (wrong, holding) in devices {
        let hsm = Hsm::new(1, &format!("keys=des:des3,wrong={wrong}"));
        let engine = hsm.builder().sessions(1).holding(holding).build().unwrap();
        let [aes, des] = ["aes256", "des"].map(|name| engine.key(name).unwrap().with_host_modes().unwrap());
        let cipher = aes::Aes256::new(&p11_sim::material::aes(0, "aes256", 0).into());
        for (sealed, block) in encrypt(&aes, AesEcb, 16).into_iter().zip(blocks(16)) {
            let mut wanted = aes::Block::try_from(&block[..]).unwrap();
            cipher.encrypt_block(&mut wanted);
            assert_eq!(sealed, wanted.as_slice());
        }
        for how in [Cipher::from(AesEcb), AesCtr::new().into(), AesCbc::new().unpadded().into()] {
            there_and_back(&aes, how, 16);
        }
        there_and_back(&des, TripleDesEcb, 8);
        there_and_back(&des, TripleDesCbc::new().unpadded(), 8);
        assert_eq!((shared(&engine), unproven(&engine)), (0, 2), "{wrong}");
    }
}

#[test]
fn where_parts_of_an_operation_go_wrong_none_is_held_and_requests_share_whole_calls() {
    for holding in [false, true] {
        let hsm = Hsm::new(1, "wrong=ecb-parts");
        let engine = hsm.builder().sessions(1).holding(holding).build().unwrap();
        let key = engine.key("aes256").unwrap();
        let parts = || hsm.sim.calls_of("C_EncryptUpdate") + hsm.sim.calls_of("C_DecryptUpdate");
        let tested = parts();
        assert!(shares(&engine, &key, AesEcb, 32));
        let cipher = aes::Aes256::new(&p11_sim::material::aes(0, "aes256", 0).into());
        let mut wanted = aes::Block::from([7; 16]);
        cipher.encrypt_block(&mut wanted);
        // From the second of a kind on an operation would be held.
        for _ in 0..3 {
            let sealed = key.encrypt(AesEcb, vec![7; 32]).wait().unwrap();
            assert_eq!(sealed.as_bytes(), wanted.repeat(2));
        }
        assert_eq!((parts(), unproven(&engine)), (tested, 0));
    }
}

#[test]
fn a_mode_that_the_module_does_in_its_own_way_is_left_to_it_and_the_others_share_calls() {
    for (wrong, modes) in [("ctr", [false, true]), ("cbc", [true, false])] {
        let hsm = Hsm::new(1, &format!("wrong={wrong}"));
        let engine = engine(&hsm);
        let key = engine.key("aes256").unwrap().with_host_modes().unwrap();
        assert!(shares(&engine, &key, AesEcb, 16));
        let shared = [AesCtr::new().into(), Cipher::from(AesCbc::new().unpadded())]
            .map(|how| shares(&engine, &key, how, 16));
        assert_eq!((shared, unproven(&engine)), (modes, 1), "{wrong}");
    }
}

#[test]
fn a_good_module_shares_every_mode_and_was_tested_once_for_all_keys_of_a_kind() {
    let hsm = Hsm::new(2, "keys=second:aes;des:des3;macs:aes-mac");
    let engine = engine(&hsm);
    let tested = |token: &str| hsm.sim.calls_on("C_GenerateKey", token);
    // Keys that encrypt nothing need no test.
    let _others = ["macs", "hmac"].map(|name| engine.key(name).unwrap());
    assert_eq!(tested("sim-0"), 0);
    let keys = ["aes256", "second", "des"].map(|name| engine.key(name).unwrap().with_host_modes().unwrap());
    assert_eq!(hsm.tokens.iter().map(|token| tested(token)).collect::<Vec<_>>(), [2, 2]);
    let [aes, second, des] = &keys;
    assert!(shares(&engine, aes, AesEcb, 16) && shares(&engine, second, AesEcb, 16));
    assert!(shares(&engine, aes, AesCtr::new(), 16) && shares(&engine, aes, AesCbc::new(), 5));
    assert!(shares(&engine, des, TripleDesEcb, 8) && shares(&engine, des, TripleDesCbc::new(), 5));
    // Made by the engine itself, and of another length: one more of each.
    engine.generate_key("new", KeySpec::Aes(16)).unwrap();
    assert_eq!(tested("sim-0"), 4);
    assert_eq!((tested("sim-0"), tested("sim-1"), unproven(&engine)), (4, 2, 0));
    hsm.assert_sound();
}

#[test]
fn the_key_of_the_test_is_gone_after_it_whatever_came_of_it() {
    for config in ["", "wrong=ecb", "input_max=16"] {
        let hsm = Hsm::new(1, config);
        let engine = hsm.builder().copies(Copies::Off).build().unwrap();
        engine.key("aes256").unwrap();
        let calls = ["C_GenerateKey", "C_DestroyObject"].map(|function| hsm.sim.calls_of(function));
        assert_eq!(calls, [1, 1], "{config}");
        let module = Pkcs11::new(hsm.sim.path()).unwrap();
        // The login of the engine holds for all sessions of the process.
        let session = module.open_ro_session(module.get_slots_with_token().unwrap()[0]).unwrap();
        assert!(session.find_objects(&[Attribute::Token(false)]).unwrap().is_empty(), "{config}");
    }
}

#[test]
fn softhsm_passes_for_keys_of_every_length() {
    let Some(softhsm) = SoftHsm::for_tests() else { return };
    let token = softhsm.unique_token();
    let builder = Engine::builder().module(softhsm.module()).tokens([token.label()]).pin(PIN);
    let engine = builder.sessions(1).copies(Copies::Off).build().unwrap();
    let key = |name: &str, spec| engine.generate_key(name, spec).unwrap().with_host_modes().unwrap();
    for len in [16, 24, 32] {
        let aes = key(&format!("aes-{len}"), KeySpec::Aes(len));
        assert!(shares(&engine, &aes, AesEcb, 16));
        assert!(shares(&engine, &aes, AesCtr::new(), 16) && shares(&engine, &aes, AesCbc::new(), 5));
    }
    let des = key("des", KeySpec::TripleDes);
    assert!(shares(&engine, &des, TripleDesEcb, 8) && shares(&engine, &des, TripleDesCbc::new(), 5));
    assert_eq!(unproven(&engine), 0);
    drop(des);
    assert_eq!(engine.drain(hsmux_tests::LONG), 0);
}

#[test]
fn where_no_key_can_be_made_for_the_test_nothing_is_shared() {
    // CKM_AES_KEY_GEN.
    let hsm = Hsm::new(1, "keys=second:aes;des:des3,hide=0x1080");
    let engine = engine(&hsm);
    let [aes, second, des] = ["aes256", "second", "des"].map(|name| engine.key(name).unwrap());
    assert!(!shares(&engine, &aes, AesEcb, 16) && !shares(&engine, &second, AesEcb, 16));
    assert!(shares(&engine, &des, TripleDesEcb, 8));
    // It was tried once for both.
    assert_eq!((hsm.sim.calls_of("C_GenerateKey"), unproven(&engine)), (2, 1));
}

#[test]
fn where_one_of_several_tokens_has_not_passed_their_common_requests_share_nothing() {
    let hsm = Hsm::new(2, "hide=0x1080@sim-1");
    let engine = engine(&hsm);
    assert!(!shares(&engine, &engine.key("aes256").unwrap(), AesEcb, 16));
    let first = hsmux::Engine::builder().module(hsm.sim.path()).tokens(["sim-0"]).pin("1234".to_owned());
    let first = first.sessions(1).copies(Copies::Off).build().unwrap();
    assert!(shares(&first, &first.key("aes256").unwrap(), AesEcb, 16));
}

#[test]
fn where_sharing_is_turned_off_nothing_is_tested() {
    let hsm = Hsm::new(1, "");
    let engine = hsm.builder().sessions(1).coalescing(false).build().unwrap();
    assert!(!shares(&engine, &engine.key("aes256").unwrap(), AesEcb, 16));
    assert_eq!(hsm.sim.calls_of("C_GenerateKey"), 0);
}

#[test]
fn where_only_the_module_may_encipher_no_mode_is_done_on_the_host_and_ecb_is_still_shared() {
    let hsm = Hsm::new(1, "");
    let builder = || hsm.builder().sessions(1).validated_only(true);
    let error = builder().host_modes(["aes256"]).build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(error.to_string().contains("`validated_only` leaves no key to `host_modes`"), "{error}");
    let engine = builder().build().unwrap();
    let key = engine.key("aes256").unwrap();
    let error = key.clone().with_host_modes().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotPermitted);
    assert!(error.to_string().contains("built with `validated_only`"), "{error}");
    assert!(!shares(&engine, &key, AesCtr::new(), 16) && !shares(&engine, &key, AesCbc::new(), 5));
    assert!(shares(&engine, &key, AesEcb, 16));
}
