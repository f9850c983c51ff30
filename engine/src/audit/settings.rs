//! What can be chosen of an audit log.

use std::path::PathBuf;
use std::time::Duration;

/// An audit log: a record of every use of keys and every change to them, in which nothing can be altered unnoticed.
///
/// `docs/audit.md` specifies the format. [`AuditLog`](crate::AuditLog) reads and verifies one.
///
/// ```
/// use std::time::Duration;
/// use hsmux::{Audit, AuditMode};
///
/// let mode = AuditMode::Window { records: 1_000, age: Duration::from_millis(100) };
/// let audit = Audit::new("/var/lib/payments/audit").name("example.com/payments").mode(mode);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audit {
    pub(crate) directory: PathBuf,
    pub(crate) name: String,
    pub(crate) mode: AuditMode,
    pub(crate) loss: AuditLoss,
    pub(crate) checkpoint_records: u64,
    pub(crate) checkpoint_time: Duration,
    pub(crate) segment_len: u64,
}

/// When an operation is answered.
///
/// # Deadlines
/// A request's deadline bounds the work of the tokens, not the wait for its record. The operation has run by then, and whoever was
/// told that its time is over would not know; so the answer may come later than the deadline by the time in which its record becomes
/// durable: a synchronisation of the disk, and as long as it takes while the disk hangs. The wait for an intent comes before
/// anything runs, and counts: a request whose deadline has passed when its intent is durable is not run, and answered so
/// ([`ErrorKind::DeadlineExceeded`](crate::ErrorKind::DeadlineExceeded), [`Outcome::NotDone`](crate::Outcome::NotDone)), but not before.
/// What did not run is answered without waiting for the record that says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AuditMode {
    /// When its record is durable: it outlives a kill of the process and a loss of power. Records that come while the disk
    /// is busy are synchronised together.
    Strict,
    /// As `Strict`, and no operation and no change begins before a record of its intent is durable: also what a crash cut off
    /// is known.
    StrictIntent,
    /// At once, while no more than so many records of no more than so long are not durable: that is what a loss of power may
    /// cost. Answers wait while either bound is reached. Records are written within five milliseconds, or an eighth of `age` if that
    /// is less, if the disk lets them: a kill of the process costs no more than what is not written.
    Window {
        /// Most records that are answered for and not durable; at least 1.
        records: u64,
        /// How old the oldest of them may be.
        age: Duration,
    },
}

/// What becomes of operations while no record can be written, because the disk is full or fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AuditLoss {
    /// They fail with [`ErrorKind::Audit`](crate::ErrorKind::Audit), until records can be written again.
    Stop,
    /// They are answered, and their records are counted and dropped.
    Shed,
}

impl Audit {
    /// A log in this directory, which is made if it is not there, for this user alone; in mode `Strict`, with loss `Stop`.
    ///
    /// Nobody else may write there, nor put another directory in its place. Each log has one writer at a time.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            name: "hsmux-audit".to_owned(),
            mode: AuditMode::Strict,
            loss: AuditLoss::Stop,
            checkpoint_records: 10_000,
            checkpoint_time: Duration::from_secs(60),
            segment_len: 64 << 20,
        }
    }

    /// What the log is called in its checkpoints, before a random number of its own. Should be an address without a scheme,
    /// as `example.com/payments`. No blanks, no plus sign.
    ///
    /// Default `hsmux-audit`. A log that is there keeps its name.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// When an operation is answered.
    ///
    /// Default `Strict`, which costs an operation the time of a synchronisation of the disk. `Window` waits for no disk
    /// and bounds what a crash takes.
    #[must_use]
    pub const fn mode(mut self, mode: AuditMode) -> Self {
        self.mode = mode;
        self
    }

    /// What becomes of operations while no record can be written.
    ///
    /// Default `Stop`. Either way the first record that can be written again says how many are missing, since when and why.
    #[must_use]
    pub const fn loss(mut self, loss: AuditLoss) -> Self {
        self.loss = loss;
        self
    }

    /// A checkpoint is signed after so many records, or so long after the first that none covers.
    ///
    /// Default 10 000 records or 60 s. Whoever can write to the directory can rewrite what no checkpoint covers. Each is an
    /// operation of the key that signs them, and a file of 200 bytes.
    #[must_use]
    pub const fn checkpoints(mut self, records: u64, time: Duration) -> Self {
        (self.checkpoint_records, self.checkpoint_time) = (records, time);
        self
    }

    /// A segment that has so many bytes is not written to any more, and the next is begun.
    ///
    /// Default 64 MiB: 150 000 records. It bounds nothing but how the log is cut into files.
    #[must_use]
    pub const fn segment_len(mut self, bytes: u64) -> Self {
        self.segment_len = bytes;
        self
    }
}

impl AuditMode {
    /// As records of starts and the command line have it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::StrictIntent => "strict+intent",
            Self::Window { .. } => "window",
        }
    }
}

impl AuditLoss {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Shed => "shed",
        }
    }
}
