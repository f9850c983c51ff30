//! The states of a key's life, which uses each allows, and which change may follow which (SP 800-57 part 1 revision 5, 7).

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::operation::OperationKind;
use crate::sync::Ordering;
use crate::sync::plain::AtomicU32;

/// Where a managed key stands in its life.
///
/// "Protecting" is signing, making MACs, encrypting, wrapping and agreeing on keys; "processing" is verifying, decrypting and
/// unwrapping what was protected before.
///
/// | state | protects | processes |
/// |---|---|---|
/// | pre-activation | no | no |
/// | active | yes | yes |
/// | suspended | no | yes |
/// | deactivated | no | yes |
/// | compromised | no | only for [`Key::at_risk`](crate::Key::at_risk) |
/// | destroyed | no | no |
///
/// While its destruction is scheduled a key does nothing, whatever its state. A version that is not the primary one
/// processes where its key does, and never protects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum KeyState {
    /// Made, and not to be used yet.
    PreActivation,
    /// In use.
    Active,
    /// Out of use for a while: nothing new is protected by it.
    Suspended,
    /// Past its time: what it has protected is still processed.
    Deactivated,
    /// Known or feared to others: processed at the caller's own risk only.
    Compromised,
    /// Gone from every token. The name may be given to another key.
    Destroyed,
}

/// What a key is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Use {
    /// Signatures and MACs.
    Sign,
    Verify,
    Encrypt,
    Decrypt,
    Wrap,
    Unwrap,
    Agree,
}

/// What one version of a key may be used for now: written by whoever learns of a change, read by every request.
#[derive(Debug)]
pub(crate) struct Gate(AtomicU32);

/// The uses that are allowed, as bits by [`Use`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Allowed {
    pub(crate) plainly: u8,
    /// To those who take the risk that a compromised key is.
    pub(crate) at_risk: u8,
}

/// A change that somebody asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Change {
    Activate,
    Suspend,
    Resume,
    Deactivate,
    Compromise,
    ScheduleDestruction,
    CancelDestruction,
    Destroy,
    Rotate,
}

impl KeyState {
    /// Every state, in the order of a life.
    pub const ALL: [Self; 6] = [
        Self::PreActivation,
        Self::Active,
        Self::Suspended,
        Self::Deactivated,
        Self::Compromised,
        Self::Destroyed,
    ];

    /// Its name: lower case, words joined by hyphens.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::PreActivation => "pre-activation",
            Self::Active => "active",
            Self::Suspended => "suspended",
            Self::Deactivated => "deactivated",
            Self::Compromised => "compromised",
            Self::Destroyed => "destroyed",
        }
    }

    /// What a key of this state may be used for, by its primary version or by an older one. `doomed`: its destruction is
    /// scheduled.
    pub(crate) const fn allowed(self, doomed: bool, primary: bool) -> Allowed {
        let (plainly, at_risk) = match self {
            _ if doomed => (0, 0),
            Self::Active if primary => (PROTECTING | PROCESSING, PROTECTING | PROCESSING),
            Self::Active | Self::Suspended | Self::Deactivated => (PROCESSING, PROCESSING),
            Self::Compromised => (0, PROCESSING),
            Self::PreActivation | Self::Destroyed => (0, 0),
        };
        Allowed { plainly, at_risk }
    }

    /// The state after a change; the same for those that change something else.
    ///
    /// # Errors
    /// `KeyState`, if the change may not follow. `doomed` as in [`KeyState::allowed`].
    pub(crate) fn after(self, change: Change, doomed: bool) -> Result<Self> {
        let next = match (change, self) {
            (_, Self::Destroyed) => None,
            (Change::CancelDestruction, state) if doomed => Some(state),
            // Known to others is known to others, also while it waits for its end.
            (Change::Compromise, _) => Some(Self::Compromised),
            (Change::Destroy, _) if doomed => Some(Self::Destroyed),
            (_, _) if doomed => None,
            (Change::Activate, Self::PreActivation) => Some(Self::Active),
            (Change::Suspend, Self::Active) => Some(Self::Suspended),
            (Change::Resume, Self::Suspended) => Some(Self::Active),
            (Change::Deactivate, Self::Active | Self::Suspended) => Some(Self::Deactivated),
            (Change::ScheduleDestruction, state) => Some(state),
            // What is in use is taken out of use first.
            (Change::Destroy, Self::PreActivation | Self::Deactivated | Self::Compromised) => {
                Some(Self::Destroyed)
            }
            (Change::Rotate, Self::Active) => Some(Self::Active),
            _ => None,
        };
        next.ok_or_else(|| {
            let doomed = if doomed { " whose destruction is scheduled" } else { "" };
            let text = format!("the key is {}{doomed}, and cannot be {}", self.name(), change.done());
            Error::operator(ErrorKind::KeyState, text)
        })
    }
}

