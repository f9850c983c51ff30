//! AES-GCM as messages of PKCS#11 3.x: fewer calls, the same answers, and the old way wherever a module has no messages.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails its test")]

use std::collections::HashSet;
use std::sync::Arc;

use aes_gcm::aead::{AeadInOut, Payload};
use aes_gcm::{Aes256Gcm, KeyInit, aead::Aead};
use hsmux::{AesCbc, AesEcb, AesGcm, Engine, ErrorKind, Hmac, Key, KeySpec};
use hsmux_tests::{Hsm, LONG};
use p11_sim::material;

/// The functions that an encryption or decryption may take.
const OF_GCM: [&str; 10] = [
    "C_EncryptInit",
    "C_Encrypt",
    "C_DecryptInit",
    "C_Decrypt",
    "C_MessageEncryptInit",
    "C_EncryptMessage",
    "C_MessageEncryptFinal",
    "C_MessageDecryptInit",
    "C_DecryptMessage",
    "C_MessageDecryptFinal",
];

fn calls(hsm: &Hsm) -> u64 {
    OF_GCM.iter().map(|function| hsm.sim.calls_of(function)).sum()
}

fn messages(hsm: &Hsm) -> u64 {
    OF_GCM[4..].iter().map(|function| hsm.sim.calls_of(function)).sum()
}

/// What RustCrypto makes of IV, text and tag.
fn opened(label: &str, sealed: &[u8], aad: &[u8]) -> Vec<u8> {
    let (iv, msg) = sealed.split_first_chunk::<12>().unwrap();
    let cipher = Aes256Gcm::new(&material::aes(0, label, 0).into());
    cipher.decrypt(iv.into(), Payload { msg, aad }).unwrap()
}

fn byte(number: usize) -> u8 {
    u8::try_from(number % 256).unwrap()
}

/// Encrypts messages of all lengths and decrypts them again, each checked by RustCrypto; returns the IVs.
fn round_trips(key: &Key, count: usize) -> Vec<[u8; 12]> {
    let round_trip = |number: usize| {
        let byte = byte(number);
        let (plain, aad) = (vec![byte; number % 70], [byte; 5]);
        let aad = &aad[..number % 6];
        let gcm = || AesGcm::new().aad(aad);
        let sealed = key.encrypt(gcm(), &plain).deadline(None).wait().unwrap();
        assert_eq!(opened("aes256", sealed.as_bytes(), aad), plain);
        let iv = sealed.iv().try_into().unwrap();
        (plain, sealed.into_vec(), iv)
    };
    let sealed: Vec<_> = (0..count).map(round_trip).collect();
    let mut ivs = Vec::new();
    for (number, (plain, sealed, iv)) in sealed.into_iter().enumerate() {
        let aad = [byte(number); 5];
        let gcm = AesGcm::new().aad(&aad[..number % 6]);
        assert_eq!(key.decrypt(gcm, sealed).deadline(None).wait().unwrap().as_bytes(), plain);
        ivs.push(iv);
    }
    ivs
}

#[test]
fn a_session_that_serves_one_key_takes_about_one_call_per_operation() {
    let hsm = Hsm::new(1, "");
    let engine = hsm.builder().sessions(1).build().unwrap();
    let key = engine.key("aes256").unwrap();
    let before = calls(&hsm);
    let ivs = round_trips(&key, 500);
    assert_eq!(ivs.iter().collect::<HashSet<_>>().len(), 500, "an IV came twice");
    // Two Inits, two Finals, and two operations each before it pays; and again for each second that it takes.
    let made = calls(&hsm) - before;
    assert!((1_000..=1_200).contains(&made), "{made} calls for 1000 operations");
    assert!(hsm.sim.calls_of("C_EncryptMessage") >= 490);
    assert_eq!(engine.snapshot().calls["C_EncryptMessage"], hsm.sim.calls_of("C_EncryptMessage"));
    hsm.assert_sound();
}

#[test]
fn the_null_mode_answers_messages_as_it_answers_the_old_way() {
    let hsm = Hsm::new(1, "null=1");
    let engine = hsm.builder().sessions(1).build().unwrap();
    let key = engine.key("aes256").unwrap();
    let before = calls(&hsm);
    (0..1_000).for_each(|_| drop(key.encrypt(AesGcm::new(), &[1; 300]).deadline(None).wait().unwrap()));
    let made = calls(&hsm) - before;
    assert!((1_000..=1_100).contains(&made), "{made} calls for 1000 operations");
}

#[test]
fn under_load_operations_of_one_key_take_about_one_call_each() {
    let hsm = Hsm::new(1, "");
    let engine = hsm.builder().sessions(2).build().unwrap();
    let key = engine.key("aes256").unwrap();
    let before = calls(&hsm);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let task = |key: Key, number: u8| async move {
        for length in 0..50 {
            let plain = vec![number; length];
            let sealed = key.encrypt(AesGcm::new(), &plain).await.unwrap();
            assert_eq!(opened("aes256", sealed.as_bytes(), &[]), plain);
        }
    };
    let tasks: Vec<_> = (0..64).map(|number| runtime.spawn(task(key.clone(), number))).collect();
    tasks.into_iter().for_each(|task| runtime.block_on(task).unwrap());
    let made = calls(&hsm) - before;
    assert!(made < 64 * 50 * 5 / 4, "{made} calls for {}", 64 * 50);
    hsm.assert_sound();
}

