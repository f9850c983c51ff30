//! `hsmux info`: what a module, its tokens and their keys say of themselves.

use std::fmt;
use std::io::{self, Write};
use std::time::Duration;

use comfy_table::{ContentArrangement, Table, presets};
use hsmux::{KeyDescription, KeyFlags, MechanismDescription, ModuleDescription, TokenDescription};

use crate::connection::{Connection, Site, is_uri};
use crate::exit::{Exit, Failure, Result, printable};

/// Examples, for `--help`.
pub(crate) const EXAMPLES: &str = "\
Examples:
  hsmux info --module /usr/lib/softhsm/libsofthsm2.so
  hsmux info --module PATH --token LABEL --pin-source file:PIN_FILE";

/// Options of `hsmux info`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    connection: Connection,
}

/// How long the engine may take to stop at the end.
const DRAIN: Duration = Duration::from_secs(10);

/// Describes the module and its tokens; their keys too if there is a PIN source.
pub(crate) fn run(args: Args) -> Result {
    let site = args.connection.resolve()?;
    let module = site.describe()?;
    let tokens = chosen(&module, site.named())?;
    let (keys, instances) = match site.has_pin() {
        true => keys(&site).map(|(keys, instances)| (Some(keys), instances))?,
        false => (None, 1),
    };
    let mut out = io::stdout().lock();
    writeln!(out, "module     {}", site.module().display())?;
    writeln!(out, "{}", Shown(&module))?;
    if instances > 1 {
        writeln!(out, "instances  {instances}, each logged in to by itself")?;
    }
    for token in tokens {
        writeln!(out, "\n{}", Shown(token))?;
        writeln!(out, "\n{}", mechanisms(&token.mechanisms))?;
        match &keys {
            Some(keys) => {
                let of_token: Vec<_> = keys.iter().filter(|key| is_on(key, token)).collect();
                writeln!(out, "\n{}", key_table(&of_token))?;
            }
            None => writeln!(out, "\nkeys       not listed: that takes a --pin-source")?,
        }
    }
    Ok(out.flush()?)
}

/// Labels need not be unique.
fn is_on(key: &KeyDescription, token: &TokenDescription) -> bool {
    (&key.token, &key.token_serial) == (&token.label, &token.serial)
}

/// The tokens that were named; all if none was.
fn chosen<'a>(module: &'a ModuleDescription, names: &[String]) -> Result<Vec<&'a TokenDescription>> {
    let mut wanted = vec![names.is_empty(); module.tokens.len()];
    for name in names {
        let named = module.tokens.iter().map(|token| token.is_named(name));
        let named = named.collect::<std::result::Result<Vec<_>, _>>()?;
        if !named.contains(&true) {
            let present: Vec<_> = module.tokens.iter().map(|token| token.label.as_str()).collect();
            // A URI is not repeated: it may name a key too.
            let name = if is_uri(name) { "the URI" } else { name };
            let text = format!("token not found: {name}; present are: {}", present.join(", "));
            return Err(Failure::new(Exit::Token, text));
        }
        wanted.iter_mut().zip(named).for_each(|(wanted, named)| *wanted |= named);
    }
    Ok(module.tokens.iter().zip(wanted).filter_map(|(token, wanted)| wanted.then_some(token)).collect())
}

/// Logs in, lists the keys and stops. Says also how many instances of the module an engine has here.
fn keys(site: &Site) -> Result<(Vec<KeyDescription>, usize)> {
    let tokens = site.tokens()?;
    let engine = site.builder(&tokens, site.pin()?).sessions(1).build()?;
    let instances = engine.tokens().iter().map(|token| token.instances).max().unwrap_or(1);
    let keys = engine.keys();
    engine.drain(DRAIN);
    Ok((keys, instances))
}

/// A description in lines of a name and a value.
struct Shown<'a, T>(&'a T);

