//! What others have left half-done, and what tokens have missed: found, and finished or undone.

use std::collections::HashSet;
use std::sync::Arc;

use cryptoki::object::{Attribute, ObjectClass};

use crate::engine::Shared;
use crate::error::{Error, ErrorKind, Result};
use crate::keys::catalogue::claim::Claim;
use crate::keys::catalogue::record::KeyRecord;
use crate::keys::managed::Managed;
use crate::pkcs11::Session;
use crate::token::SERVICE_LIMIT;
use crate::token::gate::Pass;

impl Shared {
    /// Reads the catalogue and brings the tokens in service to what it says: objects that a change has made which is over, and that
    /// no record names, go; so do those of keys that are destroyed; records that a token lacks are written there.
    ///
    /// # Errors
    /// What a token answers; then the rest is done the next time.
    pub(crate) fn recover(self: &Arc<Self>) -> Result<()> {
        let serving: Vec<_> = self.serving().collect();
        let read =
            || serving.iter().try_for_each(|&token| self.at_shelf(token, SERVICE_LIMIT, |_, _, _| Ok(())));
        read()?;
        let over = self.claims_that_are_over();
        // Whoever has ended has written all that he ever will: only what is read from now on says what it was. Every token in
        // service has to be read for that.
        if !over.is_empty() {
            read()?;
        }
        serving.iter().try_for_each(|&token| self.bring_up_to_date(token))?;
        self.undo(over, &serving)?;
        let keys: Vec<_> = self.ledger.catalogue.read().keys().map(Arc::clone).collect();
        keys.iter()
            .filter(|managed| managed.is_to_be_destroyed())
            .try_for_each(|managed| self.finish_destruction(managed))
    }

    fn claims_that_are_over(&self) -> Vec<Arc<Claim>> {
        let mut over: Vec<Arc<Claim>> = Vec::new();
        for token in self.serving() {
            let view = self.ledger.view(token);
            let of_token = view.claims.iter().filter(|claim| self.ledger.is_over(claim));
            over.extend(of_token.filter(|claim| !over.contains(claim)).map(Arc::clone).collect::<Vec<_>>());
        }
        over
    }

    /// Destroys what changes have made that are over, unless a record names it; then takes their claims away.
    fn undo(self: &Arc<Self>, over: Vec<Arc<Claim>>, serving: &[usize]) -> Result<()> {
        if over.is_empty() {
            return Ok(());
        }
        let named = self.named_objects();
        let made = over.iter().flat_map(|claim| &claim.objects).map(|object| object.0.clone());
        let orphans: Vec<_> = made.filter(|object| !named.contains(object)).collect();
        if !orphans.is_empty() {
            // On the tokens themselves: what a listing of before does not show may be there.
            serving.iter().try_for_each(|&token| self.destroy_on(token, &orphans))?;
        }
        // Where a token is away it may hold some: the claims keep their names until it is back.
        if orphans.is_empty() || serving.len() == self.ledger.order.len() {
            serving.iter().try_for_each(|&token| self.remove_claims(token, over.clone()))?;
        }
        Ok(())
    }

    /// `CKA_ID`s that records name.
    fn named_objects(&self) -> HashSet<Vec<u8>> {
        let catalogue = self.ledger.catalogue.read();
        let keys = catalogue.latest().values().filter_map(|entry| entry.key());
        keys.flat_map(|(_, key)| &key.versions).map(|version| version.object.0.clone()).collect()
    }

    /// Writes the records that a token lacks.
    fn bring_up_to_date(&self, token: usize) -> Result<()> {
        let latest: Vec<_> = self.ledger.catalogue.read().latest().values().map(Arc::clone).collect();
        let view = self.ledger.view(token);
        let has = |hash| view.records.iter().any(|entry| entry.hash == hash);
        latest.iter().filter(|entry| !has(entry.hash)).try_for_each(|entry| self.put_record(token, entry))
    }

