//! Where a token's records lie: as data objects on the token or, where it takes none, in a file.
//!
//! Which of the two is for the token to say: the key that MACs its records has another name where they are in a file, and its id
//! begins with that of the file. So no engine looks in one place while others write in the other, whatever its configuration
//! says, and a file that is missing, or is another one, is noticed.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use cryptoki::object::{Attribute, AttributeType as A, ObjectClass};

use super::file::{FileId, RecordFile, Row, Wait};
use crate::error::{Error, ErrorKind, Result};
use crate::pkcs11::{ObjectHandle, Session};

/// `CKA_LABEL` of the keys that MAC records on their token.
pub(crate) const SEALER: &[u8] = b"hsmux.catalogue";

/// That of keys that MAC records in a file.
pub(crate) const FILE_SEALER: &[u8] = b"hsmux.catalogue.file";

/// `CKA_APPLICATION` of every object of the catalogue.
const APPLICATION: &[u8] = b"hsmux catalogue";

/// That of the object by which a token shows whether it takes any. Not the catalogue's: what a crash leaves is no record.
const TRIAL: &[u8] = b"hsmux trial";

/// One of the two.
#[derive(Clone, Debug, Default)]
pub(crate) enum Store {
    #[default]
    Token,
    File {
        file: Arc<RecordFile>,
        id: FileId,
        is_checked: bool,
    },
}

/// Where one record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Spot {
    Object(ObjectHandle),
    Row(Row),
}

/// A record as it is written.
#[derive(Debug)]
pub(crate) struct Written {
    /// For people who list what is there.
    pub(crate) label: String,
    pub(crate) value: Vec<u8>,
}

/// What is there: all of it, and the contents of what is not known.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) all: HashSet<Spot>,
    pub(crate) new: Vec<(Spot, Written)>,
}

/// Whether a key of this label MACs records. No caller gets at one.
pub(crate) fn is_sealer(label: &[u8]) -> bool {
    label == SEALER || label == FILE_SEALER
}

impl Store {
    /// `CKA_LABEL` of the keys that MAC what lies here.
    pub(crate) const fn sealer_label(&self) -> &'static [u8] {
        match self {
            Self::Token => SEALER,
            Self::File { .. } => FILE_SEALER,
        }
    }

    /// With what the `CKA_ID` of such a key begins.
    pub(crate) fn sealer_prefix(&self) -> &[u8] {
        match self {
            Self::Token => &[],
            Self::File { id, .. } => id,
        }
    }

    /// Reads what is there, and what is in that which is not known or is to be read again.
    pub(crate) fn look<T>(
        &mut self,
        session: &mut Session,
        known: &HashMap<Spot, T>,
        again: &HashSet<Spot>,
        wait: Wait,
    ) -> Result<Found> {
        match self {
            Self::Token => look_at_objects(session, known, again),
            Self::File { file, id, is_checked } => {
                // A row is known by what is in it: it is never another one.
                let rows = file.read(*id, !*is_checked, wait, |row| known.contains_key(&Spot::Row(*row)));
                // After a failure every page is checked: a damaged one is told then, and does not have redb panic each second. That
                // others have it open says nothing of its pages, and a check would keep them out.
                *is_checked = match &rows {
                    Err(error) if error.kind() == ErrorKind::Busy => *is_checked,
                    rows => rows.is_ok(),
                };
                let rows = rows?;
                let new = rows.new.into_iter().map(|(row, written)| (Spot::Row(row), written));
                Ok(Found { all: rows.all.into_iter().map(Spot::Row).collect(), new: new.collect() })
            }
        }
    }

    pub(crate) fn add(&self, session: &mut Session, written: Written) -> Result<Spot> {
        match self {
            Self::Token => Ok(Spot::Object(session.create(&object(APPLICATION, written))?)),
            Self::File { file, id, .. } => file.add(*id, &written).map(Spot::Row),
        }
    }

    /// Takes away what lies there; what somebody else has taken away is gone, and what has its number by now stays: `is_same` tells
    /// by the value.
    pub(crate) fn remove(
        &self,
        session: &mut Session,
        spots: &[Spot],
        is_same: impl Fn(&Spot, &[u8]) -> bool,
    ) -> Result<()> {
        match self {
            Self::Token => spots.iter().try_for_each(|spot| match spot {
                Spot::Object(object) => match read(session, *object)? {
                    Some(written) if is_same(spot, &written.value) => destroy(session, *object),
                    _ => Ok(()),
                },
                Spot::Row(_) => Ok(()),
            }),
            Self::File { file, id, .. } => {
                let row = |spot: &Spot| if let Spot::Row(row) = spot { Some(*row) } else { None };
                file.remove(*id, &spots.iter().filter_map(row).collect::<Vec<_>>())
            }
        }
    }
}

/// Whether a token takes data objects: it is given one, as the catalogue's are, and has it taken away again.
///
/// # Errors
/// What the token answers, but for the answers of those that take none.
pub(crate) fn takes_objects(session: &mut Session) -> Result<bool> {
    let trial = Written { label: "hsmux trial".to_owned(), value: b"may be destroyed".to_vec() };
    match session.create(&object(TRIAL, trial)) {
        Ok(made) => {
            session.destroy(made)?;
            Ok(true)
        }
        Err(fault) if fault.refuses_such_objects() => Ok(false),
        Err(fault) => Err(fault.into()),
    }
}

fn look_at_objects<T>(
    session: &mut Session,
    known: &HashMap<Spot, T>,
    again: &HashSet<Spot>,
) -> Result<Found> {
    let objects = match session.find(&common(APPLICATION)) {
        // A module without data objects may refuse to look for them.
        Err(fault) if known.is_empty() && fault.refuses_such_objects() => Vec::new(),
        objects => objects?,
    };
    let mut found = Found::default();
    for object in objects {
        let spot = Spot::Object(object);
        if !known.contains_key(&spot) || again.contains(&spot) {
            let Some(written) = read(session, object)? else { continue };
            found.new.push((spot, written));
        }
        found.all.insert(spot);
    }
    Ok(found)
}

/// Destroys one object, if it has not just gone.
fn destroy(session: &mut Session, object: ObjectHandle) -> Result<()> {
    match session.destroy(object).map_err(Error::from) {
        Err(error) if error.kind() != ErrorKind::KeyNotFound => Err(error),
        _ => Ok(()),
    }
}

/// Reads one object; none if it has just gone.
fn read(session: &mut Session, object: ObjectHandle) -> Result<Option<Written>> {
    let values = match session.attributes(object, &[A::Label, A::Value]).map_err(Error::from) {
        Ok(values) => values,
        Err(error) if error.kind() == ErrorKind::KeyNotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut values = values.into_iter().map(Option::unwrap_or_default);
    let label = String::from_utf8_lossy(&values.next().unwrap_or_default()).into_owned();
    Ok(Some(Written { label, value: values.next().unwrap_or_default() }))
}

fn object(application: &[u8], written: Written) -> Vec<Attribute> {
    let mut template = common(application).to_vec();
    template.extend([
        // Immutable: whoever may write here can only add and take away.
        Attribute::Modifiable(false),
        Attribute::Label(written.label.into_bytes()),
        Attribute::Value(written.value),
    ]);
    template
}

/// What all such objects have in common.
fn common(application: &[u8]) -> [Attribute; 4] {
    [
        Attribute::Class(ObjectClass::DATA),
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Application(application.to_vec()),
    ]
}
