//! Keys as text and as JSON.

use std::io::Write;
use std::time::SystemTime;

use comfy_table::{ContentArrangement, Table, presets};
use hsmux::{KeyInfo, KeyOrigin, KeyState, KeyVersionInfo, RecordPlace, RefusedRecord};
use serde_json::{Value, json};

use crate::exit::{Result, printable};

/// How it is shown.
#[derive(Clone, Copy)]
pub(super) struct Form {
    pub(super) json: bool,
}

impl Form {
    /// The id, which is what a caller wants of it; as JSON all of it.
    pub(super) fn created(self, out: &mut impl Write, key: &KeyInfo) -> Result {
        match self.json {
            true => writeln!(out, "{}", of(key))?,
            false => writeln!(out, "{}", key.id)?,
        }
        Ok(())
    }

    pub(super) fn list(self, out: &mut impl Write, keys: &[KeyInfo], all: bool) -> Result {
        let shown: Vec<_> = keys.iter().filter(|key| all || key.state != KeyState::Destroyed).collect();
        if self.json {
            writeln!(out, "{}", Value::from(shown.into_iter().map(of).collect::<Vec<_>>()))?;
            return Ok(());
        }
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(["name", "id", "kind", "state", "version", "aliases"]);
        for key in shown {
            let aliases: Vec<_> = key.aliases.iter().map(|alias| printable(alias)).collect();
            table.add_row([
                printable(&key.name),
                key.id.to_string(),
                key.spec.clone(),
                state(key),
                primary(key).to_string(),
                aliases.join(" "),
            ]);
        }
        writeln!(out, "{table}")?;
        Ok(())
    }

    pub(super) fn one(self, out: &mut impl Write, key: &KeyInfo) -> Result {
        if self.json {
            writeln!(out, "{}", of(key))?;
            return Ok(());
        }
        let mut line = |name: &str, value: String| writeln!(out, "{name:<11}{}", printable(&value));
        line("id", key.id.to_string())?;
        line("name", key.name.clone())?;
        line("aliases", key.aliases.join(" "))?;
        line("kind", key.spec.clone())?;
        line("only for", key.algorithms.join(" "))?;
        line("state", state(key))?;
        line("tenant", if key.tenant == 0 { "nobody's".to_owned() } else { key.tenant.to_string() })?;
        line("group", key.group.clone())?;
        line("host modes", if key.host_modes { "yes" } else { "no" }.to_owned())?;
        line("active", format!("{} to {}", day(key.active_from), day(key.active_until)))?;
        let period = key.rotate_every.map_or_else(
            || "on demand".to_owned(),
            |every| format!("every {}", humantime::format_duration(every)),
        );
        line("rotated", period)?;
        for version in &key.versions {
            let (made, how) = (day(Some(version.created)), origin(version.origin));
            line("version", format!("{}, made {made}, {how}, CKA_ID {}", version.version, version.object))?;
        }
        Ok(())
    }

    pub(super) fn gone(self, out: &mut impl Write, alias: &str) -> Result {
        match self.json {
            true => writeln!(out, "{}", json!({ "removed": alias }))?,
            false => writeln!(out, "removed: {}", printable(alias))?,
        }
        Ok(())
    }

    /// The files that records are in, one line each: whoever loses one loses its token's keys.
    pub(super) fn places(self, err: &mut impl Write, places: &[RecordPlace]) -> Result {
        for RecordPlace { token, file, .. } in places {
            let Some(file) = file else { continue };
            writeln!(err, "hsmux: the records of {} are in {}", printable(token), file.display())?;
        }
        Ok(())
    }

    /// What is not believed, one line each.
    pub(super) fn refused(self, err: &mut impl Write, records: &[RefusedRecord]) -> Result {
        for RefusedRecord { token, label, why, .. } in records {
            writeln!(err, "hsmux: not believed: {} on {}: {why}", printable(label), printable(token))?;
        }
        Ok(())
    }
}

fn of(key: &KeyInfo) -> Value {
    let version = |version: &KeyVersionInfo| {
        json!({
            "version": version.version,
            "object": version.object,
            "created": rfc3339(version.created),
            "origin": origin(version.origin),
        })
    };
    let versions: Vec<_> = key.versions.iter().map(version).collect();
    json!({
        "id": key.id.as_str(),
        "name": key.name,
        "aliases": key.aliases,
        "group": key.group,
        "tenant": key.tenant,
        "spec": key.spec,
        "algorithms": key.algorithms,
        "host_modes": key.host_modes,
        "state": key.state.name(),
        "destroy_at": key.destroy_at.map(rfc3339),
        "active_from": key.active_from.map(rfc3339),
        "active_until": key.active_until.map(rfc3339),
        "rotate_every_s": key.rotate_every.map(|every| every.as_secs()),
        "primary_version": primary(key),
        "versions": versions,
    })
}

fn primary(key: &KeyInfo) -> u32 {
    key.versions.last().map_or(0, |version| version.version)
}

fn state(key: &KeyInfo) -> String {
    match key.destroy_at {
        Some(at) => format!("{}, to be destroyed at {}", key.state.name(), rfc3339(at)),
        None => key.state.name().to_owned(),
    }
}

const fn origin(origin: KeyOrigin) -> &'static str {
    match origin {
        KeyOrigin::Generated => "generated",
        KeyOrigin::Transported => "transported",
        KeyOrigin::Adopted => "adopted",
        _ => "unknown",
    }
}

fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

fn day(time: Option<SystemTime>) -> String {
    time.map_or_else(|| "-".to_owned(), rfc3339)
}
