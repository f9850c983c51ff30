//! Where a result comes from.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The provenance of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// When it began: RFC 3339.
    pub time: String,
    /// Version of hsmux.
    pub hsmux: String,
    /// Commit it was built from, if that is known.
    pub commit: Option<String>,
    /// The command line.
    pub command: String,
    /// Where it ran.
    pub machine: Machine,
    /// The PKCS#11 module.
    pub module: Module,
    /// The tokens that were used.
    pub tokens: Vec<Token>,
    /// Settings of the engine, by name. No secrets, no names of keys.
    pub config: BTreeMap<String, String>,
    /// Seed of arrivals and mix: the same seed asks the same at the same times.
    pub seed: u64,
}

/// A machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Model of the processor.
    pub cpu: String,
    /// Cores that the process may use.
    pub cores: u32,
    /// Main memory, in bytes.
    pub memory_bytes: u64,
    /// Kernel and distribution.
    pub system: String,
}

/// A PKCS#11 module, as `C_GetInfo` describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Module {
    /// Name of the file, without its directory.
    pub file: String,
    /// Description of the library.
    pub library: String,
    /// Version of the library.
    pub version: String,
    /// Version of the standard.
    pub cryptoki: String,
}

/// A token, as `C_GetTokenInfo` describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Label.
    pub label: String,
    /// Manufacturer.
    pub manufacturer: String,
    /// Model.
    pub model: String,
    /// Version of the firmware.
    pub firmware: String,
}

impl Machine {
    /// This one, as far as it tells.
    #[must_use]
    pub fn here() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let uname = rustix::system::uname();
        let kernel =
            [uname.sysname(), uname.release()].map(|text| text.to_string_lossy().into_owned()).join(" ");
        let distribution = value(&read("/etc/os-release"), "PRETTY_NAME", '=');
        Self {
            cpu: value(&read("/proc/cpuinfo"), "model name", ':')
                .unwrap_or_else(|| uname.machine().to_string_lossy().into()),
            cores: std::thread::available_parallelism()
                .ok()
                .and_then(|cores| u32::try_from(cores.get()).ok())
                .unwrap_or(0),
            memory_bytes: value(&read("/proc/meminfo"), "MemTotal", ':')
                .and_then(|text| kib(&text))
                .unwrap_or(0),
            system: distribution.map_or_else(|| kernel.clone(), |name| format!("{kernel}, {name}")),
        }
    }
}

/// The first value of this name, without quotes.
fn value(text: &str, name: &str, separator: char) -> Option<String> {
    let (_, value) =
        text.lines().filter_map(|line| line.split_once(separator)).find(|(key, _)| key.trim() == name)?;
    Some(value.trim().trim_matches('"').to_owned()).filter(|value| !value.is_empty())
}

/// Bytes of a number of kibibytes, as `16384 kB`.
fn kib(text: &str) -> Option<u64> {
    text.strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_from_what_the_system_says_of_itself() {
        let text = "processor\t: 0\nmodel name\t: A Processor @ 2.0\nmodel name : B\nempty :\n";
        assert_eq!(value(text, "model name", ':').as_deref(), Some("A Processor @ 2.0"));
        assert_eq!((value(text, "empty", ':'), value(text, "none", ':')), (None, None));
        assert_eq!(value("PRETTY_NAME=\"A System 12\"", "PRETTY_NAME", '=').as_deref(), Some("A System 12"));
        assert_eq!((kib("16384 kB"), kib("16384"), kib("x kB")), (Some(16_777_216), None, None));
    }

    #[test]
    fn this_machine_has_cores_and_memory() {
        let machine = Machine::here();
        assert!(
            machine.cores > 0 && machine.memory_bytes > 1 << 20 && !machine.system.is_empty(),
            "{machine:?}"
        );
    }
}
