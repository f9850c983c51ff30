//! What operations are given: messages that differ, and ciphertexts to decrypt.

use std::fmt;
use std::sync::Arc;

use rsa::pkcs8::DecodePublicKey;
use sha1::Sha1;

use crate::case::{Case, Op};

/// What the operations of a case are given, for all callers of a run and both sides of a comparison.
#[derive(Clone)]
pub struct Inputs {
    case: Case,
    /// Messages and their ciphertexts, where a token decrypts what only software with the public key can make.
    sealed: Arc<[(Vec<u8>, Vec<u8>)]>,
}

/// An input that differs from every other of its run; those with a public key, from the last few.
#[derive(Clone, Debug)]
pub struct Message {
    inputs: Inputs,
    scratch: Scratch,
}

/// Where one caller of a mix makes its inputs: of any case, so that it needs memory for the largest only.
#[derive(Clone, Debug)]
pub(crate) struct Scratch {
    bytes: Vec<u8>,
    counter: u64,
}

/// What messages are filled with after their counter.
const FILLING: u8 = 0x5a;

/// Callers count in steps of this, each from its own start, so that no two messages of a run are equal.
const CALLERS_MAX: u64 = 1 << 20;

/// Ciphertexts that are made before a run: enough that no cache of a module holds the last one, and a moment's work.
const SEALED: usize = 64;

impl Inputs {
    /// Messages of the case's size.
    #[must_use]
    pub fn new(case: Case) -> Self {
        Self { case, sealed: [].into() }
    }

    /// As [`Inputs::new`], with ciphertexts under this public key, a SubjectPublicKeyInfo in DER, where the case
    /// needs them. Under a key of another kind there are none, and the first operation will fail for that.
    #[must_use]
    pub fn under(case: Case, public_key: &[u8]) -> Self {
        let mut message = Self::new(case).plain(0);
        let key = rsa::PublicKey::from_public_key_der(public_key).ok();
        let key = key.filter(|_| case.op == Op::Rsa2048Oaep);
        let seal = |key: &rsa::PublicKey| {
            let message = message.advance().to_vec();
            key.oaep_encrypt::<Sha1>(&message).ok().map(|sealed| (message, sealed))
        };
        let sealed = std::iter::repeat_n(key.as_ref(), SEALED).flatten().filter_map(seal).collect();
        Self { case, sealed }
    }

    /// What is done.
    #[must_use]
    pub const fn case(&self) -> Case {
        self.case
    }

    /// Whether these are ciphertexts that were made before the run.
    pub(crate) fn is_sealed(&self) -> bool {
        !self.sealed.is_empty()
    }

    /// The message behind a ciphertext that was made here.
    #[must_use]
    pub fn message_of(&self, sealed: &[u8]) -> Option<&[u8]> {
        self.sealed.iter().find(|(_, known)| known == sealed).map(|(message, _)| message.as_slice())
    }

    /// The first input of a caller.
    #[must_use]
    pub fn message(&self, caller: usize) -> Message {
        Message { inputs: self.clone(), scratch: Scratch::new(caller, self.case.input_len()) }
    }

    fn plain(&self, caller: usize) -> Message {
        Message { inputs: self.clone(), scratch: Scratch::new(caller, self.case.size) }
    }
}

impl Message {
    /// Turns this into the caller's next input. Shorter ones than 8 bytes come again after 256 to the power
    /// of their length, and ciphertexts made before the run after as many as there are.
    pub fn advance(&mut self) -> &[u8] {
        self.scratch.advance(&self.inputs)
    }
}

impl Scratch {
    /// Of a caller, with messages of this length at first.
    pub(crate) fn new(caller: usize, len: usize) -> Self {
        Self { bytes: vec![FILLING; len], counter: caller as u64 }
    }

    /// The next input of a case, of so many bytes where they are not those of a ciphertext.
    pub(crate) fn input<'a>(&'a mut self, inputs: &'a Inputs, len: usize) -> &'a [u8] {
        self.bytes.resize(len, FILLING);
        self.advance(inputs)
    }

    fn advance<'a>(&'a mut self, inputs: &'a Inputs) -> &'a [u8] {
        self.counter = self.counter.wrapping_add(CALLERS_MAX);
        let counter = self.counter.rotate_right(CALLERS_MAX.trailing_zeros());
        if let Some(last) = inputs.sealed.len().checked_sub(1) {
            // Callers begin at different ones; there are 2 to a power.
            let turn = usize::try_from(counter.wrapping_add(self.counter) & last as u64).unwrap_or(0);
            return &inputs.sealed[turn].1;
        }
        let counter = counter.to_le_bytes();
        let len = counter.len().min(self.bytes.len());
        self.bytes[..len].copy_from_slice(&counter[..len]);
        &self.bytes
    }
}

impl fmt::Debug for Inputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inputs").field("case", &self.case).field("sealed", &self.sealed.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_two_messages_of_a_run_are_equal() {
        let inputs = Inputs::new(Case { op: Op::HmacSha256, size: 64 });
        let mut seen = HashSet::new();
        for caller in 0..20 {
            let mut message = inputs.message(caller);
            (0..50).for_each(|_| assert!(seen.insert(message.advance().to_vec())));
        }
    }

    #[test]
    fn messages_shorter_than_the_counter_still_change() {
        let mut message = Inputs::new(Case { op: Op::HmacSha256, size: 1 }).message(0);
        let seen: HashSet<_> = (0..256).map(|_| message.advance().to_vec()).collect();
        assert_eq!(seen.len(), 256);
    }
}
