//! `hsmux load`: a closed loop on an engine, beside baselines if wanted, or a profile.

mod args;
mod compared;
mod earlier;
mod files;
mod knee;
mod live;
mod profiled;
mod provenance;
mod simulated;
mod summary;

use std::io::{self, Write};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use hsmux::{Engine, PinKeep, PinSource, Pkcs11Uri};
use hsmux_bench::{Case, Load, Op, Run, Target, TemporaryKey, Window};
use secrecy::SecretString;

use self::args::{Against, Switch};
pub(crate) use self::args::{Args, EXAMPLES, Seconds};
pub(crate) use self::profiled::named as profile_named;
pub(crate) use self::provenance::made;
pub(crate) use self::simulated::{Device, key as simulated_key};
use crate::connection::Site;
use crate::exit::{Exit, Failure, Result};

/// What runs before anything counts: threads start, caches fill, a module opens its files.
const WARM_UP: Duration = Duration::from_millis(200);

/// How long operations are counted where nothing is said.
const SECONDS: Duration = Duration::from_secs(5);

/// How long the engine may take to stop at the end.
pub(crate) const DRAIN: Duration = Duration::from_secs(10);

/// Runs the load, then says on stdout what came out.
pub(crate) fn run(args: Args) -> Result {
    if args.is_profiled() {
        return profiled::run(&args);
    }
    args.check()?;
    let site = args.connection.resolve()?;
    let tokens = site.tokens()?;
    let source = site.pin()?;
    // Baselines log in too, and some sources give the PIN once.
    let pin = (!args.compare.is_empty()).then(|| source.read()).transpose()?;
    let engine = Arc::new(start(&args, &site, &tokens, pin.clone().map_or(source, PinSource::from))?);
    let key = Key::choose(&args, &site, &engine)?;
    let result = files::logged(args.hlog.as_deref(), &engine, || {
        measure(&args, &site, &engine, key.label(), &tokens, pin.as_ref())
    });
    let scraped = files::scrape(args.prometheus.as_deref(), &engine);
    let removed = key.remove();
    engine.drain(DRAIN);
    let (run, logged) = result?;
    say(&args, &run)?;
    removed.and(scraped).and(logged)
}

fn start(args: &Args, site: &Site, tokens: &[String], pin: PinSource) -> Result<Engine> {
    let mut builder = site.builder(tokens, pin);
    if !args.compare.is_empty() {
        // It was read already, and cannot be again.
        builder = builder.pin_keep(PinKeep::Memory);
    }
    if let Some(limit) = args.deadline {
        builder = builder.deadline(limit.0);
    }
    if let Some(sessions) = args.sessions {
        builder = builder.sessions(sessions);
    }
    if let Some(instances) = args.instances {
        builder = builder.instances(instances.get().into());
    }
    if let Some(coalesce) = args.coalesce {
        builder = builder.coalescing(coalesce == Switch::On).holding(coalesce == Switch::On);
    }
    if let Some(copies) = args.copies {
        builder = builder.copies(copies.into());
    }
    Ok(builder.build()?)
}

fn measure(
    args: &Args,
    site: &Site,
    engine: &Arc<Engine>,
    key: Option<&str>,
    tokens: &[String],
    pin: Option<&SecretString>,
) -> Result<Run> {
    let (case, load) = (args.case()?, args.load());
    if let (true, Some(key)) = (args.host_modes, key) {
        engine.key(key)?.with_host_modes()?;
    }
    let target = Target::new(engine, case, key)?;
    let warm_up = args.warm_up.map_or(WARM_UP, |warm_up| warm_up.0);
    let comparison = match pin {
        Some(pin) => {
            if args.warm_up.is_some() {
                drop(target.run(load, Window::open_after(warm_up, Duration::ZERO)));
            }
            Some(compared::run(args, site, engine, &target, key, tokens, pin)?)
        }
        None => None,
    };
    let measured = match &comparison {
        Some(comparison) => comparison.engine.clone(),
        None => target.run(load, Window::open_after(warm_up, args.seconds())),
    };
    // Counted now: an engine that finds its number by itself has found it.
    let sessions = target.sessions();
    match &measured.cell.first_error {
        Some(error) if measured.cell.ops == 0 => Err(error.clone().into()),
        _ => Ok(Run { case, load, measured, sessions, comparison }),
    }
}

/// The key of a run.
enum Key {
    Unneeded,
    Named(String),
    Temporary(TemporaryKey),
}

impl Key {
    fn choose(args: &Args, site: &Site, engine: &Arc<Engine>) -> Result<Self> {
        let case = args.case()?;
        let Some(spec) = case.op.key_spec() else { return Ok(Self::Unneeded) };
        if let Some(name) = named_key(args.key.as_deref(), site, engine, case)? {
            return Ok(Self::Named(name));
        }
        let removed = TemporaryKey::remove_left_over(engine)?;
        if removed > 0 {
            note(&format!("removed {removed} temporary keys that earlier runs left behind"))?;
        }
        let key = TemporaryKey::generate(engine, spec)?;
        let token = engine.tokens().into_iter().next().map_or_else(String::new, |token| token.label);
        note(&format!("temporary key {} on token {token}, which serves this load", key.label()))?;
        Ok(Self::Temporary(key))
    }

