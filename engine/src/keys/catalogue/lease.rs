//! How many messages of AES-GCM each writer may encrypt under a key: leased in blocks, and written down before they are used.
//!
//! SP 800-38D, 8.3, allows 2^32 messages under one key with random IVs. Every engine writes a lease of its own, which nobody
//! else changes, so no claim is needed; what all of them sum up to is what the key may have encrypted. A process that ends leaves
//! the rest of its last block unused: the count errs on the safe side and never goes back.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::process::Process;
use super::record::{FORMAT, Writer};
use crate::keys::key_id::KeyNumber;

/// Messages that one writer may have encrypted under one version of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Lease {
    pub(crate) format: u32,
    pub(crate) lease: KeyNumber,
    pub(crate) version: u32,
    pub(crate) writer: Writer,
    pub(crate) process: Process,
    pub(crate) messages: u64,
}

/// The limits of one engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    /// Most messages under one version, of all writers.
    pub(crate) max: u64,
}

/// What follows for a writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// It has enough.
    Enough,
    /// It is to write that it may encrypt so many, all in all. `last`: there will be no more.
    Lease { messages: u64, last: bool },
    /// There are no more.
    Exhausted,
}

/// SP 800-38D, 8.3.
pub(crate) const MESSAGES_MAX: u64 = 1 << 32;

/// A block: at a million messages a second it lasts a second, and a lease takes a call or two.
const BLOCK: u64 = 1 << 20;

/// Requests that may be in flight when nothing is left: more than the engine's default limit.
const MARGIN: u64 = 1 << 17;

impl Terms {
    /// A block, and no more than a sixteenth of all there is.
    pub(crate) fn block(self) -> u64 {
        BLOCK.min(self.max / 16).max(1)
    }

    pub(crate) fn margin(self) -> u64 {
        MARGIN.min(self.max / 32)
    }

    /// Whether the key has encrypted half of what it may.
    pub(crate) const fn warns(self, all: u64) -> bool {
        all >= self.max / 2
    }

    /// Whether a writer may have so many, while the others have leased so many.
    pub(crate) const fn allows(self, messages: u64, others: u64) -> bool {
        messages.saturating_add(others) <= self.max
    }

    /// What a writer does that has used so many of what it has leased, while the others have leased so many.
    pub(crate) fn next(self, used: u64, leased: u64, others: u64) -> Next {
        if leased > used.saturating_add(self.block() / 2 + self.margin()) {
            return Next::Enough;
        }
        let room = self.max.saturating_sub(others);
        let wanted = used.max(leased).saturating_add(self.block());
        match wanted.min(room) {
            messages if messages <= leased => Next::Exhausted,
            messages => Next::Lease { messages, last: messages == room },
        }
    }
}

impl Lease {
    pub(crate) const fn new(
        lease: KeyNumber,
        version: u32,
        writer: Writer,
        process: Process,
        messages: u64,
    ) -> Self {
        Self { format: FORMAT, lease, version, writer, process, messages }
    }

    /// Reads what was written. None if it is no lease of this format.
    pub(crate) fn read(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok().filter(|lease: &Self| lease.format == FORMAT)
    }
}

/// What writers have leased of a version, but for one of them: of each the most that is written anywhere.
pub(crate) fn leased<'a>(
    leases: impl IntoIterator<Item = &'a Arc<Lease>>,
    key: KeyNumber,
    version: u32,
    but: Option<Writer>,
) -> u64 {
    let mut by_writer: HashMap<Writer, u64> = HashMap::new();
    for lease in leases {
        if lease.lease == key && lease.version == version && Some(lease.writer) != but {
            let most = by_writer.entry(lease.writer).or_default();
            *most = lease.messages.max(*most);
        }
    }
    by_writer.values().fold(0, |sum, messages| sum.saturating_add(*messages))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERMS: Terms = Terms { max: MESSAGES_MAX };

    #[test]
    fn a_writer_leases_block_after_block_before_it_runs_out() {
        let Next::Lease { messages, last: false } = TERMS.next(0, 0, 0) else { panic!("it has nothing") };
        assert_eq!(messages, BLOCK);
        assert_eq!(TERMS.next(0, BLOCK, 0), Next::Enough);
        let half = BLOCK / 2;
        assert_eq!(TERMS.next(half, BLOCK, 0), Next::Lease { messages: 2 * BLOCK, last: false });
        assert_eq!(TERMS.next(BLOCK + 7, BLOCK, 0), Next::Lease { messages: 2 * BLOCK + 7, last: false });
    }

    #[test]
    fn all_writers_together_never_lease_more_than_a_key_may_encrypt() {
        let near = MESSAGES_MAX - 5;
        assert_eq!(TERMS.next(0, 0, near), Next::Lease { messages: 5, last: true });
        assert_eq!(TERMS.next(5, 5, near), Next::Exhausted);
        // Two that look at the same time, before either has written.
        assert!(TERMS.allows(5, near) && !TERMS.allows(5, near + 5));
        assert_eq!(TERMS.next(0, 0, MESSAGES_MAX), Next::Exhausted);
        assert_eq!(TERMS.next(0, 0, u64::MAX), Next::Exhausted);
        assert!(TERMS.warns(1 << 31) && !TERMS.warns((1 << 31) - 1));
    }

    #[test]
    fn of_each_writer_the_most_counts_wherever_it_is_written() {
        let key = KeyNumber::new([1; 16]);
        let lease = |writer: u8, version, messages| {
            Arc::new(Lease::new(key, version, Writer::new([writer; 8]), Process::here(), messages))
        };
        let all = [lease(1, 1, 10), lease(1, 1, 30), lease(2, 1, 5), lease(3, 2, 100)];
        assert_eq!(leased(&all, key, 1, None), 35);
        assert_eq!(leased(&all, key, 1, Some(Writer::new([1; 8]))), 5);
        assert_eq!(leased(&all, KeyNumber::new([2; 16]), 1, None), 0);
    }

    #[test]
    fn a_lease_is_read_back_as_it_was_written_and_is_no_record_and_no_claim() {
        let lease = Lease::new(KeyNumber::new([1; 16]), 1, Writer::new([2; 8]), Process::here(), 7);
        let text = serde_json::to_string(&lease).unwrap();
        assert_eq!(Lease::read(&text), Some(lease));
        assert!(super::super::record::Entry::read(&text).is_none());
        assert!(super::super::claim::Claim::read(&text).is_none());
    }
}
