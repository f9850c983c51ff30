use std::fs::Permissions;
use std::ops::Range;
use std::os::unix::fs::{PermissionsExt, symlink};

use tempfile::TempDir;

use super::*;

const ID: FileId = [7; FILE_ID_LEN];

fn site() -> (TempDir, RecordFile) {
    let directory = tempfile::tempdir().unwrap();
    let file = RecordFile { wait: Duration::from_millis(20), ..RecordFile::new(directory.path(), "a") };
    (directory, file)
}

fn made() -> (TempDir, RecordFile) {
    let (directory, file) = site();
    assert_eq!(file.make(ID).unwrap(), ID);
    (directory, file)
}

fn written(number: usize) -> Written {
    // As long as the record of a key with one version.
    Written { label: "hsmux record".to_owned(), value: format!("{number:0900}").into_bytes() }
}

fn fill(file: &RecordFile, numbers: Range<usize>) {
    for number in numbers {
        file.add(ID, &written(number)).unwrap();
    }
}

fn rows(file: &RecordFile) -> HashSet<Row> {
    file.read(ID, false, Wait::Always, |_| false).unwrap().all
}

fn refusal<T>(result: Result<T>) -> String {
    let error = result.map(drop).unwrap_err();
    assert_eq!((error.kind(), error.retry()), (ErrorKind::Configuration, Retry::Operator), "{error}");
    assert!(error.to_string().contains("catalogue-a.redb"), "{error}");
    error.to_string()
}

#[test]
fn what_was_written_is_read_once_and_gone_when_removed() {
    let (_directory, file) = made();
    let (one, other) = (file.add(ID, &written(1)).unwrap(), file.add(ID, &written(2)).unwrap());
    let read = file.read(ID, true, Wait::Always, |row| *row == one).unwrap();
    assert_eq!(read.all, HashSet::from([one, other]));
    let [(row, new)] = &read.new[..] else { panic!("{read:?}") };
    assert_eq!((*row, new.label.as_str(), &new.value), (other, "hsmux record", &written(2).value));
    assert_eq!(file.add(ID, &written(1)).unwrap(), one, "it is there once");
    file.remove(ID, &[one, [9; 32]]).unwrap();
    assert_eq!(rows(&file), HashSet::from([other]));
    assert_eq!(file.path().metadata().unwrap().mode() & 0o777, 0o600);
}

#[test]
fn a_file_is_made_once_and_is_never_taken_for_another_nor_for_a_new_one() {
    let (directory, file) = site();
    assert!(refusal(file.read(ID, false, Wait::Always, |_| false)).contains("not there"));
    assert!(refusal(file.add(ID, &written(1))).contains("not there"));
    file.make(ID).unwrap();
    assert_eq!(file.make([8; 8]).unwrap(), ID, "whoever comes later uses the one that is there");
    for refused in
        [file.read([8; 8], false, Wait::Always, |_| false).map(drop), file.add([8; 8], &written(1)).map(drop)]
    {
        assert!(refusal(refused).contains("not the one"));
    }
    assert_eq!(directory.path().read_dir().unwrap().count(), 1, "nothing else is left");
}

#[test]
fn no_link_is_followed_and_a_file_that_others_may_change_is_refused() {
    let (directory, file) = made();
    let away = directory.path().join("away");
    std::fs::rename(file.path(), &away).unwrap();
    symlink(&away, file.path()).unwrap();
    refusal(file.read(ID, false, Wait::Always, |_| false));
    refusal(file.make(ID));
    std::fs::rename(&away, file.path()).unwrap();
    for mode in [0o620, 0o602] {
        std::fs::set_permissions(file.path(), Permissions::from_mode(mode)).unwrap();
        assert!(
            refusal(file.read(ID, false, Wait::Always, |_| false)).contains("others may change it"),
            "{mode:o}"
        );
    }
}

