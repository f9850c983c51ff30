//! Warm copies: session objects that stand in for token keys, which some modules fetch anew for every operation.
//!
//! SoftHSM2 2.6.1 reads a token key's file and deciphers its attributes at each Init: 17 system calls, 14 of 18 us of a
//! symmetric operation. A session object stays in memory. A copy is as sensitive and as little extractable as its
//! original, or it is not used; keys that may not be copied or destroyed have none. It belongs to the token's service
//! session, and every session of the process can use it.
//!
//! A copy must not outlive its original: once a second all originals are looked at, and what has gone or changed loses
//! its copy. So another process's changes hold after a second at most, and the engine's own at once.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use cryptoki::object::{Attribute, AttributeType as A};

use crate::error::Result;
use crate::pkcs11::{ObjectHandle, Session};
use crate::sync::{AtomicBool, Mutex, Ordering};
use crate::token::facts::KeyKind;
use crate::token::task::Handles;

/// Most copies of one token. Looking at an original takes 40 us on SoftHSM2, so that all of them take a hundredth of
/// the time at most.
const COPIES_MAX: usize = 256;

/// `CKA_LABEL` of session objects of the engine's own: a listing leaves them out.
pub(crate) const SESSION_LABEL: &[u8] = b"hsmux session key";

/// What must not change in an original, and must be as strict in its copy.
const WATCHED: [A; 17] = [
    A::Private,
    A::Sensitive,
    A::Extractable,
    A::AlwaysSensitive,
    A::NeverExtractable,
    A::Token,
    A::Copyable,
    A::Destroyable,
    A::Id,
    A::Sign,
    A::Verify,
    A::Encrypt,
    A::Decrypt,
    A::Wrap,
    A::Unwrap,
    A::Derive,
    A::AllowedMechanisms,
];

/// How many of them, at the front, say how well the key is guarded.
const GUARDS: usize = 5;

type Marks = Vec<Option<Vec<u8>>>;

/// The copies of one token. Made, looked at and destroyed on its service thread.
#[derive(Default)]
pub(crate) struct Copies {
    list: Mutex<Vec<Copied>>,
    /// Whether copies of such keys were measured to be faster.
    gains: Mutex<HashMap<KeyKind, bool>>,
    /// A look at the originals is on its way.
    sweeping: AtomicBool,
}

struct Copied {
    handles: Weak<Handles>,
    original: ObjectHandle,
    copy: ObjectHandle,
    marks: Marks,
    /// Looks since it was used last.
    unused: u32,
}

impl Copies {
    /// None yet, with what is known of kinds of keys already.
    pub(crate) fn measured(gains: &[(KeyKind, bool)]) -> Self {
        Self { gains: Mutex::new(gains.iter().copied().collect()), ..Self::default() }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.list.lock().len()
    }

    /// What was measured for such keys.
    pub(crate) fn gain(&self, kind: KeyKind) -> Option<bool> {
        self.gains.lock().get(&kind).copied()
    }

    pub(crate) fn remember_gain(&self, kind: KeyKind, gain: bool) {
        self.gains.lock().insert(kind, gain);
    }

    /// Copies a key into the session; `None` if it may not be copied or would be guarded less well.
    pub(crate) fn make(session: &mut Session, original: ObjectHandle) -> Result<Option<NewCopy>> {
        let marks = session.attributes(original, &WATCHED)?;
        // PKCS#11 2.40, table 26: CKA_COPYABLE and CKA_DESTROYABLE are true where a token does not have them.
        let forbids = |of: A| mark(&marks, of).is_some_and(|value| value == [0]);
        if forbids(A::Token) || forbids(A::Copyable) || forbids(A::Destroyable) {
            return Ok(None);
        }
        let template = [Attribute::Token(false), Attribute::Label(SESSION_LABEL.to_vec())];
        let copy = session.copy(original, &template)?;
        let as_strict = session.attributes(copy, &WATCHED[..GUARDS])? == marks[..GUARDS];
        if !as_strict {
            session.destroy(copy)?;
            return Ok(None);
        }
        Ok(Some(NewCopy { original, copy, marks }))
    }

    /// Has a copy used from now on by whoever uses these handles on this token.
    pub(crate) fn put(&self, session: &mut Session, token: usize, handles: &Arc<Handles>, new: NewCopy) {
        let mut list = self.list.lock();
        if list.len() >= COPIES_MAX
            && let Some(oldest) = (0..list.len()).max_by_key(|&index| list[index].unused)
        {
            list.swap_remove(oldest).give_up(session, token);
        }
        handles.set_copy(token, Some(new.copy));
        let NewCopy { original, copy, marks } = new;
        list.push(Copied { handles: Arc::downgrade(handles), original, copy, marks, unused: 0 });
    }

    /// Destroys the copies of an original that is about to change.
    pub(crate) fn drop_of(&self, session: &mut Session, token: usize, original: ObjectHandle) {
        let mut list = self.list.lock();
        while let Some(index) = list.iter().position(|copied| copied.original == original) {
            list.swap_remove(index).give_up(session, token);
        }
    }

    /// The token was lost, and its copies with it.
    pub(crate) fn forget(&self) {
        self.list.lock().clear();
        self.sweeping.store(false, Ordering::Relaxed);
    }

    /// Whether a look at the originals is due; it is then on its way until [`Copies::sweep`] is done.
    pub(crate) fn begin_sweep(&self) -> bool {
        self.len() > 0 && !self.sweeping.swap(true, Ordering::Relaxed)
    }

    /// Looks at all originals. Returns whether one had changed.
    pub(crate) fn sweep(&self, session: &mut Session, token: usize) -> bool {
        let mut list = self.list.lock();
        let before = list.len();
        list.retain_mut(|copied| copied.is_current(session, token));
        self.sweeping.store(false, Ordering::Relaxed);
        list.len() < before
    }
}

/// A copy that nobody uses yet.
pub(crate) struct NewCopy {
    original: ObjectHandle,
    pub(crate) copy: ObjectHandle,
    marks: Marks,
}

impl Copied {
    /// Looks at the original; false if the copy is given up.
    fn is_current(&mut self, session: &mut Session, token: usize) -> bool {
        let current = self.handles.upgrade().is_some_and(|handles| {
            self.unused = if handles.was_copy_used(token) { 0 } else { self.unused.saturating_add(1) };
            handles.has_copy(token)
                && session.attributes(self.original, &WATCHED).is_ok_and(|now| now == self.marks)
        });
        if !current {
            self.give_up(session, token);
        }
        current
    }

    /// Has the original used again and destroys the copy. Requests that are about to use it find it gone and fall back.
    fn give_up(&self, session: &mut Session, token: usize) {
        if let Some(handles) = self.handles.upgrade() {
            handles.set_copy(token, None);
        }
        // It goes with the session in any case.
        let _destroyed = session.destroy(self.copy);
    }
}

fn mark(marks: &Marks, of: A) -> Option<&[u8]> {
    WATCHED.iter().position(|&watched| watched == of).and_then(|index| marks.get(index)?.as_deref())
}
