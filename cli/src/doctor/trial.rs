//! Logging in, once to each token and by an engine as services have it, and using one key.

use std::path::PathBuf;
use std::time::Duration;

use hsmux::{
    AesEcb, Builder, Copies, Ecdsa, Ed25519, Engine, ErrorKind, Hmac, Key, KeyDescription, ModuleDescription,
    PinSource, RsaPkcs1,
};
use quanta::Instant;

use super::access::Private;
use super::finding::Finding;
use super::login::{Canary, Login, Operation, Outcome};
use super::token::Seen;
use crate::connection::{Site, selecting};
use crate::exit::{Exit, Failure, Result};

/// How long an engine may take to stop.
const DRAIN: Duration = Duration::from_secs(10);

/// What is signed: a text that no protocol uses. As a block of AES it has the right length.
const TEXT: &[u8] = b"hsmux doctor: 1 ";

/// Keys that are tried before it is said that none can be used: those of managed keys answer to other names only.
const KEYS_TRIED: usize = 8;

/// Why nobody logs in, if so.
pub(super) fn obstacle(site: &Site, logs_in: bool) -> Option<Finding> {
    const CHECK: &str = "login.pin";
    if !logs_in {
        return Some(
            Finding::skipped(CHECK, "no PIN was sent").advise("--login tries it, once on each token"),
        );
    }
    if !site.has_pin() {
        return Some(Finding::skipped(CHECK, "no PIN source was named").advise("--pin-source file:PATH"));
    }
    // An engine would make it, for this user, who need not be the service's.
    match site.state_dir().map(Private::look)? {
        Private::Usable => None,
        _ => {
            let why = "no PIN is sent while the state_dir cannot remember that it was refused";
            Some(Finding::skipped(CHECK, why).advise("as said above of the state_dir"))
        }
    }
}

/// Logs in to the tokens, one after the other. Once one has refused the PIN, the others are left alone: they are given the
/// same.
pub(super) fn log_in(site: &Site, module: &ModuleDescription, seen: &Seen) -> Vec<Login> {
    let pin = source(site);
    let mut refused = false;
    let mut logins = Vec::new();
    for (name, place) in seen.logins() {
        let Some(token) = module.tokens.get(place) else { continue };
        let said = if token.label.is_empty() { &token.serial } else { &token.label };
        let named = site.named().get(name).map_or(said.as_str(), String::as_str);
        let outcome = match &pin {
            _ if refused => Outcome::Untried,
            Ok(pin) => try_token(site, selecting(named, token), pin.clone()),
            Err((exit, why)) => Outcome::Failed { exit: *exit, why: why.clone() },
        };
        refused |= matches!(outcome, Outcome::Failed { exit: Exit::Pin, .. });
        logins.push(Login { token: said.clone(), outcome });
    }
    logins
}

/// A source that can be read for each token: who is asked, is asked once.
fn source(site: &Site) -> std::result::Result<PinSource, (Exit, String)> {
    let read = || -> Result<PinSource> {
        Ok(match site.pin()? {
            source @ (PinSource::Prompt | PinSource::Fd(_)) => source.read()?.into(),
            // The records of logins name these.
            source => source,
        })
    };
    read().map_err(why)
}

fn why(failure: Failure) -> (Exit, String) {
    match failure {
        Failure::Said { exit, text } => (exit, text),
        Failure::OutputClosed => (Exit::Other, String::new()),
    }
}

fn try_token(site: &Site, token: String, pin: PinSource) -> Outcome {
    let engine = match builder(site, token, pin).build() {
        Ok(engine) => engine,
        Err(error) => return Outcome::Failed { exit: Exit::of(error.kind()), why: error.to_string() },
    };
    let keys = engine.keys();
    let canary = site.canary_key().map(|name| canary(&engine, name));
    let operation = match site.canary_key() {
        Some(name) if canary == Some(Canary::There) => use_canary(&engine, &keys, name),
        _ if site.has_audit() => Operation::Unrecorded,
        _ => use_any(&engine, &keys),
    };
    engine.drain(DRAIN);
    Outcome::In { keys: keys.len(), canary, operation }
}

/// For one login to one token: through one instance, with as little as possible that makes the token work. The PIN is not sent
/// in spite of a warning unless an option says so, and no audit log is written: a service may have it open. Where a token holds
/// managed keys, what was left half-done with them is tidied up, as by every engine.
fn builder(site: &Site, token: String, pin: PinSource) -> Builder<PathBuf, Vec<String>, PinSource> {
    let mut builder = Engine::builder().module(site.module()).tokens([token]).pin(pin).harden_process(true);
    builder = builder.sessions(1).random_pool(false).coalescing(false).copies(Copies::Off);
    if let Some(config) = site.config() {
        builder = builder.module_kind(config.module_kind());
    }
    if site.has_consent() {
        builder = builder.pin_despite_warning();
    }
    if let Some(directory) = site.state_dir() {
        builder = builder.state_dir(directory);
    }
    match site.init_args() {
        Some(text) => builder.init_args(text),
        None => builder,
    }
}

