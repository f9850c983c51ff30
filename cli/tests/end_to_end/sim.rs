//! The binary on the simulated HSM, and input for it.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::hsm::Ended;

/// A simulator that is configured, and a directory.
pub(crate) struct Sim {
    config: String,
    directory: TempDir,
}

/// A run of the binary whose streams a test holds.
pub(crate) struct Running {
    pub(crate) child: Child,
    pub(crate) out: BufReader<ChildStdout>,
}

/// Longest time that a line of a run takes; only a test that fails waits for it.
const LINE_LIMIT: Duration = Duration::from_secs(60);

impl Sim {
    pub(crate) fn new(config: &str) -> Self {
        let sim = Self { config: config.to_owned(), directory: tempfile::tempdir().unwrap() };
        std::fs::write(sim.path("pin"), "1234\n").unwrap();
        std::fs::set_permissions(sim.path("pin"), std::fs::Permissions::from_mode(0o600)).unwrap();
        sim
    }

    /// The same directory with another configuration.
    pub(crate) fn with(self, config: &str) -> Self {
        Self { config: config.to_owned(), ..self }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hsmux"));
        command.args(arguments).env("P11_SIM", &self.config);
        command.env("PKCS11_MODULE_PATH", p11_sim::cdylib_path().unwrap()).stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        Ended::of(&self.command(arguments).output().unwrap())
    }

    /// `hsmux bulk` with the PIN.
    pub(crate) fn bulk(&self, arguments: &[&str]) -> Command {
        let pin = format!("--pin-source=file:{}", self.path("pin").display());
        self.command(&[&["bulk"], arguments, &[pin.as_str()]].concat())
    }

    /// Runs `hsmux bulk` on an input to its end.
    pub(crate) fn run_bulk(&self, arguments: &[&str], input: impl AsRef<[u8]>) -> Ended {
        feed(&mut self.bulk(arguments), input.as_ref())
    }
}

/// A command that a shell starts.
pub(crate) trait ThroughShell {
    /// The same command under `sh`, whose script runs it by `"$0" "$@"` and knows a path as `OUT`.
    fn through_shell(&self, script: &str, out: &Path) -> Command;
}

impl ThroughShell for Command {
    fn through_shell(&self, script: &str, out: &Path) -> Command {
        let mut shell = Command::new("sh");
        shell.args(["-c", script]).arg(self.get_program()).args(self.get_args()).env("OUT", out);
        shell.envs(self.get_envs().filter_map(|(name, value)| Some((name, value?))));
        shell
    }
}

/// Runs a command on an input to its end.
pub(crate) fn feed(command: &mut Command, input: &[u8]) -> Ended {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        // A run may end before it has read all.
        scope.spawn(move || stdin.write_all(input).is_ok());
        child.wait_with_output().unwrap()
    });
    Ended::of(&output)
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out }
    }

    /// The next line. A run that writes none in time is killed, which ends its output.
    pub(crate) fn line(&mut self) -> String {
        let (read, waits) = std::sync::mpsc::sync_channel::<()>(0);
        let id = Pid::from_child(&self.child);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                if waits.recv_timeout(LINE_LIMIT) == Err(RecvTimeoutError::Timeout) {
                    kill_process(id, Signal::KILL).unwrap();
                }
            });
            let mut line = String::new();
            self.out.read_line(&mut line).unwrap();
            drop(read);
            line
        })
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

/// So many records with ids from 1.
pub(crate) fn records(count: usize) -> String {
    (1..=count).map(|id| format!("{{\"id\":{id},\"text\":\"message {id}\"}}\n")).collect()
}

/// Checks that there is one line of output for each line of input from `first` on, with its id; returns how many.
#[track_caller]
pub(crate) fn check_lines(output: &str, first: usize, field: &str) -> usize {
    for (number, line) in (first..).zip(output.lines()) {
        let json: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!((json["line"].as_u64(), json["id"].as_u64()), (Some(number as u64), Some(number as u64)));
        assert!(json[field].is_string(), "{line}");
    }
    output.lines().count()
}
