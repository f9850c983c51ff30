use std::time::UNIX_EPOCH;

use std::time::Duration;

use super::super::found::*;
use super::super::trials::TRIALS;
use super::*;
use crate::describe::kind_name;
use crate::token::facts::{Curve, KeyKind};

/// With everything in it.
pub(in crate::probe) fn profile() -> ModuleProfile {
    let text = |text: &str| text.to_owned();
    let module = ProfiledModule {
        description: text("Cryptoki library"),
        manufacturer: text("A maker"),
        version: (7, 2),
        cryptoki: (2, 40),
    };
    let (model, manufacturer) = (text("Box 9"), text("A maker"));
    let token = ProfiledToken { model, manufacturer, hardware: (1, 0), firmware: (7, 1) };
    let made = UNIX_EPOCH + Duration::from_secs(1_796_000_000);
    let mut profile = ModuleProfile::new(made, module, token);
    profile.not_reached = vec![ProbeStage::Limits];
    profile.sessions =
        Some(SessionsFound { told: Some(16), opened: 20, refused: Some(text("CKR_SESSION_COUNT")) });
    let points = [(1, 100), (8, 790)].map(|(sessions, per_second)| ScalingPoint { sessions, per_second });
    let (operation, recommended) = (text("sign-ecdsa-p256"), 8);
    profile.scaling = Some(ScalingFound { operation, recommended, points: points.into() });
    profile.gcm = Some(GcmFound {
        iv: IvFound::Replaced,
        zero_iv: Some(IvFound::Replaced),
        seen_by: SeenBy::Software,
        iv_lengths: vec![12],
        associated_data: DataFound::Authenticated,
        tag: TagFound::Behind,
        why: None,
    });
    let time = |us| Duration::from_micros(us);
    let gain = CopyGain { key: text("AES-256"), original: time(17), copy: time(6), faster: true };
    profile.copies = Some(CopiesFound { work: true, why: None, gains: vec![gain] });
    profile.limits = Some(LimitsFound {
        sign_input_max: Some(1 << 20),
        random_max: Some(1_025),
        too_small: Some(TooSmallFound::GoesOn),
        cancels: Some(false),
    });
    profile.mechanisms = TRIALS
        .iter()
        .map(|trial| MechanismFound {
            operation: text(trial.operation),
            mechanism: text("CKM_X"),
            key: trial.key.name(),
            result: ProbeResult::Works,
            why: None,
        })
        .collect();
    let (call, of) = (text("C_Sign"), text("sign-ecdsa-p256"));
    profile.costs =
        vec![CallCost { call, of, p50: Duration::from_nanos(12_300), p99: time(45), samples: 1_000 }];
    profile
}

fn refusal(text: &str) -> String {
    text.parse::<ModuleProfile>().unwrap_err().to_string()
}

#[test]
fn what_is_written_reads_back_and_says_what_it_is() {
    let text = profile().to_toml().unwrap();
    assert!(text.starts_with("# What a PKCS#11 module and its token can do"), "{text}");
    assert!(text.contains("module_profile = \"FILE\""), "{text}");
    for line in
        ["p50 = \"12us 300ns\"", "random_max = \"1025B\"", "cryptoki = \"2.40\"", "sign_input_max = \"1MiB\""]
    {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert_eq!(text.parse::<ModuleProfile>().unwrap(), profile());
}

#[test]
fn what_was_not_found_is_left_out_and_may_be_removed() {
    let ModuleProfile { made, module, token, .. } = profile();
    let least = ModuleProfile::new(made, module, token);
    let text = least.to_toml().unwrap();
    assert!(!text.contains("[gcm]") && !text.contains("[[mechanism]]"), "{text}");
    assert_eq!(text.parse::<ModuleProfile>().unwrap(), least);
}

#[test]
fn errors_say_line_and_column() {
    let text = profile().to_toml().unwrap();
    let at = |part: &str| {
        let before = &text[..text.find(part).unwrap()];
        let column = before.rsplit('\n').next().unwrap().chars().count() + 1;
        (before.matches('\n').count() + 1, column)
    };
    for (part, wrong, said) in [
        ("\"sign-ed25519\"", "\"sign-rot13\"", "no such operation"),
        ("\"AES-256\"", "\"ROT-13\"", "a kind of key"),
        ("\"12us 300ns\"", "\"soon\"", "a duration"),
        ("\"1025B\"", "\"some\"", "a size"),
        ("\"2.40\"", "\"2\"", "a version"),
        ("opened", "openend", "unknown field `openend`"),
        ("\"goes-on\"", "\"stays\"", "another value is expected here"),
    ] {
        let (line, column) = at(part);
        let error = refusal(&text.replacen(part, wrong, 1));
        assert!(error.contains(&format!("{line}:{column}: {said}")), "{part}: {error}");
    }
}

#[test]
fn a_file_of_another_format_is_said_to_be_one_whatever_else_is_in_it() {
    let error = refusal("format = 2\nnew = true");
    assert!(error.contains("1:10: format 2 is not known here, only 1: probe again"), "{error}");
    assert!(refusal("").contains("missing field `format`"));
}

#[test]
fn a_file_is_named_in_errors_and_is_written_whole_in_place_of_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hsm.toml");
    std::fs::write(&path, "format = 3").unwrap();
    let error = ModuleProfile::read(&path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(error.to_string().contains("hsm.toml:1:10: "), "{error}");
    profile().write(&path).unwrap();
    assert_eq!(ModuleProfile::read(&path).unwrap(), profile());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    let nowhere = folder.path().join("none/hsm.toml");
    assert!(profile().write(&nowhere).unwrap_err().to_string().contains("none/hsm.toml"));
}

#[test]
fn kinds_of_keys_are_read_as_they_are_written() {
    let kinds = [
        KeyKind::Rsa { bits: 3072 },
        KeyKind::Ec(Curve::P384),
        KeyKind::Ed25519,
        KeyKind::Aes { len: 16 },
        KeyKind::TripleDes { len: 24 },
        KeyKind::Generic { len: 64 },
    ];
    for kind in kinds {
        assert_eq!(kind_named(&kind_name(kind)), Some(kind));
    }
    for wrong in ["other", "AES", "AES-", "EC P-255", "RSA-x", ""] {
        assert_eq!(kind_named(wrong), None, "{wrong}");
    }
}
