//! A process with an engine of its own on the tokens of a store, that does what it is told line by line, and may be killed.
//!
//! It is the test program, run anew with `a_process_that_other_tests_start` as its only test.

use std::io::{BufRead, BufReader, Lines, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use hsmux::{AesGcm, Curve, Ecdsa, Engine, Error, ErrorKind, Key, KeyConfig, KeyId, KeySpec};
use hsmux_tests::Ready;
use p11_sim::Loaded;

/// The simulator's configuration, and how many tokens.
const CONFIG: &str = "HSMUX_TEST_SIM";
const TOKENS: &str = "HSMUX_TEST_TOKENS";

/// An engine in a process of its own.
pub(crate) struct Worker {
    child: Child,
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
}

/// A place for the tokens of a store and, beside it, for the files of their records.
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

    /// Of a simulator with so many tokens; see [`engine`] for the rest.
    pub(crate) fn config(&self, tokens: usize, records: Records) -> String {
        let without = if records == Records::InFile { ",data=0" } else { "" };
        format!("tokens={tokens},store={}{without}", self.0.path().join("store").display())
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

/// A number that no other simulator has: tokens of one seed draw the same random bytes and make the same keys.
fn seed() -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!("seed={}", u64::from(std::process::id()) << 24 | number)
}

/// An engine on so many tokens of a simulator of its own. If those take no data objects, with the state directory of the site.
pub(crate) fn engine(config: &str, tokens: usize) -> Result<Engine, Error> {
    engine_with(config, tokens, |builder| match config.contains("data=0") {
        true => {
            let store = config.split(',').find_map(|part| part.strip_prefix("store=")).unwrap();
            builder.state_dir(Path::new(store).parent().unwrap().join("state"))
        }
        false => builder,
    })
}

/// The same with other settings, and no state directory unless they say one.
pub(crate) fn engine_with(
    config: &str,
    tokens: usize,
    settings: impl FnOnce(Ready) -> Ready,
) -> Result<Engine, Error> {
    let labels: Vec<_> = (0..tokens).map(|index| format!("sim-{index}")).collect();
    let config = format!("{config},{}", seed());
    let sim = Loaded::private_copy(&config).unwrap();
    let builder = Engine::builder().module(sim.path()).tokens(labels);
    let builder = builder.pin("1234".to_owned()).init_args(&config).sessions(1);
    settings(builder.gcm_messages_max(MESSAGES_MAX)).build()
}

#[test]
fn a_process_that_other_tests_start() {
    let var = |name| std::env::var(name).ok();
    let (Some(config), Some(tokens)) = (var(CONFIG), var(TOKENS)) else { return };
    let engine = engine(&config, tokens.parse().unwrap()).unwrap();
    say("ready");
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap();
        let words: Vec<_> = line.split(' ').collect();
        match obey(&engine, &words) {
            Ok(answer) => say(&format!("ok {answer}")),
            Err(error) => say(&format!("error {} {error}", error.kind().name())),
        }
    }
}

fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n{MARK}{text}").unwrap();
    out.flush().unwrap();
}

fn obey(engine: &Engine, words: &[&str]) -> Result<String, Error> {
    let keys = engine.managed_keys();
    Ok(match *words {
        ["create", name] => keys.create(name, &KeyConfig::new(KeySpec::Ec(Curve::P256)))?.to_string(),
        ["rotate", name] => keys.rotate(name)?.to_string(),
        ["suspend", name] => done(keys.suspend(name)?),
        ["resume", name] => done(keys.resume(name)?),
        ["deactivate", name] => done(keys.deactivate(name)?),
        ["destroy", name] => done(keys.destroy(name)?),
        ["alias", alias, name] => done(keys.set_alias(alias, name)?),
        ["sign", id, text] => sign(&engine.key(&id.parse::<KeyId>()?)?, text)?,
        ["create-aes", name] => keys.create(name, &KeyConfig::new(KeySpec::Aes(32)))?.to_string(),
        ["encrypt", name, times] => ivs(&engine.key(name)?, times.parse().unwrap()).join(" "),
        ["loop", seed] => run_wild(engine, seed.parse().unwrap()),
        _ => unreachable!("no such order: {words:?}"),
    })
}

/// A signature and the version that made it: the one that was current before and after, as versions never come again.
fn sign(key: &Key, text: &str) -> Result<String, Error> {
    loop {
        let before = key.version_number();
        let signature = key.sign(Ecdsa::P256_SHA256, text.as_bytes().to_vec()).wait()?;
        if key.version_number() == before {
            let hex: String = signature.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
            return Ok(format!("{} {hex}", before.unwrap_or(0)));
        }
    }
}

fn done((): ()) -> String {
    String::new()
}

/// Encrypts so often, or until that is refused for good, and returns the IVs.
fn ivs(key: &Key, times: usize) -> Vec<String> {
    let mut ivs = Vec::new();
    while ivs.len() < times {
        match key.encrypt(AesGcm::new(), b"message").wait() {
            Ok(sealed) => {
                ivs.push(sealed.as_bytes()[..12].iter().map(|byte| format!("{byte:02x}")).collect())
            }
            // A lease is being written.
            Err(error) if error.kind() == ErrorKind::Busy => std::thread::yield_now(),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::KeyState, "{error}");
                break;
            }
        }
    }
    ivs
}

/// Creates, rotates and destroys keys for ever, and says what it has done.
fn run_wild(engine: &Engine, mut dice: u64) -> ! {
    let keys = engine.managed_keys();
    loop {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let name = format!("key-{}", (dice >> 40) % 4);
        let what = match (dice >> 33) % 4 {
            0 | 1 => "create",
            2 => "rotate",
            _ => "destroy",
        };
        say(&format!("begins {what} {name}"));
        let outcome = match what {
            "create" => {
                keys.create(&name, &KeyConfig::new(KeySpec::Ec(Curve::P256))).map(|id| id.to_string())
            }
            "rotate" => keys.rotate(&name).map(|version| version.to_string()),
            _ => keys.deactivate(&name).and_then(|()| keys.destroy(&name)).map(done),
        };
        match outcome {
            Ok(answer) => say(&format!("did {what} {name} {answer}")),
            Err(error) => say(&format!("failed {what} {name} {} {error}", error.kind().name())),
        }
    }
}

impl Worker {
    /// Starts one; it has its engine when this returns.
    pub(crate) fn start(config: &str, tokens: usize) -> Self {
        let mut worker = Self::spawn(config, tokens);
        assert_eq!(worker.next().as_deref(), Some("ready"));
        worker
    }

    /// Starts one, and returns at once.
    pub(crate) fn spawn(config: &str, tokens: usize) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "worker::a_process_that_other_tests_start", "--nocapture"]);
        command.env(CONFIG, config).env(TOKENS, tokens.to_string());
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
