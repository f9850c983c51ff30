//! Processes with a simulator on a directory, which do what they are told on their standard input.
//!
//! They are the test program, run anew with `a_process_that_other_tests_start` as its only test, and use the linked
//! simulator: a killed process leaves no copy of the module behind.

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use cryptoki_sys as sys;

use crate::raw::{Raw, Rv, attributes, call, len};

/// Another process.
pub(crate) struct Process {
    child: Child,
    tells: ChildStdin,
    says: Lines<BufReader<ChildStdout>>,
}

/// What a process is told its configuration by.
const CONFIG: &str = "P11_SIM_TEST_CONFIG";

/// What its lines begin with: those of the test program itself do not.
const MARK: &str = "> ";

#[test]
fn a_process_that_other_tests_start() {
    let Ok(config) = std::env::var(CONFIG) else { return };
    p11_sim::configure(&config).unwrap();
    // SAFETY: the list is a static.
    let raw = Raw(unsafe { p11_sim::function_list().as_ref() }.unwrap());
    raw.initialise().unwrap();
    let session = raw.open(raw.slots().unwrap()[0]).unwrap();
    say("ready");
    for line in std::io::stdin().lines().map_while(Result::ok) {
        let words: Vec<_> = line.split(' ').collect();
        match obey(raw, session, &words) {
            Ok(answer) => say(&answer),
            Err(code) => say(&format!("{code:#x}")),
        }
    }
}

fn obey(raw: Raw, session: u64, words: &[&str]) -> Rv<String> {
    match *words {
        ["log_in", pin] => raw.log_in(session, pin)?,
        ["set_pin", old, new] => raw.set_pin(session, old, new)?,
        ["make", label, value] => drop(make(raw, session, label, value)?),
        ["change", label, value] => change(raw, session, label, value)?,
        ["destroy", label] => destroy(raw, session, label)?,
        ["mac", label] => drop(raw.mac(session, only(raw, session, label)?, b"x")?),
        ["churn", round] => crate::killed::churn(raw, session, round),
        _ => return Err(sys::CKR_ARGUMENTS_BAD),
    }
    Ok("done".into())
}

pub(crate) fn say(what: &str) {
    // One write for the line: the other side may read it whole whenever this process is killed.
    std::io::stdout().write_all(format!("{MARK}{what}\n").as_bytes()).unwrap();
}

/// Data on the token.
pub(crate) fn make(raw: Raw, session: u64, label: &str, value: &str) -> Rv<u64> {
    let class = sys::CKO_DATA.to_ne_bytes();
    let template: [(_, &[u8]); 4] = [
        (sys::CKA_CLASS, &class),
        (sys::CKA_TOKEN, &[1]),
        (sys::CKA_LABEL, label.as_bytes()),
        (sys::CKA_VALUE, value.as_bytes()),
    ];
    raw.create(session, &template)
}

pub(crate) fn change(raw: Raw, session: u64, label: &str, value: &str) -> Rv<()> {
    let object = only(raw, session, label)?;
    let mut template = attributes(&[(sys::CKA_VALUE, value.as_bytes())]);
    call!(raw, C_SetAttributeValue(session, object, template.as_mut_ptr(), len(&template)))
}

pub(crate) fn destroy(raw: Raw, session: u64, label: &str) -> Rv<()> {
    call!(raw, C_DestroyObject(session, only(raw, session, label)?))
}

/// The object of this label.
pub(crate) fn only(raw: Raw, session: u64, label: &str) -> Rv<u64> {
    let found = raw.find(session, &[(sys::CKA_LABEL, label.as_bytes())])?;
    found.first().copied().ok_or(sys::CKR_OBJECT_HANDLE_INVALID)
}

impl Process {
    /// A process with this configuration, logged in.
    pub(crate) fn start(config: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "processes::a_process_that_other_tests_start", "--nocapture"]);
        command.env(CONFIG, config).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (tells, says) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut process = Self { child, tells, says: BufReader::new(says).lines() };
        assert_eq!(process.next().unwrap(), "ready");
        process
    }

    /// What it says next; none if it has ended.
    pub(crate) fn next(&mut self) -> Option<String> {
        // Each line is one write, shorter than a pipe would cut.
        self.says.by_ref().map_while(Result::ok).find_map(|line| line.strip_prefix(MARK).map(str::to_owned))
    }

    pub(crate) fn tell(&mut self, what: &str) {
        writeln!(self.tells, "{what}").unwrap();
    }

    /// Has it do something.
    pub(crate) fn ask(&mut self, what: &str) -> String {
        self.tell(what);
        self.next().unwrap()
    }

    /// SIGKILL. Returns what it had said that was not read yet.
    pub(crate) fn kill(mut self) -> Vec<String> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        std::iter::from_fn(|| self.next()).collect()
    }
}

/// A test that fails leaves nobody behind.
impl Drop for Process {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _waited = self.child.wait();
    }
}
