//! Probing a module, and engines that have its profile: what is listed and fails is found, and refused at once.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails its test")]

use std::time::Duration;

use hsmux::probe::{
    DataFound, IvFound, ModuleProfile, Probe, ProbeResult, ProbeStage, SeenBy, TagFound, TooSmallFound,
};
use hsmux::{AesCbc, AesEcb, AesGcm, Copies, Ecdsa, Ed25519, ErrorKind, Hmac, Outcome, Sessions, Verdict};
use hsmux_tests::{Hsm, LONG};

/// Time enough on a loaded machine.
const TIME: Duration = Duration::from_secs(600);

/// A key of the probe, as rules of the simulator name it.
fn key(of: &str) -> String {
    let id: String = format!("hsmux-probe-{of}").bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("@/0x{id}")
}

fn probe(hsm: &Hsm) -> ModuleProfile {
    Probe::new(hsm.builder()).time_limit(TIME).run(|_| ()).unwrap()
}

fn result(profile: &ModuleProfile, operation: &str) -> ProbeResult {
    profile.mechanism(operation).unwrap().result
}

#[track_caller]
fn why(profile: &ModuleProfile, operation: &str) -> String {
    assert_eq!(result(profile, operation), ProbeResult::ListedButFails, "{operation}");
    profile.mechanism(operation).unwrap().why.clone().unwrap()
}

/// A profile with another text in it.
fn altered(profile: &ModuleProfile, from: &str, to: &str) -> ModuleProfile {
    let text = profile.to_toml().unwrap();
    assert!(text.contains(from), "{from}: {text}");
    text.replace(from, to).parse().unwrap()
}

#[test]
fn a_sound_module_is_found_to_be_one_and_nothing_is_left_open() {
    let mut hsm = Hsm::new(1, "seed=901,sessions=20");
    let mut stages = Vec::new();
    let profile = Probe::new(hsm.builder())
        .time_limit(TIME)
        .run(|progress| {
            assert!(progress.done < progress.of, "{progress:?}");
            if stages.last() != Some(&progress.stage) {
                stages.push(progress.stage);
            }
        })
        .unwrap();
    assert_eq!(stages, ProbeStage::ALL);
    assert_eq!(profile.not_reached, []);
    let bad = |result| !matches!(result, ProbeResult::Works);
    let failed: Vec<_> = profile.mechanisms.iter().filter(|found| bad(found.result)).collect();
    assert!(failed.is_empty(), "{failed:?}");
    assert_eq!(profile.mechanism("encrypt-3des-cbc").unwrap().mechanism, "CKM_DES3_CBC");
    let gcm = profile.gcm.as_ref().unwrap();
    assert_eq!((gcm.iv, gcm.seen_by, gcm.tag), (IvFound::Used, SeenBy::Software, TagFound::Behind));
    assert_eq!((&gcm.iv_lengths[..], gcm.associated_data), (&[12, 16][..], DataFound::Authenticated));
    let sessions = profile.sessions.as_ref().unwrap();
    assert_eq!((sessions.told, sessions.opened), (Some(20), 20));
    assert_eq!(sessions.refused.as_deref(), Some("CKR_SESSION_COUNT"));
    let limits = profile.limits.as_ref().unwrap();
    assert_eq!((limits.sign_input_max, limits.random_max), (Some(1 << 20), Some(1 << 20)));
    assert_eq!(limits.too_small, Some(TooSmallFound::GoesOn));
    assert!(profile.copies.as_ref().unwrap().work && profile.copies.as_ref().unwrap().gains.is_empty());
    let calls: Vec<_> = profile.costs.iter().map(|cost| (cost.call.as_str(), cost.of.as_str())).collect();
    let expected = [
        ("C_SignInit", "sign-ecdsa-p256, session key"),
        ("C_Sign", "sign-ecdsa-p256, session key"),
        ("C_EncryptInit", "encrypt-aes-gcm, 64 bytes, session key"),
        ("C_Encrypt", "encrypt-aes-gcm, 64 bytes, session key"),
        ("C_OpenSession and C_CloseSession", "a session"),
        ("C_FindObjectsInit to C_FindObjectsFinal", "a label that is not there"),
        ("C_GetAttributeValue", "the class of a session key"),
        ("C_GenerateRandom", "32 bytes"),
    ];
    assert_eq!(calls, expected);
    assert_eq!(profile.scaling.as_ref().unwrap().points.len(), 5);
    hsm.assert_sound();
    hsm.refused = 2;
    hsm.wait_closed();
}

