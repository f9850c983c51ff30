//! Keys as a service, as callers see it: made from a configuration, named by an identifier, and kept through a life.

mod adopt;
mod create;
mod describe;
mod lease;
mod life;
pub(super) mod recover;

use std::sync::Arc;

use super::audit::SIGNER;
use super::{Engine, Shared};
use crate::audit::record::Text;
use crate::error::{Error, ErrorKind, Result};
use crate::keys::catalogue::record::KeyRecord;
use crate::keys::hex::HexBytes;
use crate::keys::identity::proof_by;
use crate::keys::key_id::KeyId;
use crate::keys::known::Objects;
use crate::keys::managed::Managed;
use crate::keys::name::KeyName;
use crate::keys::{Found, KeyVersion};
use crate::request::{Label, RequestId};

pub use describe::{KeyInfo, KeyVersionInfo, RecordPlace, RefusedRecord};

/// The managed keys of an engine: made by [`Engine::managed_keys`].
///
/// A managed key is made from a [`KeyConfig`](crate::KeyConfig) and known by a [`KeyId`](crate::KeyId), a name and any number of
/// aliases. It has a state, by which its uses are allowed or refused, and versions, of which new work uses the latest. Its
/// record lies in the tokens, as data objects with a MAC by a key that never leaves the token: nothing outside the HSM is
/// needed to use a key, and every engine on the same tokens sees the same keys. `engine/docs/catalogue.md` describes
/// the records.
///
/// # Tokens without data objects
/// The records of a token that takes no data objects are in a file, with the same MACs, in the
/// [state directory](crate::Builder::state_dir). All engines on such a token need that directory, and so are on one machine; without
/// it the first managed key is refused (`Configuration`), and so is every key of a token that has managed ones. What is lost with the
/// file is lost: save it. [`ManagedKeys::record_places`] says where the records are.
///
/// # Two writers
/// PKCS#11 has no compare-and-swap. Whoever changes a key says so on a token before and looks who else does; one of two
/// gets [`ErrorKind::Conflict`] and has changed nothing. What one engine changes holds in every other one within five
/// seconds, and at once in itself.
///
/// # Blocking
/// Every method but the listing ones blocks on the tokens: a dozen calls each, and the generation of a key.
#[derive(Clone, Copy)]
pub struct ManagedKeys<'a> {
    shared: &'a Arc<Shared>,
    /// For the audit log.
    caller: Option<&'a str>,
    request: Option<RequestId>,
}

impl Engine {
    /// The managed keys.
    #[must_use]
    pub const fn managed_keys(&self) -> ManagedKeys<'_> {
        ManagedKeys { shared: &self.shared, caller: None, request: None }
    }
}

impl<'a> ManagedKeys<'a> {
    /// Who changes keys, in the application's own words: what is changed by this is recorded in the audit log so.
    #[must_use]
    pub const fn for_caller(mut self, label: &'a str) -> Self {
        self.caller = Some(label);
        self
    }

    /// The application's own name for a change, in its record in the audit log.
    ///
    /// ```no_run
    /// # fn main() -> hsmux::Result<()> {
    /// # let engine = hsmux::Engine::builder().module("m").tokens(["t"]).pin("1234".to_owned()).build()?;
    /// engine.managed_keys().for_caller("j.doe").for_request("CHG-1207").rotate("card-signing")?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn for_request(mut self, id: impl Into<RequestId>) -> Self {
        self.request = Some(id.into());
        self
    }

    fn label(&self) -> Label {
        Label { id: self.request, caller: self.caller.map(Text::from) }
    }
}

impl std::fmt::Debug for ManagedKeys<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let keys = self.shared.ledger.catalogue.read().keys().count();
        f.debug_struct("ManagedKeys").field("keys", &keys).finish_non_exhaustive()
    }
}

/// Of an object that is a managed key's, asked for by its own name.
pub(super) fn asked_otherwise() -> Error {
    Error::refused(ErrorKind::KeyNotFound, "it is a managed key's: ask by that key's name or id")
}

