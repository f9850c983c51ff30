//! The callers of a run: threads or tasks, and what wakes the tasks.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use super::gate::{Gate, Next, most_callers};
use crate::arrivals::Arrival;
use crate::clock::{Instant, thread_cpu_time};
use crate::failure::Failure;
use crate::profile::{Profile, ProfileApi};
use crate::record::{Recorder, Sample, Sink};
use crate::work::Works;

/// What the callers of a run share.
#[derive(Debug)]
pub(super) struct Common {
    pub(super) profile: Profile,
    pub(super) gate: Gate,
    pub(super) recorder: Recorder,
    pub(super) start: Instant,
    /// Processor time of the thread that runs the tasks, in nanoseconds, once it has ended.
    pub(super) tasks_cpu_ns: AtomicU64,
    /// When no more requests were made, because somebody wanted so or because of the backlog.
    stopped_at: OnceLock<Duration>,
}

/// The callers, while they run.
#[derive(Debug)]
pub(super) struct Callers {
    threads: Vec<JoinHandle<()>>,
    pacer: Option<JoinHandle<()>>,
    has_ended: Arc<AtomicBool>,
}

/// The longest wait in one go: whoever waits looks then whether the run was stopped.
const WAIT_MAX: Duration = Duration::from_millis(50);

/// How long after the end of an open loop what was due in it is begun: this part of its length, within these bounds.
const BACKLOG_PART: u32 = 4;
const BACKLOG: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(10)];

impl Common {
    /// What begins now.
    pub(super) fn new(profile: Profile) -> Self {
        let (gate, recorder) = (Gate::new(&profile), Recorder::new(&profile));
        let (start, tasks_cpu_ns, stopped_at) = (Instant::now(), AtomicU64::new(0), OnceLock::new());
        Self { profile, gate, recorder, start, tasks_cpu_ns, stopped_at }
    }

    pub(super) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Ends a run that has a backlog of requests too long after its end: of a rate far above what is served, it would last for
    /// many times its length.
    pub(super) fn bound_backlog(&self) {
        let length = self.profile.length();
        let [least, most] = BACKLOG;
        let now = self.now();
        if now > length + (length / BACKLOG_PART).clamp(least, most) {
            self.stopped_at.get_or_init(|| now);
            self.gate.cut();
        }
    }

    /// No more requests are made.
    pub(super) fn stop(&self) {
        self.stopped_at.get_or_init(|| self.now());
        self.gate.stop();
    }

    /// Takes what was due before the end, and was never begun; how many those are.
    pub(super) fn take_unbegun(&self) -> u64 {
        self.gate.take_unbegun(self.stopped_at.get().copied().unwrap_or(Duration::MAX))
    }

    /// Makes requests as one caller that has a thread to itself: `work` makes one, and says which operation it was of.
    pub(super) fn serve(&self, caller: u32, mut work: impl FnMut() -> (usize, Result<(), Failure>)) {
        let sink = self.recorder.sink();
        loop {
            let arrival = match self.gate.claim(caller, self.now()) {
                Next::Make(arrival) => arrival,
                Next::Wait(then) if self.wait_until(then) => continue,
                Next::Wait(_) | Next::End => return,
            };
            if !self.wait_until(arrival.at) {
                return;
            }
            let begun = self.now();
            let (operation, done) = work();
            self.record(&sink, arrival, operation, begun, done.err());
        }
    }

    /// Waits until then; false if the run was stopped before.
    fn wait_until(&self, then: Duration) -> bool {
        loop {
            let left = then.saturating_sub(self.now());
            if left.is_zero() {
                return true;
            }
            if self.gate.is_stopped() {
                return false;
            }
            std::thread::park_timeout(left.min(WAIT_MAX));
        }
    }

    fn record(
        &self,
        sink: &Sink,
        arrival: Arrival,
        operation: usize,
        begun: Duration,
        failure: Option<Failure>,
    ) {
        let (due, ended) = (arrival.at, self.now());
        sink.record(Sample { operation, phase: arrival.phase, due, begun, ended, failure });
    }
}

