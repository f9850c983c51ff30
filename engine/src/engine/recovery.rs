//! A token that was lost has come back: its keys are found again, before it serves.

use std::sync::{Arc, Weak};

use super::Shared;
use crate::error::{Error, ErrorKind, Outcome, Result, Retry};
use crate::keys::catalogue::Catalogue;
use crate::pkcs11::Session;

/// Has each token tell this engine when it has come back.
pub(super) fn listen(shared: &Arc<Shared>) {
    for (index, token) in shared.tokens.iter().enumerate() {
        let shared = Arc::downgrade(shared);
        token.set_on_return(move |session, epoch| came_back(&shared, index, session, epoch));
    }
}

/// Lists the keys, in one sweep, and finds those that are in use.
fn came_back(shared: &Weak<Shared>, index: usize, session: &mut Session, epoch: u64) -> Result<()> {
    let Some(shared) = shared.upgrade() else {
        return Err(Error::new(ErrorKind::Draining, Retry::Never, Outcome::NotDone));
    };
    let token = &shared.tokens[index];
    shared.core.tokens[index].recorders.iter().for_each(|recorder| recorder.forget_missed_key());
    let listing = Catalogue::list(token.info.label.clone(), session, epoch)?;
    let mut catalogue = shared.catalogues[index].write();
    shared.keys.came_back(session, token, &catalogue, &listing)?;
    *catalogue = listing;
    Ok(())
}
