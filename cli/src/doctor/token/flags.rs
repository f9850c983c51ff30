//! What the flags of a token say.

use super::super::finding::Finding;
use super::{Setting, Token};

/// What the flags of a token say.
pub(super) fn judge(token: &Token, setting: &Setting) -> Vec<Finding> {
    vec![
        judge_state(token),
        judge_user_pin(token, setting),
        judge_tries(token, setting),
        judge_pin_entry(token, setting.asks_at_token),
        judge_login(token),
        judge_writable(token),
    ]
}

fn judge_state(token: &Token) -> Finding {
    const CHECK: &str = "token.state";
    let said = token.said();
    if token.flags.error_state {
        let what = format!("{said} has failed a self-test and does nothing more (CKF_ERROR_STATE)");
        return Finding::problem(
            CHECK,
            what,
            "reset or restart the device as its vendor says; if it stays so, replace it",
        );
    }
    Finding::ok(CHECK, format!("{said} is initialised and in no state of error"))
}

fn judge_user_pin(token: &Token, setting: &Setting) -> Finding {
    const CHECK: &str = "token.user_pin";
    let said = token.said();
    if !token.flags.user_pin_initialised {
        let what = format!("the user PIN of {said} has not been set (CKF_USER_PIN_INITIALIZED is missing)");
        let advice = format!("have its security officer set it: {}", init_pin(token, setting));
        return Finding::problem(CHECK, what, advice);
    }
    if token.flags.user_pin_to_be_changed {
        let what = format!(
            "the user PIN of {said} must be changed before it does anything (CKF_USER_PIN_TO_BE_CHANGED)"
        );
        return Finding::problem(
            CHECK,
            what,
            "hsmux pin rotate --config FILE --new-pin-source file:NEW_PIN_FILE",
        );
    }
    Finding::ok(CHECK, format!("the user PIN of {said} is set"))
}

fn judge_tries(token: &Token, setting: &Setting) -> Finding {
    const CHECK: &str = "token.pin_tries";
    let (said, flags) = (token.said(), &token.flags);
    let sure = "make sure that the PIN is right, then log in once: hsmux info --pin-despite-warning, with the same \
                module, token and PIN source";
    if flags.user_pin_locked {
        let what = format!("the user PIN of {said} is locked (CKF_USER_PIN_LOCKED): no login goes well");
        let advice = format!("have its security officer set it anew: {}", init_pin(token, setting));
        return Finding::problem(CHECK, what, advice);
    }
    let warning = match (flags.user_pin_final_try, flags.user_pin_count_low) {
        (true, _) => format!("one more wrong PIN locks {said} (CKF_USER_PIN_FINAL_TRY)"),
        (false, true) => format!("a wrong PIN was sent to {said} (CKF_USER_PIN_COUNT_LOW)"),
        (false, false) => {
            return Finding::ok(CHECK, format!("no wrong PIN was sent to {said}, as far as it tells"));
        }
    };
    if setting.consents {
        let what = format!("{warning}, and the engine sends one all the same, by pin_despite_warning");
        return Finding::warning(CHECK, what, "make sure that the PIN is right before the service starts");
    }
    Finding::problem(CHECK, format!("{warning}: no engine starts without pin_despite_warning"), sure)
}

/// The command by which a security officer sets the user's PIN.
fn init_pin(token: &Token, setting: &Setting) -> String {
    let (module, slot) = (&setting.module, token.slot);
    format!("pkcs11-tool --module {module} --slot {slot} --login --login-type so --init-pin")
}

fn judge_pin_entry(token: &Token, asks_at_token: Option<bool>) -> Finding {
    const CHECK: &str = "token.pin_entry";
    let said = token.said();
    match (token.flags.protected_authentication_path, asks_at_token) {
        (_, None) => Finding::skipped(CHECK, "no PIN source was named"),
        (true, Some(false)) => Finding::warning(
            CHECK,
            format!(
                "{said} asks for the PIN itself (CKF_PROTECTED_AUTHENTICATION_PATH), and may not take one from here"
            ),
            "pin = \"protected\", or --pin-source protected",
        ),
        (false, Some(true)) => Finding::problem(
            CHECK,
            format!("{said} has no way of its own to ask for the PIN, as PIN source `protected` needs"),
            "pin = \"file:PATH\", or --pin-source file:PATH",
        ),
        _ => Finding::ok(CHECK, format!("the PIN source is one that {said} takes")),
    }
}

fn judge_login(token: &Token) -> Finding {
    const CHECK: &str = "token.login";
    let said = token.said();
    if token.flags.login_required {
        return Finding::ok(CHECK, format!("{said} wants a login"));
    }
    let what = format!(
        "{said} wants no login (CKF_LOGIN_REQUIRED is missing): who reaches it may use what is not private"
    );
    Finding::warning(CHECK, what, "see that keys are private: `hsmux info` with a PIN source shows it")
}

