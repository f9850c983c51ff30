//! Where a PIN comes from, and how it is kept. It is never on the command line, and no message shows any of it.

mod attempt;
mod change;
mod directory;
mod examine;
mod keep;
mod read;
mod record;
mod records;
mod rotation;

use std::fmt;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::str::FromStr;

use secrecy::SecretString;

use crate::error::{Error, ErrorKind, Result};
use crate::uri::Pkcs11Uri;

pub use crate::pin::examine::{PinExamination, PinFault};
pub use crate::pin::keep::PinKeep;
pub use crate::pin::record::PinState;
pub use crate::pin::records::PinRecord;

pub(crate) use crate::pin::attempt::{Attempt, Counted};
pub(crate) use crate::pin::change::{Change, Failed, TURN_LIMIT, Turn};
pub(crate) use crate::pin::keep::Pin;
use crate::pin::record::Generation;
pub(crate) use crate::pin::record::{TokenId, UNSETTLED_MAX};
pub(crate) use crate::pin::rotation::{Side, Stage};

/// A source of a PIN.
///
/// As text (by [`FromStr`]): `file:PATH`, `env:NAME`, `fd:N`, `credential:NAME`, `prompt`, `protected`. Made [`From`] a
/// text it is the PIN itself. `Debug` tells the form of a source only, for a PIN may have been taken for its source.
///
/// ```
/// use hsmux::PinSource;
///
/// let source: PinSource = "credential:hsm-pin".parse()?;
/// let builder = hsmux::Engine::builder().pin(source);
/// # Ok::<(), hsmux::Error>(())
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub enum PinSource {
    /// A regular file that belongs to this user or root and that nobody else may read or write. One newline at its
    /// end is not part of the PIN. Links are followed: what counts is the file that was opened.
    File(PathBuf),
    /// A variable of the environment; the PIN is its value as it is. The weakest source: children inherit it, and
    /// whoever may read the process's environment sees it.
    Env(String),
    /// A file descriptor of this process, read once to its end. One newline there is not part of the PIN.
    ///
    /// It is opened anew through `/dev/fd`, so what stands behind it must be something that this user may open: a pipe
    /// or a file, not a socket. The descriptor itself stays open.
    Fd(RawFd),
    /// A file of this name in `$CREDENTIALS_DIRECTORY`, where systemd puts what `LoadCredential=` and
    /// `LoadCredentialEncrypted=` name.
    ///
    /// As a file, but the group may read it: systemd lets other users in by access control lists, whose mask stands
    /// where the group's permissions do.
    Credential(String),
    /// A person at the terminal, asked once without an echo. An error if this process has no terminal.
    ///
    /// They are asked before it is known which tokens there are: where a [`Builder::state_dir`](crate::Builder::state_dir)
    /// says that a token refused its PIN, they hear of it after they have typed. Nothing is sent then.
    Prompt,
    /// The token's own way of asking (`CKF_PROTECTED_AUTHENTICATION_PATH`), such as a keypad. An error if the token
    /// has none.
    ProtectedAuthenticationPath,
    /// The PIN itself.
    Value(SecretString),
}

/// What a source is, for messages.
const FORMS: &str =
    "a PIN source is file:PATH, env:NAME, fd:N, credential:NAME, prompt or protected, never a PIN";

impl PinSource {
    /// Reads the PIN.
    ///
    /// # Errors
    /// `PinUnavailable`; `Configuration` for [`PinSource::ProtectedAuthenticationPath`], of which nobody here ever
    /// sees the PIN.
    ///
    /// # Blocking
    /// As long as a person or a pipe takes to give it.
    pub fn read(&self) -> Result<SecretString> {
        match self {
            Self::File(path) => read::file(path),
            Self::Env(name) => read::env(name),
            Self::Fd(number) => read::fd(*number),
            Self::Credential(name) => read::credential(name),
            Self::Prompt => read::prompt(),
            Self::ProtectedAuthenticationPath => Err(unusable("the token asks for it by itself")),
            Self::Value(pin) => Ok(pin.clone()),
        }
    }

