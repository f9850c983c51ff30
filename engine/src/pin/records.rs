//! The records of a state directory, as an operator sees and clears them.

use std::path::Path;
use std::time::{Duration, SystemTime};

use super::directory::Directory;
use super::record::{Found, PinState};
use crate::error::Result;

/// What a state directory says of the logins to a token. See [`Builder::state_dir`](crate::Builder::state_dir).
///
/// A token whose last login succeeded has none.
///
/// ```
/// # let directory = tempfile::tempdir()?;
/// # let state_dir = directory.path();
/// for record in hsmux::PinRecord::list(state_dir)? {
///     println!("{} {}: {:?} since {:?}", record.label(), record.serial(), record.state(), record.since());
///     // Once the PIN is known to be right, and not before: the next login sends it.
///     if record.is_named("pay-1") {
///         record.clear()?;
///     }
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct PinRecord {
    directory: Directory,
    id: String,
    found: Found,
}

/// How long an operator waits for a login that is under way: longer than most take, and than an engine needs to see that a
/// record keeps it from trying.
pub(super) const CLEAR_LIMIT: Duration = Duration::from_secs(1);

impl PinRecord {
    /// The records of a state directory, damaged ones too.
    ///
    /// # Errors
    /// `Configuration`, if there is no such directory, if it does not belong to this user, or if others may write there or
    /// put another in its place.
    ///
    /// # Blocking
    /// As long as a few small files take to be read.
    pub fn list(state_dir: &Path) -> Result<Vec<Self>> {
        let directory = Directory::open(state_dir)?;
        let record = |id: String| {
            let found = Found::read(directory.read(&id)?.as_deref(), None);
            Ok(Self { directory: directory.clone(), id, found })
        };
        let mut records = directory.ids()?.into_iter().map(record).collect::<Result<Vec<_>>>()?;
        // A login that succeeded meanwhile has left none.
        records.retain(|record| record.found != Found::Nothing);
        Ok(records)
    }

    /// The name under which the token's record is kept: made from serial number, label, model and manufacturer.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The token's serial number; empty if the record is damaged.
    #[must_use]
    pub fn serial(&self) -> &str {
        if let Found::Record(record) = &self.found { &record.serial } else { "" }
    }

    /// The token's label; empty if the record is damaged.
    #[must_use]
    pub fn label(&self) -> &str {
        if let Found::Record(record) = &self.found { &record.label } else { "" }
    }

    /// Whether the token is meant: by serial number, label or [`PinRecord::id`].
    #[must_use]
    pub fn is_named(&self, name: &str) -> bool {
        !name.is_empty() && [self.id(), self.serial(), self.label()].contains(&name)
    }

    /// How the login stands.
    #[must_use]
    pub const fn state(&self) -> PinState {
        if let Found::Record(record) = &self.found { record.state } else { PinState::Damaged }
    }

    /// Since when, by the time of day; none if the record is damaged.
    #[must_use]
    pub const fn since(&self) -> Option<SystemTime> {
        if let Found::Record(record) = &self.found { Some(record.since) } else { None }
    }

    /// The form of the source that the PIN came from, as `file`, and when that file had been changed last, if it was
    /// one; none if the record is damaged.
    #[must_use]
    pub fn source(&self) -> Option<(&str, Option<SystemTime>)> {
        match &self.found {
            Found::Record(record) => Some((&record.source.form, record.source.changed)),
            _ => None,
        }
    }

    /// Removes the record, for good when it returns: the next engine sends its PIN to the token, once. One that has given
    /// up the token does not; it may have an old PIN in memory.
    ///
    /// # Errors
    /// `Busy`, if a process is logging in to the token and does not end in a second; `Configuration`, if the record cannot
    /// be removed.
    ///
    /// # Blocking
    /// That second at most, and as long as the disk takes.
    pub fn clear(&self) -> Result<()> {
        let _lock = self.directory.lock(&self.id, CLEAR_LIMIT)?;
        self.directory.remove(&self.id)
    }
}

/// Shows nothing but the token's name and the state.
impl std::fmt::Debug for PinRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("PinRecord");
        shown.field("id", &self.id).field("label", &self.label()).field("state", &self.state());
        shown.finish_non_exhaustive()
    }
}
