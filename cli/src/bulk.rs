//! `hsmux bulk`: records in, results out, one line each and in order.
//!
//! One thread reads and cuts the input into chunks of lines (`lines.rs`, `input.rs`), as long as there is room for
//! them (`room.rs`); a few take chunks apart (`record.rs`), have the engine run them and write the answers down
//! (`work.rs`, `answer.rs`); one puts them into their order and writes (`order.rs`, `output.rs`). A chunk keeps its
//! room until it is written, so memory is bounded however long the input is. Every line that was given out is
//! answered and written, unless the output or the run breaks: so the next input line is always known.

mod answer;
mod args;
mod held;
mod input;
mod lines;
mod order;
mod output;
mod progress;
mod record;
mod room;
mod tally;
mod work;

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam::channel::{Receiver, bounded, unbounded};
use hsmux::{Engine, KeyName, PinSource};
use quanta::Instant;

pub(crate) use self::args::Args;
use self::args::Run;
use self::input::{End, Ended, Job, Reader};
use self::lines::Lines;
use self::output::{Output, Written};
use self::progress::Progress;
pub use self::record::{Id, Problem, Record, RecordError, parse_record};
use self::room::Room;
use self::work::Worker;
use crate::connection::Site;
use crate::exit::{Exit, Failure, Result};
use crate::pin::is_stdin;
use crate::stop::Stop;
use crate::units::Deadline;

/// How long the engine may take to stop at the end.
const DRAIN: Duration = Duration::from_secs(10);

/// Runs every record of stdin, and says on stderr what came of them.
pub(crate) fn run(args: Args) -> Result {
    let (task, run) = args.split();
    let site = run.connection.resolve()?;
    let (name, pin) = (key_name(&run, &site)?, pin(&site)?);
    let (mut output, start) = open(&run)?;
    let engine = start_engine(&run, &site, pin)?;
    let worker = Worker { key: engine.key(name)?, task };
    if output.is_lost() {
        say("stdout is closed, or is /dev/null: no result will be kept");
    }
    output.begin().map_err(|error| Failure::new(Exit::Other, format!("output: {error}")))?;
    let result = work(&run, &worker, &mut output, start);
    engine.drain(DRAIN);
    result
}

/// The output, and the line of input to begin with.
fn open(run: &Run) -> Result<(Output, u64)> {
    let from = run.resume_from.get();
    match &run.output {
        None => Ok((Output::stdout()?, from)),
        Some(path) => {
            let (output, next) = Output::file(path, run.resume)?;
            Ok((output, if run.resume { next } else { from }))
        }
    }
}

/// The key's name: a label, or what the URI says.
fn key_name<'a>(run: &'a Run, site: &'a Site) -> Result<KeyName<'a>> {
    match (&run.key, site.key_uri()) {
        (Some(label), _) => Ok(label.into()),
        (None, Some(uri)) => Ok(uri.into()),
        (None, None) => Err(Failure::new(Exit::Usage, "--key, or a --uri that names a key, is needed")),
    }
}

/// Where the PIN is: not where the records are, or they would be sent to the token as PINs.
fn pin(site: &Site) -> Result<PinSource> {
    match site.pin()? {
        source if is_stdin(&source) => Err(Failure::new(
            Exit::Usage,
            "the PIN source is stdin, where the records come from: name another",
        )),
        source => Ok(source),
    }
}

fn start_engine(run: &Run, site: &Site, pin: PinSource) -> Result<Engine> {
    let tokens = site.tokens()?;
    let mut builder = site.builder(&tokens, pin);
    if let Some(sessions) = run.sessions {
        builder = builder.sessions(sessions);
    }
    match run.deadline {
        Some(Deadline(limit)) => builder = builder.deadline(limit),
        None if site.has_config() => {}
        None => builder = builder.deadline(None),
    }
    Ok(builder.build()?)
}

fn work(run: &Run, worker: &Worker, output: &mut Output, start: u64) -> Result {
    let stop = Stop::new()?;
    stop.on_signals()?;
    let progress = Progress::new(run.quiet);
    let begun = Instant::now();
    let (ended, written) = all(run, worker, output, start, &stop, &progress)?;
    progress.clear();
    if !run.quiet {
        say(&written.tally.summary(begun.elapsed()));
    }
    verdict(ended, written, start, stop.signal())
}

