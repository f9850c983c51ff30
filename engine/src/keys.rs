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
use crate::token::task::{Handle, Handles, Mechanism};

/// One generation of a key's material, and where it lives.
#[derive(Debug)]
pub(crate) struct KeyVersion {
    /// Unique in this process; never 0.
    pub(crate) number: u64,
    pub(crate) facts: KeyFacts,
    pub(crate) handles: Arc<Handles>,
    /// The tokens on which the key was proven to be the same and that offer a mechanism, by
    /// [`Mechanism::index`]: bit i is token i. Worked out once, because every request asks.
    eligible: [u64; Mechanism::COUNT],
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
        let handles = Handles::new(found.iter().map(|found| found.as_ref().map(handle)));
        Ok(Self::new(first.facts.clone(), handles, proven, tokens))
    }

    /// A key that lives on one token.
    pub(crate) fn single(token: usize, tokens: &[Arc<Token>], listed: Listed) -> Self {
        let handle = Handle { epoch: listed.epoch, object: listed.object };
        let handles = Handles::new((0..tokens.len()).map(|index| (index == token).then_some(handle)));
        Self::new(listed.facts, handles, 1 << token, tokens)
    }

    /// The tokens that can run a mechanism with this key.
    pub(crate) const fn eligible(&self, mechanism: &Mechanism) -> u64 {
        self.eligible[mechanism.index()]
    }

    fn new(facts: KeyFacts, handles: Handles, proven: u64, tokens: &[Arc<Token>]) -> Self {
        let offers = |index: usize, mechanism: MechanismType| {
            tokens.get(index).is_some_and(|token| token.offers(mechanism.into()))
        };
        let eligible = Mechanism::TYPES.map(|mechanism| {
            let held = crate::schedule::dispatch::tokens(proven);
            held.filter(|&index| offers(index, mechanism)).fold(0, |mask, index| mask | 1 << index)
        });
        Self { number: next_number(), facts, handles: Arc::new(handles), eligible }
    }
}

/// Numbers of key versions begin at 1: 0 stands for no key.
fn next_number() -> u64 {
    static NUMBERS: AtomicU64 = AtomicU64::new(1);
    NUMBERS.fetch_add(1, Ordering::Relaxed)
}