#[test]
fn who_finds_it_open_waits_and_readers_share_it() {
    let (directory, file) = made();
    let row = file.add(ID, &written(1)).unwrap();
    let held = Database::open(file.path()).unwrap();
    for refused in [&|| file.read(ID, false, Wait::Always, |_| false).map(drop), &|| file.remove(ID, &[row])]
        as [&dyn Fn() -> Result<()>; 2]
    {
        let before = now();
        let error = refused().unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Busy, Outcome::NotDone), "{error}");
        assert!(before.until(now()) >= file.wait, "it was waited for");
    }
    let patient = RecordFile { wait: Duration::from_secs(30), ..RecordFile::new(directory.path(), "a") };
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| rows(&patient).len());
        drop(held);
        assert_eq!(waiting.join().unwrap(), 1);
    });
    let _reader = ReadOnlyDatabase::open(file.path()).unwrap();
    assert_eq!(rows(&file), HashSet::from([row]));
}

#[test]
fn a_file_that_somebody_keeps_open_costs_looks_one_wait_and_whoever_wants_to_know_waits() {
    let (_directory, mut file) = made();
    let held = Database::open(file.path()).unwrap();
    let look = |file: &RecordFile| file.read(ID, false, Wait::Once, |_| false).map(|rows| rows.all.len());
    let kind = |file: &RecordFile| look(file).err().map(|error| error.kind());
    assert_eq!(kind(&file), Some(ErrorKind::Busy));
    file.wait = Duration::from_secs(60);
    let before = now();
    assert_eq!(kind(&file), Some(ErrorKind::Busy));
    assert!(before.until(now()) < file.wait, "it was not waited for again");
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| rows(&file).len());
        let change = scope.spawn(|| file.add(ID, &written(1)));
        drop(held);
        assert!(reading.join().unwrap() <= 1);
        change.join().unwrap().unwrap();
    });
    assert_eq!(look(&file).unwrap(), 1);
    assert!(!file.is_kept.load(Ordering::Relaxed), "after one that succeeded it is waited for again");
}

#[test]
fn a_damaged_file_is_refused_or_read_and_never_ends_the_thread() {
    let (_directory, file) = made();
    fill(&file, 0..20);
    let (whole, all) = (std::fs::read(file.path()).unwrap(), rows(&file));
    let mut refused = 0;
    let mut look = |bytes: &[u8]| {
        std::fs::write(file.path(), bytes).unwrap();
        for check in [false, true] {
            match file.read(ID, check, Wait::Always, |row| all.contains(row)) {
                // Where a checksum is there to be compared, nothing is missing and nothing is new.
                Ok(rows) => assert!(!check || rows.all == all && rows.new.is_empty()),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
                    refused += 1;
                }
            }
        }
    };
    for len in [0, 1, 64, 4_096, whole.len() / 2, whole.len() - 1] {
        look(&whole[..len]);
    }
    // A byte of each part of a page, on every page.
    for at in (0..whole.len()).step_by(1_021) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x55;
        look(&bytes);
    }
    for page in (0..whole.len()).step_by(4_096) {
        let mut bytes = whole.clone();
        let end = bytes.len().min(page + 4_096);
        bytes[page..end].fill(0);
        look(&bytes);
    }
    assert!(refused > 12, "only {refused} were noticed");
    std::fs::write(file.path(), &whole).unwrap();
    assert_eq!(rows(&file), all);
}

/// The figures at [`WAIT_MAX`]: `HSMUX_RECORDS=10,100,300 cargo test -p hsmux --lib what_a_reading_and_a_change_take --
/// --nocapture`. Without the setting one small file, for each change is synchronised.
#[test]
fn what_a_reading_and_a_change_take() {
    let (_directory, file) = made();
    let sizes = std::env::var("HSMUX_RECORDS").unwrap_or_else(|_| "10".to_owned());
    for to in sizes.split(',').map(|size| size.parse().unwrap()) {
        fill(&file, rows(&file).len()..to);
        let each = |times: u32, job: &dyn Fn()| {
            let before = now();
            (0..times).for_each(|_| job());
            before.until(now()) / times
        };
        let reading = each(50, &|| drop(file.read(ID, false, Wait::Always, |_| true).unwrap()));
        let change = each(5, &|| fill(&file, 0..1));
        println!("{to} records: a reading {reading:?}, a change {change:?}");
        assert_eq!(rows(&file).len(), to);
    }
}
