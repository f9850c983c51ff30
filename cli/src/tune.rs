//! `hsmux tune`: tries settings of the engine on a load, and writes a configuration with those that do most.

mod args;
mod bare;
mod draft;
mod drive;
mod evidence;
mod keys;
mod say;
mod sites;
mod start;
mod write;

use std::time::{Duration, SystemTime};

use hsmux_bench::tune::{Advice, End, Limits, Setting, Step, Tuner};

use self::draft::Draft;
use self::drive::Bench;
use self::evidence::{Entry, Load};
use self::sites::{Sites, Source};
use self::start::Start;
use crate::exit::{Exit, Failure, Result};
use crate::load::{Device, note};
use crate::stop::Stop;

pub(crate) use self::args::{Args, HELP};

/// What a search has come to.
struct Search {
    advice: Advice,
    limits: Limits,
    /// Time of all measurements.
    spent: Duration,
    /// What has ended it, if it was that.
    failure: Option<Failure>,
}

/// Tunes, says what came out, and ends as the signal asks that ended it early, if one did.
pub(crate) fn run(args: &Args) -> Result {
    let profile = args.profile()?;
    // Before the measurements, which take minutes.
    let draft = args.out.as_deref().map(|out| Draft::create(out, args.force)).transpose()?;
    if args.sim.is_some() && args.connection.is_given() {
        return Err(Failure::new(Exit::Usage, "--sim says itself what module, tokens and PIN are"));
    }
    let device = args.sim.as_deref().map(|path| Device::of(path, &profile, false)).transpose()?;
    let source = args.connection.config_path().map(Source::read).transpose()?;
    let sites = Sites::of(args, device.as_ref(), source.as_ref())?;
    let start = source.as_ref().map_or_else(|| Ok(Start::default()), |source| Start::of(&source.text))?;
    // Before the engine starts threads, which then leave signals alone.
    let stop = Stop::new()?;
    stop.on_signals()?;
    let mut bench = Bench::open(args, &sites, profile, &start, &stop)?;
    let limits = start.limits(args, bench.bare.sessions_most());
    let setting = bench.start_setting(&start, &limits);
    let search = setting.map(|setting| search(&mut bench, setting, limits, &stop));
    let removed = bench.close();
    let search = match (search, &removed) {
        (Ok(search), _) => search,
        (Err(failure), Ok(())) => return Err(failure),
        (Err(failure), Err(_)) => {
            removed.unwrap_or_else(|remain| tell(&remain.into_text()));
            return Err(failure);
        }
    };
    let load = Load::of(&bench, args, SystemTime::now());
    let entries = evidence::entries(&search.advice, &search.limits, &load, start.sessions.is_none());
    // Nobody listening to the table is no reason to lose the file, nor the other way round.
    let draft = draft.filter(|_| search.failure.is_none() && search.advice.decided);
    let written = draft.map_or(Ok(()), |draft| put(draft, source.as_ref(), &sites, &bench, &entries));
    let said = say::all(args, &search.advice, &load, &bench.bare.made, search.spent);
    if let Some(failure) = search.failure {
        removed.unwrap_or_else(|remain| tell(&remain.into_text()));
        return Err(failure);
    }
    removed.and(written)?;
    end(args, &search.advice, &stop).and(said)
}

/// Writes the configuration that is advised.
fn put(draft: Draft, source: Option<&Source>, sites: &Sites, bench: &Bench<'_>, entries: &[Entry]) -> Result {
    match source {
        Some(source) => {
            source.check_unchanged()?;
            draft.finish(&write::changed(&source.text, entries)?, Some(&source.metadata))
        }
        None => {
            let names = bench.bare.token_names();
            draft.finish(&write::complete(&sites.measured, &names, entries)?, None)
        }
    }
}

/// Measures what the search asks for, until it is done or something ends it.
fn search(bench: &mut Bench<'_>, start: Setting, limits: Limits, stop: &Stop) -> Search {
    let mut tuner = Tuner::new(start, limits.clone());
    let mut spent = Duration::ZERO;
    loop {
        let (setting, lasts) = match tuner.next() {
            Step::Measure { .. } if stop.is_asked() => {
                return Search { advice: tuner.stopped(), limits, spent, failure: None };
            }
            Step::Measure { setting, lasts } => (setting, lasts),
            Step::Done(advice) => return Search { advice: *advice, limits, spent, failure: None },
        };
        let sample = match bench.sample(setting, lasts) {
            Ok(sample) => sample,
            failed => return Search { advice: tuner.stopped(), limits, spent, failure: failed.err() },
        };
        if stop.is_asked() {
            // What was cut short says nothing.
            return Search { advice: tuner.stopped(), limits, spent, failure: None };
        }
        spent += sample.took;
        tuner.measured(sample.clone());
        say::live(setting, &sample, tuner.best(), [spent, limits.total]);
    }
}

/// How the program ends.
fn end(args: &Args, advice: &Advice, stop: &Stop) -> Result {
    let file = if args.out.is_some() { ", and no file is written" } else { "" };
    let known = if advice.decided {
        "the advice is what has won by then".to_owned()
    } else {
        format!("nothing was seen to beat the settings at start{file}")
    };
    if advice.end == End::Stopped
        && let Some(exit) = stop.signal()
    {
        return Err(Failure::new(exit, format!("stopped by a signal: {known}")));
    }
    let failed = |text: &str| Err(Failure::new(Exit::Operation, text));
    let Some(best) = advice.best else {
        let why = advice.tried.iter().find_map(|tried| tried.failed.clone()).unwrap_or_default();
        return failed(&format!("no setting worked: {why}"));
    };
    match advice.end {
        End::OutOfTime => failed(&format!("time was used up: {known}; a longer --time tells more")),
        _ if advice.tried_with(best).is_some_and(|tried| tried.per_s.is_none()) => {
            failed("the settings at start do not work, and nothing else was found")
        }
        _ if !advice.meets => failed("no setting was seen to meet the objective"),
        _ => Ok(()),
    }
}

/// Says something beside the result. Who does not listen any more has the results all the same.
fn tell(text: &str) {
    let _told = note(text);
}
