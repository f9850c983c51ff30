//! Leases of messages: written before they are used, and summed up when their writers are gone.

use std::sync::Arc;

use crate::clock::{Time, now};
use crate::engine::Shared;
use crate::engine::audit::Recorded;
use crate::engine::ledger::{Ledger, View, unix_now};
use crate::error::{Error, ErrorKind, Outcome, Result, Retry};
use crate::keys::catalogue::lease::{Lease, Next, leased};
use crate::keys::catalogue::record::{Content, Subject};
use crate::keys::catalogue::shelf::Item;
use crate::keys::key_id::KeyNumber;
use crate::keys::managed::Managed;
use crate::token::SERVICE_LIMIT;
use crate::token::message_count::MessageCount;

impl Ledger {
    /// Whether one more message of AES-GCM may be encrypted.
    #[inline]
    pub(crate) fn check_messages(&self, count: &MessageCount) -> Result<()> {
        count.check(self.messages.margin(), self.messages.block(), || self.wake())
    }

    fn views(&self) -> Vec<Arc<View>> {
        self.order.iter().map(|&token| self.view(token)).collect()
    }
}

impl Shared {
    /// Leases more messages for a key's primary version, if it is in use here and has too few left.
    pub(super) fn lease_messages(&self, managed: &Managed) -> Result<()> {
        let Some((number, version)) = managed.loaded_primary() else { return Ok(()) };
        let Some(count) = version.tie.as_ref().and_then(|tie| tie.messages.as_ref()) else { return Ok(()) };
        let (ledger, terms) = (&self.ledger, self.ledger.messages);
        // Whatever others have leased: who has enough waits for nobody.
        if terms.next(count.used(), count.leased(), 0) == Next::Enough && !terms.warns(count.used()) {
            return Ok(());
        }
        let _leasing = count.begin_leasing();
        let base = managed.of_record(|key| key.version(number).map_or(0, |version| version.messages))?;
        let others = || {
            let views = ledger.views();
            let all = views.iter().flat_map(|view| &view.leases);
            base.saturating_add(leased(all, managed.number, number, Some(ledger.writer())))
        };
        if terms.warns(others().saturating_add(count.used())) {
            tracing::warn!(
                version = number,
                "a key has encrypted half of the messages that it may: rotate it"
            );
        }
        match terms.next(count.used(), count.leased(), others()) {
            Next::Enough => Ok(()),
            Next::Exhausted => {
                count.grant(0, true);
                Ok(())
            }
            Next::Lease { messages, last } => {
                self.write_lease(managed.number, number, messages)?;
                // Who leases at the same time wrote before this look, or looks after this one was written.
                self.read_catalogue(SERVICE_LIMIT)?;
                if !terms.allows(messages, others()) {
                    self.write_lease(managed.number, number, count.leased())?;
                    count.grant(0, false);
                    return Err(Error::new(ErrorKind::Conflict, Retry::Later, Outcome::NotDone)
                        .because("another engine has just leased the last messages of a key"));
                }
                count.grant(messages, last);
                Ok(())
            }
        }
    }

    /// Has every token in service say how many messages this engine may have encrypted. It is written when one token has it.
    fn write_lease(&self, key: KeyNumber, version: u32, messages: u64) -> Result<()> {
        let ledger = &self.ledger;
        let lease = Arc::new(Lease::new(key, version, ledger.writer(), ledger.process.clone(), messages));
        let text = serde_json::to_string(&*lease).map_err(|_| Error::internal("a lease is not written"))?;
        let mut written = Err(crate::engine::ledger::no_token());
        for token in self.serving() {
            let Ok(pass) = self.tokens[token].pass_gate().map(Arc::new) else { continue };
            let (lease, text) = (Arc::clone(&lease), text.clone());
            let done = self.write_shelf(token, &pass, move |shelf, session, _| {
                if lease.messages > 0 && !shelf.leases().any(|other| *other == lease) {
                    shelf.write(session, "hsmux lease", &text, Item::Lease(Arc::clone(&lease)))?;
                }
                // After that: whoever is killed in between leaves both, of which the larger counts.
                shelf.remove(session, |item| match item {
                    Item::Lease(other) => *other != lease && is_of_same(other, &lease),
                    _ => false,
                })
            });
            match done {
                Ok(()) => written = Ok(()),
                Err(error) => {
                    tracing::warn!(token, %error, "a token does not know how many messages a key may encrypt")
                }
            }
        }
        written
    }

    /// Gives back what is left of this engine's leases, when nothing more is encrypted: the key keeps what was used. Begins no more
    /// of it when the time is up: what is not given back stays counted.
    pub(crate) fn return_leases(&self, until: Time) {
        let keys: Vec<_> = self.ledger.catalogue.read().keys().map(Arc::clone).collect();
        for managed in &keys {
            for (version, used) in managed.used_messages() {
                if now() >= until {
                    return;
                }
                if let Err(error) = self.write_lease(managed.number, version, used) {
                    tracing::debug!(%error, "messages that were leased and not used stay counted");
                }
            }
        }
    }

    /// Whether writers have left leases that nobody uses any more.
    pub(crate) fn has_ended_leases(&self) -> bool {
        self.ledger.views().iter().flat_map(|view| &view.leases).any(|lease| self.has_ended(lease))
    }

    /// Adds the leases of writers that are gone to the records of their keys, and takes them away.
    pub(crate) fn fold_leases(self: &Arc<Self>) -> Result<()> {
        let views = self.ledger.views();
        let mut keys: Vec<KeyNumber> = views
            .iter()
            .flat_map(|view| &view.leases)
            .filter(|lease| self.has_ended(lease))
            .map(|lease| lease.lease)
            .collect();
        keys.sort_unstable();
        keys.dedup();
        keys.into_iter().try_for_each(|number| self.fold_leases_of(number))
    }

    fn fold_leases_of(self: &Arc<Self>, number: KeyNumber) -> Result<()> {
        // Bookkeeping: nothing of the key changes.
        let nowhere = &mut Recorded::nowhere();
        let change = self.claim(vec![Subject::Key(number)], Vec::new(), nowhere)?;
        let latest = self.ledger.catalogue.read().latest().get(&Subject::Key(number)).map(Arc::clone);
        let views = self.ledger.views();
        let ended: Vec<_> = views
            .iter()
            .flat_map(|view| &view.leases)
            .filter(|lease| lease.lease == number && self.has_ended(lease))
            .map(Arc::clone)
            .collect();
        if let Some((entry, (_, key))) = latest.as_ref().and_then(|entry| Some((entry, entry.key()?))) {
            let mut key = key.clone();
            for version in &mut key.versions {
                version.messages =
                    version.messages.saturating_add(leased(&ended, number, version.version, None));
            }
            // Before the leases go: who is killed in between has them counted twice, which errs on the safe side.
            change.commit(entry.next(Content::Key(Box::new(key)), self.ledger.writer(), unix_now()))?;
        }
        for token in self.serving() {
            let pass = change.pass_of(token)?;
            let ended = ended.clone();
            self.write_shelf(token, &pass, move |shelf, session, _| {
                shelf.remove(session, |item| matches!(item, Item::Lease(lease) if ended.contains(lease)))
            })?;
        }
        Ok(())
    }

    fn has_ended(&self, lease: &Lease) -> bool {
        self.ledger.process.sees(&lease.process) && !lease.process.runs()
    }
}

/// Whether two are of one writer, for the same.
fn is_of_same(one: &Lease, other: &Lease) -> bool {
    (one.lease, one.version, one.writer) == (other.lease, other.version, other.writer)
}
