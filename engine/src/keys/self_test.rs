//! Self-test of coalescing: requests of a block cipher share calls on a token only after it has shown, on a key that is
//! thrown away, that a shared call makes the same bytes as single ones.
//!
//! It is run when the first key of a kind (type and length) is asked for, on the token's service session: where
//! [`Engine::key`](crate::Engine::key) blocks anyway, so that no request and no thread that polls waits for it, and a
//! request only looks at a mask. Once per token and not per module, because the tokens of one module may be devices
//! of several makes and versions.
//!
//! Where a mode fails, and where no such key can be made (a policy, a mechanism that is missing), nothing is proven,
//! and what is not proven never shares calls. That holds for plain ECB as for modes on the host: a single call is
//! slower and always right, and a wrong block would be noticed by nobody.

use std::sync::Arc;

use cryptoki_sys as sys;

use crate::coalesce::{self, Blocks, Family, Message, Mode};
use crate::error::{Error, ErrorKind, Outcome, Result, Retry};
use crate::keys::generate::generate_throw_away;
use crate::keys::may_use_ecb;
use crate::pkcs11::{Direction, Mechanism, ObjectHandle, Session};
use crate::token::Token;
use crate::token::facts::{KeyFacts, KeyKind};
use crate::token::hold::Holds;
use crate::token::proofs::Proof;
use crate::token::task::{AES_BLOCK_LEN, DES_BLOCK_LEN};

/// Those tokens of a mask on which requests under a key may share calls, by [`Family`]; tests what was not tested before.
pub(super) fn passed_by(facts: &KeyFacts, mask: u64, tokens: &[Arc<Token>]) -> [u64; Family::ALL.len()] {
    let mut passed = [0; Family::ALL.len()];
    let Some(cipher) = Cipher::of(facts.kind).filter(|_| may_use_ecb(facts)) else { return passed };
    for index in crate::schedule::dispatch::tokens(mask) {
        let Some(token) = tokens.get(index).filter(|token| token.proofs.are_wanted()) else { continue };
        if !token.offers(cipher.ecb) {
            continue;
        }
        let proof = token.proofs.of(facts.kind).unwrap_or_else(|| prove(token, facts.kind, cipher));
        for family in Family::ALL {
            passed[family as usize] |= u64::from(proof.of(family)) << index;
        }
    }
    passed
}

/// Tests a kind of keys on a token. What it says of the outcome is said on the caller's thread.
fn prove(token: &Token, kind: KeyKind, cipher: Cipher) -> Proof {
    let proofs = Arc::clone(&token.proofs);
    let listed =
        Family::ALL.map(|family| cipher.mechanism(family).is_some_and(|number| token.offers(number)));
    let holds = Arc::clone(&token.holds);
    let proven = token.with_service(move |session, _| {
        // Two threads may have asked for keys of the kind at the same time.
        if let Some(proof) = proofs.of(kind) {
            return Ok(proof);
        }
        let proof = test(session, kind, cipher, listed, &holds);
        match &proof {
            Ok(proof) => proofs.remember(kind, *proof),
            Err(error) if is_settled(error.kind()) => proofs.remember(kind, Proof::default()),
            // Another key of the kind tries again when it is asked for.
            Err(_) => {}
        }
        proof
    });
    let token = token.index;
    match proven {
        Ok(proof) => {
            let failed: Vec<_> = Family::ALL.into_iter().filter(|&family| !proof.of(family)).collect();
            if !failed.is_empty() {
                tracing::warn!(token, ?kind, ?failed, "shared calls differ from single ones: not used");
            }
            proof
        }
        Err(error) => {
            tracing::warn!(token, ?kind, %error, "no proof that shared calls are right: not used");
            Proof::default()
        }
    }
}

/// Tests a kind of keys on a key that is gone afterwards.
///
/// # Errors
/// If nothing was shown: no key could be made, or blocks could not be enciphered.
fn test(
    session: &mut Session,
    kind: KeyKind,
    cipher: Cipher,
    listed: [bool; Family::ALL.len()],
    holds: &Holds,
) -> Result<Proof> {
    let key = generate_throw_away(session, kind)?;
    let mut trial = Trial { session, key, cipher };
    let proof = trial.run(listed, holds);
    // It goes with the session in any case.
    let _destroyed = session.destroy(key);
    proof
}

