//! What a session is to do for one request, as plain data.
//!
//! An operation builds a [`Call`] on the caller's side, the schedule carries it without looking inside, and
//! the session that takes it turns it into PKCS#11 calls.

use std::sync::{Arc, OnceLock};

use crate::audit::record::Text;
use crate::pkcs11::ObjectHandle;
use crate::sync::{AtomicBool, AtomicU64, CachePadded, Ordering};
use crate::token::current::Current;
use crate::token::facts::KeyFacts;
use crate::token::merge::Merge;
use crate::token::message_count::MessageCount;
use crate::token::object::SessionObject;

pub(crate) use crate::token::mechanism::{
    AES_BLOCK_LEN, DES_BLOCK_LEN, GCM_IV_LEN, GCM_TAG_LEN, Hash, Iv, Mechanism, Usage,
};

/// One cryptographic operation of a session: Init and one call.
///
/// Output layout is the C function's own, but for an encryption under an [`Iv::Drawn`]: there the IV comes first,
/// then what `C_Encrypt` writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Sign(Mechanism),
    Encrypt(Mechanism),
    Decrypt(Mechanism),
    /// Fill the output with random bytes (`C_GenerateRandom`); there is no key and no input.
    Random,
}

/// One of several requests that run as one: its call, and how many bytes of their input and output are its own.
#[derive(Clone)]
pub(crate) struct Part {
    pub(crate) call: Call,
    pub(crate) input: usize,
    pub(crate) output: usize,
}

/// How a session runs one request's call.
#[derive(Clone)]
pub(crate) struct Task {
    /// None for calls without a key.
    pub(crate) handles: Option<Arc<Handles>>,
    /// Bytes the output needs at most.
    pub(crate) output_len: usize,
    /// Index of the kind of plan, for its cost; as a part of a merged call it is one of the second half.
    pub(crate) plan: usize,
    /// How it can be merged with others, if it can.
    pub(crate) merge: Option<Merge>,
}

/// Where a key lives: its object on each token of the engine that holds it.
///
/// Object handles belong to one epoch of one token and die with it.
///
/// Padded: it lives in an `Arc` whose counts every submitter writes, and sessions only read what is in it.
#[derive(Debug)]
pub(crate) struct Handles(CachePadded<Places>);

/// Equal if they are the same ones.
impl PartialEq for Handles {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Handles {}

#[derive(Debug)]
struct Places {
    by_token: Box<[Option<Home>]>,
    /// What is known of the key, for those who check outputs.
    facts: OnceLock<KeyFacts>,
    /// What its objects are called, for the audit log. A session's key has no name.
    name: OnceLock<Text>,
    /// Its public half, as the token shows it, has verified a signature of its: it is not another key's.
    public_fits: AtomicBool,
    /// Of a managed key that encrypts by AES-GCM: how often it has.
    messages: OnceLock<Arc<MessageCount>>,
    /// Of a key that lives as long as its users: destroyed with the last of them, requests in flight included.
    _owned: Option<SessionObject>,
}

/// Where a key lives on one token.
#[derive(Debug)]
struct Home {
    /// Another one when the token comes back.
    current: Current,
    /// A session object that stands in for it; 0, which is no handle (`CK_INVALID_HANDLE`), for none.
    copy: AtomicU64,
    /// The copy was used since somebody looked.
    copy_used: AtomicBool,
}

/// A key's object on one token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Handle {
    pub(crate) epoch: u64,
    pub(crate) object: ObjectHandle,
}

impl Handle {
    /// Where the token has come back without the key.
    pub(crate) const ABSENT: Self = Self { epoch: u64::MAX, object: ObjectHandle::numbered(0) };

    pub(crate) const fn is_absent(self) -> bool {
        self.epoch == Self::ABSENT.epoch
    }

    /// Read while it was written.
    pub(crate) const fn is_torn(self) -> bool {
        self.epoch == NO_EPOCH
    }
}

/// Epochs begin at 1.
const NO_EPOCH: u64 = 0;

impl Handles {
    /// By index of the token.
    pub(crate) fn new(by_token: impl IntoIterator<Item = Option<Handle>>) -> Self {
        Self::owning(by_token, None)
    }

