//! Which process made a claim, and whether it still runs.

use std::fs;

use once_cell::sync::Lazy;
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use serde::{Deserialize, Serialize};

/// A process, as others on the same machine may recognise it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Process {
    /// The machine's run: it has another one after each start.
    pub(crate) boot: String,
    /// Process numbers mean something inside one such namespace only.
    pub(crate) namespace: String,
    pub(crate) number: u32,
    /// When it started, in ticks of its machine: numbers are given again.
    pub(crate) started: u64,
}

impl Process {
    /// This one.
    pub(crate) fn here() -> Self {
        static PLACE: Lazy<(String, String)> = Lazy::new(|| {
            let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
            let namespace = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
            (boot.trim().to_owned(), namespace.to_string_lossy().into_owned())
        });
        let (boot, namespace) = PLACE.clone();
        let number = std::process::id();
        Self { boot, namespace, number, started: started(number).unwrap_or(0) }
    }

    /// Whether this one can say if the other still runs. Where the kernel does not tell who it is, it cannot.
    pub(crate) fn sees(&self, other: &Self) -> bool {
        !self.boot.is_empty() && self.boot == other.boot && self.namespace == other.namespace
    }

    /// Whether it still runs, asked by one that sees it.
    pub(crate) fn runs(&self) -> bool {
        match started(self.number) {
            Some(started) => started == self.started,
            // Nothing is shown of it: it has ended, or belongs to another user where those are hidden (hidepid of proc(5)).
            None => fs::exists("/proc/1").is_ok_and(|shown| !shown) && is_there(self.number),
        }
    }
}

/// Whether there is a process of this number, as far as a signal tells that is not sent.
fn is_there(number: u32) -> bool {
    let number = i32::try_from(number).ok().and_then(Pid::from_raw);
    number.is_some_and(|number| !matches!(test_kill_process(number), Err(Errno::SRCH)))
}

/// When a process started; none if there is none, or only what its parent has not collected yet.
fn started(number: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{number}/stat")).ok()?;
    // The name may hold anything but ends in the last parenthesis (proc_pid_stat(5)); field 3, the state, comes next,
    // and field 22 is the start.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    let started = fields.nth(18)?.parse().ok();
    started.filter(|_| !matches!(state, "Z" | "X"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_runs_and_one_of_another_start_does_not() {
        let here = Process::here();
        assert!(here.runs() && here.sees(&here) && here.started > 0);
        assert!(!Process { started: here.started + 1, ..here.clone() }.runs());
        assert!(!Process { number: u32::MAX, ..here.clone() }.runs());
        assert!(!here.sees(&Process { boot: "another".to_owned(), ..here.clone() }));
    }

    #[test]
    fn a_process_that_was_killed_does_not_run_even_before_it_is_collected() {
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let process =
            Process { number: child.id(), started: started(child.id()).unwrap(), ..Process::here() };
        assert!(process.runs());
        child.kill().unwrap();
        // Reaped or not: wait only makes sure that the signal has arrived.
        child.wait().unwrap();
        assert!(!process.runs());
    }
}
