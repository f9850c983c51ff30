//! The options of `hsmux tune`.

use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use hsmux_bench::Case;
use hsmux_bench::knee::Slo;
use hsmux_bench::profile::{Deadline, Demand, Phase, Profile, ProfileApi};

use crate::connection::Connection;
use crate::exit::{Exit, Failure, Result};
use crate::load::{self, Seconds};

/// Options of `hsmux tune`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(super) connection: Connection,

    /// What the load is: the name of a preset (payment-auth, card-tokenisation, document-signing, tls-handshakes, dnssec)
    /// or a TOML file with a mix of operations. Its rates and phases are not kept to: callers ask again as soon as they have their
    /// answer. Its keys are made on the first token, which serves the load, and removed at the end
    #[arg(long, value_name = "NAME|FILE", conflicts_with_all = ["op", "key"], required_unless_present = "op")]
    profile: Option<String>,

    /// Or one operation and its size in bytes, as `hsmux load` has them: ecdsa-p256, aes-gcm:4096
    #[arg(long, value_name = "OP[:SIZE]")]
    pub(super) op: Option<Case>,

    /// Name of the key of --op. Default: the key that --uri names, else a temporary one on the first token, removed at the end
    #[arg(long, value_name = "NAME")]
    pub(super) key: Option<String>,

    /// Callers at a time. With fewer than two for each session nothing is known of more sessions; with many, latencies are
    /// those of a long queue. Default: what --profile says, and at least twice the most sessions of all tokens that serve the load
    #[arg(long, value_name = "N")]
    callers: Option<NonZeroU16>,

    /// What latencies have to be with so many callers, as p99=5ms or p50=1ms,p99.9=20ms: of the settings that meet it the one that
    /// does most is advised. With --callers, for latencies are those of a queue as long as that. Default: whatever they are
    #[arg(long, value_name = "LIMITS", requires = "callers")]
    pub(super) slo: Option<Slo>,

    /// Time for all measurements, 100 to 350 of them. If it is not enough, the settings at start are advised unless something
    /// was seen to beat them, and it ends with 7
    #[arg(long, value_name = "S", default_value = "5m")]
    pub(super) time: Seconds,

    /// Most sessions per token and instance; the settings at start are measured with what they have. Default: 64, of a token that
    /// says how many it has no more than three quarters, and of a range such as "4-8" in --config its end
    #[arg(long, value_name = "N")]
    pub(super) sessions_max: Option<NonZeroU16>,

    /// Try up to so many instances of the module, each of which logs in by itself: for software modules that one lock holds
    /// up, such as SoftHSM2. Not for a vendor's module, unless its maker says that it may be loaded twice. Default: as many
    /// as --config says, else 1
    #[arg(long, value_name = "N")]
    pub(super) instances_max: Option<NonZeroU16>,

    /// Leave these as they are. What --config has turned off is never turned on
    #[arg(
        long,
        value_enum,
        value_name = "copies,coalescing",
        value_delimiter = ',',
        hide_possible_values = true
    )]
    pub(super) keep: Vec<Switch>,

    /// Run on a simulated HSM that this TOML file describes, in place of a module; what it says of faults does not happen
    #[arg(long, value_name = "FILE", conflicts_with_all = ["key", "instances_max"])]
    pub(super) sim: Option<PathBuf>,

    /// Write the configuration to this file: that of --config with the tuned fields changed or added, and its comments
    /// kept, else a complete one. A PIN is never in it. Nothing is written if nothing was decided, or if the file of --config has
    /// changed meanwhile
    #[arg(long, value_name = "FILE")]
    pub(super) out: Option<PathBuf>,

    /// Overwrite --out if it is there
    #[arg(long, requires = "out")]
    pub(super) force: bool,

    /// Print one JSON object instead of a table: what was tried, every comparison, and the advice
    #[arg(long)]
    pub(super) json: bool,
}

/// A setting that is on or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Switch {
    Copies,
    Coalescing,
}

/// Examples and exit codes, for `--help`.
pub(crate) const HELP: &str = "\
Examples:
  hsmux tune --config hsmux.toml --profile payment-auth --out tuned.toml
  hsmux tune --uri 'pkcs11:token=pay-1?pin-source=file:PIN_FILE' --op ecdsa-p256 \\
      --callers 64 --slo p99=5ms
  hsmux tune --config hsmux.toml --profile dnssec --instances-max 4 --keep copies --json

Do not run it beside production: it keeps the device busy, takes sessions that others may need,
and what others do disturbs its measurements. An audit log of --config is not written to while
it measures: a temporary one takes its place, signed by the log's own key on the tokens, which is
made if there is none yet and stays.

An engine is built about once for every two measurements, 50 to 175 times in all. Another one
keeps the login and the keys meanwhile, so that C_Login answers that the user is logged in
already; where a token has no session for it, and for instances beyond the first, each is a
login of its own. It ends at once if a login fails that may have counted, or a token is lost.
Ctrl-C ends it, too: then the settings at start stay unless something was seen to beat them.

Exit codes:
  0  a setting is advised
  2  options, configuration, or --out is there already or cannot be written
  3  module, 4 token, 5 PIN, 6 key: as for the other commands
  7  no setting worked, none met the objective, or time was used up
  130  interrupted by SIGINT, 143 by SIGTERM";

/// The deadline of all requests. In a closed loop the queue is as long as there are callers, which is nobody's fault: what a
/// profile says of services would fail all settings that are slower than that.
const QUEUED_MAX: Duration = Duration::from_secs(60);

impl Args {
    /// The load that the options say, as a closed loop of one phase.
    pub(super) fn profile(&self) -> Result<Profile> {
        let mut profile = match (&self.profile, self.op) {
            (Some(name), _) => load::profile_named(name)?,
            (None, Some(case)) => Profile::single(case, None, self.time.0),
            (None, None) => return Err(Failure::new(Exit::Usage, "--op or --profile is needed")),
        };
        profile.pace = None;
        profile.deadline = Deadline::In(QUEUED_MAX);
        profile.operations.iter_mut().for_each(|operation| operation.deadline = Deadline::Default);
        profile.phases = vec![
            Phase {
                name: "warm-up".to_owned(),
                length: self.time.0,
                demand: Demand::Callers(None),
                counted: false,
            },
            Phase {
                name: "steady".to_owned(),
                length: self.time.0,
                demand: Demand::Callers(None),
                counted: true,
            },
        ];
        Ok(profile)
    }

    /// Callers for so many sessions at most.
    pub(super) fn callers(&self, profile: &Profile, sessions: usize) -> Result<u32> {
        let twice = u32::try_from(sessions.saturating_mul(2)).unwrap_or(u32::MAX);
        let wanted = self.callers.map_or(profile.callers.max(twice), |callers| callers.get().into());
        match profile.api {
            ProfileApi::Blocking if self.callers.is_none() => Ok(wanted.min(load::THREADS_MAX.into())),
            ProfileApi::Blocking if wanted > load::THREADS_MAX.into() => {
                Err(Failure::new(Exit::Usage, "more than 4096 callers need a profile of tasks"))
            }
            _ => Ok(wanted.min(u16::MAX.into())),
        }
    }
}
