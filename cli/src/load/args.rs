//! The options of `hsmux load`.

use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;
use hsmux::{Copies, Sessions};
use hsmux_bench::arrivals::AskedRate;
use hsmux_bench::knee::Slo;
use hsmux_bench::{Api, BaselineName, Case, Runtime, TemporaryKey};

use crate::connection::Connection;
use crate::units::{self, Deadline};

/// Examples, for `--help`.
pub(crate) const EXAMPLES: &str = "\
Examples:
  hsmux load --op ecdsa-p256 --compare raw --module PATH --token LABEL --pin-source file:PIN_FILE
  hsmux load --op ecdsa-p256 --rate poisson:500 --seconds 30 --out runs/a --config hsmux.toml
  hsmux load --profile payment-auth --find-knee --slo p99=5ms --out runs/knee --config hsmux.toml
  hsmux load --profile payment-auth --compare runs/a/result.json --config hsmux.toml
  hsmux load --profile payment-auth --rate 1k --sim device.toml --out runs/failover";

/// Options of `hsmux load`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(super) connection: Connection,

    /// Operation and size in bytes: rsa2048-sha256, rsa2048-pss, rsa4096-sha256, ecdsa-p256, ecdsa-p384, ed25519,
    /// hmac-sha256, aes-cmac (64 bytes each unless told otherwise), aes-gcm, aes-cbc-enc, aes-cbc-dec, aes-ctr
    /// (1024), aes-ecb (16), rsa2048-oaep, which decrypts, or random (32)
    #[arg(long, value_name = "OP[:SIZE]", required_unless_present = "profile")]
    pub(super) op: Option<Case>,

    /// What the load is: the name of a preset (payment-auth, card-tokenisation, document-signing, tls-handshakes, dnssec)
    /// or a TOML file with phases and a mix of operations
    #[arg(long, value_name = "NAME|FILE", conflicts_with_all = ["op", "key", "batch", "host_modes", "warm_up"])]
    pub(super) profile: Option<String>,

    /// Open loop: requests are due at this rate whatever became of those before, and latency counts from when they were due. As
    /// 2000, 2k, 120/min, constant:500 or poisson:500. With --profile its phases are scaled to this mean
    #[arg(long, value_name = "RATE", conflicts_with_all = ["batch", "host_modes", "warm_up"])]
    pub(super) rate: Option<AskedRate>,

    /// Search for the highest rate at which --slo is met, in an open loop: from --rate on (default 100/s), measuring for --seconds in
    /// all (default 10 min). The results are those of the highest rate that met it, with the curve of all
    #[arg(long, requires = "slo", conflicts_with_all = ["batch", "host_modes", "warm_up"])]
    pub(super) find_knee: bool,

    /// What latencies have to be: p50, p90, p99, p99.9, p99.99 and errors, as p99=5ms or p50=1ms,p99.9=20ms,errors=0.1%
    #[arg(long, value_name = "LIMITS", requires = "find_knee")]
    pub(super) slo: Option<Slo>,

    /// Run on a simulated HSM to which happens what this TOML file says, in place of a module: tokens are lost and come back, the
    /// device stalls, calls fail
    #[arg(long, value_name = "FILE", conflicts_with_all = ["key", "batch", "host_modes", "warm_up", "instances"])]
    pub(super) sim: Option<PathBuf>,

    /// Write the results to this directory, which is made: result.json, latency.hgrm, series.csv and report.html
    #[arg(long, value_name = "DIR", conflicts_with_all = ["batch", "host_modes", "warm_up"])]
    pub(super) out: Option<PathBuf>,

    /// Name of the key. Default: the key that --uri names, else a temporary private token key on the first token,
    /// removed at the end
    #[arg(long, value_name = "NAME")]
    pub(super) key: Option<String>,

    /// Callers at a time; each asks again as soon as it has its answer. Of --api window, requests in flight,
    /// and in an open loop the most of them. Default: 1; in an open loop 64, or what --profile says
    #[arg(long, value_name = "N")]
    pub(super) callers: Option<NonZeroU16>,

    /// How long operations are counted: seconds, or a number with its unit. A comparison spends it on both sides
    /// together, and more if it is too short for five rounds. Default: 5, or what --profile says, whose phases are scaled to it
    #[arg(long, value_name = "S")]
    pub(super) seconds: Option<Seconds>,

    /// How callers ask.
    /// Default: blocking; in an open loop tasks, or what --profile says
    #[arg(long, value_enum)]
    pub(super) api: Option<ApiName>,

    /// Requests per batch of --api many
    #[arg(long, value_name = "N", default_value = "64")]
    pub(super) batch: NonZeroU16,

    /// Deadline of each request, as 500us, 50ms or 2s. Default: that of --config, else 10 s. With `none` blocking
    /// callers run operations themselves when a session is idle
    #[arg(long, value_name = "none|DURATION")]
    pub(super) deadline: Option<Deadline>,

    /// Sessions per token and instance: a number, a range in which the engine tries how many pay, or auto. Default: that of
    /// --config, else auto
    #[arg(long, value_name = "N|MIN-MAX|auto")]
    pub(super) sessions: Option<Sessions>,

    /// How often the module is loaded, each time with locks and logins of its own: for software modules that one lock
    /// holds up, such as SoftHSM2. Not for a vendor's module, unless its maker says that it may be loaded twice.
    /// Default: that of --config, else 1
    #[arg(long, value_name = "N")]
    pub(super) instances: Option<NonZeroU16>,

    /// Whether requests share PKCS#11 calls where their mode allows it, and ECB operations stay open. Default: that of
    /// --config, else on
    #[arg(long, value_enum, value_name = "on|off", hide_possible_values = true)]
    pub(super) coalesce: Option<Switch>,

    /// Whether keys get warm copies: auto (where that is measured to pay), off or required. Default: that of --config,
    /// else auto
    #[arg(long, value_enum, value_name = "WHEN", hide_possible_values = true)]
    pub(super) copies: Option<CopiesWhen>,

    /// Let the host do CTR and CBC around single blocks, so that such requests share calls
    #[arg(long)]
    pub(super) host_modes: bool,

    /// What runs before operations are counted, as --seconds is written. Default: 0.2 s; with --compare, 20 ms in
    /// each cell
    #[arg(long, value_name = "S")]
    pub(super) warm_up: Option<Seconds>,

    /// Also run a baseline in turn with the engine, with 1, 2, 4 and 8 threads (and as many as --sessions); the best
    /// of these counts is taken: raw (Init and call on the token key, a session per thread), raw-copy (the same on a session
    /// copy), cryptoki (that crate, a session per thread), r2d2 (a pool of r2d2-cryptoki), mutex (one session behind a mutex), alone
    /// (the engine with one blocking caller). May be given several times: each baseline gets its own ratio. With --rate or --out,
    /// five rounds at the same arrivals, for --seconds each side, with as many threads as the engine has sessions. Or compare with the
    /// result.json of an earlier run: says faster, slower or no difference, and slower ends with exit code 12
    #[arg(long, value_name = "BASELINE|FILE")]
    pub(super) compare: Vec<Against>,

    /// Thread counts of the baselines, with commas between them; one with --rate or --out
    #[arg(long, value_name = "N,..", value_delimiter = ',', requires = "compare")]
    pub(super) threads: Vec<NonZeroU16>,

    /// Write the engine's times to this file as an HdrHistogram interval log: every second, by operation and stage,
    /// in nanoseconds. Warm-up is in it, a raw loop is not
    #[arg(long, value_name = "FILE")]
    pub(super) hlog: Option<PathBuf>,

    /// Write the engine's metrics to this file at the end, as Prometheus would scrape them
    #[arg(long, value_name = "FILE")]
    pub(super) prometheus: Option<PathBuf>,

    /// Print one JSON object instead of a table. Stages are medians; what has no field goes to stderr
    #[arg(long)]
    pub(super) json: bool,
}

