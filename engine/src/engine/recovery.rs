//! A token that was lost has come back: its keys are found again, before it serves.

use std::sync::{Arc, Weak};

use super::Shared;
use crate::error::{Error, ErrorKind, Outcome, Result, Retry};
use crate::keys::KeyVersion;
use crate::keys::canary::Canary;
use crate::keys::catalogue::{Catalogue, Listed};
use crate::keys::copies;
use crate::pkcs11::Session;

/// Has each token tell this engine when it has come back.
pub(super) fn listen(shared: &Arc<Shared>) {
    for (index, token) in shared.tokens.iter().enumerate() {
        let shared = Arc::downgrade(shared);
        token.set_on_return(move |session, epoch| came_back(&shared, index, session, epoch));
    }
}

/// Has each token asked for what it makes of a key when it is tried.
///
/// # Errors
/// As [`Canary::new`].
pub(super) fn watch_over(shared: &Shared, key: &Arc<KeyVersion>) -> Result<()> {
    let canary = Arc::new(Canary::new(Arc::clone(key), &shared.tokens)?);
    for token in &shared.tokens {
        let (canary, of) = (Arc::clone(&canary), Arc::downgrade(token));
        token.set_on_trial(move |session, epoch| {
            of.upgrade().map_or(Ok(()), |token| canary.ask(session, &token, epoch))
        });
    }
    Ok(())
}

/// Lists the keys, in one sweep, and finds those that are in use. All of them or, if the token fails meanwhile, none.
fn came_back(shared: &Weak<Shared>, index: usize, session: &mut Session, epoch: u64) -> Result<()> {
    let Some(shared) = shared.upgrade() else {
        return Err(Error::new(ErrorKind::Draining, Retry::Never, Outcome::NotDone));
    };
    shared.core.check_open()?;
    let token = &shared.tokens[index];
    shared.core.tokens[index].recorders.iter().for_each(|recorder| recorder.forget_missed_key());
    let listing = Catalogue::list(token.info.label.clone(), session, epoch)?;
    // The listing of before is locked only while it is looked at: the token may hang in what comes after.
    let found: Vec<_> = {
        let before = shared.catalogues[index].read();
        let used = shared.keys.used_on(index).into_iter();
        used.map(|(was, version)| (listing.find_again(&before, was).cloned(), version)).collect()
    };
    let mut proven = Vec::new();
    for (listed, version) in found {
        let is_same = match &listed {
            Some(listed) => version.is(session, token, listed)?,
            None => false,
        };
        proven.push((version, listed.filter(|_| is_same)));
    }
    *shared.catalogues[index].write() = listing;
    for (version, listed) in proven {
        if listed.is_none() {
            tracing::error!(token = index, "a token has come back without a key that was used there");
        }
        shared.keys.came_back(index, &version, listed.as_ref().map(Listed::handle));
        if let Some(listed) = &listed {
            copies::make_again(shared.copies, session, token, listed, &version.handles)?;
        }
    }
    Ok(())
}