#[test]
fn a_token_with_few_sessions_is_measured_with_those_it_has() {
    let hsm = Hsm::new(1, "seed=902,sessions=7");
    let profile = probe(&hsm);
    assert_eq!(profile.sessions.unwrap().opened, 7);
    let points: Vec<_> = profile.scaling.unwrap().points.iter().map(|point| point.sessions).collect();
    assert_eq!(points, [1, 2, 4]);
}

#[test]
fn what_is_listed_and_fails_is_named_and_an_engine_that_knows_refuses_it_without_a_call() {
    let fault = format!("C_SignInit:1+=0x70{}", key("ed25519"));
    let hsm = Hsm::new(1, &format!("seed=903,keys=ed:ed25519,fault={fault}"));
    let profile = probe(&hsm);
    assert_eq!(why(&profile, "sign-ed25519"), "C_SignInit answered CKR_MECHANISM_INVALID");
    assert_eq!(result(&profile, "sign-ecdsa-p256"), ProbeResult::Works);
    // Its own key would sign.
    let ignorant = hsm.builder().build().unwrap();
    ignorant.key("ed").unwrap().sign(Ed25519, b"message").wait().unwrap();
    drop(ignorant);
    let engine = hsm.builder().module_profile(profile).build().unwrap();
    let (ed, p256) = (engine.key("ed").unwrap(), engine.key("p256").unwrap());
    let before = hsm.calls();
    let error = ed.sign(Ed25519, b"message").wait().unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::MechanismUnavailable, Outcome::NotDone));
    assert!(error.to_string().contains("module profile"), "{error}");
    assert_eq!(hsm.calls(), before, "the module was called");
    p256.sign(Ecdsa::P256_SHA256, b"message").wait().unwrap();
    assert_eq!(engine.drain(LONG), 0);
}

#[test]
fn a_wrong_answer_is_a_failure_and_one_that_happens_once_is_none() {
    let rules = [
        format!("C_Sign:1+=flip{}", key("p256")),
        format!("C_Sign:1+=flip{}", key("hmac")),
        format!("C_Decrypt:1+=flip{}", key("3des")),
        format!("C_Decrypt:1+=0x70{}", key("rsa-decryption")),
        format!("C_Sign:1=flip{}", key("p384")),
        format!("C_EncryptInit:1=0x30{}", key("aes")),
        format!("C_SignInit:1+=0x31{}", key("rsa")),
    ];
    let hsm = Hsm::new(1, &format!("seed=904,fault={}", rules.join(";")));
    let profile = probe(&hsm);
    assert!(why(&profile, "sign-ecdsa-p256").contains("does not fit the public key"));
    assert!(why(&profile, "sign-hmac-sha256").contains("does not accept what it has made"));
    // Nobody knows which of the two is wrong.
    assert!(why(&profile, "encrypt-3des-ecb").contains("comes out otherwise"));
    assert!(why(&profile, "decrypt-3des-ecb").contains("comes out otherwise"));
    assert!(why(&profile, "decrypt-rsa-pkcs1").contains("C_Decrypt answered CKR_MECHANISM_INVALID"));
    for once in ["sign-ecdsa-p384", "encrypt-aes-gcm", "decrypt-aes-gcm"] {
        assert_eq!(result(&profile, once), ProbeResult::Works, "{once}");
    }
    // It is full, and may have room again in a moment.
    assert_eq!(result(&profile, "sign-rsa-pss"), ProbeResult::NotTried);
    assert_eq!(profile.scaling.unwrap().operation, "sign-ed25519", "the first that works");
}