/// A step of a mixture, chosen by a number that looks random.
fn step(engine: &Engine, keys: &[Key; 3], number: u64) {
    let [first, second, mac] = keys;
    let choice = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 61;
    let plain = number.to_be_bytes().repeat(2);
    let gcm = |label: &str, key: &Key, times: u64| {
        for _ in 0..times {
            let sealed = key.encrypt(AesGcm::new(), &plain).deadline(None).wait().unwrap();
            assert_eq!(opened(label, sealed.as_bytes(), &[]), plain);
            let back = key.decrypt(AesGcm::new(), sealed.as_bytes()).deadline(None).wait().unwrap();
            assert_eq!(back.as_bytes(), plain);
        }
    };
    match choice {
        0 => gcm("aes256", first, 1),
        1 => gcm("second", second, 1),
        2 => gcm("aes256", first, number % 9),
        3 => {
            let sealed: Vec<_> =
                (0..number % 7).map(|_| second.encrypt(AesGcm::new(), &plain).wait().unwrap()).collect();
            sealed.iter().for_each(|sealed| assert_eq!(opened("second", sealed, &[]), plain));
        }
        4 => {
            let made = mac.sign(Hmac::SHA256, &plain).deadline(None).wait().unwrap();
            assert!(mac.verify(Hmac::SHA256, &plain, made.as_bytes()).wait().unwrap().is_valid());
        }
        5 => {
            let sealed = first.encrypt(AesEcb, &plain).wait().unwrap();
            assert_eq!(first.decrypt(AesEcb, sealed.as_bytes()).wait().unwrap().as_bytes(), plain);
        }
        6 => assert_eq!(engine.random(300).deadline(None).wait().unwrap().len(), 300),
        _ => {
            let sealed = second.encrypt(AesCbc::new(), &plain).deadline(None).wait().unwrap();
            assert_eq!(second.decrypt(AesCbc::new(), sealed.as_bytes()).wait().unwrap().as_bytes(), plain);
        }
    }
}

#[test]
fn messages_and_every_other_operation_share_a_session() {
    let hsm = Hsm::new(1, "keys=second:aes");
    let engine = hsm.builder().sessions(1).build().unwrap();
    let keys = ["aes256", "second", "hmac"].map(|name| engine.key(name).unwrap());
    (0..600).for_each(|number| step(&engine, &keys, number));
    assert!(messages(&hsm) > 0);
    let errors: u64 = engine.snapshot().tokens[0]
        .operations
        .iter()
        .flat_map(|operation| &operation.errors)
        .map(|(_, count)| count)
        .sum();
    assert_eq!(errors, 0);
    assert_eq!(hsm.sim.calls_of("C_OpenSession"), 3, "no session was given up");
    hsm.assert_sound();
}

#[test]
fn alternating_keys_cost_no_more_than_the_old_way() {
    let hsm = Hsm::new(1, "keys=second:aes");
    let engine = hsm.builder().sessions(1).build().unwrap();
    let keys = ["aes256", "second"].map(|name| engine.key(name).unwrap());
    let before = calls(&hsm);
    for number in 0..100 {
        let key = &keys[number % 2];
        key.encrypt(AesGcm::new(), b"x").deadline(None).wait().unwrap();
    }
    assert_eq!((calls(&hsm) - before, messages(&hsm)), (200, 0));
}

#[test]
fn modules_without_messages_and_engines_that_want_none_work_the_old_way() {
    for (config, wanted) in [("interface=2.40", true), ("", false)] {
        let hsm = Hsm::new(1, config);
        let engine = hsm.builder().sessions(1).message_api(wanted).build().unwrap();
        round_trips(&engine.key("aes256").unwrap(), 50);
        assert_eq!(messages(&hsm), 0, "{config:?}");
        assert!(hsm.sim.calls_of("C_Encrypt") >= 50);
    }
    // The interface is there, but its functions are not: each session asks once for each direction.
    let hsm = Hsm::new(1, "messages=0");
    let engine = hsm.builder().sessions(1).build().unwrap();
    round_trips(&engine.key("aes256").unwrap(), 50);
    assert_eq!(messages(&hsm), 2);
    hsm.assert_sound();
}

#[test]
fn a_module_whose_messages_are_wrong_is_found_out_before_anybody_gets_one() {
    let hsm = Hsm::new(1, "messages=2");
    let engine = hsm.builder().sessions(1).build().unwrap();
    round_trips(&engine.key("aes256").unwrap(), 50);
    let calls = |function| hsm.sim.calls_of(function);
    assert_eq!((calls("C_EncryptMessage"), calls("C_DecryptMessage")), (1, 1));
    assert_eq!(hsm.sim.calls_of("C_OpenSession"), 3, "no session was given up");
    hsm.assert_sound();
}

