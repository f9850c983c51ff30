//! What is wrong with the source of a PIN, for an operator who asks before it is used.

use std::fmt;

use super::read;

/// What can be said of a source without a token. See [`PinSource::examine`](super::PinSource::examine).
///
/// ```
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("pin");
/// # std::fs::write(&path, "1234 \n")?;
/// let source: hsmux::PinSource = format!("file:{}", path.display()).parse()?;
/// let examined = source.examine();
/// for fault in &examined.faults {
///     println!("{}: {fault}", examined.place);
/// }
/// assert_eq!(examined.ends_in_blank, Some(true));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PinExamination {
    /// Where it was looked, in words: a path, a variable. Not what may be a PIN that was taken for its source.
    pub place: String,
    /// What keeps it from being used.
    pub faults: Vec<PinFault>,
    /// Whether the PIN ends in a blank, another newline or the like, which is part of it: mostly a mistake of an editor.
    /// `None` if it was not read.
    pub ends_in_blank: Option<bool>,
}

/// Why a source is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PinFault {
    /// It is not there or cannot be read, as the system says.
    Unreadable(String),
    /// It is no regular file.
    NotAFile,
    /// The file belongs to somebody who is neither this user nor root.
    AnotherUsers,
    /// Others may read or write the file.
    OpenToOthers {
        /// The command that changes that, without the path.
        remedy: &'static str,
    },
    /// There is nothing in it.
    Empty,
    /// It is longer than any PIN.
    TooLong,
    /// It is no text.
    NotUtf8,
}

impl PinExamination {
    pub(super) const fn new(place: String, faults: Vec<PinFault>) -> Self {
        Self { place, faults, ends_in_blank: None }
    }

    pub(super) fn with_fault(mut self, fault: PinFault) -> Self {
        self.faults.push(fault);
        self
    }

    /// What was read, without the newline that does not count.
    pub(super) fn with_content(self, pin: &[u8]) -> Self {
        match read::text(pin) {
            Ok(pin) => Self { ends_in_blank: Some(pin.ends_with(char::is_whitespace)), ..self },
            Err(fault) => self.with_fault(fault),
        }
    }
}

impl fmt::Display for PinFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(why) => f.write_str(why),
            Self::NotAFile => f.write_str("not a regular file"),
            Self::AnotherUsers => f.write_str("belongs to another user, who may change it"),
            Self::OpenToOthers { remedy } => {
                write!(f, "others may read or write it: take that away ({remedy})")
            }
            Self::Empty => f.write_str("empty"),
            Self::TooLong => f.write_str("longer than any PIN"),
            Self::NotUtf8 => f.write_str("not UTF-8"),
        }
    }
}