impl Shared {
    /// As [`Shared::managed`]; an id that nobody has is looked for in the tokens too, at most once a second.
    pub(super) fn managed_or_read(self: &Arc<Self>, name: &KeyName<'_>) -> Result<Option<Arc<Managed>>> {
        match self.managed(name) {
            Err(error) if error.kind() == ErrorKind::KeyNotFound && self.reads_again() => self.managed(name),
            found => found,
        }
    }

    /// The managed key of this name, where the tokens' keys have been listed anew and show a catalogue that was not known.
    pub(super) fn managed_after_listing(
        self: &Arc<Self>,
        name: &KeyName<'_>,
    ) -> Result<Option<Arc<Managed>>> {
        if self.ledger.is_in_use() || !self.ledger.order.iter().any(|&token| self.has_sealer(token)) {
            return Ok(None);
        }
        super::keeper::open(self)?;
        self.managed(name)
    }

    /// # Errors
    /// `KeyNotFound`, if what was found belongs to a managed key, or to one that is being made; `Configuration` if that is not known,
    /// because a token that holds it has records that could not be read.
    pub(super) fn check_not_managed(&self, found: &Found) -> Result<()> {
        if self.is_of_managed(found) {
            return Err(asked_otherwise());
        }
        let is_unknown = |token: usize| {
            let first = self.tokens[token].first;
            self.has_sealer(token) && !self.ledger.view(first).is_read
        };
        match found.held().find(|(token, _)| is_unknown(*token)) {
            Some((token, _)) => {
                let label = &self.tokens[token].info.label;
                let text =
                    format!("the records of token {label} could not be read: the key may be a managed one");
                Err(Error::operator(ErrorKind::Configuration, text))
            }
            None => Ok(()),
        }
    }

    /// Whether what was found belongs to a managed key, or to one that is being made, as far as is known here.
    fn is_of_managed(&self, found: &Found) -> bool {
        let catalogue = self.ledger.catalogue.read();
        let is_managed = |id: &[u8]| catalogue.manages(id) || self.ledger.is_claimed(id);
        found.held().any(|(_, listed)| is_managed(&listed.id))
    }

    /// The managed key of this name, as far as is known here; none if the name is not one of a managed key.
    ///
    /// # Errors
    /// `KeyNotFound` for an id that nobody has; `KeyAmbiguous`.
    pub(super) fn managed(&self, name: &KeyName<'_>) -> Result<Option<Arc<Managed>>> {
        let catalogue = self.ledger.catalogue.read();
        let found = match (name.managed_id(), name.plain_label()) {
            (Some(id), _) => catalogue.by_id(id).map(Some),
            (None, Some(label)) => catalogue.by_name(label),
            (None, None) => Ok(None),
        }?;
        match &found {
            // Whoever had it could sign checkpoints of his own.
            Some(managed) if managed.of_record(|key| key.terms.name == SIGNER)? => {
                Err(Error::refused(ErrorKind::KeyNotFound, "it is the audit log's own"))
            }
            _ => Ok(found),
        }
    }

    /// A version of a managed key, ready for use.
    ///
    /// # Errors
    /// `KeyNotFound` if there is no such version, or its objects are not on the tokens; `KeyState` if the key is destroyed;
    /// `KeyAmbiguous` if what lies there is not the key that was made.
    pub(super) fn version_of(&self, managed: &Managed, number: u32) -> Result<Arc<KeyVersion>> {
        managed.check_lives()?;
        if let Some(version) = managed.loaded(number) {
            return Ok(version);
        }
        let found = managed.of_record(|key| key.version(number).cloned())?;
        let Some(record) = found else {
            return Err(Error::refused(ErrorKind::KeyNotFound, "the key has no such version"));
        };
        let name = KeyName::id(&record.object.0);
        // Lists the tokens' keys anew where they are not found: another engine may have just made them.
        self.objects(&name)?;
        let tie = managed.tie(number, super::ledger::unix_now())?;
        let found = Found::find(&name, &self.tokens, &self.listings)?.shaped(tie.spec);
        // The record, which only this token's PIN can have written, vouches for the objects that it names.
        let version = KeyVersion::load_vouched(&found, &self.tokens, self.copies, true)?;
        self.check_proof(&version, &found, record.proof.as_ref())?;
        if let Some(count) = &tie.messages {
            version.handles.count_messages(Arc::clone(count));
        }
        let version = Arc::new(version.tied(tie));
        if managed.of_record(|key| key.terms.host_modes)? && !self.validated_only {
            version.allow_host_modes()?;
        }
        let version = managed.keep(number, &version);
        self.keys.remember_shared(found.objects(), &version);
        // What has changed meanwhile holds for this one too.
        self.apply(managed, super::ledger::unix_now());
        Ok(version)
    }

