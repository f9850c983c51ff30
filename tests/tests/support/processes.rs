//! Processes that start an engine and are ended, by themselves or by the test.
//!
//! They are the test program, run anew with `a_process_that_other_tests_start` as its only test. Their simulated HSM writes
//! every `C_Login` down before anything becomes of it, and counts wrong tries from there.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use hsmux::{Engine, ErrorKind, Hmac, PinRecord, PinState};
use hsmux_tests::eventually;

/// A state directory, and the simulated HSM's log of logins.
pub(crate) struct Site(pub(crate) tempfile::TempDir);

/// A process that starts an engine.
pub(crate) struct Process(Child);

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Served,
    Failed(ErrorKind),
    Killed,
}

/// How the test ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Not at all.
    ByItself,
    /// So long after it was started, its login taking a while.
    After(Duration),
    /// While it is inside `C_Login`, if it makes a login.
    Inside,
    /// Once it knows what became of its engine.
    Settled,
}

pub(crate) const RIGHT: &str = "1234";
pub(crate) const WRONG: &str = "4321";

/// The environment of a process, in which the test tells it what to do.
const STATE: &str = "HSMUX_TEST_STATE_DIR";
const CONFIG: &str = "HSMUX_TEST_SIM";
const PIN: &str = "HSMUX_TEST_PIN";
/// To send the PIN in spite of warnings.
const CONSENT: &str = "HSMUX_TEST_CONSENT";
/// To say how it went and wait to be killed.
const WAITS: &str = "HSMUX_TEST_WAITS";

/// Exit codes: the first for an engine that served, the second and up for kinds of errors.
const SERVED: i32 = 7;
const FAILED: i32 = 40;

/// What a process says when it knows.
const SETTLED: &str = "the engine is there, or is not";

#[test]
fn a_process_that_other_tests_start() {
    let var = |name| std::env::var(name).ok();
    let (Some(state), Some(config), Some(pin)) = (var(STATE), var(CONFIG), var(PIN)) else { return };
    let builder = Engine::builder().module(p11_sim::cdylib_path().unwrap()).tokens(["sim-0"]);
    let builder = builder.pin(pin).init_args(config).state_dir(state).sessions(1);
    let builder = if var(CONSENT).is_some() { builder.pin_despite_warning() } else { builder };
    let built = builder.build();
    if var(WAITS).is_some() {
        println!("{SETTLED}");
        let _end = std::io::stdin().read(&mut [0]);
    }
    let code = match built.and_then(|engine| engine.key("hmac")?.sign(Hmac::SHA256, b"x").wait()) {
        Ok(_) => SERVED,
        Err(error) => FAILED + error.kind() as i32,
    };
    std::process::exit(code);
}

impl Site {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.0.path().join("state")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.0.path().join("logins")
    }

    /// What the simulated HSM wrote down.
    pub(crate) fn logins(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        log.lines().map(|line| line.replace("sim-0 ", "")).collect()
    }

    /// What is remembered of its token.
    pub(crate) fn record(&self) -> Option<PinState> {
        record(&self.state())
    }

    /// What an operator does who has looked at it.
    pub(crate) fn clear(&self) {
        let records = PinRecord::list(&self.state()).unwrap();
        assert!(records.len() == 1 && records[0].is_named("sim-0"));
        records[0].clear().unwrap();
    }

    fn command(&self, pin: &str, more: &str) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "processes::a_process_that_other_tests_start", "--nocapture"]);
        command.env(STATE, self.state()).env(PIN, pin);
        command.env(CONFIG, format!("pin_log={},{more}", self.log().display()));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        command
    }

    pub(crate) fn start(&self, pin: &str, more: &str) -> Process {
        Process(self.command(pin, more).spawn().unwrap())
    }

    /// Starts a process and lets it end by itself.
    pub(crate) fn run(&self, pin: &str) -> End {
        self.start(pin, "").wait()
    }

    /// The same with the PIN sent in spite of warnings.
    pub(crate) fn run_consenting(&self, pin: &str) -> End {
        Process(self.command(pin, "").env(CONSENT, "1").spawn().unwrap()).wait()
    }

    /// Starts a process and ends it so.
    pub(crate) fn run_until(&self, pin: &str, ending: Ending) -> End {
        match ending {
            Ending::ByItself => self.run(pin),
            Ending::After(time) => {
                let process = self.start(pin, "fault=C_Login:1=slow-20000");
                std::thread::park_timeout(time);
                process.kill()
            }
            Ending::Inside => {
                let before = self.logins().len();
                let mut process = self.start(pin, "hang=C_Login:1");
                eventually("it logs in or has ended", || {
                    self.logins().len() > before || process.0.try_wait().unwrap().is_some()
                });
                process.kill()
            }
            Ending::Settled => {
                let mut process = Process(self.command(pin, "").env(WAITS, "1").spawn().unwrap());
                let said = BufReader::new(process.0.stdout.take().unwrap()).lines();
                assert!(said.map_while(Result::ok).any(|line| line.contains(SETTLED)));
                process.kill()
            }
        }
    }
}

impl Process {
    pub(crate) fn wait(mut self) -> End {
        End::of(self.0.wait().unwrap())
    }

    /// SIGKILL, unless it has ended by itself.
    pub(crate) fn kill(mut self) -> End {
        self.0.kill().unwrap();
        self.wait()
    }
}

/// A test that fails leaves nobody behind.
impl Drop for Process {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _waited = self.0.wait();
    }
}

impl End {
    fn of(status: ExitStatus) -> Self {
        match status.code() {
            Some(SERVED) => Self::Served,
            Some(code) => {
                let kind = ErrorKind::ALL.into_iter().find(|kind| FAILED + *kind as i32 == code);
                assert!(kind.is_some(), "exit code {code}");
                Self::Failed(kind.unwrap())
            }
            None => {
                assert!(status.signal().is_some());
                Self::Killed
            }
        }
    }
}

pub(crate) const REFUSED: End = End::Failed(ErrorKind::PinRefused);

fn record(state: &Path) -> Option<PinState> {
    let records = if state.exists() { PinRecord::list(state).unwrap() } else { Vec::new() };
    assert!(records.len() <= 1, "{records:?}");
    records.first().map(PinRecord::state)
}

/// Numbers that look random and are the same for the same seed (SplitMix64).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    pub(crate) fn ending(&mut self) -> Ending {
        match self.below(8) {
            0 => Ending::ByItself,
            1 => Ending::Inside,
            2 => Ending::Settled,
            // An engine starts and fails within this on an idle machine.
            _ => Ending::After(Duration::from_micros(self.below(150_000))),
        }
    }
}
