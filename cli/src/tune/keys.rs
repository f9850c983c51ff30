//! The keys of a load that goes from engine to engine.

use std::sync::Arc;

use hsmux::Engine;
use hsmux_bench::TemporaryKey;
use hsmux_bench::profile::{Operation, Profile};

use super::args::Args;
use super::tell;
use crate::connection::Site;
use crate::exit::{Exit, Failure, Result, printable};
use crate::load::{check_kind, label_of, simulated_key};

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
        if let Some(case) = args.op {
            let named = match (&args.key, site.key_uri()) {
                (Some(name), _) => Some(name.clone()),
                (None, Some(uri)) => Some(label_of(uri, engine)?),
                (None, None) => None,
            };
            if let Some(name) = named {
                check_kind(engine, case, &name)?;
                return Ok(Self::Named(name));
            }
        }
        let removed = TemporaryKey::remove_left_over(engine)?;
        if removed > 0 {
            tell(&format!("removed {removed} temporary keys that earlier runs left behind"));
        }
        let of = |operation: &Operation| {
            let spec = operation.op.key_spec();
            let count = spec.map_or(0, |_| operation.keys.count);
            (0..count).filter_map(|_| spec).map(|spec| TemporaryKey::generate(engine, spec)).collect()
        };
        // Until all are there each removes itself.
        let keys: Vec<Vec<_>> = profile.operations.iter().map(of).collect::<std::result::Result<_, _>>()?;
        tell(&format!("{} temporary keys on the first token, which serves this load", profile.keys()));
        let release = |keys: Vec<TemporaryKey>| keys.into_iter().map(TemporaryKey::release).collect();
        Ok(Self::Temporary(keys.into_iter().map(release).collect()))
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
