//! `hsmux info` on SoftHSM2.

use std::io::Write;
use std::process::Stdio;

use crate::hsm::{Hsm, PIN};

#[test]
fn module_tokens_and_mechanisms_are_listed_without_a_pin_and_keys_are_not() {
    let Some(hsm) = Hsm::with_tokens(&["north", "south"]) else { return };
    hsm.import("north", "card-signing", "0a0b");
    let info = hsm.run(&["info"]);
    info.succeeds();
    let module = hsm.module().to_str().unwrap();
    for part in [module, "SoftHSM", "north", "south", "sessions", "CKM_ECDSA", "sign verify", "not listed"] {
        assert!(info.stdout.contains(part), "{part}: {}", info.stdout);
    }
    assert!(!info.stdout.contains("card-signing"));
}

#[test]
fn keys_are_listed_with_their_attributes_where_there_is_a_pin() {
    let Some(hsm) = Hsm::with_tokens(&["north", "south"]) else { return };
    hsm.import("north", "card-signing", "0a0b");
    let info = hsm.run_with_pin(&["info", "--token", "north"]);
    info.succeeds();
    let line = info.stdout.lines().find(|line| line.contains("card-signing")).unwrap();
    for part in ["EC P-256", "0a0b", "sign", "private", "sensitive", "yes"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert!(!info.stdout.contains("south") && !info.stdout.contains(PIN));
}

#[test]
fn each_of_two_tokens_of_one_label_has_its_own_keys() {
    let Some(hsm) = Hsm::with_tokens(&["twin", "twin"]) else { return };
    let info = hsm.run(&["info"]);
    let serials: Vec<_> = info.stdout.lines().filter_map(|line| line.strip_prefix("serial     ")).collect();
    assert_eq!(serials.len(), 2, "{}", info.stdout);
    hsm.import_by_serial(serials[1], "only-in-the-north");
    let info = hsm.run_with_pin(&["info", "--token", serials[0], "--token", serials[1]]);
    info.succeeds();
    let mut tables = info.stdout.split("\ntoken ").skip(1);
    let table = tables.find(|table| table.contains(serials[1])).unwrap();
    assert!(table.contains("only-in-the-north"), "{}", info.stdout);
    assert_eq!(info.stdout.matches("only-in-the-north").count(), 1, "{}", info.stdout);
}

#[test]
fn a_token_is_named_by_uri_and_the_pin_comes_through_a_pipe() {
    let Some(hsm) = Hsm::with_tokens(&["north", "south"]) else { return };
    hsm.import("south", "card-signing", "0a0b");
    let token = "pkcs11:token=south;model=SoftHSM%20v2";
    let mut command = hsm.command(&["info", "--token", token, "--pin-source", "fd:0"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    writeln!(child.stdin.take().unwrap(), "{PIN}").unwrap();
    let output = child.wait_with_output().unwrap();
    let listed = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && listed.contains("card-signing"), "{listed}");
    assert!(!listed.contains("north") && !listed.contains(PIN), "{listed}");
}

#[test]
fn a_reader_that_leaves_is_a_clean_end() {
    let Some(hsm) = Hsm::with_tokens(&["only"]) else { return };
    let mut command = hsm.command(&["info"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}
