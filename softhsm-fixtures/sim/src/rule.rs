//! Rules: which calls do not go as they should, and what becomes of them.

use crate::function::Function;
use crate::what::What;

/// A rule of the configuration.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rule {
    pub(crate) calls: Calls,
    pub(crate) when: When,
    /// Label of the token whose calls count; all if none.
    pub(crate) token: Option<String>,
    /// The key whose calls count; those of all keys and of none if not given.
    pub(crate) key: Option<KeyName>,
    pub(crate) what: What,
}

/// The functions whose calls a rule counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Calls {
    Of(Function),
    /// Those by which operations run: [`Function::is_operation`].
    Operations,
    /// Those of them that only begin one.
    Inits,
    /// The others of them.
    Runs,
    /// [`Function::is_setup`].
    Setup,
}

/// Which of the calls that a rule counts it is about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum When {
    /// By number, from 1, counted since the rule was set; with `onwards` every later one too.
    Number { call: u64, onwards: bool },
    /// So many of a million, by the seed and the number.
    Share { ppm: u64 },
}

/// A key, as a rule names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum KeyName {
    Label(String),
    /// `CKA_ID`.
    Id(Vec<u8>),
}

/// What a key is called on its token.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Names {
    pub(crate) label: Vec<u8>,
    pub(crate) id: Vec<u8>,
}

impl Rule {
    /// `C_Sign:100`, `C_Sign:100+`, `C_Sign:0.1%`, each with `@sim-1`, `@sim-1/orders` or `@/orders` after it or not.
    pub(crate) fn hang(item: &str) -> Result<Self, String> {
        let wrong = || format!("hang={item} is not FUNCTION:WHEN[@TOKEN][/KEY]");
        let (front, place) = item.split_once('@').unwrap_or((item, ""));
        let (calls, when) = calls(front).ok_or_else(wrong)?;
        let (token, key) = place_of(place).ok_or_else(wrong)?;
        Ok(Self { calls, when, token, key, what: What::Hang(None) })
    }

    /// As for hangs, with `=WHAT` before the token: `C_Sign:3=0x30`, `ops:1%=flip@sim-1`.
    pub(crate) fn fault(item: &str) -> Result<Self, String> {
        let wrong = || format!("fault={item} is not FUNCTION:WHEN=WHAT[@TOKEN][/KEY]");
        let (front, place) = item.split_once('@').unwrap_or((item, ""));
        let (front, name) = front.split_once('=').ok_or_else(wrong)?;
        let (calls, when) = calls(front).ok_or_else(wrong)?;
        let what = What::by_name(name).ok_or_else(wrong)?;
        let (token, key) = place_of(place).ok_or_else(wrong)?;
        Ok(Self { calls, when, token, key, what })
    }

    /// Whether the rule counts a call, with the key that it uses if that is known.
    pub(crate) fn counts(&self, function: Function, token: Option<&str>, names: Option<&Names>) -> bool {
        let counted = match self.calls {
            Calls::Of(wanted) => function == wanted,
            Calls::Operations => function.is_operation(),
            Calls::Inits => function.is_operation() && function.begins_operation(),
            Calls::Runs => function.is_operation() && !function.begins_operation(),
            Calls::Setup => function.is_setup(),
        };
        let there = self.token.as_deref().is_none_or(|own| token == Some(own));
        counted && there && self.key.as_ref().is_none_or(|key| names.is_some_and(|names| key.is(names)))
    }
}

impl KeyName {
    /// A label, or `0x` and an id in hexadecimal.
    fn parse(text: &str) -> Option<Self> {
        let Some(hex) = text.strip_prefix("0x") else {
            return (!text.is_empty()).then(|| Self::Label(text.to_owned()));
        };
        let digits = hex.as_bytes().chunks(2).map(|pair| {
            let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?;
            u8::from_str_radix(pair, 16).ok()
        });
        digits.collect::<Option<Vec<_>>>().filter(|id| !id.is_empty()).map(Self::Id)
    }

