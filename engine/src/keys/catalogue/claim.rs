//! Claims: PKCS#11 knows no compare-and-swap, so whoever is about to change something says so before, and looks who else has.
//!
//! A claim is an object on the token, as a record is. What is written before a look is seen by everybody who looks later
//! (tokens are assumed to show every object once `C_CreateObject` has returned), so of two that claim the same at least one
//! sees the other. The one with the higher hash goes; the one with the lower waits until it has gone, for it may have
//! looked before and hold the claim. So nobody changes a subject that somebody else holds.
//!
//! What a claim names is undone or finished by whoever finds that its holder is dead.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::process::Process;
use super::record::{FORMAT, Hash, Subject, Writer};
use crate::keys::hex::HexBytes;

/// Somebody is about to change something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Claim {
    pub(crate) format: u32,
    /// What is claimed: a key, or names.
    pub(crate) subjects: Vec<Subject>,
    pub(crate) writer: Writer,
    pub(crate) process: Process,
    /// When it ends by itself, in seconds of Unix time.
    pub(crate) until: u64,
    /// `CKA_ID` of objects that are about to be made. If no record names them when the claim has ended, they go.
    pub(crate) objects: Vec<HexBytes>,
}

/// What follows from the claims that are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It holds: the change may be made.
    Holds,
    /// Another one has the better right, or has made its change.
    Lost,
    /// Others are about to go, or hold it.
    Waits,
}

/// How long a claim lasts at most. The longest change is the generation of an RSA key of
/// 4 096 bits on each token of a group, which the engine gives a minute each.
pub(crate) const LEASE_S: u64 = 600;

impl Claim {
    pub(crate) const fn new(
        subjects: Vec<Subject>,
        objects: Vec<HexBytes>,
        writer: Writer,
        process: Process,
        now: u64,
    ) -> Self {
        Self { format: FORMAT, subjects, writer, process, until: now.saturating_add(LEASE_S), objects }
    }

    /// Reads what was written. None if it is no claim of this format.
    pub(crate) fn read(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok().filter(|claim: &Self| claim.format == FORMAT)
    }

    /// What orders claims. Two of one text are one writer's, who never waits for himself.
    pub(crate) fn hash(&self) -> Hash {
        let text = serde_json::to_string(self).unwrap_or_default();
        Hash::new(Sha256::digest(text.as_bytes()).into())
    }

    /// Whether nobody makes the change any more.
    pub(crate) fn is_over(&self, here: &Process, now: u64, runs: impl Fn(&Process) -> bool) -> bool {
        // A thread may have gone and left its claim in a process that lives on.
        now >= self.until || here.sees(&self.process) && !runs(&self.process)
    }

    fn is_about(&self, other: &Self) -> bool {
        self.subjects.iter().any(|subject| other.subjects.contains(subject))
    }

    /// What becomes of this claim beside those of others that are not over.
    pub(crate) fn judge<'a>(&self, others: impl IntoIterator<Item = &'a Self>) -> Verdict {
        let own = self.hash();
        let rivals = others.into_iter().filter(|other| self.is_about(other)).map(Self::hash);
        rivals.filter(|&hash| hash != own).fold(Verdict::Holds, |so_far, hash| {
            if so_far == Verdict::Lost || hash < own { Verdict::Lost } else { Verdict::Waits }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::key_id::KeyNumber;

    fn claim(subjects: &[&str], writer: u8) -> Claim {
        let subjects = subjects.iter().map(|subject| subject.parse().unwrap()).collect();
        Claim::new(subjects, Vec::new(), Writer::new([writer; 8]), Process::here(), 1_000)
    }

    #[test]
    fn of_two_that_claim_the_same_the_lower_hash_waits_and_the_other_goes() {
        let (mut a, mut b) = (claim(&["name:x"], 1), claim(&["name:y", "name:x"], 2));
        if a.hash() > b.hash() {
            std::mem::swap(&mut a, &mut b);
        }
        assert_eq!((a.judge([&b]), b.judge([&a])), (Verdict::Waits, Verdict::Lost));
        assert_eq!(a.judge([]), Verdict::Holds);
        assert_eq!(a.judge([&a]), Verdict::Holds, "nobody is his own rival");
    }

    #[test]
    fn claims_of_other_subjects_are_no_rivals() {
        let number = KeyNumber::new([1; 16]).to_string();
        let (a, b) = (claim(&["name:x"], 1), claim(&[&format!("key:{number}")], 2));
        assert_eq!((a.judge([&b]), b.judge([&a])), (Verdict::Holds, Verdict::Holds));
    }

    #[test]
    fn a_claim_ends_with_its_process_where_that_is_seen_and_else_by_its_time() {
        let (claim, here) = (claim(&["name:x"], 1), Process::here());
        assert!(!claim.is_over(&here, 1_000 + LEASE_S - 1, |_| true));
        assert!(claim.is_over(&here, 1_000 + LEASE_S, |_| true));
        assert!(claim.is_over(&here, 0, |_| false));
        let afar = Process { namespace: "elsewhere".to_owned(), ..here };
        assert!(!claim.is_over(&afar, 1_000 + LEASE_S - 1, |_| false));
        assert!(claim.is_over(&afar, 1_000 + LEASE_S, |_| true));
    }

    #[test]
    fn a_claim_is_read_back_as_it_was_written() {
        let claim = claim(&["name:a b", "name:c"], 3);
        let text = serde_json::to_string(&claim).unwrap();
        assert_eq!(Claim::read(&text), Some(claim));
        assert_eq!(Claim::read(&text.replace("\"format\":1", "\"format\":2")), None);
    }
}
