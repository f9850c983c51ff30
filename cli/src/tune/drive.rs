//! Measuring settings: one engine at a time, the same load on each.

use std::sync::Arc;
use std::time::Duration;

use hsmux::{Copies, Engine};
use hsmux_bench::Works;
use hsmux_bench::knee::Percentile;
use hsmux_bench::profile::Profile;
use hsmux_bench::run::{self, Flow, Outcome};
use hsmux_bench::tune::{Figures, Limits, Sample, Setting};
use quanta::Instant;

use super::args::Args;
use super::bare::{Bare, Missed, REQUESTS_MAX, check_serving, not_serving};
use super::sites::Sites;
use super::start::Start;
use super::tell;
use crate::exit::{Exit, Failure, Result};
use crate::load::DRAIN;
use crate::stop::Stop;

/// Where settings are measured.
pub(super) struct Bench<'a> {
    sites: &'a Sites,
    stop: &'a Stop,
    pub(super) profile: Profile,
    pub(super) bare: Bare<'a>,
    running: Option<Running>,
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

impl<'a> Bench<'a> {
    /// Logs in, makes the keys, and tries each operation once.
    pub(super) fn open(
        args: &'a Args,
        sites: &'a Sites,
        mut profile: Profile,
        start: &Start,
        stop: &'a Stop,
    ) -> Result<Self> {
        let mut bare = Bare::open(args, sites, &profile)?;
        let callers = bare.try_all(&profile).and_then(|()| bare.enough_callers(args, &profile, start));
        match callers {
            Ok(callers) => profile.callers = callers,
            Err(failure) => {
                bare.close_and_tell();
                return Err(failure);
            }
        }
        Ok(Self { sites, stop, profile, bare, running: None })
    }

    /// The settings at start. Where nobody says how many sessions, the engine is given a load, and asked.
    pub(super) fn start_setting(&mut self, start: &Start, limits: &Limits) -> Result<Setting> {
        if let Some(sessions) = start.sessions {
            return Ok(start.setting(sessions));
        }
        let lasts = (limits.total / FIND_PART).clamp(FIND[0], FIND[1]);
        let found = self.use_engine(None).and_then(|()| Ok(self.run(lasts)?));
        let found = self.unless_lost(found);
        self.bare.watch(found)?;
        let tokens =
            self.running.as_ref().map(|running| running.engine.snapshot().tokens).unwrap_or_default();
        let found = tokens.iter().map(|token| token.sessions - token.parked.min(token.sessions)).max();
        let sessions = found.unwrap_or(1).clamp(limits.sessions_min, limits.sessions_max);
        tell(&format!("by itself the engine settles at {sessions} sessions: that is the start"));
        Ok(start.setting(sessions))
    }

    /// Measures a setting. What it fails by is a sample, too, unless a login may have counted as a wrong try or a token is lost:
    /// then the PIN is not sent again.
    pub(super) fn sample(&mut self, setting: Setting, lasts: Duration) -> Result<Sample> {
        let begun = Instant::now();
        let ran = self.use_engine(Some(setting)).and_then(|()| Ok(self.run(lasts)?));
        let outcome = match self.unless_lost(ran) {
            Ok(outcome) => figures(&outcome),
            Err(Missed::Setting(failure)) => Err(failure.into_text()),
            Err(Missed::Final(failure)) => return Err(self.bare.give_up(failure)),
        };
        Ok(Sample { took: begun.elapsed(), outcome })
    }

    /// What has come of a run, unless a token has stopped serving: what fails because of that says nothing of the setting, and the
    /// next engine would log in to it again.
    fn unless_lost<T>(&self, ran: std::result::Result<T, Missed>) -> std::result::Result<T, Missed> {
        let lost = self.running.as_ref().and_then(|running| not_serving(&running.engine));
        lost.map_or(ran, |failure| Err(Missed::Final(failure)))
    }

    /// Ends the engines and removes the keys.
    pub(super) fn close(&mut self) -> Result {
        self.stop_engine();
        self.bare.close()
    }

    /// Sees to it that an engine with this setting runs, or one as the site says.
    fn use_engine(&mut self, setting: Option<Setting>) -> std::result::Result<(), Missed> {
        if setting.is_some() && self.running.as_ref().is_some_and(|running| running.setting == setting) {
            return Ok(());
        }
        self.stop_engine();
        match self.build(setting) {
            // It may be that the one that keeps the login has what this one lacks.
            Err(Missed::Setting(failure)) if self.bare.makes_room_for(&failure) => {
                let built = self.build(setting);
                if matches!(built, Err(Missed::Setting(_))) {
                    self.bare.come_back()?;
                }
                built
            }
            built => built,
        }
    }

    fn build(&mut self, setting: Option<Setting>) -> std::result::Result<(), Missed> {
        if let Some(log) = &self.sites.log {
            log.renew()?;
        }
        let mut builder = self.bare.builder(&self.sites.measured).requests_max(REQUESTS_MAX);
        if let Some(setting) = setting {
            builder = builder.sessions(setting.sessions).instances(setting.instances);
            // What is on stays as the site says: copies may be required.
            if !setting.coalescing {
                builder = builder.coalescing(false);
            }
            if !setting.copies {
                builder = builder.copies(Copies::Off);
            }
        }
        let engine = Arc::new(builder.build()?);
        let checked = check_serving(&engine).and_then(|()| check_sessions(&engine, setting));
        if let Err(missed) = checked {
            engine.drain(DRAIN);
            return Err(missed);
        }
        let keys = &self.bare.keys;
        let works = Works::new(&engine, &self.profile, |operation, key| keys.label(operation, key));
        let works = Arc::new(works.map_err(Failure::from)?);
        self.running = Some(Running { setting, engine, works, is_warm: false });
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

/// Refuses an engine that got fewer sessions than were asked for: it would be measured under a wrong name.
fn check_sessions(engine: &Engine, setting: Option<Setting>) -> std::result::Result<(), Missed> {
    let tokens = engine.snapshot().tokens;
    let given = tokens.iter().filter(|token| !token.drained).map(|token| token.sessions).min();
    match (given, setting) {
        (Some(given), Some(setting)) if given < setting.sessions => {
            let plural = if given == 1 { "" } else { "s" };
            let text = format!("the token gives only {given} session{plural}");
            Err(Missed::Setting(Failure::new(Exit::Busy, text)))
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
