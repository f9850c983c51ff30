//! Asking before something that cannot be undone.

use std::io::{self, IsTerminal, Write};

use crate::exit::{Exit, Failure, Result, printable};

/// Asks whoever sits at the terminal.
pub(crate) fn ask(warning: &str) -> Result<bool> {
    if !io::stdin().is_terminal() {
        let text = format!("{warning}: say --yes, for nobody can be asked here");
        return Err(Failure::new(Exit::Usage, text));
    }
    let mut err = io::stderr().lock();
    write!(err, "{}: go on? [y/N] ", printable(warning))?;
    err.flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
