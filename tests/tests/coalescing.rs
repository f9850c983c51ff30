//! Many requests, one call; and operations that stay open for the next one.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails its test")]

use hsmux::{
    AesCbc, AesCtr, AesEcb, Cipher, Decrypt, Engine, Error, ErrorKind, Hmac, Key, KeySpec, Pending,
    TripleDesCbc, TripleDesEcb,
};
use hsmux_tests::{Hsm, LONG, eventually};

/// A simulator whose tokens also hold a key of triple DES.
fn hsm(config: &str) -> Hsm {
    Hsm::new(1, &format!("op_us=0,keys=des:des3{config}"))
}

/// Holds the only session inside a signature, has requests submitted meanwhile, and lets it go.
fn together<T>(hsm: &Hsm, engine: &Engine, submit: impl FnOnce() -> Vec<T>) -> Vec<T> {
    hsm.sim.configure("hang=C_Sign:1").unwrap();
    let first = engine.key("hmac").unwrap();
    let first = first.sign(Hmac::SHA256, b"first").deadline_in(LONG).submit().unwrap();
    assert!(hsm.sim.wait_hanging(1, LONG));
    let submitted = submit();
    hsm.sim.release_hangs();
    first.wait().unwrap();
    submitted
}

fn decrypt(key: &Key, how: impl Into<Cipher>, cipher: &[u8]) -> Pending<Decrypt> {
    key.decrypt(how, cipher.to_vec()).deadline_in(LONG).submit().unwrap()
}

/// Bytes that differ from message to message.
fn message(number: u8, len: usize) -> Vec<u8> {
    (0..len).map(|i| number.wrapping_mul(31) ^ u8::try_from(i % 251).unwrap()).collect()
}

fn calls(hsm: &Hsm, function: &str) -> u64 {
    hsm.sim.calls_of(function)
}

/// Encrypts all messages while they wait for each other, then decrypts what came of it in the same way; returns how
/// many calls of the cipher each took.
fn there_and_back(hsm: &Hsm, key: &str, how: &Cipher, lengths: &[usize]) -> [u64; 2] {
    let messages: Vec<_> = (0..).zip(lengths).map(|(i, &len)| message(i, len)).collect();
    let wanted = hsm.one_by_one(key, how.clone(), &messages);
    let engine = hsm.builder().sessions(1).holding(false).host_modes([key]).build().unwrap();
    let key = engine.key(key).unwrap();
    let before = calls(hsm, "C_Encrypt") + calls(hsm, "C_Decrypt");
    let encrypted = together(hsm, &engine, || {
        let submit = |message: &Vec<u8>| key.encrypt(how.clone(), message.clone()).submit().unwrap();
        messages.iter().map(submit).collect()
    });
    let encrypted: Vec<Vec<u8>> = encrypted.into_iter().map(|one| one.wait().unwrap().into()).collect();
    let between = calls(hsm, "C_Encrypt") + calls(hsm, "C_Decrypt");
    assert_eq!(encrypted, wanted, "{how:?}");
    let decrypted = together(hsm, &engine, || {
        encrypted.iter().map(|cipher| decrypt(&key, how.clone(), cipher)).collect()
    });
    for (one, message) in decrypted.into_iter().zip(&messages) {
        assert_eq!(one.wait().unwrap().as_ref(), message, "{how:?}");
    }
    [between - before, calls(hsm, "C_Encrypt") + calls(hsm, "C_Decrypt") - between]
}

#[test]
fn requests_that_wait_for_one_key_share_a_call_and_each_gets_its_own_answer() {
    let hsm = hsm("");
    let lengths = [16, 48, 32, 16, 160, 16];
    for (key, how) in [("aes256", Cipher::from(AesEcb)), ("des", TripleDesEcb.into())] {
        assert_eq!(there_and_back(&hsm, key, &how, &lengths), [1, 1], "{how:?}");
    }
}