#[test]
fn what_is_not_listed_is_told_from_what_fails() {
    // CKM_AES_GCM and CKM_EDDSA are not there.
    let hsm = Hsm::new(1, "seed=905,hide=0x1087;0x1057");
    let profile = probe(&hsm);
    for operation in ["encrypt-aes-gcm", "decrypt-aes-gcm", "sign-ed25519"] {
        assert_eq!(result(&profile, operation), ProbeResult::NotOffered, "{operation}");
    }
    assert_eq!(profile.gcm, None);
}

#[test]
fn cbc_that_fails_is_served_by_padding_on_the_token_and_refused_without_padding() {
    let hsm = Hsm::new(1, "seed=906");
    let works = |operation: &str| {
        format!(
            "operation = \"{operation}\"\nmechanism = \"CKM_AES_CBC\"\nkey = \"AES-256\"\nresult = \"works\""
        )
    };
    let mut profile = probe(&hsm);
    for operation in ["encrypt-aes-cbc", "decrypt-aes-cbc"] {
        let fails = works(operation).replace("\"works\"", "\"listed-but-fails\"");
        profile = altered(&profile, &works(operation), &fails);
    }
    let engine = hsm.builder().module_profile(profile).build().unwrap();
    let key = engine.key("aes256").unwrap();
    let error = key.encrypt(AesCbc::new().unpadded(), &[7; 32]).wait().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::MechanismUnavailable);
    let sealed = key.encrypt(AesCbc::new(), b"padded by the token").wait().unwrap();
    assert_eq!(key.decrypt(AesCbc::new(), sealed.as_ref()).wait().unwrap().as_ref(), b"padded by the token");
    key.encrypt(AesEcb, &[7; 32]).wait().unwrap();
    assert_eq!(engine.drain(LONG), 0);
}

#[test]
fn auto_sessions_begin_with_what_was_recommended() {
    let hsm = Hsm::new(1, "seed=907,sessions=20");
    let profile = probe(&hsm);
    let recommended = format!("recommended = {}", profile.scaling.as_ref().unwrap().recommended);
    for wanted in [3, 9] {
        let profile = altered(&profile, &recommended, &format!("recommended = {wanted}"));
        let engine = hsm.builder().sessions(Sessions::AUTO).module_profile(profile).build().unwrap();
        let scope = &engine.snapshot().scopes[0];
        // Three quarters of the twenty, without the engine's own two.
        assert_eq!((scope.in_use, scope.ceiling), (wanted, 13));
        assert_eq!(engine.drain(LONG), 0);
    }
}

#[test]
fn auto_copies_follow_what_was_measured_and_measure_nothing() {
    let hsm = Hsm::new(1, "seed=908");
    let profile = Probe::new(hsm.builder()).time_limit(TIME).token_keys(true).run(|_| ()).unwrap();
    let copies = profile.copies.as_ref().unwrap();
    let kinds: Vec<_> = copies.gains.iter().map(|gain| gain.key.as_str()).collect();
    assert!(kinds.contains(&"AES-256") && kinds.contains(&"EC P-256"), "{kinds:?}");
    let text = profile.to_toml().unwrap();
    for (faster, made) in [(true, 1), (false, 0)] {
        let text = text.replace(&format!("faster = {}", !faster), &format!("faster = {faster}"));
        let profile = text.parse::<ModuleProfile>().unwrap();
        let engine = hsm.builder().copies(Copies::Auto).module_profile(profile).build().unwrap();
        hsm.sim.reset_counters();
        let key = engine.key("hmac").unwrap();
        assert_eq!((hsm.sim.calls_of("C_CopyObject"), hsm.sim.calls_of("C_Sign")), (made, 0), "{faster}");
        let mac = key.sign(Hmac::SHA256, b"message").wait().unwrap();
        assert_eq!(key.verify(Hmac::SHA256, b"message", mac.as_ref()).wait().unwrap(), Verdict::Valid);
        assert_eq!(engine.drain(LONG), 0);
    }
    let without = altered(&profile, "work = true", "work = false");
    let engine = hsm.builder().copies(Copies::Auto).module_profile(without).build().unwrap();
    hsm.sim.reset_counters();
    engine.key("hmac").unwrap();
    assert_eq!(hsm.sim.calls_of("C_CopyObject"), 0);
}