    /// All that is wrong with a source as far as that shows without a token. A file, the environment and a credential are
    /// read and forgotten; nobody is asked, and no file descriptor is read, for that works once.
    #[must_use]
    pub fn examine(&self) -> PinExamination {
        match self {
            Self::File(path) => read::examine_file(path, read::PRIVATE),
            Self::Env(name) => read::examine_env(name),
            Self::Credential(name) => match read::credential_path(name) {
                Some(path) => read::examine_file(&path, read::CREDENTIAL),
                None => {
                    let fault = PinFault::Unreadable(read::NO_CREDENTIALS.to_owned());
                    PinExamination::new("credential".to_owned(), vec![fault])
                }
            },
            Self::Fd(number) => PinExamination::new(format!("file descriptor {number}"), Vec::new()),
            Self::Prompt => PinExamination::new("terminal".to_owned(), Vec::new()),
            Self::ProtectedAuthenticationPath => PinExamination::new("token".to_owned(), Vec::new()),
            Self::Value(_) => PinExamination::new("program".to_owned(), Vec::new()),
        }
    }

    /// Which form this is, and of a file when it was changed last: what tells one PIN from the next without anything of it.
    fn generation(&self) -> Generation {
        let form = match self {
            Self::File(_) => "file",
            Self::Env(_) => "env",
            Self::Fd(_) => "fd",
            Self::Credential(_) => "credential",
            Self::Prompt => "prompt",
            Self::ProtectedAuthenticationPath => "protected",
            Self::Value(_) => "value",
        };
        let path = match self {
            Self::File(path) => Some(path.clone()),
            Self::Credential(name) => read::credential_path(name),
            _ => None,
        };
        let changed = path.and_then(|path| path.metadata().ok()?.modified().ok());
        Generation { form: form.to_owned(), changed }
    }
}

impl FromStr for PinSource {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.split_once(':') {
            None if text == "prompt" => Ok(Self::Prompt),
            None if text == "protected" => Ok(Self::ProtectedAuthenticationPath),
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(path.into())),
            Some(("env", name)) if !name.is_empty() && !name.contains(['=', '\0']) => {
                Ok(Self::Env(name.to_owned()))
            }
            Some(("fd", number)) if number.bytes().all(|byte| byte.is_ascii_digit()) => {
                number.parse().map(Self::Fd).map_err(|_| unusable(FORMS))
            }
            // A name, not a path: it is put behind the directory's.
            Some(("credential", name)) if !name.contains(['/', '\0']) && !matches!(name, "" | "." | "..") => {
                Ok(Self::Credential(name.to_owned()))
            }
            _ => Err(unusable(FORMS)),
        }
    }
}

/// The attribute `pin-source` of a URI: a `file:` URI of an absolute path (RFC 7512, 2.4; RFC 8089), or one of the
/// other forms of a [`PinSource`]. Commands (`|..`) are not run.
impl TryFrom<&Pkcs11Uri> for PinSource {
    type Error = Error;

    fn try_from(uri: &Pkcs11Uri) -> Result<Self> {
        let text = uri.pin_source().ok_or_else(|| unusable("the URI has no pin-source"))?;
        let Some(file) = text.strip_prefix("file:") else { return text.parse() };
        let local = file.strip_prefix("//").map(|rest| rest.strip_prefix("localhost").unwrap_or(rest));
        let path = read::percent_decoded(local.unwrap_or(file));
        match path {
            Some(path) if path.has_root() => Ok(Self::File(path)),
            _ => Err(unusable("a pin-source of the form file: takes the absolute path of a local file")),
        }
    }
}

impl From<SecretString> for PinSource {
    fn from(pin: SecretString) -> Self {
        Self::Value(pin)
    }
}

impl From<String> for PinSource {
    fn from(pin: String) -> Self {
        Self::Value(pin.into())
    }
}

impl From<&str> for PinSource {
    fn from(pin: &str) -> Self {
        Self::Value(pin.into())
    }
}

impl fmt::Debug for PinSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File(_) => "PinSource::File(..)",
            Self::Env(_) => "PinSource::Env(..)",
            Self::Fd(_) => "PinSource::Fd(..)",
            Self::Credential(_) => "PinSource::Credential(..)",
            Self::Prompt => "PinSource::Prompt",
            Self::ProtectedAuthenticationPath => "PinSource::ProtectedAuthenticationPath",
            Self::Value(_) => "PinSource::Value(..)",
        })
    }
}

/// A source that is used in a way that cannot work.
fn unusable(text: &str) -> Error {
    Error::operator(ErrorKind::Configuration, text)
}

#[cfg(test)]
mod tests;
