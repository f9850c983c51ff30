//! The catalogue's objects on one token: records and claims, each with a MAC by a key of the token.
//!
//! Whatever another program has put there under the same application name, or has changed, has no valid MAC; it is named and
//! left alone, and nothing else is the worse for it.

use std::collections::HashMap;
use std::sync::Arc;

use cryptoki::object::{Attribute, AttributeType as A, ObjectClass};
use cryptoki_sys as sys;
use subtle::ConstantTimeEq;

use super::claim::Claim;
use super::lease::Lease;
use super::record::{Entry, Hash};
use crate::error::{Error, ErrorKind, Result};
use crate::keys::generate::guarded;
use crate::keys::hex::HexBytes;
use crate::pkcs11::{Mechanism, ObjectHandle, Session};

/// `CKA_LABEL` of the keys that MAC records. No caller gets at a key of this name.
pub(crate) const SEALER: &[u8] = b"hsmux.catalogue";

/// `CKA_APPLICATION` of everything here.
const APPLICATION: &[u8] = b"hsmux catalogue";

/// Longest text that is looked at: a key of a thousand versions has 200 kB.
const TEXT_MAX: usize = 1 << 20;

/// Length of a sealing key and of its MACs, in bytes.
const MAC_LEN: usize = 32;

/// What one token's objects say, as they were read last.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    /// That of the object handles.
    epoch: u64,
    /// By `CKA_ID`: several, if two processes each made one at the same time. The lowest is used.
    sealers: Vec<(HexBytes, ObjectHandle)>,
    items: HashMap<ObjectHandle, Item>,
}

/// One object.
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
    /// Reads what is new. True if anything is, or has gone.
    ///
    /// # Errors
    /// What the token answers; then what was known before stays.
    pub(crate) fn refresh(&mut self, session: &mut Session, epoch: u64) -> Result<bool> {
        if self.epoch != epoch {
            *self = Self { epoch, ..Self::default() };
        }
        let found = session.find(&ours())?;
        let before = self.items.len();
        self.items.retain(|object, _| found.contains(object));
        let mut changed = self.items.len() != before;
        for object in found {
            if !self.items.contains_key(&object)
                && let Some(item) = self.read(session, object)?
            {
                self.items.insert(object, item);
                changed = true;
            }
        }
        Ok(changed)
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
        let mut template = ours().to_vec();
        template.extend([
            // Immutable: whoever may write here can only add and take away.
            Attribute::Modifiable(false),
            Attribute::Label(label.as_bytes().to_vec()),
            Attribute::Value(value.into_bytes()),
        ]);
        let object = session.create(&template)?;
        self.items.insert(object, item);
        Ok(())
    }

    /// Takes away those objects of which this is true.
    pub(crate) fn remove(&mut self, session: &mut Session, goes: impl Fn(&Item) -> bool) -> Result<()> {
        let gone: Vec<_> =
            self.items.iter().filter(|(_, item)| goes(item)).map(|(&object, _)| object).collect();
        for object in gone {
            match session.destroy(object).map_err(Error::from) {
                Err(error) if error.kind() != ErrorKind::KeyNotFound => return Err(error),
                // Somebody else has done it.
                _ => drop(self.items.remove(&object)),
            }
        }
        Ok(())
    }

    pub(crate) fn records(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.items.values().filter_map(|item| if let Item::Record(entry) = item { Some(entry) } else { None })
    }

    pub(crate) fn claims(&self) -> impl Iterator<Item = &Arc<Claim>> {
        self.items.values().filter_map(|item| if let Item::Claim(claim) = item { Some(claim) } else { None })
    }

    pub(crate) fn leases(&self) -> impl Iterator<Item = &Arc<Lease>> {
        self.items.values().filter_map(|item| if let Item::Lease(lease) = item { Some(lease) } else { None })
    }

    pub(crate) fn refused(&self) -> impl Iterator<Item = &Arc<Refused>> {
        self.items.values().filter_map(|item| if let Item::Refused(it) = item { Some(it) } else { None })
    }

    pub(crate) fn holds(&self, hash: Hash) -> bool {
        self.records().any(|entry| entry.hash == hash)
    }

    /// MACs what an identifier is bound to.
    pub(crate) fn mac(&mut self, session: &mut Session, text: &[u8]) -> Result<[u8; MAC_LEN]> {
        let (_, sealer) = self.sealer(session)?;
        mac(session, sealer, text)
    }

    /// Reads one object; none if it has just gone.
    fn read(&mut self, session: &mut Session, object: ObjectHandle) -> Result<Option<Item>> {
        let values = match session.attributes(object, &[A::Label, A::Value]).map_err(Error::from) {
            Ok(values) => values,
            Err(error) if error.kind() == ErrorKind::KeyNotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut values = values.into_iter().map(Option::unwrap_or_default);
        let label = String::from_utf8_lossy(&values.next().unwrap_or_default()).into_owned();
        let value = values.next().unwrap_or_default();
        Ok(Some(match self.open(session, &value)? {
            Ok(item) => item,
            Err(why) => Item::Refused(Arc::new(Refused { label, why })),
        }))
    }

    /// Reads the text of an object, if its MAC is right.
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
            return Ok(Err("the key of its MAC is not on the token"));
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
        if self.sealers.is_empty() {
            self.find_sealers(session)?;
        }
        if self.sealers.is_empty() {
            make_sealer(session)?;
            self.find_sealers(session)?;
        }
        self.sealers.first().cloned().ok_or_else(|| Error::internal("a key that was made is not found"))
    }

    fn find_sealers(&mut self, session: &mut Session) -> Result<()> {
        let of_name = [
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::Token(true),
            Attribute::Label(SEALER.to_vec()),
        ];
        let mut sealers = Vec::new();
        for object in session.find(&of_name)? {
            let values = session.attributes(object, &SEALER_READ)?;
            if let Some(id) = sealer_id(&values) {
                sealers.push((HexBytes(id), object));
            }
        }
        sealers.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        self.sealers = sealers;
        Ok(())
    }
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

/// What all objects of the catalogue have in common.
fn ours() -> [Attribute; 4] {
    [
        Attribute::Class(ObjectClass::DATA),
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Application(APPLICATION.to_vec()),
    ]
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
fn make_sealer(session: &mut Session) -> Result<()> {
    let mut id = vec![0; 8];
    session.random(&mut id)?;
    let mut template = vec![
        Attribute::Token(true),
        Attribute::Label(SEALER.to_vec()),
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
