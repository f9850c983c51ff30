//! The keys that were asked for: a key has one version, and so one lane, however it is named and however often.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use smallvec::SmallVec;

use crate::error::Result;
use crate::keys::KeyVersion;
use crate::keys::catalogue::Catalogue;
use crate::pkcs11::Session;
use crate::sync::Mutex;
use crate::token::Token;
use crate::token::task::Handle;

/// A key's object on each token; none where it does not live or may not be used. Names that lead to the same objects
/// are names of the same key; a URI that leaves out a token leads to fewer of them, and so to a version that is not
/// used there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Objects(SmallVec<[Option<Handle>; 4]>);

/// Versions by their objects.
#[derive(Default)]
pub(crate) struct Known(Mutex<HashMap<Objects, Arc<KeyVersion>>>);

impl Objects {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }

    fn with(mut self, token: usize, handle: Option<Handle>) -> Self {
        self.0.get_mut(token).into_iter().for_each(|on| *on = handle);
        self
    }

    fn on(&self, token: usize) -> Option<Handle> {
        self.0.get(token).copied().flatten()
    }
}

impl FromIterator<Option<Handle>> for Objects {
    fn from_iter<I: IntoIterator<Item = Option<Handle>>>(by_token: I) -> Self {
        Self(by_token.into_iter().collect())
    }
}

impl Known {
    pub(crate) fn get(&self, objects: &Objects) -> Option<Arc<KeyVersion>> {
        self.0.lock().get(objects).map(Arc::clone)
    }

    /// Keeps a version; one that another thread has loaded meanwhile wins.
    pub(crate) fn remember(&self, objects: Objects, version: KeyVersion) -> Arc<KeyVersion> {
        let mut versions = self.0.lock();
        Arc::clone(versions.entry(objects).or_insert_with(|| Arc::new(version)))
    }

    /// Keeps the version of a new key. It wins over one of a key that was destroyed and had the same object handle.
    pub(crate) fn replace(&self, objects: Objects, version: KeyVersion) -> Arc<KeyVersion> {
        let version = Arc::new(version);
        self.0.lock().insert(objects, Arc::clone(&version));
        version
    }

    /// A token has come back: finds each key that was used there in its new listing, and has the object there used from
    /// now on. What is not there any more, or not shown to be the same, is not used there.
    ///
    /// # Errors
    /// What the token answers.
    pub(crate) fn came_back(
        &self,
        session: &mut Session,
        token: &Token,
        old: &Catalogue,
        new: &Catalogue,
    ) -> Result<()> {
        let versions: Vec<_> =
            self.0.lock().iter().map(|(objects, version)| (objects.clone(), Arc::clone(version))).collect();
        let mut found = Vec::new();
        for (objects, version) in versions {
            let Some(before) = objects.on(token.index) else { continue };
            let handle = match new.find_again(old, before) {
                Some(listed) => version.is(session, token, listed)?.then(|| listed.handle()),
                None => None,
            };
            found.push((objects, version, handle));
        }
        // All of them or, if the token has failed meanwhile, none.
        for (objects, version, handle) in found {
            if handle.is_none() {
                tracing::error!(token = token.index, "a token has come back without a key that it held");
            }
            version.handles.came_back(token.index, handle);
            let mut known = self.0.lock();
            known.remove(&objects);
            let objects = objects.with(token.index, handle);
            if !objects.is_empty() && !version.is_unasked(token.index) {
                known.insert(objects, version);
            }
        }
        Ok(())
    }

    /// Forgets what uses objects that a token does not list any more.
    pub(crate) fn forget_unlisted(&self, token: usize, catalogue: &Catalogue) {
        let listed: HashSet<_> = catalogue.keys().map(|(_, listed)| listed.handle()).collect();
        self.0.lock().retain(|objects, _| objects.on(token).is_none_or(|handle| listed.contains(&handle)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pkcs11::ObjectHandle;

    fn handle(number: u64) -> Handle {
        Handle { epoch: 1, object: ObjectHandle::numbered(number) }
    }

    #[test]
    fn objects_are_the_same_only_if_they_are_so_on_every_token() {
        let on = |by_token: &[Option<u64>]| by_token.iter().map(|n| n.map(handle)).collect::<Objects>();
        assert_eq!(on(&[Some(1), None]), on(&[Some(1), None]));
        assert_ne!(on(&[Some(1), None]), on(&[None, Some(1)]));
        assert_ne!(on(&[Some(1), Some(1)]), on(&[Some(1), None]));
        assert!(on(&[None, None]).is_empty() && !on(&[None, Some(1)]).is_empty());
        assert_eq!((on(&[None, Some(1)]).on(1), on(&[None, Some(1)]).on(0)), (Some(handle(1)), None));
    }
}
