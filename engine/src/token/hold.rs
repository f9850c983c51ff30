//! ECB on a session: Init and one call, or one call of an operation that is held open.
//!
//! `C_EncryptInit` fetches the key, which takes modules far longer than a block does: 18.6 us against 0.4 us on
//! SoftHSM2 2.6.1. So when a session serves ECB under the same key twice running and nothing else waits, the second
//! operation stays open, and what follows are parts of it. ECB alone can be held so: its blocks depend on nothing that
//! went before, so a part is what a whole call would be.
//!
//! An open operation outlives the destruction of its key and a logout in some modules. So it is used for a second at
//! most, and not at all once a key has changed through this engine; idle sessions close theirs then.

use std::time::Duration;

use cryptoki_sys as sys;

use crate::clock::{Time, ns};
use crate::error::{Error, ErrorKind, Outcome, Retry};
use crate::pkcs11::{self, Direction, ObjectHandle, SessionFate};
use crate::sync::{Arc, AtomicBool, AtomicU64, CachePadded, Ordering};
use crate::token::session::{Failed, Session};
use crate::token::task::Call;

/// How long an operation is held open at most.
const HOLD: Duration = Duration::from_secs(1);

/// What sessions of a token share about the operations that they hold.
#[derive(Debug)]
pub(crate) struct Holds {
    /// Whether any operation is held open at all.
    on: AtomicBool,
    /// How often keys of the token may have changed: counted after every job of its service thread. What is held open is
    /// not used across a change, because some modules go on with a key that is destroyed, and numbers of objects come
    /// again.
    changes: CachePadded<AtomicU64>,
    /// Operations held open now.
    open: CachePadded<AtomicU64>,
}

/// What a session holds.
#[derive(Debug)]
pub(super) struct Hold {
    shared: Arc<Holds>,
    open: Option<Open>,
    /// What the session ran last, if that can be held.
    last: Option<Ecb>,
    /// The module keeps blocks back in an operation of several parts: nothing is held any more.
    off: bool,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    ecb: Ecb,
    since: Time,
    changes: u64,
}

/// ECB under one key, one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ecb {
    pub(super) direction: Direction,
    pub(super) mechanism: sys::CK_MECHANISM_TYPE,
    pub(super) key: ObjectHandle,
}

/// When a task runs, and whether its operation may be held open afterwards.
#[derive(Clone, Copy, Debug)]
pub(crate) struct When {
    pub(crate) at: Time,
    /// Nothing waits that another operation would serve.
    pub(crate) may_hold: bool,
}

impl Ecb {
    /// Of a call that encrypts or decrypts.
    pub(super) const fn of(call: &Call, mechanism: sys::CK_MECHANISM_TYPE, key: ObjectHandle) -> Self {
        let direction = match call {
            Call::Decrypt(_) => Direction::Decrypt,
            Call::Encrypt(_) | Call::Sign(_) | Call::Random => Direction::Encrypt,
        };
        Self { direction, mechanism, key }
    }
}

impl Holds {
    pub(crate) fn new(on: bool) -> Arc<Self> {
        let zero = || CachePadded::new(AtomicU64::new(0));
        Arc::new(Self { on: AtomicBool::new(on), changes: zero(), open: zero() })
    }

    /// Whether operations are held open.
    pub(crate) fn are_wanted(&self) -> bool {
        // Relaxed: a setting, which orders nothing.
        self.on.load(Ordering::Relaxed)
    }

    /// The module has shown that parts of an operation are not what whole calls are: no more is held.
    pub(crate) fn turn_off(&self) {
        self.on.store(false, Ordering::Relaxed);
    }

    /// A key changes: what is held now is not used any more.
    pub(crate) fn key_changes(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
    }

    /// Whether a session holds an operation open; a hint.
    pub(crate) fn any(&self) -> bool {
        self.open.load(Ordering::Relaxed) > 0
    }

    fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }
}

impl Hold {
    /// How often keys have changed.
    pub(super) fn changes(&self) -> u64 {
        self.shared.changes()
    }

    pub(super) fn new(shared: Arc<Holds>) -> Self {
        let off = !shared.are_wanted();
        Self { shared, open: None, last: None, off }
    }