#[test]
fn counters_and_chains_are_done_around_shared_calls_for_keys_with_host_modes() {
    let hsm = hsm("");
    let any = [1, 0, 16, 17, 5, 80, 31];
    let ctr = AesCtr::new().with_counter([0xff; 16].map(|byte| byte & 0x7f), 64);
    assert_eq!(there_and_back(&hsm, "aes256", &ctr.into(), &any), [1, 1]);
    // The longest of these has three blocks, or with its padding six.
    let blocks = [16, 48, 16, 32, 16, 16, 16];
    let unpadded = AesCbc::new().unpadded().with_iv([7; 16]);
    assert_eq!(there_and_back(&hsm, "aes256", &unpadded.into(), &blocks), [3, 1]);
    assert_eq!(there_and_back(&hsm, "aes256", &AesCbc::new().with_iv([9; 16]).into(), &any), [6, 1]);
    let triple_des = TripleDesCbc::new().unpadded().with_iv([7; 8]);
    assert_eq!(there_and_back(&hsm, "des", &triple_des.into(), &[8, 16, 8, 8]), [2, 1]);
}

#[test]
fn chains_that_would_take_more_calls_than_there_are_messages_are_not_shared() {
    let hsm = hsm("");
    let how = AesCbc::new().unpadded().with_iv([7; 16]);
    assert_eq!(there_and_back(&hsm, "aes256", &how.into(), &[64, 64, 16]), [3, 1]);
}

#[test]
fn ivs_that_the_engine_draws_differ_within_a_shared_call() {
    let hsm = hsm("");
    let engine = hsm.builder().sessions(1).host_modes(["aes256"]).build().unwrap();
    let key = engine.key("aes256").unwrap();
    for how in [Cipher::from(AesCtr::new()), AesCbc::new().into()] {
        let encrypted = together(&hsm, &engine, || {
            (0..20).map(|_| key.encrypt(how.clone(), vec![1; 40]).submit().unwrap()).collect()
        });
        let encrypted: Vec<Vec<u8>> = encrypted.into_iter().map(|one| one.wait().unwrap().into()).collect();
        let ivs: std::collections::HashSet<_> = encrypted.iter().map(|one| one[..12].to_vec()).collect();
        assert_eq!(ivs.len(), 20);
        for cipher in encrypted {
            assert_eq!(key.decrypt(how.clone(), cipher).wait().unwrap().as_ref(), vec![1; 40]);
        }
    }
    assert_eq!(engine.snapshot().tokens[0].merges.requests, 40);
}

#[test]
fn a_bad_request_in_a_shared_call_fails_alone() {
    let hsm = hsm("");
    let engine = hsm.builder().sessions(1).host_modes(["aes256"]).build().unwrap();
    let key = engine.key("aes256").unwrap();
    let good: Vec<u8> = key.encrypt(AesCbc::new(), b"pay 10 to A").wait().unwrap().into();
    let mut bad = good.clone();
    bad[15] ^= 0x80;
    let answers = together(&hsm, &engine, || {
        [&good, &bad, &good].map(|cipher| decrypt(&key, AesCbc::new(), cipher)).into()
    });
    let answers: Vec<_> = answers.into_iter().map(Pending::wait).collect();
    let kinds: Vec<_> = answers.iter().map(|one| one.as_ref().err().map(Error::kind)).collect();
    assert_eq!(kinds, [None, Some(ErrorKind::DecryptFailed), None]);
    assert_eq!(engine.snapshot().tokens[0].merges.requests, 3);
}

