//! The end of a log, looked at as a writer does that opens it, without one.

use super::*;

/// More than any of these logs has.
const ALL: u64 = 1 << 20;

fn files_of(settings: &Audit) -> BTreeMap<std::ffi::OsString, Vec<u8>> {
    let entries = settings.directory.read_dir().unwrap().map(Result::unwrap);
    let read = |entry: std::fs::DirEntry| (entry.file_name(), std::fs::read(entry.path()).unwrap());
    entries.map(read).collect()
}

/// A log of three records, with a checkpoint.
fn written(place: &Path) -> Audit {
    let settings = settings(place);
    let journal = open(&settings);
    append_and_wait(&journal, signed("1")).unwrap();
    close(&journal);
    settings
}

#[test]
fn the_end_of_a_log_is_checked_and_nothing_is_changed() {
    let place = tempfile::tempdir().unwrap();
    std::fs::create_dir(place.path().join("log")).unwrap();
    assert_eq!(log(&settings(place.path())).check_end(ALL).unwrap(), Some(0));
    let settings = written(place.path());
    let records = verified(&settings).records;
    let segment = settings.directory.join("00000000.jsonl");
    // What a crash leaves at the end is no damage, and stays.
    let mut text = std::fs::read(&segment).unwrap();
    text.extend_from_slice(b"{\"v\":1,");
    std::fs::write(&segment, text).unwrap();
    let before = files_of(&settings);
    assert_eq!(log(&settings).check_end(ALL).unwrap(), Some(records));
    assert!(files_of(&settings) == before);
    // A writer has it open, and another checks.
    let journal = open(&settings);
    assert!(log(&settings).check_end(ALL).unwrap().is_some_and(|now| now >= records));
    close(&journal);
}

#[test]
fn a_log_that_no_writer_opens_is_an_error_and_a_long_one_is_left_to_others() {
    let place = tempfile::tempdir().unwrap();
    let settings = written(place.path());
    std::fs::remove_file(settings.directory.join(files::RESUME)).unwrap();
    assert_eq!(log(&settings).check_end(100).unwrap(), None);
    let segment = settings.directory.join("00000000.jsonl");
    let text = std::fs::read_to_string(&segment).unwrap();
    std::fs::write(&segment, text.replacen("card-signing", "card-sighing", 1)).unwrap();
    let error = log(&settings).check_end(ALL).unwrap_err();
    assert_eq!((error.kind(), refusal(&settings).kind()), (ErrorKind::Audit, ErrorKind::Audit));
    std::fs::write(&segment, text).unwrap();
    // A user who may not write to the lock, root included, is refused like this.
    std::fs::remove_file(settings.directory.join(files::LOCK)).unwrap();
    std::fs::create_dir(settings.directory.join(files::LOCK)).unwrap();
    let error = log(&settings).check_end(ALL).unwrap_err();
    assert_eq!(
        (error.kind(), refusal(&settings).kind()),
        (ErrorKind::Configuration, ErrorKind::Configuration)
    );
}
