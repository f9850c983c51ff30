//! A managed key in memory: its record, and the gates by which changes of it reach the versions that are in use.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use crate::error::{Error, ErrorKind, Result};
use crate::keys::KeyVersion;
use crate::keys::catalogue::record::{Entry, KeyRecord};
use crate::keys::generate::KeySpec;
use crate::keys::key_id::{KeyId, KeyNumber};
use crate::keys::state::{Gate, KeyState, Use};
use crate::operation::OperationKind;
use crate::sync::{AtomicU64, Mutex, Ordering, RwLock};
use crate::token::message_count::MessageCount;

/// A key of the catalogue.
#[derive(Debug)]
pub(crate) struct Managed {
    pub(crate) number: KeyNumber,
    pub(crate) id: KeyId,
    entry: RwLock<Arc<Entry>>,
    /// Counts what has changed, for those who keep what they got from it.
    changes: AtomicU64,
    /// When what is due of it is tried again, in seconds of Unix time.
    try_at: AtomicU64,
    /// The versions that were asked for, by number.
    loaded: Mutex<BTreeMap<u32, Arc<KeyVersion>>>,
}

/// What ties a version in use to its key.
#[derive(Debug)]
pub(crate) struct Tie {
    pub(crate) id: KeyId,
    pub(crate) version: u32,
    pub(crate) spec: KeySpec,
    tenant: u64,
    algorithms: Vec<String>,
    pub(crate) has_host_modes: bool,
    gate: Gate,
    /// Of a key that encrypts by AES-GCM.
    pub(crate) messages: Option<Arc<MessageCount>>,
    /// The version that new work uses instead.
    next: OnceLock<Arc<KeyVersion>>,
}

/// How long a key is let alone whose rotation or destruction has failed: each try makes keys, claims and records.
const TRY_AGAIN_S: u64 = 10;

impl Managed {
    pub(crate) fn new(number: KeyNumber, id: KeyId, entry: Arc<Entry>) -> Self {
        Self {
            number,
            id,
            entry: RwLock::new(entry),
            changes: AtomicU64::new(0),
            try_at: AtomicU64::new(0),
            loaded: Mutex::default(),
        }
    }

    /// The record that holds.
    pub(crate) fn entry(&self) -> Arc<Entry> {
        Arc::clone(&self.entry.read())
    }

    /// Takes a record over if it beats the one that is known.
    pub(crate) fn takes(&self, entry: &Arc<Entry>) -> bool {
        let mut known = self.entry.write();
        let takes = entry.beats(&known);
        if takes {
            *known = Arc::clone(entry);
            self.changes.fetch_add(1, Ordering::Relaxed);
        }
        takes
    }

    pub(crate) fn may_be_tried(&self, now: u64) -> bool {
        now >= self.try_at.load(Ordering::Relaxed)
    }

    /// What was due of it has failed.
    pub(crate) fn try_later(&self, now: u64) {
        self.try_at.store(now + TRY_AGAIN_S, Ordering::Relaxed);
    }

    /// Grows with every change of the key.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    /// Something of the record.
    ///
    /// # Errors
    /// `Internal`: an entry that is no key's is none of a managed key.
    pub(crate) fn of_record<R>(&self, read: impl FnOnce(&KeyRecord) -> R) -> Result<R> {
        let entry = self.entry();
        entry
            .key()
            .map(|(_, key)| read(key))
            .ok_or_else(|| Error::internal("a key without a record of a key"))
    }

    pub(crate) fn loaded(&self, number: u32) -> Option<Arc<KeyVersion>> {
        self.loaded.lock().get(&number).map(Arc::clone)
    }

    /// Keeps a version for the next who asks; one that another thread has loaded meanwhile wins.
    pub(crate) fn keep(&self, number: u32, version: &Arc<KeyVersion>) -> Arc<KeyVersion> {
        Arc::clone(self.loaded.lock().entry(number).or_insert_with(|| Arc::clone(version)))
    }

    /// The primary version, if it is loaded.
    pub(crate) fn loaded_primary(&self) -> Option<(u32, Arc<KeyVersion>)> {
        let primary = self.of_record(KeyRecord::primary).ok()?;
        Some((primary, self.loaded(primary)?))
    }

    /// Messages that each version in use has encrypted here, of those that were leased any.
    pub(crate) fn used_messages(&self) -> impl Iterator<Item = (u32, u64)> {
        let loaded: Vec<_> =
            self.loaded.lock().iter().map(|(&number, version)| (number, Arc::clone(version))).collect();
        loaded.into_iter().filter_map(|(number, version)| {
            let count = version.tie.as_ref()?.messages.as_ref()?;
            (count.leased() > 0).then(|| (number, count.used()))
        })
    }

    /// Forgets the versions that were loaded, as when their objects have gone.
    pub(crate) fn unload(&self) {
        self.loaded.lock().clear();
    }

