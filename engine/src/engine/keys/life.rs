//! Changes of managed keys: states, versions, destruction, aliases.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::ManagedKeys;
use crate::engine::Shared;
use crate::engine::audit::Recorded;
use crate::engine::ledger::unix_now;
use crate::error::{Error, ErrorKind, Outcome, Result, Retry};
use crate::keys::catalogue::record::{Content, Entry, KeyRecord, Record, Subject};
use crate::keys::generate::KeySpec;
use crate::keys::hex::HexBytes;
use crate::keys::key_config::check_name;
use crate::keys::managed::Managed;
use crate::keys::name::KeyName;
use crate::keys::state::{Change, KeyState};
use crate::request::Label;

/// Shortest time between scheduling a destruction and the destruction: what uses the key shall fail for long enough to be noticed.
const WAIT_MIN: Duration = Duration::from_secs(1);

impl ManagedKeys<'_> {
    /// Activates a key that was made for later.
    ///
    /// # Errors
    /// `KeyNotFound`; `KeyState` if the state of the key does not allow it; `Conflict`; what a token answers. So for all changes.
    pub fn activate<'n>(&self, key: impl Into<KeyName<'n>>) -> Result<()> {
        self.change(&key.into(), Change::Activate, None)
    }

    /// Takes a key out of use for a while: nothing new is protected by it.
    ///
    /// # Errors
    /// As [`ManagedKeys::activate`].
    pub fn suspend<'n>(&self, key: impl Into<KeyName<'n>>) -> Result<()> {
        self.change(&key.into(), Change::Suspend, None)
    }

    /// Puts a suspended key into use again.
    ///
    /// # Errors
    /// As [`ManagedKeys::activate`].
    pub fn resume<'n>(&self, key: impl Into<KeyName<'n>>) -> Result<()> {
        self.change(&key.into(), Change::Resume, None)
    }

    /// Takes a key out of use for good: it only verifies and decrypts from then on.
    ///
    /// # Errors
    /// As [`ManagedKeys::activate`].
    pub fn deactivate<'n>(&self, key: impl Into<KeyName<'n>>) -> Result<()> {
        self.change(&key.into(), Change::Deactivate, None)
    }

    /// Marks a key as known, or feared to be known, to others: it does nothing any more, but for those who take the risk
    /// ([`Key::at_risk`](crate::Key::at_risk)).
    ///
    /// # Errors
    /// As [`ManagedKeys::activate`].
    pub fn mark_compromised<'n>(&self, key: impl Into<KeyName<'n>>) -> Result<()> {
        self.change(&key.into(), Change::Compromise, None)
    }

    /// Has a key destroyed after a waiting period, at least a second, in which it does nothing and can be saved by
    /// [`ManagedKeys::cancel_destruction`]. Returns when it is due. Any engine on its tokens carries it out then, within seconds.
    ///
    /// # Errors
    /// As [`ManagedKeys::activate`]; `InvalidInput` for a shorter period.
    pub fn schedule_destruction<'n>(
        &self,
        key: impl Into<KeyName<'n>>,
        wait: Duration,
    ) -> Result<SystemTime> {
        if wait < WAIT_MIN {
            return Err(Error::refused(ErrorKind::InvalidInput, "the waiting period is a second at least"));
        }
        let at = unix_now().saturating_add(wait.as_secs());
        self.change(&key.into(), Change::ScheduleDestruction, Some(at))?;
        let far = || Error::refused(ErrorKind::InvalidInput, "nobody lives to see that day");
        UNIX_EPOCH.checked_add(Duration::from_secs(at)).ok_or_else(far)
    }

    /// Saves a key whose destruction is scheduled. Its state is what it was.
    ///
    /// # Errors
    /// As [`ManagedKeys::activate`].
    pub fn cancel_destruction<'n>(&self, key: impl Into<KeyName<'n>>) -> Result<()> {
        self.change(&key.into(), Change::CancelDestruction, None)
    }

    /// Destroys a key at once and for ever, on every token, and makes sure that it is gone. A key in use is deactivated first.
    ///
    /// The record of it stays: a token that was away meanwhile loses the key before it serves again.
    ///
    /// # Errors
    /// As [`ManagedKeys::activate`]. After an error of a token other tokens may have lost the key already, and the next engine that
    /// finds that goes on with it.
    pub fn destroy<'n>(&self, key: impl Into<KeyName<'n>>) -> Result<()> {
        self.recorded(
            "destroy-key",
            &key.into(),
            |_| (),
            |shared, managed, record| shared.destroy_managed(managed, |_| true, record),
        )
    }

    /// Makes the next version of a key, which new work uses from then on; older ones still verify and decrypt. Returns its number.
    ///
    /// Requests that are in flight finish on the version that they began with.
    ///
    /// # Errors
    /// As [`ManagedKeys::activate`], and as [`ManagedKeys::create`].
    pub fn rotate<'n>(&self, key: impl Into<KeyName<'n>>) -> Result<u32> {
        self.recorded(
            "rotate-key",
            &key.into(),
            |_| (),
            |shared, managed, record| shared.rotate(managed, |_| true, record),
        )
    }

    /// Has a name stand for a key, from now on and instead of whatever it stood for: atomically, for everybody who asks later.
    ///
    /// # Errors
    /// As [`ManagedKeys::activate`]; `KeyAmbiguous` if it is the name of a key; `InvalidInput` if it is none.
    pub fn set_alias<'n>(&self, alias: &str, key: impl Into<KeyName<'n>>) -> Result<()> {
        check_name(alias)?;
        let note = |record: &mut Recorded| record.note("alias", alias);
        self.recorded("set-alias", &key.into(), note, |shared, managed, record| {
            managed.check_lives()?;
            shared.write_alias(alias, Some(managed), record)
        })
    }

    /// Takes an alias away.
    ///
    /// # Errors
    /// As [`ManagedKeys::activate`]; `KeyNotFound` if there is no such alias.
    pub fn remove_alias(&self, alias: &str) -> Result<()> {
        crate::request::check_not_forked()?;
        let note = |record: &mut Recorded| record.note("alias", alias);
        let mut record = self.shared.begin_change("remove-alias", &self.label(), note)?;
        let done = self.shared.write_alias(alias, None, &mut record);
        record.end(done)
    }

    fn change(&self, name: &KeyName<'_>, change: Change, destroy_at: Option<u64>) -> Result<()> {
        let note = |record: &mut Recorded| record.note_time("destroy_at", destroy_at);
        self.recorded(change.operation(), name, note, |shared, managed, record| {
            shared.change_state(managed, change, |_| true, destroy_at, record)
        })
    }

    /// Changes a key, and keeps the answer back until the audit log has it, if there is one.
    fn recorded<T>(
        &self,
        operation: &'static str,
        name: &KeyName<'_>,
        note: impl FnOnce(&mut Recorded),
        change: impl FnOnce(&Arc<Shared>, &Arc<Managed>, &mut Recorded) -> Result<T>,
    ) -> Result<T> {
        crate::request::check_not_forked()?;
        let managed = self.shared.find_managed(name)?;
        let mut record = self.shared.begin_change_of(&managed, operation, &self.label(), note)?;
        let done = change(self.shared, &managed, &mut record);
        record.end(done)
    }
}

