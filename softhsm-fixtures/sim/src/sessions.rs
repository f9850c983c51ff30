//! The table of sessions: a fixed array, so that a handle is found without a lock.
//!
//! Each session has cache lines of its own, with its counters on them; counters are summed when read. The slots
//! are never freed: a thread that hangs in a closed session still finds its memory.

mod calls;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crossbeam_utils::CachePadded;
use cryptoki_sys as sys;
use parking_lot::Mutex;

use crate::config::TOKENS_MAX;
use crate::function::Function;
use crate::rng::Random;
use crate::rule::Names;
use crate::work::Work;
use calls::Calls;

/// Most open sessions, of all tokens together. The table is zero pages until it is used.
pub(crate) const SESSIONS_MAX: usize = 4_096;

/// A place for a session.
pub(crate) struct Slot {
    /// The handle of the session that is open here; 0 if none.
    handle: AtomicU64,
    /// Of all sessions that were ever opened, the how many-th is open here; 0 if none. Handles may come again, this
    /// does not.
    generation: AtomicU64,
    /// A mark of the thread that is inside; 0 if none.
    inside: AtomicUsize,
    /// The null mode's active operation.
    pub(crate) null_op: AtomicU64,
    pub(crate) random: Random,
    token: AtomicUsize,
    flags: AtomicU64,
    /// The session of the module that calls are forwarded to.
    forwarded: AtomicU64,
    /// The plain mode's active operation and search.
    pub(crate) work: Mutex<Option<Box<Work>>>,
    /// What the key is called with which the active operation runs, as far as anybody wants to know.
    pub(crate) names: Mutex<Option<Arc<Names>>>,
    calls: Calls,
}

/// A thread inside a session, until it is dropped.
pub(crate) struct Entered {
    pub(crate) slot: &'static Slot,
    mark: usize,
    /// Whether another thread may have come in without noticing this one.
    cheap: bool,
}

/// Who is open. Held while sessions come and go, never across a call.
struct Table {
    free: Vec<usize>,
    /// Slots below this have been used.
    used: usize,
    generation: u64,
    open: [u64; TOKENS_MAX],
    open_rw: [u64; TOKENS_MAX],
}

static SLOTS: [CachePadded<Slot>; SESSIONS_MAX] = [const { CachePadded::new(Slot::new()) }; SESSIONS_MAX];

static TABLE: Mutex<Table> = Mutex::new(Table {
    free: Vec::new(),
    used: 0,
    generation: 0,
    open: [0; TOKENS_MAX],
    open_rw: [0; TOKENS_MAX],
});

/// Calls on tokens by sessions that are closed, and calls that name a slot.
static OF_TOKENS: [Calls; TOKENS_MAX] = [const { Calls::new() }; TOKENS_MAX];

/// Calls that belong to no token.
static LOOSE: Calls = Calls::new();

/// How often a thread entered a session that another one was in.
static OVERLAPS: AtomicU64 = AtomicU64::new(0);

/// Bits of a handle that say which slot; the rest is the generation, so that no number comes twice, or 0 where numbers
/// are to come again.
const INDEX_BITS: u32 = 16;

/// Opens a session; `limit` is the token's, 0 if it has none. With `reuse` its handle is the lowest number that is
/// free, otherwise one that never was.
pub(crate) fn open(
    token: usize,
    flags: sys::CK_FLAGS,
    limit: u64,
    seed: u64,
    forwarded: u64,
    reuse: bool,
) -> Result<u64, sys::CK_RV> {
    let mut table = TABLE.lock();
    if limit > 0 && table.open[token] >= limit {
        return Err(sys::CKR_SESSION_COUNT);
    }
    let index = table.place(reuse).ok_or(sys::CKR_SESSION_COUNT)?;
    table.used = table.used.max(index + 1);
    table.generation += 1;
    table.open[token] += 1;
    table.open_rw[token] += u64::from(flags & sys::CKF_RW_SESSION != 0);
    let unique = (table.generation << INDEX_BITS) | (index as u64 + 1);
    let handle = if reuse { index as u64 + 1 } else { unique };
    let slot = &SLOTS[index];
    *slot.work.lock() = Some(Box::default());
    slot.null_op.store(0, Ordering::Relaxed);
    // Never from the handle alone: a session with a number that comes again has random bytes of its own.
    slot.random.seed(seed, unique);
    *slot.names.lock() = None;
    slot.generation.store(table.generation, Ordering::Relaxed);
    slot.token.store(token, Ordering::Relaxed);
    slot.flags.store(flags, Ordering::Relaxed);
    slot.forwarded.store(forwarded, Ordering::Relaxed);
    // Release: pairs with the Acquire in `find`; who sees the handle sees the session it names.
    slot.handle.store(handle, Ordering::Release);
    Ok(handle)
}

