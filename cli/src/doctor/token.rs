//! The tokens that are named: whether each is there once, and what their flags say.

mod flags;

use hsmux::{ModuleDescription, PinSource, SessionCounts, TokenDescription, TokenFlags};

use super::finding::Finding;
use crate::connection::{Site, is_uri};

/// A token as it describes itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Token {
    pub(super) label: String,
    pub(super) serial: String,
    pub(super) manufacturer: String,
    pub(super) model: String,
    pub(super) slot: u64,
    pub(super) flags: TokenFlags,
    pub(super) sessions: SessionCounts,
    /// What it tells, if it has a clock, and the time of day here.
    pub(super) clock: Option<hsmux::TokenClock>,
}

/// The tokens of a module, and which of them are meant.
pub(super) struct Seen {
    tokens: Vec<Token>,
    uninitialised: Vec<Token>,
    /// Slots by number, with the reason.
    unreadable: Vec<(u64, String)>,
    names: Vec<Name>,
    /// Whether the tokens ask for the PIN themselves; none without a PIN source.
    pub(super) asks_at_token: Option<bool>,
    module: String,
}

/// A name of a token, and what it fits, as places in the lists of tokens.
#[derive(Clone, Debug, Default)]
pub(super) struct Name {
    /// For messages; empty where none was named. A URI is not repeated: it may name a key too.
    pub(super) said: String,
    pub(super) tokens: Vec<usize>,
    uninitialised: Vec<usize>,
    /// Why it is no name.
    wrong: Option<String>,
}

impl Token {
    fn of(token: &TokenDescription) -> Self {
        Self {
            label: token.label.clone(),
            serial: token.serial.clone(),
            manufacturer: token.manufacturer.clone(),
            model: token.model.clone(),
            slot: token.slot,
            flags: token.flags,
            sessions: token.sessions,
            clock: token.clock,
        }
    }

    /// As it is called in a sentence.
    pub(super) fn said(&self) -> &str {
        if self.label.is_empty() { &self.serial } else { &self.label }
    }
}

impl Seen {
    pub(super) fn look(site: &Site, module: &ModuleDescription) -> Self {
        let mut names: Vec<_> = site.named().iter().map(|name| Name::of(name, module)).collect();
        if names.is_empty() {
            names.push(Name::of_any(module.tokens.len()));
        }
        let asks = |source: &PinSource| matches!(source, PinSource::ProtectedAuthenticationPath);
        Self {
            tokens: module.tokens.iter().map(Token::of).collect(),
            uninitialised: module.uninitialised.iter().map(Token::of).collect(),
            unreadable: module.unreadable.iter().map(|(slot, error)| (*slot, error.to_string())).collect(),
            names,
            asks_at_token: site.pin_source().map(asks),
            module: super::access::quoted(site.module()),
        }
    }

    /// The tokens that are named without a doubt, each once.
    pub(super) fn chosen(&self) -> impl Iterator<Item = &Token> {
        self.places().into_iter().filter_map(|place| self.tokens.get(place))
    }

    /// For each token that is named without a doubt: which name, and which of the module's tokens.
    pub(super) fn logins(&self) -> Vec<(usize, usize)> {
        let first = |place| self.names.iter().position(|name| name.place() == Some(place));
        self.places().into_iter().filter_map(|place| Some((first(place)?, place))).collect()
    }

    fn places(&self) -> Vec<usize> {
        let mut places: Vec<usize> = Vec::new();
        for place in self.names.iter().filter_map(Name::place) {
            if !places.contains(&place) {
                places.push(place);
            }
        }
        places
    }
}

impl Name {
    fn of(name: &str, module: &ModuleDescription) -> Self {
        let said = if is_uri(name) { "the URI" } else { name }.to_owned();
        let fits = |tokens: &[TokenDescription]| {
            let named = tokens.iter().map(|token| token.is_named(name));
            let named = named.collect::<Result<Vec<_>, _>>()?;
            Ok(named.iter().enumerate().filter_map(|(place, is_named)| is_named.then_some(place)).collect())
        };
        let found = fits(&module.tokens).and_then(|tokens| Ok((tokens, fits(&module.uninitialised)?)));
        match found {
            Ok((tokens, uninitialised)) => Self { said, tokens, uninitialised, wrong: None },
            Err(error) => Self { said, wrong: Some(hsmux::Error::to_string(&error)), ..Self::default() },
        }
    }

    /// Where none was named: the only token there is.
    fn of_any(tokens: usize) -> Self {
        Self { tokens: (0..tokens).collect(), ..Self::default() }
    }

    /// The token, if it is one.
    fn place(&self) -> Option<usize> {
        match (self.tokens.as_slice(), self.uninitialised.as_slice()) {
            ([place], []) => Some(*place),
            _ => None,
        }
    }
}

/// Whether every name is a token's, and whether those can be used.
pub(super) fn judge(seen: &Seen) -> Vec<Finding> {
    let mut findings: Vec<_> = seen.names.iter().map(|name| judge_name(seen, name)).collect();
    findings.extend(judge_slots(seen));
    let chosen: Vec<_> = seen.chosen().collect();
    if chosen.is_empty() {
        findings
            .push(Finding::skipped("token.pin_tries", "no token was found whose flags could be looked at"));
    }
    for token in &chosen {
        findings.extend(flags::judge(token, seen.asks_at_token));
    }
    findings.extend(judge_twice(seen));
    findings.extend(judge_devices(&chosen));
    findings
}