/// The record that follows, of a key.
fn follow(entry: &Entry, key: KeyRecord, shared: &Shared) -> Record {
    entry.next(Content::Key(Box::new(key)), shared.ledger.writer(), unix_now())
}

/// What a key's record says, to be changed.
fn content(managed: &Managed) -> Result<(Arc<Entry>, KeyRecord)> {
    let entry = managed.entry();
    let key = entry.key().map(|(_, key)| key.clone());
    key.map(|key| (entry, key)).ok_or_else(|| Error::internal("a key without a record of a key"))
}

impl Shared {
    /// Begins the record of a change of a key that is there, as it is now.
    fn begin_change_of(
        &self,
        managed: &Managed,
        operation: &'static str,
        label: &Label,
        note: impl FnOnce(&mut Recorded),
    ) -> Result<Recorded> {
        let version = managed.of_record(KeyRecord::primary).ok();
        self.begin_change(operation, label, |record| {
            record.of_key(&managed.id, version);
            note(record);
        })
    }

    /// Changes the state of a key, or when it is to be destroyed.
    fn change_state(
        self: &Arc<Self>,
        managed: &Arc<Managed>,
        change: Change,
        wanted: impl FnOnce(&KeyRecord) -> bool,
        destroy_at: Option<u64>,
        record: &mut Recorded,
    ) -> Result<()> {
        let claim = self.claim(vec![Subject::Key(managed.number)], Vec::new(), record)?;
        let (entry, mut key) = content(managed)?;
        record.of_key(&managed.id, Some(key.primary()));
        if !wanted(&key) {
            let text = "another engine has just changed it";
            return Err(Error::new(ErrorKind::Conflict, Retry::Later, Outcome::NotDone).because(text));
        }
        // As things stand now, dates counted in.
        let before = key.state_at(unix_now());
        record.note("state_before", before.name());
        record.note_time("destroy_at_before", key.destroy_at);
        key.state = before.after(change, key.is_doomed())?;
        if matches!(change, Change::ScheduleDestruction | Change::CancelDestruction | Change::Destroy) {
            key.destroy_at = destroy_at;
        }
        let state = key.state;
        claim.commit(follow(&entry, key, self))?;
        record.has_changed();
        record.note("state", state.name());
        Ok(())
    }

