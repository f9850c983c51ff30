//! `hsmux doctor`: looks at all that a service needs to start, and says what to do about what is wrong.
//!
//! Facts are gathered thinly, and what they mean is decided by pure functions beside them.

mod access;
mod audit;
mod clock;
mod config;
mod finding;
mod limits;
mod login;
mod module;
mod pin;
mod report;
mod sessions;
mod token;
mod trial;
mod within;

use std::time::Duration;

use hsmux::ModuleDescription;

use crate::connection::{Connection, Site};
use crate::exit::{Exit, Failure, Result};
use crate::units;
use finding::Finding;
use report::Report;
use token::Seen;

/// Options of `hsmux doctor`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    connection: Connection,

    /// Log in too: the PIN is sent once to each token, unless its flags or the state directory warn. Lists the keys and
    /// has one used. `pin_despite_warning` of a configuration does not count here, only the option
    #[arg(long)]
    login: bool,

    /// Let warnings count: the exit code is 0 only if there are none
    #[arg(long)]
    strict: bool,

    /// Print one JSON document: schema `hsmux-doctor`, version 1. None is printed if the module ends the process: without
    /// --json, what was found before that is
    #[arg(long)]
    json: bool,

    /// How long the module may take to be loaded and to describe its tokens. After that it is left alone, and all else is
    /// looked at
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = units::duration)]
    module_limit: Duration,
}

/// Examples and exit codes, for `--help`.
pub(crate) const HELP: &str = "\
Run it as the user of the service, before it goes live or when it does not start. All that can be looked at is, whatever
is wrong with the rest. Without --login no PIN is sent. Options such as --pin-source do not go with --config: to see what a unit
of systemd provides, run it as the unit does, by systemd-run.

Examples:
  hsmux doctor --config /etc/hsmux.toml
  hsmux doctor --config /etc/hsmux.toml --login --strict
  hsmux doctor --module PATH --token LABEL --pin-source file:PIN_FILE --json | jq '.findings[] | select(.level != \"ok\")'

Exit codes:
  0  no problem; with --strict no warning either
  2  the first problem is in options, configuration, directories or limits of the system
  3  in the module
  4  in a token
  5  in the PIN: its source, a refusal on record, or what the token's flags say of it
  6  in a key
  7  in an operation
  8  in what is busy, or a module that hangs
  11  in the audit log
  1  in anything else, as the clock";

/// Looks at everything, prints what it finds as it goes, and ends as the worst of it demands.
pub(crate) fn run(args: &Args) -> Result {
    let mut report = Report::new(args.json);
    let site = match args.connection.config_path() {
        Some(path) => {
            let site = args.connection.resolve();
            report.add(config::judge(&config::File::look(path, &site)))?;
            site.ok()
        }
        // Options that contradict each other are nothing that a doctor could look at.
        None => Some(args.connection.resolve()?),
    };
    match &site {
        Some(site) => look(site, args, &mut report)?,
        None => blind(&mut report)?,
    }
    report.end(args.strict)
}

/// What can be looked at without knowing where to.
fn blind(report: &mut Report) -> Result {
    for check in ["config.state_dir", "audit.directory", "pin.source", "module.file", "token.present"] {
        report.add([Finding::skipped(check, "the configuration cannot be read")])?;
    }
    report.add([Finding::skipped("sessions.room", "the configuration cannot be read")])?;
    report.add(limits::judge(&limits::Limits::here(None, false)))?;
    report.add([clock::judge_system(&clock::System::here())])?;
    report.add([Finding::skipped("login.pin", "the configuration cannot be read")])
}

fn look(site: &Site, args: &Args, report: &mut Report) -> Result {
    report.add(site.config().and_then(config::judge_profile))?;
    report.add(site.config().and_then(config::untried))?;
    report.add([config::judge_state_dir(&config::StateDir::look(site))])?;
    report.add(audit::judge(audit::Log::look(site).as_ref()))?;
    // Before a PIN is read: this process's core would hold it.
    report.add(hsmux::harden_process().err().map(|error| pin::exposed(&error)))?;
    let source = site.pin_source().map(|source| pin::Source::look(source, site.has_config()));
    report.add(pin::judge(source.as_ref(), site.has_config()))?;
    report.add(pin::judge_records(&pin::Refusals::look(site)))?;
    report.add(module::judge_file(&module::File::look(site.module())))?;
    // What loads a module may end the process: all before is printed by now.
    let described = describe(site, args.module_limit);
    report.add(module::judge(&module::Loaded::of(site, &described)))?;
    match &described {
        Ok(module) => {
            let seen = Seen::look(site, module);
            look_at_tokens(site, &seen, report)?;
            report.add(match trial::obstacle(site, args.login, source.as_ref()) {
                Some(skipped) => vec![skipped],
                None => login::judge(&trial::log_in(site, module, &seen), site.canary_key()),
            })
        }
        Err(_) => without_tokens(site, report),
    }
}

/// What the module and its tokens say of themselves, if they do in time.
fn describe(site: &Site, limit: Duration) -> Result<ModuleDescription> {
    let (module, init_args) = (site.module().to_owned(), site.init_args().map(str::to_owned));
    let described = within::within(limit, move || hsmux::inspect(&module, init_args.as_deref()));
    Ok(described.map_err(|why| Failure::new(Exit::Busy, format!("the module hangs: {why}")))??)
}

fn without_tokens(site: &Site, report: &mut Report) -> Result {
    const WHY: &str = "the module does not load";
    report.add([Finding::skipped("token.present", WHY), Finding::skipped("sessions.room", WHY)])?;
    report.add(limits::judge(&limits::Limits::here(None, site.hardens_process())))?;
    report.add([clock::judge_system(&clock::System::here()), Finding::skipped("clock.token", WHY)])?;
    report.add([Finding::skipped("login.pin", WHY)])
}

fn look_at_tokens(site: &Site, seen: &Seen, report: &mut Report) -> Result {
    report.add(token::judge(seen))?;
    let wanted = sessions::Wanted::of(site);
    let tokens: Vec<_> = seen.chosen().collect();
    report.add(sessions::judge(&tokens, &wanted))?;
    let most = tokens.iter().map(|token| wanted.most(token)).reduce(|one, other| one + other);
    report.add(limits::judge(&limits::Limits::here(most, site.hardens_process())))?;
    report.add([clock::judge_system(&clock::System::here())])?;
    report.add(tokens.iter().map(|token| clock::judge_token(token)))
}
