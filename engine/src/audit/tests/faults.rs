//! Disks that are full or fail: nothing is lost silently, and the log goes on when they work again.

use std::fs::File;
use std::io::{Error as IoError, Result as IoResult};

use super::super::disk::Append;
use super::*;
use crate::sync::{Arc, AtomicBool, Mutex, Ordering};

/// How the disk stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Works,
    /// The kernel answers `ENOSPC`, after this much of a write.
    Full {
        after: usize,
    },
    /// What was written since the last synchronisation is lost, and the next one says so once.
    LosesPages,
    /// Opening and making files fails too.
    Gone,
}

/// The file system, and its moods.
#[derive(Clone)]
struct Moody {
    state: Arc<Mutex<State>>,
    /// Whether a synchronisation waits.
    is_held: Arc<AtomicBool>,
}

struct Segment {
    disk: Moody,
    file: Arc<dyn Append>,
    path: std::path::PathBuf,
    durable: Mutex<u64>,
}

impl Moody {
    fn new() -> Self {
        Self { state: Arc::new(Mutex::new(State::Works)), is_held: Arc::new(AtomicBool::new(false)) }
    }

    fn set(&self, state: State) {
        *self.state.lock() = state;
    }

    fn state(&self) -> State {
        *self.state.lock()
    }

    fn wrapped(
        &self,
        path: &Path,
        open: impl FnOnce() -> IoResult<Arc<dyn Append>>,
    ) -> IoResult<Arc<dyn Append>> {
        if self.state() == State::Gone {
            return Err(IoError::other("the disk has gone"));
        }
        let file = open()?;
        let durable = Mutex::new(path.metadata()?.len());
        Ok(Arc::new(Segment { disk: self.clone(), file, path: path.to_owned(), durable }))
    }
}

impl Disk for Moody {
    fn create(&self, path: &Path) -> IoResult<Arc<dyn Append>> {
        self.wrapped(path, || Files.create(path))
    }

    fn open(&self, path: &Path) -> IoResult<Arc<dyn Append>> {
        self.wrapped(path, || Files.open(path))
    }
}

impl Append for Segment {
    fn append(&self, bytes: &[u8]) -> IoResult<()> {
        match self.disk.state() {
            State::Full { after } => {
                self.file.append(&bytes[..after.min(bytes.len())])?;
                // The real error, from the device that is there for it.
                File::options().append(true).open("/dev/full")?.append(bytes)
            }
            State::Gone => Err(IoError::other("the disk has gone")),
            State::Works | State::LosesPages => self.file.append(bytes),
        }
    }

    fn sync(&self) -> IoResult<()> {
        while self.disk.is_held.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        if self.disk.state() == State::LosesPages {
            self.disk.set(State::Works);
            let durable = *self.durable.lock();
            let len = self.path.metadata()?.len();
            let lost = File::options().write(true).open(&self.path)?;
            lost.set_len(durable)?;
            // What the system shows of them may be anything; the next `fsync` would say that all is well.
            lost.set_len(len)?;
            return Err(IoError::other("an input/output error"));
        }
        self.file.sync()?;
        *self.durable.lock() = self.path.metadata()?.len();
        Ok(())
    }

    fn cut(&self, len: u64) -> IoResult<()> {
        self.file.cut(len)
    }
}

fn modes() -> [AuditMode; 2] {
    [AuditMode::Strict, AuditMode::Window { records: 100, age: Duration::from_millis(20) }]
}

fn works_again(journal: &Journal) {
    eventually("records are written again", || !journal.figures().is_failing);
}

/// Waits until the log has its first record: before that nobody is answered ahead of the writer.
fn begins(journal: &Journal) {
    eventually("the log begins", || journal.figures().records > 0);
}

