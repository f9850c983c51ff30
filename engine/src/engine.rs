//! The engine, as callers hold it: how it starts, and how it stops.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;

use crate::builder::Settings;
use crate::clock::now;
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::keys::KeyVersion;
use crate::keys::catalogue::Catalogue;
use crate::keys::generate::{KeySpec, generate};
use crate::metrics::Snapshot;
use crate::operation::{Ask, Random, random};
use crate::pkcs11::{Library, Slot, TokenInfo};
use crate::request::Request;
use crate::schedule::core::{Core, Limits};
use crate::schedule::seat::Place;
use crate::schedule::watcher;
use crate::sync::{Mutex, Parker};
use crate::token::Token;
use crate::token::session::Session;

/// Many callers on few sessions: made by [`Engine::builder`], shared by reference or in an `Arc`.
///
/// Dropping it takes no new requests, fails what is queued, and closes its sessions in the background as they
/// become free. [`Engine::drain`] does so in order and waits.
pub struct Engine {
    pub(crate) shared: Arc<Shared>,
}

/// What keys and requests need of an engine.
pub(crate) struct Shared {
    pub(crate) core: Arc<Core>,
    pub(crate) tokens: Vec<Arc<Token>>,
    pub(crate) deadline: Option<Duration>,
    catalogues: Vec<Catalogue>,
    /// Keys that were asked for, by name: a key has one version, and so one lane, however often it is asked for.
    keys: Mutex<HashMap<String, Arc<KeyVersion>>>,
    /// The last one to go finalises the module; sessions hold it too.
    library: Library,
}

/// Sessions per token where nobody says: one per core, at least 2 so that one slow call does not stop a token,
/// at most 8 because software tokens gain nothing beyond.
fn default_sessions() -> usize {
    std::thread::available_parallelism().map_or(2, std::num::NonZero::get).clamp(2, 8)
}

/// Threads that one token gives up to hung calls before its places are no longer filled.
const WRITTEN_OFF_PER_TOKEN: usize = 4;

impl Engine {
    pub(crate) fn start(
        module: &Path,
        names: &[String],
        pin: &SecretString,
        settings: Settings,
    ) -> Result<Self> {
        let library = Library::load(module, settings.init_args.as_deref())?;
        let slots = find_tokens(&library, names)?;
        let logged_in =
            slots.iter().enumerate().map(|(i, &slot)| Token::log_in(&library, slot, i, pin).map(Arc::new));
        let tokens = logged_in.collect::<Result<Vec<_>>>()?;
        let catalogues = tokens.iter().map(|token| list(token)).collect::<Result<Vec<_>>>()?;
        let wanted = settings.sessions.unwrap_or_else(default_sessions).max(1);
        let mut sessions = Vec::new();
        for token in &tokens {
            sessions.push(open_sessions(token, wanted)?);
        }
        let limits = Limits {
            requests: settings.requests_max,
            bytes: settings.bytes_max,
            hang: settings.hang_limit,
            written_off_per_token: WRITTEN_OFF_PER_TOKEN,
        };
        let parker = Parker::new();
        let seats = tokens
            .iter()
            .zip(&sessions)
            .map(|(token, sessions)| (Arc::clone(token), sessions.len()))
            .collect();
        let core = Arc::new(Core::new(seats, limits, parker.unparker().clone()));
        let watched = Arc::clone(&core);
        std::thread::Builder::new()
            .name("hsmux-watcher".into())
            .spawn(move || watcher::run(&watched, &parker))
            .map_err(|error| {
                Error::operator(ErrorKind::Busy, format!("cannot start the watcher: {error}"))
            })?;
        seat_all(&core, sessions).inspect_err(|_| core.stop())?;
        let (deadline, keys) = (settings.deadline, Mutex::new(HashMap::new()));
        Ok(Self { shared: Arc::new(Shared { core, tokens, deadline, catalogues, keys, library }) })
    }

    /// The key with this label.
    ///
    /// # Errors
    /// `KeyNotFound`; `KeyAmbiguous` if a token holds two of this name, or tokens hold different ones.
    ///
    /// # Blocking
    /// Asks the tokens once to prove that they hold the same key.
    pub fn key(&self, name: &str) -> Result<Key> {
        let known = self.shared.keys.lock().get(name).map(Arc::clone);
        let version = match known {
            Some(version) => version,
            None => {
                let loaded = KeyVersion::load(name, &self.shared.tokens, &self.shared.catalogues)?;
                self.remember(name, loaded)
            }
        };
        Ok(Key { shared: Arc::clone(&self.shared), version })
    }

