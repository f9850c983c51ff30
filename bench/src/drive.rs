//! The callers: blocking threads, async tasks, and threads that submit batches.

mod window;

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::runtime::Builder;

use crate::ask::Ask;
use crate::cell::{Cell, Lap, Tally, Window};
use crate::failure::Failure;
use crate::inputs::{Inputs, Message};

/// By which of the engine's ways callers make their requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    /// A thread per caller, [`wait_into`](hsmux::Request::wait_into) a buffer that it keeps.
    Blocking,
    /// A tokio task per caller, which awaits its requests.
    Async(Runtime),
    /// One task, which keeps as many requests in flight as there are callers: [`hsmux::pipeline`].
    Window,
    /// A thread per caller, batches of so many requests.
    Many {
        /// Requests per batch.
        batch: usize,
    },
}

/// What drives the tasks of async callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// Tokio's current-thread runtime.
    CurrentThread,
    /// Tokio's multi-thread runtime with two workers.
    TwoWorkers,
}

/// Who asks, and how.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// How.
    pub api: Api,
    /// How many at a time.
    pub callers: usize,
}

impl Api {
    /// The name on the command line and in reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Blocking => "blocking",
            Self::Async(_) | Self::Window => "async",
            Self::Many { .. } => "many",
        }
    }

    /// What drives the callers. An asynchronous figure says little without it: a stream over one task costs more
    /// than a task per request.
    #[must_use]
    pub const fn driver(self) -> &'static str {
        match self {
            Self::Blocking | Self::Many { .. } => "threads",
            Self::Async(Runtime::CurrentThread) => "tasks",
            Self::Async(Runtime::TwoWorkers) => "tasks-2-workers",
            Self::Window => "window",
        }
    }
}

/// Says what the callers are.
impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let callers = self.callers;
        match self.api {
            Api::Blocking => write!(f, "{callers} blocking threads"),
            Api::Async(Runtime::CurrentThread) => {
                write!(f, "{callers} tokio tasks on a current-thread runtime")
            }
            Api::Async(Runtime::TwoWorkers) => write!(f, "{callers} tokio tasks on a runtime of 2 workers"),
            Api::Window => write!(f, "a window of {callers} requests that one task keeps in flight"),
            Api::Many { batch } => write!(f, "{callers} threads with batches of {batch}"),
        }
    }
}

/// Runs a cell.
pub(crate) fn drive<A: Ask>(ask: &Arc<A>, inputs: &Inputs, load: Load, window: Window) -> Cell {
    Cell::measure(window, || match load.api {
        Api::Blocking => {
            threads(load.callers, |caller| ask_in_loop(inputs, caller, window, &mut block(&**ask, inputs)))
        }
        Api::Many { batch } => {
            threads(load.callers, |caller| block_many(&**ask, inputs, caller, batch, window))
        }
        Api::Async(runtime) => tasks(ask, inputs, load.callers, runtime, window),
        Api::Window => window::stream(&**ask, inputs, load.callers, window),
    })
}

/// Runs any work in a closed loop: each thread has a worker made on it, which is given message after message.
///
/// # Blocking
/// Until the window has closed and every worker has come back.
pub fn closed_loop<W: FnMut(&[u8]) -> Result<(), Failure>>(
    count: usize,
    inputs: &Inputs,
    window: Window,
    worker: impl Fn(usize) -> W + Sync,
) -> Cell {
    Cell::measure(window, || {
        threads(count, |thread| ask_in_loop(inputs, thread, window, &mut worker(thread)))
    })
}

/// Runs a thread per caller.
fn threads(callers: usize, run: impl Fn(usize) -> Tally + Sync) -> Vec<Tally> {
    std::thread::scope(|scope| {
        let run = &run;
        let threads: Vec<_> = (0..callers).map(|caller| scope.spawn(move || run(caller))).collect();
        // A caller that panicked has counted nothing.
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    })
}

fn block<A: Ask>(ask: &A, inputs: &Inputs) -> impl FnMut(&[u8]) -> Result<(), Failure> {
    let mut out = vec![0; inputs.case().output_len()];
    move |message| ask.one(message).wait_into(&mut out).map(drop).map_err(Failure::from)
}

fn ask_in_loop(
    inputs: &Inputs,
    caller: usize,
    window: Window,
    work: &mut impl FnMut(&[u8]) -> Result<(), Failure>,
) -> Tally {
    let mut tally = Tally::new(window);
    let mut message = inputs.message(caller);
    let mut lap = Lap::start();
    loop {
        let answer = work(message.advance());
        if !tally.count(&mut lap, 1, answer.err().into_iter()) {
            tally.of_caller(tally.ops());
            return tally;
        }
    }
}

fn block_many<A: Ask>(ask: &A, inputs: &Inputs, caller: usize, batch: usize, window: Window) -> Tally {
    let mut tally = Tally::new(window);
    let mut message = inputs.message(caller);
    let len = inputs.case().input_len();
    let mut messages = vec![0; len * batch];
    let mut lap = Lap::start();
    loop {
        messages.chunks_exact_mut(len).for_each(|chunk| chunk.copy_from_slice(message.advance()));
        let Some(many) = ask.many(messages.chunks_exact(len).collect()) else { return tally };
        let answers = many.wait();
        let failures = answers.into_iter().filter_map(Result::err).map(Failure::from);
        if !tally.count(&mut lap, batch as u64, failures) {
            tally.of_caller(tally.ops());
            return tally;
        }
    }
}

thread_local! {
    /// What the tasks on this thread have counted. One for all of them: a histogram for each of hundreds of
    /// tasks would not fit into the core's cache, and would be measured with the engine.
    static COUNTED: RefCell<Option<Tally>> = const { RefCell::new(None) };
}

/// Runs a task per caller.
fn tasks<A: Ask>(
    ask: &Arc<A>,
    inputs: &Inputs,
    callers: usize,
    runtime: Runtime,
    window: Window,
) -> Vec<Tally> {
    let tallies = Arc::new(Mutex::new(Vec::new()));
    let collected = Arc::clone(&tallies);
    let collect = move || collected.lock().extend(COUNTED.take());
    let mut builder = match runtime {
        Runtime::CurrentThread => Builder::new_current_thread(),
        Runtime::TwoWorkers => Builder::new_multi_thread(),
    };
    // A runtime that cannot start has counted nothing.
    let Ok(runtime) = builder.worker_threads(2).on_thread_stop(collect.clone()).build() else {
        return Vec::new();
    };
    runtime.block_on(async {
        let task = |caller| tokio::spawn(run_task(Arc::clone(ask), inputs.message(caller), window));
        let tasks: Vec<_> = (0..callers).map(task).collect();
        for task in tasks {
            let _ = task.await;
        }
    });
    // Waits for the workers, which collect as they stop; a current-thread runtime has run here.
    drop(runtime);
    collect();
    std::mem::take(&mut *tallies.lock())
}

async fn run_task<A: Ask>(ask: Arc<A>, mut message: Message, window: Window) {
    let (mut lap, mut ops) = (Lap::start(), 0);
    loop {
        let answer = ask.one(message.advance()).await;
        let goes_on = COUNTED.with_borrow_mut(|tally| {
            let tally = tally.get_or_insert_with(|| Tally::new(window));
            let before = tally.ops();
            let goes_on = tally.count(&mut lap, 1, answer.err().map(Failure::from).into_iter());
            ops += tally.ops() - before;
            if !goes_on {
                tally.of_caller(ops);
            }
            goes_on
        });
        if !goes_on {
            return;
        }
    }
}