    fn set(&mut self, ecb: Ecb, since: Time) {
        self.open = Some(Open { ecb, since, changes: self.shared.changes() });
        self.shared.open.fetch_add(1, Ordering::Relaxed);
    }

    fn clear(&mut self) -> Option<Open> {
        let open = self.open.take()?;
        self.shared.open.fetch_sub(1, Ordering::Relaxed);
        Some(open)
    }

    fn is_stale(&self, now: Time) -> bool {
        self.open
            .is_some_and(|open| now.ns_since(open.since) >= ns(HOLD) || open.changes != self.shared.changes())
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // The operation ends with its session.
        self.clear();
    }
}

/// How a part of an open operation went.
enum Part {
    Done(usize),
    /// The operation is not there, or cannot be used in parts; the request has not been answered.
    NotSo,
}

impl Session {
    /// Whether the session holds an operation that must not be used any more.
    pub(crate) fn holds_stale(&self, now: Time) -> bool {
        self.hold.is_stale(now)
    }

    /// Ends the operation that is held open, if there is one.
    pub(crate) fn let_go(&mut self) -> Result<(), Failed> {
        self.hold.last = None;
        let Some(open) = self.hold.clear() else { return Ok(()) };
        if self.is_over() {
            // It went with its session, whose number may be another's.
            return Ok(());
        }
        match self.raw.end_parts(open.ecb.direction) {
            Err(fault) if fault.class().session != SessionFate::Keep => {
                // What was to come after it has not run.
                let error = Error::new(ErrorKind::SessionLost, Retry::Now, Outcome::NotDone);
                Err(Failed { error, fate: Failed::from(fault).fate })
            }
            // An error ends the operation too (PKCS#11 2.40, `C_EncryptFinal`).
            _ => Ok(()),
        }
    }

    /// Enciphers or deciphers whole blocks; returns how many bytes were written.
    pub(super) fn ecb(
        &mut self,
        ecb: Ecb,
        input: &[u8],
        output: &mut [u8],
        when: When,
    ) -> Result<usize, Failed> {
        if self.hold.open.is_some_and(|open| open.ecb == ecb) && !self.hold.is_stale(when.at) {
            if let Part::Done(written) = self.part(ecb.direction, input, output)? {
                return Ok(written);
            }
        } else {
            let last = self.hold.last;
            self.let_go()?;
            self.hold.last = last;
        }
        let again = self.hold.last.replace(ecb) == Some(ecb);
        if again && when.may_hold && !self.hold.off && !input.is_empty() && self.hold.shared.are_wanted() {
            self.raw.begin_parts(ecb.direction, ecb.key, ecb.mechanism)?;
            self.hold.set(ecb, when.at);
            if let Part::Done(written) = self.part(ecb.direction, input, output)? {
                return Ok(written);
            }
        }
        let how = pkcs11::Mechanism::Plain(ecb.mechanism);
        Ok(match ecb.direction {
            Direction::Encrypt => self.raw.encrypt(ecb.key, &how, input, output)?,
            Direction::Decrypt => self.raw.decrypt(ecb.key, &how, input, output)?,
        })
    }

    /// Runs a part of the open operation.
    fn part(&mut self, direction: Direction, input: &[u8], output: &mut [u8]) -> Result<Part, Failed> {
        match self.raw.part(direction, input, output) {
            Ok(written) if written == input.len() => Ok(Part::Done(written)),
            Ok(_) => self.keeps_back(),
            Err(fault) if fault.is(sys::CKR_BUFFER_TOO_SMALL) => self.keeps_back(),
            Err(fault) => {
                self.hold.clear();
                // Lost in between, and so not run.
                if fault.is(sys::CKR_OPERATION_NOT_INITIALIZED) { Ok(Part::NotSo) } else { Err(fault.into()) }
            }
        }
    }

    /// The module keeps a block back in an operation of several parts, which therefore serves nobody. That did no harm:
    /// what came out is written anew.
    fn keeps_back(&mut self) -> Result<Part, Failed> {
        self.hold.off = true;
        self.let_go()?;
        Ok(Part::NotSo)
    }
}
