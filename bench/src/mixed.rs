//! A mixed load: many callers, half of them blocking threads and half async tasks, each asking for every kind of
//! operation in turn, and their outputs checked by other software.

mod caller;
mod job;
mod report;
mod work;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use hsmux::{Engine, Key};

use crate::check::Software;
use crate::clock::Instant;
use caller::Caller;

pub use report::{Report, Tally};
pub use work::{Done, Work};

/// What a mixed load is made of.
#[derive(Clone, Debug)]
pub struct Mixed {
    /// Labels of the keys.
    pub keys: Labels,
    /// How many callers ask at once: the first half, rounded up, are threads, the others tasks.
    pub callers: u32,
    /// Which operations are mixed; each comes up in proportion to its weight.
    pub works: Vec<Work>,
    /// Which outputs are checked.
    pub check: Check,
    /// Where the callers' dice start: the same seed asks for the same messages.
    pub seed: u64,
}

/// Labels of the keys of a mixed load.
#[derive(Clone, Copy, Debug)]
pub struct Labels {
    /// RSA, for signatures.
    pub rsa: &'static str,
    /// P-256.
    pub p256: &'static str,
    /// P-384.
    pub p384: &'static str,
    /// AES-256.
    pub aes: &'static str,
    /// HMAC.
    pub hmac: &'static str,
    /// What [`Work::ALL`] takes beside them.
    pub further: Option<Further>,
}

/// Labels of further keys: second ones of the kinds that are asked most, so that lanes of several keys mix, and keys
/// for what the common operations leave out.
#[derive(Clone, Copy, Debug)]
pub struct Further {
    /// P-256.
    pub p256: &'static str,
    /// AES-256.
    pub aes: &'static str,
    /// HMAC.
    pub hmac: &'static str,
    /// AES-256 for CMAC.
    pub cmac: &'static str,
    /// Triple DES.
    pub des: &'static str,
    /// Triple DES for CMAC.
    pub des_mac: &'static str,
}

/// Which outputs are checked by other software. Random bytes are always checked for repetition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// All, by each caller before it asks again: this slows the load down.
    Every,
    /// After the load, of each caller and kind of operation, so many outputs, drawn evenly from all it had.
    Sample(usize),
}

/// A load that runs.
#[derive(Debug)]
#[must_use = "a load runs until it is stopped"]
pub struct Running {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Caller>>,
    tasks: Vec<tokio::task::JoinHandle<Caller>>,
    runtime: tokio::runtime::Runtime,
    software: Arc<Software>,
}

/// What all callers share.
struct Common {
    engine: Arc<Engine>,
    keys: Keys,
    software: Arc<Software>,
    stop: Arc<AtomicBool>,
    /// Requests that may still be made.
    left: AtomicU64,
}

struct Keys {
    rsa: Key,
    p384: Key,
    /// Of each kind the first is the common one.
    p256: Vec<Key>,
    aes: Vec<Key>,
    hmac: Vec<Key>,
    further: Option<FurtherKeys>,
}

struct FurtherKeys {
    cmac: Key,
    des: Key,
    des_mac: Key,
}

/// Threads that run the tasks. Two, for tasks only ask and check: more would take the machine from the token.
const RUNTIME_THREADS: usize = 2;

impl Mixed {
    /// Every operation that the keys of these labels can do.
    #[must_use]
    pub fn new(keys: Labels, callers: u32, check: Check) -> Self {
        let works = if keys.further.is_some() { &Work::ALL[..] } else { Work::COMMON };
        Self { keys, callers, works: works.to_vec(), check, seed: 1 }
    }

    /// Starts the callers.
    ///
    /// # Errors
    /// A text: a key is not there, or threads cannot be made.
    pub fn start(&self, engine: &Arc<Engine>, software: &Arc<Software>) -> Result<Running, String> {
        self.start_for(u64::MAX, engine, software)
    }

