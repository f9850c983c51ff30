//! What the journal writes its segments through: files, or in tests what fails as files do.

use std::fs::{File, OpenOptions};
use std::io::{Result, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::place;
use crate::sync::Arc;

/// Opens segments.
pub(super) trait Disk: Send + Sync + 'static {
    /// Makes a file, which must not be there, so that it is there after a loss of power.
    fn create(&self, path: &Path) -> Result<Arc<dyn Append>>;

    /// Opens a file that is there.
    fn open(&self, path: &Path) -> Result<Arc<dyn Append>>;
}

/// A segment that is written at its end.
pub(super) trait Append: Send + Sync {
    /// Writes all of it, or fails after any part of it.
    fn append(&self, bytes: &[u8]) -> Result<()>;

    /// Returns when what was written outlives a loss of power.
    fn sync(&self) -> Result<()>;

    /// Takes off what is beyond this length.
    fn cut(&self, len: u64) -> Result<()>;
}

/// The file system.
pub(super) struct Files;

impl Disk for Files {
    fn create(&self, path: &Path) -> Result<Arc<dyn Append>> {
        let file = options().create_new(true).mode(0o600).open(path)?;
        path.parent().map_or(Ok(()), place::sync)?;
        Ok(Arc::new(file))
    }

    fn open(&self, path: &Path) -> Result<Arc<dyn Append>> {
        Ok(Arc::new(options().open(path)?))
    }
}

impl Append for File {
    fn append(&self, bytes: &[u8]) -> Result<()> {
        let mut file = self;
        file.write_all(bytes)
    }

    fn sync(&self) -> Result<()> {
        // Not the times of the file: `fdatasync` stores the new length, for without it the data could not be read.
        self.sync_data()
    }

    fn cut(&self, len: u64) -> Result<()> {
        self.set_len(len)
    }
}

/// Where a link leads to is not this log.
fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.append(true).custom_flags(libc::O_NOFOLLOW);
    options
}
