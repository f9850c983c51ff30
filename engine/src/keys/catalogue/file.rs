//! The catalogue's records in a file, for a token that takes no data objects: an embedded database, redb.
//!
//! redb lets one process at a time have a file. So that all processes of a machine see each other's records it is opened for
//! each reading and each change, and closed after it: whoever looks after a change was made finds it. A change is
//! on the disk, synchronised, before it is acknowledged.
//!
//! Nothing in the file is believed for being there: each record has its MAC, as on a token.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::ErrorKind as IoKind;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use redb::backends::FileBackend;
use redb::{
    Builder, CommitError, Database, DatabaseError, ReadOnlyDatabase, ReadTransaction, ReadableDatabase,
    ReadableTable, StorageError, TableDefinition, TableError, WriteTransaction,
};
use sha2::{Digest, Sha256};

use super::store::Written;
use crate::clock::now;
use crate::error::{Error, ErrorKind, Outcome, Result, Retry};
use crate::place;
use crate::sync::{AtomicBool, Ordering, Parker};

/// Where a token's records are, if they are in a file.
#[derive(Debug)]
pub(crate) struct RecordFile {
    path: PathBuf,
    /// The longest wait for others who have the file open.
    wait: Duration,
    /// A reading has waited for so long in vain, and none has succeeded since.
    is_kept: AtomicBool,
}

/// Whether a reading waits for others who have the file open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// For somebody who wants to know now.
    Always,
    /// Of a look that comes again each second: once, and then not before one has succeeded. Else somebody who keeps the file open
    /// would cost the thread that looks all its time.
    Once,
}

/// What tells a file from every other: 8 random bytes of its token, with which the ids of the keys begin that MAC its records.
pub(crate) type FileId = [u8; FILE_ID_LEN];

pub(crate) const FILE_ID_LEN: usize = 8;

/// What a record is known by in its file: SHA-256 of its value, so that no other record ever has its place.
pub(crate) type Row = [u8; 32];

/// What was read: every row that is there, and the contents of those that were not known.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    pub(crate) all: HashSet<Row>,
    pub(crate) new: Vec<(Row, Written)>,
}

/// By row: the label and the value that a data object would have.
const RECORDS: TableDefinition<'_, Row, (&str, &[u8])> = TableDefinition::new("hsmux catalogue 1");

/// One row: the file's id.
const IDS: TableDefinition<'_, (), FileId> = TableDefinition::new("hsmux catalogue file");

/// How long is waited for others who have the file open. Each has it for one reading, which takes 0.2 ms with 10 records, 1 ms with
/// 100 and 2 to 17 ms with 300, or for one change: 8 to 95 ms, mostly `fdatasync` (test `what_a_reading_and_a_change_take`, unoptimised,
/// three runs on 2 busy cores of an Intel Xeon guest, Debian 12, redb 4.6.0). So the look of each second needs no cache,
/// which could be stale. A look, this wait and a look again are within the five seconds in which other processes see a change, and
/// it is shorter than the keeper waits for a token, so that looks do not pile up.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// Between two tries to open a file that another process has: the system has no wait for it with a bound.
const WAIT_STEP: Duration = Duration::from_millis(2);

/// Memory for pages of one reading or change: what is read once is not read again.
const CACHE_LEN: usize = 1 << 20;

/// Bits of a mode by which others could change the file.
const OTHERS_WRITE: u32 = 0o022;

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opening {
    /// To read what is trusted to be whole.
    Read,
    /// To read or write, after every page was checked against its checksum. What a crash has left is put right.
    Check,
}

/// Why something could not be done with the file.
enum Trouble {
    /// Another process has it open.
    Held,
    /// A crash has left it to be put right, by whoever may write.
    Unsettled,
    Failed(Error),
}

