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
mod gcm;
mod limits;
pub(crate) mod measured;
mod mechanisms;
mod profile;
mod sessions;
mod trials;
mod units;
mod workbench;

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::builder::{Builder, Settings};
use crate::clock::{now, time_of_day};
use crate::error::{Error, ErrorKind, Outcome, Result, Retry};
use crate::harden;
use crate::pin::{Pin, PinSource};
use crate::pkcs11::{Library, Slot, TokenInfo, forked};
use crate::threads::Threads;
use crate::token::SERVICE_LIMIT;
use crate::token::gate::Gate;
use crate::token::login::{Entered, enter};
use crate::token::name::find_tokens;
use workbench::Workbench;

pub use profile::{
    CallCost, CopiesFound, CopyGain, GcmFound, IvFound, LimitsFound, MechanismFound, ModuleProfile,
    ProbeResult, ProbeStage, ProfiledModule, ProfiledToken, ScalingFound, ScalingPoint, SeenBy,
    SessionsFound, TagFound, TooSmallFound,
};

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
}

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

/// Parts of the time limit that a stage may take at most: so many of [`PARTS`].
const PARTS: u32 = 12;

enum Said {
    Progress(Progress),
    Done(Box<Result<ModuleProfile>>),
}

impl Probe {
    /// A probe of the one token that a builder names, with what is set there of the module, the PIN and its safety:
    /// [`Builder::init_args`], [`Builder::module_kind`], [`Builder::pin_keep`], [`Builder::pin_despite_warning`],
    /// [`Builder::state_dir`] and [`Builder::harden_process`]. All else is of no account.
    pub fn new(builder: Builder<PathBuf, Vec<String>, PinSource>) -> Self {
        let (module, tokens, pin, settings) = builder.into_parts();
        let time_limit = Duration::from_secs(60);
        Self { module, tokens, pin, settings, sessions_max: 256, time_limit, token_keys: false }
    }

    /// How many sessions are opened at most to find out how many there are. Default 256: more than most devices have, and
    /// than pay. A lower number leaves others theirs.
    #[must_use]
    pub const fn sessions_max(mut self, sessions: usize) -> Self {
        self.sessions_max = sessions;
        self
    }

    /// How long it may take. Default: a minute. What there is no time for is left out, and named in
    /// [`ModuleProfile::not_reached`]. The making of keys takes most of it on slow devices.
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

    /// Probes the token; `on_progress` is called on this thread, step by step.
    ///
    /// # Errors
    /// `Configuration` if the builder names several tokens; what building an engine fails with (`Module`, `TokenNotFound`,
    /// `PinUnavailable`, `PinRefused`, `PinLocked`); `TokenLost`; `Hung` if a call does not come back: its thread is left
    /// alone then. That single operations fail is a result, and no error.
    ///
    /// # Blocking
    /// Until the PIN is there, and then for the time limit at most, and as long beyond it as one call takes, up to half a
    /// minute.
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
        let job = Job {
            library,
            slot,
            pin,
            consent: settings.pin_despite_warning,
            sessions_max: self.sessions_max,
            time_limit: self.time_limit,
            token_keys: self.token_keys,
        };
        let (said, heard) = channel();
        let run = move || {
            let done = job.run(&said);
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

/// What the thread does.
struct Job {
    library: Library,
    slot: Slot,
    pin: Pin,
    consent: bool,
    sessions_max: usize,
    time_limit: Duration,
    token_keys: bool,
}

impl Job {
    fn run(&self, said: &Sender<Said>) -> Result<ModuleProfile> {
        let made = time_of_day();
        let (info, bench) = self.log_in()?;
        let mut course = Course { bench, said, limit: self.time_limit, profile: self.begun(&info, made)? };
        course.run(self, info.sessions_max)?;
        Ok(course.profile)
    }

    /// The gates are passed as an engine does it.
    fn log_in(&self) -> Result<(TokenInfo, Workbench)> {
        let known = self.library.token_info(self.slot)?;
        let _starting = Gate::of_module(self.library.path()).pass(SERVICE_LIMIT)?;
        let _writing = Gate::of_token(self.library.path(), &known).pass(SERVICE_LIMIT)?;
        let entered = enter(&self.library, self.slot, &known, &self.pin, self.consent)?;
        let Entered { info, mechanisms, anchor, session } = entered;
        let until = now().after(self.time_limit);
        let bench = Workbench::new(self.library.clone(), self.slot, mechanisms, (anchor, session), until);
        Ok((info, bench))
    }

    fn begun(&self, info: &TokenInfo, made: std::time::SystemTime) -> Result<ModuleProfile> {
        let module = self.library.info()?;
        let [hardware, firmware] = self.library.token_versions(self.slot)?;
        let (description, manufacturer) = (module.description, module.manufacturer);
        let (version, cryptoki) = (module.version, module.cryptoki);
        let module = ProfiledModule { description, manufacturer, version, cryptoki };
        let (model, manufacturer) = (info.model.clone(), info.manufacturer.clone());
        let token = ProfiledToken { model, manufacturer, hardware, firmware };
        Ok(ModuleProfile::new(made, module, token))
    }
}

/// A probe under way.
struct Course<'a> {
    bench: Workbench,
    said: &'a Sender<Said>,
    limit: Duration,
    profile: ModuleProfile,
}

/// Signatures and MACs by which sessions are measured: the first that works.
const SIGNERS: [&str; 5] =
    ["sign-ecdsa-p256", "sign-hmac-sha256", "sign-rsa-pkcs1", "sign-ed25519", "sign-aes-cmac"];

/// Those that take messages of any length.
const OF_MESSAGES: [&str; 4] =
    ["sign-hmac-sha256", "sign-aes-cmac", "sign-ecdsa-sha256", "sign-rsa-pkcs1-sha256"];

impl Course<'_> {
    fn run(&mut self, job: &Job, told: Option<u64>) -> Result<()> {
        for stage in ProbeStage::ALL {
            if forked() {
                return Err(Error::new(ErrorKind::Forked, Retry::Never, Outcome::NotDone));
            }
            if now() >= self.bench.until || !self.stage(stage, job, told)? {
                self.profile.not_reached.push(stage);
            }
        }
        Ok(())
    }