fn judge_name(seen: &Seen, name: &Name) -> Finding {
    const CHECK: &str = "token.present";
    let said = &name.said;
    if let Some(wrong) = &name.wrong {
        let advice = "a label, a serial number, or a URI as pkcs11:token=LABEL;serial=NUMBER";
        return Finding::problem(CHECK, format!("a token's name is no name: {wrong}"), advice);
    }
    match (name.tokens.as_slice(), name.uninitialised.as_slice()) {
        ([place], []) => {
            let token = &seen.tokens[*place];
            let (serial, model, slot) = (&token.serial, &token.model, token.slot);
            Finding::ok(CHECK, format!("{} is there: serial {serial}, {model}, slot {slot}", token.said()))
        }
        ([], []) => Finding::problem(CHECK, missing(seen, said), absent(seen, said)),
        ([], [place]) => {
            let slot = seen.uninitialised[*place].slot;
            let what = format!("the token that {said} names, in slot {slot}, is not initialised");
            Finding::problem("token.initialised", what, initialise(seen, slot, said))
        }
        _ => Finding::problem(
            CHECK,
            several(seen, name),
            "name one by its serial number: name = \"SERIAL\", or --token SERIAL",
        ),
    }
}

/// That one name fits several tokens, and which.
fn several(seen: &Seen, name: &Name) -> String {
    let tokens = name.tokens.iter().filter_map(|&place| seen.tokens.get(place));
    let tokens =
        tokens.map(|token| format!("{} (serial {}, slot {})", token.label, token.serial, token.slot));
    let blank = name.uninitialised.iter().filter_map(|&place| seen.uninitialised.get(place));
    let blank = blank.map(|token| format!("one that is not initialised (slot {})", token.slot));
    let all = tokens.chain(blank).collect::<Vec<_>>().join(", ");
    match name.said.as_str() {
        "" => format!("none is named, and there are several tokens: {all}"),
        said => format!("{said} names several tokens: {all}"),
    }
}

/// That a token is not there, and which are.
fn missing(seen: &Seen, said: &str) -> String {
    let all: Vec<_> = seen.tokens.iter().map(Token::said).collect();
    let present = if all.is_empty() { "none".to_owned() } else { all.join(", ") };
    let blank = seen.uninitialised.iter();
    let blank = blank.map(|token| format!("; slot {} holds a token that is not initialised", token.slot));
    let name = if said.is_empty() { String::new() } else { format!(" named {said}") };
    format!("there is no token{name}; present are: {present}{}", blank.collect::<String>())
}

/// What to do where a token is not there.
fn absent(seen: &Seen, said: &str) -> String {
    match (seen.tokens.as_slice(), seen.uninitialised.first()) {
        ([], Some(blank)) => initialise(seen, blank.slot, said),
        ([], None) => "see whether the vendor's client reaches its HSM, and whether this user may use it".to_owned(),
        _ => "correct the name, or see why the vendor's client does not show that token: `hsmux info` lists those it shows".to_owned(),
    }
}

fn initialise(seen: &Seen, slot: u64, label: &str) -> String {
    let label = if label.is_empty() { "LABEL".into() } else { shlex::try_quote(label).unwrap_or_default() };
    format!(
        "pkcs11-tool --module {} --slot {slot} --init-token --label {label}, then --init-pin; or the vendor's own tool",
        seen.module
    )
}

/// Slots that hold nothing that could be used.
fn judge_slots(seen: &Seen) -> Vec<Finding> {
    const CHECK: &str = "token.slots";
    let blank = seen.uninitialised.iter();
    // SoftHSM2 always has one.
    let mut findings: Vec<_> = blank
        .map(|token| Finding::ok(CHECK, format!("slot {} holds a token that is not initialised", token.slot)))
        .collect();
    findings.extend(seen.unreadable.iter().map(|(slot, why)| {
        let what = format!("slot {slot} does not say what it holds: {why}");
        Finding::warning(CHECK, what, "see the device behind that slot, and the vendor's client")
    }));
    findings
}

/// Whether two names are one token's, which an engine refuses.
fn judge_twice(seen: &Seen) -> Option<Finding> {
    let places: Vec<_> = seen.names.iter().filter_map(Name::place).collect();
    let twice = places.iter().enumerate().find(|(index, place)| places[..*index].contains(place));
    let what = format!("{} is named twice", seen.tokens.get(*twice?.1)?.said());
    Some(Finding::problem("token.device", what, "leave one of the two names out"))
}

/// Whether two of them are one device, so that one takes nothing over from the other.
fn judge_devices(chosen: &[&Token]) -> Option<Finding> {
    const CHECK: &str = "token.device";
    let said = |token: &Token| format!("{} (slot {})", token.said(), token.slot);
    let twice = chosen.iter().enumerate().find_map(|(place, token)| {
        let is_same = |other: &&&Token| !token.serial.is_empty() && other.serial == token.serial;
        chosen[..place].iter().find(is_same).map(|other| (said(other), said(token), &token.serial))
    });
    match twice {
        Some((one, other, serial)) => {
            let what = format!(
                "{one} and {other} have the same serial number, {serial}: they are one device, twice"
            );
            Some(Finding::problem(
                CHECK,
                what,
                "leave one of the two [[token]] out: it brings no second device",
            ))
        }
        None if chosen.len() > 1 => Some(Finding::ok(CHECK, "each token has a serial number of its own")),
        None => None,
    }
}

#[cfg(test)]
mod tests;