/// Closes a session, by a call inside it; returns its token and how many sessions that has left.
pub(crate) fn close(handle: u64) -> Result<(usize, u64), sys::CK_RV> {
    let mut table = TABLE.lock();
    let slot = find(handle).ok_or(sys::CKR_SESSION_HANDLE_INVALID)?;
    // The call leaves it here: the next session in this slot may be entered before the call returns.
    slot.inside.store(0, Ordering::Relaxed);
    Ok(table.close(slot, true))
}

/// A session that was closed.
pub(crate) struct Closed {
    pub(crate) generation: u64,
    pub(crate) token: usize,
    pub(crate) forwarded: u64,
}

/// Closes the sessions of one token, or of all.
pub(crate) fn close_all(token: Option<usize>) -> Vec<Closed> {
    let mut table = TABLE.lock();
    let slots = SLOTS.iter().take(table.used).map(|slot| &**slot);
    let mine = |slot: &&Slot| slot.handle() != 0 && token.is_none_or(|token| slot.token() == token);
    let closing = |slot: &'static Slot| {
        // A slot in which a thread hangs is not given out again.
        let empty = slot.inside.load(Ordering::Relaxed) == 0;
        let (generation, forwarded) = (slot.generation(), slot.forwarded());
        Closed { generation, token: table.close(slot, empty).0, forwarded }
    };
    slots.filter(mine).map(closing).collect()
}

/// How many sessions a token has, and how many of them are read/write.
pub(crate) fn open_of(token: usize) -> (u64, u64) {
    let table = TABLE.lock();
    (table.open[token], table.open_rw[token])
}

/// The session behind a handle.
#[inline]
pub(crate) fn find(handle: u64) -> Option<&'static Slot> {
    let slot = SLOTS.get(index_of(handle)?)?;
    // Acquire: pairs with the Release in `open`.
    (slot.handle.load(Ordering::Acquire) == handle).then_some(slot)
}

/// Counts a call that names a token, but no session.
pub(crate) fn count_on(token: usize, function: Function) {
    OF_TOKENS[token].count_shared(function, 1);
}

/// Counts a call that names neither token nor session.
pub(crate) fn count_loose(function: Function) {
    LOOSE.count_shared(function, 1);
}

/// Calls of a function so far, on one token or on all.
pub(crate) fn calls(function: Function, token: Option<usize>) -> u64 {
    let table = TABLE.lock();
    let open = SLOTS.iter().take(table.used).filter(|slot| slot.handle() != 0);
    match token {
        Some(token) => {
            let open = open.filter(|slot| slot.token() == token).map(|slot| slot.calls.of(function));
            open.sum::<u64>() + OF_TOKENS[token].of(function)
        }
        None => {
            let closed = OF_TOKENS.iter().map(|calls| calls.of(function)).sum::<u64>();
            open.map(|slot| slot.calls.of(function)).sum::<u64>() + closed + LOOSE.of(function)
        }
    }
}

/// How often two threads were inside one session at once.
pub(crate) fn overlaps() -> u64 {
    OVERLAPS.load(Ordering::Relaxed)
}

/// How many calls are in sessions now, those that have been closed meanwhile included.
pub(crate) fn inside() -> u64 {
    let table = TABLE.lock();
    let slots = SLOTS.iter().take(table.used);
    slots.filter(|slot| slot.inside.load(Ordering::Relaxed) != 0).count() as u64
}

/// Sets every counter to zero. Calls that run meanwhile may be lost or kept.
pub(crate) fn reset_counters() {
    let table = TABLE.lock();
    SLOTS.iter().take(table.used).for_each(|slot| slot.calls.reset());
    OF_TOKENS.iter().chain([&LOOSE]).for_each(Calls::reset);
    OVERLAPS.store(0, Ordering::Relaxed);
}

