//! Options of `hsmux keys`.

use std::time::{Duration, SystemTime};

use clap::builder::PossibleValuesParser;
use clap::builder::TypedValueParser as _;
use hsmux::KeySpec;

use crate::connection::Connection;
use crate::units::duration;

/// Options of `hsmux keys`: they may stand before the command or behind it.
#[derive(Debug, clap::Args)]
#[command(mut_args = |arg| arg.global(true))]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) what: What,

    #[command(flatten)]
    pub(crate) connection: Connection,

    /// Print JSON instead of text: an object for a key, a list for several
    #[arg(long)]
    pub(crate) json: bool,

    /// Do not ask before something that cannot be undone
    #[arg(long)]
    pub(crate) yes: bool,
}

/// What is to be done. A KEY is an id (hk1. ...), a name, or an alias.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum What {
    /// Make a key on every token that is named, and print its id
    #[command(after_help = CREATE_EXAMPLES)]
    Create {
        /// Its name: no other key's, 128 bytes at most
        name: String,
        #[command(flatten)]
        settings: Settings,
    },
    /// Make a managed key of one that another tool has made
    Adopt {
        /// Its label
        key: String,
        /// Its name from now on
        name: String,
        #[command(flatten)]
        settings: Settings,
    },
    /// List keys
    List {
        /// Destroyed ones too
        #[arg(long)]
        all: bool,
    },
    /// Show one key
    Show { key: String },
    /// Make the next version of a key, which new work uses; older ones still verify and decrypt
    Rotate { key: String },
    /// Have a name stand for a key, instead of whatever it stood for
    Alias {
        /// The name
        alias: String,
        /// The key that it stands for from now on
        #[arg(required_unless_present = "remove")]
        key: Option<String>,
        /// Take the alias away
        #[arg(long, conflicts_with = "key")]
        remove: bool,
    },
    /// Put a key into use that was made for later
    Activate { key: String },
    /// Take a key out of use for a while: it still verifies and decrypts
    Suspend { key: String },
    /// Put a suspended key into use again
    Resume { key: String },
    /// Take a key out of use for good: it still verifies and decrypts
    Deactivate { key: String },
    /// Mark a key as known to others: it does nothing any more
    Compromised { key: String },
    /// Have a key destroyed after a waiting period, in which it does nothing and can be saved
    ScheduleDestroy {
        key: String,
        /// How long to wait, as 7d
        #[arg(long, default_value = "7d", value_parser = duration)]
        wait: Duration,
    },
    /// Save a key whose destruction is scheduled
    CancelDestroy { key: String },
    /// Destroy a key that is out of use, at once and for ever
    Destroy { key: String },
}

const CREATE_EXAMPLES: &str = "\
Examples:
  hsmux keys create card-signing --spec ec-p256 --for ecdsa-p256-sha256 --rotate-every 90d
  hsmux keys create vault --spec aes-256 --for aes-gcm --tenant 7 --json";

/// What a key is to be: for good.
#[derive(Debug, clap::Args)]
pub(crate) struct Settings {
    /// Kind, size and purpose
    #[arg(long, value_parser = spec())]
    pub(crate) spec: KeySpec,

    /// An algorithm that it may be used by; may be given several times. Default: all that fit it
    #[arg(long = "for", value_name = "ALGORITHM")]
    pub(crate) algorithms: Vec<String>,

    /// Let the host do modes around single blocks that the token enciphers
    #[arg(long)]
    pub(crate) host_modes: bool,

    /// Whose key it is: other tenants' requests do not find it. 0 is nobody's
    #[arg(long, default_value_t = 0)]
    pub(crate) tenant: u64,

    /// When it becomes active, as 2027-01-01T00:00:00Z. Default: at once
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) active_from: Option<SystemTime>,

    /// When it is deactivated. Default: never
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) active_until: Option<SystemTime>,

    /// How old a version may get before an engine makes the next one, as 90d. Default: rotation on demand only
    #[arg(long, value_name = "PERIOD", value_parser = duration)]
    pub(crate) rotate_every: Option<Duration>,
}

fn spec() -> impl clap::builder::TypedValueParser<Value = KeySpec> {
    PossibleValuesParser::new(KeySpec::names()).try_map(|name| name.parse::<KeySpec>())
}

fn time(text: &str) -> Result<SystemTime, String> {
    humantime::parse_rfc3339_weak(text).map_err(|_| "a time in UTC, as 2027-01-01T00:00:00Z".to_owned())
}

impl What {
    /// Whether it cannot be undone.
    pub(crate) const fn is_for_good(&self) -> bool {
        matches!(
            self,
            Self::Deactivate { .. }
                | Self::Compromised { .. }
                | Self::ScheduleDestroy { .. }
                | Self::Destroy { .. }
        )
    }

    pub(crate) const fn warning(&self) -> &'static str {
        match self {
            Self::Deactivate { .. } => "the key will never sign or encrypt again",
            Self::Compromised { .. } => "the key will not be used any more by anybody",
            Self::ScheduleDestroy { .. } => {
                "the key stops working now and is destroyed after the waiting period"
            }
            Self::Destroy { .. } => "the key is destroyed for ever, and what it has encrypted is lost",
            _ => "",
        }
    }

    /// The key whose state is changed.
    pub(crate) fn key(&self) -> Option<&str> {
        match self {
            Self::Activate { key }
            | Self::Suspend { key }
            | Self::Resume { key }
            | Self::Deactivate { key }
            | Self::Compromised { key }
            | Self::ScheduleDestroy { key, .. }
            | Self::CancelDestroy { key }
            | Self::Destroy { key } => Some(key),
            _ => None,
        }
    }
}