impl Callers {
    /// Starts them.
    ///
    /// # Errors
    /// A text: a thread or a runtime could not be started.
    pub(super) fn start(common: &Arc<Common>, works: &Arc<Works>) -> Result<Self, String> {
        let count = most_callers(&common.profile);
        let mut callers = Self { threads: Vec::new(), pacer: None, has_ended: Arc::default() };
        let started = match common.profile.api {
            ProfileApi::Blocking => (0..count).try_for_each(|caller| {
                let (common, works) = (Arc::clone(common), Arc::clone(works));
                callers.spawn("load", move || block(&common, &works, caller))
            }),
            ProfileApi::Tasks => callers.start_tasks(common, works, count),
        };
        match started {
            Ok(()) => Ok(callers),
            Err(error) => {
                common.stop();
                callers.join();
                Err(error)
            }
        }
    }

    fn start_tasks(&mut self, common: &Arc<Common>, works: &Arc<Works>, count: u32) -> Result<(), String> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().build().map_err(|error| error.to_string())?;
        let (tasks_of, paced, has_ended) =
            (Arc::clone(common), Arc::clone(common), Arc::clone(&self.has_ended));
        let works = Arc::clone(works);
        self.spawn("load-tasks", move || {
            let sink = Arc::new(tasks_of.recorder.sink());
            let task = |caller| {
                let (common, works, sink) = (Arc::clone(&tasks_of), Arc::clone(&works), Arc::clone(&sink));
                runtime.spawn(run_task(common, works, sink, caller))
            };
            let tasks: Vec<_> = (0..count).map(task).collect();
            // A task that panicked has recorded what it did before.
            runtime.block_on(async {
                for task in tasks {
                    let _ended = task.await;
                }
            });
            let cpu_ns = u64::try_from(thread_cpu_time().as_nanos()).unwrap_or(u64::MAX);
            tasks_of.tasks_cpu_ns.store(cpu_ns, Ordering::Relaxed);
        })?;
        self.pacer = Some(spawn("load-pace", move || pace(&paced, &has_ended))?);
        Ok(())
    }

    fn spawn(&mut self, name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), String> {
        self.threads.push(spawn(name, run)?);
        Ok(())
    }

    /// Whether all have ended.
    pub(super) fn have_ended(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Waits for their end; says how many ended by a panic.
    pub(super) fn join(self) -> usize {
        let panicked = self.threads.into_iter().filter_map(|thread| thread.join().err()).count();
        // Relaxed: nothing is published with it.
        self.has_ended.store(true, Ordering::Relaxed);
        panicked + self.pacer.into_iter().filter_map(|pacer| pacer.join().err()).count()
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, String> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(|error| error.to_string())
}

/// A caller that is a thread.
fn block(common: &Common, works: &Works, caller: u32) {
    let mut hands = works.hands(&common.profile, caller);
    common.serve(caller, || {
        let draw = works.draw(&mut hands);
        (draw.operation, works.block(&mut hands, draw))
    });
}

/// A caller that is a task.
async fn run_task(common: Arc<Common>, works: Arc<Works>, sink: Arc<Sink>, caller: u32) {
    let mut hands = works.hands(&common.profile, caller);
    while let Some(arrival) = poll_fn(|context| common.gate.poll(caller, || common.now(), context)).await {
        let draw = works.draw(&mut hands);
        let begun = common.now();
        let failure = works.poll(&mut hands, draw).await.err();
        common.record(&sink, arrival, draw.operation, begun, failure);
    }
}

/// Wakes a task for each request of an open loop when it is due, and all when a phase begins.
///
/// It counts the arrivals by a schedule of its own, which is the same: tasks that are late have taken none of its.
fn pace(common: &Common, has_ended: &AtomicBool) {
    let mut begins = Duration::ZERO;
    let wait = |then| common.wait_until(then) && !has_ended.load(Ordering::Relaxed);
    match common.profile.schedule() {
        Some(schedule) => {
            for arrival in schedule {
                if !wait(arrival.at) {
                    return;
                }
                common.gate.wake();
            }
        }
        None => {
            for phase in &common.profile.phases {
                begins += phase.length;
                if !wait(begins) {
                    return;
                }
                common.gate.wake_all();
            }
        }
    }
    common.gate.wake_all();
}
