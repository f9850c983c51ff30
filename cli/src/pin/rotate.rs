//! `hsmux pin rotate`: another PIN for tokens.

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use hsmux::{PinRotation, PinSource};
use serde::Serialize;

use super::Named;
use crate::confirm::ask;
use crate::connection::Connection;
use crate::exit::{Exit, Failure, Result, printable};

/// Options of `hsmux pin rotate`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Where the new PIN is, as --pin-source; that one is where the old PIN is
    #[arg(long, value_name = "SOURCE")]
    new_pin_source: Named,

    /// Go on with a rotation that was cut off: --pin-source is where its old PIN is, --new-pin-source its new one
    #[arg(long)]
    resume: bool,

    #[command(flatten)]
    connection: Connection,

    /// Print JSON instead of text
    #[arg(long)]
    json: bool,

    /// Do not ask first
    #[arg(long)]
    yes: bool,
}

const EXAMPLES: &str = "\
A --state-dir (or that of --config) is needed: the one that the services have, and as their user. Each step is written
down there first, so that a rotation that is cut off can go on.

Example:
  hsmux pin rotate --config /etc/hsmux.toml --new-pin-source file:/run/secrets/pin.new";

/// How long the engine may take to stop at the end.
const DRAIN: Duration = Duration::from_secs(10);

/// What was done, as JSON.
#[derive(Serialize)]
struct Report<'a> {
    tokens: Vec<Token<'a>>,
    next: [String; 2],
}

#[derive(Serialize)]
struct Token<'a> {
    label: &'a str,
    serial: &'a str,
    /// `changed`, or `had-it` if it had the new PIN before.
    pin: &'static str,
}

/// Gives the tokens another PIN.
pub(crate) fn run(args: &Args) -> Result {
    let (new, site) = (args.new_pin_source.source_of("--new-pin-source")?, args.connection.resolve()?);
    let state_dir = site.state_dir().ok_or_else(|| Failure::new(Exit::Usage, NO_STATE_DIR))?.to_owned();
    let (tokens, old) = (site.tokens()?, site.pin()?);
    // What can be read once is read once: for the engine, and then for its rotation.
    let new = in_memory(new)?;
    let warning = format!("the PIN of {} is changed", tokens.join(", "));
    if !args.yes && !ask(&warning)? {
        return Err(Failure::new(Exit::Usage, "nothing was changed"));
    }
    let mut builder = site.builder(&tokens, old).sessions(1);
    if args.resume {
        builder = builder.resume_rotation(new.clone());
    }
    let engine = builder.build()?;
    let rotated = engine.rotate_pin(new);
    engine.drain(DRAIN);
    print(&rotated?, &state_dir, args.json)
}

const NO_STATE_DIR: &str =
    "a --state-dir is needed, in which each step is written down: that of the services";

/// A source that can be read twice.
fn in_memory(source: PinSource) -> Result<PinSource> {
    Ok(match source {
        // Their PIN is there for whoever reads it next, and the time of a file says which one it is.
        PinSource::File(_) | PinSource::Env(_) | PinSource::Credential(_) => source,
        PinSource::ProtectedAuthenticationPath => source,
        source => PinSource::Value(source.read()?),
    })
}

fn print(rotation: &PinRotation, state_dir: &Path, json: bool) -> Result {
    let mut out = io::stdout().lock();
    let next = [
        "put the new PIN where services have the old one from".to_owned(),
        format!(
            "restart the services that use these tokens: those with the state directory {} send the old PIN no more",
            state_dir.display()
        ),
    ];
    let tokens = rotation.tokens.iter().map(|token| Token {
        label: &token.label,
        serial: &token.serial,
        pin: if token.had_it { "had-it" } else { "changed" },
    });
    if json {
        let report = Report { tokens: tokens.collect(), next };
        serde_json::to_writer(&mut out, &report).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        for token in tokens {
            let done = if token.pin == "changed" { "has the new PIN" } else { "had the new PIN already" };
            writeln!(out, "{}", printable(&format!("{} (serial {}): {done}", token.label, token.serial)))?;
        }
        for step in next {
            writeln!(out, "next: {}", printable(&step))?;
        }
    }
    Ok(out.flush()?)
}
