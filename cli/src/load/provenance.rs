//! Where the results of a load come from.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::SystemTime;

use hsmux::{Engine, ModuleDescription, Snapshot};
use hsmux_bench::result::{Machine, Made, Module, Token};

use crate::exit::printable;

/// Options of which only the name is told: a URI may hold a PIN, and the others name keys, files and tokens of the operator.
const UNTOLD: [&str; 8] =
    ["--uri", "--pin-source", "--key", "--init-args", "--module", "--state-dir", "--config", "--token"];

/// What ran, on what.
pub(crate) fn made(
    file: &Path,
    module: Option<&ModuleDescription>,
    engine: &Engine,
    config: BTreeMap<String, String>,
    seed: u64,
) -> Made {
    let text = |path: Option<&std::ffi::OsStr>| {
        path.map_or_else(String::new, |name| name.to_string_lossy().into_owned())
    };
    let version = |(major, minor): (u8, u8)| format!("{major}.{minor}");
    Made {
        time: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        hsmux: env!("CARGO_PKG_VERSION").to_owned(),
        commit: option_env!("HSMUX_COMMIT").map(str::to_owned),
        command: command(std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned())),
        machine: Machine::here(),
        module: Module {
            file: text(file.file_name()),
            library: module.map_or_else(String::new, |module| module.description.clone()),
            version: module.map_or_else(String::new, |module| version(module.version)),
            cryptoki: module.map_or_else(String::new, |module| version(module.cryptoki)),
        },
        tokens: engine
            .tokens()
            .into_iter()
            .map(|token| Token {
                label: token.label,
                manufacturer: token.manufacturer,
                model: token.model,
                firmware: String::new(),
            })
            .collect(),
        config,
        seed,
    }
}

/// The settings of an engine that say most of its figures.
pub(super) fn settings(options: &[(&str, Option<String>)], snapshot: &Snapshot) -> BTreeMap<String, String> {
    let told = options.iter().filter_map(|(name, value)| Some(((*name).to_owned(), value.clone()?)));
    let sessions = |token: &hsmux::TokenSnapshot| format!("{} at the end", token.sessions);
    let tokens =
        snapshot.tokens.iter().map(|token| (format!("sessions of {}", token.label), sessions(token)));
    told.chain(tokens).collect()
}

/// The command line, without what is not for everybody who reads results.
fn command(args: impl Iterator<Item = String>) -> String {
    let mut told = vec!["hsmux".to_owned()];
    let mut is_untold = false;
    for arg in args {
        let name = arg.split_once('=').map_or(arg.as_str(), |(name, _)| name);
        match (UNTOLD.contains(&name), arg.starts_with("--")) {
            (true, _) => {
                told.push(format!("{name} ..."));
                is_untold = !arg.contains('=');
            }
            (false, true) => {
                is_untold = false;
                told.push(printable(&arg));
            }
            (false, false) if is_untold => {}
            (false, false) => told.push(printable(&arg)),
        }
    }
    told.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> String {
        command(text.split(' ').map(str::to_owned))
    }

    #[test]
    fn the_command_is_told_without_pins_keys_and_paths() {
        assert_eq!(told("load --op ecdsa-p256 --rate 2k"), "hsmux load --op ecdsa-p256 --rate 2k");
        let secret = "load --uri pkcs11:token=a?pin-value=1234 --token a b --pin-source=env:PIN --out /tmp/a";
        assert_eq!(told(secret), "hsmux load --uri ... --token ... --pin-source ... --out /tmp/a");
    }
}