    fn label(&self) -> Option<&str> {
        match self {
            Self::Unneeded => None,
            Self::Named(name) => Some(name),
            Self::Temporary(key) => Some(key.label()),
        }
    }

    fn remove(self) -> Result {
        match self {
            Self::Temporary(key) => Ok(key.remove()?),
            Self::Unneeded | Self::Named(_) => Ok(()),
        }
    }
}

/// The key that an option or the URI names, if one does and it fits the operation.
pub(crate) fn named_key(
    key: Option<&str>,
    site: &Site,
    engine: &Engine,
    case: Case,
) -> Result<Option<String>> {
    let name = match (key, site.key_uri()) {
        (Some(label), _) => label.to_owned(),
        (None, Some(uri)) => label_of(uri, engine)?,
        (None, None) => return Ok(None),
    };
    check_kind(engine, case, &name)?;
    Ok(Some(name))
}

/// The label of the key that a URI names: loads know keys by their labels.
fn label_of(uri: &Pkcs11Uri, engine: &Engine) -> Result<String> {
    let wanted = engine.key(uri)?;
    let labels = engine.keys().into_iter().map(|key| key.label);
    let mut labels = labels.filter(|label| uri.object().is_none_or(|object| object == label));
    labels.find(|label| engine.key(label).is_ok_and(|key| key.is_same(&wanted))).ok_or_else(|| {
        Failure::new(
            Exit::Key,
            "the key that --uri names shares its label with others, which load cannot tell apart",
        )
    })
}

/// Refuses a key under which the operation's name would be untrue.
fn check_kind(engine: &Engine, case: Case, name: &str) -> Result {
    let Some(wanted) = case.op.key_kind() else { return Ok(()) };
    match engine.keys().into_iter().find(|key| key.label == name && key.kind != wanted) {
        Some(key) => {
            let text = format!("{} takes a key of kind {wanted}, this one is {}", case.op.as_str(), key.kind);
            Err(Failure::new(Exit::Operation, text))
        }
        None => Ok(()),
    }
}

fn say(args: &Args, run: &Run) -> Result {
    let mut out = io::stdout().lock();
    if args.json {
        let json = serde_json::to_string(&run.report()).map_err(io::Error::from)?;
        writeln!(out, "{json}")?;
        // What has no field in the object.
        note(&format!("{}, cpu {:.0} ns per operation", run.load, run.measured.cell.cpu_ns_per_op()))?;
    } else {
        write!(out, "{run}")?;
    }
    Ok(out.flush()?)
}

/// Says something beside the result: stdout is for that alone.
pub(crate) fn note(text: &str) -> Result {
    Ok(writeln!(io::stderr().lock(), "hsmux: {text}")?)
}

impl Args {
    /// What `clap` cannot see: options that exclude each other by their values.
    fn check(&self) -> Result {
        let wrong = |text: &str| Err(Failure::new(Exit::Usage, text));
        let (op, callers) = (self.case()?.op, self.callers.map_or(1, NonZeroU16::get));
        match (op, self.api()) {
            (Op::Random, _) if self.key.is_some() => wrong("random bytes take no --key"),
            (Op::Random, args::ApiName::Many) => wrong("random bytes cannot be asked for with --api many"),
            (_, api) if api.takes_threads() && callers > THREADS_MAX => {
                wrong("more than 4096 callers need --api tasks or window")
            }
            (Op::Random, _) if self.baselines().any(|baseline| baseline == args::Baseline::RawCopy) => {
                wrong("random bytes have no key to copy: leave --compare raw-copy out")
            }
            _ => Ok(()),
        }
    }

    /// The operation of a run without a profile.
    fn case(&self) -> Result<Case> {
        self.op.ok_or_else(|| Failure::new(Exit::Usage, "--op or --profile is needed"))
    }

    fn api(&self) -> args::ApiName {
        self.api.unwrap_or(args::ApiName::Blocking)
    }

    fn seconds(&self) -> Duration {
        self.seconds.map_or(SECONDS, |seconds| seconds.0)
    }

    fn load(&self) -> Load {
        let callers = self.callers.map_or(1, |callers| callers.get().into());
        Load { api: self.api().with_batch(self.batch.get().into()), callers }
    }

    /// Whether this is a run of a profile, be it one of a single operation.
    fn is_profiled(&self) -> bool {
        let is_compared = self.compare.iter().any(|against| matches!(against, Against::Earlier(_)));
        let has_schedule = self.profile.is_some() || self.rate.is_some() || self.find_knee;
        has_schedule || self.out.is_some() || self.sim.is_some() || is_compared
    }

    /// The results of an earlier run to compare with: the last that was named.
    fn earlier(&self) -> Option<&std::path::Path> {
        self.compare.iter().rev().find_map(|against| match against {
            Against::Earlier(path) => Some(path.as_path()),
            Against::Baseline(_) => None,
        })
    }

    /// The baselines that are compared with.
    fn baselines(&self) -> impl Iterator<Item = args::Baseline> {
        self.compare.iter().filter_map(|against| match against {
            Against::Baseline(baseline) => Some(*baseline),
            Against::Earlier(_) => None,
        })
    }
}

/// Most threads of callers: above it the load measures the scheduler of the system.
pub(crate) const THREADS_MAX: u16 = 4096;
