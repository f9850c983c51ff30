//! The configuration that is advised, as a file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use hsmux::{Config, PinSource};
use toml_edit::{ArrayOfTables, DocumentMut, Item, Table};

use super::evidence::{Entry, Load, Value};
use crate::connection::Site;
use crate::exit::{Exit, Failure, Result};

/// A configuration with the tuned fields changed or added, and all else as it was, comments included.
pub(super) fn changed(text: &str, entries: &[Entry]) -> Result<String> {
    let mut document: DocumentMut =
        text.parse().map_err(|error| Failure::new(Exit::Usage, format!("configuration: {error}")))?;
    set(document.as_table_mut(), entries);
    checked(document.to_string())
}

/// A configuration of a site that options say.
pub(super) fn complete(site: &Site, tokens: &[String], entries: &[Entry]) -> Result<String> {
    let mut document = DocumentMut::new();
    let root = document.as_table_mut();
    root.insert("module", text_item(&lasting(site.module())));
    if let Some(text) = site.init_args().filter(|text| !text.is_empty()) {
        root.insert("init_args", text_item(text));
    }
    let source = site.pin().ok().and_then(|source| form(&source));
    root.insert("pin", text_item(source.as_deref().unwrap_or("prompt")));
    if source.is_none() {
        comment(root, "pin", "# The PIN itself is not written: say here where it is.");
    }
    if let Some(directory) = site.state_dir() {
        root.insert("state_dir", text_item(&lasting(directory)));
    }
    set(root, entries);
    let mut named = ArrayOfTables::new();
    for name in tokens {
        let mut table = Table::new();
        table.insert("name", text_item(name));
        named.push(table);
    }
    root.insert("token", Item::ArrayOfTables(named));
    checked(document.to_string())
}

/// Refuses a file that is there, unless it may be overwritten, and a directory that is not.
pub(super) fn check_free(path: &Path, force: bool) -> Result {
    if !force && path.symlink_metadata().is_ok() {
        let text = format!("{} is there already: say --force to overwrite it", path.display());
        return Err(Failure::new(Exit::Usage, text));
    }
    match directory(path).metadata() {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(cannot(path, &"its directory is none")),
        Err(error) => Err(cannot(path, &error)),
    }
}

/// Writes the file: whole or not at all, with the permissions of the one that it comes from.
pub(super) fn to(path: &Path, text: &str, like: Option<&Path>, force: bool) -> Result {
    let beside = beside(path);
    let mode = like.and_then(|like| fs::metadata(like).ok()).map(|like| like.permissions().mode() & 0o777);
    let put = write_new(&beside, text, mode).and_then(|()| {
        if force {
            fs::rename(&beside, path)
        } else {
            // Unlike a rename it refuses a file that has come since.
            fs::hard_link(&beside, path)
        }
    });
    // After a rename it is not there any more.
    let _removed = fs::remove_file(&beside);
    put.and_then(|()| File::open(directory(path))?.sync_all()).map_err(|error| cannot(path, &error))
}

fn write_new(path: &Path, text: &str, mode: Option<u32>) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode.unwrap_or(0o644)).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// A name in the same directory that nobody else uses.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".new-{}", std::process::id()));
    path.with_file_name(name)
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn cannot(path: &Path, why: &dyn std::fmt::Display) -> Failure {
    Failure::new(Exit::Usage, format!("{} cannot be written: {why}", path.display()))
}

/// What does not load is not handed out.
fn checked(text: String) -> Result<String> {
    match text.parse::<Config>() {
        Ok(_) => Ok(text),
        Err(error) => {
            Err(Failure::new(Exit::Other, format!("the configuration advised would not load: {error}")))
        }
    }
}

fn set(root: &mut Table, entries: &[Entry]) {
    for entry in entries {
        let value = match entry.value {
            Value::Number(number) => toml_edit::Value::from(i64::try_from(number).unwrap_or(i64::MAX)),
            Value::Switch(on) => toml_edit::Value::from(on),
            Value::Text(text) => toml_edit::Value::from(text),
        };
        match root.get_mut(entry.name) {
            Some(Item::Value(old)) => {
                let decor = old.decor().clone();
                *old = value;
                *old.decor_mut() = decor;
            }
            // As a table, `[sessions]`.
            Some(other) => *other = Item::Value(value),
            None => drop(root.insert(entry.name, Item::Value(value))),
        }
        comment(root, entry.name, &format!("{}{}", Load::BEGINS, entry.evidence));
    }
}