#[test]
fn a_shared_call_that_fails_is_run_request_by_request_and_after_three_the_lane_shares_no_more() {
    let hsm = hsm(",input_max=64");
    let engine = hsm.builder().sessions(1).build().unwrap();
    let key = engine.key("aes256").unwrap();
    for round in 1..=5 {
        let messages: Vec<_> = (0..8).map(|i| message(i, 16)).collect();
        let encrypted = together(&hsm, &engine, || {
            messages.iter().map(|one| key.encrypt(AesEcb, one.clone()).submit().unwrap()).collect()
        });
        for (one, message) in encrypted.into_iter().zip(messages) {
            let cipher: Vec<u8> = one.wait().unwrap().into();
            assert_eq!(key.decrypt(AesEcb, cipher).wait().unwrap().as_ref(), message);
        }
        assert_eq!(engine.snapshot().tokens[0].merges.failures, round.min(3));
    }
    assert_eq!(engine.snapshot().tokens[0].merges.requests, 0);
}

#[test]
fn who_waits_after_a_shared_call_has_failed_is_served_although_another_of_it_takes_the_session_along() {
    let hsm = hsm("");
    let engine = hsm.builder().sessions(1).holding(false).build().unwrap();
    let key = engine.key("aes256").unwrap();
    let messages: Vec<_> = (0..8).map(|i| message(i, 16)).collect();
    let encrypted = together(&hsm, &engine, || {
        // The shared call is refused, which costs nothing; the second that runs by itself finds a failing device.
        hsm.sim.configure("fault=C_Encrypt:1=0x21;C_Encrypt:3=0x30").unwrap();
        let submit = |one: &Vec<u8>| key.encrypt(AesEcb, one.clone()).deadline_in(LONG).submit().unwrap();
        messages.iter().map(submit).collect()
    });
    for (one, message) in encrypted.into_iter().zip(messages) {
        let cipher: Vec<u8> = one.wait().unwrap().into();
        assert_eq!(key.decrypt(AesEcb, cipher).wait().unwrap().as_ref(), message);
    }
    assert_eq!(engine.snapshot().tokens[0].merges.failures, 1);
    hsm.assert_sound();
}

#[test]
fn nothing_is_shared_where_that_is_turned_off_or_the_host_may_not_do_the_mode() {
    let hsm = hsm("");
    let encrypt = |engine: &Engine, how: Cipher| {
        let key = engine.key("aes256").unwrap();
        let before = calls(&hsm, "C_Encrypt");
        let pending = together(&hsm, engine, || {
            (0..10).map(|i| key.encrypt(how.clone(), message(i, 32)).submit().unwrap()).collect()
        });
        pending.into_iter().for_each(|one| drop(one.wait().unwrap()));
        calls(&hsm, "C_Encrypt") - before
    };
    let plain =
        hsm.builder().sessions(1).holding(false).coalescing(false).host_modes(["aes256"]).build().unwrap();
    assert_eq!(encrypt(&plain, AesEcb.into()), 10);
    assert_eq!(encrypt(&plain, AesCtr::new().into()), 10);
    let without = hsm.builder().sessions(1).holding(false).build().unwrap();
    assert_eq!(encrypt(&without, AesCtr::new().into()), 10);
    assert_eq!(encrypt(&without, AesEcb.into()), 1);
}

#[test]
fn only_a_key_that_ecb_may_use_has_host_modes() {
    let hsm = Hsm::new(1, "op_us=0,keys=mac:aes-mac");
    let engine = hsm.builder().build().unwrap();
    let refused = |name: &str| engine.key(name).unwrap().with_host_modes().unwrap_err().kind();
    assert_eq!(refused("mac"), ErrorKind::NotPermitted);
    assert_eq!(refused("hmac"), ErrorKind::KeyMismatch);
    assert!(engine.key("aes256").unwrap().with_host_modes().is_ok());
}

/// Encrypts and decrypts some blocks inline, and checks that they come back.
fn inline(key: &Key, count: u8) {
    for i in 0..count {
        let cipher: Vec<u8> = key.encrypt(AesEcb, message(i, 16)).deadline(None).wait().unwrap().into();
        assert_eq!(key.decrypt(AesEcb, cipher).deadline(Some(LONG)).wait().unwrap().as_ref(), message(i, 16));
    }
}

