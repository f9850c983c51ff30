//! Why an operation of a load failed: on the engine or in a raw loop, or in what other people wrote.

use std::fmt;

use hsmux::Error;

/// An operation's failure.
#[derive(Clone, Debug)]
pub enum Failure {
    /// Of the engine, or of a raw loop, which reads the module's answers as the engine does.
    Engine(Error),
    /// Of another baseline, as it says so.
    Other(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Engine(error)
    }
}

impl From<cryptoki::error::Error> for Failure {
    fn from(error: cryptoki::error::Error) -> Self {
        Self::Other(error.to_string())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Engine(error) => error.fmt(f),
            Self::Other(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Failure {}
