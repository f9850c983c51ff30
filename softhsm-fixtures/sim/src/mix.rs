//! Mixes of faults that have a name, so that tests, scripts and reports mean the same by it.

use std::time::Duration;

use crate::rule::Rule;

/// Mix F: what a cluster of HSMs does to a client on a bad day, all at once. The value of `fault=`; `faults=F` in a
/// configuration stands for it.
///
/// Of the calls by which operations run (`ops`: their Init functions, and what runs them) answer 1 % a code, hang
/// 0.1 % for a while, take 0.1 % a hundred times as long, find 0.05 % their session lost, and remove 0.01 % the token
/// for a while. Of those that run something (`runs`) have 0.01 % a wrong bit in their output, and lose 0.01 % the
/// reply after all was done. Each request is two calls, or more.
///
/// The calls before all operations (`setup`: sessions, login, the search for keys) fail in 0.1 % of all cases and hang
/// in 0.01 %. No code says that a PIN is wrong, and no module or process dies: from these nothing comes back by itself,
/// and a long run would end with the first. Nor does a code say that the caller's input is wrong: that would be
/// the caller's error, and rightly the end of the request. Nor that the token is gone: that has a share of its own.
///
/// The shares are of calls, not of time: a client without pauses meets all of it within a second, and is without tokens
/// most of the time. With a configured `op_us` it meets what it would of a device of that speed.
pub const MIX_F: &str = concat!(
    // What drivers answer when they have no better code: a lost connection, an internal error.
    "ops:0.28%=0x30;",
    // CKR_FUNCTION_FAILED: busy or throttled (AWS CloudHSM), or the connector is gone (YubiHSM).
    "ops:0.2%=0x6;",
    // CKR_GENERAL_ERROR: nothing is known of what was done.
    "ops:0.12%=0x5;",
    // CKR_DEVICE_MEMORY: the token is full for the moment.
    "ops:0.08%=0x31;",
    // CKR_SESSION_HANDLE_INVALID, of a session that is still there: a proxy or a cluster has changed places.
    "ops:0.08%=0xb3;",
    // CKR_HOST_MEMORY: the host, or a daemon on it, is full for the moment.
    "ops:0.05%=0x2;",
    // CKR_FUNCTION_CANCELED: the module has given up waiting.
    "ops:0.05%=0x50;",
    // CKR_SESSION_CLOSED: the session was closed during the call, says the module.
    "ops:0.02%=0xb0;",
    // A vendor's own code, which no table has.
    "ops:0.02%=0x80000f05;",
    // CKR_KEY_HANDLE_INVALID: the token counts its objects anew.
    "inits:0.04%=0x60;",
    // CKR_USER_NOT_LOGGED_IN: a cluster's member does not know of the login.
    "inits:0.03%=0x101;",
    "runs:0.03%=0x101;",
    // CKR_OPERATION_ACTIVE: busy (AWS CloudHSM, Client SDK 3).
    "inits:0.03%=0x90;",
    // CKR_OPERATION_NOT_INITIALIZED: the session has moved to another member between two calls.
    "runs:0.05%=0x91;",
    // CKR_BUFFER_TOO_SMALL, which leaves the operation active: the session must not be used for another one.
    "runs:0.02%=0x150;",
    "ops:0.1%=hang-500;",
    "ops:0.1%=x100;",
    "ops:0.05%=session-lost;",
    "ops:0.01%=removed-100;",
    "runs:0.01%=flip;",
    "runs:0.01%=0x30!;",
    "setup:0.05%=0x30;",
    "setup:0.03%=0x6;",
    "setup:0.02%=0x5;",
    "setup:0.01%=hang-500",
);

/// Mix F with other times than half a second for hangs and a tenth of one for tokens that are away. Both are whole
/// milliseconds.
#[must_use]
pub fn mix_f(hang: Duration, removed: Duration) -> String {
    let hang = format!("hang-{}", hang.as_millis());
    let removed = format!("removed-{}", removed.as_millis());
    MIX_F.replace("hang-500", &hang).replace("removed-100", &removed)
}

/// `F`, `F:HANG_MS` or `F:HANG_MS:REMOVED_MS`; nothing is no rule.
pub(crate) fn rules(text: &str) -> Result<Vec<Rule>, String> {
    let wrong = || format!("faults={text} is not F[:HANG_MS[:REMOVED_MS]]");
    let millis = |ms: Option<&str>, default| match ms {
        Some(ms) => ms.parse().map(Duration::from_millis).map_err(|_| wrong()),
        None => Ok(Duration::from_millis(default)),
    };
    let mut parts = text.split(':');
    let mix = match parts.next() {
        Some("F") => mix_f(millis(parts.next(), 500)?, millis(parts.next(), 100)?),
        Some("") => String::new(),
        _ => return Err(wrong()),
    };
    if parts.next().is_some() {
        return Err(wrong());
    }
    mix.split(';').filter(|item| !item.is_empty()).map(Rule::fault).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::function::Function;
    use crate::rule::When;
    use crate::what::What;

    /// Millionth parts of the calls of a function of which this becomes.
    fn share(function: Function, is: impl Fn(What) -> bool) -> u64 {
        let ppm = |rule: Rule| match rule.when {
            When::Share { ppm } if rule.counts(function, None, None) && is(rule.what) => ppm,
            _ => 0,
        };
        rules("F").unwrap().into_iter().map(ppm).sum()
    }

    #[test]
    fn mix_f_has_the_shares_that_it_says() {
        for function in
            [Function::C_SignInit, Function::C_Sign, Function::C_Decrypt, Function::C_GenerateRandom]
        {
            let name = function.name();
            assert_eq!(share(function, |what| matches!(what, What::Refuse(_))), 10_000, "{name}");
            assert_eq!(share(function, |what| matches!(what, What::Hang(Some(_)))), 1_000, "{name}");
            assert_eq!(share(function, |what| what == What::Times(100)), 1_000, "{name}");
            assert_eq!(share(function, |what| what == What::SessionLost), 500, "{name}");
            assert_eq!(share(function, |what| matches!(what, What::Removed(Some(_)))), 100, "{name}");
        }
        for (function, ppm) in [(Function::C_Sign, 100), (Function::C_SignInit, 0)] {
            assert_eq!(share(function, |what| what == What::Flip), ppm);
            assert_eq!(share(function, |what| matches!(what, What::Lose(_))), ppm);
        }
        assert_eq!(share(Function::C_Login, |what| matches!(what, What::Refuse(_))), 1_000);
        assert_eq!(share(Function::C_Initialize, |_| true), 0);
    }

    #[test]
    fn nothing_in_mix_f_lasts_for_good() {
        let lasts = |what| {
            matches!(
                what,
                What::Hang(None)
                    | What::HangAfter(None)
                    | What::Removed(None)
                    | What::Dead
                    | What::Abort
                    | What::Segfault
            ) || (0xa0..=0xa4).any(|pin| what == What::Refuse(pin))
        };
        assert!(rules("F").unwrap().into_iter().all(|rule| !lasts(rule.what)));
    }

    #[test]
    fn its_times_can_be_chosen() {
        let rules = rules("F:7:9").unwrap();
        let ms = |ms| Some(Duration::from_millis(ms));
        assert_eq!(rules.iter().filter(|rule| rule.what == What::Hang(ms(7))).count(), 2);
        assert!(rules.iter().any(|rule| rule.what == What::Removed(ms(9))));
        assert!(super::rules("").unwrap().is_empty());
    }
}
