//! The state directory: small files that are there after a crash as they were written, or as they were before.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind as IoKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::clock::now;
use crate::error::{Error, ErrorKind, Outcome, Result, Retry};
use crate::place::{self, sync};
use crate::sync::Parker;

/// A directory of this user's in which nobody else writes, nor can they put another in its place.
///
/// By its path and not by a descriptor: should this user move it and make another there, all engines go on with one and the
/// same.
#[derive(Clone)]
pub(super) struct Directory(PathBuf);

/// A lock of one token, against every other process and every other engine of this one. The file stays: who removed it
/// could let two in.
pub(super) struct Lock(File);

/// Longest record, in bytes: a few times what is ever written.
pub(super) const RECORD_LEN_MAX: usize = 4096;

/// How long is waited between two looks at a lock that another process has: the system has no wait for it with a bound.
const LOCK_STEP: Duration = Duration::from_millis(5);

/// How the files of records are called: what names the token stands between.
const PREFIX: &str = "pin-";
const SUFFIX: &str = ".toml";

/// What stands before the token where the record is of a rotation; no token's name begins so.
pub(super) const ROTATION: &str = "rotation-";

impl Directory {
    /// The directory at this path, which is made if it is not there, for this user alone.
    ///
    /// # Errors
    /// As of [`Directory::open`], and where it cannot be synchronised: no record would be sure to outlive a loss of power.
    pub(super) fn open_or_make(path: &Path) -> Result<Self> {
        let opened =
            place::make(path).map_err(|error| unusable(path, &error)).and_then(|()| Self::open(path))?;
        place::settle(opened.path()).map_err(|error| unusable(path, &error))?;
        Ok(opened)
    }

    /// The directory at this path.
    ///
    /// # Errors
    /// `Configuration`, unless it belongs to this user and nobody else may write there or put another in its place: who
    /// could would decide whether a PIN is sent.
    pub(super) fn open(path: &Path) -> Result<Self> {
        // So that it stays the same wherever the process goes.
        place::resolve(path).map(Self).map_err(|error| unusable(path, &error))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// The tokens of which there is a record of a login.
    pub(super) fn ids(&self) -> Result<Vec<String>> {
        Ok(self.names()?.into_iter().filter(|name| !name.starts_with(ROTATION)).collect())
    }

    /// The tokens of which there is a record of a rotation.
    pub(super) fn rotation_ids(&self) -> Result<Vec<String>> {
        let id = |name: String| name.strip_prefix(ROTATION).map(str::to_owned);
        Ok(self.names()?.into_iter().filter_map(id).collect())
    }

    /// What records are called.
    fn names(&self) -> Result<Vec<String>> {
        let cannot = |error| unusable(&self.0, &error);
        let mut ids = Vec::new();
        for entry in self.0.read_dir().map_err(cannot)? {
            let name = entry.map_err(cannot)?.file_name();
            let id = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX));
            ids.extend(id.map(str::to_owned));
        }
        ids.sort();
        Ok(ids)
    }

    /// The record of a token, if there is one; cut one byte above [`RECORD_LEN_MAX`].
    pub(super) fn read(&self, id: &str) -> Result<Option<Vec<u8>>> {
        let path = self.record(id);
        let mut bytes = Vec::new();
        // Without waiting, should it be a pipe.
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let opened = OpenOptions::new().read(true).custom_flags(flags).open(&path);
        let read = opened.and_then(|file| file.take(RECORD_LEN_MAX as u64 + 1).read_to_end(&mut bytes));
        match read {
            Ok(_) => Ok(Some(bytes)),
            Err(error) if error.kind() == IoKind::NotFound => Ok(None),
            Err(error) => Err(unusable(&path, &error)),
        }
    }

    /// Puts a record in the place of the one before. When it returns the record outlives a loss of power.
    ///
    /// Who has the token's lock writes: the file that becomes the record has one name, so that what a process leaves that
    /// is killed meanwhile is written over by the next.
    pub(super) fn write(&self, id: &str, text: &str) -> Result<()> {
        let (new, path) = (self.file(id, ".new"), self.record(id));
        let write = || {
            let mut file = to_write().truncate(true).open(&new)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&new, &path)?;
            sync(&self.0)
        };
        write().map_err(|error: std::io::Error| unusable(&path, &error))
    }

    /// Removes a record, for good when it returns; one that is not there is removed.
    pub(super) fn remove(&self, id: &str) -> Result<()> {
        let path = self.record(id);
        let removed = match std::fs::remove_file(&path) {
            Err(error) if error.kind() != IoKind::NotFound => Err(error),
            _ => sync(&self.0),
        };
        removed.map_err(|error| unusable(&path, &error))
    }

    /// Waits for the lock of a token, at most for `limit`.
    ///
    /// # Errors
    /// `Busy`; `Configuration` if the system has no locks there.
    pub(super) fn lock(&self, id: &str, limit: Duration) -> Result<Lock> {
        let path = self.file(id, ".lock");
        let file = to_write().open(&path).map_err(|error| unusable(&path, &error))?;
        let (until, parker) = (now().after(limit), Parker::new());
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Lock(file)),
                Err(TryLockError::Error(error)) => return Err(unusable(&path, &error)),
                Err(TryLockError::WouldBlock) if now() >= until => {
                    return Err(Error::new(ErrorKind::Busy, Retry::Later, Outcome::NotDone)
                        .because("another process is logging in to this token"));
                }
                Err(TryLockError::WouldBlock) => parker.park_timeout(LOCK_STEP.min(now().until(until))),
            }
        }
    }

    fn record(&self, id: &str) -> PathBuf {
        self.file(id, SUFFIX)
    }

    fn file(&self, id: &str, suffix: &str) -> PathBuf {
        self.0.join(format!("{PREFIX}{id}{suffix}"))
    }
}

