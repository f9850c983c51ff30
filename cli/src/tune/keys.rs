//! The keys of a load that goes from engine to engine.

use std::sync::Arc;

use hsmux::Engine;
use hsmux_bench::TemporaryKey;
use hsmux_bench::profile::Profile;

use super::args::Args;
use super::tell;
use crate::connection::Site;
use crate::exit::{Exit, Failure, Result, printable};
use crate::load::{named_key, simulated_key};

/// The keys, by operation. They are token keys, so that they outlive the engine that made them.
#[derive(Debug)]
pub(super) enum Keys {
    Unneeded,
    Named(String),
    /// Names of keys that have to be removed at the end.
    Temporary(Vec<Vec<String>>),
    /// Of a simulated device, which every token holds.
    Simulated,
}

impl Keys {
    pub(super) fn make(args: &Args, site: &Site, engine: &Arc<Engine>, profile: &Profile) -> Result<Self> {
        if args.sim.is_some() {
            return Ok(Self::Simulated);
        }
        if profile.keys() == 0 {
            return Ok(Self::Unneeded);
        }
        if let Some(case) = args.op
            && let Some(name) = named_key(args.key.as_deref(), site, engine, case)?
        {
            return Ok(Self::Named(name));
        }
        let removed = TemporaryKey::remove_left_over(engine)?;
        if removed > 0 {
            tell(&format!("removed {removed} temporary keys that earlier runs left behind"));
        }
        let mut labels = Vec::new();
        let generated = generate(&mut labels, engine, profile);
        let mut keys = Self::Temporary(labels);
        if let Err(error) = generated {
            // The failure that is returned is the first.
            keys.remove(Some(engine)).unwrap_or_else(|remain| tell(&remain.into_text()));
            return Err(error.into());
        }
        tell(&format!("{} temporary keys on the first token, which serves this load", profile.keys()));
        Ok(keys)
    }

    /// The name of a key of an operation.
    pub(super) fn label(&self, operation: usize, key: u32) -> Option<String> {
        match self {
            Self::Unneeded => None,
            Self::Named(name) => Some(name.clone()),
            Self::Simulated => Some(simulated_key(operation, key)),
            Self::Temporary(keys) => keys.get(operation)?.get(key as usize).cloned(),
        }
    }

    /// Whether an engine is needed to remove them.
    pub(super) const fn are_temporary(&self) -> bool {
        matches!(self, Self::Temporary(_))
    }

    /// Removes those that were made for this, each of them whatever becomes of the others, and tells which remain and why. Without
    /// an engine all do.
    pub(super) fn remove(&mut self, engine: Option<&Arc<Engine>>) -> Result {
        let Self::Temporary(keys) = std::mem::replace(self, Self::Unneeded) else { return Ok(()) };
        let (mut remain, mut why) = (Vec::new(), None);
        for label in keys.into_iter().flatten() {
            let removed = engine.map(|engine| TemporaryKey::adopt(engine, label.clone()).remove());
            if !matches!(removed, Some(Ok(()))) {
                remain.push(label);
                why = why.or(removed.and_then(std::result::Result::err));
            }
        }
        if remain.is_empty() {
            return Ok(());
        }
        let why = why.map_or_else(|| "no engine may be built".to_owned(), |error| error.to_string());
        let names = printable(&remain.join(", "));
        let text = format!("temporary keys remain on the first token ({why}): the next run removes {names}");
        Err(Failure::new(Exit::Key, text))
    }
}

/// Generates the keys of a profile, and says what they are called, by operation, as far as it got.
fn generate(
    labels: &mut Vec<Vec<String>>,
    engine: &Arc<Engine>,
    profile: &Profile,
) -> std::result::Result<(), hsmux::Error> {
    for operation in &profile.operations {
        labels.push(Vec::new());
        let Some(spec) = operation.op.key_spec() else { continue };
        for _ in 0..operation.keys.count {
            let key = TemporaryKey::generate(engine, spec)?;
            if let Some(of_operation) = labels.last_mut() {
                of_operation.push(key.release());
            }
        }
    }
    Ok(())
}