/// As `inline`, one way only: returns the ciphertexts.
fn encrypt_inline(key: &Key, count: u8) -> Vec<Vec<u8>> {
    (0..count).map(|i| key.encrypt(AesEcb, message(i, 16)).deadline(None).wait().unwrap().into()).collect()
}

/// Calls so far of functions that encrypt: the beginning of an operation, a whole one, a part of one.
fn encryptions(hsm: &Hsm) -> [u64; 3] {
    ["C_EncryptInit", "C_Encrypt", "C_EncryptUpdate"].map(|function| calls(hsm, function))
}

/// Parts of operations so far.
fn parts(hsm: &Hsm) -> u64 {
    calls(hsm, "C_EncryptUpdate") + calls(hsm, "C_DecryptUpdate")
}

/// How many more there are of each.
fn since<const N: usize>(now: [u64; N], before: [u64; N]) -> [u64; N] {
    std::array::from_fn(|i| now[i] - before[i])
}

/// Operations of encryption that are open: begun, and neither run whole nor ended.
fn open(hsm: &Hsm) -> u64 {
    calls(hsm, "C_EncryptInit") - calls(hsm, "C_Encrypt") - calls(hsm, "C_EncryptFinal")
}

#[test]
fn an_operation_stays_open_from_the_second_of_a_kind_on_and_ends_before_another() {
    let hsm = hsm("");
    let engine = hsm.builder().sessions(1).build().unwrap();
    let key = engine.key("aes256").unwrap();
    let functions = ["C_DecryptInit", "C_Decrypt", "C_DecryptFinal"];
    let decryptions = || functions.map(|function| calls(&hsm, function));
    let before = (encryptions(&hsm), decryptions());
    let encrypted = encrypt_inline(&key, 100);
    // On a machine that stalls for a second, one has ended in between and the next has been begun.
    let [begun, whole, in_parts] = since(encryptions(&hsm), before.0);
    assert_eq!(whole + in_parts, 100);
    assert!(begun < 10, "{begun} for 100 blocks");
    for (i, cipher) in (0..).zip(encrypted) {
        assert_eq!(key.decrypt(AesEcb, cipher).deadline(None).wait().unwrap().as_ref(), message(i, 16));
    }
    assert_eq!(open(&hsm), 0);
    engine.key("hmac").unwrap().sign(Hmac::SHA256, b"another").deadline(None).wait().unwrap();
    let [begun, whole, ended] = since(decryptions(), before.1);
    assert!(begun > whole && begun - whole == ended);
    hsm.assert_sound();
}

#[test]
fn one_that_takes_turns_with_another_is_not_held() {
    let hsm = hsm("");
    let engine = hsm.builder().sessions(1).build().unwrap();
    let key = engine.key("aes256").unwrap();
    let before = parts(&hsm);
    inline(&key, 10);
    assert_eq!(parts(&hsm), before);
}

#[test]
fn a_held_operation_ends_before_its_key_is_destroyed_and_is_not_gone_on_with() {
    let hsm = hsm("");
    let engine = hsm.builder().sessions(1).build().unwrap();
    let key = engine.generate_key("short-lived", KeySpec::Aes(32)).unwrap();
    let before = parts(&hsm);
    encrypt_inline(&key, 5);
    let held = parts(&hsm);
    assert!(held > before);
    hsm.sim.configure("hang=C_DestroyObject:1").unwrap();
    std::thread::scope(|scope| {
        let destroying = scope.spawn(|| engine.destroy_key("short-lived"));
        assert!(hsm.sim.wait_hanging(1, LONG));
        assert_eq!(open(&hsm), 0);
        hsm.sim.release_hangs();
        destroying.join().unwrap().unwrap();
    });
    key.encrypt(AesEcb, message(0, 16)).deadline(None).wait().unwrap_err();
    assert_eq!(parts(&hsm), held);
}

