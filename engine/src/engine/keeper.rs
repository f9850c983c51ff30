//! The thread that keeps the catalogue: it sees what other engines change, and does what is due.

use std::collections::HashSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::Shared;
use crate::error::{Error, ErrorKind, Result};
use crate::sync::Parker;

/// How often it looks. What another engine changes holds here within this and the time of a look; five seconds are promised.
const LOOK: Duration = Duration::from_secs(1);

/// How long it waits for a token: one whose service thread hangs holds up the others no longer.
const TOKEN_LIMIT: Duration = Duration::from_secs(2);

/// Reads the catalogue if any token has one, finishes what was left half-done, and starts the thread. Once; and again when the
/// first managed key is asked for or made.
pub(super) fn open(shared: &Arc<Shared>) -> Result<()> {
    let has_one = shared.ledger.order.iter().any(|&token| shared.has_sealer(token));
    if !has_one || !open_for_change(shared)? {
        return Ok(());
    }
    if let Err(error) = shared.recover().and_then(|()| shared.fold_leases()) {
        // Keys that can be read are used; the rest is tried again in a second.
        tracing::warn!(%error, "what was left half-done in the catalogue is tidied up later");
    }
    Ok(())
}

/// Starts the thread, if it does not run: for who is about to write the first record, too. True if it is new.
pub(super) fn open_for_change(shared: &Arc<Shared>) -> Result<bool> {
    shared.ledger.keep(|| {
        let (weak, parker) = (Arc::downgrade(shared), Parker::new());
        let unparker = parker.unparker().clone();
        let started =
            std::thread::Builder::new().name("hsmux-keeper".into()).spawn(move || run(&weak, &parker));
        let failed = |error| Error::operator(ErrorKind::Busy, format!("cannot start the keeper: {error}"));
        shared.core.threads.add(started.map_err(failed)?);
        Ok(unparker)
    })
}

fn run(shared: &Weak<Shared>, parker: &Parker) {
    loop {
        parker.park_timeout(LOOK);
        let Some(shared) = shared.upgrade() else { return };
        if shared.core.check_open().is_err() {
            return;
        }
        let looked = shared.look();
        if let Err(error) = looked {
            tracing::warn!(%error, "the catalogue of keys cannot be kept");
        }
    }
}

impl Shared {
    /// Reads what is new, and does what is due.
    fn look(self: &Arc<Self>) -> Result<()> {
        for token in self.serving() {
            if let Err(error) = self.look_at_shelf(token, TOKEN_LIMIT) {
                tracing::debug!(token, %error, "a token's catalogue cannot be read");
            }
        }
        // What cannot be tidied up holds up nothing that is due.
        let recovered = if self.wants_recovery() { self.recover() } else { Ok(()) };
        let folded = if self.has_ended_leases() { self.fold_leases() } else { Ok(()) };
        self.do_what_is_due().and(recovered).and(folded)
    }

    /// Whether anything is left half-done, or a token lacks a record.
    fn wants_recovery(&self) -> bool {
        let catalogue = self.ledger.catalogue.read();
        if catalogue.keys().any(|managed| managed.is_to_be_destroyed()) {
            return true;
        }
        self.serving().any(|token| {
            let view = self.ledger.view(token);
            let held: HashSet<_> = view.records.iter().map(|entry| entry.hash).collect();
            view.claims.iter().any(|claim| self.ledger.is_over(claim))
                || catalogue.latest().values().any(|entry| !held.contains(&entry.hash))
        })
    }
}