#[test]
fn on_a_full_disk_every_record_is_refused_and_the_first_after_that_says_how_many() {
    for (mode, after) in modes().into_iter().flat_map(|mode| [0, 100, 100_000].map(|after| (mode, after))) {
        let (place, disk) = (tempfile::tempdir().unwrap(), Moody::new());
        let settings = settings(place.path()).mode(mode);
        let journal = open_on(&settings, disk.clone());
        append_and_wait(&journal, signed("before")).unwrap();
        disk.set(State::Full { after });
        for number in 0..4 {
            let error = append_and_wait(&journal, signed(&format!("lost-{number}"))).unwrap_err();
            assert_eq!((error.kind(), error.retry()), (ErrorKind::Audit, Retry::Operator));
            assert!(error.to_string().contains("No space left on device"), "{error}");
        }
        assert!(journal.figures().is_failing);
        disk.set(State::Works);
        works_again(&journal);
        append_and_wait(&journal, signed("after")).unwrap();
        close(&journal);
        // The first of them was being written when it failed, so it came through.
        assert_eq!((verified(&settings).lost, journal.figures().lost), (3, 3), "{mode:?} {after}");
        assert_eq!(kinds(&settings), ["start", "use", "use", "gap", "use", "stop"]);
        let gap = &records(&settings)[3];
        assert_eq!((&gap["count"], &gap["policy"]), (&3.into(), &"stop".into()));
        assert!(gap["why"].as_str().unwrap().contains("No space left on device"), "{gap}");
        assert_eq!(gap["from"], "2025-11-29T03:00:00.000000000Z");
    }
}

#[test]
fn on_a_full_disk_records_are_shed_where_that_was_chosen_and_counted_all_the_same() {
    let (place, disk) = (tempfile::tempdir().unwrap(), Moody::new());
    let settings = settings(place.path()).loss(AuditLoss::Shed);
    let journal = open_on(&settings, disk.clone());
    append_and_wait(&journal, signed("before")).unwrap();
    disk.set(State::Full { after: 7 });
    for number in 0..4 {
        assert_eq!(append_and_wait(&journal, signed(&format!("shed-{number}"))).unwrap(), Kept::Shed);
    }
    disk.set(State::Works);
    works_again(&journal);
    close(&journal);
    assert_eq!(verified(&settings).lost, 3);
    assert_eq!(records(&settings)[3]["policy"], "shed");
}

#[test]
fn after_a_failed_synchronisation_what_was_not_durable_is_written_anew() {
    for mode in modes() {
        let (place, disk) = (tempfile::tempdir().unwrap(), Moody::new());
        let settings = settings(place.path()).mode(mode);
        let journal = open_on(&settings, disk.clone());
        append_and_wait(&journal, signed("before")).unwrap();
        eventually("it is durable", || !journal.figures().sync_ns.is_empty());
        disk.set(State::LosesPages);
        // In a window it is answered before it is synchronised.
        let _answer = append_and_wait(&journal, signed("in the pages that were lost"));
        eventually("it has failed", || journal.figures().faults > 0);
        works_again(&journal);
        append_and_wait(&journal, signed("after")).unwrap();
        close(&journal);
        verified(&settings);
        let requests: Vec<_> =
            records(&settings).iter().filter_map(|of| of["request"].as_str().map(str::to_owned)).collect();
        assert_eq!(requests, ["before", "in the pages that were lost", "after"], "{mode:?}");
    }
}

#[test]
fn a_segment_that_cannot_be_made_stops_the_log_until_it_can() {
    let (place, disk) = (tempfile::tempdir().unwrap(), Moody::new());
    let settings = settings(place.path()).segment_len(1);
    let journal = open_on(&settings, disk.clone());
    append_and_wait(&journal, signed("1")).unwrap();
    disk.set(State::Gone);
    // The segment for it was made when the one before was full, or could not be.
    let _answer = append_and_wait(&journal, signed("2"));
    append_and_wait(&journal, signed("3")).unwrap_err();
    // Of an attempt that came no further than the file.
    let next = files::list(&settings.directory).unwrap().segments.last().unwrap() + 1;
    std::fs::write(settings.directory.join(files::segment(next)), "").unwrap();
    disk.set(State::Works);
    works_again(&journal);
    append_and_wait(&journal, signed("4")).unwrap();
    close(&journal);
    verified(&settings);
}