/// Explicitly, for a child that was forked meanwhile has the file open too.
impl Drop for Lock {
    fn drop(&mut self) {
        // What cannot be unlocked is when the file is closed.
        let _unlocked = self.0.unlock();
    }
}

/// A file of a record, which is made if it is not there. Where a link leads to is not this directory.
fn to_write() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    options
}

fn unusable(path: &Path, why: &dyn std::fmt::Display) -> Error {
    Error::operator(ErrorKind::Configuration, format!("state directory: {}: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    fn refusal(path: &Path) -> String {
        let error = Directory::open_or_make(path).map(drop).unwrap_err();
        assert_eq!((error.kind(), error.retry()), (ErrorKind::Configuration, Retry::Operator));
        error.to_string()
    }

    #[test]
    fn a_directory_is_made_for_this_user_alone_and_one_that_others_may_change_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("made/state");
        assert_eq!(Directory::open(&path).map(drop).unwrap_err().kind(), ErrorKind::Configuration);
        Directory::open_or_make(&path).unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o700);
        for mode in [0o770, 0o702] {
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert!(refusal(&path).contains("others may write there"), "{mode:o}");
        }
        std::fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        Directory::open_or_make(&path).unwrap();
        // Only root can give it away.
        if std::os::unix::fs::chown(&path, Some(65_534), None).is_ok() {
            assert!(refusal(&path).contains("belongs to another user"));
        }
        let file = parent.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(refusal(&file).contains("not a directory"));
        assert!(refusal(&file.join("below")).contains("state directory"));
    }

    #[test]
    fn a_record_is_what_was_written_last_and_gone_when_removed() {
        let place = tempfile::tempdir().unwrap();
        let directory = Directory::open(place.path()).unwrap();
        assert_eq!(directory.read("a").unwrap(), None);
        // What somebody left who was killed while writing.
        std::fs::write(place.path().join("pin-a.new"), "half of a longer recor").unwrap();
        for text in ["one", "the other"] {
            directory.write("a", text).unwrap();
            assert_eq!(directory.read("a").unwrap().unwrap(), text.as_bytes());
        }
        let mode = place.path().join("pin-a.toml").metadata().unwrap().mode();
        assert_eq!((directory.ids().unwrap(), mode & 0o777), (vec!["a".to_owned()], 0o600));
        directory.remove("a").unwrap();
        directory.remove("a").unwrap();
        assert!(directory.read("a").unwrap().is_none() && directory.ids().unwrap().is_empty());
    }

    #[test]
    fn no_link_is_followed_from_a_file_of_a_record() {
        let place = tempfile::tempdir().unwrap();
        let directory = Directory::open(place.path()).unwrap();
        let elsewhere = place.path().join("elsewhere");
        std::fs::write(&elsewhere, "kept").unwrap();
        for suffix in ["toml", "new", "lock"] {
            std::os::unix::fs::symlink(&elsewhere, place.path().join(format!("pin-a.{suffix}"))).unwrap();
        }
        assert!(directory.read("a").is_err());
        assert!(directory.write("a", "other").is_err());
        assert!(directory.lock("a", Duration::ZERO).is_err());
        assert_eq!(std::fs::read_to_string(elsewhere).unwrap(), "kept");
    }

    #[test]
    fn one_has_a_tokens_lock_and_who_waits_too_long_hears_of_it() {
        let place = tempfile::tempdir().unwrap();
        let lock = |id: &str, limit| Directory::open(place.path()).unwrap().lock(id, limit);
        let first = lock("a", Duration::ZERO).unwrap();
        let error = lock("a", Duration::from_millis(20)).map(drop).unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Busy, Outcome::NotDone));
        assert!(lock("b", Duration::ZERO).is_ok(), "another token's");
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| lock("a", LONG).is_ok());
            drop(first);
            assert!(waiting.join().unwrap());
        });
    }
}
