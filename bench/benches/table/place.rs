//! Where rows run, and running the binary there.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use hsmux_bench::rows::Place;
use serde_json::Value;
use softhsm_fixtures::{PIN, SoftHsm};

/// A token of SoftHSM2, the simulator, and the binary that works on either.
pub(crate) struct Places {
    hsmux: PathBuf,
    sim: PathBuf,
    softhsm: Option<SoftHsm>,
}

const TOKEN: &str = "bench";

/// The variable that holds the PIN of throw-away tokens.
const PIN_VARIABLE: &str = "HSMUX_BENCH_PIN";

impl Places {
    /// Makes a token; without SoftHSM2 only the simulator is there.
    pub(crate) fn open(hsmux: &Path, sim: &Path) -> Self {
        let softhsm = SoftHsm::start().map_err(|error| eprintln!("no SoftHSM2: {error}")).ok();
        if let Some(softhsm) = &softhsm {
            drop(softhsm.token(TOKEN).expect("a token"));
        }
        Self { hsmux: hsmux.to_owned(), sim: sim.to_owned(), softhsm }
    }

    /// What `hsmux load --help` says.
    pub(crate) fn help(&self) -> String {
        let output = Command::new(&self.hsmux).args(["load", "--help"]).output().expect("hsmux runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// SoftHSM2's module.
    pub(crate) fn module(&self) -> Option<&Path> {
        self.softhsm.as_ref().map(SoftHsm::module)
    }

    /// `hsmux load` with the module and the token named.
    pub(crate) fn command(&self, module: &Path, token: &str) -> Command {
        let mut command = Command::new(&self.hsmux);
        command.args(["load", "--json", "--token", token, "--pin-source"]);
        command.arg(format!("env:{PIN_VARIABLE}")).env(PIN_VARIABLE, PIN);
        command.env("PKCS11_MODULE_PATH", module).stdin(Stdio::null()).stderr(Stdio::piped());
        command
    }

    /// Runs a load and reads its report.
    pub(crate) fn load(&self, place: Place, options: &[String], seconds: usize) -> Result<Value, String> {
        let mut command = match place {
            Place::Sim(config) => {
                let mut command = self.command(&self.sim, "sim-0");
                command.env("P11_SIM", config);
                command
            }
            Place::SoftHsm => self.command(self.module().ok_or("needs SoftHSM2")?, TOKEN),
        };
        report(command.args(options).args(["--seconds", &seconds.to_string()]))
    }
}

/// Runs a load; its report, or the last line that it said.
pub(crate) fn report(command: &mut Command) -> Result<Value, String> {
    let output = command.output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return serde_json::from_slice(&output.stdout).map_err(|error| error.to_string());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("failed: {}", said.lines().last().unwrap_or_default().trim_start_matches("hsmux: ")))
}
