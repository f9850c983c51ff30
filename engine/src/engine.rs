//! The engine, as callers hold it: how it starts, and how it stops.

pub(crate) mod audit;
mod instances;
mod keeper;
pub(crate) mod keys;
pub(crate) mod ledger;
mod listing;
mod recovery;
pub(crate) mod rotation;
mod unmanaged;

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::builder::Settings;
use crate::clock::now;
use crate::engine::audit::Book;
use crate::engine::instances::Started;
use crate::engine::ledger::Ledger;
use crate::error::{Error, ErrorKind, Result};
use crate::harden;
use crate::key::Key;
use crate::keys::copies::Copies;
use crate::keys::known::Known;
use crate::keys::listing::Listing;
use crate::keys::name::KeyName;
use crate::keys::{Found, KeyVersion};
use crate::metrics::Snapshot;
use crate::operate::{deadline_ns, hang_ns, mask_of};
use crate::operation::{Ask, OperationKind, Random, random};
use crate::payload::Input;
use crate::pin::{Pin, PinSource};
use crate::pkcs11::Library;
use crate::random_pool::RandomPool;
use crate::request::{Request, check_not_forked, plan};
use crate::schedule::core::{Core, Limits, Room};
use crate::schedule::scope::Scope;
use crate::schedule::seat::Place;
use crate::schedule::waiters::Wants;
use crate::schedule::watcher;
use crate::sessions::Bounds;
use crate::sync::{AtomicU64, Ordering, Parker, RwLock};
use crate::token::Token;
use crate::token::measured::Measured;
use crate::token::name::{check_module, find_tokens};
use crate::token::session::Session;
use listing::Pace;

/// Many callers on few sessions: made by [`Engine::builder`], shared by reference or in an `Arc`.
///
/// Dropping it takes no new requests, fails what is queued, and closes its sessions in the background as they
/// become free. [`Engine::drain`] does so in order and waits.
pub struct Engine {
    pub(crate) shared: Arc<Shared>,
}

/// What keys and requests need of an engine.
pub(crate) struct Shared {
    /// Unique in this process, so that a key of another engine is noticed.
    pub(crate) number: u64,
    pub(crate) core: Arc<Core>,
    /// Of the first instance of the module in the order in which they were named, then of the second, and so on.
    pub(crate) tokens: Vec<Arc<Token>>,
    /// Of requests that name none, in nanoseconds; [`NO_DEADLINE`] for none. May change.
    pub(crate) deadline_ns: AtomicU64,
    pub(crate) rsa_pkcs1_decryption: bool,
    pub(crate) validated_only: bool,
    copies: Copies,
    pub(crate) random_pool: Option<Arc<RandomPool>>,
    pub(crate) listings: Vec<RwLock<Listing>>,
    pub(crate) ledger: Ledger,
    /// The audit log, if there is one. Set when the engine is built.
    pub(crate) book: OnceLock<Arc<Book>>,
    /// That the tokens were logged in to with.
    pin: Arc<Pin>,
    /// By token: when its keys may be listed again.
    paces: Vec<Pace>,
    keys: Known,
    /// The instances of the module. The last one to go finalises its instance; sessions hold it too.
    libraries: Vec<Library>,
}

/// Time that a drain gives idle sessions, and then a token's own, to close when its limit has been used up: a call
/// each that takes microseconds, or a few round trips.
const CLOSE_MIN: Duration = Duration::from_millis(100);

/// Threads that one token gives up to hung calls before its places are no longer filled.
const WRITTEN_OFF_PER_TOKEN: usize = 4;

impl Engine {
    pub(crate) fn start(module: &Path, names: &[String], pin: PinSource, settings: Settings) -> Result<Self> {
        let Connected { pin, measured, started } = connect(module, names, pin, &settings)?;
        let Started { libraries, tokens, sessions, bounds } = started;
        let listings =
            tokens.iter().map(|token| Ok(RwLock::new(list(token)?))).collect::<Result<Vec<_>>>()?;
        let core = start_core(&tokens, sessions, &bounds, &settings)?;
        let random_pool = settings.random_pool.then(|| Arc::new(random_pool(&core, tokens.len())));
        let messages_max = settings.gcm_messages_max;
        let ledger =
            Ledger::new(&tokens, pin.state_dir(), writer()?, settings.key_group.clone(), messages_max);
        let shared = Shared {
            number: next_number(),
            core,
            paces: tokens.iter().map(|_| Pace::default()).collect(),
            tokens,
            deadline_ns: AtomicU64::new(deadline_ns(settings.deadline)),
            rsa_pkcs1_decryption: settings.rsa_pkcs1_decryption,
            validated_only: settings.validated_only,
            copies: measured.copies(settings.copies),
            random_pool,
            listings,
            ledger,
            book: OnceLock::new(),
            pin,
            keys: Known::default(),
            libraries,
        };
        let engine = Self { shared: Arc::new(shared) };
        engine.begin(&settings)?;
        Ok(engine)
    }

