//! A run of a profile: requests when they are due, a view of it meanwhile, and its results as files.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;

use hsmux::{Engine, PinSource};
use hsmux_bench::arrivals::Pace;
use hsmux_bench::knee::Knee;
use hsmux_bench::profile::{Operation, Profile, ProfileApi};
use hsmux_bench::result::{LoadResult, csv, hgrm, html};
use hsmux_bench::run::{self, Flow, Outcome};
use hsmux_bench::{BaselineRun, TemporaryKey, Works};
use p11_sim::{Happened, Playing};
use secrecy::SecretString;

use super::args::{ApiName, Args};
use super::earlier::Verdicts;
use super::live::Live;
use super::simulated::Device;
use super::{DRAIN, Key, compared, earlier, files, knee, note, provenance, simulated, start, summary};
use crate::connection::Site;
use crate::exit::{Exit, Failure, Result};
use crate::stop::Stop;

/// Longest profile that is read, in bytes.
const PROFILE_MAX: u64 = 1 << 20;

/// Runs it, says what came out, and ends as the signal asks that ended it early, if one did.
pub(super) fn run(args: &Args) -> Result {
    check(args)?;
    let has_baselines = args.baselines().next().is_some();
    // Before the run, which may take hours.
    let earlier = args.earlier().map(earlier::read).transpose()?;
    let mut profile = profile(args)?;
    if args.find_knee {
        profile = knee::open(profile, args)?;
    }
    let device = args
        .sim
        .as_deref()
        .map(|path| Device::of(path, &profile, !args.find_knee && !has_baselines))
        .transpose()?;
    let site = match &device {
        Some(_) if args.connection.is_given() => {
            return Err(Failure::new(Exit::Usage, "--sim says itself what module, tokens and PIN are"));
        }
        Some(device) => device.site(),
        None => args.connection.resolve()?,
    };
    let tokens = site.tokens()?;
    let module = site.describe().ok();
    let source: PinSource = site.pin()?;
    // Baselines log in too, and some sources give the PIN once.
    let pin = has_baselines.then(|| source.read()).transpose()?;
    let source = pin.clone().map_or(source, PinSource::from);
    // Before the engine starts threads, which then leave signals alone.
    let stop = Stop::new()?;
    stop.on_signals()?;
    let engine = Arc::new(start(args, &site, &tokens, source)?);
    let keys = Keys::make(args, &site, &engine, &profile, &stop)?;
    let on = On { site: &site, tokens: &tokens, pin: pin.as_ref(), engine: &engine, device: device.as_ref() };
    let outcome = files::logged(args.hlog.as_deref(), &engine, || measure(args, &on, profile, &keys, &stop));
    let scraped = files::scrape(args.prometheus.as_deref(), &engine);
    let removed = keys.remove();
    let config = settings(args, &engine);
    engine.drain(DRAIN);
    let (Ran { outcome, happened, knee, beside }, logged) = outcome?;
    let made = provenance::made(site.module(), module.as_ref(), &engine, config, outcome.profile.seed);
    let mut result = outcome.result(made);
    result.notes.splice(0..0, happened.iter().map(ToString::to_string));
    if let Some(Beside { baselines, rounds, notes }) = beside {
        (result.baselines, result.rounds) = (baselines, rounds);
        result.notes.extend(notes);
    }
    if let Some(knee) = &knee {
        knee::complete(&mut result, knee);
    }
    let verdicts = earlier.map(|earlier| Verdicts::of(&earlier, &result));
    // A disk that is full does not take the figures along.
    let said = say(args, &result, verdicts.as_ref());
    let written = args.out.as_deref().map_or(Ok(()), |directory| write(directory, &result));
    removed.and(scraped).and(written).and(logged)?;
    match (stop.signal(), verdicts) {
        (Some(exit), _) => Err(Failure::new(exit, "stopped by a signal: the results are of the time before")),
        (None, _) if knee.is_some_and(|knee| knee.low.is_none()) => {
            Err(Failure::new(Exit::Operation, "no rate was found that meets the objective"))
        }
        (None, _) if result.total.ops == 0 => Err(nothing_done(&result)),
        (None, Some(verdicts)) => verdicts.end().and(said),
        (None, None) => said,
    }
}

/// Of a run in which no request succeeded.
fn nothing_done(result: &LoadResult) -> Failure {
    let why = result.errors.first().map_or("none was made", |error| error.first.as_str());
    Failure::new(Exit::Other, format!("no request succeeded: {why}"))
}

