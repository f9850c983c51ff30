//! A process with an engine of its own on tokens that others share, that does what it is told line by line, and may be killed.
//!
//! It is the test program, run anew with `a_process_that_other_tests_start` as its only test.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hsmux::{Engine, Error};
use hsmux_tests::Ready;
use p11_sim::Loaded;

use crate::orders::obey;

/// The simulator's configuration or a module's path, and the labels of the tokens.
const CONFIG: &str = "HSMUX_TEST_SIM";
const MODULE: &str = "HSMUX_TEST_MODULE";
const TOKENS: &str = "HSMUX_TEST_TOKENS";

/// The tokens that the engines of several processes share, one after the other or at once.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    on: On,
    labels: Vec<String>,
    /// What the module reads from the environment of its process.
    env: Vec<(&'static str, OsString)>,
}

#[derive(Clone, Debug)]
enum On {
    /// A simulator with this configuration and a seed of its own.
    Sim(String),
    Module(PathBuf),
}

/// An engine in a process of its own.
pub(crate) struct Worker {
    child: Child,
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
}

/// A folder for the tokens of a store and, beside it, for the files of their records.
pub(crate) struct Site(tempfile::TempDir);

/// Where the records of keys are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Records {
    OnToken,
    /// The tokens take no data objects.
    InFile,
}

/// How many messages of AES-GCM a key may encrypt here.
pub(crate) const MESSAGES_MAX: u64 = 1_600;

/// What the process prints before an answer, so that nothing else is taken for one.
const MARK: &str = "hsmux-worker: ";

impl Records {
    pub(crate) const BOTH: [Self; 2] = [Self::OnToken, Self::InFile];
}

impl Site {
    pub(crate) fn new() -> Self {
        let site = Self(tempfile::tempdir().unwrap());
        std::fs::create_dir(site.0.path().join("store")).unwrap();
        site
    }

    /// Of a simulator with so many tokens; see [`state_dir`] for the rest.
    pub(crate) fn config(&self, tokens: usize, records: Records) -> String {
        let without = if records == Records::InFile { ",data=0" } else { "" };
        format!("tokens={tokens},store={}{without}", self.0.path().join("store").display())
    }

    pub(crate) fn place(&self, tokens: usize, records: Records) -> Place {
        Place::sim(&self.config(tokens, records), tokens)
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.0.path().join("state")
    }

    /// The file of the only token that has one.
    pub(crate) fn file(&self) -> PathBuf {
        let files = self.state_dir().read_dir().unwrap().map(|entry| entry.unwrap().path());
        let mut files = files.filter(|path| path.extension().is_some_and(|extension| extension == "redb"));
        let file = files.next().unwrap();
        assert_eq!(files.next(), None);
        file
    }
}

/// The state directory of a simulator whose tokens take no data objects: beside its store.
fn state_dir(config: &str) -> Option<PathBuf> {
    let store = config.split(',').find_map(|part| part.strip_prefix("store="));
    let beside = store.map(|store| Path::new(store).parent().unwrap().join("state"));
    beside.filter(|_| config.contains("data=0"))
}

/// An engine on so many tokens of a simulator of its own, with these settings, and no state directory unless they say one.
pub(crate) fn engine_with(
    config: &str,
    tokens: usize,
    settings: impl FnOnce(Ready) -> Ready,
) -> Result<Engine, Error> {
    let config = format!("{config},{}", seed());
    let sim = Loaded::private_copy(&config).unwrap();
    let place = Place::sim(&config, tokens);
    settings(place.builder(sim.path()).init_args(&config)).build()
}

/// A number that no other simulator has: tokens of one seed draw the same random bytes and make the same keys.
fn seed() -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!("seed={}", u64::from(std::process::id()) << 24 | number)
}

impl Place {
    /// So many tokens of a simulator, which keeps them in its store.
    pub(crate) fn sim(config: &str, tokens: usize) -> Self {
        let labels = (0..tokens).map(|index| format!("sim-{index}")).collect();
        Self { on: On::Sim(config.to_owned()), labels, env: Vec::new() }
    }

