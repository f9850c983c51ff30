//! Configurations: no text panics; what is refused is refused in one line that names a place in the text and
//! repeats nothing of a PIN; what parses has tokens, and needs no restart to become itself.

#![no_main]

use std::collections::HashSet;

use hsmux::{Config, Error};
use libfuzzer_sys::arbitrary::{self, Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;

/// A PIN that no message holds by chance. Of digits, so that it may stand in a number; twice in a row they are more
/// than an `i64` holds, four times more than an `u128`.
const PIN: &str = "1593604718";

/// Longest message, in characters: the kind, the place, and what is passed on of the parser's.
const MESSAGE_MAX: usize = 450;

// What begins with a zero byte, as no configuration does, says how to put one together.
fuzz_target!(|data: &[u8]| {
    // The fuzzer sees what is compared, and would put the PIN where it is no PIN.
    if data.windows(PIN.len()).any(|part| part == PIN.as_bytes()) {
        return;
    }
    if let [0, recipe @ ..] = data {
        if let Ok(lines) = Vec::<Line<'_>>::arbitrary_take_rest(Unstructured::new(recipe)) {
            hides_the_pin(&lines.iter().map(Line::as_toml).collect::<String>());
        }
    } else if let Ok(text) = std::str::from_utf8(data) {
        let _refusal = check(text);
        with_pins(text).iter().for_each(|text| hides_the_pin(text));
    }
});

/// The text as what follows `pin =`, with the PIN at several places of its first line. Further down it would be
/// somebody else's.
fn with_pins(text: &str) -> [String; 3] {
    let end = text.find(['\r', '\n']).unwrap_or(text.len());
    let inside = text[..end].find(['"', '\'', '[', '{', '.', ' ']).map_or(end, |at| at + 1);
    [0, inside, end].map(|at| format!("pin = {}{PIN}{}", &text[..at], &text[at..]))
}

fn hides_the_pin(text: &str) {
    if let Some(refusal) = check(text) {
        assert!(!refusal.contains(PIN), "{refusal}");
    }
}

/// Parses, looks at what came of it, and returns all that a refusal shows.
fn check(text: &str) -> Option<String> {
    match text.parse::<Config>() {
        Ok(config) => {
            accepted(&config);
            None
        }
        Err(error) => {
            refused(text, &error);
            Some(format!("{error} {error:?}"))
        }
    }
}

fn accepted(config: &Config) {
    let names: Vec<&str> = config.token_names().collect();
    assert!((1..=64).contains(&names.len()), "{} tokens", names.len());
    assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len(), "a token twice");
    assert_eq!(config.needs_restart(&config.clone()), [""; 0]);
    drop(config.builder());
}

fn refused(text: &str, error: &Error) {
    let message = error.to_string();
    assert!(!message.contains(char::is_control), "{message:?}");
    assert!(message.chars().count() <= MESSAGE_MAX, "{message}");
    let mut parts = message.splitn(4, ':').skip(1);
    let mut number = || parts.next()?.trim_start().parse::<usize>().ok();
    let (Some(line), Some(column)) = (number(), number()) else { panic!("no place: {message}") };
    assert!(parts.next().is_some_and(|what| what.starts_with(' ')), "{message}");
    let there = text.split('\n').nth(line - 1).expect("the line is there");
    assert!((1..=there.chars().count() + 1).contains(&column), "{message}");
}

