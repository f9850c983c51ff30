//! A token's folder: what outlives the process, and what several processes on one folder see of each other.
//!
//! Each object is a file, `ID.VERSION`. A file is written aside and renamed into its place, so that whatever ends the
//! process leaves it wholly there or wholly absent; it is never written again: a change is a file of the next version,
//! after which the old one is removed, and the highest version counts. So the names in the folder tell everything that
//! has changed. Whoever writes holds the lock of the folder, which the kernel takes from processes that end.
//!
//! Nothing is forced to the disk: files outlive the process, not a loss of power. They hold the keys in the clear.

mod format;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use cryptoki_sys as sys;
use parking_lot::{Mutex, MutexGuard};

use crate::clock;
use crate::object::Attributes;

/// The folder of one token.
#[derive(Debug)]
pub(crate) struct Store {
    folder: PathBuf,
    /// The folder's time of change up to which everything in it is known; none if the next change might have the same.
    seen: Mutex<Option<SystemTime>>,
}

/// The folder, while nobody else writes to it, and no other thread of this process reads it.
pub(crate) struct Locked<'a> {
    folder: &'a Path,
    seen: MutexGuard<'a, Option<SystemTime>>,
    _lock: File,
}

/// What names an object for all processes: when it was made, so that they find objects in that order, and a random number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Id(u128);

/// The name of an object's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FileName {
    pub(crate) id: Id,
    pub(crate) version: u64,
}

/// After so long a later change has a later time, however coarsely the file system keeps it: two seconds at most, on FAT.
const SETTLED: Duration = Duration::from_secs(3);

/// Where a file is written before it gets its name: one place will do, for one process writes at a time.
const ASIDE: &str = "new";
const LOCK: &str = "lock";
const PIN: &str = "pin";

impl Store {
    /// The folder of the token with this label, made if need be.
    pub(crate) fn open(directory: &Path, label: &str) -> io::Result<Self> {
        let folder = directory.join(label);
        fs::create_dir_all(&folder)?;
        Ok(Self { folder, seen: Mutex::new(None) })
    }

    /// Whether everything in it is known: what is asked before each use of an object.
    pub(crate) fn is_known(&self) -> Result<bool, sys::CK_RV> {
        let seen = *self.seen.lock();
        Ok(seen.is_some() && seen == Some(changed(&self.folder).map_err(failed)?))
    }

    /// Waits for those that write or look, and keeps others from it.
    pub(crate) fn lock(&self) -> Result<Locked<'_>, sys::CK_RV> {
        let seen = self.seen.lock();
        // Opened anew each time: a lock belongs to the open file, which a process shares with its forks.
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(self.folder.join(LOCK));
        let file = file.and_then(|file| file.lock().map(|()| file)).map_err(failed)?;
        Ok(Locked { folder: &self.folder, seen, _lock: file })
    }

    /// The PIN, if anybody has set one.
    pub(crate) fn pin(&self) -> Result<Option<String>, sys::CK_RV> {
        match fs::read_to_string(self.folder.join(PIN)) {
            Ok(pin) => Ok(Some(pin)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }
}

impl Locked<'_> {
    /// The objects that are there, each with the version that counts.
    pub(crate) fn list(&self) -> Result<BTreeMap<Id, u64>, sys::CK_RV> {
        let mut newest = BTreeMap::new();
        for name in self.names()? {
            let version = newest.entry(name.id).or_insert(name.version);
            *version = name.version.max(*version);
        }
        Ok(newest)
    }

    /// Notes that all of the list is known now.
    pub(crate) fn is_known_now(&mut self) -> Result<(), sys::CK_RV> {
        let changed = changed(self.folder).map_err(failed)?;
        let now = SystemTime::UNIX_EPOCH + Duration::from_nanos(clock::unix_ns());
        let settled = now.duration_since(changed).is_ok_and(|age| age > SETTLED);
        *self.seen = settled.then_some(changed);
        Ok(())
    }

    pub(crate) fn read(&self, name: FileName) -> Result<Attributes, sys::CK_RV> {
        let bytes = fs::read(self.folder.join(name.to_string())).map_err(failed)?;
        format::decode(&bytes).ok_or_else(|| {
            eprintln!("p11-sim: {name} in {} is not whole", self.folder.display());
            sys::CKR_DEVICE_ERROR
        })
    }

    /// A new object.
    pub(crate) fn create(&self, attributes: &Attributes) -> Result<FileName, sys::CK_RV> {
        let name = FileName { id: Id::new()?, version: 0 };
        self.write(&name.to_string(), &format::encode(attributes))?;
        Ok(name)
    }

    /// Another state of an object.
    pub(crate) fn replace(&self, name: FileName, attributes: &Attributes) -> Result<FileName, sys::CK_RV> {
        let next = FileName { version: name.version + 1, ..name };
        self.write(&next.to_string(), &format::encode(attributes))?;
        self.remove_where(|other| other.id == name.id && other.version < next.version)?;
        Ok(next)
    }

    /// Takes an object away, with what an end of a process may have left of its earlier states; its last state goes last.
    pub(crate) fn remove(&self, id: Id) -> Result<(), sys::CK_RV> {
        self.remove_where(|name| name.id == id)
    }

    pub(crate) fn set_pin(&self, pin: &str) -> Result<(), sys::CK_RV> {
        self.write(PIN, pin.as_bytes())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), sys::CK_RV> {
        let aside = self.folder.join(ASIDE);
        let written = fs::write(&aside, bytes).and_then(|()| fs::rename(&aside, self.folder.join(name)));
        written.map_err(failed)
    }

    fn remove_where(&self, goes: impl Fn(&FileName) -> bool) -> Result<(), sys::CK_RV> {
        let mut names = self.names()?;
        names.retain(goes);
        names.sort_unstable();
        names.iter().try_for_each(|name| fs::remove_file(self.folder.join(name.to_string()))).map_err(failed)
    }

    fn names(&self) -> Result<Vec<FileName>, sys::CK_RV> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.folder).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            names.extend(name.to_str().and_then(FileName::parse));
        }
        Ok(names)
    }
}