fn judge_writable(token: &Token) -> Finding {
    const CHECK: &str = "token.writable";
    let said = token.said();
    if !token.flags.write_protected {
        return Finding::ok(CHECK, format!("keys can be made on {said}, as far as its flags say"));
    }
    let what = format!(
        "{said} is write-protected (CKF_WRITE_PROTECTED): no keys can be made, and no managed keys kept"
    );
    Finding::warning(CHECK, what, "take the protection off at the device, if keys are to be made")
}

#[cfg(test)]
mod tests {
    use hsmux::TokenFlags;

    use super::super::super::finding::Level;
    use super::*;
    use crate::exit::Exit;

    fn good() -> Token {
        with(|_| ())
    }

    fn with(change: impl FnOnce(&mut TokenFlags)) -> Token {
        let mut flags = TokenFlags::default();
        (flags.initialised, flags.login_required, flags.user_pin_initialised) = (true, true, true);
        change(&mut flags);
        Token { label: "pay-1".into(), flags, ..Token::default() }
    }

    fn setting(consents: bool) -> Setting {
        Setting { asks_at_token: Some(false), consents, module: "/m.so".to_owned() }
    }

    #[test]
    fn every_flag_has_its_level_and_class() {
        let table: [(Token, &str, Level, Exit); 8] = [
            (with(|flags| flags.error_state = true), "token.state", Level::Problem, Exit::Token),
            (with(|flags| flags.user_pin_initialised = false), "token.user_pin", Level::Problem, Exit::Pin),
            (with(|flags| flags.user_pin_to_be_changed = true), "token.user_pin", Level::Problem, Exit::Pin),
            (with(|flags| flags.user_pin_count_low = true), "token.pin_tries", Level::Problem, Exit::Pin),
            (with(|flags| flags.user_pin_final_try = true), "token.pin_tries", Level::Problem, Exit::Pin),
            (with(|flags| flags.user_pin_locked = true), "token.pin_tries", Level::Problem, Exit::Pin),
            (with(|flags| flags.login_required = false), "token.login", Level::Warning, Exit::Token),
            (with(|flags| flags.write_protected = true), "token.writable", Level::Warning, Exit::Token),
        ];
        for (token, check, level, exit) in table {
            let findings = judge(&token, &setting(false));
            let wrong: Vec<_> = findings.iter().filter(|finding| finding.level != Level::Ok).collect();
            assert_eq!(wrong.len(), 1, "{findings:?}");
            assert_eq!((wrong[0].check, wrong[0].level, wrong[0].exit), (check, level, exit));
            assert!(wrong[0].what.contains("CKF_") && wrong[0].advice.is_some(), "{wrong:?}");
        }
    }

    #[test]
    fn a_lock_weighs_more_than_the_last_try_and_that_more_than_a_wrong_one() {
        let said = |token: Token| judge_tries(&token, &setting(false)).what;
        let all = with(|flags| {
            (flags.user_pin_count_low, flags.user_pin_final_try, flags.user_pin_locked) = (true, true, true);
        });
        assert!(said(all).contains("CKF_USER_PIN_LOCKED"));
        let last = with(|flags| (flags.user_pin_count_low, flags.user_pin_final_try) = (true, true));
        assert!(said(last).contains("CKF_USER_PIN_FINAL_TRY"));
    }

    #[test]
    fn a_warning_keeps_no_service_that_consents_to_it_and_a_lock_keeps_every_one() {
        let level = |token: &Token, consents| judge_tries(token, &setting(consents)).level;
        for token in
            [with(|flags| flags.user_pin_count_low = true), with(|flags| flags.user_pin_final_try = true)]
        {
            assert_eq!((level(&token, false), level(&token, true)), (Level::Problem, Level::Warning));
        }
        assert_eq!(level(&with(|flags| flags.user_pin_locked = true), true), Level::Problem);
    }

    #[test]
    fn the_security_officers_command_names_module_and_slot() {
        let command = "pkcs11-tool --module /m.so --slot 0 --login";
        for token in
            [with(|flags| flags.user_pin_locked = true), with(|flags| flags.user_pin_initialised = false)]
        {
            let findings = judge(&token, &setting(false));
            let advised = findings.iter().filter_map(|finding| finding.advice.as_deref());
            assert_eq!(advised.filter(|advice| advice.contains(command)).count(), 1, "{findings:?}");
        }
    }

    #[test]
    fn the_pin_comes_from_where_the_token_takes_it() {
        let keypad = || with(|flags| flags.protected_authentication_path = true);
        let level = |token: Token, asks| judge_pin_entry(&token, asks).level;
        assert_eq!(level(keypad(), Some(true)), Level::Ok);
        assert_eq!(level(good(), Some(false)), Level::Ok);
        assert_eq!(level(keypad(), Some(false)), Level::Warning);
        assert_eq!(level(good(), Some(true)), Level::Problem);
        assert_eq!(level(good(), None), Level::Skipped);
    }
}
