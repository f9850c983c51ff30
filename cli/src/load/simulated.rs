//! A simulated HSM to which happens what a script says, in place of a module.

use std::path::Path;
use std::time::Duration;

use hsmux::{Curve, KeySpec, PinSource};
use hsmux_bench::profile::Profile;
use p11_sim::{Playing, Script, Simulated};
use secrecy::SecretString;

use crate::connection::Site;
use crate::exit::{Exit, Failure, Result};

/// The device of a run.
pub(crate) struct Device(Simulated);

impl Device {
    /// The device that the script in this file describes, every token of which holds the keys of a profile. `may_change`: whether
    /// anything may happen to it.
    pub(crate) fn of(path: &Path, profile: &Profile, may_change: bool) -> Result<Self> {
        let cannot =
            |why: &dyn std::fmt::Display| Failure::new(Exit::Usage, format!("{}: {why}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| cannot(&error))?;
        let mut script = Script::parse(&text)
            .map_err(|error| Failure::new(Exit::Usage, format!("{}:{error}", path.display())))?;
        if !may_change && script.last().is_some() {
            return Err(cannot(
                &"searches and comparisons need a device that stays the same: leave [[at]] out",
            ));
        }
        for (index, operation) in profile.operations.iter().enumerate() {
            let Some(spec) = operation.op.key_spec() else { continue };
            for number in 0..operation.keys.count {
                script = script.with_key(&format!("{}:{}", key(index, number), kind(spec)?));
            }
        }
        script.load().map(Self).map_err(|error| Failure::new(Exit::Module, error.to_string()))
    }

    pub(crate) fn site(&self) -> Site {
        let pin = PinSource::from(SecretString::from(self.0.pin().to_owned()));
        Site::of_tokens(self.0.module(), self.0.init_args(), self.0.tokens(), pin)
    }

    /// From now on what the script says happens.
    pub(crate) fn play(&self) -> Result<Playing> {
        Ok(self.0.play(Duration::ZERO)?)
    }
}

/// What a key of an operation is called on a simulated device.
pub(crate) fn key(operation: usize, number: u32) -> String {
    format!("load-{operation}-{number}")
}

/// A kind of key, as the simulator calls it.
fn kind(spec: KeySpec) -> Result<&'static str> {
    match spec {
        KeySpec::Rsa(2048) => Ok("rsa2048"),
        KeySpec::RsaDecryption(2048) => Ok("rsa2048-decrypt"),
        KeySpec::Rsa(4096) => Ok("rsa4096"),
        KeySpec::Ec(Curve::P256) => Ok("p256"),
        KeySpec::Ec(Curve::P384) => Ok("p384"),
        KeySpec::Ed25519 => Ok("ed25519"),
        KeySpec::Aes(32) => Ok("aes"),
        KeySpec::AesMac(32) => Ok("aes-mac"),
        KeySpec::Hmac(_) => Ok("hmac"),
        other => Err(Failure::new(Exit::Key, format!("simulated devices have no key of kind {other}"))),
    }
}
