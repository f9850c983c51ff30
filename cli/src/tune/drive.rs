//! Measuring settings: one engine at a time, the same load on each.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hsmux::{Copies, Engine, Health, PinKeep, PinSource, TokenDescription};
use hsmux_bench::Works;
use hsmux_bench::knee::Percentile;
use hsmux_bench::profile::Profile;
use hsmux_bench::result::Made;
use hsmux_bench::run::{self, Flow, Outcome};
use hsmux_bench::tune::{Figures, Limits, Sample, Setting};
use quanta::Instant;
use secrecy::SecretString;

use super::args::Args;
use super::keys::Keys;
use super::start::Start;
use crate::connection::{Site, is_uri};
use crate::exit::{Exit, Failure, Result};
use crate::load::{DRAIN, made, note};
use crate::stop::Stop;

/// Where settings are measured.
pub(super) struct Bench<'a> {
    args: &'a Args,
    site: &'a Site,
    /// As the site names them.
    names: Vec<String>,
    /// Read once: some sources give it once, and a person is not asked a hundred times.
    pin: SecretString,
    stop: &'a Stop,
    pub(super) profile: Profile,
    keys: Keys,
    /// As the first engine describes them, in the order of their names.
    tokens: Vec<TokenDescription>,
    made: Made,
    running: Option<Running>,
    /// Whether a PIN was refused: then no engine is built any more, not even to remove keys.
    is_locked_out: bool,
}

/// An engine and what it does; its setting, unless it is as the site says.
struct Running {
    setting: Option<Setting>,
    engine: Arc<Engine>,
    works: Arc<Works>,
    /// Whether it has run the load before.
    is_warm: bool,
}

/// What part of a measurement's time its warm-up takes, and the bounds: a new engine makes copies and proves what it merges, of
/// which nothing is to be counted; one that has run before has only to fill its queue.
const WARM_UP_NEW: (u32, [Duration; 2]) = (2, [Duration::from_millis(150), Duration::from_secs(1)]);
const WARM_UP: (u32, [Duration; 2]) = (10, [Duration::from_millis(30), Duration::from_millis(100)]);

/// A measurement in which more than this part fails says nothing of a setting but that.
const FAILED_MAX: f64 = 0.01;

/// What part of the time the engine gets to find its number of sessions, where nobody says one, and its bounds.
const FIND_PART: u32 = 20;
const FIND: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(10)];

/// Requests in flight that engines take while they are measured: whoever has fewer callers is not refused.
const REQUESTS_MAX: usize = 65_536;

impl<'a> Bench<'a> {
    /// Builds an engine as the site says, makes the keys, and tries each operation once.
    pub(super) fn open(
        args: &'a Args,
        site: &'a Site,
        profile: Profile,
        start: &Start,
        stop: &'a Stop,
    ) -> Result<Self> {
        let source = site.pin()?;
        if matches!(source, PinSource::ProtectedAuthenticationPath) {
            let text = "tune logs in a hundred times, for which nobody types a PIN at the token";
            return Err(Failure::new(Exit::Usage, text));
        }
        let names = site.tokens()?;
        let module = site.describe().ok();
        let pin = source.read()?;
        let engine = Arc::new(builder(site, &names, &pin).requests_max(REQUESTS_MAX).build()?);
        let tokens = engine.tokens();
        let made = made(site.module(), module.as_ref(), &engine, BTreeMap::new(), profile.seed);
        let mut keys = Keys::make(args, site, &engine, &profile)?;
        let works = match works(&engine, &profile, &keys) {
            Ok(works) => works,
            Err(failure) => {
                // The failure that is told is the first.
                let _removed = keys.remove(&engine);
                return Err(failure);
            }
        };
        let running = Some(Running { setting: None, engine, works, is_warm: false });
        let mut bench =
            Self { args, site, names, pin, stop, profile, keys, tokens, made, running, is_locked_out: false };
        let callers = bench.enough_callers(start);
        match callers {
            Ok(callers) => bench.profile.callers = callers,
            Err(failure) => return Err(bench.close().err().unwrap_or(failure)),
        }
        Ok(bench)
    }