    /// Begins what goes on beside requests, and makes ready what the settings name.
    fn begin(&self, settings: &Settings) -> Result<()> {
        recovery::listen(&self.shared);
        keeper::open(&self.shared)?;
        if let Some(audit) = &settings.audit {
            // Before any key is used.
            let book = Book::open(&self.shared, audit, settings.requests_max)?;
            let _set = self.shared.book.set(Arc::new(book));
        }
        if let Some(name) = &settings.canary_key {
            recovery::watch_over(&self.shared, self.key(name.as_str())?.version())?;
        }
        for name in &settings.host_modes {
            self.key(name.as_str())?.with_host_modes()?;
        }
        Ok(())
    }

    /// The key of this name: a label, or what [`KeyName`] offers. Names of the same key share its queues.
    ///
    /// A URI restricts the tokens too: the key is used only on those that it selects. Its `pin-source` means nothing
    /// here, for the engine has logged in.
    ///
    /// What others have made or destroyed since the tokens' keys were listed is noticed when a name is not found, or after
    /// a token has answered that it does not know a key: then they are listed again, each at most once a second.
    ///
    /// # Errors
    /// `KeyNotFound`, to be tried again later ([`Retry::Later`](crate::Retry::Later)) if it was too soon to list a token
    /// again; `KeyAmbiguous` if a token holds two of this name, or tokens hold different ones;
    /// `Configuration` for a URI that asks for another module, or has attributes that nobody here understands.
    ///
    /// # Blocking
    /// Asks the tokens once to prove that they hold the same key and, for the first key of a block cipher of its type and
    /// length, to show that requests may share calls, by some twenty small operations; and for as long as they take to
    /// list their keys again, at most a minute each.
    pub fn key<'n>(&self, name: impl Into<KeyName<'n>>) -> Result<Key> {
        check_not_forked()?;
        let (name, shared) = (name.into(), &self.shared);
        if let Some(uri) = name.known_uri() {
            check_module(&shared.libraries[0], uri)?;
        }
        if let Some(managed) = shared.managed_or_read(&name)? {
            return Ok(Key::new(shared, shared.primary_of(&managed)?));
        }
        loop {
            let objects = match shared.objects(&name) {
                Err(error) if error.kind() == ErrorKind::KeyNotFound => {
                    // The first one of its catalogue may have been made since.
                    let Some(managed) = shared.managed_after_listing(&name)? else { return Err(error) };
                    return Ok(Key::new(shared, shared.primary_of(&managed)?));
                }
                objects => objects?,
            };
            let version = match shared.keys.get(&objects) {
                Some(version) => version,
                None => {
                    let found = Found::find(&name, &shared.tokens, &shared.listings)?;
                    shared.open_catalogue()?;
                    if let Some(managed) = shared.managed(&name)? {
                        return Ok(Key::new(shared, shared.primary_of(&managed)?));
                    }
                    shared.check_not_managed(&found)?;
                    let version = KeyVersion::load(&found, &shared.tokens, shared.copies)?;
                    let version = shared.keys.remember(found.objects(), version);
                    // A token may have come back while it was loaded, and has other objects then: it is loaded anew.
                    if shared.objects(&name)? != found.objects() {
                        continue;
                    }
                    version
                }
            };
            if version.tie.is_some() || shared.is_managed(&objects, &name)? {
                return Err(keys::asked_otherwise());
            }
            return Ok(Key::new(shared, version));
        }
    }

    /// Random bytes of a token: up to 256 of them from a pool that is filled in bulk, unless
    /// [`Builder::random_pool`](crate::Builder::random_pool) is off.
    pub fn random(&self, len: usize) -> Request<'_, Random> {
        Request::new(&self.shared, None, Ask::random(len), Input::default(), random)
    }

    /// What the engine has done so far; nothing in a forked child.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        if check_not_forked().is_err() {
            return Snapshot::empty();
        }
        let pool = self.shared.random_pool.as_ref().map(|pool| pool.counts()).unwrap_or_default();
        let libraries = self.shared.libraries.iter().map(Library::counts);
        let audit = self.shared.book.get().map(|book| book.snapshot()).unwrap_or_default();
        Snapshot::take(&self.shared.core, libraries, pool).with_audit(audit)
    }

    /// Takes no new requests, lets those in flight finish until `limit`, fails the rest, and closes every session.
    /// The module itself is finalised when the engine and its keys are dropped.
    ///
    /// Call it before the process exits: modules are known to crash when exit handlers run beside a thread that is
    /// inside them (SoftHSM2 2.6.1 with OpenSSL 3). After a mere drop the end of the process waits up to 250 ms
    /// for the engine's threads, and for no longer.
    ///
    /// Returns the number of sessions that were still inside a call at the limit, those whose call hangs and that were
    /// written off too. In a forked child nothing is there to be stopped: it returns 0 at once.
    ///
    /// # Blocking
    /// At most `limit`, and then a tenth of a second for what idles and as much per token for the sessions that
    /// keep its login.
    pub fn drain(&self, limit: Duration) -> usize {
        if check_not_forked().is_err() {
            return 0;
        }
        let core = &self.shared.core;
        let until = now().after(limit);
        core.begin_drain();
        self.shared.ledger.wake();
        loop {
            let mut heard = core.admission.listen(Wants::Anything, 0);
            let left = now().until(until);
            if core.admission.requests() == 0 || left.is_zero() {
                break;
            }
            heard.wait_timeout(left);
        }
        if self.shared.ledger.is_in_use() && core.admission.requests() == 0 {
            self.shared.return_leases(until);
        }
        core.stop();
        // Here and not by the watcher, so that what idles counts as closed although the time may be up.
        core.carry_out_stop();
        self.shared.random_pool.iter().for_each(|pool| pool.wipe());
        let inside = core.wait_out(until.max(now().after(CLOSE_MIN)));
        if let Some(book) = self.shared.book.get() {
            // The last checkpoint is signed while the tokens' own sessions are there.
            book.wait_collected(until);
            book.close(until.max(now().after(CLOSE_MIN)));
        }
        core.threads.join(now().after(CLOSE_MIN));
        for token in &self.shared.tokens {
            token.close_and_wait(now().until(until).max(CLOSE_MIN));
        }
        inside
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if check_not_forked().is_ok() {
            self.shared.core.stop();
            self.shared.ledger.wake();
            self.shared.core.threads.leave();
            self.shared.tokens.iter().for_each(|token| token.close());
        } else {
            // Leaked: in a child, what a drop would close is the parent's, and its locks may be held for ever.
            std::mem::forget(Arc::clone(&self.shared));
        }
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("tokens", &self.shared.tokens.len()).finish_non_exhaustive()
    }
}

