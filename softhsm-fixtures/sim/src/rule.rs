//! Rules: which calls do not go as they should, and what becomes of them.

use std::time::Duration;

use cryptoki_sys as sys;

use crate::function::Function;

/// A rule of the configuration.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rule {
    pub(crate) calls: Calls,
    pub(crate) when: When,
    /// Label of the token whose calls count; all if none.
    pub(crate) token: Option<String>,
    pub(crate) what: What,
}

/// The functions whose calls a rule counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Calls {
    Of(Function),
    /// Those by which operations run: [`Function::is_operation`].
    OfOperations,
}

/// Which of the calls that a rule counts it is about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum When {
    /// By number, from 1, counted since the rule was set; with `onwards` every later one too.
    Number { call: u64, onwards: bool },
    /// So many of a million, by the seed and the number.
    Share { ppm: u64 },
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// It does not return until it is released.
    Hang,
    /// It answers this code and does nothing.
    Refuse(sys::CK_RV),
    /// It does all that it should and then answers this code: the reply is lost.
    Lose(sys::CK_RV),
    /// It takes so much longer.
    Slow(Duration),
    /// A bit of its output is another.
    Flip,
    /// Its output is a byte shorter than it should be.
    Short,
    /// Its output is that of the last call of its thread.
    Repeat,
    /// The device has forgotten the session before the call.
    SessionLost,
    /// The device has logged the user out before the call.
    LoginLost,
    /// The token is removed during the call, for so long, or until it is put back.
    Removed(Option<Duration>),
    /// The module is as if somebody had finalised it.
    Dead,
    /// The process aborts.
    Abort,
    /// The process touches memory that is not its own.
    Segfault,
}

impl Rule {
    /// `C_Sign:100`, `C_Sign:100+`, `C_Sign:0.1%`, each with `@sim-1` after it or not.
    pub(crate) fn hang(item: &str) -> Result<Self, String> {
        let wrong = || format!("hang={item} is not FUNCTION:WHEN[@TOKEN]");
        let (front, token) = at_token(item);
        let (calls, when) = calls(front).ok_or_else(wrong)?;
        Ok(Self { calls, when, token, what: What::Hang })
    }

    /// As for hangs, with `=WHAT` before the token: `C_Sign:3=0x30`, `ops:1%=flip@sim-1`.
    pub(crate) fn fault(item: &str) -> Result<Self, String> {
        let wrong = || format!("fault={item} is not FUNCTION:WHEN=WHAT[@TOKEN]");
        let (front, token) = at_token(item);
        let (front, name) = front.split_once('=').ok_or_else(wrong)?;
        let (calls, when) = calls(front).ok_or_else(wrong)?;
        let what = What::by_name(name).ok_or_else(wrong)?;
        Ok(Self { calls, when, token, what })
    }

    /// Whether the rule counts a call.
    pub(crate) fn counts(&self, function: Function, token: Option<&str>) -> bool {
        let counted = match self.calls {
            Calls::Of(wanted) => function == wanted,
            Calls::OfOperations => function.is_operation(),
        };
        counted && self.token.as_deref().is_none_or(|own| token == Some(own))
    }
}

impl When {
    /// Whether it is the call of this number, from 1. `dice` is a number that the seed and the call make.
    pub(crate) const fn is_now(self, number: u64, dice: u64) -> bool {
        match self {
            Self::Number { call, onwards } => number == call || (onwards && number > call),
            Self::Share { ppm } => dice % MILLION < ppm,
        }
    }
}

impl What {
    fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "hang" => Self::Hang,
            "flip" => Self::Flip,
            "short" => Self::Short,
            "repeat" => Self::Repeat,
            "session-lost" => Self::SessionLost,
            "login-lost" => Self::LoginLost,
            "removed" => Self::Removed(None),
            "dead" => Self::Dead,
            "abort" => Self::Abort,
            "segfault" => Self::Segfault,
            _ => {
                if let Some(ms) = name.strip_prefix("removed-") {
                    return Some(Self::Removed(Some(Duration::from_millis(ms.parse().ok()?))));
                }
                if let Some(us) = name.strip_prefix("slow-") {
                    return Some(Self::Slow(Duration::from_micros(us.parse().ok()?)));
                }
                match name.strip_suffix('!') {
                    Some(code) => Self::Lose(number(code)?),
                    None => Self::Refuse(number(name)?),
                }
            }
        })
    }
}

