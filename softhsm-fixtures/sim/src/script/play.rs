//! The thread that lets things happen.

use std::fmt;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::steps::{Step, Timeline};
use crate::clock;
use crate::loaded::{LoadError, Loaded};

/// A script that is being played. Dropped, it is stopped, as by [`Playing::stop`].
#[derive(Debug)]
pub struct Playing {
    sim: Arc<Loaded>,
    shared: Arc<Shared>,
    /// None once it has ended.
    thread: Option<JoinHandle<()>>,
}

/// Something that has happened to a simulated device. It shows as `token sim-0 lost at 10.0 s`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happened {
    /// When it was done, from the start of the run.
    pub at: Duration,
    /// What it was, as `token sim-0 lost`.
    pub what: String,
}

#[derive(Debug, Default)]
struct Shared {
    stopped: Mutex<bool>,
    stopping: Condvar,
    happened: Mutex<Vec<Happened>>,
}

/// The device with nothing the matter with it.
pub(super) const NOTHING: &str = "removed=,rules=,slower=,stall=";

impl Playing {
    pub(super) fn start(sim: Arc<Loaded>, steps: Arc<[Step]>, elapsed: Duration) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let begun_ns = clock::now_ns().saturating_sub(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX));
        let (own_sim, own_shared) = (Arc::clone(&sim), Arc::clone(&shared));
        // What is due already is done when this returns.
        do_due(&sim, &mut Timeline::new(&steps), begun_ns, &shared);
        let done = shared.happened.lock().len();
        let play = move || run(&own_sim, Timeline::new(&steps[done..]), begun_ns, &own_shared);
        let thread = thread::Builder::new().name("sim-script".to_owned()).spawn(play)?;
        Ok(Self { sim, shared, thread: Some(thread) })
    }

    /// What has happened so far, in order.
    #[must_use]
    pub fn so_far(&self) -> Vec<Happened> {
        self.shared.happened.lock().clone()
    }

    /// Ends the play, and whatever is the matter with the device: tokens are there, nothing hangs, stalls or fails, so
    /// that a client can end in peace. Returns what has happened, in order.
    #[must_use = "what has happened belongs into the report; drop it to end the play without"]
    pub fn stop(mut self) -> Vec<Happened> {
        self.end();
        std::mem::take(&mut self.shared.happened.lock())
    }

    fn end(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        *self.shared.stopped.lock() = true;
        self.shared.stopping.notify_all();
        // A thread that has panicked lets nothing more happen.
        let _ended = thread.join();
        // It was possible when the module was loaded.
        let _possible = self.sim.change(NOTHING);
        self.sim.release_hangs();
    }
}

impl Drop for Playing {
    fn drop(&mut self) {
        self.end();
    }
}

impl fmt::Display for Happened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {:.1} s", self.what, self.at.as_secs_f64())
    }
}

impl Shared {
    /// Waits so long, or until the play is stopped; whether it is.
    fn stopped_within(&self, time: Duration) -> bool {
        let mut stopped = self.stopped.lock();
        let _which = self.stopping.wait_while_for(&mut stopped, |stopped| !*stopped, time);
        *stopped
    }

    fn note(&self, at: Duration, step: &Step, done: Result<(), LoadError>) {
        let what = match done {
            Ok(()) => step.says.clone(),
            Err(error) => format!("{}: not done, {error}", step.says),
        };
        self.happened.lock().push(Happened { at, what });
    }
}

fn run(sim: &Loaded, mut timeline: Timeline<'_>, begun_ns: u64, shared: &Shared) {
    clock::exact_timers();
    while let Some(next) = timeline.next_at() {
        if shared.stopped_within(next.saturating_sub(elapsed(begun_ns))) {
            return;
        }
        do_due(sim, &mut timeline, begun_ns, shared);
    }
}

fn do_due(sim: &Loaded, timeline: &mut Timeline<'_>, begun_ns: u64, shared: &Shared) {
    for step in timeline.due(elapsed(begun_ns)) {
        let done = sim.change(&step.change);
        shared.note(elapsed(begun_ns), step, done);
    }
}

fn elapsed(begun_ns: u64) -> Duration {
    Duration::from_nanos(clock::now_ns().saturating_sub(begun_ns))
}
