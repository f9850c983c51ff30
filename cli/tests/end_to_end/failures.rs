//! Each class of failure: one clear line on stderr, and its exit code.

use crate::hsm::{Hsm, PIN};

const LOAD: [&str; 5] = ["load", "--op", "ecdsa-p256", "--seconds", "0.1"];

fn load<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&LOAD, more].concat()
}

#[test]
fn wrong_options_end_with_2() {
    let Some(hsm) = Hsm::with_tokens(&["only"]) else { return };
    hsm.run(&["load"]).fails(2, &[]);
    hsm.run(&["load", "--op", "rot13"]).fails(2, &[]);
    hsm.run(&load(&["--deadline", "soon"])).fails(2, &[]);
    hsm.run(&load(&[])).fails(2, &["--pin-source"]);
    hsm.run_with_pin(&["load", "--op", "random", "--api", "many"]).fails(2, &["random"]);
    hsm.run_with_pin(&["load", "--op", "random", "--key", "k"]).fails(2, &["random"]);
    hsm.run_with_pin(&load(&["--callers", "5000"])).fails(2, &["--api tasks"]);
}

#[test]
fn as_many_sessions_as_no_token_has_end_with_2() {
    let Some(hsm) = Hsm::with_tokens(&["only"]) else { return };
    for sessions in ["0", "4097", "65535"] {
        hsm.run(&load(&["--sessions", sessions])).fails(2, &[]);
        let bulk = ["bulk", "sign", "--alg", "ecdsa-p256", "--key", "k", "--sessions", sessions];
        hsm.run(&bulk).fails(2, &[]);
    }
}

#[test]
fn a_token_that_cannot_ask_for_the_pin_itself_ends_with_5() {
    let Some(hsm) = Hsm::with_tokens(&["only"]) else { return };
    hsm.run(&load(&["--pin-source", "protected"])).fails(5, &["protected authentication path"]);
}

#[test]
fn a_pin_on_the_command_line_is_refused_and_not_repeated() {
    let Some(hsm) = Hsm::with_tokens(&["only"]) else { return };
    hsm.run(&load(&["--pin-source", PIN])).fails(2, &["never a PIN"]);
    hsm.run(&load(&[&format!("--pin={PIN}")])).fails(2, &[]);
}

#[test]
fn a_module_that_is_missing_or_none_ends_with_3() {
    let Some(hsm) = Hsm::with_tokens(&["only"]) else { return };
    let module = |path: &str| ["info".to_owned(), format!("--module={path}")];
    let run = |path: &str| hsm.run(&module(path).each_ref().map(String::as_str));
    run("/no/such/module.so").fails(3, &["module", "/no/such/module.so"]);
    let text = hsm.path("softhsm2.conf");
    run(text.to_str().unwrap()).fails(3, &["module", "softhsm2.conf"]);
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let libc = maps.split_whitespace().find(|word| word.contains("/libc.so")).unwrap();
    run(libc).fails(3, &["module"]);
}

#[test]
fn a_token_that_is_missing_ends_with_4_and_names_those_present() {
    let Some(hsm) = Hsm::with_tokens(&["north", "south"]) else { return };
    hsm.run_with_pin(&load(&["--token", "west"])).fails(4, &["token not found", "west", "north", "south"]);
    hsm.run(&["info", "--token", "west"]).fails(4, &["token not found", "west", "north", "south"]);
}

#[test]
fn a_token_uri_that_is_none_or_holds_a_pin_ends_with_2() {
    let Some(hsm) = Hsm::with_tokens(&["north"]) else { return };
    let with_pin = format!("pkcs11:token=north?pin-value={PIN}");
    for uri in ["pkcs11:token", "pkcs11:token=north;token=north", &with_pin] {
        hsm.run(&["info", "--token", uri]).fails(2, &["PKCS#11 URI"]);
        hsm.run_with_pin(&load(&["--token", uri])).fails(2, &["PKCS#11 URI"]);
    }
}

