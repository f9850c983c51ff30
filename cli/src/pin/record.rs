//! `hsmux pin`: what a state directory remembers of logins, and how an operator clears it.

use std::io::{self, Write};
use std::path::PathBuf;

use hsmux::{PinRecord, PinState};

use crate::exit::{Exit, Failure, Result, printable};
use crate::pin::rotate;

/// Options of `hsmux pin`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// List the tokens that no PIN is sent to because one was refused, or whose login was cut off
    List {
        #[command(flatten)]
        place: Place,
    },
    /// Give every token that is named another PIN, one after the other, with a way back
    Rotate(Box<rotate::Args>),
    /// Have the PIN sent to a token again, once. First make sure that it is right: tokens lock after few wrong ones.
    /// Services that have given the token up are to be restarted then
    Clear {
        #[command(flatten)]
        place: Place,

        /// Label or serial number of the token, or the id that `hsmux pin list` shows. Default: the only one there is
        token: Option<String>,
    },
}

#[derive(Debug, clap::Args)]
struct Place {
    /// The state directory, as the service has it. To be run as the user to whom it belongs
    #[arg(long, value_name = "DIR")]
    state_dir: PathBuf,
}

/// Lists the records, or clears one.
pub(crate) fn run(args: Args) -> Result {
    if let What::Rotate(args) = args.what {
        return rotate::run(&args);
    }
    let mut out = io::stdout().lock();
    match args.what {
        What::Rotate(_) => {}
        What::List { place } => {
            let records = PinRecord::list(&place.state_dir)?;
            if records.is_empty() {
                writeln!(out, "nothing is remembered: PINs are sent to every token")?;
            }
            for record in records {
                writeln!(out, "{}", described(&record))?;
            }
        }
        What::Clear { place, token } => {
            let record = chosen(PinRecord::list(&place.state_dir)?, token.as_deref())?;
            record.clear()?;
            writeln!(out, "cleared: {}", described(&record))?;
        }
    }
    Ok(out.flush()?)
}

/// The record that is meant, which must be one.
fn chosen(records: Vec<PinRecord>, token: Option<&str>) -> Result<PinRecord> {
    let is_meant = |record: &PinRecord| token.is_none_or(|token| record.is_named(token));
    let mut meant: Vec<_> = records.into_iter().filter(is_meant).collect();
    match (meant.pop(), meant.as_slice()) {
        (Some(record), []) => Ok(record),
        (None, _) => Err(Failure::new(Exit::Token, "nothing is remembered of such a token")),
        (Some(last), _) => {
            meant.push(last);
            let ids: Vec<_> = meant.iter().map(PinRecord::id).collect();
            let text = format!("several tokens: say which by its id: {}", ids.join(", "));
            Err(Failure::new(Exit::Token, text))
        }
    }
}

/// One line.
fn described(record: &PinRecord) -> String {
    let state = match record.state() {
        PinState::Trying => "tried, and cut off",
        PinState::Refused => "refused",
        PinState::Changing => "the change of its PIN was cut off (hsmux pin rotate --resume)",
        _ => "damaged, which counts as refused",
    };
    let time = |time| humantime::format_rfc3339_seconds(time).to_string();
    let since = record.since().map_or_else(String::new, |since| format!(" at {}", time(since)));
    let source = match record.source() {
        Some((form, Some(changed))) => format!(", PIN from {form}, which was changed at {}", time(changed)),
        Some((form, None)) => format!(", PIN from {form}"),
        None => String::new(),
    };
    let token = match record.label() {
        "" => record.id().to_owned(),
        label => format!("{}  {label} (serial {})", record.id(), record.serial()),
    };
    printable(&format!("{token}: {state}{since}{source}"))
}