/// What `clap` cannot see: options that do not go together here.
fn check(args: &Args) -> Result {
    let has_baselines = args.baselines().next().is_some();
    let raw_copy = args.baselines().any(|baseline| baseline == super::args::Baseline::RawCopy);
    let threads = args.threads.as_slice();
    let wrong = if has_baselines && (args.profile.is_some() || args.find_knee) {
        "baselines do one operation at one rate: compare with them without --profile and --find-knee"
    } else if raw_copy && args.op.is_some_and(|case| case.op.key_spec().is_none()) {
        "random bytes have no key to copy: leave --compare raw-copy out"
    } else if threads.len() > usize::from(has_baselines) {
        "--threads is one count here, and that of baselines: the rate is what is given"
    } else if threads.iter().any(|count| count.get() > super::THREADS_MAX) {
        "a baseline has at most 4096 threads"
    } else if args.host_modes || args.warm_up.is_some() {
        "--host-modes and --warm-up go with closed loops of one operation only, without --out and --compare FILE"
    } else {
        return Ok(());
    };
    Err(Failure::new(Exit::Usage, wrong))
}

/// The profile that the options say.
fn profile(args: &Args) -> Result<Profile> {
    let usage = |text: String| Failure::new(Exit::Usage, text);
    let mut profile = match &args.profile {
        Some(name) => {
            let profile = named(name)?;
            let profile = match args.rate {
                Some(asked) => profile.at_rate(asked.rate).map_err(usage)?,
                None => profile,
            };
            match args.seconds {
                Some(seconds) => profile.for_time(seconds.0).map_err(usage)?,
                None => profile,
            }
        }
        None => {
            let rate = args.rate.map(|asked| (asked.pace.unwrap_or(Pace::Constant), asked.rate));
            let mut profile = Profile::single(args.case()?, rate, args.seconds());
            if rate.is_none() {
                (profile.callers, profile.api) = (1, ProfileApi::Blocking);
            }
            profile
        }
    };
    if let Some(pace) = args.rate.and_then(|asked| asked.pace) {
        profile.pace = Some(pace);
    }
    if let Some(callers) = args.callers {
        profile.callers = callers.get().into();
    }
    profile.api = match args.api {
        None => profile.api,
        Some(ApiName::Blocking) => ProfileApi::Blocking,
        Some(ApiName::Tasks) => ProfileApi::Tasks,
        Some(_) => return Err(usage("profiles, --rate and --out take --api blocking or tasks".to_owned())),
    };
    if profile.api == ProfileApi::Blocking && profile.callers > super::THREADS_MAX.into() {
        return Err(usage("more than 4096 callers need --api tasks".to_owned()));
    }
    Ok(profile)
}