#[test]
fn a_profile_of_another_module_is_refused_before_any_login_and_one_of_another_version_is_not() {
    let hsm = Hsm::new(1, "seed=909");
    let profile = probe(&hsm);
    hsm.sim.reset_counters();
    let token = |of: &str| format!("[token]\nmodel = \"p11-sim\"\nmanufacturer = \"{of}\"");
    let maker = profile.token.manufacturer.clone();
    for (from, to) in [
        ("simulated HSM", "another HSM"),
        ("model = \"p11-sim\"", "model = \"box 9\""),
        (&token(&maker), &token("nobody")),
    ] {
        let error = hsm.builder().module_profile(altered(&profile, from, to)).build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        let both = match to {
            "another HSM" => ["another HSM", "simulated HSM"],
            "model = \"box 9\"" => ["box 9", "p11-sim"],
            _ => ["p11-sim of nobody", &format!("p11-sim of {maker}")],
        };
        both.iter().for_each(|name| assert!(error.to_string().contains(name), "{error}"));
    }
    assert_eq!(hsm.sim.calls_of("C_Login"), 0);
    let older = altered(&profile, "version = \"0.1\"", "version = \"0.0\"");
    assert_eq!(hsm.builder().module_profile(older).build().unwrap().drain(LONG), 0);
}

#[test]
fn what_there_is_no_time_for_is_named() {
    let hsm = Hsm::new(1, "seed=910");
    let profile = Probe::new(hsm.builder()).time_limit(Duration::from_nanos(1)).run(|_| ()).unwrap();
    assert_eq!(profile.not_reached, ProbeStage::ALL);
    assert!(profile.mechanisms.is_empty() && profile.sessions.is_none());
    hsm.assert_sound();
    hsm.wait_closed();
}

#[test]
fn a_wrong_pin_is_sent_once_and_a_token_that_goes_ends_the_probe() {
    let hsm = Hsm::new(1, "seed=911");
    let error = Probe::new(hsm.builder().pin("0000")).run(|_| ()).unwrap_err();
    assert_eq!((error.kind(), hsm.sim.calls_of("C_Login")), (ErrorKind::PinRefused, 1));
    let lost = Hsm::new(1, "seed=912,fault=C_Encrypt:1=removed");
    let error = Probe::new(lost.builder()).run(|_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TokenLost);
    let two = Hsm::new(2, "seed=913");
    let error = Probe::new(two.builder()).run(|_| ()).unwrap_err();
    assert_eq!((error.kind(), two.sim.calls_of("C_Login")), (ErrorKind::Configuration, 0));
}

#[test]
fn a_module_that_chooses_the_iv_itself_is_found_out_and_gcm_is_refused_at_once() {
    let hsm = Hsm::new(1, "seed=914,interface=2.40,own_iv=1");
    let profile = probe(&hsm);
    let gcm = profile.gcm.as_ref().unwrap();
    assert_eq!((gcm.iv, gcm.zero_iv), (IvFound::Replaced, Some(IvFound::Replaced)));
    assert!(gcm.iv_lengths.is_empty(), "{gcm:?}");
    assert!(why(&profile, "encrypt-aes-gcm").contains("an IV of its own choice"));
    let engine = hsm.builder().module_profile(profile).build().unwrap();
    let key = engine.key("aes256").unwrap();
    let before = hsm.calls();
    let error = key.encrypt(AesGcm::new(), b"message").wait().unwrap_err();
    assert_eq!((error.kind(), hsm.calls()), (ErrorKind::MechanismUnavailable, before));
    assert_eq!(engine.drain(LONG), 0);
}

