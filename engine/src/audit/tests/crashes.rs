//! Writers that are killed at any moment: what was answered for is there, and the next one goes on.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc;

use super::*;
use crate::sync::Arc;

/// Names the log to a process that is to be killed.
const DIRECTORY: &str = "HSMUX_AUDIT_CRASH_DIRECTORY";

/// How many writers are killed, if not [`KILLS`].
const KILLS_VARIABLE: &str = "HSMUX_AUDIT_KILLS";

const KILLS: usize = 200;

/// Records that may be answered for and not durable, where it is not strict.
const WINDOW: usize = 50;

/// After so many kills another log is begun, so that reading it does not take ever longer.
const KILLS_OF_A_LOG: usize = 20;

fn crash_settings(directory: &Path, is_strict: bool) -> Audit {
    let window = AuditMode::Window { records: WINDOW as u64, age: Duration::from_millis(5) };
    let mode = if is_strict { AuditMode::Strict } else { window };
    let settings = Audit::new(directory).name("example.com/audit").segment_len(20_000);
    settings.checkpoints(20, Duration::from_millis(10)).mode(mode)
}

/// Not a test of its own: the process that is killed. It says on stdout what was answered for.
#[test]
fn writer_that_is_killed() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let settings = crash_settings(Path::new(&directory), !directory.ends_with("window"));
    let journal = Arc::new(open(&settings));
    let process = std::process::id();
    let writers: Vec<_> = (0..4)
        .map(|thread| {
            let journal = Arc::clone(&journal);
            std::thread::spawn(move || {
                for number in 0.. {
                    let request = format!("{process}-{thread}-{number}");
                    let sequence = match journal.append_ahead(signed(&request)) {
                        None => "ahead".to_owned(),
                        Some(record) => match append_and_wait(&journal, record).unwrap() {
                            Kept::At(sequence) => sequence.to_string(),
                            Kept::Shed => return,
                        },
                    };
                    // In one write, so that a kill leaves no half of it that reads like another.
                    if std::io::stdout()
                        .write_all(format!("\n= {sequence} {request} .\n").as_bytes())
                        .is_err()
                    {
                        return;
                    }
                }
            })
        })
        .collect();
    writers.into_iter().for_each(|writer| writer.join().unwrap());
}

/// What was answered for, and its number in the log; none, if it was answered ahead of the writer.
type Answer = (Option<usize>, String);

/// Has a writer killed after so many answers, or after so long; returns what it has answered for.
fn kill_one(directory: &Path, answers: usize, limit: Duration) -> Vec<Answer> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "audit::tests::crashes::writer_that_is_killed", "--nocapture", "--test-threads=1"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let (sender, lines) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let answer = |line: String| {
            let (sequence, request) = line.strip_prefix("= ")?.strip_suffix(" .")?.split_once(' ')?;
            Some((sequence.parse().ok(), request.to_owned()))
        };
        stdout.lines().map_while(Result::ok).filter_map(answer).for_each(|answer| drop(sender.send(answer)));
    });
    let mut answered = Vec::new();
    let until = now().after(limit);
    while answered.len() < answers {
        let Ok(answer) = lines.recv_timeout(now().until(until)) else { break };
        answered.push(answer);
    }
    child.kill().unwrap();
    child.wait().unwrap();
    reader.join().unwrap();
    answered.extend(lines);
    answered
}

#[test]
fn what_was_answered_for_is_there_after_any_kill_but_for_what_a_window_holds_and_the_log_verifies() {
    let kills = std::env::var(KILLS_VARIABLE).ok().map_or(KILLS, |kills| kills.parse().unwrap());
    let mut dice = Dice(0xdead);
    let (mut answers, mut torn, mut missing) = (0, 0, 0);
    for first in (0..kills).step_by(KILLS_OF_A_LOG) {
        let is_strict = (first / KILLS_OF_A_LOG).is_multiple_of(2);
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join(if is_strict { "strict" } else { "window" });
        let settings = crash_settings(&directory, is_strict);
        let mut answered = Vec::new();
        for kill in first..kills.min(first + KILLS_OF_A_LOG) {
            // Some while they start, the others in the middle of writing.
            let limit = if dice.below(5) == 0 { Duration::from_millis(dice.below(40) as u64) } else { LONG };
            answered.push(kill_one(&directory, 1 + dice.below(150), limit));
            if !directory.join(files::segment(0)).exists() {
                continue;
            }
            let report = log(&settings).verify(&keys(), None).unwrap();
            // Before its first record a log is nothing yet.
            if report.records == 0 && answered.concat().is_empty() {
                continue;
            }
            assert_eq!(report.fault, None, "kill {kill}");
            torn += usize::from(report.torn > 0);
        }
        let written = records(&settings);
        for answered in &answered {
            missing += missing_of(answered, &written, if is_strict { 0 } else { WINDOW });
            answers += answered.len();
        }
        // The last kill too is mended by the next writer.
        close(&open(&settings));
        verified(&settings);
    }
    println!("{kills} kills, {answers} answers, {missing} within a window missing; {torn} torn writes");
    assert!(answers > kills * 10, "{answers} answers in {kills} kills");
}

