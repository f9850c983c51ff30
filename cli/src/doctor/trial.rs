//! Logging in, once to each token and by an engine as services have it, and using one key.

mod stop;
mod way;

use std::path::PathBuf;
use std::time::Duration;

use hsmux::{Builder, Copies, Engine, ErrorKind, Key, KeyDescription, ModuleDescription, PinSource};
use quanta::Instant;

use super::access::Private;
use super::finding::Finding;
use super::login::{Held, Login, Operation, Outcome, Untried};
use super::pin;
use super::token::Seen;
use super::within::within;
use crate::connection::{Site, selecting};
use crate::exit::{Exit, Failure, Result};
use stop::{Before, Unlogged};
use way::Way;

/// How long an engine may take to stop.
const DRAIN: Duration = Duration::from_secs(10);

/// How long a token may take to be logged in to, with its keys listed and one used: a large one on a network takes some tens of
/// seconds to list.
const LIMIT: Duration = Duration::from_secs(120);

/// Where a person is asked for the PIN meanwhile.
const LIMIT_WITH_PERSON: Duration = Duration::from_secs(600);

/// Keys that are tried before it is said that none can be used: those of managed keys answer to other names only, and some
/// want a PIN for each use.
const KEYS_TRIED: usize = 8;

/// What is tried on each token.
#[derive(Clone, Debug)]
struct Wanted {
    canary: Option<String>,
    host_modes: Vec<String>,
    has_audit: bool,
}

