//! A script read from TOML: first its fields, then what they have to do with each other.

use std::ops::{Range, RangeInclusive};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use toml::{Spanned, Value};

use super::Script;
use super::code::{CODES, Code};
use super::error::ScriptError;
use super::event::{Event, Kind, What, label};
use super::steps::steps;
use crate::config::{Config, TOKENS_MAX, pairs};
use crate::rule::Rule;

/// Longest script: a day.
const AFTER_MAX: Duration = Duration::from_secs(24 * 3_600);

/// Longest stall and hang, as the simulator takes them.
const WAIT_MAX: Duration = Duration::from_secs(3_600);

/// Longest time of an operation or a call, as the simulator takes it.
const COST_MAX: Duration = Duration::from_secs(1_000);

/// What ends by itself lasts at least so long: times of stalls and hangs are whole milliseconds.
const LENGTH_MIN: Duration = Duration::from_millis(1);

/// Most events: the report names each.
const EVENTS_MAX: usize = 1_000;

/// Most times slower.
const TIMES_MAX: f64 = 1e6;

/// Keys of the simulator that `config` may not name: they have fields of their own.
const FIELDS: [&str; 10] =
    ["tokens", "op_us", "call_us", "cores", "sessions", "throttle", "null", "seed", "pin", "keys"];

/// Those that events set.
const EVENTS: [&str; 7] = ["removed", "rules", "fault", "faults", "hang", "slower", "stall"];

