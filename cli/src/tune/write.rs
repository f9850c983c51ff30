//! The configuration that is advised, as a file.

use std::path::Path;

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
        let text = format!("{}{}", Load::BEGINS, entry.evidence);
        let value = match entry.value {
            // Where it does not stand, there is nothing to comment on.
            Value::AsItIs => {
                comment(root, entry.name, &text);
                continue;
            }
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
        comment(root, entry.name, &text);
    }
}

/// Puts a comment line before a field, in the place of one of an earlier tuning.
fn comment(root: &mut Table, name: &str, line: &str) {
    let Some(mut key) = root.key_mut(name) else { return };
    let before = key.leaf_decor().prefix().and_then(|prefix| prefix.as_str()).unwrap_or_default();
    let (lines, indent) = before.rsplit_once('\n').map_or(("", before), |(lines, indent)| (lines, indent));
    let mut prefix = String::new();
    let is_kept = |line: &&str| !is_ours(line);
    if before.contains('\n') {
        lines.split('\n').filter(is_kept).for_each(|line| {
            prefix.push_str(line);
            prefix.push('\n');
        });
    }
    prefix.push_str(&format!("{indent}{line}\n{indent}"));
    key.leaf_decor_mut().set_prefix(prefix);
}

/// Whether a comment was written by an earlier tuning: what people write begins otherwise.
fn is_ours(line: &str) -> bool {
    let day = line.trim_start().strip_prefix(Load::BEGINS).and_then(|rest| rest.get(..10));
    day.is_some_and(|day| {
        let is_of_it = |(place, byte): (usize, u8)| {
            if matches!(place, 4 | 7) { byte == b'-' } else { byte.is_ascii_digit() }
        };
        day.bytes().enumerate().all(is_of_it)
    })
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
            [entry("sessions", Value::Number(8), "A: 8"), entry("copies", Value::Text("off"), "A: off")];
        let text = changed(TEXT, &entries).unwrap();
        let expected = TEXT
            .replace("  sessions = \"auto\" #", "  # hsmux tune A: 8\n  sessions = 8 #")
            .replace("pin = \"file:/pin\"\n", "pin = \"file:/pin\"\n# hsmux tune A: off\ncopies = \"off\"\n");
        assert_eq!(text, expected);
    }

    #[test]
    fn a_later_tuning_takes_the_place_of_an_earlier_one() {
        let of = |sessions, day| changed(TEXT, &[entry("sessions", Value::Number(sessions), day)]).unwrap();
        let once = of(8, "2026-11-28 a");
        let twice = changed(&once, &[entry("sessions", Value::Number(4), "2026-11-29 b")]).unwrap();
        assert_eq!(twice, of(4, "2026-11-29 b"));
        let example = changed(Config::EXAMPLE, &[entry("sessions", Value::Number(4), "b")]).unwrap();
        assert_eq!(example.lines().count(), Config::EXAMPLE.lines().count() + 2);
    }

    #[test]
    fn comments_that_people_wrote_stay_even_if_they_speak_of_tuning() {
        let theirs = "# tuned by hand\n# hsmux tune was wrong here\n  sessions = \"auto\"";
        let text = TEXT.replace("  sessions = \"auto\"", theirs);
        let changed = changed(&text, &[entry("sessions", Value::Number(8), "2026-11-29: 8")]).unwrap();
        let between = "here\n  # hsmux tune 2026-11-29: 8\n  sessions = 8";
        assert_eq!(changed, text.replace("here\n  sessions = \"auto\"", between));
    }

    #[test]
    fn a_field_that_stays_as_it_is_gets_a_comment_where_it_stands() {
        let as_it_is = |text| changed(text, &[entry("sessions", Value::AsItIs, "a")]).unwrap();
        assert_eq!(as_it_is(TEXT), TEXT.replace("  sessions", "  # hsmux tune a\n  sessions"));
        let without = TEXT.replace("  sessions = \"auto\" # for now\n", "");
        assert_eq!(as_it_is(&without), without);
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
}
