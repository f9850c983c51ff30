//! The audit log's directory: whether records can be written there, for how long yet, and how fast.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use hsmux::{AuditLog, AuditMode};
use quanta::Instant;

use super::access::{Private, me, quoted, scratch};
use super::finding::Finding;
use crate::connection::Site;
use crate::exit::Exit;
use crate::figures;

/// An audit log's directory.
pub(super) struct Log {
    path: PathBuf,
    /// Whether answers wait for the disk.
    waits: bool,
    private: Private,
    me: u32,
    room: Option<Room>,
    /// How long a synchronisation took. None where there is no directory to try it in.
    sync: Option<Result<Duration, String>>,
    /// What is in it. None where there is no directory.
    end: Option<Result<Option<u64>, (Exit, String)>>,
}

/// A file system, in bytes.
#[derive(Clone, Copy, Debug)]
struct Room {
    free: u64,
    total: u64,
}

/// Below these a log fills the disk within days of load, or hours: a record has some 450 bytes, so that a gibibyte holds two
/// million of them.
const FREE_WARNING: u64 = 1 << 30;
const FREE_PROBLEM: u64 = 100 << 20;

/// Some file systems begin to slow down with less of them free.
const FREE_SHARE: u64 = 20;

/// Solid-state disks take some milliseconds at most; with more than this an answer waits longer for its record than for most
/// operations of HSMs.
const SYNC_WARNING: Duration = Duration::from_millis(20);

/// Of so many synchronisations the middle one is told.
const SYNCS: usize = 5;

/// Of so many bytes of records the check takes some tenths of a second; between two checkpoints there are some megabytes.
const CHECKED_MAX: u64 = 64 << 20;

impl Log {
    /// None if the configuration has no audit log.
    pub(super) fn look(site: &Site) -> Option<Self> {
        let (path, mode) = site.config()?.audit()?;
        let private = Private::look(path);
        let sync = (private == Private::Usable).then(|| sync(path).map_err(|error| error.to_string()));
        let end = (private == Private::Usable).then(|| end(path));
        let waits = !matches!(mode, AuditMode::Window { .. });
        Some(Self { path: path.to_owned(), waits, private, me: me(), room: Room::look(path), sync, end })
    }
}

impl Room {
    /// Of the file system in which a directory is, or will be.
    fn look(path: &Path) -> Option<Self> {
        let path = std::path::absolute(path).ok()?;
        let there = path.ancestors().find(|level| level.exists())?;
        let facts = rustix::fs::statvfs(there).ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(facts.f_frsize);
        Some(Self { free: bytes(facts.f_bavail), total: bytes(facts.f_blocks) })
    }
}

/// Writes a few records' worth several times, and waits each time until it is on the disk.
fn sync(directory: &Path) -> io::Result<Duration> {
    let file = scratch(directory)?;
    let mut times = (0..SYNCS).map(|_| timed(&file)).collect::<io::Result<Vec<_>>>()?;
    times.sort_unstable();
    Ok(times[SYNCS / 2])
}

fn timed(mut file: &File) -> io::Result<Duration> {
    file.write_all(&[b'\n'; 4096])?;
    let begun = Instant::now();
    file.sync_data()?;
    Ok(begun.elapsed())
}

/// How many records there are, if what a writer checks when it opens the log is well and not too long.
fn end(directory: &Path) -> Result<Option<u64>, (Exit, String)> {
    let checked = AuditLog::at(directory).check_end(CHECKED_MAX);
    checked.map_err(|error| (Exit::of(error.kind()), error.to_string()))
}

/// Whether records can be written.
pub(super) fn judge(log: Option<&Log>) -> Vec<Finding> {
    let Some(log) = log else {
        return vec![Finding::ok("audit.directory", "no audit log is configured")];
    };
    vec![
        log.private.judge("audit.directory", "the audit log's directory", &log.path, log.me),
        judge_room(log),
        judge_sync(log),
        judge_end(log),
    ]
}

/// Whether an engine can go on with what is there.
fn judge_end(log: &Log) -> Finding {
    const CHECK: &str = "audit.log";
    let shell = quoted(&log.path);
    match &log.end {
        None => Finding::skipped(CHECK, "there is no directory that could be looked at"),
        Some(Ok(Some(0))) => Finding::ok(CHECK, "there is no record yet"),
        Some(Ok(Some(records))) => {
            Finding::ok(CHECK, format!("the log has {records} records, and its end is as it was written"))
        }
        Some(Ok(None)) => {
            Finding::skipped(CHECK, "too many records would have to be read to check the log's end")
                .advise(format!("hsmux audit verify {shell}"))
        }
        Some(Err((exit, why))) => {
            let advice = match exit {
                Exit::Audit => format!("hsmux audit verify {shell}   # shows where it begins; keep the log"),
                _ => format!("ls -l {shell}   # all of it is to be the service's user's"),
            };
            Finding::problem(CHECK, format!("no engine goes on with this log: {why}"), advice)
                .with_exit(*exit)
        }
    }
}

