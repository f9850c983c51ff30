//! Probing: what a module and a token can do, found out by trying, as a profile that engines load.
//!
//! ```no_run
//! use hsmux::Engine;
//! use hsmux::probe::Probe;
//!
//! let site = || Engine::builder().module("/opt/hsm/pkcs11.so").tokens(["pay-1"]).pin("1234");
//! let profile = Probe::new(site()).run(|progress| eprintln!("{}", progress.what))?;
//! profile.write("hsm.toml".as_ref())?;
//! let engine = site().module_profile(profile).build()?;
//! # Ok::<(), hsmux::Error>(())
//! ```

mod copies;
mod costs;
mod course;
mod found;
mod gcm;
mod limits;
mod measured;
mod mechanisms;
mod profile;
mod runs;
mod sessions;
mod trials;
mod units;
mod workbench;

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::builder::{Builder, Settings};
use crate::clock::{now, time_of_day};
use crate::error::{Error, ErrorKind, Outcome, Result, Retry};
use crate::harden;
use crate::pin::{Pin, PinSource};
use crate::pkcs11::{Library, Slot, TokenInfo};
use crate::threads::Threads;
use crate::token::SERVICE_LIMIT;
use crate::token::gate::Gate;
use crate::token::login::{Entered, enter};
use crate::token::name::find_tokens;
use course::{Course, Said, Wishes};
use workbench::Workbench;

pub use found::{
    CallCost, CopiesFound, CopyGain, DataFound, GcmFound, IvFound, LimitsFound, MechanismFound, ProbeResult,
    ProbeStage, ProfiledModule, ProfiledToken, ScalingFound, ScalingPoint, SeenBy, SessionsFound, TagFound,
    TooSmallFound,
};
pub use profile::ModuleProfile;

/// Tries what one token can do.
///
/// It logs in once, as an engine does. The keys that it works with are made in its sessions, and go with them: nothing on
/// the token is changed. It keeps the device busy: with up to 16 threads that sign at the same time, and with as many
/// sessions open as it gives. Run it where nobody else needs the device, for others would be held up, and would be measured.
pub struct Probe {
    module: PathBuf,
    tokens: Vec<String>,
    pin: PinSource,
    settings: Settings,
    sessions_max: usize,
    time_limit: Duration,
    token_keys: bool,
    stop: Stop,
}

/// Whether somebody wants a probe to end.
type Stop = Box<dyn Fn() -> bool + Send>;

/// How far a probe is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// The part that it is in.
    pub stage: ProbeStage,
    /// What is tried now.
    pub what: &'static str,
    /// Steps of this part that are done.
    pub done: usize,
    /// Steps that it has.
    pub of: usize,
}

/// How long the thread that probes may go on beyond its time, inside one call, before it is given up: a large RSA key takes a
/// slow device so long.
const GRACE: Duration = Duration::from_secs(30);

impl Probe {
    /// A probe of the one token that a builder names, with what is set there of the module, the PIN and its safety:
    /// [`Builder::init_args`], [`Builder::module_kind`], [`Builder::pin_keep`], [`Builder::pin_despite_warning`],
    /// [`Builder::state_dir`] and [`Builder::harden_process`]. All else is of no account.
    pub fn new(builder: Builder<PathBuf, Vec<String>, PinSource>) -> Self {
        let (module, tokens, pin, settings) = builder.into_parts();
        let time_limit = Duration::from_secs(60);
        Self {
            module,
            tokens,
            pin,
            settings,
            sessions_max: 256,
            time_limit,
            token_keys: false,
            stop: Box::new(|| false),
        }
    }

    /// How many sessions are opened at most to find out how many there are. Default 256: more than most devices have, and
    /// than pay. A lower number leaves others theirs.
    #[must_use]
    pub const fn sessions_max(mut self, sessions: usize) -> Self {
        self.sessions_max = sessions;
        self
    }

    /// How long it may take. Default: a minute. What there is no time for is left out, and named in
    /// [`ModuleProfile::not_reached`], as is what it was not enough for. The making of keys takes most of it on slow devices.
    #[must_use]
    pub const fn time_limit(mut self, limit: Duration) -> Self {
        self.time_limit = limit;
        self
    }

    /// Whether the keys that are on the token may be copied into a session and used for a few operations, to see whether
    /// copies are faster, as an engine does by itself ([`Copies::Auto`](crate::Copies::Auto)). Default: no, and then engines
    /// go on to measure that themselves.
    #[must_use]
    pub const fn token_keys(mut self, may: bool) -> Self {
        self.token_keys = may;
        self
    }

    /// Asks, at each step, whether the probe is to end, for a program that heeds signals. It ends with `Draining` then, when the
    /// call that it is in has come back: its keys and sessions are gone in any case. Default: never.
    #[must_use]
    pub fn stop_when(mut self, stop: impl Fn() -> bool + Send + 'static) -> Self {
        self.stop = Box::new(stop);
        self
    }