impl RecordFile {
    /// That of a token, in a directory which nobody else can write in. `token` is what the token's files are named after.
    pub(crate) fn new(directory: &Path, token: &str) -> Self {
        let path = directory.join(format!("catalogue-{token}.redb"));
        Self { path, wait: WAIT_MAX, is_kept: AtomicBool::new(false) }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the file, unless it is there, and returns its id: `id` if it was made now.
    ///
    /// It comes to its name whole and synchronised, so that no crash leaves a half of it.
    ///
    /// # Errors
    /// `Configuration`; `Busy`.
    pub(crate) fn make(&self, id: FileId) -> Result<FileId> {
        let exists = self.path.symlink_metadata().is_ok();
        if !exists {
            let made = self.guarded(|| self.make_under_another_name(id).map_err(Trouble::Failed));
            made.map_err(|trouble| self.give_up(trouble))?;
        }
        self.open(Opening::Check, |opened| {
            let transaction = opened.begin_read().map_err(|error| self.damaged(&error))?;
            self.id_of(&transaction)
        })
    }

    fn make_under_another_name(&self, id: FileId) -> Result<()> {
        let cannot = |error: &dyn std::fmt::Display| self.unusable(&format!("cannot be made: {error}"));
        let directory = self.path.parent().ok_or_else(|| cannot(&"it has no directory"))?;
        // Mode 0600, by default of `tempfile`. One that a crash leaves is in nobody's way.
        let new = tempfile::Builder::new().prefix("catalogue-").suffix(".new").tempfile_in(directory);
        let new = new.map_err(|error| cannot(&error))?;
        let write = || -> std::result::Result<(), redb::Error> {
            let backend = FileBackend::new(new.reopen()?)?;
            let database = Builder::new().set_cache_size(CACHE_LEN).create_with_backend(backend)?;
            let transaction = database.begin_write()?;
            transaction.open_table(RECORDS)?;
            transaction.open_table(IDS)?.insert((), id)?;
            transaction.commit()?;
            Ok(database.close()?)
        };
        write().map_err(|error| cannot(&error))?;
        match new.persist_noclobber(&self.path) {
            // Another process was first: its file is as good.
            Err(error) if error.error.kind() == IoKind::AlreadyExists => {}
            Err(error) => return Err(cannot(&error.error)),
            Ok(_) => {}
        }
        place::sync(directory).map_err(|error| cannot(&error))
    }

    /// Reads which rows there are, and what is in those of which `is_known` is false. With `check` every page is compared
    /// with its checksum first: a file that was damaged meanwhile says so, where a page of it could else be taken for what it is not.
    ///
    /// # Errors
    /// `Busy` if others have had it open for too long; `Configuration` if it is not there, is damaged or is another token's.
    pub(crate) fn read(
        &self,
        id: FileId,
        check: bool,
        wait: Wait,
        is_known: impl Fn(&Row) -> bool,
    ) -> Result<Rows> {
        // Relaxed: whoever reads that late waits once more, or once less.
        let is_kept = wait == Wait::Once && self.is_kept.load(Ordering::Relaxed);
        let wait = if is_kept { Duration::ZERO } else { self.wait };
        let how = if check { Opening::Check } else { Opening::Read };
        let rows = self.open_within(wait, how, |opened| {
            let transaction = opened.begin_read().map_err(|error| self.damaged(&error))?;
            self.check_id(&transaction, id)?;
            let table = transaction.open_table(RECORDS).map_err(|error| self.damaged(&error))?;
            let mut rows = Rows::default();
            for found in table.iter().map_err(|error| self.failed(&error))? {
                let (row, value) = found.map_err(|error| self.failed(&error))?;
                let row = row.value();
                if !is_known(&row) {
                    let (label, value) = value.value();
                    let written = Written { label: label.to_owned(), value: value.to_vec() };
                    rows.new.push((row, written));
                }
                rows.all.insert(row);
            }
            Ok(rows)
        });
        let is_kept = rows.as_ref().is_err_and(|error| error.kind() == ErrorKind::Busy);
        self.is_kept.store(is_kept, Ordering::Relaxed);
        rows
    }

    /// Writes a record. When it returns the record outlives a loss of power.
    ///
    /// # Errors
    /// As [`RecordFile::read`].
    pub(crate) fn add(&self, id: FileId, written: &Written) -> Result<Row> {
        let row = Row::from(Sha256::digest(&written.value));
        self.change(id, |transaction| {
            let mut table = transaction.open_table(RECORDS)?;
            table.insert(row, (written.label.as_str(), written.value.as_slice()))?;
            Ok(())
        })?;
        Ok(row)
    }

    /// Takes rows away, all or none of them, for good when it returns. Those that are not there are gone.
    ///
    /// # Errors
    /// As [`RecordFile::read`].
    pub(crate) fn remove(&self, id: FileId, rows: &[Row]) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        self.change(id, |transaction| {
            let mut table = transaction.open_table(RECORDS)?;
            for row in rows {
                table.remove(row)?;
            }
            Ok(())
        })
    }

    fn change(
        &self,
        id: FileId,
        make: impl Fn(&WriteTransaction) -> std::result::Result<(), TableError>,
    ) -> Result<()> {
        self.open(Opening::Check, |opened| {
            let Opened::ToWrite(database) = opened else {
                return Err(Error::internal("a file of records was opened to be read only"));
            };
            self.check_id(&opened.begin_read().map_err(|error| self.damaged(&error))?, id)?;
            // Its durability is `Immediate`, the default: the commit returns when it is synchronised.
            let transaction = database.begin_write().map_err(|error| self.damaged(&error))?;
            make(&transaction).map_err(|error| self.damaged(&error))?;
            transaction.commit().map_err(|error| self.half_done(&error))
        })
    }

    fn check_id(&self, transaction: &ReadTransaction, id: FileId) -> Result<()> {
        match self.id_of(transaction)? == id {
            true => Ok(()),
            false => Err(self.unusable(
                "is not the one that the records of this token are in: put that one there, which another state directory has",
            )),
        }
    }

    fn id_of(&self, transaction: &ReadTransaction) -> Result<FileId> {
        let table = transaction.open_table(IDS).map_err(|error| self.damaged(&error))?;
        let id = table.get(()).map_err(|error| self.failed(&error))?;
        Ok(id.ok_or_else(|| self.damaged(&"it has no id"))?.value())
    }