#[test]
fn ivs_of_another_length_and_those_that_are_given_are_served_too() {
    let hsm = Hsm::new(1, "");
    let engine = hsm.builder().sessions(1).build().unwrap();
    let key = engine.key("aes256").unwrap();
    let cipher = Aes256Gcm::new(&material::aes(0, "aes256", 0).into());
    for number in 0..20_u8 {
        let sealed = key.encrypt(AesGcm::new().with_iv([number; 12]), b"message").wait().unwrap();
        let (body, tag) = sealed.as_bytes().split_last_chunk::<16>().unwrap();
        let mut plain = body.to_vec();
        let iv = [number; 12];
        cipher.decrypt_inout_detached((&iv).into(), b"", plain.as_mut_slice().into(), tag.into()).unwrap();
        assert_eq!(plain, b"message");
        if number % 5 == 0 {
            let long = AesGcm::new().with_iv([number; 16]);
            let sealed = key.encrypt(long.clone(), b"message").wait().unwrap();
            assert_eq!(key.decrypt(long, sealed.as_bytes()).wait().unwrap().as_bytes(), b"message");
        }
    }
    assert!(messages(&hsm) > 0);
}

#[test]
fn a_bad_ciphertext_fails_alone() {
    let hsm = Hsm::new(1, "");
    let engine = hsm.builder().sessions(1).build().unwrap();
    let key = engine.key("aes256").unwrap();
    let sealed = key.encrypt(AesGcm::new(), b"message").wait().unwrap().into_vec();
    for number in 0..30 {
        let mut given = sealed.clone();
        let at = number % given.len();
        let bad = number % 4 == 3;
        given[at] ^= u8::from(bad);
        match key.decrypt(AesGcm::new(), given).deadline(None).wait() {
            Ok(plain) => assert!(!bad && plain.as_bytes() == b"message"),
            Err(error) => assert!(bad && error.kind() == ErrorKind::DecryptFailed),
        }
    }
    let short = key.decrypt(AesGcm::new(), &sealed[..20]).wait().unwrap_err();
    assert!(matches!(short.kind(), ErrorKind::DecryptFailed | ErrorKind::InvalidInput));
    assert!(hsm.sim.calls_of("C_DecryptMessage") > 0);
    assert_eq!(hsm.sim.calls_of("C_OpenSession"), 3, "no session was given up");
}

#[test]
fn a_key_that_was_destroyed_is_not_used_on_by_what_is_open() {
    let hsm = Hsm::new(1, "");
    let engine = hsm.builder().sessions(1).build().unwrap();
    let key = engine.generate_key("short-lived", KeySpec::Aes(32)).unwrap();
    let encrypt = || key.encrypt(AesGcm::new(), b"message").deadline(None).wait();
    (0..10).for_each(|_| drop(encrypt().unwrap()));
    assert!(hsm.sim.calls_of("C_EncryptMessage") > 0);
    engine.destroy_key("short-lived").unwrap();
    assert_eq!(encrypt().map(drop).unwrap_err().kind(), ErrorKind::KeyNotFound);
}

#[test]
fn what_is_open_on_an_idle_session_ends_before_a_key_is_destroyed() {
    let hsm = Hsm::new(1, "op_us=0");
    let engine = hsm.builder().sessions(1).build().unwrap();
    let key = engine.generate_key("short-lived", KeySpec::Aes(32)).unwrap();
    (0..10).for_each(|_| drop(key.encrypt(AesGcm::new(), b"text").deadline(None).wait().unwrap()));
    let begun = hsm.sim.calls_of("C_MessageEncryptInit");
    assert!(begun > 0);
    hsm.sim.configure("hang=C_DestroyObject:1").unwrap();
    std::thread::scope(|scope| {
        let destroying = scope.spawn(|| engine.destroy_key("short-lived"));
        assert!(hsm.sim.wait_hanging(1, LONG));
        assert_eq!(hsm.sim.calls_of("C_MessageEncryptFinal"), begun);
        hsm.sim.release_hangs();
        destroying.join().unwrap().unwrap();
    });
}

#[test]
fn a_message_that_hangs_is_written_off_as_any_other_call() {
    let hsm = Hsm::new(1, "hang=C_EncryptMessage:3");
    let limit = std::time::Duration::from_millis(100);
    let engine = Arc::new(hsm.builder().sessions(1).hang_limit(limit).build().unwrap());
    let key = engine.key("aes256").unwrap();
    let ended: Vec<_> =
        (0..20).map(|_| key.encrypt(AesGcm::new(), b"x").wait().map_err(|e| e.kind())).collect();
    assert_eq!(ended.iter().filter(|answer| answer.is_err()).count(), 1);
    assert!(ended.contains(&Err(ErrorKind::Hung)));
    hsm.sim.release_hangs();
    assert_eq!(engine.drain(LONG), 0);
}
