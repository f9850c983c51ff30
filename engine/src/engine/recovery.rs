//! A token that was lost has come back: its keys are found again, before it serves.

use std::sync::{Arc, Weak};

use super::{Engine, Shared};
use crate::error::{Error, ErrorKind, Outcome, Result, Retry};
use crate::keys::KeyVersion;
use crate::keys::canary::Canary;
use crate::keys::copies;
use crate::keys::listing::{Listed, Listing};
use crate::pkcs11::Session;
use crate::token::Token;

/// Has each token tell this engine when it has come back.
pub(super) fn listen(shared: &Arc<Shared>) {
    for (index, token) in shared.tokens.iter().enumerate() {
        let shared = Arc::downgrade(shared);
        token.set_on_return(move |session, epoch| came_back(&shared, index, session, epoch));
    }
}

impl Engine {
    /// Uses a key once on each token that holds it, as an engine that is built with it as its
    /// [`Builder::canary_key`](crate::Builder::canary_key) does. Nothing of that is recorded, and nothing is set.
    ///
    /// For operators who want to know beforehand whether such an engine starts.
    ///
    /// # Errors
    /// What building that engine would answer: as [`Engine::key`]; `KeyMismatch`, if nothing can be asked of a key like this;
    /// what a token answers to the use.
    ///
    /// # Blocking
    /// As [`Engine::key`], and as long as each token takes for one operation.
    pub fn check_canary_key(&self, name: &str) -> Result<()> {
        ask_all(&self.shared, self.key(name)?.version()).map(drop)
    }
}

/// Has each token use a canary key: what it yields is known before anything is suspected.
///
/// # Errors
/// As [`Canary::new`], and what a token answers.
fn ask_all(shared: &Shared, key: &Arc<KeyVersion>) -> Result<Arc<Canary>> {
    let canary = Arc::new(Canary::new(Arc::clone(key), &shared.tokens)?);
    for token in &shared.tokens {
        let (asked, of) = (Arc::clone(&canary), Arc::clone(token));
        token.with_service(move |session, epoch| asked.ask(session, &of, epoch))?;
    }
    Ok(canary)
}

/// Has each token asked for what it makes of a key when it is tried.
///
/// # Errors
/// As [`ask_all`].
pub(super) fn watch_over(shared: &Shared, key: &Arc<KeyVersion>) -> Result<()> {
    let canary = ask_all(shared, key)?;
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
    let listing = Listing::list(token.info.label.clone(), session, epoch)?;
    // The listing of before is locked only while it is looked at: the token may hang in what comes after.
    let found: Vec<_> = {
        let before = shared.listings[index].read();
        let used = shared.keys.used_on(index).into_iter();
        used.map(|(was, version)| (listing.find_again(&before, was).cloned(), version)).collect()
    };
    let mut proven = Vec::new();
    for (listed, version) in found {
        proven.push((prove(session, token, &version, listed)?, version));
    }
    let before = std::mem::replace(&mut *shared.listings[index].write(), listing);
    shared.reconcile(index, session, epoch)?;
    for (listed, version) in proven {
        use_again(&shared, index, session, &version, listed.as_ref())?;
    }
    // Keys that were opened meanwhile, by the listing of before; who opens one later sees that the listing has changed.
    for (was, version) in shared.keys.used_on(index).into_iter().filter(|(was, _)| was.epoch == before.epoch)
    {
        let listed = shared.listings[index].read().find_again(&before, was).cloned();
        let listed = prove(session, token, &version, listed)?;
        use_again(&shared, index, session, &version, listed.as_ref())?;
    }
    Ok(())
}

/// What was listed, if it is the key of a version. A key of which the token says nothing useful is not there.
///
/// # Errors
/// If the token is lost meanwhile, or its module fails.
fn prove(
    session: &mut Session,
    token: &Token,
    version: &KeyVersion,
    listed: Option<Listed>,
) -> Result<Option<Listed>> {
    let Some(listed) = listed else { return Ok(None) };
    match version.is(session, token, &listed) {
        Ok(is_same) => Ok(is_same.then_some(listed)),
        Err(error) => of_the_key(error).map(|()| None),
    }
}

/// A key is used again where it was found, or not any more where it was not.
fn use_again(
    shared: &Shared,
    index: usize,
    session: &mut Session,
    version: &Arc<KeyVersion>,
    listed: Option<&Listed>,
) -> Result<()> {
    if listed.is_none() {
        tracing::error!(token = index, "a token has come back without a key that was used there");
    }
    shared.keys.came_back(index, version, listed.map(Listed::handle));
    let Some(listed) = listed else { return Ok(()) };
    let token = &shared.tokens[index];
    copies::make_again(shared.copies, session, token, listed, &version.handles).or_else(of_the_key)
}

/// One key that fails keeps no token out; a token that is lost again is.
fn of_the_key(error: Error) -> Result<()> {
    match error.kind() {
        ErrorKind::TokenLost | ErrorKind::SessionLost | ErrorKind::Module => Err(error),
        _ => {
            tracing::warn!(%error, "a key of a token that has come back cannot be used there");
            Ok(())
        }
    }
}
