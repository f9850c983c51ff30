//! `hsmux config`: looks at a configuration, or shows one.

use std::io::{self, Write};
use std::path::PathBuf;

use hsmux::Config;

use crate::exit::Result;

/// Examples, for `--help`.
pub(crate) const EXAMPLES: &str = "\
Examples:
  hsmux config example > hsmux.toml
  hsmux config check hsmux.toml";

/// Options of `hsmux config`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Read a configuration file and say what is wrong with it, by line and column; nothing is logged in to
    Check {
        /// The file
        file: PathBuf,
    },
    /// Print a configuration with every field: what it bounds, its default, who should change it at what cost
    Example,
}

/// Checks a file, or prints the example.
pub(crate) fn run(args: Args) -> Result {
    let mut out = io::stdout().lock();
    match args.what {
        What::Check { file } => {
            let config = Config::read(&file)?;
            config.module_profile()?;
            let count = config.token_names().count();
            writeln!(out, "{}: good, {count} token{}", file.display(), if count == 1 { "" } else { "s" })?;
        }
        What::Example => out.write_all(Config::EXAMPLE.as_bytes())?,
    }
    Ok(out.flush()?)
}
