//! The catalogue of managed keys: their records, merged from what lies on the tokens, and looked up in memory.

pub(crate) mod claim;
pub(crate) mod file;
pub(crate) mod lease;
pub(crate) mod process;
pub(crate) mod record;
pub(crate) mod shelf;
pub(crate) mod store;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::keys::key_id::{KeyId, KeyNumber};
use crate::keys::managed::Managed;
use crate::keys::state::KeyState;
use record::{Content, Entry, KeyRecord, Subject};

/// What holds now, by subject.
pub(crate) type Latest = BTreeMap<Subject, Arc<Entry>>;

/// Of several records of a subject, the one that holds: wherever they lie, and in whatever order they are read.
pub(crate) fn merge<'a>(records: impl IntoIterator<Item = &'a Arc<Entry>>) -> Latest {
    let mut latest = Latest::new();
    for entry in records {
        match latest.get_mut(&entry.record.subject) {
            Some(known) if entry.beats(known) => *known = Arc::clone(entry),
            Some(_) => {}
            None => drop(latest.insert(entry.record.subject.clone(), Arc::clone(entry))),
        }
    }
    latest
}

/// The keys and aliases that are known, by whatever they are asked for.
#[derive(Debug, Default)]
pub(crate) struct Catalogue {
    latest: Latest,
    keys: HashMap<KeyNumber, Arc<Managed>>,
    ids: HashMap<String, KeyNumber>,
    /// Keys that live, by name: several only if two were made of one name while the writers could not see each other.
    names: HashMap<String, Vec<KeyNumber>>,
    /// By `CKA_ID`.
    objects: HashMap<Vec<u8>, KeyNumber>,
}

impl Catalogue {
    /// Takes over what holds now. Returns the keys whose record is another than before.
    pub(crate) fn update(&mut self, latest: Latest) -> Vec<Arc<Managed>> {
        let mut changed = Vec::new();
        for entry in latest.values() {
            let Some((number, key)) = entry.key() else { continue };
            match self.keys.get(&number) {
                // An older one than is known: a token that has fallen behind is alone in sight.
                Some(known) if !known.takes(entry) => {}
                Some(known) => changed.push(Arc::clone(known)),
                None => {
                    let Ok(id) = key.id.parse::<KeyId>() else { continue };
                    let managed = Arc::new(Managed::new(number, id, Arc::clone(entry)));
                    changed.push(Arc::clone(&managed));
                    self.keys.insert(number, managed);
                }
            }
        }
        for (subject, entry) in latest {
            let known = self.latest.entry(subject).or_insert_with(|| Arc::clone(&entry));
            if entry.beats(known) {
                *known = entry;
            }
        }
        self.index();
        changed
    }

    /// The key of this identifier.
    ///
    /// # Errors
    /// `KeyNotFound`.
    pub(crate) fn by_id(&self, id: &KeyId) -> Result<Arc<Managed>> {
        let number = self.ids.get(id.as_str());
        let found = number.and_then(|number| self.keys.get(number)).map(Arc::clone);
        found.ok_or_else(|| Error::refused(ErrorKind::KeyNotFound, "no key has this id"))
    }

    /// The key that lives under a name, or that an alias stands for; none if it is neither.
    ///
    /// # Errors
    /// `KeyAmbiguous`, if two keys have the name.
    pub(crate) fn by_name(&self, name: &str) -> Result<Option<Arc<Managed>>> {
        match self.names.get(name).map(Vec::as_slice) {
            Some([number]) => return Ok(self.keys.get(number).map(Arc::clone)),
            Some([_, _, ..]) => {
                let text = "several keys of the catalogue have this name: ask by id";
                return Err(Error::operator(ErrorKind::KeyAmbiguous, text));
            }
            _ => {}
        }
        let alias = self.alias(name).and_then(|entry| match entry.record.content {
            Content::Alias(key) => key,
            Content::Key(_) => None,
        });
        Ok(alias.and_then(|number| self.keys.get(&number)).map(Arc::clone))
    }

