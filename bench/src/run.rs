//! A run of a profile on an engine: requests are made when they are due, and what became of them is measured.
//!
//! Latency counts from when a request was due: in an open loop a stall is charged to all that it delays, those included
//! that could not even be begun. How late the harness itself began them stands beside it ([`Counts::lateness`]).

mod callers;
mod gate;
mod told;
mod turns;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hsmux::{Engine, Snapshot};

use crate::clock::cpu_time;
use crate::profile::Profile;
use crate::record::{Block, Counts};
use crate::result;
use crate::work::Works;
use callers::{Callers, Common};

pub use turns::{Turns, in_turns};

/// What a run has measured.
#[derive(Debug)]
pub struct Outcome {
    /// The profile that ran.
    pub profile: Profile,
    /// All that was measured, by operation and phase.
    pub all: Block,
    /// By interval, in order: figures, for the histograms of a day would be gigabytes.
    pub intervals: Vec<result::Interval>,
    /// How long requests were made.
    pub length: Duration,
    /// Whether it was stopped before its end.
    pub was_stopped: bool,
    /// Requests of an open loop that were due, and were never begun: it was stopped, or they were still to be begun long after its
    /// end ([`run`]). No latency is of them.
    pub unbegun: u64,
    /// Processor time of the whole process meanwhile.
    pub cpu: Duration,
    /// What the engine had counted before and after; several pairs if others ran in between ([`in_turns`]).
    pub snapshots: Vec<[Snapshot; 2]>,
    /// Callers that panicked: what they did before that is counted.
    pub panicked: usize,
    /// What part of the time the thread that runs tasks was busy; 0 where callers are threads.
    pub tasks_busy: f64,
}

/// One stretch of a run, a second long unless the run ended before.
#[derive(Clone, Debug)]
pub struct Interval {
    /// When it began.
    pub from: Duration,
    /// When it ended.
    pub until: Duration,
    /// Requests that ended in it.
    pub counts: Counts,
    /// How the engine stood at its end.
    pub engine: Standing,
}

/// How an engine stands at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Sessions that work or idle, of all tokens.
    pub sessions: usize,
    /// Requests that wait for a session.
    pub queued: usize,
    /// Tokens that serve.
    pub tokens_up: usize,
}

/// What whoever watches a run wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// It goes on.
    Continue,
    /// No more requests are made; those in flight are waited for.
    Stop,
}

/// How long an interval is.
pub const INTERVAL: Duration = Duration::from_secs(1);

/// How often whoever watches is asked.
const LOOK: Duration = Duration::from_millis(100);

/// Runs a profile. `watch` is asked every tenth of a second whether it goes on, and given each interval when it has ended.
///
/// # Errors
/// A text: threads could not be started.
///
/// # Blocking
/// As long as the profile says, and until all that was due by then has been begun and answered. Of a rate far above what the
/// device does that would be much longer: a quarter of the run's length after its end, but one second at least and ten at most, no
/// more is begun ([`Outcome::unbegun`]).
pub fn run(
    engine: &Arc<Engine>,
    profile: Profile,
    works: &Arc<Works>,
    mut watch: impl FnMut(Option<&Interval>) -> Flow,
) -> Result<Outcome, String> {
    let (before, cpu_before) = (engine.snapshot(), cpu_time());
    let common = Arc::new(Common::new(profile));
    let callers = Callers::start(&common, works)?;
    let mut meter = Meter::new(&common, engine);
    while !callers.have_ended() {
        std::thread::park_timeout(LOOK.min(meter.left()));
        let ended = meter.look();
        if watch(ended.as_ref()) == Flow::Stop {
            common.stop();
        }
        common.bound_backlog();
    }
    let length = common.now();
    let panicked = callers.join();
    meter.end();
    let (all, intervals) = (meter.all, meter.intervals);
    let snapshots = vec![[before, engine.snapshot()]];
    let was_stopped = common.gate.is_stopped() && !common.gate.is_cut();
    let unbegun = common.take_unbegun();
    let (cpu, profile) = (cpu_time().saturating_sub(cpu_before), common.profile.clone());
    let tasks_cpu = Duration::from_nanos(common.tasks_cpu_ns.load(Ordering::Relaxed));
    let tasks_busy = tasks_cpu.as_secs_f64() / length.as_secs_f64().max(f64::MIN_POSITIVE);
    Ok(Outcome {
        profile,
        all,
        intervals,
        length,
        was_stopped,
        unbegun,
        cpu,
        snapshots,
        panicked,
        tasks_busy,
    })
}

/// Takes what was measured, interval by interval.
struct Meter<'a> {
    common: &'a Common,
    engine: &'a Engine,
    all: Block,
    /// When this interval began.
    from: Duration,
    intervals: Vec<result::Interval>,
}

impl<'a> Meter<'a> {
    fn new(common: &'a Common, engine: &'a Engine) -> Self {
        let all = common.recorder.empty();
        Self { common, engine, all, from: Duration::ZERO, intervals: Vec::new() }
    }

    /// Until the end of this interval.
    fn left(&self) -> Duration {
        (self.from + INTERVAL).saturating_sub(self.common.now())
    }

    /// The interval that has just ended, if one has.
    fn look(&mut self) -> Option<Interval> {
        self.left().is_zero().then(|| self.end())
    }

    /// Ends an interval now.
    fn end(&mut self) -> Interval {
        let block = self.common.recorder.take();
        let until = self.common.now();
        self.all.add(&block);
        let counts = block.of(|_, _| true);
        let interval = Interval { from: self.from, until, counts, engine: Standing::of(self.engine) };
        self.intervals.push(told::row(&self.common.profile, &interval));
        self.from = until;
        interval
    }
}

impl Standing {
    /// How it stands now.
    #[must_use]
    pub fn of(engine: &Engine) -> Self {
        let snapshot = engine.snapshot();
        let tokens = &snapshot.tokens;
        Self {
            sessions: tokens.iter().map(|token| token.sessions).sum(),
            queued: snapshot.queued,
            tokens_up: tokens.iter().filter(|token| token.health == hsmux::Health::Serving).count(),
        }
    }
}