    /// False if there was no time for it. Where nothing signs there is nothing to be measured.
    fn stage(&mut self, stage: ProbeStage, job: &Job, told: Option<u64>) -> Result<bool> {
        let said = self.said;
        let step = |done, of, what| {
            // Who does not listen any more does not want to know.
            let _told = said.send(Said::Progress(Progress { stage, what, done, of }));
        };
        let plain = |done, of| step(done, of, stage.as_str());
        let until = self.bench.within(self.limit / PARTS * parts(stage));
        let (bench, profile) = (&mut self.bench, &mut self.profile);
        match stage {
            ProbeStage::Mechanisms => {
                profile.mechanisms = mechanisms::try_all(bench, until, step)?;
                return Ok(now() < until);
            }
            ProbeStage::Gcm => {
                plain(0, 1);
                profile.gcm = gcm::look(bench, &profile.mechanisms)?;
            }
            ProbeStage::Sessions => {
                profile.sessions = sessions::count(bench, told, job.sessions_max, until, plain)?;
                return Ok(profile.sessions.is_some());
            }
            ProbeStage::Costs => {
                let signer = bench.signer(&SIGNERS, &profile.mechanisms);
                profile.costs = costs::measure(bench, signer.as_ref(), &profile.mechanisms, until, plain)?;
            }
            ProbeStage::Scaling => {
                let Some(signer) = bench.signer(&SIGNERS, &profile.mechanisms) else { return Ok(true) };
                profile.scaling = sessions::scale(bench, &signer, until, plain)?;
            }
            ProbeStage::Copies => {
                plain(0, 1);
                let Some(signer) = bench.signer(&SIGNERS, &profile.mechanisms) else { return Ok(true) };
                profile.copies = Some(copies::look(bench, &signer, job.token_keys, until)?);
            }
            ProbeStage::Limits => {
                plain(0, 1);
                let signer = bench.signer(&SIGNERS, &profile.mechanisms);
                let messages = bench.signer(&OF_MESSAGES, &profile.mechanisms);
                profile.limits = Some(limits::look(bench, messages.as_ref(), signer.as_ref(), until)?);
            }
        }
        Ok(true)
    }
}

/// How much of the time a stage may take: keys are made in the first.
const fn parts(stage: ProbeStage) -> u32 {
    match stage {
        ProbeStage::Mechanisms => 6,
        ProbeStage::Sessions | ProbeStage::Costs | ProbeStage::Scaling | ProbeStage::Limits => 2,
        ProbeStage::Gcm | ProbeStage::Copies => 1,
    }
}
