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
