//! The bytes of the pool, and how many are fetched at once. Pure: no lock, no clock, no thread.

use zeroize::{Zeroize, Zeroizing};

/// Longest request that the pool serves, in bytes. Keys, IVs, nonces and tokens are no longer; what is longer gains
/// little from a call that it shares.
pub(crate) const PIECE_MAX: usize = 256;

/// Least and most bytes of one fetch. The least holds the longest piece. 8 KiB take SoftHSM2 some 20 us and make the
/// call's fixed part 1/256 of what it is for 32 bytes; more would only lie in memory longer.
pub(super) const FETCH_MIN: usize = PIECE_MAX;
pub(super) const FETCH_MAX: usize = 8 << 10;

/// The first fetch: a token of any speed gives so much in the time of a few calls.
const FETCH_FIRST: usize = 1 << 10;

/// A fetch that took no longer is cheap, however its time divides: a part of a turn.
const CHEAP_NS: u64 = 200_000;

/// Random bytes that nobody has had yet. They are taken off the end and wiped there, so that none is given out twice
/// and none stays; the memory is never moved, which would leave a copy behind.
pub(super) struct Store {
    bytes: Zeroizing<Box<[u8]>>,
    len: usize,
}

impl Store {
    /// Room for what a fetch may find there, and for the fetch.
    const CAPACITY: usize = 2 * FETCH_MAX;

    pub(super) fn new() -> Self {
        Self { bytes: Zeroizing::new(vec![0; Self::CAPACITY].into_boxed_slice()), len: 0 }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Fills `out` and forgets what it gave; false if there is too little, and then nothing is given.
    pub(super) fn take(&mut self, out: &mut [u8]) -> bool {
        let Some(left) = self.len.checked_sub(out.len()) else { return false };
        let piece = &mut self.bytes[left..self.len];
        out.copy_from_slice(piece);
        piece.zeroize();
        self.len = left;
        true
    }

    /// Adds what was fetched, as far as there is room.
    pub(super) fn put(&mut self, fetched: &[u8]) {
        let room = &mut self.bytes[self.len..];
        let len = fetched.len().min(room.len());
        room[..len].copy_from_slice(&fetched[..len]);
        self.len += len;
    }

    pub(super) fn wipe(&mut self) {
        self.bytes.zeroize();
        self.len = 0;
    }
}

/// How much a fetch asks for: as much as costs little more than less would. A network HSM takes the same time for 8 KiB
/// as for 256 bytes; a TPM draws 32 bytes at a time, and a large fetch would only make the first caller wait.
#[derive(Debug)]
pub(super) struct Portion {
    len: usize,
    /// The last fetch, and how long it took.
    last: Option<(usize, u64)>,
}

impl Portion {
    pub(super) const fn new() -> Self {
        Self { len: FETCH_FIRST, last: None }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// A fetch of `len` bytes took so long on the token.
    pub(super) fn learn(&mut self, len: usize, token_ns: u64) {
        let last = self.last.replace((len, token_ns));
        let grow = match last {
            _ if token_ns <= CHEAP_NS => true,
            Some((other, other_ns)) if other != len => {
                let (short, long) = if other < len { (other_ns, token_ns) } else { (token_ns, other_ns) };
                // Twice the bytes took less than half as long again: most of it is the call, not the bytes.
                long < short + short / 2
            }
            // Nothing to compare with: trying is how it learns.
            _ => true,
        };
        self.len = if grow { len.saturating_mul(2) } else { len / 2 };
        self.len = self.len.clamp(FETCH_MIN, FETCH_MAX);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The portion after some fetches of a token that takes `fixed_ns` and so much per byte.
    fn settled(fixed_ns: u64, byte_ns: u64) -> Vec<usize> {
        let mut portion = Portion::new();
        let mut fetch = || {
            let len = portion.len();
            portion.learn(len, fixed_ns + byte_ns * len as u64);
            len
        };
        (0..20).map(|_| fetch()).skip(10).collect()
    }

    #[test]
    fn a_token_that_charges_for_calls_is_asked_for_much_and_one_that_charges_for_bytes_for_little() {
        assert!(settled(1_000, 3).iter().all(|&len| len == FETCH_MAX), "a software token");
        assert!(settled(1_000_000, 3).iter().all(|&len| len == FETCH_MAX), "a network HSM");
        assert!(settled(3_000_000, 150_000).iter().all(|&len| len <= 2 * FETCH_MIN), "a TPM");
    }

    #[test]
    fn one_slow_fetch_does_not_make_portions_small_for_long() {
        let mut portion = Portion::new();
        for token_ns in [1_000_000, 50_000_000, 1_000_000, 1_000_000, 1_000_000, 1_000_000, 1_000_000] {
            portion.learn(portion.len(), token_ns);
        }
        assert_eq!(portion.len(), FETCH_MAX);
    }

    #[test]
    fn what_was_given_is_no_longer_in_memory() {
        let mut store = Store::new();
        store.put(&[7; 100]);
        assert!(store.take(&mut [0; 60]));
        let sevens = |store: &Store| store.bytes.iter().filter(|&&byte| byte == 7).count();
        assert_eq!((store.len(), sevens(&store)), (40, 40));
        store.wipe();
        assert_eq!((store.len(), sevens(&store)), (0, 0));
        assert!(!store.take(&mut [0; 1]));
    }

    proptest! {
        /// Against a plain list: whatever is put in comes out at most once, whole pieces, and never more than there is.
        #[test]
        fn each_byte_is_given_once(steps in proptest::collection::vec((any::<bool>(), 0..600_usize), 0..200)) {
            let (mut store, mut next, mut seen) = (Store::new(), 0_u64, std::collections::HashSet::new());
            for (put, len) in steps {
                if put {
                    // Numbers of 8 bytes, so that each is told from every other; some may find no room.
                    let fresh: Vec<u8> = (next..next + len as u64 / 8).flat_map(u64::to_le_bytes).collect();
                    next += len as u64 / 8;
                    store.put(&fresh);
                } else {
                    let mut out = vec![0xAA; len / 8 * 8];
                    let (before, enough) = (store.len(), store.len() >= out.len());
                    prop_assert_eq!(store.take(&mut out), enough);
                    prop_assert_eq!(store.len(), if enough { before - out.len() } else { before });
                    for number in out.chunks_exact(8).filter(|_| enough) {
                        let number = u64::from_le_bytes(number.try_into().unwrap());
                        prop_assert!(number < next && seen.insert(number), "{} twice", number);
                    }
                }
                prop_assert!(store.len() <= Store::CAPACITY);
            }
        }
    }
}