    /// Destroys the objects of a key that is destroyed, on every token in service, and writes down that they are gone once that
    /// is so on all: from then on their `CKA_ID`s may be others'.
    pub(super) fn finish_destruction(self: &Arc<Self>, managed: &Managed) -> Result<()> {
        let ids = managed.of_record(left_to_destroy)?;
        let serving: Vec<_> = self.serving().collect();
        serving.iter().try_for_each(|&token| self.destroy_on(token, &ids))?;
        if ids.is_empty() || serving.len() < self.ledger.order.len() {
            return Ok(());
        }
        match self.write_destroyed(managed) {
            // Destroyed it is, by its record, and its objects are gone. Another engine is about to write that down, or who looks
            // next does: to whoever destroys it `Conflict` would say that nothing was changed.
            Err(error) if error.kind() == ErrorKind::Conflict => Ok(()),
            written => written,
        }
    }

    fn destroy_on(&self, token: usize, ids: &[Vec<u8>]) -> Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        let pass = Arc::new(self.tokens[token].pass_gate()?);
        self.destroy_objects(token, &pass, ids.to_vec())
    }

    /// Destroys every object of these `CKA_ID`s on a token, listed or not, and makes sure that none is left.
    pub(super) fn destroy_objects(&self, token: usize, pass: &Arc<Pass>, ids: Vec<Vec<u8>>) -> Result<()> {
        self.core.end_holds(token);
        self.write(token, None, pass, move |session, _| ids.iter().try_for_each(|id| destroy(session, id)))
    }

    /// A token has come back: its shelf is read, and keys that were destroyed meanwhile go before it serves. On its service thread.
    pub(crate) fn reconcile(&self, token: usize, session: &mut Session, epoch: u64) -> Result<()> {
        if !self.ledger.is_in_use() || self.tokens[token].first != token {
            return Ok(());
        }
        if let Err(error) = self.read_shelf(token, session, epoch) {
            // A file that cannot be read is not the token's fault: what is known goes on, and nothing else is loaded.
            let has_file = self.ledger.view(token).file.is_some();
            let is_of_file =
                error.kind() == ErrorKind::Configuration || error.kind() == ErrorKind::Busy && has_file;
            if !is_of_file {
                return Err(error);
            }
            tracing::warn!(token, %error, "a token has come back, and its records of keys could not be read");
        }
        let keys: Vec<_> = self.ledger.catalogue.read().keys().map(Arc::clone).collect();
        for managed in keys.iter().filter(|managed| managed.is_to_be_destroyed()) {
            let ids = managed.of_record(left_to_destroy)?;
            ids.iter().try_for_each(|id| destroy(session, id))?;
        }
        Ok(())
    }
}

/// `CKA_ID`s of what is destroyed, and not known to be gone from every token.
fn left_to_destroy(key: &KeyRecord) -> Vec<Vec<u8>> {
    let left = key.versions.iter().filter(|version| !version.destroyed);
    left.map(|version| version.object.0.clone()).collect()
}

/// Destroys every key of this `CKA_ID`, and looks whether they are gone: modules have said so of what was still there. Certificates
/// and data of the same id are nobody's keys.
fn destroy(session: &mut Session, id: &[u8]) -> Result<()> {
    for class in [ObjectClass::PRIVATE_KEY, ObjectClass::SECRET_KEY, ObjectClass::PUBLIC_KEY] {
        let template = [Attribute::Class(class), Attribute::Token(true), Attribute::Id(id.to_vec())];
        for object in session.find(&template)? {
            match session.destroy(object).map_err(Error::from) {
                Err(error) if error.kind() != ErrorKind::KeyNotFound => return Err(error),
                _ => {}
            }
        }
        if !session.find(&template)?.is_empty() {
            return Err(Error::operator(ErrorKind::Device, "a key is still there after it was destroyed"));
        }
    }
    Ok(())
}
