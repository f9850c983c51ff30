//! What a log has in it, and how it goes on.

use super::*;

#[test]
fn a_log_holds_what_was_written_between_its_start_and_its_stop_and_verifies() {
    let place = tempfile::tempdir().unwrap();
    let settings = settings(place.path()).checkpoints(6, Duration::from_secs(3_600));
    let journal = open(&settings);
    for (record, sequence) in one_of_each().into_iter().filter(|record| !is_of_the_writer(record)).zip(1..) {
        assert_eq!(append_and_wait(&journal, record).unwrap(), Kept::At(sequence));
    }
    eventually("a checkpoint is made", || journal.figures().checkpoints == 1);
    assert_eq!(
        append_and_wait(&journal, signed("1")).unwrap(),
        Kept::At(8),
        "after the record of the checkpoint"
    );
    close(&journal);
    let (figures, report) = (journal.figures(), verified(&settings));
    assert_eq!((figures.records, figures.lost, figures.checkpoints), (10, 0, 2));
    assert_eq!((report.records, report.covered, report.checkpoints, report.lost), (10, 10, 2, 2));
    assert_eq!(
        kinds(&settings),
        ["start", "use", "uses", "intent", "intent", "change", "gap", "checkpoint", "use", "stop"]
    );
    assert!(report.log.starts_with("example.com/audit/"), "{report:?}");
    let late = append_and_wait(&journal, signed("late")).unwrap_err();
    assert_eq!((late.kind(), late.retry()), (ErrorKind::Audit, Retry::Operator));
}

fn is_of_the_writer(record: &Record) -> bool {
    ["start", "stop", "checkpoint"].contains(&record.what.kind())
}

#[test]
fn the_next_writer_goes_on_from_the_last_checkpoint_and_says_how_it_found_the_log() {
    let place = tempfile::tempdir().unwrap();
    let settings = settings(place.path());
    for round in 0..3 {
        let journal = open(&settings);
        append_and_wait(&journal, signed(&format!("{round}"))).unwrap();
        close(&journal);
    }
    let report = verified(&settings);
    assert_eq!((report.records, report.checkpoints), (9, 3));
    let found: Vec<_> =
        records(&settings).iter().filter_map(|record| record["found"].as_str().map(str::to_owned)).collect();
    assert_eq!(found, ["new", "stopped", "stopped"]);
    assert_eq!(records(&settings)[6]["checkpoint"]["size"], 6);
    // What is before the checkpoint is not read then, which is how it is known that it was used.
    let first = settings.directory.join(files::segment(0));
    let damaged = std::fs::read_to_string(&first).unwrap().replacen("sign", "sigh", 1);
    std::fs::write(&first, damaged).unwrap();
    close(&open(&settings));
    assert_eq!(log(&settings).verify(&keys(), None).unwrap().fault.unwrap().sequence, Some(1));
    std::fs::remove_file(settings.directory.join(files::RESUME)).unwrap();
    let error = refusal(&settings);
    assert_eq!((error.kind(), error.retry()), (ErrorKind::Audit, Retry::Operator));
    assert!(error.to_string().contains("record 1: it was changed"), "{error}");
}

#[test]
fn a_log_has_one_writer_at_a_time() {
    let place = tempfile::tempdir().unwrap();
    let settings = settings(place.path());
    let journal = open(&settings);
    let error = refusal(&settings);
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(error.to_string().contains("another writer has this log open"), "{error}");
    close(&journal);
    close(&open(&settings));
}

#[test]
fn segments_are_cut_by_size_and_the_log_goes_on_over_them() {
    for mode in [AuditMode::Strict, AuditMode::Window { records: 7, age: Duration::from_millis(5) }] {
        let place = tempfile::tempdir().unwrap();
        let settings = settings(place.path()).segment_len(1_000).checkpoints(8, LONG).mode(mode);
        for _ in 0..2 {
            let journal = open(&settings);
            write_signed(&journal, 0..20);
            close(&journal);
        }
        let segments = files::list(&settings.directory).unwrap().segments;
        assert!(segments.len() > 5, "{segments:?}");
        let report = verified(&settings);
        assert_eq!(kinds(&settings).iter().filter(|kind| *kind == "use").count(), 40);
        assert_eq!(report.covered, report.records);
    }
}

