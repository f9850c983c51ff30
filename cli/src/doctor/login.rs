//! What came of logging in.

use std::time::Duration;

use super::finding::Finding;
use crate::exit::Exit;
use crate::figures;

/// A login to one token.
#[derive(Clone, Debug)]
pub(super) struct Login {
    pub(super) token: String,
    pub(super) outcome: Outcome,
}

#[derive(Clone, Debug)]
pub(super) enum Outcome {
    /// It went well.
    In {
        keys: usize,
        canary: Option<Canary>,
        operation: Operation,
    },
    Failed {
        exit: Exit,
        why: String,
    },
    /// It was not tried: another token had refused the PIN.
    Untried,
}

/// The canary key of the configuration, on one token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Canary {
    There,
    Missing,
}

/// One use of a key.
#[derive(Clone, Debug)]
pub(super) enum Operation {
    Done {
        key: String,
        what: &'static str,
        time: Duration,
    },
    Failed {
        key: String,
        exit: Exit,
        why: String,
    },
    /// There is no key that could be used for something.
    NoKey,
    /// It would leave no record in the audit log, and there is no canary key.
    Unrecorded,
}

/// With a remote HSM some milliseconds are usual, and an RSA signature of a small device takes up to a second.
const SLOW: Duration = Duration::from_secs(1);

/// What is to be said of all of them. `canary`: the key's name, if the configuration has one.
pub(super) fn judge(logins: &[Login], canary: Option<&str>) -> Vec<Finding> {
    if logins.is_empty() {
        return vec![Finding::skipped("login.pin", "no token was found that could be logged in to")];
    }
    let mut findings: Vec<_> = logins.iter().map(judge_login).collect();
    findings.extend(logins.iter().filter_map(judge_keys));
    findings.push(judge_canary(logins, canary));
    findings.extend(logins.iter().map(judge_operation));
    findings
}

fn judge_login(login: &Login) -> Finding {
    const CHECK: &str = "login.pin";
    let token = &login.token;
    match &login.outcome {
        Outcome::In { .. } => Finding::ok(CHECK, format!("{token} took the PIN")),
        Outcome::Untried => Finding::skipped(
            CHECK,
            format!("the PIN was not sent to {token}, for another token has refused it"),
        ),
        Outcome::Failed { exit, why } => {
            let advice = match exit {
                Exit::Pin => {
                    "do not try again before it is clear which PIN is right: tokens lock after few wrong ones"
                }
                _ => "see the findings above, and what the vendor says of that code",
            };
            Finding::problem(CHECK, format!("{token}: {why}"), advice).with_exit(*exit)
        }
    }
}

fn judge_keys(login: &Login) -> Option<Finding> {
    const CHECK: &str = "login.keys";
    let token = &login.token;
    match &login.outcome {
        Outcome::In { keys: 0, .. } => Some(Finding::warning(
            CHECK,
            format!("{token} holds no private and no secret key that this user sees"),
            "make one, as by `hsmux keys create NAME --spec ec-p256 --for ecdsa-p256-sha256`, or see that it is this user's",
        )),
        Outcome::In { keys, .. } => {
            let plural = if *keys == 1 { "key" } else { "keys" };
            Some(Finding::ok(CHECK, format!("{token} holds {keys} private or secret {plural}")))
        }
        _ => None,
    }
}