#[test]
fn several_tokens_are_named_and_no_pin_is_tried_on_them() {
    let Some(hsm) = Hsm::with_tokens(&["north", "south"]) else { return };
    let wrong = hsm.write_pin("wrong", "000000", 0o600);
    hsm.run(&load(&[&wrong])).fails(4, &["--token", "north", "south"]);
    hsm.run(&["info", &wrong]).fails(4, &["--token", "north", "south"]);
    // A wrong PIN would have left its mark, and the engine would not log in.
    hsm.run_with_pin(&load(&["--token", "north"])).succeeds();
    hsm.run_with_pin(&load(&["--token", "south"])).succeeds();
}

#[test]
fn a_module_without_tokens_ends_with_4() {
    let Some(hsm) = Hsm::with_tokens(&[]) else { return };
    hsm.run_with_pin(&load(&[])).fails(4, &["token not found"]);
}

#[test]
fn a_wrong_pin_ends_with_5_and_is_not_tried_again_once_the_token_warns() {
    let Some(hsm) = Hsm::with_tokens(&["only"]) else { return };
    let wrong = hsm.write_pin("wrong", "000000", 0o600);
    let refused = hsm.run(&load(&[&wrong]));
    refused.fails(5, &["refused the PIN"]);
    assert!(!refused.stderr.contains("000000"), "{refused:?}");
    hsm.run_with_pin(&load(&[])).fails(5, &["not sent"]);
}

#[test]
fn a_pin_source_that_cannot_be_used_ends_with_5() {
    let Some(hsm) = Hsm::with_tokens(&["only"]) else { return };
    for mode in [0o644, 0o640] {
        let open = hsm.write_pin("open", PIN, mode);
        hsm.run(&load(&[&open])).fails(5, &["PIN source not usable", "others may"]);
    }
    hsm.run(&load(&["--pin-source=file:/no/such/pin"])).fails(5, &["/no/such/pin"]);
    hsm.run(&load(&["--pin-source=env:HSMUX_TEST_NO_PIN"])).fails(5, &["HSMUX_TEST_NO_PIN"]);
}

#[test]
fn a_key_that_is_missing_or_ambiguous_ends_with_6() {
    let Some(hsm) = Hsm::with_tokens(&["only"]) else { return };
    hsm.import("only", "twice", "01");
    hsm.import("only", "twice", "02");
    hsm.run_with_pin(&load(&["--key", "never"])).fails(6, &["no such key"]);
    hsm.run_with_pin(&load(&["--key", "twice"])).fails(6, &["ambiguous", "2 keys"]);
}

#[test]
fn an_operation_that_does_not_fit_the_key_ends_with_7() {
    let Some(hsm) = Hsm::with_tokens(&["only"]) else { return };
    hsm.import("only", "curve", "01");
    hsm.run_with_pin(&["load", "--op", "hmac-sha256", "--key", "curve"]).fails(7, &["does not fit"]);
    hsm.run_with_pin(&["load", "--op", "rsa2048-pss", "--key", "curve"]).fails(7, &["RSA-2048", "EC P-256"]);
}

#[test]
fn a_deadline_that_cannot_be_met_ends_with_8() {
    let Some(hsm) = Hsm::with_tokens(&["only"]) else { return };
    hsm.run_with_pin(&["load", "--op", "rsa2048-pss", "--deadline", "1us"]).fails(8, &["deadline exceeded"]);
}

#[test]
fn the_help_tells_every_exit_code() {
    let Some(hsm) = Hsm::with_tokens(&[]) else { return };
    for arguments in [&["--help"][..], &["load", "--help"], &["info", "--help"], &["bulk", "sign", "--help"]]
    {
        let help = hsm.run(arguments);
        help.succeeds();
        (0..=10)
            .chain([130])
            .for_each(|code| assert!(help.stdout.contains(&format!("\n  {code}  ")), "{code}: {help:?}"));
    }
}