    /// As [`Handles::new`], of an object that goes with them.
    pub(crate) fn owning(
        by_token: impl IntoIterator<Item = Option<Handle>>,
        owned: Option<SessionObject>,
    ) -> Self {
        let home = |handle: Handle| Home {
            current: Current::new(handle.epoch, handle.object.number()),
            copy: AtomicU64::new(0),
            copy_used: AtomicBool::new(false),
        };
        let by_token = by_token.into_iter().map(|handle| handle.map(home)).collect();
        let (facts, name, messages) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
        let public_fits = AtomicBool::new(false);
        Self(CachePadded::new(Places { by_token, facts, name, public_fits, messages, _owned: owned }))
    }

    /// Has messages of AES-GCM counted that the key encrypts. Once.
    pub(crate) fn count_messages(&self, count: Arc<MessageCount>) {
        let _set = self.0.messages.set(count);
    }

    /// A message of AES-GCM is about to be encrypted.
    #[inline]
    pub(crate) fn count_message(&self) {
        if let Some(count) = self.0.messages.get() {
            count.count();
        }
    }

    /// Says what the key is called. Once.
    pub(crate) fn call(&self, name: Text) {
        let _set = self.0.name.set(name);
    }

    /// What the key is called, for the audit log only.
    pub(crate) fn name(&self) -> Option<Text> {
        self.0.name.get().cloned()
    }

    /// Says what is known of the key. Once.
    pub(crate) fn describe(&self, facts: KeyFacts) {
        let _set = self.0.facts.set(facts);
    }

    /// What is known of the key; none of one that no request is for.
    pub(crate) fn facts(&self) -> Option<&KeyFacts> {
        self.0.facts.get()
    }

    /// Whether the public half has verified a signature. Relaxed: who sees it late looks once more.
    pub(crate) fn public_fits(&self) -> bool {
        self.0.public_fits.load(Ordering::Relaxed)
    }

    /// The public half has verified a signature.
    pub(crate) fn note_public_fits(&self) {
        // A look first: the line is read by every session.
        if !self.public_fits() {
            self.0.public_fits.store(true, Ordering::Relaxed);
        }
    }

    /// The key itself.
    pub(crate) fn on(&self, token: usize) -> Option<Handle> {
        self.home(token).map(Home::handle).filter(|handle| !handle.is_absent() && !handle.is_torn())
    }

    /// What operations use: the copy, if there is one. Relaxed: a copy is there before its number, and one that has
    /// gone is noticed when it is used.
    pub(crate) fn used_on(&self, token: usize) -> Option<Handle> {
        let home = self.home(token)?;
        match home.copy.load(Ordering::Relaxed) {
            0 => Some(home.handle()),
            copy => {
                // A look first: the line is written once between two looks of who asks.
                if !home.copy_used.load(Ordering::Relaxed) {
                    home.copy_used.store(true, Ordering::Relaxed);
                }
                Some(Handle { object: ObjectHandle::numbered(copy), ..home.handle() })
            }
        }
    }

    /// The token has come back, with the key or without it. Only by the token's service thread.
    pub(crate) fn came_back(&self, token: usize, handle: Option<Handle>) {
        if let Some(home) = self.home(token) {
            // First: of the epoch before, and never used with the handle of the new one.
            home.copy.store(0, Ordering::Relaxed);
            let handle = handle.unwrap_or(Handle::ABSENT);
            home.current.set(handle.epoch, handle.object.number());
        }
    }

    pub(crate) fn has_copy(&self, token: usize) -> bool {
        self.home(token).is_some_and(|home| home.copy.load(Ordering::Relaxed) != 0)
    }

    /// Sets or takes away the copy. True if there was one before.
    pub(crate) fn set_copy(&self, token: usize, copy: Option<ObjectHandle>) -> bool {
        let number = copy.map_or(0, ObjectHandle::number);
        self.home(token).is_some_and(|home| home.copy.swap(number, Ordering::Relaxed) != 0)
    }

    /// Whether the copy was used since this was asked last.
    pub(crate) fn was_copy_used(&self, token: usize) -> bool {
        self.home(token).is_some_and(|home| home.copy_used.swap(false, Ordering::Relaxed))
    }

    fn home(&self, token: usize) -> Option<&Home> {
        self.0.by_token.get(token)?.as_ref()
    }
}

impl Home {
    /// Of no epoch while it is written.
    #[inline]
    fn handle(&self) -> Handle {
        let (epoch, object) = self.current.get().unwrap_or((NO_EPOCH, 0));
        Handle { epoch, object: ObjectHandle::numbered(object) }
    }
}
