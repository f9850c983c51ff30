//! The keys that were asked for: a key has one version, and so one lane, however it is named and however often.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use smallvec::SmallVec;

use crate::keys::KeyVersion;
use crate::keys::listing::Listing;
use crate::sync::Mutex;
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

    /// Keeps a version of a managed key, so that it is found again when a token comes back.
    pub(crate) fn remember_shared(&self, objects: Objects, version: &Arc<KeyVersion>) {
        self.0.lock().insert(objects, Arc::clone(version));
    }

    /// Keeps the version of a new key. It wins over one of a key that was destroyed and had the same object handle.
    pub(crate) fn replace(&self, objects: Objects, version: KeyVersion) -> Arc<KeyVersion> {
        let version = Arc::new(version);
        self.0.lock().insert(objects, Arc::clone(&version));
        version
    }

    /// The versions that are used on a token, each with its object there.
    pub(crate) fn used_on(&self, token: usize) -> Vec<(Handle, Arc<KeyVersion>)> {
        let versions = self.0.lock();
        versions.iter().filter_map(|(on, version)| Some((on.on(token)?, Arc::clone(version)))).collect()
    }

    /// A token has come back, and a version has this object there from now on, or none.
    pub(crate) fn came_back(&self, token: usize, version: &Arc<KeyVersion>, handle: Option<Handle>) {
        version.came_back(token, handle);
        // By the version: another token may have come back meanwhile, and changed the objects that it is found by.
        let mut versions = self.0.lock();
        let found = versions.iter().find(|(_, other)| Arc::ptr_eq(other, version));
        let Some(objects) = found.map(|(objects, _)| objects.clone()) else { return };
        versions.remove(&objects);
        let objects = objects.with(token, handle);
        if !objects.is_empty() && !version.is_unasked(token) {
            versions.entry(objects).or_insert_with(|| Arc::clone(version));
        }
    }

    /// Forgets what uses objects that a token does not list any more.
    pub(crate) fn forget_unlisted(&self, token: usize, listing: &Listing) {
        let listed: HashSet<_> = listing.keys().map(|(_, listed)| listed.handle()).collect();
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