/// A block cipher, with the numbers of its mechanisms.
#[derive(Clone, Copy)]
struct Cipher {
    block: usize,
    ecb: sys::CK_MECHANISM_TYPE,
    ctr: Option<sys::CK_MECHANISM_TYPE>,
    cbc: sys::CK_MECHANISM_TYPE,
}

impl Cipher {
    const fn of(kind: KeyKind) -> Option<Self> {
        match kind {
            KeyKind::Aes { .. } => {
                let (ctr, cbc) = (Some(sys::CKM_AES_CTR), sys::CKM_AES_CBC);
                Some(Self { block: AES_BLOCK_LEN, ecb: sys::CKM_AES_ECB, ctr, cbc })
            }
            KeyKind::TripleDes { .. } => {
                let (ecb, cbc) = (sys::CKM_DES3_ECB, sys::CKM_DES3_CBC);
                Some(Self { block: DES_BLOCK_LEN, ecb, ctr: None, cbc })
            }
            _ => None,
        }
    }

    const fn mechanism(self, family: Family) -> Option<sys::CK_MECHANISM_TYPE> {
        match family {
            Family::Ecb => Some(self.ecb),
            Family::Ctr => self.ctr,
            Family::Cbc => Some(self.cbc),
        }
    }
}

/// How many bits of the counter blocks count: as many as where the engine draws them. Any number would do, for what
/// would overflow is refused before.
const COUNTER_BITS: u32 = 32;

/// A key that nobody uses for anything else.
struct Trial<'a> {
    session: &'a mut Session,
    key: ObjectHandle,
    cipher: Cipher,
}