    /// Does something with the file once nobody else has it open.
    fn open<R>(&self, how: Opening, job: impl Fn(&Opened) -> Result<R>) -> Result<R> {
        self.open_within(self.wait, how, job)
    }

    fn open_within<R>(&self, wait: Duration, how: Opening, job: impl Fn(&Opened) -> Result<R>) -> Result<R> {
        let (until, parker) = (now().after(wait), Parker::new());
        let mut how = how;
        loop {
            let done = self.guarded(|| {
                let opened = self.try_open(how)?;
                job(&opened).map_err(Trouble::Failed)
            });
            match done {
                Ok(done) => return Ok(done),
                Err(Trouble::Held) if now() < until => parker.park_timeout(WAIT_STEP),
                Err(Trouble::Unsettled) if how == Opening::Read => how = Opening::Check,
                Err(trouble) => return Err(self.give_up(trouble)),
            }
        }
    }

    /// redb checks a file's pages where it is told to, and trusts them else: a damaged one may have it panic.
    fn guarded<R>(
        &self,
        job: impl FnOnce() -> std::result::Result<R, Trouble>,
    ) -> std::result::Result<R, Trouble> {
        let done = catch_unwind(AssertUnwindSafe(job));
        done.unwrap_or_else(|_panic| Err(Trouble::Failed(self.damaged(&"its pages contradict each other"))))
    }

    fn try_open(&self, how: Opening) -> std::result::Result<Opened, Trouble> {
        let file = self.handle(how).map_err(Trouble::Failed)?;
        let opened = FileBackend::new(file).and_then(|backend| {
            let mut builder = Builder::new();
            builder.set_cache_size(CACHE_LEN).set_check_integrity_on_open(true);
            match how {
                Opening::Read => builder.open_read_only_with_backend(backend).map(Opened::ToRead),
                Opening::Check => builder.create_with_backend(backend).map(Opened::ToWrite),
            }
        });
        opened.map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => Trouble::Held,
            DatabaseError::RepairAborted => Trouble::Unsettled,
            error => Trouble::Failed(self.damaged(&error)),
        })
    }

    /// The file itself, which is there: a new one would hide that the records are lost.
    fn handle(&self, how: Opening) -> Result<File> {
        // No link is followed, for where it leads to is not this directory; and without waiting, should it be a pipe.
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let mut options = OpenOptions::new();
        let opened = options.read(true).write(how == Opening::Check).custom_flags(flags).open(&self.path);
        let file = match opened {
            Err(error) if error.kind() == IoKind::NotFound => return Err(self.missing()),
            opened => opened.map_err(|error| self.unusable(&error))?,
        };
        let facts = file.metadata().map_err(|error| self.unusable(&error))?;
        if !facts.is_file() || facts.len() == 0 {
            // redb would make a new database of an empty one.
            return Err(self.damaged(&"it is empty, or no file"));
        }
        if facts.uid() != rustix::process::geteuid().as_raw() || facts.mode() & OTHERS_WRITE != 0 {
            return Err(self.unusable(&"others may change it: it must be this user's, with mode 0600"));
        }
        Ok(file)
    }

    fn give_up(&self, trouble: Trouble) -> Error {
        match trouble {
            Trouble::Held => {
                let text = format!("{}: another process has it open", self.path.display());
                Error::new(ErrorKind::Busy, Retry::Later, Outcome::NotDone).because(text)
            }
            Trouble::Unsettled => self.damaged(&"it cannot be put right"),
            Trouble::Failed(error) => error,
        }
    }

    fn missing(&self) -> Error {
        self.unusable(
            &"is not there, and the token says that its records are: name the state directory that has it, or put back a copy",
        )
    }

    fn damaged(&self, why: &dyn std::fmt::Display) -> Error {
        self.unusable(&format!("is damaged, or cannot be read: {why}"))
    }

    fn failed(&self, error: &StorageError) -> Error {
        self.damaged(error)
    }

    /// Of a change that may be on the disk, or not.
    fn half_done(&self, error: &CommitError) -> Error {
        let text = format!("records of keys: {}: cannot be written: {error}", self.path.display());
        Error::new(ErrorKind::Configuration, Retry::Operator, Outcome::Unknown).because(text)
    }

    fn unusable(&self, why: &(impl std::fmt::Display + ?Sized)) -> Error {
        let text = format!("records of keys: {}: {why}", self.path.display());
        Error::operator(ErrorKind::Configuration, text)
    }
}

/// A file that is open: nobody else has it, or others read it too.
enum Opened {
    ToRead(ReadOnlyDatabase),
    ToWrite(Database),
}

impl Opened {
    fn begin_read(&self) -> std::result::Result<ReadTransaction, redb::TransactionError> {
        match self {
            Self::ToRead(database) => database.begin_read(),
            Self::ToWrite(database) => database.begin_read(),
        }
    }
}

#[cfg(test)]
mod tests;
