//! The records of a state directory, as an operator sees and clears them.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::directory::{Directory, ROTATION};
use super::record::{Found, PinState};
use super::rotation::{FoundRotation, Stage};
use crate::error::Result;

/// What a state directory says of the logins to a token. See [`Builder::state_dir`](crate::Builder::state_dir).
///
/// A token whose last login succeeded has none, unless the change of its PIN was cut off ([`PinState::Changing`]).
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
    /// Of the change of the token's PIN, unless it has the new one.
    rotation: FoundRotation,
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
            let rotation = directory.read(&format!("{ROTATION}{id}"))?;
            let rotation = match FoundRotation::read(rotation.as_deref(), None) {
                FoundRotation::Rotation(rotation) if rotation.stage == Stage::New => FoundRotation::Nothing,
                rotation => rotation,
            };
            Ok(Self { directory: directory.clone(), id, found, rotation })
        };
        let ids: BTreeSet<_> = directory.ids()?.into_iter().chain(directory.rotation_ids()?).collect();
        let mut records = ids.into_iter().map(record).collect::<Result<Vec<_>>>()?;
        // A login that succeeded meanwhile has left none.
        records.retain(|record| record.found != Found::Nothing || record.rotation != FoundRotation::Nothing);
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
        self.token().0
    }

    /// The token's label; empty if the record is damaged.
    #[must_use]
    pub fn label(&self) -> &str {
        self.token().1
    }

    fn token(&self) -> (&str, &str) {
        match (&self.found, &self.rotation) {
            (Found::Record(record), _) => (&record.serial, &record.label),
            (_, FoundRotation::Rotation(rotation)) => rotation.token(),
            _ => ("", ""),
        }
    }

    /// Whether the token is meant: by serial number, label or [`PinRecord::id`].
    #[must_use]
    pub fn is_named(&self, name: &str) -> bool {
        !name.is_empty() && [self.id(), self.serial(), self.label()].contains(&name)
    }

    /// How the login stands.
    #[must_use]
    pub const fn state(&self) -> PinState {
        match (&self.found, &self.rotation) {
            (Found::Record(record), _) => record.state,
            (Found::Nothing, FoundRotation::Rotation(_)) => PinState::Changing,
            _ => PinState::Damaged,
        }
    }

    /// Since when, by the time of day; none if the record is damaged.
    #[must_use]
    pub const fn since(&self) -> Option<SystemTime> {
        match (&self.found, &self.rotation) {
            (Found::Record(record), _) => Some(record.since),
            (Found::Nothing, FoundRotation::Rotation(rotation)) => Some(rotation.since),
            _ => None,
        }
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

    /// Removes the record, and that of a change of PIN that was cut off, for good when it returns: the next engine sends its PIN to the token, once. One that has given
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
        if self.rotation != FoundRotation::Nothing {
            self.directory.remove(&format!("{ROTATION}{}", self.id))?;
        }
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
