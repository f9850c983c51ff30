//! `hsmux` on the command line; all of it is in the library beside.

use std::process::ExitCode;

fn main() -> ExitCode {
    hsmux_cli::run()
}