#[test]
fn a_module_that_ignores_ivs_both_ways_is_found_out_and_refused_at_once() {
    let hsm = Hsm::new(1, "seed=915,interface=2.40,own_iv=2");
    let profile = probe(&hsm);
    let gcm = profile.gcm.as_ref().unwrap();
    assert_eq!((gcm.iv, gcm.zero_iv), (IvFound::Ignored, Some(IvFound::Ignored)));
    for way in ["encrypt", "decrypt"] {
        assert!(why(&profile, &format!("{way}-aes-gcm")).contains("under another IV"));
        for mode in ["aes-cbc", "aes-cbc-pad", "aes-ctr", "3des-cbc", "3des-cbc-pad"] {
            assert!(why(&profile, &format!("{way}-{mode}")).contains("the IV makes no difference"), "{mode}");
        }
        assert_eq!(result(&profile, &format!("{way}-aes-ecb")), ProbeResult::Works);
    }
    let engine = hsm.builder().module_profile(profile).build().unwrap();
    let key = engine.key("aes256").unwrap();
    let before = hsm.calls();
    let error = key.encrypt(AesGcm::new(), b"message").wait().unwrap_err();
    assert_eq!((error.kind(), hsm.calls()), (ErrorKind::MechanismUnavailable, before));
    assert_eq!(engine.drain(LONG), 0);
}

#[test]
fn what_fails_on_a_device_that_does_nothing_else_either_is_not_held_against_a_mechanism() {
    let hsm = Hsm::new(1, "seed=916,fault=C_SignInit:1+=0x30");
    let profile = probe(&hsm);
    assert!(why(&profile, "sign-rsa-pss").contains("CKR_DEVICE_ERROR"), "it gives random bytes");
    let ill = Hsm::new(1, "seed=917,fault=C_SignInit:1+=0x30;C_GenerateRandom:1+=0x30");
    let profile = probe(&ill);
    assert_eq!(result(&profile, "sign-rsa-pss"), ProbeResult::NotTried);
    assert_eq!(result(&profile, "encrypt-aes-gcm"), ProbeResult::Works);
}

#[test]
fn a_failure_has_to_come_each_time_and_at_the_end_again() {
    let rules = [
        format!("C_Sign:1=flip{}", key("p521")),
        format!("C_Sign:2=flip{}", key("p521")),
        format!("C_SignInit:1=0x31{}", key("p384")),
        format!("C_SignInit:2=0x70{}", key("p384")),
        format!("C_SignInit:1+=0x62{}", key("ed25519")),
        format!("C_SignInit:1+=0x68{}", key("hmac")),
    ];
    let hsm = Hsm::new(1, &format!("seed=918,fault={}", rules.join(";")));
    let profile = probe(&hsm);
    assert_eq!(result(&profile, "sign-ecdsa-p521"), ProbeResult::Works, "the third time it was right");
    assert_eq!(result(&profile, "sign-ecdsa-p384"), ProbeResult::NotTried, "it failed once");
    // The key is at fault, not the mechanism.
    assert_eq!(result(&profile, "sign-ed25519"), ProbeResult::NotTried);
    assert_eq!(result(&profile, "sign-hmac-sha256"), ProbeResult::NotTried);
}

#[test]
fn only_sessions_that_are_refused_twice_for_their_number_are_a_limit() {
    // Of the eight before two were closed again, and one is closed to see whether it comes back.
    for (fault, opened, refused) in [
        ("C_OpenSession:9=0xb1", 20, None),
        ("C_OpenSession:9+=0x5", 6, Some("CKR_GENERAL_ERROR")),
        ("C_OpenSession:9+=0xb1", 5, Some("CKR_SESSION_COUNT")),
    ] {
        // Without AES-GCM nothing is refused, after which a session is opened.
        let hsm = Hsm::new(1, &format!("seed=919,hide=0x1087,fault={fault}"));
        let profile = Probe::new(hsm.builder()).time_limit(TIME).sessions_max(20).run(|_| ()).unwrap();
        let sessions = profile.sessions.as_ref().unwrap();
        assert_eq!((sessions.opened, sessions.refused.as_deref()), (opened, refused), "{fault}");
    }
}