#[test]
fn an_operation_that_nobody_goes_on_with_ends_by_itself() {
    let hsm = hsm("");
    let engine = hsm.builder().sessions(1).build().unwrap();
    let key = engine.key("aes256").unwrap();
    let before = parts(&hsm);
    encrypt_inline(&key, 3);
    assert!(parts(&hsm) > before);
    eventually("the operation ends", || open(&hsm) == 0);
    encrypt_inline(&engine.key("aes256").unwrap(), 3);
    hsm.assert_sound();
}

#[test]
fn nothing_is_held_where_that_is_turned_off_nor_with_a_module_that_keeps_blocks_back() {
    let plain = hsm("");
    let engine = plain.builder().sessions(1).holding(false).build().unwrap();
    encrypt_inline(&engine.key("aes256").unwrap(), 10);
    assert_eq!(parts(&plain), 0);

    let back = hsm(",holds_back=1");
    let engine = back.builder().sessions(1).build().unwrap();
    let key = engine.key("aes256").unwrap();
    let before = parts(&back);
    for (i, cipher) in (0..).zip(encrypt_inline(&key, 10)) {
        assert_eq!(key.decrypt(AesEcb, cipher).deadline(None).wait().unwrap().as_ref(), message(i, 16));
    }
    // Tried once, and never again.
    assert_eq!(parts(&back) - before, 1);
}

#[test]
fn shared_calls_are_parts_of_an_operation_that_is_held() {
    let hsm = hsm("");
    let engine = hsm.builder().sessions(1).build().unwrap();
    let key = engine.key("aes256").unwrap();
    let before = encryptions(&hsm);
    let encrypted: Vec<Vec<u8>> = key
        .encrypt_many(AesEcb, (0..200).map(|i| message(i, 16)))
        .wait()
        .into_iter()
        .map(|one| one.unwrap().into())
        .collect();
    let encrypt = since(encryptions(&hsm), before);
    assert!(encrypt.iter().sum::<u64>() < 40, "{encrypt:?} for 200 messages");
    for (i, cipher) in (0..).zip(encrypted) {
        assert_eq!(key.decrypt(AesEcb, cipher).wait().unwrap().as_ref(), message(i, 16));
    }
}

#[test]
fn thousands_of_requests_are_merged_fully_within_three_turns_of_a_cold_start() {
    const SESSIONS: u64 = 8;
    let hsm = Hsm::new(1, "op_us=1000,cores=64");
    let engine = hsm.builder().sessions(8).host_modes(["aes256"]).hang_limit(LONG).build().unwrap();
    let (mac, aes) = (engine.key("hmac").unwrap(), engine.key("aes256").unwrap());
    // All sessions are busy while the requests come, or the first of them would be served before the last is there.
    hsm.sim.configure("hang=C_Sign:1+").unwrap();
    let held: Vec<_> = (0..SESSIONS).map(|_| mac.sign(Hmac::SHA256, b"held").submit().unwrap()).collect();
    assert!(hsm.sim.wait_hanging(8, LONG));
    let before = calls(&hsm, "C_Encrypt") + calls(&hsm, "C_EncryptUpdate");
    let submit = |number: u16| {
        aes.encrypt(AesCtr::new(), number.to_be_bytes().repeat(8)).deadline_in(LONG).submit().unwrap()
    };
    let waiting: Vec<_> = (0..4_096).map(submit).collect();
    hsm.sim.release_hangs();
    let sealed: Vec<Vec<u8>> = waiting.into_iter().map(|one| one.wait().unwrap().into()).collect();
    let made = calls(&hsm, "C_Encrypt") + calls(&hsm, "C_EncryptUpdate") - before;
    assert!(made <= 3 * SESSIONS, "{made} calls");
    held.into_iter().for_each(|one| drop(one.wait().unwrap()));
    for (number, plain) in (0..4_096_u16).zip(aes.decrypt_many(AesCtr::new(), &sealed).wait()) {
        assert_eq!(plain.unwrap().as_bytes(), number.to_be_bytes().repeat(8));
    }
}
