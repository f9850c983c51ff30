//! Why there are no tokens.

use std::fmt;

/// Why SoftHSM2 or a token of it cannot be used.
#[non_exhaustive]
pub enum Error {
    /// SoftHSM2 is not installed.
    Missing,
    /// This process has started SoftHSM2 before: the module reads its configuration once.
    StartedBefore,
    /// A file or folder cannot be made or read.
    File(std::io::Error),
    /// SoftHSM2 refused.
    Refused(cryptoki::error::Error),
    /// Something else that a person has to mend.
    Other(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str(
                "SoftHSM2 is missing: install the package softhsm2 (Debian, Ubuntu) or softhsm (others)",
            ),
            Self::StartedBefore => f.write_str("this process has started SoftHSM2 before"),
            Self::File(error) => write!(f, "files of the tokens: {error}"),
            Self::Refused(error) => write!(f, "SoftHSM2 refused: {error}"),
            Self::Other(text) => f.write_str(text),
        }
    }
}

/// The text: this is the form in which a program's `main` prints its error.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Error {}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::File(error)
    }
}

impl From<cryptoki::error::Error> for Error {
    fn from(error: cryptoki::error::Error) -> Self {
        Self::Refused(error)
    }
}