impl Change {
    #[cfg(test)]
    const ALL: [Self; 9] = [
        Self::Activate,
        Self::Suspend,
        Self::Resume,
        Self::Deactivate,
        Self::Compromise,
        Self::ScheduleDestruction,
        Self::CancelDestruction,
        Self::Destroy,
        Self::Rotate,
    ];

    /// What the audit log calls it.
    pub(crate) const fn operation(self) -> &'static str {
        match self {
            Self::Activate => "activate-key",
            Self::Suspend => "suspend-key",
            Self::Resume => "resume-key",
            Self::Deactivate => "deactivate-key",
            Self::Compromise => "mark-key-compromised",
            Self::ScheduleDestruction => "schedule-key-destruction",
            Self::CancelDestruction => "cancel-key-destruction",
            Self::Destroy => "destroy-key",
            Self::Rotate => "rotate-key",
        }
    }

    const fn done(self) -> &'static str {
        match self {
            Self::Activate => "activated",
            Self::Suspend => "suspended",
            Self::Resume => "resumed",
            Self::Deactivate => "deactivated",
            Self::Compromise => "marked as compromised",
            Self::ScheduleDestruction => "scheduled for destruction",
            Self::CancelDestruction => "saved from destruction: none is scheduled",
            Self::Destroy => "destroyed",
            Self::Rotate => "rotated",
        }
    }
}

impl Use {
    const fn bit(self) -> u8 {
        1 << self as u8
    }

    /// What a request does with its key; none of what has no key.
    pub(crate) const fn of(kind: OperationKind) -> Option<Self> {
        use OperationKind as K;
        Some(match kind {
            K::SignRsaPkcs1 | K::SignRsaPss | K::SignEcdsa | K::SignEd25519 | K::SignRaw => Self::Sign,
            K::SignHmac | K::SignAesCmac | K::SignTripleDesCmac | K::SignRetailMac => Self::Sign,
            K::EncryptAesGcm | K::EncryptAesEcb | K::EncryptAesCbc | K::EncryptAesCtr => Self::Encrypt,
            K::EncryptTripleDesEcb | K::EncryptTripleDesCbc | K::EncryptRaw => Self::Encrypt,
            K::EncryptRsaOaep | K::EncryptRsaPkcs1 => Self::Encrypt,
            K::DecryptAesGcm | K::DecryptAesEcb | K::DecryptAesCbc | K::DecryptAesCtr => Self::Decrypt,
            K::DecryptTripleDesEcb | K::DecryptTripleDesCbc | K::DecryptRaw => Self::Decrypt,
            K::DecryptRsaOaep | K::DecryptRsaPkcs1 => Self::Decrypt,
            K::Verify => Self::Verify,
            K::Random => return None,
        })
    }
}

/// What applies protection.
const PROTECTING: u8 = Use::Sign.bit() | Use::Encrypt.bit() | Use::Wrap.bit() | Use::Agree.bit();

/// What undoes or checks it.
const PROCESSING: u8 = Use::Verify.bit() | Use::Decrypt.bit() | Use::Unwrap.bit();

impl Gate {
    pub(crate) fn new(state: KeyState, doomed: bool, primary: bool) -> Self {
        Self(AtomicU32::new(Self::word(state, doomed, primary)))
    }

    /// Sets what is allowed from now on. True if that is another.
    pub(crate) fn set(&self, state: KeyState, doomed: bool, primary: bool) -> bool {
        let word = Self::word(state, doomed, primary);
        // Relaxed: it orders nothing. Who sees it late began before the change was known everywhere.
        self.0.swap(word, Ordering::Relaxed) != word
    }

    /// Whether new work may use this version, as far as that is for the version to say.
    pub(crate) fn is_primary(&self) -> bool {
        self.0.load(Ordering::Relaxed) >> 20 & 1 == 1
    }

    /// # Errors
    /// `KeyState`, if the state of the key forbids this use; to be tried again at once where another version does it.
    #[inline]
    pub(crate) fn check(&self, to: Use, at_risk: bool) -> Result<()> {
        let word = self.0.load(Ordering::Relaxed);
        let bits = if at_risk { word >> 8 } else { word };
        if bits & u32::from(to.bit()) != 0 { Ok(()) } else { Err(refused(word)) }
    }

    fn word(state: KeyState, doomed: bool, primary: bool) -> u32 {
        let Allowed { plainly, at_risk } = state.allowed(doomed, primary);
        let marks = u32::from(doomed) << 19 | u32::from(primary) << 20;
        u32::from(plainly) | u32::from(at_risk) << 8 | (state as u32) << 16 | marks
    }
}