    fn start_for(
        &self,
        count: u64,
        engine: &Arc<Engine>,
        software: &Arc<Software>,
    ) -> Result<Running, String> {
        let (stop, software) = (Arc::new(AtomicBool::new(false)), Arc::clone(software));
        let common = Arc::new(Common {
            engine: Arc::clone(engine),
            keys: Keys::find(&self.keys, engine)?,
            software: Arc::clone(&software),
            stop: Arc::clone(&stop),
            left: AtomicU64::new(count),
        });
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(RUNTIME_THREADS)
            .build()
            .map_err(|error| error.to_string())?;
        let mut running = Running { stop, threads: Vec::new(), tasks: Vec::new(), runtime, software };
        for number in 0..self.callers {
            let caller = Caller::new(number, self);
            let common = Arc::clone(&common);
            if number % 2 == 0 {
                let thread = std::thread::Builder::new().name(format!("caller-{number}"));
                match thread.spawn(move || caller.block(&common)) {
                    Ok(thread) => running.threads.push(thread),
                    Err(error) => {
                        drop(running.stop());
                        return Err(error.to_string());
                    }
                }
            } else {
                running.tasks.push(running.runtime.spawn(caller.poll(common)));
            }
        }
        Ok(running)
    }

    /// Starts the callers, lets them ask for a time, and stops them.
    ///
    /// # Errors
    /// As [`Mixed::start`].
    ///
    /// # Blocking
    /// For the time, and as [`Running::stop`].
    pub fn run_for(
        &self,
        time: Duration,
        engine: &Arc<Engine>,
        software: &Arc<Software>,
    ) -> Result<Report, String> {
        let running = self.start(engine, software)?;
        pass(time);
        Ok(running.stop())
    }

    /// Starts the callers, lets them make so many requests between them, and stops them; earlier if they take longer
    /// than the limit.
    ///
    /// # Errors
    /// As [`Mixed::start`].
    ///
    /// # Blocking
    /// As long as the requests take, but no longer than the limit, and as [`Running::stop`].
    pub fn run_count(
        &self,
        count: u64,
        limit: Duration,
        engine: &Arc<Engine>,
        software: &Arc<Software>,
    ) -> Result<Report, String> {
        let running = self.start_for(count, engine, software)?;
        let start = Instant::now();
        while !running.has_ended() && start.elapsed() < limit {
            pass(LOOK);
        }
        Ok(running.stop())
    }
}

/// How often it is looked whether a count of requests is reached.
const LOOK: Duration = Duration::from_millis(50);

impl Common {
    /// Whether the caller may make one more request.
    fn goes_on(&self) -> bool {
        let take = |left: u64| left.checked_sub(1);
        // Relaxed, both: nothing is published with them.
        !self.stop.load(Ordering::Relaxed)
            && self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }
}

impl Keys {
    fn find(labels: &Labels, engine: &Engine) -> Result<Self, String> {
        let find = |label: &str| engine.key(label).map_err(|error| format!("{label}: {error}"));
        let both = |first: &str, second: fn(&Further) -> &'static str| {
            let second = labels.further.iter().map(second);
            std::iter::once(first).chain(second).map(find).collect::<Result<Vec<_>, _>>()
        };
        let further = |it: &Further| {
            Ok::<_, String>(FurtherKeys {
                cmac: find(it.cmac)?,
                des: find(it.des)?,
                des_mac: find(it.des_mac)?,
            })
        };
        Ok(Self {
            rsa: find(labels.rsa)?,
            p384: find(labels.p384)?,
            p256: both(labels.p256, |it| it.p256)?,
            aes: both(labels.aes, |it| it.aes)?,
            hmac: both(labels.hmac, |it| it.hmac)?,
            further: labels.further.as_ref().map(further).transpose()?,
        })
    }
}

impl Running {
    /// Whether every caller has made its last request.
    fn has_ended(&self) -> bool {
        let threads = self.threads.iter().all(JoinHandle::is_finished);
        threads && self.tasks.iter().all(tokio::task::JoinHandle::is_finished)
    }

    /// Stops the callers after the answers they wait for, checks what was kept for that, and reports.
    ///
    /// # Blocking
    /// Until the last answer, so at most the engine's deadline unless the module hangs; then for the checks.
    pub fn stop(self) -> Report {
        // Nothing is published with it: the joins order all else.
        self.stop.store(true, Ordering::Relaxed);
        let mut callers: Vec<_> = self.threads.into_iter().map(|thread| thread.join().ok()).collect();
        for task in self.tasks {
            callers.push(self.runtime.block_on(task).ok());
        }
        Report::of(callers, &self.software)
    }
}

/// Lets a time pass: nobody ever sends on this channel.
fn pass(time: Duration) {
    let (_nobody, never) = mpsc::channel::<()>();
    let _ = never.recv_timeout(time);
}
