//! The callers of a run: threads or tasks, and what wakes the tasks.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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
    pub(super) works: Arc<Works>,
    pub(super) gate: Gate,
    pub(super) recorder: Recorder,
    pub(super) start: Instant,
    /// Processor time of the thread that runs the tasks, in nanoseconds, once it has ended.
    pub(super) tasks_cpu_ns: AtomicU64,
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

impl Common {
    pub(super) fn now(&self) -> Duration {
        self.start.elapsed()
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
    pub(super) fn start(common: &Arc<Common>) -> Result<Self, String> {
        let count = most_callers(&common.profile);
        let mut callers = Self { threads: Vec::new(), pacer: None, has_ended: Arc::default() };
        let started = match common.profile.api {
            ProfileApi::Blocking => (0..count).try_for_each(|caller| {
                let common = Arc::clone(common);
                callers.spawn("load", move || block(&common, caller))
            }),
            ProfileApi::Tasks => callers.start_tasks(common, count),
        };
        match started {
            Ok(()) => Ok(callers),
            Err(error) => {
                common.gate.stop();
                callers.join();
                Err(error)
            }
        }
    }

    fn start_tasks(&mut self, common: &Arc<Common>, count: u32) -> Result<(), String> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().build().map_err(|error| error.to_string())?;
        let (tasks_of, paced, has_ended) =
            (Arc::clone(common), Arc::clone(common), Arc::clone(&self.has_ended));
        self.spawn("load-tasks", move || {
            let sink = Arc::new(tasks_of.recorder.sink());
            let task = |caller| runtime.spawn(run_task(Arc::clone(&tasks_of), Arc::clone(&sink), caller));
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
fn block(common: &Common, caller: u32) {
    let sink = common.recorder.sink();
    let mut hands = common.works.hands(&common.profile, caller);
    loop {
        let arrival = match common.gate.claim(caller, common.now()) {
            Next::Make(arrival) => arrival,
            Next::Wait(then) if common.wait_until(then) => continue,
            Next::Wait(_) | Next::End => return,
        };
        if !common.wait_until(arrival.at) {
            return;
        }
        let draw = common.works.draw(&mut hands);
        let begun = common.now();
        let failure = common.works.block(&mut hands, draw).err();
        common.record(&sink, arrival, draw.operation, begun, failure);
    }
}

/// A caller that is a task.
async fn run_task(common: Arc<Common>, sink: Arc<Sink>, caller: u32) {
    let mut hands = common.works.hands(&common.profile, caller);
    while let Some(arrival) = poll_fn(|context| common.gate.poll(caller, || common.now(), context)).await {
        let draw = common.works.draw(&mut hands);
        let begun = common.now();
        let failure = common.works.poll(&mut hands, draw).await.err();
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
