//! What came of logging in.

mod named;

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
        /// The canary key of the configuration, if it has one.
        canary: Option<Held>,
        /// The keys of `host_modes`, by name.
        host_modes: Vec<(String, Held)>,
        operation: Operation,
    },
    Failed {
        exit: Exit,
        why: String,
    },
    Untried(Untried),
}

/// Why a login was not tried. Tokens are called as they are in [`Login`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Untried {
    /// This token has refused the same PIN.
    Refused(String),
    /// This token has refused a PIN before, as the state directory says.
    OnRecord(String),
    /// This token may have been sent the same PIN, and nobody knows what it makes of it.
    Unsettled(String),
    /// The PIN cannot be read.
    NoPin,
    /// Its flags warn of wrong tries, and only the configuration consents.
    Warned,
    /// It is the same device as this token.
    SameDevice(String),
}

/// A key that the configuration names, on one token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Held {
    /// With what is the same for two keys only if they are one, if that is known: a public key, or what it makes of a text.
    There(Option<Vec<u8>>),
    Missing,
    /// No engine starts with it.
    Unfit {
        exit: Exit,
        why: String,
    },
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
        why: String,
    },
    /// There is no key that could be used for something.
    NoKey,
    /// The canary key cannot be used, as is said of it.
    NoCanary,
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
    findings.push(named::judge_canary(logins, canary));
    findings.extend(named::judge_host_modes(logins));
    findings.extend(logins.iter().map(judge_operation));
    findings
}

fn judge_login(login: &Login) -> Finding {
    const CHECK: &str = "login.pin";
    let token = &login.token;
    match &login.outcome {
        Outcome::In { .. } => Finding::ok(CHECK, format!("{token} took the PIN")),
        Outcome::Untried(why) => {
            Finding::skipped(CHECK, format!("the PIN was not sent to {token}: {}", why.said()))
        }
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

impl Untried {
    fn said(&self) -> String {
        match self {
            Self::Refused(token) => format!("another token has refused it, {token}"),
            Self::OnRecord(token) => {
                format!("another token, {token}, has refused one before, as is on record")
            }
            Self::Unsettled(token) => {
                format!("{token} may have been sent it, and nobody knows what came of that")
            }
            Self::NoPin => "it cannot be read".to_owned(),
            Self::Warned => {
                "its flags warn of wrong tries, and pin_despite_warning of a configuration does not count here".to_owned()
            }
            Self::SameDevice(token) => {
                format!("it is the same device as {token}, where it would count twice")
            }
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
        // Any key at all, which need not be one that the service uses.
        Operation::Failed { key, why } => {
            let advice = "see what `hsmux info` says of the key's attributes and of the token's mechanisms";
            Finding::warning(CHECK, format!("{token}, key {key}: {why}"), advice)
        }
        Operation::NoCanary => Finding::skipped(CHECK, format!("the canary key cannot be used on {token}")),
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
mod tests;
