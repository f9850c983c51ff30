//! What is known of managed keys.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::ManagedKeys;
use crate::engine::audit::SIGNER;
use crate::engine::ledger::unix_now;
use crate::error::{Error, ErrorKind, Result};
use crate::keys::catalogue::record::{KeyOrigin, KeyRecord, VersionRecord};
use crate::keys::key_id::KeyId;
use crate::keys::managed::Managed;
use crate::keys::name::KeyName;
use crate::keys::state::KeyState;
use crate::operation::spki_der;

/// A managed key, as its record says.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyInfo {
    /// Its identifier.
    pub id: KeyId,
    /// Its name.
    pub name: String,
    /// The group of tokens that it was made on.
    pub group: String,
    /// Whose it is; 0 for nobody's.
    pub tenant: u64,
    /// Its kind and purpose, as [`KeySpec`](crate::KeySpec) shows them.
    pub spec: String,
    /// The algorithms that it is permitted for, by name; empty for all that fit it.
    pub algorithms: Vec<String>,
    /// Whether the host may do modes of its cipher.
    pub host_modes: bool,
    /// Its state now.
    pub state: KeyState,
    /// When it is to be destroyed.
    pub destroy_at: Option<SystemTime>,
    /// When it becomes active by itself, or became so.
    pub active_from: Option<SystemTime>,
    /// When it is deactivated by itself.
    pub active_until: Option<SystemTime>,
    /// How old a version may get.
    pub rotate_every: Option<Duration>,
    /// Its versions; the last one is the primary.
    pub versions: Vec<KeyVersionInfo>,
    /// Aliases that stand for it.
    pub aliases: Vec<String>,
}

/// A version of a managed key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyVersionInfo {
    /// From 1.
    pub version: u32,
    /// `CKA_ID` of its objects, in hexadecimal, by which other tools find them.
    pub object: String,
    /// When it was made.
    pub created: SystemTime,
    /// How it came to be, and what its attributes can prove.
    pub origin: KeyOrigin,
}

/// A record of the catalogue that is not believed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RefusedRecord {
    /// Label of the token.
    pub token: String,
    /// `CKA_LABEL` of the object, or the label that it has in the token's [file](RecordPlace).
    pub label: String,
    /// Why.
    pub why: &'static str,
}

/// Where the records of one token's managed keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordPlace {
    /// Label of the token.
    pub token: String,
    /// The file that they are in, if the token takes no data objects; none if they are data objects on the token.
    pub file: Option<PathBuf>,
}

/// Without the name: log lines are made of this.
impl std::fmt::Debug for KeyInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyInfo").field("id", &self.id).field("state", &self.state).finish_non_exhaustive()
    }
}

impl ManagedKeys<'_> {
    /// Every managed key that is known, destroyed ones too, by name and then by id.
    ///
    /// # Errors
    /// Of a token, if none could be read.
    ///
    /// # Blocking
    /// Until every token in service has been read.
    pub fn list(&self) -> Result<Vec<KeyInfo>> {
        crate::request::check_not_forked()?;
        self.shared.find_catalogue()?;
        let catalogue = self.shared.ledger.catalogue.read();
        let mut keys = catalogue
            .keys()
            .map(|key| info(key, catalogue.aliases_of(key.number)))
            .collect::<Result<Vec<_>>>()?;
        // The audit log's own is nobody's to ask for.
        keys.retain(|key| key.name != SIGNER);
        keys.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        Ok(keys)
    }

    /// What is known of one key.
    ///
    /// # Errors
    /// `KeyNotFound`; `KeyAmbiguous`.
    pub fn info<'n>(&self, key: impl Into<KeyName<'n>>) -> Result<KeyInfo> {
        crate::request::check_not_forked()?;
        let managed = self.shared.find_managed(&key.into())?;
        let aliases = self.shared.ledger.catalogue.read().aliases_of(managed.number);
        info(&managed, aliases)
    }

    /// The public key of the audit log's checkpoints ([`Builder::audit`](crate::Builder::audit)), as SubjectPublicKeyInfo in DER
    /// (RFC 5280, 4.1.2.7): what [`AuditLog`](crate::AuditLog) and `hsmux audit verify` take.
    ///
    /// # Errors
    /// `KeyNotFound`, if no engine with a log was ever built on these tokens.
    pub fn audit_public_key(&self) -> Result<Vec<u8>> {
        crate::request::check_not_forked()?;
        self.shared.find_catalogue()?;
        let found = self.shared.ledger.catalogue.read().by_name(SIGNER)?;
        let missing = || {
            Error::refused(ErrorKind::KeyNotFound, "no engine with an audit log was built on these tokens")
        };
        let managed = found.ok_or_else(missing)?;
        let version = self.shared.primary_of(&managed)?;
        let public = version.facts.public.as_ref();
        spki_der(public.ok_or_else(|| Error::internal("a key of an elliptic curve without a public half"))?)
    }

    /// Where the records of each token in service are. Those of a token that has none are wherever its first one goes: on the
    /// token if it takes data objects, else in the [state directory](crate::Builder::state_dir). That is settled then, for
    /// every engine: the token itself says so.
    ///
    /// # Errors
    /// As [`ManagedKeys::list`].
    pub fn record_places(&self) -> Result<Vec<RecordPlace>> {
        crate::request::check_not_forked()?;
        self.shared.find_catalogue()?;
        let place = |token: usize| RecordPlace {
            token: self.shared.tokens[token].info.label.clone(),
            file: self.shared.ledger.view(token).file.clone(),
        };
        Ok(self.shared.serving().map(place).collect())
    }

    /// Records of the catalogue that are not believed: with a wrong MAC, or of another format. They are left alone.
    ///
    /// # Errors
    /// As [`ManagedKeys::list`].
    pub fn refused_records(&self) -> Result<Vec<RefusedRecord>> {
        crate::request::check_not_forked()?;
        self.shared.find_catalogue()?;
        let mut refused = Vec::new();
        for &token in &self.shared.ledger.order {
            let label = &self.shared.tokens[token].info.label;
            refused.extend(self.shared.ledger.view(token).refused.iter().map(|it| RefusedRecord {
                token: label.clone(),
                label: it.label.clone(),
                why: it.why,
            }));
        }
        Ok(refused)
    }
}

fn info(managed: &Managed, aliases: Vec<String>) -> Result<KeyInfo> {
    managed.of_record(|key: &KeyRecord| KeyInfo {
        id: managed.id.clone(),
        name: key.terms.name.clone(),
        group: key.terms.group.clone(),
        tenant: key.terms.tenant,
        spec: key.terms.spec.clone(),
        algorithms: key.terms.algorithms.clone(),
        host_modes: key.terms.host_modes,
        state: key.state_at(unix_now()),
        destroy_at: key.destroy_at.map(time),
        active_from: key.terms.active_from.map(time),
        active_until: key.terms.active_until.map(time),
        rotate_every: key.terms.rotate_every.map(Duration::from_secs),
        versions: key.versions.iter().map(version_info).collect(),
        aliases,
    })
}

fn version_info(version: &VersionRecord) -> KeyVersionInfo {
    KeyVersionInfo {
        version: version.version,
        object: version.object.to_string(),
        created: time(version.created),
        origin: version.origin,
    }
}

/// A second of Unix time; what is too far away is its beginning.
fn time(seconds: u64) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).unwrap_or(UNIX_EPOCH)
}
