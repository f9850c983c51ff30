//! The PIN source as it was named on the command line, and what is remembered of PINs.

pub(crate) mod record;
mod rotate;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::str::FromStr;

use hsmux::PinSource;

use crate::exit::{Exit, Failure, Result};

/// A source as it was named, unparsed: if it is a PIN by mistake, no message of `clap` repeats it.
#[derive(Clone)]
pub(crate) struct Named(String);

impl Named {
    /// The source; nothing is read yet.
    pub(crate) fn source(&self) -> Result<PinSource> {
        self.source_of("--pin-source")
    }

    /// The source that stands behind another option.
    fn source_of(&self, option: &str) -> Result<PinSource> {
        let source = self.0.parse::<PinSource>();
        source.map_err(|error| Failure::new(Exit::Usage, format!("{option}: {error}")))
    }
}

/// Whether a source reads the file that this process has as stdin, under whatever number or name.
pub(crate) fn is_stdin(source: &PinSource) -> bool {
    let path = match source {
        PinSource::Fd(0) => return true,
        PinSource::Fd(number) => PathBuf::from(format!("/dev/fd/{number}")),
        PinSource::File(path) => path.clone(),
        _ => return false,
    };
    match (fs::metadata(path), fs::metadata("/dev/fd/0")) {
        (Ok(source), Ok(stdin)) => (source.dev(), source.ino()) == (stdin.dev(), stdin.ino()),
        // What cannot be looked at cannot be read either.
        _ => false,
    }
}

impl FromStr for Named {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl std::fmt::Debug for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Named(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_given_as_its_own_source_is_refused_and_not_repeated() {
        for text in ["918273", "pin:918273", "file:", "env:", "env:A=918273", "FILE:918273", ""] {
            let named = Named(text.to_owned());
            let failure = format!("{:?} {named:?}", named.source().unwrap_err());
            assert!(failure.contains("Usage") && !failure.contains("918273"), "{text}: {failure}");
        }
    }
}
