use super::super::finding::Level;
use super::named::{judge_canary, judge_host_modes};
use super::*;

fn done(ms: u64) -> Operation {
    Operation::Done { key: "k".into(), what: "signed", time: Duration::from_millis(ms) }
}

fn login(outcome: Outcome) -> Login {
    Login { token: "pay-1".into(), outcome }
}

fn inside(keys: usize, canary: Option<Held>, operation: Operation) -> Login {
    login(Outcome::In { keys, canary, host_modes: Vec::new(), operation })
}

fn levels(findings: &[Finding]) -> Vec<(&'static str, Level)> {
    findings.iter().map(|finding| (finding.check, finding.level)).collect()
}

#[test]
fn a_login_that_went_well_shows_keys_and_how_long_one_takes() {
    let findings = judge(&[inside(2, None, done(3))], None);
    let expected =
        ["login.pin", "login.keys", "login.canary", "login.operation"].map(|check| (check, Level::Ok));
    assert_eq!(levels(&findings), expected);
    assert!(findings[3].what.contains("pay-1 signed with key k in 3.0 ms"), "{findings:?}");
}

#[test]
fn a_login_that_failed_ends_with_its_class_and_the_rest_is_skipped() {
    let failed = login(Outcome::Failed { exit: Exit::Pin, why: "refused".into() });
    let untried =
        Login { token: "pay-2".into(), outcome: Outcome::Untried(Untried::Refused("pay-1".into())) };
    let findings = judge(&[failed, untried], Some("canary"));
    let expected = [
        ("login.pin", Level::Problem),
        ("login.pin", Level::Skipped),
        ("login.canary", Level::Skipped),
        ("login.operation", Level::Skipped),
        ("login.operation", Level::Skipped),
    ];
    assert_eq!(levels(&findings), expected);
    assert_eq!(findings[0].exit, Exit::Pin);
    assert_eq!(levels(&judge(&[], None)), [("login.pin", Level::Skipped)]);
}

fn there(proof: u8) -> Held {
    Held::There(Some(vec![proof]))
}

fn unfit() -> Held {
    Held::Unfit { exit: Exit::Operation, why: "it only decrypts".into() }
}

#[test]
fn a_canary_key_must_be_somewhere_and_should_be_everywhere() {
    let of = |canaries: &[Held]| {
        let logins: Vec<_> = canaries.iter().map(|held| inside(1, Some(held.clone()), done(1))).collect();
        judge_canary(&logins, Some("canary"))
    };
    let same = of(&[there(1), there(1)]);
    assert!(same.level == Level::Ok && !same.what.contains("not compared"), "{same:?}");
    let half = of(&[there(1), Held::Missing]);
    assert!(half.level == Level::Warning && half.what.contains("not on pay-1"), "{half:?}");
    let none = of(&[Held::Missing]);
    assert_eq!((none.level, none.exit), (Level::Problem, Exit::Key));
    let unknown = of(&[there(1), Held::There(None)]);
    assert!(unknown.level == Level::Ok && unknown.what.contains("was not compared"), "{unknown:?}");
    assert!(!of(&[Held::There(None)]).what.contains("not compared"), "there is nothing to compare it with");
}

#[test]
fn a_canary_key_that_does_not_fit_or_is_two_keys_keeps_engines_from_starting() {
    let of = |canaries: &[Held]| {
        let logins: Vec<_> = canaries.iter().map(|held| inside(1, Some(held.clone()), done(1))).collect();
        judge_canary(&logins, Some("canary"))
    };
    let two = of(&[there(1), Held::There(None), there(2)]);
    assert_eq!((two.level, two.exit), (Level::Problem, Exit::Key));
    let bad = of(&[there(1), unfit()]);
    assert_eq!((bad.level, bad.exit), (Level::Problem, Exit::Operation));
    assert!(bad.what.contains("it only decrypts"), "{bad:?}");
}

#[test]
fn a_canary_key_may_be_on_a_token_that_was_not_logged_in_to() {
    let untried = Login { token: "pay-2".into(), outcome: Outcome::Untried(Untried::NoPin) };
    let finding = judge_canary(&[inside(1, Some(Held::Missing), done(1)), untried], Some("canary"));
    assert_eq!(finding.level, Level::Warning, "{finding:?}");
}

#[test]
fn each_key_of_host_modes_is_told_and_one_that_no_engine_takes_is_a_problem() {
    let of = |on: &[Held]| {
        let host = |held: &Held| Outcome::In {
            keys: 1,
            canary: None,
            host_modes: vec![("vault".into(), held.clone())],
            operation: done(1),
        };
        let logins: Vec<_> = on.iter().map(|held| login(host(held))).collect();
        judge_host_modes(&logins).remove(0)
    };
    assert_eq!(of(&[there(1), Held::Missing]).level, Level::Ok);
    assert!(of(&[there(1), there(1)]).what.contains("was not compared"));
    assert_eq!(of(&[Held::Missing, Held::Missing]).level, Level::Problem);
    let bad = of(&[there(1), unfit()]);
    assert_eq!((bad.level, bad.exit), (Level::Problem, Exit::Operation));
}

#[test]
fn why_no_pin_was_sent_is_said_as_it_is() {
    for (untried, words) in [
        (Untried::Refused("pay-1".into()), "another token has refused it, pay-1"),
        (Untried::OnRecord("pay-1".into()), "on record"),
        (Untried::Unsettled("pay-1".into()), "pay-1 may have been sent it"),
        (Untried::NoPin, "cannot be read"),
        (Untried::Warned, "does not count here"),
        (Untried::SameDevice("pay-1".into()), "same device as pay-1"),
    ] {
        let finding = judge_login(&login(Outcome::Untried(untried)));
        assert!(finding.level == Level::Skipped && finding.what.contains(words), "{finding:?}");
    }
}

#[test]
fn what_came_of_one_use_of_a_key_is_told() {
    let judge = |operation| judge_operation(&inside(1, None, operation));
    assert_eq!(judge(done(1_000)).level, Level::Ok);
    assert_eq!(judge(done(1_001)).level, Level::Warning);
    assert_eq!(judge(Operation::Failed { key: "k".into(), why: "no".into() }).level, Level::Warning);
    assert_eq!(judge(Operation::NoCanary).level, Level::Skipped);
    assert_eq!(judge(Operation::NoKey).level, Level::Skipped);
    let unrecorded = judge(Operation::Unrecorded);
    assert!(unrecorded.level == Level::Skipped && unrecorded.advice.is_some(), "{unrecorded:?}");
    assert_eq!(judge_keys(&inside(0, None, done(1))).unwrap().level, Level::Warning);
}
