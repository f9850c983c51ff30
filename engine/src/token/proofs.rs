//! What self-tests have shown of a token: for which keys requests may share calls there.

use std::collections::HashMap;

use crate::coalesce::Family;
use crate::sync::Mutex;
use crate::token::facts::KeyKind;

/// The proofs of one token. They are made on its service thread, each once, and hold as long as the token is known.
#[derive(Debug)]
pub(crate) struct Proofs {
    /// Whether requests share calls at all.
    on: bool,
    by_kind: Mutex<HashMap<KeyKind, Proof>>,
}

/// Of one kind of keys, by [`Family`]: whether shared calls answer as single ones do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Proof(pub(crate) [bool; Family::ALL.len()]);

impl Proofs {
    pub(crate) fn new(on: bool) -> Self {
        Self { on, by_kind: Mutex::default() }
    }

    pub(crate) const fn are_wanted(&self) -> bool {
        self.on
    }

    /// What is known of keys of this kind, if they were tested.
    pub(crate) fn of(&self, kind: KeyKind) -> Option<Proof> {
        self.by_kind.lock().get(&kind).copied()
    }

    pub(crate) fn remember(&self, kind: KeyKind, proof: Proof) {
        self.by_kind.lock().insert(kind, proof);
    }

    /// How many kinds of keys have a mode that was not proven.
    pub(crate) fn incomplete(&self) -> usize {
        self.by_kind.lock().values().filter(|proof| !proof.is_complete()).count()
    }
}

impl Proof {
    pub(crate) const fn of(self, family: Family) -> bool {
        self.0[family as usize]
    }

    pub(crate) fn is_complete(self) -> bool {
        self.0.into_iter().all(|proven| proven)
    }
}