#[test]
fn an_idle_log_has_a_checkpoint_by_time_and_no_second_one_for_the_record_of_that() {
    let place = tempfile::tempdir().unwrap();
    let settings = settings(place.path()).checkpoints(10_000, Duration::from_millis(1));
    let journal = open(&settings);
    append_and_wait(&journal, signed("1")).unwrap();
    eventually("there is a checkpoint", || journal.figures().checkpoints > 0);
    eventually("its record is written", || kinds(&settings).contains(&"checkpoint".to_owned()));
    // A second one would be due at once; it is not for want of time that there is none.
    std::thread::park_timeout(Duration::from_millis(50));
    let made = journal.figures().checkpoints;
    let written = journal.figures().records;
    std::thread::park_timeout(Duration::from_millis(50));
    assert_eq!((journal.figures().checkpoints, journal.figures().records), (made, written));
    close(&journal);
    verified(&settings);
}

#[test]
fn many_appenders_share_synchronisations_and_each_gets_its_own_number() {
    let place = tempfile::tempdir().unwrap();
    let settings = settings(place.path());
    let journal = open(&settings);
    let numbers = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|thread| {
                let journal = &journal;
                let append =
                    move |number| append_and_wait(journal, signed(&format!("{thread}-{number}"))).unwrap();
                scope.spawn(move || (0..50).map(append).collect::<Vec<_>>())
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    close(&journal);
    let syncs = journal.figures().sync_ns.len();
    assert!(syncs < 400, "{syncs} synchronisations of 400 records");
    let written = records(&settings);
    for (thread, numbers) in numbers.iter().enumerate() {
        for (number, kept) in numbers.iter().enumerate() {
            let Kept::At(sequence) = kept else { panic!("{kept:?}") };
            assert_eq!(written[*sequence as usize]["request"], format!("{thread}-{number}"));
        }
    }
    verified(&settings);
}

#[test]
fn a_slow_signer_delays_no_record() {
    struct Slow(std::sync::mpsc::Receiver<()>);
    impl Signer for Slow {
        fn key(&self) -> AuditKey {
            Ed(1).key()
        }
        fn sign(&self, text: &[u8]) -> crate::Result<Vec<u8>> {
            let _released = self.0.recv();
            Ed(1).sign(text)
        }
    }
    let place = tempfile::tempdir().unwrap();
    let settings = settings(place.path()).checkpoints(1, LONG);
    let (release, held) = std::sync::mpsc::channel();
    let journal = Journal::open(&settings, 100, Some(Box::new(Slow(held)))).unwrap();
    write_signed(&journal, 0..50);
    assert_eq!(journal.figures().checkpoints, 0);
    drop(release);
    close(&journal);
    assert!(journal.figures().checkpoints > 0);
    assert_eq!(verified(&settings).covered, verified(&settings).records);
}

#[test]
fn a_signer_that_fails_is_counted_and_asked_again() {
    struct Failing(crate::sync::AtomicBool);
    impl Signer for Failing {
        fn key(&self) -> AuditKey {
            Ed(1).key()
        }
        fn sign(&self, text: &[u8]) -> crate::Result<Vec<u8>> {
            let has_failed = self.0.swap(true, crate::sync::Ordering::SeqCst);
            if has_failed { Ed(1).sign(text) } else { Err(crate::Error::internal("the token has gone")) }
        }
    }
    let place = tempfile::tempdir().unwrap();
    let settings = settings(place.path()).checkpoints(2, LONG);
    let signer = Box::new(Failing(crate::sync::AtomicBool::new(false)));
    let journal = Journal::open(&settings, 100, Some(signer)).unwrap();
    append_and_wait(&journal, signed("1")).unwrap();
    eventually("there is a checkpoint", || journal.figures().checkpoints == 1);
    assert_eq!(journal.figures().checkpoints_failed, 1);
    close(&journal);
    verified(&settings);
}

#[test]
fn settings_that_would_hold_every_record_for_ever_are_refused() {
    let place = tempfile::tempdir().unwrap();
    let base = settings(place.path());
    let window = |records, age| base.clone().mode(AuditMode::Window { records, age });
    let wrong = [
        window(0, LONG),
        window(1, Duration::ZERO),
        base.clone().checkpoints(0, LONG),
        base.clone().name("a b"),
    ];
    for settings in wrong {
        assert_eq!(refusal(&settings).kind(), ErrorKind::Configuration, "{settings:?}");
    }
}

#[test]
fn a_panic_of_whoever_is_answered_does_not_end_the_log() {
    let place = tempfile::tempdir().unwrap();
    let settings = settings(place.path());
    let journal = open(&settings);
    journal.append(signed("1"), |_| panic!("of the one who is answered"));
    assert_eq!(append_and_wait(&journal, signed("2")).unwrap(), Kept::At(2));
    close(&journal);
    verified(&settings);
}
