//! `hsmux probe`: what a module and a token can do, found out by trying.

mod tables;

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hsmux::probe::{ModuleProfile, Probe, Progress};

use crate::connection::Connection;
use crate::exit::{Exit, Failure, Result};
use crate::stop::Stop;
use crate::units;

/// Options of `hsmux probe`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    connection: Connection,

    /// Write the profile, which an engine loads by module_profile = "FILE", in place of one that is there; - is stdout,
    /// without tables
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// Print the profile as JSON, instead of tables
    #[arg(long)]
    json: bool,

    /// Most sessions that are opened at once, to find out how many there are
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..=4096))]
    sessions_max: u16,

    /// How long it may take; what there is no time for is left out, and named
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = units::duration)]
    time_limit: Duration,

    /// Use the keys that are on the token, too: copy one of each kind into a session and run a few operations on both, to
    /// see whether copies are faster
    #[arg(long)]
    measure_copies: bool,
}

/// What it does to the device, examples and exit codes, for `--help`.
pub(crate) const HELP: &str = "\
It loads the device for up to a minute: it makes keys, opens as many sessions as it gets, and signs with 16 threads at
once. Run it where nobody else needs the device. Nothing on the token is changed: the keys are those of its sessions, and
go with them. It logs in once.

Examples:
  hsmux probe --module /opt/hsm/pkcs11.so --token pay-1 --pin-source file:/run/secrets/pin --out hsm.toml
  hsmux probe --config hsmux.toml --json
  hsmux probe --config hsmux.toml --sessions-max 16 --time-limit 10s

Then, in the configuration of an engine: module_profile = \"hsm.toml\"

Exit codes:
  0  done, whatever works and whatever does not
  1  the token was lost in a way that has no code of its own
  2  options, configuration, several tokens named, or the profile cannot be written
  3  module: not found, no PKCS#11 library, or it does not start
  4  token: none of that name, several to choose from, or it was lost
  5  PIN: refused (it was tried once), locked or close to it, or its source not usable
  8  a call did not return
  130  interrupted by SIGINT, 143 by SIGTERM: when the call that it is in has come back, and a second one at once";

const ONE_TOKEN: &str = "one token is probed at a time: name one by --token, with --module and --pin-source in place of a --config of several";

/// Probes, and says what was found.
pub(crate) fn run(args: Args) -> Result {
    let site = args.connection.resolve()?;
    if let [_, _, ..] = site.named() {
        return Err(Failure::new(Exit::Usage, ONE_TOKEN));
    }
    let to_stdout = args.is_to_stdout();
    if to_stdout && args.json {
        return Err(Failure::new(Exit::Usage, "--json and --out - both write to stdout"));
    }
    let tokens = site.tokens()?;
    // Before the device is loaded, and before anybody types a PIN.
    let path = args.out.as_deref().filter(|_| !to_stdout);
    path.map(ModuleProfile::check_path).transpose()?;
    let stop = Arc::new(Stop::new()?);
    let asked = Arc::clone(&stop);
    let probe = Probe::new(site.builder(&tokens, site.pin()?))
        .sessions_max(usize::from(args.sessions_max))
        .time_limit(args.time_limit)
        .token_keys(args.measure_copies)
        .stop_when(move || asked.is_asked());
    stop.on_signals()?;
    let mut live = Live::new();
    let profile = probe.run(|progress| live.show(progress));
    live.clear();
    if let Some(exit) = stop.signal() {
        return Err(Failure::new(exit, "stopped by a signal: nothing was written"));
    }
    let profile = profile?;
    // Shown first: if it cannot be written it is not lost.
    print(&args, &profile)?;
    path.map(|path| profile.write(path)).transpose()?;
    Ok(())
}

fn print(args: &Args, profile: &ModuleProfile) -> Result {
    let mut out = io::stdout().lock();
    if args.is_to_stdout() {
        out.write_all(profile.to_toml()?.as_bytes())?;
    } else if args.json {
        writeln!(out, "{}", json(profile)?)?;
    } else {
        tables::write(&mut out, profile)?;
    }
    Ok(out.flush()?)
}

impl Args {
    fn is_to_stdout(&self) -> bool {
        self.out.as_deref() == Some(Path::new("-"))
    }
}

fn json(profile: &ModuleProfile) -> Result<String> {
    serde_json::to_string_pretty(profile).map_err(|error| Failure::new(Exit::Other, error.to_string()))
}

/// A line on the terminal that is drawn over; nothing elsewhere.
struct Live {
    is_terminal: bool,
}

impl Live {
    fn new() -> Self {
        Self { is_terminal: io::stderr().is_terminal() }
    }

    fn show(&mut self, progress: &Progress) {
        let Progress { stage, what, done, of, .. } = progress;
        let what = if *what == stage.as_str() { String::new() } else { format!(": {what}") };
        self.draw(&format!("probing {}, {done} of {of}{what}", stage.as_str()));
    }

    fn clear(&mut self) {
        self.draw("");
    }

    fn draw(&mut self, line: &str) {
        if self.is_terminal {
            // To the front of the line, and clear it (ECMA-48: EL). Who cannot read it does without.
            let _ = write!(io::stderr().lock(), "\r\x1b[K{line}");
        }
    }
}
