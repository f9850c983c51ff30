//! The objects of a token: in its memory, and in its folder if it has one.

use std::sync::Arc;

use cryptoki_sys as sys;

use super::Token;
use crate::object::{Home, Object, Template};
use crate::objects::Objects;
use crate::rule::Names;
use crate::store::{FileName, Locked, Store};

impl Token {
    /// Adds an object to the token, or to the session of this generation; returns its handle.
    pub(crate) fn add(&self, mut object: Object, session: Option<u64>) -> Result<u64, sys::CK_RV> {
        if object.flag(sys::CKA_PRIVATE) && !self.logged_in() {
            return Err(sys::CKR_USER_NOT_LOGGED_IN);
        }
        object.home = session.map_or(Home::Token, Home::Session);
        let Some(store) = self.store.as_ref().filter(|_| session.is_none()) else {
            return Ok(self.insert(object));
        };
        // Held until the object has its handle: another thread would take the file for another process's.
        let locked = store.lock()?;
        object.home = Home::File(locked.create(object.attributes())?);
        Ok(self.insert(object))
    }

    /// The object behind a handle, if it is there and may be seen now.
    pub(crate) fn object(&self, handle: u64) -> Result<Option<Arc<Object>>, sys::CK_RV> {
        self.look()?;
        let object = self.objects.read().get(handle).cloned();
        Ok(object.filter(|object| !object.flag(sys::CKA_PRIVATE) || self.logged_in()))
    }

    /// Changes an object that may be seen now.
    pub(crate) fn change(&self, handle: u64, changes: &Template) -> Result<(), sys::CK_RV> {
        let (locked, logged_in) = (self.lock()?, self.logged_in());
        // Held throughout: of two threads that change an object, or one that destroys it, each finds what the other did.
        let mut objects = self.objects.write();
        let object = seen(&objects, handle, logged_in).ok_or(sys::CKR_OBJECT_HANDLE_INVALID)?;
        let mut changed = object.changed(changes)?;
        if let (Home::File(name), Some(locked)) = (object.home, &locked) {
            changed.home = Home::File(locked.replace(name, changed.attributes())?);
        }
        objects.replace(handle, changed);
        Ok(())
    }

    /// Removes an object that may be seen now.
    pub(crate) fn remove(&self, handle: u64) -> Result<(), sys::CK_RV> {
        let (locked, logged_in) = (self.lock()?, self.logged_in());
        let mut objects = self.objects.write();
        let object = seen(&objects, handle, logged_in).ok_or(sys::CKR_OBJECT_HANDLE_INVALID)?;
        // PKCS#11 2.40, C_DestroyObject: "Certain objects may not be destroyed. Calling C_DestroyObject on such objects
        // will result in the CKR_ACTION_PROHIBITED error code."
        if !object.flag(sys::CKA_DESTROYABLE) {
            return Err(sys::CKR_ACTION_PROHIBITED);
        }
        if let (Home::File(name), Some(locked)) = (object.home, &locked) {
            locked.remove(name.id)?;
        }
        objects.remove(handle);
        Ok(())
    }

    /// The objects that match and may be seen now, in the order in which they were made.
    pub(crate) fn find(&self, template: &Template) -> Result<Vec<u64>, sys::CK_RV> {
        self.look()?;
        let logged_in = self.logged_in();
        let visible = |object: &Object| logged_in || !object.flag(sys::CKA_PRIVATE);
        let objects = self.objects.read();
        let found = objects.iter().filter(|(_, object)| visible(object) && object.matches(template));
        Ok(found.map(|(handle, _)| handle).collect())
    }

    /// Forgets the objects of a closed session, which its generation names.
    pub(crate) fn session_closed(&self, session: u64) {
        self.objects.write().retain(|object| object.home != Home::Session(session));
    }

    /// A number that grows with every object.
    pub(crate) fn objects_made(&self) -> u64 {
        self.objects.read().made()
    }

    /// What an object is called, whether it may be seen now or not.
    pub(crate) fn names(&self, handle: u64) -> Option<Names> {
        // The call itself tells what is wrong with the folder.
        self.look().ok()?;
        self.objects.read().get(handle).map(|object| object.names())
    }

    pub(super) fn insert(&self, object: Object) -> u64 {
        self.objects.write().insert(self.index, object)
    }

    /// Learns what other processes have done, if there may be anything.
    pub(super) fn look(&self) -> Result<(), sys::CK_RV> {
        match &self.store {
            Some(store) if !store.is_known()? => self.take_over(&mut store.lock()?),
            _ => Ok(()),
        }
    }

    /// The same, and keeps them from doing more; nothing without a folder.
    fn lock(&self) -> Result<Option<Locked<'_>>, sys::CK_RV> {
        let mut locked = self.store.as_ref().map(Store::lock).transpose()?;
        locked.iter_mut().try_for_each(|locked| self.take_over(locked))?;
        Ok(locked)
    }

    /// Objects of other processes come, change and go under handles of this one.
    fn take_over(&self, locked: &mut Locked<'_>) -> Result<(), sys::CK_RV> {
        let there = locked.list()?;
        // No other thread changes those in files meanwhile: it would hold the lock.
        let known = self.objects.read().in_files();
        for (id, (handle, _)) in &known {
            if !there.contains_key(id) {
                self.objects.write().remove(*handle);
            }
        }
        for (id, version) in there {
            let own = known.get(&id);
            if own.is_some_and(|(_, own)| *own == version) {
                continue;
            }
            let name = FileName { id, version };
            let object = Object::restored(locked.read(name)?, Home::File(name))?;
            match own {
                Some((handle, _)) => self.objects.write().replace(*handle, object),
                None => {
                    self.insert(object);
                }
            }
        }
        locked.is_known_now()
    }
}

/// The object behind a handle, if it may be seen.
fn seen(objects: &Objects, handle: u64, logged_in: bool) -> Option<Arc<Object>> {
    objects.get(handle).filter(|object| logged_in || !object.flag(sys::CKA_PRIVATE)).cloned()
}