fn judge_canary(logins: &[Login], canary: Option<&str>) -> Finding {
    const CHECK: &str = "login.canary";
    let Some(name) = canary else {
        return Finding::ok(
            CHECK,
            "no canary_key is configured: tokens that fail are asked for random bytes",
        );
    };
    let of = |wanted| {
        let is_it = move |login: &&Login| matches!(login.outcome, Outcome::In { canary: Some(canary), .. } if canary == wanted);
        logins.iter().filter(is_it).map(|login| login.token.as_str()).collect::<Vec<_>>()
    };
    let (there, missing) = (of(Canary::There), of(Canary::Missing));
    let advice = format!("make it on each token of the service, or set another: canary_key = \"{name}\"");
    match (there.as_slice(), missing.as_slice()) {
        ([], []) => Finding::skipped(CHECK, "no token was logged in to"),
        ([], _) => {
            Finding::problem(CHECK, format!("canary key {name} is on no token: no engine starts"), advice)
        }
        (_, []) => Finding::ok(CHECK, format!("canary key {name} is there")),
        (_, missing) => {
            let what = format!(
                "canary key {name} is not on {}: such a token is asked for random bytes only",
                missing.join(", ")
            );
            Finding::warning(CHECK, what, advice)
        }
    }
}

fn judge_operation(login: &Login) -> Finding {
    const CHECK: &str = "login.operation";
    let token = &login.token;
    let Outcome::In { operation, .. } = &login.outcome else {
        return Finding::skipped(CHECK, format!("{token} was not logged in to"));
    };
    match operation {
        Operation::Done { key, what, time } => {
            let took = figures::time(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
            let what = format!("{token} {what} with key {key} in {took}");
            match *time > SLOW {
                true => Finding::warning(
                    CHECK,
                    what,
                    "see what the device is busy with: `hsmux load` shows how it does under load",
                ),
                false => Finding::ok(CHECK, what),
            }
        }
        Operation::Failed { key, exit, why } => {
            let advice = "see what `hsmux info` says of the key's attributes and of the token's mechanisms";
            Finding::problem(CHECK, format!("{token}, key {key}: {why}"), advice).with_exit(*exit)
        }
        Operation::NoKey => {
            Finding::skipped(CHECK, format!("{token} holds no key that this could be tried with"))
        }
        Operation::Unrecorded => Finding::skipped(
            CHECK,
            "there is an audit log, in which the doctor does not write, and no key is used without a record",
        )
        .advise("canary_key = \"NAME\": a key that is made for this, of which no use is recorded"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    fn done(ms: u64) -> Operation {
        Operation::Done { key: "k".into(), what: "signed", time: Duration::from_millis(ms) }
    }

    fn login(outcome: Outcome) -> Login {
        Login { token: "pay-1".into(), outcome }
    }

    fn inside(keys: usize, canary: Option<Canary>, operation: Operation) -> Login {
        login(Outcome::In { keys, canary, operation })
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
        let untried = Login { token: "pay-2".into(), outcome: Outcome::Untried };
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

    #[test]
    fn a_canary_key_must_be_somewhere_and_should_be_everywhere() {
        let of = |canaries: &[Canary]| {
            let logins: Vec<_> = canaries.iter().map(|canary| inside(1, Some(*canary), done(1))).collect();
            judge_canary(&logins, Some("canary"))
        };
        assert_eq!(of(&[Canary::There, Canary::There]).level, Level::Ok);
        let half = of(&[Canary::There, Canary::Missing]);
        assert!(half.level == Level::Warning && half.what.contains("not on pay-1"), "{half:?}");
        let none = of(&[Canary::Missing]);
        assert_eq!((none.level, none.exit), (Level::Problem, Exit::Key));
    }

    #[test]
    fn what_came_of_one_use_of_a_key_is_told() {
        let judge = |operation| judge_operation(&inside(1, None, operation));
        assert_eq!(judge(done(1_000)).level, Level::Ok);
        assert_eq!(judge(done(1_001)).level, Level::Warning);
        let failed = judge(Operation::Failed { key: "k".into(), exit: Exit::Operation, why: "no".into() });
        assert_eq!((failed.level, failed.exit), (Level::Problem, Exit::Operation));
        assert_eq!(judge(Operation::NoKey).level, Level::Skipped);
        let unrecorded = judge(Operation::Unrecorded);
        assert!(unrecorded.level == Level::Skipped && unrecorded.advice.is_some(), "{unrecorded:?}");
        assert_eq!(judge_keys(&inside(0, None, done(1))).unwrap().level, Level::Warning);
    }
}
