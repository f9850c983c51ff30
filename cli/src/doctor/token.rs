//! The tokens that are named: whether each is there once, and what their flags say.

mod device;
mod flags;

use hsmux::{ModuleDescription, PinSource, Pkcs11Uri, SessionCounts, TokenDescription, TokenFlags};

use super::finding::Finding;
use crate::connection::{Site, is_uri, unreadable_for};

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
    setting: Setting,
}

/// What the flags of tokens are held against.
#[derive(Clone, Debug)]
struct Setting {
    /// Whether the tokens ask for the PIN themselves; none without a PIN source.
    asks_at_token: Option<bool>,
    /// Whether the PIN is sent although a token warns of wrong tries.
    consents: bool,
    /// The module's path, as a shell takes it.
    module: String,
}

/// A token that is logged in to: places in the lists of names and of the module's tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LoginAt {
    pub(super) name: usize,
    pub(super) token: usize,
    /// One before it that is the same device: a second login would be a second try there.
    pub(super) twin: Option<usize>,
}

/// A name of a token, and what it fits, as places in the lists of tokens.
#[derive(Clone, Debug, Default)]
pub(super) struct Name {
    /// For messages; empty where none was named. A URI is not repeated: it may name a key too.
    said: String,
    /// What a token of this name would be labelled, if that is known.
    label: Option<String>,
    tokens: Vec<usize>,
    uninitialised: Vec<usize>,
    /// Slots by number that may hold what it names, and do not say what they hold.
    unreadable: Vec<u64>,
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

    /// Whether two slots lead to one device. Serial numbers are unique for one manufacturer's model at best.
    fn is_same_device(&self, other: &Self) -> bool {
        let same = |of: fn(&Self) -> &String| of(self) == of(other);
        self.has_same_serial(other) && same(|token| &token.manufacturer) && same(|token| &token.model)
    }

    fn has_same_serial(&self, other: &Self) -> bool {
        !self.serial.is_empty() && self.serial == other.serial
    }
}

impl Seen {
    pub(super) fn look(site: &Site, module: &ModuleDescription) -> Self {
        let mut names: Vec<_> = site.named().iter().map(|name| Name::of(name, module)).collect();
        if names.is_empty() {
            let unreadable = module.unreadable.iter().map(|(slot, _)| *slot).collect();
            names.push(Name::of_any(module.tokens.len(), unreadable));
        }
        let asks = |source: &PinSource| matches!(source, PinSource::ProtectedAuthenticationPath);
        Self {
            tokens: module.tokens.iter().map(Token::of).collect(),
            uninitialised: module.uninitialised.iter().map(Token::of).collect(),
            unreadable: module.unreadable.iter().map(|(slot, error)| (*slot, error.to_string())).collect(),
            names,
            setting: Setting {
                asks_at_token: site.pin_source().map(asks),
                consents: site.sends_despite_warning(),
                module: super::access::quoted(site.module()),
            },
        }
    }

    /// The tokens that are named without a doubt, each once.
    pub(super) fn chosen(&self) -> impl Iterator<Item = &Token> {
        self.places().into_iter().filter_map(|place| self.tokens.get(place))
    }

    /// For each token that is named without a doubt: which name, and which of the module's tokens.
    pub(super) fn logins(&self) -> Vec<LoginAt> {
        let places = self.places();
        let login = |(index, &token): (usize, &usize)| {
            let name = self.names.iter().position(|name| name.place() == Some(token))?;
            let is_twin = |other: &&usize| self.tokens[**other].is_same_device(&self.tokens[token]);
            let twin = places[..index].iter().find(is_twin).copied();
            Some(LoginAt { name, token, twin })
        };
        places.iter().enumerate().filter_map(login).collect()
    }