    /// Tokens of a module, which finds this in the environment.
    pub(crate) fn module(
        module: impl Into<PathBuf>,
        labels: impl IntoIterator<Item = &'static str>,
        env: Vec<(&'static str, OsString)>,
    ) -> Self {
        let labels = labels.into_iter().map(str::to_owned).collect();
        Self { on: On::Module(module.into()), labels, env }
    }

    pub(crate) fn tokens(&self) -> usize {
        self.labels.len()
    }

    /// An engine in this process, beside others.
    pub(crate) fn engine(&self) -> Result<Engine, Error> {
        match &self.on {
            On::Sim(config) => {
                let config = format!("{config},{}", seed());
                let sim = Loaded::private_copy(&config).unwrap();
                self.build(sim.path(), Some(&config))
            }
            On::Module(path) => self.build(path, None),
        }
    }

    /// The only engine of a process: it takes no copy of a module, which a process that is killed would leave behind.
    fn only_engine(&self) -> Result<Engine, Error> {
        match &self.on {
            On::Sim(config) => {
                let config = format!("{config},{}", seed());
                self.build(&p11_sim::cdylib_path().unwrap(), Some(&config))
            }
            On::Module(path) => self.build(path, None),
        }
    }

    fn build(&self, module: &Path, init_args: Option<&str>) -> Result<Engine, Error> {
        let builder =
            init_args.into_iter().fold(self.builder(module), |builder, args| builder.init_args(args));
        let state_dir = init_args.and_then(state_dir);
        state_dir.into_iter().fold(builder, |builder, path| builder.state_dir(path)).build()
    }

    fn builder(&self, module: &Path) -> Ready {
        let builder = Engine::builder().module(module).tokens(self.labels.clone()).pin("1234".to_owned());
        builder.sessions(1).gcm_messages_max(MESSAGES_MAX)
    }

    fn of_environment() -> Option<Self> {
        let var = |name| std::env::var(name).ok();
        let labels = var(TOKENS)?.split(',').map(str::to_owned).collect();
        let on = var(CONFIG).map(On::Sim).or_else(|| var(MODULE).map(|path| On::Module(path.into())))?;
        Some(Self { on, labels, env: Vec::new() })
    }

    fn to_environment(&self, command: &mut Command) {
        match &self.on {
            On::Sim(config) => command.env(CONFIG, config),
            On::Module(path) => command.env(MODULE, path),
        };
        command.env(TOKENS, self.labels.join(",")).envs(self.env.iter().map(|(name, value)| (name, value)));
    }
}

#[test]
fn a_process_that_other_tests_start() {
    let Some(place) = Place::of_environment() else { return };
    let engine = match place.only_engine() {
        Ok(engine) => engine,
        Err(error) => return say(&format!("no engine: {} {error}", error.kind().name())),
    };
    say("ready");
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap();
        let words: Vec<_> = line.split(' ').collect();
        if words == ["end"] {
            engine.drain(Duration::from_secs(10));
            return;
        }
        match obey(&engine, &words) {
            Ok(answer) => say(&format!("ok {answer}")),
            Err(error) => say(&format!("error {} {error}", error.kind().name())),
        }
    }
}

/// Says it to who has started this process.
pub(crate) fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n{MARK}{text}").unwrap();
    out.flush().unwrap();
}

impl Worker {
    /// Starts one; it has its engine when this returns.
    pub(crate) fn start(place: &Place) -> Self {
        Self::try_start(place).unwrap()
    }

    /// As [`Worker::start`]; what it says where it gets no engine.
    pub(crate) fn try_start(place: &Place) -> Result<Self, String> {
        let mut worker = Self::spawn(place);
        match worker.next() {
            Some(ready) if ready == "ready" => Ok(worker),
            other => Err(other.unwrap_or_else(|| "it has ended".to_owned())),
        }
    }

    /// Starts one, and returns at once.
    pub(crate) fn spawn(place: &Place) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "worker::a_process_that_other_tests_start", "--nocapture"]);
        place.to_environment(&mut command);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, stdin, stdout }
    }

    /// Tells it to do something, and returns at once.
    pub(crate) fn order(&mut self, order: &str) {
        writeln!(self.stdin, "{order}").unwrap();
    }

    /// What it says next; none when it has ended.
    pub(crate) fn next(&mut self) -> Option<String> {
        self.stdout.by_ref().map_while(Result::ok).find_map(|line| line.strip_prefix(MARK).map(str::to_owned))
    }

    /// Tells it to do something, and returns what it says: what it has done, or the name of the kind of error.
    pub(crate) fn ask(&mut self, order: &str) -> Result<String, String> {
        self.order(order);
        let answer = self.next().unwrap();
        let rest = |prefix: &str| answer.strip_prefix(prefix).map(|rest| rest.trim().to_owned());
        match (rest("ok"), rest("error")) {
            (Some(done), _) => Ok(done),
            (None, Some(error)) => Err(error.split(' ').next().unwrap_or_default().to_owned()),
            _ => unreachable!("{answer}"),
        }
    }

    /// Has it end by itself, with its engine and its module.
    pub(crate) fn end(mut self) {
        self.order("end");
        while self.next().is_some() {}
        self.child.wait().unwrap();
    }

    /// Ends it by SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _collected = self.child.wait();
    }
}
