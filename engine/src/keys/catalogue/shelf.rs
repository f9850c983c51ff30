//! One token's part of the catalogue: records, claims and leases, each with a MAC by a key of the token. They lie on the token or
//! in a file (`store.rs`), and are the same in both.
//!
//! Whatever another program has put among them, or has changed, has no valid MAC; it is named and left alone, and nothing else
//! is the worse for it.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use cryptoki::object::{Attribute, AttributeType as A, ObjectClass};
use cryptoki_sys as sys;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::claim::Claim;
use super::file::{FILE_ID_LEN, FileId, RecordFile, Wait};
use super::lease::Lease;
use super::record::{Entry, Hash};
use super::store::{FILE_SEALER, SEALER, Spot, Store, Written, takes_objects};
use crate::error::{Error, ErrorKind, Result};
use crate::keys::generate::guarded;
use crate::keys::hex::HexBytes;
use crate::pkcs11::{Mechanism, ObjectHandle, Session};

/// Longest text that is looked at: a key of a thousand versions has 200 kB.
const TEXT_MAX: usize = 1 << 20;

/// Why an object is not believed whose MAC was made by a key that is not there, or not there yet.
const NO_KEY: &str = "the key of its MAC is not on the token";

/// Length of a sealing key and of its MACs, in bytes.
const MAC_LEN: usize = 32;

/// What one token's records say, as they were read last.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    /// That of the object handles.
    epoch: u64,
    /// Where the records are if the token takes no data objects. None without a state directory.
    file: Option<Arc<RecordFile>>,
    store: Store,
    /// Whether the token has been seen to take data objects.
    takes_objects: bool,
    /// By `CKA_ID`: several, if two processes each made one at the same time. The lowest is used.
    sealers: Vec<(HexBytes, ObjectHandle)>,
    items: HashMap<Spot, Held>,
    /// The last spot that was read again.
    last_again: Option<Spot>,
}

/// What lies in a spot, and what it says.
#[derive(Debug)]
struct Held {
    /// SHA-256 of what lies there.
    value: Hash,
    item: Item,
}

/// How many objects that are known are read again at each look. A token may give the number of an object that has gone to a new one:
/// between two looks, that looks like the old one.
const AGAIN: usize = 16;

/// One of them.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    Record(Arc<Entry>),
    Claim(Arc<Claim>),
    Lease(Arc<Lease>),
    Refused(Arc<Refused>),
}

/// An object that is not believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// `CKA_LABEL`, by which tools find it.
    pub(crate) label: String,
    pub(crate) why: &'static str,
}

impl Shelf {
    /// A shelf of which nothing was read. `file` is where its records are if the token takes no data objects.
    pub(crate) fn new(file: Option<Arc<RecordFile>>) -> Self {
        Self { file, ..Self::default() }
    }

    /// Reads what is new. True if anything is, or has gone.
    ///
    /// # Errors
    /// What the token answers, or the file; then what was known before stays.
    pub(crate) fn refresh(&mut self, session: &mut Session, epoch: u64, wait: Wait) -> Result<bool> {
        if self.epoch != epoch {
            *self = Self { epoch, ..Self::new(self.file.take()) };
        }
        // While nothing lies on the token somebody else may find that it takes no data objects, and begin a file; and of two files,
        // begun at once in two directories, one holds.
        if !self.is_on_token() {
            self.find_sealers(session)?;
        }
        let before = self.items.len();
        // The key of such a one may have been made a moment ago, by an engine whose objects the token shows late.
        self.items.retain(|_, held| !matches!(&held.item, Item::Refused(refused) if refused.why == NO_KEY));
        let again = self.next_again();
        let found = self.store.look(session, &self.items, &again, wait)?;
        self.items.retain(|spot, _| found.all.contains(spot));
        let mut changed = self.items.len() != before;
        for (spot, written) in found.new {
            let value = hash(&written.value);
            if self.items.get(&spot).is_some_and(|held| held.value == value) {
                continue;
            }
            let item = match self.open(session, &written.value)? {
                Ok(item) => item,
                Err(why) => Item::Refused(Arc::new(Refused { label: written.label, why })),
            };
            self.items.insert(spot, Held { value, item });
            changed = true;
        }
        Ok(changed)
    }