/// Puts a comment line before a field, in the place of one of an earlier tuning.
fn comment(root: &mut Table, name: &str, line: &str) {
    let Some(mut key) = root.key_mut(name) else { return };
    let before = key.leaf_decor().prefix().and_then(|prefix| prefix.as_str()).unwrap_or_default();
    let (lines, indent) = before.rsplit_once('\n').map_or(("", before), |(lines, indent)| (lines, indent));
    let mut prefix = String::new();
    let is_kept = |line: &&str| !line.trim_start().starts_with(Load::BEGINS);
    if before.contains('\n') {
        lines.split('\n').filter(is_kept).for_each(|line| {
            prefix.push_str(line);
            prefix.push('\n');
        });
    }
    prefix.push_str(&format!("{indent}{line}\n{indent}"));
    key.leaf_decor_mut().set_prefix(prefix);
}

fn text_item(text: &str) -> Item {
    toml_edit::value(text)
}

/// A path that leads there from other directories, too. What is not there from here is a name that the system looks for.
fn lasting(path: &Path) -> String {
    let absolute = path.exists().then(|| std::path::absolute(path).ok()).flatten();
    absolute.as_deref().unwrap_or(path).display().to_string()
}

/// A source as a configuration names it; `None` for a PIN.
fn form(source: &PinSource) -> Option<String> {
    match source {
        PinSource::File(path) => Some(format!("file:{}", lasting(path))),
        PinSource::Env(name) => Some(format!("env:{name}")),
        PinSource::Fd(number) => Some(format!("fd:{number}")),
        PinSource::Credential(name) => Some(format!("credential:{name}")),
        PinSource::Prompt => Some("prompt".to_owned()),
        PinSource::ProtectedAuthenticationPath => Some("protected".to_owned()),
        PinSource::Value(_) => None,
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &'static str, value: Value, evidence: &str) -> Entry {
        Entry { name, value, evidence: evidence.to_owned() }
    }

    const TEXT: &str = "\
# Ours.
module = \"/m.so\" # of the vendor

# Never more than eight!
  sessions = \"auto\" # for now
pin = \"file:/pin\"

# The tokens.
[[token]]
name = \"pay-1\" # in rack 1
[audit]
directory = \"/log\"
mode = \"strict\"
loss = \"stop\"
";

    #[test]
    fn only_tuned_fields_change_and_comments_stay() {
        let entries =
            [entry("sessions", Value::Number(8), "a: 8"), entry("copies", Value::Text("off"), "a: off")];
        let text = changed(TEXT, &entries).unwrap();
        let expected = TEXT
            .replace("  sessions = \"auto\" #", "  # tuned a: 8\n  sessions = 8 #")
            .replace("pin = \"file:/pin\"\n", "pin = \"file:/pin\"\n# tuned a: off\ncopies = \"off\"\n");
        assert_eq!(text, expected);
    }

    #[test]
    fn a_later_tuning_takes_the_place_of_an_earlier_one() {
        let of = |sessions, day| changed(TEXT, &[entry("sessions", Value::Number(sessions), day)]).unwrap();
        let once = of(8, "a");
        let twice = changed(&once, &[entry("sessions", Value::Number(4), "b")]).unwrap();
        assert_eq!(twice, of(4, "b"));
        let example = changed(Config::EXAMPLE, &[entry("sessions", Value::Number(4), "b")]).unwrap();
        assert_eq!(example.lines().count(), Config::EXAMPLE.lines().count() + 2);
    }

    #[test]
    fn what_would_not_load_is_not_handed_out() {
        assert!(changed("module = \"/m.so\"\n", &[]).is_err());
    }

    #[test]
    fn a_pin_is_no_source() {
        for source in ["file:/a-that-is-not-there", "env:A", "fd:3", "credential:a", "prompt", "protected"] {
            assert_eq!(form(&source.parse().unwrap()).as_deref(), Some(source));
        }
        assert_eq!(form(&PinSource::from("1234".to_owned())), None);
    }

    #[test]
    fn a_file_that_is_there_stays_unless_told_otherwise() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tuned.toml");
        check_free(&path, false).unwrap();
        to(&path, "one", None, false).unwrap();
        assert!(check_free(&path, false).is_err());
        assert!(to(&path, "two", None, false).is_err(), "it may come while there is measured");
        assert_eq!(fs::read_to_string(&path).unwrap(), "one");
        check_free(&path, true).unwrap();
        to(&path, "three", None, true).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "three");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left beside it");
        assert!(check_free(&directory.path().join("none/tuned.toml"), true).is_err());
    }
}
