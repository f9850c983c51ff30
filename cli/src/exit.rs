//! How the program ends: one line on stderr, and an exit code that tells the class of the failure.

use std::io::{self, ErrorKind as IoKind, Write};
use std::process::ExitCode;

use hsmux::ErrorKind;

/// What every part of the program returns.
pub(crate) type Result<T = ()> = std::result::Result<T, Failure>;

/// The class of a failure; its number is the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Anything without a class of its own: a fault of the token, a lost session.
    Other = 1,
    /// Options, configuration. `clap` exits with the same code.
    Usage = 2,
    Module = 3,
    Token = 4,
    Pin = 5,
    Key = 6,
    Operation = 7,
    Busy = 8,
    /// The run is complete, but not every record has a result.
    RecordsFailed = 9,
    /// Whoever read the output has gone before its end. Only where the output is worth nothing unless whole.
    OutputClosed = 10,
    /// The audit log does not verify, or no record could be made.
    Audit = 11,
    /// A load was slower than the one that it was compared with.
    Slower = 12,
    /// By SIGINT: 128 and its number, as shells have it.
    Interrupted = 130,
    /// By SIGTERM.
    Terminated = 143,
}

/// The exit codes, for `--help`.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  success
  1  anything not below: a fault of the token, a lost session
  2  options or configuration
  3  module: not found, no PKCS#11 library, or it does not start
  4  token: none of that name, several to choose from, or it was lost
  5  PIN: refused (it was tried once), locked or close to it, or its source not usable
  6  key: none of that name, or several
  7  operation: mechanism not offered, use not permitted by attributes or state, input not valid
  8  busy: overloaded, deadline exceeded, call hung, somebody else changes the same key
  9  some records failed (bulk)
  10  output closed before its end (bulk)
  11  audit log: it does not verify, or no record could be made
  12  slower than the run that it was compared with (load)
  130  interrupted by SIGINT, 143 by SIGTERM; a first one lets bulk write what is in flight";

/// Why the program ends early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// To be said in one line on stderr.
    Said { exit: Exit, text: String },
    /// Whoever read our output has gone: nothing is wrong, and nobody listens.
    OutputClosed,
}

impl Failure {
    pub(crate) fn new(exit: Exit, text: impl Into<String>) -> Self {
        Self::Said { exit, text: text.into() }
    }

    /// What there is to say.
    pub(crate) fn into_text(self) -> String {
        match self {
            Self::Said { text, .. } => text,
            Self::OutputClosed => "output closed".to_owned(),
        }
    }

    /// Says the failure on stderr and returns its exit code.
    pub(crate) fn end(self) -> ExitCode {
        match self {
            Self::OutputClosed => ExitCode::SUCCESS,
            Self::Said { exit, text } => {
                // If stderr is closed too, the code alone has to tell.
                let _ = writeln!(io::stderr().lock(), "hsmux: {}", printable(&text));
                ExitCode::from(exit as u8)
            }
        }
    }
}

/// The text on one line and without control characters: labels come from tokens, and a terminal obeys what it is
/// sent.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

impl From<hsmux::Error> for Failure {
    fn from(error: hsmux::Error) -> Self {
        Self::new(Exit::of(error.kind()), error.to_string())
    }
}

impl From<hsmux_bench::Failure> for Failure {
    fn from(failure: hsmux_bench::Failure) -> Self {
        match failure {
            hsmux_bench::Failure::Engine(error) => error.into(),
            hsmux_bench::Failure::Other(text) => Self::new(Exit::Other, text),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            IoKind::BrokenPipe => Self::OutputClosed,
            _ => Self::new(Exit::Other, error.to_string()),
        }
    }
}

impl Exit {
    pub(crate) const fn of(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Configuration => Self::Usage,
            ErrorKind::Module => Self::Module,
            ErrorKind::TokenNotFound | ErrorKind::TokenLost => Self::Token,
            ErrorKind::PinRefused | ErrorKind::PinLocked | ErrorKind::PinUnavailable => Self::Pin,
            ErrorKind::KeyNotFound | ErrorKind::KeyAmbiguous => Self::Key,
            ErrorKind::KeyMismatch
            | ErrorKind::NotPermitted
            | ErrorKind::KeyState
            | ErrorKind::MechanismUnavailable
            | ErrorKind::InvalidInput
            | ErrorKind::TooLarge
            | ErrorKind::DecryptFailed => Self::Operation,
            ErrorKind::Overloaded
            | ErrorKind::Conflict
            | ErrorKind::DeadlineExceeded
            | ErrorKind::Hung
            | ErrorKind::Busy => Self::Busy,
            ErrorKind::Audit => Self::Audit,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_error_has_its_class() {
        let of = |exit| ErrorKind::ALL.into_iter().filter(|kind| Exit::of(*kind) == exit).count();
        let classes = [
            Exit::Usage,
            Exit::Module,
            Exit::Token,
            Exit::Pin,
            Exit::Key,
            Exit::Operation,
            Exit::Busy,
            Exit::Audit,
        ];
        assert_eq!(classes.map(of), [1, 1, 2, 3, 2, 7, 5, 1]);
        assert_eq!(Exit::of(ErrorKind::Device), Exit::Other);
    }

    #[test]
    fn a_closed_pipe_is_a_clean_end() {
        let closed = Failure::from(io::Error::from(IoKind::BrokenPipe));
        assert!(matches!(closed, Failure::OutputClosed));
        let full = Failure::from(io::Error::from(IoKind::StorageFull));
        assert!(matches!(full, Failure::Said { exit: Exit::Other, .. }));
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(printable("a\n\u{1b}[31mb"), "a??[31mb");
    }
}