    /// The objects that are to be read again at this look: those that follow the ones of the last.
    fn next_again(&mut self) -> HashSet<Spot> {
        let mut objects: Vec<_> =
            self.items.keys().copied().filter(|spot| matches!(spot, Spot::Object(_))).collect();
        objects.sort_unstable();
        let first = objects.partition_point(|spot| Some(*spot) <= self.last_again);
        let again: Vec<_> = objects[first..].iter().chain(&objects[..first]).take(AGAIN).copied().collect();
        self.last_again = again.last().copied();
        again.into_iter().collect()
    }

    fn items(&self) -> impl Iterator<Item = &Item> {
        self.items.values().map(|held| &held.item)
    }

    /// Writes a record or a claim.
    pub(crate) fn write(&mut self, session: &mut Session, label: &str, text: &str, item: Item) -> Result<()> {
        let (id, sealer) = self.sealer(session)?;
        let mac = seal(session, sealer, text)?;
        let value = format!("{text}\n{id} {}", HexBytes(mac.to_vec()));
        if value.len() > TEXT_MAX {
            // Nobody would read it back.
            return Err(Error::refused(
                ErrorKind::TooLarge,
                "a record of more than a mebibyte: the key has too many versions",
            ));
        }
        let written = Written { label: label.to_owned(), value: value.into_bytes() };
        let value = hash(&written.value);
        let spot = self.store.add(session, written)?;
        self.items.insert(spot, Held { value, item });
        Ok(())
    }

    /// Takes away those of which this is true.
    pub(crate) fn remove(&mut self, session: &mut Session, goes: impl Fn(&Item) -> bool) -> Result<()> {
        let gone: Vec<_> =
            self.items.iter().filter(|(_, held)| goes(&held.item)).map(|(&spot, _)| spot).collect();
        let is_same =
            |spot: &Spot, value: &[u8]| self.items.get(spot).is_some_and(|it| it.value == hash(value));
        self.store.remove(session, &gone, is_same)?;
        self.items.retain(|spot, _| !gone.contains(spot));
        Ok(())
    }

    pub(crate) fn records(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.items().filter_map(|item| if let Item::Record(entry) = item { Some(entry) } else { None })
    }

    pub(crate) fn claims(&self) -> impl Iterator<Item = &Arc<Claim>> {
        self.items().filter_map(|item| if let Item::Claim(claim) = item { Some(claim) } else { None })
    }

    pub(crate) fn leases(&self) -> impl Iterator<Item = &Arc<Lease>> {
        self.items().filter_map(|item| if let Item::Lease(lease) = item { Some(lease) } else { None })
    }

    pub(crate) fn refused(&self) -> impl Iterator<Item = &Arc<Refused>> {
        self.items().filter_map(|item| if let Item::Refused(it) = item { Some(it) } else { None })
    }

    pub(crate) fn holds(&self, hash: Hash) -> bool {
        self.records().any(|entry| entry.hash == hash)
    }

    /// MACs what an identifier is bound to.
    pub(crate) fn mac(&mut self, session: &mut Session, text: &[u8]) -> Result<[u8; MAC_LEN]> {
        let (_, sealer) = self.sealer(session)?;
        mac(session, sealer, text)
    }

    /// The file that the records are in; none if they are on the token.
    pub(crate) fn file(&self) -> Option<&Path> {
        if let Store::File { file, .. } = &self.store { Some(file.path()) } else { None }
    }

    /// Whether records lie on the token: then that is where they are.
    fn is_on_token(&self) -> bool {
        matches!(self.store, Store::Token) && !self.items.is_empty()
    }

