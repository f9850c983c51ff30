//! Making a managed key, or its next version: on one token in place, on several by way of a session.

use std::sync::Arc;

use cryptoki::object::Attribute;

use super::ManagedKeys;
use crate::engine::Shared;
use crate::engine::audit::Recorded;
use crate::engine::ledger::{Change, unix_now};
use crate::error::{Error, ErrorKind, Outcome, Result, Retry};
use crate::keys::Found;
use crate::keys::catalogue::record::{Content, KeyOrigin, KeyRecord, Record, Subject, Terms, VersionRecord};
use crate::keys::generate::{KeySpec, Making};
use crate::keys::hex::HexBytes;
use crate::keys::identity::proof_by;
use crate::keys::key_config::{KeyConfig, check_name};
use crate::keys::key_id::{KeyId, KeyNumber};
use crate::keys::name::KeyName;
use crate::keys::state::KeyState;
use crate::keys::transport::{self, Half, Parcel, own_carrier};
use crate::token::SERVICE_LIMIT;

impl ManagedKeys<'_> {
    /// Makes a key under a new name, on every token of the engine, and returns its identifier.
    ///
    /// On one token it is generated in place. On several it is generated in a session of the first, wrapped under keys that the
    /// tokens agree on, and unwrapped on each, where it is sensitive and unextractable from the first; [`KeyOrigin`] says
    /// what its attributes can prove then.
    ///
    /// # Errors
    /// `InvalidInput` for a name or configuration that cannot be; `KeyAmbiguous` if a managed key or an alias has the name;
    /// `Conflict`; `TokenLost` if a token is not in service, for a key cannot be given to one later; `MechanismUnavailable`;
    /// what a token answers. Nothing is left behind then, or it is taken away by the next engine that finds it.
    ///
    /// # Blocking
    /// Until every token has it: seconds for large RSA keys.
    pub fn create(&self, name: &str, config: &KeyConfig) -> Result<KeyId> {
        crate::request::check_not_forked()?;
        check_name(name)?;
        let terms = self.shared.terms_of(name, config)?;
        let note = |record: &mut Recorded| record.note_terms(&terms);
        let mut record = self.shared.begin_change("create-key", &self.label(), note)?;
        let made = self.shared.create_key(terms, &mut record);
        record.end(made)
    }
}

impl Shared {
    /// What is settled of a key of this name that is to be made or adopted now.
    ///
    /// # Errors
    /// `InvalidInput`.
    pub(in crate::engine) fn terms_of(&self, name: &str, config: &KeyConfig) -> Result<Terms> {
        config.terms(name, &self.ledger.group, unix_now())
    }

    /// Makes a key, of whatever name.
    pub(in crate::engine) fn create_key(
        self: &Arc<Self>,
        terms: Terms,
        record: &mut Recorded,
    ) -> Result<KeyId> {
        let (shared, spec) = (self, terms.spec.parse()?);
        shared.check_all_serve(spec)?;
        let number = KeyNumber::new(shared.draw()?);
        let making = shared.making(number, 1, &terms.name, terms.limits()?)?;
        let subjects = vec![Subject::Key(number), Subject::Name(terms.name.clone())];
        let change = shared.claim(subjects, vec![HexBytes(making.id.clone())], record)?;
        shared.check_name_is_free(&terms.name)?;
        let made = shared.make(&change, &making, spec);
        let created = made.and_then(|version| shared.record_new(&change, number, terms, version, record));
        shared.settle(change, created)
    }
}

impl Shared {
    pub(super) fn check_all_serve(&self, spec: KeySpec) -> Result<()> {
        let order = &self.ledger.order;
        if self.serving().count() < order.len() {
            let text = "a key is made on every token, and one is out of service";
            return Err(Error::new(ErrorKind::TokenLost, Retry::Later, Outcome::NotDone).because(text));
        }
        match order.len() {
            1 => Ok(()),
            _ => order.iter().try_for_each(|&token| transport::check(&self.tokens[token], spec)),
        }
    }

    /// Random bytes of a token.
    pub(super) fn draw<const N: usize>(&self) -> Result<[u8; N]> {
        let token = self.serving().next().ok_or_else(|| Error::internal("no token serves"))?;
        self.tokens[token].consult(SERVICE_LIMIT, |session, _| {
            let mut bytes = [0; N];
            session.random(&mut bytes)?;
            Ok(bytes)
        })
    }

    /// How the objects of a version are made. Their `CKA_ID` is that of no others, also if an attempt is made twice.
    pub(super) fn making(
        &self,
        number: KeyNumber,
        version: u32,
        name: &str,
        limits: Vec<Attribute>,
    ) -> Result<Making> {
        let mut id = number.as_bytes().to_vec();
        id.extend(version.to_be_bytes());
        id.extend(self.draw::<4>()?);
        Ok(Making { label: name.as_bytes().to_vec(), id, limits, to_carry: false })
    }

    pub(super) fn check_name_is_free(&self, name: &str) -> Result<()> {
        match self.ledger.catalogue.read().by_name(name) {
            Ok(None) => Ok(()),
            _ => Err(Error::operator(ErrorKind::KeyAmbiguous, "a managed key or an alias has this name")),
        }
    }

    /// Makes the objects of a version on every token.
    pub(super) fn make(&self, change: &Change<'_>, making: &Making, spec: KeySpec) -> Result<VersionRecord> {
        let origin = match self.ledger.order[..] {
            [token] => {
                let wanted = making.clone();
                self.write(token, None, &change.pass, move |session, _| {
                    Ok(wanted.generate(session, spec)?.key)
                })?;
                KeyOrigin::Generated
            }
            _ => {
                self.make_on_all(change, making, spec)?;
                KeyOrigin::Transported
            }
        };
        let proof = self.prove(making)?;
        let version = u32::from_be_bytes(making.id[16..20].try_into().unwrap_or_default());
        let object = HexBytes(making.id.clone());
        Ok(VersionRecord {
            version,
            object,
            created: unix_now(),
            origin,
            proof,
            destroyed: false,
            messages: 0,
        })
    }

