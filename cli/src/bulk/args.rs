//! The options of `hsmux bulk`.

use std::ffi::OsStr;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::str::FromStr;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Arg, Command};
use hsmux::{Cipher, Sessions, SignAlgorithm};

use super::lines::Limits;
use super::work::Task;
use crate::connection::Connection;
use crate::exit::EXIT_CODES;
use crate::units::{self, Deadline};

/// Options of `hsmux bulk`.
#[derive(Debug, clap::Args)]
#[command(after_help = RECORDS, after_long_help = RECORDS)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

const RECORDS: &str = "\
Reads one JSON record a line, as {\"id\":7,\"data\":\"<base64>\"}, and writes one line for each, in order:
{\"line\":1,\"id\":7,\"signature\":\"<base64>\"}, or {\"line\":1,\"id\":7,\"error\":{..}} where there is no result.
`id` is any scalar and may be missing; the input stands under `data`, `text` or `hex`; `aad` (base64) goes with
AES-GCM. An empty line is a bad record. Ctrl-C answers what is in flight and says where to resume.";

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Sign each record's input
    #[command(after_help = EXIT_CODES)]
    Sign {
        /// Algorithm
        #[arg(long, value_name = "ALG", value_parser = signature_names())]
        alg: SignAlgorithm,
        #[command(flatten)]
        run: Run,
    },
    /// Make the MAC of each record's input
    #[command(after_help = EXIT_CODES)]
    Mac {
        /// Algorithm
        #[arg(long, value_name = "ALG", value_parser = mac_names())]
        alg: SignAlgorithm,
        #[command(flatten)]
        run: Run,
    },
    /// Encrypt each record's input; with AES-GCM to IV, body and tag, under an IV of its own
    #[command(after_help = EXIT_CODES)]
    Encrypt {
        /// Algorithm
        #[arg(long, value_name = "ALG", value_parser = cipher_names())]
        alg: Cipher,
        #[command(flatten)]
        run: Run,
    },
    /// Decrypt each record's input, and write plaintexts to the output without asking again
    #[command(after_help = EXIT_CODES)]
    Decrypt {
        /// Algorithm
        #[arg(long, value_name = "ALG", value_parser = cipher_names())]
        alg: Cipher,
        #[command(flatten)]
        run: Run,
    },
}

/// Options of a run, whatever it does.
#[derive(Debug, clap::Args)]
pub(super) struct Run {
    #[command(flatten)]
    pub(super) connection: Connection,

    /// Name of the key. Default: the key that --uri names
    #[arg(long, value_name = "NAME")]
    pub(super) key: Option<String>,

    /// Records in flight at a time
    #[arg(long, value_name = "N", default_value = "4096", value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    window: u32,

    /// Bytes of input lines in flight at a time; about three times as much memory is used. A line that is longer
    /// goes alone
    #[arg(long, value_name = "SIZE", default_value = "32MiB", value_parser = units::size)]
    pub(super) window_bytes: NonZeroUsize,

    /// Longest line; a longer one is answered by an error and not kept in memory
    #[arg(long, value_name = "SIZE", default_value = "16MiB", value_parser = units::size)]
    line_max: NonZeroUsize,

    /// Deadline of each record, from when it is put in flight, as 250ms or 10s. Default: that of --config, which
    /// is 10 s if it says nothing; without --config none
    #[arg(long, value_name = "none|DURATION")]
    pub(super) deadline: Option<Deadline>,

    /// Sessions per token: a number, a range in which the engine tries how many pay, or auto. Default: that of
    /// --config, else auto
    #[arg(long, value_name = "N|MIN-MAX|auto")]
    pub(super) sessions: Option<Sessions>,

    /// Write to this file, which must be new or empty, instead of stdout
    #[arg(long, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,

    /// Go on after the last complete line of --output: as many lines of input are passed over
    #[arg(long, requires = "output", conflicts_with = "resume_from")]
    pub(super) resume: bool,