    /// Writes that a key is destroyed, if that is still wanted once nobody else can change it; then destroys it.
    pub(super) fn destroy_managed(
        self: &Arc<Self>,
        managed: &Arc<Managed>,
        wanted: impl FnOnce(&KeyRecord) -> bool,
        record: &mut Recorded,
    ) -> Result<()> {
        self.change_state(managed, Change::Destroy, wanted, None, record)?;
        managed.unload();
        self.finish_destruction(managed)
    }

    /// Writes that the objects of a destroyed key are gone from every token.
    pub(super) fn write_destroyed(self: &Arc<Self>, managed: &Managed) -> Result<()> {
        // A part of the destruction, whose record tells of it.
        let nowhere = &mut Recorded::nowhere();
        let claim = self.claim(vec![Subject::Key(managed.number)], Vec::new(), nowhere)?;
        let (entry, mut key) = content(managed)?;
        key.versions.iter_mut().for_each(|version| version.destroyed = true);
        claim.commit(follow(&entry, key, self)).map(drop)
    }

    /// Makes the next version, if it is still wanted once nobody else can make it.
    pub(crate) fn rotate(
        self: &Arc<Self>,
        managed: &Arc<Managed>,
        wanted: impl FnOnce(&KeyRecord) -> bool,
        record: &mut Recorded,
    ) -> Result<u32> {
        let (number, spec) = managed.of_record(|key| (key.primary() + 1, key.terms.spec.clone()))?;
        let spec: KeySpec = spec.parse()?;
        self.check_all_serve(spec)?;
        let (name, limits) = managed.of_record(|key| (key.terms.name.clone(), key.terms.limits()))?;
        let making = self.making(managed.number, number, &name, limits?)?;
        let change =
            self.claim(vec![Subject::Key(managed.number)], vec![HexBytes(making.id.clone())], record)?;
        let (entry, mut key) = content(managed)?;
        let state = key.state_at(unix_now());
        record.of_key(&managed.id, Some(key.primary()));
        record.note("state_before", state.name());
        record.note("version_before", key.primary().to_string());
        state.after(Change::Rotate, key.is_doomed())?;
        if key.primary() + 1 != number || !wanted(&key) {
            let text = "another engine has just rotated it";
            return Err(Error::new(ErrorKind::Conflict, Retry::Later, Outcome::NotDone).because(text));
        }
        let rotated = self.make(&change, &making, spec).and_then(|version| {
            key.state = KeyState::Active;
            key.versions.push(version);
            change.commit(follow(&entry, key, self))
        });
        self.settle(change, rotated)?;
        record.has_changed();
        record.of_key(&managed.id, Some(number));
        record.note("state", KeyState::Active.name());
        // Those who hold the key pass on to the new version from now on.
        self.primary_of(managed).map(|_| number)
    }

