//! The objects of a token, and the numbers under which they are known.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::key::Key;
use crate::object::{Home, Object};
use crate::store::Id;

/// A token's objects by handle.
#[derive(Debug)]
pub(crate) struct Objects {
    by_handle: BTreeMap<u64, Arc<Object>>,
    made: u64,
    /// Whether numbers are given again.
    reuse: bool,
}

/// Where the token's number stands in an object handle, so that a handle is good on its own token only.
pub(crate) const TOKEN_SHIFT: u32 = 40;

/// Where an object's number stands in its handle. Below it is the length of a signature.
const NUMBER_SHIFT: u32 = 8;

impl Objects {
    pub(crate) const fn new(reuse: bool) -> Self {
        Self { by_handle: BTreeMap::new(), made: 0, reuse }
    }

    /// Adds an object to the token of this index; returns its handle.
    ///
    /// The lowest byte of the handle is the length of a signature in units of 4 bytes: the null mode, which
    /// looks nothing up, reads it there.
    pub(crate) fn insert(&mut self, token: usize, object: Object) -> u64 {
        self.made += 1;
        let number = if self.reuse { self.lowest_free() } else { self.made };
        let token = (token as u64 + 1) << TOKEN_SHIFT;
        let handle =
            token | (number << NUMBER_SHIFT) | (object.key().map_or(0, Key::signature_len) / 4) as u64;
        self.by_handle.insert(handle, Arc::new(object));
        handle
    }

    pub(crate) fn get(&self, handle: u64) -> Option<&Arc<Object>> {
        self.by_handle.get(&handle)
    }

    pub(crate) fn remove(&mut self, handle: u64) {
        self.by_handle.remove(&handle);
    }

    pub(crate) fn retain(&mut self, keep: impl Fn(&Object) -> bool) {
        self.by_handle.retain(|_, object| keep(object));
    }

    /// Puts another state in the place of an object.
    pub(crate) fn replace(&mut self, handle: u64, object: Object) {
        self.by_handle.insert(handle, Arc::new(object));
    }

    /// Those that are in files: their handles and versions.
    pub(crate) fn in_files(&self) -> BTreeMap<Id, (u64, u64)> {
        let file = |(handle, object): (u64, &Object)| match object.home {
            Home::File(name) => Some((name.id, (handle, name.version))),
            Home::Token | Home::Session(_) => None,
        };
        self.iter().filter_map(file).collect()
    }

    /// All, by their handles.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &Object)> {
        self.by_handle.iter().map(|(&handle, object)| (handle, &**object))
    }

    /// How many there ever were: a number that grows with every object.
    pub(crate) const fn made(&self) -> u64 {
        self.made
    }

    /// Handles are void from now on. Where numbers are given again each goes to another object, of the same class and
    /// type if there is one, so that who uses an old handle uses a wrong key.
    pub(crate) fn new_epoch(&mut self) {
        if !self.reuse {
            return;
        }
        let mut alike: BTreeMap<(u64, Vec<u8>), Vec<u64>> = BTreeMap::new();
        for (&handle, object) in &self.by_handle {
            let signature_len = handle & ((1 << NUMBER_SHIFT) - 1);
            alike.entry((signature_len, object.kind())).or_default().push(handle);
        }
        let mut moved = BTreeMap::new();
        for handles in alike.into_values() {
            let next = handles.iter().skip(1).chain(handles.first());
            for (from, to) in handles.iter().zip(next) {
                moved.extend(self.by_handle.remove(from).map(|object| (*to, object)));
            }
        }
        self.by_handle = moved;
    }

    fn lowest_free(&self) -> u64 {
        let number = |handle: &u64| (handle >> NUMBER_SHIFT) & ((1 << (TOKEN_SHIFT - NUMBER_SHIFT)) - 1);
        // Handles are in the order of their numbers.
        let taken = self.by_handle.keys().map(number);
        taken
            .zip(1..)
            .find(|(taken, number)| taken != number)
            .map_or(self.by_handle.len() as u64 + 1, |(_, free)| free)
    }
}
