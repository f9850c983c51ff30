//! What a module profile says of the tokens of an engine.

use crate::pkcs11::MechanismInfo;
use crate::token::facts::{Curve, KeyKind};
use crate::token::mechanism::Usage;

/// Findings that bear on the tokens of an engine; nothing where it has no profile.
#[derive(Clone, Default)]
pub(crate) struct Measured {
    pub(crate) failing: Vec<Failing>,
    /// Mechanisms, each with a use in which it fails whatever the key.
    pub(crate) failing_numbers: Vec<(u64, Usage)>,
    /// Whether session copies of such keys are faster.
    pub(crate) gains: Vec<(KeyKind, bool)>,
    /// Whether keys can be copied.
    pub(crate) copies_work: Option<bool>,
    pub(crate) sessions: Found,
}

/// A mechanism that is listed and fails.
#[derive(Clone, Copy)]
pub(crate) struct Failing {
    /// Its [index](crate::token::mechanism::Mechanism::index).
    pub(crate) index: usize,
    pub(crate) usage: Usage,
    /// With keys of which curve; with all if none is said.
    pub(crate) curve: Option<Curve>,
}

/// What was found of sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// How many pay.
    pub(crate) recommended: Option<usize>,
    /// How many there are in all.
    pub(crate) limit: Option<usize>,
}

impl Measured {
    /// Whether the mechanism at this [index](crate::token::mechanism::Mechanism::index) is known to fail, in this use and with such
    /// keys.
    pub(crate) fn fails(&self, index: usize, usage: Usage, kind: KeyKind) -> bool {
        self.failing.iter().any(|failing| {
            let covers = failing.curve.is_none_or(|curve| kind == KeyKind::Ec(curve));
            failing.index == index && failing.usage == usage && covers
        })
    }

    /// What a token lists, without what is known to fail whatever the key.
    pub(crate) fn left_of(&self, mechanisms: Vec<MechanismInfo>) -> Vec<MechanismInfo> {
        mechanisms.into_iter().filter_map(|info| self.left(info)).collect()
    }

    fn left(&self, info: MechanismInfo) -> Option<MechanismInfo> {
        let flags_of =
            |usages: &mut dyn Iterator<Item = Usage>| usages.fold(0, |all, usage| all | usage.flag());
        let all = flags_of(&mut Usage::ALL.into_iter());
        let failing = self.failing_numbers.iter().filter(|(number, _)| *number == info.mechanism);
        let failing = flags_of(&mut failing.map(|(_, usage)| *usage));
        if failing == 0 {
            return Some(info);
        }
        // One that is listed without any use counts for all.
        let listed = if info.flags & all == 0 { all } else { info.flags & all };
        let left = listed & !failing;
        (left != 0).then_some(MechanismInfo { flags: info.flags & !all | left, ..info })
    }
}