#[test]
fn two_cores_are_found_by_the_rate_and_a_refusal_that_comes_once_does_not_count() {
    // Operations so long that a loaded host adds little to them: while one waits for its thread another keeps the core busy.
    let hsm = Hsm::new(1, "seed=920,cores=2,op_us=30000");
    let refusing = std::sync::atomic::AtomicBool::new(false);
    let profile = Probe::new(hsm.builder())
        .time_limit(Duration::from_secs(90))
        .run(|progress| {
            let scales = progress.stage == ProbeStage::Scaling;
            if scales && !refusing.swap(true, std::sync::atomic::Ordering::Relaxed) {
                hsm.sim.configure("fault=C_OpenSession:5=0xb1").unwrap();
            }
        })
        .unwrap();
    // What occupies a core takes as long as that, and Init does not.
    let p50 = |call| profile.costs.iter().find(|cost| cost.call == call).unwrap().p50;
    let op = Duration::from_millis(30);
    assert!(p50("C_Sign") >= op && p50("C_Encrypt") >= op && p50("C_SignInit") < op, "{:?}", profile.costs);
    let scaling = profile.scaling.unwrap();
    let counts: Vec<_> = scaling.points.iter().map(|point| point.sessions).collect();
    assert_eq!(counts, [1, 2, 4, 8, 16]);
    assert!([2, 4].contains(&scaling.recommended), "{scaling:?}");
}

#[test]
fn a_stage_that_is_cut_short_is_named_and_what_it_found_is_kept() {
    // A key and a signature take longer than the half of the time that there is for mechanisms.
    let hsm = Hsm::new(1, "seed=921,op_us=30000");
    let profile = Probe::new(hsm.builder()).time_limit(Duration::from_millis(100)).run(|_| ()).unwrap();
    assert!(profile.not_reached.contains(&ProbeStage::Mechanisms), "{:?}", profile.not_reached);
    let last = profile.mechanism("decrypt-rsa-pkcs1").unwrap();
    assert_eq!((last.result, last.why.as_deref()), (ProbeResult::NotTried, Some("the time was up")));
    // The way there and back takes ten turns of 150 ms, and has a sixth of the time.
    let hsm = Hsm::new(1, "seed=922");
    let profile = Probe::new(hsm.builder()).time_limit(Duration::from_secs(6)).run(|_| ()).unwrap();
    assert!(profile.not_reached.contains(&ProbeStage::Scaling), "{:?}", profile.not_reached);
}

#[test]
fn a_probe_that_is_stopped_ends_and_leaves_nothing_open() {
    let hsm = Hsm::new(1, "seed=923");
    let error = Probe::new(hsm.builder()).time_limit(TIME).stop_when(|| true).run(|_| ()).unwrap_err();
    assert_eq!((error.kind(), hsm.sim.calls_of("C_GenerateKeyPair")), (ErrorKind::Draining, 0));
    hsm.assert_sound();
    hsm.wait_closed();
}

#[test]
fn a_session_that_is_not_there_any_more_is_not_closed() {
    let fault = format!("C_SignInit:1=0xb3{}", key("ed25519"));
    let hsm = Hsm::new(1, &format!("seed=924,fault={fault}"));
    let profile = Probe::new(hsm.builder()).time_limit(TIME).sessions_max(8).run(|_| ()).unwrap();
    assert_eq!(result(&profile, "sign-ed25519"), ProbeResult::Works, "another took its place");
    let [opened, closed] = ["C_OpenSession", "C_CloseSession"].map(|call| hsm.sim.calls_of(call));
    assert_eq!(opened, closed + 1);
}