    fn write_alias(
        self: &Arc<Self>,
        alias: &str,
        key: Option<&Arc<Managed>>,
        record: &mut Recorded,
    ) -> Result<()> {
        let subject = Subject::Name(alias.to_owned());
        let claim = self.claim(vec![subject.clone()], Vec::new(), record)?;
        if let Some(managed) = key {
            record.of_key(&managed.id, managed.of_record(KeyRecord::primary).ok());
        }
        let before = self.ledger.catalogue.read().alias(alias).map(Arc::clone);
        let stands = |entry: &Arc<Entry>| matches!(entry.record.content, Content::Alias(Some(_)));
        if key.is_none() && !before.as_ref().is_some_and(stands) {
            return Err(Error::refused(ErrorKind::KeyNotFound, "there is no such alias"));
        }
        if self.ledger.catalogue.read().is_name_of_key(alias) {
            return Err(Error::operator(ErrorKind::KeyAmbiguous, "a managed key has this name"));
        }
        if let Some(stood_for) = self.ledger.catalogue.read().by_name(alias)? {
            record.note("key_before", stood_for.id.as_str());
        }
        let content = Content::Alias(key.map(|key| key.number));
        let (writer, now) = (self.ledger.writer(), unix_now());
        claim
            .commit(match &before {
                Some(entry) => entry.next(content, writer, now),
                None => Record::first(subject, content, writer, now),
            })
            .map(drop)
    }

    /// What is due by the time of day: destructions, rotations, and states that dates have changed.
    pub(crate) fn do_what_is_due(self: &Arc<Self>) -> Result<()> {
        let keys: Vec<_> = self.ledger.catalogue.read().keys().map(Arc::clone).collect();
        // Dates hold whatever else fails.
        let now = unix_now();
        keys.iter().for_each(|managed| self.apply(managed, now));
        // One key that fails holds up no other, and is let alone for a while.
        keys.iter()
            .filter(|managed| managed.may_be_tried(now))
            .map(|managed| self.do_what_is_due_of(managed).inspect_err(|_| managed.try_later(now)))
            .fold(Ok(()), Result::and)
    }

    fn do_what_is_due_of(self: &Arc<Self>, managed: &Arc<Managed>) -> Result<()> {
        let now = unix_now();
        if managed.wants_successor() {
            self.primary_of(managed)?;
        }
        // What is due is due all the same.
        let leased = self.lease_messages(managed);
        let begin = |operation| {
            let note = |record: &mut Recorded| record.note("by", "schedule");
            self.begin_change_of(managed, operation, &Label::default(), note)
        };
        let done = match managed.of_record(|key| (key.is_due(now), key.rotates(now)))? {
            (true, _) => {
                let mut record = begin("destroy-key")?;
                let done = self.destroy_managed(managed, |key| key.is_due(unix_now()), &mut record);
                record.end(done)
            }
            (_, true) => {
                let mut record = begin("rotate-key")?;
                let done = self.rotate(managed, |key| key.rotates(unix_now()), &mut record);
                record.end(done.map(drop))
            }
            _ => return leased,
        };
        match done {
            // Another engine does it.
            Err(error) if matches!(error.kind(), ErrorKind::Conflict | ErrorKind::KeyState) => Ok(()),
            done => done,
        }
    }
}