fn canary(engine: &Engine, name: &str) -> Canary {
    match engine.key(name) {
        Err(error) if error.kind() == ErrorKind::KeyNotFound => Canary::Missing,
        // Why it cannot be had, its use says.
        _ => Canary::There,
    }
}

fn use_canary(engine: &Engine, keys: &[KeyDescription], name: &str) -> Operation {
    let is_it = |key: &&KeyDescription| key.label == name;
    let Some(way) = keys.iter().find(is_it).and_then(Way::of) else { return Operation::NoKey };
    match engine.key(name) {
        Ok(key) => way.go(&key, name),
        Err(error) => Operation::failed(name, &error),
    }
}

/// The first key that can be had by its label and that something can be done with.
fn use_any(engine: &Engine, keys: &[KeyDescription]) -> Operation {
    let mut ways = keys.iter().filter_map(|key| Some((Way::of(key)?, key.label.as_str()))).take(KEYS_TRIED);
    let had = ways.find_map(|(way, label)| Some((way, engine.key(label).ok()?, label)));
    had.map_or(Operation::NoKey, |(way, key, label)| way.go(&key, label))
}

impl Operation {
    fn failed(key: &str, error: &hsmux::Error) -> Self {
        Self::Failed { key: key.to_owned(), exit: Exit::of(error.kind()), why: error.to_string() }
    }
}

/// What a key is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Ecdsa(Ecdsa),
    Ed25519,
    RsaPkcs1,
    Hmac,
    AesEcb,
}

impl Way {
    fn of(key: &KeyDescription) -> Option<Self> {
        // A key for some mechanisms only, or one with a name that others have too, is not tried.
        if !key.allowed.is_empty() || key.label.is_empty() {
            return None;
        }
        Self::of_kind(&key.kind, &key.uses)
    }

    fn of_kind(kind: &str, uses: &[&str]) -> Option<Self> {
        let may = |it: &str| uses.contains(&it);
        match kind {
            "EC P-256" if may("sign") => Some(Self::Ecdsa(Ecdsa::P256_SHA256)),
            "EC P-384" if may("sign") => Some(Self::Ecdsa(Ecdsa::P384_SHA384)),
            "EC P-521" if may("sign") => Some(Self::Ecdsa(Ecdsa::P521_SHA512)),
            "Ed25519" if may("sign") => Some(Self::Ed25519),
            rsa if rsa.starts_with("RSA-") && may("sign") => Some(Self::RsaPkcs1),
            hmac if hmac.starts_with("HMAC-") && may("sign") => Some(Self::Hmac),
            aes if aes.starts_with("AES-") && may("encrypt") => Some(Self::AesEcb),
            _ => None,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::AesEcb => "encrypted a block",
            Self::Hmac => "made a MAC",
            _ => "signed",
        }
    }

    /// Uses the key once, timed.
    fn go(self, key: &Key, name: &str) -> Operation {
        let begun = Instant::now();
        match self.run(key) {
            Ok(()) => Operation::Done { key: name.to_owned(), what: self.name(), time: begun.elapsed() },
            Err(error) => Operation::failed(name, &error),
        }
    }

    fn run(self, key: &Key) -> hsmux::Result<()> {
        match self {
            Self::Ecdsa(how) => key.sign(how, TEXT).wait().map(drop),
            Self::Ed25519 => key.sign(Ed25519, TEXT).wait().map(drop),
            Self::RsaPkcs1 => key.sign(RsaPkcs1::SHA256, TEXT).wait().map(drop),
            Self::Hmac => key.sign(Hmac::SHA256, TEXT).wait().map(drop),
            Self::AesEcb => key.encrypt(AesEcb, TEXT).wait().map(drop),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_used_for_what_it_may_do() {
        let all = ["sign", "verify", "encrypt", "decrypt"];
        for (kind, way) in [
            ("EC P-256", Some(Way::Ecdsa(Ecdsa::P256_SHA256))),
            ("EC P-521", Some(Way::Ecdsa(Ecdsa::P521_SHA512))),
            ("Ed25519", Some(Way::Ed25519)),
            ("RSA-2048", Some(Way::RsaPkcs1)),
            ("HMAC-256", Some(Way::Hmac)),
            ("AES-256", Some(Way::AesEcb)),
            ("3DES-168", None),
            ("other", None),
        ] {
            assert_eq!(Way::of_kind(kind, &all), way, "{kind}");
        }
        assert_eq!(Way::of_kind("RSA-2048", &["decrypt"]), None);
        assert_eq!(Way::of_kind("AES-256", &["sign"]), None);
        assert_eq!(TEXT.len(), 16);
    }
}
