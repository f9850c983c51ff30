//! Tokens that take no data objects: the records of their keys are in a file, and whatever befalls that is noticed.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use hsmux::{Curve, Ecdsa, Engine, ErrorKind, Health, Hmac, KeyConfig, KeySpec, KeyState, Retry};
use hsmux_tests::{Hsm, eventually, health, sign};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use crate::worker::{Place, Records, Site, engine_with};

const P256: KeySpec = KeySpec::Ec(Curve::P256);

/// As `engine/docs/catalogue.md` describes it.
const TABLE: TableDefinition<'_, [u8; 32], (&str, &[u8])> = TableDefinition::new("hsmux catalogue 1");

fn kind<T>(result: hsmux::Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

/// The text of an error that says that a person has to do something about the file, or the directory.
fn refusal<T>(result: hsmux::Result<T>) -> String {
    let error = result.map(drop).unwrap_err();
    assert_eq!((error.kind(), error.retry()), (ErrorKind::Configuration, Retry::Operator), "{error}");
    error.to_string()
}

fn engine(config: &str, tokens: usize) -> hsmux::Result<Engine> {
    Place::sim(config, tokens).engine()
}

fn end(engine: Engine) {
    assert_eq!(engine.drain(Duration::from_secs(10)), 0);
}

fn signs(engine: &Engine, name: &str) -> hsmux::Result<()> {
    engine.key(name)?.sign(Ecdsa::P256_SHA256, b"message").wait().map(drop)
}

/// A site on whose token each of these keys was made.
fn with_keys(names: &[&str]) -> (Site, String) {
    let site = Site::new();
    let config = site.config(1, Records::InFile);
    let engine = engine(&config, 1).unwrap();
    for name in names {
        engine.managed_keys().create(name, &KeyConfig::new(P256)).unwrap();
    }
    end(engine);
    (site, config)
}

/// Puts another file in the place of one, as a backup is put back.
fn put(file: &Path, bytes: &[u8]) {
    let new = file.with_extension("back");
    fs::write(&new, bytes).unwrap();
    fs::rename(new, file).unwrap();
}

/// Opens a file, as soon as no engine has it open.
fn open(file: &Path) -> Database {
    let mut opened = None;
    eventually("the file is free", || {
        opened = Database::open(file).ok();
        opened.is_some()
    });
    opened.unwrap()
}

/// What the records in a file say.
fn records(file: &Path) -> Vec<([u8; 32], String, String)> {
    let database = open(file);
    let table = database.begin_read().unwrap().open_table(TABLE).unwrap();
    let rows = table.iter().unwrap().map(|row| {
        let (key, value) = row.unwrap();
        let (label, text) = value.value();
        (key.value(), label.to_owned(), String::from_utf8(text.to_vec()).unwrap())
    });
    rows.collect()
}

/// Changes a file as somebody does who can write to it.
fn tamper(file: &Path, put: &[(u8, &str, &[u8])], take: &[[u8; 32]]) {
    let database = open(file);
    let transaction = database.begin_write().unwrap();
    {
        let mut table = transaction.open_table(TABLE).unwrap();
        take.iter().for_each(|row| drop(table.remove(row).unwrap()));
        put.iter().for_each(|(row, label, value)| drop(table.insert([*row; 32], (*label, *value)).unwrap()));
    }
    transaction.commit().unwrap();
}

#[test]
fn a_key_goes_through_its_life_as_on_a_token_with_data_objects_and_engines_that_come_later_know_it() {
    let site = Site::new();
    let config = site.config(1, Records::InFile);
    let first = engine(&config, 1).unwrap();
    let keys = first.managed_keys();
    assert_eq!(keys.list().unwrap(), []);
    let id = keys.create("card", &KeyConfig::new(P256)).unwrap();
    assert_eq!(keys.rotate(&id).unwrap(), 2);
    keys.set_alias("current", &id).unwrap();
    keys.suspend("current").unwrap();
    let places = keys.record_places().unwrap();
    assert_eq!((places[0].token.as_str(), places[0].file.as_deref()), ("sim-0", Some(&*site.file())));
    assert_eq!(site.file().metadata().unwrap().mode() & 0o777, 0o600);
    end(first);

    let second = engine(&config, 1).unwrap();
    let keys = second.managed_keys();
    let info = keys.info("current").unwrap();
    assert_eq!((&info.id, info.state, info.versions.len()), (&id, KeyState::Suspended, 2));
    assert_eq!(kind(signs(&second, "card")), Some(ErrorKind::KeyState));
    keys.resume("card").unwrap();
    signs(&second, "card").unwrap();
    keys.deactivate("card").unwrap();
    keys.destroy("card").unwrap();
    assert!(second.keys().iter().all(|object| object.label != "card"), "{:?}", second.keys());
    assert_eq!(kind(second.key(&id)), Some(ErrorKind::KeyState));
    assert_eq!(keys.refused_records().unwrap(), []);
    end(second);

    let third = engine(&config, 1).unwrap();
    assert_eq!(third.managed_keys().info(&id).unwrap().state, KeyState::Destroyed, "the record stays");
    // Neither the one key nor the other.
    assert_eq!(kind(third.key("hsmux.catalogue.file")), Some(ErrorKind::KeyNotFound));
    assert_eq!(kind(third.generate_key("hsmux.catalogue.file", P256)), Some(ErrorKind::InvalidInput));
}

#[test]
fn a_token_that_takes_data_objects_has_its_records_though_there_is_a_state_directory() {
    let site = Site::new();
    let config = site.config(1, Records::OnToken);
    let engine = engine_with(&config, 1, |builder| builder.state_dir(site.state_dir())).unwrap();
    engine.managed_keys().create("card", &KeyConfig::new(P256)).unwrap();
    assert_eq!(engine.managed_keys().record_places().unwrap()[0].file, None);
    let names = site.state_dir().read_dir().unwrap().map(|entry| entry.unwrap().file_name());
    assert!(names.into_iter().all(|name| !name.to_str().unwrap().starts_with("catalogue-")));
    end(engine);
    // Nor do they move when the module has lost its data objects since, as an update may have it: what cannot be written says so.
    let without =
        engine_with(&format!("{config},data=0"), 1, |builder| builder.state_dir(site.state_dir())).unwrap();
    signs(&without, "card").unwrap();
    assert!(without.managed_keys().suspend("card").is_err());
    assert_eq!(without.managed_keys().record_places().unwrap()[0].file, None);
}

#[test]
fn without_a_directory_the_first_key_is_refused_and_it_is_said_what_to_set() {
    let site = Site::new();
    let config = site.config(1, Records::InFile);
    let engine = engine_with(&config, 1, |builder| builder).unwrap();
    let before = engine.keys().len();
    let text = refusal(engine.managed_keys().create("card", &KeyConfig::new(P256)));
    assert!(text.contains("`state_dir`") && text.contains("no data objects"), "{text}");
    assert_eq!(engine.keys().len(), before, "nothing was made");
    // Other keys need none of it.
    let made = engine.generate_key("plain", KeySpec::Hmac(32)).unwrap();
    made.sign(Hmac::SHA256, b"message").wait().unwrap();
}

#[test]
fn without_the_directory_that_has_the_file_no_managed_key_is_had_by_its_objects_nor_a_new_catalogue_begun() {
    let (site, config) = with_keys(&["card"]);
    let none = engine_with(&config, 1, |builder| builder).unwrap();
    assert!(refusal(none.key("card")).contains("`state_dir`"));
    assert!(refusal(none.managed_keys().create("new", &KeyConfig::new(P256))).contains("`state_dir`"));
    end(none);
    let elsewhere = tempfile::tempdir().unwrap();
    let other = || engine_with(&config, 1, |builder| builder.state_dir(elsewhere.path())).unwrap();
    let lost = other();
    for text in [
        refusal(lost.key("card")),
        refusal(lost.managed_keys().list()),
        refusal(lost.managed_keys().create("new", &KeyConfig::new(P256))),
        refusal(lost.destroy_key("card")),
    ] {
        assert!(text.contains("catalogue-") && text.contains("is not there"), "{text}");
    }
    end(lost);
    // The file of another token, under the name of this one's.
    let (another, _) = with_keys(&["theirs"]);
    fs::copy(another.file(), elsewhere.path().join(site.file().file_name().unwrap())).unwrap();
    let wrong = other();
    assert!(refusal(wrong.key("card")).contains("is not the one"));
    assert!(refusal(wrong.managed_keys().create("new", &KeyConfig::new(P256))).contains("is not the one"));
    end(wrong);
    let right = engine(&config, 1).unwrap();
    signs(&right, "card").unwrap();
    assert_eq!(right.managed_keys().list().unwrap().len(), 1);
}

#[test]
fn a_record_that_was_tampered_with_is_refused_and_named_and_the_others_are_none_the_worse() {
    let (site, config) = with_keys(&["good", "tampered", "lost"]);
    let all = records(&site.file());
    let of = |name: &str| {
        let quoted = format!("\"{name}\"");
        all.iter().filter(|(_, _, text)| text.contains(&quoted)).map(|(row, _, _)| *row).collect::<Vec<_>>()
    };
    let text = &all.iter().find(|(_, _, text)| text.contains("\"tampered\"")).unwrap().2;
    let changed = text.replace("\"tenant\":0", "\"tenant\":9");
    assert_ne!(*text, changed);
    // What another token's key has MACed is no record here.
    let (another, _) = with_keys(&["theirs"]);
    let theirs = records(&another.file()).remove(0).2;
    tamper(
        &site.file(),
        &[
            (1, "changed", changed.as_bytes()),
            (2, "empty", b""),
            (3, "noise", &[0xff; 4_000]),
            (4, "theirs", theirs.as_bytes()),
        ],
        &of("tampered"),
    );
    let engine = engine(&config, 1).unwrap();
    let refused = engine.managed_keys().refused_records().unwrap();
    let mut labels: Vec<_> = refused.iter().map(|it| (it.token.as_str(), it.label.as_str())).collect();
    labels.sort_unstable();
    assert_eq!(labels, ["changed", "empty", "noise", "theirs"].map(|label| ("sim-0", label)));
    signs(&engine, "good").unwrap();
    signs(&engine, "lost").unwrap();
    assert_eq!(engine.managed_keys().list().unwrap().len(), 2);
    engine.managed_keys().rotate("good").unwrap();
    assert_eq!(engine.managed_keys().refused_records().unwrap().len(), 4, "they are left alone");
}

#[test]
fn a_file_that_is_damaged_or_cut_off_is_refused_and_named_and_right_again_once_it_is_put_back() {
    let (site, config) = with_keys(&["card"]);
    let (file, whole) = (site.file(), fs::read(site.file()).unwrap());
    let noise = vec![0xa5; whole.len()];
    for (what, bytes) in
        [("empty", &whole[..0]), ("cut off", &whole[..whole.len() / 2]), ("noise", &noise[..])]
    {
        put(&file, bytes);
        let engine = engine(&config, 1).unwrap();
        for text in [
            refusal(engine.key("card")),
            refusal(engine.managed_keys().list()),
            refusal(engine.managed_keys().create("new", &KeyConfig::new(P256))),
        ] {
            assert!(text.contains(file.to_str().unwrap()), "{what}: {text}");
        }
        engine.generate_key(&format!("plain {what}"), KeySpec::Hmac(32)).unwrap();
        put(&file, &whole);
        eventually("the file is read again", || signs(&engine, "card").is_ok());
        end(engine);
    }
}

#[test]
fn of_two_tokens_the_file_of_one_may_be_damaged_and_their_keys_are_used_all_the_same() {
    let site = Site::new();
    let config = site.config(2, Records::InFile);
    let first = engine(&config, 2).unwrap();
    first.managed_keys().create("card", &KeyConfig::new(P256)).unwrap();
    let places = first.managed_keys().record_places().unwrap();
    let files: Vec<_> = places.into_iter().map(|place| place.file.unwrap()).collect();
    assert!(files.len() == 2 && files[0] != files[1]);
    end(first);
    put(&files[1], b"damaged");
    let second = engine(&config, 2).unwrap();
    for _ in 0..8 {
        signs(&second, "card").unwrap();
    }
    let text = refusal(second.managed_keys().suspend("card"));
    assert!(text.contains(files[1].to_str().unwrap()), "a change is made on both or on none: {text}");
}

#[test]
fn a_token_that_comes_back_to_a_damaged_file_serves_its_other_keys_and_the_managed_ones_once_it_is_put_back()
{
    let (hsm, state) = (Hsm::new(2, "data=0"), tempfile::tempdir().unwrap());
    let engine = hsm.builder().state_dir(state.path()).build().unwrap();
    engine.managed_keys().create("card", &KeyConfig::new(P256)).unwrap();
    let places = engine.managed_keys().record_places().unwrap();
    let file = places.into_iter().find(|place| place.token == "sim-1").unwrap().file.unwrap();
    let whole = fs::read(&file).unwrap();
    hsm.sim.configure("removed=sim-1").unwrap();
    eventually("it is lost", || signs(&engine, "card").is_ok() && health(&engine, 1) == Health::Lost);
    put(&file, b"damaged");
    hsm.sim.configure("removed=").unwrap();
    eventually("it is back", || health(&engine, 1) == Health::Serving);
    let plain = engine.key("hmac").unwrap();
    let serves = |what: &str, ask: &dyn Fn()| {
        let before = hsm.operations_on("sim-1");
        eventually(what, || {
            ask();
            hsm.operations_on("sim-1") > before + 10
        });
    };
    serves("it serves other keys", &|| drop(sign(&plain, b"x").unwrap()));
    for _ in 0..20 {
        signs(&engine, "card").unwrap();
    }
    let text = refusal(engine.managed_keys().suspend("card"));
    assert!(text.contains(file.to_str().unwrap()), "a change is made on both or on none: {text}");
    put(&file, &whole);
    eventually("changes are made again", || engine.managed_keys().suspend("card").is_ok());
    engine.managed_keys().resume("card").unwrap();
    serves("it serves the managed key", &|| signs(&engine, "card").unwrap());
}

#[test]
fn a_key_whose_records_cannot_be_read_is_not_had_as_a_plain_one_beside_a_token_whose_records_can() {
    let site = Site::new();
    let config = site.config(2, Records::InFile);
    let both = engine(&config, 2).unwrap();
    both.managed_keys().create("own", &KeyConfig::new(P256)).unwrap();
    end(both);
    let one =
        engine_with(&config, 2, |builder| builder.tokens(["sim-1"]).state_dir(site.state_dir())).unwrap();
    one.managed_keys().create("card", &KeyConfig::new(P256)).unwrap();
    one.managed_keys().suspend("card").unwrap();
    let file = one.managed_keys().record_places().unwrap().remove(0).file.unwrap();
    end(one);
    put(&file, b"damaged");
    let both = engine(&config, 2).unwrap();
    signs(&both, "own").unwrap();
    refusal(signs(&both, "card"));
}

#[test]
fn who_has_the_file_open_for_too_long_is_not_waited_for_and_for_a_moment_is() {
    let (site, config) = with_keys(&["card"]);
    let engine = engine(&config, 1).unwrap();
    signs(&engine, "card").unwrap();
    let held = open(&site.file());
    let error = engine.managed_keys().suspend("card").unwrap_err();
    assert_eq!((error.kind(), error.retry()), (ErrorKind::Busy, Retry::Later), "{error}");
    signs(&engine, "card").unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| engine.managed_keys().suspend("card"));
        drop(held);
        waiting.join().unwrap().unwrap();
    });
    assert_eq!(kind(signs(&engine, "card")), Some(ErrorKind::KeyState));
}

#[test]
fn an_older_file_is_not_believed_by_an_engine_that_knows_better_and_is_by_one_that_starts() {
    let (site, config) = with_keys(&["card"]);
    let engine = engine(&config, 1).unwrap();
    signs(&engine, "card").unwrap();
    let older = fs::read(site.file()).unwrap();
    engine.managed_keys().suspend("card").unwrap();
    put(&site.file(), &older);
    engine.managed_keys().list().unwrap();
    assert_eq!(kind(signs(&engine, "card")), Some(ErrorKind::KeyState));
    // It even writes down again what it knows.
    eventually("the file is as new as before", || {
        records(&site.file()).iter().any(|(_, _, text)| text.contains("\"suspended\""))
    });
    end(engine);
    put(&site.file(), &older);
    let started = Place::sim(&config, 1).engine().unwrap();
    signs(&started, "card").unwrap();
}