/// A line of a configuration, or what belongs together. The PIN stands only where the value of a `pin` does.
#[derive(Arbitrary)]
enum Line<'a> {
    Module,
    PinSource,
    Token(u8),
    Tokens(u8),
    Field(u8, Value<'a>),
    Unknown(&'a str, Value<'a>),
    Pin(Pin<'a>),
    PinTable(Pin<'a>),
}

/// Every field but `pin`, and tables of the same name.
const FIELDS: [&str; 35] = [
    "module",
    "state_dir",
    "init_args",
    "pin_keep",
    "pin_despite_warning",
    "harden_process",
    "sessions",
    "instances",
    "deadline",
    "requests_max",
    "bytes_max",
    "hang_limit",
    "allow_rsa_pkcs1_decryption",
    "random_pool",
    "message_api",
    "canary_key",
    "module_kind",
    "module_reset",
    "inline",
    "verify_outputs",
    "coalescing",
    "holding",
    "copies",
    "host_modes",
    "validated_only",
    "scope",
    "token",
    "name",
    "tier",
    "extra_latency",
    "drained",
    "token.name",
    "module.pin",
    "pin.pin",
    "sessions.a.b",
    "deadline.\"\"",
];

/// Values that are right somewhere.
const WORDS: [&str; 6] = ["memory", "reread", "none", "auto", "20ms", "64KiB"];

#[derive(Arbitrary)]
enum Value<'a> {
    Word(u8),
    Text(&'a str),
    Number(i64),
    Float(f64),
    Truth(bool),
    Array(Vec<Value<'a>>),
    Table(&'a str, Box<Value<'a>>),
}

/// The value of a `pin` that is no source: with the PIN in it, and not always TOML.
#[derive(Arbitrary)]
enum Pin<'a> {
    Basic(&'a str),
    Literal(&'a str),
    Block(&'a str),
    Whole(u8),
    Negative(u8),
    Float(u8),
    Array(Box<Pin<'a>>),
    Table(Box<Pin<'a>>),
    Bare(&'a str),
}

impl Line<'_> {
    fn as_toml(&self) -> String {
        let token = |number: u8| format!("[[token]]\nname = \"t{number}\"\n");
        match self {
            Self::Module => "module = \"m\"\n".to_owned(),
            Self::PinSource => "pin = \"env:PIN\"\n".to_owned(),
            Self::Token(number) => token(*number),
            Self::Tokens(count) => (0..=*count).map(token).collect(),
            Self::Field(name, value) => {
                format!("{} = {}\n", FIELDS[usize::from(*name) % FIELDS.len()], value.as_toml())
            }
            Self::Unknown(name, value) => format!("{} = {}\n", quoted(name), value.as_toml()),
            Self::Pin(pin) => format!("pin = {}\n", pin.as_toml()),
            Self::PinTable(pin) => format!("[pin]\n{PIN} = {}\n", pin.as_toml()),
        }
    }
}

impl Value<'_> {
    fn as_toml(&self) -> String {
        match self {
            Self::Word(number) => quoted(WORDS[usize::from(*number) % WORDS.len()]),
            Self::Text(text) => quoted(text),
            Self::Number(number) => number.to_string(),
            Self::Float(number) => format!("{number:?}").to_lowercase(),
            Self::Truth(truth) => truth.to_string(),
            Self::Array(values) => {
                format!("[{}]", values.iter().map(Self::as_toml).collect::<Vec<_>>().join(", "))
            }
            Self::Table(name, value) => format!("{{ {} = {} }}", quoted(name), value.as_toml()),
        }
    }
}

impl Pin<'_> {
    fn as_toml(&self) -> String {
        let repeated = |times: &u8| PIN.repeat(usize::from(times % 5) + 1);
        match self {
            Self::Basic(text) => quoted(&format!("{text}{PIN}")),
            Self::Literal(text) => format!("'{}{PIN}'", text.replace(['\'', '\n'], "")),
            Self::Block(text) => format!("\"\"{}\"\"", quoted(&format!("{PIN}{text}{PIN}"))),
            Self::Whole(times) => repeated(times),
            Self::Negative(times) => format!("-{}", repeated(times)),
            Self::Float(times) => format!("{}.5", repeated(times)),
            Self::Array(pin) => format!("[{}, {PIN}]", pin.as_toml()),
            Self::Table(pin) => format!("{{ {PIN} = {} }}", pin.as_toml()),
            Self::Bare(text) => format!("{}{PIN}", text.replace('\n', "")),
        }
    }
}

/// As a string of TOML.
fn quoted(text: &str) -> String {
    let escaped = text.chars().map(|c| match c {
        '"' | '\\' => format!("\\{c}"),
        c if c.is_control() => format!("\\u{:04x}", u32::from(c)),
        c => c.to_string(),
    });
    format!("\"{}\"", escaped.collect::<String>())
}