    /// Generates a key under a new name, on the first token only.
    ///
    /// # Errors
    /// `KeyAmbiguous` if the token has a key of this name; what the token answers.
    ///
    /// # Blocking
    /// Until the token has made the key: seconds for large RSA keys.
    pub fn generate_key(&self, name: &str, spec: KeySpec) -> Result<Key> {
        let token = &self.shared.tokens[0];
        if self.shared.catalogues[0].find(name)?.is_some() {
            return Err(Error::operator(ErrorKind::KeyAmbiguous, "the token has a key of this name"));
        }
        let (label, wanted) = (token.info.label.clone(), name.to_owned());
        let listed = token.with_service(move |session, epoch| {
            let made = generate(session, &wanted, spec)?;
            match Catalogue::list(label, session, epoch)?.find(&wanted) {
                Ok(Some(_)) => Catalogue::list_objects(session, epoch, made.key, made.public),
                found => {
                    // Another process has made a key of this name at the same time: ours goes.
                    session.destroy(made.key)?;
                    made.public.map_or(Ok(()), |public| session.destroy(public))?;
                    found?;
                    Err(Error::internal("a generated key cannot be found"))
                }
            }
        })?;
        let version = KeyVersion::single(0, &self.shared.tokens, listed);
        Ok(Key { shared: Arc::clone(&self.shared), version: self.remember(name, version) })
    }

    /// Keeps a key's version; one that another thread has loaded meanwhile wins.
    fn remember(&self, name: &str, version: KeyVersion) -> Arc<KeyVersion> {
        let mut keys = self.shared.keys.lock();
        Arc::clone(keys.entry(name.to_owned()).or_insert_with(|| Arc::new(version)))
    }

    /// Random bytes of a token.
    pub fn random(&self, len: usize) -> Request<'_, Random> {
        Request::new(&self.shared, None, Ask::random(len), Cow::Borrowed(&[]), random)
    }

    /// What the engine has done so far.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::take(&self.shared.core, self.shared.library.counts())
    }

    /// Takes no new requests, lets those in flight finish until `limit`, fails the rest, and closes.
    ///
    /// Returns the number of sessions that were still inside a call at the limit.
    ///
    /// # Blocking
    /// At most `limit`.
    pub fn drain(&self, limit: Duration) -> usize {
        let core = &self.shared.core;
        let until = now().after(limit);
        core.begin_drain();
        loop {
            let heard = core.admission.listen();
            let left = now().until(until);
            if core.admission.requests() == 0 || left.is_zero() {
                break;
            }
            use event_listener::Listener;
            heard.wait_timeout(left);
        }
        core.stop();
        core.wait_closed(until)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.shared.core.stop();
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("tokens", &self.shared.tokens.len()).finish_non_exhaustive()
    }
}

/// The slots of the named tokens, each by label or serial number.
fn find_tokens(library: &Library, names: &[String]) -> Result<Vec<Slot>> {
    if names.is_empty() || names.len() > 64 {
        return Err(Error::operator(ErrorKind::Configuration, "an engine needs between 1 and 64 tokens"));
    }
    let present = library.slots()?.into_iter().map(|slot| Ok((slot, library.token_info(slot)?)));
    // A slot whose token cannot be read is not one of those asked for, as far as anyone can tell.
    let present: Vec<(Slot, TokenInfo)> = present.filter_map(|found: Result<_, Error>| found.ok()).collect();
    names.iter().map(|name| find_token(&present, name)).collect()
}

fn find_token(present: &[(Slot, TokenInfo)], name: &str) -> Result<Slot> {
    let mut matching = present.iter().filter(|(_, info)| info.label == name || info.serial == name);
    match (matching.next(), matching.next()) {
        (Some((slot, _)), None) => Ok(*slot),
        (None, _) => {
            let labels: Vec<_> =
                present.iter().map(|(_, info)| info.label.as_str()).filter(|l| !l.is_empty()).collect();
            let text = format!("{name}; present are: {}", labels.join(", "));
            Err(Error::operator(ErrorKind::TokenNotFound, text))
        }
        (Some(_), Some(_)) => {
            let text = format!("{name} is the label of several tokens: use a serial number");
            Err(Error::operator(ErrorKind::TokenNotFound, text))
        }
    }
}

fn list(token: &Token) -> Result<Catalogue> {
    let label = token.info.label.clone();
    token.with_service(move |session, epoch| Catalogue::list(label, session, epoch))
}

/// Gives every session its seat and worker.
fn seat_all(core: &Arc<Core>, sessions: Vec<Vec<Session>>) -> Result<()> {
    for (token, sessions) in sessions.into_iter().enumerate() {
        for (index, session) in sessions.into_iter().enumerate() {
            core.seat(Place { token, index }, session)?;
        }
    }
    Ok(())
}

/// Opens up to `wanted` sessions: fewer if the token gives no more, at least one.
fn open_sessions(token: &Token, wanted: usize) -> Result<Vec<Session>> {
    let mut sessions = Vec::new();
    while sessions.len() < wanted {
        match token.open() {
            Ok(session) => sessions.push(session),
            Err(error) if error.kind() == ErrorKind::Busy && !sessions.is_empty() => {
                tracing::warn!(
                    token = token.index,
                    open = sessions.len(),
                    wanted,
                    "the token gives no more sessions"
                );
                break;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(sessions)
}
