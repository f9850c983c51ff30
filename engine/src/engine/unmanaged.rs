//! Keys that the catalogue knows nothing of: made on one token, and destroyed wherever they are.

use std::sync::Arc;

use super::audit::Recorded;
use super::{Engine, Shared};
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::keys::catalogue::store::is_sealer;
use crate::keys::generate::{KeySpec, generate};
use crate::keys::{Found, KeyVersion};
use crate::pkcs11::{self, Fault, ObjectHandle};
use crate::request::{Label, check_not_forked};

impl Engine {
    /// Generates a key under a new name, on the first token only: a private, sensitive token key that cannot be
    /// extracted.
    ///
    /// With several [instances](crate::Builder::instances) one of them makes it and the key is used in all.
    ///
    /// # Errors
    /// `KeyAmbiguous` if the token has a key of this name; `InvalidInput` for the names that the engine uses itself; `Busy` if another instance does not come to a standstill;
    /// what the token answers.
    ///
    /// # Blocking
    /// Until the token has made the key: seconds for large RSA keys; and for the first key of a block cipher of its type and
    /// length until a self-test is over ([`Builder::coalescing`](crate::Builder::coalescing)).
    pub fn generate_key(&self, name: &str, spec: KeySpec) -> Result<Key> {
        check_not_forked()?;
        if is_sealer(name.as_bytes()) {
            return Err(Error::refused(ErrorKind::InvalidInput, "the engine keeps this name for itself"));
        }
        let note = |record: &mut Recorded| {
            record.note("name", name);
            record.note("spec", spec.to_string());
        };
        let mut record = self.shared.begin_change("generate-key", &Label::default(), note)?;
        record.runs_on(0);
        let made = self.shared.generate_unmanaged(name, spec, &mut record);
        record.end(made)
    }

    /// Destroys the key of this name on every token that holds it, for ever. Requests in flight on it fail. The keys
    /// are listed before, so those that others have made are destroyed too.
    ///
    /// # Errors
    /// `KeyNotFound`; `KeyAmbiguous` if a token holds several of this name, or if several tokens hold one and it is not
    /// proven to be the same (an engine on one of them destroys its own): then none is destroyed; `Busy` as
    /// [`Engine::generate_key`]; what a token answers, after which other tokens may have destroyed theirs.
    ///
    /// # Blocking
    /// Until every token has answered.
    pub fn destroy_key(&self, name: &str) -> Result<()> {
        check_not_forked()?;
        let note = |record: &mut Recorded| record.note("name", name);
        let mut record = self.shared.begin_change("destroy-key", &Label::default(), note)?;
        let destroyed = self.shared.destroy_unmanaged(name, &mut record);
        record.end(destroyed)
    }
}

impl Shared {
    fn generate_unmanaged(self: &Arc<Self>, name: &str, spec: KeySpec, record: &mut Recorded) -> Result<Key> {
        let (shared, listing) = (self, &self.listings[0]);
        // Until it is known to be the only one of its name.
        let pass = Arc::new(shared.tokens[0].pass_gate()?);
        let holds = || listing.read().find(&name.into()).map(|found| found.is_some());
        let is_taken = || !matches!(holds(), Ok(false));
        if is_taken() {
            // As far as is known here: it may have been destroyed elsewhere.
            shared.list_now(0)?;
        }
        if is_taken() {
            return Err(Error::operator(ErrorKind::KeyAmbiguous, "the token has a key of this name"));
        }
        let wanted = name.to_owned();
        let generate =
            move |session: &mut pkcs11::Session, epoch| Ok((generate(session, &wanted, spec)?, epoch));
        let (made, epoch) = shared.write_unlisted(0, None, &pass, generate)?;
        record.has_changed();
        shared.list_written(0)?;
        let found = holds();
        if !matches!(found, Ok(true)) {
            // Another process has made a key of this name at the same time: ours goes.
            let destroy =
                move |session: &mut pkcs11::Session, _| Ok(destroy(session, made.key, made.public)??);
            shared.write_unlisted(0, Some(epoch), &pass, destroy)?;
            record.is_undone();
            shared.list_written(0)?;
            found?;
            return Err(Error::internal("a generated key cannot be found"));
        }
        let found = Found::find_on(&name.into(), 0, &shared.tokens, &shared.listings)?;
        record.of_object(found.uri());
        let version = KeyVersion::load(&found, &shared.tokens, shared.copies)?;
        let version = shared.keys.replace(found.objects(), version);
        Ok(Key::new(shared, version))
    }

    /// What is to be destroyed under a name: one key, which is not managed.
    fn found_to_destroy(self: &Arc<Self>, name: &str) -> Result<Found> {
        let shared = self;
        let holds = |index: usize| !matches!(shared.listings[index].read().find(&name.into()), Ok(None));
        for index in 0..shared.tokens.len() {
            // So that nothing is destroyed by a handle that has become another key's.
            shared.list_now(index).or_else(|error| if holds(index) { Err(error) } else { Ok(()) })?;
        }
        let found = Found::find(&name.into(), &shared.tokens, &shared.listings)?;
        if found.objects().is_empty() {
            return Err(Error::operator(ErrorKind::KeyNotFound, "nothing was destroyed"));
        }
        // As things stand now: another engine may have made a managed key of it.
        if shared.ledger.is_in_use() || shared.ledger.order.iter().any(|&token| shared.has_sealer(token)) {
            shared.find_catalogue()?;
        }
        shared.check_not_managed(&found)?;
        found.check_same(&shared.tokens)?;
        Ok(found)
    }

    fn destroy_unmanaged(self: &Arc<Self>, name: &str, record: &mut Recorded) -> Result<()> {
        let (shared, found) = (self, self.found_to_destroy(name)?);
        record.of_object(found.uri());
        for (index, listed) in found.held() {
            shared.core.end_holds(index);
            let (copies, original) = (Arc::clone(&shared.tokens[index].copies), listed.object);
            shared.tokens[index].with_objects(listed.epoch, move |session| {
                copies.drop_of(session, index, original);
                Ok(())
            })?;
        }
        let mut destroyed = Vec::new();
        for (index, listed) in found.held() {
            let pass = Arc::new(shared.tokens[index].pass_gate()?);
            // One instance destroys a token's key for all of them: those that had it listed do so no more.
            if !shared.listings[index].read().lists(listed.handle()) {
                continue;
            }
            if destroyed.is_empty() {
                record.runs_on(index);
            }
            let (object, public) = (listed.object, listed.public);
            // What is left after a failure is listed anew, too.
            let destroy = move |session: &mut pkcs11::Session, _| Ok(destroy(session, object, public));
            let done = shared.write_unlisted(index, Some(listed.epoch), &pass, destroy)?;
            if done.is_ok() {
                // Before anything else can fail: this cannot be undone.
                record.has_changed();
                destroyed.push(shared.tokens[index].info.serial.as_str());
                record.note("tokens", destroyed.join(" "));
            }
            shared.list_written(index)?;
            done??;
        }
        Ok(())
    }
}

/// Destroys a key, and then its public half, of which it is said apart how that ended.
fn destroy(
    session: &mut pkcs11::Session,
    key: ObjectHandle,
    public: Option<ObjectHandle>,
) -> std::result::Result<std::result::Result<(), Fault>, Fault> {
    session.destroy(key)?;
    Ok(public.map_or(Ok(()), |public| session.destroy(public)))
}
