use super::super::finding::Level;
use super::device::{judge_devices, judge_twice};
use super::*;
use crate::exit::Exit;

fn good() -> Token {
    let mut flags = TokenFlags::default();
    (flags.initialised, flags.login_required, flags.user_pin_initialised) = (true, true, true);
    Token {
        label: "pay-1".into(),
        serial: "01".into(),
        model: "box".into(),
        slot: 3,
        flags,
        ..Token::default()
    }
}

fn seen(tokens: Vec<Token>, uninitialised: Vec<Token>, names: Vec<Name>) -> Seen {
    let setting = Setting { asks_at_token: Some(false), consents: false, module: "/m.so".to_owned() };
    Seen { tokens, uninitialised, unreadable: Vec::new(), names, setting }
}

fn name(tokens: &[usize], uninitialised: &[usize]) -> Name {
    let (said, label) = ("pay-1".to_owned(), Some("pay-1".to_owned()));
    let (tokens, uninitialised) = (tokens.to_vec(), uninitialised.to_vec());
    Name { said, label, tokens, uninitialised, ..Name::default() }
}

#[test]
fn nothing_is_wrong_with_a_token_that_is_as_it_should_be() {
    let findings = judge(&seen(vec![good()], Vec::new(), vec![name(&[0], &[])]));
    assert!(findings.iter().all(|finding| finding.level == Level::Ok), "{findings:?}");
    assert_eq!(findings.len(), 7);
}

#[test]
fn a_name_is_one_tokens_or_a_problem_that_says_which_there_are() {
    let blank = || Token { slot: 9, ..Token::default() };
    let judge = |tokens: Vec<Token>, uninitialised: Vec<Token>, name: Name| {
        let seen = seen(tokens, uninitialised, vec![name.clone()]);
        judge_name(&seen, &name)
    };
    let missing = judge(vec![good()], vec![blank()], name(&[], &[]));
    assert_eq!((missing.check, missing.level), ("token.present", Level::Problem));
    assert!(missing.what.contains("present are: pay-1; slot 9 holds a token that is not"), "{missing:?}");
    assert!(missing.advice.unwrap().starts_with("correct the name"));
    let none = judge(Vec::new(), vec![blank()], name(&[], &[]));
    assert!(none.advice.unwrap().contains("--module /m.so --slot 9 --init-token --label pay-1"));
    let uninitialised = judge(vec![good()], vec![blank()], name(&[], &[0]));
    assert_eq!((uninitialised.check, uninitialised.exit), ("token.initialised", Exit::Token));
    let other = Token { serial: "02".into(), slot: 4, ..good() };
    let several = judge(vec![good(), other], Vec::new(), name(&[0, 1], &[]));
    assert!(several.what.contains("serial 01, slot 3") && several.what.contains("serial 02, slot 4"));
    let any = judge(vec![good(), good()], Vec::new(), Name::of_any(2, Vec::new()));
    assert!(any.what.starts_with("none is named, and there are several tokens: pay-1 "), "{any:?}");
    let nothing = judge(Vec::new(), Vec::new(), Name::of_any(0, Vec::new()));
    assert_eq!(nothing.what, "there is no token; present are: none");
    // The engine finds two as well.
    let both = judge(vec![good()], vec![blank()], name(&[0], &[0]));
    assert_eq!(both.level, Level::Problem);
    assert!(
        both.what.ends_with("pay-1 (serial 01, slot 3), one that is not initialised (slot 9)"),
        "{both:?}"
    );
    let wrong = Name { wrong: Some("no URI".into()), ..Name::default() };
    assert!(judge(vec![good()], Vec::new(), wrong).what.contains("no URI"));
}

#[test]
fn only_tokens_that_are_named_without_a_doubt_are_looked_at_and_each_once() {
    let other = Token { label: "pay-2".into(), serial: "02".into(), ..good() };
    let names = vec![name(&[], &[]), name(&[1], &[]), name(&[0, 1], &[]), name(&[1], &[])];
    let seen = seen(vec![good(), other], Vec::new(), names);
    assert_eq!(seen.chosen().map(Token::said).collect::<Vec<_>>(), ["pay-2"]);
    assert_eq!(seen.logins(), [LoginAt { name: 1, token: 1, twin: None }]);
    let twice = judge_twice(&seen).unwrap();
    assert!(twice.level == Level::Problem && twice.what == "pay-2 is named twice", "{twice:?}");
}

#[test]
fn two_tokens_of_one_serial_number_are_one_device() {
    let other = Token { label: "pay-2".into(), slot: 4, ..good() };
    let same = judge_devices(&[&good(), &other]).unwrap();
    assert!(
        same.level == Level::Problem && same.what.contains("pay-1 (slot 3) and pay-2 (slot 4)"),
        "{same:?}"
    );
    let other_make = Token { manufacturer: "another".into(), ..other };
    let alike = judge_devices(&[&good(), &other_make]).unwrap();
    assert!(alike.level == Level::Warning && alike.what.contains("the same serial number, 01"), "{alike:?}");
    let untold = || Token { serial: String::new(), ..good() };
    assert_eq!(judge_devices(&[&untold(), &untold()]).unwrap().level, Level::Ok);
    assert!(judge_devices(&[&good()]).is_none());
}

#[test]
fn one_device_is_logged_in_to_once_in_whatever_slots_it_is() {
    let other = Token { label: "pay-2".into(), slot: 4, ..good() };
    let seen = seen(vec![good(), other], Vec::new(), vec![name(&[0], &[]), name(&[1], &[])]);
    let twins: Vec<_> = seen.logins().iter().map(|login| login.twin).collect();
    assert_eq!(twins, [None, Some(0)]);
}

#[test]
fn the_only_token_that_can_be_read_is_not_taken_for_the_only_one() {
    for said in ["", "the URI"] {
        let name = Name { said: said.to_owned(), unreadable: vec![5], ..name(&[0], &[]) };
        let seen = seen(vec![good()], Vec::new(), vec![name.clone()]);
        let finding = judge_name(&seen, &name);
        assert!(
            finding.level == Level::Problem && finding.what.contains("slot 5 may hold another"),
            "{finding:?}"
        );
        assert!(seen.logins().is_empty() && seen.chosen().next().is_none());
    }
}

#[test]
fn a_token_that_a_uri_names_is_not_labelled_with_the_uri() {
    let seen = seen(Vec::new(), vec![Token { slot: 9, ..Token::default() }], Vec::new());
    let name = |label: Option<&str>| Name {
        said: "the URI".into(),
        label: label.map(str::to_owned),
        ..Name::default()
    };
    assert!(initialise(&seen, 9, &name(Some("pay 1"))).contains("--label 'pay 1',"));
    assert!(initialise(&seen, 9, &name(None)).contains("--label LABEL,"));
}

#[test]
fn slots_that_hold_no_token_for_use_are_told() {
    let mut seen = seen(vec![good()], vec![Token { slot: 9, ..Token::default() }], Vec::new());
    seen.unreadable.push((5, "CKR_DEVICE_ERROR".into()));
    let findings = judge_slots(&seen);
    assert_eq!((findings[0].level, findings[1].level), (Level::Ok, Level::Warning));
    assert!(findings[0].what.starts_with("slot 9") && findings[1].what.starts_with("slot 5"), "{findings:?}");
}