/// How many of these records are missing: of those that were answered ahead of the writer the last, and no more than that.
fn missing_of(answered: &[Answer], written: &[serde_json::Value], most: usize) -> usize {
    let requests: HashSet<_> = written.iter().filter_map(|record| record["request"].as_str()).collect();
    let mut stopped = HashSet::new();
    for (sequence, request) in answered {
        match sequence {
            Some(sequence) => {
                assert_eq!(written[*sequence]["request"], request.as_str(), "record {sequence}")
            }
            None => {
                let (thread, _) = request.rsplit_once('-').unwrap();
                let is_there = requests.contains(request.as_str());
                assert!(!(is_there && stopped.contains(thread)), "one before {request} is missing");
                stopped.extend((!is_there).then_some(thread));
            }
        }
    }
    let missing = answered.iter().filter(|(_, request)| !requests.contains(request.as_str())).count();
    assert!(missing <= most, "{missing} records are missing");
    missing
}

#[test]
fn the_end_of_an_incomplete_write_is_moved_away_and_told() {
    let zeros = [0; 5_000];
    let ends: [&[u8]; 4] = [b"{\"v\":1,\"seq\":", b"\n", &zeros, b"\0\0\n{\"v\":1}\n"];
    for end in ends.into_iter().filter(|end| *end != b"\n") {
        let place = tempfile::tempdir().unwrap();
        let settings = settings(place.path());
        close(&open(&settings));
        let segment = settings.directory.join(files::segment(0));
        std::fs::write(&segment, [&std::fs::read(&segment).unwrap()[..], end].concat()).unwrap();
        close(&open(&settings));
        let start = &records(&settings)[2];
        assert_eq!((&start["found"], &start["torn"]["bytes"]), (&"cut-off".into(), &end.len().into()));
        let moved = settings.directory.join(start["torn"]["file"].as_str().unwrap());
        assert_eq!(std::fs::read(&moved).unwrap(), end);
        verified(&settings);
        std::fs::remove_file(moved).unwrap();
        assert_eq!(log(&settings).verify(&keys(), None).unwrap().fault.unwrap().sequence, Some(2));
    }
}

#[test]
fn what_no_crash_can_have_left_is_not_written_to_any_more() {
    let place = tempfile::tempdir().unwrap();
    let settings = settings(place.path());
    let journal = open(&settings);
    append_and_wait(&journal, signed("1")).unwrap();
    close(&journal);
    let segment = settings.directory.join(files::segment(0));
    let whole = std::fs::read(&segment).unwrap();
    let refuses = |bytes: &[u8], why: &str| {
        std::fs::write(&segment, bytes).unwrap();
        let error = refusal(&settings);
        assert_eq!(error.kind(), ErrorKind::Audit);
        assert!(error.to_string().contains(why), "{error}");
        assert_eq!(std::fs::read(&segment).unwrap(), bytes, "it is left as it was");
    };
    refuses(&[&whole[..], b"{}\n"].concat(), "record 3: this is no whole record");
    // A checkpoint covers what is durable, so a crash cannot take it back.
    refuses(&whole[..whole.len() - 1], "record 2");
    let lines: Vec<_> = whole.split_inclusive(|byte| *byte == b'\n').collect();
    refuses(&lines[..2].concat(), "record 2: it is missing: the last checkpoint says 3 records");
    refuses(&[lines[0], lines[2]].concat(), "record 1: it is missing or was moved");
    std::fs::write(&segment, &whole).unwrap();
    std::fs::write(settings.directory.join(files::checkpoint(3)), "").unwrap();
    assert_eq!(refusal(&settings).kind(), ErrorKind::Audit);
}

#[test]
fn a_log_whose_first_writer_was_killed_in_its_first_write_is_begun_anew() {
    for left in ["", "{\"v\":1,"] {
        let place = tempfile::tempdir().unwrap();
        let settings = settings(place.path());
        close(&open(&settings));
        for (name, _) in snapshot(&settings.directory) {
            std::fs::remove_file(settings.directory.join(name)).unwrap();
        }
        std::fs::write(settings.directory.join(files::segment(0)), left).unwrap();
        close(&open(&settings));
        assert_eq!(verified(&settings).records, 2);
        assert_eq!(records(&settings)[0]["found"], "cut-off");
    }
}
