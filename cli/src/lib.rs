//! The command line of hsmux. Thin: the work is done by the libraries.
//!
//! [`run`] is the program. What else is public is for those who test it from outside, fuzzers above all.

mod audit;
pub mod bulk;
mod config;
mod confirm;
mod connection;
mod demo;
mod doctor;
mod exit;
mod figures;
mod info;
mod keys;
mod load;
mod manual;
mod pin;
mod probe;
mod report;
mod stop;
mod tune;
mod units;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::exit::{EXIT_CODES, Failure};

/// Many callers, few HSM sessions: shows, measures and lists what a PKCS#11 module does, and signs in bulk.
#[derive(Debug, Parser)]
#[command(name = "hsmux", version, after_help = EXIT_CODES, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the engine at work on throw-away tokens
    Demo(demo::Args),
    /// Measure operations in a closed loop, beside a raw loop if wanted
    #[command(after_help = with_examples(load::EXAMPLES))]
    Load(load::Args),
    /// Try how many sessions, which switches and how many instances do most, and write a configuration with the evidence
    #[command(after_help = tune::HELP)]
    Tune(Box<tune::Args>),
    /// Make a page of the results of load runs: one file of HTML, with nothing beside it
    #[command(after_help = report::HELP)]
    Report(report::Args),
    /// List a module's tokens and mechanisms, and with a PIN source their keys
    #[command(after_help = with_examples(info::EXAMPLES))]
    Info(info::Args),
    /// Try what a module and a token can do, and write it down for engines: loads the device for up to a minute
    #[command(after_help = probe::HELP)]
    Probe(Box<probe::Args>),
    /// Sign, make MACs, encrypt or decrypt: one JSON record a line in, one out
    Bulk(bulk::Args),
    /// Check a configuration file, or print an example of one
    #[command(after_help = with_examples(config::EXAMPLES))]
    Config(config::Args),
    /// Check all that a service needs: configuration, PIN source, module, tokens, sessions, limits, clock; say what to do
    #[command(after_help = doctor::HELP)]
    Doctor(Box<doctor::Args>),
    /// Give tokens another PIN; list the tokens that no PIN is sent to because one was refused, and clear that
    #[command(after_help = EXIT_CODES)]
    Pin(pin::record::Args),
    /// Make, list, rotate, suspend and destroy managed keys
    #[command(after_help = EXIT_CODES)]
    Keys(Box<keys::Args>),
    /// Verify an audit log, prove what is in it, show it. Needs no HSM
    Audit(audit::Args),
    /// Print the completion script of a shell
    Completion(manual::CompletionArgs),
    /// Write the manual pages into a directory
    Man(manual::ManArgs),
}

/// Examples of a command, and the exit codes.
fn with_examples(examples: &str) -> String {
    format!("{examples}\n\n{EXIT_CODES}")
}

/// Runs the program on the arguments and streams of this process; returns how it ended.
///
/// # Blocking
/// Until the command is done. `bulk` takes over SIGINT and SIGTERM meanwhile.
#[must_use]
pub fn run() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Demo(args) => demo::run(args),
        Command::Load(args) => load::run(args),
        Command::Tune(args) => tune::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Info(args) => info::run(args),
        Command::Probe(args) => probe::run(*args),
        Command::Bulk(args) => bulk::run(args),
        Command::Config(args) => config::run(args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Pin(args) => pin::record::run(args),
        Command::Keys(args) => keys::run(*args),
        Command::Audit(args) => audit::run(args),
        Command::Completion(args) => manual::complete(&args),
        Command::Man(args) => manual::write_pages(&args),
    };
    result.map_or_else(Failure::end, |()| ExitCode::SUCCESS)
}