#[test]
fn a_log_that_is_closed_while_its_disk_is_full_answers_everybody_and_the_next_writer_says_so() {
    let (place, disk) = (tempfile::tempdir().unwrap(), Moody::new());
    let settings = settings(place.path());
    let journal = open_on(&settings, disk.clone());
    append_and_wait(&journal, signed("1")).unwrap();
    disk.set(State::Full { after: 10 });
    append_and_wait(&journal, signed("2")).unwrap_err();
    close(&journal);
    append_and_wait(&journal, signed("3")).unwrap_err();
    close(&open(&settings));
    verified(&settings);
    assert_eq!(kinds(&settings), ["start", "use", "start", "stop"]);
    let start = &records(&settings)[2];
    assert_eq!((&start["found"], &start["torn"]["bytes"]), (&"cut-off".into(), &10.into()));
}

#[test]
fn no_more_is_answered_for_than_the_window_while_the_disk_hangs() {
    let (place, disk) = (tempfile::tempdir().unwrap(), Moody::new());
    let settings = settings(place.path()).mode(AuditMode::Window { records: 5, age: LONG });
    let journal = open_on(&settings, disk.clone());
    disk.is_held.store(true, Ordering::SeqCst);
    let answered = Arc::new(Mutex::new(0));
    for number in 0..20 {
        let answered = Arc::clone(&answered);
        journal.append(signed(&number.to_string()), move |_| *answered.lock() += 1);
    }
    eventually("the window is full", || *answered.lock() == 5);
    // Nothing tells that no more come: a moment in which they would.
    std::thread::park_timeout(Duration::from_millis(50));
    assert_eq!(*answered.lock(), 5);
    disk.is_held.store(false, Ordering::SeqCst);
    eventually("all are answered", || *answered.lock() == 20);
    close(&journal);
    verified(&settings);
}

#[test]
fn a_window_that_is_full_or_too_old_answers_nobody_ahead_of_the_writer() {
    for (records, age, answered) in [(5, LONG, 5), (100, Duration::from_millis(40), 1)] {
        let (place, disk) = (tempfile::tempdir().unwrap(), Moody::new());
        let settings = settings(place.path()).mode(AuditMode::Window { records, age });
        let journal = open_on(&settings, disk.clone());
        begins(&journal);
        disk.is_held.store(true, Ordering::SeqCst);
        for number in 0..answered {
            assert!(journal.append_ahead(signed(&number.to_string())).is_none(), "{number} of {records}");
        }
        // By then they are with the writer, and a window that is bounded by time only is full.
        eventually("all are written", || journal.figures().records > answered);
        if records < 100 {
            assert!(journal.append_ahead(signed("more")).is_some(), "it is full");
        } else {
            eventually("no more are answered for", || journal.append_ahead(signed("more")).is_some());
        }
        let written = journal.figures().records;
        assert!(journal.append_ahead(signed("one more")).is_some());
        disk.is_held.store(false, Ordering::SeqCst);
        eventually("there is room again", || journal.append_ahead(signed("the last")).is_none());
        close(&journal);
        assert!(verified(&settings).records >= written + 2, "the last and the end");
        assert_eq!(journal.figures().lost, 0);
    }
}

#[test]
fn what_was_answered_ahead_of_a_disk_that_fails_is_written_when_it_works_again() {
    for state in [State::Full { after: 100 }, State::Gone, State::LosesPages] {
        let (place, disk) = (tempfile::tempdir().unwrap(), Moody::new());
        // Each synchronisation begins a segment, which cannot be made while the disk is gone.
        let mode = AuditMode::Window { records: 100, age: Duration::from_millis(20) };
        let settings = settings(place.path()).mode(mode).segment_len(1);
        let journal = open_on(&settings, disk.clone());
        begins(&journal);
        let mut answered = Vec::new();
        let mut append = |request: String| {
            let handed_back = journal.append_ahead(signed(&request));
            answered.extend(handed_back.is_none().then_some(request));
        };
        append("before".to_owned());
        disk.set(state);
        for number in 0.. {
            append(format!("meanwhile-{number}"));
            if journal.figures().faults > 0 {
                break;
            }
            std::thread::yield_now();
        }
        disk.set(State::Works);
        works_again(&journal);
        append("after".to_owned());
        close(&journal);
        assert_eq!((verified(&settings).lost, journal.figures().lost), (0, 0));
        let requests: Vec<_> =
            records(&settings).iter().filter_map(|of| of["request"].as_str().map(str::to_owned)).collect();
        assert_eq!(requests, answered);
        assert!(answered.len() > 2, "{answered:?}");
    }
}