    /// The flags of one of the module's tokens.
    pub(super) fn flags(&self, token: usize) -> TokenFlags {
        self.tokens.get(token).map(|token| token.flags).unwrap_or_default()
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
        let label = match is_uri(name) {
            true => name.parse::<Pkcs11Uri>().ok().and_then(|uri| uri.token().map(str::to_owned)),
            false => Some(name.to_owned()),
        };
        let unreadable = unreadable_for(name, module);
        let fits = |tokens: &[TokenDescription]| {
            let named = tokens.iter().map(|token| token.is_named(name));
            let named = named.collect::<Result<Vec<_>, _>>()?;
            Ok(named.iter().enumerate().filter_map(|(place, is_named)| is_named.then_some(place)).collect())
        };
        let found = fits(&module.tokens).and_then(|tokens| Ok((tokens, fits(&module.uninitialised)?)));
        match found {
            Ok((tokens, uninitialised)) => {
                Self { said, label, tokens, uninitialised, unreadable, wrong: None }
            }
            Err(error) => Self { said, wrong: Some(hsmux::Error::to_string(&error)), ..Self::default() },
        }
    }

    /// Where none was named: the only token there is.
    fn of_any(tokens: usize, unreadable: Vec<u64>) -> Self {
        Self { tokens: (0..tokens).collect(), unreadable, ..Self::default() }
    }

    /// The token, if it is one for certain.
    fn place(&self) -> Option<usize> {
        match (self.tokens.as_slice(), self.uninitialised.as_slice(), self.unreadable.as_slice()) {
            ([place], [], []) => Some(*place),
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
        findings.extend(flags::judge(token, &seen.setting));
    }
    findings.extend(device::judge_twice(seen));
    findings.extend(device::judge_devices(&chosen));
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
        ([place], []) if !name.unreadable.is_empty() => unsure(seen, name, *place),
        ([place], []) => {
            let token = &seen.tokens[*place];
            let (serial, model, slot) = (&token.serial, &token.model, token.slot);
            Finding::ok(CHECK, format!("{} is there: serial {serial}, {model}, slot {slot}", token.said()))
        }
        ([], []) => Finding::problem(CHECK, missing(seen, said), absent(seen, name)),
        ([], [place]) => {
            let slot = seen.uninitialised[*place].slot;
            let what = format!("the token that {said} names, in slot {slot}, is not initialised");
            Finding::problem("token.initialised", what, initialise(seen, slot, name))
        }
        _ => Finding::problem(
            CHECK,
            several(seen, name),
            "name one by its serial number: name = \"SERIAL\", or --token SERIAL",
        ),
    }
}

/// That what looks like the only token that is meant may not be.
fn unsure(seen: &Seen, name: &Name, place: usize) -> Finding {
    let token = seen.tokens[place].said();
    let slots = name.unreadable.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
    let what = format!(
        "{token} is the only token that can be read, and slot {slots} may hold another: no PIN is sent to one of them"
    );
    let advice = "name the token by its label or serial number: name = \"LABEL\", or --token LABEL";
    Finding::problem("token.present", what, advice)
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
    let unreadable = seen.unreadable.iter();
    let unreadable = unreadable.map(|(slot, _)| format!("; slot {slot} does not say what it holds"));
    let name = if said.is_empty() { String::new() } else { format!(" named {said}") };
    let rest = blank.chain(unreadable).collect::<String>();
    format!("there is no token{name}; present are: {present}{rest}")
}

/// What to do where a token is not there.
fn absent(seen: &Seen, name: &Name) -> String {
    match (seen.tokens.as_slice(), seen.uninitialised.first()) {
        ([], Some(blank)) => initialise(seen, blank.slot, name),
        ([], None) => "see whether the vendor's client reaches its HSM, and whether this user may use it".to_owned(),
        _ => "correct the name, or see why the vendor's client does not show that token: `hsmux info` lists those it shows".to_owned(),
    }
}

fn initialise(seen: &Seen, slot: u64, name: &Name) -> String {
    let label = name.label.as_deref().unwrap_or("LABEL");
    let label = shlex::try_quote(label).unwrap_or_default();
    format!(
        "pkcs11-tool --module {} --slot {slot} --init-token --label {label}, then --init-pin; or the vendor's own tool",
        seen.setting.module
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

#[cfg(test)]
mod tests;
