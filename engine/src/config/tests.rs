use proptest::prelude::*;

use super::*;

const LEAST: &str = "module = \"m\"\npin = \"env:PIN\"\n[[token]]\nname = \"t\"\n";

fn parsed(text: &str) -> Config {
    text.parse().unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// What is said of a configuration that is refused.
fn refusal(text: &str) -> String {
    let error = text.parse::<Config>().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    error.to_string()
}

/// The least configuration with a line more, which is the third.
fn with(line: &str) -> String {
    LEAST.replace("[[token]]", &format!("{line}\n[[token]]"))
}

/// The example with every field that it comments out.
fn whole_example() -> String {
    let is_field = |line: &str| line.split_once(" = ").is_some_and(|(name, _)| !name.contains(' '));
    let field = |line: &'static str| match line.strip_prefix("# ") {
        Some(field) if is_field(field) => field,
        _ => line,
    };
    Config::EXAMPLE.lines().map(field).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_example_says_the_defaults_and_every_field() {
    let (short, whole) = (parsed(Config::EXAMPLE), parsed(&whole_example()));
    assert_eq!(whole.deadline, short.deadline);
    assert_eq!(whole.requests_max, short.requests_max);
    assert_eq!(whole.bytes_max, short.bytes_max);
    assert_eq!(whole.sessions, short.sessions);
    assert_eq!(whole.pin_keep(), short.pin_keep());
    assert_eq!(whole.hang_limit, short.hang_limit);
    assert_eq!(whole.instances, short.instances);
    assert_eq!(whole.pin_despite_warning, short.pin_despite_warning);
    assert_eq!(whole.harden_process, short.harden_process);
    assert_eq!(whole.allow_rsa_pkcs1_decryption, short.allow_rsa_pkcs1_decryption);
    assert_eq!(whole.random_pool, short.random_pool);
    assert_eq!(whole.message_api, short.message_api);
    assert_eq!(whole.module_kind, short.module_kind);
    assert_eq!((whole.module_reset, whole.inline), (short.module_reset, short.inline));
    assert_eq!(whole.verify_outputs, short.verify_outputs);
    assert_eq!(whole.validated_only(), short.validated_only());
    let tiers = |config: &Config| config.tokens().map(TokenConfig::tier).collect::<Vec<_>>();
    assert_eq!(tiers(&whole), tiers(&short));
    // The message lists the fields there are.
    for (text, of) in [(with("nonsense = 1"), "top"), (format!("{LEAST}nonsense = 1"), "token")] {
        let message = refusal(&text);
        let known = message.split('`').skip(3).step_by(2);
        let missing: Vec<_> =
            known.filter(|field| !whole_example().contains(&format!("{field} ="))).collect();
        let missing: Vec<_> = missing.into_iter().filter(|field| *field != "token").collect();
        assert!(missing.is_empty(), "{of}: {missing:?} of {message}");
    }
}

#[test]
fn sessions_are_a_number_a_range_or_auto() {
    let sessions = |value: &str| parsed(&with(&format!("sessions = {value}"))).sessions.0;
    assert_eq!(sessions("8"), 8.into());
    assert_eq!([sessions("\"4-64\""), sessions("{ min = 4, max = 64 }")], [(4..=64).into(); 2]);
    assert_eq!([sessions("\"auto\""), parsed(LEAST).sessions.0], [crate::Sessions::AUTO; 2]);
    for value in ["\"64-4\"", "-1", "5000", "\"few\"", "{ min = 9, max = 2 }", "{ min = 1 }", "true", "2.5"] {
        assert!(refusal(&with(&format!("sessions = {value}"))).contains("3:"), "{value}");
    }
}

#[test]
fn errors_say_line_and_column() {
    assert!(refusal(&with("nonsense = 1")).contains("3:1: unknown field `nonsense`"));
    assert!(refusal(&with("sessions = 0")).contains("3:12: between 1 and 4096 sessions"));
    assert!(refusal(&with("instances = 0")).contains("3:13: between 1 and 64 instances"));
    let two = format!("{}[[token]]\nname = \"u\"", with("instances = 33"));
    assert!(refusal(&two).contains("times `instances` may be 64 at most"));
    assert!(refusal(&with("deadline = \"soon\"")).contains("3:12: a duration such as"));
    assert!(refusal(&with("bytes_max = \"0KiB\"")).contains("3:13: a size such as"));
    assert!(refusal(&with("requests_max = 0")).contains("3:16: "));
    assert!(refusal(&format!("{LEAST}tier = 300")).contains("5:8: "));
    assert!(refusal(&format!("{LEAST}[[token]]\nname = \"t\"")).contains("5:1: a token of this name"));
    assert!(refusal("module = \"m\"\nü = [").contains("2:"));
    assert!(refusal("pin = \"env:PIN\"\n[[token]]\nname = \"t\"").contains("missing field `module`"));
    assert!(refusal("module = \"m\"\npin = \"env:PIN\"\ntoken = []").contains("between 1 and 64"));
}

#[test]
fn what_an_engine_cannot_be_built_with_is_no_configuration() {
    for source in ["fd:3", "prompt"] {
        let once = LEAST.replace("env:PIN", source).replace("[[token]]", "pin_keep = \"reread\"\n[[token]]");
        assert!(refusal(&once).contains("3:12: a PIN of this source cannot be read again"), "{source}");
        assert!(parsed(&once.replace("reread", "memory")).build().is_err());
    }
    assert!(refusal(&LEAST.replace("\"m\"", "\"\"")).contains("1:10: a path is missing"));
    assert!(refusal(&LEAST.replace("\"t\"", "\"\"")).contains("4:8: a label"));
    assert!(refusal(&with("init_args = \"a\\u0000b\"")).contains("3:13: no zero byte"));
    assert!(refusal(&with("state_dir = \"\"")).contains("3:13: a path is missing"));
    let state_dir = |config: &Config| config.builder().settings.state_dir;
    assert_eq!(state_dir(&parsed(&with("state_dir = \"/s\""))), Some("/s".into()));
    assert_eq!(state_dir(&parsed(LEAST)), None);
    assert!(refusal(&with("hang_limit = \"9ms\"")).contains("at least \"10ms\""));
    let both = with("host_modes = [\"k\"]\nvalidated_only = true");
    assert!(refusal(&both).contains("4:18: `validated_only` leaves no key to `host_modes`"));
    let only = |value: &str| parsed(&with(&format!("validated_only = {value}"))).builder().settings;
    assert!(only("true").validated_only && !only("false").validated_only);
    assert_eq!(parsed(&both.replace("true", "false")).builder().settings.host_modes, ["k"]);
}

#[test]
fn a_refusal_says_once_what_kind_of_error_it_is() {
    let message = refusal(&LEAST.replace("\"t\"", "\"pkcs11:token=t?pin-value=4711\""));
    assert_eq!(message.matches("configuration").count(), 1, "{message}");
}

#[test]
fn a_pin_where_its_source_belongs_is_in_no_message() {
    let quoted = ["\"4711\"", "\"4711", "'4711'"];
    let numbers = ["4711", "4711.5", "9347114711471147114", "471147114711471147114711", "4711-01-01"];
    let others = ["[4711]", "{ value = 4711 }", "{ 4711 = 1 }", "true # 4711"];
    for pin in [&quoted[..], &numbers, &others].concat() {
        let message = refusal(&LEAST.replace("\"env:PIN\"", pin));
        assert!(!message.contains("4711"), "{message}");
        assert!(message.contains("2:"), "{message}");
    }
    for (field, text) in
        [("pin_keep = \"4711\"", 3), ("sessions = \"4711\"", 3), ("requests_max = \"4711\"", 3)]
    {
        let message = refusal(&with(field));
        assert!(!message.contains("4711") && message.contains(&format!("{text}:")), "{message}");
    }
    let uri = LEAST.replace("\"t\"", "\"pkcs11:token=t?pin-value=4711\"");
    let message = refusal(&uri);
    assert!(
        !message.contains("4711") && message.contains("3:1: ") && message.contains("pin-value"),
        "{message}"
    );
    assert_eq!(format!("{:?}", parsed(LEAST)), "Config { tokens: 1, .. }");
}

#[test]
fn a_message_holds_no_control_character_of_the_file() {
    for line in ["\"a\\u001b[2Jb\" = 1", "\"a\\rb\" = 1"] {
        let message = refusal(&with(line));
        assert!(!message.contains(char::is_control), "{message:?}");
        assert!(message.contains("`a\u{fffd}"), "{message}");
    }
}

#[test]
fn values_have_units() {
    let config =
        parsed(&with("deadline = \"none\"\nbytes_max = \"1MiB\"\nhang_limit = \"1m 30s\"\nsessions = 60"));
    assert_eq!(config.deadline, Limit(None));
    assert_eq!(config.bytes_max, Size(1 << 20));
    assert_eq!(config.hang_limit, HangLimit(Some(Duration::from_secs(90))));
    assert_eq!(config.sessions, Sessions(60.into()));
    for zero in ["deadline = 10", "deadline = \"0s\"", "hang_limit = \"0s\"", "hang_limit = \"none\""] {
        assert!(refusal(&with(zero)).contains("3:1"), "{zero}");
    }
    let at_once = parsed(&format!("{LEAST}extra_latency = \"0ms\""));
    assert_eq!(at_once.tokens().map(|token| token.extra_latency).collect::<Vec<_>>(), [Duration::ZERO]);
    assert!(refusal(&format!("{LEAST}extra_latency = \"none\"")).contains("5:17: "));
}

#[test]
fn what_a_running_engine_cannot_take_over_is_named() {
    let old = parsed(LEAST);
    assert_eq!(old.needs_restart(&parsed(&with("requests_max = 7\ndeadline = \"1s\""))), [""; 0]);
    let new = parsed(
        &with("sessions = 7\ninstances = 2\npin_keep = \"reread\"\nstate_dir = \"s\"")
            .replace("\"m\"", "\"n\"")
            .replace("PIN", "P"),
    );
    assert_eq!(old.needs_restart(&new), ["module", "pin", "pin_keep", "state_dir", "sessions", "instances"]);
    assert_eq!(old.needs_restart(&parsed(&LEAST.replace("\"t\"", "\"u\""))), ["token"]);
    assert_eq!(old.needs_restart(&parsed(&with("validated_only = true"))), ["validated_only"]);
    let verified = with("verify_outputs = \"always\"");
    assert_eq!(old.needs_restart(&parsed(&verified)), ["verify_outputs"]);
    assert_eq!(parsed(&verified).builder().settings.verify_outputs, crate::VerifyOutputs::Always);
    let two = |one: &str, other: &str| {
        parsed(&format!("{}[[token]]\nname = \"{other}\"", LEAST.replace("\"t\"", &format!("\"{one}\""))))
    };
    assert_eq!(two("a", "b").needs_restart(&two("b", "a")), [""; 0], "the order does not matter");
}

#[test]
fn a_file_that_is_no_configuration_is_named() {
    let missing = Config::read(Path::new("/nonexistent/hsmux.toml")).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::Configuration);
    assert!(missing.to_string().contains("/nonexistent/hsmux.toml: "), "{missing}");
    let endless = Config::read(Path::new("/dev/zero")).unwrap_err();
    assert!(endless.to_string().contains("more than a mebibyte"), "{endless}");
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC*|(module|pin|token|tier|=|\"|\\[|\\]|\n| |[0-9a-z:])*") {
        let _parsed = text.parse::<Config>();
    }
}