impl Trial<'_> {
    /// A mode that the token does not list passes: no request for it comes to the token.
    fn run(&mut self, listed: [bool; Family::ALL.len()], holds: &Holds) -> Result<Proof> {
        let mut proof = Proof::default();
        if !self.agrees(Family::Ecb)? {
            return Ok(proof);
        }
        if holds.are_wanted() && !self.agrees_in_parts()? {
            tracing::warn!("parts of an operation differ from whole calls: none is held open");
            holds.turn_off();
        }
        proof.0[Family::Ecb as usize] = true;
        for family in [Family::Ctr, Family::Cbc] {
            let index = family as usize;
            proof.0[index] = !listed[index]
                || match self.agrees(family) {
                    // The mode's own: ECB has just worked.
                    Err(error) if is_settled(error.kind()) => false,
                    agrees => agrees?,
                };
        }
        Ok(proof)
    }

    /// Whether shared calls make of messages what a call for each makes, and these of that again.
    fn agrees(&mut self, family: Family) -> Result<bool> {
        let (forwards, backwards) = match family {
            Family::Ecb => (Mode::EcbEncrypt, Mode::EcbDecrypt),
            Family::Ctr => [Mode::Ctr { counter_bits: COUNTER_BITS }; 2].into(),
            Family::Cbc => (Mode::CbcEncrypt, Mode::CbcDecrypt),
        };
        let plains = self.messages(family);
        let singles = self.one_by_one(family, &plains)?;
        Ok(self.together(forwards, &plains)? == singles && self.together(backwards, &singles)? == plains)
    }

    /// As [`Trial::agrees`] for ECB, in parts of an operation, which is how sessions run it that hold one open. A module
    /// that keeps blocks back, or takes no parts, tells the session that tries, and is not used so.
    fn agrees_in_parts(&mut self) -> Result<bool> {
        let plain = self.messages(Family::Ecb).concat();
        let mut sealed = vec![0; plain.len()];
        self.blocks(Direction::Encrypt, &plain, &mut sealed)?;
        for (direction, given, wanted) in
            [(Direction::Encrypt, &plain, &sealed), (Direction::Decrypt, &sealed, &plain)]
        {
            let mut out = vec![0; given.len()];
            self.session.begin_parts(direction, self.key, self.cipher.ecb)?;
            let written = self.session.part(direction, given, &mut out);
            // An error has ended the operation, and then there is none to end.
            let _ended = self.session.end_parts(direction);
            if written.is_ok_and(|written| written == given.len()) && out != *wanted {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Of ECB single blocks; else of several lengths.
    fn messages(&self, family: Family) -> Vec<Vec<u8>> {
        let block = self.cipher.block;
        let lengths = match family {
            Family::Ecb => vec![block; 4],
            Family::Ctr => vec![block + 5, 2 * block],
            Family::Cbc => vec![2 * block, block],
        };
        // The bytes of all messages differ, and so do all blocks.
        let mut bytes = 0_u8..;
        lengths.into_iter().map(|len| bytes.by_ref().take(len).collect()).collect()
    }

    /// What the token makes of messages by a call for each.
    fn one_by_one(&mut self, family: Family, messages: &[Vec<u8>]) -> Result<Vec<Vec<u8>>> {
        let Cipher { block, ecb, cbc, .. } = self.cipher;
        let seal = |(message, iv): (&Vec<u8>, _)| {
            let how = match family {
                Family::Ecb => Mechanism::Plain(ecb),
                Family::Ctr => Mechanism::Ctr { block: iv, counter_bits: COUNTER_BITS },
                Family::Cbc => Mechanism::Bytes(cbc, &iv[..block]),
            };
            let mut sealed = vec![0; message.len()];
            let written = self.session.encrypt(self.key, &how, message, &mut sealed)?;
            sealed.truncate(written);
            Ok(sealed)
        };
        messages.iter().zip(IVS).map(seal).collect()
    }

    /// What comes of messages by as few calls as their mode takes, the way requests go.
    fn together(&mut self, mode: Mode, given: &[Vec<u8>]) -> Result<Vec<Vec<u8>>> {
        let block = self.cipher.block;
        let direction = if mode.enciphers() { Direction::Encrypt } else { Direction::Decrypt };
        let mut outputs: Vec<_> = given.iter().map(|input| vec![0; input.len()]).collect();
        let of =
            |((input, output), iv): ((_, _), &'static [u8; 16])| Message { iv: &iv[..block], input, output };
        let messages = given.iter().map(Vec::as_slice).zip(outputs.iter_mut().map(Vec::as_mut_slice));
        let mut messages: Vec<_> = messages.zip(&IVS).map(of).collect();
        coalesce::serve(mode, block, &mut messages, &mut Blocks::default(), |to, from| {
            self.blocks(direction, to, from)
        })?;
        Ok(outputs)
    }

    /// Enciphers or deciphers blocks by one call.
    fn blocks(&mut self, direction: Direction, to: &[u8], from: &mut [u8]) -> Result<()> {
        let how = Mechanism::Plain(self.cipher.ecb);
        let written = match direction {
            Direction::Encrypt => self.session.encrypt(self.key, &how, to, from)?,
            Direction::Decrypt => self.session.decrypt(self.key, &how, to, from)?,
        };
        if written == to.len() { Ok(()) } else { Err(short()) }
    }
}

/// An IV for each message.
static IVS: [[u8; 16]; 4] = [iv(1), iv(2), iv(3), iv(4)];

/// As a counter it carries from byte to byte at its second block.
const fn iv(n: u8) -> [u8; 16] {
    [n, n, n, n, n, n, n, n, n, n, n, n, 0, 0, 0, 0xff]
}

/// Whether a test that failed so would fail again.
const fn is_settled(kind: ErrorKind) -> bool {
    !matches!(kind, ErrorKind::Busy | ErrorKind::SessionLost | ErrorKind::TokenLost)
}

fn short() -> Error {
    Error::new(ErrorKind::Device, Retry::Never, Outcome::Done)
        .because("the module wrote another length than it was given")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pkcs11::{Fault, Function};

    #[test]
    fn a_token_that_makes_no_such_keys_is_asked_once_and_one_that_is_busy_again() {
        let settled = |code| is_settled(Error::from(Fault::new(Function::GenerateKey, code)).kind());
        let refusals = [sys::CKR_MECHANISM_INVALID, sys::CKR_TEMPLATE_INCONSISTENT, sys::CKR_FUNCTION_FAILED];
        assert!(refusals.into_iter().all(settled));
        let passing = [sys::CKR_DEVICE_MEMORY, sys::CKR_SESSION_HANDLE_INVALID, sys::CKR_HOST_MEMORY];
        assert!(!passing.into_iter().any(settled));
    }
}