    /// Most sessions that each of the tokens has, if they say so.
    pub(super) fn sessions_most(&self) -> Option<usize> {
        let most = self.tokens.iter().filter_map(|token| token.sessions_max).min()?;
        usize::try_from(most).ok()
    }

    /// The tokens as a configuration names them: as they were named, or by what a URI led to, for a URI may say more than is
    /// to be written down.
    pub(super) fn token_names(&self) -> Vec<String> {
        let name = |(name, token): (&String, &TokenDescription)| match name {
            uri if is_uri(uri) && token.label.is_empty() => token.serial.clone(),
            uri if is_uri(uri) => token.label.clone(),
            name => name.clone(),
        };
        self.names.iter().zip(&self.tokens).map(name).collect()
    }

    pub(super) const fn made(&self) -> &Made {
        &self.made
    }

    /// The settings at start. Where nobody says how many sessions, the engine is given a load, and asked.
    pub(super) fn start_setting(&mut self, start: &Start, limits: &Limits) -> Result<Setting> {
        if let Some(sessions) = start.sessions {
            return Ok(start.setting(sessions));
        }
        let lasts = (limits.total / FIND_PART).clamp(FIND[0], FIND[1]);
        let Some(running) = &self.running else { return Ok(start.setting(1)) };
        let engine = Arc::clone(&running.engine);
        self.run(lasts)?;
        let tokens = engine.snapshot().tokens;
        let found = tokens.iter().map(|token| token.sessions - token.parked.min(token.sessions)).max();
        let sessions = found.unwrap_or(1).clamp(1, limits.sessions_max);
        note(&format!("by itself the engine settles at {sessions} sessions: that is the start"))?;
        Ok(start.setting(sessions))
    }

    /// Measures a setting. What it fails by is a sample, too, unless the PIN was the matter: that is not sent again.
    pub(super) fn sample(&mut self, setting: Setting, lasts: Duration) -> Result<Sample> {
        let begun = Instant::now();
        let outcome = match self.use_setting(setting).and_then(|()| self.run(lasts)) {
            Ok(outcome) => figures(&outcome),
            Err(failure) if is_final(&failure) => {
                self.is_locked_out = true;
                return Err(failure);
            }
            Err(Failure::Said { text, .. }) => Err(text),
            Err(Failure::OutputClosed) => Err("output closed".to_owned()),
        };
        Ok(Sample { took: begun.elapsed(), outcome })
    }

    /// Removes the keys and ends the engine.
    pub(super) fn close(&mut self) -> Result {
        if self.is_locked_out && self.keys.are_temporary() {
            return note("temporary keys stay on the token: the next run removes them");
        }
        if self.keys.are_temporary() && self.running.is_none() {
            let engine = Arc::new(builder(self.site, &self.names, &self.pin).build()?);
            let works = Arc::new(Works::new(&engine, &self.profile, |operation, key| {
                self.keys.label(operation, key)
            })?);
            self.running = Some(Running { setting: None, engine, works, is_warm: false });
        }
        let removed = self.running.as_ref().map_or(Ok(()), |running| self.keys.remove(&running.engine));
        self.stop_engine();
        removed
    }

    fn enough_callers(&self, start: &Start) -> Result<u32> {
        let most = start.limits(self.args, self.sessions_most());
        let instances = most.instances_max.max(start.instances);
        let sessions = most.sessions_max.saturating_mul(instances).saturating_mul(self.tokens.len());
        self.args.callers(&self.profile, sessions)
    }

    /// Sees to it that an engine with this setting runs.
    fn use_setting(&mut self, setting: Setting) -> Result {
        if self.running.as_ref().is_some_and(|running| running.setting == Some(setting)) {
            return Ok(());
        }
        self.stop_engine();
        let mut builder = builder(self.site, &self.names, &self.pin)
            .requests_max(REQUESTS_MAX)
            .sessions(setting.sessions)
            .instances(setting.instances);
        // What is on stays as the site says: copies may be required.
        if !setting.coalescing {
            builder = builder.coalescing(false);
        }
        if !setting.copies {
            builder = builder.copies(Copies::Off);
        }
        let engine = Arc::new(builder.build()?);
        if let Err(failure) = check_sessions(&engine, setting) {
            engine.drain(DRAIN);
            return Err(failure);
        }
        let works = Works::new(&engine, &self.profile, |operation, key| self.keys.label(operation, key))?;
        self.running =
            Some(Running { setting: Some(setting), engine, works: Arc::new(works), is_warm: false });
        Ok(())
    }