    /// Has every token hold one key: made in a session of the arbiter, and carried to all of them.
    fn make_on_all(&self, change: &Change<'_>, making: &Making, spec: KeySpec) -> Result<()> {
        let source = change.arbiter;
        let to_carry = Making { to_carry: true, limits: Vec::new(), ..making.clone() };
        let (made, epoch) = self.tokens[source]
            .with_service(move |session, epoch| Ok((Arc::new(to_carry.generate(session, spec)?), epoch)))?;
        let carried = self.ledger.order.iter().try_for_each(|&target| {
            let made = Arc::clone(&made);
            match target == source {
                true => self.make_on_source(change, (made, epoch), making, spec),
                false => self.carry(source, target, (made, epoch), making, spec),
            }
        });
        let gone = self.tokens[source].with_objects(epoch, move |session| {
            session.destroy(made.key)?;
            Ok(made.public.map_or(Ok(()), |public| session.destroy(public))?)
        });
        // A session object: it goes with the service session at the latest, and was never on a token.
        carried.and(gone.or_else(|error| match error.kind() {
            ErrorKind::KeyNotFound => Ok(()),
            _ => Err(error),
        }))
    }

    fn make_on_source(
        &self,
        change: &Change<'_>,
        (made, epoch): (Arc<crate::keys::generate::Generated>, u64),
        making: &Making,
        spec: KeySpec,
    ) -> Result<()> {
        let (making, number) = (making.clone(), transport::wrapping(&self.tokens[change.arbiter])?);
        self.write(change.arbiter, Some(epoch), &change.pass, move |session, _| {
            let carrier = own_carrier(session)?;
            let parcel = Parcel::wrap(session, number, carrier, &made, spec);
            let arrived = parcel.and_then(|parcel| parcel.unwrap(session, number, carrier, &making, spec));
            session.destroy(carrier)?;
            arrived.map(drop)
        })
    }

    fn carry(
        &self,
        source: usize,
        target: usize,
        (made, epoch): (Arc<crate::keys::generate::Generated>, u64),
        making: &Making,
        spec: KeySpec,
    ) -> Result<()> {
        let (from, to) = (&self.tokens[source], &self.tokens[target]);
        let (from_number, to_number) = (transport::wrapping(from)?, transport::wrapping(to)?);
        let ours = from.with_objects(epoch, Half::generate)?;
        let (theirs, there) = to.with_service(|session, epoch| Ok((Half::generate(session)?, epoch)))?;
        let (half, peer) = (ours.clone(), theirs.point.clone());
        let parcel = from.with_objects(epoch, move |session| {
            let carrier = half.agree(session, &peer);
            half.destroy(session);
            let carrier = carrier?;
            let parcel = Parcel::wrap(session, from_number, carrier, &made, spec);
            session.destroy(carrier)?;
            parcel
        })?;
        let (pass, making) = (Arc::new(to.pass_gate()?), making.clone());
        self.write(target, Some(there), &pass, move |session, _| {
            let carrier = theirs.agree(session, &ours.point);
            theirs.destroy(session);
            let carrier = carrier?;
            let arrived = parcel.unwrap(session, to_number, carrier, &making, spec);
            session.destroy(carrier)?;
            arrived.map(drop)
        })
    }

    /// What proves the identity of a version that was just made, if anything does; an error if the tokens hold different keys.
    fn prove(&self, making: &Making) -> Result<Option<HexBytes>> {
        let name = KeyName::id(&making.id);
        let found = Found::find(&name, &self.tokens, &self.listings)?;
        let mut proofs = Vec::new();
        for &token in &self.ledger.order {
            let held = found.held().find(|(index, _)| *index == token);
            let Some((_, listed)) = held else {
                return Err(Error::internal("a key that was made is not on its token"));
            };
            let (holder, of) = (Arc::clone(&self.tokens[token]), listed.clone());
            let epoch = listed.epoch;
            proofs.push(
                self.tokens[token].with_objects(epoch, move |session| proof_by(session, &holder, &of))?,
            );
        }
        if proofs.iter().any(|proof| *proof != proofs[0]) {
            return Err(Error::operator(
                ErrorKind::KeyAmbiguous,
                "the tokens have made different keys of one",
            ));
        }
        Ok(proofs.swap_remove(0).map(|proof| HexBytes(proof.as_bytes().to_vec())))
    }

    pub(super) fn record_new(
        &self,
        change: &Change<'_>,
        number: KeyNumber,
        terms: Terms,
        version: VersionRecord,
        record: &mut Recorded,
    ) -> Result<KeyId> {
        let proof = version.proof.clone().unwrap_or_else(|| version.object.clone()).0;
        let bound = KeyId::bound(number, &terms.name, &terms.group, terms.tenant, &proof);
        let mac = self
            .at_shelf(change.arbiter, SERVICE_LIMIT, move |shelf, session, _| shelf.mac(session, &bound))?;
        let id = KeyId::new(number, &mac)?;
        let state = match terms.active_from {
            Some(_) => KeyState::PreActivation,
            None => KeyState::Active,
        };
        let key = KeyRecord { id: id.to_string(), terms, state, destroy_at: None, versions: vec![version] };
        let content = Content::Key(Box::new(key));
        change.commit(Record::first(Subject::Key(number), content, self.ledger.writer(), unix_now()))?;
        record.has_changed();
        record.of_key(&id, Some(1));
        record.note("state", state.name());
        Ok(id)
    }
}
