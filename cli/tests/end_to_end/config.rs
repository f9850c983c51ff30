//! `--config`, `--uri` and `hsmux config`.

use std::io::Write;
use std::process::Stdio;

use crate::hsm::{Ended, Hsm, PIN};

/// A configuration of one token.
pub(crate) fn configured(hsm: &Hsm, token: &str, more: &str) -> String {
    let (module, pin) = (hsm.module().display(), hsm.path("pin"));
    let text = format!(
        "module = \"{module}\"\npin = \"file:{}\"\n{more}\n[[token]]\nname = \"{token}\"\n",
        pin.display()
    );
    let path = hsm.path("hsmux.toml");
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

/// Signs one record.
fn sign(hsm: &Hsm, arguments: &[&str]) -> Ended {
    let all = [&["bulk", "sign", "--alg", "ecdsa-p256-sha256", "--quiet"], arguments].concat();
    let mut command = hsm.command(&all);
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A command that refuses its options reads nothing.
    let _written = child.stdin.take().unwrap().write_all(b"{\"text\":\"pay\"}\n");
    Ended::of(&child.wait_with_output().unwrap())
}

#[test]
fn a_configuration_says_module_token_and_pin() {
    let Some(hsm) = Hsm::with_tokens(&["north", "south"]) else { return };
    hsm.import("south", "card-signing", "0a0b");
    let config = configured(&hsm, "south", "sessions = 1");
    let info = hsm.run(&["info", "--config", &config]);
    info.succeeds();
    assert!(info.stdout.contains("card-signing") && !info.stdout.contains("north"), "{}", info.stdout);
    let signed = sign(&hsm, &["--config", &config, "--key", "card-signing"]);
    signed.succeeds();
    assert!(signed.stdout.contains("\"signature\""), "{}", signed.stdout);
}

#[test]
fn instances_of_a_configuration_are_shown_and_list_no_key_twice() {
    let Some(hsm) = Hsm::with_tokens(&["north"]) else { return };
    hsm.import("north", "card-signing", "0a0b");
    let config = configured(&hsm, "north", "instances = 2");
    let info = hsm.run(&["info", "--config", &config]);
    info.succeeds();
    assert!(info.stdout.contains("\ninstances  2"), "{}", info.stdout);
    assert_eq!(info.stdout.matches("card-signing").count(), 1, "{}", info.stdout);
    hsm.run(&["info", "--config", &configured(&hsm, "north", "instances = 65")])
        .fails(2, &["between 1 and 64"]);
}

#[test]
fn a_configuration_that_is_wrong_is_refused_with_line_and_column() {
    let Some(hsm) = Hsm::with_tokens(&["north"]) else { return };
    let config = configured(&hsm, "north", "sesions = 1");
    hsm.run(&["config", "check", &config]).fails(2, &["hsmux.toml:3:1: unknown field `sesions`"]);
    hsm.run(&["info", "--config", &config]).fails(2, &["hsmux.toml:3:1: "]);
    let pin = configured(&hsm, "north", "").replace("hsmux.toml", "pin.toml");
    std::fs::write(&pin, format!("module = \"m\"\npin = {PIN}\n[[token]]\nname = \"north\"\n")).unwrap();
    hsm.run(&["config", "check", &pin]).fails(2, &["pin.toml:2:7: ", "never the PIN itself"]);
    let good = configured(&hsm, "north", "deadline = \"1s\"");
    let checked = hsm.run(&["config", "check", &good]);
    checked.succeeds();
    assert!(checked.stdout.contains("good, 1 token\n"), "{}", checked.stdout);
    hsm.run(&["info", "--config", &good, "--token", "north"]).fails(2, &[]);
}

#[test]
fn the_example_is_printed_and_is_good() {
    let Some(hsm) = Hsm::with_tokens(&[]) else { return };
    let example = hsm.run(&["config", "example"]);
    example.succeeds();
    std::fs::write(hsm.path("example.toml"), example.stdout).unwrap();
    hsm.run(&["config", "check", hsm.path("example.toml").to_str().unwrap()]).succeeds();
}

#[test]
fn a_uri_says_token_pin_source_and_key() {
    let Some(hsm) = Hsm::with_tokens(&["north", "south"]) else { return };
    hsm.import("south", "card signing", "0a0b");
    let source = hsm.path("pin").display().to_string();
    for object in ["object=card%20signing", "id=%0a%0b", "object=card%20signing;id=%0A%0B;type=private"] {
        let uri = format!("pkcs11:token=south;{object}?pin-source=file:{source}");
        let signed = sign(&hsm, &["--uri", &uri]);
        signed.succeeds();
        assert!(signed.stdout.contains("\"signature\""), "{uri}: {}", signed.stdout);
    }
    let elsewhere = format!("pkcs11:token=north;object=card%20signing?pin-source=file:{source}");
    sign(&hsm, &["--uri", &elsewhere]).fails(6, &["no such key"]);
    let keyless = format!("pkcs11:token=south?pin-source=file:{source}");
    sign(&hsm, &["--uri", &keyless]).fails(2, &["--key"]);
}

#[test]
fn no_pin_is_tried_on_a_token_or_module_that_the_uri_excludes() {
    let Some(hsm) = Hsm::with_tokens(&["only"]) else { return };
    hsm.import("only", "card", "01");
    let wrong = hsm.write_pin("wrong", "000000", 0o600);
    for (excluded, signing, listing) in [
        ("slot-description=left", 4, 4),
        ("slot-manufacturer=nobody", 4, 4),
        ("x-vendor=1", 4, 4),
        ("library-manufacturer=nobody", 2, 2),
        ("library-version=1.0", 2, 2),
        ("token=only;library-description=nothing", 2, 2),
        ("token=only;x-vendor=1", 2, 4),
    ] {
        let uri = format!("pkcs11:{excluded};object=card");
        sign(&hsm, &["--uri", &uri, &wrong]).fails(signing, &[]);
        hsm.run(&["info", "--uri", &uri, &wrong]).fails(listing, &[]);
        sign(&hsm, &["--uri", &uri, "--token", "only", &wrong]).fails(2, &["--token"]);
    }
    hsm.run(&["info", "--uri", "pkcs11:slot-description=left"]).fails(4, &["the URI"]);
    // A wrong PIN would have left its mark, and the engine would not log in.
    let source = hsm.path("pin").display().to_string();
    for selected in
        ["object=card", "model=SoftHSM%20v2;object=card", "library-manufacturer=SoftHSM;object=card"]
    {
        sign(&hsm, &["--uri", &format!("pkcs11:{selected}?pin-source=file:{source}")]).succeeds();
    }
    let by_option = format!("pkcs11:object=card?pin-source=file:{source}");
    sign(&hsm, &["--uri", &by_option, "--token", "only"]).succeeds();
    sign(&hsm, &["--uri", &by_option, "--token", "pkcs11:token=only"]).succeeds();
}

#[test]
fn a_module_is_named_once_and_the_environment_comes_last() {
    let Some(hsm) = Hsm::with_tokens(&["only"]) else { return };
    let config = configured(&hsm, "only", "");
    hsm.run(&["info", "--config", &config]).succeeds();
    hsm.run(&["info", "--config", &config, "--module", "/no/such.so"]).fails(2, &[]);
    let elsewhere = "pkcs11:?module-path=/no/such.so";
    hsm.run(&["info", "--uri", elsewhere]).fails(3, &["/no/such.so"]);
    let module = hsm.module().to_str().unwrap();
    hsm.run(&["info", "--uri", elsewhere, "--module", module]).fails(2, &["--module", "module-path"]);
    hsm.run(&["info", "--uri", &format!("pkcs11:?module-path={module}"), "--module", module]).succeeds();
    let mut nowhere = hsm.command(&["info"]);
    Ended::of(&nowhere.env_remove("PKCS11_MODULE_PATH").output().unwrap()).fails(2, &["--module"]);
}

#[test]
fn a_pin_in_a_uri_is_refused_and_not_repeated() {
    let Some(hsm) = Hsm::with_tokens(&["north"]) else { return };
    let uri = format!("pkcs11:token=north?pin-value={PIN}");
    hsm.run(&["info", "--uri", &uri]).fails(2, &["pin-value"]);
}
