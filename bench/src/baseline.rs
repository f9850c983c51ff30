//! What an engine is compared with: everything that a user could pick instead.

mod raw;
mod wrapped;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use hsmux::{BaselineKey, BaselineToken};
use ring::digest::{Digest, SHA256, SHA384, digest};
use secrecy::SecretString;

use crate::case::Op;
use crate::cell::{Cell, Window};
use crate::drive::{Api, Load};
use crate::failure::Failure;
use crate::inputs::Inputs;
use crate::target::Target;

pub use raw::Raw;

/// The name of a baseline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BaselineName {
    /// Init and call on a token key, one session per thread, with nothing between it and the module.
    Raw,
    /// The same on a session copy of the key.
    RawCopy,
    /// The crate `cryptoki`, one session per thread.
    Cryptoki,
    /// The crate `r2d2-cryptoki`: a pool of sessions, one taken for each operation.
    R2d2,
    /// One session of `cryptoki` behind a mutex, shared by all threads.
    Mutex,
    /// The engine itself with one blocking caller: how more of them scale.
    Alone,
}

/// What a thread of a baseline does with a message.
pub type Work<'a> = Box<dyn FnMut(&[u8]) -> Result<(), Failure> + 'a>;

/// Something that does the engine's work without it, by threads.
pub trait Baseline: fmt::Debug + Sync {
    /// How many threads it can run.
    fn threads_max(&self) -> usize;

    /// Runs one operation; returns its input and its output, with the IV in front as the engine has it.
    ///
    /// # Errors
    /// What the token answers.
    fn once(&self) -> Result<(Vec<u8>, Vec<u8>), Failure>;

    /// What its operations are given.
    fn inputs(&self) -> &Inputs;

    /// What one of its threads does with message after message, made on that thread: `thread` is below
    /// [`Baseline::threads_max`], and nobody else has that number.
    fn caller(&self, thread: usize) -> Work<'_>;

    /// Runs a cell in a closed loop with so many threads, at most [`Baseline::threads_max`].
    ///
    /// # Blocking
    /// Until the window has closed and the last call has returned.
    fn run(&self, threads: usize, window: Window) -> Cell;
}

/// Where baselines run: the engine's module, and those of its tokens that hold the key.
#[derive(Clone, Debug)]
pub struct Site {
    module: PathBuf,
    init_args: Option<String>,
    tokens: Vec<String>,
    pin: SecretString,
}

/// The engine with one caller.
#[derive(Debug)]
struct Alone<'a>(&'a Target);

/// What a token is given for a message: what the engine's host would make of it.
enum Prepared<'a> {
    Message(&'a [u8]),
    Digest(Digest),
    Info([u8; 51]),
}

/// The DigestInfo of SHA-256 up to the digest (RFC 8017, 9.2, note 1).
const DIGEST_INFO: [u8; 19] = [
    0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00,
    0x04, 0x20,
];

impl BaselineName {
    /// Every baseline.
    pub const ALL: [Self; 6] =
        [Self::Raw, Self::RawCopy, Self::Cryptoki, Self::R2d2, Self::Mutex, Self::Alone];

    /// The name on the command line and in reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::RawCopy => "raw-copy",
            Self::Cryptoki => "cryptoki",
            Self::R2d2 => "r2d2",
            Self::Mutex => "mutex",
            Self::Alone => "alone",
        }
    }

    /// Opens it for what the target does, with the key of this label and sessions for up to so many threads; for
    /// fewer if a token gives no more.
    ///
    /// # Errors
    /// What the token answers to the first session, or to the wish for a copy of the key.
    ///
    /// # Blocking
    /// As long as the module takes.
    pub fn open<'a>(
        self,
        site: &Site,
        target: &'a Target,
        key: Option<&str>,
        threads_max: usize,
    ) -> Result<Box<dyn Baseline + 'a>, Failure> {
        let inputs = target.inputs();
        let wrapped = || wrapped::Wrapped::open(site, inputs, key);
        Ok(match (self, key) {
            (Self::Raw, _) => {
                Box::new(Raw::open(&site.raw_tokens()?, inputs, key.map(BaselineKey::Token), threads_max)?)
            }
            (Self::RawCopy, Some(key)) => {
                Box::new(Raw::open(&site.raw_tokens()?, inputs, Some(BaselineKey::Copy(key)), threads_max)?)
            }
            (Self::RawCopy, None) => return Err(Failure::Other("random bytes have no key to copy".into())),
            (Self::Cryptoki, _) => Box::new(wrapped()?.sessions(threads_max)?),
            (Self::R2d2, _) => Box::new(wrapped()?.pools(threads_max)?),
            (Self::Mutex, _) => Box::new(wrapped()?.mutex(threads_max)?),
            (Self::Alone, _) => Box::new(Alone(target)),
        })
    }
}

impl Site {
    /// A module, how it is initialised, and labels or serial numbers of tokens.
    #[must_use]
    pub fn new(module: &Path, init_args: Option<&str>, tokens: Vec<String>, pin: SecretString) -> Self {
        Self { module: module.to_owned(), init_args: init_args.map(str::to_owned), tokens, pin }
    }

    fn raw_tokens(&self) -> Result<Arc<[BaselineToken]>, Failure> {
        let open =
            |token: &String| BaselineToken::open(&self.module, self.init_args.as_deref(), token, &self.pin);
        Ok(self.tokens.iter().map(open).collect::<Result<_, _>>()?)
    }
}

impl Baseline for Alone<'_> {
    fn threads_max(&self) -> usize {
        1
    }

    fn once(&self) -> Result<(Vec<u8>, Vec<u8>), Failure> {
        Ok(self.0.once()?)
    }

    fn inputs(&self) -> &Inputs {
        self.0.inputs()
    }

    fn caller(&self, _: usize) -> Work<'_> {
        let mut out = vec![0; self.0.case().output_len()];
        Box::new(move |message| Ok(self.0.ask(message, &mut out).map(drop)?))
    }

    fn run(&self, _: usize, window: Window) -> Cell {
        self.0.run(Load { api: Api::Blocking, callers: 1 }, window).cell
    }
}

impl<'a> Prepared<'a> {
    /// Hashes where the engine does.
    fn of(op: Op, message: &'a [u8]) -> Self {
        match op {
            Op::Rsa2048Sha256 | Op::Rsa4096Sha256 => {
                let mut info = [0; 51];
                info[..19].copy_from_slice(&DIGEST_INFO);
                info[19..].copy_from_slice(digest(&SHA256, message).as_ref());
                Self::Info(info)
            }
            Op::Rsa2048Pss | Op::EcdsaP256 => Self::Digest(digest(&SHA256, message)),
            Op::EcdsaP384 => Self::Digest(digest(&SHA384, message)),
            _ => Self::Message(message),
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Message(message) => message,
            Self::Digest(digest) => digest.as_ref(),
            Self::Info(info) => info,
        }
    }
}

impl FromStr for BaselineName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|name| name.as_str() == text)
            .ok_or_else(|| format!("no such baseline; there are {}", Self::ALL.map(Self::as_str).join(", ")))
    }
}

impl fmt::Display for BaselineName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_baseline_is_parsed_from_its_own_name() {
        for name in BaselineName::ALL {
            assert_eq!(name.as_str().parse(), Ok(name));
        }
        assert!("row".parse::<BaselineName>().unwrap_err().contains("raw-copy"));
    }
}