    /// The managed key of this id.
    pub(crate) fn managed_by_id(self: &Arc<Self>, id: &KeyId) -> Result<Arc<Managed>> {
        crate::request::check_not_forked()?;
        let missing = || Error::refused(ErrorKind::KeyNotFound, "no key has this id");
        self.managed_or_read(&id.into())?.ok_or_else(missing)
    }

    /// A version of the managed key of this id.
    pub(crate) fn version_by_id(self: &Arc<Self>, id: &KeyId, number: u32) -> Result<Arc<KeyVersion>> {
        let managed = self.managed_by_id(id)?;
        self.version_of(&managed, number)
    }

    /// Reads the catalogue of tokens that have one by now, if none was known.
    /// Fails if it cannot be read: keys of a catalogue that is not known are not to be had by their objects.
    pub(super) fn open_catalogue(self: &Arc<Self>) -> Result<()> {
        let has_one = || self.ledger.order.iter().any(|&token| self.has_sealer(token));
        match self.ledger.is_in_use() || has_one() {
            true => self.find_catalogue(),
            false => Ok(()),
        }
    }

    /// Whether objects that a plain name leads to have become a managed key's since they were loaded.
    pub(super) fn is_managed(&self, objects: &Objects, name: &KeyName<'_>) -> Result<bool> {
        if !self.ledger.is_in_use() || objects.is_empty() {
            return Ok(false);
        }
        let found = Found::find(name, &self.tokens, &self.listings)?;
        Ok(self.is_of_managed(&found))
    }

    /// Whether what was loaded is the key that was made. On one token alone nothing has asked a secret key yet.
    fn check_proof(&self, version: &KeyVersion, found: &Found, was: Option<&HexBytes>) -> Result<()> {
        let Some(was) = was else { return Ok(()) };
        let shown = match (version.proof(), found.held().next()) {
            (Some(proof), _) => Some(proof.to_vec()),
            (None, Some((token, listed))) => {
                let (holder, of) = (Arc::clone(&self.tokens[token]), listed.clone());
                let proof = self.tokens[token]
                    .with_objects(listed.epoch, move |session| proof_by(session, &holder, &of))?;
                proof.map(|proof| proof.as_bytes().to_vec())
            }
            (None, None) => None,
        };
        match shown {
            Some(is) if is != was.0 => {
                let text = "what lies on the token is not the key that was made";
                Err(Error::operator(ErrorKind::KeyAmbiguous, text))
            }
            _ => Ok(()),
        }
    }

    /// The version of a managed key that new work uses.
    pub(super) fn primary_of(&self, managed: &Managed) -> Result<Arc<KeyVersion>> {
        let version = self.version_of(managed, managed.of_record(KeyRecord::primary)?)?;
        if let Err(error) = self.lease_messages(managed) {
            // It decrypts all the same.
            tracing::warn!(%error, "a key cannot encrypt before its messages can be counted");
        }
        Ok(version)
    }

    /// A managed key by name, for those who change it: read anew if it is not known.
    pub(super) fn find_managed(self: &Arc<Self>, name: &KeyName<'_>) -> Result<Arc<Managed>> {
        match self.managed(name) {
            Ok(Some(managed)) => return Ok(managed),
            Err(error) if error.kind() != ErrorKind::KeyNotFound => return Err(error),
            _ => self.find_catalogue()?,
        }
        let missing = || Error::refused(ErrorKind::KeyNotFound, "no managed key has this name");
        self.managed(name)?.ok_or_else(missing)
    }
}
