//! Token directories of SoftHSM2 that one process after the other uses, and what lies there, seen without an engine: by the files,
//! and by a process that lists the objects.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;
use serde_json::{Value, json};
use softhsm_fixtures::SoftHsm;

use crate::worker::Place;

/// What the process is to do, and with which module.
const TASK: &str = "HSMUX_TEST_PLAIN";
const MODULE: &str = "HSMUX_TEST_PLAIN_MODULE";

/// What the process prints before its answer.
const MARK: &str = "hsmux-plain: ";

/// Of the first token.
pub(crate) const SOFTHSM_LABEL: &str = LABELS[0];

const LABELS: [&str; 2] = ["soft-0", "soft-1"];

/// A token directory.
pub(crate) struct TokenDirectory {
    module: PathBuf,
    tokens: usize,
    folder: tempfile::TempDir,
}

/// An object, as a listing shows it.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    class: String,
    pub(crate) label: String,
    pub(crate) id: String,
    /// Of data.
    value: String,
    /// Whether it can be used.
    is_whole: bool,
}

impl TokenDirectory {
    /// New tokens, in a directory that goes when this is dropped.
    pub(crate) fn new(softhsm: &SoftHsm, tokens: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("tokens")).unwrap();
        let text = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
            folder.path().join("tokens").display()
        );
        fs::write(folder.path().join("softhsm2.conf"), text).unwrap();
        let directory = Self { module: softhsm.module().to_owned(), tokens, folder };
        directory.ask("prepare").unwrap();
        directory
    }

    pub(crate) fn place(&self) -> Place {
        let labels = LABELS.into_iter().take(self.tokens);
        Place::module(&self.module, labels, vec![("SOFTHSM2_CONF", self.conf().into())])
    }

    pub(crate) fn conf(&self) -> PathBuf {
        self.folder.path().join("softhsm2.conf")
    }

    /// The objects of each token, by its label, as a process sees them that knows nothing of engines.
    pub(crate) fn list(&self) -> Result<Vec<(String, Vec<Object>)>, String> {
        let tokens: Value = self.ask("list")?.parse().unwrap();
        let read = |(label, objects): (&String, &Value)| {
            let objects = objects.as_array().ok_or_else(|| format!("no token {label}"))?;
            Ok((label.clone(), objects.iter().map(Object::read).collect()))
        };
        tokens.as_object().unwrap().iter().map(read).collect()
    }

    /// Names of the files of tokens and objects that are whole.
    pub(crate) fn whole(&self) -> HashSet<String> {
        self.files().into_iter().filter(|(_, is_whole)| *is_whole).map(|(name, _)| name).collect()
    }

    /// Those of files that end too early, or are not there although they must be.
    pub(crate) fn damaged(&self) -> Vec<String> {
        self.files().into_iter().filter(|(_, is_whole)| !is_whole).map(|(name, _)| name).collect()
    }

    /// Files of tokens and objects by token, and whether they are whole.
    fn files(&self) -> Vec<(String, bool)> {
        let root = self.folder.path().join("tokens");
        let of_token = |token: PathBuf| {
            let objects = read_folder(&token);
            let objects =
                objects.into_iter().filter(|file| file.extension().is_some_and(|of| of == "object"));
            objects.chain([token.join("token.object")]).collect::<HashSet<_>>()
        };
        let look = |file: PathBuf| {
            let name = file.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
            (name, fs::read(&file).is_ok_and(|bytes| is_whole(&bytes)))
        };
        read_folder(&root).into_iter().flat_map(of_token).map(look).collect()
    }

    /// Takes a file away, or cuts its end off.
    pub(crate) fn harm(&self, file: &str, takes_away: bool) {
        let path = self.folder.path().join("tokens").join(file);
        if takes_away {
            return fs::remove_file(path).unwrap();
        }
        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
        file.set_len(file.metadata().unwrap().len() / 2 + 1).unwrap();
    }

    /// Leaves on the first token what SoftHSM2 leaves there when its process is killed while it begins to make an object: a
    /// generation, and that it is a token object (`CKA_TOKEN`).
    pub(crate) fn put_object_without_class(&self) {
        let folder = read_folder(&self.folder.path().join("tokens")).swap_remove(0);
        let attribute = [1_u64, 1, 1].map(u64::to_be_bytes).concat();
        fs::write(
            folder.join("00000000-0000-0000-0000-000000000000.object"),
            [&attribute[..], &[1]].concat(),
        )
        .unwrap();
    }

    /// How many of two objects a copy of SoftHSM2 shows that has made one of them, just after another copy has made the other; and
    /// how many one shows that looks later. Copies are to each other what processes are.
    pub(crate) fn shown_of_two(&self) -> (u64, u64) {
        let shown: Value = self.ask("two").unwrap().parse().unwrap();
        (shown[0].as_u64().unwrap(), shown[1].as_u64().unwrap())
    }

    fn ask(&self, task: &str) -> Result<String, String> {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "plain::a_process_without_an_engine", "--nocapture"]);
        command.env(TASK, format!("{task} {}", self.tokens)).env(MODULE, &self.module);
        let output = command.env("SOFTHSM2_CONF", self.conf()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let answer = text.lines().find_map(|line| line.strip_prefix(MARK)).map(str::to_owned);
        answer.ok_or_else(|| String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// What a version of a key has on a token, and those of its objects that are not there or cannot be used.
pub(crate) fn missing(objects: &[Object], ids: &[String]) -> Vec<String> {
    let whole: HashSet<_> = objects
        .iter()
        .filter(|object| object.is_whole)
        .map(|object| (object.class.as_str(), object.id.as_str()))
        .collect();
    let of_id = |id: &String| {
        let halves =
            ["private", "public"].into_iter().filter(|class| !whole.contains(&(*class, id.as_str())));
        halves.map(|class| format!("{class} {id}")).collect::<Vec<_>>()
    };
    let mut missing: Vec<_> = ids.iter().flat_map(of_id).collect();
    let is_record = |object: &&Object| object.label.starts_with("hsmux record");
    let is_named = |id: &String| objects.iter().filter(is_record).any(|record| record.value.contains(id));
    missing.extend(ids.last().filter(|id| !is_named(id)).map(|id| format!("record of {id}")));
    missing
}

/// How many objects have neither name nor id.
pub(crate) fn nameless(tokens: &[(String, Vec<Object>)]) -> usize {
    let objects = tokens.iter().flat_map(|(_, objects)| objects);
    objects.filter(|object| object.label.is_empty() && object.id.is_empty()).count()
}

/// Whether a file of SoftHSM2 2.6.1 is whole: a generation, then attributes, and at least one.
fn is_whole(file: &[u8]) -> bool {
    let Some((_, mut rest)) = file.split_first_chunk::<8>() else { return false };
    let has_any = !rest.is_empty();
    while !rest.is_empty() {
        match skip_attribute(rest) {
            Some(after) => rest = after,
            None => return false,
        }
    }
    has_any
}

/// What comes after an attribute, which has its type, the kind of its value, and that. None if it is cut off.
fn skip_attribute(file: &[u8]) -> Option<&[u8]> {
    // Eight bytes, the highest first.
    let number = |file| {
        let (bytes, rest) = <[u8]>::split_first_chunk::<8>(file)?;
        Some((usize::try_from(u64::from_be_bytes(*bytes)).unwrap_or(usize::MAX), rest))
    };
    let (_, rest) = number(file)?;
    let (kind, rest) = number(rest)?;
    let (len, rest) = match kind {
        // A truth value, a number, mechanisms, which are counted; bytes, attributes.
        1 => (1, rest),
        2 => (8, rest),
        5 => number(rest).map(|(count, rest)| (count.saturating_mul(8), rest))?,
        _ => number(rest)?,
    };
    rest.get(len..)
}

fn read_folder(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

impl Object {
    fn read(value: &Value) -> Self {
        let text = |name: &str| value[name].as_str().unwrap().to_owned();
        let is_whole = value["whole"] == true;
        Self { class: text("class"), label: text("label"), id: text("id"), value: text("value"), is_whole }
    }
}

#[test]
fn a_process_without_an_engine() {
    let (Ok(task), Some(module)) = (std::env::var(TASK), std::env::var_os(MODULE)) else { return };
    let pkcs11 = Pkcs11::new(Path::new(&module)).unwrap();
    pkcs11.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).unwrap();
    let (task, tokens) = task.split_once(' ').unwrap();
    let labels = LABELS.iter().take(tokens.parse().unwrap());
    let answer = match task {
        "two" => two_make_one_each(Path::new(&module)),
        "prepare" => labels.map(|label| prepare(&pkcs11, label)).collect(),
        _ => Value::Object(labels.map(|label| ((*label).to_owned(), list(&pkcs11, label))).collect()),
    };
    println!("\n{MARK}{answer}");
}

/// Makes a token, and says its label.
fn prepare(pkcs11: &Pkcs11, label: &str) -> String {
    let slots = pkcs11.get_slots_with_token().unwrap();
    let is_free = |slot| !pkcs11.get_token_info(slot).unwrap().token_initialized();
    let slot = slots.into_iter().find(|&slot| is_free(slot)).unwrap();
    let so_pin = AuthPin::from("5678");
    pkcs11.init_token(slot, &so_pin, label).unwrap();
    let session = pkcs11.open_rw_session(slot).unwrap();
    session.login(UserType::So, Some(&so_pin)).unwrap();
    session.init_pin(&AuthPin::from(softhsm_fixtures::PIN)).unwrap();
    label.to_owned()
}

fn two_make_one_each(module: &Path) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let copies = ["one.so", "other.so", "later.so"].map(|name| folder.path().join(name));
    let open = |copy: &PathBuf| {
        fs::copy(module, copy).unwrap();
        let pkcs11 = Pkcs11::new(copy).unwrap();
        pkcs11.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).unwrap();
        let slot = pkcs11.get_slots_with_token().unwrap()[0];
        let session = pkcs11.open_rw_session(slot).unwrap();
        session.login(UserType::User, Some(&AuthPin::from(softhsm_fixtures::PIN))).unwrap();
        (session, pkcs11)
    };
    let make = |session: &Session| {
        let template =
            [Attribute::Class(ObjectClass::DATA), Attribute::Token(true), Attribute::Private(true)];
        session.create_object(&template).unwrap();
    };
    let shown = |session: &Session| session.find_objects(&[]).unwrap().len();
    let (one, other) = (open(&copies[0]), open(&copies[1]));
    assert_eq!(shown(&one.0) + shown(&other.0), 0);
    make(&other.0);
    make(&one.0);
    let shown_at_once = shown(&one.0);
    json!([shown_at_once, shown(&open(&copies[2]).0)])
}

