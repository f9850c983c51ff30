//! The files that a load writes if it is asked to.

use std::fs::File;
use std::io::{self, BufWriter};
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use hsmux::{Engine, IntervalLog};

use crate::exit::{Exit, Failure, Result};

/// How long an interval of the log is: what plotters of such logs expect.
const INTERVAL: Duration = Duration::from_secs(1);

/// Runs something; if there is a path, an interval log of the engine is written there meanwhile. Its last interval ends
/// with the run.
///
/// A log that cannot be written to its end costs no results: how that went stands beside them.
pub(super) fn logged<R>(
    path: Option<&Path>,
    engine: &Engine,
    run: impl FnOnce() -> Result<R>,
) -> Result<(R, Result)> {
    let Some(path) = path else { return Ok((run()?, Ok(()))) };
    let not_written = |error| failed(path, &error);
    let file = BufWriter::new(File::create(path).map_err(not_written)?);
    let mut log = IntervalLog::new(file, &engine.snapshot()).map_err(not_written)?;
    let (running, ended) = mpsc::channel::<()>();
    let (result, written) = std::thread::scope(|scope| {
        let writer = scope.spawn(move || -> io::Result<()> {
            loop {
                let goes_on = ended.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout);
                log.record(&engine.snapshot())?;
                if !goes_on {
                    return Ok(());
                }
            }
        });
        let result = run();
        drop(running);
        (result, writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    Ok((result?, written.map_err(not_written)))
}

/// Writes what a scrape of the engine would get now.
pub(super) fn scrape(path: Option<&Path>, engine: &Engine) -> Result {
    let Some(path) = path else { return Ok(()) };
    std::fs::write(path, engine.snapshot().to_prometheus()).map_err(|error| failed(path, &error))
}

fn failed(path: &Path, error: &io::Error) -> Failure {
    Failure::new(Exit::Usage, format!("{} cannot be written: {error}", path.display()))
}