/// The preset of this name, or the file.
pub(crate) fn named(name: &str) -> Result<Profile> {
    let path = Path::new(name);
    if let Ok(preset) = Profile::preset(name) {
        return Ok(preset);
    }
    let cannot = |why: &dyn std::fmt::Display| Failure::new(Exit::Usage, format!("{name}: {why}"));
    if !path.exists() {
        return Err(cannot(&format!(
            "no such file, and {}",
            Profile::preset(name).err().unwrap_or_default()
        )));
    }
    let len = path.metadata().map_err(|error| cannot(&error))?.len();
    if len > PROFILE_MAX {
        return Err(cannot(&"a profile has at most a mebibyte"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| cannot(&error))?;
    Profile::parse(&text).map_err(|error| Failure::new(Exit::Usage, format!("{name}:{error}")))
}

/// What has come of a run.
struct Ran {
    outcome: Outcome,
    /// To a simulated device.
    happened: Vec<Happened>,
    knee: Option<Knee>,
    beside: Option<Beside>,
}

/// What others did in turn with the engine.
struct Beside {
    baselines: Vec<BaselineRun>,
    /// The engine's operations per second, by round.
    rounds: Vec<f64>,
    notes: Vec<String>,
}

/// Where a run takes place.
struct On<'a> {
    site: &'a Site,
    tokens: &'a [String],
    /// Where there are baselines, which log in by themselves.
    pin: Option<&'a SecretString>,
    engine: &'a Arc<Engine>,
    device: Option<&'a Device>,
}

/// Runs it, or searches.
fn measure(args: &Args, on: &On<'_>, profile: Profile, keys: &Keys, stop: &Stop) -> Result<Ran> {
    let engine = on.engine;
    let works = Arc::new(Works::new(engine, &profile, |operation, key| keys.label(operation, key))?);
    works.try_all(&profile)?;
    if let Some(slo) = args.slo.as_ref().filter(|_| args.find_knee) {
        let found = knee::search(args, slo, engine, &profile, &works, stop)?;
        return Ok(Ran {
            outcome: found.outcome,
            happened: Vec::new(),
            knee: Some(found.knee),
            beside: None,
        });
    }
    let mut live = Live::new(&profile, io::stderr().is_terminal());
    let watch = |ended: Option<&run::Interval>| {
        // Who does not listen any more has the results all the same.
        let _shown = ended.map(|interval| live.show(&mut io::stderr().lock(), interval));
        if stop.is_asked() { Flow::Stop } else { Flow::Continue }
    };
    let playing = on.device.map(Device::play).transpose()?;
    let (outcome, beside) = match on.pin {
        Some(pin) => {
            let key = keys.label(0, 0);
            let what = (engine, &works, &profile);
            let turns = compared::in_turns(args, on.site, what, (key.as_deref(), on.tokens, pin), watch)?;
            let (baselines, rounds, notes) = (turns.baselines, turns.rounds, turns.notes);
            (turns.outcome, Some(Beside { baselines, rounds, notes }))
        }
        None => {
            let outcome = run::run(engine, profile, &works, watch);
            (outcome.map_err(|text| Failure::new(Exit::Other, text))?, None)
        }
    };
    let happened = playing.map_or_else(Vec::new, Playing::stop);
    Ok(Ran { outcome, happened, knee: None, beside })
}

/// The keys of a run, by operation.
enum Keys {
    Named(Key),
    Temporary(Vec<Vec<TemporaryKey>>),
    /// Of a simulated device, which every token holds.
    Simulated,
}

impl Keys {
    fn make(args: &Args, site: &Site, engine: &Arc<Engine>, profile: &Profile, stop: &Stop) -> Result<Self> {
        if args.sim.is_some() {
            return Ok(Self::Simulated);
        }
        if args.profile.is_none() {
            return Key::choose(args, site, engine).map(Self::Named);
        }
        let removed = TemporaryKey::remove_left_over(engine)?;
        if removed > 0 {
            note(&format!("removed {removed} temporary keys that earlier runs left behind"))?;
        }
        let generate = |spec| match stop.signal() {
            // Those that were made go with the list that they are in.
            Some(exit) => Err(Failure::new(exit, "stopped by a signal while the keys were made")),
            None => Ok(TemporaryKey::generate(engine, spec)?),
        };
        let of = |operation: &Operation| {
            let spec = operation.op.key_spec();
            let count = spec.map_or(0, |_| operation.keys.count);
            (0..count).filter_map(|_| spec).map(generate).collect()
        };
        let keys: Vec<Vec<_>> = profile.operations.iter().map(of).collect::<Result<_>>()?;
        note(&format!("{} temporary keys on the first token, which serves this load", profile.keys()))?;
        Ok(Self::Temporary(keys))
    }

    fn label(&self, operation: usize, key: u32) -> Option<String> {
        match self {
            Self::Named(key) => key.label().map(str::to_owned),
            Self::Simulated => Some(simulated::key(operation, key)),
            Self::Temporary(keys) => keys[operation].get(key as usize).map(|key| key.label().to_owned()),
        }
    }

    fn remove(self) -> Result {
        match self {
            Self::Named(key) => key.remove(),
            Self::Simulated => Ok(()),
            Self::Temporary(keys) => Ok(keys.into_iter().flatten().try_for_each(TemporaryKey::remove)?),
        }
    }
}

fn settings(args: &Args, engine: &Engine) -> std::collections::BTreeMap<String, String> {
    let options = [
        ("sessions", args.sessions.map(|sessions| format!("{sessions:?}"))),
        ("instances", args.instances.map(|count| count.to_string())),
        ("coalesce", args.coalesce.map(|switch| format!("{switch:?}").to_lowercase())),
        ("copies", args.copies.map(|when| format!("{when:?}").to_lowercase())),
        (
            "deadline",
            args.deadline.map(|limit| limit.0.map_or("none".to_owned(), |limit| format!("{limit:?}"))),
        ),
    ];
    provenance::settings(&options, &engine.snapshot())
}

fn say(args: &Args, result: &LoadResult, verdicts: Option<&Verdicts>) -> Result {
    let mut out = io::stdout().lock();
    if args.json {
        let json = result.to_json().map_err(|text| Failure::new(Exit::Other, text))?;
        writeln!(out, "{json}")?;
        verdicts.map_or(Ok(()), |verdicts| verdicts.write(&mut io::stderr().lock()))?;
    } else {
        summary::write(&mut out, result)?;
        verdicts.map_or(Ok(()), |verdicts| verdicts.write(&mut out))?;
    }
    Ok(out.flush()?)
}

/// Writes the files of a result; the first says where.
fn write(directory: &Path, result: &LoadResult) -> Result {
    let cannot = |path: &Path, error: &dyn std::fmt::Display| {
        Failure::new(Exit::Usage, format!("{} cannot be written: {error}", path.display()))
    };
    std::fs::create_dir_all(directory).map_err(|error| cannot(directory, &error))?;
    result.write(&directory.join("result.json"))?;
    let files = [
        ("latency.hgrm", hgrm::table(&result.total.latency, hgrm::Unit::Microseconds).unwrap_or_default()),
        ("series.csv", csv::series(result)),
        ("report.html", html::page(std::slice::from_ref(result))),
    ];
    for (name, text) in files {
        let path = directory.join(name);
        std::fs::write(&path, text).map_err(|error| cannot(&path, &error))?;
    }
    note(&format!("results in {}", directory.join("report.html").display()))
}
