//! What ciphers have made, checked by the inverse operation of the token: it errs elsewhere if it errs again.

use zeroize::Zeroizing;

use super::{Answer, Finding};
use crate::coalesce::{self, Message, Mode};
use crate::pkcs11::{self, Direction, Fault, ObjectHandle};
use crate::token::facts::{KeyFacts, PublicKey};
use crate::token::mechanism::AES_BLOCK_LEN;
use crate::token::session::{Failed, Session, with_iv, without_iv};
use crate::token::software;
use crate::token::task::{Handles, Mechanism};

/// What a cipher was given and has made of it.
#[derive(Clone, Copy)]
pub(super) struct Made<'a> {
    pub(super) direction: Direction,
    pub(super) key: ObjectHandle,
    pub(super) mechanism: &'a Mechanism,
    /// Empty for mechanisms that have none.
    pub(super) iv: &'a [u8],
    pub(super) from: &'a [u8],
    pub(super) to: &'a [u8],
}

impl Made<'_> {
    /// The way back.
    const fn inverse(self) -> Self {
        let direction = match self.direction {
            Direction::Encrypt => Direction::Decrypt,
            Direction::Decrypt => Direction::Encrypt,
        };
        Self { direction, from: self.to, to: self.from, ..self }
    }

    /// Whether enciphering again what was deciphered is bound to make the same ciphertext. Not where padding is taken
    /// off: RSA's is random, and a module that looks at little of CBC's accepts some that it would not make, which whoever
    /// sends ciphertexts could take its token out with.
    const fn is_invertible(&self) -> bool {
        match self.mechanism {
            Mechanism::AesGcm { .. }
            | Mechanism::AesEcb
            | Mechanism::AesCbc(_)
            | Mechanism::TripleDesEcb
            | Mechanism::TripleDesCbc(_) => true,
            Mechanism::AesCbcPad(_) | Mechanism::TripleDesCbcPad(_) => {
                matches!(self.direction, Direction::Encrypt)
            }
            _ => false,
        }
    }
}

impl Session {
    /// Nothing is open in the session.
    pub(super) fn find_cipher(
        &mut self,
        made: &Made<'_>,
        facts: Option<&KeyFacts>,
    ) -> Result<Finding, Failed> {
        match made.mechanism {
            Mechanism::AesCtr { counter_bits, .. } => return self.find_ctr(made, *counter_bits, facts),
            // A second answer to a bad padding could be another: see `VerifyOutputs`.
            Mechanism::RsaPkcs1 | Mechanism::Raw { .. } => return Ok(Finding::Unknown),
            _ => {}
        }
        let may_invert = facts.is_some_and(|facts| match made.direction {
            Direction::Encrypt => facts.decrypt,
            Direction::Decrypt => facts.encrypt,
        });
        if may_invert && made.is_invertible() {
            match self.ask_twice(&made.inverse())? {
                Answer::Right => return Ok(Finding::Right),
                Answer::Wrong | Answer::Refused => return Ok(Finding::Wrong),
                Answer::NotAsked => {}
            }
        }
        self.find_again(made)
    }

    /// What the bare function of RSA has deciphered gives the ciphertext when it is raised to the public exponent.
    pub(super) fn find_bare_rsa(&mut self, made: &Made<'_>, handles: &Handles) -> Result<Finding, Failed> {
        let public = handles.facts().and_then(|facts| facts.public.as_ref());
        let fits = |public: &PublicKey| software::is_bare_rsa(public, made.from, made.to);
        match public.and_then(fits) {
            Some(true) => {
                handles.note_public_fits();
                Ok(Finding::Right)
            }
            Some(false) if handles.public_fits() => Ok(Finding::Wrong),
            // The same twice: the public half may be another key's.
            Some(false) => Ok(match self.find_again(made)? {
                Finding::Wrong => Finding::Wrong,
                _ => Finding::Unfit,
            }),
            None => self.find_again(made),
        }
    }

    /// The same operation again makes the same.
    fn find_again(&mut self, made: &Made<'_>) -> Result<Finding, Failed> {
        Ok(match self.ask_twice(made)? {
            Answer::Right => Finding::Right,
            Answer::Wrong | Answer::Refused => Finding::Wrong,
            Answer::NotAsked => Finding::Unknown,
        })
    }

    /// CTR is its own inverse, and a bit that comes out wrong at the same place twice would be right again: the key
    /// stream is made by ECB, behind a block that is there for nothing but to shift it.
    fn find_ctr(
        &mut self,
        made: &Made<'_>,
        counter_bits: u32,
        facts: Option<&KeyFacts>,
    ) -> Result<Finding, Failed> {
        let ecb = Mechanism::AesEcb.number();
        let may_use_ecb = facts.is_some_and(|facts| facts.encrypt && facts.allows(ecb));
        if !may_use_ecb {
            return self.find_again(made);
        }
        let mut shift = Zeroizing::new([0; AES_BLOCK_LEN]);
        let mut out = Zeroizing::new(vec![0; made.from.len()]);
        let mut messages = [
            Message { iv: made.iv, input: &[0; AES_BLOCK_LEN], output: &mut *shift },
            Message { iv: made.iv, input: made.from, output: &mut out },
        ];
        let mut blocks = std::mem::take(&mut self.blocks);
        let mode = Mode::Ctr { counter_bits };
        let served = coalesce::serve(mode, AES_BLOCK_LEN, &mut messages, &mut blocks, |to, from| match self
            .raw
            .encrypt(made.key, &pkcs11::Mechanism::Plain(ecb), to, from)
        {
            Ok(written) if written == to.len() => Ok(()),
            Ok(_) => Err(None),
            Err(fault) => Err(Some(fault)),
        });
        self.blocks = blocks;
        match served {
            Ok(()) if *out == made.to => Ok(Finding::Right),
            Ok(()) | Err(None) => Ok(Finding::Wrong),
            Err(Some(fault)) => match Answer::of(fault)? {
                Answer::NotAsked => self.find_again(made),
                _ => Ok(Finding::Wrong),
            },
        }
    }

    /// Whether a cipher makes this of that. Whether it refuses what it has made itself it is asked twice: modules answer
    /// `CKR_GENERAL_ERROR` to a wrong tag, which may be the fault of a moment, too.
    fn ask_twice(&mut self, wanted: &Made<'_>) -> Result<Answer, Failed> {
        match self.ask(wanted)? {
            Answer::Refused => self.ask(wanted),
            answer => Ok(answer),
        }
    }

    pub(super) fn ask(&mut self, wanted: &Made<'_>) -> Result<Answer, Failed> {
        let Made { direction, key, mechanism, iv, from, to } = *wanted;
        // Some modules want room for a block more than comes out.
        let mut out = Zeroizing::new(vec![0; from.len().max(to.len()) + AES_BLOCK_LEN]);
        let mut run = |how: &pkcs11::Mechanism<'_>| -> Result<usize, Fault> {
            match direction {
                Direction::Encrypt => self.raw.encrypt(key, how, from, &mut out),
                Direction::Decrypt => self.raw.decrypt(key, how, from, &mut out),
            }
        };
        let answered = match mechanism.iv() {
            Some(_) => with_iv(mechanism, iv, |how| Ok(run(how)))?,
            None => run(&without_iv(mechanism)),
        };
        match answered {
            Ok(written) if out.get(..written) == Some(to) => Ok(Answer::Right),
            Ok(_) => Ok(Answer::Wrong),
            Err(fault) => Answer::of(fault),
        }
    }
}