impl fmt::Display for Shown<'_, ModuleDescription> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ModuleDescription { manufacturer, description, version, cryptoki, tokens, unreadable, .. } =
            self.0;
        writeln!(f, "library    {}, {}", printable(description), printable(manufacturer))?;
        writeln!(f, "version    {}.{}, PKCS#11 {}.{}", version.0, version.1, cryptoki.0, cryptoki.1)?;
        write!(f, "tokens     {} initialised", tokens.len())?;
        unreadable.iter().try_for_each(|(slot, error)| {
            write!(f, "\nunreadable slot {slot}: {}", printable(&error.to_string()))
        })
    }
}

impl fmt::Display for Shown<'_, TokenDescription> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TokenDescription { label, serial, manufacturer, model, sessions_max, .. } = self.0;
        writeln!(f, "token      {}", printable(label))?;
        writeln!(f, "serial     {}", printable(serial))?;
        writeln!(f, "model      {}, {}", printable(model), printable(manufacturer))?;
        match sessions_max {
            Some(limit) => write!(f, "sessions   {limit} at most"),
            None => write!(f, "sessions   no limit told"),
        }
    }
}

/// `CKF_` flags of mechanisms (PKCS#11 2.40, `CK_MECHANISM_INFO`) by what they allow.
const MECHANISM_FLAGS: [(u64, &str); 13] = [
    (0x1, "hardware"),
    (0x100, "encrypt"),
    (0x200, "decrypt"),
    (0x400, "digest"),
    (0x800, "sign"),
    (0x1000, "sign-recover"),
    (0x2000, "verify"),
    (0x4000, "verify-recover"),
    (0x8000, "generate"),
    (0x1_0000, "generate-pair"),
    (0x2_0000, "wrap"),
    (0x4_0000, "unwrap"),
    (0x8_0000, "derive"),
];

fn mechanisms(mechanisms: &[MechanismDescription]) -> Table {
    let mut table = table(["mechanism", "key sizes", "may"]);
    for mechanism in mechanisms {
        let flags = MECHANISM_FLAGS.iter().filter(|(flag, _)| mechanism.flags & flag != 0);
        let may: Vec<_> = flags.map(|(_, name)| *name).collect();
        let sizes = match (mechanism.key_min, mechanism.key_max) {
            (0, 0) => String::new(),
            (min, max) => format!("{min} to {max}"),
        };
        table.add_row([mechanism.name(), sizes, may.join(" ")]);
    }
    table
}

fn key_table(keys: &[&KeyDescription]) -> Table {
    let mut table = table(["key", "kind", "id", "may", "guarded", "only for", "public"]);
    for key in keys {
        let id: String = key.id.iter().map(|byte| format!("{byte:02x}")).collect();
        table.add_row([
            printable(&key.label),
            key.kind.clone(),
            id,
            key.uses.join(" "),
            flags(&key.flags).join(" "),
            key.allowed.join(" "),
            if key.has_public { "yes" } else { "no" }.to_owned(),
        ]);
    }
    table
}

/// The attributes that hold, by the names of the standard without their prefix.
fn flags(flags: &KeyFlags) -> Vec<&'static str> {
    let all = [
        (flags.token, "token"),
        (flags.private, "private"),
        (flags.sensitive, "sensitive"),
        (flags.always_sensitive, "always-sensitive"),
        (flags.extractable, "extractable"),
        (flags.never_extractable, "never-extractable"),
        (flags.local, "local"),
        (flags.wrap, "wrap"),
        (flags.unwrap, "unwrap"),
        (flags.derive, "derive"),
    ];
    all.into_iter().filter_map(|(holds, name)| holds.then_some(name)).collect()
}

/// A table without lines, so that other programs can cut it too.
fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header);
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_attribute_of_a_key_that_holds_is_named() {
        let mut some = KeyFlags::default();
        assert!(flags(&some).is_empty());
        (some.token, some.sensitive, some.derive) = (true, true, true);
        assert_eq!(flags(&some), ["token", "sensitive", "derive"]);
    }
}
