//! What others have left half-done, and what tokens have missed: found, and finished or undone.

use std::collections::HashSet;
use std::sync::Arc;

use cryptoki::object::Attribute;

use crate::engine::Shared;
use crate::error::{Error, ErrorKind, Result};
use crate::keys::state::KeyState;
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
        self.read_catalogue(SERVICE_LIMIT)?;
        let serving: Vec<_> = self.serving().collect();
        let all_serve = serving.len() == self.ledger.order.len();
        let (named, gone) = self.named_objects();
        for &token in &serving {
            self.bring_up_to_date(token)?;
            let view = self.ledger.view(token);
            let over: Vec<_> =
                view.claims.iter().filter(|claim| self.ledger.is_over(claim)).cloned().collect();
            let made = over.iter().flat_map(|claim| &claim.objects).map(|object| object.0.clone());
            let orphans: Vec<_> = made.filter(|object| !named.contains(object)).collect();
            for &holder in &serving {
                self.destroy_all(holder, &orphans)?;
            }
            // Where a token is away it may hold some: the claim keeps their names until it is back.
            if !over.is_empty() && (all_serve || orphans.is_empty()) {
                self.remove_claims(token, over)?;
            }
            self.destroy_all(token, &gone)?;
        }
        self.fold_leases()
    }

    /// `CKA_ID`s that records name: of versions that live, and of those that are destroyed.
    fn named_objects(&self) -> (HashSet<Vec<u8>>, Vec<Vec<u8>>) {
        let (mut named, mut gone) = (HashSet::new(), Vec::new());
        for entry in self.ledger.catalogue.read().latest().values() {
            let Some((_, key)) = entry.key() else { continue };
            for version in &key.versions {
                match key.state == KeyState::Destroyed || version.destroyed {
                    true => gone.push(version.object.0.clone()),
                    false => drop(named.insert(version.object.0.clone())),
                }
            }
        }
        (named, gone)
    }

    /// Writes the records that a token lacks.
    fn bring_up_to_date(&self, token: usize) -> Result<()> {
        let latest: Vec<_> = self.ledger.catalogue.read().latest().values().map(Arc::clone).collect();
        let view = self.ledger.view(token);
        let has = |hash| view.records.iter().any(|entry| entry.hash == hash);
        latest.iter().filter(|entry| !has(entry.hash)).try_for_each(|entry| self.put_record(token, entry))
    }

    /// Destroys every object of these `CKA_ID`s that a token lists.
    fn destroy_all(&self, token: usize, ids: &[Vec<u8>]) -> Result<()> {
        let listed: Vec<_> = {
            let listing = self.listings[token].read();
            let held: HashSet<_> = listing.keys().map(|(_, listed)| listed.id.as_slice()).collect();
            ids.iter().filter(|id| held.contains(id.as_slice())).cloned().collect()
        };
        match listed.is_empty() {
            true => Ok(()),
            false => {
                let pass = Arc::new(self.tokens[token].pass_gate()?);
                self.destroy_objects(token, &pass, listed)
            }
        }
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
        self.read_shelf(token, session, epoch)?;
        let (_, gone) = self.named_objects();
        let listed: HashSet<Vec<u8>> =
            self.listings[token].read().keys().map(|(_, listed)| listed.id.clone()).collect();
        gone.iter().filter(|id| listed.contains(*id)).try_for_each(|id| destroy(session, id))
    }
}

/// Destroys every object of this `CKA_ID`, and looks whether they are gone: modules have said so of what was still there.
fn destroy(session: &mut Session, id: &[u8]) -> Result<()> {
    let of_id = [Attribute::Id(id.to_vec())];
    for object in session.find(&of_id)? {
        match session.destroy(object).map_err(Error::from) {
            Err(error) if error.kind() != ErrorKind::KeyNotFound => return Err(error),
            _ => {}
        }
    }
    match session.find(&of_id)?.is_empty() {
        true => Ok(()),
        false => Err(Error::operator(ErrorKind::Device, "a key is still there after it was destroyed")),
    }
}