/// With what a run is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Against {
    Baseline(Baseline),
    /// The results of an earlier run.
    Earlier(PathBuf),
}

impl FromStr for Against {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match Baseline::from_str(text, false) {
            Ok(baseline) => Ok(Self::Baseline(baseline)),
            Err(_) if Path::new(text).is_file() => Ok(Self::Earlier(text.into())),
            Err(_) => {
                let names = BaselineName::ALL.map(|name| name.as_str().to_owned()).join(", ");
                Err(format!("neither a baseline ({names}) nor a file"))
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Switch {
    On,
    Off,
}

/// When keys get warm copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum CopiesWhen {
    Auto,
    Off,
    Required,
}

impl From<CopiesWhen> for Copies {
    fn from(when: CopiesWhen) -> Self {
        match when {
            CopiesWhen::Auto => Self::Auto,
            CopiesWhen::Off => Self::Off,
            CopiesWhen::Required => Self::Required,
        }
    }
}

/// By which of the engine's ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ApiName {
    /// A thread per caller, which waits into a buffer that it keeps
    Blocking,
    /// A tokio task per caller, all on one thread
    #[value(alias = "async")]
    Tasks,
    /// One task that keeps so many requests in flight, by the engine's stream of requests
    Window,
    /// A thread per caller, which asks in batches
    Many,
}

/// With what the engine is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Baseline {
    /// A raw PKCS#11 loop: Init and call on the token key, a session per thread
    Raw,
    /// The same on a session copy of the key
    RawCopy,
    /// The crate cryptoki, a session per thread
    Cryptoki,
    /// The crate r2d2-cryptoki, a pool of sessions
    R2d2,
    /// One session of cryptoki behind a mutex
    Mutex,
    /// The engine itself with one blocking caller
    Alone,
}

