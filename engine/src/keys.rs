//! Keys: what the tokens hold, under which name, and whether it is the same key everywhere.

pub(crate) mod catalogue;
pub(crate) mod generate;
mod identity;

use std::sync::Arc;

use cryptoki::mechanism::MechanismType;

use crate::error::{Error, ErrorKind, Result};
use crate::keys::catalogue::{Catalogue, Listed};
use crate::sync::{AtomicU64, Ordering};
use crate::token::Token;
use crate::token::facts::KeyFacts;
use crate::token::task::{Handle, Handles};

/// One generation of a key's material, and where it lives.
#[derive(Debug)]
pub(crate) struct KeyVersion {
    /// Unique in this process; never 0.
    pub(crate) number: u64,
    pub(crate) facts: KeyFacts,
    pub(crate) handles: Arc<Handles>,
    /// The tokens on which the key was proven to be the same: bit i is token i.
    pub(crate) proven: u64,
}

impl KeyVersion {
    /// Finds a key by its label on the tokens, and uses it on all that hold the same.
    pub(crate) fn load(name: &str, tokens: &[Arc<Token>], catalogues: &[Catalogue]) -> Result<Self> {
        let found = catalogues.iter().map(|catalogue| catalogue.find(name)).collect::<Result<Vec<_>>>()?;
        let first = found.iter().flatten().next();
        let Some(first) = first else {
            let text = format!("asked of {} tokens", tokens.len());
            return Err(Error::operator(ErrorKind::KeyNotFound, text));
        };
        let held: Vec<(usize, &Listed)> =
            found.iter().enumerate().filter_map(|(i, f)| Some((i, f.as_ref()?))).collect();
        let proven = identity::prove(tokens, &held)?;
        let handle = |listed: &Listed| Handle { epoch: listed.epoch, object: listed.object };
        Ok(Self {
            number: next_number(),
            facts: first.facts.clone(),
            handles: Arc::new(Handles::new(found.iter().map(|found| found.as_ref().map(handle)))),
            proven,
        })
    }

    /// A key that lives on one token of `count`.
    pub(crate) fn single(token: usize, count: usize, listed: Listed) -> Self {
        let handle = Handle { epoch: listed.epoch, object: listed.object };
        Self {
            number: next_number(),
            facts: listed.facts,
            handles: Arc::new(Handles::new((0..count).map(|index| (index == token).then_some(handle)))),
            proven: 1 << token,
        }
    }

    /// The tokens that can run a mechanism with this key.
    pub(crate) fn eligible(&self, mechanism: MechanismType, tokens: &[Arc<Token>]) -> u64 {
        let offers = |index: usize| tokens.get(index).is_some_and(|token| token.offers(mechanism.into()));
        crate::schedule::dispatch::tokens(self.proven).filter(|&i| offers(i)).fold(0, |mask, i| mask | 1 << i)
    }
}

/// Numbers of key versions begin at 1: 0 stands for no key.
fn next_number() -> u64 {
    static NUMBERS: AtomicU64 = AtomicU64::new(1);
    NUMBERS.fetch_add(1, Ordering::Relaxed)
}