    /// Probes the token; `on_progress` is called on this thread, step by step.
    ///
    /// # Errors
    /// `Configuration` if the builder names several tokens; what building an engine fails with (`Module`, `TokenNotFound`,
    /// `PinUnavailable`, `PinRefused`, `PinLocked`); `TokenLost`; `Hung` if a call does not come back: its thread is left
    /// alone then; `Draining` if it was [stopped](Self::stop_when). That single operations fail is a result, and no error.
    ///
    /// # Blocking
    /// Until the PIN is there and the token has answered the login, as building an engine does; then for the time limit at
    /// most, and as long beyond it as one call takes, up to half a minute.
    pub fn run(self, mut on_progress: impl FnMut(&Progress)) -> Result<ModuleProfile> {
        let (module, settings) = (&self.module, &self.settings);
        if let [_, _, ..] = self.tokens[..] {
            return Err(Error::operator(ErrorKind::Configuration, "one token is probed at a time"));
        }
        settings.pin_keep.check(&self.pin)?;
        if settings.harden_process {
            harden::process()?;
        }
        let library = Library::load(module, settings.init_args.as_deref(), Some(settings.module_kind))?;
        let slots = find_tokens(&library, &self.tokens)?;
        let slot = *slots.first().ok_or_else(|| Error::internal("a token without a slot"))?;
        // After the token was found: nobody is asked for a PIN that is not needed.
        let pin = Pin::new(self.pin, settings.pin_keep, settings.state_dir.as_deref())?;
        if settings.harden_process {
            pin.demand_lock()?;
        }
        // Here, for a person may have to type it, who takes as long as they take.
        let (info, mut bench) = log_in(&library, slot, &pin, settings.pin_despite_warning)?;
        // Nothing logs in again.
        drop(pin);
        let profile = begun(&library, slot, &info)?;
        let wishes = Wishes {
            told: info.sessions_max,
            sessions_max: self.sessions_max,
            time_limit: self.time_limit,
            token_keys: self.token_keys,
        };
        let (said, heard) = channel();
        let stop = self.stop;
        let run = move || {
            bench.until = now().after(wishes.time_limit);
            let done = Course::new(bench, (said.clone(), stop), wishes, profile).run();
            // Nobody listens any more if it took too long.
            let _told = said.send(Said::Done(Box::new(done)));
        };
        let started = std::thread::Builder::new().name("hsmux-probe".into()).spawn(run);
        let failed = |error| Error::operator(ErrorKind::Busy, format!("cannot start a thread: {error}"));
        listen(&heard, started.map_err(failed)?, self.time_limit.saturating_add(GRACE), &mut on_progress)
    }
}

/// Shows nothing of what it works on: names may be URIs in which somebody wrote a PIN.
impl std::fmt::Debug for Probe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Probe").field("time_limit", &self.time_limit).finish_non_exhaustive()
    }
}

/// Hears the thread out.
fn listen(
    heard: &Receiver<Said>,
    thread: JoinHandle<()>,
    limit: Duration,
    on_progress: &mut impl FnMut(&Progress),
) -> Result<ModuleProfile> {
    let until = now().after(limit);
    loop {
        match heard.recv_timeout(now().until(until)) {
            Ok(Said::Progress(progress)) => on_progress(&progress),
            Ok(Said::Done(done)) => {
                // It has only to end. Joined, for modules keep something for each thread until then.
                let _ended = thread.join();
                return *done;
            }
            Err(RecvTimeoutError::Timeout) => {
                let threads = Threads::default();
                threads.add(thread);
                threads.leave();
                return Err(Error::new(ErrorKind::Hung, Retry::Operator, Outcome::Unknown));
            }
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Error::internal("the thread that probes has ended before its time"));
            }
        }
    }
}

/// Logs in as an engine does, through the same gates.
fn log_in(library: &Library, slot: Slot, pin: &Pin, consent: bool) -> Result<(TokenInfo, Workbench)> {
    let known = library.token_info(slot)?;
    let _starting = Gate::of_module(library.path()).pass(SERVICE_LIMIT)?;
    let _writing = Gate::of_token(library.path(), &known).pass(SERVICE_LIMIT)?;
    let Entered { info, mechanisms, anchor, session } = enter(library, slot, &known, pin, consent)?;
    let bench = Workbench::new(library.clone(), slot, mechanisms, (anchor, session), now());
    Ok((info, bench))
}

/// A profile without findings.
fn begun(library: &Library, slot: Slot, info: &TokenInfo) -> Result<ModuleProfile> {
    let module = library.info()?;
    let [hardware, firmware] = library.token_versions(slot)?;
    let (description, manufacturer) = (module.description, module.manufacturer);
    let (version, cryptoki) = (module.version, module.cryptoki);
    let module = ProfiledModule { description, manufacturer, version, cryptoki };
    let (model, manufacturer) = (info.model.clone(), info.manufacturer.clone());
    let token = ProfiledToken { model, manufacturer, hardware, firmware };
    Ok(ModuleProfile::new(time_of_day(), module, token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_stays_inside_a_call_is_given_up_and_one_that_panics_is_noticed() {
        let (said, heard) = channel();
        let (release, inside) = channel::<()>();
        // The call returns when the other end is dropped.
        let thread = std::thread::spawn(move || {
            let _returned = inside.recv();
            drop(said);
        });
        let error = listen(&heard, thread, Duration::ZERO, &mut |_| ()).unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Hung, Outcome::Unknown));
        drop(release);
        let error = listen(&heard, std::thread::spawn(|| ()), GRACE, &mut |_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
    }
}
