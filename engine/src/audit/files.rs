//! The files of a log: their names, and how those are written that are not segments.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind as IoKind, Read, Result as IoResult, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::checkpoint::AuditCheckpoint;
use crate::error::{Error, ErrorKind, Result};
use crate::place;

/// What goes on from the last checkpoint; see `resume.rs`.
pub(super) const RESUME: &str = "resume";

pub(super) const LOCK: &str = "lock";
const SEGMENT: &str = ".jsonl";
const CHECKPOINT: &str = "checkpoint-";
const TORN: &str = "torn-";

/// Longest small file that is read, in bytes: a checkpoint with many signatures.
const LEN_MAX: u64 = 128 * 1024;

/// The segments and checkpoints that a directory has, by their numbers, in order.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) segments: Vec<u32>,
    pub(super) checkpoints: Vec<u64>,
}

/// The right to write to a log, against every other process and every other engine of this one.
pub(super) struct Lock(File);

pub(super) fn segment(number: u32) -> String {
    format!("{number:08}{SEGMENT}")
}

pub(super) fn checkpoint(size: u64) -> String {
    format!("{CHECKPOINT}{size:020}")
}

/// A name that no file has yet for what was found in the place of this record.
pub(super) fn torn(directory: &Path, sequence: u64) -> String {
    let name = |again: u32| match again {
        0 => format!("{TORN}{sequence:020}"),
        _ => format!("{TORN}{sequence:020}-{again}"),
    };
    let is_free = |name: &String| directory.join(name).symlink_metadata().is_err();
    (0..u32::MAX).map(name).find(is_free).unwrap_or_else(|| name(u32::MAX))
}

/// Whether a record may name this as the file of its torn end: nothing outside of the directory.
pub(super) fn is_torn(name: &str) -> bool {
    let number = name.strip_prefix(TORN).unwrap_or_default();
    !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-')
}

/// What lies in a directory.
///
/// # Errors
/// `Configuration`, if it cannot be read.
pub(super) fn list(directory: &Path) -> Result<Listing> {
    let cannot = |error| unusable(directory, &error);
    let mut listing = Listing::default();
    for entry in directory.read_dir().map_err(cannot)? {
        let name = entry.map_err(cannot)?.file_name();
        let Some(name) = name.to_str() else { continue };
        if let Some(number) = name.strip_suffix(SEGMENT).and_then(|number| number.parse().ok()) {
            listing.segments.extend((segment(number) == name).then_some(number));
        } else if let Some(size) = name.strip_prefix(CHECKPOINT).and_then(|size| size.parse().ok()) {
            listing.checkpoints.extend((checkpoint(size) == name).then_some(size));
        }
    }
    listing.segments.sort_unstable();
    listing.checkpoints.sort_unstable();
    Ok(listing)
}

/// A small file, if it is there.
pub(super) fn read(path: &Path) -> IoResult<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    // Without waiting, should it be a pipe.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
    match opened.and_then(|file| file.take(LEN_MAX).read_to_end(&mut bytes)) {
        Ok(_) => Ok(Some(bytes)),
        Err(error) if error.kind() == IoKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Puts a file in the place of the one before, whole or not at all. When it returns it outlives a loss of power.
pub(super) fn store(directory: &Path, name: &str, bytes: &[u8]) -> IoResult<()> {
    let new = directory.join(format!("{name}.new"));
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    let mut file = options.open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&new, directory.join(name))?;
    place::sync(directory)
}

/// The checkpoint of this size, if there is one.
///
/// # Errors
/// In words, if it cannot be read, is malformed, or is of another size than its name says.
pub(super) fn read_checkpoint(directory: &Path, size: u64) -> Result<Option<AuditCheckpoint>, String> {
    let bytes = read(&directory.join(checkpoint(size))).map_err(|error| error.to_string())?;
    let Some(bytes) = bytes else { return Ok(None) };
    let checkpoint = AuditCheckpoint::parse(&bytes).map_err(|_| "it is no checkpoint".to_owned())?;
    if checkpoint.size() == size {
        Ok(Some(checkpoint))
    } else {
        Err(format!("it is a checkpoint of size {}", checkpoint.size()))
    }
}