/// The objects of a token; nothing if there is no such token.
fn list(pkcs11: &Pkcs11, label: &str) -> Value {
    let mut slots = pkcs11.get_slots_with_token().unwrap().into_iter();
    let is_it = |slot| pkcs11.get_token_info(slot).is_ok_and(|info| info.label() == label);
    let Some(slot) = slots.find(|&slot| is_it(slot)) else { return Value::Null };
    let session = pkcs11.open_ro_session(slot).unwrap();
    session.login(UserType::User, Some(&AuthPin::from(softhsm_fixtures::PIN))).unwrap();
    let objects = session.find_objects(&[]).unwrap();
    objects.into_iter().map(|object| describe(&session, object)).collect()
}

fn describe(session: &Session, object: ObjectHandle) -> Value {
    let (mut class, mut label, mut id, mut value, mut point) =
        ("", String::new(), String::new(), String::new(), 0);
    let wanted = [AttributeType::Class, AttributeType::Label, AttributeType::Id, AttributeType::EcPoint];
    let of_data = [AttributeType::Class, AttributeType::Label, AttributeType::Value];
    let read = |wanted: &[AttributeType]| session.get_attributes(object, wanted).unwrap_or_default();
    let mut attributes = read(&wanted);
    if matches!(attributes.first(), Some(Attribute::Class(ObjectClass::DATA))) {
        attributes = read(&of_data);
    }
    for attribute in attributes {
        match attribute {
            Attribute::Class(ObjectClass::PRIVATE_KEY) => class = "private",
            Attribute::Class(ObjectClass::PUBLIC_KEY) => class = "public",
            Attribute::Class(ObjectClass::SECRET_KEY) => class = "secret",
            Attribute::Class(ObjectClass::DATA) => class = "data",
            Attribute::Label(text) => label = String::from_utf8_lossy(&text).into_owned(),
            Attribute::Id(bytes) => id = bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
            Attribute::EcPoint(bytes) => point = bytes.len(),
            Attribute::Value(bytes) => value = String::from_utf8_lossy(&bytes).into_owned(),
            _ => {}
        }
    }
    let is_whole = match class {
        "private" => session.sign(&Mechanism::Ecdsa, object, &[7; 32]).is_ok(),
        "public" => point > 0,
        _ => true,
    };
    json!({ "class": class, "label": label, "id": id, "value": value, "whole": is_whole })
}

#[test]
fn a_file_that_ends_too_early_is_not_whole() {
    let attribute = [[0_u64, 1, 3, 4].map(u64::to_be_bytes).concat(), b"abcd".to_vec()].concat();
    assert!(is_whole(&attribute));
    for len in 0..attribute.len() {
        assert!(!is_whole(&attribute[..len]), "{len}");
    }
}