#[cold]
fn refused(word: u32) -> Error {
    let state = KeyState::ALL.get((word >> 16 & 7) as usize).map_or("unknown", |state| state.name());
    let doomed = if word >> 19 & 1 == 1 { ", and its destruction is scheduled" } else { "" };
    let old = if word >> 20 & 1 == 0 { ", by a version that is not the primary one" } else { "" };
    let error = Error::operator(ErrorKind::KeyState, format!("it is {state}{doomed}{old}"));
    match (state, doomed, old) {
        // The key has just been rotated, and its latest version takes what is asked of the key again.
        ("active", "", old) if !old.is_empty() => error.at_once(),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USES: [Use; 7] =
        [Use::Sign, Use::Encrypt, Use::Wrap, Use::Agree, Use::Verify, Use::Decrypt, Use::Unwrap];

    /// State, and for protecting and processing: `y`es, `n`o, at `r`isk; of the primary version, an older one, and a key
    /// whose destruction is scheduled. Each letter stands for all uses of its kind.
    const TABLE: [(KeyState, &str, &str, &str); 6] = [
        (KeyState::PreActivation, "nn", "nn", "nn"),
        (KeyState::Active, "yy", "ny", "nn"),
        (KeyState::Suspended, "ny", "ny", "nn"),
        (KeyState::Deactivated, "ny", "ny", "nn"),
        (KeyState::Compromised, "nr", "nr", "nn"),
        (KeyState::Destroyed, "nn", "nn", "nn"),
    ];

    #[test]
    fn every_use_in_every_state_is_allowed_as_the_table_says() {
        let mut cells = 0;
        for (state, primary, older, doomed) in TABLE {
            for (row, is_doomed, is_primary) in
                [(primary, false, true), (older, false, false), (doomed, true, true), (doomed, true, false)]
            {
                let gate = Gate::new(state, is_doomed, is_primary);
                for (i, to) in USES.into_iter().enumerate() {
                    let cell = row.as_bytes()[usize::from(i >= 4)];
                    assert_eq!(gate.check(to, false).is_ok(), cell == b'y', "{state:?} {to:?} {row}");
                    assert_eq!(gate.check(to, true).is_ok(), cell != b'n', "{state:?} {to:?} {row} at risk");
                    cells += 1;
                }
            }
        }
        assert_eq!(cells, 6 * 4 * 7);
    }

    /// Change by state, in the order of [`KeyState::ALL`]: the first letter of the next state, or `-`.
    const CHANGES: [(Change, &str, &str); 9] = [
        (Change::Activate, "a-----", "------"),
        (Change::Suspend, "-s----", "------"),
        (Change::Resume, "--a---", "------"),
        (Change::Deactivate, "-dd---", "------"),
        (Change::Compromise, "ccccc-", "ccccc-"),
        (Change::ScheduleDestruction, "pasdc-", "------"),
        (Change::CancelDestruction, "------", "pasdc-"),
        (Change::Destroy, "x--xx-", "xxxxx-"),
        (Change::Rotate, "-a----", "------"),
    ];

    fn letter(state: KeyState) -> char {
        if state == KeyState::Destroyed { 'x' } else { state.name().chars().next().unwrap_or('?') }
    }

    #[test]
    fn every_change_in_every_state_follows_as_the_table_says() {
        assert_eq!(CHANGES.map(|(change, ..)| change), Change::ALL);
        for (change, plain, doomed) in CHANGES {
            for (is_doomed, row) in [(false, plain), (true, doomed)] {
                for (state, wanted) in KeyState::ALL.into_iter().zip(row.chars()) {
                    let next = state.after(change, is_doomed);
                    assert_eq!(
                        next.as_ref().map_or('-', |&next| letter(next)),
                        wanted,
                        "{change:?} {state:?}"
                    );
                    if let Err(error) = next {
                        assert_eq!(error.kind(), ErrorKind::KeyState);
                    }
                }
            }
        }
    }

    #[test]
    fn a_gate_says_whether_it_has_changed_and_why_it_is_shut() {
        let gate = Gate::new(KeyState::Active, false, true);
        assert!(!gate.set(KeyState::Active, false, true));
        assert!(gate.set(KeyState::Suspended, false, true));
        let error = gate.check(Use::Sign, false).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::KeyState);
        assert!(error.to_string().contains("it is suspended"), "{error}");
        assert!(gate.set(KeyState::Active, true, false));
        let error = gate.check(Use::Verify, true).unwrap_err().to_string();
        assert!(error.contains("scheduled") && error.contains("not the primary"), "{error}");
    }
}