/// A module whose tokens are logged in to.
struct Connected {
    pin: Arc<Pin>,
    measured: Measured,
    started: Started,
}

/// Loads the module, finds the tokens, logs in and opens the first sessions.
fn connect(module: &Path, names: &[String], pin: PinSource, settings: &Settings) -> Result<Connected> {
    settings.check()?;
    settings.pin_keep.check(&pin)?;
    if settings.harden_process {
        harden::process()?;
    }
    let library = Library::load(module, settings.init_args.as_deref(), Some(settings.module_kind))?;
    let slots = find_tokens(&library, names)?;
    let measured = settings.measured(&library, &slots)?;
    // After the tokens were found: nobody is asked for a PIN that is not needed.
    let pin = Arc::new(Pin::new(pin, settings.pin_keep, settings.state_dir.as_deref())?);
    if settings.harden_process {
        pin.demand_lock()?;
    }
    if let Some(new) = &settings.new_pin {
        pin.resume(new.clone())?;
    }
    let started = instances::start(library, &slots, &pin, settings, &measured)?;
    Ok(Connected { pin, measured, started })
}

/// The schedule with its sessions seated, and its watcher.
fn start_core(
    tokens: &[Arc<Token>],
    sessions: Vec<Vec<Session>>,
    bounds: &[Bounds],
    settings: &Settings,
) -> Result<Arc<Core>> {
    let scopes = scopes(tokens, bounds, &settings.scopes)?;
    let limits = Limits {
        requests: settings.requests_max.max(1),
        bytes: settings.bytes_max.max(1),
        hang_ns: AtomicU64::new(settings.hang_limit.map_or(0, hang_ns)),
        written_off_per_token: WRITTEN_OFF_PER_TOKEN,
        inline: settings.inline,
        module_reset: settings.module_reset,
    };
    let parker = Parker::new();
    let room = |(token, bounds): (&Arc<Token>, &Bounds)| Room {
        token: Arc::clone(token),
        places: bounds.start,
        places_max: bounds.ceiling,
    };
    let rooms = tokens.iter().zip(bounds).map(room).collect();
    let core = Arc::new(Core::new(rooms, scopes, limits, parker.unparker().clone()));
    arrange(&core, tokens, settings)?;
    // The watcher comes after the sessions: it would open others in the place of those that it does not see yet.
    seat_all(&core, sessions).and_then(|()| start_watcher(&core, parker)).inspect_err(|_| {
        core.stop();
        core.carry_out_stop();
    })?;
    Ok(core)
}