impl Id {
    fn new() -> Result<Self, sys::CK_RV> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|_| sys::CKR_DEVICE_ERROR)?;
        Ok(Self((u128::from(clock::unix_ns()) << 64) | u128::from(u64::from_ne_bytes(random))))
    }
}

impl FileName {
    fn parse(name: &str) -> Option<Self> {
        let (id, version) = name.split_once('.').filter(|(id, _)| id.len() == 32)?;
        let id = u128::from_str_radix(id, 16).ok()?;
        Some(Self { id: Id(id), version: version.parse().ok()? })
    }
}

impl std::fmt::Display for FileName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}.{}", self.id.0, self.version)
    }
}

fn changed(folder: &Path) -> io::Result<SystemTime> {
    fs::metadata(folder)?.modified()
}

fn failed(error: io::Error) -> sys::CK_RV {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => sys::CKR_DEVICE_MEMORY,
        _ => sys::CKR_DEVICE_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The folder of a token, which goes with the test.
    fn store() -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path(), "sim-0").unwrap();
        (directory, store)
    }

    fn labelled(label: &[u8]) -> Attributes {
        [(sys::CKA_LABEL, label.to_vec())].into_iter().collect()
    }

    #[test]
    fn of_what_an_ended_process_left_the_last_state_counts_and_goes_last() {
        let (_directory, store) = store();
        let locked = store.lock().unwrap();
        let first = locked.create(&labelled(b"a")).unwrap();
        let second = FileName { version: 1, ..first };
        // As a process leaves it that ends between the new state and the removal of the old one.
        locked.write(&second.to_string(), &format::encode(&labelled(b"b"))).unwrap();
        assert_eq!(locked.list().unwrap(), BTreeMap::from([(first.id, 1)]));
        assert_eq!(locked.read(second), Ok(labelled(b"b")));
        let third = locked.replace(second, &labelled(b"c")).unwrap();
        assert_eq!(locked.names().unwrap(), [third]);
        locked.remove(first.id).unwrap();
        assert!(locked.list().unwrap().is_empty());
        let left: Vec<_> =
            fs::read_dir(&store.folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, [LOCK]);
    }

    #[test]
    fn what_is_half_written_is_no_object_and_a_damaged_one_is_told() {
        let (_directory, store) = store();
        let locked = store.lock().unwrap();
        let whole = format::encode(&labelled(b"a"));
        fs::write(store.folder.join(ASIDE), &whole[..20]).unwrap();
        fs::write(store.folder.join("README"), "not ours").unwrap();
        assert!(locked.list().unwrap().is_empty());
        let name = locked.create(&labelled(b"a")).unwrap();
        let path = store.folder.join(name.to_string());
        for len in 0..whole.len() {
            fs::write(&path, &whole[..len]).unwrap();
            assert_eq!(locked.read(name), Err(sys::CKR_DEVICE_ERROR), "{len} bytes");
        }
    }

    #[test]
    fn a_folder_that_changed_just_now_is_looked_at_again() {
        let (_directory, store) = store();
        store.lock().unwrap().create(&labelled(b"a")).unwrap();
        store.lock().unwrap().is_known_now().unwrap();
        assert!(!store.is_known().unwrap(), "another change may have the same time");
        let folder = File::open(&store.folder).unwrap();
        let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        folder.set_modified(long_ago).unwrap();
        store.lock().unwrap().is_known_now().unwrap();
        assert!(store.is_known().unwrap());
        store.lock().unwrap().create(&labelled(b"b")).unwrap();
        assert!(!store.is_known().unwrap());
    }

    #[test]
    fn the_names_are_those_of_objects_in_the_order_in_which_they_were_made() {
        let (a, b) = (Id::new().unwrap(), Id::new().unwrap());
        assert!(a.0 >> 64 <= b.0 >> 64 && a != b);
        let name = FileName { id: a, version: 17 };
        assert_eq!(FileName::parse(&name.to_string()), Some(name));
        for other in ["new", "lock", "pin", "0.1", "", "."] {
            assert_eq!(FileName::parse(other), None, "{other}");
        }
    }
}