/// Why nobody logs in, if so.
pub(super) fn obstacle(site: &Site, logs_in: bool, source: Option<&pin::Source>) -> Option<Finding> {
    const CHECK: &str = "login.pin";
    if !logs_in {
        return Some(
            Finding::skipped(CHECK, "no PIN was sent").advise("--login tries it, once on each token"),
        );
    }
    if !site.has_pin() {
        return Some(Finding::skipped(CHECK, "no PIN source was named").advise("--pin-source file:PATH"));
    }
    if let Some((why, advice)) = source.and_then(pin::Source::elsewhere) {
        return Some(Finding::skipped(CHECK, why).advise(advice));
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

/// Logs in to the tokens, one after the other. Once one has refused the PIN, or may have been sent it in vain, the others are
/// left alone: they are given the same.
pub(super) fn log_in(site: &Site, module: &ModuleDescription, seen: &Seen) -> Vec<Login> {
    let pin = source(site);
    let said = |place: usize| match module.tokens.get(place) {
        Some(token) if token.label.is_empty() => token.serial.clone(),
        token => token.map_or_else(String::new, |token| token.label.clone()),
    };
    let mut stop: Option<Untried> = None;
    let mut logins = Vec::new();
    for at in seen.logins() {
        let Some(token) = module.tokens.get(at.token) else { continue };
        let name = said(at.token);
        let outcome = match (&stop, at.twin, &pin) {
            (Some(stop), ..) => Outcome::Untried(stop.clone()),
            (_, Some(twin), _) => Outcome::Untried(Untried::SameDevice(said(twin))),
            (.., Err((exit, why))) => {
                stop = Some(Untried::NoPin);
                Outcome::Failed { exit: *exit, why: why.clone() }
            }
            (.., Ok(pin)) => match Before::look(site, seen, at.token, token) {
                Before { waits_for_consent: true, .. } => Outcome::Untried(Untried::Warned),
                before => {
                    let named = site.named().get(at.name).unwrap_or(&name);
                    try_token(site, selecting(named, token), pin.clone()).unwrap_or_else(|unlogged| {
                        stop = unlogged.stops(&name, before);
                        unlogged.into()
                    })
                }
            },
        };
        logins.push(Login { token: name, outcome });
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

fn try_token(site: &Site, token: String, pin: PinSource) -> std::result::Result<Outcome, Unlogged> {
    let limit = match pin {
        PinSource::ProtectedAuthenticationPath => LIMIT_WITH_PERSON,
        _ => LIMIT,
    };
    let builder = builder(site, token, pin);
    let wanted = Wanted {
        canary: site.canary_key().map(str::to_owned),
        host_modes: site.config().map(|config| config.host_modes().to_vec()).unwrap_or_default(),
        has_audit: site.has_audit(),
    };
    within(limit, move || Ok(wanted.try_on(&builder.build()?)))
        .unwrap_or_else(|why| Err(Unlogged { error: None, why }))
}

impl Wanted {
    fn try_on(&self, engine: &Engine) -> Outcome {
        let keys = engine.keys();
        let canary = self.canary.as_deref().map(|name| use_canary(engine, &keys, name));
        let host_modes = self.host_modes.iter().map(|name| (name.clone(), host_mode(engine, name))).collect();
        let (canary, operation) = match canary {
            Some((held, Some(operation))) => (Some(held), operation),
            other => {
                let operation = match self.has_audit {
                    true => Operation::Unrecorded,
                    false => use_any(engine, &keys),
                };
                (other.map(|(held, _)| held), operation)
            }
        };
        engine.drain(DRAIN);
        Outcome::In { keys: keys.len(), canary, host_modes, operation }
    }
}

/// For one login to one token: through one instance, with as little as possible that makes the token work. The PIN is not sent
/// in spite of a warning unless an option says so, and no audit log is written: a service may have it open. Where a token holds
/// managed keys, what was left half-done with them is tidied up, as by every engine.
fn builder(site: &Site, token: String, pin: PinSource) -> Builder<PathBuf, Vec<String>, PinSource> {
    // More than the service demands would fail where it does not: core files are forbidden by now, as far as they can be.
    let hardens = site.hardens_process();
    let mut builder =
        Engine::builder().module(site.module()).tokens([token]).pin(pin).harden_process(hardens);
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

/// Does with the canary key what an engine does that is built with it. Without an operation where it is not on this token.
fn use_canary(engine: &Engine, keys: &[KeyDescription], name: &str) -> (Held, Option<Operation>) {
    let key = match engine.key(name) {
        Ok(key) => key,
        Err(error) if error.kind() == ErrorKind::KeyNotFound => return (Held::Missing, None),
        Err(error) => return (Held::unfit(&error), Some(Operation::NoCanary)),
    };
    let begun = Instant::now();
    if let Err(error) = engine.check_canary_key(name) {
        return (Held::unfit(&error), Some(Operation::NoCanary));
    }
    let time = begun.elapsed();
    let way = keys.iter().find(|of| of.label == name).and_then(Way::of);
    let what = way.map_or("did what a canary is for", Way::name);
    (Held::There(proof(&key, way)), Some(Operation::Done { key: name.to_owned(), what, time }))
}

/// What is the same for two keys only if they are one, if there is something.
fn proof(key: &Key, way: Option<Way>) -> Option<Vec<u8>> {
    key.public_key_der().ok().or_else(|| way?.output(key))
}

/// Whether an engine starts with this key in `host_modes`.
fn host_mode(engine: &Engine, name: &str) -> Held {
    match engine.key(name).and_then(Key::with_host_modes) {
        Ok(_) => Held::There(None),
        Err(error) if error.kind() == ErrorKind::KeyNotFound => Held::Missing,
        Err(error) => Held::unfit(&error),
    }
}

/// The first key that can be had by its label and that something can be done with: the engine refuses what the token has no
/// mechanism for, and keys that want a PIN for each use.
fn use_any(engine: &Engine, keys: &[KeyDescription]) -> Operation {
    let ways = keys.iter().filter_map(|key| Some((Way::of(key)?, key.label.as_str()))).take(KEYS_TRIED);
    for (way, label) in ways {
        let Ok(key) = engine.key(label) else { continue };
        let begun = Instant::now();
        match way.run(&key) {
            Ok(()) => {
                return Operation::Done { key: label.to_owned(), what: way.name(), time: begun.elapsed() };
            }
            Err(error) if is_of_the_key(error.kind()) => {}
            Err(error) => return Operation::Failed { key: label.to_owned(), why: error.to_string() },
        }
    }
    Operation::NoKey
}

/// Whether another key may do what this one does not.
const fn is_of_the_key(kind: ErrorKind) -> bool {
    use ErrorKind::{KeyMismatch, KeyNotFound, KeyState, MechanismUnavailable, NotPermitted};
    matches!(kind, KeyMismatch | KeyNotFound | KeyState | MechanismUnavailable | NotPermitted)
}

impl Held {
    fn unfit(error: &hsmux::Error) -> Self {
        Self::Unfit { exit: Exit::of(error.kind()), why: error.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_may_not_be_used_so_says_nothing_of_the_next() {
        // Such are those that want a PIN for each use, and those that the token has no mechanism for.
        for kind in [ErrorKind::NotPermitted, ErrorKind::MechanismUnavailable, ErrorKind::KeyMismatch] {
            assert!(is_of_the_key(kind), "{kind:?}");
        }
        assert!(!is_of_the_key(ErrorKind::Device) && !is_of_the_key(ErrorKind::TokenLost));
    }
}