fn list(token: &Token) -> Result<Listing> {
    let label = token.info.label.clone();
    token.with_service(move |session, epoch| Listing::list(label, session, epoch))
}

/// What an engine calls itself in the catalogue: no secret, so no token is asked for it.
fn writer() -> Result<[u8; 8]> {
    let mut writer = [0; 8];
    getrandom::fill(&mut writer).map_err(|_| Error::internal("the kernel gives no random bytes"))?;
    Ok(writer)
}

fn next_number() -> u64 {
    static NUMBERS: AtomicU64 = AtomicU64::new(1);
    NUMBERS.fetch_add(1, Ordering::Relaxed)
}

/// The pool of random bytes of all tokens. Its fetches are long and have a cost of their own, beside that of single
/// requests.
fn random_pool(core: &Arc<Core>, tokens: usize) -> RandomPool {
    let plan = plan(OperationKind::Random.index(), None) + 1;
    RandomPool::new(Arc::clone(core), u64::MAX >> (64 - tokens), plan)
}

/// Puts the tokens into their tiers, and those out of service that are to begin so.
fn arrange(core: &Core, tokens: &[Arc<Token>], settings: &Settings) -> Result<()> {
    for (name, tier) in &settings.tiers {
        core.set_tiers(mask_of(tokens, name)?, *tier);
    }
    for name in &settings.drained {
        core.set_drained(mask_of(tokens, name)?, 0);
    }
    Ok(())
}

/// Tokens whose sessions are counted together: those that the operator has put into one scope, and those of SoftHSM2
/// 2.6.1, where one mutex guards all tokens of the module.
fn scopes(tokens: &[Arc<Token>], bounds: &[Bounds], named: &[(String, String)]) -> Result<Vec<Scope>> {
    // Each instance of a module has a mutex of its own.
    let of_module = |token: &Arc<Token>| match token.instance {
        0 => "module".to_owned(),
        number => format!("module instance {number}"),
    };
    let mut names: Vec<_> = tokens.iter().map(|token| token.is_softhsm().then(|| of_module(token))).collect();
    for (token, scope) in named {
        crate::schedule::dispatch::tokens(mask_of(tokens, token)?)
            .for_each(|token| names[token] = Some(scope.clone()));
    }
    let mut scopes: Vec<(Option<String>, Vec<usize>)> = Vec::new();
    for (token, name) in names.into_iter().enumerate() {
        match scopes.iter_mut().find(|(other, _)| name.is_some() && *other == name) {
            Some((_, members)) => members.push(token),
            None => scopes.push((name, vec![token])),
        }
    }
    let scope = |(name, members): (Option<String>, Vec<usize>)| {
        let name = name.unwrap_or_else(|| tokens[members[0]].info.label.clone());
        let bounds = members.iter().map(|&token| bounds[token]).collect::<Vec<_>>();
        Scope::new(name, members, &bounds)
    };
    Ok(scopes.into_iter().map(scope).collect())
}

/// Starts the thread that keeps deadlines and finds calls that hang.
fn start_watcher(core: &Arc<Core>, parker: Parker) -> Result<()> {
    let watched = Arc::clone(core);
    let run = move || watcher::run(&watched, &parker);
    let started = std::thread::Builder::new().name("hsmux-watcher".into()).spawn(run);
    let failed = |error| Error::operator(ErrorKind::Busy, format!("cannot start the watcher: {error}"));
    core.threads.add(started.map_err(failed)?);
    Ok(())
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
