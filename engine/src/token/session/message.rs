//! AES-GCM as messages of PKCS#11 3.x, under an Init that stays open from one request to the next.

use cryptoki_sys as sys;
use zeroize::Zeroizing;

use super::{Failed, Fate, Session, draw, internal};
use crate::clock::now;
use crate::error::{Error, ErrorKind, Outcome, Retry};
use crate::pkcs11::{self, Direction, Fault, MESSAGE_IV_LEN, Message};
use crate::token::message::{Of, Way};
use crate::token::task::{Call, GCM_IV_LEN, GCM_TAG_LEN, Iv, Mechanism};

/// What a request gives to a message, besides the key.
#[derive(Clone, Copy)]
pub(super) struct Given<'a> {
    iv: &'a Iv,
    aad: &'a [u8],
    input: &'a [u8],
}

impl Session {
    /// What of a call goes as a message of AES-GCM, if the token takes such.
    pub(super) fn as_message<'a>(&self, call: &'a Call, input: &'a [u8]) -> Option<(Direction, Given<'a>)> {
        let (direction, mechanism) = match call {
            Call::Encrypt(mechanism) => (Direction::Encrypt, mechanism),
            Call::Decrypt(mechanism) => (Direction::Decrypt, mechanism),
            Call::Sign(_) | Call::Random => return None,
        };
        match mechanism {
            Mechanism::AesGcm { iv, aad } if self.messages.is_offered(direction) => {
                Some((direction, Given { iv, aad: aad.as_deref().unwrap_or_default(), input }))
            }
            _ => None,
        }
    }

    /// Runs a call as a message. None if it is to be run by Init and one call, for which nothing is open then.
    pub(super) fn message(
        &mut self,
        of: Of,
        given: Given<'_>,
        output: &mut [u8],
    ) -> Option<Result<usize, Failed>> {
        let (now, changes) = (now(), self.hold.changes());
        let (way, fits) = (self.messages.next(of, now, changes), given.fits());
        if way != Way::Open || !fits {
            if let Err(failed) = self.end_messages() {
                return Some(Err(failed));
            }
            if way != Way::Begin || !fits {
                return None;
            }
            if let Err(fault) = self.raw.begin_messages(of.direction, of.key) {
                if fault.is_unsupported() {
                    self.messages.refuse(of.direction);
                }
                // Init by itself says what is wrong with the key, if anything is; a session that is lost says so.
                return match Failed::from(fault) {
                    Failed { fate: Fate::Keep, .. } => None,
                    failed => Some(Err(failed)),
                };
            }
            self.messages.begun(of, now, changes);
        }
        let made = self.run_message(of.direction, given, output);
        if !self.messages.is_proven(of.direction) {
            return self.prove(of, given, made, output);
        }
        match made {
            Err(Fail::Fault(fault)) if fault.is(sys::CKR_OPERATION_NOT_INITIALIZED) => {
                self.messages.was_lost();
                None
            }
            Err(Fail::Fault(fault)) if fault.is_unsupported() => {
                self.messages.refuse(of.direction);
                self.end_messages().err().map(Err)
            }
            Err(Fail::Fault(fault)) => Some(Err(self.message_failed(fault))),
            Err(Fail::Failed(failed)) => Some(Err(failed)),
            Ok(written) => Some(Ok(written)),
        }
    }

    /// The first message of a session is run the old way too, under the same IV, and the answers are compared: a module
    /// whose messages are not what they should be costs some calls, and no request. None if it is to be run by Init
    /// and one call.
    fn prove(
        &mut self,
        of: Of,
        given: Given<'_>,
        made: Result<usize, Fail>,
        output: &mut [u8],
    ) -> Option<Result<usize, Failed>> {
        let made = match made {
            // No IV may have been drawn, and none but a drawn one is used.
            Err(Fail::Failed(failed)) => return Some(Err(failed)),
            Err(Fail::Fault(fault)) => Err(Failed::from(fault)),
            Ok(written) => Ok(written),
        };
        if made.as_ref().is_err_and(|failed| failed.fate.is_loss()) {
            return Some(made);
        }
        if let Err(failed) = self.end_messages() {
            return Some(Err(failed));
        }
        let front_len = if *given.iv == Iv::Drawn { GCM_IV_LEN } else { 0 };
        let iv = match given.iv {
            Iv::Given(iv) => iv.as_slice(),
            Iv::Drawn => output.get(..front_len)?,
        };
        let how = pkcs11::Mechanism::Gcm { iv, aad: given.aad, tag_len: GCM_TAG_LEN };
        let mut other = Zeroizing::new(vec![0; output.len() - front_len]);
        let again = match of.direction {
            Direction::Encrypt => self.raw.encrypt(of.key, &how, given.input, &mut other),
            Direction::Decrypt => self.raw.decrypt(of.key, &how, given.input, &mut other),
        };
        match (made, again) {
            (Ok(written), Ok(len)) if output.get(front_len..written) == other.get(..len) => {
                self.messages.prove(of.direction);
                Some(Ok(written))
            }
            // Refused either way: it is the request, and says nothing of messages.
            (Err(_), Err(fault)) => Some(Err(Failed::from(fault))),
            (Ok(_), Err(fault)) if Failed::from(fault).fate != Fate::Keep => Some(Err(Failed::from(fault))),
            _ => {
                self.messages.refuse(of.direction);
                None
            }
        }
    }

    /// One message. Of a ciphertext the tag is the end, and an IV that is drawn here the front.
    fn run_message(
        &mut self,
        direction: Direction,
        given: Given<'_>,
        output: &mut [u8],
    ) -> Result<usize, Fail> {
        let Given { iv, aad, input } = given;
        let no_room = || Fail::Failed(internal("no room for an IV or a tag"));
        match direction {
            Direction::Encrypt => {
                let front_len = if *iv == Iv::Drawn { GCM_IV_LEN } else { 0 };
                let (front, rest) = output.split_at_mut_checked(front_len).ok_or_else(no_room)?;
                let iv = drawn_into(front, iv)?;
                let (body, tag) = rest.split_last_chunk_mut().ok_or_else(no_room)?;
                let message = Message { iv: &iv, aad, tag };
                let written = self.raw.message(direction, message, input, body)?;
                // A module that wrote less has left no tag where one belongs; the check of lengths says so.
                let len = if written == body.len() { written + GCM_TAG_LEN } else { written };
                Ok(front.len() + len)
            }
            Direction::Decrypt => {
                let iv = whole(iv).ok_or_else(|| Fail::Failed(internal("decryption without an IV")))?;
                let (body, tag) = input.split_last_chunk().ok_or_else(no_room)?;
                let message = Message { iv, aad, tag: &mut { *tag } };
                Ok(self.raw.message(direction, message, body, output)?)
            }
        }
    }

    /// A message failed: the request has failed, and nothing is left open.
    fn message_failed(&mut self, fault: Fault) -> Failed {
        let failed = Failed::from(fault);
        if failed.fate == Fate::Keep && self.end_messages().is_err() {
            return Failed { fate: Fate::Close, ..failed };
        }
        failed
    }

    /// Ends the messages that are open, for whatever needs the session for something else. A module that has ended
    /// them by itself is fine.
    pub(super) fn end_messages(&mut self) -> Result<(), Failed> {
        let Some(direction) = self.messages.open() else { return Ok(()) };
        self.messages.ended();
        if self.is_over() {
            return Ok(());
        }
        match self.raw.end_messages(direction) {
            Err(fault) if !fault.is(sys::CKR_OPERATION_NOT_INITIALIZED) => {
                // Whatever it answers, an operation may be active: the request goes to another session.
                let error = Error::new(ErrorKind::SessionLost, Retry::Now, Outcome::NotDone);
                let fate = Failed::from(fault).fate;
                Err(Failed { error, fate: if fate.is_loss() { fate } else { Fate::Close } })
            }
            _ => Ok(()),
        }
    }
}

impl Given<'_> {
    /// Whether it can go as a message at all: modules are told the length of IVs by Init.
    fn fits(&self) -> bool {
        *self.iv == Iv::Drawn || whole(self.iv).is_some()
    }
}

/// Why a message did not come out.
enum Fail {
    /// What the module answered.
    Fault(Fault),
    /// It was never asked.
    Failed(Failed),
}

impl From<Fault> for Fail {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// The IV of a message: this one, or one that is drawn into `front`.
fn drawn_into(front: &mut [u8], iv: &Iv) -> Result<[u8; MESSAGE_IV_LEN], Fail> {
    if let Some(iv) = whole(iv) {
        return Ok(*iv);
    }
    draw(front).map_err(Fail::Failed)?;
    (&*front).try_into().map_err(|_| Fail::Failed(internal("no room for an IV")))
}

/// An IV that was given, if messages can have it.
fn whole(iv: &Iv) -> Option<&[u8; MESSAGE_IV_LEN]> {
    match iv {
        Iv::Given(iv) => iv.as_slice().try_into().ok(),
        Iv::Drawn => None,
    }
}