fn judge_room(log: &Log) -> Finding {
    const CHECK: &str = "audit.space";
    let Some(Room { free, total }) = log.room else {
        return Finding::skipped(CHECK, "the file system does not tell how much is free");
    };
    let what = format!("{} of {} are free for audit records", ByteSize(free), ByteSize(total));
    let advice =
        format!("make room on that disk, or move closed segments elsewhere: df -h {}", quoted(&log.path));
    match free {
        _ if free < FREE_PROBLEM => {
            let what = format!("{what}: once it is full, operations fail, or go unrecorded, as `loss` says");
            Finding::problem(CHECK, what, advice)
        }
        _ if free < FREE_WARNING || free < total / FREE_SHARE => Finding::warning(CHECK, what, advice),
        _ => Finding::ok(CHECK, what),
    }
}

fn judge_sync(log: &Log) -> Finding {
    const CHECK: &str = "audit.sync";
    match &log.sync {
        None => Finding::skipped(CHECK, "there is no directory to try it in"),
        Some(Err(why)) => {
            let what = format!("nothing can be written to {}: {why}", log.path.display());
            Finding::problem(CHECK, what, format!("chmod u+rwx {}", quoted(&log.path)))
        }
        Some(Ok(time)) => {
            let took = figures::time(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
            let what = format!("the audit log's disk takes {took} to synchronise");
            match (*time > SYNC_WARNING, log.waits) {
                (false, _) => Finding::ok(CHECK, what),
                (true, true) => Finding::warning(
                    CHECK,
                    format!("{what}, and each answer waits for that"),
                    "put the log on a faster disk, or in the configuration: audit = { .., mode = \"window\" }",
                ),
                (true, false) => Finding::warning(
                    CHECK,
                    format!("{what}: answers wait where the window is full"),
                    "put the log on a faster disk",
                ),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    fn log(room: Option<Room>, sync: Option<Result<Duration, String>>) -> Log {
        let (path, private) = (PathBuf::from("/a"), Private::Usable);
        Log { path, waits: true, private, me: 0, room, sync, end: Some(Ok(Some(0))) }
    }

    #[test]
    fn a_disk_that_fills_up_is_a_warning_and_then_a_problem() {
        const GIB: u64 = 1 << 30;
        let level = |free, total| judge_room(&log(Some(Room { free, total }), None)).level;
        assert_eq!(level(50 * GIB, 100 * GIB), Level::Ok);
        assert_eq!(level(2 * GIB, 4 * GIB), Level::Ok);
        assert_eq!(level(4 * GIB, 100 * GIB), Level::Warning, "under a twentieth");
        assert_eq!(level(GIB - 1, 4 * GIB), Level::Warning);
        assert_eq!(level(FREE_PROBLEM, 4 * GIB), Level::Warning);
        assert_eq!(level(FREE_PROBLEM - 1, 4 * GIB), Level::Problem);
        assert_eq!(judge_room(&log(None, None)).level, Level::Skipped);
    }

    #[test]
    fn a_slow_disk_is_a_warning_that_says_what_it_costs() {
        let of = |ms| judge_sync(&log(None, Some(Ok(Duration::from_millis(ms)))));
        assert_eq!(of(20).level, Level::Ok);
        let slow = of(35);
        assert!(slow.level == Level::Warning && slow.what.contains("35.0 ms"), "{slow:?}");
        assert!(slow.what.contains("each answer waits"), "{slow:?}");
        let window = Log { waits: false, ..log(None, Some(Ok(Duration::from_millis(35)))) };
        assert!(!judge_sync(&window).what.contains("each answer"));
        let failed = judge_sync(&log(None, Some(Err("read-only file system".to_owned()))));
        assert!(failed.level == Level::Problem && failed.what.contains("read-only"), "{failed:?}");
    }

    #[test]
    fn a_log_that_no_engine_goes_on_with_is_a_problem_and_a_long_one_is_left_to_its_verifier() {
        let of = |end| judge_end(&Log { end, ..log(None, None) });
        assert_eq!(of(Some(Ok(Some(7)))).level, Level::Ok);
        assert_eq!(of(None).level, Level::Skipped);
        let long = of(Some(Ok(None)));
        assert!(long.level == Level::Skipped && long.advice.unwrap() == "hsmux audit verify /a");
        for (exit, advice) in [(Exit::Audit, "hsmux audit verify /a"), (Exit::Usage, "ls -l /a")] {
            let bad = of(Some(Err((exit, "record 3".to_owned()))));
            assert_eq!((bad.level, bad.exit), (Level::Problem, exit));
            assert!(bad.advice.unwrap().starts_with(advice));
        }
    }

    #[test]
    fn what_is_tried_leaves_nothing_behind_and_no_log_is_no_fault() {
        let directory = tempfile::tempdir().unwrap();
        sync(directory.path()).unwrap();
        assert_eq!(directory.path().read_dir().unwrap().count(), 0);
        assert!(Room::look(&directory.path().join("not/there")).is_some_and(|room| room.total > 0));
        assert_eq!(judge(None)[0].level, Level::Ok);
        assert_eq!(judge(Some(&log(None, None))).len(), 4);
    }
}