    /// Reads the text of a value, if its MAC is right.
    fn open(
        &mut self,
        session: &mut Session,
        value: &[u8],
    ) -> Result<std::result::Result<Item, &'static str>> {
        let Some((text, id, tag)) = parts(value) else { return Ok(Err("it has not the form of a record")) };
        if !self.sealers.iter().any(|(known, _)| *known == id) {
            self.find_sealers(session)?;
        }
        let Some(&(_, sealer)) = self.sealers.iter().find(|(known, _)| *known == id) else {
            return Ok(Err(NO_KEY));
        };
        let wanted = seal(session, sealer, text)?;
        if !bool::from(wanted.ct_eq(&tag.0[..])) {
            return Ok(Err("its MAC is wrong"));
        }
        let record = || Entry::read(text).map(|entry| Item::Record(Arc::new(entry)));
        let claim = || Claim::read(text).map(|claim| Item::Claim(Arc::new(claim)));
        let lease = || Lease::read(text).map(|lease| Item::Lease(Arc::new(lease)));
        Ok(record().or_else(claim).or_else(lease).ok_or("it is of another format"))
    }

    /// The key that MACs what is written, made if there is none.
    fn sealer(&mut self, session: &mut Session) -> Result<(HexBytes, ObjectHandle)> {
        if self.items.is_empty() && !self.takes_objects {
            self.settle(session)?;
        }
        if self.sealers.is_empty() {
            self.find_sealers(session)?;
        }
        if self.sealers.is_empty() {
            make_sealer(session, &self.store)?;
            self.find_sealers(session)?;
        }
        self.sealers.first().cloned().ok_or_else(|| Error::internal("a key that was made is not found"))
    }

    /// Decides where the first record goes: on the token if it takes data objects, else in a file, for ever.
    ///
    /// The file comes before the key by which everybody sees that the records are in it: who is killed in between leaves an empty
    /// file, and not a token whose records are missing.
    fn settle(&mut self, session: &mut Session) -> Result<()> {
        self.find_sealers(session)?;
        if matches!(self.store, Store::File { .. }) {
            return Ok(());
        }
        self.takes_objects = takes_objects(session)?;
        if !self.takes_objects {
            if !self.sealers.is_empty() {
                // A file would be believed in their place, for ever.
                let text = "its records of keys are data objects, which its module does not show any more";
                return Err(Error::operator(ErrorKind::Configuration, text));
            }
            let file = Arc::clone(self.file.as_ref().ok_or_else(no_directory)?);
            let mut id = FileId::default();
            session.random(&mut id)?;
            let id = file.make(id)?;
            tracing::info!(file = %file.path().display(), "a token takes no data objects: its records of keys go to a file");
            self.store = Store::File { file, id, is_checked: false };
            self.sealers.clear();
        }
        Ok(())
    }

    /// Finds the keys that MAC records, and by them where the records are.
    fn find_sealers(&mut self, session: &mut Session) -> Result<()> {
        let of_file = sealers(session, FILE_SEALER)?;
        let first = of_file.first().and_then(|(id, _)| id.0.first_chunk::<FILE_ID_LEN>());
        match (first, &self.store) {
            (Some(&first), Store::File { id, .. }) if *id == first => self.sealers = of_file,
            (Some(&id), _) => {
                // It is so even where nothing here says where: to go on without would be to know none of its keys.
                let file = Arc::clone(self.file.as_ref().ok_or_else(no_directory)?);
                self.store = Store::File { file, id, is_checked: false };
                self.items.clear();
                self.sealers = of_file;
            }
            (None, Store::File { .. }) => self.sealers.clear(),
            (None, Store::Token) => self.sealers = sealers(session, SEALER)?,
        }
        Ok(())
    }
}

/// Of a token that takes no data objects, where nothing says what file its records are in.
fn no_directory() -> Error {
    let text = "the token takes no data objects, so the records of its keys are in a file: set `state_dir` \
                (Builder::state_dir) to the directory that has it or, for the first ones, is to have it";
    Error::operator(ErrorKind::Configuration, text)
}

fn hash(value: &[u8]) -> Hash {
    Hash::new(Sha256::digest(value).into())
}

/// The keys of this label that MAC records, the one with the lowest id first.
fn sealers(session: &mut Session, label: &[u8]) -> Result<Vec<(HexBytes, ObjectHandle)>> {
    let of_name =
        [Attribute::Class(ObjectClass::SECRET_KEY), Attribute::Token(true), Attribute::Label(label.to_vec())];
    let mut sealers = Vec::new();
    for object in session.find(&of_name)? {
        let values = session.attributes(object, &SEALER_READ)?;
        if let Some(id) = sealer_id(&values) {
            sealers.push((HexBytes(id), object));
        }
    }
    sealers.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    Ok(sealers)
}