#[test]
fn while_a_disk_fails_nobody_is_answered_ahead_of_the_writer() {
    let (place, disk) = (tempfile::tempdir().unwrap(), Moody::new());
    let settings = settings(place.path()).mode(AuditMode::Window { records: 100, age: LONG });
    let journal = open_on(&settings, disk.clone());
    begins(&journal);
    disk.set(State::Full { after: 0 });
    append_and_wait(&journal, signed("refused")).unwrap_err();
    assert!(journal.append_ahead(signed("handed back")).is_some());
    disk.set(State::Works);
    works_again(&journal);
    assert!(journal.append_ahead(signed("answered")).is_none());
    close(&journal);
    assert!(journal.append_ahead(signed("too late")).is_some());
    assert_eq!(kinds(&settings), ["start", "use", "use", "stop"]);
}

#[test]
fn more_records_than_can_be_queued_are_refused_and_counted() {
    let (place, disk) = (tempfile::tempdir().unwrap(), Moody::new());
    let settings = settings(place.path());
    disk.is_held.store(false, Ordering::SeqCst);
    let journal = Journal::open_on(&settings, 3, Some(Box::new(Ed(1))), Box::new(disk.clone())).unwrap();
    append_and_wait(&journal, signed("first")).unwrap();
    disk.is_held.store(true, Ordering::SeqCst);
    let (refused, kept) = (Arc::new(Mutex::new(0)), Arc::new(Mutex::new(0)));
    for number in 0..50 {
        let (refused, kept) = (Arc::clone(&refused), Arc::clone(&kept));
        journal.append(signed(&number.to_string()), move |answer| match answer {
            Ok(_) => *kept.lock() += 1,
            Err(_) => *refused.lock() += 1,
        });
    }
    let at_once = *refused.lock();
    assert!(at_once > 0);
    disk.is_held.store(false, Ordering::SeqCst);
    eventually("the others are written", || *kept.lock() + at_once == 50);
    close(&journal);
    assert_eq!((verified(&settings).lost, journal.figures().lost), (at_once, at_once));
}

#[test]
fn a_record_that_is_too_long_to_be_read_back_is_refused_alone() {
    let place = tempfile::tempdir().unwrap();
    let settings = settings(place.path());
    let journal = open(&settings);
    append_and_wait(&journal, signed(&"x".repeat(line::LINE_LEN_MAX))).unwrap_err();
    append_and_wait(&journal, signed("short")).unwrap();
    close(&journal);
    assert_eq!(verified(&settings).lost, 1);
}

#[test]
fn what_was_answered_ahead_of_a_disk_that_fails_is_written_at_the_close_if_it_works_by_then() {
    for (state, awaits) in [(State::Full { after: 7 }, true), (State::LosesPages, false)] {
        let (place, disk) = (tempfile::tempdir().unwrap(), Moody::new());
        let settings = settings(place.path()).mode(AuditMode::Window { records: 100, age: LONG });
        let journal = open_on(&settings, disk.clone());
        begins(&journal);
        disk.set(state);
        assert!(journal.append_ahead(signed("ahead")).is_none());
        if awaits {
            eventually("it fails", || journal.figures().is_failing);
            disk.set(State::Works);
        }
        close(&journal);
        assert_eq!(verified(&settings).lost, 0);
        assert!(kinds(&settings).contains(&"use".to_owned()), "{:?}", kinds(&settings));
    }
}

#[test]
fn nobody_is_answered_ahead_of_a_record_that_may_be_too_long_to_be_written() {
    let place = tempfile::tempdir().unwrap();
    let settings = settings(place.path()).mode(AuditMode::Window { records: 100, age: LONG });
    let journal = open(&settings);
    begins(&journal);
    let long = journal.append_ahead(signed(&"x".repeat(line::LINE_LEN_MAX))).unwrap();
    append_and_wait(&journal, long).unwrap_err();
    assert!(journal.append_ahead(signed("short")).is_none());
    close(&journal);
    assert_eq!(verified(&settings).lost, 1);
}