    fn stop_engine(&mut self) {
        if let Some(Running { engine, .. }) = self.running.take() {
            engine.drain(DRAIN);
        }
    }

    /// Runs the load for so long, after a warm-up.
    fn run(&mut self, lasts: Duration) -> Result<Outcome> {
        let Some(running) = &mut self.running else {
            return Err(Failure::new(Exit::Other, "no engine runs"));
        };
        let (part, [least, most]) = if running.is_warm { WARM_UP } else { WARM_UP_NEW };
        let warm_up = (lasts / part).clamp(least, most);
        running.is_warm = true;
        // Other draws each time: the same again would say the same again.
        self.profile.seed = (self.profile.seed + 1) % (1 << 63);
        let mut profile = self.profile.clone();
        for phase in &mut profile.phases {
            phase.length = if phase.counted { lasts } else { warm_up };
        }
        let watch =
            |_: Option<&run::Interval>| if self.stop.is_asked() { Flow::Stop } else { Flow::Continue };
        run::run(&running.engine, profile, &running.works, watch)
            .map_err(|text| Failure::new(Exit::Other, text))
    }
}

fn builder(
    site: &Site,
    names: &[String],
    pin: &SecretString,
) -> hsmux::Builder<std::path::PathBuf, Vec<String>, PinSource> {
    // It was read already, and cannot be again.
    site.builder(names, PinSource::from(pin.clone())).pin_keep(PinKeep::Memory)
}

fn works(engine: &Arc<Engine>, profile: &Profile, keys: &Keys) -> Result<Arc<Works>> {
    let works = Works::new(engine, profile, |operation, key| keys.label(operation, key))?;
    works.try_all(profile)?;
    Ok(Arc::new(works))
}

/// Refuses an engine that got fewer sessions than were asked for: it would be measured under a wrong name.
fn check_sessions(engine: &Engine, setting: Setting) -> Result {
    let tokens = engine.snapshot().tokens;
    let serving = tokens.iter().filter(|token| token.health == Health::Serving && !token.drained);
    match serving.map(|token| token.sessions).min() {
        Some(given) if given < setting.sessions => {
            let plural = if given == 1 { "" } else { "s" };
            Err(Failure::new(Exit::Busy, format!("the token gives only {given} session{plural}")))
        }
        _ => Ok(()),
    }
}

/// What was measured, or why it counts for nothing.
fn figures(outcome: &Outcome) -> std::result::Result<Figures, String> {
    let phases = &outcome.profile.phases;
    let counts = outcome.all.of(|_, phase| phases[phase].counted);
    let seconds: f64 =
        phases.iter().filter(|phase| phase.counted).map(|phase| phase.length.as_secs_f64()).sum();
    let all = counts.ops + counts.errors;
    let failed = counts.errors as f64 / all.max(1) as f64;
    if counts.ops == 0 || failed > FAILED_MAX {
        let first =
            outcome.all.failures().map(|(_, failures)| failures).max_by_key(|failures| failures.count);
        let first = first.map_or("nothing was done in time", |failures| failures.first.as_str());
        return Err(format!("{} of {all} operations failed: {first}", counts.errors));
    }
    // In a closed loop a request begins when another has ended, so as many have ended in the phase as have begun in it. Those
    // that were due in it *and* have ended in it are fewer, by as much as the queue is long.
    let ended_per_s = counts.begun_in_time as f64 / seconds;
    Ok(Figures {
        ops_per_s: ended_per_s * (1.0 - failed),
        ops: counts.ops,
        errors: counts.errors,
        latencies_ns: Percentile::ALL.map(|percentile| counts.latency.value_at_quantile(percentile.share())),
    })
}

/// Whether nothing more may be tried: a PIN that was refused is not sent again.
const fn is_final(failure: &Failure) -> bool {
    matches!(failure, Failure::Said { exit: Exit::Pin, .. })
}