const MILLION: u64 = 1_000_000;

fn at_token(item: &str) -> (&str, Option<String>) {
    match item.split_once('@') {
        Some((front, token)) => (front, Some(token.to_owned())),
        None => (item, None),
    }
}

fn calls(text: &str) -> Option<(Calls, When)> {
    let (name, when) = text.split_once(':')?;
    let calls = match name {
        "ops" => Calls::OfOperations,
        name => Calls::Of(Function::by_name(name)?),
    };
    if let Some(percent) = when.strip_suffix('%') {
        return Some((calls, When::Share { ppm: ppm(percent)? }));
    }
    let (call, onwards) = when.strip_suffix('+').map_or((when, false), |call| (call, true));
    let call = call.parse().ok().filter(|&call: &u64| call > 0)?;
    Some((calls, When::Number { call, onwards }))
}

/// Percent, with up to four decimals, as parts of a million.
fn ppm(percent: &str) -> Option<u64> {
    let (whole, fraction) = percent.split_once('.').unwrap_or((percent, "0"));
    let whole: u64 = whole.parse().ok().filter(|&whole| whole <= 100)?;
    if fraction.is_empty() || fraction.len() > 4 {
        return None;
    }
    let parts: u64 = format!("{fraction:0<4}").parse().ok()?;
    Some(whole * 10_000 + parts).filter(|&ppm| ppm <= MILLION)
}

/// A return code, in hexadecimal or decimal; `CKR_OK` is none.
fn number(text: &str) -> Option<sys::CK_RV> {
    let number = match text.strip_prefix("0x") {
        Some(hex) => sys::CK_RV::from_str_radix(hex, 16),
        None => text.parse(),
    };
    number.ok().filter(|&number| number != sys::CKR_OK)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(calls: Calls, when: When, token: Option<&str>, what: What) -> Rule {
        Rule { calls, when, token: token.map(str::to_owned), what }
    }

    const fn at(call: u64, onwards: bool) -> When {
        When::Number { call, onwards }
    }

    #[test]
    fn hangs_name_function_number_and_token() {
        let sign = Calls::Of(Function::C_Sign);
        assert_eq!(Rule::hang("C_Sign:100+@sim-1"), Ok(rule(sign, at(100, true), Some("sim-1"), What::Hang)));
        assert_eq!(Rule::hang("C_Sign:0.1%"), Ok(rule(sign, When::Share { ppm: 1_000 }, None, What::Hang)));
    }

    #[test]
    fn faults_name_what_becomes_of_the_call_too() {
        let sign = Calls::Of(Function::C_Sign);
        let cases = [
            ("C_Sign:3=0x30", rule(sign, at(3, false), None, What::Refuse(0x30))),
            ("C_Sign:3=48!@t", rule(sign, at(3, false), Some("t"), What::Lose(0x30))),
            ("ops:1%=flip", rule(Calls::OfOperations, When::Share { ppm: 10_000 }, None, What::Flip)),
            (
                "C_Sign:1=removed-50",
                rule(sign, at(1, false), None, What::Removed(Some(Duration::from_millis(50)))),
            ),
            ("C_Sign:1=slow-7", rule(sign, at(1, false), None, What::Slow(Duration::from_micros(7)))),
        ];
        for (text, expected) in cases {
            assert_eq!(Rule::fault(text), Ok(expected), "{text}");
        }
        for wrong in
            ["C_Sign:1", "C_Sign=flip", "C_Sign:0=flip", "C_Sign:101%=flip", "C_Sign:1=0", "x:1=flip"]
        {
            assert!(Rule::fault(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_number_is_one_call_and_with_a_plus_every_later_one() {
        let now = |when: When| (1..=5).map(|number| when.is_now(number, 0)).collect::<Vec<_>>();
        assert_eq!(now(at(3, false)), [false, false, true, false, false]);
        assert_eq!(now(at(2, true)), [false, true, true, true, true]);
    }

    #[test]
    fn a_rule_for_a_token_counts_calls_on_that_token_only() {
        let rule = rule(Calls::Of(Function::C_Sign), at(1, false), Some("sim-1"), What::Hang);
        assert!(rule.counts(Function::C_Sign, Some("sim-1")));
        for (function, token) in [
            (Function::C_Sign, Some("sim-0")),
            (Function::C_Sign, None),
            (Function::C_Encrypt, Some("sim-1")),
        ] {
            assert!(!rule.counts(function, token));
        }
    }
}