/// What is read of a key that has the name of those that MAC records.
const SEALER_READ: [A; 6] =
    [A::Id, A::Private, A::Sensitive, A::Local, A::AlwaysSensitive, A::NeverExtractable];

/// The id of a key that MACs records: one that the token has made behind a login and that has never been outside. Of any other
/// somebody else may know the value: some tokens let who has no PIN make objects that are not private.
fn sealer_id(values: &[Option<Vec<u8>>]) -> Option<Vec<u8>> {
    let (id, flags) = values.split_first()?;
    let holds = |flag: &Option<Vec<u8>>| flag.as_deref() == Some(&[1]);
    (flags.len() == SEALER_READ.len() - 1 && flags.iter().all(holds)).then(|| id.clone().unwrap_or_default())
}

/// Text, id of the MAC's key, and MAC.
fn parts(value: &[u8]) -> Option<(&str, HexBytes, HexBytes)> {
    let value = std::str::from_utf8(value).ok().filter(|value| value.len() <= TEXT_MAX)?;
    let (text, seal) = value.rsplit_once('\n')?;
    let (id, tag) = seal.split_once(' ')?;
    Some((text, id.parse().ok()?, tag.parse().ok()?))
}

/// The MAC of a record or claim: it can be that of nothing else.
fn seal(session: &mut Session, sealer: ObjectHandle, text: &str) -> Result<[u8; MAC_LEN]> {
    mac(session, sealer, &[b"hsmux catalogue 1\n", text.as_bytes()].concat())
}

fn mac(session: &mut Session, sealer: ObjectHandle, text: &[u8]) -> Result<[u8; MAC_LEN]> {
    let mut mac = [0; MAC_LEN];
    let len = session.sign(sealer, &Mechanism::Plain(sys::CKM_SHA256_HMAC), text, &mut mac)?;
    if len != MAC_LEN {
        return Err(Error::internal("a MAC of another length than asked for"));
    }
    Ok(mac)
}

/// A key of 256 bits that can make MACs and nothing else, and never leaves the token.
fn make_sealer(session: &mut Session, store: &Store) -> Result<()> {
    let mut drawn = [0; 8];
    session.random(&mut drawn)?;
    let id = [store.sealer_prefix(), &drawn].concat();
    let mut template = vec![
        Attribute::Token(true),
        Attribute::Label(store.sealer_label().to_vec()),
        Attribute::Id(id),
        Attribute::ValueLen((MAC_LEN as u64).into()),
        Attribute::Sign(true),
        Attribute::Verify(true),
        Attribute::Encrypt(false),
        Attribute::Decrypt(false),
        Attribute::Wrap(false),
        Attribute::Unwrap(false),
        Attribute::Derive(false),
    ];
    template.extend(guarded());
    session.generate_key(&Mechanism::Plain(sys::CKM_GENERIC_SECRET_KEY_GEN), &template)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_may_have_been_outside_macs_no_records() {
        let sound: Vec<Option<Vec<u8>>> =
            std::iter::once(Some(vec![7])).chain((0..5).map(|_| Some(vec![1]))).collect();
        assert_eq!(sealer_id(&sound), Some(vec![7]));
        for flag in 1..6 {
            for value in [None, Some(vec![0]), Some(vec![])] {
                let mut other = sound.clone();
                other[flag] = value;
                assert_eq!(sealer_id(&other), None, "{:?}", SEALER_READ[flag]);
            }
        }
    }

    #[test]
    fn a_value_is_text_key_and_mac_and_nothing_else() {
        let of = |value: &str| parts(value.as_bytes()).map(|(text, id, tag)| (text.to_owned(), id.0, tag.0));
        assert_eq!(of("a\nb\n01 02"), Some(("a\nb".to_owned(), vec![1], vec![2])));
        for wrong in ["", "a", "a\n01", "a\n01 0", "a\n 02 03", "a\n01 02 03", "a\n01 02\n"] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
        assert!(parts(b"\xff\n01 02").is_none());
    }
}
