//! What shells and `man` want to know of the program: `hsmux completion` and `hsmux man`.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{CommandFactory, ValueEnum};
use clap_complete::{Generator, shells};

use crate::Cli;
use crate::exit::{Exit, Failure, Result};

/// Options of `hsmux completion`.
#[derive(Debug, clap::Args)]
pub(crate) struct CompletionArgs {
    /// The shell
    shell: Shell,
}

/// Options of `hsmux man`.
#[derive(Debug, clap::Args)]
pub(crate) struct ManArgs {
    /// Where to write the pages; made if it is missing
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Prints the completion script: `source <(hsmux completion bash)`.
pub(crate) fn complete(args: &CompletionArgs) -> Result {
    let mut script = Vec::new();
    let mut command = Cli::command();
    command.set_bin_name("hsmux");
    command.build();
    // Into memory first: the generators panic when they cannot write.
    match args.shell {
        Shell::Bash => shells::Bash.generate(&command, &mut script),
        Shell::Zsh => shells::Zsh.generate(&command, &mut script),
        Shell::Fish => shells::Fish.generate(&command, &mut script),
    }
    let mut out = io::stdout().lock();
    out.write_all(&script)?;
    Ok(out.flush()?)
}

/// Writes `hsmux.1` and a page for each command, as `hsmux-bulk-sign.1`.
pub(crate) fn write_pages(args: &ManArgs) -> Result {
    let cannot = |error: io::Error| {
        Failure::new(Exit::Other, format!("cannot write pages into {}: {error}", args.directory.display()))
    };
    std::fs::create_dir_all(&args.directory).map_err(cannot)?;
    clap_mangen::generate_to(Cli::command(), &args.directory).map_err(cannot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
