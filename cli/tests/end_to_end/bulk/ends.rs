//! Ends before the input's: a reader that has gone, signals, an engine that cannot go on.

use std::fs::File;
use std::io::{Read, Write};
use std::process::Stdio;

use rustix::process::Signal;

use super::{HMAC, SIGN};
use crate::hsm::Ended;
use crate::sim::{Running, Sim, ThroughShell, check_lines, feed, records};

/// Reads what is left of both streams, and waits.
fn end(mut running: Running, mut stdout: String) -> Ended {
    running.out.read_to_string(&mut stdout).unwrap();
    let mut ended = Ended::of(&running.child.wait_with_output().unwrap());
    ended.stdout = stdout;
    ended
}

/// The number after `--resume-from` in what was said last.
#[track_caller]
pub(super) fn resume_from(ended: &Ended) -> usize {
    let said = ended.stderr.lines().last().unwrap();
    said.rsplit_once("--resume-from ").unwrap_or_else(|| panic!("{ended:?}")).1.parse().unwrap()
}

/// A run on unlimited records that was sent a signal once it had answered some.
fn interrupted(signal: Signal, arguments: &[&str]) -> Ended {
    let sim = Sim::new("op_us=500");
    let mut running = Running::start(&mut sim.bulk(arguments));
    let mut stdin = running.child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        // Until nobody reads any more.
        scope.spawn(move || stdin.write_all(records(1_000_000).as_bytes()).is_err());
        let first = running.line();
        running.signal(signal);
        end(running, first)
    })
}

#[test]
fn after_a_signal_what_is_in_flight_is_written_and_the_next_line_is_named() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let ended = interrupted(signal, &[&HMAC[..], &["--window", "256"]].concat());
        assert_eq!(ended.code, Some(code), "{}", ended.stderr);
        assert!(ended.stdout.ends_with('\n'));
        assert_eq!(resume_from(&ended), check_lines(&ended.stdout, 1, "mac") + 1);
    }
}

#[test]
fn a_signal_ends_a_run_that_waits_for_input() {
    let sim = Sim::new("");
    let mut running = Running::start(&mut sim.bulk(&HMAC));
    let mut stdin = running.child.stdin.take().unwrap();
    stdin.write_all(records(1).as_bytes()).unwrap();
    let first = running.line();
    running.signal(Signal::INT);
    let ended = end(running, first);
    assert_eq!((ended.code, resume_from(&ended)), (Some(130), 2));
    drop(stdin);
}

#[test]
fn a_second_signal_ends_at_once() {
    let sim = Sim::new("null=1");
    // One chunk of these fills the pipe, so that the run cannot come to its end while nobody reads.
    let id = "x".repeat(2_000);
    let record = format!("{{\"id\":\"{id}\",\"text\":\"\"}}\n");
    std::fs::write(sim.path("in"), record.repeat(2_000)).unwrap();
    let mut command = sim.bulk(&SIGN);
    command.stdin(File::open(sim.path("in")).unwrap()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    let id = rustix::process::Pid::from_child(&child);
    let status = loop {
        rustix::process::kill_process(id, Signal::INT).unwrap();
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None => std::thread::yield_now(),
        }
    };
    assert_eq!(status.code(), Some(130));
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said, "");
}

#[test]
fn a_reader_that_has_gone_ends_the_run_which_says_how_far_it_came() {
    let sim = Sim::new("");
    let mut running = Running::start(&mut sim.bulk(&HMAC));
    let mut stdin = running.child.stdin.take().unwrap();
    let ended = std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(records(1_000_000).as_bytes()).is_err());
        assert!(running.line().starts_with("{\"line\":1,"));
        let Running { child, out } = running;
        drop(out);
        Ended::of(&child.wait_with_output().unwrap())
    });
    assert_eq!(ended.code, Some(10), "{ended:?}");
    let said = ended.stderr.lines().last().unwrap();
    let written: usize =
        said.split_once("output closed; ").unwrap().1.split_once(" lines").unwrap().0.parse().unwrap();
    assert_eq!(resume_from(&ended), written + 1);
    assert!(written > 0);
}

#[test]
fn an_error_of_the_run_writes_no_record_and_has_its_own_code() {
    let sim = Sim::new("");
    let mismatch = ["sign", "--alg", "rsa-pss-sha256", "--key", "p256"];
    let ended = sim.run_bulk(&mismatch, records(1_000));
    ended.fails(7, &["does not fit", "0 lines were written", "--resume-from 1"]);
    sim.run_bulk(&["sign", "--alg", "ecdsa-p256", "--key", "none"], records(1)).fails(6, &["no such key"]);
}

#[test]
fn wrong_options_end_with_2_and_an_unknown_algorithm_lists_those_there_are() {
    let sim = Sim::new("");
    let unknown = sim.run_bulk(&["sign", "--alg", "rot13", "--key", "p256"], "");
    unknown.fails(2, &[]);
    assert!(unknown.stderr.contains("ecdsa-p256-sha256") && unknown.stderr.contains("rsa-pss-sha256"));
    let mac_as_signature = sim.run_bulk(&["sign", "--alg", "hmac-sha256", "--key", "hmac"], "");
    mac_as_signature.fails(2, &[]);
    for wrong in [["--line-max", "0"], ["--line-max", "5 stones"], ["--window", "0"], ["--deadline", "5"]] {
        sim.run_bulk(&[&HMAC[..], &wrong].concat(), "").fails(2, &[]);
    }
    sim.run_bulk(&[&HMAC[..], &["--resume"]].concat(), "").fails(2, &[]);
}

#[test]
fn a_stdout_that_is_closed_is_told_and_one_that_goes_to_dev_null_is_not() {
    let sim = Sim::new("");
    let bulk = sim.bulk(&HMAC);
    let run = |script: &str| feed(&mut bulk.through_shell(script, &sim.path("out")), records(3).as_bytes());
    let told = "stdout is closed, or is /dev/null";
    let (closed, null) = (run("exec \"$0\" \"$@\" >&-"), run("exec \"$0\" \"$@\" >/dev/null"));
    assert!(closed.stderr.contains(told) && closed.stderr.contains("3 records"), "{closed:?}");
    assert!(!null.stderr.contains(told) && null.stderr.contains("3 records"), "{null:?}");
}