    /// Begin with this line of input, from 1; those before are passed over
    #[arg(long, value_name = "N", default_value = "1")]
    pub(super) resume_from: NonZeroU64,

    /// No progress and no summary on stderr
    #[arg(long, short)]
    pub(super) quiet: bool,
}

/// Most threads that wait for chunks. Each holds a chunk, and they hardly run: the engine's sessions do the work.
const WORKERS_MAX: usize = 64;

/// Records of a chunk where the window has room for [`WORKERS`] of them: one wake-up and one hand-over each.
const CHUNK_LINES: usize = 256;

/// Chunks in flight at least, if the window has room for as many records: enough that sessions find work while
/// other chunks are read, taken apart and written.
const WORKERS: usize = 16;

impl Args {
    pub(super) fn split(self) -> (Task, Run) {
        match self.what {
            What::Sign { alg, run } => (Task::Sign(alg), run),
            What::Mac { alg, run } => (Task::Mac(alg), run),
            What::Encrypt { alg, run } => (Task::Encrypt(alg), run),
            What::Decrypt { alg, run } => (Task::Decrypt(alg), run),
        }
    }
}

impl Run {
    pub(super) fn workers(&self) -> usize {
        divide(self.window()).0
    }

    pub(super) fn limits(&self) -> Limits {
        let (workers, chunk_lines) = divide(self.window());
        let chunk_bytes = (self.window_bytes.get() / workers).max(1);
        Limits { line_max: self.line_max.get(), chunk_lines, chunk_bytes }
    }

    fn window(&self) -> usize {
        self.window.try_into().unwrap_or(usize::MAX)
    }
}

/// How many threads share a window, and how many records each has of it.
fn divide(window: usize) -> (usize, usize) {
    let lines = window.div_ceil(WORKERS).min(CHUNK_LINES).max(window / WORKERS_MAX);
    (window / lines, lines)
}

fn signature_names() -> impl TypedValueParser<Value = SignAlgorithm> {
    Names { names: SignAlgorithm::signature_names, fits: |how: &SignAlgorithm| !how.is_mac() }
}

fn mac_names() -> impl TypedValueParser<Value = SignAlgorithm> {
    Names { names: SignAlgorithm::mac_names, fits: |how: &SignAlgorithm| how.is_mac() }
}

fn cipher_names() -> impl TypedValueParser<Value = Cipher> {
    Names { names: Cipher::names, fits: |_: &Cipher| true }
}

/// Takes whatever name the engine understands, and shows the main ones to helps and shells.
#[derive(Clone, Copy)]
struct Names<T, I> {
    names: fn() -> I,
    fits: fn(&T) -> bool,
}

impl<T, I> TypedValueParser for Names<T, I>
where
    T: FromStr + Clone + Send + Sync + 'static,
    I: Iterator<Item = &'static str> + Clone + Send + Sync + 'static,
{
    type Value = T;

    fn parse_ref(&self, command: &Command, arg: Option<&Arg>, value: &OsStr) -> Result<T, clap::Error> {
        let algorithm = value.to_str().and_then(|name| name.parse().ok()).filter(self.fits);
        // Says what is wrong and lists the names, as for any option with a choice.
        let refuse = || PossibleValuesParser::new((self.names)()).parse_ref(command, arg, value).err();
        algorithm.ok_or_else(|| refuse().unwrap_or_else(|| clap::Error::new(ErrorKind::InvalidValue)))
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new((self.names)().map(PossibleValue::new)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_and_chunks_share_the_window_and_never_exceed_it() {
        assert_eq!(divide(4096), (16, 256));
        assert_eq!(divide(1), (1, 1));
        for window in 1..=1 << 17 {
            let (workers, lines) = divide(window);
            assert!((1..=WORKERS_MAX).contains(&workers), "{window}");
            assert!(workers * lines <= window && workers * lines > window / 2, "{window}");
        }
    }
}