/// Runs all threads until there is nothing left to do.
fn all(
    run: &Run,
    worker: &Worker,
    output: &mut Output,
    start: u64,
    stop: &Stop,
    progress: &Progress,
) -> Result<(Ended, Written)> {
    let workers = run.workers();
    let room = Arc::new(Room::new(workers, run.window_bytes.get()));
    // Both hold no more than there is room for.
    let ((jobs, to_do), (finished, done)) = (bounded::<Job>(workers), unbounded());
    let input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let lines = Lines::new(run.limits(), start - 1);
    let reader = Reader { input, lines, room: &room, stop, jobs, number: 0 };
    thread::scope(|scope| {
        let spawn = |name: &str| thread::Builder::new().name(format!("hsmux-bulk-{name}"));
        for _ in 0..workers {
            let (to_do, finished): (Receiver<Job>, _) = (to_do.clone(), finished.clone());
            spawn("work").spawn_scoped(scope, move || {
                for job in to_do {
                    // Fails only if nobody writes any more.
                    let _ = finished.send((job.number, worker.run(job)));
                }
            })?;
        }
        drop((to_do, finished));
        let reading = spawn("read").spawn_scoped(scope, || reader.run())?;
        let written = output.write_all(&done, progress, stop);
        let ended = reading.join().map_err(|_| Failure::new(Exit::Other, "the reading thread was lost"))?;
        Ok((ended, written))
    })
}

/// How the run ends, by what is worst.
fn verdict(ended: Ended, written: Written, start: u64, signal: Option<Exit>) -> Result {
    let Written { tally, lines, torn, broken } = written;
    let next = start + lines;
    if let Some(broken) = broken {
        return Err(broken.failure(lines, torn, next));
    }
    debug_assert!(ended.missing > 0 || next == ended.next, "{next} is not {}", ended.next);
    match ended.end {
        End::Failed(error) => {
            let text =
                format!("input: {error}; {lines} lines were written, resume with --resume-from {next}");
            Err(Failure::new(Exit::Other, text))
        }
        End::Stopped => {
            let text = format!("interrupted; {lines} lines were written, resume with --resume-from {next}");
            Err(Failure::new(signal.unwrap_or(Exit::Other), text))
        }
        End::All if ended.missing > 0 => {
            let has = start - 1 - ended.missing;
            let text = format!("the input has {has} lines only, and is to begin with line {start}");
            Err(Failure::new(Exit::Usage, text))
        }
        End::All if tally.failures() > 0 => {
            let text = format!("{} of {} records failed", tally.failures(), tally.records());
            Err(Failure::new(Exit::RecordsFailed, text))
        }
        End::All => Ok(()),
    }
}

/// Says something beside the results; that nobody may listen changes nothing.
fn say(text: &str) {
    let _ = writeln!(io::stderr().lock(), "hsmux: {text}");
}

#[cfg(test)]
mod tests {
    use super::output::Broken;
    use super::tally::Tally;
    use super::*;

    fn ended(end: End, next: u64, missing: u64) -> Ended {
        Ended { next, missing, end }
    }

    /// The exit code and the text of a run from line 11 that wrote this.
    fn told(ended: Ended, written: Written, signal: Option<Exit>) -> (u8, String) {
        match verdict(ended, written, 11, signal) {
            Err(Failure::Said { exit, text }) => (exit as u8, text),
            _ => (0, String::new()),
        }
    }

    fn written(lines: u64) -> Written {
        Written { lines, ..Written::default() }
    }

    #[test]
    fn a_run_that_did_not_come_to_its_end_names_the_next_line() {
        let stopped = told(ended(End::Stopped, 14, 0), written(3), Some(Exit::Interrupted));
        assert_eq!(stopped.0, 130);
        let failed = told(ended(End::Failed(io::ErrorKind::InvalidData.into()), 14, 0), written(3), None);
        assert_eq!(failed.0, 1);
        let closed = Written { broken: Some(Broken::Output(io::ErrorKind::BrokenPipe.into())), ..written(3) };
        let closed = told(ended(End::Stopped, 20, 0), closed, None);
        assert_eq!(closed.0, 10);
        for (_, text) in [stopped, failed, closed] {
            assert!(text.ends_with("; 3 lines were written, resume with --resume-from 14"), "{text}");
        }
    }

    #[test]
    fn a_run_that_came_to_its_end_tells_what_failed_even_after_a_signal() {
        let mut tally = Tally::default();
        tally.succeeded();
        assert_eq!(told(ended(End::All, 12, 0), written(1), Some(Exit::Interrupted)).0, 0);
        tally.failed("Device".to_owned());
        let some = told(ended(End::All, 13, 0), Written { tally, ..written(2) }, None);
        assert_eq!(some, (9, "1 of 2 records failed".to_owned()));
    }

    #[test]
    fn an_input_that_ends_before_its_first_line_is_told() {
        let short = told(ended(End::All, 11, 4), written(0), None);
        assert_eq!(short, (2, "the input has 6 lines only, and is to begin with line 11".to_owned()));
    }
}
