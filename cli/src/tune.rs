//! `hsmux tune`: tries settings of the engine on a load, and writes a configuration with those that do most.

mod args;
mod drive;
mod evidence;
mod keys;
mod say;
mod start;
mod write;

use std::time::{Duration, SystemTime};

use hsmux_bench::tune::{Advice, End, Limits, Setting, Step, Tuner};

use self::drive::Bench;
use self::evidence::Load;
use self::start::Start;
use crate::exit::{Exit, Failure, Result};
use crate::load::Device;
use crate::stop::Stop;

pub(crate) use self::args::{Args, HELP};

/// Tunes, says what came out, and ends as the signal asks that ended it early, if one did.
pub(crate) fn run(args: &Args) -> Result {
    let profile = args.profile()?;
    // Before the measurements, which take minutes.
    args.out.as_deref().map_or(Ok(()), |out| write::check_free(out, args.force))?;
    let device = args.sim.as_deref().map(|path| Device::of(path, &profile, false)).transpose()?;
    let site = match &device {
        Some(_) if args.connection.is_given() => {
            return Err(Failure::new(Exit::Usage, "--sim says itself what module, tokens and PIN are"));
        }
        Some(device) => device.site(),
        None => args.connection.resolve()?,
    };
    let text = args.connection.config_path().map(std::fs::read_to_string).transpose()?;
    let start = text.as_deref().map_or_else(|| Ok(Start::default()), Start::of)?;
    // Before the engine starts threads, which then leave signals alone.
    let stop = Stop::new()?;
    stop.on_signals()?;
    let mut bench = Bench::open(args, &site, profile, &start, &stop)?;
    let limits = start.limits(args, bench.sessions_most());
    let result =
        bench.start_setting(&start, &limits).and_then(|setting| search(&mut bench, setting, limits, &stop));
    let removed = bench.close();
    let (advice, limits, spent) = result?;
    let load = Load::of(&bench, args, SystemTime::now());
    let entries = evidence::entries(&advice, &limits, &load);
    // Nobody listening to the table is no reason to lose the file, nor the other way round.
    let written = match (args.out.as_deref().filter(|_| advice.best.is_some()), &text) {
        (Some(out), Some(text)) => write::changed(text, &entries)
            .and_then(|text| write::to(out, &text, args.connection.config_path(), args.force)),
        (Some(out), None) => write::complete(&site, &bench.token_names(), &entries)
            .and_then(|text| write::to(out, &text, None, args.force)),
        (None, _) => Ok(()),
    };
    let said = say::all(args, &advice, &load, bench.made(), spent);
    removed.and(written)?;
    end(&advice, &stop).and(said)
}

/// Measures what the search asks for, until it is done or a signal ends it.
fn search(
    bench: &mut Bench<'_>,
    start: Setting,
    limits: Limits,
    stop: &Stop,
) -> Result<(Advice, Limits, Duration)> {
    let mut tuner = Tuner::new(start, limits.clone());
    let mut spent = Duration::ZERO;
    loop {
        let (setting, lasts) = match tuner.next() {
            Step::Measure { .. } if stop.is_asked() => return Ok((tuner.stopped(), limits, spent)),
            Step::Measure { setting, lasts } => (setting, lasts),
            Step::Done(advice) => return Ok((*advice, limits, spent)),
        };
        let sample = bench.sample(setting, lasts)?;
        if stop.is_asked() {
            // What was cut short says nothing.
            return Ok((tuner.stopped(), limits, spent));
        }
        spent += sample.took;
        tuner.measured(sample.clone());
        // Who does not listen any more has the results all the same.
        let _told = say::live(setting, &sample, tuner.best(), [spent, limits.total]);
    }
}

/// How the program ends.
fn end(advice: &Advice, stop: &Stop) -> Result {
    if advice.end == End::Stopped
        && let Some(exit) = stop.signal()
    {
        let what = if advice.best.is_some() {
            "the advice is the best so far"
        } else {
            "nothing had worked by then"
        };
        return Err(Failure::new(exit, format!("stopped by a signal: {what}")));
    }
    let failed = || advice.tried.iter().find_map(|tried| tried.failed.clone()).unwrap_or_default();
    match advice.best {
        None => Err(Failure::new(Exit::Operation, format!("no setting worked: {}", failed()))),
        Some(_) if !advice.meets => {
            Err(Failure::new(Exit::Operation, "no setting was seen to meet the objective"))
        }
        Some(_) => Ok(()),
    }
}