    /// What ties a version to this key, as things stand. `now` in seconds of Unix time.
    pub(crate) fn tie(&self, version: u32, now: u64) -> Result<Tie> {
        let spec = self.of_record(|key| key.terms.spec.parse())??;
        self.of_record(|key| Tie {
            id: self.id.clone(),
            version,
            spec,
            tenant: key.terms.tenant,
            algorithms: key.terms.algorithms.clone(),
            has_host_modes: key.terms.host_modes,
            gate: Gate::new(key.state_at(now), key.is_doomed(), key.primary() == version),
            messages: may_use_gcm(spec, &key.terms.algorithms).then(Arc::default),
            next: OnceLock::new(),
        })
    }

    /// Whether a version is in use whose place another one is to take.
    pub(crate) fn wants_successor(&self) -> bool {
        let primary = self.of_record(KeyRecord::primary).unwrap_or(0);
        let loaded = self.loaded.lock();
        !loaded.is_empty() && !loaded.contains_key(&primary)
    }

    /// Sets what every version in use may be used for now, and has those that are not the primary one any more pass new work
    /// on to that. True if anything has changed.
    ///
    /// While the primary version is not loaded the one before goes on in its place: nobody is refused for a rotation.
    pub(crate) fn apply(&self, now: u64) -> Result<bool> {
        let (state, doomed, primary) =
            self.of_record(|key| (key.state_at(now), key.is_doomed(), key.primary()))?;
        let loaded = self.loaded.lock();
        let newest = loaded.get(&primary);
        // Only one that was the primary when it was loaded: others never protected here.
        let mut led = loaded
            .iter()
            .filter(|(_, version)| version.tie.as_ref().is_some_and(|tie| tie.gate.is_primary()));
        let stands_in = newest.is_none().then(|| led.next_back().map(|(&number, _)| number)).flatten();
        let mut changed = false;
        for (&number, version) in loaded.iter() {
            let Some(tie) = &version.tie else { continue };
            if let Some(newest) = newest.filter(|_| number != primary) {
                // Before the gate is shut for it. Later rotations are reached through this one.
                let _set = tie.next.set(Arc::clone(newest));
            }
            let leads = number == primary || stands_in == Some(number);
            changed |= tie.gate.set(state, doomed, leads);
        }
        if changed {
            // By a date: those who keep something of the key forget it.
            self.changes.fetch_add(1, Ordering::Relaxed);
        }
        Ok(changed)
    }

    /// Whether it is destroyed, and its objects are not known to be gone from every token.
    pub(crate) fn is_to_be_destroyed(&self) -> bool {
        let left = |key: &KeyRecord| {
            key.state == KeyState::Destroyed && key.versions.iter().any(|version| !version.destroyed)
        };
        self.of_record(left).unwrap_or(false)
    }

    /// # Errors
    /// `KeyState`, if it is destroyed.
    pub(crate) fn check_lives(&self) -> Result<()> {
        match self.of_record(|key| key.state)? {
            KeyState::Destroyed => Err(Error::refused(ErrorKind::KeyState, "it is destroyed")),
            _ => Ok(()),
        }
    }
}

/// Whether a key encrypts by AES-GCM.
fn may_use_gcm(spec: KeySpec, algorithms: &[String]) -> bool {
    let permitted = algorithms.is_empty() || algorithms.iter().any(|name| name == "aes-gcm");
    matches!(spec, KeySpec::Aes(_)) && permitted
}

impl Tie {
    /// The version that new work uses instead, if there is one.
    #[inline]
    pub(crate) fn next(&self) -> Option<&Arc<KeyVersion>> {
        self.next.get()
    }

    /// Whether the key was made for an algorithm.
    #[inline]
    pub(crate) fn permits(&self, name: &str) -> bool {
        self.algorithms.is_empty() || self.algorithms.iter().any(|permitted| permitted == name)
    }

    /// Whether it was made for some algorithms only.
    #[inline]
    pub(crate) fn is_restricted(&self) -> bool {
        !self.algorithms.is_empty()
    }

    /// # Errors
    /// `KeyNotFound`, if the request is another tenant's: it shall not learn that there is such a key. `KeyState`, if the state of
    /// the key forbids it.
    #[inline]
    pub(crate) fn check(&self, kind: OperationKind, tenant: u64, at_risk: bool) -> Result<()> {
        let to = Use::of(kind).ok_or_else(|| Error::internal("a use of a key that is none"))?;
        self.check_use(to, tenant, at_risk)
    }

    #[inline]
    pub(crate) fn check_use(&self, to: Use, tenant: u64, at_risk: bool) -> Result<()> {
        if self.tenant != 0 && self.tenant != tenant {
            return Err(Error::refused(ErrorKind::KeyNotFound, "no key has this id"));
        }
        self.gate.check(to, at_risk)
    }
}