impl Baseline {
    pub(super) const fn name(self) -> BaselineName {
        match self {
            Self::Raw => BaselineName::Raw,
            Self::RawCopy => BaselineName::RawCopy,
            Self::Cryptoki => BaselineName::Cryptoki,
            Self::R2d2 => BaselineName::R2d2,
            Self::Mutex => BaselineName::Mutex,
            Self::Alone => BaselineName::Alone,
        }
    }
}

/// A length of time above zero: seconds, or a number with its unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seconds(pub(crate) Duration);

impl ApiName {
    pub(super) const fn takes_threads(self) -> bool {
        matches!(self, Self::Blocking | Self::Many)
    }

    /// Tasks run on a current-thread runtime. From bench `overhead`, 256 tasks on two cores that other work used
    /// too: 2.2 us an operation there and with two workers, but 2.1 to 2.3 against 1.6 to 3.1. Run it again when
    /// the machine class changes.
    pub(super) const fn with_batch(self, batch: usize) -> Api {
        match self {
            Self::Blocking => Api::Blocking,
            Self::Tasks => Api::Async(Runtime::CurrentThread),
            Self::Window => Api::Window,
            Self::Many => Api::Many { batch },
        }
    }
}

impl FromStr for Seconds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match units::seconds(text)? {
            seconds if seconds <= TemporaryKey::RUN_MAX => Ok(Self(seconds)),
            _ => Err(format!("at most {}", humantime::format_duration(TemporaryKey::RUN_MAX))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_baseline_is_called_as_its_reports_call_it() {
        let values = Baseline::value_variants();
        assert_eq!(values.len(), BaselineName::ALL.len());
        for value in values {
            let name = value.to_possible_value().unwrap().get_name().to_owned();
            assert_eq!(name, value.name().as_str());
        }
    }

    #[test]
    fn seconds_are_above_zero_and_bounded() {
        assert_eq!("0.5".parse(), Ok(Seconds(Duration::from_millis(500))));
        assert_eq!("2m".parse(), Ok(Seconds(Duration::from_secs(120))));
        for text in ["0", "1e9", "13h", ""] {
            assert!(text.parse::<Seconds>().is_err(), "{text}");
        }
    }
}