    /// Whether a key that lives has this name.
    pub(crate) fn is_name_of_key(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    /// The latest record of an alias.
    pub(crate) fn alias(&self, name: &str) -> Option<&Arc<Entry>> {
        self.latest.get(&Subject::Name(name.to_owned()))
    }

    /// Aliases that stand for a key.
    pub(crate) fn aliases_of(&self, number: KeyNumber) -> Vec<String> {
        let of_key =
            self.latest.values().filter_map(|entry| match (&entry.record.subject, &entry.record.content) {
                (Subject::Name(name), Content::Alias(Some(key))) if *key == number => Some(name.clone()),
                _ => None,
            });
        of_key.collect()
    }

    /// Whether an object of this `CKA_ID` is a managed key's, which is asked for by its name or id.
    pub(crate) fn manages(&self, object: &[u8]) -> bool {
        self.objects.contains_key(object)
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &Arc<Managed>> {
        self.keys.values()
    }

    pub(crate) const fn latest(&self) -> &Latest {
        &self.latest
    }

    fn index(&mut self) {
        self.ids.clear();
        self.names.clear();
        self.objects.clear();
        for (&number, managed) in &self.keys {
            let entry = managed.entry();
            let Some((_, key)) = entry.key() else { continue };
            self.ids.insert(managed.id.as_str().to_owned(), number);
            if key.state != KeyState::Destroyed {
                self.names.entry(key.terms.name.clone()).or_default().push(number);
            }
            self.objects.extend(objects(key).map(|object| (object.to_vec(), number)));
        }
    }
}

/// `CKA_ID` of each version's objects.
pub(crate) fn objects(key: &KeyRecord) -> impl Iterator<Item = &[u8]> {
    key.versions.iter().map(|version| version.object.0.as_slice())
}

#[cfg(test)]
mod tests {
    use super::record::Writer;
    use super::record::tests::{key_record, record};
    use super::*;

    fn entry(record: record::Record) -> Arc<Entry> {
        Arc::new(Entry::new(record).unwrap().0)
    }

    fn key(number: u8, name: &str) -> Arc<Entry> {
        let mut key = key_record();
        name.clone_into(&mut key.terms.name);
        key.id = KeyId::new(KeyNumber::new([number; 16]), &[number; 32]).unwrap().to_string();
        key.versions[0].object.0 = vec![number];
        entry(record(number, key))
    }

    fn with_state(before: &Entry, state: KeyState, writer: u8) -> Arc<Entry> {
        let Content::Key(mut key) = before.record.content.clone() else { panic!("it is a key") };
        key.state = state;
        entry(before.next(Content::Key(key), Writer::new([writer; 8]), 1))
    }

    #[test]
    fn records_merge_to_the_same_in_every_order_and_however_often_they_are_read() {
        let first = key(1, "a");
        let (x, y) = (with_state(&first, KeyState::Active, 1), with_state(&first, KeyState::Suspended, 2));
        let other = key(2, "b");
        let mut all = [&first, &x, &y, &other, &x];
        let wanted = merge(all);
        let holds = wanted.get(&first.record.subject).unwrap();
        assert!(holds.hash == x.hash.min(y.hash) && wanted.len() == 2);
        // Every rotation and its reverse: enough to have each come first and last.
        for turn in 0..all.len() {
            all.rotate_left(turn);
            assert_eq!(merge(all), wanted);
            all.reverse();
            assert_eq!(merge(all), wanted);
        }
    }

    #[test]
    fn a_key_is_found_by_id_name_and_alias_until_it_is_destroyed() {
        let first = key(1, "card");
        let number = KeyNumber::new([1; 16]);
        let alias = entry(record::Record {
            subject: Subject::Name("current".to_owned()),
            ..first.next(Content::Alias(Some(number)), Writer::new([1; 8]), 1)
        });
        let mut catalogue = Catalogue::default();
        assert_eq!(catalogue.update(merge([&first, &alias])).len(), 1);
        let id: KeyId = first.key().unwrap().1.id.parse().unwrap();
        assert!(catalogue.by_id(&id).is_ok() && catalogue.manages(&[1]) && !catalogue.manages(&[2]));
        for name in ["card", "current"] {
            assert_eq!(catalogue.by_name(name).unwrap().unwrap().number, number);
        }
        assert!(catalogue.by_name("other").unwrap().is_none());
        assert_eq!(catalogue.aliases_of(number), ["current"]);
        let gone = with_state(&first, KeyState::Destroyed, 1);
        assert_eq!(catalogue.update(merge([&gone])).len(), 1);
        assert!(catalogue.by_name("card").unwrap().is_none(), "the name is free");
        assert!(catalogue.by_id(&id).is_ok(), "the id is never another key's");
    }

    #[test]
    fn what_a_token_that_has_fallen_behind_says_changes_nothing() {
        let first = key(1, "card");
        let later = with_state(&first, KeyState::Suspended, 1);
        let mut catalogue = Catalogue::default();
        catalogue.update(merge([&later]));
        assert!(catalogue.update(merge([&first])).is_empty());
        let managed = catalogue.by_name("card").unwrap().unwrap();
        assert_eq!(managed.entry().hash, later.hash);
        assert_eq!(catalogue.latest().get(&first.record.subject).unwrap().hash, later.hash);
    }

    #[test]
    fn two_keys_of_one_name_are_ambiguous_by_name_and_not_by_id() {
        let (a, b) = (key(1, "card"), key(2, "card"));
        let mut catalogue = Catalogue::default();
        catalogue.update(merge([&a, &b]));
        assert_eq!(catalogue.by_name("card").unwrap_err().kind(), ErrorKind::KeyAmbiguous);
        assert!(catalogue.by_id(&b.key().unwrap().1.id.parse().unwrap()).is_ok());
    }
}
