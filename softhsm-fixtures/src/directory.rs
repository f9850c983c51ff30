//! The token directory of a process, and the removal of those that dead processes left behind.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use crate::error::Error;

/// A folder with SoftHSM2's configuration and tokens. Locked while its process lives; removed when dropped.
#[derive(Debug)]
pub(crate) struct Directory {
    conf: PathBuf,
    _lock: File,
    _folder: tempfile::TempDir,
}

const PREFIX: &str = "softhsm-fixtures-";
const LOCK: &str = "lock";

impl Directory {
    pub(crate) fn new() -> Result<Self, Error> {
        sweep(&std::env::temp_dir());
        let folder = tempfile::Builder::new().prefix(PREFIX).tempdir()?;
        // Locked before it has its name, so that no sweep finds it unlocked.
        let unnamed = folder.path().join("unnamed");
        let lock = File::create(&unnamed)?;
        lock.lock()?;
        std::fs::rename(unnamed, folder.path().join(LOCK))?;
        let tokens = folder.path().join("tokens");
        std::fs::create_dir(&tokens)?;
        let conf = folder.path().join("softhsm2.conf");
        let text = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
            tokens.display()
        );
        std::fs::write(&conf, text)?;
        Ok(Self { conf, _lock: lock, _folder: folder })
    }

    pub(crate) fn conf(&self) -> &Path {
        &self.conf
    }
}

/// Removes folders of processes that ended without dropping theirs, as tests do: a static is never dropped.
/// A lock that can be taken belongs to nobody. What cannot be removed is left for another time.
fn sweep(parent: &Path) {
    let Ok(entries) = std::fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let Ok(lock) = File::open(entry.path().join(LOCK)) else { continue };
        match lock.try_lock() {
            Ok(()) => drop(std::fs::remove_dir_all(entry.path())),
            Err(TryLockError::WouldBlock | TryLockError::Error(_)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_removes_what_nobody_holds_and_nothing_else() {
        let parent = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let folder = parent.path().join(name);
            std::fs::create_dir(&folder).unwrap();
            (File::create(folder.join(LOCK)).unwrap(), folder)
        };
        let (held, living) = make("softhsm-fixtures-a");
        held.lock().unwrap();
        let (_, dead) = make("softhsm-fixtures-b");
        let (_, foreign) = make("something-else");
        let starting = parent.path().join("softhsm-fixtures-c");
        std::fs::create_dir(&starting).unwrap();
        sweep(parent.path());
        assert_eq!([&living, &dead, &foreign, &starting].map(|f| f.exists()), [true, false, true, true]);
    }
}
