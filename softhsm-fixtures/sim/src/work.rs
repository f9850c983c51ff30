//! What a session of the plain mode is doing: one cryptographic operation and one search.

use std::sync::Arc;

use cryptoki_sys as sys;

use crate::config::Wrong;
use crate::crypto;
use crate::key::Key;
use crate::mechanism::Mechanism;
use crate::object::Object;
use crate::rng::Random;

/// The state of a session between calls.
#[derive(Debug, Default)]
pub(crate) struct Work {
    pub(crate) active: Option<Active>,
    /// Messages that may come.
    pub(crate) message: Option<Message>,
    /// Handles that a search has not yet given out.
    pub(crate) search: Option<std::vec::IntoIter<u64>>,
}

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Sign,
    Verify,
    Encrypt,
    Decrypt,
}

/// A process of messages between its Init and its Final.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) kind: Kind,
    pub(crate) object: Arc<Object>,
}

/// An operation between its Init and its call.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) kind: Kind,
    pub(crate) object: Arc<Object>,
    key: Key,
    how: Mechanism,
    /// What the device does wrongly.
    wrong: Vec<Wrong>,
    /// Of an operation in parts, what was taken and has not come out yet.
    held_back: Vec<u8>,
}

impl Kind {
    /// The flag of a mechanism that does it.
    pub(crate) const fn flag(self) -> sys::CK_FLAGS {
        match self {
            Self::Sign => sys::CKF_SIGN,
            Self::Verify => sys::CKF_VERIFY,
            Self::Encrypt => sys::CKF_ENCRYPT,
            Self::Decrypt => sys::CKF_DECRYPT,
        }
    }
}

impl Active {
    /// Checks that the key may do this with this mechanism.
    pub(crate) fn new(kind: Kind, object: Arc<Object>, how: Mechanism) -> Result<Self, sys::CK_RV> {
        let key = object.key().ok_or(sys::CKR_KEY_HANDLE_INVALID)?.clone();
        if !how.fits(&key) {
            return Err(sys::CKR_KEY_TYPE_INCONSISTENT);
        }
        let needed = match kind {
            Kind::Sign => sys::CKA_SIGN,
            Kind::Verify => sys::CKA_VERIFY,
            Kind::Encrypt => sys::CKA_ENCRYPT,
            Kind::Decrypt => sys::CKA_DECRYPT,
        };
        if !object.flag(needed) {
            return Err(sys::CKR_KEY_FUNCTION_NOT_PERMITTED);
        }
        Ok(Self { kind, object, key, how, wrong: Vec::new(), held_back: Vec::new() })
    }

    /// As a device runs it that does this wrongly.
    pub(crate) fn going_wrong(mut self, wrong: &[Wrong]) -> Self {
        match &mut self.how {
            Mechanism::Cbc { iv, .. } if wrong.contains(&Wrong::Cbc) => iv[0] ^= 0xff,
            Mechanism::AesCtr { block, .. } if wrong.contains(&Wrong::Ctr) => block[0] ^= 0xff,
            _ => {}
        }
        self.wrong = wrong.to_vec();
        self
    }

    /// Length of the output for an input of so many bytes, or the most that it can be.
    pub(crate) fn output_len(&self, input_len: usize) -> usize {
        match (self.kind, &self.how) {
            (Kind::Sign | Kind::Verify, how) => how.signature_len(&self.key),
            (Kind::Encrypt, how) => how.encrypted_len(input_len),
            (Kind::Decrypt, how) => how.decrypted_len_max(&self.key, input_len),
        }
    }

    /// Runs a signature, encryption or decryption.
    pub(crate) fn run(&self, input: &[u8], random: &Random) -> Result<Vec<u8>, sys::CK_RV> {
        match self.kind {
            Kind::Sign => crypto::sign(&self.key, &self.how, input, random),
            Kind::Encrypt => Ok(self.spoilt(Wrong::Ecb, self.cipher(input)?)),
            Kind::Decrypt => Ok(self.spoilt(Wrong::EcbDecrypt, self.cipher(input)?)),
            Kind::Verify => Err(sys::CKR_OPERATION_NOT_INITIALIZED),
        }
    }

    /// Length of the output for a part of so many bytes. `holds_back`: the last block waits for the next part.
    pub(crate) fn part_len(&self, input_len: usize, holds_back: bool) -> Result<usize, sys::CK_RV> {
        let Mechanism::Ecb(cipher) = self.how else { return Err(sys::CKR_FUNCTION_NOT_SUPPORTED) };
        let all = self.held_back.len() + input_len;
        if !all.is_multiple_of(cipher.block_len()) {
            return Err(sys::CKR_DATA_LEN_RANGE);
        }
        Ok(if holds_back { all.saturating_sub(cipher.block_len()) } else { all })
    }

    /// Takes a part.
    pub(crate) fn part(&mut self, input: &[u8], holds_back: bool) -> Result<Vec<u8>, sys::CK_RV> {
        let len = self.part_len(input.len(), holds_back)?;
        self.held_back.extend_from_slice(input);
        let rest = self.held_back.split_off(len);
        let part = std::mem::replace(&mut self.held_back, rest);
        Ok(self.spoilt(Wrong::EcbParts, self.cipher(&part)?))
    }

    /// What was taken and has not come out yet.
    pub(crate) fn held_back(&self) -> &[u8] {
        &self.held_back
    }

    /// What is left to come out at the end.
    pub(crate) fn rest(&self) -> Result<Vec<u8>, sys::CK_RV> {
        self.cipher(&self.held_back)
    }

    /// An output of a call that may go wrong in this way: then the first block is right, and the others are not.
    fn spoilt(&self, how: Wrong, mut output: Vec<u8>) -> Vec<u8> {
        if let Mechanism::Ecb(cipher) = self.how
            && (self.wrong.contains(&Wrong::Ecb) || self.wrong.contains(&how))
        {
            output.iter_mut().skip(cipher.block_len()).for_each(|byte| *byte ^= 0xff);
        }
        output
    }

    fn cipher(&self, blocks: &[u8]) -> Result<Vec<u8>, sys::CK_RV> {
        match self.kind {
            Kind::Encrypt => crypto::encrypt(&self.key, &self.how, blocks),
            Kind::Decrypt => crypto::decrypt(&self.key, &self.how, blocks),
            Kind::Sign | Kind::Verify => Err(sys::CKR_OPERATION_NOT_INITIALIZED),
        }
    }

    /// Runs a verification.
    pub(crate) fn verify(&self, input: &[u8], signature: &[u8]) -> Result<(), sys::CK_RV> {
        crypto::verify(&self.key, &self.how, input, signature)
    }
}