/// A value with its place. Its type is looked at later, where it is known what would be right.
type Field = Spanned<Value>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawScript {
    tokens: Option<Field>,
    op: Option<Field>,
    call: Option<Field>,
    cores: Option<Field>,
    sessions: Option<Field>,
    throttle: Option<Field>,
    null: Option<Field>,
    seed: Option<Field>,
    pin: Option<Field>,
    keys: Option<Vec<Field>>,
    config: Option<Field>,
    #[serde(default)]
    at: Vec<Spanned<RawEvent>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEvent {
    after: Field,
    what: Field,
    token: Option<Field>,
    #[serde(rename = "for")]
    length: Option<Field>,
    calls: Option<Field>,
    share: Option<Field>,
    code: Option<Field>,
    by: Option<Field>,
}

/// What is wrong, and where in the text, in bytes.
type Wrong = (Range<usize>, String);

pub(super) fn script(text: &str) -> Result<Script, ScriptError> {
    let raw: RawScript =
        toml::from_str(text).map_err(|error| ScriptError::new(text, error.span(), error.message()))?;
    raw.resolve().map_err(|(span, what)| ScriptError::new(text, Some(span), &what))
}

impl RawScript {
    fn resolve(self) -> Result<Script, Wrong> {
        let tokens = self.tokens.as_ref().map_or(Ok(1), |tokens| number(tokens, 1..=TOKENS_MAX as u64))?;
        let tokens = usize::try_from(tokens).unwrap_or(TOKENS_MAX);
        let (config, takes_time) = self.config(tokens)?;
        if let Some(event) = self.at.get(EVENTS_MAX) {
            return Err((event.span(), format!("more than {EVENTS_MAX} events")));
        }
        let events = self.at.iter().map(|event| RawEvent::resolve(event, tokens, takes_time));
        let events = events.collect::<Result<Vec<_>, _>>()?;
        Ok(Script {
            config,
            tokens: (0..tokens).map(label).collect(),
            pin: self
                .pin
                .as_ref()
                .map_or_else(|| Ok(Config::default().pin), |field| pin(field).map(str::to_owned))?,
            steps: Arc::from(steps(&events, tokens)?),
        })
    }

    /// The device in the simulator's own form, and whether its calls take any time.
    fn config(&self, tokens: usize) -> Result<(String, bool), Wrong> {
        let mut pairs = vec![format!("tokens={tokens}")];
        for (key, field) in [("op_us", &self.op), ("call_us", &self.call)] {
            if let Some(field) = field {
                let ns = time(field, Duration::ZERO..=COST_MAX)?.as_nanos();
                pairs.push(format!("{key}={}.{:03}", ns / 1_000, ns % 1_000));
            }
        }
        let numbers = [
            ("cores", &self.cores, 65_536),
            ("sessions", &self.sessions, 4_096),
            ("throttle", &self.throttle, u64::from(u32::MAX)),
            ("seed", &self.seed, i64::MAX.unsigned_abs()),
        ];
        for (key, field, max) in numbers {
            if let Some(field) = field {
                pairs.push(format!("{key}={}", number(field, 0..=max)?));
            }
        }
        if let Some(field) = &self.null {
            let wrong = || (field.span(), "expected true or false".to_owned());
            pairs.push(format!("null={}", u8::from(field.get_ref().as_bool().ok_or_else(wrong)?)));
        }
        if let Some(field) = &self.pin {
            pairs.push(format!("pin={}", pin(field)?));
        }
        if let Some(keys) = self.keys.as_ref().filter(|keys| !keys.is_empty()) {
            let keys = keys.iter().map(key).collect::<Result<Vec<_>, _>>()?;
            pairs.push(format!("keys={}", keys.join(";")));
        }
        if let Some(field) = &self.config {
            pairs.push(further(field)?);
        }
        let config = pairs.join(",");
        let span = self.config.as_ref().map_or(0..0, Spanned::span);
        let live = Config::parse(&config).map_err(|why| (span, why))?.live;
        Ok((config, live.op_ns + live.call_ns > 0))
    }
}

impl RawEvent {
    fn resolve(event: &Spanned<Self>, tokens: usize, takes_time: bool) -> Result<Event, Wrong> {
        let raw = event.get_ref();
        let names = Kind::ALL.map(|kind| format!("\"{}\"", kind.name())).join(", ");
        let kind = raw.what.get_ref().as_str().and_then(Kind::by_name);
        let kind = kind.ok_or_else(|| (raw.what.span(), format!("expected one of {names}")))?;
        raw.check_fields(kind)?;
        let last = tokens as u64 - 1;
        let token = raw.token.as_ref().map(|token| number(token, 0..=last)).transpose()?;
        let longest = if matches!(kind, Kind::Stall | Kind::Hang) { WAIT_MAX } else { AFTER_MAX };
        let length = raw.length.as_ref().map(|length| whole_ms(length, longest)).transpose()?;
        if kind == Kind::Slower && !takes_time {
            let why = "nothing takes any time here: give the script `op` or `call`";
            return Err((raw.what.span(), why.to_owned()));
        }
        Ok(Event {
            at: time(&raw.after, Duration::ZERO..=AFTER_MAX)?,
            length,
            token: token.and_then(|token| usize::try_from(token).ok()),
            what: raw.what(kind)?,
            span: raw.what.span(),
        })
    }

    fn what(&self, kind: Kind) -> Result<What, Wrong> {
        let missing = |field: &str| (self.what.span(), format!("missing field `{field}`"));
        Ok(match kind {
            Kind::Lost => What::Lost,
            Kind::Back => What::Back,
            Kind::Stall => What::Stall,
            Kind::Hang => What::Hang { calls: self.calls()? },
            Kind::Errors => What::Errors {
                calls: self.calls()?,
                share: self.share.as_ref().map(share).transpose()?,
                code: code(self.code.as_ref().ok_or_else(|| missing("code"))?)?,
            },
            Kind::Slower => {
                What::Slower { thousandths: times(self.by.as_ref().ok_or_else(|| missing("by"))?)? }
            }
        })
    }

    /// Refuses an event that lacks a field, or has one that says nothing of it.
    fn check_fields(&self, kind: Kind) -> Result<(), Wrong> {
        let given = [
            ("token", self.token.as_ref().map(Spanned::span)),
            ("for", self.length.as_ref().map(Spanned::span)),
            ("calls", self.calls.as_ref().map(Spanned::span)),
            ("share", self.share.as_ref().map(Spanned::span)),
            ("code", self.code.as_ref().map(Spanned::span)),
            ("by", self.by.as_ref().map(Spanned::span)),
        ];
        for (name, span) in given {
            match span {
                Some(span) if !kind.needs().contains(&name) && !kind.takes().contains(&name) => {
                    return Err((span, format!("\"{}\" takes no `{name}`", kind.name())));
                }
                None if kind.needs().contains(&name) => {
                    return Err((self.what.span(), format!("\"{}\" needs a `{name}`", kind.name())));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn calls(&self) -> Result<String, Wrong> {
        let Some(field) = &self.calls else { return Ok("runs".to_owned()) };
        let plain = |calls: &&str| calls.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        let known = |calls: &&str| Rule::hang(&format!("{calls}:1")).is_ok();
        let calls = field.get_ref().as_str().filter(plain).filter(known);
        let expected =
            "expected \"runs\", \"inits\", \"ops\", \"setup\" or the name of a function such as \"C_Sign\"";
        calls.map(str::to_owned).ok_or_else(|| (field.span(), expected.to_owned()))
    }
}

fn number(field: &Field, range: RangeInclusive<u64>) -> Result<u64, Wrong> {
    let number = field.get_ref().as_integer().and_then(|number| u64::try_from(number).ok());
    let number = number.filter(|number| range.contains(number));
    let expected = || format!("expected a whole number from {} to {}", range.start(), range.end());
    number.ok_or_else(|| (field.span(), expected()))
}

fn time(field: &Field, range: RangeInclusive<Duration>) -> Result<Duration, Wrong> {
    let time = field.get_ref().as_str().and_then(|text| humantime::parse_duration(text).ok());
    let time = time.filter(|time| range.contains(time));
    let bound = humantime::format_duration;
    let expected = || {
        let bounds = format!("from {} to {}", bound(*range.start()), bound(*range.end()));
        format!("expected a time such as \"10s\", \"250ms\" or \"80us\", {bounds}")
    };
    time.ok_or_else(|| (field.span(), expected()))
}

fn whole_ms(field: &Field, longest: Duration) -> Result<Duration, Wrong> {
    let length = time(field, LENGTH_MIN..=longest)?;
    if length.subsec_nanos() % 1_000_000 == 0 {
        Ok(length)
    } else {
        Err((field.span(), "expected whole milliseconds".to_owned()))
    }
}

/// The PIN is not shown.
fn pin(field: &Field) -> Result<&str, Wrong> {
    let plain = |pin: &&str| !pin.contains(|c: char| c == ',' || c.is_control() || c.is_whitespace());
    let pin = field.get_ref().as_str().filter(plain).filter(|pin| (4..=64).contains(&pin.len()));
    pin.ok_or_else(|| (field.span(), "expected a PIN of 4 to 64 bytes, without commas and spaces".to_owned()))
}

fn key(field: &Field) -> Result<&str, Wrong> {
    let plain =
        |key: &&str| key.trim() == *key && !key.contains(|c: char| matches!(c, ',' | ';') || c.is_control());
    let known = |key: &&str| Config::parse(&format!("keys={key}")).is_ok();
    let expected = "expected a key such as \"orders\", \"orders:p256\" or \"orders:p256@sim-0+sim-1\"";
    let key = field.get_ref().as_str().filter(plain).filter(known);
    key.ok_or_else(|| (field.span(), expected.to_owned()))
}

/// The rest of the configuration, as the simulator has it.
fn further(field: &Field) -> Result<String, Wrong> {
    let wrong = |why: String| (field.span(), why);
    let text = field.get_ref().as_str().filter(|text| !text.contains(char::is_control));
    let text =
        text.ok_or_else(|| wrong("expected pairs such as \"input_max=64,reuse=sessions\"".to_owned()))?;
    for (key, _) in pairs(text).map_err(wrong)? {
        if FIELDS.contains(&key) {
            return Err(wrong(format!("{key}: use the field `{}` instead", key.trim_end_matches("_us"))));
        }
        if EVENTS.contains(&key) {
            return Err(wrong(format!("{key}: use an event, [[at]], instead")));
        }
        if key == "forward" {
            return Err(wrong("forward: the tokens of a script are simulated".to_owned()));
        }
    }
    Config::parse(text).map_err(wrong)?;
    Ok(text.to_owned())
}

fn share(field: &Field) -> Result<String, Wrong> {
    let some = |share: &&str| {
        let percent = share.strip_suffix('%').and_then(|percent| percent.parse().ok());
        percent.is_some_and(|percent: f64| percent > 0.0) && Rule::hang(&format!("runs:{share}")).is_ok()
    };
    let plain = |share: &&str| share.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | '%'));
    let expected = "expected a share such as \"5%\" or \"0.1%\", with up to four decimals";
    let share = field.get_ref().as_str().filter(plain).filter(some);
    share.map(str::to_owned).ok_or_else(|| (field.span(), expected.to_owned()))
}

fn code(field: &Field) -> Result<Code, Wrong> {
    field.get_ref().as_str().and_then(Code::parse).ok_or_else(|| {
        let names: Vec<_> = CODES.iter().map(|(name, _)| *name).collect();
        (field.span(), format!("expected a number such as \"0x30\", or one of {}", names.join(", ")))
    })
}

/// Times as thousandths.
fn times(field: &Field) -> Result<u64, Wrong> {
    let value = field.get_ref();
    let times = value.as_float().or_else(|| value.as_integer().map(|whole| whole as f64));
    let thousandths = (times.unwrap_or(f64::NAN) * 1e3).round();
    if !(1_001.0..=TIMES_MAX * 1e3).contains(&thousandths) {
        return Err((field.span(), format!("expected a number above 1, up to {TIMES_MAX}")));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in range, as just checked")]
    Ok(thousandths as u64)
}