/// Makes a log's directory if it is not there, for this user alone, and takes the right to write to it.
///
/// # Errors
/// `Configuration`: it belongs to somebody else, others may write there, or another writer has it.
pub(super) fn claim(path: &Path) -> Result<(PathBuf, Lock)> {
    let made = place::make(path).and_then(|()| place::resolve(path));
    let directory = made.and_then(|place| place::settle(&place).map(|()| place));
    let directory = directory.map_err(|error| unusable(path, &error))?;
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    let file = options.open(directory.join(LOCK)).map_err(|error| unusable(path, &error))?;
    match file.try_lock() {
        Ok(()) => Ok((directory, Lock(file))),
        Err(TryLockError::WouldBlock) => {
            Err(unusable(path, &"another writer has this log open: each needs its own"))
        }
        Err(TryLockError::Error(error)) => Err(unusable(path, &error)),
    }
}

/// Explicitly, for a child that was forked meanwhile has the file open too.
impl Drop for Lock {
    fn drop(&mut self) {
        // What cannot be unlocked is when the file is closed.
        let _unlocked = self.0.unlock();
    }
}

/// A log that cannot be used as things are.
pub(super) fn unusable(path: &Path, why: &dyn std::fmt::Display) -> Error {
    Error::operator(ErrorKind::Configuration, format!("audit log: {}: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_log_has_one_writer_and_lies_where_nobody_else_writes() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("made/log");
        let (directory, lock) = claim(&path).unwrap();
        assert_eq!(directory.metadata().unwrap().mode() & 0o777, 0o700);
        let error = claim(&path).map(drop).unwrap_err();
        assert!(error.to_string().contains("another writer has this log open"), "{error}");
        drop(lock);
        drop(claim(&path).unwrap());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o770)).unwrap();
        let error = claim(&path).map(drop).unwrap_err();
        assert!(error.to_string().contains("others may write there"), "{error}");
    }

    #[test]
    fn only_names_as_they_are_written_count() {
        let place = tempfile::tempdir().unwrap();
        let torn_of_7 = format!("torn-{:020}", 7);
        for name in ["00000001.jsonl", "00000000.jsonl", "1.jsonl", "+0000002.jsonl", "x.jsonl", &torn_of_7] {
            std::fs::write(place.path().join(name), "").unwrap();
        }
        for name in [checkpoint(12), checkpoint(3), "checkpoint-4".into(), format!("{}.new", checkpoint(5))] {
            std::fs::write(place.path().join(name), "").unwrap();
        }
        let listing = list(place.path()).unwrap();
        assert_eq!((listing.segments, listing.checkpoints), (vec![0, 1], vec![3, 12]));
        assert_eq!(torn(place.path(), 7), format!("{torn_of_7}-1"));
        assert_eq!(torn(place.path(), 8), format!("torn-{:020}", 8));
        assert!(is_torn(&torn_of_7) && is_torn("torn-7-1"));
        assert!(!is_torn("torn-") && !is_torn("torn-../../etc/passwd") && !is_torn("resume"));
    }

    #[test]
    fn a_small_file_is_what_was_stored_last_and_no_link_is_followed() {
        let place = tempfile::tempdir().unwrap();
        std::fs::write(place.path().join("resume.new"), "half of a longer fil").unwrap();
        for text in ["one", "the other"] {
            store(place.path(), RESUME, text.as_bytes()).unwrap();
            assert_eq!(read(&place.path().join(RESUME)).unwrap().unwrap(), text.as_bytes());
        }
        assert_eq!(place.path().join(RESUME).metadata().unwrap().mode() & 0o777, 0o600);
        assert_eq!(read(&place.path().join("none")).unwrap(), None);
        symlink(place.path().join(RESUME), place.path().join("link")).unwrap();
        assert!(read(&place.path().join("link")).is_err());
    }
}