impl Table {
    /// A place for a session: the lowest that is free, or the last that became so.
    fn place(&mut self, lowest: bool) -> Option<usize> {
        if lowest && let Some((at, _)) = self.free.iter().enumerate().min_by_key(|(_, index)| **index) {
            return Some(self.free.swap_remove(at));
        }
        self.free.pop().or_else(|| (self.used < SESSIONS_MAX).then_some(self.used))
    }

    fn close(&mut self, slot: &'static Slot, reuse: bool) -> (usize, u64) {
        let (handle, token) = (slot.handle(), slot.token());
        slot.handle.store(0, Ordering::Relaxed);
        slot.generation.store(0, Ordering::Relaxed);
        *slot.work.lock() = None;
        for function in Function::ALL {
            OF_TOKENS[token].count_shared(function, slot.calls.of(function));
        }
        slot.calls.reset();
        self.open[token] -= 1;
        self.open_rw[token] -= u64::from(slot.flags() & sys::CKF_RW_SESSION != 0);
        if reuse {
            self.free.extend(index_of(handle));
        }
        (token, self.open[token])
    }
}

impl Slot {
    const fn new() -> Self {
        Self {
            handle: AtomicU64::new(0),
            generation: AtomicU64::new(0),
            inside: AtomicUsize::new(0),
            null_op: AtomicU64::new(0),
            random: Random::new(),
            token: AtomicUsize::new(0),
            flags: AtomicU64::new(0),
            forwarded: AtomicU64::new(0),
            work: Mutex::new(None),
            names: Mutex::new(None),
            calls: Calls::new(),
        }
    }

    /// Goes in, and notes whether another thread is there already.
    pub(crate) fn enter(&'static self, function: Function) -> Entered {
        self.calls.count(function);
        let mark = mark();
        // Relaxed: it is counted only.
        if self.inside.swap(mark, Ordering::Relaxed) != 0 {
            OVERLAPS.fetch_add(1, Ordering::Relaxed);
        }
        Entered { slot: self, mark, cheap: false }
    }

    /// As [`Slot::enter`] with plain loads and stores, for calls of a few nanoseconds. Two threads that come in
    /// within those may miss each other; one that finds its mark gone when it leaves has been overlapped too.
    #[inline]
    pub(crate) fn enter_cheaply(&'static self, function: Function) -> Entered {
        self.calls.count(function);
        let mark = mark();
        if self.inside.load(Ordering::Relaxed) != 0 {
            OVERLAPS.fetch_add(1, Ordering::Relaxed);
        }
        self.inside.store(mark, Ordering::Relaxed);
        Entered { slot: self, mark, cheap: true }
    }

    #[inline]
    pub(crate) fn token(&self) -> usize {
        self.token.load(Ordering::Relaxed)
    }

    pub(crate) fn handle(&self) -> u64 {
        self.handle.load(Ordering::Relaxed)
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    pub(crate) fn flags(&self) -> sys::CK_FLAGS {
        self.flags.load(Ordering::Relaxed)
    }

    pub(crate) fn forwarded(&self) -> u64 {
        self.forwarded.load(Ordering::Relaxed)
    }
}

impl Drop for Entered {
    #[inline]
    fn drop(&mut self) {
        if self.slot.inside.load(Ordering::Relaxed) == self.mark {
            self.slot.inside.store(0, Ordering::Relaxed);
        } else if self.cheap {
            OVERLAPS.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[inline]
fn index_of(handle: u64) -> Option<usize> {
    usize::try_from(handle & ((1 << INDEX_BITS) - 1)).ok()?.checked_sub(1)
}

/// A number that no other thread has at the same time: an address on this thread's stack.
#[inline]
fn mark() -> usize {
    let here = 0_u8;
    std::ptr::from_ref(&here).addr()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two callers of a null simulator would otherwise measure each other: five times the cost of one, seen once.
    #[test]
    fn no_two_sessions_share_a_cache_line() {
        const LINE: usize = 64;
        let starts: Vec<_> = SLOTS.iter().take(3).map(|slot| std::ptr::from_ref(slot).addr()).collect();
        assert!(starts.iter().all(|start| start.is_multiple_of(LINE)));
        assert!(starts.windows(2).all(|pair| pair[1] - pair[0] >= size_of::<Slot>().next_multiple_of(LINE)));
    }
}
