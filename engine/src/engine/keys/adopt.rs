//! Keys that other tools have made become managed ones.

use std::sync::Arc;

use super::ManagedKeys;
use crate::engine::Shared;
use crate::engine::audit::Recorded;
use crate::engine::ledger::unix_now;
use crate::error::{Error, ErrorKind, Result};
use crate::keys::Found;
use crate::keys::catalogue::record::{KeyOrigin, Subject, Terms, VersionRecord};
use crate::keys::hex::HexBytes;
use crate::keys::identity::proof_by;
use crate::keys::key_config::{KeyConfig, check_name};
use crate::keys::key_id::{KeyId, KeyNumber};
use crate::keys::name::KeyName;

impl ManagedKeys<'_> {
    /// Makes a managed key of one that another tool has made, as its first version, and returns its identifier. From then on it is
    /// asked for by its managed name or id only, and used for what the configuration says, whatever else its attributes allow.
    ///
    /// `key` is a label, a `CKA_ID` or a URI. The objects stay as they are; a `CKA_ID` they must have, the same on every token, for
    /// that is what the catalogue knows them by.
    ///
    /// # Errors
    /// As [`ManagedKeys::create`]; `KeyNotFound`; `KeyAmbiguous` if the key is managed already, or nothing shows that what several
    /// tokens hold is one key; `KeyMismatch` if it is not of the kind that the configuration says; `NotPermitted` if its
    /// attributes do not allow the purpose; `InvalidInput` without a `CKA_ID`, or with different ones.
    pub fn adopt<'n>(&self, key: impl Into<KeyName<'n>>, name: &str, config: &KeyConfig) -> Result<KeyId> {
        crate::request::check_not_forked()?;
        check_name(name)?;
        let terms = self.shared.terms_of(name, config)?;
        let note = |record: &mut Recorded| record.note_terms(&terms);
        let mut record = self.shared.begin_change("adopt-key", &self.label(), note)?;
        let adopted = self.shared.adopt(&key.into(), terms, config, &mut record);
        record.end(adopted)
    }
}

impl Shared {
    fn adopt(
        self: &Arc<Self>,
        key: &KeyName<'_>,
        terms: Terms,
        config: &KeyConfig,
        record: &mut Recorded,
    ) -> Result<KeyId> {
        let (shared, name) = (self, terms.name.clone());
        let number = KeyNumber::new(shared.draw()?);
        // Without objects: nothing goes if this ends half-way.
        let change =
            shared.claim(vec![Subject::Key(number), Subject::Name(name.clone())], Vec::new(), record)?;
        shared.check_name_is_free(&name)?;
        shared.objects(key)?;
        let found = Found::find(key, &shared.tokens, &shared.listings)?;
        shared.check_not_managed(&found)?;
        record.of_object(found.uri());
        found.check_same(&shared.tokens)?;
        let version = shared.version_as_found(&found, config)?;
        shared.record_new(&change, number, terms, version, record)
    }

    fn version_as_found(&self, found: &Found, config: &KeyConfig) -> Result<VersionRecord> {
        let refuse = |kind, why: &'static str| Err(Error::refused(kind, why));
        let Some((first, listed)) = found.held().next() else {
            return refuse(ErrorKind::KeyNotFound, "no token holds it");
        };
        if listed.id.is_empty() || found.held().any(|(_, other)| other.id != listed.id) {
            return refuse(ErrorKind::InvalidInput, "the key needs a CKA_ID, the same on every token");
        }
        if !config.spec.is_kind(config.spec.sized(listed.facts.kind)) {
            return refuse(ErrorKind::KeyMismatch, "the key is of another kind or size");
        }
        if !config.spec.is_allowed_by(&listed.facts) {
            return refuse(ErrorKind::NotPermitted, "its attributes do not allow what it would be for");
        }
        // By its CKA_ID alone it must be found again.
        Found::find(&KeyName::id(&listed.id), &self.tokens, &self.listings)?;
        let (holder, of) = (Arc::clone(&self.tokens[first]), listed.clone());
        let proof =
            self.tokens[first].with_objects(listed.epoch, move |session| proof_by(session, &holder, &of))?;
        Ok(VersionRecord {
            version: 1,
            object: HexBytes(listed.id.clone()),
            created: unix_now(),
            origin: KeyOrigin::Adopted,
            proof: proof.map(|proof| HexBytes(proof.as_bytes().to_vec())),
            destroyed: false,
            messages: 0,
        })
    }
}