    fn is(&self, names: &Names) -> bool {
        match self {
            Self::Label(label) => label.as_bytes() == names.label,
            Self::Id(id) => *id == names.id,
        }
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

const MILLION: u64 = 1_000_000;

/// `TOKEN`, `TOKEN/KEY` or `/KEY`; nothing is any token and any key.
fn place_of(text: &str) -> Option<(Option<String>, Option<KeyName>)> {
    let (token, key) = match text.split_once('/') {
        Some((token, key)) => (token, Some(KeyName::parse(key)?)),
        None => (text, None),
    };
    Some(((!token.is_empty()).then(|| token.to_owned()), key))
}

fn calls(text: &str) -> Option<(Calls, When)> {
    let (name, when) = text.split_once(':')?;
    let calls = match name {
        "ops" => Calls::Operations,
        "inits" => Calls::Inits,
        "runs" => Calls::Runs,
        "setup" => Calls::Setup,
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn rule(calls: Calls, when: When, token: Option<&str>, what: What) -> Rule {
        Rule { calls, when, token: token.map(str::to_owned), key: None, what }
    }

    const fn at(call: u64, onwards: bool) -> When {
        When::Number { call, onwards }
    }

    #[test]
    fn hangs_name_function_number_and_token() {
        let sign = Calls::Of(Function::C_Sign);
        assert_eq!(
            Rule::hang("C_Sign:100+@sim-1"),
            Ok(rule(sign, at(100, true), Some("sim-1"), What::Hang(None)))
        );
        assert_eq!(
            Rule::hang("C_Sign:0.1%"),
            Ok(rule(sign, When::Share { ppm: 1_000 }, None, What::Hang(None)))
        );
    }

    #[test]
    fn faults_name_what_becomes_of_the_call_too() {
        let sign = Calls::Of(Function::C_Sign);
        let cases = [
            ("C_Sign:3=0x30", rule(sign, at(3, false), None, What::Refuse(0x30))),
            ("C_Sign:3=48!@t", rule(sign, at(3, false), Some("t"), What::Lose(0x30))),
            ("ops:1%=flip", rule(Calls::Operations, When::Share { ppm: 10_000 }, None, What::Flip)),
            (
                "C_Sign:1=removed-50",
                rule(sign, at(1, false), None, What::Removed(Some(Duration::from_millis(50)))),
            ),
            ("inits:1=0x90", rule(Calls::Inits, at(1, false), None, What::Refuse(0x90))),
            ("runs:1=x3", rule(Calls::Runs, at(1, false), None, What::Times(3))),
            ("setup:1=hang", rule(Calls::Setup, at(1, false), None, What::Hang(None))),
        ];
        for (text, expected) in cases {
            assert_eq!(Rule::fault(text), Ok(expected), "{text}");
        }
        for wrong in [
            "C_Sign:1",
            "C_Sign:1=flip@t/",
            "C_Sign:1=flip@t/0x1",
            "C_Sign=flip",
            "C_Sign:0=flip",
            "C_Sign:101%=flip",
            "C_Sign:1=0",
            "x:1=flip",
        ] {
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
        let rule = rule(Calls::Of(Function::C_Sign), at(1, false), Some("sim-1"), What::Hang(None));
        assert!(rule.counts(Function::C_Sign, Some("sim-1"), None));
        for (function, token) in [
            (Function::C_Sign, Some("sim-0")),
            (Function::C_Sign, None),
            (Function::C_Encrypt, Some("sim-1")),
        ] {
            assert!(!rule.counts(function, token, None));
        }
    }

    #[test]
    fn a_rule_for_a_key_counts_calls_with_that_key_only() {
        let orders = Names { label: b"orders".to_vec(), id: vec![0x0a, 0xff] };
        let other = Names { label: b"0x0aff".to_vec(), id: b"orders".to_vec() };
        for (place, token) in
            [("@/orders", "sim-0"), ("@/orders", "sim-1"), ("@sim-1/orders", "sim-1"), ("@/0x0aff", "sim-1")]
        {
            let rule = Rule::fault(&format!("C_Sign:1=flip{place}")).unwrap();
            assert!(rule.counts(Function::C_Sign, Some(token), Some(&orders)), "{place}");
            assert!(!rule.counts(Function::C_Sign, Some(token), Some(&other)), "{place}");
            assert!(!rule.counts(Function::C_Sign, Some(token), None), "{place}");
        }
        let elsewhere = Rule::fault("C_Sign:1=flip@sim-1/orders").unwrap();
        assert!(!elsewhere.counts(Function::C_Sign, Some("sim-0"), Some(&orders)));
    }

    #[test]
    fn groups_of_functions_are_apart_as_they_say() {
        let counts = |group: &str, function| {
            Rule::fault(&format!("{group}:1=flip")).unwrap().counts(function, None, None)
        };
        let cases = [
            (Function::C_SignInit, [true, true, false, false]),
            (Function::C_Sign, [true, false, true, false]),
            (Function::C_GenerateRandom, [true, false, true, false]),
            (Function::C_FindObjects, [false, false, false, true]),
            (Function::C_GenerateKey, [false; 4]),
        ];
        for (function, expected) in cases {
            let found = ["ops", "inits", "runs", "setup"].map(|group| counts(group, function));
            assert_eq!(found, expected, "{}", function.name());
        }
    }
}
